"""`optimize` from end to end, with a model and data that were made outside the kit."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

from labkit.convert import load_onnx
from labkit.data import load_dataset
from labkit.errors import Cancelled, ConfigError, DataError, LabkitError, TensorError
from labkit.strategy import Limits, Requirement, candidates, fit_to
from labkit.study import Study
from labkit.workflow import optimize
from labkit.zoo import load_model


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    """A scikit-learn network written as ONNX by hand, and its data as .npz: nothing in it is labkit's."""
    folder = tmp_path_factory.mktemp("outside")
    x, y = load_digits(return_X_y=True)
    x = x.astype(np.float32)
    network = MLPClassifier((128,), max_iter=200, random_state=0).fit(x[:1200] / 16, y[:1200])
    weights = [array.astype(np.float32) for array in (*network.coefs_, *network.intercepts_)]
    tensors = [numpy_helper.from_array(w, n) for w, n in zip(weights, ("w1", "w2", "b1", "b2"), strict=True)]
    nodes = [
        helper.make_node("Div", ["pixels", "sixteen"], ["x"]),
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "w2", "b2"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "outside",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 64])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 10])],
        [*tensors, numpy_helper.from_array(np.float32(16), "sixteen")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, folder / "mine.onnx")
    np.savez(folder / "mine.npz", x=x, y=y)
    return folder


REQUIREMENT = Requirement("mine", batch_size=8, limits=Limits(max_accuracy_drop_pp=2.0))


@pytest.fixture(scope="module")
def outcome(outside):
    told = []
    result = optimize(
        load_onnx(outside / "mine.onnx"),
        load_dataset(outside / "mine.npz"),
        REQUIREMENT,
        outside / "out",
        narrate=told.append,
    )
    return result, told


def test_it_ends_in_a_confirmed_choice_and_says_each_step(outcome):
    result, told = outcome
    assert result.decision.chosen is not None
    assert result.confirmation.measured.split == "test" and result.confirmation.status == "confirmed"
    assert {record.split for record in result.screening.measurements} == {"validation"}
    for word in ("Building", "Screening", "Pairing", "Confirming", "pool"):
        assert any(word in line for line in told)


def test_an_onnx_file_gets_the_techniques_that_need_no_training(outcome):
    result, _ = outcome
    made = {tuple(step.technique for step in variant.lineage) for variant in result.built.variants}
    assert made == {("load_onnx",), ("load_onnx", "quantize_int8")}


def test_the_finalists_were_paired_and_everyone_else_has_a_reason(outcome):
    result, _ = outcome
    assert 1 <= len(result.finals.pairs) <= 6
    assert all(pair.speedup_ci95 is not None for pair in result.finals.pairs)
    keys = {record.key for record in (*result.screening.measurements, *result.finals.measurements)}
    assert {rejection.key for rejection in result.decision.rejected} == keys - {result.decision.chosen.key}


def test_the_folder_holds_report_records_and_a_package_that_runs_alone(outcome, outside):
    result, _ = outcome
    out = outside / "out"
    page = (out / "index.html").read_text()
    assert (
        result.decision.chosen.key in page and "<script" not in page and "http" not in page.split("<body>")[1]
    )
    assert len(Study(out).records()) == len(result.records())
    assert Study(out).last_run().measurements[-1].split == "test"
    last = Study(out).last_run(but_not_on="test")
    assert [each.key for each in last.measurements] == [each.key for each in result.finals.measurements]
    script = str(out / "package" / "run.py")
    code = (
        "import runpy, sys; sys.modules['labkit'] = sys.modules['torch'] = None; sys.argv = ['run.py']; "
        f"runpy.run_path({script!r}, run_name='__main__')"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=outside)
    assert answer.returncode == 0, answer.stderr
    assert len(json.loads(answer.stdout)) == 8


def test_the_document_is_json_with_records_decision_and_environment(outcome):
    document = json.loads(json.dumps(outcome[0].to_json(), allow_nan=False))
    assert {"records", "decision", "environment"} <= set(document)
    assert document["decision"]["confirmed_on_test"]["measured"]["split"] == "test"


def test_where_nothing_qualifies_the_report_says_so(outside):
    impossible = Requirement("impossible", batch_size=8, limits=Limits(max_size_bytes=10))
    result = optimize(
        load_onnx(outside / "mine.onnx"),
        load_dataset(outside / "mine.npz"),
        impossible,
        outside / "impossible",
    )
    assert result.decision.chosen is None and result.package is None and result.confirmation is None
    assert "Nothing qualifies" in (outside / "impossible" / "index.html").read_text()


def test_names_with_html_in_them_are_escaped(outside, monkeypatch):

    named = dataclasses.replace(load_onnx(outside / "mine.onnx"), name="<img src=x onerror=alert(1)>")
    result = optimize(named, load_dataset(outside / "mine.npz"), REQUIREMENT, outside / "html")
    page = (outside / "html" / "index.html").read_text()
    assert "<img src=x" not in page and "&lt;img src=x" in page
    assert result.package is not None


