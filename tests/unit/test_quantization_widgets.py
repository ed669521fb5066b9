"""The widgets of the quantization lesson with no browser: move a control, and look at what they draw and say."""

from __future__ import annotations

import ast
import html
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import ipywidgets as widgets
import numpy as np
import pytest

from labkit import runtimes
from labkit.errors import Cancelled, ConfigError, DataError, LabkitError
from labkit.progress import Progress, silent
from labkit.quantize.arithmetic.grid import weight_grid
from labkit.quantize.calibration.histogram import Histogram, Range
from labkit.quantize.calibration.observers import (
    CALIBRATORS,
    MeanSquaredError,
    expected_error,
    make_observer,
    mean_square,
)
from labkit.quantize.sensitivity import Choice
from labkit.widgets import (
    ClippingExplorer,
    GridExplorer,
    MixedGame,
    assignment_table,
    clipping_table,
    draw_assignment,
    draw_clipping,
    draw_grid,
    grid_table,
    make_grid,
    points_view,
    svg,
    sweep_clipping,
    tally,
    watch,
)
from labkit.widgets.grid_rows import GRANULARITIES, MOST_WEIGHTS, SYMMETRIES, grid_figures, grid_rows

HOSTILE = '<img src=x onerror="alert(1)">'
SVG = "{http://www.w3.org/2000/svg}"
ANSWERS_WITHIN_S = 0.2  # of CPU time, the best of five: a busy machine does not matter
WAIT_S = 30.0


def all_html(widget: Any) -> str:
    """Everything that a widget and its parts say in HTML."""
    return "\n".join(each.value for each in _all(widget) if isinstance(each, widgets.HTML))


def _all(widget: Any) -> Iterator[Any]:
    yield widget
    for child in getattr(widget, "children", ()):
        yield from _all(child)


def words(drawing: str) -> list[str]:
    """Every text in a drawing; it must be sound XML."""
    return [each.text or "" for each in ElementTree.fromstring(drawing).iter(f"{SVG}text")]


def cpu_s(*changes: Callable[[], object]) -> float:
    """The CPU time of the dearest of `changes`, each the best of five, in seconds."""
    found = []
    for change in changes:
        times = []
        for _ in range(5):
            start = time.process_time()
            change()
            times.append(time.process_time() - start)
        found.append(min(times))
    return max(found)


