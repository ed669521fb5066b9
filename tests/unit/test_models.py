"""The shipped architectures: their shapes, the sizes that the papers print, and what a bad config is told."""

from __future__ import annotations

import math

import pytest
import torch

from labkit.errors import ConfigError
from labkit.models import MODELS, build

DIGITS = {"input_shape": [1, 32, 32], "num_outputs": 10}


def parameters(config):
    return sum(parameter.numel() for parameter in build(config).parameters())


@pytest.mark.parametrize("architecture", MODELS)
@pytest.mark.parametrize("shape", [[1, 32, 32], [3, 28, 28], [2, 17, 40]])
@pytest.mark.parametrize("batch", [1, 3])
def test_an_image_of_any_size_becomes_one_logit_a_class(architecture, shape, batch):
    model = build({"architecture": architecture, "input_shape": shape, "num_outputs": 7}).eval()
    assert model(torch.zeros(batch, *shape)).shape == (batch, 7)


def test_lenet5_has_the_parameters_that_the_papers_divide_by():
    assert parameters({"architecture": "lenet5", "input_shape": [1, 28, 28], "num_outputs": 10}) == 431_080


@pytest.mark.parametrize(("architecture", "millions"), [("resnet8", 0.08), ("resnet20", 0.27)])
def test_the_resnets_have_the_papers_size(architecture, millions):
    config = {"architecture": architecture, "input_shape": [3, 32, 32], "num_outputs": 10}
    assert round(parameters(config) / 1e6, 2) == millions


def test_a_later_stage_halves_the_image_and_has_its_own_width():
    model = build({"architecture": "resnet20", **DIGITS}).eval()
    shapes = []
    for block in model.blocks:
        block.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape[1:])))
    model(torch.zeros(1, 1, 32, 32))
    assert shapes == [(16, 32, 32)] * 3 + [(32, 16, 16)] * 3 + [(64, 8, 8)] * 3


@pytest.mark.parametrize("architecture", MODELS)
def test_the_config_that_it_carries_builds_it_again(architecture):
    first = build({"architecture": architecture, **DIGITS})
    second = build(first.config)
    assert second.config == first.config
    second.load_state_dict(first.state_dict())


def test_narrow_widths_are_an_architecture_too():
    narrow = {"stages": [3, 1, 2], "inner": [[1, 2, 3], [4, 1, 1], [2, 2, 5]]}
    model = build({"architecture": "resnet20", **DIGITS, **narrow}).eval()
    assert model(torch.zeros(2, 1, 32, 32)).shape == (2, 10)
    lenet5 = {"architecture": "lenet5", **DIGITS, "channels": [1, 1], "hidden": 1}
    assert parameters(lenet5) == 26 + 26 + 26 + 20


def test_dropout_acts_in_training_only():
    model = build({"architecture": "lenet5", **DIGITS, "dropout": 0.5})
    image = torch.randn(1, 1, 32, 32)
    assert not torch.equal(model.train()(image), model(image))
    assert torch.equal(model.eval()(image), model(image))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"architecture": "resnet21"}, "did you mean 'resnet20'"),
        ({"architecture": None}, "known: lenet5"),
        ({"input_shape": [32, 32]}, r"input_shape must be \[channels, height, width\], got \[32, 32\]"),
        ({"input_shape": 32}, "input_shape"),
        ({"input_shape": [1, 0, 32]}, r"input_shape holds 0; allowed are whole numbers 1\.\.8192"),
        ({"num_outputs": 0}, "num_outputs holds 0"),
        ({"num_outputs": True}, "num_outputs holds True"),
        ({"stages": [16, 32]}, r"stages must be a list of 3, got \[16, 32\]"),
        ({"stages": [16, 32, -1]}, "stages holds -1"),
        ({"stages": [16, 32, 8193]}, "stages holds 8193"),
        ({"stages": [16, 32, 1.5]}, "stages holds 1.5"),
        ({"inner": [[16] * 3, [32] * 3, [64, 64, "64"]]}, "inner holds '64'"),
        ({"inner": [[], [32] * 3, [64] * 3]}, "inner holds a width for each block, 3 a stage"),
        ({"inner": [16, 32, 64]}, "inner holds a width for each block, 3 a stage"),
        ({"inner": [[16] * 4, [32] * 3, [64] * 3]}, "inner holds a width for each block, 3 a stage"),
        ({"first_stride": 0}, "first_stride=0 must be 1 or 2"),
        ({"first_stride": 1.5}, "first_stride=1.5 must be 1 or 2"),
        ({"dropout": 1.0}, "dropout=1.0 must lie in 0 ≤ p < 1"),
        ({"dropout": math.nan}, "dropout=nan"),
        ({"dropout": "much"}, "dropout='much'"),
        ({"stage": [16, 32, 64]}, "unknown field 'stage' for resnet20; did you mean 'stages'"),
        ({"channels": [20, 50]}, "unknown field 'channels' for resnet20"),
    ],
)
def test_a_bad_config_names_the_field_the_value_and_what_is_allowed(change, says):
    with pytest.raises(ConfigError, match=says):
        build({"architecture": "resnet20", **DIGITS, **change})


@pytest.mark.parametrize("field", ["input_shape", "num_outputs"])
def test_a_missing_field_is_named(field):
    config = {"architecture": "lenet5", **DIGITS}
    del config[field]
    with pytest.raises(ConfigError, match=f"lenet5 lacks {field}"):
        build(config)


def test_lenet5_says_how_small_an_image_may_be():
    assert build({"architecture": "lenet5", "input_shape": [1, 16, 16], "num_outputs": 2})
    with pytest.raises(ConfigError, match="at least 16×16, got 16×15"):
        build({"architecture": "lenet5", "input_shape": [1, 16, 15], "num_outputs": 2})
