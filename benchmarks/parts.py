"""A benchmark in parts: each is written as soon as it is done, beside what other parts wrote before.

    python -m benchmarks.NAME [--parts ONE,ANOTHER] [--quick] [--json]

An interrupted run loses only the part that it was in, and any part can be measured again alone. Of each part the
document says when it was measured, in how many seconds, and which figures are its own. All parts of a document are
of one machine and the same versions, which its `environment` names: what another one measured is left out, and that
is said, as soon as a part of this one is written. Only where each part compares within itself alone may parts of
several machines stand on one page; then a part of another one names it. `--quick` starts from nothing and writes
nothing.
"""

from __future__ import annotations

import datetime
import json
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import RESULTS, command_line, show, write_result
from labkit.cli.terminal import say
from labkit.environment import current
from labkit.errors import ConfigError, nearest


@dataclass
class Found:
    """What a part found: its figures, its rows of the table, and for each figure that is None the reason."""

    figures: dict[str, float | None] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    null_reasons: dict[str, str] = field(default_factory=dict)

    def add(self, other: Found) -> None:
        """Take over all that `other` has."""
        self.figures |= other.figures
        self.rows += other.rows
        self.null_reasons |= other.null_reasons


def nulls(figures: Iterable[str], why: str) -> Found:
    """Figures that could not be measured, and why."""
    names = list(figures)
    return Found(dict.fromkeys(names), [], dict.fromkeys(names, why))


Part = Callable[[bool], Found]


def run_parts(
    name: str,
    parts: Sequence[Part],
    in_haste: Sequence[Part],
    keep: Callable[[Path], None] | None = None,
    one_machine: bool = True,
) -> None:
    """The command line of a benchmark in parts; `in_haste` are those of `--quick`, which each part is told of.

    one_machine: whether figures of several parts are held beside each other, so that all must be of one.

    With `keep` there is an option more, `--keep FOLDER`: it is called with the folder before the first part.
    A part that fails is told of, and the others are measured all the same; the exit code is then 1.
    """
    parser = command_line(name)
    parser.add_argument(
        "--parts", help=f"some of {','.join(part.__name__ for part in parts)}; all if not given"
    )
    if keep:
        parser.add_argument("--keep", type=Path, help="keep here what is trained, and train nothing twice")
    arguments = parser.parse_args()
    if keep and arguments.keep:
        keep(arguments.keep)
    try:
        chosen = named(arguments.parts, parts) if arguments.parts else in_haste if arguments.quick else parts
    except ConfigError as error:
        parser.error(str(error))
    order = [part.__name__ for part in parts]
    document, failed = empty(), []
    for part in chosen:
        say(f"benchmarks.{name}: {part.__name__}")
        begin = time.monotonic()
        try:
            found = part(arguments.quick)
        except Exception:
            traceback.print_exc()
            failed.append(part.__name__)
            continue
        before = document if arguments.quick else stored(name, one_machine)
        document = merged(before, part.__name__, found, time.monotonic() - begin, order)
        if not arguments.quick:
            write_result(name, document)
    show(document, arguments.json)
    if failed:
        sys.exit(f"benchmarks.{name}: {', '.join(failed)} failed, see above; the others are done")


def named(wanted: str, parts: Sequence[Part]) -> list[Part]:
    """The parts of these names, separated by commas. Raises ConfigError for one that is none."""
    known = {part.__name__: part for part in parts}
    for each in wanted.split(","):
        if each not in known:
            raise ConfigError(f"there is no part {each!r}: {nearest(each, list(known))}")
    return [known[each] for each in wanted.split(",")]


def empty() -> dict[str, Any]:
    """A document of this machine in which nothing is measured yet."""
    environment = current().to_json()
    return {"figures": {}, "null_reasons": {}, "table": [], "parts": {}, "environment": environment}


def stored(name: str, one_machine: bool = True) -> dict[str, Any]:
    """What was written before; an empty document if that is of another machine or other versions, and may not be."""
    path = RESULTS / f"{name}.json"
    if not path.exists():
        return empty()
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    changed = different(document["environment"], current().to_json())
    if changed and one_machine:
        say(f"benchmarks.{name}: what {path.name} holds is left out, it has another {', '.join(changed)}")
        return empty()
    return document


def different(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """In what two environments differ, so that their figures do not belong into one table; memory is no reason."""
    keys = sorted(before.keys() | now.keys())
    return [key for key in keys if before.get(key) != now.get(key) and not key.startswith("memory_")]


def merged(
    document: dict[str, Any], part: str, found: Found, seconds: float, order: Sequence[str]
) -> dict[str, Any]:
    """The document with what `part` found now in place of what it found before; its parts in the given `order`."""
    figures = document["figures"] | found.figures
    reasons = document["null_reasons"] | found.null_reasons
    rows = [row for row in document["table"] if row["part"] != part]
    rows += [{"part": part, **row} for row in found.rows]
    stamp: dict[str, Any] = {
        "measured": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "figures": list(found.figures),
    }
    here = current().to_json()
    if different(document["environment"], here):
        stamp["environment"] = here
    stamps = document["parts"] | {part: stamp}
    parts = {name: stamps[name] for name in order if name in stamps}
    figures = {key: figures[key] for each in parts.values() for key in each["figures"]}
    return {
        **document,
        "figures": figures,
        "null_reasons": {key: why for key, why in reasons.items() if figures.get(key, 0) is None},
        "table": [row for name in parts for row in rows if row["part"] == name],
        "parts": parts,
    }
