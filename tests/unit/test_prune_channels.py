"""Removing channels is masking them, minus the work: the narrow network equals the masked original."""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from labkit.errors import ConfigError, ModelFileError, TechniqueError
from labkit.measure.counting import count
from labkit.models import build
from labkit.prune import PruneChannels
from labkit.prune.channels import remaining
from labkit.prune.importance import channel_importance
from labkit.prune.structure import read_structure
from labkit.technique import probe
from labkit.variant import TensorSpec, Variant

SMALL = {"input_shape": [2, 24, 20], "num_outputs": 3}  # lenet5 flattens 3×2 pixels a channel
CONFIGS = (
    {"architecture": "lenet5", "channels": [3, 7], "hidden": 9},
    {"architecture": "resnet8", "stages": [4, 6, 9], "inner": [[5], [1], [8]]},
    {"architecture": "resnet20", "stages": [3, 5, 8], "inner": [[4, 2, 6], [5, 7, 3], [2, 9, 4]]},
)


@functools.cache
def structure_of(index):
    return read_structure(random_variant({**CONFIGS[index], **SMALL}, index))


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


def places_of(model):
    """Where each width of the config appears, written out by hand: a layer → the weight whose outputs it has."""
    if model.config["architecture"] == "lenet5":
        return {getattr(model, name): f"{name}.weight" for name in ("conv1", "conv2", "fc1")}
    streams = ["stem.weight", "", ""]
    places = {model.bn: streams[0]}
    stages = [stage for stage, widths in enumerate(model.config["inner"]) for _ in widths]
    for index, (stage, block) in enumerate(zip(stages, model.blocks, strict=True)):
        streams[stage] = streams[stage] or f"blocks.{index}.shortcut.0.weight"
        places[block.bn1] = f"blocks.{index}.conv1.weight"
        places[block.bn2] = streams[stage]
        if not isinstance(block.shortcut, torch.nn.Identity):
            places[block.shortcut] = streams[stage]
    return places


def masked_logits(structure, removed, image):
    """What the original computes if the channels that go are zero wherever they appear."""
    model, stay = structure.variant.model, structure.coupling.indices(removed)

    def only(weight):
        mask = torch.ones(len(model.state_dict()[weight]))
        if (weight, 0) in stay:
            mask.zero_()[torch.from_numpy(stay[weight, 0])] = 1.0
        return lambda module, inputs, output: output * mask.view(1, -1, *[1] * (output.ndim - 2))

    hooks = [module.register_forward_hook(only(weight)) for module, weight in places_of(model).items()]
    with torch.no_grad():
        logits = model(image)
    for hook in hooks:
        hook.remove()
    return logits


def furthest(first, second):
    return float((first - second).abs().max() / first.abs().max().clamp(min=1.0))


