"""The shipped architectures: their shapes, the sizes that the papers print, and what a bad config is told."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
import typer

from labkit.cli import app
from labkit.convert import ExportOnnx, parity
from labkit.distill import Distill
from labkit.errors import ConfigError, ModelFileError, TechniqueError
from labkit.measure.counting import count
from labkit.measure.quality import evaluate
from labkit.models import MODELS, build
from labkit.models.mlp import MLP
from labkit.models.mobilenet import InvertedResidual
from labkit.models.vit import Attention
from labkit.progress import silent
from labkit.prune import PruneChannels
from labkit.train import Train, fit, fresh_variant
from labkit.variant import TensorSpec, Variant

DIGITS = {"input_shape": [1, 32, 32], "num_outputs": 10}
SMALL = {
    "mobilenet": {"stages": [8, 12, 16], "blocks": [1, 2, 2], "hidden": 64, "first_stride": 2},
    "vit": {"patch": 8, "hidden": 48, "depth": 2},
    "mlp": {"hidden": [64, 32]},
}


def parameters(config):
    return sum(parameter.numel() for parameter in build(config).parameters())


def variant_of(config, shape=(1, 32, 32)):
    """Untrained, but with batch statistics of their own, so that folding them away is a real change."""
    torch.manual_seed(0)
    model = build({"input_shape": list(shape), "num_outputs": 10, **config})
    with torch.no_grad():
        for _ in range(5):
            model.train()(1 + 2 * torch.randn(16, *shape))
    image = TensorSpec("image", "float32", ("batch", *shape), "NCHW")
    return Variant("m", "torch", model.eval(), (image,), (TensorSpec("logits", "float32", ("batch", 10)),))


@pytest.mark.parametrize("architecture", MODELS)
@pytest.mark.parametrize("shape", [[1, 32, 32], [3, 28, 28], [1, 28, 28], [2, 16, 40]])
@pytest.mark.parametrize("batch", [1, 3])
def test_an_image_of_any_size_becomes_one_logit_a_class(architecture, shape, batch):
    model = build({"architecture": architecture, "input_shape": shape, "num_outputs": 7}).eval()
    assert model(torch.zeros(batch, *shape)).shape == (batch, 7)


@pytest.mark.parametrize(("architecture", "held"), [("lenet300", 266_610), ("lenet5", 431_080)])
def test_the_lenets_have_the_parameters_that_the_papers_divide_by(architecture, held):
    model = build({"architecture": architecture, "input_shape": [1, 28, 28], "num_outputs": 10})
    assert sum(parameter.numel() for parameter in model.parameters()) == held
    assert f"{held:,} parameters" in str(type(model).__doc__)


def test_an_mlp_has_a_layer_for_each_width():
    config = {"architecture": "mlp", "input_shape": [1, 28, 28], "num_outputs": 10}
    assert parameters(config) == 2_395_210
    assert f"{parameters(config):,} parameters" in str(MLP.__doc__)
    deep = build({**config, "hidden": [5, 6, 7]})
    assert [list(weight.shape) for weight in deep.parameters() if weight.ndim == 2] == [
        [5, 784],
        [6, 5],
        [7, 6],
        [10, 7],
    ]


def test_an_mlp_is_the_formula_written_out():
    model = build({"architecture": "mlp", **DIGITS, "hidden": [12, 8], "dropout": 0.5}).eval()
    image = torch.randn(3, 1, 32, 32)
    x = image.flatten(1)
    for layer in (model.fc1, model.fc2):
        x = (x @ layer.weight.T + layer.bias).clamp(min=0)
    assert torch.allclose(model(image), x @ model.fc3.weight.T + model.fc3.bias, atol=1e-6)


@pytest.mark.parametrize(
    ("architecture", "millions"),
    [("resnet8", 0.08), ("resnet14", 0.18), ("resnet16", 0.26), ("resnet20", 0.27)],
)
def test_the_resnets_have_the_papers_size(architecture, millions):
    config = {"architecture": architecture, "input_shape": [3, 32, 32], "num_outputs": 10}
    assert round(parameters(config) / 1e6, 2) == millions


def test_a_resnet_with_stages_of_unequal_depth_says_how_many_widths_each_takes():
    with pytest.raises(ConfigError, match="each block, 1, 3 and 3 a stage"):
        build({"architecture": "resnet16", **DIGITS, "inner": [[16] * 3, [32] * 3, [64] * 3]})


@pytest.mark.parametrize("architecture", [name for name in MODELS if name != "vit"])
def test_a_convolution_minds_no_odd_sides(architecture):
    model = build({"architecture": architecture, "input_shape": [2, 17, 41], "num_outputs": 7}).eval()
    assert model(torch.zeros(3, 2, 17, 41)).shape == (3, 7)


@pytest.mark.parametrize(
    ("architecture", "size", "held", "macs"),
    [
        ("mobilenet", 28, 166_666, 12_628_096),
        ("mobilenet", 32, 166_666, 16_493_056),
        ("vit", 28, 456_202, 24_518_208),
        ("vit", 32, 457_642, 33_129_408),
    ],
)
def test_mobilenet_and_vit_hold_and_compute_what_their_docstrings_say(architecture, size, held, macs):
    model = variant_of({"architecture": architecture}, (1, size, size))
    counts = count(model, {"image": np.zeros((1, 1, size, size), np.float32)})
    assert (counts.parameters, counts.macs) == (held, macs)
    if size == 28:
        assert f"{held:,} parameters" in str(type(model.model).__doc__)


def test_an_inverted_residual_is_counted_as_the_paper_counts_it():
    """Table 1 of Sandler et al.: h·w·d·t·(d + k² + d') at stride 1."""
    block = InvertedResidual(16, 24, expansion=6, stride=1)
    weights = sum(layer.weight.numel() for layer in block.layers if isinstance(layer, torch.nn.Conv2d))
    assert weights == 16 * 6 * (16 + 3**2 + 24)


def test_an_inverted_residual_adds_only_where_the_shapes_agree():
    for outputs, stride, adds in ((8, 1, True), (8, 2, False), (12, 1, False)):
        block = InvertedResidual(8, outputs, expansion=2, stride=stride).eval()
        torch.nn.init.zeros_(block.layers[-1].weight)
        torch.nn.init.zeros_(block.layers[-1].bias)
        image = torch.randn(1, 8, 4, 4)
        assert torch.equal(block(image), image) == adds


def test_attention_is_the_formula_written_out():
    attention = Attention(hidden=8, heads=2).eval()
    x = torch.randn(3, 5, 8)
    heads = []
    for q, k, v in zip(*(part.split(4, dim=-1) for part in attention.qkv(x).chunk(3, dim=-1)), strict=True):
        heads.append(torch.softmax(q @ k.transpose(1, 2) / math.sqrt(4), dim=-1) @ v)
    assert torch.allclose(attention(x), attention.out(torch.cat(heads, dim=-1)), atol=1e-6)


def test_vit_tells_the_same_patches_in_another_order_apart():
    model = build({"architecture": "vit", **DIGITS}).eval()
    image = torch.randn(1, 1, 32, 32)
    swapped = torch.cat([image[..., 16:], image[..., :16]], dim=-1)
    assert not torch.allclose(model(image), model(swapped), atol=1e-3)
    torch.nn.init.zeros_(model.positions)
    assert torch.allclose(model(image), model(swapped), atol=1e-5)


@pytest.mark.parametrize("architecture", SMALL)
def test_the_new_architectures_compute_the_same_after_export(architecture):
    variant = variant_of({"architecture": architecture}, (1, 28, 28))
    exported = ExportOnnx()(variant)
    report = parity(variant, exported)
    assert [row.batch_size for row in report.rows] == [1, 3, 7]
    assert report.max_rel_error < 1e-5 and report.top1_agreement == 1.0
    with torch.no_grad():
        last = [layer for layer in variant.model.modules() if isinstance(layer, torch.nn.Linear)][-1]
        last.weight[0, 0] += 1.0
    assert parity(variant, exported).max_rel_error > 1e-3


@pytest.mark.parametrize("architecture", SMALL)
def test_two_epochs_on_digits_are_enough_to_learn_something(architecture, digits):
    start = fresh_variant({"architecture": architecture, **SMALL[architecture]}, digits)
    recipe = Train(epochs=2, batch_size=8, learning_rate=0.05, augment="none", precision="float32", threads=1)
    trained = dataclasses.replace(start, model=fit(recipe, start, digits, silent))
    assert evaluate(trained, digits, "validation").mean() > 0.75
    assert evaluate(start, digits, "validation").mean() < 0.3


@pytest.mark.parametrize("architecture", SMALL)
def test_what_is_saved_is_loaded_again(architecture, tmp_path):
    variant = variant_of({"architecture": architecture, **SMALL[architecture]})
    loaded = Variant.load(variant.save(tmp_path))
    assert loaded.digest == variant.digest


@pytest.mark.parametrize("architecture", SMALL)
def test_a_student_of_half_the_width_is_smaller(architecture, lenet):
    whole = Distill(student=architecture, width=1.0).fresh_student(lenet)
    half = Distill(student=architecture, width=0.5).fresh_student(lenet)
    sizes = [sum(parameter.numel() for parameter in model.parameters()) for model in (whole, half)]
    assert 2.5 < sizes[0] / sizes[1] < 4
    with pytest.raises(TechniqueError, match="start='teacher' copies layers of equal shape"):
        Distill(student=architecture, start="teacher").fresh_student(lenet)


@pytest.mark.parametrize("architecture", ["mobilenet", "vit"])
def test_with_widths_that_no_config_tells_it_runs_and_exports_but_is_saved_as_onnx(architecture, tmp_path):
    pruned = PruneChannels()(variant_of({"architecture": architecture, **SMALL[architecture]}))
    assert not hasattr(pruned.model, "config")
    with pytest.raises(ModelFileError, match="convert it to ONNX first"):
        pruned.save(tmp_path)
    assert ExportOnnx()(pruned).save(tmp_path)


def test_the_command_line_names_every_architecture():
    helps = [
        parameter.help
        for command in typer.main.get_command(app).commands.values()
        if command.name == "train"
        for parameter in command.params
        if parameter.name == "architecture"
    ]
    assert helps == [f"{', '.join(MODELS[:-1])} or {MODELS[-1]}."]


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
        ({"architecture": None}, "known: lenet300, lenet5"),
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
        ({"stem_stride": 4}, "stem_stride=4 must be 1 or 2"),
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


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"architecture": "mobilnet"}, "did you mean 'mobilenet'"),
        ({"architecture": "lenet300", "hidden": [300, 0]}, "hidden holds 0"),
        ({"architecture": "mobilenet", "stages": [16, 32]}, r"stages must be a list of 3, got \[16, 32\]"),
        ({"architecture": "mobilenet", "stages": [[16], 32, 64]}, r"stages holds \[16\]"),
        (
            {"architecture": "mobilenet", "blocks": [1, 0, 4]},
            r"blocks holds 0; allowed are whole numbers 1\.\.64",
        ),
        ({"architecture": "mobilenet", "blocks": 3}, "blocks must be a list of 3, got 3"),
        ({"architecture": "mobilenet", "blocks": [1, 3, 65]}, "blocks holds 65"),
        (
            {"architecture": "mobilenet", "expansion": 0},
            r"expansion holds 0; allowed are whole numbers 1\.\.16",
        ),
        ({"architecture": "mobilenet", "expansion": [4]}, r"expansion holds \[4\]"),
        ({"architecture": "mobilenet", "first_stride": 3}, "first_stride=3 must be 1 or 2"),
        ({"architecture": "mobilenet", "dropout": 1}, "dropout=1 must lie in"),
        ({"architecture": "mobilenet", "inner": [[1]]}, "unknown field 'inner' for mobilenet"),
        ({"architecture": "vit", "patch": 5}, "patch=5 does not divide the image's 32×32"),
        ({"architecture": "vit", "patch": 64}, "patch=64 does not divide the image's 32×32"),
        ({"architecture": "vit", "heads": 5}, "heads=5 does not divide hidden=96"),
        ({"architecture": "vit", "depth": 65}, r"depth holds 65; allowed are whole numbers 1\.\.64"),
        ({"architecture": "vit", "depth": True}, "depth holds True"),
        ({"architecture": "vit", "hidden": 96.0}, "hidden holds 96.0"),
        ({"architecture": "vit", "expansion": 17}, "expansion holds 17"),
        ({"architecture": "vit", "dropout": -0.1}, "dropout=-0.1 must lie in"),
        (
            {"architecture": "mlp", "hidden": 300},
            r"hidden must be a list of 1\.\.64 widths, one a layer, got 300",
        ),
        ({"architecture": "mlp", "hidden": []}, r"hidden must be a list of 1\.\.64 widths"),
        ({"architecture": "mlp", "hidden": [300, 0]}, "hidden holds 0"),
        ({"architecture": "mlp", "hidden": [300] * 65}, r"hidden must be a list of 1\.\.64 widths"),
        ({"architecture": "vit", "first_stride": 1}, "unknown field 'first_stride' for vit"),
    ],
)
def test_a_bad_config_of_mobilenet_or_vit_is_told_so_too(change, says):
    with pytest.raises(ConfigError, match=says):
        build({**DIGITS, **change})


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
