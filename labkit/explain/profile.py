"""A profile: where the time of one run went, operator by operator, as the engine really executed them.

What runs is not what stands in the file. An engine fuses operators, puts others in to change layouts and number
formats, and picks a kernel for each. So the operators here are the engine's, each with the layer of the file that
it does the work of.

An interruption only ever adds time, and a long operator is interrupted more often than a short one. So an
operator's time is the lower quartile of its runs, and the runs are taken while no other work of ours computes.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from labkit.errors import ConfigError, nearest
from labkit.explain.executed import LAYER, Executed
from labkit.explain.layers import ModelFile
from labkit.explain.trials import Entrant
from labkit.measure.lock import Patience
from labkit.runtimes import RunOptions, Runtime
from labkit.variant import Array, Variant

_FEWEST_RUNS, _MOST_RUNS, _ENOUGH_MS = 12, 60, 600.0
_TURNS = 4


@dataclass(frozen=True)
class Operator:
    """One operator as the engine executed it.

    `kind` is the engine's word (QLinearConv, ReorderInput), `name` its own name, `layer` the layer of the file
    that it computes ("" if none), `work` one of the kinds of work. `precision` is what it computed in: "int8",
    "float32", "bfloat16", … `macs` are the multiply-adds of one run, None where they are not known.
    """

    kind: str
    name: str
    layer: str
    work: str
    ms: float
    share: float
    precision: str
    macs: int | None

    @property
    def macs_per_ms(self) -> float | None:
        """The speed that it reached."""
        return self.macs / self.ms if self.macs and self.ms > 0 else None


Reader = Callable[[Variant, Mapping[str, Array], Runtime, RunOptions, int], Sequence[Executed]]
"""Runs a variant so many times and gives its operators, in the order of execution."""


@dataclass(frozen=True)
class Profile:
    """The operators of one run of a batch, in the order of execution."""

    variant: str
    runtime: str
    batch_size: int
    threads: int
    runs: int
    operators: tuple[Operator, ...]

    @functools.cached_property
    def total_ms(self) -> float:
        """The time of all operators together; the engine's own time between them is not in it."""
        return sum(operator.ms for operator in self.operators)

    def share(self, wanted: Callable[[Operator], bool]) -> float:
        """The share of the time that goes into the operators that are `wanted`."""
        return sum(operator.share for operator in self.operators if wanted(operator))

    def by_kind(self) -> dict[str, float]:
        """Milliseconds by kind of operator and precision ("Conv, float32"), the most expensive first."""
        found: defaultdict[str, float] = defaultdict(float)
        for operator in self.operators:
            found[f"{operator.kind}, {operator.precision}"] += operator.ms
        return dict(sorted(found.items(), key=lambda item: -item[1]))


def profile(
    variant: Variant,
    feeds: Mapping[str, Array],
    runtime: Runtime,
    options: RunOptions,
    file: ModelFile | None = None,
) -> Profile:
    """Run `variant` on `feeds` some dozen times with the engine's own profiler on.

    `file` is what is known of the variant's layers; without it no operator has a layer or multiply-adds.
    Raises ConfigError for a runtime whose profile cannot be read.
    """
    return profiles([(Entrant(variant, feeds, runtime, options), file)])[0]


def profiles(asked: Sequence[tuple[Entrant, ModelFile | None]]) -> list[Profile]:
    """The profiles of several, to be compared operator by operator: they run in turns.

    A processor changes its speed within seconds. Of two profiles taken one after the other, each operator of the
    second may seem slower than its like in the first; in turns, both have met the same processor.
    """
    turns = _TURNS if len(asked) > 1 else 1
    with Patience().exclusive():
        runs = [_enough_runs(entrant) for entrant, _ in asked]
        found = [
            [
                _read(entrant, math.ceil(count / turns))
                for (entrant, _), count in zip(asked, runs, strict=True)
            ]
            for _ in range(turns)
        ]
    return [
        _profile(entrant, file, _joined(of_one))
        for (entrant, file), of_one in zip(asked, zip(*found, strict=True), strict=True)
    ]


def _enough_runs(entrant: Entrant) -> int:
    run_ms = sum(min(each.run_ms) for each in _read(entrant, 3))
    return int(np.clip(_ENOUGH_MS / max(run_ms, 1e-3), _FEWEST_RUNS, _MOST_RUNS))


def _read(entrant: Entrant, runs: int) -> Sequence[Executed]:
    reader = _reader(entrant.runtime.name)
    return reader(entrant.variant, entrant.feeds, entrant.runtime, entrant.options, runs)


def _joined(turns: Sequence[Sequence[Executed]]) -> list[Executed]:
    """The operators of the first turn, each with its runs of all turns."""
    later = [{each.name: each.run_ms for each in turn} for turn in turns[1:]]
    return [
        dataclasses.replace(each, run_ms=sum((turn.get(each.name, ()) for turn in later), each.run_ms))
        for each in turns[0]
    ]


def _profile(entrant: Entrant, file: ModelFile | None, executed: Sequence[Executed]) -> Profile:
    ms = [float(np.quantile(each.run_ms, 0.25)) for each in executed]
    total = sum(ms) or 1.0
    matched = file.match([(each.name, each.kind) for each in executed]) if file else [None] * len(executed)
    operators = []
    for each, time_ms, layer in zip(executed, ms, matched, strict=True):
        work = LAYER if layer is not None else each.work
        operators.append(
            Operator(
                kind=each.kind,
                name=each.name,
                layer=layer.name if layer else "",
                work=work,
                ms=time_ms,
                share=time_ms / total,
                precision=each.precision,
                macs=layer.macs if layer else None,
            )
        )
    runs = min((len(each.run_ms) for each in executed), default=0)
    return Profile(
        variant=entrant.variant.name,
        runtime=entrant.runtime.name,
        batch_size=entrant.batch_size,
        threads=entrant.options.threads,
        runs=runs,
        operators=tuple(operators),
    )


def _reader(runtime: str) -> Reader:
    from labkit.explain import read_openvino, read_ort

    readers: dict[str, Reader] = {"onnxruntime": read_ort.read, "openvino": read_openvino.read}
    if runtime not in readers:
        raise ConfigError(
            f"the operators of {runtime!r} cannot be timed one by one; {nearest(runtime, readers)}"
        )
    return readers[runtime]
