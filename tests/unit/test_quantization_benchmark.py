"""How the benchmark of quantization decides: who is the best peer, and what is chosen without a look at test."""

from __future__ import annotations

import pytest

from benchmarks.quantization.few_bits import LEARNED
from benchmarks.quantization.mixing import choose
from benchmarks.quantization.peers import _figures
from labkit.quantize.mixed import QuantizeMixed

OURS = {"labkit": {"drop_pp": 0.1}, "labkit_openvino": {"drop_pp": 0.2}}


def peer(behind: float, low: float, ratio: float, ratio_low: float) -> dict:
    return {
        "labkit_behind_pp": behind,
        "labkit_behind_pp_ci95": (low, behind + 0.2),
        "time_ratio_openvino": ratio,
        "time_ratio_openvino_ci95": (ratio_low, ratio + 0.1),
    }


def test_the_best_peer_is_the_most_accurate_one_and_separately_the_fastest_one():
    rows = OURS | {"a": peer(0.3, 0.1, 0.8, 0.7), "b": peer(-0.2, -0.4, 1.05, 1.01)}
    figures = _figures("vit", rows)
    assert figures["int8_drop_pp_vit"] == 0.2
    assert figures["int8_accuracy_vs_best_peer_pp_vit"] == -0.3
    assert figures["int8_latency_vs_best_peer_openvino_vit"] == 1.05
    assert figures["int8_peers_more_accurate_vit"] == 1 and figures["int8_peers_faster_openvino_vit"] == 1
    assert "int8_latency_vs_best_peer_onnxruntime_vit" not in figures


@pytest.mark.parametrize(("ratio", "low"), [(1.02, 1.01), (1.05, 0.99)])
def test_a_peer_is_faster_only_by_more_than_3_percent_and_an_interval_that_excludes_1(ratio, low):
    figures = _figures("vit", OURS | {"a": peer(0.0, -0.2, ratio, low)})
    assert figures["int8_peers_faster_openvino_vit"] == 0


def test_the_mixed_model_is_chosen_on_validation_and_test_has_no_say():
    def row(size: int, low: float, test: float) -> dict:
        return {"size_bytes": size, "validation_behind_int8_pp_ci95": (low, 1.0), "behind_int8_pp": test}

    rows = [row(60, 0.1, -0.5), row(70, -0.1, 0.9), row(80, -0.3, -0.9)]
    assert choose(rows) is rows[1]


def test_the_rounding_that_speaks_for_labkit_is_the_one_that_mixed_precision_uses():
    assert LEARNED == QuantizeMixed().rounding == "descent"
