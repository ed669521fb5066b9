"""One run: opens sessions, watches them, times them, and turns what was seen into records."""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from labkit.data import Dataset, Split
from labkit.environment import current
from labkit.errors import ConfigError, MeasurementError, ModelFileError
from labkit.measure import honesty
from labkit.measure.candidate import Candidate
from labkit.measure.counting import Counts, count
from labkit.measure.memory import peak_memory
from labkit.measure.quality import score_samples
from labkit.measure.records import Measurement, Records
from labkit.measure.timing import Feeds, Timed, Timing, time_sessions
from labkit.progress import Progress, part
from labkit.runtimes import Session, get_runtime
from labkit.statistics import Interval, percentile, support
from labkit.task import Scores

if TYPE_CHECKING:
    from labkit.measure.protocol import Protocol

Opener = Callable[[Candidate], Session]
_TIMED_BATCHES = 4
_engines_started: set[str] = set()


def open_session(candidate: Candidate) -> Session:
    """The candidate's runtime in this process; several workers need a pool, and a pool its own opener."""
    if candidate.num_workers != 1:
        raise ConfigError(
            f"num_workers={candidate.num_workers} needs a pool: pass measure(…, open_session=…)"
        )
    return get_runtime(candidate.runtime).load(candidate.variant, candidate.options)


def session_key(candidate: Candidate) -> tuple[object, ...]:
    """Candidates with the same one share a session: they differ in batch size only."""
    return (*_quality_key(candidate), candidate.threads, candidate.num_workers)


def _quality_key(candidate: Candidate) -> tuple[str, str, str]:
    """Candidates with the same one give the same answers, and are scored once."""
    return (candidate.variant.digest, candidate.runtime, candidate.precision)


@dataclass(frozen=True)
class _Seen:
    """What was seen of one candidate."""

    timing: Timing
    scores: Scores
    cold_start_ms: float


