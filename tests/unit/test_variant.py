"""A variant is saved atomically, without pickle, and read back the same, or refused."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from labkit.errors import LabkitError, ModelFileError, TechniqueError, TensorError
from labkit.technique import probe
from labkit.variant import Preprocessing, Step, TensorSpec, Variant
from labkit.zoo import load_model


@pytest.mark.parametrize("format_", ["torch", "onnx"])
def test_it_is_read_back_the_same(format_, cases, onnx_cases, tmp_path):
    variant = (cases if format_ == "torch" else onnx_cases)["image"][0]
    variant.save(tmp_path / "saved")
    loaded = Variant.load(tmp_path / "saved")
    assert loaded.digest == variant.digest
    for field in ("name", "format", "inputs", "outputs", "task", "labels", "preprocessing"):
        assert getattr(loaded, field) == getattr(variant, field)
    assert [step.technique for step in loaded.lineage] == [step.technique for step in variant.lineage]
    assert (
        loaded.size_bytes == variant.size_bytes == next((tmp_path / "saved").glob("model-*")).stat().st_size
    )


def test_a_second_save_replaces_the_first_and_leaves_nothing_behind(cases, onnx_cases, tmp_path):
    cases["image"][0].save(tmp_path)
    onnx_cases["image"][0].save(tmp_path)
    assert Variant.load(tmp_path).format == "onnx"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_module_that_is_not_ours_says_how_to_save_it(cases, tmp_path):
    with pytest.raises(ModelFileError, match="ExportOnnx"):
        cases["regression"][0].save(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_saving_removes_its_own_old_file_and_nobody_elses(cases, onnx_cases, tmp_path):
    mine = [
        tmp_path / name for name in ("model-best.onnx", "model-v1.onnx", "model-0123456789ab.safetensors")
    ]
    for path in mine:
        path.write_bytes(b"mine")
    cases["image"][0].save(tmp_path)
    onnx_cases["image"][0].save(tmp_path)
    assert all(path.read_bytes() == b"mine" for path in mine)
    assert len(list(tmp_path.iterdir())) == len(mine) + 2


def test_a_config_that_claims_more_than_the_file_holds_costs_nothing(lenet, tmp_path):
    lenet.save(tmp_path)
    document = json.loads((tmp_path / "variant.json").read_text())
    document["config"]["hidden"] = document["config"]["channels"][0] = document["config"]["channels"][1] = (
        8192
    )
    (tmp_path / "variant.json").write_text(json.dumps(document))
    started = time.monotonic()
    with pytest.raises(ModelFileError, match="do not fit the architecture"):
        Variant.load(tmp_path)
    assert time.monotonic() - started < 2


class Tied(torch.nn.Module):
    """Two layers that are one: what language models do with their first and last table."""

    def __init__(self):
        super().__init__()
        self.one, self.two = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
        self.two.weight = self.one.weight

    def forward(self, x):
        return self.two(self.one(x))


def test_tied_weights_have_a_digest_and_a_size():
    spec = (TensorSpec("x", "float32", ("batch", 4)),)
    variant = Variant("tied", "torch", Tied().eval(), spec, spec, task="regression")
    assert variant.fingerprint() == variant.digest and variant.size_bytes > 2 * 4 * (16 + 4)


SAVE = """
import sys
from labkit.variant import Variant
from labkit.zoo import load_model
a, b = load_model("lenet5@digits"), load_model("resnet20@digits")
print("ready", flush=True)
while True:
    a.save(sys.argv[1]); b.save(sys.argv[1])
