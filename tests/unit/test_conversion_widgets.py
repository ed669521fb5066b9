"""The panels of the conversion lesson with no browser: click, wait for the job, look at what the widgets say."""

from __future__ import annotations

import dataclasses
import html
import shlex
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from typer.main import get_command

import labkit as lk
from labkit.cli import app
from labkit.convert import CONVERTERS, save_as
from labkit.convert.map import edges
from labkit.errors import ParityError
from labkit.runtimes import Availability
from labkit.variant import FORMATS, Variant
from labkit.widgets import ConvertPanel, FormatMap, MicroscopePanel, draw_map
from labkit.widgets.command import convert_command
from labkit.widgets.conversion_views import errors_figure, microscope_view, parity_view
from labkit.widgets.format_drawing import BOX_HEIGHT, BOX_WIDTH, COLUMNS, PLACES, ROWS, centre
from labkit.widgets.format_way import hops, way

WAIT_S = 120.0
MODEL = "lenet5@digits"
SVG = "{http://www.w3.org/2000/svg}"


def missing(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Make the converters `names` unavailable, and all others available."""
    for each in CONVERTERS:
        found = (
            Availability(False, "it is missing", "pip install it")
            if each.name in names
            else Availability(True)
        )
        monkeypatch.setattr(each, "is_available", classmethod(lambda cls, found=found: found))


def row(hop: str = "torch → onnx", batch_size: int = 1, max_rel_error: float = 1e-7) -> dict[str, Any]:
    return {
        "hop": hop,
        "batch_size": batch_size,
        "max_abs_error": max_rel_error,
        "max_rel_error": max_rel_error,
        "top1_agreement": 1.0,
        "tolerance": 1e-4,
        "verdict": "the same",
    }


# The map


def test_every_format_has_a_place_of_its_own_on_the_map() -> None:
    assert set(PLACES) == {each.name for each in FORMATS}
    assert len(set(PLACES.values())) == len(PLACES)
    assert all(column < COLUMNS and row < ROWS for column, row in PLACES.values())


def test_the_drawing_has_an_arrow_for_each_converter_and_a_box_for_each_format() -> None:
    drawing = ElementTree.fromstring(draw_map())
    arrows = [each.findtext(f"{SVG}title") for each in drawing.iter(f"{SVG}g")]
    assert sorted(arrows) == sorted(f"{edge['from']} → {edge['to']}" for edge in edges())
    words = {each.text for each in drawing.iter(f"{SVG}text")}
    assert set(PLACES) <= words and {each.title for each in FORMATS} <= words
    assert drawing.find(f"{SVG}desc") is not None and not list(drawing.iter(f"{SVG}circle"))


def test_no_arrow_runs_through_a_box_of_a_third_format() -> None:
    for edge in edges():
        ends = np.array([centre(edge["from"]), centre(edge["to"])])
        line = ends[0] + np.linspace(0, 1, 500)[:, None] * (ends[1] - ends[0])
        for name in set(PLACES) - {edge["from"], edge["to"]}:
            near = np.abs(line - centre(name)) < (BOX_WIDTH / 2, BOX_HEIGHT / 2)
            assert not near.all(axis=1).any(), (edge["from"], edge["to"], name)


def test_the_chosen_way_is_numbered_in_the_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    missing(monkeypatch, "onnx_to_openvino")
    path = way("torch", "openvino")
    drawing = ElementTree.fromstring(draw_map(path, "torch"))
    arrows = {each.findtext(f"{SVG}title"): each for each in drawing.iter(f"{SVG}g")}
    numbered = {name: each.findtext(f"{SVG}text") for name, each in arrows.items()}
    assert {name: number for name, number in numbered.items() if number} == {
        "torch → onnx": "1",
        "onnx → openvino": "2",
    }
    dashes = {name: each.find(f"{SVG}line").get("stroke-dasharray") for name, each in arrows.items()}
    assert dashes["onnx → openvino"] and not dashes["torch → onnx"]


def test_two_clicks_choose_a_way_and_a_third_starts_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    missing(monkeypatch)
    made = FormatMap(model=MODEL)
    assert "Click the format that you have" in made.words.value
    made.buttons["torch"].click()
    assert (made.source, made.target) == ("torch", "") and "now click" in made.words.value
    made.buttons["openvino"].click()
    assert (made.source, made.target) == ("torch", "openvino")
    assert "torch → onnx → openvino: all that is needed is here" in made.words.value
    assert made.buttons["torch"].description == "from torch\nPyTorch module"
    assert made.buttons["openvino"].description == "to openvino\nOpenVINO IR"
    assert f"labkit convert {MODEL} --to openvino" in made.command.value
    made.buttons["keras"].click()
    assert (made.source, made.target) == ("keras", "")
    assert made.buttons["torch"].description == "torch\nPyTorch module"
    made.buttons["keras"].click()
    assert (made.source, made.target) == ("keras", "")


def test_what_is_missing_is_told_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    missing(monkeypatch, "onnx_to_tensorflow", "tensorflow_to_tflite")
    made = FormatMap("torch", "tflite")
    assert "must be installed first" in made.words.value and "pip install it" in made.words.value
    rows = hops("torch", way("torch", "tflite"))
    assert [(each["to"], each["install"]) for each in rows] == [
        ("onnx", None),
        ("tensorflow", "pip install it"),
        ("tflite", "pip install it"),
    ]


def test_where_no_way_leads_the_map_says_so() -> None:
    made = FormatMap("openvino", "torch")
    assert "No way leads from openvino to torch" in made.words.value
    assert "choose two formats first" in made.command.value


def test_a_way_that_is_open_is_preferred_to_a_shorter_one_that_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    missing(monkeypatch, "keras_to_onnx")
    assert [each.target for each in way("keras", "onnx")] == ["tensorflow", "onnx"]


def test_the_model_s_name_is_escaped() -> None:
    assert "<img" not in FormatMap("torch", "onnx", model="<img src=x>").command.value


# The conversion panel


def test_the_conversion_panel_proves_each_hop_and_shows_all_of_them() -> None:
    made = ConvertPanel([MODEL], "digits")
    made.form.controls["to"].value = "openvino"
    made.run_button.click()
    rows = made.job.result(WAIT_S)
    assert [(each["hop"], each["batch_size"]) for each in rows] == [
        (hop, batch) for hop in ("torch → onnx", "onnx → openvino") for batch in (1, 3, 7)
    ]
    assert all(each["verdict"] == "the same" and each["max_rel_error"] < 1e-6 for each in rows)
    assert "onnx → openvino" in made.view.table.value
    assert "Largest error of 6 comparisons" in made.view.figure.value
    assert made.status.value.startswith('<span role="status">Done')


def test_more_than_rounding_allows_is_refused_after_it_was_shown() -> None:
    made = ConvertPanel([MODEL], "digits")
    made.form.controls["to"].value = "onnx"
    made.form.controls["tolerance"].value = 1e-12
    made.run_button.click()
    with pytest.raises(ParityError, match="exceeds the tolerance 1e-12"):
        made.job.result(WAIT_S)
    assert "departs" in made.view.table.value
    assert "Failed" in made.status.value


def test_a_tolerance_that_makes_no_sense_is_told_beside_its_field() -> None:
    made = ConvertPanel([MODEL], "digits")
    made.form.controls["tolerance"].value = 0.0
    assert made.form.config is None and "mend the settings" in made.command.value


@pytest.mark.parametrize("tolerance", [1e-4, 1e-8])
def test_the_line_under_the_conversion_panel_is_one_that_labkit_takes(tolerance: float) -> None:
    made = ConvertPanel([MODEL], "digits")
    made.form.controls["tolerance"].value = tolerance
    line = made.command.value.partition("<pre>")[2].partition("</pre>")[0]
    assert ("tolerance" in line) == (tolerance != 1e-4)
    command, *words = shlex.split(line)
    assert command == "labkit"
    group = get_command(app)
    context = group.make_context("labkit", [*words], resilient_parsing=True)
    name, subcommand, rest = group.resolve_command(context, words)
    assert name == "convert"
    subcommand.make_context(name, rest)


def test_a_file_s_command_names_its_stem() -> None:
    assert convert_command("a/b.onnx", "openvino").endswith("--to openvino --out b.xml")
    assert convert_command("a.onnx", "tensorflow").endswith("--to tensorflow --out a")


def test_the_figure_of_errors_says_everything_in_words_too() -> None:
    figure = errors_figure([row(), row("onnx → openvino", 3, 0.0), row("onnx → openvino", 7, 2.0)])
    label = str(figure.get_label())
    assert "torch → onnx at batch 1 1e-07" in label and "at batch 7 2" in label and "0.0001" in label
    low, high = figure.axes[0].get_ylim()
    assert low < 1e-9 and high > 2.0
    assert str(errors_figure([]).get_label()) == "nothing converted yet"
    assert parity_view([])[1] == ""


# The microscope panel


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A sound file, and one whose second convolution is 2 % too large."""
    folder = tmp_path_factory.mktemp("suspects")
    sound: Variant = lk.ExportOnnx()(lk.load_model(MODEL))
    model = onnx.load_model_from_string(sound.payload)
    weight = next(each for each in model.graph.initializer if each.name == "conv2.weight")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1.02), weight.name))
    broken = dataclasses.replace(sound, model=model.SerializeToString())
    made = {"sound": sound, "<b>broken</b>": broken}
    return {
        name: save_as(each, folder / f"{index}.onnx")[0] for index, (name, each) in enumerate(made.items())
    }


