"""`measure` from end to end, on real runtimes; and what it does to those who cheat."""

from __future__ import annotations

import copy
import dataclasses
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.measurer import (
    CHEATS,
    Behaviour,
    Planted,
    accusation,
    gives_a_constant,
    guesses_when_timed,
    honest,
    remembers_content,
    works_when_watched,
)
from labkit.data import Dataset
from labkit.errors import Cancelled, ConfigError, MeasurementError, TensorError
from labkit.formats import READERS
from labkit.measure import Candidate, Measurement, Protocol, Records, honesty, lock, measure, run
from labkit.measure.quality import evaluate
from labkit.measure.run import open_session
from labkit.runtimes import RunOptions, Session, get_runtime
from labkit.variant import Array, TensorSpec, Variant, get_format

BRIEF = Protocol.brief()
TINY = Protocol(blocks=2, block_ms=1.0, warmup_ms=1.0, min_runs_per_block=2)
Cases = dict[str, tuple[Variant, Dataset]]


@pytest.fixture(autouse=True)
def own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_LOCK", str(tmp_path / "own.lock"))


class Counted:
    """Opens real sessions, and knows how many were ever open at once and how many still are."""

    def __init__(self) -> None:
        self.opened: list[str] = []
        self.open_now = self.most_open = 0

    def __call__(self, candidate: Candidate) -> Session:
        session = open_session(candidate)
        self.opened.append(candidate.key)
        self.open_now += 1
        self.most_open = max(self.most_open, self.open_now)
        close = session.close

        def counted_close() -> None:
            self.open_now -= 1
            close()

        session.close = counted_close  # type: ignore[method-assign]
        return session


@pytest.fixture(scope="module")
def paired(onnx_cases: Cases, lenet: Variant) -> Records:
    exported, digits = onnx_cases["image"]
    baseline = Candidate(lenet, "torch", 4)
    others = [Candidate(exported, "onnxruntime", 4), Candidate(exported, "onnxruntime", 1)]
    return measure(others, digits, against=baseline, protocol=BRIEF, seed=7)


def test_a_paired_run_has_a_whole_record_for_each(paired: Records) -> None:
    assert [item.key for item in paired.measurements] == [
        "lenet5@digits · torch · b4 · t1 · float32",
        "lenet5@digits · onnxruntime · b4 · t1 · float32",
        "lenet5@digits · onnxruntime · b1 · t1 · float32",
    ]
    assert len({item.run_id for item in paired.measurements}) == 1
    for item in paired.measurements:
        assert item == Measurement.from_json(item.to_json())
        assert (item.dataset, item.split, item.seed) == ("digits", "validation", 7)
        assert item.environment["timing_lock"] == "held" and 0 < item.environment["timing_cpu_share"] < 3
        assert (
            item.timed_runs == len(paired.run_ms[item.key]) and len(paired.block_ms[item.key]) == BRIEF.blocks
        )
        assert item.throughput_samples_per_s == pytest.approx(
            1e3 * item.batch_size / np.median(paired.block_ms[item.key])
        )
        assert item.macs == 3_522_000 and item.parameters == item.nonzero_parameters == 656_080
        assert item.cold_start_ms is not None and item.cold_start_ms > 0
        assert item.lineage[0]["technique"] == "train"


def test_quality_is_that_of_the_quality_pass(paired: Records, lenet: Variant, digits: Dataset) -> None:
    scores = evaluate(lenet, digits)
    for item in paired.measurements:
        assert np.array_equal(paired.scores[item.key], scores)
        assert item.quality == item.accuracy == scores.mean() and item.n_samples == len(scores)
        assert item.quality_drop == item.accuracy_drop_pp == 0.0


def test_a_drop_is_positive_when_worse_and_in_points_too(lenet: Variant, digits: Dataset) -> None:
    module = copy.deepcopy(lenet.model)
    torch.nn.init.zeros_(module.fc2.weight[:3])
    worse = dataclasses.replace(lenet, name="worse", model=module)
    records = measure(
        [Candidate(worse, "torch", 8)], digits, against=Candidate(lenet, "torch", 8), protocol=BRIEF
    )
    baseline, item = records.measurements
    assert baseline.quality_drop == 0.0 and baseline.quality is not None and item.quality is not None
    assert item.quality_drop == pytest.approx(baseline.quality - item.quality) and item.quality_drop > 0.05
    assert item.accuracy_drop_pp == pytest.approx(100 * item.quality_drop)


