"""What a student learns from: images without labels, another dataset's, all but some classes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from labkit.data import NO_LABEL, load_unlabelled
from labkit.distill import Distill, DistillDecoupled
from labkit.distill.transfer import with_images_of, without_classes
from labkit.errors import ConfigError, DataError, TechniqueError
from labkit.measure.quality import evaluate

QUICK = Distill(student="lenet5", width=0.5, epochs=2, learning_rate=0.05, alpha=1.0, threads=1)


def trained_on(dataset, **change):
    train = dataclasses.replace(dataset.split("train"), **change)
    return dataclasses.replace(dataset, splits={**dataset.splits, "train": train})


@pytest.fixture
def unlabelled(digits, tmp_path):
    """Half of the training images in a file of their own, which has no labels."""
    path = tmp_path / "found.npz"
    np.savez(path, x=digits.split("train").inputs["image"][:600])
    return str(path)


def test_no_label_is_read_with_alpha_one(lenet, digits):
    quick = dataclasses.replace(QUICK, max_samples=128, epochs=1)
    rubbish = np.full(len(digits.split("train")), -987_654)
    assert quick(lenet, trained_on(digits, target=rubbish)).payload == quick(lenet, digits).payload
    with pytest.raises((IndexError, RuntimeError)):
        dataclasses.replace(quick, alpha=0.9)(lenet, trained_on(digits, target=rubbish))


def test_images_without_labels_are_enough(lenet, digits, unlabelled):
    samples = load_unlabelled(unlabelled)
    assert len(samples) == 600 and set(samples.target) == {NO_LABEL}
    student = dataclasses.replace(QUICK, transfer=unlabelled)(lenet, digits)
    assert evaluate(student, digits).mean() > 0.8
    assert student.lineage[-1].config["transfer"] == unlabelled and student.labels == digits.labels


def test_another_dataset_is_read_without_its_labels(digits):
    found = with_images_of(digits, "digits")
    assert set(found.split("train").target) == {NO_LABEL}
    assert np.array_equal(found.split("train").inputs["image"], digits.split("train").inputs["image"])
    assert found.split("validation") is digits.split("validation"), "what it is measured on stays"


def test_noise_teaches_little_and_the_data_much(lenet, digits, tmp_path):
    """The negative control: not every image will do."""
    noise = np.random.RandomState(0).randint(0, 256, (600, 32, 32, 1)).astype(np.uint8)
    np.savez(tmp_path / "noise.npz", x=noise)
    student = dataclasses.replace(QUICK, transfer=str(tmp_path / "noise.npz"))(lenet, digits)
    assert evaluate(student, digits).mean() < 0.5


def test_classes_left_out_are_seen_by_nobody_and_still_asked_for(digits):
    found = without_classes(digits, "3, 7")
    assert sorted(set(found.split("train").target)) == [0, 1, 2, 4, 5, 6, 8, 9]
    kept = ~np.isin(digits.split("train").target, [3, 7])
    assert np.array_equal(found.split("train").inputs["image"], digits.split("train").inputs["image"][kept])
    assert found.split("test") is digits.split("test") and found.split("validation") is digits.split(
        "validation"
    )


def test_a_digit_that_was_never_seen_is_known_from_hearsay_only_if_there_is_a_teacher(lenet, digits):
    """Hinton's missing digit: soft targets alone know a 3 from what it has in common with others."""
    quick = dataclasses.replace(QUICK, epochs=5, temperature=8.0, without="3")
    threes = digits.split("test").target == 3
    taught = evaluate(quick(lenet, digits), digits, "test")
    alone = evaluate(dataclasses.replace(quick, alpha=0.0)(lenet, digits), digits, "test")
    assert alone[threes].mean() == 0.0
    assert taught[threes].mean() > 0.15
    assert taught[~threes].mean() > 0.95


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"transfer": "digits", "alpha": 0.9},
            "transfer='digits' has no labels .* alpha=0.9 .* set alpha=1.0",
        ),
        ({"transfer": "digits", "without": "3"}, "without='3' goes by labels"),
    ],
)
def test_labels_that_are_not_there_are_not_asked_for(change, says, lenet, digits):
    with pytest.raises(TechniqueError, match=says):
        dataclasses.replace(QUICK, **change)(lenet, digits)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nosuch.npz", "nosuch.npz does not exist"),
        ("no/such", "no/such does not exist"),
        ("mnits", "unknown dataset 'mnits'; did you mean 'mnist'"),
    ],
)
def test_a_transfer_set_that_is_not_there_is_what_is_said_first(name, says, lenet, digits):
    with pytest.raises(DataError, match=says):
        dataclasses.replace(QUICK, transfer=name, alpha=0.9)(lenet, digits)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({}, "has no x: .* found nothing"),
        ({"y": np.arange(4)}, "has no x: .* found y$"),
        ({"x_test": np.zeros((4, 32, 32, 1), np.uint8)}, r"has no x: .* found x_test$"),
        ({"a": np.zeros((4, 32, 32, 1)), "b": np.zeros((4, 2))}, "has no x: .* found a, b$"),
        ({"x_test": np.zeros((4, 2)), "y_test": np.zeros(4)}, "has no x: .* found x_test, y_test$"),
    ],
)
def test_a_file_without_x_says_what_it_has_and_what_is_needed(arrays, says, digits, tmp_path):
    np.savez(tmp_path / "found.npz", **arrays)
    with pytest.raises(DataError, match=f"found.npz.* {says}"):
        with_images_of(digits, str(tmp_path / "found.npz"))


def test_decoupled_needs_labels(lenet, digits):
    with pytest.raises(TechniqueError, match="transfer='digits' has none: use Distill"):
        DistillDecoupled(alpha=1.0, transfer="digits")(lenet, digits)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ("three", "digits has no class 'three'"),
        ("3,,4", "no class ''"),
        ("0,1,2,3,4,5,6,7,8,9", "leaves out every class"),
    ],
)
def test_a_class_that_there_is_not_is_named(names, says, digits):
    with pytest.raises(ConfigError, match=says):
        without_classes(digits, names)


def test_classes_without_a_sample_are_not_enough_to_learn_from(digits):
    without_nines = without_classes(digits, "9")
    with pytest.raises(ConfigError, match="leaves out every class of .* that has a sample"):
        without_classes(without_nines, "0,1,2,3,4,5,6,7,8")


def test_images_of_another_shape_are_refused(digits, tmp_path):
    np.savez(tmp_path / "small.npz", x=np.zeros((5, 8, 8), np.uint8))
    with pytest.raises(
        DataError, match=r"small.npz' holds .*uint8 \[8, 8, 1\].* digits .*uint8 \[32, 32, 1\]"
    ):
        with_images_of(digits, str(tmp_path / "small.npz"))


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"x": np.array([[np.nan]])}, "NaN"),
        ({"x": np.zeros((0, 4))}, "no samples"),
        ({"x": np.array(["a"])}, "only numbers"),
    ],
)
def test_a_damaged_file_of_images_is_refused(arrays, says, tmp_path):
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(DataError, match=says):
        load_unlabelled(tmp_path / "bad.npz")
