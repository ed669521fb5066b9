"""The teacher's second looks: its mean answer to an image moved a little each way, against numpy."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from labkit.distill import Distill, DistillAttention, DistillHints, DistillLogits
from labkit.distill.logits import logit_loss
from labkit.distill.shifts import MeanOverShifts
from labkit.distill.soft_targets import distillation_loss
from labkit.errors import ConfigError

QUICK = {
    "student": "lenet5",
    "width": 0.3,
    "epochs": 1,
    "max_samples": 64,
    "learning_rate": 0.05,
    "threads": 1,
}


def moved(images, dy, dx):
    """[N, C, H, W], each pixel taken from dy rows and dx columns further on; beyond the edge, the edge's own."""
    height, width = images.shape[2:]
    rows = np.clip(np.arange(height) + dy, 0, height - 1)
    columns = np.clip(np.arange(width) + dx, 0, width - 1)
    return images[:, :, rows][:, :, :, columns]


def mean_answer(network, images, pixels):
    steps = range(-pixels, pixels + 1)
    with torch.no_grad():
        answers = [
            network(torch.tensor(moved(images, *by))).numpy() for by in itertools.product(steps, steps)
        ]
    return torch.tensor(np.mean(answers, axis=0))


@pytest.mark.parametrize("pixels", [0, 1, 2])
def test_the_answer_is_the_mean_over_all_moves(pixels):
    images = np.random.RandomState(0).rand(3, 2, 5, 7).astype(np.float32)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(70, 4), torch.nn.Tanh())
    found = MeanOverShifts(network, pixels)(torch.tensor(images))
    torch.testing.assert_close(found, mean_answer(network, images, pixels))


@pytest.fixture
def float32(monkeypatch):
    """Teachers answer in float32, where this machine would have bfloat16."""
    monkeypatch.setattr("labkit.distill.soft_targets.current", lambda: SimpleNamespace(has_bf16=False))


@pytest.mark.parametrize("form", ["torch", "onnx"])
@pytest.mark.parametrize("pixels", [0, 1])
@pytest.mark.parametrize("technique", [Distill, DistillLogits])
def test_the_student_hears_the_mean(technique, pixels, form, lenet, onnx_cases, digits, float32):
    made = technique(alpha=1.0, teacher_shift=pixels)
    teacher = lenet if form == "torch" else onnx_cases["image"][0]
    images = lenet.feeds(digits.split("train").inputs)["image"][:8]
    target = torch.tensor(digits.split("train").target[:8])
    output = torch.randn(8, 10, generator=torch.Generator().manual_seed(0))
    answer = mean_answer(lenet.model, images, pixels)
    expected = (
        logit_loss(output, answer)
        if technique is DistillLogits
        else distillation_loss(output, answer, target, made.temperature, 1.0)
    )
    heard = made.loss_from(teacher)(output, target, (torch.tensor(images),))
    torch.testing.assert_close(heard, expected, atol=1e-4, rtol=1e-4)


def test_another_students_weights_come_of_it_and_the_lineage_says_so(lenet, digits):
    plain, looked = (DistillLogits(**QUICK, teacher_shift=pixels)(lenet, digits) for pixels in (0, 1))
    assert plain.digest != looked.digest
    assert looked.lineage[-1].config["teacher_shift"] == 1


@pytest.mark.parametrize("technique", [DistillHints, DistillAttention])
def test_layers_have_no_second_looks(technique):
    with pytest.raises(ConfigError, match=r"teacher_shift=1.*leave it out"):
        technique(teacher_shift=1)
