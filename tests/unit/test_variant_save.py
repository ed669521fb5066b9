"""Whatever goes wrong while a variant is saved, and whoever else saves there: the folder holds one whole variant."""

from __future__ import annotations

import os
import sys
import threading

import pytest

import labkit.variant.saving
from labkit.convert import check_out, save_as
from labkit.errors import ConfigError, LabkitError, ModelFileError
from labkit.files import write_atomically
from labkit.variant import Variant

on_posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot lock a folder")


class Held:
    """A save that stops before `variant.json` until it is let go; every later one goes through."""

    def __init__(self, monkeypatch):
        self.reached, self.go, self.write = threading.Event(), threading.Event(), write_atomically
        monkeypatch.setattr("labkit.variant.variant.write_atomically", self)

    def __call__(self, path, data):
        if not self.reached.is_set():
            self.reached.set()
            assert self.go.wait(20)
        self.write(path, data)


@on_posix
def test_two_that_save_into_one_folder_leave_one_of_them_whole(lenet, onnx_cases, tmp_path, monkeypatch):
    lenet.save(tmp_path)  # what an earlier run of the first left
    held = Held(monkeypatch)
    first = threading.Thread(target=lenet.save, args=(tmp_path,))
    second = threading.Thread(target=onnx_cases["image"][0].save, args=(tmp_path,))
    first.start()
    assert held.reached.wait(20)
    second.start()
    second.join(0.3)
    held.go.set()
    first.join()
    second.join()
    assert Variant.load(tmp_path).format == "onnx"
    assert len(list(tmp_path.iterdir())) == 2


@on_posix
def test_nobody_waits_for_ever_for_another_to_finish_saving(lenet, onnx_cases, tmp_path, monkeypatch):
    monkeypatch.setattr(labkit.variant.saving, "_PATIENCE_S", 0.05)
    held = Held(monkeypatch)
    first = threading.Thread(target=lenet.save, args=(tmp_path,))
    first.start()
    assert held.reached.wait(20)
    with pytest.raises(ModelFileError, match="another process keeps saving"):
        onnx_cases["image"][0].save(tmp_path)
    held.go.set()
    first.join()
    assert Variant.load(tmp_path).digest == lenet.digest


@pytest.mark.parametrize("error", [LabkitError("full"), KeyboardInterrupt()])
def test_a_second_write_that_fails_takes_the_first_back(error, lenet, onnx_cases, tmp_path, monkeypatch):
    def fail(path, data):
        raise error

    lenet.save(tmp_path / "old")
    before = sorted((tmp_path / "old").iterdir())
    monkeypatch.setattr("labkit.variant.variant.write_atomically", fail)
    for variant in (lenet, onnx_cases["image"][0]):
        for folder in ("old", "new/deep"):
            with pytest.raises(type(error)):
                variant.save(tmp_path / folder)
    assert sorted((tmp_path / "old").iterdir()) == before and not (tmp_path / "new").exists()
    assert Variant.load(tmp_path / "old").digest == lenet.digest


def test_an_interrupt_after_the_last_write_keeps_the_new_one(lenet, onnx_cases, tmp_path, monkeypatch):
    def late(path, data):
        write_atomically(path, data)
        raise KeyboardInterrupt

    lenet.save(tmp_path)
    monkeypatch.setattr("labkit.variant.variant.write_atomically", late)
    with pytest.raises(KeyboardInterrupt):
        onnx_cases["image"][0].save(tmp_path)
    assert Variant.load(tmp_path).format == "onnx"


def test_a_folder_in_the_place_of_variant_json_is_refused_and_nothing_is_left(lenet, tmp_path):
    (tmp_path / "variant.json").mkdir()
    with pytest.raises(LabkitError, match="nothing was changed"):
        lenet.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["variant.json"]


def test_a_first_write_that_fails_leaves_no_new_folder(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(LabkitError, match="No space left"):
        write_atomically(tmp_path / "new" / "deep" / "file", b"1")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("out", ["", "."])
def test_a_place_without_a_name_is_refused(out, lenet, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="has no name: give a new file or folder"):
        save_as(lenet, out)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("format_", "ending"), [("onnx", ".onnx"), ("openvino", ".xml"), ("mindspore", "folder")]
)
def test_coded_weights_of_another_format_are_refused_with_what_to_do(format_, ending, tmp_path):
    with pytest.raises(ConfigError, match="which PyTorch variants have") as refused:
        check_out(format_, tmp_path / "z.lkz")
    said = str(refused.value)
    assert ending in said and "`labkit train`" in said
    assert ("labkit quantize" in said) == (format_ == "onnx")


def test_a_name_may_be_as_long_as_the_system_allows_and_a_longer_one_is_refused_at_once(tmp_path):
    longest = os.pathconf(tmp_path, "PC_NAME_MAX") if hasattr(os, "pathconf") else 255
    write_atomically(tmp_path / ("n" * longest), b"1")
    assert [path.name for path in tmp_path.iterdir()] == ["n" * longest]
    for format_, ending in (("torch", ".lkz"), ("onnx", ".onnx"), ("torch", "")):
        with pytest.raises(LabkitError, match="choose another folder"):
            check_out(format_, tmp_path / f"{'n' * longest}{ending or 'n'}")
