"""ONNX files from elsewhere: good ones load, hostile ones are refused in time, in memory and in one line."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from labkit.convert import load_onnx
from labkit.errors import ConfigError, LabkitError, ModelFileError
from labkit.variant import Preprocessing
from tests.hostile.onnx_files import (
    FLOAT,
    GOOD,
    HOSTILE_ONNX,
    INT64,
    add,
    constant,
    cycle,
    endless_loop,
    external,
    model,
    node,
    raw,
    relu,
    value,
    with_metadata,
)


def written(tmp_path: Path, content) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    return path


def test_a_bomb_takes_no_memory_to_speak_of(tmp_path):
    """In a process of its own, so that no other test's children are counted."""
    for name in ("Expand bomb, folded", "Expand bomb, run", "16 TiB claimed", "huge input"):
        (tmp_path / f"{name}.onnx").write_bytes(HOSTILE_ONNX[name][0].SerializeToString())
    code = (
        "import pathlib, resource, sys\n"
        "from labkit.convert import load_onnx\n"
        "from labkit.errors import ModelFileError\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for path in pathlib.Path(sys.argv[1]).glob('*.onnx'):\n"
        "    try: load_onnx(path)\n"
        "    except ModelFileError: continue\n"
        "    sys.exit(f'{path} was let through')\n"
        "after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(after - before + resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) / 1e3 < 300, "MB, parent and largest child together"


def test_the_plain_reader_would_have_let_them_through(tmp_path):
    """The negative control: without our checks these are opened, or answered only after they have run."""
    assert onnx.load_model_from_string(cycle().SerializeToString()).graph.node
    assert onnx.load_model_from_string(add(raw([-4])).SerializeToString()).graph.initializer
    (tmp_path / "w.bin").write_bytes(np.full(4, 7, np.float32).tobytes())
    path = written(tmp_path, add(external("w.bin")))
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert session.run(None, {"x": np.zeros((1, 4), np.float32)})[0][0, 0] == 7
    ort.InferenceSession(endless_loop().SerializeToString(), providers=["CPUExecutionProvider"])


def test_external_data_through_a_link_is_refused(tmp_path):
    (tmp_path / "w.bin").symlink_to("/etc/passwd")
    with pytest.raises(ModelFileError, match="'w.bin' is a link"):
        load_onnx(written(tmp_path, add(external("w.bin"))))


def test_external_data_in_the_folder_is_gathered_and_its_checksum_verified(tmp_path):
    (tmp_path / "w.bin").write_bytes(np.full(4, 7, np.float32).tobytes())
    made = add(external("w.bin"))
    one_file = load_onnx(written(tmp_path, made))
    session = ort.InferenceSession(one_file.payload, providers=["CPUExecutionProvider"])
    assert session.run(None, {"x": np.zeros((1, 4), np.float32)})[0][0, 0] == 7
    checksum = hashlib.sha1((tmp_path / "w.bin").read_bytes(), usedforsecurity=False).hexdigest()
    made.graph.initializer[0].external_data.add(key="checksum", value=checksum)
    assert load_onnx(written(tmp_path, made)).payload == one_file.payload
    (tmp_path / "w.bin").write_bytes(np.full(4, 8, np.float32).tobytes())
    with pytest.raises(ModelFileError, match="w.bin is not the file that the model was saved with"):
        load_onnx(tmp_path / "model.onnx")
    (tmp_path / "w.bin").write_bytes(b"short")
    with pytest.raises(ModelFileError, match="of 'w.bin', which has 5"):
        load_onnx(tmp_path / "model.onnx")


@pytest.mark.parametrize("place", ["nowhere.onnx", ".", "pipe.onnx"])
def test_what_is_no_file_is_refused(place, tmp_path):
    os.mkfifo(tmp_path / "pipe.onnx")
    with pytest.raises(ModelFileError, match="does not exist|is not a file|does not end in .onnx"):
        load_onnx(tmp_path / place)


def test_fuzzed_bytes_raise_our_errors_only(tmp_path):
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(12):
        content = bytearray(endless_loop().SerializeToString() if random.random() < 0.2 else GOOD)
        for position in random.integers(0, len(content), 3):
            content[position] = random.integers(0, 256)
        try:
            load_onnx(written(tmp_path, bytes(content)))
        except LabkitError:
            refused += 1
    print(f"{refused} of 12 refused")
    assert refused >= 3


def test_a_good_file_becomes_a_variant(tmp_path):
    path = written(tmp_path, relu())
    variant = load_onnx(path)
    assert (variant.name, variant.format, variant.task, variant.payload) == (
        "model",
        "onnx",
        "classification",
        path.read_bytes(),
    )
    assert variant.inputs[0].shape == ("n", 4)
    (step,) = variant.lineage
    assert (step.technique, dict(step.config), step.origin) == ("load_onnx", {"file": "model.onnx"}, "file")


@pytest.mark.parametrize("unnamed", [-1, None])
def test_dimensions_without_a_name_get_one(unnamed, tmp_path):
    shape = [unnamed, 3, unnamed, 8]
    variant = load_onnx(written(tmp_path, relu(inputs=[value("x", shape)], outputs=[value("y", shape)])))
    assert variant.inputs[0].shape == ("batch", 3, "x_2", 8)
    assert variant.inputs[0].layout == "NCHW"


def test_a_batch_that_the_exporter_fixed_is_kept(tmp_path):
    variant = load_onnx(written(tmp_path, relu(inputs=[value("x", [1, 4])], outputs=[value("y", [1, 4])])))
    assert variant.inputs[0].shape == (1, 4)


def test_an_initializer_among_the_inputs_is_no_input(tmp_path):
    old = add(constant("w", [1, 2, 3, 4]))
    old.graph.input.append(value("w", [4]))
    assert [spec.name for spec in load_onnx(written(tmp_path, old)).inputs] == ["x"]


def test_several_inputs_of_whole_numbers_are_taken(tmp_path):
    nodes = [node("Add", "a b", "s"), node("Cast", "s", "y", to=FLOAT)]
    made = model(nodes, inputs=[value("a", ["n", "t"], INT64), value("b", ["n", "t"], INT64)],
                 outputs=[value("y", ["n", "t"])])  # fmt: skip
    variant = load_onnx(written(tmp_path, made))
    assert [(spec.name, spec.dtype) for spec in variant.inputs] == [("a", "int64"), ("b", "int64")]


def test_a_model_that_cannot_run_one_row_is_not_refused_for_it(tmp_path):
    made = model([node("Gather", "x second", "y")], [constant("second", [1], np.int64)])
    assert load_onnx(written(tmp_path, made)).inputs


def test_what_is_given_wins_over_what_the_file_says(tmp_path):
    path = written(tmp_path, with_metadata("labkit.task", '"regression"'))
    assert load_onnx(path).task == "regression"
    given = load_onnx(
        path, task="classification", labels=list("abcd"), preprocessing={"x": Preprocessing(2.0)}
    )
    assert (given.task, given.labels, given.preprocessing["x"].scale) == (
        "classification",
        tuple("abcd"),
        2.0,
    )


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"labels": ["a", "b", "c"]}, ModelFileError, "3 labels for a model with 4 outputs"),
        ({"task": "divination"}, ConfigError, "unknown task"),
        ({"preprocessing": {"z": Preprocessing()}}, ModelFileError, "'z'"),
        ({"patience": 0}, ConfigError, "patience"),
        ({"patience": float("nan")}, ConfigError, "patience"),
    ],
)
def test_what_does_not_fit_is_refused(given, error, says, tmp_path):
    with pytest.raises(error, match=says):
        load_onnx(written(tmp_path, relu()), **given)


def test_patience_lets_a_trusted_file_take_its_time(tmp_path):
    slow = endless_loop()
    slow.graph.initializer[0].CopyFrom(constant("turns", 2_000_000, np.int64))
    path = written(tmp_path, slow)
    with pytest.raises(ModelFileError, match="patience"):
        load_onnx(path, patience=0.3)
    assert load_onnx(path, patience=60).inputs
