"""The anatomy of a file, and the panel of recorded files, with no browser."""

from __future__ import annotations

import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from typing import Any

import ipywidgets as widgets
import pytest

from labkit.encode import ClusterWeights, dissect, encode
from labkit.errors import ConfigError, LabkitError
from labkit.prune import PruneMagnitude
from labkit.widgets import (
    AnatomyView,
    CodebookExplorer,
    HuffmanBuilder,
    anatomy_table,
    byte_groups,
    draw_anatomy,
    draw_coding,
    find_point,
    svg,
)
from labkit.widgets.anatomy_rows import GROUPS, anatomy_says, best_of_others
from labkit.zoo import load_model
from tests.coding_widgets import COUNTS, panel, points, some_weights, weighed
from tests.quantization_widgets import HOSTILE, SVG, WAIT_S, words

ANSWERS_WITHIN_S = 0.2  # of CPU time, the best of three: a busy machine does not matter


def all_html(widget: Any) -> str:
    """Everything that a widget and its parts say in HTML."""

    def parts(each: Any) -> Iterator[Any]:
        yield each
        for child in getattr(each, "children", ()):
            yield from parts(child)

    return "\n".join(each.value for each in parts(widget) if isinstance(each, widgets.HTML))


def everything() -> list[Any]:
    made = panel()
    made.run_button.click()
    made.job.result(WAIT_S)
    return [HuffmanBuilder(COUNTS), CodebookExplorer(some_weights(), HOSTILE), AnatomyView([weighed()]), made]


def test_the_groups_of_a_real_file_are_its_size_to_the_byte() -> None:
    sparse = PruneMagnitude(sparsity=0.95)(load_model("lenet300@digits"))
    content = encode(ClusterWeights(linear_levels=4)(sparse))
    groups = byte_groups(dissect(content))
    assert list(groups) == list(GROUPS) and sum(groups.values()) == len(content)
    assert groups["positions"] > groups["values"] > groups["codebooks"] > 0


def test_every_group_holds_what_belongs_to_it() -> None:
    assert byte_groups(weighed().found) == {
        "positions": 500, "values": 300, "stored": 80, "codebooks": 16, "frame": 43
    }  # fmt: skip


def test_drawing_and_table_show_each_tensor_its_sum_and_the_others() -> None:
    shown, table = words(draw_anatomy(weighed())), anatomy_table(weighed())
    assert {"the file itself", "bias", "82", "819", "939", "zlib -9"} <= set(shown)
    assert "1,500 (1.60×)" in shown and "2,000" not in " ".join(shown)
    assert table.count("<tr>") == 1 + 12 + 1 + 1 + 3 and "939" in table and "install" in table
    assert best_of_others(weighed().others) == {"zlib -9": 1500}


def test_the_sentence_says_what_takes_most_and_how_near_the_bound_it_is() -> None:
    said = anatomy_says(weighed())
    assert "939 bytes, 21.3×" in said and "“where the kept weights are” with 53%" in said
    assert "800 bytes, 0.19% more than their bound of 798.5" in said and "at least 910.0" in said


def test_a_view_without_a_file_says_so() -> None:
    assert "No file made yet" in AnatomyView().says.value and AnatomyView().figure.value == ""


def test_the_sliders_stop_where_something_was_recorded_and_show_it() -> None:
    made = panel()
    stops = {name: [label for label, _ in control.options] for name, control in made.form.controls.items()}
    assert stops == {"sparsity": ["50%", "90%"], "levels": ["2", "8"]}
    assert all(isinstance(control, widgets.SelectionSlider) for control in made.form.controls.values())
    made.form.controls["sparsity"].value = 0.5
    for levels in (2, 8):
        made.form.controls["levels"].value = levels
        point = find_point(points(), 0.5, levels)
        assert f"50% zeros, {levels} levels: {point.size_bytes:,} bytes" in made.says.value
        assert made.picture.value == draw_coding(points(), point, 100_000, 97.0)
        assert f"measure(0.5, {levels}, silent)" in made.command.value
    assert all(f"{point.size_bytes:,}" in all_html(made) for point in points())
    with pytest.raises(ConfigError, match="not among the 4 recorded"):
        find_point(points(), 0.6, 2)


def test_a_file_below_the_drawing_has_an_arrow() -> None:
    low, fine = (draw_coding(points()[:n], points()[0], 100_000, 97.0).count('Z"') for n in (3, 2))
    assert low == fine + 1


def test_what_was_made_here_stands_beside_what_was_recorded() -> None:
    made = panel()
    made.run()
    made.job.result(WAIT_S)
    assert "made here" in made.tried.value and "recorded" in made.tried.value
    here, recorded = made.tries[0].size_bytes, find_point(points(), 0.9, 8).size_bytes
    assert f"{here:,}" in made.tried.value and f"{recorded:,}" in made.tried.value and here == recorded + 1
    assert "939 bytes" in made.view.says.value and "<svg" in made.view.figure.value


def test_a_failure_is_told() -> None:
    def fails(sparsity: float, levels: int, progress: object) -> Any:
        raise LabkitError("no such file")

    made = panel(fails)
    made.run()
    with pytest.raises(LabkitError):
        made.job.result(WAIT_S)
    assert "Failed: no such file" in made.status.value and not made.tries


def test_names_with_html_in_them_stay_text() -> None:
    assert not any("<img src=x" in all_html(each) for each in everything())


def test_the_check_above_notices_a_drawing_that_does_not_escape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(svg, "escape", lambda given: given)
    assert any("<img src=x" in all_html(each) for each in everything())


def test_the_text_that_a_notebook_keeps_is_short_and_the_same_in_every_run() -> None:
    assert [repr(each) for each in everything()] == [
        "HuffmanBuilder(5 symbols)",
        "CodebookExplorer(levels, start)",
        "AnatomyView()",
        "CodingPanel(4 recorded files)",
    ]


def test_every_drawing_says_in_words_what_it_shows() -> None:
    huffman, codebook, anatomy, coding = everything()
    pictures = [huffman.picture, codebook.picture, anatomy.figure, coding.picture]
    for picture, expected in zip(
        pictures, ("nodes are left", "squared error", "939 bytes", "zeros"), strict=True
    ):
        drawing = ElementTree.fromstring(picture.value)
        assert drawing.get("role") == "img" and drawing.findtext(f"{SVG}title")
        assert expected in (drawing.findtext(f"{SVG}desc") or "")


def test_every_slider_and_every_click_answers_at_once(
    monkeypatch: pytest.MonkeyPatch, record_testsuite_property: Callable[[str, object], None]
) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("a slider must run no model")

    monkeypatch.setattr("torch.nn.Module.__call__", refuse)
    huffman, codebook, coding = HuffmanBuilder(COUNTS), CodebookExplorer(some_weights()), panel()

    def best_codebook() -> None:  # the dearest move of all
        codebook._found.clear()
        codebook.form.controls["start"].value = "linear"
        codebook.form.controls["levels"].value = 16
        codebook.form.controls["start"].value = "exact"

    def other_level() -> None:
        coding.form.controls["levels"].value = 10 - coding.form.controls["levels"].value

    def merge_and_undo() -> None:
        huffman.choose(3)
        huffman.choose(4)
        huffman.undo()

    times = {}
    for move in (best_codebook, other_level, merge_and_undo):
        found = []
        for _ in range(3):
            start = time.process_time()
            move()
            found.append(time.process_time() - start)
        times[move.__name__] = min(found)
        record_testsuite_property(f"{move.__name__}_ms", round(1e3 * min(found), 1))
    assert max(times.values()) <= ANSWERS_WITHIN_S, times
