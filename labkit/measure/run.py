"""One run over groups of candidates: open their sessions, watch, score, time and suspect them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from labkit.data import Dataset, Split
from labkit.errors import ConfigError
from labkit.measure import honesty
from labkit.measure.candidate import Candidate
from labkit.measure.lock import Patience
from labkit.measure.protocol import Protocol
from labkit.measure.quality import score_samples
from labkit.measure.timing import Feeds, Timed, Timing, time_sessions
from labkit.progress import Progress, part
from labkit.runtimes import Session, get_runtime
from labkit.task import Scores

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
class Seen:
    """What was seen of one candidate; the cold start is its session's loading and first run."""

    timing: Timing
    scores: Scores
    cold_start_ms: float


@dataclass
class Run:
    """The state of one `measure` call: what it measures on, and what it has `seen`, by candidate's key."""

    dataset: Dataset
    split: str
    protocol: Protocol
    seed: int
    opener: Opener
    patience: Patience
    seen: dict[str, Seen] = field(default_factory=dict)
    _scores: dict[tuple[str, str, str], Scores] = field(default_factory=dict)

    @property
    def samples(self) -> Split:
        """The samples that are scored and timed."""
        return self.dataset.split(self.split)

    def measure(self, group: Sequence[Candidate], progress: Progress) -> None:
        """Measure `group` with all its sessions open at once; they are closed again, come what may."""
        opened: dict[tuple[object, ...], tuple[Session, float]] = {}
        timed: dict[str, Timed] = {}
        with ExitStack() as stack:
            for index, candidate in enumerate(sorted(group, key=lambda each: each.batch_size)):
                start, end = 0.3 * index / len(group), 0.3 * (index + 1) / len(group)
                report = part(progress, start, end, f"{candidate.key}: ")
                report(0.0, "loading")
                batches = self._batches(candidate)
                key = session_key(candidate)
                if key not in opened:
                    opened[key] = self._open(candidate, batches[0], stack)
                timed[candidate.key] = self._watch(candidate, opened[key][0], batches, report)
            timings = time_sessions(timed, self.protocol, self.seed, part(progress, 0.3, 0.95), self.patience)
            trusted: set[int] = set()
            for name, item in timed.items():  # the smallest batch of each session stands for the others
                if id(item.session) not in trusted:
                    honesty.require_work(name, item.session, item.batches, self.patience, self.seed)
                    trusted.add(id(item.session))
        for candidate in group:
            scores, (_, cold_start_ms) = self._scores[_quality_key(candidate)], opened[session_key(candidate)]
            self.seen[candidate.key] = Seen(timings[candidate.key], scores, cold_start_ms)

    def _indices(self, batch_size: int) -> list[NDArray[np.int64]]:
        """Which samples make up each timed batch: consecutive ones, round and round if the split is small."""
        n = len(self.samples)
        step = batch_size % n or 1
        return [(index * step + np.arange(batch_size)) % n for index in range(_TIMED_BATCHES)]

    def _batches(self, candidate: Candidate) -> list[Feeds]:
        """Real samples, preprocessed before any clock runs."""
        indices = self._indices(candidate.batch_size)
        return [candidate.variant.feeds(self.samples.take(each).inputs) for each in indices]

    def _open(self, candidate: Candidate, feeds: Feeds, stack: ExitStack) -> tuple[Session, float]:
        """A fresh session and its cold start, with the smallest of the batches that it is measured at.

        The engine itself (its package, its plugins) is started before, once in a process, by a session that
        is thrown away: otherwise whoever comes first would pay for all.
        """
        if candidate.runtime not in _engines_started:
            get_runtime(candidate.runtime).engine()
            self.opener(candidate).close()
            _engines_started.add(candidate.runtime)
        start = time.perf_counter_ns()
        session = stack.enter_context(self.opener(candidate))
        honesty.watched_run(candidate.key, session, feeds)
        return session, (time.perf_counter_ns() - start) / 1e6

    def _watch(
        self, candidate: Candidate, session: Session, batches: list[Feeds], progress: Progress
    ) -> Timed:
        """Keep the answers to the timed batches, score the session, and see that both agree."""
        witness = honesty.Witness(candidate.key, session, batches)
        key = _quality_key(candidate)
        if key not in self._scores:
            self._scores[key] = score_samples(session, self.dataset, self.split, progress=progress)
        for outputs, indices in zip(witness.expected, self._indices(candidate.batch_size), strict=True):
            output = outputs[candidate.variant.outputs[0].name]
            scores = self.dataset.task.scores(output, self.samples.target[indices])
            honesty.require_scored_answers(candidate.key, scores, self._scores[key][indices])
        return Timed(session, batches, witness.check)
