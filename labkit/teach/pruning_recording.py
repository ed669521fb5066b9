"""What the pruning lesson shows at once because it was measured before: curves, networks of many widths, tickets.

    python -m labkit.teach.pruning_recording                # measures anew, some ten minutes, and writes the file
    python -m labkit.teach.pruning_recording tickets        # one part of it; the others stay as they are

Curves: each layer of resnet20 pruned alone at every sparsity, smallest weights first, and at random. Groups: each group
of its channels narrowed alone. Networks: some choices of widths, each fine-tuned and timed as the lesson's button does.
Tickets: LeNet-300-100 on digits, in rounds, each beside its control, several seeds. The lesson makes some of it again,
and holds it against what is recorded.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.data import Dataset, load_dataset
from labkit.errors import ConfigError, nearest
from labkit.files import read_json, write_atomically
from labkit.measure import Protocol
from labkit.measure.quality import evaluate
from labkit.progress import Progress, part
from labkit.prune import Widths, draw_tickets, scan_channels, scan_layers
from labkit.prune.channel_sensitivity import GroupPruned
from labkit.prune.sensitivity import SCANNED_BY, LayerPruned
from labkit.prune.target import time_shares
from labkit.statistics import Interval
from labkit.teach.recording import report
from labkit.train import Train, fit
from labkit.variant import Variant

FILE = Path(__file__).parent / "pruning_resnet20.json"
MODEL, DATASET = "resnet20@digits", "digits"
SPARSITIES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.97, 0.99)
SHARES = (1.0, 0.75, 0.5, 0.25)
"""Of a group's channels that stay: what the game offers."""
FINE_TUNING = Train(epochs=2, batch_size=32, learning_rate=0.05, threads=1)
TICKET: Mapping[str, Any] = {"architecture": "lenet300"}
TICKET_TRAINING = Train(epochs=4, batch_size=32, learning_rate=0.05, augment="none", threads=1)
ROUNDS, SEEDS = 15, (0, 1, 2)
PARTS = ("curves", "groups", "points", "tickets")
_RUNTIME, _SPLIT = "onnxruntime", "validation"


@dataclass(frozen=True)
class WidthsPoint:
    """A network of some widths, fine-tuned: group → share of its channels, multiply-adds, and what it came to.

    `time_share` is its time for one image as a share of the whole network's; `drop_pp` the points of accuracy lost.
    """

    assignment: Mapping[str, float]
    macs: int
    time_share: float
    drop_pp: float
    drop_ci95: Interval

    @property
    def counts(self) -> str:
        """How many groups keep how much."""
        kept = sorted(self.assignment.values(), reverse=True)
        return ", ".join(f"{share:.0%}: {kept.count(share)}" for share in dict.fromkeys(kept))


@dataclass(frozen=True)
class RecordedTicket:
    """One round of one seed: the share of weights kept, and the accuracy after each epoch, of ticket and control."""

    seed: int
    round: int
    kept: float
    ticket: tuple[float, ...]
    control: tuple[float, ...]


@dataclass(frozen=True)
class PruningRecording:
    """Everything that is recorded.

    `curves`: criterion → every layer at every sparsity; `groups` of channels, each at every width but the whole one;
    `points`: networks of chosen widths; `tickets` and their controls.
    """

    curves: Mapping[str, tuple[LayerPruned, ...]]
    groups: tuple[GroupPruned, ...]
    points: tuple[WidthsPoint, ...]
    tickets: tuple[RecordedTicket, ...]


def load_pruning(file: Path = FILE) -> PruningRecording:
    """What was recorded; ConfigError if the file cannot be read."""
    document = read_json(file, ConfigError)
    return PruningRecording(
        {name: tuple(_made(LayerPruned, row) for row in rows) for name, rows in document["curves"].items()},
        tuple(_made(GroupPruned, row) for row in document["groups"]),
        tuple(_made(WidthsPoint, row) for row in document["points"]),
        tuple(_made(RecordedTicket, row) for row in document["tickets"]),
    )


def _made(kind: type[Any], row: Mapping[str, Any]) -> Any:
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in row.items()})


