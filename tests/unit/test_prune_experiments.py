"""Two experiments with single weights: which layer minds losing them, and which few would have been enough."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch

import labkit.prune.lottery
from labkit.convert import ExportOnnx
from labkit.errors import Cancelled, ConfigError, TechniqueError
from labkit.measure.quality import evaluate
from labkit.prune import draw_tickets, scan_layers
from labkit.prune.masks import lowest, prunable_layers, prunable_weights
from labkit.train import Train, fresh_variant, steps_per_epoch

SMALL = {"architecture": "lenet300", "hidden": [24, 12]}
RECIPE = Train(epochs=2, batch_size=32, learning_rate=0.05, augment="none", max_samples=96, threads=1)


def zero_masks(module):
    return [weight.detach() == 0 for weight in prunable_weights(module)]


def layer_sizes(module):
    return [weight.numel() for weight in prunable_weights(module)]


# --- the scan ---


@pytest.fixture(scope="module")
def scan(lenet, digits):
    return scan_layers(lenet, digits, (0.5, 0.99))


def test_every_layer_is_pruned_alone_at_every_sparsity(scan, lenet):
    layers = prunable_layers(lenet.model)
    assert [(row.layer, row.sparsity) for row in scan] == [(name, s) for name in layers for s in (0.5, 0.99)]
    assert {row.layer: row.weights for row in scan} == {name: w.numel() for name, w in layers.items()}


def test_a_row_is_the_quality_of_the_network_with_that_layer_pruned(scan, lenet, digits):
    row = scan[1]
    module = copy.deepcopy(lenet.model)
    weight = prunable_layers(module)[row.layer]
    weight.data[lowest([weight.detach().abs()], row.sparsity)[0]] = 0.0
    scores = evaluate(dataclasses.replace(lenet, model=module), digits)
    assert row.metric == "accuracy" and row.quality == scores.mean()
    assert row.drop == pytest.approx(evaluate(lenet, digits).mean() - scores.mean())
    assert row.drop_ci95[0] <= row.drop <= row.drop_ci95[1]


def test_the_first_convolution_minds_and_the_large_linear_layer_does_not(scan):
    drops = {row.layer: row.drop for row in scan if row.sparsity == 0.99}
    assert drops["conv1"] > drops["fc1"] + 0.3


def test_at_random_a_layer_loses_as_many_weights_and_more_accuracy(scan, lenet, digits):
    control = scan_layers(lenet, digits, (0.5, 0.99), criterion="random")
    assert [(row.layer, row.sparsity, row.weights) for row in control] == [
        (row.layer, row.sparsity, row.weights) for row in scan
    ]
    assert sum(row.drop for row in control) > sum(row.drop for row in scan) + 0.3
    assert control == scan_layers(lenet, digits, (0.5, 0.99), criterion="random", seed=0)
    assert control != scan_layers(lenet, digits, (0.5, 0.99), criterion="random", seed=1)


def test_the_scan_leaves_the_network_as_it_was(lenet, digits):
    before = lenet.fingerprint()
    scan_layers(lenet, digits, (0.9,))
    assert lenet.fingerprint() == before


def test_the_scan_can_be_stopped_and_leaves_the_network_whole(lenet, digits):
    said, before = [], lenet.fingerprint()

    def stop(fraction, message):
        said.append((fraction, message))
        raise Cancelled

    with pytest.raises(Cancelled):
        scan_layers(lenet, digits, (0.9, 0.95), progress=stop)
    assert said == [(1 / 8, "conv1 at 90%")]
    assert lenet.fingerprint() == before


def test_the_scan_refuses_what_it_cannot_do(lenet, digits):
    with pytest.raises(ConfigError, match=r"sparsity=1\.0 is out of range"):
        scan_layers(lenet, digits, (0.5, 1.0))
    with pytest.raises(
        ConfigError, match="criterion='taylor' cannot be scanned by; known: magnitude, random"
    ):
        scan_layers(lenet, digits, criterion="taylor")
    with pytest.raises(TechniqueError, match="no PyTorch model"):
        scan_layers(ExportOnnx()(lenet, digits), digits)


# --- tickets ---


@pytest.fixture(scope="module")
def spied(digits):
    """Three rounds with controls in two of them, and the network that each of its trainings began with."""
    begins, fit = [], labkit.prune.lottery.fit

    def spy(recipe, variant, *rest, **named):
        begins.append(copy.deepcopy(variant.model))
        return fit(recipe, variant, *rest, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(labkit.prune.lottery, "fit", spy)
        tickets = draw_tickets(SMALL, digits, RECIPE, rounds=2, controls=(1, 2))
    return tickets, begins


def test_each_round_keeps_four_fifths_and_of_the_output_layer_nine_tenths(spied):
    tickets, _ = spied
    sizes = layer_sizes(tickets[0].ticket.variant.model)
    for ticket in tickets:
        shares = [1 - 0.8**ticket.round, 1 - 0.8**ticket.round, 1 - 0.9**ticket.round]
        expected = [round(share * size) for share, size in zip(shares, sizes, strict=True)]
        masks = zero_masks(ticket.ticket.variant.model)
        assert [int(mask.sum()) for mask in masks] == expected
        assert ticket.kept == pytest.approx(1 - sum(expected) / sum(sizes))


def test_the_papers_rounds_leave_the_papers_shares(digits):
    """LeNet-300-100: 21.1 % after 7 rounds, 3.6 % after 15 (Frankle and Carbin 2019, figure 1)."""
    sizes = (784 * 300, 300 * 100, 100 * 10)
    for rounds, share in ((7, 0.211), (15, 0.036)):
        kept = [(1 - rate) ** rounds for rate in (0.2, 0.2, 0.1)]
        total = sum(k * n for k, n in zip(kept, sizes, strict=True)) / sum(sizes)
        assert total == pytest.approx(share, abs=0.0005)


def test_a_ticket_begins_with_the_first_weights_and_the_control_with_others_under_one_mask(spied, digits):
    tickets, begins = spied
    start, other = (fresh_variant(SMALL, digits, seed).model for seed in (0, 1))
    whole, *pairs = begins
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), start.parameters(), strict=True))
    for ticket, control, first in ((pairs[0], pairs[1], 1), (pairs[2], pairs[3], 2)):
        masks = zero_masks(tickets[first].ticket.variant.model)
        for network, source in ((ticket, start), (control, other)):
            for weight, mask, drawn in zip(
                prunable_weights(network), masks, prunable_weights(source), strict=True
            ):
                assert torch.equal(weight, drawn.masked_fill(mask, 0.0))
        assert torch.equal(ticket.fc1.bias, start.fc1.bias) and torch.equal(control.fc1.bias, other.fc1.bias)
        assert [m.tolist() for m in zero_masks(tickets[first].control.variant.model)] == [
            m.tolist() for m in masks
        ]


def test_what_goes_is_the_smallest_of_what_was_trained(spied):
    tickets, _ = spied
    for before, after in zip(tickets, tickets[1:], strict=False):
        trained = prunable_weights(before.ticket.variant.model)
        for weight, mask in zip(trained, zero_masks(after.ticket.variant.model), strict=True):
            assert weight[mask].abs().max() <= weight[~mask].abs().min()


def test_the_curve_has_the_quality_after_each_epoch(spied, digits):
    tickets, _ = spied
    for ticket in tickets:
        assert len(ticket.ticket.curve) == RECIPE.epochs
        assert ticket.ticket.curve[-1] == evaluate(ticket.ticket.variant, digits).mean()
    assert [ticket.control is None for ticket in tickets] == [True, False, False]


def test_measuring_between_the_epochs_changes_nothing_of_the_training(spied, digits):
    tickets, _ = spied
    plain = RECIPE(fresh_variant(SMALL, digits, 0), digits)
    assert tickets[0].ticket.variant.payload == plain.payload


def test_late_rewinding_begins_after_the_epochs_that_it_was_told(digits, monkeypatch):
    begins, states, fit = [], [], labkit.prune.lottery.fit

    def spy(recipe, variant, dataset, progress, after_step):
        begins.append(copy.deepcopy(variant.model))

        def both(module):
            after_step(module)
            states.append(copy.deepcopy(module))

        return fit(recipe, variant, dataset, progress, after_step=both)

    monkeypatch.setattr(labkit.prune.lottery, "fit", spy)
    (_, ticket) = draw_tickets(SMALL, digits, RECIPE, rounds=1, rewind_epochs=1)
    early = states[steps_per_epoch(RECIPE, digits) - 1]
    masks = zero_masks(ticket.ticket.variant.model)
    for weight, mask, then in zip(prunable_weights(begins[1]), masks, prunable_weights(early), strict=True):
        assert torch.equal(weight, then.masked_fill(mask, 0.0))
    assert torch.equal(begins[1].fc2.bias, early.fc2.bias)


def test_a_ticket_of_one_weight_in_a_hundred_learns_faster_and_ends_better_than_its_control(digits):
    recipe = Train(epochs=6, batch_size=32, learning_rate=0.05, augment="none", threads=1)
    config = {"architecture": "lenet300", "hidden": [100, 50]}
    last = draw_tickets(config, digits, recipe, rounds=3, rate=0.8, output_rate=0.4, controls=(3,))[-1]
    assert last.kept < 0.01
    assert last.ticket.curve[-1] > last.control.curve[-1] + 0.2
    assert np.mean(last.ticket.curve) > np.mean(last.control.curve) + 0.2


def test_the_same_seed_draws_the_same_tickets(spied, digits):
    tickets, _ = spied
    again = draw_tickets(SMALL, digits, RECIPE, rounds=1)
    assert [each.ticket.variant.payload for each in again] == [
        each.ticket.variant.payload for each in tickets[:2]
    ]


def test_drawing_can_be_stopped_in_any_round(digits):
    said = []

    def stop(fraction, message):
        said.append((fraction, message))
        if message.startswith("ticket 1, epoch 2"):
            raise Cancelled

    with pytest.raises(Cancelled):
        draw_tickets(SMALL, digits, RECIPE, rounds=2, progress=stop)
    fractions = [fraction for fraction, _ in said]
    assert fractions == sorted(fractions) and fractions[-1] < 0.7


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"rounds": 0}, "rounds=0 is out of range"),
        ({"controls": [99]}, r"controls=\[99\]: there is no round 99; with rounds=7 allowed: 0 to 7"),
        ({"rounds": 2, "controls": [1, -1]}, "there is no round -1; with rounds=2 allowed: 0 to 2"),
        ({"rate": 1.0}, r"rate=1\.0 is out of range; allowed: 0 < rate < 1"),
        ({"output_rate": 0.0}, r"output_rate=0\.0 is out of range"),
        ({"rewind_epochs": 3}, "rewind_epochs=3 .* 0 ≤ rewind_epochs ≤ 2"),
        ({"controls": 3}, "controls must be a sequence"),
        ({"config": {"architecture": "lenet3000"}}, "did you mean 'lenet300'"),
    ],
)
def test_drawing_refuses_what_makes_no_sense(change, says, digits):
    with pytest.raises(ConfigError, match=says):
        draw_tickets(**{"config": SMALL, "dataset": digits, "recipe": RECIPE, **change})
