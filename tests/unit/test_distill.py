"""Distillation: the printed loss, its gradient, and a student that can learn from the teacher alone."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from labkit.convert import ExportOnnx
from labkit.distill import (
    Distill,
    DistillDecoupled,
    DistillHints,
    DistillLogits,
    DistillSelf,
    distillation_loss,
)
from labkit.distill.student import scaled
from labkit.errors import Cancelled, ConfigError, DataError, TechniqueError
from labkit.measure.quality import evaluate
from labkit.models import build
from labkit.progress import silent
from labkit.prune import PruneMagnitude
from labkit.train import Train, fit
from labkit.variant import TensorSpec, Variant
from labkit.zoo import load_model

QUICK = Distill(student="lenet5", width=0.3, epochs=1, max_samples=128, learning_rate=0.05, threads=1)


def logits(seed, count=6, classes=4, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(count, classes, generator=generator, dtype=torch.float64)


TARGET = torch.tensor([0, 1, 2, 3, 0, 1])


# --- the loss ---


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def by_hand(student, teacher, target, temperature, alpha):
    """α·T²·KL(softmax(z_t/T) ‖ softmax(z_s/T)) + (1 − α)·cross-entropy, as it is printed, in numpy."""
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    divergence = (p * np.log(p / q)).sum(-1).mean()
    cross_entropy = -np.log(softmax(student)[np.arange(len(target)), target]).mean()
    return alpha * temperature**2 * divergence + (1 - alpha) * cross_entropy


@given(st.integers(0, 10_000), st.floats(0.5, 20.0), st.floats(0.0, 1.0))
def test_the_loss_is_the_printed_equation(seed, temperature, alpha):
    student, teacher = logits(seed), logits(seed + 1)
    ours = float(distillation_loss(student, teacher, TARGET, temperature, alpha))
    reference = by_hand(student.numpy(), teacher.numpy(), TARGET.numpy(), temperature, alpha)
    assert ours == pytest.approx(reference, rel=1e-9, abs=1e-12)


def test_the_reference_notices_the_divergence_the_other_way_round():
    student, teacher = logits(0), logits(1)
    swapped = float(distillation_loss(teacher, student, TARGET, 2.0, 1.0))
    reference = by_hand(student.numpy(), teacher.numpy(), TARGET.numpy(), 2.0, 1.0)
    assert swapped != pytest.approx(reference, rel=1e-3)


def test_alpha_zero_is_the_plain_cross_entropy_and_alpha_one_needs_no_label():
    student, teacher = logits(0), logits(1)
    plain = torch.nn.functional.cross_entropy(student, TARGET)
    assert float(distillation_loss(student, teacher, TARGET, 4.0, 0.0)) == pytest.approx(float(plain))
    other = TARGET.flip(0)
    one, two = (distillation_loss(student, teacher, target, 4.0, 1.0) for target in (TARGET, other))
    assert float(one) == float(two)
    assert float(distillation_loss(student, teacher, TARGET - 1_000, 4.0, 1.0)) == float(one), (
        "no label is read"
    )


def test_a_student_that_agrees_has_nothing_to_learn_from_the_teacher():
    student = logits(0).requires_grad_()
    loss = distillation_loss(student, student.detach() + 5.0, TARGET, 3.0, 1.0)  # softmax ignores the 5
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0.0, abs=1e-12)
    assert float(student.grad.abs().max()) == pytest.approx(0.0, abs=1e-12)


def gradient(temperature, factor):
    student = (logits(0) - logits(0).mean(-1, keepdim=True)).requires_grad_()
    teacher = logits(1) - logits(1).mean(-1, keepdim=True)
    (factor * distillation_loss(student, teacher, TARGET, temperature, 1.0)).backward()
    return student.grad, (student.detach() - teacher) / student.numel()


def test_at_high_temperature_the_gradient_is_the_difference_of_the_logits():
    """T² · ∂KL/∂z → (z_s − z_t) / C for logits of zero mean, over N too (Hinton et al. 2015, eq. 4)."""
    for temperature in (100.0, 1000.0):
        found, limit = gradient(temperature, 1.0)
        assert torch.allclose(found, limit, rtol=0.0, atol=10 / temperature * float(limit.abs().max()))


def test_without_the_factor_the_gradient_would_vanish():
    temperature = 100.0
    found, limit = gradient(temperature, 1 / temperature**2)
    assert float(found.abs().max()) < 1e-3 * float(limit.abs().max())


def test_the_gradient_keeps_its_size_when_the_temperature_changes():
    sizes = [float(gradient(temperature, 1.0)[0].norm()) for temperature in (2.0, 5.0, 20.0, 50.0)]
    assert max(sizes) < 1.5 * min(sizes)
    bare = [size / temperature**2 for size, temperature in zip(sizes, (2.0, 5.0, 20.0, 50.0), strict=True)]
    assert bare[0] > 100 * bare[-1], "it is the factor T² that does it"


def test_large_logits_stay_finite():
    student = torch.tensor([[500.0, -500.0]], requires_grad=True)
    loss = distillation_loss(student, torch.tensor([[-500.0, 500.0]]), torch.tensor([1]), 1.0, 0.5)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(student.grad).all()


# --- the student ---


def test_the_student_is_what_the_knobs_say(lenet, digits):
    student = dataclasses.replace(QUICK, student="resnet8", width=0.5)(lenet, digits)
    assert student.model.config["architecture"] == "resnet8"
    assert student.model.config["stages"] == [8, 16, 32]
    assert student.model.config["inner"] == [[8], [16], [32]]
    assert student.inputs == lenet.inputs and student.preprocessing == lenet.preprocessing
    assert student.lineage[-1].technique == "distill"
    assert student.lineage[-1].parents == (lenet.digest,)


@given(st.integers(1, 512), st.floats(0.001, 1.0))
def test_a_scaled_width_is_the_nearest_multiple_of_four_above_zero(width, factor):
    made = scaled({"stages": [width]}, factor)["stages"][0]
    assert made >= 4 and made % 4 == 0 or made == width * factor
    assert made == 4 or abs(made - width * factor) <= 2


def test_the_whole_width_is_the_architecture_s_own():
    assert scaled({"channels": [20, 50], "hidden": 3}, 1.0) == {"channels": [20, 50], "hidden": 3}


@pytest.mark.parametrize(
    ("strides", "stem", "block"),
    [({}, 32, 32), ({"first_stride": 2}, 32, 16), ({"stem_stride": 2}, 16, 16)]
    + [({"first_stride": 2, "stem_stride": 2}, 16, 8)],
)
def test_a_stride_leaves_a_quarter_of_the_pixels_and_all_of_the_weights(lenet, strides, stem, block):
    whole = Distill(width=1.0).fresh_student(lenet)
    student = Distill(width=1.0, **strides).fresh_student(lenet)
    seen = []
    for layer in (student.stem, student.blocks[0]):
        layer.register_forward_hook(lambda module, inputs, output: seen.append(tuple(output.shape)))
    student(torch.zeros(1, 1, 32, 32))
    assert seen == [(1, 16, stem, stem), (1, 16, block, block)]
    assert sum(p.numel() for p in whole.parameters()) == sum(p.numel() for p in student.parameters())


@pytest.mark.parametrize("stride", ["first_stride", "stem_stride"])
def test_an_architecture_without_a_stem_says_so(lenet, digits, stride):
    with pytest.raises(ConfigError, match=f"unknown field '{stride}' for lenet5"):
        dataclasses.replace(QUICK, **{stride: 2})(lenet, digits)


def test_a_student_may_start_as_every_third_block_of_its_teacher():
    teacher = load_model("resnet20@digits")
    student = Distill(width=1.0, first_stride=2, start="teacher").fresh_student(teacher)
    for mine, theirs in ((0, 0), (1, 3), (2, 6)):
        for name, tensor in student.blocks[mine].state_dict().items():
            assert torch.equal(tensor, teacher.model.blocks[theirs].state_dict()[name])
    assert torch.equal(student.stem.weight, teacher.model.stem.weight)
    assert torch.equal(student.fc.weight, teacher.model.fc.weight)
    with torch.no_grad():
        student.fc.weight.zero_()
    assert teacher.model.fc.weight.any(), "the student's parameters are copies"


@pytest.mark.parametrize("name", ["resnet20", "lenet5", "mobilenet", "vit", "lenet300"])
def test_a_student_as_deep_as_its_teacher_starts_as_the_teacher_itself(name, lenet):
    model = build({"architecture": name, "input_shape": [1, 32, 32], "num_outputs": 10})
    teacher = dataclasses.replace(lenet, model=model.eval())
    student = Distill(student=name, width=1.0, start="teacher").fresh_student(teacher)
    image = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(student(image), teacher.model.eval()(image))


@pytest.mark.parametrize(
    ("name", "deep", "taken"),
    [
        ("vit", {"depth": 9}, [0, 1, 3, 4, 6, 7]),
        ("mobilenet", {"blocks": [3, 3, 8]}, [0, 3, 4, 5, 6, 8, 10, 12]),
    ],
)
def test_blocks_are_found_in_every_family_that_has_some(name, deep, taken, lenet):
    model = build({"architecture": name, "input_shape": [1, 32, 32], "num_outputs": 10, **deep})
    teacher = dataclasses.replace(lenet, model=model.eval())
    student = Distill(student=name, width=1.0, start="teacher").fresh_student(teacher)
    for mine, theirs in enumerate(taken):
        for key, tensor in student.blocks[mine].state_dict().items():
            assert torch.equal(tensor, model.blocks[theirs].state_dict()[key])


@pytest.mark.parametrize("change", [{"width": 0.5}, {"student": "lenet5"}])
def test_a_student_of_other_shapes_cannot_start_as_its_teacher(change):
    with pytest.raises(TechniqueError, match="start='teacher' copies layers of equal shape"):
        Distill(**{"width": 1.0, "start": "teacher", **change}).fresh_student(load_model("resnet20@digits"))


def test_a_foreign_module_is_no_start(lenet, digits):
    shape = ("batch", 1, 32, 32)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(1024, 10)).eval()
    outputs = (TensorSpec("logits", "float32", ("batch", 10)),)
    teacher = Variant("foreign", "torch", model, (TensorSpec("image", "float32", shape),), outputs)
    with pytest.raises(TechniqueError, match="start='random'"):
        Distill(start="teacher")(teacher, digits)


def test_without_the_teacher_it_is_plain_training_on_the_same_budget(lenet, digits):
    silent_teacher = dataclasses.replace(QUICK, alpha=0.0)
    start = dataclasses.replace(lenet, model=silent_teacher.fresh_student(lenet))
    recipe = Train(epochs=1, batch_size=32, learning_rate=0.05, max_samples=128, threads=1)
    plain = dataclasses.replace(lenet, model=fit(recipe, start, digits, silent))
    assert silent_teacher(lenet, digits).payload == plain.payload
    assert QUICK(lenet, digits).payload != plain.payload


def test_a_student_learns_from_the_teacher_where_the_labels_say_nothing(lenet, digits):
    train = digits.split("train")
    useless = dataclasses.replace(train, target=np.random.RandomState(0).permutation(train.target))
    data = dataclasses.replace(digits, splits={**digits.splits, "train": useless})
    student = dataclasses.replace(QUICK, epochs=2, max_samples=0, alpha=1.0)
    taught, alone = student(lenet, data), dataclasses.replace(student, alpha=0.0)(lenet, data)
    assert evaluate(taught, digits).mean() > 0.8
    assert evaluate(alone, digits).mean() < 0.4


def test_the_teacher_answers_the_batch_that_the_student_sees_in_evaluation_mode(lenet):
    module = Distill(student="resnet8", width=0.25).fresh_student(lenet)
    teacher = dataclasses.replace(lenet, model=module.train())
    statistics = {name: tensor.clone() for name, tensor in teacher.model.state_dict().items()}
    images, output = torch.randn(6, 1, 32, 32), torch.randn(6, 10, requires_grad=True)
    found = QUICK.loss_from(teacher)(output, TARGET, (images,))
    with torch.no_grad():
        answer = teacher.model.eval()(images)
    expected = distillation_loss(output, answer, TARGET, QUICK.temperature, QUICK.alpha)
    assert found.item() == pytest.approx(expected.item(), rel=0.02)  # the teacher may answer in bfloat16
    assert all(torch.equal(tensor, statistics[name]) for name, tensor in teacher.model.state_dict().items())
    found.backward()
    assert all(parameter.grad is None for parameter in teacher.model.parameters())


def test_it_stops_at_the_next_batch_and_the_teacher_is_untouched(lenet, digits):
    before, steps = lenet.fingerprint(), []

    def stop(fraction, message):
        steps.append(fraction)
        raise Cancelled

    with pytest.raises(Cancelled):
        QUICK(lenet, digits, stop)
    assert len(steps) == 1 and lenet.fingerprint() == before


# --- errors ---


def test_it_needs_data(lenet):
    with pytest.raises(TechniqueError, match="distill needs a dataset"):
        QUICK(lenet)


def test_a_regression_has_no_soft_targets(cases):
    for technique in (QUICK, PruneMagnitude(fine_tune_epochs=1, alpha=0.5)):
        with pytest.raises(TechniqueError, match="not for regression"):
            technique(*cases["regression"])


def test_a_teacher_of_something_else_than_images_is_refused(cases):
    with pytest.raises(TechniqueError, match="'two_inputs' has other inputs or outputs"):
        QUICK(*cases["two_inputs"])


def test_a_teacher_of_other_classes_is_refused(digits):
    shape = ("batch", 1, 32, 32)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(1024, 3)).eval()
    outputs = (TensorSpec("logits", "float32", ("batch", 3)),)
    teacher = Variant("three", "torch", model, (TensorSpec("image", "float32", shape),), outputs)
    with pytest.raises(DataError, match="'three' knows 3 classes, 'digits' has 10"):
        QUICK(teacher, digits)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"temperature": 0.0}, r"temperature=0\.0 is out of range; allowed: 0\.0 < temperature ≤ 50\.0"),
        ({"temperature": -1.0}, r"temperature=-1\.0"),
        ({"alpha": 1.1}, r"alpha=1\.1 is out of range; allowed: 0\.0 ≤ alpha ≤ 1\.0"),
        ({"alpha": -0.1}, r"alpha=-0\.1"),
        ({"alpha": math.nan}, "alpha=nan"),
        ({"width": 0.0}, r"width=0\.0 .* 0\.0 < width ≤ 1\.0"),
        ({"student": "resnet9"}, "student='resnet9' is unknown; did you mean 'resnet8'"),
        ({"epochs": 0}, "epochs=0"),
        ({"first_stride": 5}, r"first_stride=5 .* 1 ≤ first_stride ≤ 2"),
        ({"start": "zero"}, "start='zero' is unknown"),
    ],
)
def test_a_bad_knob_names_the_field_the_value_and_the_range(change, says):
    with pytest.raises(ConfigError, match=says):
        Distill(**change)


def test_the_same_student_starts_from_the_same_weights(lenet):
    first, again, other = (dataclasses.replace(QUICK, seed=seed).fresh_student(lenet) for seed in (1, 1, 2))
    assert torch.equal(first.fc1.weight, again.fc1.weight)
    assert not torch.equal(first.fc1.weight, other.fc1.weight)


# --- a teacher in a file ---


@pytest.fixture(scope="module")
def file(lenet):
    return ExportOnnx()(lenet)


@pytest.mark.parametrize("technique", [Distill, DistillLogits, DistillDecoupled])
def test_an_onnx_file_teaches_as_the_network_that_it_was_made_of(technique, lenet, file, digits):
    technique = technique(**{**QUICK.config, **({} if technique != DistillLogits else {"temperature": 4.0})})
    by_file, by_network = technique(file, digits), technique(lenet, digits)
    assert by_file.format == "torch" and by_file.lineage[-1].parents == (file.digest,)
    for one, other in zip(by_file.model.parameters(), by_network.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=2e-2, atol=2e-3)


def test_a_student_of_an_onnx_file_is_a_network_that_can_be_kept(file, digits, tmp_path):
    student = QUICK(file, digits)
    student.save(tmp_path / "student")
    assert Variant.load(tmp_path / "student").digest == student.digest
    assert (student.inputs, student.labels) == (file.inputs, file.labels)


def test_an_onnx_file_that_answers_one_batch_size_alone_cannot_teach(file, digits):
    fixed = dataclasses.replace(file, inputs=(dataclasses.replace(file.inputs[0], shape=(1, 1, 28, 28)),))
    with pytest.raises(TechniqueError, match="answers batches of exactly 1, .* free batch"):
        QUICK(fixed, digits)


def test_what_needs_a_teacher_s_layers_says_how_an_onnx_file_can_teach(file, digits):
    for technique in (DistillHints, DistillSelf):
        with pytest.raises(TechniqueError, match=r"works on torch.* is onnx: .*labkit\.Distill\(\)"):
            technique(max_samples=64, epochs=1)(file, digits)
    with pytest.raises(TechniqueError, match="start='teacher' copies the layers of a PyTorch network.* onnx"):
        dataclasses.replace(QUICK, start="teacher")(file, digits)


def test_a_file_that_cannot_teach_is_not_said_to():
    assert "teach" not in QUICK.instead_of("openvino") and "labkit train" in QUICK.instead_of("openvino")
