"""From one source to three notebooks: what each shows, what none may show, and when they are out of date."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from labkit.errors import NotebookError
from labkit.teach.course import VIEWS, build, generate, stale

ROOT = Path(__file__).parents[2]
NOTEBOOKS = ROOT / "notebooks"

SOURCE = """
# %% [markdown]
# # Levels
# How many numbers can some bits tell apart?

# %% tags=["parameters"]
PROFILE = None

# %% tags=["setup"]
from labkit.teach import check

# %%
def levels_of_4_bits():
    return 16

# %% [markdown] tags=["exercise"]
# Your turn.

# %%
def levels(bits):
    return None  # your answer
    ### BEGIN SOLUTION
    doubled = 2 * 2 ** (bits - 1)
    return doubled
    ### END SOLUTION

# %%
check(levels(8), expected=256, hint="each bit doubles them")

# %%
answer = None  # your answer
### BEGIN SOLUTION
answer = sum([30, 2])
### END SOLUTION

# %%
check(answer, expected=32)

# %% [markdown] tags=["solution"]
# Because two to the fifth is thirty-two.
"""


@pytest.fixture(autouse=True)
def kernels_find_labkit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "src"
    folder.mkdir()
    (folder / "01_levels.py").write_text(SOURCE)
    return folder


def cells(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text())["cells"]
    return found


def code(path: Path) -> str:
    return "\n\n".join("".join(cell["source"]) for cell in cells(path))


def test_lesson_has_the_students_lines_and_the_solutions_have_the_answers(
    source: Path, tmp_path: Path
) -> None:
    lesson, exercises, solutions = build(source, tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in (lesson, exercises, solutions)] == [
        "01_levels.ipynb",
        "exercises/01_levels.ipynb",
        "solutions/01_levels.ipynb",
    ]
    for path in (lesson, exercises):
        assert "def levels(bits):\n    return None  # your answer\n" in code(path)
        assert "answer = None  # your answer" in code(path)
        assert "SOLUTION" not in code(path)
    assert "def levels(bits):\n    doubled = 2 * 2 ** (bits - 1)\n    return doubled" in code(solutions)
    assert "# your answer" not in code(solutions) and "SOLUTION" not in code(solutions)


def test_no_text_of_a_solution_is_anywhere_in_what_students_get(source: Path, tmp_path: Path) -> None:
    *handed_out, solutions = build(source, tmp_path)
    for secret in ("doubled", "2 ** (bits", "sum([30", "thirty-two"):
        assert secret in code(solutions)
        assert not [path for path in handed_out if secret in path.read_text()]


def test_exercises_are_the_short_form_with_the_same_cell_ids(source: Path, tmp_path: Path) -> None:
    lesson, exercises, solutions = build(source, tmp_path)
    ids = {path: [cell["id"] for cell in cells(path)] for path in (lesson, exercises, solutions)}
    assert ids[exercises] == [
        *("prose-1", "code-1", "code-2", "prose-2"),
        *("answer-1", "check-1", "answer-2", "check-2"),
    ]
    assert ids[solutions] == [*ids[exercises], "prose-3"]
    assert ids[lesson] == [*ids[exercises][:3], "code-3", *ids[exercises][3:]]
    assert "levels_of_4_bits" in code(lesson) and "levels_of_4_bits" not in code(exercises)


def test_checks_are_locked_and_answers_are_tagged(source: Path, tmp_path: Path) -> None:
    found = {cell["id"]: cell["metadata"] for cell in cells(build(source, tmp_path)[1])}
    assert found["check-1"] == {"deletable": False, "editable": False, "tags": ["check"]}
    assert found["answer-1"] == {"tags": ["answer"]}
    assert found["prose-1"] == {"lang": "en"}


def test_rebuild_gives_the_same_bytes_and_no_metadata_of_the_moment(source: Path, tmp_path: Path) -> None:
    first = [path.read_bytes() for path in build(source, tmp_path / "a")]
    second = [path.read_bytes() for path in build(source, tmp_path / "b")]
    assert first == second
    for document in map(json.loads, first):
        assert set(document["metadata"]) == {"kernelspec", "language_info"}
        assert document["metadata"]["kernelspec"]["name"] == "python3"


@pytest.mark.parametrize(
    ("planted", "cell"),
    [
        ("# %% [markdown]\n# Hint: use sum([30,  2])\n", "prose-4"),
        ('# %%\nprint("""doubled = 2 *\n2 ** (bits - 1)""")\n', "code-4"),
        ('# %% tags=["return doubled"]\nprint()\n', "code-4"),
        ("# %% [markdown]\n# Because two to the fifth is thirty-two.\n", "prose-4"),
    ],
)
def test_planted_leak_is_refused_with_its_cell(source: Path, tmp_path: Path, planted: str, cell: str) -> None:
    (source / "01_levels.py").write_text(SOURCE + "\n" + planted)
    with pytest.raises(NotebookError, match=f"01_levels.py: cell '{cell}' of the lesson gives away"):
        build(source, tmp_path)
    assert not list(tmp_path.glob("*.ipynb"))


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("x = None  # your answer\n### BEGIN SOLUTION\nx = 1", "'### BEGIN SOLUTION' has no partner"),
        ("x = 1\n### END SOLUTION", "'### END SOLUTION' has no partner"),
        (
            "x = 0\n### BEGIN SOLUTION\nx = 1\n### END SOLUTION",
            "put `answer = None # your answer` right above",
        ),
        ("### BEGIN SOLUTION\nx = 1\n### END SOLUTION", "put `answer = None # your answer` right above"),
        (
            "def f():\n    # your answer\n    ### BEGIN SOLUTION\n    return 1\n    ### END SOLUTION",
            "not Python",
        ),
    ],
)
def test_exercise_that_cannot_work_is_refused_with_its_cell(source: Path, cell: str, message: str) -> None:
    (source / "01_levels.py").write_text(f"# %% [markdown]\n# # Title\n\n# %%\n{cell}\n")
    with pytest.raises(NotebookError, match=f"01_levels.py, cell 2.*{message}"):
        generate(source / "01_levels.py")


def test_solution_that_is_not_python_is_refused_as_its_skeleton_is(source: Path) -> None:
    (source / "01_levels.py").write_text(SOURCE.replace("sum([30, 2])", "sum([30, 2]"))
    with pytest.raises(NotebookError, match="01_levels.py, cell 8: line 1 is not Python"):
        generate(source / "01_levels.py")


@pytest.mark.parametrize("content", [b"\xff\xfe", b'# %% tags=["a,b"]\nprint()\n', None])
def test_source_that_cannot_be_read_is_refused(source: Path, content: bytes | None) -> None:
    path = source / "01_levels.py"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(NotebookError, match="cannot read .*01_levels.py"):
        generate(path)


def test_parameters_that_are_computed_are_refused(source: Path) -> None:
    (source / "01_levels.py").write_text('# %% tags=["parameters"]\nN = 1 + len("x")\n')
    with pytest.raises(NotebookError, match="NAME = literal"):
        generate(source / "01_levels.py")


def test_magics_are_no_obstacle_to_finding_a_check(source: Path) -> None:
    (source / "01_levels.py").write_text("# %%\n# %matplotlib inline\ncheck(None, 1)\n")
    assert generate(source / "01_levels.py").views["lesson"].cells[0].id == "check-1"


def test_stale_tells_what_is_missing_changed_or_left_over(source: Path, tmp_path: Path) -> None:
    lesson, exercises, solutions = expected = build(source, tmp_path)
    assert stale(source, tmp_path) == ()
    exercises.unlink()
    assert stale(source, tmp_path) == (exercises,)
    build(source, tmp_path)
    (source / "01_levels.py").write_text(SOURCE.replace("return 16", "return 15"))
    assert stale(source, tmp_path) == (lesson,)
    (source / "01_levels.py").write_text(SOURCE.replace("sum([30, 2])", "sum([31, 1])"))
    assert stale(source, tmp_path) == (solutions,)
    (source / "01_levels.py").rename(source / "02_levels.py")
    (source / "02_levels.py").write_text(SOURCE)
    assert set(stale(source, tmp_path)) == {
        *expected,
        *(path.with_name("02_levels.ipynb") for path in expected),
    }


def test_check_writes_nothing_and_names_what_is_out_of_date(source: Path, tmp_path: Path) -> None:
    with pytest.raises(
        NotebookError, match="out of date: 01_levels.ipynb, exercises/01_levels.ipynb, .*course build"
    ):
        build(source, tmp_path / "out", check=True)
    assert not (tmp_path / "out").exists()
    build(source, tmp_path / "out")
    assert build(source, tmp_path / "out", check=True) == ()


def test_outputs_of_an_unchanged_lesson_are_kept_and_of_a_changed_one_dropped(
    source: Path, tmp_path: Path
) -> None:
    lesson, exercises, _ = build(source, tmp_path)
    for path in (lesson, exercises):
        document = json.loads(path.read_text())
        document["cells"][2]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": ["hello"]}]
        path.write_text(json.dumps(document))
    assert stale(source, tmp_path) == (exercises,)
    build(source, tmp_path)
    assert "hello" in lesson.read_text() and "hello" not in exercises.read_text()
    (source / "01_levels.py").write_text(SOURCE.replace("return 16", "return 15"))
    build(source, tmp_path)
    assert "hello" not in lesson.read_text()


def test_executed_lesson_keeps_what_a_reader_without_widgets_can_see(source: Path, tmp_path: Path) -> None:
    (source / "01_levels.py").write_text(
        SOURCE
        + """
