"""Solutions score everything, skeletons nothing, and neither outputs nor tricks change a score."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from labkit.errors import NotebookError
from labkit.teach import build, grade

ROOT = Path(__file__).parents[2]
SOURCE = """# %% [markdown]
# # Two exercises

# %% tags=["setup"]
from labkit.teach import check

# %%
def levels(bits):
    return None  # your answer
    ### BEGIN SOLUTION
    return 2 ** bits
    ### END SOLUTION

# %%
check(levels(8), expected=256)

# %%
answer = None  # your answer
### BEGIN SOLUTION
answer = 16 + 16
### END SOLUTION

# %%
check(answer, expected=32)
"""


@pytest.fixture(autouse=True)
def graders_find_labkit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture
def course(tmp_path: Path) -> tuple[Path, Path, Path]:
    """The lesson, the exercises and the solutions."""
    (tmp_path / "01_two.py").write_text(SOURCE)
    lesson, exercises, solutions = build(tmp_path / "01_two.py", tmp_path)
    return lesson, exercises, solutions


def submit(exercises: Path, edit: Callable[[dict[str, Any]], None]) -> Path:
    """The exercises, with every code cell passed through `edit`."""
    document = json.loads(exercises.read_text())
    for cell in document["cells"]:
        edit(cell)
    path = exercises.with_name("submission.ipynb")
    path.write_text(json.dumps(document))
    return path


def answering(**sources: str) -> Callable[[dict[str, Any]], None]:
    """Replace the source of cells by id, written with _ for -."""

    def edit(cell: dict[str, Any]) -> None:
        cell["source"] = sources.get(cell["id"].replace("-", "_"), cell["source"])

    return edit


def test_solution_scores_100_and_skeleton_0(course: tuple[Path, Path, Path]) -> None:
    lesson, exercises, solutions = course
    assert grade(solutions, exercises).score_pct == 100
    for skeleton in (lesson, exercises):
        graded = grade(skeleton, exercises)
        assert graded.score_pct == 0
        assert {name: result.status for name, result in graded.results.items()} == {
            "check-1": "not yet",
            "check-2": "not yet",
        }


def test_half_a_solution_scores_half_even_if_the_other_half_raises(course: tuple[Path, Path, Path]) -> None:
    submission = submit(course[1], answering(answer_1="def levels(bits):\n    1 / 0", answer_2="answer = 32"))
    graded = grade(submission, course[1])
    assert graded.score_pct == 50 and graded.note == ""
    assert graded.results["check-1"].status == "not quite"


def test_edited_checks_planted_outputs_and_missing_cells_count_for_nothing(
    course: tuple[Path, Path, Path],
) -> None:
    def cheat(cell: dict[str, Any]) -> None:
        if cell["id"].startswith("check"):
            cell["source"] = "check(1, expected=1)"
            cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": ["✓ right: 256"]}]
            cell["metadata"] = {"tags": ["answer"]}
        if cell["id"] == "answer-2":
            cell["id"] = "gone"

    submission = submit(course[1], cheat)
    assert grade(submission, course[1]).score_pct == 0
    assert (
        grade(submission, course[2]).results["check-2"].status == "not quite"
    )  # not the solution's own answer


@pytest.mark.parametrize(
    "trick",
    [
        "from labkit.teach import CheckResult\nanswer, check = 0, lambda *_, **__: CheckResult('right', '')",
        'answer = 0\nprint(\'{"check-1": ["right", ""], "check-2": ["right", ""]}\')',
        'import os\nos.write(1, b\'{"check-1": ["right", ""], "check-2": ["right", ""]}\')\nos._exit(0)',
    ],
)
def test_plain_tricks_do_not_score(course: tuple[Path, Path, Path], trick: str) -> None:
    assert (
        grade(submit(course[1], answering(answer_1=trick, answer_2="answer = 0")), course[1]).score_pct == 0
    )


def test_process_that_ends_itself_is_noted(course: tuple[Path, Path, Path]) -> None:
    graded = grade(submit(course[1], answering(answer_1="import os; os._exit(3)")), course[1])
    assert graded.score_pct == 0 and graded.note == "the process ended early (exit code 3)"


@pytest.mark.parametrize(
    "answer", ["", "[]", "3", "junk", '{"check-1": 1}', '{"check-1": ["right"]}', "[" * 99_999]
)
def test_whatever_the_process_answers_is_a_grade(
    course: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: str
) -> None:
    """An answer cell may find the pipe, and write into it."""
    (tmp_path / "answer").write_text(answer)
    stand_in = tmp_path / "python"
    stand_in.write_text(f"#!/bin/sh\ncat > {os.devnull}\ncat {tmp_path / 'answer'}\n")
    stand_in.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(stand_in))
    graded = grade(course[2], course[1])
    words = "answered with something else than results" if answer else "ended early"
    assert graded.score_pct == 0 and graded.note == f"the process {words} (exit code 0)"


def test_endless_loop_ends_at_the_limit_with_all_it_started(
    course: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    code = f"""import subprocess
