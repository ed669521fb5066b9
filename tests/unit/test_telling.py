"""What a command says of what it made, beside what it was made of; and what it may be asked to make."""

import dataclasses
import json
import os

import pytest
import torch

from labkit.convert import check_out
from labkit.errors import LabkitError
from labkit.methods import METHODS
from labkit.pipeline import TECHNIQUES
from labkit.zoo import load_model
from tests.small_lenet import save_small_lenet


@pytest.fixture
def run(run, lenet):
    """Run `labkit` where a small variant lies in "model": stdout, or stderr where it is to fail."""
    save_small_lenet(lenet, "model")

    def call(*words, fails=False):
        status, out, err = run(*words)
        assert bool(status) == fails
        return err if fails else out

    return call


def test_what_was_made_stands_beside_what_it_was_made_of(run):
    words = ("prune", "lenet5@digits", "--method", "channels", "--out")
    facts = json.loads(run(*words, "a", "--json"))
    before = facts["before"]
    assert before["name"] == "lenet5@digits" and facts["quality"] < before["quality"]
    assert facts["macs"] < before["macs"] and facts["parameters"] < before["parameters"]
    assert facts["size_bytes"] < before["size_bytes"]
    assert before["difference"] == pytest.approx(facts["quality"] - before["quality"], abs=1e-6)
    low, high = before["difference_ci95"]
    assert low <= before["difference"] <= high
    out = run(*words, "b")
    assert f"{before['size_bytes'] / facts['size_bytes']:.2f}× as many" in out
    assert f"multiply-adds a sample {before['macs']:,} → {facts['macs']:,}" in out
    assert f"now {before['difference']:+.4f} [{low:+.4f}, {high:+.4f}]" in out


def test_zeros_are_told_and_how_they_become_small(run):
    out = run("prune", "model", "--method", "magnitude", "--set", "sparsity=0.9", "--out", "a")
    assert "quality not measured" in out and "labkit encode a --out a.lkz" in out
    facts = json.loads(run("encode", "a", "--out", "a.lkz", "--json"))
    assert facts["nonzero_parameters"] < 0.2 * facts["parameters"]
    assert "labkit encode" not in run("prune", "model", "--set", "sparsity=0.1", "--out", "b")


def test_the_bytes_of_coded_weights_are_those_of_the_file(run, tmp_path):
    words = ("prune", "model", "--method", "magnitude", "--set", "sparsity=0.9", "--out", "a.lkz")
    size_bytes = (tmp_path / "a.lkz").stat().st_size if run(*words) else 0
    assert f"{size_bytes:,} bytes" in run(*words)
    assert json.loads(run(*words, "--json"))["size_bytes"] == size_bytes


@pytest.mark.parametrize("out", ["a", "a.lkz"])
def test_what_takes_the_place_of_another_model_says_so(run, out):
    words = ("prune", "model", "--set", "sparsity=0.9", "--out", out)
    assert "in place of" not in run(*words)
    assert f"saved in {out}, in place of the model that was there" in run(*words)


def test_every_method_is_listed_with_its_command(run):
    rows = json.loads(run("methods", "--json"))["methods"]
    assert [(each["command"], each["method"]) for each in rows] == [
        (command, method) for command, methods in METHODS.items() for method in methods
    ]
    out = run("methods", "prune")
    assert "channels" in out and "hints" not in out


@pytest.mark.parametrize("command", METHODS)
def test_the_fields_of_every_method_are_listed_with_their_defaults(run, command):
    for method, name in METHODS[command].items():
        (cls,) = [each for each in TECHNIQUES if each.name == name]
        listed = json.loads(run("methods", command, method, "--json"))["fields"]
        idle = getattr(cls, "idle", ())  # fields of its family that mean nothing to it
        defaults = {each.name: each.default for each in dataclasses.fields(cls) if each.name not in idle}
        assert {each["field"]: each["default"] for each in listed} == defaults
        assert all(each["allowed"] != each["field"] for each in listed)


def test_fields_are_shown_with_bounds_choices_and_meaning(run):
    out = run("methods", "prune", "channels")
    assert (
        "0.0 < pruning_ratio < 1.0" in out and "l1, l2, bn_scale, taylor, random" in out and "any text" in out
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("prine",), "did you mean 'prune'"),
        (("prune", "chanels"), "did you mean 'channels'"),
        (("", "channels"), "'' has no methods"),
        (
            ("train", "channels"),
            "train has no methods, and 'channels' is given: labkit methods train shows its fields",
        ),
    ],
)
def test_a_mistyped_name_meets_the_nearest(run, words, says):
    assert says in run("methods", *words, fails=True)


def test_a_place_that_a_trained_network_cannot_be_written_to_is_refused_before_the_training(run, monkeypatch):
    monkeypatch.setattr("labkit.train.fit", lambda *_, **__: pytest.fail("trained first"))
    assert "give a folder" in run("train", "lenet5", "--out", "a.onnx", fails=True)


