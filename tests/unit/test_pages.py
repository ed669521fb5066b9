"""What a reader sees in README and docs comes from results, and from nowhere else."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch

import labkit as lk
from benchmarks import render
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
