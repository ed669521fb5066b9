"""Run one notebook many times, with other parameters each time, and collect what it found.

A grid file names the values: `[parameters]` means every combination, `[[runs]]` exactly these.

    [parameters]                    [[runs]]
    METHOD = ["static", "qat"]      METHOD = "static"
    BITS = [8, 4]                   BITS = 8

Each run has a fresh kernel, so nothing leaks from one to the next. The notebook reports with
`labkit.study.note(accuracy=0.97)`, or appends to `Study.current()`; its rows reach the study when all of it
has run. The rows come first, the line that says "finished" after them: a run that was cut short is run again.
An error in a cell, or a kernel that dies, fails that run alone. The folder `out` holds

    records.jsonl, manifest.jsonl    the study: the rows of all runs, and which runs are finished
    runs/ID.ipynb                    the notebook of each finished run (ID.failed.ipynb: as far as it came)
    results.csv, index.html          the rows again, for a spreadsheet and for a browser
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.errors import ConfigError, NotebookError, StudyError, nearest
from labkit.files import check_text, read_toml, write_atomically
from labkit.notebook import parameters_of, read_notebook, run_notebook, to_bytes
from labkit.progress import Progress, part, silent
from labkit.study import Study, html_page, html_table, run_key

Parameters = dict[str, Any]
_MOST_RUNS = 10_000
_LARGEST_GRID_BYTES = 1024 * 1024
_OWN_COLUMNS = ("run", "status", "error")
_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", list: "a list"}


@dataclass(frozen=True)
class Run:
    """One run of the notebook: `status` is "done before", "finished" or "failed", with the `error`."""

    id: str
    parameters: Parameters
    status: str
    error: NotebookError | None = None


@dataclass(frozen=True)
class SweepReport:
    """What became of every run of the grid."""

    runs: tuple[Run, ...]

    def count(self, status: str) -> int:
        """How many runs ended as `status`."""
        return sum(run.status == status for run in self.runs)

    @property
    def exit_code(self) -> int:
        """0 if nothing failed, else 1."""
        return 1 if self.count("failed") else 0

    def __str__(self) -> str:
        before, failed = self.count("done before"), self.count("failed")
        total = len(self.runs)
        lines = [f"{before} of {total} were done, {total - before} run, {failed} failed"]
        lines += [f"{run.id} {json.dumps(run.parameters)}: {run.error}" for run in self.runs if run.error]
        return "\n".join(lines)


def sweep(
    notebook: str | Path,
    grid_file: str | Path,
    out: str | Path,
    *,
    resume: bool = False,
    progress: Progress | None = None,
    cell_timeout_s: float | None = None,
) -> SweepReport:
    """Run `notebook` once for each set of parameters in `grid_file`, one after another, into the study `out`.

    With `resume`, runs that are finished are left alone; a changed notebook counts as another one. Before
    anything runs it raises ConfigError or NotebookError if the grid does not fit the notebook, StudyError if
    `out` holds results and `resume` is not set. A run that fails is in the report, and the sweep goes on.
    """
    notebook, report = Path(notebook).resolve(), progress or silent
    check_text(NotebookError, notebook.name)
    grid = read_grid(grid_file, parameters_of(read_notebook(notebook), notebook))
    study = Study(Path(out).resolve())
    if study.exists() and not resume:
        raise StudyError(
            f"{out} holds results already: add --resume to run what is missing, or give a new --out"
        )
    what = f"{notebook.name} {hashlib.sha256(notebook.read_bytes()).hexdigest()[:16]}"
    if study.exists():  # what cannot be read now cannot be read after the first run either
        study.records()
        study.is_done(what, {})
    study.append([])  # from now on the folder is a study, even if every run fails
    for left_over in study.folder.glob("runs/*.partial"):  # of a sweep that was killed
        _remove(left_over)
    runs: list[Run] = []
    try:
        for number, parameters in enumerate(grid):
            start, end = number / len(grid), (number + 1) / len(grid)
            told = part(report, start, end, f"run {number + 1} of {len(grid)}, ")
            runs.append(_run(notebook, what, parameters, study, told, cell_timeout_s))
    finally:
        _export(study, runs, notebook.name)
    return SweepReport(tuple(runs))


def read_grid(path: str | Path, defaults: Mapping[str, Any]) -> list[Parameters]:
    """The parameters of each run, in order, each run once; `defaults` are the notebook's own.

    Raises ConfigError for a name that the notebook lacks, or a value of another type than its default.
    """
    grid = read_toml(path, ConfigError, _LARGEST_GRID_BYTES, "a grid")
    if len(grid) != 1 or not {"parameters", "runs"} & set(grid):
        raise ConfigError(
            f"{path} must hold either [parameters] or [[runs]], it holds {sorted(grid) or 'nothing'}"
        )
    runs = grid.get("runs")
    if runs is None:
        runs = _combinations(path, grid["parameters"])
    if not isinstance(runs, list) or not runs or not all(isinstance(run, dict) for run in runs):
        raise ConfigError(f"{path} asks for no run: write [[runs]], and NAME = value lines below it")
    for run in runs:
        for name, value in run.items():
            _check(path, name, value, defaults)
    return list({run_key("", run): run for run in runs}.values())


def _combinations(path: str | Path, values: Any) -> list[Parameters]:
    if not isinstance(values, dict) or not values:
        raise ConfigError(f"{path}: [parameters] is empty: write NAME = [value, value] lines below it")
    for name, listed in values.items():
        if not isinstance(listed, list) or not listed:
            raise ConfigError(
                f"{path}: {name}={listed!r} must be a list of values, such as {name} = [{listed!r}]"
            )
    if (count := math.prod(map(len, values.values()))) > _MOST_RUNS:
        raise ConfigError(
            f"{path} asks for {count} runs; at most {_MOST_RUNS} are allowed: list fewer values"
        )
    return [dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values())]


def _check(path: str | Path, name: str, value: Any, defaults: Mapping[str, Any]) -> None:
    if name not in defaults:
        raise ConfigError(f"{path}: the notebook has no parameter {name!r}; {nearest(name, defaults)}")
    if name in _OWN_COLUMNS:
        raise ConfigError(
            f"{path}: {name!r} is a column of the sweep itself: call the parameter something else"
        )
    default = defaults[name]
    allowed = (int, float) if type(default) is float else (type(default),)
    if type(default) in _KINDS and type(value) not in allowed:
        kind = _KINDS[type(default)]
        raise ConfigError(f"{path}: {name}={value!r} must be {kind}: the notebook's default is {default!r}")
    if not _is_literal(value):
        raise ConfigError(
            f"{path}: {name}={value!r} must be a finite number, a text, true, false or a list of them"
        )


def _is_literal(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_literal, value))
    return isinstance(value, (bool, int, str)) or isinstance(value, float) and math.isfinite(value)


def _run(
    notebook: Path,
    what: str,
    parameters: Parameters,
    study: Study,
    report: Progress,
    cell_timeout_s: float | None,
) -> Run:
    """Run one set of parameters, unless it is done; what it writes meanwhile goes aside."""
    run_id = run_key(what, parameters)
    if study.is_done(what, parameters):
        return Run(run_id, parameters, "done before")
    node = _with_parameters(notebook, parameters)
    output, failed = (study.folder / "runs" / f"{run_id}{end}" for end in (".ipynb", ".failed.ipynb"))
    aside = output.with_suffix(".partial")
    environment = {
        "LABKIT_STUDY": str(aside),
        "LABKIT_RUN": json.dumps({"run": run_id, **parameters}),
        "LABKIT_HEADLESS": "1",
    }
    try:
        run_notebook(
            node,
            notebook.parent,
            environment,
            cell_timeout_s=cell_timeout_s,
            tick=lambda cell: report(cell / (len(node.cells) + 1), f"cell {cell} of {len(node.cells)}"),
        )
        _collect(aside, study, run_id)
    except NotebookError as error:
        write_atomically(failed, to_bytes(node))
        return Run(run_id, parameters, "failed", error)
    finally:
        _remove(aside)
    write_atomically(output, to_bytes(node))
    failed.unlink(missing_ok=True)
    study.finish(what, parameters)
    return Run(run_id, parameters, "finished")


def _with_parameters(notebook: Path, parameters: Parameters) -> Any:
    """The notebook with papermill's cell of parameters after the one that holds the defaults."""
    from papermill.iorw import load_notebook_node
    from papermill.parameterize import parameterize_notebook

    node = load_notebook_node(str(notebook))
    return parameterize_notebook(node, parameters, kernel_name="python3", language="python")


