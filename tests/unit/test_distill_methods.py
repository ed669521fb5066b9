"""The other ways to distil: hints, attention, decoupled soft targets, a twin; each against its printed equation."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from labkit.distill import (
    Distill,
    DistillAttention,
    DistillDecoupled,
    DistillHints,
    DistillLogits,
    DistillSelf,
    distillation_loss,
)
from labkit.distill.decoupled import decoupled
from labkit.distill.features import Attention, Guess
from labkit.distill.layers import Shown, overheard, pair_stages, shapes_of
from labkit.distill.logits import logit_loss
from labkit.distill.soft_targets import divergence
from labkit.distill.student import fresh
from labkit.errors import ConfigError, TechniqueError
from labkit.measure.quality import evaluate
from labkit.models import build
from labkit.train import fresh_variant
from labkit.variant import TensorSpec, Variant
from labkit.zoo import load_model

QUICK = {
    "student": "lenet5",
    "width": 0.3,
    "epochs": 1,
    "max_samples": 128,
    "learning_rate": 0.05,
    "threads": 1,
}
FEATURES = (DistillHints, DistillAttention)
TARGET = torch.tensor([0, 1, 2, 3, 0, 1])


@pytest.fixture(scope="module")
def resnet():
    return load_model("resnet20@digits")


def untrained(digits, **config):
    return fresh_variant(config, digits)


def logits(seed, count=6, classes=4):
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(count, classes, generator=generator, dtype=torch.float64)


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


# --- logits ---


def test_the_loss_of_logits_is_what_soft_targets_come_to_as_the_temperature_rises():
    student, teacher = (each - each.mean(-1, keepdim=True) for each in (logits(0), logits(1)))
    expected = float(logit_loss(student, teacher))
    off = [
        abs(float(distillation_loss(student, teacher, TARGET, temperature, alpha=1.0)) / expected - 1)
        for temperature in (10.0, 100.0, 1000.0)
    ]
    assert off[0] > 5 * off[1] > 25 * off[2] and off[2] < 0.01


def test_what_all_logits_have_in_common_is_learned_from_logits_and_not_from_soft_targets():
    teacher = logits(1)
    student = (teacher + 1).requires_grad_()
    DistillLogits(alpha=1.0).match(student, teacher, TARGET).backward()
    torch.testing.assert_close(student.grad, torch.full_like(teacher, 1 / teacher.numel()))
    assert float(distillation_loss(teacher + 1, teacher, TARGET, 4.0, alpha=1.0)) < 1e-12


def test_labels_weigh_what_alpha_leaves_them_beside_logits():
    student, teacher = logits(0), logits(1)
    found = DistillLogits(alpha=0.7).match(student, teacher, TARGET)
    labels = torch.nn.functional.cross_entropy(student, TARGET)
    torch.testing.assert_close(found, 0.7 * logit_loss(student, teacher) + 0.3 * labels)


def test_a_temperature_is_refused_where_there_is_none():
    with pytest.raises(ConfigError, match=r"temperature=2.0 would have no effect"):
        DistillLogits(temperature=2.0)


# --- decoupled ---


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_two_parts_with_the_papers_factors_are_the_divergence(temperature):
    """KL = TCKD + (1 − p_t[label]) · NCKD (Zhao et al. 2022, eq. 5)."""
    student, teacher = logits(0), logits(1)
    sure, others = decoupled(student, teacher, TARGET, temperature)
    p = (teacher / temperature).softmax(-1)
    doubt = 1 - p[range(6), TARGET]
    whole = divergence(p.log(), (student / temperature).log_softmax(-1))
    assert torch.allclose(sure + doubt * others, whole)
    assert not torch.allclose(sure + others, whole)


def test_the_parts_are_those_of_the_paper_written_out():
    student, teacher = logits(2), logits(3)
    sure, others = decoupled(student, teacher, TARGET, 2.0)
    p, q = softmax(teacher.numpy() / 2), softmax(student.numpy() / 2)
    for row, label in enumerate(TARGET.tolist()):
        a, b = p[row, label], q[row, label]
        assert float(sure[row]) == pytest.approx(a * np.log(a / b) + (1 - a) * np.log((1 - a) / (1 - b)))
        rest_p, rest_q = np.delete(p[row], label) / (1 - a), np.delete(q[row], label) / (1 - b)
        assert float(others[row]) == pytest.approx((rest_p * np.log(rest_p / rest_q)).sum())


def test_a_sure_teacher_still_teaches_the_other_classes():
    teacher = torch.tensor([[30.0, 2.0, 0.0, -2.0]], requires_grad=False)
    student = torch.zeros(1, 4, requires_grad=True)
    distillation_loss(student, teacher, torch.tensor([0]), 1.0, 1.0).backward()
    plain = student.grad[0, 1:].clone()
    student.grad = None
    DistillDecoupled(alpha=1.0, temperature=1.0).match(student, teacher, torch.tensor([0])).backward()
    assert float(plain.max() - plain.min()) < 1e-6, "the divergence tells the student nothing about which"
    assert float(student.grad[0, 1:].max() - student.grad[0, 1:].min()) > 0.1


def test_the_weights_and_the_labels_have_their_say():
    student, teacher = logits(0), logits(1)
    sure, others = decoupled(student, teacher, TARGET, 4.0)
    plain = nn.functional.cross_entropy(student, TARGET)
    found = DistillDecoupled(label_weight=0.5, others_weight=3.0, alpha=0.7).match(student, teacher, TARGET)
    expected = 0.7 * 16 * (0.5 * sure.mean() + 3 * others.mean()) + 0.3 * plain
    assert float(found) == pytest.approx(float(expected))


# --- layers ---


def test_a_stage_ends_with_the_last_map_of_its_size(resnet, lenet, digits):
    student = untrained(digits, architecture="resnet8")
    shapes, theirs = shapes_of(student), shapes_of(resnet)
    assert pair_stages(shapes, theirs) == [
        ("blocks.0", "blocks.2"),
        ("blocks.1", "blocks.5"),
        ("blocks.2", "blocks.8"),
    ]
    assert theirs["blocks.5"] == (32, 16, 16) and "fc" not in theirs
    quarter = shapes_of(untrained(digits, architecture="resnet8", first_stride=2))
    assert pair_stages(quarter, theirs)[-1] == ("blocks.2", "blocks.8"), (
        "the last belong together at any size"
    )
    assert pair_stages(shapes, shapes_of(lenet)) == [("blocks.1", "conv1"), ("blocks.2", "conv2")]


def test_where_there_are_no_maps_the_last_row_before_the_logits_is_taken(resnet, digits):
    mlp = shapes_of(untrained(digits, architecture="mlp", hidden=[32, 16]))
    (pair,) = pair_stages(mlp, shapes_of(resnet))
    assert mlp[pair[0]] == (16,) and shapes_of(resnet)[pair[1]] == (64,)


def test_listening_leaves_nothing_behind(lenet):
    with overheard(lenet.model, ["conv1"]) as heard:
        lenet.model(torch.zeros(1, 1, 32, 32))
    assert heard["conv1"].shape == (1, 20, 28, 28)
    assert not any(module._forward_hooks for module in lenet.model.modules())


def test_a_watched_network_gives_its_logits_first_and_then_its_layers(lenet):
    image = torch.randn(3, 1, 32, 32)
    rows = Shown(lenet.model, ["conv1", "conv2"], [Attention((4, 4)), Guess(nn.Identity())])(image)
    assert rows.shape == (3, 10 + 16 + 50 * 10 * 10)
    assert torch.equal(rows[:, :10], lenet.model(image))


def test_an_attention_map_is_the_papers(lenet):
    """Σ_c |A_c|², divided by its norm (Zagoruyko and Komodakis 2017, eq. 1 and 2)."""
    x = torch.randn(2, 5, 4, 6)
    flat = (x.numpy() ** 2).sum(1).reshape(2, -1)
    expected = flat / np.sqrt((flat**2).sum(1, keepdims=True))
    assert np.allclose(Attention((4, 6))(x).numpy(), expected, atol=1e-6)
    assert torch.allclose(Attention((2, 3))(x).norm(dim=1), torch.ones(2))
    assert torch.allclose(Attention((4, 6))(7 * x), Attention((4, 6))(x)), (
        "how strongly is not asked, but where"
    )


def test_the_distance_of_two_hints_is_the_mean_over_their_elements():
    a, b = torch.randn(3, 4, 5, 5), torch.randn(3, 4, 5, 5)
    look = Guess(nn.Identity(), (5, 5))
    found = (look(a) - look(b)).square().sum(1)
    assert torch.allclose(found, (a - b).square().mean((1, 2, 3)))


# --- students ---


@pytest.mark.parametrize("cls", FEATURES)
def test_the_layers_are_learned_from_as_well_as_the_answers(cls, lenet, digits):
    with_layers, hardly = (cls(**QUICK, weight=weight)(lenet, digits) for weight in (10.0, 1e-9))
    assert with_layers.payload != hardly.payload
    assert set(with_layers.model.state_dict()) == set(build(with_layers.model.config).state_dict())
    answers_alone = Distill(**QUICK)(lenet, digits)
    for ours, theirs in zip(hardly.model.parameters(), answers_alone.model.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-3)


def test_a_student_comes_to_look_where_its_teacher_looks(resnet, digits):
    image = torch.from_numpy(resnet.feeds(digits.split("validation").inputs)["image"][:64])

    def attention(variant, layer):
        with torch.no_grad(), overheard(variant.model, [layer]) as heard:
            variant.model(image)
        return Attention((16, 16))(heard[layer])

    def apart(weight):
        quick = {**QUICK, "student": "resnet8", "width": 1.0, "epochs": 2, "max_samples": 256}
        student = DistillAttention(**quick, weight=weight)(resnet, digits)
        return float((attention(student, "blocks.1") - attention(resnet, "blocks.5")).square().sum(1).mean())

    assert apart(300.0) < 0.7 * apart(1e-9)


def test_a_student_learns_to_tell_its_teachers_maps(lenet, digits):
    """From a teacher whose answers say nothing, so that the hints are all there is to learn."""
    mute = dataclasses.replace(lenet, model=copy.deepcopy(lenet.model))
    for parameter in mute.model.fc2.parameters():
        nn.init.zeros_(parameter)
    losses = []
    quick = DistillHints(**{**QUICK, "epochs": 4, "width": 1.0}, alpha=1.0, weight=10.0)
    quick(mute, digits, lambda fraction, message: losses.append(float(message.rpartition(" ")[2])))
    assert np.mean(losses[-4:]) < 0.6 * np.mean(losses[:2])


@pytest.mark.parametrize("cls", (*FEATURES, DistillDecoupled, DistillLogits, DistillSelf))
def test_with_a_silent_teacher_every_method_is_plain_training(cls, lenet, digits):
    config = {key: value for key, value in QUICK.items() if key in {f.name for f in dataclasses.fields(cls)}}
    silent = cls(**config, alpha=0.0)(lenet, digits)
    assert evaluate(silent, digits).mean() > 0.05
    other = dataclasses.replace(lenet, model=fresh(lenet.model.config, 5))
    assert cls(**config, alpha=0.0)(other, digits).payload == silent.payload, (
        "who the teacher is says nothing"
    )


def test_a_twin_has_its_teachers_shape_and_none_of_its_weights(lenet, digits):
    twin = DistillSelf(epochs=1, max_samples=32, threads=1)
    assert twin(lenet, digits).model.config == lenet.model.config
    begun = twin.fresh_student(lenet)
    assert all(
        not torch.equal(a, b) for a, b in zip(begun.parameters(), lenet.model.parameters(), strict=True)
    )


# --- refusals ---


def foreign():
    model = nn.Sequential(nn.Flatten(), nn.Linear(1024, 10)).eval()
    inputs, outputs = (
        TensorSpec("image", "float32", ("batch", 1, 32, 32)),
        TensorSpec("logits", "float32", ("batch", 10)),
    )
    return Variant("foreign", "torch", model, (inputs,), (outputs,))


@pytest.mark.parametrize(
    ("technique", "says"),
    [
        (DistillHints(**QUICK, layers="conv9:conv1"), "student has no layer 'conv9' .* did you mean 'conv"),
        (DistillHints(**QUICK, layers="conv1:conv9"), "teacher has no layer 'conv9'"),
        (
            DistillHints(**QUICK, layers="conv1:fc1"),
            r"conv1 puts out \[8, 28, 28\] .* fc1 \[500\], which cannot",
        ),
        (
            DistillAttention(**QUICK, layers="fc1"),
            r"fc1 \[500\], which cannot .*; attention is of feature maps",
        ),
    ],
)
def test_layers_that_make_no_sense_together_are_named(technique, says, lenet, digits):
    with pytest.raises(TechniqueError, match=says):
        technique(lenet, digits)


class OneLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(1024, 10)

    def forward(self, image):
        return self.fc(image.flatten(1))


def test_a_network_that_shows_nothing_can_give_no_hints(digits):
    with pytest.raises(TechniqueError, match="no layers that could be compared"):
        DistillHints(**QUICK)(dataclasses.replace(foreign(), model=OneLayer().eval()), digits)


def test_a_foreign_network_has_no_twin(digits):
    with pytest.raises(TechniqueError, match=r"'foreign' is a Sequential.*labkit\.distill\.Distill"):
        DistillSelf()(foreign(), digits)
