"""Somebody's own data is read as they would expect, or refused with the name of what is wrong."""

from __future__ import annotations

import os
import time
import zipfile

import numpy as np
import pytest
from PIL import Image

from labkit.data import SPLITS, load_dataset
from labkit.errors import DataError

RANDOM = np.random.RandomState(0)
X = RANDOM.randint(0, 256, (120, 8, 8)).astype(np.uint8)
Y = np.arange(120) % 3


def npz(path, **arrays):
    np.savez(path / "own.npz", **arrays)
    return path / "own.npz"


def test_x_and_y_are_split_four_ways_with_every_class_in_each(tmp_path):
    dataset = load_dataset(npz(tmp_path, x=X, y=Y))
    assert dataset.task_name == "classification" and dataset.labels == ("0", "1", "2")
    assert dataset.image_shape() == (1, 8, 8)
    assert sum(len(dataset.split(name)) for name in ("train", "validation", "test")) == 120
    for name in SPLITS:
        assert set(dataset.split(name).target) == {0, 1, 2}
    again = load_dataset(str(tmp_path / "own.npz"))
    assert again.checksum == dataset.checksum


def test_given_splits_are_kept(tmp_path):
    path = npz(tmp_path, x_train=X, y_train=Y, x_test=X[:9], y_test=Y[:9], x_val=X[:6], y_val=Y[:6])
    dataset = load_dataset(path)
    assert [len(dataset.split(name)) for name in ("train", "validation", "test")] == [120, 6, 9]


def test_floating_targets_mean_regression(tmp_path):
    dataset = load_dataset(npz(tmp_path, x=RANDOM.rand(50, 4).astype(np.float32), y=RANDOM.rand(50, 1)))
    assert dataset.task_name == "regression" and dataset.split("train").target.ndim == 1


def test_several_inputs_keep_their_names(tmp_path):
    ids = np.zeros((60, 5), np.int64)
    dataset = load_dataset(npz(tmp_path, ids=ids, mask=ids, label=np.arange(60) % 2, labels=["no", "yes"]))
    assert set(dataset.sample_shapes()) == {"ids", "mask"} and dataset.labels == ("no", "yes")


FAULTS = {
    "no targets": ({"x": X}, "no targets"),
    "targets called labels": ({"x": X, "labels": Y}, "'labels' are the names .* name it 'y'"),
    "no inputs": ({"y": Y}, "no inputs"),
    "different lengths": ({"x": X[:50], "y": Y}, "120 targets"),
    "one class": ({"x": X, "y": Y * 0}, "one class"),
    "negative labels": ({"x": X, "y": Y - 1}, "labels run from -1"),
    "labels out of range": ({"x": X, "y": Y, "labels": ["a", "b"]}, "allowed are 0..1"),
    "NaN": ({"x": np.full((40, 4), np.nan), "y": Y[:40]}, "NaN"),
    "infinite target": ({"x": X[:40], "y": np.full(40, np.inf)}, "infinite"),
    "constant target": ({"x": X[:40], "y": np.ones(40)}, "nothing to predict"),
    "empty": ({"x": X[:0], "y": Y[:0]}, "no samples"),
    "text": ({"x": np.array(["a"] * 40), "y": Y[:40]}, "only numbers"),
    "objects": ({"x": np.array([{}] * 40, dtype=object), "y": Y[:40]}, "Python objects"),
    "scalar": ({"x": np.float32(3), "y": Y[:40]}, "'x' is a single value"),
    "scalar target": ({"x": X, "y": np.int64(3)}, "'y' is a single value"),
    "two samples": ({"x": X[:2], "y": Y[:2]}, "too few samples"),
    "test of another size": (
        {"x_train": X, "y_train": Y, "x_test": X[:9, :7], "y_test": Y[:9]},
        "test .*7, 8",
    ),
    "validation of another kind": (
        {"x": X, "y": Y, "x_val": X[:9] / 255, "y_val": Y[:9]},
        "validation .*float64",
    ),
    "test only": ({"x_test": X, "y_test": Y}, "x_train"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_npz_is_refused_and_says_why(fault, tmp_path):
    arrays, says = FAULTS[fault]
    path = npz(tmp_path, **arrays)
    started = time.monotonic()
    with pytest.raises(DataError, match=says) as caught:
        load_dataset(path)
    assert "\n" not in str(caught.value) and time.monotonic() - started < 2


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04" + bytes(50)])
def test_a_file_that_is_no_npz_is_refused(content, tmp_path):
    (tmp_path / "own.npz").write_bytes(content)
    with pytest.raises(DataError, match="own.npz"):
        load_dataset(tmp_path / "own.npz")


def test_a_member_that_is_no_array_is_named(tmp_path):
    path = npz(tmp_path, x=X, y=Y)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("notes.txt", "hello")
    with pytest.raises(DataError, match="'notes.txt' in it is no array"):
        load_dataset(path)


def test_a_truncated_npz_is_refused(tmp_path):
    path = npz(tmp_path, x=X, y=Y)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match="own.npz"):
        load_dataset(path)


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "own.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", bytes(64 << 20))
    with pytest.raises(DataError, match="zip bomb"):
        load_dataset(tmp_path / "own.npz")