@dataclass
class Run:
    """The state of one `measure` call: what to measure on, and what was seen so far, by candidate key."""

    dataset: Dataset
    split: str
    protocol: Protocol
    seed: int
    open_session: Opener
    _scores: dict[tuple[str, str, str], Scores] = field(default_factory=dict)
    _seen: dict[str, _Seen] = field(default_factory=dict)

    @property
    def samples(self) -> Split:
        """The samples that are scored and timed."""
        return self.dataset.split(self.split)

    def measure(self, group: Sequence[Candidate], progress: Progress) -> None:
        """Open all sessions of `group`, score them, and time them in turns; all are closed again, come what may."""
        with ExitStack() as stack:
            opened: dict[tuple[object, ...], tuple[Session, float]] = {}
            timed: dict[str, Timed] = {}
            # The smallest batch first: it is what the first run of a session is made with.
            for index, candidate in enumerate(sorted(group, key=lambda candidate: candidate.batch_size)):
                report = part(
                    progress, 0.3 * index / len(group), 0.3 * (index + 1) / len(group), f"{candidate.key}: "
                )
                report(0.0, "loading")
                batches = self._batches(candidate)
                key = session_key(candidate)
                if key not in opened:
                    opened[key] = self._open(candidate, batches[0], stack)
                session, _ = opened[key]
                scores = self._quality(candidate, session, report)
                timed[candidate.key] = self._watch(candidate, session, batches, scores)
            timings = time_sessions(timed, self.protocol, self.seed, part(progress, 0.3, 0.95))
            for candidate in group:
                cold_start_ms = opened[session_key(candidate)][1]
                self._seen[candidate.key] = _Seen(
                    timings[candidate.key], self._scores[_quality_key(candidate)], cold_start_ms
                )
            suspects = {id(item.session): (name, item) for name, item in reversed(timed.items())}
            for name, item in suspects.values():  # each session once, at its smallest batch
                honesty.require_work(name, item.session, item.batches, self.seed)
        progress(1.0, "measured")

    def _indices(self, batch_size: int) -> list[np.ndarray[Any, np.dtype[np.int64]]]:
        """Which samples make up each timed batch: consecutive ones, around the split's end if it is small."""
        n = len(self.samples)
        step = batch_size % n or 1
        return [(index * step + np.arange(batch_size)) % n for index in range(_TIMED_BATCHES)]

    def _batches(self, candidate: Candidate) -> list[Feeds]:
        """Real samples, preprocessed before any clock runs."""
        indices = self._indices(candidate.batch_size)
        return [candidate.variant.feeds(self.samples.take(each).inputs) for each in indices]

    def _open(self, candidate: Candidate, feeds: Feeds, stack: ExitStack) -> tuple[Session, float]:
        """A fresh session and its cold start: loading plus the first run.

        The engine itself (its package, its plugins) is started before, once in a process, by a session that is
        thrown away: otherwise whoever comes first would pay for all.
        """
        if candidate.runtime not in _engines_started:
            importlib.import_module(get_runtime(candidate.runtime).package)
            self.open_session(candidate).close()
            _engines_started.add(candidate.runtime)
        start = time.perf_counter_ns()
        session = stack.enter_context(self.open_session(candidate))
        honesty.watched_run(candidate.key, session, feeds)
        return session, (time.perf_counter_ns() - start) / 1e6

    def _quality(self, candidate: Candidate, session: Session, progress: Progress) -> Scores:
        key = _quality_key(candidate)
        if key not in self._scores:
            self._scores[key] = score_samples(session, self.dataset, self.split, progress=progress)
        return self._scores[key]

    def _watch(self, candidate: Candidate, session: Session, batches: list[Feeds], scores: Scores) -> Timed:
        """Keep the answers to the timed batches, make sure that they are those that were scored, and hold on to both."""
        witness = honesty.Witness(candidate.key, session, batches)
        for outputs, indices in zip(witness.expected, self._indices(candidate.batch_size), strict=True):
            output = outputs[candidate.variant.outputs[0].name]
            timed_scores = self.dataset.task.scores(output, self.samples.target[indices])
            honesty.require_scored_answers(candidate.key, timed_scores, scores[indices])
        return Timed(session, batches, witness.check)

    def records(
        self, candidates: Sequence[Candidate], against: Candidate | None, with_memory: bool
    ) -> Records:
        """Turn what was seen into one record per candidate and the raw numbers beside them."""
        run_id = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(3)}"
        counts: dict[str, Counts] = {}
        measurements = []
        for candidate in candidates:
            digest = candidate.variant.digest
            if digest not in counts:
                counts[digest] = count(
                    candidate.variant, candidate.variant.feeds(self.samples.take(slice(0, 1)).inputs)
                )
            figures = {
                **self._quality_figures(candidate, against),
                **self._speed_figures(candidate),
                **counts[digest].figures(),
                "peak_memory_bytes": self._memory_figure(candidate, with_memory),
            }
            measurements.append(self._measurement(run_id, candidate, counts[digest], figures))
        return Records(
            run_id,
            tuple(measurements),
            {key: seen.timing.block_ms for key, seen in self._seen.items()},
            {key: seen.timing.run_ms for key, seen in self._seen.items()},
            {key: seen.scores for key, seen in self._seen.items()},
            against.key if against else None,
        )

    def _quality_figures(self, candidate: Candidate, against: Candidate | None) -> dict[str, Any]:
        """Each figure, or the reason why there is none."""
        task, scores = self.dataset.task, self._seen[candidate.key].scores
        drop: float | str = "no baseline in this run"
        if against:
            drop = task.drop(task.compare(self._seen[against.key].scores, scores))[0]
        figures = {
            "quality": task.quality(scores),
            "quality_ci95": _finite(task.interval(scores)),
            "quality_drop": drop,
        }
        names = {"quality": "accuracy", "quality_ci95": "accuracy_ci95", "quality_drop": "accuracy_drop_pp"}
        if task.metric != "accuracy":
            return figures | dict.fromkeys(names.values(), f"{task.name} is measured by its {task.metric}")
        points = drop if isinstance(drop, str) else 100 * drop
        return (
            figures | {names[name]: value for name, value in figures.items()} | {"accuracy_drop_pp": points}
        )

    def _speed_figures(self, candidate: Candidate) -> dict[str, Any]:
        seen = self._seen[candidate.key]
        run_ms = seen.timing.run_ms
        figures: dict[str, Any] = {"cold_start_ms": seen.cold_start_ms}
        for q in (50, 95, 99):
            value = percentile(run_ms, q)
            too_few = f"{len(run_ms)} timed runs do not support it: {support(q)} needed"
            figures[f"latency_p{q}_ms"] = too_few if value is None else value
        figures["throughput_samples_per_s"] = (
            1e3 * candidate.batch_size / float(np.median(seen.timing.block_ms))
        )
        return figures

    def _memory_figure(self, candidate: Candidate, with_memory: bool) -> int | str:
        if not with_memory:
            return "not asked for: measure(…, with_memory=True)"
        if candidate.num_workers != 1:
            return "measured for one worker only"
        try:
            return peak_memory(candidate, self._batches(candidate)[0])
        except (ModelFileError, MeasurementError) as error:
            return str(error)

    def _measurement(
        self, run_id: str, candidate: Candidate, counts: Counts, figures: Mapping[str, Any]
    ) -> Measurement:
        variant, timing = candidate.variant, self._seen[candidate.key].timing
        precision = candidate.precision
        if counts.quantized:
            precision = "int8" if precision == "float32" else f"int8+{precision}"
        lock = "held" if timing.lock_held else f"not held: waited {self.protocol.lock_timeout_s:g} s"
        return Measurement(
            run_id=run_id,
            variant=variant.name,
            format=variant.format,
            precision=precision,
            runtime=candidate.runtime,
            device=candidate.options.device,
            dataset=self.dataset.name,
            split=self.split,
            n_samples=len(self.samples),
            quality_metric=self.dataset.task.metric,
            size_bytes=variant.size_bytes,
            batch_size=candidate.batch_size,
            num_workers=candidate.num_workers,
            intra_op_threads=candidate.threads,
            warmup_runs=timing.warmup_runs,
            timed_runs=len(timing.run_ms),
            lineage=tuple(json.loads(json.dumps(dataclasses.asdict(step))) for step in variant.lineage),
            environment={**current().to_json(), "timing_lock": lock},
            seed=self.seed,
            null_reasons={name: value for name, value in figures.items() if isinstance(value, str)},
            **{name: None if isinstance(value, str) else value for name, value in figures.items()},
        )


def _finite(interval: Interval) -> Interval | str:
    return interval if all(map(math.isfinite, interval)) else "one sample has no interval"
