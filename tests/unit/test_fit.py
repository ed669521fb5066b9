"""A model and somebody's data are brought together, or it is said why they do not belong to each other."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from labkit.data import Dataset, Split
from labkit.errors import ConfigError, DataError
from labkit.strategy import doubt, fit_to, grid
from labkit.variant import TensorSpec, Variant

BYTES = np.random.RandomState(0).randint(0, 256, (6, 8, 8, 3), np.uint8)


def model(shape=("batch", 3, 8, 8)) -> Variant:
    spec = TensorSpec("picture", "float32", shape)
    return Variant("mine", "onnx", b"", (spec,), (TensorSpec("scores", "float32", ("batch", 2)),))


def data(array) -> Dataset:
    split = Split({"x": array}, np.arange(len(array)) % 2)
    splits = dict.fromkeys(("train", "calibration", "validation", "test"), split)
    return Dataset("theirs", "classification", splits, ("cat", "dog"))


def fed(array, shape=("batch", 3, 8, 8), **given) -> np.ndarray:
    fitted = fit_to(model(shape), data(array), **given)
    return fitted.feeds({"x": array})["picture"]


def test_a_batch_that_the_file_fixed_and_nobody_asked_for_is_said():
    with pytest.raises(ConfigError, match="'mine' takes batches of exactly 4: ask for batch size 4"):
        grid([model((4, 3, 8, 8))], ["onnxruntime"], [1, 32], [1])


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [((3, 16, 16), "16×16 pixels with 3 channels"), ((1, 8, 8), "8×8 pixels with 1 channel")],
)
def test_images_of_another_size_are_told_as_images(shape, wanted):
    with pytest.raises(
        DataError, match=f"'theirs' are 8×8 pixels with 3 channels, and 'mine' takes {wanted}"
    ):
        fed(BYTES, ("batch", *shape))
    floats = BYTES.transpose(0, 3, 1, 2).astype(np.float32)
    with pytest.raises(DataError, match="8×8 pixels with 3 channels"):
        fed(floats, ("batch", *shape))


def test_bytes_become_fractions_in_the_models_layout():
    np.testing.assert_allclose(fed(BYTES), BYTES.transpose(0, 3, 1, 2) / 255, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_fractions_stay_what_they_are_in_the_models_layout_and_type(dtype):
    x = fed((BYTES / 255).astype(dtype))
    assert x.dtype == np.float32
    np.testing.assert_allclose(x, BYTES.transpose(0, 3, 1, 2) / 255, atol=1e-3)


def test_ink_or_none_becomes_one_or_nothing():
    x = fed(BYTES > 128)
    assert set(np.unique(x)) == {0.0, 1.0}


def test_rows_of_numbers_keep_their_order():
    rows = np.arange(12.0).reshape(6, 2)
    np.testing.assert_array_equal(fed(rows, ("batch", 2)), rows.astype(np.float32))


def test_a_file_that_does_not_name_its_channels_gets_images_channels_first():
    assert fed(BYTES, ("batch", "c", "h", "w")).shape == (6, 3, 8, 8)
    first = np.ascontiguousarray(BYTES.transpose(0, 3, 1, 2))
    assert fed(first, ("batch", "c", "h", "w")).shape == (6, 3, 8, 8)


def test_images_whose_channels_may_be_first_or_last_are_refused():
    with pytest.raises(
        DataError, match=r"images \[4, 8, 3\] .* export it with a fixed size of its channel axis"
    ):
        fed(BYTES[:, :4], ("batch", "c", "h", "w"))


def test_what_is_given_goes_before_what_is_assumed():
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.2, 0.25)
    expected = (BYTES / 255 - np.array(mean)) / np.array(std)
    np.testing.assert_allclose(
        fed(BYTES, mean=mean, std=std), expected.transpose(0, 3, 1, 2), rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(fed(BYTES, scale=1.0), BYTES.transpose(0, 3, 1, 2))


def test_what_the_model_knows_is_kept(lenet, digits):
    assert fit_to(lenet, digits).preprocessing == lenet.preprocessing
    assert fit_to(lenet, digits, mean=(0.1,)).preprocessing["image"].mean == (0.1,)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"mean": (0.5, 0.5)}, "one for each of 3 channels"),
        ({"std": (0.0,)}, "std above 0"),
        ({"scale": 0.0}, "finite numbers"),
        ({"mean": (np.nan,)}, "finite numbers"),
    ],
)
def test_numbers_that_are_no_preprocessing_are_refused(given, says):
    with pytest.raises(ConfigError, match=says):
        fit_to(model(), data(BYTES), **given)


def test_two_inputs_bring_their_own_preprocessing(cases):
    with pytest.raises(ConfigError, match="models of one input"):
        fit_to(*cases["two_inputs"], scale=2.0)


def test_classes_in_another_order_are_refused_and_other_names_are_not(lenet, digits):
    with pytest.raises(DataError, match="class 0 is '0' to 'lenet5@digits' and '9' in 'digits'"):
        fit_to(lenet, dataclasses.replace(digits, labels=digits.labels[::-1]))
    words = ("nought", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    assert fit_to(lenet, dataclasses.replace(digits, labels=words)).labels == lenet.labels


@pytest.mark.parametrize(("first", "told"), [(1, True), (0, False)])
def test_targets_that_count_from_one_are_told(first, told):
    target = np.arange(first, first + 6) % (2 + first)
    target[target < first] = first
    split = Split({"x": BYTES}, target)
    splits = dict.fromkeys(("train", "calibration", "validation", "test"), split)
    theirs = Dataset("theirs", "classification", splits, ("0", "1", "2"))
    with pytest.raises(DataError, match="knows 2 classes") as caught:
        fit_to(model(), theirs)
    assert ("store y - 1" in str(caught.value)) == told


@pytest.mark.parametrize(
    ("accuracy", "classes", "doubted"),
    [(0.5, 2, True), (0.58, 2, True), (0.72, 2, False), (0.12, 10, True), (0.2, 10, False), (None, 2, False)],
)
def test_what_hardly_beats_a_guess_is_doubted(accuracy, classes, doubted):
    theirs = dataclasses.replace(data(BYTES), labels=tuple(map(str, range(classes))))
    assert doubt(accuracy, theirs).startswith("Doubtful") == doubted
