"""Networks that end in a softmax of their own, as Keras and many exports have them, train and teach as without it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from scipy.special import softmax
from torch import nn

import labkit.train
from labkit.convert import ExportOnnx
from labkit.distill import Distill, DistillDecoupled, DistillHints, DistillLogits
from labkit.prune import PruneMagnitude
from labkit.runtimes import reference_runtime
from labkit.task import Classification, as_logits
from labkit.train import Train

SHORT = {"max_samples": 96, "threads": 1, "learning_rate": 0.02}
STUDENT = {"student": "lenet5", "width": 0.3, "epochs": 1, **SHORT}


@pytest.fixture(scope="module")
def ended(lenet):
    """The same network with a softmax behind it."""
    return dataclasses.replace(lenet, model=nn.Sequential(lenet.model, nn.Softmax(dim=1)).eval())


def answers(variant, digits):
    feeds = variant.feeds(digits.split("test").take(slice(0, 64)).inputs)
    with reference_runtime(variant).load(variant) as session:
        return next(iter(session.run(feeds).values()))


def assert_alike(first, second):
    ours, theirs = (list(each.model.parameters()) for each in (first, second))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=5e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_loss_of_probabilities_is_that_of_their_logits(dtype):
    logits, target = 8 * torch.randn(64, 10), torch.arange(64) % 10
    told = Classification().loss(logits.softmax(1).to(dtype).float(), target)
    torch.testing.assert_close(told, Classification().loss(logits, target), rtol=1e-2, atol=1e-4)


def test_logits_stay_as_they_are():
    for logits in (torch.randn(8, 3), torch.rand(8, 3), torch.eye(4) * 2, torch.randn(4, 3, 2)):
        assert as_logits(logits) is logits


def test_a_probability_of_nothing_has_a_loss_that_is_finite():
    sure = torch.eye(3, requires_grad=True)
    loss = Classification().loss(sure, torch.tensor([1, 1, 2]))
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(sure.grad).all()


def test_it_trains_as_without_the_softmax(lenet, ended, digits):
    train = Train(epochs=1, precision="float32", **SHORT)
    assert_alike(train(ended, digits), train(lenet, digits))


@pytest.mark.parametrize("change", [lambda variant: variant, ExportOnnx()], ids=["torch", "onnx"])
def test_it_is_fine_tuned_as_without_the_softmax(change, lenet, ended, digits, monkeypatch):
    monkeypatch.setattr(labkit.train, "uses_bfloat16", lambda _: False)
    prune = PruneMagnitude(sparsity=0.95, fine_tune_epochs=1, **SHORT)
    probabilities, logits = (answers(prune(change(each), digits), digits) for each in (ended, lenet))
    np.testing.assert_allclose(probabilities, softmax(logits, 1), rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("technique", [Distill, DistillLogits, DistillDecoupled, DistillHints])
def test_it_teaches_as_without_the_softmax(technique, lenet, ended, digits):
    technique = technique(**STUDENT)
    if technique.name == "distill_logits":  # log-probabilities, all logits less what they have in common
        less = nn.Sequential(lenet.model, nn.LogSoftmax(dim=1)).eval()
        assert_alike(technique(ended, digits), technique(dataclasses.replace(lenet, model=less), digits))
    else:
        assert_alike(technique(ended, digits), technique(lenet, digits))
