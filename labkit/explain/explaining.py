"""Why is it not faster? A profile, the facts of the file, a race against what is suspected, and a diagnosis.

    why = explain(int8, dataset, against=float32, batch_size=32)
    print(why.says)
    print(why.table())

A cause is named only on evidence: a share of the time that was measured, a fact of the file, or a trial in which
the cause was taken away and the clock asked (trials.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from labkit.data import Dataset
from labkit.doors import door
from labkit.environment import Environment, current
from labkit.errors import ConfigError, nearest
from labkit.explain.causes import diagnose
from labkit.explain.evidence import Evidence, unresolved
from labkit.explain.executed import LAYER
from labkit.explain.explanation import Explanation
from labkit.explain.layers import ModelFile
from labkit.explain.profile import Profile, profiles
from labkit.explain.suspects import AUTO, Request, baselines, chains, dearest_unaligned, suspects
from labkit.explain.trials import AGAINST, ITSELF, Entrant, Race, Racer, race
from labkit.measure import Protocol
from labkit.progress import Progress, part, silent
from labkit.runtimes import PRECISIONS
from labkit.variant import Variant

_UNKNOWN = 0.1
_MORE_RACES = 2
_PROTOCOL = Protocol(blocks=12, block_ms=15.0, warmup_ms=20.0, min_runs_per_block=4)


@door
def explain(
    variant: Variant,
    dataset: Dataset | None = None,
    against: Variant | None = None,
    runtime: str = "onnxruntime",
    batch_size: int = 1,
    threads: int = 1,
    progress: Progress | None = None,
    *,
    against_precision: str = "float32",
    environment: Environment | None = None,
    protocol: Protocol | None = None,
    racer: Racer = race,
) -> Explanation:
    """Profile `variant` on onnxruntime or openvino and name the causes that keep it from being faster.

    `dataset` gives the samples (random ones otherwise), `against` the baseline it should beat. `against_precision`
    is "float32", "bfloat16", or "auto": whatever the engine takes by itself. `environment` is the machine that is
    judged, this one by default.
    Raises ConfigError for a format or runtime that cannot be profiled, ModelFileError where the engine refuses.
    """
    if not batch_size >= 1:
        raise ConfigError(f"batch_size={batch_size} must be 1 or more")
    allowed = (*PRECISIONS, AUTO)
    if against_precision not in allowed:
        raise ConfigError(
            f"unknown against_precision {against_precision!r}; {nearest(against_precision, allowed)}"
        )
    report, machine = progress or silent, environment or current()
    request = Request(dataset, runtime, batch_size, threads)
    itself = request.entrant(variant)
    rivals = {} if against is None else baselines(request, against, against_precision)
    compared = [itself] if against is None else [itself, rivals[AGAINST]]
    report(0.0, "profiling " + " and ".join(each.variant.name for each in compared))
    files = [_file(entrant) for entrant in compared]
    own, *others = _profiles(compared, files)
    file, theirs = files[0], others[0] if others else None
    entrants = {ITSELF: itself, **suspects(request, itself, file, own, machine), **rivals}
    chain = dearest_unaligned(own, file, machine)
    entrants |= chains(request, own, chain, machine)
    found = _raced(racer, entrants, protocol or _PROTOCOL, part(progress, 0.4, 1.0))
    seen = Evidence(own, file, found, machine, theirs, chain)
    report(1.0, "done")
    speedup = found.faster(ITSELF, AGAINST)
    return Explanation(own, found.run_ms(ITSELF) or 0.0, theirs, speedup, diagnose(seen), tuple(_notes(seen)))


def _raced(racer: Racer, entrants: Mapping[str, Entrant], protocol: Protocol, progress: Progress) -> Race:
    """One race, and more where a busy machine left open what it should prove."""
    found = racer(entrants, protocol, part(progress, 0.0, 0.5))
    for repetition in range(_MORE_RACES):
        if not unresolved(found):
            break
        start = 0.5 + 0.5 * repetition / _MORE_RACES
        found = found.with_more(racer(entrants, protocol, part(progress, start, start + 0.5 / _MORE_RACES)))
    return found


def _file(entrant: Entrant) -> ModelFile | None:
    return ModelFile(entrant.variant, entrant.batch_size) if entrant.variant.format == "onnx" else None


def _profiles(compared: Sequence[Entrant], files: Sequence[ModelFile | None]) -> list[Profile]:
    for entrant in compared:
        with entrant.runtime.load(entrant.variant, entrant.options) as session:
            session.run(entrant.feeds)  # refuses in its own words what cannot be run
    return profiles(list(zip(compared, files, strict=True)))


def _notes(seen: Evidence) -> Iterator[str]:
    """What weakens the findings."""
    if seen.race.was_busy:
        yield "something else kept the processor busy meanwhile; short operators suffer less from that than long ones"
    if seen.file is None:
        yield "this format does not tell which layers are quantized: explain the ONNX file that it was made from"
    for name, ratio in unresolved(seen.race).items():
        yield f"unresolved: {name} it looks faster ({ratio}), but the interval is too wide to say so"
    unknown = seen.profile.share(lambda each: each.work == LAYER and not each.layer)
    if unknown >= _UNKNOWN and seen.file is not None:
        yield f"{unknown:.0%} of the time goes into operators that could not be told apart by layer: unresolved"
