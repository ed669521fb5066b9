"""What a study keeps, whoever else writes to it and however a writer ends."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labkit.errors import ConfigError, StudyError
from labkit.measure import Measurement, Records
from labkit.study import Study, note, run_key

ROOT = Path(__file__).parents[2]


def python(code: str, *arguments: str | Path) -> subprocess.Popen[str]:
    """Start another process that can import labkit."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(tmp_path / "study")


def test_records_come_back_in_order_from_another_object(study: Study) -> None:
    study.append([{"a": 1, "ci": [0.5, None]}, {"a": 2}])
    study.append([{"a": 3, "name": "ü<b>"}])
    assert Study(study.folder).records() == [{"a": 1, "ci": [0.5, None]}, {"a": 2}, {"a": 3, "name": "ü<b>"}]


def test_numpy_numbers_and_arrays_become_plain_ones(study: Study) -> None:
    study.append([{"n": np.int64(3), "x": np.float32(0.5), "v": np.arange(2)}])
    assert study.records() == [{"n": 3, "x": 0.5, "v": [0, 1]}]


@pytest.mark.parametrize("torn", ['{"a": 2', '{"a": 2}', "{", "\x00\x00\x00"])
def test_torn_last_line_is_left_out_with_a_warning_and_cut_off_by_the_next_append(
    study: Study, torn: str
) -> None:
    study.append([{"a": 1}])
    path = study.folder / "records.jsonl"
    with open(path, "a") as file:
        file.write(torn)
    with pytest.warns(UserWarning, match="last line is cut off"):
        assert study.records() == [{"a": 1}]
    study.append([{"a": 3}])
    assert path.read_text() == '{"a": 1}\n{"a": 3}\n'


@pytest.mark.parametrize(
    "line",
    ["not json", "[1]", "", "[" * 100_000, '{"a": NaN}', '{"a": 1e999}', '{"a": "\\ud800"}', '{"a": "\xff"}'],
)
def test_damaged_line_in_the_middle_is_an_error_that_names_it(study: Study, line: str) -> None:
    study.append([{"a": 1}])
    path = study.folder / "records.jsonl"
    path.write_bytes(path.read_bytes() + line.encode("latin-1") + b'\n{"a": 2}\n')
    with pytest.raises(StudyError, match="records.jsonl, line 2 is damaged"):
        study.records()


@pytest.mark.parametrize("whole", [b"", b'{"a": 1}\n'])
@pytest.mark.parametrize("junk", [b"\x93NUMPY\x01", b"[1, 2]", b'{"a": "\xff\xff', b"notes of mine"])
def test_junk_at_the_end_is_no_torn_line_and_nobody_cuts_it_off(
    study: Study, whole: bytes, junk: bytes
) -> None:
    path = study.folder / "records.jsonl"
    study.folder.mkdir()
    path.write_bytes(whole + junk)
    for use in (study.records, lambda: study.append([{"a": 2}])):
        with pytest.raises(StudyError, match="records.jsonl: what stands after its last whole line"):
            use()
    assert path.read_bytes() == whole + junk


def test_two_processes_that_append_never_mix_their_lines(study: Study) -> None:
    code = """
import sys
from labkit.study import Study
study = Study(sys.argv[1])
for batch in range(100):
    row = {"who": sys.argv[2], "batch": batch, "text": "x" * 3000}
    study.append([{**row, "part": part} for part in range(3)])
"""
    writers = [python(code, study.folder, who) for who in ("ada", "bob")]
    for writer in writers:
        _, errors = writer.communicate(timeout=300)
        assert writer.returncode == 0, errors
    rows = study.records()
    assert len(rows) == 2 * 100 * 3
    batches = [[(row["who"], row["batch"], row["part"]) for row in rows[i : i + 3]] for i in range(0, 600, 3)]
    assert all(batch == [(*batch[0][:2], part) for part in range(3)] for batch in batches)
    for who in ("ada", "bob"):
        assert [batch[0][1] for batch in batches if batch[0][0] == who] == list(range(100))


