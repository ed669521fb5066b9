"""The detective's panel with no browser: ask, wait for the job, look at what the widgets say."""

from __future__ import annotations

import html
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from labkit.cli import app
from labkit.convert import ExportOnnx, save_as
from labkit.data import Dataset
from labkit.explain import Explanation, Operator, Profile
from labkit.explain.trials import Ratio
from labkit.quantize import QuantizeWeights
from labkit.widgets import ExplainPanel
from labkit.widgets.explain_view import explain_rows, explain_view
from labkit.zoo import load_model

WAIT_S = 240.0
MODEL = "lenet5@digits"
HOSTILE = "<b>conv</b>"


def operator(kind: str = "Conv", ms: float = 1.0, layer: str = "conv1") -> Operator:
    return Operator(
        kind=kind, name=layer, layer=layer, precision="float32", ms=ms, share=ms / 3, macs=1000, work="layer"
    )


def explanation(*operators: Operator, variant: str = "weights only") -> Explanation:
    profile = Profile(variant, "onnxruntime", 8, 1, 3, operators)
    return Explanation(profile, 3.0, profile, Ratio(0.9, (0.8, 0.95)), (), ("a note",))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, digits: Dataset) -> dict[str, Path]:
    """A float file, and one whose weights alone are in 8 bits."""
    folder = tmp_path_factory.mktemp("suspects")
    plain = ExportOnnx()(load_model(MODEL), digits)
    made = {"float": plain, "weights only": QuantizeWeights(bits=8)(plain, digits)}
    return {name: save_as(each, folder / f"{name}.onnx")[0] for name, each in made.items()}


def test_the_panel_says_why_the_file_is_not_faster(files: dict[str, Path]) -> None:
    panel = ExplainPanel({HOSTILE: files["weights only"]}, files["float"], "digits")
    panel.run_button.click()
    found = panel.job.result(WAIT_S)
    assert {each.cause for each in found.findings} & {"weight_only"}
    assert "Only the weights are quantized" in panel.view.table.value
    assert "alt=" in panel.view.figure.value and panel.status.value.count("Done") == 1
    assert HOSTILE not in panel.view.table.value + panel.view.figure.value + panel.status.value


def test_the_line_under_the_detective_is_one_that_labkit_understands(files: dict[str, Path]) -> None:
    panel = ExplainPanel({"A": files["weights only"]}, files["float"], "digits")
    panel.form.controls["batch_size"].value = 3
    panel.form.controls["threads"].value = 2
    words = shlex.split(html.unescape(panel.command.value.partition("<pre>")[2].partition("</pre>")[0]))
    command = get_command(app).commands["explain"]  # type: ignore[attr-defined]
    given = command.make_context("explain", words[2:]).params
    assert words[:2] == ["labkit", "explain"]
    assert (given["variant"], given["against"]) == (str(files["weights only"]), str(files["float"]))
    assert (given["batch_size"], given["threads"], given["dataset"]) == (3, 2, "digits")


def test_before_the_first_run_the_detective_shows_that_there_is_nothing() -> None:
    figure, table = explain_view([])
    assert (str(figure.get_label()), table) == ("nothing explained yet", "")


def test_the_dearest_operators_stand_first_and_all_are_counted() -> None:
    found = explanation(*(operator(ms=float(ms), layer=f"conv{ms}") for ms in range(1, 11)))
    assert [row["layer"] for row in explain_rows(found)][:2] == ["conv10", "conv9"]
    _, table = explain_view([found])
    assert "The 8 slowest of 10 operators" in table and table.count("<tr>") == 9


def test_every_sentence_of_the_diagnosis_is_shown_and_none_is_taken_for_html() -> None:
    _, table = explain_view([explanation(operator(layer=HOSTILE), variant=HOSTILE)])
    assert "is slower" in table and "a note" in table and HOSTILE not in table
