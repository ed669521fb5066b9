"""Sweeps of tiny notebooks: what is refused before anything runs, and what becomes of runs that fail."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from labkit.errors import Cancelled, ConfigError, LabkitError, NotebookError, StudyError
from labkit.sweep import SweepReport, read_grid, sweep

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def kernels_find_labkit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def write_notebook(path: Path, *cells: str) -> Path:
    """A notebook whose first cell holds the parameters."""

    def cell(index: int, source: str) -> dict[str, Any]:
        metadata = {"tags": ["parameters"]} if index == 0 else {}
        plain: dict[str, Any] = {"cell_type": "code", "execution_count": None, "outputs": []}
        return {**plain, "id": f"cell-{index}", "metadata": metadata, "source": source}

    document = {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {},
        "cells": [cell(index, source) for index, source in enumerate(cells)],
    }
    path.write_text(json.dumps(document))
    return path


def odd(cell: dict[str, Any] | None = None, **changes: Any) -> str:
    """A notebook of one cell, with something changed in it."""
    plain = {
        "cell_type": "code",
        "execution_count": None,
        "outputs": [],
        "id": "a",
        "metadata": {},
        "source": "",
    }
    document = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [{**plain, **(cell or {})}]}
    return json.dumps({**document, **changes})


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def results(out: Path) -> list[dict[str, str]]:
    with open(out / "results.csv", newline="") as file:
        return list(csv.DictReader(file))


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not (state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z")


def wait_until(true: Callable[[], bool], within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while not true() and time.monotonic() < deadline:
        time.sleep(0.02)
    return true()


MIXED = (
    "MODE = 'ok'\nTEXT = ''",
    "import os, signal, time\nfrom pathlib import Path\nfrom labkit.study import note",
    """if MODE == 'raises':
    note(lost=1)
    1 / 0""",
    """if MODE == 'dies':
    Path(TEXT).write_text(str(time.time()))
    os.kill(os.getpid(), signal.SIGKILL)""",
    """output = Path(os.environ['LABKIT_STUDY']).with_suffix('.ipynb')
