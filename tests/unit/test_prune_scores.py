"""What each criterion says of each weight, held against slow and literal references; and how many go where."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import labkit.prune.schedule
from labkit.progress import silent
from labkit.prune.masks import choose, lowest, lowest_of_every, prunable_layers, prunable_weights
from labkit.prune.schedule import Gradual
from labkit.prune.scores import CRITERIA, Lamp, LampPerBit, Magnitude, Movement, Random, Taylor
from labkit.prune.weights import show_gradients

floats = st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=12)


# --- scores ---


@given(st.lists(floats, min_size=1, max_size=3))
def test_lamp_is_the_papers_formula_written_out(layers):
    scores = Lamp().scores([torch.tensor(layer) for layer in layers])
    for layer, got in zip(layers, scores, strict=True):
        order = sorted(range(len(layer)), key=lambda i: abs(layer[i]))
        for place, i in enumerate(order):
            total = sum(layer[j] ** 2 for j in order[place:])
            expected = layer[i] ** 2 / total if total > 1e-300 else 0.0
            assert got[i].item() == pytest.approx(expected, rel=1e-9, abs=1e-300)


def test_lamp_lets_no_layer_die_where_one_threshold_for_magnitudes_does():
    torch.manual_seed(0)
    weights = [torch.randn(20, 20), 1e-3 * torch.randn(20, 20)]
    kept = {
        kind: [int((~mask).sum()) for mask in lowest(kind().scores(weights), 0.9)]
        for kind in (Lamp, Magnitude)
    }
    assert kept[Magnitude] == [80, 0]
    assert all(35 <= count <= 45 for count in kept[Lamp]), "scaled by a factor, a layer keeps the same share"


def test_of_two_equal_weights_the_one_among_others_is_cheaper_to_keep():
    weight = torch.zeros(8, 8)
    weight[2] = weight[:, 3] = 1.0  # a full row and a full column
    weight[6, 6] = 1.0  # and one that stands alone
    (lamp,), (per_bit,) = Lamp().scores([weight]), LampPerBit().scores([weight])
    bits = lamp / per_bit
    assert bits[6, 6] == bits[weight != 0].max() > 1 + bits[2, 0]


def test_the_bits_of_a_weight_are_those_of_its_row_and_column_and_three_for_its_value():
    weight = torch.tensor([[3.0, 2.0, 0.0], [1.0, 0.0, 0.0]])
    (lamp,), (per_bit,) = Lamp().scores([weight]), LampPerBit().scores([weight])
    row, column, every = 2.5 / 4, 2.5 / 3, 3.5 / 7  # (kept + 1/2) / (cells + 1)
    assert (lamp / per_bit)[0, 0].item() == pytest.approx(3.0)  # likelier than 1 is as likely as 1
    assert (lamp / per_bit)[1, 0].item() == pytest.approx(3 - math.log2(1.5 / 4 * column / every))
    assert (lamp / per_bit)[0, 1].item() == pytest.approx(3 - math.log2(row * 1.5 / 3 / every))


def test_while_nothing_is_zero_all_weights_take_the_same_bits():
    weight = torch.randn(5, 3, 2, 2)
    (lamp,), (per_bit,) = Lamp().scores([weight]), LampPerBit().scores([weight])
    assert per_bit.shape == weight.shape
    assert torch.allclose(lamp / per_bit, (lamp / per_bit)[0, 0, 0, 0].expand(weight.shape))


def test_taylor_is_the_mean_square_of_gradient_times_weight(cases):
    variant, dataset = cases["regression"]
    criterion = Taylor()
    show_gradients(criterion, variant, dataset, silent)
    weights, samples = prunable_weights(variant.model), dataset.split("calibration")
    expected = [torch.zeros_like(weight) for weight in weights]
    for batch in samples.batches(32):
        output = variant.model(torch.from_numpy(batch.inputs["x"]))
        loss = dataset.task.loss(output, torch.from_numpy(batch.target))
        for total, weight, gradient in zip(
            expected, weights, torch.autograd.grad(loss, weights), strict=True
        ):
            total += (gradient * weight).detach() ** 2
    for got, want in zip(criterion.scores(weights), expected, strict=True):
        assert torch.allclose(got, want, rtol=1e-4)
    assert all(weight.grad is None for weight in weights), "the variant's own gradients are not touched"


def test_taylor_forgets_the_batches_that_it_has_answered_for():
    criterion, weight = Taylor(), [torch.tensor([1.0, 1.0])]
    criterion.watch(weight, [torch.tensor([5.0, 0.0])])
    criterion.scores(weight)
    criterion.watch(weight, [torch.tensor([0.0, 2.0])])
    assert criterion.scores(weight)[0].tolist() == [0.0, 4.0]


def test_half_the_digits_do_not_take_the_small_for_nothing():
    criterion, weight = Taylor(), [torch.tensor([0.05, 0.04], dtype=torch.float16)]
    criterion.watch(weight, [torch.tensor([1e-3, 1e-3], dtype=torch.float16)])
    first, second = criterion.scores(weight)[0].tolist()
    assert first > second > 0


def test_a_large_weight_on_its_way_to_zero_is_worth_less_than_a_small_one_that_grows():
    weight, goal = torch.tensor([1.0, 0.1]), torch.tensor([0.6, 0.5])
    criterion = Movement()
    for _ in range(20):
        gradient = 2 * (weight - goal)
        criterion.watch([weight], [gradient])
        weight = weight - 0.02 * gradient
    shrinking, growing = criterion.scores([weight])[0].tolist()
    assert shrinking < 0 < growing
    assert weight[0] > weight[1], "by magnitude the other one would go"


def test_random_is_drawn_anew_each_time_and_follows_from_its_seed():
    weights = [torch.ones(50)]
    first, second = Random(3), Random(3)
    a, b = first.scores(weights)[0], first.scores(weights)[0]
    assert not torch.equal(a, b)
    assert torch.equal(a, second.scores(weights)[0])
    assert not torch.equal(a, Random(4).scores(weights)[0])


@pytest.mark.parametrize("name", CRITERIA)
def test_there_is_one_finite_score_a_weight(name):
    weights = [torch.randn(4, 3), torch.zeros(2, 3, 5, 5)]
    criterion = CRITERIA[name]()
    criterion.watch(weights, [torch.randn(weight.shape) for weight in weights])
    scores = criterion.scores(weights)
    assert [score.shape for score in scores] == [weight.shape for weight in weights]
    assert all(bool(score.isfinite().all()) for score in scores)


# --- masks ---


@given(st.integers(1, 4), st.integers(1, 13), st.integers(2, 5), st.data())
def test_n_of_m_is_the_rule_carried_out_run_by_run(rows, columns, m, data):
    zeros = data.draw(st.integers(1, m - 1))
    score = torch.tensor(
        data.draw(st.lists(st.integers(0, 9), min_size=rows * columns, max_size=rows * columns))
    ).view(rows, columns)
    mask = lowest_of_every(m, score.float(), zeros)
    for row in range(rows):
        for begin in range(0, columns, m):
            run = score[row, begin : begin + m].tolist()
            go = max(0, zeros - (m - len(run)))  # what the run lacks is zero already
            expected = sorted(range(len(run)), key=lambda i: run[i])[:go]
            got = [i for i in range(len(run)) if mask[row, begin + i]]
            assert got == sorted(expected)


def test_two_of_four_run_along_the_input_channels_of_a_convolution():
    torch.manual_seed(0)
    score = torch.rand(6, 8, 3, 3)
    mask = lowest_of_every(4, score, 2)
    assert (mask.view(6, 2, 4, 3, 3).sum(2) == 2).all()
    assert not (mask.permute(0, 2, 3, 1).reshape(-1)[: 6 * 72].view(-1, 9).sum(1) == 2).all()


def test_a_convolution_of_one_input_channel_keeps_everything():
    assert not lowest_of_every(4, torch.rand(20, 1, 5, 5), 2).any()


@pytest.mark.parametrize("scope", ["global", "layer", "n:m"])
def test_what_is_zero_already_goes_first_whatever_its_score(scope):
    torch.manual_seed(0)
    weight = torch.randn(10, 4)
    weight[:, :2] = 0.0
    scores = torch.where(weight == 0, 9.0, torch.rand(10, 4))
    (mask,) = choose([weight], [scores], 0.5, scope, 4, [1])
    assert torch.equal(mask, weight == 0)


def test_layers_are_found_by_their_path_and_shared_ones_once():
    first, tied = nn.Linear(4, 4), nn.Linear(4, 4)
    tied.weight = first.weight
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Sequential(first, first, tied))
    assert list(prunable_layers(module)) == ["0", "2.0"]


# --- gradual: what stands behind a zero ---


def test_behind_each_zero_the_weight_goes_on_as_dynamic_network_surgery_has_it():
    """The literal update: W ← W − η · ∂L/∂(W ∘ M), for the cut weights too; M by |W| after each step."""
    torch.manual_seed(0)
    module = nn.Linear(6, 1, bias=False)
    dense, mask = module.weight.detach().clone(), torch.zeros(1, 6, dtype=torch.bool)
    x, y = torch.randn(40, 6), torch.randn(40, 1)
    hook = Gradual(module, Magnitude(), lambda w, s, sparsity: lowest(s, sparsity), 0.5, 30)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    came_back = 0
    for step in range(1, 31):
        masked = dense.masked_fill(mask, 0.0).requires_grad_()
        ((x @ masked.T - y) ** 2).mean().backward()
        dense = dense - 0.05 * masked.grad
        before = mask
        (mask,) = lowest([dense.abs()], 0.5 - 0.5 * (1 - step / 30) ** 3)
        came_back += int((before & ~mask).sum())
        optimizer.zero_grad()
        ((module(x) - y) ** 2).mean().backward()
        optimizer.step()
        hook(module)
        assert torch.allclose(module.weight, dense.masked_fill(mask, 0.0), atol=1e-6)
    assert came_back > 0, "the test saw no weight return"


@pytest.mark.parametrize(("steps", "updates"), [(1, 100), (7, 100), (5, 2), (250, 100)])
def test_the_ramp_ends_exactly_at_the_sparsity_however_often_the_masks_are_chosen(
    steps, updates, monkeypatch
):
    monkeypatch.setattr(labkit.prune.schedule, "_UPDATES", updates)
    torch.manual_seed(0)
    module = nn.Linear(10, 10)
    hook = Gradual(module, Magnitude(), lambda w, s, sparsity: lowest(s, sparsity), 0.87, steps)
    zeros = []
    for _ in range(steps + 3):
        module.weight.grad = torch.zeros(10, 10)
        hook(module)
        zeros.append(int((module.weight == 0).sum()))
    assert zeros == sorted(zeros)
    assert zeros[steps - 1 :] == [87] * 4