@settings(max_examples=25)
@given(
    index=st.sampled_from(range(len(CONFIGS))),
    seed=st.integers(0, 1000),
    ratio=st.floats(0.05, 0.95),
    importance=st.sampled_from(["l1", "l2", "bn_scale", "random"]),
    what=st.sampled_from(["inner", "all"]),
    ranking=st.sampled_from(["layer", "global"]),
    round_to=st.integers(1, 4),
)
def test_the_removed_network_equals_the_masked_original(
    index, seed, ratio, importance, what, ranking, round_to
):
    assume(importance != "bn_scale" or index > 0)
    technique = PruneChannels(ratio, importance, what, round_to, ranking, seed=seed)
    structure = structure_of(index)
    removed = technique.choose(technique.weigh(structure, None), ratio)
    narrow = structure.narrow(removed)
    image = torch.randn(3, *SMALL["input_shape"], generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        assert furthest(masked_logits(structure, removed, image), narrow(image)) < 1e-5


def test_the_comparison_notices_one_channel_that_is_not_the_right_one():
    structure = read_structure(random_variant({"architecture": "resnet8", **SMALL}))
    image = torch.randn(3, *SMALL["input_shape"], generator=torch.Generator().manual_seed(0))
    technique = PruneChannels(0.5)
    removed = technique.choose(technique.weigh(structure, None), 0.5)
    with torch.no_grad():
        logits = structure.narrow(removed)(image)
    assert furthest(masked_logits(structure, removed, image), logits) < 1e-5
    for group in structure.coupling.groups:
        mine = [np.intersect1d(each, group.units) for each in removed]
        stays = np.setdiff1d(group.units, np.concatenate(removed))
        wrong = [
            np.append(each[1:], stays[0]) if len(own) else each
            for each, own in zip(removed, mine, strict=True)
        ]
        assert furthest(masked_logits(structure, wrong, image), logits) > 1e-4, group.name


@pytest.mark.parametrize("index", range(len(CONFIGS)))
def test_every_width_of_the_config_belongs_to_exactly_one_group(index):
    config, groups = CONFIGS[index], structure_of(index).coupling.groups
    widths = [w for name in ("channels", "hidden", "stages", "inner") for w in np.ravel(config.get(name, []))]
    assert sorted(len(group) for group in groups) == sorted(w for w in widths if w > 1)
    stages = [len(group) for group in groups if group.residual]
    assert stages == config.get("stages", [])


# --- how many ---


@pytest.mark.parametrize(
    "config",
    [
        {"architecture": "mlp", "hidden": [6, 5]},
        {"architecture": "vit", "depth": 1},
    ],
    ids=lambda config: config["architecture"],
)
def test_multiply_adds_can_be_a_target_where_the_code_computes_a_shape(config):
    variant = random_variant({**config, **SMALL})
    graph, module = (
        count(each, probe(variant, batch_size=1)) for each in (read_structure(variant).graph([]), variant)
    )
    assert graph.macs == module.macs
    assert PruneChannels(target="macs", keep=0.6)(variant).size_bytes < variant.size_bytes


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


@pytest.mark.parametrize(
    ("only", "inner"),
    [("blocks.0.*", [[8], [32], [64]]), ("blocks.1.conv1.weight , blocks.2*", [[16], [16], [32]])],
)
def test_only_the_named_groups_become_narrower(only, inner):
    variant = random_variant({"architecture": "resnet8", **SMALL})
    config = PruneChannels(what="inner", only=only)(variant).model.config
    assert (config["stages"], config["inner"]) == ([16, 32, 64], inner)


@pytest.mark.parametrize("change", [{"only": "blocks.7.*"}, {"only": "stem.weight", "what": "inner"}])
def test_a_group_that_there_is_not_is_told_with_those_that_there_are(change):
    variant = random_variant({"architecture": "resnet8", **SMALL})
    with pytest.raises(ConfigError, match=r"no such group of channels; .*blocks\.0\.conv1\.weight"):
        PruneChannels(**change)(variant)


# --- which ---


def test_a_channel_of_the_residual_stream_counts_all_its_producers():
    structure = structure_of(1)
    state, random = structure.variant.model.state_dict(), np.random.default_rng(0)
    stream = next(g for g in structure.coupling.groups if g.residual and len(g) == 6)
    weights = [state[f"{name}.weight"] for name in ("blocks.1.shortcut.0", "blocks.1.conv2")]
    scales = [state[f"{name}.weight"].abs() for name in ("blocks.1.shortcut.1", "blocks.1.bn2")]
    expected = {
        "l1": sum(weight.abs().sum((1, 2, 3)) for weight in weights),
        "l2": sum(weight.square().sum((1, 2, 3)).sqrt() for weight in weights),
        "bn_scale": sum(scales),
    }
    for kind, values in expected.items():
        found = channel_importance(kind, stream, structure.values, random)
        assert np.allclose(found, values.numpy(), rtol=1e-5), kind


@pytest.mark.extra
def test_dead_channels_go_first_and_nothing_changes():
    variant = random_variant({"architecture": "resnet20", **SMALL})
    state = variant.model.state_dict()
    for group in read_structure(variant).coupling.groups:
        dead = np.random.default_rng(len(group)).permutation(len(group))[: len(group) // 2]
        for member in group.members:
            if member.role in ("makes", "scales", "shifts") and member.tensor in state:
                state[member.tensor].index_fill_(
                    member.axis, torch.from_numpy(member.indices[dead].ravel()), 0
                )
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


def test_models_of_any_shape_lose_channels(cases):
    for name, sizes in {
        "two_inputs": [("table.weight", (16, 4)), ("fc.weight", (3, 4))],
        "regression": [],
    }.items():
        pruned = PruneChannels()(cases[name][0])
        for tensor, shape in sizes:
            assert tuple(pruned.model.state_dict()[tensor].shape) == shape
        with pytest.raises(ModelFileError, match="not one of labkit's architectures.*ExportOnnx"):
            pruned.save("nowhere")


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
        ({"round_to": -1}, "round_to=-1 .* 0 ≤ round_to ≤ 64"),
        ({"importance": "l3"}, "importance='l3' is unknown; did you mean"),
        ({"what": "every"}, "what='every' is unknown"),
        ({"fine_tune_epochs": -1}, "fine_tune_epochs=-1"),
    ],
)
def test_a_bad_knob_names_the_field_the_value_and_the_range(change, says):
    with pytest.raises(ConfigError, match=says):
        PruneChannels(**change)


def test_a_network_whose_answers_are_no_numbers_is_not_taken_for_a_misreading():
    variant = random_variant({**CONFIGS[0], **SMALL})
    with torch.no_grad():
        variant.model.fc2.bias[0] = torch.nan
    with pytest.raises(TechniqueError, match="the output 'logits' of 'random' holds NaN"):
        PruneChannels()(variant)
