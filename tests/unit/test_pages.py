"""What a reader sees in README and docs comes from results, and from nowhere else."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

import labkit as lk
from benchmarks import render
from benchmarks.quantization import common
from benchmarks.quantization.__main__ import PARTS
from benchmarks.quantization.why import explained
from benchmarks.quantization.words import IN_README, WORDS
from labkit.cli import app
from labkit.methods import METHODS

ROOT = Path(render.ROOT)


def test_the_generated_pages_are_up_to_date():
    assert render.stale() == [], "run: python -m benchmarks.render"


def test_a_changed_figure_would_be_noticed(monkeypatch):
    documents = render.results()
    name = next(iter(documents))
    figure = next(iter(documents[name]["figures"]))
    documents[name]["figures"][figure] = 123456789.0
    monkeypatch.setattr(render, "results", lambda: documents)
    assert render.stale()


def test_every_link_in_the_readme_leads_somewhere():
    for page in ("README.md", "README.zh.md", "CONTRIBUTING.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text(encoding="utf-8")):
            assert target.startswith("https://") or (ROOT / target).exists(), f"{page} links to {target}"


def test_the_example_technique_in_contributing_keeps_the_contract(lenet, digits):
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    names: dict = {}
    exec(  # noqa: S102 - our own page
        "import copy\nfrom dataclasses import dataclass\nfrom typing import ClassVar\n"
        "from labkit.technique import Technique, knob\n" + "\n".join(line[3:] for line in code.splitlines()),
        names,
    )
    rounded = names["RoundWeights"](grid=0.05)(lenet, digits)
    assert rounded.digest != lenet.digest


def test_the_readmes_conversions_run_as_they_are_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    section = (
        (ROOT / "README.md")
        .read_text(encoding="utf-8")
        .split("## Any format, with a proof")[1]
        .split("\n## ")[0]
    )
    commands = [line.split() for line in section.splitlines() if line.startswith("    labkit ")]
    assert [words[1] for words in commands] == ["convert", "inspect", "formats"]
    for words in commands:
        app(words[1:], standalone_mode=False)
    assert "torch → onnx → openvino" in capsys.readouterr().out
    (block,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten(), torch.nn.Linear(72, 3))
    images = np.random.default_rng(0).standard_normal((4, 1, 8, 8)).astype(np.float32)
    exec(block, {"lk": lk, "model": model, "images": images})
    assert lk.load_model("model.onnx").inputs[0].shape == ("batch", 1, 8, 8)


def test_the_readmes_quantizations_run_as_they_are_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.split("## Fewer bits, and why it is not faster")[1].split("\n## ")[0]
    commands = [line.split() for line in section.splitlines() if line.startswith("    labkit ")]
    assert [words[1] for words in commands] == ["quantize", "quantize", "explain"]
    (tmp_path / "model.onnx").write_bytes(lk.ExportOnnx()(lk.load_model("lenet5@digits")).payload)
    for words in commands:
        app(words[1:], standalone_mode=False)
    assert (tmp_path / "small.onnx").stat().st_size < 0.2 * (tmp_path / "model.onnx").stat().st_size
    assert "batch 8, 1 thread" in capsys.readouterr().out
    methods = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert methods == list(METHODS["quantize"])


@pytest.mark.parametrize("recipe", ["small-file", "fast-int8"])
def test_a_recipe_runs_by_the_command_that_it_names(recipe, tmp_path, monkeypatch, capsys):
    path = ROOT / "docs" / "recipes" / f"{recipe}.toml"
    (line,) = [line for line in path.read_text(encoding="utf-8").splitlines() if "labkit apply" in line]
    assert path.name in line
    quick = re.sub(r"fine_tune_epochs = \d+", "fine_tune_epochs = 2", path.read_text(encoding="utf-8"))
    monkeypatch.chdir(tmp_path)
    Path("docs/recipes").mkdir(parents=True)
    Path("docs/recipes", path.name).write_text(quick, encoding="utf-8")
    app(line.split()[2:], standalone_mode=False)
    made = lk.load_model(line.split()[-1])
    assert 20 * made.size_bytes < lk.load_model("lenet5@digits").size_bytes or made.quantized
    assert "validation samples" in capsys.readouterr().out


def test_a_module_of_ones_own_is_pruned_as_the_readme_prints_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.split("## Fewer weights, and files to weigh")[1].split("\n## ")[0]
    (block,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    exec(block, {})
    made = lk.load_onnx("narrow.onnx")
    assert made.inputs[0].shape == ("batch", 1, 32, 32) and made.outputs[0].shape == ("batch", 10)
    assert made.size_bytes < 0.6 * 4 * 14400 * 10


def test_the_recipes_that_the_readme_names_are_there():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    named = {name for name in re.findall(r"docs/recipes/([\w-]+)\.toml", text)}
    assert named == {path.stem for path in (ROOT / "docs" / "recipes").iterdir()}


def quantization_document() -> dict:
    """A row of each kind, as the benchmark writes them; the figures are made up."""
    pair = {"drop_pp": 0.1, "drop_pp_ci95": [-0.1, 0.3], "images": 10_000}
    made = {"model": "vit", "size_bytes": 1000, "accuracy": 0.9312, **pair}
    behind = {"labkit_behind_pp": -0.25, "labkit_behind_pp_ci95": [-0.5, 0.05]}
    timed = {
        "onnxruntime_ms": 9.5,
        "time_ratio_onnxruntime": 0.9,
        "time_ratio_onnxruntime_ci95": [0.88, 0.92],
    }
    told = {"versions": {"nncf": "3.4.0"}, "settings": "preset=MIXED|fast"}
    speed = {"speedup": 5.5, "speedup_ci95": [5.1, 5.9]}
    bits = {"model": "resnet20", "weight_bits": 4, "activation_bits": 4, "size_bytes": 9, **pair}
    mixed = {"bits": "8: 20, 4: 2", "size_over_int8": 0.68, "on_front": True, "chosen": True, **pair}
    for key in ("validation_behind_int8_pp", "behind_int8_pp"):
        mixed |= {key: 0.05, f"{key}_ci95": [-0.1, 0.2]}
    memory = {f"{key}_mb_{count}": 100.0 for key in ("peak", "own") for count in (128, 4096)}
    rows = {
        "against_peers": [
            {"tool": "labkit", **made, "onnxruntime_ms": 8.5},
            {"tool": "nncf", **made, **behind, **timed, **told, "openvino_refused": "no such operator"},
            {"tool": "ort_default", "model": "vit", "refused": "it fell over"},
        ],
        "int8_speed": [
            {"runtime": "openvino", "precision": "int8", "ms": 3.0, **speed, **pair},
            {"runtime": "openvino", "chain": "product", "activations": "uint8", "gmacs_per_s": 1475.0},
        ],
        "collapse": [
            {"weights": "unbalanced", "granularity": "per_tensor", "float_max_rel_error": 1e-6, **pair}
        ],
        "few_bit_weights": [
            {
                "model": "resnet20",
                "bits": 3,
                "rounding": each,
                "ours": each == "descent",
                "size_bytes": 7,
                **pair,
            }
            for each in ("nearest", "descent")
        ],
        "trained_on_the_grid": [bits],
        "mixed_precision": [mixed],
        "calibration_memory": [
            {"tool": "labkit", "calibrator": "mse", "ratio": 1.02, "above_loading_ratio": None, **memory}
        ],
        "explained": [
            {"case": "weights only", "cause": "weight_only", "named": ["weight_only"], "found": True},
            {"case": "baseline in bfloat16", "absent": "no bfloat16 here"},
        ],
    }
    return {
        "figures": {"int8_drop_pp_vit": 0.1, "int8_peers_more_accurate_vit": 0, "per_tensor_drop_pp": None},
        "null_reasons": {"per_tensor_drop_pp": "mobilenet is not shipped"},
        "table": [{"part": part, **row} for part, found in rows.items() for row in found],
        "parts": {part: {"measured": "2026-01-02T03:04:05+00:00", "seconds": 61.2} for part in rows},
        "environment": render.results()["start"]["environment"],
    }


@pytest.fixture
def with_quantization(monkeypatch) -> dict[str, str]:
    """Page name → its text, if the benchmark of quantization had found that."""
    documents = render.results() | {"quantization": quantization_document()}
    monkeypatch.setattr(render, "results", lambda: documents)
    return {path.name: text for path, text in render.pages().items()}


@pytest.mark.parametrize(
    "line",
    [
        "| labkit | 93.12 | +0.10 [-0.10, +0.30] |  | 8.5 ms | – | 1,000 |",
        "| nncf | 93.12 | +0.10 [-0.10, +0.30] | +0.25 [-0.05, +0.50] | 9.5 ms, 0.90 [0.88, 0.92] | – | 1,000 |",
        "- ort_default: it fell over",
        "- nncf, OpenVINO: no such operator",
        "| nncf | preset=MIXED&#124;fast | nncf 3.4.0 |",
        "| OpenVINO | int8 | 3 | 5.50 [5.10, 5.90] |  | +0.10 [-0.10, +0.30] |",
        "| OpenVINO | product | uint8 | 1,475 |",
        "| unbalanced | per tensor | +0.10 [-0.10, +0.30] | 1e-06 |",
        "| resnet20 | 3 | **descent** | +0.10 [-0.10, +0.30] | 7 |",
        "| resnet20 | 3 | nearest | +0.10 [-0.10, +0.30] | 7 |",
        "| **8: 20, 4: 2** | 0.68 | yes | +0.05 [-0.10, +0.20] | +0.05 [-0.10, +0.20] | +0.10 [-0.10, +0.30] |",
        "| labkit | mse | 100 | 100 | 1.02 | 100 | 100 | – |",
        "| weights only | weight_only | weight_only | yes |",
        "| baseline in bfloat16 |  |  | no bfloat16 here |",
        "| explained | 2026-01-02T03:04:05+00:00 | 61 |",
        "- `per_tensor_drop_pp`: mobilenet is not shipped",
    ],
)
def test_what_quantization_reached_is_told_with_intervals_versions_and_reasons(with_quantization, line):
    assert line in with_quantization["quantization.md"].splitlines()


def test_the_readme_shows_the_main_figures_of_quantization_and_docs_all(with_quantization):
    shown = "| vit: points that static int8 loses | 0.1 |"
    other = "| vit: peers more accurate, by an interval without 0 | 0 |"
    assert shown in with_quantization["README.md"] and other not in with_quantization["README.md"]
    assert shown in with_quantization["benchmarks.md"] and other in with_quantization["benchmarks.md"]


def test_every_figure_of_quantization_is_named_in_words_and_null_with_a_reason_where_no_model_is_shipped(
    monkeypatch,
):
    monkeypatch.setattr(common, "names", lambda: ())
    common.subject.cache_clear()
    parts = [part(False) for part in PARTS if part is not explained]
    named = {key for found in parts for key in found.figures} | {"explain_found", "explain_planted"}
    assert named == set(WORDS) and set(IN_README) <= named
    assert all(set(found.null_reasons) == set(found.figures) for found in parts)


def test_every_figure_that_a_page_shows_has_words_of_its_own():
    for name, document in render.results().items():
        assert [key for key in document["figures"] if key not in render.WORDS] == [], name
