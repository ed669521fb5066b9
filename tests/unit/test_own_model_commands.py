"""An ONNX file that says nothing of itself, on the command line: how its images were prepared is told, or assumed."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from torch import nn

from labkit.cli import main
from labkit.convert import save_as
from labkit.errors import LabkitError
from labkit.formats import load_onnx
from labkit.zoo import load_model

SHORT = ("--set", "max_samples=64", "--set", "threads=1")


class AsTrained(nn.Module):
    """lenet5@digits as somebody who trained on the bytes themselves would have exported it, with a softmax behind."""

    def __init__(self, variant) -> None:
        super().__init__()
        self.network, self.how = variant.model, variant.preprocessing["image"]

    def forward(self, x):
        return self.network((x * self.how.scale - self.how.mean[0]) / self.how.std[0]).softmax(1)


@pytest.fixture(scope="module")
def file(lenet, tmp_path_factory):
    """Its path."""
    path = tmp_path_factory.mktemp("own") / "own.onnx"
    image = torch.zeros(2, *lenet.inputs[0].shape[1:])
    names = {"input_names": ["x"], "output_names": ["probabilities"]}
    axes = {name: {0: "batch"} for name in ("x", "probabilities")}
    torch.onnx.export(AsTrained(lenet).eval(), (image,), path, dynamo=False, dynamic_axes=axes, **names)
    return str(path)


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run `labkit …` in an empty folder: (status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["labkit", *words])
        with pytest.raises(SystemExit) as exit_:
            main()
        captured = capsys.readouterr()
        return exit_.value.code or 0, captured.out, captured.err

    return call


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_is_assumed_is_said_and_doubted(run, file):
    status, out, err = run("prune", file, "--dataset", "digits", "--out", "p.onnx")
    assert status == 0
    assert "assuming x · 0.00392157, channels first; if it was trained otherwise, pass --scale" in err
    assert "Doubtful: the model as it came is right on" in out


@pytest.mark.parametrize("command", ["prune", "quantize", "distill", "convert", "apply"])
def test_every_command_can_be_told_how_images_were_prepared(command, run, file, tmp_path):
    (tmp_path / "recipe.toml").write_text('[[step]]\ntechnique = "prune_magnitude"\n')
    words = {
        "distill": (*SHORT, "--set", "student=lenet5", "--set", "width=0.1", "--set", "epochs=1"),
        "convert": ("--to", "openvino"),
        "apply": ("--recipe", "recipe.toml"),
    }.get(command, ())
    status, out, err = run(
        command, file, *words, "--dataset", "digits", "--scale", "1", "--out", "made", "--json"
    )
    assert status == 0, err
    assert "assuming" not in err and "Doubtful" not in out
    facts = json.loads(out)
    if command != "convert":
        assert facts["before"]["quality"] > 0.9
    assert load_model("made").preprocessing["x"].scale == 1


def test_a_pruned_file_alone_remembers_it(run, file):
    assert run("prune", file, "--dataset", "digits", "--scale", "1", "--out", "p.onnx")[0] == 0
    alone = load_onnx("p.onnx")
    assert alone.preprocessing["x"].scale == 1 and alone.labels == tuple("0123456789")
    status, out, err = run("measure", "p.onnx", "--runtime", "onnxruntime", "--json")
    assert status == 0 and "assuming" not in err
    assert json.loads(out)[0]["accuracy"] > 0.9
    save_as(alone, "again.onnx")
    assert load_onnx("again.onnx").payload == alone.payload, "what is told already is not told anew"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--scale", "1"), "give them with --dataset"),
        (("--dataset", "digits", "--mean", "a"), "--mean 'a': give numbers with commas between them"),
        (("--dataset", "digits", "--std", "0"), "give finite numbers, std above 0"),
        (("--dataset", "digits", "--scale", "0"), "give finite numbers"),
        (("--dataset", "digits", "--mean", "1,2,3"), "give one number, or one for each of 1 channels"),
    ],
)
def test_a_preparation_that_is_none_is_refused(words, says, run, file):
    status, out, err = run("prune", file, *words, "--out", "p.onnx")
    assert (status, out) == (1, "") and says in err and "Traceback" not in err


def test_scale_0_is_refused_where_it_was_ignored(run, file):
    words = ("--requirement", "classroom", "--scale", "0", "--out", "o")
    status, _, err = run("optimize", file, "--dataset", "digits", *words)
    assert status == 1 and "scale=0.0" in err


def test_openvino_s_pair_is_written_together_or_not_at_all(file, tmp_path, monkeypatch):
    from labkit import convert

    pair = convert(load_onnx(file), "openvino").variant
    (tmp_path / "m.bin").write_bytes(b"weights of before")
    (tmp_path / "m.xml").write_bytes(b"<net/>")
    real, opened = open, []

    def full(path, *rest, **named):
        if str(path).endswith(".partial"):
            opened.append(path)
            if len(opened) > 1:
                raise OSError(28, "No space left on device")
        return real(path, *rest, **named)

    monkeypatch.setattr("builtins.open", full)
    with pytest.raises(LabkitError, match=r"cannot write .*m\.xml: No space left on device; nothing was"):
        save_as(pair, tmp_path / "m.xml")
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == {
        "m.bin": b"weights of before",
        "m.xml": b"<net/>",
    }