def test_candidates_that_differ_in_batch_size_share_a_session(
    onnx_cases: Cases, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported, digits = onnx_cases["image"]
    opener = Counted()
    candidates = [Candidate(exported, "onnxruntime", size) for size in (8, 1, 2)]
    monkeypatch.setattr(run, "_engines_started", {"onnxruntime"})
    records = measure(candidates, digits, protocol=TINY, n_samples=20, open_session=opener)
    assert opener.opened == [candidates[1].key], "opened once, for the smallest batch"
    assert len({item.cold_start_ms for item in records.measurements}) == 1


def test_each_quality_is_scored_once(
    lenet: Variant, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: list[str] = []
    score = run.score_samples

    def counted(session: Session, *arguments: Any, **more: Any) -> Any:
        scored.append(f"{session.options.precision}, {session.options.threads}")
        return score(session, *arguments, **more)

    monkeypatch.setattr(run, "score_samples", counted)
    ways = [("float32", 1), ("float32", 2), ("bfloat16", 1)]
    candidates = [Candidate(lenet, "torch", 1, threads, precision) for precision, threads in ways]
    measure(candidates, digits, protocol=TINY, n_samples=20)
    assert scored == ["float32, 1", "bfloat16, 1"]


def test_an_engine_is_started_before_the_first_cold_start(
    lenet: Variant, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "_engines_started", set())
    opener = Counted()
    candidates = [Candidate(lenet, "torch"), Candidate(lenet, "torch", precision="bfloat16")]
    measure(candidates, digits, protocol=TINY, n_samples=20, open_session=opener)
    assert opener.opened == [candidates[0].key, candidates[0].key, candidates[1].key]
    assert (opener.most_open, opener.open_now) == (1, 0), "the one that started it was thrown away"


def test_screening_holds_one_session_at_a_time_and_a_paired_run_all(
    onnx_cases: Cases, lenet: Variant
) -> None:
    exported, digits = onnx_cases["image"]
    candidates = [Candidate(lenet, "torch"), Candidate(lenet, "torch", 2), Candidate(exported, "onnxruntime")]
    screening, together = Counted(), Counted()
    unpaired = measure(candidates, digits, protocol=TINY, n_samples=20, open_session=screening)
    assert (screening.most_open, screening.open_now) == (1, 0)
    assert unpaired.baseline_key is None
    assert all("baseline" in item.null_reasons["quality_drop"] for item in unpaired.measurements)
    measure(candidates, digits, against=candidates[0], protocol=BRIEF, n_samples=20, open_session=together)
    assert (together.most_open, together.open_now) == (2, 0)


@pytest.mark.parametrize("case", ["image", "two_inputs", "regression"])
def test_models_of_any_shape_are_measured(case: str, cases: Cases, onnx_cases: Cases) -> None:
    (variant, dataset), (exported, _) = cases[case], onnx_cases[case]
    candidates = [Candidate(variant, "torch", 3), Candidate(exported, "onnxruntime", 3)]
    records = measure(candidates, dataset, protocol=TINY)
    for item in records.measurements:
        assert item.quality_metric == dataset.task.metric and item.quality is not None
        assert (item.accuracy is None) == (case == "regression")
        assert all(name in item.null_reasons for name, value in item.to_json().items() if value is None)


def test_too_few_runs_leave_the_high_percentiles_null_with_the_reason(
    lenet: Variant, digits: Dataset
) -> None:
    protocol = dataclasses.replace(TINY, min_runs_per_block=2, max_runs_per_block=2)
    (item,) = measure([Candidate(lenet, "torch")], digits, protocol=protocol, n_samples=20).measurements
    assert item.latency_p50_ms is not None and item.timed_runs == 4
    assert item.latency_p95_ms is None and "59 needed" in item.null_reasons["latency_p95_ms"]
    assert item.latency_p99_ms is None and "299 needed" in item.null_reasons["latency_p99_ms"]
    assert "with_memory=True" in item.null_reasons["peak_memory_bytes"]


def test_a_batch_larger_than_the_split_goes_round(lenet: Variant, digits: Dataset) -> None:
    (item,) = measure([Candidate(lenet, "torch", 7)], digits, protocol=TINY, n_samples=3).measurements
    assert item.n_samples == 3 and item.batch_size == 7


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"candidates": []}, "candidates=[]"),
        ({"split": "tset"}, "did you mean 'test'"),
        ({"n_samples": 0}, "n_samples=0"),
        ({"n_samples": 10_000}, "n_samples=10000"),
        ({"against": 0, "protocol": Protocol.quick()}, "Protocol.blocks=4"),
    ],
)
def test_what_cannot_be_measured_is_refused_at_once(
    change: dict[str, Any], words: str, lenet: Variant, digits: Dataset
) -> None:
    candidate = Candidate(lenet, "torch")
    arguments = {"candidates": [candidate], **change}
    if "against" in change:
        arguments["against"] = candidate
    with pytest.raises(ConfigError) as caught:
        measure(dataset=digits, **arguments)
    assert words in str(caught.value)


