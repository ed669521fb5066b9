"""A benchmark in parts: what is kept of earlier runs, what is replaced, and what never stands side by side."""

from __future__ import annotations

import json
import sys

import pytest

import benchmarks
from benchmarks import parts
from benchmarks.parts import Found, nulls, run_parts
from benchmarks.tables import elsewhere

STEPS: list[str] = []


def first(quick: bool) -> Found:
    STEPS.append("first")
    return Found({"a": 1.0, "b": None}, [{"x": 1}], {"b": "too dark"})


def second(quick: bool) -> Found:
    STEPS.append("second")
    return Found({"c": 2.0}, [{"y": len(STEPS)}])


def broken(quick: bool) -> Found:
    raise ZeroDivisionError("a fault in the part")


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run the benchmark "toy" with these arguments; returns its file's path."""
    STEPS.clear()
    monkeypatch.setattr(parts, "RESULTS", tmp_path)
    monkeypatch.setattr(benchmarks, "RESULTS", tmp_path)

    def start(*arguments: str, of=(first, second), keep=None, one_machine=True):
        monkeypatch.setattr(sys, "argv", ["toy", *arguments])
        run_parts("toy", of, of[:1], keep, one_machine)
        return tmp_path / "toy.json"

    return start


def test_each_part_is_added_to_what_was_written_before_in_the_order_of_the_benchmark(run):
    run("--parts", "second")
    document = json.loads(run("--parts", "first").read_text())
    assert STEPS == ["second", "first"]
    assert list(document["figures"].items()) == [("a", 1.0), ("b", None), ("c", 2.0)]
    assert document["null_reasons"] == {"b": "too dark"}
    assert document["table"] == [{"part": "first", "x": 1}, {"part": "second", "y": 1}]
    assert list(document["parts"]) == ["first", "second"]
    assert document["parts"]["first"]["measured"] and document["parts"]["first"]["figures"] == ["a", "b"]


def test_a_part_that_is_measured_again_replaces_all_that_it_found_before(run):
    def changed(quick: bool) -> Found:
        return Found({"a": 5.0, "d": 6.0}, [{"x": 9}])

    changed.__name__ = "first"
    run()
    document = json.loads(run("--parts", "first", of=(changed, second)).read_text())
    assert document["figures"] == {"a": 5.0, "d": 6.0, "c": 2.0} and document["null_reasons"] == {}
    assert [row for row in document["table"] if row["part"] == "first"] == [{"part": "first", "x": 9}]


def test_a_part_that_fails_costs_nothing_of_the_others_and_the_exit_code_tells(run, tmp_path):
    with pytest.raises(SystemExit, match="broken failed"):
        run(of=(first, broken, second))
    assert list(json.loads((tmp_path / "toy.json").read_text())["parts"]) == ["first", "second"]


@pytest.mark.parametrize(("key", "kept"), [("openvino_version", 1), ("cpu_model", 1), ("memory_bytes", 2)])
def test_parts_of_another_machine_or_other_versions_are_left_out_and_that_is_said(run, capsys, key, kept):
    file = run("--parts", "first")
    document = json.loads(file.read_text())
    document["environment"][key] = 7
    file.write_text(json.dumps(document))
    assert len(json.loads(run("--parts", "second").read_text())["parts"]) == kept
    assert (f"it has another {key}" in capsys.readouterr().err) == (kept == 1)


def test_where_each_part_compares_within_itself_one_of_another_machine_stands_beside_the_rest_and_names_it(
    run,
):
    path = run("--parts", "first", one_machine=False)
    document = json.loads(path.read_text())
    assert not elsewhere(document)
    document["environment"]["cpu_model"] = "Another One"
    path.write_text(json.dumps(document))
    again = json.loads(run("--parts", "second", one_machine=False).read_text())
    assert list(again["parts"]) == ["first", "second"] and again["environment"]["cpu_model"] == "Another One"
    (told,) = elsewhere(again)
    assert "- second: on " in told and "Another One" not in told and "first" not in told


def test_in_haste_only_some_parts_run_and_nothing_is_written(run, capsys):
    assert not run("--quick", "--json").exists()
    assert STEPS == ["first"] and json.loads(capsys.readouterr().out)["figures"] == {"a": 1.0, "b": None}


def test_where_to_keep_things_is_told_before_the_first_part_and_only_where_a_benchmark_keeps_any(
    run, tmp_path
):
    told: list = []
    run("--keep", str(tmp_path), keep=lambda folder: told.append((folder, list(STEPS))))
    run(keep=lambda folder: told.append(folder))
    assert told == [(tmp_path, [])]
    with pytest.raises(SystemExit):
        run("--keep", str(tmp_path))


def test_an_unknown_part_is_refused_before_any_is_measured(run, capsys):
    with pytest.raises(SystemExit) as told:
        run("--parts", "first,secnd")
    assert told.value.code == 2 and STEPS == []
    assert "did you mean 'second'" in capsys.readouterr().err


def test_nulls_give_every_figure_the_reason():
    found = nulls(["a", "b"], "it rained")
    assert found.figures == {"a": None, "b": None} and set(found.null_reasons.values()) == {"it rained"}