note(length=len(TEXT), seen_too_early=output.exists(), place=output.name)""",
)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SweepReport, float]:
    """Four runs, of which one raises and one dies: the folder, the report, how late the death was told."""
    folder = tmp_path_factory.mktemp("mixed")
    notebook = write_notebook(folder / "<b>mixed.ipynb", *MIXED)
    runs = [("raises", ""), ("dies", str(folder / "died")), ("ok", "<script>x"), ("ok", "'\"\\\n")]
    text = "".join(f"[[runs]]\nMODE = {json.dumps(mode)}\nTEXT = {json.dumps(text)}\n" for mode, text in runs)
    told: list[float] = []

    def progress(fraction: float, message: str) -> None:
        if message.startswith("run 3") and not told:
            told.append(time.time())

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        report = sweep(notebook, write(folder / "grid.toml", text), folder / "out", progress=progress)
    return folder / "out", report, told[0] - float((folder / "died").read_text())


def test_runs_that_fail_do_not_stop_the_others(mixed: tuple[Path, SweepReport, float]) -> None:
    _, report, _ = mixed
    assert [run.status for run in report.runs] == ["failed", "failed", "finished", "finished"]
    assert report.exit_code == 1
    assert str(report).startswith("0 of 4 were done, 4 run, 2 failed")


def test_error_in_a_cell_is_told_with_the_cell_and_its_name(mixed: tuple[Path, SweepReport, float]) -> None:
    error = mixed[1].runs[0].error
    assert isinstance(error, NotebookError)
    assert (error.cell, error.kind) == (4, "ZeroDivisionError")  # cell 2 is papermill's, with the values
    assert str(error) == "cell 4 (if MODE == 'raises':) raised ZeroDivisionError: division by zero"


def test_dead_kernel_is_told_within_ten_seconds(mixed: tuple[Path, SweepReport, float]) -> None:
    error = mixed[1].runs[1].error
    assert error is not None and (error.cell, error.kind) == (5, "DeadKernel")
    assert 0 < mixed[2] < 10


def test_rows_are_of_finished_runs_alone_with_their_parameters(
    mixed: tuple[Path, SweepReport, float],
) -> None:
    out, report, _ = mixed
    expected = [
        {
            "run": run.id,
            **run.parameters,
            "length": str(len(run.parameters["TEXT"])),
            "seen_too_early": "false",
            "place": f"{run.id}.ipynb",
        }
        for run in report.runs[2:]
    ]
    assert results(out) == expected


def test_notebooks_are_kept_whole_and_nothing_is_left_aside(mixed: tuple[Path, SweepReport, float]) -> None:
    out, report, _ = mixed
    ends = {"finished": ".ipynb", "failed": ".failed.ipynb"}
    assert {path.name for path in (out / "runs").iterdir()} == {
        run.id + ends[run.status] for run in report.runs
    }
    failed = json.loads((out / "runs" / f"{report.runs[0].id}.failed.ipynb").read_text())
    assert any(output["output_type"] == "error" for output in failed["cells"][3]["outputs"])


def test_page_shows_names_and_values_as_text(mixed: tuple[Path, SweepReport, float]) -> None:
    page = (mixed[0] / "index.html").read_text()
    assert "<script" not in page and "<b>" not in page
    assert page.count("&lt;script&gt;x") == 2 and "ZeroDivisionError" in page


def test_results_are_not_overwritten_without_resume(mixed: tuple[Path, SweepReport, float]) -> None:
    out = mixed[0]
    grid = write(out.parent / "other.toml", "[parameters]\nMODE = ['ok']\n")
    before = (out / "records.jsonl").read_bytes()
    with pytest.raises(StudyError, match="--resume"):
        sweep(out.parent / "<b>mixed.ipynb", grid, out)
    assert (out / "records.jsonl").read_bytes() == before


def test_resume_runs_what_is_missing_and_only_that(tmp_path: Path) -> None:
    notebook = write_notebook(
        tmp_path / "n.ipynb",
        "N = 0",
        "from pathlib import Path\nwith open('starts', 'a') as file:\n    file.write(f'{N} ')",
        "if N == 2 and not Path('ready').exists():\n    raise RuntimeError('not ready')",
        "from labkit.study import note\nnote(square=N * N)",
    )
    grid = write(tmp_path / "grid.toml", "[parameters]\nN = [1, 2]\n")
    first = sweep(notebook, grid, tmp_path / "out")
    assert [run.status for run in first.runs] == ["finished", "failed"]
    (tmp_path / "ready").touch()
    grid.write_text("[parameters]\nN = [1, 2, 3]\n")
    again = sweep(notebook, grid, tmp_path / "out", resume=True)
    assert [run.status for run in again.runs] == ["done before", "finished", "finished"]
    assert str(again) == "1 of 3 were done, 2 run, 0 failed" and again.exit_code == 0
    assert (tmp_path / "starts").read_text() == "1 2 2 3 "
    assert [row["square"] for row in results(tmp_path / "out")] == ["1", "4", "9"]
    assert not list((tmp_path / "out" / "runs").glob("*.failed.ipynb"))


def test_crash_before_the_manifest_repeats_one_run_and_doubles_no_row(tmp_path: Path) -> None:
    notebook = write_notebook(tmp_path / "n.ipynb", "N = 0", "from labkit.study import note\nnote(n=N)")
    grid = write(tmp_path / "grid.toml", "[[runs]]\nN = 1\n")
    sweep(notebook, grid, tmp_path / "out")
    (tmp_path / "out" / "manifest.jsonl").unlink()
    (tmp_path / "out" / "runs" / "old.partial").mkdir()
    report = sweep(notebook, grid, tmp_path / "out", resume=True)
    assert [run.status for run in report.runs] == ["finished"]
    assert len(results(tmp_path / "out")) == 1
    assert not list((tmp_path / "out" / "runs").glob("*.partial"))


def test_sidecars_of_a_run_move_into_the_study(tmp_path: Path) -> None:
    code = "from labkit.study import Study\nStudy.current().append([{'run_id': 'r'}], sidecar={'x': [1.5]})"
    notebook = write_notebook(tmp_path / "n.ipynb", "N = 0", code)
    sweep(notebook, write(tmp_path / "grid.toml", "[[runs]]\nN = 1\n"), tmp_path / "out")
    from labkit.study import Study

    assert Study(tmp_path / "out").sidecar("r")["x"].tolist() == [1.5]


def test_measurements_of_the_runs_can_be_told_apart_by_their_parameters(tmp_path: Path) -> None:
    code = """from labkit import load_dataset, load_model
