"""The soft-target explorer with no browser: raise the temperature, and look at what it draws, says and tables."""

from __future__ import annotations

import html
import math
import re
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping

import numpy as np
import pytest
import torch

from labkit.data import load_dataset
from labkit.errors import ConfigError, DataError
from labkit.widgets import SoftTargetExplorer, ask, draw_soft_target, soft_target_table
from labkit.widgets.soft_target_drawing import draw_image
from labkit.widgets.soft_target_rows import SoftTarget, percent
from labkit.zoo import load_model
from tests.quantization_widgets import HOSTILE, SVG, words

ANSWERS_WITHIN_S = 0.2
LABELS = ("cat", "dog", HOSTILE)


@pytest.fixture
def told() -> Mapping[str, SoftTarget]:
    image = np.outer(np.arange(4.0), np.ones(4))
    return {
        "image 1: cat": SoftTarget(image, "cat", LABELS, np.array([6.0, 4.0, 0.0])),
        f"image 2: {HOSTILE}": SoftTarget(image, HOSTILE, LABELS, np.array([0.0, 0.0, 0.0])),
    }


@pytest.mark.parametrize("temperature", [0.2, 1.0, 4.0, 20.0])
def test_the_answer_at_a_temperature_is_the_softmax_of_the_divided_logits(
    told: Mapping[str, SoftTarget], temperature: float
) -> None:
    each = told["image 1: cat"]
    expected = torch.softmax(torch.from_numpy(each.logits) / temperature, 0).numpy()
    assert each.at(temperature) == pytest.approx(expected)
    assert each.bits(temperature) == pytest.approx(-(expected * np.log2(expected)).sum())


def test_a_higher_temperature_is_more_undecided_up_to_an_even_answer(told: Mapping[str, SoftTarget]) -> None:
    each = told["image 1: cat"]
    bits = [each.bits(temperature) for temperature in (0.2, 1, 2, 5, 1000)]
    assert bits == sorted(bits) and bits[0] < 0.01 and bits[-1] == pytest.approx(math.log2(3), abs=1e-3)
    assert told[f"image 2: {HOSTILE}"].bits(1.0) == pytest.approx(math.log2(3))


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_a_temperature_that_is_none_is_refused(told: Mapping[str, SoftTarget], temperature: float) -> None:
    with pytest.raises(ConfigError, match="must be above 0"):
        told["image 1: cat"].at(temperature)


def test_the_teacher_is_asked_once_and_says_what_the_network_says() -> None:
    data, teacher = load_dataset("digits"), load_model("lenet300@digits")
    split = data.split("validation").take(slice(0, 3))
    told = ask(teacher, split, data.labels)
    assert list(told) == [f"image {i + 1}: {data.labels[target]}" for i, target in enumerate(split.target)]
    with torch.no_grad():
        logits = teacher.model(torch.from_numpy(teacher.feeds(split.inputs)["image"])).numpy()
    for each, own in zip(told.values(), logits, strict=True):
        assert each.logits == pytest.approx(own, rel=1e-5) and each.image.shape == (32, 32)
    with pytest.raises(DataError, match="at least one"):
        ask(teacher, split.take(slice(0, 0)), data.labels)


def test_the_table_holds_what_the_drawing_shows(told: Mapping[str, SoftTarget]) -> None:
    each = told["image 1: cat"]
    drawing, table = draw_soft_target(each, 2.0), soft_target_table(each, 2.0)
    shown = set(words(drawing))
    for label, share in each.ranked(2.0):
        assert {label, percent(share)} <= shown
        assert html.escape(label) in table and percent(share) in table
    assert f"{each.bits(2.0):.3f} bits" in shown and f"{each.bits(2.0):.3f} bits" in table
    assert [percent(p) for p in each.at(1.0)] == re.findall(
        r"<td>([\d.e-]+ %)</td><td>[\d.e-]+ %</td></tr>", table
    )


def test_the_bars_are_as_long_as_the_probabilities(told: Mapping[str, SoftTarget]) -> None:
    drawing = ElementTree.fromstring(draw_soft_target(told["image 1: cat"], 2.0))
    bars = [each for each in drawing.iter(f"{SVG}rect") if each.get("height") == "15.0"]
    lengths = np.array([float(each.get("width", "")) for each in bars])
    assert lengths / lengths.sum() == pytest.approx(told["image 1: cat"].at(2.0), abs=1e-3)


def test_the_picture_has_every_pixel_that_is_not_white_and_no_other() -> None:
    image = np.array([[0, 255], [128, 17]], np.uint8)
    drawn = "".join(draw_image(image, 0, 0, 100))
    assert re.findall(r"M([\d.]+) ([\d.]+)h50", drawn) == [
        ("50.00", "50.00"),
        ("0.00", "50.00"),
        ("50.00", "0.00"),
    ]
    assert re.findall(r'fill="#(\w\w)', drawn)[1:] == ["ee", "77", "00"]
    assert "<path" not in "".join(draw_image(np.zeros((2, 2)), 0, 0, 100))


def test_small_probabilities_keep_a_figure() -> None:
    assert [percent(share) for share in (0.5, 0.001, 0.00034, 2e-9)] == [
        "50.0 %",
        "0.1 %",
        "0.03 %",
        "2e-07 %",
    ]


def test_moving_the_temperature_answers_at_once_in_picture_words_and_table(
    told: Mapping[str, SoftTarget],
) -> None:
    made = SoftTargetExplorer(told, temperature=2.0)
    before = made.picture.value, made.says.value, made.table.value
    start = time.perf_counter()
    made.form.controls["temperature"].value = 7.0
    assert time.perf_counter() - start < ANSWERS_WITHIN_S
    assert all(
        a != b for a, b in zip(before, (made.picture.value, made.says.value, made.table.value), strict=True)
    )
    assert "at temperature 7.0" in made.says.value and 'role="status"' in made.says.value
    made.form.controls["image"].value = f"image 2: {HOSTILE}"
    assert (
        "33.3 %" in made.says.value and HOSTILE not in made.says.value + made.picture.value + made.table.value
    )


def test_every_control_has_a_name_and_the_drawing_a_title_and_a_description(
    told: Mapping[str, SoftTarget],
) -> None:
    made = SoftTargetExplorer(told)
    assert [control.description for control in made.form.controls.values()] == ["image", "temperature"]
    drawing = ElementTree.fromstring(made.picture.value)
    title, told_in_words = drawing.find(f"{SVG}title"), drawing.find(f"{SVG}desc")
    assert title is not None and "cat" in (title.text or "")
    assert told_in_words is not None and "Entropy" in (told_in_words.text or "")


def test_the_line_below_draws_the_same(told: Mapping[str, SoftTarget]) -> None:
    made = SoftTargetExplorer(told, temperature=3.4)
    line = html.unescape(made.code.value.partition("<pre")[2].partition(">")[2].partition("</pre>")[0])
    assert eval(line, {"draw_soft_target": draw_soft_target, "told": told}) == made.picture.value
    with pytest.raises(DataError, match="at least one"):
        SoftTargetExplorer({})