def test_two_models_of_one_name_are_refused(lenet: Variant, cases: Cases, digits: Dataset) -> None:
    impostor = dataclasses.replace(cases["regression"][0], name=lenet.name)
    with pytest.raises(ConfigError, match="rename one"):
        measure([Candidate(lenet, "torch"), Candidate(impostor, "torch")], digits)


def test_a_model_of_another_task_is_refused(cases: Cases, digits: Dataset) -> None:
    with pytest.raises(ConfigError, match="regression"):
        measure([Candidate(cases["regression"][0], "torch")], digits)


def test_more_than_can_be_open_at_once_is_refused(lenet: Variant, digits: Dataset) -> None:
    candidates = [Candidate(lenet, "torch", size) for size in range(1, 18)]
    with pytest.raises(ConfigError, match="at most 16"):
        measure(candidates, digits, against=candidates[0])


def test_workers_need_a_pools_opener(lenet: Variant, digits: Dataset) -> None:
    with pytest.raises(ConfigError, match="open_session"):
        measure([Candidate(lenet, "torch", num_workers=2)], digits)


def test_a_busy_machine_is_waited_for_once_in_a_run(lenet: Variant, digits: Dataset) -> None:
    release, ready = threading.Event(), threading.Event()

    def work() -> None:
        with lock.shared():
            ready.set()
            release.wait(120)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        assert ready.wait(10)
        protocol = dataclasses.replace(TINY, lock_timeout_s=3.0)
        candidates = [Candidate(lenet, "torch", precision=precision) for precision in ("float32", "bfloat16")]
        waits: list[float] = []
        wait = lock.exclusive
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(lock, "exclusive", lambda timeout_s: (waits.append(timeout_s), wait(timeout_s))[1])
            records = measure(candidates, digits, protocol=protocol, n_samples=10)
        assert waits[0] == 3.0 and set(waits[1:]) == {0.0}
        assert all("not held" in item.environment["timing_lock"] for item in records.measurements)
    finally:
        release.set()
        worker.join()


@pytest.mark.parametrize("when", ["loading", "quality", "timing", "counting"])
def test_cancelling_at_any_point_closes_every_session(when: str, lenet: Variant, digits: Dataset) -> None:
    def stop(fraction: float, message: str) -> None:
        assert 0 <= fraction <= 1
        if when in message:
            raise Cancelled

    opener = Counted()
    with pytest.raises(Cancelled):
        measure([Candidate(lenet, "torch")], digits, protocol=TINY, progress=stop, open_session=opener)
    assert opener.open_now == 0


def test_progress_only_goes_forward(lenet: Variant, digits: Dataset) -> None:
    seen: list[float] = []
    candidates = [Candidate(lenet, "torch"), Candidate(lenet, "torch", precision="bfloat16")]
    measure(candidates, digits, protocol=TINY, progress=lambda fraction, message: seen.append(fraction))
    assert seen == sorted(seen) and seen[-1] == 1.0


@pytest.mark.parametrize("cheat", CHEATS, ids=lambda cheat: cheat.__name__)
def test_a_cheat_is_caught(cheat: Behaviour) -> None:
    assert accusation(cheat), f"{cheat.__name__}: {cheat.__doc__}"


def test_an_honest_session_is_not_accused() -> None:
    assert accusation(honest) is None


