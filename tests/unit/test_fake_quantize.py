"""Fake quantization: the rounding of the arithmetic, and the gradients of the papers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from labkit.errors import ConfigError
from labkit.quantize.arithmetic.grid import dequantize, quantize
from labkit.quantize.training.fake import LearnedGrid, fake_quantize

numbers = st.floats(-(2.0**40), 2.0**40, width=32, allow_subnormal=False)
vectors = arrays(np.float32, st.integers(1, 40), elements=numbers)
scales = st.floats(2.0**-30, 2.0**30, width=32)


@settings(max_examples=200)
@given(vectors, scales, st.integers(2, 8), st.booleans(), st.integers(0, 3))
def test_fake_quantization_is_bit_for_bit_what_the_arithmetic_gives(x, scale, bits, signed, zero_point):
    reference = dequantize(quantize(x, scale, zero_point, bits, signed), scale, zero_point)
    ours = fake_quantize(
        torch.from_numpy(x), torch.tensor(scale, dtype=torch.float32), torch.tensor(zero_point), bits, signed
    )
    np.testing.assert_array_equal(ours.numpy(), reference)


@given(arrays(np.float32, (3, 4, 5), elements=numbers), st.lists(scales, min_size=4, max_size=4))
def test_with_a_scale_per_channel_too(x, each):
    scale = np.float32(each)
    reference = dequantize(quantize(x, scale, np.zeros(4), 4, True, 1), scale, np.zeros(4), 1)
    zero = torch.zeros(4, dtype=torch.int32)
    ours = fake_quantize(torch.from_numpy(x), torch.from_numpy(scale), zero, 4, True, axis=1)
    np.testing.assert_array_equal(ours.numpy(), reference)


def test_the_gradients_are_those_of_lsq_worked_out_by_hand():
    """s = 0.5, 2 bits signed: −2 … 1. v = x/s = −3, −0.6, 0.2, 0.9, 5."""
    x = torch.tensor([-1.5, -0.3, 0.1, 0.45, 2.5], requires_grad=True)
    scale = torch.tensor(0.5, requires_grad=True)
    y = fake_quantize(x, scale, torch.tensor(0), bits=2, signed=True)
    assert y.tolist() == [-1.0, -0.5, 0.0, 0.5, 0.5]
    weights = torch.tensor([1.0, 10.0, 100.0, 1000.0, 10000.0])
    (y * weights).sum().backward()
    assert x.grad.tolist() == [0.0, 10.0, 100.0, 1000.0, 0.0]
    by_hand = 1 * -2 + 10 * (-1 + 0.6) + 100 * (0 - 0.2) + 1000 * (1 - 0.9) + 10000 * 1
    assert float(scale.grad) == pytest.approx(by_hand, rel=1e-5)


def test_a_zero_point_moves_what_is_clamped():
    """4 values 0 … 3 with 0 at 1: s·(−1 … 2)."""
    x = torch.tensor([-2.0, -0.4, 1.7, 9.0], requires_grad=True)
    scale = torch.tensor(1.0, requires_grad=True)
    y = fake_quantize(x, scale, torch.tensor(1), bits=2)
    assert y.tolist() == [-1.0, 0.0, 2.0, 2.0]
    y.sum().backward()
    assert x.grad.tolist() == [0.0, 1.0, 1.0, 0.0]
    assert float(scale.grad) == pytest.approx(-1 + 0.4 + 0.3 + 2)


def test_each_channel_s_scale_gets_its_own_gradient():
    x = torch.randn(6, 3, 2, generator=torch.Generator().manual_seed(0))
    each = torch.tensor([0.1, 0.3, 0.9], requires_grad=True)
    fake_quantize(x, each, torch.zeros(3, dtype=torch.int32), 3, True, axis=1).pow(2).sum().backward()
    for channel in range(3):
        one = each.detach()[channel].clone().requires_grad_()
        fake_quantize(x[:, channel], one, torch.tensor(0), 3, True).pow(2).sum().backward()
        assert float(each.grad[channel]) == pytest.approx(float(one.grad), rel=1e-4)


def test_the_gradient_scale_and_the_start_are_the_paper_s():
    grid = LearnedGrid(4, signed=True, axis=0, channels=2)
    x = torch.tensor([[1.0, -3.0, 2.0, 2.0], [0.0, 0.0, 0.0, 0.0]])
    assert torch.equal(grid(x), x)  # nothing is rounded before it has started
    grid.start(x.amin(1).numpy(), x.amax(1).numpy(), x.abs().mean(1).numpy(), 4)
    widest = 3 / 7
    assert widest < 2 * 2.0 / 7**0.5
    np.testing.assert_allclose(grid.scale.detach(), [widest, 1.0], rtol=1e-6)
    grid.start(x.amin(1).numpy(), x.amax(1).numpy(), np.float32([0.5, 0.0]), 4)
    np.testing.assert_allclose(grid.scale.detach(), [2 * 0.5 / 7**0.5, 1.0], rtol=1e-6)
    grid(x).sum().backward()
    plain = grid.scale.detach().clone().requires_grad_()
    fake_quantize(x, plain, torch.zeros(2, dtype=torch.int32), 4, True, 0).sum().backward()
    torch.testing.assert_close(grid.scale.grad, plain.grad / (4 * 7) ** 0.5)


def test_a_scale_never_turns_the_grid_over():
    grid = LearnedGrid(4, signed=False)
    grid.start(np.float32(0), np.float32(3), np.float32(1), 10)
    with torch.no_grad():
        first = float(grid.scale)
        grid.scale.fill_(-1.0)
    grid.keep_positive()
    assert float(grid.scale.detach()) == pytest.approx(0.01 * first)


def test_gradient_descent_on_the_step_finds_a_finer_grid_than_min_max():
    generator = torch.Generator().manual_seed(0)
    x = torch.cat([torch.rand(1000, generator=generator), torch.tensor([8.0])])
    grid = LearnedGrid(3, signed=False)
    grid.start(np.float32(0), np.float32(8), np.float32(100), 1)

    def error():
        return (grid(x) - x).pow(2).mean()

    before = float(error().detach())
    optimizer = torch.optim.SGD(grid.parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        error().backward()
        optimizer.step()
        grid.keep_positive()
    assert float(error().detach()) < 0.9 * before


@pytest.mark.parametrize("bits", [1, 9])
def test_bits_outside_2_to_8_are_refused(bits):
    with pytest.raises(ConfigError, match=r"2\.\.8"):
        fake_quantize(torch.zeros(1), torch.ones(()), torch.tensor(0), bits)
