"""A Study: the folder where records live, so that nothing measured is lost and nothing is measured twice.

For example:

    study = Study("results/int8")
    if not study.is_done("latency", {"threads": 2}):
        study.append(records, sidecar={"block_ms": block_ms})
        study.finish("latency", {"threads": 2})

`records.jsonl` and `manifest.jsonl` (what is finished) are journals: only ever appended to, whole after any
crash. Arrays lie in `sidecars/RUN_ID.npz`, each written before the records that name it.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import html
import io
import json
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.doors import door
from labkit.errors import ConfigError, LabkitError, StudyError
from labkit.files import read_regular, why, write_atomically
from labkit.journal import append_lines, read_lines, to_line

if TYPE_CHECKING:
    from labkit.measure import Records

Record = Mapping[str, Any]
_RECORDS, _MANIFEST, _PREFIX = "records.jsonl", "manifest.jsonl", "parameter."
_MAKERS = "`labkit measure MODEL --out STUDY` or `labkit sweep NOTEBOOK --grid FILE --out STUDY`"
_LARGEST_SIDECAR_BYTES = 2**30
_STYLE = "table{border-collapse:collapse}th,td{border:1px solid #888;padding:.3em}"


class Study:
    """Records, sidecars and a manifest in one folder; the first write makes it.

    Raises StudyError if `folder` is a file, or holds other things and no records.
    """

    @door
    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._records = self.folder / _RECORDS
        self._manifest = self.folder / _MANIFEST
        try:
            strangers = not self.exists() and any(path.name != ".lock" for path in self.folder.iterdir())
        except FileNotFoundError:
            strangers = False
        except (OSError, ValueError) as error:
            raise StudyError(f"{self.folder} cannot be a study: {why(error)}; choose a folder") from None
        if strangers:
            raise StudyError(f"{self.folder} holds other files and no records: choose a new folder")

    @classmethod
    @door
    def to_read(cls, folder: str | Path) -> Study:
        """The study in a folder that is there. Raises StudyError where it holds none, and says what makes one."""
        found = os.path.isdir(folder)  # unlike Path's, it takes any text
        if found and not any(os.path.exists(os.path.join(folder, name)) for name in (_RECORDS, _MANIFEST)):
            raise StudyError(
                f"{folder} is no study, it holds no records: give a folder that {_MAKERS} has written"
            )
        return cls(folder)

    @classmethod
    def current(cls) -> Study | None:
        """The study that collects this notebook's results in a sweep; None where nobody collects them."""
        folder = os.environ.get("LABKIT_STUDY")
        return cls(folder) if folder else None

    def exists(self) -> bool:
        """Whether anything was written yet."""
        return self._records.exists() or self._manifest.exists()

    def append(self, records: Iterable[Record], sidecar: Mapping[str, Any] | None = None) -> None:
        """Add records, all of them or none; `sidecar` (name → array) is kept under the `run_id` they share.

        Raises StudyError if one is not JSON (NaN is not) or the disk is full: the study then is as it was.
        """
        rows = [dict(record) for record in records]
        lines = [to_line(row) for row in rows]
        if sidecar is not None:
            self._save_sidecar({str(row.get("run_id", "")) for row in rows}, sidecar)
        append_lines(self._records, lines)

    def records(self) -> list[dict[str, Any]]:
        """All records, oldest first. Raises StudyError if no study is here, or a line of it is damaged."""
        if not self.exists():
            raise StudyError(f"there is no study in {self.folder}: check the path")
        return read_lines(self._records)

    def sidecar(self, run_id: str) -> dict[str, Any]:
        """The arrays kept under a run_id; StudyError if there are none, or the file is damaged or pickled."""
        import numpy as np

        path = self._sidecar_path(run_id)
        try:
            data = read_regular(path, StudyError, _LARGEST_SIDECAR_BYTES, "a sidecar")
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                return dict(arrays)
        except Exception as error:  # a damaged .npz fails in zipfile, zlib or numpy
            raise StudyError(f"cannot read {path}: {error}; measure again") from None

    def append_run(self, records: Records) -> None:
        """Add one run of `measure`: its records, and the raw numbers beside them.

        In a sweep each record also says of which run it is, with which parameters; `last_run` leaves that out.
        """
        rows = [_in_sweep(item.to_json()) for item in records.measurements]
        self.append(rows, records.arrays())

    def last_run(self, *, but_not_on: str = "") -> Records:
        """The run that was added last, whole; runs on the split `but_not_on` are passed over.

        Raises StudyError if there is none, or it is damaged.
        """
        from labkit.measure import Records

        rows = [row for row in self.records() if "run_id" in row]  # a sweep's notes have none
        rows = [row for row in rows if not but_not_on or row.get("split") != but_not_on]
        if not rows:
            kind = f"measurements on another split than {but_not_on}" if but_not_on else "measurements"
            raise StudyError(f"the study in {self.folder} holds no {kind} yet: measure something into it")
        run_id = rows[-1]["run_id"]
        last = [_out_of_sweep(row) for row in rows if row["run_id"] == run_id]
        try:
            return Records.from_rows(last, self.sidecar(str(run_id)))
        except StudyError as error:
            raise StudyError(f"{self.folder}, run {run_id}: {error}") from None

    def is_done(self, what: str, parameters: Record) -> bool:
        """Whether `what` was finished with exactly these parameters."""
        wanted = run_key(what, parameters)
        return any(entry.get("key") == wanted for entry in read_lines(self._manifest))

    def finish(self, what: str, parameters: Record) -> None:
        """Note that `what` is finished. Append its records first: a crash then only repeats work."""
        entry = {"key": run_key(what, parameters), "status": "finished", "finished_unix_s": time.time()}
        append_lines(self._manifest, [to_line({**entry, "what": what, "parameters": dict(parameters)})])

    def to_json(self) -> str:
        """All records as one JSON array."""
        return json.dumps(self.records(), indent=1, ensure_ascii=False)

    def to_csv(self) -> str:
        """All records as comma-separated values: null is empty, lists and objects are JSON."""
        rows, text = self.records(), io.StringIO()
        columns = _columns(rows)
        table = csv.writer(text, lineterminator="\n")
        table.writerow(columns)
        table.writerows([_cell(row.get(name)) for name in columns] for row in rows)
        return text.getvalue()

    def to_html(self) -> str:
        """All records as a web page with one table."""
        return html_page(f"Study {self.folder.name}", html_table(self.records(), "Records"))

    def _sidecar_path(self, run_id: str) -> Path:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", run_id):
            raise StudyError(f"run_id={run_id!r} must be letters, digits, '.', '_' or '-', at most 100")
        return self.folder / "sidecars" / f"{run_id}.npz"

    def _save_sidecar(self, run_ids: set[str], arrays: Mapping[str, Any]) -> None:
        import numpy as np

        if len(run_ids) != 1:
            raise StudyError(f"a sidecar belongs to the records of one run_id, not to {sorted(run_ids)}")
        plain = {name: np.asarray(array) for name, array in arrays.items()}
        if objects := [name for name, array in plain.items() if array.dtype.hasobject]:
            raise StudyError(f"sidecar array {objects[0]!r} holds Python objects: give numbers or texts")
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **plain)  # type: ignore[arg-type]
        path = self._sidecar_path(run_ids.pop())
        try:
            write_atomically(path, buffer.getvalue())
        except LabkitError as error:
            raise StudyError(str(error)) from None