@pytest.fixture
def no_model_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for a runtime, fails."""

    def refuse(*arguments: object) -> None:
        raise AssertionError("a slider must run no model")

    monkeypatch.setattr(runtimes, "get_runtime", refuse)
    monkeypatch.setattr("labkit.quantize.calibration.calibrate.get_runtime", refuse)
    for engine in ("onnxruntime.InferenceSession.__init__", "torch.nn.Module.__call__"):
        monkeypatch.setattr(engine, refuse)


def weights(channels: int = 4) -> np.ndarray:
    """Channels of 3×3 weights, each a fifth of the one before it."""
    drawn = np.random.default_rng(0).normal(size=(channels, 1, 3, 3))
    return (drawn * 0.2 ** np.arange(channels).reshape(-1, 1, 1, 1)).astype(np.float32)


# Shapes


@pytest.mark.parametrize("low, high", [(-1.0, 1.0), (0.0, 3e-7), (-17.3, 4021.0), (5.0, 6.0)])
def test_ticks_are_few_and_inside_the_axis(low: float, high: float) -> None:
    ticks = svg.Axis(low, high, 0, 100).ticks(8)
    assert 3 <= len(ticks) <= 9
    assert all(low - 1e-9 * abs(low) <= tick <= high * (1 + 1e-9) for tick in ticks)
    assert np.allclose(np.diff(ticks), ticks[1] - ticks[0])


def test_a_logarithmic_axis_has_powers_of_ten_and_stops_at_its_ends() -> None:
    axis = svg.Axis(0.01, 100.0, 0, 400, log=True)
    assert axis.ticks(10) == pytest.approx([0.01, 0.1, 1, 10, 100])
    assert [axis(each) for each in (0.0, 0.01, 1.0, 1e9)] == pytest.approx([0, 0, 200, 400])


def test_a_long_name_keeps_both_its_ends() -> None:
    assert svg.shorten("blocks.12.conv1.weight", 11) == "block…eight"
    assert svg.shorten("conv1", 11) == "conv1"


# The grid


@pytest.mark.parametrize("bits", [2, 3, 8])
@pytest.mark.parametrize("symmetry", SYMMETRIES)
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_every_row_rounds_as_the_whole_grid_does(bits: int, symmetry: str, granularity: str) -> None:
    x = weights().reshape(4, -1)
    grid = make_grid(x, bits, symmetry, granularity, group_size=4)  # 9 weights: the last group is short
    rows = grid_rows(x, grid)
    assert len(rows) == (12 if granularity == "per_group" else 4)
    rounded = np.concatenate([row.grid.round(row.weights) for row in rows])
    np.testing.assert_array_equal(rounded, grid.round(x).ravel())
    assert all(len(row.points) == 2**bits and (np.diff(row.points) > 0).all() for row in rows)
    scale = np.concatenate([np.full(row.weights.shape, row.grid.scale) for row in rows])
    assert (np.abs(np.concatenate([row.errors for row in rows])) <= 0.5001 * scale).all()


@pytest.mark.parametrize(
    "granularity, axis, size", list(zip(GRANULARITIES, (None, 0, 1), (0, 0, 4), strict=True))
)
def test_a_symmetric_grid_is_that_of_the_arithmetic(granularity: str, axis: int | None, size: int) -> None:
    x = weights().reshape(4, -1)
    made, expected = make_grid(x, 4, "symmetric", granularity, 4), weight_grid(x, axis, 4, size)
    np.testing.assert_array_equal(made.scale, expected.scale)
    np.testing.assert_array_equal(made.zero_point, expected.zero_point)


def test_an_asymmetric_grid_spends_nothing_on_what_is_not_there() -> None:
    x = np.linspace(0, 1, 9)
    symmetric, asymmetric = (make_grid(x, 4, symmetry) for symmetry in SYMMETRIES)
    assert asymmetric.scale == pytest.approx(1 / 15) and symmetric.scale == pytest.approx(1 / 7)


def test_the_figures_of_a_grid_are_right() -> None:
    x = np.array([[0.0, 0.4, 1.0, -1.0]])
    figures = grid_figures(x, make_grid(x, bits=2))  # -2, -1, 0, 1
    assert figures["largest_error"] == pytest.approx(0.4)
    assert figures["snr_db"] == pytest.approx(10 * np.log10(2.16 / 0.16), abs=1e-4)
    assert (figures["bytes"], figures["float_bytes"]) == (1 + 5, 16)
    assert (figures["scale"], figures["zero_point"]) == (1.0, 0)


def test_a_scale_for_each_channel_beats_one_for_all() -> None:
    one, each = (grid_figures(weights(), make_grid(weights(), 4, granularity=g)) for g in GRANULARITIES[:2])
    assert each["snr_db"] > one["snr_db"] and each["bytes"] > one["bytes"]


def test_the_drawing_shows_every_weight_and_every_number_of_the_grid() -> None:
    x = np.array([-0.9, -0.2, 0.35, 0.8])
    drawing = ElementTree.fromstring(draw_grid(x, make_grid(x, bits=3), "conv1"))
    assert len(list(drawing.iter(f"{SVG}circle"))) == 4 + 1  # one in the legend
    (points,) = [each for each in drawing.iter(f"{SVG}path") if each.get("d", "").count("M") > 2]
    assert points.get("d", "").count("M") == 7  # -3 … 3; -4 lies beyond the largest weight and the axis
    told = drawing.findtext(f"{SVG}desc") or ""
    assert "3 bits, one scale of 0.3" in told and "-0.2 → -0.3" in told


@pytest.mark.parametrize(
    "change",
    [{"bits": 5}, {"symmetry": "asymmetric"}, {"granularity": "per_channel"}, {"granularity": "per_group"}],
)
def test_another_grid_is_another_drawing_and_another_table(change: dict[str, Any]) -> None:
    settings: dict[str, Any] = {"bits": 4}
    first, second = make_grid(weights(), **settings), make_grid(weights(), **{**settings, **change})
    again = make_grid(weights(), **settings)
    assert draw_grid(weights(), first) == draw_grid(weights(), again)
    assert draw_grid(weights(), first) != draw_grid(weights(), second)
    assert grid_table(weights(), first) != grid_table(weights(), second)


def test_more_rows_than_there_is_room_for_are_counted() -> None:
    drawing = draw_grid(weights(20), make_grid(weights(20)))
    assert any("the first 8 of 20 lines" in each for each in words(drawing))
    assert not any("the first" in each for each in words(draw_grid(weights(8), make_grid(weights(8)))))


def test_weights_that_are_all_zero_are_drawn_too() -> None:
    x = np.zeros((2, 3))
    assert "channel 1" in words(draw_grid(x, make_grid(x)))
    assert "inf" in grid_table(x, make_grid(x))


def test_a_single_weight_has_a_grid_of_every_kind() -> None:
    made = GridExplorer([0.3])
    for granularity in GRANULARITIES:
        for symmetry in SYMMETRIES:
            made.form.controls["granularity"].value = granularity
            made.form.controls["symmetry"].value = symmetry
            assert "SNR" in made.says.value and "0.3" in made.picture.value


@pytest.mark.parametrize("x", [np.zeros(0), np.array([1.0, np.nan]), np.zeros(MOST_WEIGHTS + 1)])
def test_weights_that_cannot_be_drawn_are_refused(x: np.ndarray) -> None:
    with pytest.raises(ConfigError, match="cannot be drawn: give 1..4096 finite numbers"):
        GridExplorer(x)


@pytest.mark.parametrize("wrong", [{"symmetry": "half"}, {"granularity": "per_weight"}, {"bits": 9}])
def test_a_grid_that_there_is_not_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=str(next(iter(wrong.values())))):
        make_grid(weights(), **wrong)


def test_moving_a_slider_of_the_grid_draws_and_says_it_anew() -> None:
    made = GridExplorer(weights(), "conv1.weight", bits=3)
    seen = (made.picture.value, made.says.value, made.table.value, made.code.value)
    made.form.controls["bits"].value = 6
    now = (made.picture.value, made.says.value, made.table.value, made.code.value)
    assert all(before != after for before, after in zip(seen, now, strict=True))
    assert "6 bits" in made.says.value and "bits=6" in made.code.value


def test_the_line_under_the_grid_draws_the_same() -> None:
    made = GridExplorer(weights(), bits=3)
    made.form.controls["granularity"].value = "per_group"
    line = html.unescape(made.code.value.partition(">")[2].partition("</pre>")[0])
    names = {"draw_grid": draw_grid, "make_grid": make_grid, "weights": weights()}
    assert eval(line, names) == made.picture.value


# Clipping


def values(tail: float = 6.0) -> np.ndarray:
    """What a ReLU leaves, with a long tail."""
    drawn = np.random.default_rng(1).normal(size=(64, 100)).astype(np.float32)
    drawn[0, 0] = tail * 4
    return np.maximum(drawn, 0)


@pytest.fixture(scope="module")
def seen() -> Mapping[str, Any]:
    both = np.random.default_rng(2).standard_t(3, size=(64, 100)).astype(np.float32)
    return watch(
        {"relu": a, HOSTILE: b} for a, b in zip(np.split(values(), 8), np.split(both, 8), strict=True)
    )


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("symmetric", [False, True])
def test_the_error_to_expect_is_the_error_of_the_values_themselves(bits: int, symmetric: bool) -> None:
    x = np.random.default_rng(0).normal(size=200_000).astype(np.float32)
    histogram = Histogram()
    histogram.add(x)
    range_ = Range(-1.5, 2.0)
    observer = make_observer("mse", bits=bits, symmetric=symmetric)
    scale, zero_point = observer._grid(range_)  # type: ignore[attr-defined]
    least, most = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if symmetric else (0, 2**bits - 1)
    ends = scale * (least - zero_point), scale * (most - zero_point)
    inside = (x >= ends[0]) & (x <= ends[1])
    error = np.square(x - scale * (np.clip(np.rint(x / scale) + zero_point, least, most) - zero_point))
    rounding, clipping = expected_error(histogram, range_, bits, symmetric)
    assert rounding == pytest.approx(error[inside].sum() / x.size, rel=0.02)
    assert clipping == pytest.approx(error[~inside].sum() / x.size, rel=0.02)
    assert mean_square(histogram) == pytest.approx(np.square(x).mean(), rel=1e-3)


def test_exact_zeros_add_nothing_to_the_error_and_nothing_to_the_power() -> None:
    plain, padded = Histogram(), Histogram()
    plain.add(np.linspace(0.1, 1, 100, dtype=np.float32))
    padded.add(np.linspace(0.1, 1, 100, dtype=np.float32))
    padded.add(np.zeros(300, np.float32))
    assert sum(expected_error(padded, Range(0, 1), 4)) == pytest.approx(
        sum(expected_error(plain, Range(0, 1), 4)) / 4
    )
    assert mean_square(padded) == pytest.approx(mean_square(plain) / 4)


def test_every_calibrator_is_watched_and_chooses_what_it_would_choose_alone(seen: Mapping[str, Any]) -> None:
    for bits, symmetric in ((8, False), (4, False), (4, True)):
        sweep = sweep_clipping(seen["relu"], bits, symmetric)
        assert list(sweep.chosen) == list(CALIBRATORS)
        for name, cut in sweep.chosen.items():
            alone = make_observer(name, bits=bits, symmetric=symmetric)
            for part in np.split(values(), 8):
                alone.observe(part)
            assert cut.range.high == pytest.approx(max(alone.range().high, -alone.range().low))


def test_rounding_grows_with_the_range_and_clipping_shrinks_and_the_least_sum_lies_between(
    seen: Mapping[str, Any],
) -> None:
    sweep = sweep_clipping(seen["relu"], bits=4)
    cuts = [sweep.curve[share] for share in sorted(sweep.curve)]
    assert cuts[-1].rounding > 10 * cuts[9].rounding
    assert all(wide.clipping <= narrow.clipping for narrow, wide in zip(cuts, cuts[1:], strict=False))
    assert cuts[-1].clipping < 1e-6 and cuts[-1].clip_rate == 0
    assert 0.01 < sweep.best < 1.0
    assert sweep.at(sweep.best).error <= sweep.chosen["minmax"].error
    assert sweep.chosen["mse"].error <= 1.01 * sweep.at(sweep.best).error


def test_a_long_tail_is_worth_clipping_and_none_is_not() -> None:
    rng = np.random.default_rng(0)
    even, tailed = (
        sweep_clipping(watch([{"x": each.astype(np.float32)}])["x"], bits=4)
        for each in (rng.uniform(0, 1, (100, 100)), rng.exponential(size=(100, 100)))
    )
    assert even.best >= 0.97 and tailed.best < 0.8
    assert even.at(even.best).snr_db < even.at(1.0).snr_db + 0.5
    assert tailed.at(tailed.best).snr_db > tailed.at(1.0).snr_db + 1


def test_the_mse_calibrator_still_minimises_the_sum() -> None:
    observer = MeanSquaredError(4)
    observer.observe(values())
    chosen = observer.range()
    least = observer.loss(chosen)
    assert all(observer.loss(Range(0, chosen.high * factor)) >= least for factor in (0.5, 0.8, 1.25, 2))


def test_the_clipping_drawing_has_every_calibrator_and_both_marks(seen: Mapping[str, Any]) -> None:
    sweep = sweep_clipping(seen["relu"], bits=4)
    shown = words(draw_clipping(sweep, 0.3, "relu"))
    assert {*CALIBRATORS, "yours, 30%", "relu", "rounding", "clipping"} <= set(shown)
    assert any(each.startswith(f"least at {sweep.best:.0%}") for each in shown)
    assert draw_clipping(sweep, 0.3) != draw_clipping(sweep, 0.31)
    assert clipping_table(sweep, 0.3) != clipping_table(sweep, 0.31)


def test_only_what_the_threshold_cuts_off_is_hatched(seen: Mapping[str, Any]) -> None:
    for tensor in seen:
        sweep = sweep_clipping(seen[tensor], bits=4)
        bars = [draw_clipping(sweep, share).count('fill="url(#labkit-hatch)"') for share in (1.0, 0.7, 0.1)]
        assert bars[0] == 0 < bars[1] < bars[2]


def test_no_two_calibrators_share_a_line_of_the_ladder(seen: Mapping[str, Any]) -> None:
    drawing = ElementTree.fromstring(draw_clipping(sweep_clipping(seen["relu"], bits=4), 0.3))
    heights = [float(each.get("y", "")) for each in drawing.iter(f"{SVG}text") if each.text in CALIBRATORS]
    assert len(heights) == len(CALIBRATORS) and min(np.diff(heights)) >= 18


def test_moving_the_threshold_says_it_anew_and_computes_no_new_sweep(seen: Mapping[str, Any]) -> None:
    made = ClippingExplorer(seen, bits=4)
    before, sweeps = made.picture.value, len(made._sweeps)
    made.form.controls["share"].value = 0.4
    assert "4 bits over 40% of the full range" in made.says.value
    assert made.picture.value != before and len(made._sweeps) == sweeps
    made.form.controls["bits"].value = 5
    assert len(made._sweeps) == sweeps + 1


def test_the_line_under_the_histogram_draws_the_same(seen: Mapping[str, Any]) -> None:
    made = ClippingExplorer(seen, bits=4, tensor=HOSTILE, share=0.5)
    line = html.unescape(made.code.value.partition("<pre")[2].partition(">")[2].partition("</pre>")[0])
    drawn = eval(line, {"draw_clipping": draw_clipping, "sweep_clipping": sweep_clipping, "seen": seen})
    assert words(drawn)[-1] == words(made.picture.value)[-1]


def test_what_cannot_be_clipped_is_refused() -> None:
    with pytest.raises(DataError, match="every value of a tensor is 0"):
        ClippingExplorer(watch([{"alive": values(), "dead": np.zeros((2, 3), np.float32)}]))
    with pytest.raises(DataError, match="at least one batch"):
        ClippingExplorer(watch([]))
    with pytest.raises(DataError, match="NaN or infinite"):
        watch([{"x": np.array([[np.inf]], np.float32)}])


# The mixed game

LAYERS = ("conv1.weight", "conv2.weight", f"fc{HOSTILE}")
CHOICES = [
    Choice(weight, bits, bits * 100 * (index + 1), noise * (index + 1))
    for index, weight in enumerate(LAYERS)
    for bits, noise in ((32, 0.0), (8, 1e-4), (4, 1e-2))
]
BUDGET = 5000  # all 8 bits: 4800


def point(assignment: Mapping[str, int], drop_pp: float = 0.5) -> SimpleNamespace:
    bits = sorted(assignment.values(), reverse=True)
    counts = ", ".join(f"{each}: {bits.count(each)}" for each in dict.fromkeys(bits))
    size = tally(CHOICES, assignment, BUDGET).weight_bytes + 300
    interval = (drop_pp - 0.2, drop_pp + 0.3)
    return SimpleNamespace(
        assignment=dict(assignment), counts=counts, size_bytes=size, drop_pp=drop_pp, drop_ci95=interval
    )


def uniform(bits: int) -> dict[str, int]:
    return dict.fromkeys(LAYERS, bits)


def game(measure: Any = lambda assignment, progress: point(assignment)) -> MixedGame:
    return MixedGame(CHOICES, BUDGET, measure, [point(uniform(8), 0.1), point(uniform(4), 3.0)])


def test_bytes_and_noises_add_up() -> None:
    total = tally(CHOICES, {LAYERS[0]: 32, LAYERS[1]: 8, LAYERS[2]: 4}, BUDGET)
    assert (total.weight_bytes, total.noise) == (3200 + 1600 + 1200, pytest.approx(2e-4 + 3e-2))
    assert total.over_bytes == 1000


@pytest.mark.parametrize("assignment", [{}, {**uniform(8), LAYERS[1]: 5}])
def test_an_assignment_that_was_not_measured_is_refused(assignment: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="measured were 32, 8, 4 bits"):
        tally(CHOICES, assignment, BUDGET)


def test_over_the_budget_is_said_in_words_in_the_sentence_and_in_the_drawing() -> None:
    for bits, word, sign in ((32, "Over the budget", "✗"), (8, "Within the budget", "✓")):
        total = tally(CHOICES, uniform(bits), BUDGET)
        assert total.says.startswith(word)
        assert any(sign in each for each in words(draw_assignment(total)))
    assert "14,200 too many" in tally(CHOICES, uniform(32), BUDGET).says
    exactly = tally(CHOICES, uniform(8), 4800)
    assert exactly.says.startswith("Within the budget") and "0 left" in exactly.says


def test_each_layer_is_told_with_its_bits_bytes_and_share_of_the_noise() -> None:
    total = tally(CHOICES, {**uniform(8), LAYERS[1]: 4}, BUDGET)
    drawing, table = draw_assignment(total), assignment_table(total)
    assert words(drawing).count("8 bits") == 2 and words(drawing).count("4 bits") == 1
    assert "98.0%" in table and any("98%" in each for each in words(drawing))
    assert drawing != draw_assignment(tally(CHOICES, uniform(8), BUDGET))


def test_a_dropdown_changes_the_sum_at_once_and_runs_nothing() -> None:
    made = game(measure=lambda *_: pytest.fail("nothing may be measured without a click"))
    assert "Over the budget" in made.says.value
    made.form.set_all(8)
    assert "Within the budget" in made.says.value and made.job.state == "idle"
    made.form.controls[LAYERS[0]].value = 32
    assert made.form.build() == {**uniform(8), LAYERS[0]: 32}
    assert "Over the budget" in made.says.value and "'conv1.weight': 32" in html.unescape(made.command.value)


def test_the_button_of_a_width_sets_every_layer_and_answers_once() -> None:
    made, answers = game(), []
    made.says.observe(lambda change: answers.append(change.new), "value")
    made.form.buttons[4].click()
    assert made.form.build() == uniform(4) and len(answers) == 1


def test_the_line_under_the_game_holds_the_assignment() -> None:
    made = game()
    made.form.set_all(8)
    made.form.controls[LAYERS[2]].value = 4
    line = html.unescape(made.command.value.partition("<pre")[2].partition(">")[2].partition("</pre>")[0])
    ast.parse(line)
    called = eval(line, {"measure": lambda given, progress: given, "weights": LAYERS, "silent": silent})
    assert called == made.form.build()


def test_measure_mine_starts_a_job_and_shows_the_point_beside_the_recorded_ones() -> None:
    made = game()
    assert made.run_button.description == "Measure mine"
    assert made.view.table.value.count(">recorded<") == 2 and ">yours<" not in made.view.table.value
    made.form.set_all(8)
    made.form.controls[LAYERS[2]].value = 4
    made.run_button.click()
    assert made.job.result(WAIT_S).assignment == made.form.build()
    table = made.view.table.value
    assert "try 1 (8: 2, 4: 1)" in table and "[0.3, 0.8]" in table and ">yours<" in table
    assert "3 candidates" in made.view.figure.value and "chosen: try 1" in made.view.figure.value
    made.form.set_all(32)
    made.run_button.click()
    made.job.result(WAIT_S)
    assert len(made.tries) == 2 and "over by 14,200" in made.view.table.value
    assert "try 1" in made.view.table.value and "chosen: try 2" in made.view.figure.value


def test_a_measurement_that_fails_is_told_and_adds_no_try() -> None:
    def fail(assignment: Mapping[str, int], progress: Progress) -> Any:
        raise LabkitError(f"no such layer {HOSTILE}")

    made = game(fail)
    made.run_button.click()
    with pytest.raises(LabkitError, match="no such layer"):
        made.job.result(WAIT_S)
    assert "Failed" in made.status.value and made.tries == []


def test_a_measurement_can_be_stopped() -> None:
    def slow(assignment: Mapping[str, int], progress: Progress) -> Any:
        while True:
            time.sleep(0.01)
            progress(0.5, "measuring")

    made = game(slow)
    made.run_button.click()
    made.stop_button.click()
    with pytest.raises(Cancelled):
        made.job.result(WAIT_S)
    assert made.tries == []


def test_a_game_with_nothing_recorded_shows_that_nothing_is_measured_yet() -> None:
    figure, _ = points_view(CHOICES, BUDGET, [], [])
    assert "0 candidates" in str(figure.get_label())


# All of them


def everything(seen: Mapping[str, Any]) -> list[Any]:
    made = game()
    made.run_button.click()
    made.job.result(WAIT_S)
    return [GridExplorer(weights(), HOSTILE), ClippingExplorer(seen, tensor=HOSTILE), made]


def hostile_markup(made: list[Any]) -> bool:
    return any("<img src=x" in all_html(each) for each in made)


def test_names_with_html_in_them_stay_text(seen: Mapping[str, Any]) -> None:
    assert not hostile_markup(everything(seen))


def test_the_check_above_notices_a_drawing_that_does_not_escape(
    seen: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(svg, "escape", lambda given: given)
    assert hostile_markup(everything(seen))


def test_the_text_that_a_notebook_keeps_is_short_and_the_same_in_every_run(seen: Mapping[str, Any]) -> None:
    told = [repr(each) for each in everything(seen)]
    assert told == [repr(each) for each in everything(seen)]
    assert told == [
        "GridExplorer(bits, symmetry, granularity, group_size)",
        "ClippingExplorer(tensor, bits, symmetry, share)",
        "MixedGame(3 layers, 5,000 bytes)",
    ]


def test_every_drawing_says_in_words_what_it_shows(seen: Mapping[str, Any]) -> None:
    for made in everything(seen):
        drawing = ElementTree.fromstring(made.picture.value)
        assert drawing.get("role") == "img"
        assert drawing.findtext(f"{SVG}title") and "dB" in (drawing.findtext(f"{SVG}desc") or "")


@pytest.mark.usefixtures("no_model_runs")
def test_every_slider_answers_at_once_and_runs_no_model(
    seen: Mapping[str, Any], record_testsuite_property: Callable[[str, object], None]
) -> None:
    grid, clip, mixed = GridExplorer(weights(8)), ClippingExplorer(seen), game()

    def move(made: Any, **settings: Any) -> None:
        for name, value in settings.items():
            made.form.controls[name].value = value

    def new_bits() -> None:  # the dearest move: every calibrator chooses anew
        clip._sweeps.clear()
        clip.form.controls["bits"].value = 4 if clip.form.controls["bits"].value != 4 else 5

    times = {
        "grid_ms": cpu_s(lambda: (move(grid, bits=7), move(grid, bits=8)), lambda: move(grid, bits=2)),
        "threshold_ms": cpu_s(lambda: (move(clip, share=0.4), move(clip, share=0.5))) / 2,
        "bits_ms": max(cpu_s(new_bits), (move(clip, tensor=HOSTILE), cpu_s(new_bits))[1]),
        "layer_ms": cpu_s(lambda: (mixed.form.set_all(4), mixed.form.set_all(8))) / 2,
    }
    for name, seconds in times.items():
        print(f"{name}={1e3 * seconds:.1f}")
        record_testsuite_property(name, round(1e3 * seconds, 1))
    assert max(times.values()) <= ANSWERS_WITHIN_S, times


@pytest.mark.usefixtures("no_model_runs")
def test_the_check_above_notices_a_model_that_runs() -> None:
    import torch

    with pytest.raises(AssertionError, match="must run no model"):
        torch.nn.Linear(1, 1)(torch.zeros(1, 1))
