"""One source a lesson, with solutions; from it the lesson, the exercises and the solutions.

The source, `NN_topic.py`, is in jupytext's percent format. An answer is marked as nbgrader marks it, with the
student's own line right above:

    # %%
    ratio = None  # your answer
    ### BEGIN SOLUTION
    ratio = before.size_bytes / after.size_bytes
    ### END SOLUTION

    # %%
    check(ratio, expected=comparison.size_ratio, tolerance=0.01, hint="how many times larger was it before?")

The lesson keeps the student's line, the solutions keep what stands between the markers. A code cell that ends
in `check(…)` is a check. The exercises and the solutions are the short notebooks that are handed out and
graded: of the lesson they hold the title, the cells tagged `parameters`, `setup` or `exercise`, the answers
and the checks. A cell tagged `solution` is in the solutions alone. The same source always gives the same
bytes: cell ids are "answer-1", "prose-7" and so on.
"""

from __future__ import annotations

import ast
import os
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labkit.errors import NotebookError
from labkit.files import read_regular, write_atomically
from labkit.notebook import parameters_of, read_notebook, run_notebook, to_bytes
from labkit.teach.guard import drop_widgets, refuse_private_folders, refuse_secrets, secrets_in

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
PLACEHOLDER = "# your answer"
VIEWS = {"lesson": "", "exercises": "exercises", "solutions": "solutions"}
"""The three notebooks made from one source → the folder of each below `out`."""

_LARGEST_SOURCE_BYTES = 1024 * 1024
_EXERCISE_TAGS = {"parameters", "setup", "exercise", "answer", "check"}
_METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


@dataclass
class Lesson:
    """What one source gives: view → notebook, and the secrets that only the solutions may hold."""

    source: Path
    views: dict[str, Any] = field(default_factory=dict)
    secrets: set[str] = field(default_factory=set)


def build(
    source: str | Path, out: str | Path, *, execute: bool = False, check: bool = False
) -> tuple[Path, ...]:
    """Generate the notebooks of `source` (a lesson's .py, or a folder of them) below `out`; give their paths.

    With `execute` each lesson is run in the profile `ci`, and keeps its outputs; without, a lesson that did
    not change keeps the outputs it had. With `check` nothing is written, and what is out of date is an error.
    Raises NotebookError that names the source and the cell; nothing of that lesson is then written.
    """
    source, out = Path(source), Path(out)
    if check:
        if old := stale(source, out):
            names = ", ".join(path.relative_to(out).as_posix() for path in old)
            raise NotebookError(f"out of date: {names}; run: labkit course build")
        return ()
    written: list[Path] = []
    with tempfile.TemporaryDirectory() as decisions:
        for path in _sources(source):
            lesson = generate(path)
            if execute:
                out.mkdir(parents=True, exist_ok=True)
                _run(lesson, out, decisions)
            for view in VIEWS:
                path = _path(out, view, lesson)
                if execute or not _is_current(path, view, lesson):
                    write_atomically(path, to_bytes(lesson.views[view]))
                written.append(path)
    return tuple(written)


def stale(source: str | Path, out: str | Path) -> tuple[Path, ...]:
    """The notebooks that are missing, have no source, or differ from it (a lesson's outputs aside)."""
    source, out = Path(source), Path(out)
    lessons = [generate(path) for path in _sources(source)]
    old = [
        _path(out, view, lesson)
        for lesson in lessons
        for view in VIEWS
        if not _is_current(_path(out, view, lesson), view, lesson)
    ]
    if source.is_dir():
        known = {_path(out, view, lesson) for lesson in lessons for view in VIEWS}
        found = [path for folder in VIEWS.values() for path in sorted((out / folder).glob("*.ipynb"))]
        old += [path for path in found if path not in known]
    return tuple(old)


def generate(source: Path) -> Lesson:
    """The notebooks of one source, not executed. Raises NotebookError."""
    import jupytext
    from nbformat import v4

    try:
        text = read_regular(source, NotebookError, _LARGEST_SOURCE_BYTES, "a lesson's source").decode()
        cells = jupytext.reads(text.replace("\r\n", "\n").lstrip(), fmt="py:percent").cells
    except Exception as error:  # jupytext and nbformat raise many kinds
        raise NotebookError(f"cannot read {source}: {str(error).splitlines()[0]}") from None
    new: Any = v4.new_notebook
    lesson = Lesson(source, {view: new(metadata=_METADATA) for view in VIEWS})
    counts: Counter[str] = Counter()
    for number, cell in enumerate(cells, 1):
        _add(cell, lesson, counts, f"{source.name}, cell {number}")
    parameters_of(lesson.views["lesson"], source)
    refuse_secrets(lesson.views, lesson.secrets, lesson.source.name)
    return lesson


