"""A package runs in a fresh process with numpy and its runtime only, and gives labkit's answers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from labkit.errors import LabkitError, TechniqueError
from labkit.package import write_package
from labkit.runtimes import get_runtime

ALONE = """
import sys
class NoLabkit:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("labkit", "torch"):
            raise ImportError(name + " is not allowed here")
sys.meta_path.insert(0, NoLabkit())
import runpy
sys.argv = ["run.py", *sys.argv[2:]]
runpy.run_path(FOLDER + "/run.py", run_name="__main__")
"""


def run_alone(folder, cwd):
    code = ALONE.replace("FOLDER", repr(str(folder)))
    return subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, cwd=cwd)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("name", ["image", "two_inputs", "regression"])
def test_it_runs_without_labkit_and_agrees(runtime, name, onnx_cases, tmp_path):
    variant, dataset = onnx_cases[name]
    samples = dataset.split("test").take(slice(0, 8))
    write_package(variant, runtime, 1, "float32", samples, tmp_path / "package")
    moved = tmp_path / "elsewhere"
    shutil.move(tmp_path / "package", moved)
    result = run_alone(moved, tmp_path)
    assert result.returncode == 0, result.stderr
    with get_runtime(runtime).load(variant) as session:
        expected = session.run(variant.feeds(samples.inputs))[variant.outputs[0].name]
    answer = json.loads(result.stdout)
    if variant.task == "classification":
        assert answer == [variant.labels[index] for index in expected.argmax(-1)]
    else:
        np.testing.assert_allclose(answer, expected, rtol=1e-5)


def test_the_script_is_short_and_the_folder_complete(onnx_cases, tmp_path):
    variant, dataset = onnx_cases["image"]
    folder = write_package(
        variant, "onnxruntime", 1, "float32", dataset.split("test").take(slice(0, 2)), tmp_path / "p"
    )
    assert {path.name for path in folder.iterdir()} == {
        "model.onnx",
        "card.json",
        "samples.npz",
        "run.py",
        "README.md",
    }
    code = [line for line in (folder / "run.py").read_text().splitlines() if line.strip()]
    assert len(code) <= 18
    card = json.loads((folder / "card.json").read_text())
    assert (
        card["preprocessing"]["image"]["layout"] == "NCHW"
        and card["lineage"][-1]["technique"] == "export_onnx"
    )


def test_a_second_package_replaces_the_first(onnx_cases, tmp_path):
    for name in ("image", "regression"):
        variant, dataset = onnx_cases[name]
        write_package(
            variant, "onnxruntime", 1, "float32", dataset.split("test").take(slice(0, 2)), tmp_path / "p"
        )
    assert json.loads((tmp_path / "p" / "card.json").read_text())["name"] == variant.name
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


@pytest.mark.parametrize("theirs", ["notes.txt", "card.json", "model.onnx"])
def test_only_a_package_of_ours_is_replaced(theirs, onnx_cases, tmp_path):
    variant, dataset = onnx_cases["image"]
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / theirs).write_text("{}")
    with pytest.raises(LabkitError, match="package is not a package that labkit wrote"):
        write_package(variant, "onnxruntime", 1, "float32", dataset.split("test"), tmp_path / "package")
    assert [path.read_text() for path in tmp_path.rglob("*") if path.is_file()] == ["{}"]


def test_a_full_disk_leaves_the_old_package(onnx_cases, tmp_path, monkeypatch):
    variant, dataset = onnx_cases["image"]
    samples = dataset.split("test").take(slice(0, 2))
    write_package(variant, "onnxruntime", 1, "float32", samples, tmp_path / "p")
    before = (tmp_path / "p" / "model.onnx").read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(LabkitError, match="No space left"):
        write_package(variant, "onnxruntime", 1, "float32", samples, tmp_path / "p")
    assert (tmp_path / "p" / "model.onnx").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


def test_what_cannot_be_packaged_says_why(cases, tmp_path):
    variant, dataset = cases["image"]
    with pytest.raises(TechniqueError, match="onnx on onnxruntime, openvino"):
        write_package(variant, "torch", 1, "float32", dataset.split("test").take(slice(0, 2)), tmp_path / "p")


def test_a_hostile_name_cannot_break_the_script(onnx_cases, tmp_path):
    import dataclasses

    variant, dataset = onnx_cases["image"]
    named = dataclasses.replace(variant, name='x"""; import os; os.system("echo pwned"); """{0}\\')
    folder = write_package(
        named, "onnxruntime", 1, "float32", dataset.split("test").take(slice(0, 2)), tmp_path / "p"
    )
    result = run_alone(folder, tmp_path)
    assert result.returncode == 0 and "pwned" not in result.stdout.splitlines()[0]
