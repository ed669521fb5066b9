"""A path may lead to a device, a pipe, a file without end, or be no possible name: our error, at once."""

from __future__ import annotations

import os
import time

import pytest

from labkit.data import load_dataset
from labkit.errors import ConfigError, LabkitError, ModelFileError, NotebookError, StudyError
from labkit.files import read_json, read_regular
from labkit.journal import read_lines
from labkit.notebook import read_notebook
from labkit.pipeline import Pipeline
from labkit.strategy import load_requirement
from labkit.study import Study
from labkit.sweep import read_grid
from labkit.teach import build, grade
from labkit.variant import Variant
from labkit.zoo import load_model

READERS = {
    "json": (lambda path: read_json(path, ModelFileError), "{}"),
    "requirement": (load_requirement, "own.toml"),
    "grid": (lambda path: read_grid(path, {}), "grid.toml"),
    "pipeline": (Pipeline.load, "pipeline.toml"),
    "journal": (read_lines, "records.jsonl"),
    "notebook": (read_notebook, "lesson.ipynb"),
    "submission": (lambda path: grade(path, path), "mine.ipynb"),
    "course": (lambda path: build(path, path.parent / "out"), "01_topic.py"),
    "onnx": (load_model, "model.onnx"),
    "npz": (load_dataset, "data.npz"),
    "variant": (lambda path: Variant.load(path.parent), "variant.json"),
}


@pytest.fixture(params=["a pipe", "a device", "a folder", "a broken link"])
def special(request):
    """Put something that is no regular file at a path."""

    def make(path):
        if request.param == "a pipe":
            os.mkfifo(path)
        elif request.param == "a device":
            path.symlink_to("/dev/zero")
        elif request.param == "a folder":
            path.mkdir()
        else:
            path.symlink_to("nowhere")
        return path

    return make


@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_regular_file_is_refused_at_once(reader, special, tmp_path):
    read, name = READERS[reader]
    path = special(tmp_path / name)
    read_once(read, path)
    started = time.monotonic()
    read_once(read, path)  # the first time also imports
    assert time.monotonic() - started < 2
    assert not (tmp_path / "out").exists()


def read_once(read, path):
    with pytest.raises(LabkitError, match=path.name) as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_a_file_without_end_is_not_read(tmp_path):
    path = tmp_path / "huge"
    with open(path, "wb") as file:
        file.truncate(2**40)  # a hole: nothing is on the disk
    with pytest.raises(ConfigError, match="larger than 1000 bytes: not a sheet"):
        read_regular(path, ConfigError, 1000, "a sheet")


@pytest.mark.parametrize("name", ["a" * 300, "a\0b", "x/" * 3000], ids=["300 letters", "NUL", "6000 long"])
@pytest.mark.parametrize(
    ("take", "kind"),
    [
        (load_dataset, LabkitError),
        (lambda name: load_dataset(f"{name}.npz"), LabkitError),
        (load_model, LabkitError),
        (lambda name: load_model(f"{name}.onnx"), LabkitError),
        (Variant.load, ModelFileError),
        (load_requirement, ConfigError),
        (lambda name: read_grid(name, {}), ConfigError),
        (Study, StudyError),
        (lambda name: read_notebook(f"{name}.ipynb"), NotebookError),
        (lambda name: build(name, "out"), NotebookError),
    ],
)
def test_what_can_be_no_name_is_our_error(name, take, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(kind):
        take(name)
    assert list(tmp_path.iterdir()) == []
