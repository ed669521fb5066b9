"""Static int8 beside ONNX Runtime's own quantizer, NNCF and neural-compressor: accuracy, and speed on each runtime.

labkit lays a file out for one runtime or the other, as NNCF does: each is raced on its own runtime against all that
run there. Accuracy is compared on the same runtime too: where a peer writes OpenVINO's own format, on OpenVINO.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.parts import Found, nulls
from benchmarks.quantization import MODELS, RUNTIMES
from benchmarks.quantization.common import Subject, not_shipped, race, subject
from benchmarks.quantization_peers import PEERS, PeerResult, quantize
from benchmarks.racing import ratio
from labkit.cli.terminal import say
from labkit.errors import LabkitError
from labkit.runtimes import RunOptions, get_runtime
from labkit.task import Scores
from labkit.variant import Variant

_OURS = {"onnxruntime": "labkit", "openvino": "labkit_openvino"}
"""Runtime → the name of our file for it."""
_NO_PEER = "no peer could make a file for it"


@dataclass(frozen=True, eq=False)
class Entrant:
    """A quantized file, its scores on test, and what its row says of how it was made."""

    variant: Variant
    scores: Scores
    told: Mapping[str, Any] = field(default_factory=dict)


def against_peers(quick: bool) -> Found:
    """Every model: our int8 file, and those of all peers that can make one; without peers where `quick`."""
    found = Found()
    for model in MODELS:
        given = subject(model, quick)
        found.add(nulls(_names(model), not_shipped(model)) if given is None else _of_model(given, quick))
    for runtime in RUNTIMES:
        ratios = [found.figures[f"int8_latency_vs_best_peer_{runtime}_{model}"] for model in MODELS]
        worst = max((each for each in ratios if each is not None), default=None)
        figure = f"int8_latency_vs_best_peer_{runtime}"
        found.add(nulls([figure], _NO_PEER) if worst is None else Found({figure: worst}))
    return found


def _names(model: str) -> list[str]:
    """The figures of one model."""
    accuracy = [
        f"{each}_{model}"
        for each in ("int8_drop_pp", "int8_accuracy_vs_best_peer_pp", "int8_peers_more_accurate")
    ]
    speed = [
        f"{each}_{runtime}_{model}"
        for runtime in RUNTIMES
        for each in ("int8_latency_vs_best_peer", "int8_peers_faster")
    ]
    return accuracy + speed


def _of_model(given: Subject, quick: bool) -> Found:
    found = nulls(_names(given.name), "--quick leaves the peers out" if quick else _NO_PEER)
    entrants = {
        name: Entrant(given.int8[runtime], given.scores(given.int8[runtime], runtime=runtime))
        for runtime, name in _OURS.items()
    }
    with tempfile.TemporaryDirectory() as folder:
        for peer, made in () if quick else _peers(given, Path(folder)):
            if isinstance(made, Entrant):
                entrants[peer] = made
            else:
                found.rows.append({"model": given.name, "tool": peer, "refused": made})
    rows = {name: _accuracy(given, name, entrants) for name in entrants}
    for runtime in RUNTIMES:
        _add_times(given, entrants, rows, runtime, quick)
    found.rows = [*rows.values(), *found.rows]
    found.figures |= _figures(given.name, rows)
    found.null_reasons = {key: why for key, why in found.null_reasons.items() if found.figures[key] is None}
    return found


def _peers(given: Subject, folder: Path) -> Iterator[tuple[str, Entrant | str]]:
    """Each peer with what it made, or with the reason why there is nothing that runs."""
    (folder / "float.onnx").write_bytes(given.variant.payload)
    np.savez(folder / "calibration.npz", **given.variant.feeds(given.calibration().inputs))
    for peer in PEERS:
        say(f"{given.name}: {peer}")
        try:
            result = quantize(peer, folder / "float.onnx", folder / "calibration.npz", folder / peer)
            variant = result.variant(given.variant)
            yield peer, Entrant(variant, given.scores(variant), _told(result))
        except LabkitError as error:
            yield peer, str(error)


def _told(result: PeerResult) -> dict[str, Any]:
    return {"versions": result.versions, "settings": result.settings, "seconds": result.seconds}


def _accuracy(given: Subject, name: str, entrants: Mapping[str, Entrant]) -> dict[str, Any]:
    """The row of one entrant, without times."""
    own = entrants[name]
    row = {"model": given.name, "tool": name, **own.told, "size_bytes": own.variant.size_bytes}
    row |= {"accuracy": float(own.scores.mean()), **given.behind("drop_pp", given.float_scores, own.scores)}
    if name not in _OURS.values():
        runtime = "openvino" if own.variant.format == "openvino" else "onnxruntime"
        row |= given.behind("labkit_behind_pp", own.scores, entrants[_OURS[runtime]].scores)
    return row


def _add_times(
    given: Subject,
    entrants: Mapping[str, Entrant],
    rows: Mapping[str, dict[str, Any]],
    runtime: str,
    quick: bool,
) -> None:
    """Race all that this runtime opens, and write the times into the rows, or why there are none."""
    ours, able = _OURS[runtime], {}
    for name, entrant in entrants.items():
        if name in _OURS.values() and name != ours:
            continue
        try:
            with get_runtime(runtime).load(entrant.variant) as session:
                session.run(given.variant.feeds(given.calibration().take(slice(0, 2)).inputs))
            able[name] = (entrant.variant, RunOptions())
        except LabkitError as error:
            rows[name][f"{runtime}_refused"] = str(error)
    blocks = race(able, runtime, given, quick)
    for name in able:
        rows[name][f"{runtime}_ms"] = float(np.median(blocks[name]))
        if name != ours:
            value, interval = ratio(blocks, ours, name)
            rows[name] |= {f"time_ratio_{runtime}": value, f"time_ratio_{runtime}_ci95": interval}


def _figures(model: str, rows: Mapping[str, dict[str, Any]]) -> dict[str, float | None]:
    """The drop is the larger of our two files'; the best peer is the most accurate, or the fastest, of all."""
    drop = max(rows[name]["drop_pp"] for name in _OURS.values())
    figures: dict[str, float | None] = {f"int8_drop_pp_{model}": drop}
    peers = [row for name, row in rows.items() if name not in _OURS.values()]
    if peers:
        figures[f"int8_accuracy_vs_best_peer_pp_{model}"] = -max(row["labkit_behind_pp"] for row in peers)
        better = [row for row in peers if row["labkit_behind_pp_ci95"][0] > 0]
        figures[f"int8_peers_more_accurate_{model}"] = len(better)
    for runtime in RUNTIMES:
        key = f"time_ratio_{runtime}"
        raced = [row for row in peers if key in row]
        if raced:
            figures[f"int8_latency_vs_best_peer_{runtime}_{model}"] = max(row[key] for row in raced)
            faster = [row for row in raced if row[key] > 1.03 and row[f"{key}_ci95"][0] > 1]
            figures[f"int8_peers_faster_{runtime}_{model}"] = len(faster)
    return figures