def test_killed_writers_leave_only_whole_records(study: Study) -> None:
    code = """
import sys
from labkit.study import Study
study, n = Study(sys.argv[1]), 0
while True:
    study.append([{"n": n, "text": "x" * 100_000}])
    n += 1
    print(n, flush=True)
"""
    for wait_s in (0.0, 0.003, 0.011):
        writer = python(code, study.folder)
        assert writer.stdout is not None and writer.stdout.readline()
        time.sleep(wait_s)
        writer.kill()
        writer.communicate()
    study.append([{"n": -1}])
    rows = study.records()
    assert len(rows) >= 4
    assert all(row["n"] == -1 or len(row["text"]) == 100_000 for row in rows)


@pytest.mark.skipif(os.name != "posix", reason="RLIMIT_FSIZE is POSIX's")
def test_full_disk_is_a_typed_error_and_the_study_stays_as_it_was(study: Study) -> None:
    """A limit on the file's size makes the system write a part and then refuse, as a full disk does."""
    study.append([{"a": 1}])
    before = (study.folder / "records.jsonl").read_bytes()
    code = """
import resource, sys
from labkit.errors import StudyError
from labkit.study import Study
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
for call in (
    lambda: Study(sys.argv[1]).append([{"text": "x" * 20_000}]),
    lambda: Study(sys.argv[1]).append([{"run_id": "r"}], sidecar={"noise": list(range(10_000))}),
):
    try:
        call()
    except StudyError as error:
        print(error)
"""
    output, errors = python(code, study.folder).communicate(timeout=60)
    assert [line.split(":")[0].startswith("cannot write") for line in output.splitlines()] == [True, True], (
        errors
    )
    assert (study.folder / "records.jsonl").read_bytes() == before
    assert not list(study.folder.glob("sidecars/*"))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float32("nan"), object(), {1, 2}, "\ud800"])
def test_what_json_cannot_hold_is_refused_and_nothing_of_the_batch_is_kept(study: Study, value: Any) -> None:
    study.append([{"a": 1}])
    with pytest.raises(StudyError, match="cannot be kept"):
        study.append([{"a": 2}, {"a": value}])
    assert study.records() == [{"a": 1}]


def test_finished_work_is_known_by_what_it_was_and_its_parameters_in_any_order(study: Study) -> None:
    assert not study.is_done("latency", {"threads": 2, "batch": 8})
    study.finish("latency", {"threads": 2, "batch": 8})
    again = Study(study.folder)
    assert again.is_done("latency", {"batch": 8, "threads": 2})
    assert not again.is_done("latency", {"threads": 1, "batch": 8})
    assert not again.is_done("quality", {"threads": 2, "batch": 8})
    entry = json.loads((study.folder / "manifest.jsonl").read_text())
    assert entry["status"] == "finished" and entry["what"] == "latency"
    assert abs(entry["finished_unix_s"] - time.time()) < 100


def test_key_tells_values_of_different_types_apart() -> None:
    assert len({run_key("x", {"v": value}) for value in (1, 1.5, "1", True, None, [1])}) == 6


def test_work_whose_finish_was_cut_off_is_done_again(study: Study) -> None:
    study.finish("a", {})
    path = study.folder / "manifest.jsonl"
    study.finish("b", {})
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.warns(UserWarning, match="cut off"):
        assert study.is_done("a", {}) and not study.is_done("b", {})
    study.finish("b", {})
    assert study.is_done("b", {})


def test_sidecar_comes_back_and_belongs_to_one_run(study: Study) -> None:
    arrays = {"block_ms": np.array([1.0, 2.5]), "names": np.array(["a", "b"])}
    study.append([{"run_id": "r-1", "a": 1}, {"run_id": "r-1", "a": 2}], sidecar=arrays)
    found = study.sidecar("r-1")
    assert set(found) == set(arrays) and all((found[name] == arrays[name]).all() for name in arrays)
    with pytest.raises(StudyError, match="one run_id"):
        study.append([{"run_id": "r-2"}, {"run_id": "r-3"}], sidecar=arrays)
    assert len(study.records()) == 2


