"""The models of the conversion matrix: each can be built, is the same each time, and answers as its specs say."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import pytest
import torch

from benchmarks.matrix_models import MODELS, MatrixModel
from labkit.convert import ExportOnnx, parity, tolerance
from labkit.errors import ParityError
from labkit.variant import Array, Variant

TORCH = [each for each in MODELS if each.source == "torch" and not each.package]
OTHERS = [each for each in MODELS if each not in TORCH]
NORMS = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)


def id_of(each: MatrixModel) -> str:
    return each.name


def may_wait(each: MatrixModel):
    """Of the shipped networks of one family, the first is enough for a quick run."""
    return pytest.param(each, marks=pytest.mark.extra if "@fashion-mnist" in each.name else ())


def named(name: str) -> MatrixModel:
    return next(each for each in MODELS if each.name == name)


def variant_of(each: MatrixModel) -> Variant:
    model, inputs, outputs = each.make()
    return Variant(each.name, "torch", model, inputs, outputs, task=each.task)


def run(each: MatrixModel, model, feeds: Mapping[str, Array]) -> list[Array]:
    """The outputs in the model's own framework."""
    arrays = [feeds[spec.name] for spec in each.inputs]
    if each.source == "keras":
        found = model(arrays if len(arrays) > 1 else arrays[0])
    elif each.source == "mindspore":
        import mindspore

        found = model(*(mindspore.Tensor(array) for array in arrays))
    else:
        with torch.no_grad():
            found = model(*(torch.from_numpy(array) for array in arrays))
    found = found if isinstance(found, (tuple, list)) else [found]
    return [np.asarray(each.asnumpy() if hasattr(each, "asnumpy") else each) for each in found]


def check_answers(each: MatrixModel, model) -> None:
    """The outputs have the shapes of the specs, are finite, and are not the same for every sample."""
    feeds = each.samples(64, seed=1)
    for spec in each.inputs:
        spec.check(feeds[spec.name], {})
    outputs = run(each, model, feeds)
    assert len(outputs) == len(each.outputs)
    for spec, array in zip(each.outputs, outputs, strict=True):
        spec.check(array, {})
        assert np.isfinite(array).all()
        assert array.std(0).mean() > 0.01 * np.abs(array).max(), spec.name
    if each.task == "classification":
        assert each.outputs[0].name == "logits" and outputs[0].ndim == 2
        assert len(set(outputs[0].argmax(1))) > 1


def test_there_are_sixteen_and_more_and_each_has_a_name_of_its_own():
    names = [each.name for each in MODELS]
    assert len(names) == len(set(names)) >= 16
    assert {each.source for each in MODELS} == {"torch", "keras", "mindspore"}
    assert {each.task for each in MODELS} == {"classification", "regression"}


@pytest.mark.parametrize("each", [may_wait(each) for each in TORCH], ids=id_of)
def test_every_pytorch_model_exports_and_computes_the_same(each):
    variant = variant_of(each)
    check_answers(each, variant.model)
    report = parity(variant, ExportOnnx()(variant), each.samples(11, seed=2))
    assert [row.batch_size for row in report.rows] == [size for size in (1, 3, 7) for _ in each.outputs]
    report.check(tolerance("float32"))
    assert report.top1_agreement == (1.0 if each.task == "classification" else None)


def test_an_export_of_another_model_is_noticed():
    variant = variant_of(named("densenet"))
    exported = ExportOnnx()(variant)
    with torch.no_grad():
        variant.model.norms[2].running_mean += 0.1
    with pytest.raises(ParityError):
        parity(variant, exported, named("densenet").samples(11, seed=2)).check(1e-4)


@pytest.mark.parametrize("each", TORCH, ids=id_of)
def test_a_batch_norm_that_was_left_out_would_be_seen(each):
    model = each.make()[0]
    norms = [module for module in model.modules() if isinstance(module, NORMS)]
    for norm in norms:
        assert norm.running_mean.abs().min() > 0 and (norm.running_var - 1).abs().max() > 1e-3
        assert norm.bias.abs().max() > 0 and (norm.weight - 1).abs().max() > 1e-3
    if norms:
        feeds = each.samples(4, seed=1)
        before = run(each, model, feeds)[0]
        norms[-1].reset_parameters()
        norms[-1].eval()
        assert np.abs(run(each, model, feeds)[0] - before).max() > 0.01 * np.abs(before).max()


@pytest.mark.parametrize("name", ["lstm", "resnet8", "two_towers"])
def test_a_model_is_the_same_each_time_and_disturbs_no_random_numbers(name):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first = variant_of(named(name))
    assert torch.equal(torch.rand(1), expected)
    assert variant_of(named(name)).digest == first.digest
    assert not first.model.training


@pytest.mark.parametrize("each", MODELS, ids=id_of)
def test_samples_follow_from_the_seed_and_lie_in_their_range(each):
    first, again, other = (each.samples(50, seed) for seed in (1, 1, 2))
    assert list(first) == [spec.name for spec in each.inputs]
    for name, array in first.items():
        assert np.array_equal(array, again[name]) and not np.array_equal(array, other[name])
        if name in each.ranges:
            low, high = each.ranges[name]
            assert low <= array.min() and array.max() < high
        elif name == "mask":
            assert (array[:, 0] == 1).all() and (np.diff(array, axis=1) <= 0).all() and array.min() == 0
        else:
            assert abs(array.mean()) < 0.4 and 0.8 < array.std() < 1.2


def test_what_is_not_installed_says_so():
    assert named("lstm").is_available()
    assert not dataclasses.replace(named("lstm"), package="no_such_package").is_available()


@pytest.mark.extra
@pytest.mark.parametrize("each", OTHERS, ids=id_of)
def test_a_model_of_another_framework_answers_too(each):
    if not each.is_available():
        pytest.skip(f"{each.package or each.source} is not installed")
    model = each.make()[0]
    check_answers(each, model)
    feeds = each.samples(3, seed=1)
    for first, again in zip(run(each, model, feeds), run(each, each.make()[0], feeds), strict=True):
        assert np.allclose(first, again, atol=1e-5)
    for norm in (
        layer for layer in getattr(model, "layers", ()) if type(layer).__name__ == "BatchNormalization"
    ):
        assert np.abs(norm.moving_mean).max() > 0 and np.abs(norm.gamma - 1).max() > 1e-3
