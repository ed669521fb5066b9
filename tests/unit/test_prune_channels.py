"""Removing channels is masking them, minus the work: the narrow network equals the masked original."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from labkit.errors import ConfigError, TechniqueError
from labkit.models import build
from labkit.prune import PruneChannels
from labkit.prune.channels import remaining
from labkit.prune.groups import channel_groups, get_width, remove
from labkit.prune.importance import IMPORTANCES, channel_importance
from labkit.variant import TensorSpec, Variant

SMALL = {"input_shape": [2, 24, 20], "num_outputs": 3}  # lenet5 flattens 3×2 pixels a channel
WIDTH = st.integers(1, 9)


def resnet(architecture, blocks):
    inner = st.tuples(*[st.lists(WIDTH, min_size=blocks, max_size=blocks)] * 3).map(list)
    return st.fixed_dictionaries({"stages": st.lists(WIDTH, min_size=3, max_size=3), "inner": inner}).map(
        lambda widths: {"architecture": architecture, **SMALL, **widths}
    )


CONFIGS = st.one_of(
    st.fixed_dictionaries({"channels": st.lists(WIDTH, min_size=2, max_size=2), "hidden": WIDTH}).map(
        lambda widths: {"architecture": "lenet5", **SMALL, **widths}
    ),
    resnet("resnet8", 1),
    resnet("resnet20", 3),
)


def random_variant(config, seed=0):
    """A network whose batch norms have seen something: no parameter or statistic is at its initial value."""
    generator = torch.Generator().manual_seed(seed)
    model = build(config)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.5)
                if name.endswith("running_var"):
                    tensor.abs_().add_(0.1)
    shape = ("batch", *config["input_shape"])
    outputs = TensorSpec("logits", "float32", ("batch", config["num_outputs"]))
    return Variant("random", "torch", model.eval(), (TensorSpec("image", "float32", shape),), (outputs,))


def masked_logits(variant, kept, image):
    """What the original computes if the channels that go are zero wherever they appear.

    The places are written out here once more, by hand, so that a group that lacks one is noticed.
    """
    model, config = variant.model, variant.model.config

    def only(path):
        mask = torch.ones(1, get_width(config, path))
        for group, indices in kept.items():
            if group.width == path:
                mask.zero_()[:, indices] = 1.0
        return lambda module, inputs, output: output * mask.view(1, -1, *[1] * (output.ndim - 2))

    if config["architecture"] == "lenet5":
        places = {model.conv1: ("channels", 0), model.conv2: ("channels", 1), model.fc1: ("hidden",)}
    else:
        places = {model.bn: ("stages", 0)}
        inner = enumerate(config["inner"])
        places_of_blocks = [(stage, index) for stage, widths in inner for index in range(len(widths))]
        for block, (stage, index) in zip(model.blocks, places_of_blocks, strict=True):
            places[block.bn1] = ("inner", stage, index)
            places[block.bn2] = ("stages", stage)
            if not isinstance(block.shortcut, torch.nn.Identity):
                places[block.shortcut] = ("stages", stage)
    hooks = [module.register_forward_hook(only(path)) for module, path in places.items()]
    with torch.no_grad():
        logits = model(image)
    for hook in hooks:
        hook.remove()
    return logits


def furthest(first, second):
    return float((first - second).abs().max() / first.abs().max().clamp(min=1.0))


@settings(max_examples=60)
@given(
    config=CONFIGS,
    seed=st.integers(0, 1000),
    ratio=st.floats(0.05, 0.95),
    importance=st.sampled_from(IMPORTANCES),
    what=st.sampled_from(["inner", "all"]),
    round_to=st.integers(1, 4),
)
def test_the_removed_network_equals_the_masked_original(config, seed, ratio, importance, what, round_to):
    assume(importance != "bn_scale" or config["architecture"] != "lenet5")
    technique = PruneChannels(ratio, importance, what, round_to, seed=seed)
    variant = random_variant(config, seed)
    kept = technique.choose(variant.model.config, variant.model.state_dict())
    narrow_config, narrow_state = remove(variant.model.config, variant.model.state_dict(), kept)
    narrow = build(narrow_config).eval()
    narrow.load_state_dict(narrow_state)
    image = torch.randn(3, *SMALL["input_shape"], generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        assert furthest(masked_logits(variant, kept, image), narrow(image)) < 1e-5


def test_the_comparison_notices_one_channel_that_is_not_the_right_one():
    variant = random_variant({"architecture": "resnet8", **SMALL})
    image = torch.randn(3, *SMALL["input_shape"], generator=torch.Generator().manual_seed(0))
    pruned = PruneChannels(0.5)(variant)
    kept = PruneChannels(0.5).choose(variant.model.config, variant.model.state_dict())
    with torch.no_grad():
        logits = pruned.model(image)
    assert furthest(masked_logits(variant, kept, image), logits) < 1e-5
    for group, indices in kept.items():
        width = get_width(variant.model.config, group.width)
        wrong = indices.clone()
        wrong[0] = next(index for index in range(width) if index not in indices)
        assert furthest(masked_logits(variant, {**kept, group: wrong}, image), logits) > 1e-4, group.width


@pytest.mark.parametrize("architecture", ["lenet5", "resnet8", "resnet20"])
def test_every_width_of_the_config_belongs_to_exactly_one_group(architecture):
    config = build({"architecture": architecture, **SMALL}).config
    widths = [group.width for group in channel_groups(config)]
    count = sum(np.size(config.get(name, [])) for name in ("channels", "hidden", "stages", "inner"))
    assert len(widths) == len(set(widths)) == count


# --- how many ---


@pytest.mark.parametrize(
    ("channels", "ratio", "round_to", "stay"),
    [(16, 0.5, 1, 8), (16, 0.6, 4, 8), (16, 0.9, 8, 8), (20, 0.5, 8, 8), (5, 0.5, 8, 5), (1, 0.99, 1, 1)],
)
def test_what_remains_is_a_multiple_and_never_nothing(channels, ratio, round_to, stay):
    assert remaining(channels, ratio, round_to) == stay


@given(st.integers(1, 500), st.floats(0.001, 0.999), st.integers(1, 64))
def test_at_least_one_channel_stays_and_never_more_than_there_were(channels, ratio, round_to):
    stay = remaining(channels, ratio, round_to)
    assert 1 <= stay <= channels
    assert stay == channels or stay % round_to == 0


def test_the_last_channel_is_never_removed():
    variant = random_variant({"architecture": "resnet20", **SMALL})
    config = PruneChannels(0.999)(variant).model.config
    assert config["stages"] == [1, 1, 1]
    assert config["inner"] == [[1, 1, 1]] * 3


def test_inner_leaves_the_residual_streams_as_wide_as_they_were():
    variant = random_variant({"architecture": "resnet8", **SMALL})
    inner = PruneChannels(what="inner")(variant).model.config
    both = PruneChannels(what="all")(variant).model.config
    assert (inner["stages"], inner["inner"]) == ([16, 32, 64], [[8], [16], [32]])
    assert (both["stages"], both["inner"]) == ([8, 16, 32], [[8], [16], [32]])


# --- which ---


def test_a_channel_of_the_residual_stream_counts_all_its_producers():
    variant = random_variant({"architecture": "resnet8", **SMALL})
    state, generator = variant.model.state_dict(), torch.Generator()
    stream = next(group for group in channel_groups(variant.model.config) if group.width == ("stages", 1))
    weights = [state[f"{name}.weight"] for name in ("blocks.1.shortcut.0", "blocks.1.conv2")]
    scales = [state[f"{name}.weight"].abs() for name in ("blocks.1.shortcut.1", "blocks.1.bn2")]
    expected = {
        "l1": sum(weight.abs().sum((1, 2, 3)) for weight in weights),
        "l2": sum(weight.square().sum((1, 2, 3)).sqrt() for weight in weights),
        "bn_scale": sum(scales),
    }
    for kind, values in expected.items():
        assert torch.allclose(channel_importance(kind, stream, state, generator), values), kind


def test_dead_channels_go_first_and_nothing_changes():
    variant = random_variant({"architecture": "resnet20", **SMALL})
    state, dead = variant.model.state_dict(), {}
    for group in channel_groups(variant.model.config):
        width = get_width(variant.model.config, group.width)
        dead[group] = torch.randperm(width, generator=torch.Generator().manual_seed(width))[: width // 2]
        for name in (*group.producers, *group.norms):
            for key in (f"{name}.weight", f"{name}.bias"):
                if key in state:
                    state[key][dead[group]] = 0.0
    image = torch.randn(3, *SMALL["input_shape"])
    for importance in ("l1", "l2", "bn_scale"):
        pruned = PruneChannels(0.5, importance)(variant)
        with torch.no_grad():
            assert furthest(variant.model(image), pruned.model(image)) < 1e-5, importance
    with torch.no_grad():
        assert furthest(variant.model(image), PruneChannels(0.5, "random")(variant).model(image)) > 1e-3


def test_random_follows_from_the_seed():
    variant = random_variant({"architecture": "lenet5", **SMALL})
    random = PruneChannels(0.5, "random", seed=1)
    assert random(variant).digest == random(variant).digest
    assert random(variant).digest != dataclasses.replace(random, seed=2)(variant).digest


# --- the variant that comes out ---


def test_it_is_smaller_in_every_way_and_survives_saving(lenet, tmp_path):
    pruned = PruneChannels(0.5)(lenet)
    assert pruned.size_bytes < 0.3 * lenet.size_bytes
    loaded = Variant.load(pruned.save(tmp_path))
    assert loaded.digest == pruned.digest
    assert loaded.model.config["channels"] == [10, 25]
    assert loaded.lineage[-1].config["pruning_ratio"] == 0.5
    assert loaded.lineage[-1].parents == (lenet.digest,)


def test_what_is_pruned_can_be_pruned_again(lenet):
    twice = PruneChannels(0.5)(PruneChannels(0.5)(lenet))
    assert twice.model.config["channels"] == [5, 12]
    assert [step.technique for step in twice.lineage[-2:]] == ["prune_channels"] * 2


def test_fine_tuning_mends_what_pruning_broke(lenet, digits):
    def accuracy(variant):
        split = digits.split("validation")
        with torch.no_grad():
            logits = variant.model(torch.from_numpy(variant.feeds(split.inputs)["image"])).numpy()
        return float(digits.task.scores(logits, split.target).mean())

    technique = PruneChannels(0.8, learning_rate=0.03, batch_size=32, threads=1)
    broken = accuracy(technique(lenet))
    mended = accuracy(dataclasses.replace(technique, fine_tune_epochs=2)(lenet, digits))
    assert broken < 0.9 < mended


def test_fine_tuning_can_learn_from_the_whole_network_alone(lenet, digits):
    """With every label a lie, what the labels teach is worthless, and what the unpruned network teaches is not."""
    train = digits.split("train")
    lies = dataclasses.replace(train, target=(train.target + 1) % 10)
    liar = dataclasses.replace(digits, splits={**digits.splits, "train": lies})
    technique = PruneChannels(
        0.8, learning_rate=0.03, batch_size=32, threads=1, fine_tune_epochs=2, temperature=2.0
    )
    believed, taught = (dataclasses.replace(technique, alpha=alpha)(lenet, liar) for alpha in (0.0, 1.0))
    validation = digits.split("validation")
    with torch.no_grad():
        right = [
            float(
                (
                    v.model(torch.from_numpy(v.feeds(validation.inputs)["image"])).argmax(1).numpy()
                    == validation.target
                ).mean()
            )
            for v in (believed, taught)
        ]
    assert right[0] < 0.1 and right[1] > 0.9


# --- errors ---


def test_fine_tuning_needs_data(lenet):
    assert not PruneChannels().needs_dataset
    with pytest.raises(TechniqueError, match="prune_channels needs a dataset"):
        PruneChannels(fine_tune_epochs=1)(lenet)


def test_a_network_that_cannot_be_rebuilt_says_what_to_do(cases):
    for name in ("two_inputs", "regression"):
        with pytest.raises(TechniqueError, match=r"own architectures .*Distill.* PruneMagnitude"):
            PruneChannels()(*cases[name])


def test_bn_scale_without_batch_norm_says_what_to_do(lenet):
    with pytest.raises(TechniqueError, match="bn_scale.*conv1.*use 'l1'"):
        PruneChannels(importance="bn_scale")(lenet)


@pytest.mark.parametrize("epochs", [0, 1])
def test_removing_nothing_is_an_error_even_with_fine_tuning(epochs, lenet, digits):
    with pytest.raises(TechniqueError, match="pruning_ratio=0.001 with round_to=1 removes no channel"):
        PruneChannels(0.001, fine_tune_epochs=epochs)(lenet, digits)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"pruning_ratio": 0.0}, r"pruning_ratio=0\.0 is out of range; allowed: 0\.0 < pruning_ratio < 1\.0"),
        ({"pruning_ratio": 1.0}, r"pruning_ratio=1\.0"),
        ({"pruning_ratio": -0.1}, r"pruning_ratio=-0\.1"),
        ({"pruning_ratio": math.nan}, "pruning_ratio=nan"),
        ({"round_to": 0}, "round_to=0 .* 1 ≤ round_to ≤ 64"),
        ({"importance": "l3"}, "importance='l3' is unknown; did you mean"),
        ({"what": "every"}, "what='every' is unknown"),
        ({"fine_tune_epochs": -1}, "fine_tune_epochs=-1"),
    ],
)
def test_a_bad_knob_names_the_field_the_value_and_the_range(change, says):
    with pytest.raises(ConfigError, match=says):
        PruneChannels(**change)