def test_a_missing_path_says_so(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        load_dataset(tmp_path / "nothing.npz")
    (tmp_path / "data.csv").write_text("1,2")
    with pytest.raises(DataError, match=r"not an \.npz"):
        load_dataset(tmp_path / "data.csv")


def images(root, classes=("cat", "dog"), count=20, size=(8, 8)):
    for name in classes:
        (root / name).mkdir(parents=True)
        for index in range(count):
            pixels = RANDOM.randint(0, 256, (*size, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{index}.png")
    return root


def test_a_folder_of_images_per_class(tmp_path):
    dataset = load_dataset(images(tmp_path / "pets"))
    assert dataset.labels == ("cat", "dog") and dataset.image_shape() == (3, 8, 8)
    assert sum(len(dataset.split(name)) for name in ("train", "validation", "test")) == 40


def test_train_and_test_folders_are_kept_apart(tmp_path):
    images(tmp_path / "train")
    images(tmp_path / "test", count=5)
    assert len(load_dataset(tmp_path).split("test")) == 10


def test_images_of_different_size_are_named(tmp_path):
    images(tmp_path)
    Image.new("RGB", (9, 8)).save(tmp_path / "dog" / "odd.png")
    with pytest.raises(DataError, match=r"odd\.png.*resize"):
        load_dataset(tmp_path)


def test_a_broken_image_is_named(tmp_path):
    images(tmp_path)
    (tmp_path / "dog" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnot really")
    with pytest.raises(DataError, match=r"broken\.png"):
        load_dataset(tmp_path)


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    images(tmp_path / "pets")
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    (tmp_path / "pets" / "dog" / "link.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(DataError, match="leads out"):
        load_dataset(tmp_path / "pets")


def test_data_that_would_not_leave_room_to_work_is_refused_before_it_is_read(tmp_path, monkeypatch):
    folder, archive = images(tmp_path / "own"), npz(tmp_path, x=X, y=Y)
    for path, size in ((folder, 2 * 20 * 64 * 3), (archive, X.nbytes)):
        load_dataset(path)
        with monkeypatch.context() as patch:
            patch.setenv("MEM_LIMIT", str(4 * size - 4))
            with pytest.raises(
                DataError, match=r"more than a quarter of this machine's memory .* fewer samples"
            ):
                load_dataset(path)


def test_a_pipe_with_an_image_s_name_is_not_opened(tmp_path):
    folder = images(tmp_path / "own")
    os.mkfifo(folder / "cat" / "z.png")
    with pytest.raises(DataError, match=r"z\.png is named like an image, but is no regular file"):
        load_dataset(folder)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="no sub-folders"):
        load_dataset(tmp_path)
    (tmp_path / "cat").mkdir()
    with pytest.raises(DataError, match="no images"):
        load_dataset(tmp_path)


def test_one_class_only_is_refused(tmp_path):
    with pytest.raises(DataError, match="one class"):
        load_dataset(images(tmp_path, classes=("cat",)))


def test_the_classes_are_those_of_train_whatever_test_holds(tmp_path):
    images(tmp_path / "train", classes=("cat", "dog", "horse"))
    images(tmp_path / "test", classes=("cat", "dog"))
    data = load_dataset(tmp_path)
    assert data.labels == ("cat", "dog", "horse") and set(data.split("train").target) == {0, 1, 2}


def test_a_class_that_only_test_knows_is_refused(tmp_path):
    images(tmp_path / "train", classes=("cat", "dog"))
    images(tmp_path / "test", classes=("cat", "dog", "horse"))
    with pytest.raises(DataError, match="a class 'horse' that .*train has no images of"):
        load_dataset(tmp_path)


def test_a_class_without_an_image_is_refused(tmp_path):
    images(tmp_path)
    (tmp_path / "horse").mkdir()
    (tmp_path / "horse" / "one.tif").write_bytes(b"not one that we read")
    with pytest.raises(DataError, match="horse holds no image"):
        load_dataset(tmp_path)


def test_sixteen_bits_a_pixel_keep_their_order(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for index in range(20):
            grey = np.linspace(0, 65535, 64).reshape(8, 8).astype(np.uint16)
            Image.fromarray(grey).save(tmp_path / name / f"{index}.png")
    image = load_dataset(tmp_path).split("train").inputs["image"][0]
    assert image.dtype == np.uint8 and image.shape == (8, 8, 1)
    assert np.abs(image.ravel().astype(int) - np.linspace(0, 255, 64)).max() <= 1