def split(code: str, where: str) -> tuple[str, str, list[str]]:
    """A source cell → what the student sees, what the solutions show, and the lines between the markers.

    Raises NotebookError for a marker without its partner, or a solution without the student's line above it.
    """
    student: list[str] = []
    solved: list[str] = []
    secret: list[str] = []
    inside = False
    for line in code.splitlines():
        marker = line.strip()
        if marker in (BEGIN, END):
            if inside == (marker == BEGIN):
                raise NotebookError(f"{where}: {marker!r} has no partner")
            if marker == BEGIN and not (student and student[-1].rstrip().endswith(PLACEHOLDER)):
                raise NotebookError(f"{where}: put `answer = None  {PLACEHOLDER}` right above {BEGIN!r}")
            inside = not inside
        elif inside:
            secret.append(line)
            solved.append(line)
        else:
            student.append(line)
            if not line.rstrip().endswith(PLACEHOLDER):
                solved.append(line)
    if inside:
        raise NotebookError(f"{where}: {BEGIN!r} has no partner")
    return "\n".join(student), "\n".join(solved), secret


def _add(cell: Any, lesson: Lesson, counts: Counter[str], where: str) -> None:
    """Put a source cell into each notebook that shows it."""
    from nbformat import v4

    tags = dict.fromkeys(cell.metadata.get("tags", []))
    metadata: dict[str, Any] = {}
    if cell.cell_type == "code":
        kind = "code"
        student, solved, secret = split(cell.source, where)
        ends_in_check = all([_ends_in_check(code, where) for code in (student, solved)])  # both must parse
        if secret:
            kind = "answer"
        elif ends_in_check:
            kind, metadata = "check", {"deletable": False, "editable": False}
        if kind != "code":
            tags[kind] = None
    else:
        kind = "prose"
        student, solved, secret = cell.source, cell.source, []
        metadata = {"lang": cell.metadata.get("lang", "en")}
    counts[kind] += 1
    if tags:
        metadata["tags"] = list(tags)
    shown = {"lesson": student}
    if "solution" in tags:
        shown, secret = {"solutions": solved}, solved.splitlines()
    elif counts.total() == 1 or not _EXERCISE_TAGS.isdisjoint(tags):  # the first cell is the title
        shown |= {"exercises": student, "solutions": solved}
    lesson.secrets.update(secrets_in(secret))
    new: Any = v4.new_code_cell if cell.cell_type == "code" else v4.new_markdown_cell
    for view, source in shown.items():
        lesson.views[view].cells.append(new(source, id=f"{kind}-{counts[kind]}", metadata=metadata))


def _ends_in_check(code: str, where: str) -> bool:
    """Whether the cell's last line is a call of `check`; lines with % or ! are IPython's, and left out."""
    plain = "\n".join(line for line in code.splitlines() if not line.lstrip().startswith(("%", "!")))
    try:
        body = ast.parse(plain).body
    except SyntaxError as error:
        raise NotebookError(f"{where}: line {error.lineno} is not Python that can run: {error.msg}") from None
    call = body[-1].value if body and isinstance(body[-1], ast.Expr) else None
    function = call.func if isinstance(call, ast.Call) else None
    return getattr(function, "id", getattr(function, "attr", "")) == "check"


def _run(lesson: Lesson, folder: Path, decisions: str) -> None:
    """Execute the lesson, and leave only what any reader can see and any machine may say."""
    notebook = lesson.views["lesson"]
    environment = {"LABKIT_PROFILE": "ci", "LABKIT_HEADLESS": "1", "LABKIT_COURSE_DIR": decisions}
    try:
        run_notebook(notebook, folder, environment)
    except NotebookError as error:
        raise NotebookError(f"{lesson.source.name}: {error}", error.cell, error.kind) from None
    notebook.metadata = type(notebook.metadata)(_METADATA)
    drop_widgets(notebook)
    refuse_private_folders(notebook, lesson.source.name)
    refuse_secrets(lesson.views, lesson.secrets, lesson.source.name)


def _is_current(path: Path, view: str, lesson: Lesson) -> bool:
    """Whether the file holds what is generated; an executed lesson may hold outputs besides."""
    expected = to_bytes(lesson.views[view])
    try:
        if view != "lesson":
            return path.read_bytes() == expected
        notebook = read_notebook(path)
    except (OSError, NotebookError):
        return False
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return to_bytes(notebook) == expected


def _sources(source: Path) -> list[Path]:
    found = sorted(source.glob("[0-9][0-9]_*.py")) if os.path.isdir(source) else [source]
    if not found:
        raise NotebookError(f"{source} holds no lesson: name one NN_topic.py, such as 03_quantization.py")
    return found


def _path(out: Path, view: str, lesson: Lesson) -> Path:
    return out / VIEWS[view] / f"{lesson.source.stem}.ipynb"
