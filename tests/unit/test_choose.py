"""`choose` is a pure function: same records, same requirement, same decision, and a reason for everything."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from labkit.errors import ConfigError
from labkit.measure import Measurement, Records, compare
from labkit.strategy import Limits, Requirement, choose, confirm, load_requirement, sheets

ALL = [
    "quality_drop",
    "accuracy_drop_pp",
    "latency_p95_ms",
    "latency_p99_ms",
    "cold_start_ms",
    "peak_memory_bytes",
]


def record(variant, ms, wrong=0, size=1000, runtime="onnxruntime", batch=32, threads=1, n=1000):
    scores = np.ones(n)
    scores[:wrong] = 0
    accuracy = float(scores.mean())
    measurement = Measurement(
        run_id="r1",
        variant=variant,
        format="torch" if runtime == "torch" else "onnx",
        precision="float32",
        runtime=runtime,
        dataset="d",
        split="validation",
        n_samples=n,
        quality_metric="accuracy",
        quality=accuracy,
        quality_ci95=(accuracy - 0.01, min(1.0, accuracy + 0.01)),
        quality_drop=None,
        accuracy=accuracy,
        accuracy_ci95=(accuracy - 0.01, min(1.0, accuracy + 0.01)),
        accuracy_drop_pp=None,
        size_bytes=size,
        latency_p50_ms=ms,
        latency_p95_ms=None,
        latency_p99_ms=None,
        throughput_samples_per_s=1000 * batch / ms,
        batch_size=batch,
        num_workers=1,
        intra_op_threads=threads,
        warmup_runs=1,
        timed_runs=20,
        cold_start_ms=None,
        peak_memory_bytes=None,
        macs=1,
        parameters=1,
        nonzero_parameters=1,
        lineage=(),
        environment={"cpu_model": "test"},
        seed=0,
        null_reasons=dict.fromkeys(ALL, "not measured in this test"),
    )
    return measurement, scores


def comparison(*rows, split="validation", block_ms=()):
    """A paired comparison of made-up records; `block_ms` overrides a variant's block times."""
    made = [record(*row) if isinstance(row, tuple) else record(**row) for row in rows]
    made = [(dataclasses.replace(m, split=split), scores) for m, scores in made]
    blocks = {
        m.key: dict(block_ms).get(m.variant, m.latency_p50_ms) * np.linspace(1, 1.01, 10) for m, _ in made
    }
    return compare(
        Records("r1", tuple(m for m, _ in made), blocks, blocks, {m.key: s for m, s in made}, made[0][0].key)
    )


BASE = {"variant": "base", "ms": 10.0, "wrong": 20, "runtime": "torch"}
FAST = {"variant": "fast", "ms": 1.0, "wrong": 60}
GOOD = {"variant": "good", "ms": 2.0, "wrong": 22, "size": 500}
SLOW = {"variant": "slow", "ms": 5.0, "wrong": 20, "size": 400}


def requirement(objective="throughput_samples_per_s", **limits):
    return Requirement("test", objective=objective, limits=Limits(**limits))


def test_the_best_by_the_objective_among_those_within_the_limits_is_taken():
    found = comparison(BASE, FAST, GOOD, SLOW)
    assert choose(found, requirement(max_accuracy_drop_pp=0.5)).chosen.variant == "good"
    assert choose(found, requirement()).chosen.variant == "fast"
    assert choose(found, requirement("size_bytes", max_accuracy_drop_pp=0.5)).chosen.variant == "slow"
    assert choose(found, requirement("latency_p50_ms", max_accuracy_drop_pp=0.1)).chosen.variant == "slow"


def test_every_other_candidate_has_exactly_one_reason():
    decision = choose(comparison(BASE, FAST, GOOD, SLOW), requirement(max_accuracy_drop_pp=0.5))
    reasons = {rejection.key.split(" ")[0]: rejection for rejection in decision.rejected}
    assert set(reasons) == {"base", "fast", "slow"} and len(decision.rejected) == 3
    assert reasons["base"].broke == "runtimes"
    assert reasons["fast"].broke == "max_accuracy_drop_pp" and reasons["fast"].value == pytest.approx(4.0)
    assert "above the limit of 0.5 points" in reasons["fast"].reason
    assert reasons["slow"].broke == "objective" and "16,000/s" in reasons["slow"].reason


def test_the_binding_limit_is_the_one_that_keeps_a_better_one_out():
    found = comparison(BASE, FAST, GOOD, SLOW)
    assert choose(found, requirement(max_accuracy_drop_pp=0.5)).binding == "max_accuracy_drop_pp"
    assert choose(found, requirement()).binding == ""
    assert "relax max_accuracy_drop_pp" in choose(found, requirement(max_accuracy_drop_pp=0.5)).advice


def test_where_nothing_qualifies_the_nearest_miss_is_named():
    decision = choose(comparison(BASE, GOOD, SLOW), requirement(max_size_bytes=390))
    assert decision.chosen is None
    assert "slow" in decision.advice and "relax max_size_bytes" in decision.advice


def test_another_batch_size_thread_count_or_runtime_is_not_mixed_in():
    found = comparison(BASE, {**GOOD, "batch": 1}, {**SLOW, "threads": 2}, {**FAST, "runtime": "openvino"})
    broke = {
        r.key.split(" ")[0]: r.broke for r in choose(found, requirement(max_accuracy_drop_pp=0.5)).rejected
    }
    assert broke == {
        "base": "runtimes",
        "good": "batch_size",
        "slow": "threads",
        "fast": "max_accuracy_drop_pp",
    }


