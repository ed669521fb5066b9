"""Catching a session that only looks fast.

A model can be "fast" because it remembers its answers, because it stops working once the warm-up is over, or
because what it answers is not a number. None of this needs malice: a cache left on in a server does it. So:

    Witness                 under the clock it must answer as it did when it was watched
    require_variety         different inputs get different answers, unless the reference runtime says otherwise
    require_scored_answers  at the batch size that is timed it answers as it did where it was scored
    require_work            inputs that it never saw take as long as those it knows
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.lib.stride_tricks import as_strided

from labkit.errors import MeasurementError, TensorError
from labkit.measure import lock
from labkit.measure.timing import Feeds, Outputs
from labkit.runtimes import Session, reference_runtime
from labkit.task import Scores
from labkit.variant import Array

_TOLERANCE = 1e-3
_FEWEST_ALIKE = 0.5
_MOST_SLOWDOWN = 1.5
_NEGLIGIBLE_NS = 10_000
_TRIALS = (8, 24, 48, 192)
_MOST_BYTES, _MOST_SECONDS = 2**27, 20.0
"""Of the unseen batches that one try holds, and of one try, during which nobody else measures: large batches and slow
sessions are tried fewer times, eight at the least."""


def watched_run(name: str, session: Session, feeds: Feeds) -> dict[str, Array]:
    """One checked run; MeasurementError if its outputs are not what the variant declares."""
    outputs = session.run(feeds)
    session.synchronize()
    sizes: dict[str, int] = {}
    for spec in session.variant.inputs:
        spec.check(feeds[spec.name], sizes)
    for spec in session.variant.outputs:
        if spec.name not in outputs:
            raise MeasurementError(f"{name} gives no output {spec.name!r}, only {sorted(outputs)}")
        array = outputs[spec.name]
        try:
            spec.check(array, sizes)
        except TensorError as error:
            raise MeasurementError(f"{name}: {str(error).replace('input', 'output', 1)}") from None
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise MeasurementError(f"{name} answers NaN or infinity in its output {spec.name!r}")
    return outputs


class Witness:
    """Remembers what a session answered when it was watched, and holds it to that while it is timed."""

    def __init__(self, name: str, session: Session, batches: Sequence[Feeds]) -> None:
        self._name = name
        self.expected = [watched_run(name, session, feeds) for feeds in batches]
        require_variety(name, session, batches, self.expected)

    def check(self, last: Mapping[int, Outputs]) -> None:
        """Raise MeasurementError unless the outputs (batch's index → outputs) are the expected ones."""
        for index, outputs in last.items():
            if not _same(self.expected[index], outputs):
                raise MeasurementError(
                    f"{self._name} answered differently under the clock than when it was watched: "
                    "what was timed is not the model's work"
                )


def require_variety(
    name: str, session: Session, batches: Sequence[Feeds], answers: Sequence[Outputs]
) -> None:
    """Raise MeasurementError if all batches got one answer, and the reference runtime tells them apart."""
    if not _all_alike(answers):
        return
    with reference_runtime(session.variant).load(session.variant) as reference:
        if _all_alike([reference.run(feeds) for feeds in batches]):
            return
    raise MeasurementError(
        f"{name} gives one answer to {len(batches)} different batches, the reference runtime does not: "
        "it returns a constant, or an answer that it remembered"
    )


def require_scored_answers(name: str, timed: Scores, scored: Scores) -> None:
    """Raise MeasurementError if most samples score otherwise in the timed batches than in the quality pass.

    A few may: quantization with a range per batch, or a sum in another order, moves an answer that was close.
    """
    if np.mean(np.isclose(timed, scored, rtol=0.25, atol=1e-6)) < _FEWEST_ALIKE:
        raise MeasurementError(
            f"{name} gives other answers at this batch size than those that its quality was measured on"
        )


def require_work(
    name: str, session: Session, batches: Sequence[Feeds], patience: lock.Patience, seed: int = 0
) -> None:
    """Raise MeasurementError if inputs that the session never saw take it longer than those it knows.

    Each trial times a batch that was timed before, a new one, and the new one again; honest work costs the
    same three times. The fastest trials are compared, because what disturbs a run only ever slows it. A
    session that looks suspicious is tried again, longer each time, before it is accused.
    """
    random = np.random.default_rng(seed)
    fresh: list[Feeds] = []  # all kept until the end: a new array in an old one's place might look familiar
    most = max(_TRIALS[0], _MOST_BYTES // max(1, sum(array.nbytes for array in batches[0].values())))
    for wished in _TRIALS:
        trials = min(wished, most)
        new = [_unseen(batches[trial % len(batches)], random) for trial in range(trials)]
        fresh += new
        with patience.exclusive():
            started = time.perf_counter()
            slowdown = _slowdown_when_new(name, session, batches, new, random)
            seconds = (time.perf_counter() - started) / trials
        most = max(_TRIALS[0], min(most, int(_MOST_SECONDS / seconds)))
        if slowdown <= _MOST_SLOWDOWN:
            return
    raise MeasurementError(
        f"{name} is more than {_MOST_SLOWDOWN} times slower on inputs that it has not seen before: "
        "it remembers its answers, so its latency is that of a look-up"
    )


def _slowdown_when_new(
    name: str, session: Session, batches: Sequence[Feeds], fresh: Sequence[Feeds], random: np.random.Generator
) -> float:
    """The larger of new/known and new/again, by the fastest runs; known comes first or last, at random.

    Both sides get 10 µs more, so that a session that takes next to no time is not judged by its jitter.
    """
    known_ns: list[int] = []
    new_ns: list[int] = []
    again_ns: list[int] = []
    answers: list[Outputs] = []
    for trial, known_first in enumerate(random.random(len(fresh)) < 0.5):
        known = batches[trial % len(batches)]
        if known_first:
            known_ns.append(_timed_ns(session, known)[0])
        new, answer = _timed_ns(session, fresh[trial])
        again, repeated = _timed_ns(session, fresh[trial])
        if not known_first:
            known_ns.append(_timed_ns(session, known)[0])
        if not _same(answer, repeated):
            raise MeasurementError(f"{name} answers the same input differently each time")
        new_ns.append(new)
        again_ns.append(again)
        answers.append(answer)
    require_variety(name, session, fresh, answers)
    return (min(new_ns) + _NEGLIGIBLE_NS) / (min(*known_ns, *again_ns) + _NEGLIGIBLE_NS)


def _timed_ns(session: Session, feeds: Feeds) -> tuple[int, Outputs]:
    """Time one run, of inputs that were read just before: whether they lie in a cache is not the question."""
    for array in feeds.values():
        array.max()
    start = time.perf_counter_ns()
    outputs = session.execute(feeds)
    session.synchronize()
    return time.perf_counter_ns() - start, outputs


def _unseen(feeds: Feeds, random: np.random.Generator) -> dict[str, Array]:
    """The batch in another order and a little brighter or darker; whole numbers are shifted along their axes.

    A contiguous array keeps its strides to the byte, also those of axes of size 1, which numpy is free to choose:
    PyTorch takes another path, half as fast here, for another layout.
    """
    fresh: dict[str, Array] = {}
    for name, array in feeds.items():
        order = random.permutation(len(array))
        if array.dtype.kind == "f":
            changed = (array[order] * random.uniform(0.9, 1.1)).astype(array.dtype)
        else:
            shifts = [int(random.integers(size)) for size in array.shape[1:]]
            changed = np.roll(array[order], shifts, axis=tuple(range(1, array.ndim)))
        changed = np.ascontiguousarray(changed)
        fresh[name] = as_strided(changed, strides=array.strides) if array.flags.c_contiguous else changed
    return fresh


def _all_alike(answers: Sequence[Mapping[str, Array]]) -> bool:
    first = answers[0]
    return all(np.array_equal(first[name], other[name]) for other in answers[1:] for name in first)


def _same(expected: Outputs, given: Outputs) -> bool:
    """Equal up to the order of summation: within a thousandth of the largest value."""
    for name, array in expected.items():
        other = given.get(name)
        if other is None or other.shape != array.shape:
            return False
        largest = np.max(np.abs(array), initial=0.0) if array.dtype.kind == "f" else 0
        if not np.allclose(array, other, rtol=0, atol=_TOLERANCE * largest):  # a NaN is close to nothing
            return False
    return True
