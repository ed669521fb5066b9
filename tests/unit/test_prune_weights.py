"""By any criterion, on any schedule: the count is exact, the zeros hold, and nothing else stays behind."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections import Counter

import numpy as np
import pytest
import torch

import labkit.prune.fine_tune
from labkit.errors import Cancelled, ConfigError, TechniqueError
from labkit.measure.quality import evaluate
from labkit.prune import PruneChannels, PruneMagnitude, PruneWeights
from labkit.prune.masks import prunable_layers, prunable_weights
from labkit.prune.schedule import Gradual, cubic, in_rounds
from labkit.prune.scores import CRITERIA
from labkit.train import Train, fresh_variant, steps_per_epoch
from labkit.variant import Variant

FEW = {"fine_tune_epochs": 2, "batch_size": 16, "max_samples": 65, "threads": 1, "augment": "none"}  # 4 steps


@pytest.fixture(scope="module")
def small(digits):
    """A small LeNet-5 that has learned something: 12,520 weights in four layers."""
    start = fresh_variant({"architecture": "lenet5", "channels": [8, 12], "hidden": 32}, digits)
    return Train(epochs=4, batch_size=32, learning_rate=0.05, threads=1)(start, digits)


def zeros(variant):
    return sum(int((weight == 0).sum()) for weight in prunable_weights(variant.model))


def size(variant):
    return sum(weight.numel() for weight in prunable_weights(variant.model))


def accuracy(variant, dataset):
    return evaluate(variant, dataset, "validation").mean()


# --- when ---


def test_the_curve_is_zhu_and_guptas_equation():
    start, end, steps = 0.2, 0.9, 50
    for step in range(steps + 1):
        expected = end + (start - end) * (1 - step / steps) ** 3
        assert cubic(step / steps, start, end) == pytest.approx(expected)
    assert cubic(0, start, end) == pytest.approx(start)
    assert cubic(1, start, end) == cubic(7, start, end) == end


def test_each_round_keeps_the_same_share_and_the_last_ends_where_asked():
    sparsities = in_rounds(0.2, 0.9, 4)
    kept = [0.8, *(1 - sparsity for sparsity in sparsities)]
    assert np.allclose([b / a for a, b in zip(kept, kept[1:], strict=False)], (0.1 / 0.8) ** 0.25)
    assert sparsities[-1] == 0.9
    assert in_rounds(0.0, 0.7, 1) == [0.7]


def watched(technique, variant, dataset, monkeypatch):
    """The zeros after each step of a gradual pruning, and its result."""
    counts, call = [], Gradual.__call__

    def count(self, module):
        call(self, module)
        counts.append([weight.detach() == 0 for weight in prunable_weights(module)])

    monkeypatch.setattr(Gradual, "__call__", count)
    result = technique(variant, dataset)
    return [torch.cat([mask.flatten() for mask in masks]) for masks in counts], result


def test_gradually_the_zeros_follow_the_curve_and_then_hold(small, digits, monkeypatch):
    technique = PruneMagnitude(0.9, schedule="gradual", ramp=0.5, **{**FEW, "max_samples": 200})
    masks, result = watched(technique, small, digits, monkeypatch)
    assert len(masks) == 2 * steps_per_epoch(technique, digits) == 26
    for step, mask in enumerate(masks, 1):
        assert int(mask.sum()) == round(cubic(step / 13, 0.0, 0.9) * size(small)), step
    assert all(torch.equal(mask, masks[12]) for mask in masks[12:])
    assert zeros(result) == round(0.9 * size(small))
    assert any((before & ~after).any() for before, after in zip(masks, masks[1:], strict=False)), (
        "none returned"
    )


def test_what_is_sparse_already_grows_sparser_from_there(small, digits, monkeypatch):
    sparse = PruneMagnitude(0.8)(small)
    masks, _ = watched(PruneMagnitude(0.9, schedule="gradual", **FEW), sparse, digits, monkeypatch)
    counts = [int(mask.sum()) / size(small) for mask in masks]
    assert counts == sorted(counts)
    assert 0.8 < counts[0] < 0.9 and counts[-1] == pytest.approx(0.9, abs=1e-5)


def test_in_rounds_what_went_stays_away(small, digits, monkeypatch):
    """Random scores would bring it back, if zeros did not go first."""
    seen = []
    tune = PruneWeights.fine_tune

    def fine_tune(self, pruned, *rest):
        seen.append(torch.cat([weight.detach().flatten() == 0 for weight in prunable_weights(pruned.model)]))
        return tune(self, pruned, *rest)

    monkeypatch.setattr(PruneWeights, "fine_tune", fine_tune)
    technique = PruneWeights(0.9, criterion="random", schedule="iterative", rounds=3, **FEW)
    result = technique(small, digits)
    counts = [round(sparsity * size(small)) for sparsity in in_rounds(0.0, 0.9, 3)]
    assert [int(mask.sum()) for mask in seen] == counts
    assert all(not (before & ~after).any() for before, after in zip(seen, seen[1:], strict=False))
    assert zeros(result) == counts[-1]


# --- what comes out ---


@pytest.mark.parametrize(
    ("criterion", "schedule"),
    [(name, schedule) for name in CRITERIA for schedule in ("one_shot", "iterative", "gradual")],
)
def test_the_count_is_exact_and_the_same_seed_gives_the_same_bytes(criterion, schedule, small, digits):
    if criterion == "movement" and schedule != "gradual":
        with pytest.raises(ConfigError, match="criterion='movement'.*schedule='gradual'"):
            PruneWeights(criterion=criterion, schedule=schedule, **FEW)
        return
    technique = PruneWeights(0.93, criterion=criterion, schedule=schedule, rounds=2, **FEW)
    result = technique(small, digits)
    assert zeros(result) == round(0.93 * size(small))
    assert not any(torch.signbit(weight[weight == 0]).any() for weight in prunable_weights(result.model))
    assert technique(small, digits).payload == result.payload


def test_every_criterion_and_every_seed_of_random_chooses_weights_of_its_own(small, digits):
    at_once = [name for name in CRITERIA if name != "movement"]
    made = [PruneWeights(0.9, criterion=name)(small, digits) for name in at_once]
    made.append(PruneWeights(0.9, criterion="random", seed=1)(small))
    assert len({variant.digest for variant in made}) == len(CRITERIA)


@pytest.mark.parametrize("schedule", ["one_shot", "gradual"])
def test_layer_counts_are_exact_in_every_layer(schedule, small, digits):
    result = PruneWeights(0.7, "layer", schedule=schedule, criterion="random", **FEW)(small, digits)
    for weight in prunable_weights(result.model):
        assert int((weight == 0).sum()) == round(0.7 * weight.numel())


@pytest.mark.parametrize("schedule", ["one_shot", "gradual"])
def test_two_of_four_are_zero_in_every_run_of_inputs(schedule, small, digits):
    result = PruneMagnitude(0.5, "n:m", schedule=schedule, **FEW)(small, digits)
    layers = prunable_layers(result.model)
    assert not (layers["conv1"] == 0).any(), "one input channel: there is nothing to choose between"
    for name in ("conv2", "fc1", "fc2"):
        runs = (layers[name] == 0).movedim(1, -1).reshape(-1, 4)
        assert Counter(runs.sum(1).tolist()) == {2: len(runs)}, name


def test_one_of_three_too(small):
    result = PruneMagnitude(0.33, "n:m", group_size=3)(small)
    zero = prunable_layers(result.model)["fc2"] == 0  # 32 inputs: ten runs of three, and one of two
    assert (zero[:, :30].reshape(10, 10, 3).sum(2) == 1).all()
    assert not zero[:, 30:].any(), "the last run is filled up with a zero, and that one went"


def test_no_mask_and_no_hook_stays_behind(small, digits, tmp_path):
    result = PruneWeights(0.9, criterion="movement", schedule="gradual", **FEW)(small, digits)
    assert list(result.model.state_dict()) == list(small.model.state_dict())
    assert [name for name, _ in result.model.named_buffers()] == []
    for module in result.model.modules():
        assert not module._forward_pre_hooks and not module._forward_hooks and not module._backward_hooks
        assert not hasattr(module, "parametrizations")
    loaded = Variant.load(result.save(tmp_path))
    assert loaded.digest == result.digest and zeros(loaded) == round(0.9 * size(small))
    assert loaded.size_bytes == small.size_bytes, "plain zeros take as many bytes as anything else"


def test_biases_stay_when_nothing_is_trained(small, digits):
    result = PruneWeights(0.9, criterion="taylor")(small, digits)
    assert torch.equal(result.model.fc2.bias, small.model.fc2.bias)


# --- what it is worth ---


@pytest.mark.parametrize("criterion", [name for name in CRITERIA if name not in ("random", "movement")])
def test_random_loses_to_every_criterion_clearly(criterion, small, digits):
    chosen = PruneWeights(0.8, criterion=criterion)(small, digits)
    control = PruneWeights(0.8, criterion="random")(small)
    assert accuracy(chosen, digits) > accuracy(control, digits) + 0.2


def test_random_loses_to_movement_clearly(small, digits):
    few = {**FEW, "fine_tune_epochs": 4, "max_samples": 512, "schedule": "gradual"}
    chosen = PruneWeights(0.98, criterion="movement", **few)(small, digits)
    control = PruneWeights(0.98, criterion="random", **few)(small, digits)
    assert accuracy(chosen, digits) > accuracy(control, digits) + 0.2


def test_magnitude_among_the_criteria_is_prune_magnitude(small):
    assert PruneWeights(0.6)(small).digest == PruneMagnitude(0.6)(small).digest


# --- the training inside ---


def test_the_recipe_of_the_fine_tuning_is_what_the_knobs_say(small, digits, monkeypatch):
    recipes, fit = [], labkit.prune.fine_tune.fit

    def spy(recipe, *rest):
        recipes.append(recipe)
        return fit(recipe, *rest)

    monkeypatch.setattr(labkit.prune.fine_tune, "fit", spy)
    wanted = {**FEW, "optimizer": "adamw", "learning_rate": 0.002, "weight_decay": 0.0, "batch_size": 24}
    PruneMagnitude(0.9, **wanted)(small, digits)
    (recipe,) = recipes
    assert (recipe.optimizer, recipe.learning_rate) == ("adamw", 0.002)
    assert (recipe.weight_decay, recipe.batch_size, recipe.epochs) == (0.0, 24, 2)


def test_the_whole_network_teaches_the_sparse_one(small, digits, monkeypatch):
    teachers, loss_from = [], PruneMagnitude.loss_from
    monkeypatch.setattr(
        PruneMagnitude,
        "loss_from",
        lambda self, teacher: teachers.append(teacher) or loss_from(self, teacher),
    )
    PruneMagnitude(0.9, schedule="iterative", rounds=2, alpha=0.9, **FEW)(small, digits)
    assert teachers == [small, small]


@pytest.mark.parametrize("schedule", ["iterative", "gradual"])
@pytest.mark.parametrize("reports", [1, 6])
def test_stop_takes_effect_at_the_next_batch(schedule, reports, small, digits):
    said = []

    def stop(fraction, message):
        said.append((fraction, message))
        if len(said) == reports:
            raise Cancelled

    with pytest.raises(Cancelled):
        PruneWeights(0.9, criterion="taylor", schedule=schedule, **FEW)(small, digits, stop)
    assert len(said) == reports


@pytest.mark.parametrize("criterion", ["magnitude", "taylor"])
def test_progress_never_goes_back_between_rounds(criterion, small, digits):
    said = []
    technique = PruneWeights(0.9, criterion=criterion, schedule="iterative", rounds=3, **FEW)
    technique(small, digits, lambda fraction, message: said.append((fraction, message)))
    fractions = [fraction for fraction, _ in said]
    assert fractions == sorted(fractions) and fractions[-1] == pytest.approx(1.0)
    assert said[-1][1].startswith("round 3/3, epoch 2/2")


# --- errors ---


def test_gradients_need_samples(small):
    with pytest.raises(TechniqueError, match="prune_weights needs a dataset"):
        PruneWeights(criterion="taylor")(small)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"criterion": "magnitud"}, "criterion='magnitud' is unknown; did you mean 'magnitude'"),
        ({"scope": "2:4"}, "scope='2:4' is unknown; .*known: global, layer, n:m"),
        ({"schedule": "gradual"}, "schedule='gradual' needs a fine-tuning .* fine_tune_epochs"),
        ({"schedule": "iterative"}, "schedule='iterative' needs a fine-tuning"),
        ({"scope": "n:m", "sparsity": 0.6}, r"sparsity=0\.6 of every 4 .* it can be 0\.25, 0\.5, 0\.75"),
        ({"scope": "n:m", "sparsity": 0.9999}, "sparsity=0.9999 of every 4"),
        ({"scope": "n:m", "sparsity": 0.5, "group_size": 3}, r"it can be 0\.333, 0\.667"),
        ({"group_size": 1}, "group_size=1 is out of range; allowed: 2 ≤ group_size ≤ 64"),
        ({"rounds": 1}, "rounds=1 is out of range"),
        ({"ramp": 0.0}, r"ramp=0\.0 is out of range"),
        ({"sparsity": math.nan}, "sparsity=nan"),
        ({"weight_decay": 1.0}, r"weight_decay=1\.0"),
        ({"optimizer": "adam"}, "optimizer='adam' is unknown; did you mean 'adamw'"),
    ],
)
def test_a_bad_knob_says_what_is_allowed(change, says):
    with pytest.raises(ConfigError, match=says):
        PruneWeights(**change)


def test_a_layer_that_the_loss_does_not_reach_has_no_gradient_and_is_no_obstacle(cases):
    variant, dataset = cases["regression"]
    module = torch.nn.ModuleDict({"used": torch.nn.Linear(5, 1), "unused": torch.nn.Linear(5, 1)})

    class Half(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = module

        def forward(self, x):
            return self.layers["used"](x)

    half = dataclasses.replace(variant, model=Half().eval())
    few = {**FEW, "alpha": 0.0, "learning_rate": 0.01}
    for technique in (
        PruneWeights(0.5, criterion="taylor", **few),
        PruneWeights(0.5, criterion="movement", schedule="gradual", **few),
    ):
        assert zeros(technique(half, dataset)) == 5


def test_a_frozen_layer_is_judged_by_its_gradient_like_any_other(small, digits):
    frozen = dataclasses.replace(small, model=copy.deepcopy(small.model))
    frozen.model.conv2.requires_grad_(False)
    for technique in (PruneWeights(0.5, criterion="taylor"), PruneChannels(0.5, importance="taylor")):
        assert technique(frozen, digits).payload == technique(small, digits).payload


def test_where_nothing_may_be_trained_it_is_said_how_to_change_that(small, digits):
    frozen = dataclasses.replace(small, model=copy.deepcopy(small.model).requires_grad_(False))
    assert zeros(PruneWeights(0.5, criterion="taylor")(frozen, digits)) == round(0.5 * size(small))
    with pytest.raises(TechniqueError, match="no parameter that training may change.*requires_grad_"):
        PruneMagnitude(0.5, **FEW)(frozen, digits)
