"""An ONNX file that says nothing of itself, on the command line: how its images were prepared is told, or assumed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from labkit.convert import save_as
from labkit.errors import LabkitError
from labkit.formats import load_onnx
from labkit.zoo import load_model

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's, of its older exporter
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


def test_the_doubt_stands_in_the_json_too(run, file):
    words = ("--dataset", "digits", "--out", "p.onnx", "--json")
    assert json.loads(run("prune", file, *words)[1])["doubt"].startswith("Doubtful: the model as it came")
    assert json.loads(run("prune", file, "--scale", "1", *words)[1])["doubt"] is None
    status, out, err = run("measure", file, "--dataset", "digits", "--runtime", "onnxruntime")
    assert status == 0 and "Doubtful" in err and "Doubtful" not in out


@pytest.mark.parametrize("command", ["prune", "quantize", "apply", "convert"])
def test_the_model_itself_is_never_written_over(command, run, file, tmp_path):
    (tmp_path / "recipe.toml").write_text('[[step]]\ntechnique = "prune_magnitude"\n')
    before = Path(file).read_bytes()
    words = {"apply": ("--recipe", "recipe.toml"), "convert": ("--to", "onnx")}.get(
        command, ("--dataset", "digits")
    )
    status, _, err = run(command, file, *words, "--out", file)
    assert status == 1 and "is the model itself, and would be lost: give another name" in err
    assert Path(file).read_bytes() == before


def test_what_was_lost_comes_with_what_brings_it_back(run, file):
    words = ("prune", file, "--method", "channels", "--dataset", "digits", "--scale", "1", "--out", "p.onnx")
    mend = "--set fine_tune_epochs=4"
    assert mend in run(*words)[1]
    assert mend not in run(*words, "--set", "fine_tune_epochs=1", *SHORT)[1]
    assert mend not in run(*words, "--set", "pruning_ratio=0.02")[1]


def test_a_file_that_says_nothing_may_teach_its_like(run, file):
    settings = ("--set", f"teacher={file}", "--set", "alpha=0.5", "--set", "fine_tune_epochs=1", *SHORT)
    words = ("--dataset", "digits", "--out", "made", "--json")
    status, out, err = run("prune", file, "--scale", "1", *words, *settings)
    assert status == 0, err
    status, _, err = run("prune", "lenet5@digits", *words, *settings)
    assert status == 1 and "no better than a guess: it does not say how its images are prepared" in err


def test_of_several_outputs_the_judged_one_is_named(run, file, tmp_path):
    model = onnx.load(file)
    logits = next(node.input[0] for node in model.graph.node if node.op_type == "Softmax")
    model.graph.output.append(onnx.helper.make_tensor_value_info(logits, 1, ["batch", 10]))
    onnx.save(model, tmp_path / "two.onnx")
    status, _, err = run("prune", "two.onnx", "--dataset", "digits", "--scale", "1", "--out", "p.onnx")
    assert status == 0
    assert f"'probabilities', the first, is judged and trained, and nobody watches {logits!r}" in err


def test_one_batch_size_alone_says_what_to_do(run, lenet, tmp_path):
    torch.onnx.export(
        AsTrained(lenet).eval(), (torch.zeros(1, *lenet.inputs[0].shape[1:]),), "fixed.onnx", dynamo=False
    )
    words = (
        "prune",
        "fixed.onnx",
        "--dataset",
        "digits",
        "--out",
        "p.onnx",
        "--set",
        "fine_tune_epochs=1",
        *SHORT,
    )
    status, _, err = run(*words)
    assert (
        status == 1 and "takes batches of exactly 1: export it with a free batch, or set batch_size=1" in err
    )
    assert run(*words, "--set", "batch_size=1")[0] == 0


def test_images_with_their_channels_first_are_told_to_turn(run, file, tmp_path):
    images = np.zeros((60, 3, 32, 32), np.float32)
    images[::2, 0] = 1
    np.savez(tmp_path / "first.npz", x=images, y=np.arange(60) % 2)
    torch.onnx.export(
        nn.Sequential(nn.Flatten(), nn.Linear(3072, 2)).eval(),
        (torch.zeros(2, 3, 32, 32),),
        "colour.onnx",
        dynamo=False,
        input_names=["x"],
        dynamic_axes={"x": {0: "batch"}},
    )
    words = ("measure", "colour.onnx", "--dataset", "first.npz", "--runtime", "onnxruntime")
    assert run(*words, "--mean", "0.5")[0] == 0
    for mean in ("0.1,0.2,0.3", ",".join(["0.1"] * 32)):
        status, _, err = run(*words, "--mean", mean)
        assert status == 1 and "store them as x.transpose(0, 2, 3, 1)" in err


def test_the_module_is_the_command():
    told = subprocess.run(
        [sys.executable, "-m", "labkit", "methods", "distill"], capture_output=True, text=True, check=True
    )
    assert "labkit methods distill soft_targets" in told.stdout


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


@pytest.mark.parametrize("ending", ["onxx", "onn"])
def test_a_mistyped_ending_makes_no_folder(ending, run, file, tmp_path):
    status, _, err = run("prune", file, "--dataset", "digits", "--out", f"p.{ending}")
    assert status == 1 and "nearly the ending of a file: end it in '.onnx', or give a folder" in err
    assert list(tmp_path.iterdir()) == []


def test_a_torch_file_of_habit_is_told_what_there_is(run):
    status, _, err = run("prune", "lenet5@digits", "--out", "p.pth")
    assert status == 1 and "give a folder, or end it in '.lkz' for coded weights" in err


def test_one_hot_rows_are_no_numbers_to_predict(run, file, tmp_path):
    np.savez(
        tmp_path / "hot.npz",
        x=np.zeros((60, 32, 32, 1), np.float32),
        y=np.eye(10, dtype=np.float32)[np.arange(60) % 10],
    )
    status, _, err = run("measure", file, "--dataset", "hot.npz")
    assert status == 1 and "store the classes as whole numbers, y.argmax(1)" in err


def test_a_recipe_s_export_is_left_out_for_what_is_onnx(run, file, tmp_path):
    (tmp_path / "recipe.toml").write_text(
        '[[step]]\ntechnique = "prune_magnitude"\n[[step]]\ntechnique = "export_onnx"\n'
    )
    status, _, err = run("apply", file, "--recipe", "recipe.toml", "--dataset", "digits", "--out", "made")
    assert status == 1 and "it is ONNX already: leave this step out" in err


def test_a_dataset_is_shown_by_its_sizes(digits):
    assert repr(digits).startswith("Dataset('digits', classification, 10 classes: train ")


def test_a_scale_for_bytes_is_doubted_for_fractions(run, digits, tmp_path):
    split = digits.split("test")
    np.savez(tmp_path / "fractions.npz", x=split.inputs["image"].astype(np.float32) / 255, y=split.target)
    words = ("measure", "lenet5@digits", "--runtime", "torch", "--dataset", "fractions.npz", "--json")
    status, out, err = run(*words)
    assert status == 0 and "multiplies its images by 0.00392157, as is right for bytes" in err
    how = load_model("lenet5@digits").preprocessing["image"]
    told = ("--scale", "1", "--mean", str(how.mean[0]), "--std", str(how.std[0]))
    status, right, err = run(*words, *told)
    assert status == 0 and "right for bytes" not in err
    assert json.loads(right)[0]["accuracy"] > 0.9 > json.loads(out)[0]["accuracy"]


def test_multiply_adds_that_cannot_be_counted_are_told_with_their_reason(run, tmp_path):
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(6, 8), nn.Parameter(torch.ones(8, 3))

        def forward(self, x):
            return torch.einsum("bi,ij->bj", self.first(x), self.second)

    torch.onnx.export(Mixed(), (torch.ones(2, 6),), tmp_path / "m.onnx", dynamo=False, input_names=["x"])
    words = ("quantize", "m.onnx", "--method", "dynamic", "--out", "q.onnx")
    said = "the multiply-adds of Einsum are not counted"
    assert said in run(*words)[1]
    facts = json.loads(run(*words, "--json")[1])
    assert facts["macs"] is None and facts["macs_reason"] == said