def test_stopping_leaves_nothing_behind(outside, monkeypatch):
    def stop(fraction, message):
        if fraction > 0.5:
            raise Cancelled

    with pytest.raises(Cancelled):
        optimize(
            load_onnx(outside / "mine.onnx"),
            load_dataset(outside / "mine.npz"),
            REQUIREMENT,
            outside / "stopped",
            progress=stop,
        )
    assert not (outside / "stopped").exists()


def test_data_that_does_not_fit_is_refused_before_anything_long(outside, digits):
    with pytest.raises(TensorError, match="dimensions"):
        fit_to(load_onnx(outside / "mine.onnx"), digits)
    np.savez(outside / "two.npz", x=np.zeros((40, 64), np.float32), y=np.arange(40) % 2)
    with pytest.raises(DataError, match="'mine' knows 10 classes, 'two' has 2"):
        fit_to(load_onnx(outside / "mine.onnx"), load_dataset(outside / "two.npz"))


def test_an_out_folder_with_other_files_is_refused_at_once(outside):
    (outside / "full").mkdir(exist_ok=True)
    (outside / "full" / "thesis.tex").write_text("years of work")
    with pytest.raises(LabkitError, match="choose a new folder"):
        optimize(
            load_onnx(outside / "mine.onnx"),
            load_dataset(outside / "mine.npz"),
            REQUIREMENT,
            outside / "full",
        )
    assert [path.name for path in (outside / "full").iterdir()] == ["thesis.tex"]


def test_training_that_does_not_fit_the_time_is_skipped_and_said(lenet, digits):
    told = []
    built = candidates.build_variants(lenet, digits, training_seconds=0.0, narrate=told.append)
    assert {name.split(" + ")[1] for name, _ in built.skipped} == {"prune_channels", "distill"}
    assert all("--training-seconds" in reason for _, reason in built.skipped)
    assert not any("distill" in variant.name for variant in built.variants)


def test_a_student_starts_as_its_teacher_where_it_can(lenet, digits):
    _, of_resnet = candidates.trained_techniques(load_model("resnet20@digits"), digits)
    _, of_lenet = candidates.trained_techniques(lenet, digits)
    assert (of_resnet.start, of_lenet.start) == ("teacher", "random")


def test_a_file_with_a_frozen_batch_size_goes_all_the_way(outside):
    model = onnx.load(outside / "mine.onnx")
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 4
    onnx.save(model, outside / "frozen.onnx")
    frozen = load_onnx(outside / "frozen.onnx")
    requirement = Requirement("four", batch_size=4, limits=Limits(max_accuracy_drop_pp=2.0))
    result = optimize(frozen, load_dataset(outside / "mine.npz"), requirement, outside / "frozen")
    assert result.decision.chosen.batch_size == 4 and result.pool is None
    assert result.decision.chosen.n_samples % 4, "the last batch should be a partial one"


def test_a_frozen_batch_is_held_against_the_requirement_before_any_work(outside, tmp_path):
    model = load_onnx(outside / "mine.onnx")
    inputs = tuple(dataclasses.replace(spec, shape=(4, *spec.shape[1:])) for spec in model.inputs)
    frozen, told = dataclasses.replace(model, inputs=inputs), []
    with pytest.raises(ConfigError, match="batches of exactly 4, .* batch_size = 8"):
        optimize(
            frozen, load_dataset(outside / "mine.npz"), REQUIREMENT, tmp_path / "out", narrate=told.append
        )
    assert not any("Building" in line for line in told) and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("limit", ["max_accuracy_drop_pp", "max_accuracy_drop_upper_pp", "min_accuracy"])
def test_a_limit_on_accuracy_is_refused_for_a_regression_before_any_work(limit, onnx_cases, tmp_path):
    requirement = Requirement("mine", limits=Limits(**{limit: 0.5}))
    with pytest.raises(ConfigError, match=f"{limit} is for classification, .* its mse: use max_quality_drop"):
        optimize(*onnx_cases["regression"], requirement, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_model_no_better_than_guessing_is_doubted_to_the_end(outside, tmp_path):
    data = load_dataset(outside / "mine.npz")
    splits = {
        name: dataclasses.replace(split, target=(split.target + 1) % 10)
        for name, split in data.splits.items()
    }
    wrong = dataclasses.replace(data, splits=splits)
    requirement = Requirement("mine", batch_size=8)
    result = optimize(load_onnx(outside / "mine.onnx"), wrong, requirement, tmp_path / "out")
    assert "Doubtful: the model as it came is right on" in result.decision.advice
    card = json.loads((tmp_path / "out" / "package" / "card.json").read_text())
    assert result.decision.advice == card["evidence"]["advice"]
    assert "Doubtful" in (tmp_path / "out" / "index.html").read_text()


@pytest.mark.parametrize("where", ["model", "data", "class"])
def test_a_name_that_is_not_utf8_is_refused_when_it_is_read(where, outside):
    model, data = load_onnx(outside / "mine.onnx"), load_dataset(outside / "mine.npz")
    with pytest.raises(LabkitError, match=r"udcff' is not valid UTF-8"):
        if where == "model":
            dataclasses.replace(model, name="t\udcff")
        elif where == "data":
            dataclasses.replace(data, name="t\udcff")
        else:
            dataclasses.replace(data, labels=("a", "t\udcff"))