"""


def test_a_kill_while_saving_leaves_the_old_one_or_the_new(tmp_path):
    random = np.random.RandomState(0)
    seen = set()
    load_model("resnet20@digits").save(tmp_path)
    for _ in range(8):
        child = subprocess.Popen([sys.executable, "-c", SAVE, str(tmp_path)], stdout=subprocess.PIPE)
        child.stdout.readline()
        time.sleep(0.05 + random.rand() * 0.2)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        seen.add(Variant.load(tmp_path).name)
    assert seen <= {"lenet5@digits", "resnet20@digits"}


def test_a_full_disk_is_a_typed_error_and_the_old_one_stays(lenet, onnx_cases, tmp_path, monkeypatch):
    lenet.save(tmp_path)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(LabkitError, match="No space left"):
        onnx_cases["image"][0].save(tmp_path)
    assert Variant.load(tmp_path).digest == lenet.digest
    assert not list(tmp_path.glob(".*partial"))


def edit(folder, **changes):
    path = folder / "variant.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def model_file(folder):
    return next(folder.glob("model-*"))


FAULTS = {
    "no folder": lambda folder: [path.unlink() for path in folder.iterdir()],
    "no model": lambda folder: model_file(folder).unlink(),
    "truncated": lambda folder: model_file(folder).write_bytes(model_file(folder).read_bytes()[:1000]),
    "empty": lambda folder: model_file(folder).write_bytes(b""),
    "pickle": lambda folder: model_file(folder).write_bytes(pickle.dumps([1, 2])),
    "not json": lambda folder: (folder / "variant.json").write_text("{"),
    "a list": lambda folder: (folder / "variant.json").write_text("[]"),
    "deep": lambda folder: (folder / "variant.json").write_text("[" * 100_000),
    "no inputs": lambda folder: edit(folder, inputs=None),
    "no outputs": lambda folder: edit(folder, outputs=[]),
    "path escape": lambda folder: edit(folder, file="../model.safetensors"),
    "absolute": lambda folder: edit(folder, file="/etc/passwd"),
    "format": lambda folder: edit(folder, format="pickle"),
    "schema": lambda folder: edit(folder, schema_version=99),
    "architecture": lambda folder: edit(folder, config={"architecture": "os.system"}),
    "no config": lambda folder: edit(folder, config=None),
    "wrong widths": lambda folder: edit(
        folder,
        config={"architecture": "lenet5", "input_shape": [1, 32, 32], "num_outputs": 10, "channels": [2, 2]},
    ),
    "huge": lambda folder: edit(
        folder,
        config={"architecture": "lenet5", "input_shape": [1, 32, 32], "num_outputs": 10, "hidden": 10**12},
    ),
    "dtype": lambda folder: edit(folder, inputs=[{"name": "x", "dtype": "no", "shape": [1], "layout": None}]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_or_hostile_folder_is_refused(fault, lenet, tmp_path):
    lenet.save(tmp_path)
    Variant.load(tmp_path)
    FAULTS[fault](tmp_path)
    started = time.monotonic()
    with pytest.raises(LabkitError) as caught:
        Variant.load(tmp_path)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - started < 2


NAN = float("nan")
PREPARED = {"scale": 1.0, "mean": [0.0], "std": [1.0], "layout": "NCHW"}
STEP = {"technique": "x", "config": {}, "parents": [], "origin": "here"}
INPUT = {"name": "image", "dtype": "float32", "shape": ["batch", 1, 32, 32], "layout": "NCHW"}


@pytest.mark.parametrize(
    ("field", "change", "says"),
    [
        *[("preprocessing", {"scale": value}, "scale=") for value in ("0.5", True, None, NAN, 10**400)],
        *[
            ("preprocessing", {"mean": value}, "mean=")
            for value in (["a"], [[1, 2]], [NAN], [], "1", [10**400])
        ],
        *[("preprocessing", {"std": value}, "std=") for value in ([0.0], [-1.0], [1e-300], [float("inf")])],
        ("preprocessing", {"mean": 5}, "TypeError"),
        *[("preprocessing", {"layout": value}, "layout=") for value in ("NHWC", [1])],
        *[("lineage", {"config": {"a": value}}, r"lineage\[0\].config") for value in (NAN, [float("inf")])],
        *[("lineage", {"config": value}, r"lineage\[0\]: config") for value in (5, None, "x", [])],
        *[("lineage", {"parents": value}, r"lineage\[0\]") for value in ([5], "abc")],
        *[("lineage", {name: 5}, r"lineage\[0\]: technique") for name in ("technique", "origin")],
        *[("inputs", {"name": value}, r"inputs\[0\]") for value in (["a"], None)],
        *[
            ("inputs", {"shape": value}, r"inputs\[0\]")
            for value in ("bchw", [0], [-1], [True], [None], [1.5])
        ],
        *[
            ("inputs", {"shape": value}, r"inputs\[0\]")
            for value in (["batch", 10000, 10000], [10**9, 4], [10**30], [1] * 9, ["n"] * 7 + [2**24])
        ],
        *[
            ("inputs", {"dtype": value}, r"inputs\[0\].dtype=")
            for value in ("f4,i4", "O", "S9", ">f4", "c8", "M8[s]", "(2,2)f4", None, ["f4"])
        ],
        ("inputs", {"layout": ["NCHW"]}, r"inputs\[0\].layout="),
    ],
)
def test_values_that_variant_json_must_not_hold_are_named(field, change, says, lenet, tmp_path):
    lenet.save(tmp_path)
    good = {"preprocessing": {"image": PREPARED}, "lineage": [STEP], "inputs": [INPUT]}
    edit(tmp_path, **good)
    Variant.load(tmp_path)
    bad = {
        "preprocessing": {"image": {**PREPARED, **change}},
        "lineage": [{**STEP, **change}],
        "inputs": [{**INPUT, **change}],
    }
    edit(tmp_path, **{field: bad[field]})
    with pytest.raises(ModelFileError, match=rf"variant.json is malformed .*{says}"):
        Variant.load(tmp_path)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"labels": ["a", "b", "c"]}, "3 labels for a model with 10 outputs"),
        ({"task": "detection"}, "unknown task 'detection'"),
        ({"preprocessing": {"sound": PREPARED}}, "preprocessing is for 'sound', the model takes 'image'"),
        (
            {"preprocessing": {"image": {**PREPARED, "mean": [0.1, 0.2, 0.3]}}},
            "preprocessing of 'image' has 3 numbers for mean, where the input has 1 channel",
        ),
        ({"name": ""}, "the name is empty"),
        ({"name": "a" * 201}, "the name has 201 characters"),
        ({"outputs": [{**INPUT, "shape": ["batch", 10]}]}, "an output is named like the input 'image'"),
    ],
)
def test_a_variant_json_that_contradicts_itself_is_refused(changes, says, lenet, tmp_path):
    lenet.save(tmp_path)
    edit(tmp_path, **changes)
    with pytest.raises(ModelFileError, match=says) as refusal:
        Variant.load(tmp_path)
    assert str(refusal.value).startswith(f"{tmp_path}/variant.json")


def test_a_field_that_stands_there_twice_is_refused(lenet, tmp_path):
    lenet.save(tmp_path)
    text = (tmp_path / "variant.json").read_text()
    (tmp_path / "variant.json").write_text(text.rstrip().removesuffix("}") + ', "task": "regression"}')
    with pytest.raises(ModelFileError, match="'task' stands there twice"):
        Variant.load(tmp_path)


HOSTILE = ("\x1b[31m evil", "two\nlines", "\0", "\x9b1m", "\ud800", "a\u202efgnp", "\u2066a")


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize(
    "field", ["name", "task", "label", "input", "axis", "layout", "preprocessing", "step"]
)
def test_a_word_that_would_steer_the_terminal_is_refused(field, text, lenet, tmp_path):
    lenet.save(tmp_path)
    changes = {
        "name": {"name": text},
        "task": {"task": text},
        "label": {"labels": [text]},
        "input": {"inputs": [{**INPUT, "name": text}]},
        "axis": {"inputs": [{**INPUT, "shape": [text, 1, 32, 32]}]},
        "layout": {"inputs": [{**INPUT, "layout": text}]},
        "preprocessing": {"preprocessing": {text: PREPARED}},
        "step": {"lineage": [{**STEP, "technique": text}]},
    }
    edit(tmp_path, **changes[field])
    with pytest.raises(ModelFileError, match="rename it") as caught:
        Variant.load(tmp_path)
    assert str(caught.value).isprintable()


def test_a_name_that_is_too_long_keeps_its_beginning_and_its_end(lenet):
    made = lenet.derive("a" * 5000 + "+prune_magnitude", Step("prune_magnitude"))
    assert len(made.name) == 200
    assert made.name.startswith("aaa") and made.name.endswith("a+prune_magnitude")
    kept = lenet.derive("a" * 200, Step("x"))
    assert kept.name == "a" * 200


def test_no_probe_takes_more_than_two_gigabytes(lenet):
    many = (TensorSpec("image", "float32", ("batch",) * 8),)
    with pytest.raises(TechniqueError, match="too large to be tried"):
        probe(dataclasses.replace(lenet, inputs=many), 32)


def test_a_safetensors_file_with_duplicate_keys_is_refused(lenet, tmp_path):
    import hashlib
    import struct

    entry = '"fc2.bias":{"dtype":"F32","shape":[10],"data_offsets":[0,40]}'
    header = ("{" + entry + "," + entry + "}").encode()
    payload = struct.pack("<Q", len(header)) + header + bytes(40)
    lenet.save(tmp_path)
    model_file(tmp_path).write_bytes(payload)
    edit(tmp_path, sha256=hashlib.sha256(payload).hexdigest())
    with pytest.raises(ModelFileError, match="twice"):
        Variant.load(tmp_path)


def test_preprocessing_is_the_formula_it_says():
    images = np.random.RandomState(0).randint(0, 256, (2, 4, 5, 3)).astype(np.uint8)
    result = Preprocessing(1 / 255, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7), "NCHW")(images)
    assert result.shape == (2, 3, 4, 5) and result.dtype == np.float32
    assert result[1, 2, 3, 4] == pytest.approx((images[1, 3, 4, 2] / 255 - 0.3) / 0.7, abs=1e-6)


def test_feeds_match_names_or_the_only_input(cases):
    image, _ = cases["image"]
    stored = np.zeros((2, 32, 32, 1), np.uint8)
    assert list(image.feeds({"whatever": stored})) == ["image"]
    words, _ = cases["two_inputs"]
    with pytest.raises(TensorError, match="mask"):
        words.feeds({"ids": np.zeros((2, 6), np.int64)})


def test_the_fingerprint_notices_a_change_that_the_digest_remembers(lenet, tmp_path):
    lenet.save(tmp_path)
    variant = Variant.load(tmp_path)
    before = variant.digest
    variant.model.fc2.bias.data[0] += 1
    assert variant.digest == before != variant.fingerprint()
