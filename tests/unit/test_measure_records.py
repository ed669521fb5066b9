"""Candidates and records: their names, what they refuse, and that they come back from a file as they were."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from labkit.errors import ConfigError, StudyError
from labkit.measure import Candidate, Measurement, Records
from labkit.variant import Step, TensorSpec, Variant

FIELDS_OF_THE_DESIGN = """
    schema_version run_id kind unit variant format precision runtime device dataset split n_samples
    quality_metric quality quality_ci95 quality_drop accuracy accuracy_ci95 accuracy_drop_pp size_bytes
    latency_p50_ms latency_p95_ms latency_p99_ms throughput_samples_per_s batch_size num_workers
    intra_op_threads warmup_runs timed_runs cold_start_ms peak_memory_bytes macs parameters
    nonzero_parameters lineage environment seed null_reasons
"""

VARIANT = Variant(
    "resnet20@digits+int8",
    "onnx",
    b"",
    (TensorSpec("x", "float32", ("batch", 2)),),
    (),
    lineage=(Step("train"),),
)


def measurement(**changes: Any) -> Measurement:
    values: dict[str, Any] = {
        "run_id": "r1",
        "variant": "m",
        "format": "onnx",
        "precision": "float32",
        "runtime": "onnxruntime",
        "dataset": "digits",
        "split": "validation",
        "n_samples": 4,
        "quality_metric": "accuracy",
        "quality": 0.75,
        "quality_ci95": (0.3, 0.95),
        "quality_drop": None,
        "accuracy": 0.75,
        "accuracy_ci95": (0.3, 0.95),
        "accuracy_drop_pp": None,
        "size_bytes": 1000,
        "latency_p50_ms": 2.0,
        "latency_p95_ms": 2.5,
        "latency_p99_ms": None,
        "throughput_samples_per_s": 500.0,
        "batch_size": 1,
        "num_workers": 1,
        "intra_op_threads": 1,
        "warmup_runs": 5,
        "timed_runs": 60,
        "cold_start_ms": 10.0,
        "peak_memory_bytes": None,
        "macs": 100,
        "parameters": 10,
        "nonzero_parameters": 9,
        "lineage": ({"technique": "train", "config": {}, "parents": [], "origin": "here"},),
        "environment": {"threads": 2},
        "seed": 0,
        "null_reasons": dict.fromkeys(
            ("quality_drop", "accuracy_drop_pp", "latency_p99_ms", "peak_memory_bytes"), "because"
        ),
    }
    return Measurement(**{**values, **changes})


def records(**changes: Any) -> Records:
    one, two = measurement(), measurement(variant="n", precision="int8+bfloat16", batch_size=8)
    arrays: dict[str, Any] = {
        name: {one.key: np.arange(4.0) + 1, two.key: np.arange(4.0) + 2}
        for name in ("block_ms", "run_ms", "scores")
    }
    return Records(
        **{"run_id": "r1", "measurements": (one, two), "baseline_key": one.key, **arrays, **changes}
    )


def test_key_names_everything_that_was_chosen() -> None:
    assert Candidate(VARIANT, "openvino", 32).key == "resnet20@digits+int8 · openvino · b32 · t1 · float32"
    assert Candidate(VARIANT, "openvino", 32, num_workers=2).key.endswith("float32 · w2")


@pytest.mark.parametrize(
    "change",
    [
        {"batch_size": 2},
        {"threads": 2},
        {"precision": "bfloat16"},
        {"num_workers": 2},
        {"runtime": "onnxruntime"},
    ],
)
def test_candidates_are_equal_exactly_if_their_keys_are(change: dict[str, Any]) -> None:
    one = Candidate(VARIANT, "openvino")
    twin = Candidate(dataclasses.replace(VARIANT), "openvino")
    assert one == twin and hash(one) == hash(twin)
    assert one != dataclasses.replace(one, **change)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Candidate(VARIANT, "openvno"), ("openvno", "did you mean 'openvino'")),
        (lambda: Candidate(VARIANT, "torch"), ("torch", "onnx")),
        (lambda: Candidate(VARIANT, "openvino", batch_size=0), ("batch_size=0", "1..")),
        (lambda: Candidate(VARIANT, "openvino", batch_size=True), ("batch_size=True", "1..")),
        (lambda: Candidate(VARIANT, "openvino", threads=0), ("threads=0", "1..")),
        (lambda: Candidate(VARIANT, "openvino", num_workers=0), ("num_workers=0", "1..")),
        (lambda: Candidate(VARIANT, "openvino", precision="int8"), ("int8", "float32")),
        (lambda: Candidate(VARIANT, "onnxruntime", precision="bfloat16"), ("bfloat16", "float32")),
        (lambda: Candidate("resnet20@digits", "torch"), ("resnet20@digits", "load_model")),  # type: ignore[arg-type]
    ],
)
def test_candidate_refuses_and_says_what_is_allowed(
    make: Callable[[], Candidate], words: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert all(word in str(caught.value) for word in words)


def test_the_record_has_the_designs_fields_in_its_order() -> None:
    assert list(measurement().to_json()) == FIELDS_OF_THE_DESIGN.split()


@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_record_has_the_key_of_its_candidate(precision: str, quantized: bool) -> None:
    variant = dataclasses.replace(VARIANT, name="m")
    vars(variant)["quantized"] = quantized
    candidate = Candidate(variant, "openvino", precision=precision)
    record = measurement(runtime="openvino", precision=candidate.effective_precision)
    assert record.key == candidate.key and ("int8" in record.key) == quantized


def test_a_record_survives_json() -> None:
    made = measurement()
    assert Measurement.from_json(json.loads(json.dumps(made.to_json()))) == made


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"batch_size": "32"}, "batch_size='32'"),
        ({"batch_size": True}, "batch_size=True"),
        ({"batch_size": 0}, "batch_size=0 in a record must be 1 or more"),
        ({"size_bytes": 10**400}, "size_bytes=1000"),
        ({"latency_p50_ms": 10**400}, "latency_p50_ms=1000"),
        ({"environment": {"timing_cpu_share": "all"}}, "timing_cpu_share='all'"),
        ({"environment": {"timing_cpu_share": None}}, "timing_cpu_share=None"),
        ({"quality": "high"}, "quality='high'"),
        ({"latency_p50_ms": float("nan")}, "latency_p50_ms=nan"),
        ({"quality_ci95": [0.9, 0.1]}, "quality_ci95"),
        ({"quality_ci95": [0.9]}, "quality_ci95"),
        ({"lineage": ["train"]}, "lineage"),
        ({"environment": None}, "environment"),
        ({"null_reasons": {}}, "null_reasons does not say why"),
        ({"schema_version": 2}, "schema version 2"),
        ({"kind": "inferences"}, "did you mean 'inference'"),
        ({"unit": "tokens"}, "did you mean 'token'"),
        ({"latency_p5_ms": 1.0}, "did you mean"),
    ],
)
def test_a_record_from_elsewhere_is_checked(change: dict[str, Any], words: str) -> None:
    with pytest.raises(StudyError, match=words.replace("(", r"\(")):
        Measurement.from_json({**measurement().to_json(), **change})


def test_a_record_that_lacks_a_field_is_refused() -> None:
    document = measurement().to_json()
    del document["seed"]
    with pytest.raises(StudyError, match="lacks seed"):
        Measurement.from_json(document)
    with pytest.raises(StudyError, match="not a list"):
        Measurement.from_json([])


def test_a_run_is_put_together_again_from_rows_and_arrays() -> None:
    made = records()
    rows = [json.loads(json.dumps(item.to_json())) for item in made.measurements]
    read = Records.from_rows(rows, made.arrays())
    assert read.measurements == made.measurements and read.baseline_key == made.baseline_key
    for name in ("block_ms", "run_ms", "scores"):
        for key, array in getattr(made, name).items():
            assert np.array_equal(getattr(read, name)[key], array)


def test_a_run_without_baseline_comes_back_without_one() -> None:
    made = records(baseline_key=None)
    assert (
        Records.from_rows([item.to_json() for item in made.measurements], made.arrays()).baseline_key is None
    )


@pytest.mark.parametrize(
    "damage",
    [
        lambda rows, arrays: rows.clear(),
        lambda rows, arrays: rows[0].update(run_id="r2"),
        lambda rows, arrays: rows.append([]),
        lambda rows, arrays: arrays.pop("scores_1"),
        lambda rows, arrays: arrays.update(run_ms_0=np.array([1.0, np.nan])),
        lambda rows, arrays: arrays.update(run_ms_0=np.array([[1.0]])),
        lambda rows, arrays: arrays.update(run_ms_0=np.array(["1"])),
        lambda rows, arrays: arrays.update(block_ms_1=np.array([1.0])),
        lambda rows, arrays: arrays.update(block_ms_0=np.zeros(4)),
        lambda rows, arrays: arrays.update(run_ms_0=np.array([])),
        lambda rows, arrays: arrays.update(scores_1=np.array([1.0])),
        lambda rows, arrays: arrays.update(scores_0=np.array([]), scores_1=np.array([])),
    ],
)
def test_a_damaged_run_is_a_study_error(damage: Callable[[list[Any], dict[str, Any]], object]) -> None:
    made = records()
    rows, arrays = [item.to_json() for item in made.measurements], made.arrays()
    damage(rows, arrays)
    with pytest.raises(StudyError):
        Records.from_rows(rows, arrays)


def test_a_record_that_was_removed_takes_nothing_from_the_others() -> None:
    made = records()
    rows = [item.to_json() for item in made.measurements]
    left = Records.from_rows(rows[1:], made.arrays())
    key = made.measurements[1].key
    assert np.array_equal(left.block_ms[key], made.block_ms[key])
    with pytest.raises(StudyError, match="does not name"):
        Records.from_rows([measurement(variant="stranger").to_json()], made.arrays())
