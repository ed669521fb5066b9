"""Who teaches, and what it was worth: the baseline of the same budget, and teachers other than the variant itself."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import onnx
import pytest

from labkit.convert import ExportOnnx
from labkit.data import Dataset, Split
from labkit.distill import Distill, DistillHints, beside_baseline
from labkit.errors import ModelFileError, TechniqueError
from labkit.measure.quality import evaluate
from labkit.methods import METHODS
from labkit.prune import PruneChannels, PruneMagnitude
from labkit.quantize.aware import QuantizeAware
from labkit.variant import Preprocessing, Variant
from labkit.zoo import load_model
from tests.graphs import build, node, normal, weight

SHORT = {"max_samples": 96, "threads": 1, "learning_rate": 0.02}
QUICK = Distill(student="lenet5", width=0.3, epochs=1, **SHORT)
PRUNED = (
    PruneMagnitude(fine_tune_epochs=1, alpha=1.0, **SHORT),
    PruneChannels(fine_tune_epochs=1, alpha=1.0, **SHORT),
)


@pytest.fixture(scope="module")
def large():
    return load_model("resnet20@digits")


# --- the baseline ---


@pytest.mark.parametrize(
    "technique", [QUICK, DistillHints(**QUICK.config), PRUNED[0]], ids=lambda each: each.name
)
def test_the_baseline_is_the_same_technique_with_a_silent_teacher(technique, lenet, digits):
    taught, alone = beside_baseline(technique, lenet, digits)
    assert taught.payload == technique(lenet, digits).payload
    assert alone.payload == dataclasses.replace(technique, alpha=0.0)(lenet, digits).payload
    ours, theirs = taught.lineage[-1].config, alone.lineage[-1].config
    assert {key for key in ours if ours[key] != theirs[key]} == {"alpha"}, "same seed, schedule and data"


def test_the_two_are_compared_image_by_image(lenet, digits):
    quick = dataclasses.replace(QUICK, max_samples=0, epochs=2, without="3")
    scores = [evaluate(student, digits) for student in beside_baseline(quick, lenet, digits)]
    paired = digits.task.compare(scores[1], scores[0])
    assert paired.difference == pytest.approx(scores[0].mean() - scores[1].mean())
    assert paired.ci95[0] < paired.difference < paired.ci95[1]


def test_it_reports_one_piece_of_work(lenet, digits):
    told = []
    beside_baseline(QUICK, lenet, digits, lambda fraction, message: told.append((fraction, message)))
    fractions = [fraction for fraction, _ in told]
    assert fractions == sorted(fractions) and fractions[-1] == 1.0
    assert told[0][1].startswith("taught: ") and told[-1][1].startswith("on labels alone: ")


def test_there_is_nothing_beside_a_silent_teacher(lenet, digits):
    with pytest.raises(TechniqueError, match=r"alpha=0\.0 is the baseline itself: set alpha"):
        beside_baseline(dataclasses.replace(QUICK, alpha=0.0), lenet, digits)


# --- another teacher ---


@pytest.mark.parametrize("technique", PRUNED, ids=lambda each: each.name)
def test_a_pruned_student_may_have_a_larger_teacher(technique, lenet, large, digits):
    rubbish = dataclasses.replace(digits.split("train"), target=np.full(len(digits.split("train")), -9))
    blind = dataclasses.replace(digits, splits={**digits.splits, "train": rubbish})
    taught = dataclasses.replace(technique, teacher="resnet20@digits")(lenet, blind)
    assert taught.payload != technique(lenet, blind).payload, "whose answers are learned makes a difference"
    assert taught.lineage[-1].parents == (lenet.digest, large.digest)
    assert evaluate(taught, digits).mean() > 0.8


def test_a_quantized_student_may_have_a_larger_teacher(lenet, large, digits):
    student = ExportOnnx()(lenet)
    quick = QuantizeAware(epochs=1, weight_bits=4, alpha=1.0, calibration_samples=32, **SHORT)
    taught = dataclasses.replace(quick, teacher="resnet20@digits")(student, digits)
    assert taught.payload != quick(student, digits).payload
    assert taught.lineage[-1].parents == (student.digest, large.digest)


def test_a_teacher_may_be_a_saved_variant_in_pytorch_or_in_onnx(lenet, large, digits, tmp_path):
    large.save(tmp_path / "torch")
    ExportOnnx()(large).save(tmp_path / "onnx")
    named, *saved = (
        dataclasses.replace(PRUNED[0], teacher=str(teacher))(lenet, digits)
        for teacher in ("resnet20@digits", tmp_path / "torch", tmp_path / "onnx")
    )
    assert saved[0].payload == named.payload
    for made in saved:
        assert evaluate(made, digits).mean() == pytest.approx(evaluate(named, digits).mean(), abs=0.02)


def test_a_silent_teacher_is_not_named_and_the_baseline_has_none(lenet, digits):
    with pytest.raises(TechniqueError, match=r"alpha=0\.0 makes teacher='resnet20@digits' a silent one"):
        PruneMagnitude(fine_tune_epochs=1, teacher="resnet20@digits")(lenet, digits)
    _, alone = beside_baseline(dataclasses.replace(PRUNED[0], teacher="resnet20@digits"), lenet, digits)
    assert len(alone.lineage[-1].parents) == 1


def test_a_teacher_that_is_nowhere_says_how_to_make_one(lenet, digits, tmp_path):
    for nobody in ("resnet21@digits", str(tmp_path), "a" * 5000):
        with pytest.raises(
            TechniqueError, match=r"neither a shipped network.*\.onnx file.*variant\.save\(folder\)"
        ):
            dataclasses.replace(PRUNED[0], teacher=nobody)(lenet, digits)


def test_an_onnx_file_can_be_named_as_it_is(lenet, large, digits, tmp_path):
    teacher = ExportOnnx()(large)
    (tmp_path / "teacher.onnx").write_bytes(teacher.payload)
    teacher.save(tmp_path / "saved")
    by_file, by_folder = (
        dataclasses.replace(PRUNED[0], teacher=str(tmp_path / name))(lenet, digits)
        for name in ("teacher.onnx", "saved")
    )
    assert by_file.payload == by_folder.payload
    (tmp_path / "teacher.onnx").write_bytes(teacher.payload[:-100])
    with pytest.raises(ModelFileError, match=r"teacher\.onnx"):
        dataclasses.replace(PRUNED[0], teacher=str(tmp_path / "teacher.onnx"))(lenet, digits)


def test_a_teacher_in_a_damaged_file_is_refused_before_it_is_heard(lenet, large, digits, tmp_path):
    teacher = ExportOnnx()(large)
    model = onnx.load_model_from_string(teacher.payload)
    del model.graph.node[-1]
    dataclasses.replace(teacher, model=model.SerializeToString()).save(tmp_path / "cut")
    with pytest.raises(ModelFileError, match="cut: it is not valid ONNX"):
        dataclasses.replace(PRUNED[0], teacher=str(tmp_path / "cut"))(lenet, digits)


def test_a_teacher_who_is_shown_something_else_is_refused(lenet, large, digits, tmp_path):
    other = {"image": Preprocessing(1 / 255, (0.5,), (0.5,), "NCHW")}
    dataclasses.replace(large, preprocessing=other).save(tmp_path / "dim")
    with pytest.raises(TechniqueError, match="differ in their preprocessing: "):
        dataclasses.replace(PRUNED[0], teacher=str(tmp_path / "dim"))(lenet, digits)
    dataclasses.replace(large, labels=tuple("abcdefghij")).save(tmp_path / "letters")
    with pytest.raises(TechniqueError, match=r"differ in their classes: \('a'"):
        dataclasses.replace(PRUNED[0], teacher=str(tmp_path / "letters"))(lenet, digits)


@pytest.fixture(scope="module")
def noisy_regression():
    """An ONNX file that predicts one number, and samples whose targets are far from it."""
    nodes = [node("MatMul", "x w1", "m1"), node("Relu", "m1", "r1"), node("MatMul", "r1 w2", "y")]
    variant = build(nodes, [weight("w1", 8, 16), weight("w2", 16, 1)], ("batch", 8), ("batch", 1))
    split = Split({"x": normal("x", 200, 8)}, 3 * normal("y", 200))
    parts = dict.fromkeys(("train", "calibration", "validation", "test"), split)
    return dataclasses.replace(variant, task="regression"), Dataset("noise", "regression", parts)


@pytest.mark.parametrize(
    "technique",
    [
        PruneMagnitude(),
        PruneMagnitude(fine_tune_epochs=1, **SHORT),
        PruneChannels(fine_tune_epochs=1, **SHORT),
        QuantizeAware(epochs=1, calibration_samples=32, **SHORT),
    ],
    ids=lambda each: each.name,
)
def test_a_file_that_has_no_other_teacher_is_not_judged_as_one(technique, noisy_regression):
    made = technique(*noisy_regression)
    assert made.payload != noisy_regression[0].payload


@pytest.mark.parametrize("technique", PRUNED, ids=lambda each: each.name)
def test_a_file_without_classes_has_those_of_its_teacher(technique, lenet, digits):
    bare = dataclasses.replace(ExportOnnx()(lenet), labels=(), preprocessing={})
    data = dataclasses.replace(
        digits, splits={k: Split(lenet.feeds(v.inputs), v.target) for k, v in digits.splits.items()}
    )
    made = dataclasses.replace(technique, teacher="resnet20@digits")(bare, data)
    assert len(made.lineage[-1].parents) == 2


# --- the command ---


FAST = [word for pair in ("epochs=1", "max_samples=96", "threads=1") for word in ("--set", pair)]
SMALL = ["--set", "student=lenet5", "--set", "width=0.3"]


@pytest.mark.parametrize("method", METHODS["distill"])
def test_every_method_is_one_command(method, run):
    small = [] if method == "self" else SMALL
    status, out, err = run("distill", "lenet5@digits", "--method", method, "--out", "s", *FAST, *small)
    assert status == 0 and "accuracy" in out and "on the labels alone" not in out
    assert Variant.load("s").lineage[-1].technique == METHODS["distill"][method]


def test_the_command_says_what_the_teacher_was_worth(run, digits):
    words = ("distill", "lenet5@digits", "--out", "s", *FAST, *SMALL, "--with-baseline")
    status, out, err = run(*words)
    assert status == 0 and "; on the labels alone it has accuracy 0." in out and ", difference " in out
    status, out, err = run(*words, "--json")
    told = json.loads(out)
    assert told["difference"] == pytest.approx(told["quality"] - told["baseline"]["quality"])
    assert told["difference_ci95"][0] < told["difference"] < told["difference_ci95"][1]


def test_what_has_no_teacher_has_no_baseline(run):
    status, out, err = run("quantize", "lenet5@digits", "--method", "half", "--out", "h", "--with-baseline")
    assert status == 1 and "store_half has no teacher that could be silent" in err
