"""What a measurement leaves behind: one flat record per candidate, and the raw numbers beside it.

The record holds what is read, sorted and plotted. The sidecar holds what it was computed from: every timed
run, the block times that a paired comparison needs, and each sample's score. So a claim can be checked again
later, and a new question can be put to an old run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labkit.errors import StudyError, nearest
from labkit.measure.candidate import candidate_key
from labkit.statistics import Interval
from labkit.task import Scores

Times = NDArray[np.float64]
SCHEMA_VERSION = 1
KINDS = ("inference", "load", "generation", "fleet")
UNITS = ("sample", "token", "request")
_TOO_LARGE = 1e300


class Reason(str):
    """Why a figure could not be honestly measured; stands in its place until the record is made."""


def split_reasons(figures: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Figures, some of them a Reason, to (figures with None in its place, null_reasons)."""
    reasons = {name: str(value) for name, value in figures.items() if isinstance(value, Reason)}
    return {name: None if name in reasons else value for name, value in figures.items()}, reasons


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
        for name in ("batch_size", "num_workers", "intra_op_threads"):
            if getattr(self, name) < 1:
                raise StudyError(f"{name}={getattr(self, name)} in a record must be 1 or more")
        if not _is_number(share := self.environment.get("timing_cpu_share", 1.0)):
            raise StudyError(f"environment.timing_cpu_share={share!r} in a record must be a number")
        for name, allowed in (("kind", KINDS), ("unit", UNITS)):
            if getattr(self, name) not in allowed:
                raise StudyError(
                    f"{name}={getattr(self, name)!r} is unknown; {nearest(getattr(self, name), allowed)}"
                )

    @property
    def key(self) -> str:
        """The key of the Candidate that was measured."""
        return candidate_key(
            self.variant,
            self.runtime,
            self.batch_size,
            self.intra_op_threads,
            self.precision,
            self.num_workers,
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
        """What `to_json` gave; StudyError for a field that is unknown, missing or of the wrong type."""
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
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _TOO_LARGE


def _is_count(value: object) -> bool:
    return type(value) is int and abs(value) < _TOO_LARGE


def _is_interval(value: object) -> bool:
    return (
        isinstance(value, tuple) and len(value) == 2 and all(map(_is_number, value)) and value[0] <= value[1]
    )


def _is_object(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(name, str) for name in value)


_CHECKS: dict[str, Callable[[Any], bool]] = {
    "str": lambda value: isinstance(value, str),
    "int": _is_count,
    "float | None": lambda value: value is None or _is_number(value),
    "str | None": lambda value: value is None or isinstance(value, str),
    "int | None": lambda value: value is None or _is_count(value),
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

    block_ms: [blocks] milliseconds per run (one batch) in each block; with a `baseline_key`, block i of every
    key was timed in the same moments, so they pair; without one the candidates ran one after the other.
    run_ms: [runs] every timed run, in order. scores: [n_samples] each sample's score, in the split's order.
    """

    run_id: str
    measurements: tuple[Measurement, ...]
    block_ms: Mapping[str, Times]
    run_ms: Mapping[str, Times]
    scores: Mapping[str, Scores]
    baseline_key: str | None = None

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The raw numbers as named arrays, for a sidecar: NAME_INDEX, by the place of the record's key in `keys`."""
        arrays: dict[str, NDArray[Any]] = {
            "baseline_key": np.array(self.baseline_key or ""),
            "keys": np.array([measurement.key for measurement in self.measurements]),
        }
        for index, measurement in enumerate(self.measurements):
            for name in _SIDECAR:
                arrays[f"{name}_{index}"] = getattr(self, name)[measurement.key]
        return arrays

    @classmethod
    def from_rows(cls, rows: Sequence[object], arrays: Mapping[str, NDArray[Any]]) -> Records:
        """Put a run together again from its records' JSON and its `arrays`.

        Raises StudyError if anything is missing, malformed or of several runs.
        """
        measurements = tuple(Measurement.from_json(row) for row in rows)
        run_ids = sorted({measurement.run_id for measurement in measurements})
        if len(run_ids) != 1:
            raise StudyError(f"these records must be of one run, they are of {run_ids or 'none'}")
        keys = [str(key) for key in np.atleast_1d(arrays.get("keys", np.array([])))]
        if lost := [measurement.key for measurement in measurements if measurement.key not in keys]:
            raise StudyError(f"the sidecar does not name {lost[0]!r}: measure again")
        found: dict[str, Any] = {
            name: {each.key: _checked(arrays, f"{name}_{keys.index(each.key)}") for each in measurements}
            for name in _SIDECAR
        }
        baseline_key = str(arrays.get("baseline_key", "")) or None
        _check_lengths(measurements, found, paired=baseline_key is not None)
        return cls(run_ids[0], measurements, **found, baseline_key=baseline_key)


_SIDECAR = ("block_ms", "run_ms", "scores")


def _check_lengths(measurements: Sequence[Measurement], found: Mapping[str, Any], paired: bool) -> None:
    """Raise StudyError unless blocks that pair are as many, and each sample of a record has its score."""
    for each in measurements:
        blocks, runs, scores = (found[name][each.key] for name in _SIDECAR)
        first = found["block_ms"][measurements[0].key]
        if min(len(blocks), len(runs)) == 0 or min(blocks.min(), runs.min()) <= 0:
            raise StudyError(f"the sidecar's times of {each.key!r} must be above 0: measure again")
        if paired and len(blocks) != len(first):
            raise StudyError(f"{each.key!r} has {len(blocks)} blocks, the run {len(first)}: measure again")
        if each.n_samples is not None and len(scores) != each.n_samples:
            raise StudyError(f"{each.key!r} has {len(scores)} scores, not {each.n_samples}: measure again")


def _checked(arrays: Mapping[str, NDArray[Any]], name: str) -> NDArray[np.float64]:
    array = arrays.get(name)
    if array is None or array.dtype != np.float64 or array.ndim != 1 or not np.isfinite(array).all():
        raise StudyError(f"the sidecar's {name} is not a row of finite float64 numbers: measure again")
    return array
