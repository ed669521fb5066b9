"""All widgets of the quantization lesson: they escape names, say in words what they draw, and answer at once."""

from __future__ import annotations

import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import ipywidgets as widgets
import pytest

from labkit import runtimes
from labkit.widgets import ClippingExplorer, GridExplorer, svg
from tests.quantization_widgets import HOSTILE, SVG, WAIT_S, game, watched, weights

ANSWERS_WITHIN_S = 0.2  # of CPU time, the best of five: a busy machine does not matter


def all_html(widget: Any) -> str:
    """Everything that a widget and its parts say in HTML."""
    return "\n".join(each.value for each in _all(widget) if isinstance(each, widgets.HTML))


def _all(widget: Any) -> Iterator[Any]:
    yield widget
    for child in getattr(widget, "children", ()):
        yield from _all(child)


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


@pytest.fixture(scope="module")
def seen() -> Mapping[str, Any]:
    return watched()


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