def run_key(what: str, parameters: Record) -> str:
    """Name a run by what it was and its parameters, in whatever order they come: 16 hexadecimal digits."""
    text = what + "\n" + to_line(dict(sorted(parameters.items())))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def note(**figures: Any) -> None:
    """Record figures of this notebook's run, with its parameters; does nothing where no sweep collects them.

    labkit.study.note(accuracy=0.97, size_bytes=71_000)
    """
    study = Study.current()
    if study is None:
        return
    run = _sweep_run()
    if clash := sorted(set(run) & set(figures)):
        raise ConfigError(f"the figure {clash[0]!r} has the name of a parameter: call it something else")
    study.append([{**run, **figures}])


def _sweep_run() -> dict[str, Any]:
    """The sweep's run that this notebook is: its id, as `run`, and its parameters; {} outside a sweep."""
    run: dict[str, Any] = json.loads(os.environ.get("LABKIT_RUN") or "{}")
    return run


def _in_sweep(record: dict[str, Any]) -> dict[str, Any]:
    """A record behind the run it is of, in the columns of `note`; a parameter named like a field gets a prefix."""
    run = {f"{_PREFIX}{name}" if name in record else name: value for name, value in _sweep_run().items()}
    return {**run, **record}


def _out_of_sweep(row: dict[str, Any]) -> dict[str, Any]:
    """The record alone. Only a row of a sweep may hold more than a record: elsewhere that is damage."""
    from labkit.measure import Measurement

    fields = {field.name for field in dataclasses.fields(Measurement)}
    return {name: row[name] for name in row if name in fields} if "run" in row else row


def html_page(title: str, *tables: str) -> str:
    """A web page that needs nothing but itself; `tables` are HTML already."""
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{_STYLE}</style>'
    body = f"<h1>{html.escape(title)}</h1>" + "".join(tables)
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{body}</body></html>\n'


def html_table(rows: Sequence[Record], caption: str) -> str:
    """Rows as a table with a header; whatever they hold is escaped, and shown as text."""
    columns = _columns(rows)
    header = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(_cell(row.get(name)))}</td>" for name in columns) + "</tr>\n"
        for row in rows
    )
    return f"<table><caption>{html.escape(caption)}</caption><tr>{header}</tr>\n{body}</table>"


def _columns(rows: Iterable[Record]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _cell(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
