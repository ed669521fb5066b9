"""The clipping explorer with no browser: move its controls, and look at what it draws and says."""

from __future__ import annotations

import html
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from labkit.errors import DataError
from labkit.quantize.calibration.histogram import Histogram, Range
from labkit.quantize.calibration.observers import (
    CALIBRATORS,
    MeanSquaredError,
    expected_error,
    make_observer,
    mean_square,
)
from labkit.widgets import ClippingExplorer, clipping_table, draw_clipping, sweep_clipping, watch
from tests.quantization_widgets import HOSTILE, SVG, values, watched, words


@pytest.fixture(scope="module")
def seen() -> Mapping[str, Any]:
    return watched()


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
