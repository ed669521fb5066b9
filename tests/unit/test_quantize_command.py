"""`labkit quantize`: anybody's ONNX file in, an ONNX file or a variant out; data only where it is needed."""

from __future__ import annotations

import functools
import json

import numpy as np
import onnx
import pytest

from labkit.convert import load_onnx
from labkit.quantize import quantization_report
from labkit.variant import Variant
from labkit.zoo import load_model
from tests.graphs import data_for, mlp

METHODS = {
    "int8": "QuantizeLinear",
    "dynamic": "MatMulInteger",
    "weights": "DequantizeLinear",
    "half": "Cast",
    "equalize": "Relu",
}
WITHOUT_DATA = [name for name in METHODS if name != "int8"]


@pytest.fixture
def run(run, tmp_path):
    """Run `labkit quantize`, with somebody's model.onnx and its data in the folder: (status, stdout, stderr)."""
    variant = mlp()
    (tmp_path / "model.onnx").write_bytes(variant.payload)
    samples = data_for(variant).split("train")
    target = samples.target.copy()
    target[:10] = range(10)  # whatever the model answers, every class is there
    np.savez(tmp_path / "mine.npz", x=samples.inputs["x"], y=target)

    return functools.partial(run, "quantize")


def kinds(path):
    return {node.op_type for node in onnx.load(path).graph.node}


@pytest.mark.parametrize("method", WITHOUT_DATA)
def test_somebody_s_file_needs_no_data_where_the_method_needs_none(method, run, tmp_path):
    status, out, err = run("model.onnx", "--method", method, "--out", "made.onnx")
    assert (status, err) == (0, "")
    assert "quality not measured: no --dataset" in out and "saved in made.onnx" in out
    assert METHODS[method] in kinds("made.onnx")
    made = {"model.onnx", "mine.npz", "made.onnx"}
    assert {path.name for path in tmp_path.iterdir()} == made, "a bare file, and nothing beside it"


def test_int8_says_what_to_pass(run, tmp_path):
    status, out, err = run("model.onnx", "--out", "made.onnx")
    assert (status, out) == (1, "") and not (tmp_path / "made.onnx").exists()
    assert err.startswith(
        "labkit: quantize --method int8 needs samples, and model.onnx does not say of which data: pass"
    )
    assert "--dataset digits, fashion-mnist, mnist, an .npz, or a folder" in err
    words = ("--dataset", "mine.npz", "--set", "max_drop_pp=30", "--out", "made.onnx")
    status, out, err = run("model.onnx", *words)
    assert (status, err) == (0, "")
    assert "accuracy" in out and METHODS["int8"] in kinds("made.onnx")


def test_a_folder_keeps_the_whole_variant_and_a_file_the_model_alone(run):
    words = (
        "model.onnx",
        "--method",
        "weights",
        "--set",
        "bits=8",
        "--set",
        "max_drop_pp=30",
        "--dataset",
        "mine.npz",
    )
    assert run(*words, "--out", "folder")[0] == 0 and run(*words, "--out", "file.onnx")[0] == 0
    kept, bare = Variant.load("folder"), load_onnx("file.onnx")
    assert kept.payload == bare.payload and kept.lineage[-1].config["bits"] == 8
    assert [step.technique for step in bare.lineage] == ["load_onnx"]
    assert quantization_report(bare).bits == {"8": 2} and quantization_report(bare).drop_pp is not None


@pytest.mark.parametrize("method", METHODS)
def test_a_model_of_the_kit_knows_its_data(method, run):
    status, out, err = run("lenet5@digits", "--method", method, "--out", "made.onnx", "--json")
    assert status == 0 and "converting it to ONNX first" in err
    made = json.loads(out)
    assert made["n_samples"] == 225 and made["quality"] > 0.97 and made["metric"] == "accuracy"
    again = load_model("made.onnx")
    assert again.digest == made["digest"] and again.labels == load_model("lenet5@digits").labels


def test_without_data_the_json_says_null(run):
    made = json.loads(run("model.onnx", "--method", "half", "--out", "made", "--json")[1])
    assert made["format"] == "onnx" and made["quality"] is None and made["n_samples"] == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ("--method", "weight", "--out", "o"),
            "did you mean 'weights'? known: aware, dynamic, equalize, half, int8, mixed, weights",
        ),
        (("--method", "weights", "--set", "bits=1", "--out", "o"), "bits=1 is out of range"),
        (("--method", "weights", "--set", "rounding=gptq", "--out", "o"), "pass a dataset"),
        (("--method", "half", "--out", "o.tflite"), "o.tflite ends as TensorFlow Lite does"),
        (("--method", "half", "--out", "mine.npz/o.onnx"), "mine.npz: Not a directory; choose another"),
        (("--method", "half", "--dataset", "digits", "--out", "o"), "the model takes ('batch', 32)"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line_and_leaves_nothing(words, says, run, tmp_path):
    before = set(tmp_path.rglob("*"))
    status, out, err = run("model.onnx", *words)
    assert status == 1 and out == "" and err.count("\n") == 1 and says in err
    assert set(tmp_path.rglob("*")) == before