def test_an_unmeasured_figure_does_not_pass_a_limit():
    decision = choose(comparison(BASE, GOOD), requirement(max_latency_p95_ms=100))
    assert decision.chosen is None
    assert any("could not be measured" in rejection.reason for rejection in decision.rejected)


def test_the_upper_end_of_the_interval_can_be_limited():
    found = comparison(BASE, {**GOOD, "wrong": 24})
    assert choose(found, requirement(max_accuracy_drop_pp=0.5)).chosen is not None
    assert choose(found, requirement(max_accuracy_drop_upper_pp=0.5)).chosen is None


def test_ties_go_to_the_smaller_file_and_the_order_of_records_does_not_matter():
    one, two = {**GOOD, "variant": "one", "size": 700}, {**GOOD, "variant": "two", "size": 600}
    for rows in ((BASE, one, two), (BASE, two, one)):
        assert choose(comparison(*rows), requirement()).chosen.variant == "two"


def test_a_speed_counts_as_the_paired_blocks_say_and_not_as_its_own_median_does():
    one, two = {**GOOD, "variant": "one", "ms": 2.0}, {**GOOD, "variant": "two", "ms": 2.5}
    found = comparison(BASE, one, two, block_ms={"one": 2.2, "two": 1.9})
    assert found.pair(found.measurements[2].key).speedup > found.pair(found.measurements[1].key).speedup
    assert choose(found, requirement()).chosen.variant == "two"
    assert choose(found, requirement("latency_p50_ms")).chosen.variant == "two"
    beaten = next(each for each in choose(found, requirement()).rejected if each.broke == "objective")
    assert beaten.value == pytest.approx(3200 * 10 / 2.2) and beaten.limit == pytest.approx(3200 * 10 / 1.9)


def test_overlapping_intervals_are_called_no_difference():
    one, two = {**GOOD, "variant": "one"}, {**GOOD, "variant": "two"}
    noise = 2.0 * np.exp(np.random.RandomState(0).normal(0, 0.2, 10))
    for blocks, same in (({"one": noise, "two": noise[::-1]}, True), ({"one": 2.0, "two": 4.0}, False)):
        decision = choose(comparison(BASE, one, two, block_ms=blocks), requirement())
        beaten = next(each for each in decision.rejected if each.broke == "objective")
        assert ("no difference detected" in beaten.reason) == same


def test_the_test_split_is_not_chosen_by():
    with pytest.raises(ConfigError, match="only the winner sees, once"):
        choose(comparison(BASE, GOOD, split="test"), requirement())


@pytest.mark.parametrize(
    ("wrong", "limits", "status"),
    [
        (22, {"max_accuracy_drop_pp": 0.5}, "confirmed"),
        (30, {"max_accuracy_drop_pp": 0.5}, "not resolved"),
        (22, {"max_accuracy_drop_upper_pp": 0.2}, "not resolved"),
        (90, {"max_accuracy_drop_pp": 0.5}, "broken"),
        (90, {"min_accuracy": 0.97}, "broken"),
        (31, {"min_accuracy": 0.97}, "not resolved"),
        (22, {"max_latency_p50_ms": 1.9}, "not resolved"),
    ],
)
def test_the_winner_is_held_to_its_limits_on_test(wrong, limits, status):
    verdict = confirm(comparison(BASE, {**GOOD, "wrong": wrong}, split="test"), requirement(**limits))
    assert verdict.status == status and "1,000 test samples" in verdict.reason
    assert ("above the limit" in verdict.reason or "below the limit" in verdict.reason) == (
        status != "confirmed"
    )


def test_what_so_few_samples_cannot_rule_out_is_said():
    limits = {"max_accuracy_drop_pp": 0.5}
    for wrong, said in ((22, True), (20, False)):
        verdict = confirm(comparison(BASE, {**GOOD, "wrong": wrong}, split="test"), requirement(**limits))
        assert verdict.status == "confirmed"
        assert ("so few cannot rule out" in verdict.reason) == said, verdict.reason


def test_a_decision_is_json():
    document = json.loads(json.dumps(choose(comparison(BASE, GOOD), requirement()).to_json()))
    assert document["variant"] == "good" and document["predicted"]["latency_p50_ms"] == 2.0
    assert document["platform"] == "local" and document["hardware"] == "test"


def test_the_shipped_sheets_load():
    assert "classroom" in sheets()
    for name in sheets():
        assert load_requirement(name).limits.given()


@pytest.mark.parametrize(
    "fields",
    [
        {"objective": "speed"},
        {"batch_size": 0},
        {"threads": 0},
        {"runtimes": ()},
        {"runtimes": ("tensorrtt",)},
    ],
)
def test_a_bad_requirement_names_the_field(fields):
    with pytest.raises(ConfigError, match=next(iter(fields))):
        Requirement("test", **fields)


@pytest.mark.parametrize("value", ["0.5", True, [0.5], float("nan")])
def test_a_limit_must_be_a_number(value):
    with pytest.raises(ConfigError, match="max_accuracy_drop_pp"):
        Limits(max_accuracy_drop_pp=value)
