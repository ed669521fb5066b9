"""What the pruning lesson shows at once, because it was measured before: whole, and true of what is shipped."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from labkit.data import load_dataset
from labkit.errors import ConfigError
from labkit.prune import Widths, scan_layers
from labkit.prune.masks import prunable_layers
from labkit.prune.sensitivity import SCANNED_BY
from labkit.teach.pruning_recording import (
    FILE,
    ROUNDS,
    SEEDS,
    SHARES,
    SPARSITIES,
    PruningRecording,
    load_pruning,
    propose_widths,
)
from labkit.widgets import Options, curves_of, rounds_of
from labkit.zoo import load_model


@pytest.fixture(scope="module")
def recording() -> PruningRecording:
    return load_pruning()


@pytest.fixture(scope="module")
def resnet() -> Any:
    return load_model("resnet20@digits")


@pytest.fixture(scope="module")
def widths(resnet: Any) -> Widths:
    return Widths(resnet)


def test_every_layer_was_scanned_at_every_sparsity_by_both_criteria(
    recording: PruningRecording, resnet: Any
) -> None:
    layers = prunable_layers(resnet.model)
    assert tuple(recording.curves) == SCANNED_BY
    for rows in recording.curves.values():
        assert [(row.layer, row.sparsity) for row in rows] == [
            (name, s) for name in layers for s in SPARSITIES
        ]
        assert {row.layer: row.weights for row in rows} == {name: w.numel() for name, w in layers.items()}


def test_a_curve_that_is_measured_again_is_the_same(
    recording: PruningRecording, resnet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One layer at one sparsity, by both criteria; on another CPU a close call may turn."""
    stem = dict(list(prunable_layers(resnet.model).items())[:1])
    monkeypatch.setattr(
        "labkit.prune.sensitivity.prunable_layers",
        lambda module: {name: w for name, w in prunable_layers(module).items() if name in stem},
    )
    for criterion in SCANNED_BY:
        (again,) = scan_layers(resnet, load_dataset("digits"), (0.9,), criterion)
        recorded = next(
            row for row in recording.curves[criterion] if (row.layer, row.sparsity) == ("stem", 0.9)
        )
        assert again.drop == pytest.approx(recorded.drop, abs=0.03)


def test_chance_does_worse_than_magnitude(recording: PruningRecording) -> None:
    """What the lesson is about: without it there is nothing to see."""
    layers = curves_of(recording.curves)
    assert all(each.lost_pp("random", 0.9) > each.lost_pp("magnitude", 0.9) for each in layers)


def test_the_groups_are_those_of_the_network_and_every_width_can_be_chosen(
    recording: PruningRecording, widths: Widths
) -> None:
    options = Options(widths, recording.groups, keep=0.5)
    assert options.shares == SHARES
    for row in recording.groups:
        assert row.removed == row.units - options.options[row.group, 1 - row.ratio].channels


def test_the_recorded_networks_are_those_that_are_proposed_with_their_multiply_adds(
    recording: PruningRecording, widths: Widths
) -> None:
    assert [dict(point.assignment) for point in recording.points] == propose_widths(widths)
    assert [point.macs for point in recording.points] == [
        widths.macs(each) for each in propose_widths(widths)
    ]
    assert all(0 < point.time_share < 1.5 for point in recording.points)


def test_tickets_were_drawn_in_all_rounds_of_all_seeds_each_with_its_control(
    recording: PruningRecording,
) -> None:
    assert Counter(each.round for each in recording.tickets) == dict.fromkeys(range(ROUNDS + 1), len(SEEDS))
    assert all(bool(each.control) == (each.round > 0) for each in recording.tickets)
    rounds = rounds_of(recording.tickets)
    assert rounds[7].kept == pytest.approx(0.211, abs=0.001)
    assert rounds[15].kept == pytest.approx(0.036, abs=0.001)
    ends = [median(curve[-1] for curve in kind) for kind in (rounds[15].tickets, rounds[15].controls)]
    assert ends[0] > ends[1] + 5


def test_a_file_that_is_no_recording_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text(FILE.read_text()[:100])
    with pytest.raises(ConfigError, match=r"broken\.json"):
        load_pruning(broken)