def test_pickled_sidecar_is_refused_both_ways(study: Study, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="Python objects"):
        study.append([{"run_id": "r"}], sidecar={"x": np.array([object()])})
    assert not study.exists()
    study.append([{"run_id": "r"}], sidecar={"x": np.zeros(1)})
    np.savez(study.folder / "sidecars" / "r.npz", x=np.array([Boom(tmp_path / "boom")], dtype=object))
    with pytest.raises(StudyError, match="cannot read"):
        study.sidecar("r")
    assert not (tmp_path / "boom").exists()


class Boom:
    """Makes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("run_id", ["", "../evil", "a/b", ".hidden", "x" * 101, "a\n"])
def test_run_id_that_could_leave_the_folder_is_refused(study: Study, run_id: str) -> None:
    with pytest.raises(StudyError, match="run_id"):
        study.append([{"run_id": run_id}], sidecar={"x": np.zeros(1)})
    with pytest.raises(StudyError, match="run_id"):
        study.sidecar(run_id)


def test_missing_and_truncated_sidecars_are_typed_errors(study: Study) -> None:
    study.append([{"run_id": "r"}], sidecar={"x": np.arange(1000)})
    path = study.folder / "sidecars" / "r.npz"
    path.write_bytes(path.read_bytes()[:100])
    for run_id in ("r", "other"):
        with pytest.raises(StudyError, match=f"cannot read .*{run_id}.npz"):
            study.sidecar(run_id)


def run_of(run_id: str, block_ms: list[float]) -> Records:
    """A run of one record, whose figures are mostly null."""
    figures = {name: None for name, item in Measurement.__annotations__.items() if item.endswith("| None")}
    words = dict.fromkeys(("variant", "format", "precision", "runtime"), "x")
    counts = dict.fromkeys(
        ("batch_size", "num_workers", "intra_op_threads", "warmup_runs", "timed_runs", "seed"), 1
    )
    reasons = dict.fromkeys(figures, "not measured in this test")
    fields: dict[str, Any] = {**figures, **words, **counts, "lineage": (), "environment": {}}
    one = Measurement(run_id=run_id, null_reasons=reasons, **fields)
    raw = {one.key: np.array(block_ms)}
    return Records(run_id, (one,), raw, raw, raw, one.key)


def test_last_run_comes_back_whole_whatever_was_noted_after_it(study: Study) -> None:
    with pytest.raises(StudyError, match="check the path"):
        study.last_run()
    study.append([{"square": 4}])
    with pytest.raises(StudyError, match="holds no measurements yet"):
        study.last_run()
    first, second = run_of("r-1", [1.0, 2.0]), run_of("r-2", [3.0, 4.5])
    study.append_run(first)
    study.append_run(second)
    study.append([{"square": 9}])
    found = Study(study.folder).last_run()
    assert (found.run_id, found.measurements, found.baseline_key) == (
        "r-2",
        second.measurements,
        second.baseline_key,
    )
    assert found.block_ms[second.measurements[0].key].tolist() == [3.0, 4.5]


def test_a_run_in_a_sweep_says_which_and_reads_back_as_it_was(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABKIT_STUDY", str(study.folder))
    records = run_of("r-1", [1.0, 2.0])
    for run, bits, seed in (("a", 8, 5), ("b", 4, 6)):  # a parameter may have the name of a record's field
        monkeypatch.setenv("LABKIT_RUN", json.dumps({"run": run, "BITS": bits, "seed": seed}))
        note(loss=0.5)
        study.append_run(dataclasses.replace(records, run_id=f"r-{run}", measurements=(of(records, run),)))
    table = list(csv.DictReader(io.StringIO(study.to_csv())))
    assert [(row["run"], row["BITS"], row["loss"]) for row in table] == [
        ("a", "8", "0.5"),
        ("a", "8", ""),
        ("b", "4", "0.5"),
        ("b", "4", ""),
    ]
    assert [(row["seed"], row["parameter.seed"]) for row in table[1::2]] == [("1", "5"), ("1", "6")]
    assert study.last_run().measurements == (of(records, "b"),)


def of(records: Records, run: str) -> Measurement:
    return dataclasses.replace(records.measurements[0], run_id=f"r-{run}")


def test_what_is_no_field_of_a_record_is_damage_outside_a_sweep(study: Study) -> None:
    study.append_run(run_of("r-1", [1.0, 2.0]))
    path = study.folder / "records.jsonl"
    path.write_text(path.read_text().replace('{"schema_version"', '{"BITS": 8, "schema_version"'))
    with pytest.raises(StudyError, match="unknown field 'BITS'"):
        study.last_run()


def test_foreign_folder_and_file_are_refused_untouched(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("two years of work")
    with pytest.raises(StudyError, match="holds other files"):
        Study(tmp_path)
    with pytest.raises(StudyError, match="cannot be a study"):
        Study(tmp_path / "thesis.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("command", ["report", "compare", "choose"])
def test_who_wants_to_read_a_folder_without_records_is_told_what_writes_some(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from labkit.cli import main

    (tmp_path / "thin").mkdir()
    (tmp_path / "thin" / "variant.json").write_text("{}")
    words = {
        "report": ["thin", "--out", "r"],
        "compare": ["thin"],
        "choose": ["--study", "thin", "--requirement", "edge"],
    }
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["labkit", command, *words[command]])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().err
    assert ended.value.code == 1 and "labkit measure MODEL --out STUDY" in said and "labkit sweep" in said
    assert "choose a new folder" not in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["thin"]


def test_reading_where_no_study_is_makes_no_folder(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="check the path"):
        Study(tmp_path / "mispelt").records()
    assert not (tmp_path / "mispelt").exists()


def test_folder_that_cannot_be_made_is_a_typed_error(tmp_path: Path) -> None:
    study = Study(tmp_path / "folder" / "study")
    (tmp_path / "folder").write_text("a file in the way")
    with pytest.raises(StudyError, match="cannot write .*nothing was added"):
        study.append([{"a": 1}])


def test_csv_holds_every_column_with_nulls_empty_and_lists_as_json(study: Study) -> None:
    study.append([{"a": 1, "ci": [0.5, 1.0]}, {"a": None, "name": 'x,"y"\nz'}])
    rows = list(csv.DictReader(io.StringIO(study.to_csv())))
    assert rows == [
        {"a": "1", "ci": "[0.5, 1.0]", "name": ""},
        {"a": "", "ci": "", "name": 'x,"y"\nz'},
    ]


def test_html_shows_names_as_text_wherever_they_stand(tmp_path: Path) -> None:
    evil = "<script>alert('x')</script>"
    study = Study(tmp_path / "<b>study")
    study.append([{evil: evil, "deep": {"k": [evil]}}])
    page = study.to_html()
    assert "<script" not in page and "<b>" not in page
    assert page.count("&lt;script&gt;") == 3


def test_json_export_is_the_records(study: Study) -> None:
    study.append([{"a": 1}, {"b": None}])
    assert json.loads(study.to_json()) == study.records()


def test_note_appends_figures_with_the_runs_parameters(
    study: Study, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LABKIT_STUDY", str(study.folder))
    monkeypatch.setenv("LABKIT_RUN", json.dumps({"run": "id", "BITS": 8}))
    note(accuracy=np.float64(0.97))
    assert study.records() == [{"run": "id", "BITS": 8, "accuracy": 0.97}]
    with pytest.raises(ConfigError, match="'BITS' has the name of a parameter"):
        note(BITS=4)
    assert capsys.readouterr().out == ""


def test_note_does_nothing_where_nobody_collects(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("LABKIT_STUDY", raising=False)
    monkeypatch.chdir(tmp_path)
    note(accuracy=0.97)
    assert Study.current() is None and not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name != "posix", reason="SIGSTOP is POSIX's")
def test_lock_of_a_killed_holder_is_free_again(study: Study) -> None:
    code = """
import sys, time
from labkit.journal import _locked
from pathlib import Path
with _locked(Path(sys.argv[1]) / ".lock"):
    print("held", flush=True)
    time.sleep(60)
"""
    study.append([])
    holder = python(code, study.folder)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    code = "import sys; from labkit.study import Study; print(1, flush=True); Study(sys.argv[1]).append([{}])"
    waiting = python(code, study.folder)
    assert waiting.stdout is not None and waiting.stdout.readline()
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(1)
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    assert waiting.communicate(timeout=60) and waiting.returncode == 0
    assert study.records() == [{}]