@pytest.mark.parametrize(
    ("check", "cheat"),
    [
        ("require_variety", gives_a_constant),
        ("require_scored_answers", guesses_when_timed),
        ("require_work", remembers_content),
        ("Witness.check", works_when_watched),
    ],
)
def test_without_its_check_a_cheat_goes_through(
    check: str, cheat: Behaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, _, name = check.rpartition(".")
    monkeypatch.setattr(getattr(honesty, owner) if owner else honesty, name, lambda *arguments: None)
    assert accusation(cheat) is None


@pytest.mark.parametrize("bound", ["_MOST_BYTES", "_MOST_SECONDS"])
def test_large_batches_and_slow_sessions_are_tried_fewer_times_before_a_cheat_is_named(
    bound: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, unseen = [], honesty._unseen
    monkeypatch.setattr(honesty, bound, 1e-6)
    monkeypatch.setattr(honesty, "_unseen", lambda *given: made.append(1) or unseen(*given))
    assert accusation(remembers_content) is not None
    assert len(made) == 8 * len(honesty._TRIALS)


def test_a_model_that_is_constant_by_itself_is_no_cheat(digits: Dataset, lenet: Variant) -> None:
    collapsed = copy.deepcopy(lenet.model)
    torch.nn.init.zeros_(collapsed.fc2.weight)
    variant = dataclasses.replace(lenet, name="collapsed", model=collapsed)
    (item,) = measure([Candidate(variant, "torch")], digits, protocol=TINY, n_samples=50).measurements
    assert item.accuracy is not None and item.accuracy < 0.3


class Answers(Session):
    """Gives what it is told to."""

    def __init__(self, outputs: Mapping[str, Array] | Exception) -> None:
        spec = TensorSpec("x", "float32", ("batch", 1))
        out = TensorSpec("y", "float32", ("batch", 2))
        super().__init__(Variant("told", "onnx", b"", (spec,), (out,)), RunOptions())
        self.outputs = outputs

    def execute(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        if isinstance(self.outputs, Exception):
            raise self.outputs
        return dict(self.outputs)


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        ({}, "no output 'y'"),
        ({"y": np.zeros((2, 2), np.float32)}, "size 2 on axis 0"),
        ({"y": np.zeros((3, 1), np.float32)}, "size 1 on axis 1"),
        ({"y": np.zeros((3, 2), np.float64)}, "float64"),
        ({"y": np.full((3, 2), np.inf, np.float32)}, "infinity"),
        (RuntimeError("engine on fire"), "engine on fire"),
    ],
)
def test_a_watched_run_names_what_is_wrong(outputs: Any, words: str) -> None:
    with pytest.raises((MeasurementError, TensorError), match="told") as caught:
        honesty.watched_run("told", Answers(outputs), {"x": np.zeros((3, 1), np.float32)})
    assert words in str(caught.value)


def test_unseen_inputs_are_new_and_laid_out_alike() -> None:
    image = np.random.default_rng(1).normal(size=(2, 5, 5, 1)).astype(np.float32).transpose(0, 3, 1, 2)
    assert image.flags.c_contiguous and image.strides[1] == 4, "numpy's own choice for an axis of size 1"
    random = np.random.default_rng(0)
    fresh = [honesty._unseen({"x": image}, random)["x"] for _ in range(20)]
    assert len({each.tobytes() for each in [image, *fresh]}) == 21
    assert all(each.strides == image.strides and each.dtype == np.float32 for each in fresh)


def test_unseen_whole_numbers_stay_among_those_that_were_there() -> None:
    ids = np.arange(12).reshape(3, 4).T  # not contiguous
    fresh = [honesty._unseen({"ids": ids}, np.random.default_rng(seed))["ids"] for seed in range(20)]
    assert all(sorted(each.ravel()) == list(range(12)) and each.shape == (4, 3) for each in fresh)
    assert len({each.tobytes() for each in fresh}) > 10


def test_the_runtime_sees_the_planted_session_as_its_own(lenet: Variant) -> None:
    with get_runtime("torch").load(lenet) as session:
        assert Planted(session, honest).variant is lenet


def test_the_help_names_every_kind_of_file_that_is_taken(monkeypatch, capsys):
    from labkit.cli import main

    monkeypatch.setattr("sys.argv", ["labkit", "measure", "--help"])
    with pytest.raises(SystemExit):
        main()
    shown = capsys.readouterr().out
    endings = [get_format(name).suffix for name in READERS if get_format(name).suffix]
    assert ".onnx" in endings
    assert [each for each in (*endings, ".lkz", "SavedModel") if each not in shown] == []