@pytest.mark.parametrize(
    "words",
    [("encode", "model", "--out", "notes.lkz"), ("convert", "model", "--to", "onnx", "--out", "notes.onnx")],
)
def test_what_is_no_model_is_not_replaced(run, words, tmp_path):
    notes = tmp_path / words[-1]
    notes.write_text("notes of mine")
    assert f"{words[-1]} is there and is no {notes.suffix} model" in run(*words, fails=True)
    assert notes.read_text() == "notes of mine"
    notes.write_bytes(b"")
    run(*words)
    first = notes.read_bytes()
    run(*words)
    assert notes.read_bytes() == first


def test_weights_that_belong_to_nothing_are_not_replaced(run, tmp_path):
    (tmp_path / "m.bin").write_text("notes of mine")
    assert "m.bin, where the weights of m.xml would lie" in run(
        "convert", "model", "--to", "openvino", "--out", "m.xml", fails=True
    )
    (tmp_path / "m.bin").unlink()
    for _ in range(2):
        run("convert", "model", "--to", "openvino", "--out", "m.xml")


@pytest.mark.parametrize("make", [os.mkfifo, None], ids=["pipe", "NUL"])
def test_what_is_no_file_at_all_neither_hangs_nor_ends_in_a_traceback(run, make, tmp_path):
    name = "a.onnx" if make else "a\0.onnx"
    if make:
        make(tmp_path / name)
        check_out("onnx", tmp_path / name)
    else:
        with pytest.raises(LabkitError, match="cannot write"):
            check_out("onnx", tmp_path / name)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["keep=0.1"], "set target too"),
        (["target=macs", "pruning_ratio=0.3"], "prunes until `keep` is left"),
        (["alpha=0.5"], "give fine_tune_epochs"),
    ],
)
def test_a_field_that_would_have_no_effect_is_refused(run, settings, says):
    fields = [word for setting in settings for word in ("--set", setting)]
    told = run("prune", "model", "--method", "channels", *fields, "--out", "a", fails=True)
    assert "would have no effect" in told and says in told


def test_a_class_that_is_a_number_is_a_name_all_the_same(run):
    words = ("--set", "epochs=1", "--set", "max_samples=64", "--set", "without=3", "--out", "a")
    assert "accuracy" in run("distill", "lenet5@digits", *words)


def test_the_time_that_was_asked_for_stands_beside_what_is_left_of_it(run):
    words = (
        "prune",
        "model",
        "--method",
        "channels",
        "--set",
        "target=latency",
        "--set",
        "keep=0.9",
        "--out",
    )
    facts = json.loads(run(*words, "a", "--json"))
    low, high = facts["time_share_ci95"]
    assert facts["time_share_asked"] == 0.9 and 0 < low <= facts["time_share"] <= high < 2
    assert "of before; asked for: 0.9" in run(*words, "b")


def test_what_was_made_of_a_shipped_network_is_measured_on_its_dataset(run):
    run("prune", "lenet5@digits", "--set", "sparsity=0.5", "--out", "pruned")
    assert "accuracy" in run("prune", "pruned", "--set", "sparsity=0.6", "--out", "again")


def test_fewer_multiply_adds_are_not_said_to_be_less_time(run):
    words = ("prune", "model", "--method", "channels", "--set")
    assert "asks for time itself" in run(*words, "pruning_ratio=0.3", "--out", "a")
    assert "asks for time itself" not in run(
        "prune", "model", "--method", "magnitude", "--set", "sparsity=0.3", "--out", "b"
    )


def test_a_layer_that_lost_nearly_all_is_named(run):
    model = load_model("lenet5@digits")
    layers = dict(model.model.named_modules())
    with torch.no_grad():  # the same network with other scales: ReLU passes them on
        for parameter in layers["conv2"].parameters():
            parameter.mul_(1e-3)
        layers["fc1"].weight.mul_(1e3)
    dataclasses.replace(model, name="thin").save("thin")
    words = ("prune", "thin", "--dataset", "digits", "--set")
    out = run(*words, "sparsity=0.5", "--method", "magnitude", "--out", "a")
    assert "nearly all of theirs: conv1 100.0%, conv2 100.0%, fc2 100.0%; --set scope=layer" in out
    assert "training may bring back what was lost" in out
    even = run(*words, "sparsity=0.99", "--set", "scope=layer", "--method", "magnitude", "--out", "b")
    assert "nearly all of theirs" not in even and "training may bring back" in even


def test_a_student_larger_than_its_teacher_is_told(run):
    words = ("--dataset", "digits", "--set", "epochs=1", "--set", "max_samples=64", "--set", "student=lenet5")
    assert "larger than its teacher" in run("distill", "model", *words, "--out", "a")
    assert "larger than its teacher" not in run("distill", "lenet5@digits", *words, "--out", "b")


def test_a_folder_that_has_the_name_of_a_file_is_told(run):
    assert "saved in the folder a.txt" in run("prune", "model", "--set", "sparsity=0.5", "--out", "a.txt")
    assert "saved in a" in run("prune", "model", "--set", "sparsity=0.5", "--out", "a")