from labkit.measure import Candidate, Protocol, measure
from labkit.study import Study, note
candidate = Candidate(load_model('lenet5@digits'), 'torch', batch_size=BATCH)
records = measure([candidate], load_dataset('digits'), protocol=Protocol.quick(), n_samples=32)
Study.current().append_run(records)
note(answered=32)"""
    notebook = write_notebook(tmp_path / "n.ipynb", "BATCH = 1", code)
    grid = write(tmp_path / "grid.toml", "[parameters]\nBATCH = [1, 8]\n")
    report = sweep(notebook, grid, tmp_path / "out")
    assert [str(run.error or "") for run in report.runs] == ["", ""]
    rows = results(tmp_path / "out")
    assert [(row["run"], row["BATCH"], row["batch_size"], row["answered"]) for row in rows] == [
        (report.runs[0].id, "1", "1", ""),
        (report.runs[0].id, "1", "", "32"),
        (report.runs[1].id, "8", "8", ""),
        (report.runs[1].id, "8", "", "32"),
    ]
    from labkit.study import Study

    (last,) = Study(tmp_path / "out").last_run().measurements
    assert last.batch_size == 8


def test_cell_that_takes_too_long_fails_its_run(tmp_path: Path) -> None:
    notebook = write_notebook(tmp_path / "n.ipynb", "N = 0", "import time\ntime.sleep(100)")
    grid = write(tmp_path / "grid.toml", "[[runs]]\nN = 1\n")
    (run,) = sweep(notebook, grid, tmp_path / "out", cell_timeout_s=1).runs
    assert run.error is not None and run.error.kind == "Timeout"


LEFT_BEHIND = """import os
from pathlib import Path
place = Path(os.environ['LABKIT_STUDY'])
place.parent.mkdir(exist_ok=True)
if WHAT == 'a file':
    place.write_text('x')
