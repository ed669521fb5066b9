"""The teacher's second looks: its mean answer to an image moved a little each way, against numpy."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from labkit import as_variant
from labkit.distill import Distill, DistillAttention, DistillHints, DistillLogits
from labkit.distill.logits import logit_loss
from labkit.distill.shifts import MeanOverShifts
from labkit.distill.soft_targets import distillation_loss
from labkit.encode import ClusterWeights
from labkit.errors import ConfigError, TechniqueError
from labkit.prune import PruneWeights

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
@pytest.mark.parametrize("technique", [Distill, DistillLogits, PruneWeights])
def test_the_student_hears_the_mean(technique, pixels, form, lenet, onnx_cases, digits, float32):
    trained = {"fine_tune_epochs": 1} if technique is PruneWeights else {}
    made = technique(alpha=1.0, teacher_shift=pixels, **trained)
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


def test_what_is_pruned_or_clustered_hears_the_mean_too(lenet, digits):
    how = {"fine_tune_epochs": 1, "alpha": 1.0, "max_samples": 64, "threads": 1}
    for technique in (functools.partial(PruneWeights, sparsity=0.5), ClusterWeights):
        plain, looked = (technique(**how, teacher_shift=pixels)(lenet, digits) for pixels in (0, 1))
        assert plain.digest != looked.digest


@pytest.mark.parametrize(
    "technique", [PruneWeights(fine_tune_epochs=1, teacher_shift=1), Distill(alpha=0.0, teacher_shift=1)]
)
def test_a_silent_teacher_does_not_look_twice(technique, lenet, digits):
    with pytest.raises(TechniqueError, match="silent one, and teacher_shift=1 idle: set alpha above 0"):
        technique(lenet, digits)
    alone = dataclasses.replace(technique, alpha=0.5).on_labels_alone()
    assert (alone.alpha, alone.teacher_shift) == (0.0, 0)


def test_what_is_no_image_is_not_moved(digits):
    flat = as_variant(torch.nn.Sequential(torch.nn.Linear(64, 10)).eval(), np.zeros((1, 64), np.float32))
    with pytest.raises(
        TechniqueError, match=r"teacher_shift=1 moves images .* takes \w+ \[\w+, 64\]: leave it out"
    ):
        PruneWeights(fine_tune_epochs=1, alpha=0.5, teacher_shift=1)(flat, digits)


@pytest.mark.parametrize("technique", [DistillHints, DistillAttention])
def test_layers_have_no_second_looks(technique):
    with pytest.raises(ConfigError, match=r"teacher_shift=1.*leave it out"):
        technique(teacher_shift=1)