def test_the_microscope_panel_names_the_broken_layer(files: dict[str, Path]) -> None:
    made = MicroscopePanel(MODEL, files, "digits")
    made.form.controls["suspect"].value = "<b>broken</b>"
    made.run_button.click()
    report = made.job.result(WAIT_S)
    assert report.first.operator.layer == "conv2"
    assert "conv2" in made.view.table.value and "departs" in made.view.table.value
    assert "labkit-says" in made.view.table.value and "alt=" in made.view.figure.value
    assert "<b>" not in made.view.table.value + made.view.figure.value + made.status.value


def test_it_finds_nothing_in_a_sound_file(files: dict[str, Path]) -> None:
    made = MicroscopePanel(MODEL, files, "digits")
    made.run_button.click()
    assert made.job.result(WAIT_S).first is None
    assert "Nothing departs" in made.view.table.value


def test_the_line_under_the_microscope_is_python_that_names_the_same_files(files: dict[str, Path]) -> None:
    made = MicroscopePanel(MODEL, files, "digits")
    made.form.controls["batch_size"].value = 5
    text = made.command.value.partition("<pre>")[2].partition("</pre>")[0]
    program, flag, code = shlex.split(html.unescape(text))
    assert (program, flag) == ("python", "-c")
    compile(code, "line", "exec")
    assert f'"{files["sound"]}"' in code and "batch_size=5" in code and f'"{MODEL}"' in code


def test_before_the_first_run_the_microscope_shows_that_there_is_nothing() -> None:
    figure, table = microscope_view([])
    assert (str(figure.get_label()), table) == ("nothing looked at yet", "")
