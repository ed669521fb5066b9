"""`compare`: what it claims from records made by hand, and what it refuses to claim."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from typing import Any

import numpy as np
import pytest

from labkit.errors import ConfigError, MeasurementError
from labkit.measure import Measurement, Records, compare
from labkit.task import Classification, Regression

N = 200
NOT_HERE = (
    "quality_drop", "accuracy", "accuracy_ci95", "accuracy_drop_pp", "latency_p95_ms", "latency_p99_ms",
    "cold_start_ms", "peak_memory_bytes", "macs", "parameters", "nonzero_parameters",
)  # fmt: skip
BASE_SCORES = np.repeat([1.0, 0.0], [180, 20])


def measurement(name: str, **changes: Any) -> Measurement:
    nothing: dict[str, Any] = dict.fromkeys(NOT_HERE)
    values: dict[str, Any] = {
        **nothing,
        "run_id": "r1",
        "variant": name,
        "format": "onnx",
        "precision": "float32",
        "runtime": "onnxruntime",
        "dataset": "digits",
        "split": "validation",
        "n_samples": N,
        "quality_metric": "accuracy",
        "quality": 0.9,
        "quality_ci95": (0.85, 0.93),
        "size_bytes": 1_000_000,
        "latency_p50_ms": 10.0,
        "throughput_samples_per_s": 100.0,
        "batch_size": 1,
        "num_workers": 1,
        "intra_op_threads": 1,
        "warmup_runs": 5,
        "timed_runs": 60,
        "lineage": (),
        "environment": {},
        "seed": 0,
        "null_reasons": dict.fromkeys(nothing, "not in this test"),
    }
    return Measurement(**{**values, **changes})


def run(
    *others: Measurement, block_ms: dict[str, Any] | None = None, scores: Any = None, **changes: Any
) -> Records:
    """A paired run of a baseline of 10 ms ± 5 % a block and `others`; by name, what is not 10 ms or not its scores."""
    baseline = changes.pop("baseline", measurement("base"))
    everything = (baseline, *others)
    drift = np.exp(np.random.default_rng(0).normal(0, 0.05, 12))
    blocks = {item.key: drift * (block_ms or {}).get(item.variant, 10.0) for item in everything}
    by_key = {item.key: (scores or {}).get(item.variant, BASE_SCORES) for item in everything}
    return Records(**{"run_id": "r1", "measurements": everything, "block_ms": blocks, "run_ms": blocks,
                      "scores": by_key, "baseline_key": baseline.key, **changes})  # fmt: skip


def jitter(seed: int, size: float = 0.01) -> np.ndarray:
    return np.exp(np.random.default_rng(seed).normal(0, size, 12))


def test_speedup_is_the_baselines_time_over_the_candidates() -> None:
    pair = compare(run(measurement("fast"), block_ms={"fast": 5.0 * jitter(1)})).pairs[0]
    assert pair.speedup == pytest.approx(2.0, rel=0.02) and pair.speed_verdict == "better"
    assert pair.speedup_ci95 is not None and pair.speedup_ci95[0] < 2.0 < pair.speedup_ci95[1]
    assert pair.baseline_key == "base · onnxruntime · b1 · t1 · float32"


def test_a_drift_that_both_share_does_not_widen_the_interval() -> None:
    pair = compare(run(measurement("fast"), block_ms={"fast": 5.0})).pairs[0]
    assert pair.speedup == pytest.approx(2.0)
    assert pair.speedup_ci95 == pytest.approx((2.0, 2.0))


def test_slower_is_worse_and_noise_is_no_difference() -> None:
    records = run(
        measurement("slow"),
        measurement("twin"),
        block_ms={"slow": 11.0 * jitter(1), "twin": 10.0 * jitter(5, 0.05)},
    )
    verdicts = {pair.key.split(" ")[0]: pair.speed_verdict for pair in compare(records).pairs}
    assert verdicts == {"slow": "worse", "twin": "no difference detected"}


def test_speed_is_compared_per_sample() -> None:
    pair = compare(run(measurement("big", batch_size=8), block_ms={"big": 40.0 * jitter(1)})).pairs[0]
    assert pair.speedup == pytest.approx(2.0, rel=0.02)


def test_drop_is_positive_when_worse_and_in_points() -> None:
    scores = BASE_SCORES.copy()
    scores[:10] = 0.0
    pair = compare(run(measurement("worse"), scores={"worse": scores})).pairs[0]
    expected = Classification().compare(BASE_SCORES, scores)
    assert pair.quality_drop == pytest.approx(0.05) and pair.accuracy_drop_pp == pytest.approx(5.0)
    assert pair.quality_drop_ci95 == pytest.approx((-expected.ci95[1], -expected.ci95[0]))
    assert pair.accuracy_drop_pp_ci95 == pytest.approx(
        [100 * bound for bound in pair.quality_drop_ci95 or ()]
    )
    assert pair.p_value == expected.p_value < 0.01 and pair.quality_verdict == "worse"


def test_one_sample_of_200_is_no_difference_detected() -> None:
    scores = BASE_SCORES.copy()
    scores[0] = 0.0
    pair = compare(run(measurement("close"), scores={"close": scores})).pairs[0]
    assert pair.accuracy_drop_pp == pytest.approx(0.5) and pair.quality_verdict == "no difference detected"


def test_a_lower_error_is_better() -> None:
    errors = np.random.default_rng(0).uniform(1, 2, N)
    mse = {"quality_metric": "mse", "quality": 1.5, "quality_ci95": (1.4, 1.6)}
    records = run(
        measurement("good", **mse),
        baseline=measurement("base", **mse),
        scores={"base": errors, "good": errors - 0.5 - jitter(3)[0] / 100},
    )
    comparison = compare(records)
    pair = comparison.pairs[0]
    assert pair.quality_drop is not None and pair.quality_drop < 0 and pair.quality_verdict == "better"
    assert pair.accuracy_drop_pp is None and pair.accuracy_drop_pp_ci95 is None
    assert pair.quality_drop == pytest.approx(
        -Regression().compare(errors, errors + 0.51).difference, rel=0.01
    )


def test_candidates_that_did_not_take_turns_get_no_ratio_but_keep_their_quality() -> None:
    comparison = compare(run(measurement("fast"), block_ms={"fast": 5.0}, baseline_key=None))
    pair = comparison.pairs[0]
    assert comparison.baseline_key.startswith("base")
    assert (pair.speedup, pair.speedup_ci95, pair.speed_verdict) == (None, None, None)
    assert "against" in pair.null_reasons["speedup"]
    assert pair.quality_drop == 0.0 and pair.p_value == 1.0


def test_single_measurements_give_a_drop_without_an_interval() -> None:
    pair = compare([measurement("base"), measurement("worse", quality=0.85)]).pairs[0]
    assert pair.quality_drop == pytest.approx(0.05) and pair.quality_drop_ci95 is None
    assert pair.speedup is None
    assert set(pair.null_reasons) == {
        "speedup", "speedup_ci95", "speed_verdict", "quality_drop_ci95", "p_value", "quality_verdict",
    }  # fmt: skip


def test_records_of_different_runs_are_refused_unless_asked_for_and_then_it_is_said() -> None:
    records = [measurement("base"), measurement("base", run_id="r2")]
    with pytest.raises(MeasurementError, match="2 runs"):
        compare(records)
    comparison = compare(records, allow_mixed_runs=True)
    assert len(comparison.pairs) == 1 and "2 runs" in comparison.notes[0] and "2 runs" in comparison.table()


def test_quality_on_different_samples_is_not_compared() -> None:
    pair = compare([measurement("base"), measurement("other", n_samples=100)]).pairs[0]
    assert pair.quality_drop is None and "different samples" in pair.null_reasons["quality_drop"]


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"timing_lock": "not held: waited 60 s for it"}, "other work"),
        ({"timing_cpu_share": 0.31}, "31% of a core"),
    ],
)
def test_a_disturbed_measurement_is_noted(environment: dict[str, Any], words: str) -> None:
    quiet = {"timing_lock": "held", "timing_cpu_share": 0.99}
    assert compare(run(measurement("calm", environment=quiet))).notes == ()
    (note,) = compare(run(measurement("disturbed", environment={**quiet, **environment}))).notes
    assert words in note


def test_any_record_can_be_the_baseline() -> None:
    records = run(measurement("fast"), measurement("faster"), block_ms={"fast": 5.0, "faster": 2.5})
    comparison = compare(records, against=records.measurements[1].key)
    speedups = {pair.key.split(" ")[0]: pair.speedup for pair in comparison.pairs}
    assert speedups == {"base": pytest.approx(0.5), "faster": pytest.approx(2.0)}
    assert [pair is None for _, pair in comparison.with_pairs()] == [False, True, False]


def test_unknown_keys_and_figures_get_a_suggestion() -> None:
    comparison = compare(run(measurement("fast")))
    with pytest.raises(ConfigError, match="did you mean 'base ·"):
        compare(run(measurement("fast")), against="bse · onnxruntime · b1 · t1 · float32")
    with pytest.raises(ConfigError, match="did you mean 'throughput_samples_per_s'"):
        comparison.pareto(x="throughput")
    with pytest.raises(ConfigError, match="did you mean 'fast"):
        comparison.pair("fst · onnxruntime · b1 · t1 · float32")
    with pytest.raises(ConfigError, match="no records"):
        compare([])


def front(*points: tuple[str, float, float], **axes: str) -> list[str]:
    items = [
        measurement(name, latency_p50_ms=x, quality=y, throughput_samples_per_s=x) for name, x, y in points
    ]
    return [item.variant for item in compare(items).pareto(**axes)]


def test_the_front_holds_what_nobody_beats() -> None:
    points = (
        ("slow", 9.0, 0.99),
        ("mid", 5.0, 0.95),
        ("beaten", 6.0, 0.95),
        ("fast", 1.0, 0.80),
        ("bad", 2.0, 0.70),
    )
    assert front(*points) == ["fast", "mid", "slow"]
    assert front(*points, x="throughput_samples_per_s") == ["slow"]


def test_equals_are_both_on_the_front() -> None:
    assert front(("a", 1.0, 0.9), ("b", 1.0, 0.9)) == ["a", "b"]


def test_the_front_turns_round_where_lower_quality_is_better() -> None:
    mse = {"quality_metric": "mse", "quality_ci95": None, "null_reasons": measurement("x").null_reasons}
    reasons = {**mse.pop("null_reasons"), "quality_ci95": "not in this test"}
    items = [measurement("a", quality=1.0, **mse, null_reasons=reasons),
             measurement("b", quality=2.0, **mse, null_reasons=reasons)]  # fmt: skip
    assert [item.variant for item in compare(items).pareto()] == ["a"]


def test_the_front_leaves_out_what_has_no_figure() -> None:
    assert compare([measurement("a")]).pareto(x="latency_p95_ms") == ()


def test_the_table_shows_every_figure_with_its_interval() -> None:
    records = run(measurement("fast", latency_p50_ms=5.0), block_ms={"fast": 5.0 * jitter(1)})
    lines = compare(records).table().splitlines()
    assert len(lines) == 3 and len({line.index("accuracy") + 8 for line in lines[:1]}) == 1
    header, base, fast = lines
    for word in ("name", "accuracy", "drop", "size", "p50", "p95", "throughput", "speedup"):
        assert word in header
    assert base.count("baseline") == 2 and "90.0 % [85.0, 93.0]" in base
    assert "+0.00 pp [" in fast and "5 ms" in fast and "–" in fast and "× [" in fast and "1.00 MB" in fast


def test_rows_and_csv_hold_the_record_and_its_pair() -> None:
    records = run(measurement("fast"), block_ms={"fast": 5.0 * jitter(1)})
    comparison = compare(records)
    base, fast = comparison.to_rows()
    assert json.loads(json.dumps([base, fast])) == [base, fast]
    assert base["speedup"] is None and math.isclose(fast["speedup"], 2.0, rel_tol=0.02)
    assert fast["variant"] == "fast" and fast["baseline_key"] == records.baseline_key
    read = list(csv.DictReader(io.StringIO(comparison.to_csv())))
    assert [row["variant"] for row in read] == ["base", "fast"]
    assert json.loads(read[1]["speedup_ci95"]) == fast["speedup_ci95"] and read[0]["speedup"] == ""


def test_a_pair_is_frozen() -> None:
    pair = compare(run(measurement("fast"))).pairs[0]
    with pytest.raises(dataclasses.FrozenInstanceError):
        pair.speedup = 9.0  # type: ignore[misc]
