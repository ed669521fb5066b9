"""Grade a notebook that was handed in: its answers, by cell id, in a notebook that nobody else has touched.

The answer cells are put into the pristine exercises and run there in a new process, limited in time and
memory. The score is what that process returns through a pipe: outputs or files that came with the submission
count for nothing. So mistakes, endless loops and edited checks do no harm. It is *not* a sandbox: code that
is out to cheat or to destroy runs with your rights. Grade the work of strangers in a container.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.errors import NotebookError
from labkit.files import read_json
from labkit.teach.checks import CheckResult, check


@dataclass(frozen=True)
class Grade:
    """Cell id of each check → its result; `note` says why nothing could be graded, if so."""

    results: dict[str, CheckResult]
    note: str = ""

    @property
    def score_pct(self) -> float:
        """The share of checks that passed, 0..100."""
        return 100 * sum(result.passed for result in self.results.values()) / len(self.results)


def grade(
    submission: str | Path, pristine: str | Path, *, timeout_s: float = 120, memory_bytes: int = 4 * 2**30
) -> Grade:
    """Grade `submission` against `pristine`, the exercises as they were handed out.

    timeout_s and memory_bytes (of address space; not on Windows) limit the process that runs the answers: if
    it takes longer, the score is 0. Raises NotebookError if a file is no notebook, or holds nothing to grade.
    """
    answers = {cell["id"]: cell["source"] for cell in _code_cells(submission)}
    cells = _code_cells(pristine)
    for cell in cells:
        if "answer" in cell["tags"]:
            cell["source"] = answers.get(cell["id"], "")
    checks = [cell["id"] for cell in cells if "check" in cell["tags"]]
    if not checks:
        raise NotebookError(f"{pristine} has no cell tagged 'check': there is nothing to grade")
    found, note = _run({"cells": cells, "memory_bytes": memory_bytes, "timeout_s": timeout_s}, timeout_s)
    missing = ("not quite", note or "its cell raised an error")
    return Grade({name: CheckResult(*found.get(name, missing)) for name in checks}, note)


def _code_cells(path: str | Path) -> list[dict[str, Any]]:
    document = read_json(path, NotebookError)
    try:
        return [
            {"id": str(cell["id"]), "source": "".join(cell["source"]), "tags": _tags(cell["metadata"])}
            for cell in document["cells"]
            if cell["cell_type"] == "code"
        ]
    except (KeyError, TypeError, AttributeError):
        raise NotebookError(
            f"{path} has no cell ids, or odd cells or tags: open it in JupyterLab and save it again"
        ) from None


def _tags(metadata: dict[str, Any]) -> list[str]:
    tags = metadata.get("tags", [])
    if not isinstance(tags, list):
        raise TypeError
    return [tag for tag in tags if isinstance(tag, str)]


def _run(job: dict[str, Any], timeout_s: float) -> tuple[dict[str, list[str]], str]:
    """The statuses and messages of the checks, and a note if the process did not come to its end."""
    with tempfile.TemporaryDirectory() as folder:
        settings = {"LABKIT_HEADLESS": "1", "LABKIT_PROFILE": "ci", "LABKIT_COURSE_DIR": folder}
        settings["IPYTHONDIR"] = folder  # no history in, none out
        child = subprocess.Popen(
            [sys.executable, "-m", __name__],
            cwd=folder,
            env={**os.environ, **settings},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            output, _ = child.communicate(json.dumps(job).encode(), timeout_s)
            return _results(json.loads(output)), ""
        except subprocess.TimeoutExpired:
            return {}, f"took longer than {timeout_s:g} s"
        except (ValueError, RecursionError):
            end = "answered with something else than results" if output else "ended early"
            return {}, f"the process {end} (exit code {child.returncode})"
        finally:
            with suppress(OSError):
                os.killpg(child.pid, signal.SIGKILL) if os.name == "posix" else child.kill()
            child.wait()


def _results(answer: Any) -> dict[str, list[str]]:
    """Cell id of each check → its status and message; ValueError for anything else."""
    pairs = answer.values() if isinstance(answer, dict) else [None]
    if not all(isinstance(pair, list) and [type(text) for text in pair] == [str, str] for pair in pairs):
        raise ValueError
    return dict(answer)


def _child() -> None:
    """Run the job on stdin; what the cells print goes nowhere, so that stdout carries the results alone."""
    job = json.load(sys.stdin)
    results_fd = os.dup(1)
    quiet = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(quiet, descriptor)
    _limit(job["memory_bytes"], job["timeout_s"])
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell.instance()
    results = {}
    for cell in job["cells"]:
        shell.user_ns["check"] = check  # whatever an answer may have called "check"
        value = shell.run_cell(cell["source"]).result  # type: ignore[no-untyped-call]
        if "check" in cell["tags"] and isinstance(value, CheckResult):
            results[cell["id"]] = [value.status, value.message]
    with os.fdopen(results_fd, "w") as file:
        json.dump(results, file)


def _limit(memory_bytes: int, timeout_s: float) -> None:
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
        resource.setrlimit(resource.RLIMIT_CPU, (int(timeout_s) + 1, int(timeout_s) + 1))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    _child()