# %%
import os
print(os.environ["LABKIT_PROFILE"], os.environ["LABKIT_HEADLESS"], os.path.basename(os.getcwd()))

# %%
import ipywidgets
ipywidgets.IntSlider()

# %%
class Panel(ipywidgets.IntSlider):
    def _repr_mimebundle_(self, **kwargs):
        return {**super()._repr_mimebundle_(**kwargs), "image/png": "aGk=", "text/html": "<table></table>"}
Panel()
"""
    )
    lesson, exercises, _ = build(source, tmp_path / "out", execute=True)
    document = json.loads(lesson.read_text())
    outputs = {cell["id"]: cell.get("outputs") for cell in document["cells"]}
    assert "not yet" in json.dumps(outputs["check-1"])
    assert outputs["code-4"][0]["text"] == ["ci 1 out\n"]
    assert outputs["code-5"] == []
    assert set(outputs["code-6"][0]["data"]) == {"image/png", "text/html", "text/plain"}
    assert set(document["metadata"]) == {"kernelspec", "language_info"} and "widget" not in json.dumps(
        outputs
    )
    assert document["metadata"]["language_info"] == {"name": "python"}
    assert not any(cell.get("outputs") for cell in cells(exercises))
    assert stale(source, tmp_path / "out") == ()


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("1 / 0", "01_levels.py: cell 10 .*ZeroDivisionError"),
        ("print('sum([30,', '2])')", "cell 'code-4' of the lesson gives away"),
        ("import tempfile; print(tempfile.gettempdir() + '/x')", "cell 'code-4' shows the folder"),
    ],
)
def test_lesson_whose_outputs_must_not_be_published_is_not_written(
    source: Path, tmp_path: Path, cell: str, message: str
) -> None:
    (source / "01_levels.py").write_text(f"{SOURCE}\n# %%\n{cell}\n")
    with pytest.raises(NotebookError, match=message):
        build(source, tmp_path / "out", execute=True)
    assert not list((tmp_path / "out").rglob("*.ipynb"))


def test_folder_without_lessons_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NotebookError, match="holds no lesson"):
        build(tmp_path, tmp_path / "out")


def test_views_are_the_three_folders() -> None:
    assert VIEWS == {"lesson": "", "exercises": "exercises", "solutions": "solutions"}


@pytest.mark.skipif(not (NOTEBOOKS / "src").is_dir(), reason="this checkout has no lessons")
def test_committed_notebooks_are_what_their_sources_generate() -> None:
    assert stale(NOTEBOOKS / "src", NOTEBOOKS) == ()