def measure_widths(
    widths: Widths, assignment: Mapping[str, float], dataset: Dataset, progress: Progress
) -> WidthsPoint:
    """Make the network with these widths, fine-tune it, and measure it beside the whole one."""
    whole = widths.structure.variant
    narrow = widths.narrow(assignment)
    made = dataclasses.replace(narrow, model=fit(FINE_TUNING, narrow, dataset, part(progress, 0.0, 0.8)))
    task = dataset.task
    drop, interval = task.drop(task.compare(*(evaluate(each, dataset, _SPLIT) for each in (whole, made))))
    graphs = widths.structure.graph([]), [widths.graph(assignment)]
    (share,) = time_shares(*graphs, _RUNTIME, Protocol.brief(), part(progress, 0.8, 1.0))
    low, high = interval
    return WidthsPoint(dict(assignment), widths.macs(assignment), share, 100 * drop, (100 * low, 100 * high))


def propose_widths(widths: Widths) -> list[dict[str, float]]:
    """The choices that are recorded: every group alike, and the inner groups alone."""
    inner = [name for name in widths.groups if name not in widths.residual]
    uniform = [dict.fromkeys(widths.groups, share) for share in SHARES[1:]]
    return [*uniform, *({**dict.fromkeys(widths.groups, 1.0), **dict.fromkeys(inner, s)} for s in SHARES[1:])]


def record_tickets(dataset: Dataset, seeds: Sequence[int], progress: Progress) -> list[RecordedTicket]:
    """All rounds of every seed, each with its control."""
    found = []
    for index, seed in enumerate(seeds):
        share = part(progress, index / len(seeds), (index + 1) / len(seeds))
        recipe = dataclasses.replace(TICKET_TRAINING, seed=seed)
        tickets = draw_tickets(TICKET, dataset, recipe, ROUNDS, controls=range(1, ROUNDS + 1), progress=share)
        for each in tickets:
            control = each.control.curve if each.control else ()
            found.append(RecordedTicket(seed, each.round, each.kept, each.ticket.curve, control))
    return found


def record_part(name: str, variant: Variant, dataset: Dataset, progress: Progress) -> Any:
    """Measure one of PARTS anew: rows, or criterion → rows."""
    if name == "curves":
        return {
            criterion: scan_layers(variant, dataset, SPARSITIES, criterion, progress=progress)
            for criterion in SCANNED_BY
        }
    if name == "groups":
        return scan_channels(variant, dataset, [1 - share for share in SHARES[1:]], progress=progress)
    if name == "points":
        widths = Widths(variant)
        return [measure_widths(widths, each, dataset, progress) for each in propose_widths(widths)]
    return record_tickets(dataset, SEEDS, progress)


def main() -> None:
    """Measure all parts, or those that are named, and write FILE after each."""
    from labkit.zoo import load_model

    asked = sys.argv[1:] or PARTS
    if unknown := set(asked) - set(PARTS):
        raise SystemExit(f"unknown part {min(unknown)!r}; {nearest(min(unknown), PARTS)}")
    dataset, variant = load_dataset(DATASET), load_model(MODEL)
    document = read_json(FILE, ConfigError) if FILE.is_file() else {}
    for index, name in enumerate(asked):
        share = part(report, index / len(asked), (index + 1) / len(asked), f"{name}: ")
        document[name] = _plain(record_part(name, variant, dataset, share))
        parts = (f"{json.dumps(each)}: {_lines(document[each])}" for each in PARTS if each in document)
        write_atomically(FILE, ("{" + ",\n".join(parts) + "}\n").encode())


def _plain(found: Any) -> Any:
    """Rows as JSON has them, their figures to four digits behind the point."""
    if isinstance(found, dict):
        return {name: _plain(rows) for name, rows in found.items()}
    rows = [dataclasses.asdict(row) for row in found]
    return json.loads(json.dumps(rows), parse_float=_rounded)


def _lines(found: Any) -> str:
    """JSON with a line for each row."""
    if isinstance(found, dict):
        return "{" + ",\n".join(f"{json.dumps(name)}: {_lines(rows)}" for name, rows in found.items()) + "}"
    return "[\n" + ",\n".join(map(json.dumps, found)) + "]"


def _rounded(figure: str) -> float:
    return round(float(figure), 4)


if __name__ == "__main__":
    main()