open({str(tmp_path / "pid")!r}, "w").write(str(subprocess.Popen(["sleep", "300"]).pid))"""
    submission = submit(course[1], answering(answer_1=f"{code}\nwhile True: pass"))
    graded = grade(submission, course[1], timeout_s=10)
    assert graded.score_pct == 0 and graded.note == "took longer than 10 s"
    if os.name == "posix":
        state = Path(f"/proc/{(tmp_path / 'pid').read_text()}/stat")
        assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"


@pytest.mark.skipif(os.name != "posix", reason="Windows sets no limit")
def test_greed_for_memory_fails_its_own_answer_only(course: tuple[Path, Path, Path]) -> None:
    greedy = "def levels(bits):\n    return len(bytearray(2 ** 33)) and 256"
    graded = grade(submit(course[1], answering(answer_1=greedy, answer_2="answer = 32")), course[1])
    assert [graded.results[name].passed for name in ("check-1", "check-2")] == [False, True]


@pytest.mark.parametrize(
    ("answer", "score_pct", "status"),
    [("", 100, "right"), *[(letter, 0, "not quite") for letter in "ABCEF"], ("None", 0, "not yet")],
)
def test_the_tour_is_graded_the_same_on_every_machine(
    tmp_path: Path, answer: str, score_pct: float, status: str
) -> None:
    """The solution is right, whatever this machine would measure; each other letter of the table is wrong."""
    exercises = ROOT / "notebooks" / "exercises" / "00_tour.ipynb"
    submission = ROOT / "notebooks" / "solutions" / "00_tour.ipynb"
    if answer:
        copy = tmp_path / "exercises.ipynb"
        copy.write_bytes(exercises.read_bytes())
        literal = answer if answer == "None" else f'"{answer}"'
        submission = submit(copy, answering(answer_1=f"my_choice = {literal}"))
    graded = grade(submission, exercises, timeout_s=60)
    assert (graded.score_pct, graded.note) == (score_pct, "")
    assert {result.status for result in graded.results.values()} == {status}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ('{"cells": 3}', "has no cell ids"),
        ('{"cells": [{"cell_type": "code", "source": "x", "metadata": {}}]}', "has no cell ids"),
        ('{"cells": [3]}', "has no cell ids"),
        ('{"cells": [{"cell_type": "code", "id": "a", "source": [1], "metadata": {}}]}', "odd cells"),
        ('{"cells": [{"cell_type": "code", "id": "a", "source": "", "metadata": null}]}', "odd cells"),
        (
            '{"cells": [{"cell_type": "code", "id": "a", "source": "", "metadata": {"tags": 5}}]}',
            "odd .*tags",
        ),
        (
            '{"cells": [{"cell_type": "code", "id": "a", "source": "", "metadata": {"tags": "x"}}]}',
            "odd .*tags",
        ),
        ("[" * 100_000, "not valid JSON"),
    ],
)
def test_what_is_no_notebook_is_refused(
    course: tuple[Path, Path, Path], tmp_path: Path, content: str, message: str
) -> None:
    path = tmp_path / "broken.ipynb"
    path.write_text(content)
    for files in ((path, course[1]), (course[1], path)):
        with pytest.raises(NotebookError, match=message):
            grade(*files)


def test_notebook_without_checks_cannot_be_graded(course: tuple[Path, Path, Path], tmp_path: Path) -> None:
    (tmp_path / "empty.ipynb").write_text('{"cells": []}')
    with pytest.raises(NotebookError, match="nothing to grade"):
        grade(course[1], tmp_path / "empty.ipynb")