else:
    place.mkdir()
    (place / ('thesis.txt' if WHAT == 'strangers' else 'records.jsonl')).write_text('junk\\n')"""


def test_a_notebook_that_writes_junk_for_a_study_fails_alone(tmp_path: Path) -> None:
    end = "from labkit.study import note\nif WHAT == 'records':\n    note(fine=1)"
    notebook = write_notebook(
        tmp_path / "n.ipynb", "WHAT = ''", f"if WHAT != 'records':\n    exec({LEFT_BEHIND!r})", end
    )
    grid = write(tmp_path / "grid.toml", "[parameters]\nWHAT = ['a file', 'strangers', 'junk', 'records']\n")
    report = sweep(notebook, grid, tmp_path / "out")
    assert [run.status for run in report.runs] == ["failed", "failed", "failed", "finished"]
    assert all("cannot be collected" in str(run.error) for run in report.runs[:3])
    assert len(results(tmp_path / "out")) == 1 and not list((tmp_path / "out").glob("runs/*.partial"))


@pytest.mark.parametrize("journal", ["records.jsonl", "manifest.jsonl"])
def test_a_damaged_study_is_told_before_the_first_run(tmp_path: Path, journal: str) -> None:
    notebook = write_notebook(tmp_path / "n.ipynb", "N = 1", "open('started', 'w').close()")
    (tmp_path / "out").mkdir()
    write(tmp_path / "out" / journal, "junk\n")
    grid = write(tmp_path / "grid.toml", "[[runs]]\nN = 1\n")
    with pytest.raises(StudyError, match=f"{journal}, line 1 is damaged"):
        sweep(notebook, grid, tmp_path / "out", resume=True)
    assert not (tmp_path / "started").exists() and not (tmp_path / "out" / "index.html").exists()


SLEEPER = (
    "N = 0",
    "import os, subprocess\nfrom labkit.study import note\nnote(n=N)",
    "child = subprocess.Popen(['sleep', '300'])\nopen('pids', 'w').write(f'{os.getpid()} {child.pid}')",
    "import time\ntime.sleep(300)",
)


def test_cancelling_ends_the_kernel_and_leaves_no_half_run(tmp_path: Path) -> None:
    notebook = write_notebook(tmp_path / "n.ipynb", *SLEEPER)

    def progress(fraction: float, message: str) -> None:
        if message == "run 1 of 1, cell 5 of 5":
            raise Cancelled

    with pytest.raises(Cancelled):
        sweep(notebook, write(tmp_path / "g.toml", "[[runs]]\nN = 1\n"), tmp_path / "out", progress=progress)
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert wait_until(lambda: not any(map(is_alive, pids)), 3)
    assert results(tmp_path / "out") == [] and not list((tmp_path / "out").glob("runs/*"))


@pytest.mark.skipif(os.name != "posix", reason="SIGINT is sent as POSIX does")
def test_ctrl_c_leaves_no_child_after_three_seconds_and_no_half_run(tmp_path: Path) -> None:
    write_notebook(tmp_path / "n.ipynb", *SLEEPER)
    write(tmp_path / "g.toml", "[parameters]\nN = [1, 2]\n")
    code = "from labkit.sweep import sweep\nsweep('n.ipynb', 'g.toml', 'out')"
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored in a background job
    )
    pids = tmp_path / "pids"
    assert wait_until(lambda: pids.exists() and len(pids.read_text().split()) == 2, 120)
    time.sleep(0.5)
    child.send_signal(signal.SIGINT)
    alive = [int(pid) for pid in pids.read_text().split()]
    assert wait_until(lambda: not any(map(is_alive, alive)), 3)
    assert "KeyboardInterrupt" in child.communicate(timeout=60)[1]
    assert child.returncode != 0
    assert results(tmp_path / "out") == [] and not list((tmp_path / "out").glob("runs/*"))


DEFAULTS = {"BITS": 8, "RATE": 0.5, "METHOD": "static", "FAST": False, "PROFILE": None, "SIZES": [1]}


@pytest.mark.parametrize(
    ("grid", "expected"),
    [
        (
            "[parameters]\nBITS = [8, 4]\nFAST = [true]",
            [{"BITS": 8, "FAST": True}, {"BITS": 4, "FAST": True}],
        ),
        ("[parameters]\nBITS = [8, 8]\nRATE = [1]", [{"BITS": 8, "RATE": 1}]),
        ("[[runs]]\nMETHOD = 'qat'\n[[runs]]\nPROFILE = 'ci'", [{"METHOD": "qat"}, {"PROFILE": "ci"}]),
        ("[parameters]\nSIZES = [[1, 2], [3]]", [{"SIZES": [1, 2]}, {"SIZES": [3]}]),
        ("[[runs]]", [{}]),
    ],
)
def test_grid_becomes_one_set_of_parameters_a_run(tmp_path: Path, grid: str, expected: list[Any]) -> None:
    assert read_grid(write(tmp_path / "grid.toml", grid), DEFAULTS) == expected


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ("[parameters]\nBIT = [8]", "no parameter 'BIT'; did you mean 'BITS'"),
        ("[parameters]\n'<img src=x>' = [8]", "no parameter '<img src=x>'"),
        ("[parameters]\nBITS = ['8']", "BITS='8' must be a whole number: the notebook's default is 8"),
        ("[parameters]\nBITS = [8.0]", "BITS=8.0 must be a whole number"),
        ("[parameters]\nBITS = [true]", "BITS=True must be a whole number"),
        ("[[runs]]\nRATE = true", "RATE=True must be a number"),
        ("[[runs]]\nRATE = nan", "RATE=nan must be a finite number"),
        ("[[runs]]\nFAST = 1", "FAST=1 must be true or false"),
        ("[[runs]]\nMETHOD = 3", "METHOD=3 must be a text"),
        ("[[runs]]\nPROFILE = 2020-01-01", "must be a finite number, a text"),
        ("[[runs]]\nSIZES = [{a = 1}]", "must be a finite number, a text"),
        ("[parameters]\nBITS = 8", r"BITS=8 must be a list of values, such as BITS = \[8\]"),
        ("[parameters]\nBITS = []", "must be a list of values"),
        ("[parameters]", "is empty"),
        ("parameters = 3", "is empty"),
        ("runs = [3]", "asks for no run"),
        ("runs = []", "asks for no run"),
        ("", "it holds nothing"),
        ("[parameters]\nBITS = [8]\n[[runs]]\nBITS = 4", "either"),
        ("[grid]\nBITS = [8]", "either"),
        ("[parameters\n", "not valid TOML"),
        ("[parameters]\n" + "".join(f"P{i} = [1, 2, 3]\n" for i in range(40)), "at most 10000 are allowed"),
    ],
)
def test_grid_that_does_not_fit_is_refused_by_name(tmp_path: Path, grid: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_grid(write(tmp_path / "grid.toml", grid), DEFAULTS)


@pytest.mark.parametrize(
    ("cells", "grid", "message"),
    [
        (["N = 1"], "[[runs]]\nM = 1", "no parameter 'M'"),
        (["N = 1\nM = N + 1"], "[[runs]]\nN = 1", "cell 1.* NAME = literal"),
        (["N = 1\nprint(N)"], "[[runs]]\nN = 1", "cell 1.* NAME = literal"),
        (["N = = 1"], "[[runs]]\nN = 1", "cell 1.* NAME = literal"),
        (["run = 1"], "[[runs]]\nrun = 2", "'run' is a column of the sweep itself"),
        (["status = ''"], "[[runs]]\nstatus = 'x'", "'status' is a column of the sweep itself"),
        (["error = ''"], "[[runs]]\nerror = 'x'", "'error' is a column of the sweep itself"),
        ([], "[[runs]]\nN = 1", "no parameter 'N'"),
    ],
)
def test_notebook_that_does_not_fit_the_grid_is_refused_before_anything_is_written(
    tmp_path: Path, cells: list[str], grid: str, message: str
) -> None:
    notebook = write_notebook(tmp_path / "n.ipynb", *cells)
    with pytest.raises(LabkitError, match=message):
        sweep(notebook, write(tmp_path / "grid.toml", grid), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("n.ipynb", None, "cannot read"),
        ("n.ipynb", "{", "not valid JSON"),
        ("n.ipynb", "[1]", "not an object"),
        ("n.ipynb", '{"nbformat": 3, "worksheets": []}', "not a notebook of format 4"),
        ("n.ipynb", '{"nbformat": 4, "cells": [3]}', "not a notebook of format 4"),
        ("n.ipynb", odd(cell={"metadata": {"tags": None}}), "not of type 'array' .in /cells/0/metadata/tags"),
        ("n.ipynb", odd(cell={"metadata": {"tags": "parameters"}}), "/cells/0/metadata/tags"),
        ("n.ipynb", odd(cell={"metadata": {"tags": [5]}}), "/cells/0/metadata/tags"),
        ("n.ipynb", odd(cell={"metadata": None}), "not a valid notebook"),
        ("n.ipynb", odd(cell={"source": [1]}), "not a valid notebook"),
        ("n.ipynb", odd(cell={"source": "print('\ud800')"}), "not a valid notebook"),
        ("n.ipynb", odd(cell={"outputs": None}), "not a valid notebook"),
        ("n.ipynb", odd(cell={"cell_type": "cake"}), "not a valid notebook"),
        ("n.ipynb", odd(nbformat_minor="x"), "not a valid notebook"),
        ("n.ipynb", odd(nbformat_minor=2.5), "not a valid notebook"),
        ("n.ipynb", odd(nbformat_minor=-1), "not a valid notebook"),
        ("n.ipynb", odd(nbformat="4"), "not a notebook of format 4"),
        ("n.ipynb", odd(metadata=None), "not a valid notebook"),
        ("n.ipynb", odd(metadata={"kernelspec": 5}), "/metadata/kernelspec"),
        ("n.ipynb", odd(metadata={"x": json.loads("[" * 500 + "]" * 500)}), "not a valid notebook"),
        ("n.py", "N = 1", "give the path of an .ipynb file"),
    ],
)
def test_what_is_no_notebook_is_refused(tmp_path: Path, name: str, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(NotebookError, match=message):
        sweep(tmp_path / name, write(tmp_path / "grid.toml", "[[runs]]\nN = 1"), tmp_path / "out")


def test_a_huge_notebook_is_refused_unread(tmp_path: Path) -> None:
    (tmp_path / "n.ipynb").write_text(odd(cell={"source": "#" * 17 * 2**20}))
    with pytest.raises(NotebookError, match="is larger than"):
        sweep(tmp_path / "n.ipynb", write(tmp_path / "grid.toml", "[[runs]]\nN = 1"), tmp_path / "out")


def test_annotated_parameters_and_comments_are_understood(tmp_path: Path) -> None:
    from labkit.notebook import parameters_of, read_notebook

    path = write_notebook(
        tmp_path / "n.ipynb", "# what to run\nBITS: int = 8  # bits\nRATE = -0.5\nWHO = None"
    )
    assert parameters_of(read_notebook(path), path) == {"BITS": 8, "RATE": -0.5, "WHO": None}
