"""How the benchmark of pruning decides, counts and keeps: nothing by a look at test, and nothing trained twice."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from benchmarks import keep
from benchmarks.pruning import architectures, common, experiments
from benchmarks.pruning.__main__ import PARTS
from benchmarks.pruning.common import choose
from benchmarks.pruning.experiments import _of_round, counted, more_than
from benchmarks.pruning.page import pruning_page
from benchmarks.pruning.peer import figures, narrowed
from benchmarks.pruning.words import IN_README, WORDS
from labkit.errors import DataError, TechniqueError
from labkit.prune import PruneWeights
from labkit.prune.lottery import Ticket, Trained
from labkit.prune.scores import CRITERIA
from labkit.train import fresh_variant


def test_the_chain_is_the_fastest_that_loses_half_a_point_on_validation_and_test_has_no_say():
    def chain(speedup: float, validation: float, test: float) -> dict:
        return {"speedup": speedup, "validation_drop_pp": validation, "drop_pp": test}

    rows = [chain(40.0, 0.6, -0.5), chain(30.0, 0.5, 0.9), chain(20.0, -0.3, -0.9)]
    assert choose(rows, lambda row: row["speedup"]) is rows[1]
    assert [row.get("chosen") for row in rows] == [None, True, None]
    assert choose(rows[:1], lambda row: row["speedup"]) is None


def test_torch_pruning_is_more_accurate_only_where_an_interval_says_so():
    def seed(ahead: float, low: float, high: float) -> dict:
        return {"ahead_pp": ahead, "ahead_pp_ci95": (low, high)}

    rows = [seed(0.4, 0.1, 0.7), seed(-0.2, -0.5, 0.1), seed(-0.5, -0.8, -0.2)]
    assert figures(rows) == {
        "vs_torch_pruning_pp": pytest.approx(-0.1),
        "torch_pruning_more_accurate": 1,
    }


@pytest.fixture
def resnet(digits):
    return fresh_variant({"architecture": "resnet8"}, digits)


def test_weights_that_come_back_from_elsewhere_make_the_network_that_they_are_of(resnet, digits):
    narrow = {"architecture": "resnet8", "stages": [8, 16, 24], "inner": [[4], [16], [32]]}
    pruned = fresh_variant(narrow, digits, seed=1)
    made = narrowed(resnet, pruned.model.state_dict())
    image = torch.randn(2, *digits.image_shape())
    assert torch.equal(made.model(image), pruned.model(image))
    assert made.model.config["stages"] == narrow["stages"] and made.model.config["inner"] == narrow["inner"]


def test_weights_of_no_such_network_are_refused(resnet):
    state = {**resnet.model.state_dict(), "fc.bias": torch.zeros(9)}
    with pytest.raises(TechniqueError, match="cannot be built"):
        narrowed(resnet, state)


# --- what is kept ---


@pytest.fixture
def kept(tmp_path):
    token = keep._folder.set(tmp_path)
    yield tmp_path
    keep._folder.reset(token)


def test_a_network_is_trained_once_and_again_only_if_its_recipe_changes(kept, resnet, digits, monkeypatch):
    trainings = []
    apply = PruneWeights.apply
    monkeypatch.setattr(PruneWeights, "apply", lambda *a: trainings.append(1) or apply(*a))
    half = PruneWeights(sparsity=0.5)
    first, second = keep.trained(half, resnet, digits), keep.trained(half, resnet, digits)
    assert len(trainings) == 1 and first.digest == second.digest
    keep.trained(dataclasses.replace(half, seed=1), resnet, digits)
    keep.trained(half, fresh_variant({"architecture": "resnet8"}, digits, seed=1), digits)
    few = dataclasses.replace(digits, splits={**digits.splits, "train": digits.split("test")})
    keep.trained(half, resnet, few)
    assert len(trainings) == 4


def test_without_a_folder_nothing_is_left_behind(resnet, digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    keep.trained(PruneWeights(sparsity=0.5), resnet, digits)
    assert keep.found("rows", {}, digits, lambda: [{"a": 1}]) == [{"a": 1}]
    assert list(tmp_path.iterdir()) == []


def test_rows_are_found_once_for_the_same_settings(kept, digits):
    for seed in (0, 1):
        keep.found("rows", {"seed": seed}, digits, lambda seed=seed: [{"at": seed}])
    again = [keep.found("rows", {"seed": seed}, digits, lambda: pytest.fail("not kept")) for seed in (0, 1)]
    assert again == [[{"at": 0}], [{"at": 1}]]


# --- what is counted ---


def test_errors_are_counted_with_their_interval_and_more_of_them_is_a_positive_number():
    better, worse = np.ones(1000), np.ones(1000)
    better[:20], worse[:50] = 0.0, 0.0
    assert counted(worse)["errors"] == 50 and counted(worse)["errors_ci95"] == [38, 65]
    more = more_than(better, worse)
    assert more["more_than"] == 30 and 0 < more["more_than_ci95"][0] < 30 < more["more_than_ci95"][1]


def test_a_round_with_a_control_says_how_much_worse_that_is_than_the_ticket(digits):
    ticket, control = (fresh_variant({"architecture": "lenet300"}, digits, seed) for seed in (0, 1))
    drawn = Ticket(3, 0.5, Trained(ticket, (0.9, 0.95)), Trained(control, (0.5,)))
    scores = {name: common.evaluate(each, digits, "test") for name, each in (("t", ticket), ("c", control))}
    first, second = _of_round(drawn, scores["t"], digits, seed=2)
    assert (first["network"], second["network"], second["seed"]) == ("ticket", "control", 2)
    assert first["more_than"] == 0 and "more_than_ticket" not in first
    assert second["more_than_ticket"] == second["errors"] - first["errors"] != 0
    assert first["validation_error_pct"] == pytest.approx([10, 5])


def test_an_architecture_that_loses_channels_and_stays_itself_passes(monkeypatch):
    monkeypatch.setattr(architectures, "ARCHITECTURES", ("group_norm",))
    assert architectures.architectures(True).figures == {"architectures": 1, "architectures_passed": 1}


@pytest.mark.parametrize(
    ("errors", "passed"),
    [
        ((1e-6, 1e-6, 0.1), True),
        ((2e-5, 1e-6, 0.1), False),
        ((1e-6, 2e-5, 0.1), False),
        ((0.0, 0.0, 0.0), False),
    ],
)
def test_it_passes_only_if_nothing_but_the_masking_changes_the_answers(errors, passed):
    assert architectures.verdict(*errors)["passed"] == passed


def test_every_criterion_there_is_takes_part():
    assert set(CRITERIA) == {name.split("_errors_")[0] for name in WORDS if "_errors_9" in name}


# --- what is told ---


def test_every_figure_is_named_in_words_and_null_with_a_reason_where_there_are_no_images(monkeypatch):
    def missing(name):
        raise DataError(f"{name} is not here")

    for module in (common, experiments):
        monkeypatch.setattr(module, "load_dataset", missing)
    common.subject.cache_clear()
    parts = [part(False) for part in PARTS if part.__name__ != "architectures"]
    named = {key for found in parts for key in found.figures}
    assert named | {"architectures", "architectures_passed", "whole_errors"} == set(WORDS)
    assert set(IN_README) <= set(WORDS)
    assert all(set(found.null_reasons) == set(found.figures) for found in parts)
    assert {why for found in parts for why in found.null_reasons.values()} == {
        "fashion-mnist is not here",
        "mnist is not here",
    }


LOSS = {
    "accuracy": 0.94,
    "drop_pp": 0.3,
    "drop_pp_ci95": (0.0, 0.6),
    "macs_share": 0.251,
    "parameters_share": 0.2,
}
ERRORS = {"errors": 1140, "errors_ci95": (1000, 1200)}
SPEED = {"speedup": 2.1, "speedup_ci95": (2.0, 2.2), "ms": 0.25}
DOCUMENT = {
    "figures": {"latency_drop_pp": 0.3, "latency_target_error_pct": 11.8},
    "null_reasons": {"vs_torch_pruning_pp": "no such package"},
    "parts": {"latency_targets": {"measured": "2026-01-02T03:04:05+00:00", "seconds": 61.2}},
    "table": [
        {"part": "channels", "network": "half", "chosen": True, "validation_drop_pp": 0.1, **LOSS},
        {
            "part": "channels",
            "network": "half",
            "runtime": "openvino",
            "batch_size": 32,
            "dense_ms": 21.0,
            "pruned_ms": 10.0,
            **SPEED,
        },
        {
            "part": "latency_targets",
            "runtime": "onnxruntime",
            "asked": 0.5,
            "got": 0.48,
            "got_ci95": (0.47, 0.49),
        }
        | {"error_pct": -4.0, "macs_share": 0.3},
        {"part": "best", "chain": "PyTorch eager", "ms": 34.0},
        {"part": "best", "chain": "pruned", "chosen": True, "validation_drop_pp": 0.1} | {**LOSS, **SPEED},
        {"part": "best", "peak_gmacs_per_s": 1234.0, "gmacs_per_s": 234.0},
        {"part": "torch_pruning", "seed": 1, "labkit_macs": 7.78e6, "torch_pruning_macs": 7.78e6}
        | {
            "labkit_accuracy": 0.93,
            "torch_pruning_accuracy": 0.92,
            "ahead_pp": 1.0,
            "ahead_pp_ci95": (0.7, 1.3),
        }
        | {"versions": {"torch-pruning": "1.6.1"}, "settings": "p=2"},
        {
            "part": "architectures",
            "architecture": "vit",
            "groups": 4,
            "parameters": 100,
            "parameters_left": 60,
        }
        | {"error": 2e-7, "file_error": 3e-7, "passed": True},
        {"part": "architectures", "architecture": "odd", "passed": False, "refused": "no rule for it"},
        {"part": "criteria", "criterion": "lamp", "sparsity": 0.98, "seed": 0, **ERRORS},
        {"part": "lottery", "seed": 0, "round": 0, "kept": 1.0, "network": "ticket", **ERRORS}
        | {"validation_error_pct": [3.21, 2.0]},
        {"part": "lottery", "seed": 0, "round": 7, "kept": 0.211, "network": "control", **ERRORS}
        | {"validation_error_pct": [5.0, 4.0], "more_than_ticket": 80, "more_than_ticket_ci95": (50, 110)},
    ],
}


@pytest.mark.parametrize(
    "line",
    [
        "- `vs_torch_pruning_pp`: no such package",
        "| latency targets | 2026-01-02T03:04:05+00:00 | 61 |",
        "| **half** | 25.1 % | 20.0 % | +0.10 | +0.30 [+0.00, +0.60] |",
        "| … at most half a point lost | 0.30 | met |",
        "| a latency that is asked for is met within 10 % | 11.80 | **missed** |",
        "| distilled and in 8 bits: at least 30 times PyTorch eager | – | not measured |",
        "| OpenVINO | 32 | half | 21 | 10 | 2.10 [2.00, 2.20] |",
        "| ONNX Runtime | 0.50 | 0.480 [0.470, 0.490] | -4.0 | 30.0 % |",
        "| PyTorch eager | 100 % | 34 |  |  |  |",
        "| **pruned** | 25.1 % | 0.25 | 2.10 [2.00, 2.20] | +0.10 | +0.30 [+0.00, +0.60] |",
        "| 1 | 7.78 / 7.78 | 93.00 | 92.00 | +1.00 [+0.70, +1.30] |",
        "| vit | 4 | 60 % | 2e-07 | 3e-07 | yes |",
        "| odd |  |  |  |  | no rule for it |",
        "| LAMP | 1,140 [1,000, 1,200] |",
        "| 100.0 % | whole | 1,140 [1,000, 1,200] |",
        "| 100.0 % | whole | 3.21 |",
        "| 21.1 % | +80 [+50, +110] |",
    ],
)
def test_what_pruning_reached_is_told_with_intervals_and_reasons(line):
    assert line in pruning_page(DOCUMENT, "a machine").splitlines()
