"""Peak memory belongs to one model: it is measured in a fresh process, and nothing else counts."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from labkit.data import Dataset
from labkit.errors import MeasurementError, ModelFileError
from labkit.measure import Candidate, Protocol, measure
from labkit.measure.memory import peak_memory, resident_peak_bytes
from labkit.variant import Variant

MIB = 2**20
Cases = dict[str, tuple[Variant, Dataset]]


def greedy(mib: int) -> Variant:
    """ONNX: y = x + a sum over `mib` MiB that are filled while it runs, not stored in the file."""
    from labkit.variant import TensorSpec

    nodes = [
        helper.make_node("Shape", ["x"], ["one"]),
        helper.make_node("Gather", ["one", "zero"], ["n"]),
        helper.make_node("Mul", ["n", "size"], ["many"]),
        helper.make_node("RandomUniformLike", ["x"], ["unused"]),
        helper.make_node("ConstantOfShape", ["many"], ["big"]),
        helper.make_node("Relu", ["big"], ["bigger"]),
        helper.make_node("ReduceSum", ["bigger"], ["sum"], keepdims=0),
        helper.make_node("Add", ["x", "sum"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 1])],
        [
            helper.make_tensor("zero", TensorProto.INT64, [1], [0]),
            helper.make_tensor("size", TensorProto.INT64, [1], [mib * MIB // 4]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    spec = TensorSpec("x", "float32", ("batch", 1))
    return Variant(
        f"greedy{mib}", "onnx", model.SerializeToString(), (spec,), (dataclasses.replace(spec, name="y"),)
    )


FEEDS = {"x": np.ones((1, 1), np.float32)}


def test_what_a_model_fills_while_it_runs_is_in_its_peak() -> None:
    small, large = (peak_memory(Candidate(greedy(mib), "onnxruntime"), FEEDS) for mib in (1, 200))
    assert 20 * MIB < small < 250 * MIB
    assert large - small > 150 * MIB


def test_what_the_caller_holds_is_not() -> None:
    ballast = np.ones(600 * MIB, np.uint8)
    peak = peak_memory(Candidate(greedy(1), "onnxruntime"), FEEDS)
    assert ballast[-1] == 1 and peak < 250 * MIB


def test_measure_reports_it_on_request(lenet: Variant, digits: Dataset) -> None:
    protocol = Protocol(blocks=2, block_ms=1.0, warmup_ms=1.0)
    (item,) = measure(
        [Candidate(lenet, "torch", 2)], digits, protocol=protocol, n_samples=20, with_memory=True
    ).measurements
    assert item.peak_memory_bytes is not None and 50 * MIB < item.peak_memory_bytes < 1000 * MIB


def test_a_model_that_cannot_be_saved_has_none_and_the_reason(cases: Cases) -> None:
    variant, dataset = cases["regression"]
    with pytest.raises(ModelFileError):
        peak_memory(Candidate(variant, "torch"), FEEDS)
    protocol = Protocol(blocks=2, block_ms=1.0, warmup_ms=1.0)
    (item,) = measure(
        [Candidate(variant, "torch")], dataset, protocol=protocol, with_memory=True
    ).measurements
    assert item.peak_memory_bytes is None and "ExportOnnx" in item.null_reasons["peak_memory_bytes"]


def test_a_process_that_fails_is_a_typed_error() -> None:
    with pytest.raises(MeasurementError, match="failed.*TensorError"):
        peak_memory(Candidate(greedy(1), "onnxruntime"), {"x": np.ones((1, 7), np.float32)})


def test_a_process_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MeasurementError, match=r"within 0\.05 s"):
        peak_memory(Candidate(greedy(1), "onnxruntime"), FEEDS, timeout_s=0.05)


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    peak_memory(Candidate(greedy(1), "onnxruntime"), FEEDS)
    assert list(tmp_path.glob("labkit*")) == []


def test_the_peak_is_kept_after_the_memory_was_given_back() -> None:
    code = (
        "from labkit.measure.memory import resident_peak_bytes as peak\nimport numpy\nbefore = peak()\n"
        "block = numpy.ones(300 * 2**20, numpy.uint8)\ndel block\nprint(peak() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 250 * MIB
    assert resident_peak_bytes() > 20 * MIB
