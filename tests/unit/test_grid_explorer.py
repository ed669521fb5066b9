"""The grid explorer with no browser: move its controls, and look at what it draws and says."""

from __future__ import annotations

import html
import xml.etree.ElementTree as ElementTree
from typing import Any

import numpy as np
import pytest

from labkit.errors import ConfigError
from labkit.quantize.arithmetic.grid import weight_grid
from labkit.widgets import GridExplorer, draw_grid, grid_table, make_grid, svg
from labkit.widgets.grid_rows import GRANULARITIES, MOST_WEIGHTS, SYMMETRIES, grid_figures, grid_rows
from tests.quantization_widgets import SVG, weights, words

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
