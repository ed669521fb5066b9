"""What the pruning lesson shows at once because it was measured before: curves, networks of many widths, tickets.

    python -m labkit.teach.pruning_recording        # measures anew, some fifteen minutes, and writes the file

Curves: each layer of resnet20 pruned alone at every sparsity, smallest weights first, and at random. Groups: each group
of its channels narrowed alone. Networks: some choices of widths, each fine-tuned and timed as the lesson's button does.
Tickets: LeNet-300-100 on digits, in rounds, each beside its control, several seeds. The lesson makes some of it again,
and holds it against what is recorded.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.data import Dataset, load_dataset
from labkit.errors import ConfigError
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

FILE = Path(__file__).parent / "pruning_resnet20.json"
MODEL, DATASET = "resnet20@digits", "digits"
SPARSITIES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.97, 0.99)
SHARES = (1.0, 0.75, 0.5, 0.25)
"""Of a group's channels that stay: what the game offers."""
FINE_TUNING = Train(epochs=2, batch_size=32, learning_rate=0.05, threads=1)
TICKET: Mapping[str, Any] = {"architecture": "lenet300"}
TICKET_TRAINING = Train(epochs=4, batch_size=32, learning_rate=0.05, augment="none", threads=1)
ROUNDS, SEEDS = 15, (0, 1, 2, 3, 4)
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


def main() -> None:
    """Measure, and write FILE: a line for each row."""
    from labkit.zoo import load_model

    dataset, variant = load_dataset(DATASET), load_model(MODEL)
    curves = {
        name: scan_layers(variant, dataset, SPARSITIES, name, progress=part(report, start, start + 0.3))
        for name, start in zip(SCANNED_BY, (0.0, 0.3), strict=True)
    }
    groups = scan_channels(variant, dataset, [1 - share for share in SHARES[1:]])
    widths = Widths(variant)
    points = [
        measure_widths(widths, each, dataset, part(report, 0.6, 0.7)) for each in propose_widths(widths)
    ]
    tickets = record_tickets(dataset, SEEDS, part(report, 0.7, 1.0))
    parts = [
        '"curves": {\n' + ",\n".join(f'"{name}": {_lines(rows)}' for name, rows in curves.items()) + "}",
        f'"groups": {_lines(groups)}',
        f'"points": {_lines(points)}',
        f'"tickets": {_lines(tickets)}',
    ]
    write_atomically(FILE, ("{" + ",\n".join(parts) + "}\n").encode())


def _lines(rows: Sequence[Any]) -> str:
    """A JSON list with a line for each row, its figures to four digits behind the point."""
    made = (json.dumps(json.loads(json.dumps(dataclasses.asdict(row)), parse_float=_rounded)) for row in rows)
    return "[\n" + ",\n".join(made) + "]"


def _rounded(figure: str) -> float:
    return round(float(figure), 4)


if __name__ == "__main__":
    main()