def _collect(aside: Path, study: Study, run_id: str) -> None:
    """Move a run's rows and sidecars into the study, unless a sweep that was killed had done so.

    Raises NotebookError if what the notebook left in its place is no study.
    """
    try:
        found = Study(aside)
        rows = found.records() if found.exists() else []
    except StudyError as error:
        raise NotebookError(f"what it wrote cannot be collected: {error}", kind="StudyError") from None
    if not rows or any(row.get("run") == run_id for row in study.records()):
        return
    sidecars = study.folder / "sidecars"
    for path in found.folder.glob("sidecars/*.npz"):
        sidecars.mkdir(exist_ok=True)
        path.replace(sidecars / path.name)
    study.append(rows)


def _remove(aside: Path) -> None:
    """Whatever a run left there: a folder, or a file where the folder should be."""
    shutil.rmtree(aside, ignore_errors=True)
    with suppress(OSError):
        aside.unlink(missing_ok=True)


def _export(study: Study, runs: list[Run], title: str) -> None:
    """Write the rows for a spreadsheet, and for a browser beside what became of each run."""
    shown = [
        {"run": run.id, "status": run.status, **run.parameters, "error": str(run.error or "")} for run in runs
    ]
    page = html_page(f"Sweep of {title}", html_table(shown, "Runs"), html_table(study.records(), "Results"))
    write_atomically(study.folder / "results.csv", study.to_csv().encode())
    write_atomically(study.folder / "index.html", page.encode())
