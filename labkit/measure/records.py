"""What a measurement leaves behind: one flat record per candidate, and the raw numbers beside it.

The record holds what is read, sorted and plotted. The sidecar holds what it was computed from: every timed run,
the block times that a paired comparison needs, and each sample's score. So a claim can be checked again later,
and a new question can be put to an old run.
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labkit.errors import StudyError, nearest
from labkit.files import write_atomically
from labkit.measure.candidate import candidate_key
from labkit.statistics import Interval
from labkit.task import Scores

Times = NDArray[np.float64]
SCHEMA_VERSION = 1
KINDS = ("inference", "load", "generation", "fleet")
UNITS = ("sample", "token", "request")


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One flat record; the JSON, the table and the plot all use these names. Units are in the names.

    A figure that could not be honestly measured is None, and `null_reasons` says why, field by field.
    Latencies are of one run, that is of one batch. `precision` is "int8" where the model is quantized, and
    "int8+bfloat16" where the rest of such a model runs in bfloat16. `macs` are multiply-adds of one sample.
    Raises StudyError where a value has the wrong type or a None has no reason.
    """

    schema_version: int = SCHEMA_VERSION
    run_id: str
    kind: str = "inference"
    unit: str = "sample"
    variant: str
    format: str
    precision: str
    runtime: str
    device: str = "cpu"
    dataset: str | None
    split: str | None
    n_samples: int | None
    quality_metric: str | None
    quality: float | None
    quality_ci95: Interval | None
    quality_drop: float | None
    accuracy: float | None
    accuracy_ci95: Interval | None
    accuracy_drop_pp: float | None
    size_bytes: int | None
    latency_p50_ms: float | None
    latency_p95_ms: float | None
    latency_p99_ms: float | None
    throughput_samples_per_s: float | None
    batch_size: int
    num_workers: int
    intra_op_threads: int
    warmup_runs: int
    timed_runs: int
    cold_start_ms: float | None
    peak_memory_bytes: int | None
    macs: int | None
    parameters: int | None
    nonzero_parameters: int | None
    lineage: tuple[Mapping[str, Any], ...]
    environment: Mapping[str, Any]
    seed: int
    null_reasons: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            if not _CHECKS[str(item.type)](value):
                raise StudyError(f"{item.name}={value!r} in a record is not a valid {item.type}")
            if value is None and item.name not in self.null_reasons:
                raise StudyError(f"{item.name} is null and null_reasons does not say why")
        if self.schema_version != SCHEMA_VERSION:
            raise StudyError(
                f"the record has schema version {self.schema_version}; this labkit reads {SCHEMA_VERSION}"
            )
        for name, allowed in (("kind", KINDS), ("unit", UNITS)):
            if getattr(self, name) not in allowed:
                raise StudyError(
                    f"{name}={getattr(self, name)!r} is unknown; {nearest(getattr(self, name), allowed)}"
                )

    @property
    def key(self) -> str:
        """The key of the Candidate that was measured."""
        computed = "float32" if self.precision == "int8" else self.precision.removeprefix("int8+")
        return candidate_key(
            self.variant, self.runtime, self.batch_size, self.intra_op_threads, computed, self.num_workers
        )

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON-serialisable values; intervals are [low, high]."""
        plain = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        plain["lineage"] = [dict(step) for step in self.lineage]
        for name in ("environment", "null_reasons"):
            plain[name] = dict(plain[name])
        return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}

    @classmethod
    def from_json(cls, document: object) -> Measurement:
        """What `to_json` gave. Raises StudyError for a field that is unknown, missing or of the wrong type."""
        if not isinstance(document, dict):
            raise StudyError(f"a record must be a JSON object, not a {type(document).__name__}")
        known = [item.name for item in dataclasses.fields(cls)]
        if unknown := sorted(set(document) - set(known)):
            raise StudyError(f"unknown field {unknown[0]!r} in a record; {nearest(unknown[0], known)}")
        if missing := [name for name in known if name not in document]:
            raise StudyError(f"the record lacks {', '.join(missing)}")
        tuples = {name: tuple(document[name]) for name in document if isinstance(document[name], list)}
        return cls(**{**document, **tuples})


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_interval(value: object) -> bool:
    return (
        isinstance(value, tuple) and len(value) == 2 and all(map(_is_number, value)) and value[0] <= value[1]
    )


def _is_object(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(name, str) for name in value)


_CHECKS: dict[str, Callable[[Any], bool]] = {
    "str": lambda value: isinstance(value, str),
    "int": lambda value: type(value) is int,
    "float | None": lambda value: value is None or _is_number(value),
    "str | None": lambda value: value is None or isinstance(value, str),
    "int | None": lambda value: value is None or type(value) is int,
    "Interval | None": lambda value: value is None or _is_interval(value),
    "Mapping[str, Any]": _is_object,
    "Mapping[str, str]": lambda value: (
        _is_object(value) and all(isinstance(text, str) for text in value.values())
    ),
    "tuple[Mapping[str, Any], ...]": lambda value: isinstance(value, tuple) and all(map(_is_object, value)),
}
"""Annotation → what a value of it must be."""


@dataclass(frozen=True, eq=False)
class Records:
    """One run: its records, and by each record's key the raw numbers behind it.

    block_ms: [blocks] milliseconds per run (one batch) in each block; with a `baseline_key`, block i of every key
    was timed in the same moments, so they pair. Without one the candidates ran one after the other and do not.
    run_ms: [runs] every timed run, in order. scores: [n_samples] each sample's score, in the split's order.
    """

    run_id: str
    measurements: tuple[Measurement, ...]
    block_ms: Mapping[str, Times]
    run_ms: Mapping[str, Times]
    scores: Mapping[str, Scores]
    baseline_key: str | None = None

    def save(self, folder: str | Path) -> Path:
        """Write the sidecar RUN_ID.npz, then `records.jsonl` over what was there: its existence means both are whole."""
        folder = Path(folder)
        arrays: dict[str, NDArray[Any]] = {"baseline_key": np.array(self.baseline_key or "")}
        for index, measurement in enumerate(self.measurements):
            for name in _SIDECAR:
                arrays[f"{name}_{index}"] = getattr(self, name)[measurement.key]
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
        write_atomically(folder / f"{self.run_id}.npz", buffer.getvalue())
        lines = [json.dumps(measurement.to_json(), ensure_ascii=False) for measurement in self.measurements]
        write_atomically(folder / "records.jsonl", "".join(line + "\n" for line in lines).encode())
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> Records:
        """Read what `save` wrote. Raises StudyError if anything is missing, malformed or of several runs."""
        folder = Path(folder)
        try:
            lines = (folder / "records.jsonl").read_text(encoding="utf-8").splitlines()
            measurements = tuple(Measurement.from_json(json.loads(line)) for line in lines)
        except OSError as error:
            raise StudyError(f"cannot read {folder}/records.jsonl: {error.strerror}") from None
        except (ValueError, RecursionError) as error:
            raise StudyError(f"{folder}/records.jsonl holds a line that is not JSON: {error}") from None
        run_ids = sorted({measurement.run_id for measurement in measurements})
        if len(run_ids) != 1 or Path(run_ids[0]).name != run_ids[0]:
            raise StudyError(f"{folder}/records.jsonl must hold one run, it holds {run_ids or 'none'}")
        sidecar = _read_sidecar(
            folder / f"{run_ids[0]}.npz", [measurement.key for measurement in measurements]
        )
        return cls(run_ids[0], measurements, **sidecar)


_SIDECAR = ("block_ms", "run_ms", "scores")


def _read_sidecar(path: Path, keys: list[str]) -> dict[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            baseline_key = str(arrays["baseline_key"])
            found: dict[str, Any] = {
                name: {key: arrays[f"{name}_{index}"] for index, key in enumerate(keys)} for name in _SIDECAR
            }
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise StudyError(f"cannot read {path}: {error}; measure again") from None
    for name, by_key in found.items():
        for key, array in by_key.items():
            if array.dtype != np.float64 or array.ndim != 1 or not np.isfinite(array).all():
                raise StudyError(
                    f"{path} holds {name} of {key!r} that are not finite float64 numbers in a row"
                )
    return {**found, "baseline_key": baseline_key or None}
