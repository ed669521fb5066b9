"""ONNX in, ONNX out: a file loses channels or weights without the source that it was made from."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import onnx
import pytest
import torch
from onnx.numpy_helper import from_array, to_array
from typer.testing import CliRunner

from labkit import QuantizeInt8, QuantizeWeights
from labkit.cli import app
from labkit.convert import ExportOnnx
from labkit.data import load_dataset
from labkit.errors import ConfigError, TechniqueError
from labkit.measure.counting import count
from labkit.measure.protocol import Protocol
from labkit.measure.quality import evaluate
from labkit.prune import PruneChannels, PruneMagnitude, PruneWeights, scan_channels, target
from labkit.prune.masks import lowest_of_every
from labkit.prune.structure import read_structure
from labkit.runtimes import get_runtime
from labkit.technique import probe
from labkit.variant import TensorSpec
from labkit.zoo import load_model
from tests.graphs import build, data_for, mlp, node, small_cnn, weight


@pytest.fixture(scope="module")
def cnn():
    variant = small_cnn()
    return variant, data_for(variant)


def tensors(variant):
    graph = onnx.load_model_from_string(variant.payload).graph
    return {each.name: to_array(each) for each in graph.initializer}


def counted(variant):
    return count(variant, probe(variant, batch_size=1))


def accuracy(variant, dataset):
    return float(evaluate(variant, dataset, "validation").mean())


def branching():
    """A file all of whose weights are inside the branches of an If."""
    branch = onnx.helper.make_graph(
        [node("MatMul", "x w", "b")],
        "branch",
        [],
        [onnx.helper.make_tensor_value_info("b", onnx.TensorProto.FLOAT, None)],
        [weight("w", 32, 10)],
    )
    nodes = [node("If", "yes", "y", then_branch=branch, else_branch=branch)]
    return build(nodes, [from_array(np.array(True), "yes")], ("batch", 32))


@pytest.mark.parametrize("technique", [PruneChannels(0.5), PruneMagnitude(0.5)])
def test_weights_inside_branches_are_refused_by_saying_where_they_are(technique):
    with pytest.raises(
        TechniqueError, match=r"inside If .*which labkit neither prunes .*export it again without"
    ):
        technique(branching())


# --- channels ---


def test_a_file_loses_channels_and_keeps_its_inputs_outputs_and_names(cnn):
    variant, _ = cnn
    pruned = PruneChannels(0.5)(variant)
    assert pruned.format == "onnx" and pruned.inputs == variant.inputs and pruned.outputs == variant.outputs
    shapes = {name: values.shape for name, values in tensors(pruned).items()}
    assert shapes["w1"] == (8, 3, 3, 3) and shapes["w2"] == (8, 8, 3, 3) and shapes["w3"] == (512, 10)
    assert set(shapes) == set(tensors(variant))
    assert pruned.lineage[-1].technique == "prune_channels"


def test_behind_a_sigmoid_which_makes_a_half_of_zero_a_channel_is_no_longer_read():
    nodes = [node("MatMul", "x w1", "m"), node("Sigmoid", "m", "s"), node("MatMul", "s w2", "y")]
    variant = build(nodes, [weight("w1", 32, 64), weight("w2", 64, 10)], ("batch", 32))
    pruned = PruneChannels(0.5)(variant)
    w1, w2 = tensors(variant).values()
    stays = np.sort(np.abs(w1).sum(0).argsort()[32:])
    x = probe(variant)
    with get_runtime("onnxruntime").load(pruned) as session:
        expected = 1 / (1 + np.exp(-x["x"] @ w1[:, stays])) @ w2[stays]
        np.testing.assert_allclose(session.run(x)["y"], expected, rtol=1e-4, atol=1e-5)


def test_what_stays_whole_is_told_with_its_reason(cnn):
    told = []
    PruneChannels()(cnn[0], progress=lambda fraction, message: told.append(message))
    assert (
        "groups of channels that can shrink: 1. Kept whole: w3 because they are what the model puts out as 'y'"
        in told
    )


def test_fine_tuning_a_file_mends_it_and_changes_no_shape(cnn):
    variant, dataset = cnn
    settings = {"augment": "none", "learning_rate": 0.01, "threads": 1}
    broken = PruneChannels(0.6)(variant)
    mended = PruneChannels(0.6, fine_tune_epochs=4, **settings)(variant, dataset)
    assert {n: v.shape for n, v in tensors(mended).items()} == {
        n: v.shape for n, v in tensors(broken).items()
    }
    assert accuracy(mended, dataset) > accuracy(broken, dataset) + 0.2


def test_a_quantized_file_is_to_be_pruned_first(cnn):
    for quantize in (QuantizeInt8(), QuantizeWeights()):
        quantized = quantize(*cnn)
        for technique in (PruneChannels(), PruneMagnitude()):
            with pytest.raises(TechniqueError, match="prune first, and quantize the result"):
                technique(quantized)


# --- which ---


def test_taylor_hears_what_the_loss_depends_on_where_size_is_deceived():
    """Half of the hidden channels are loud and nobody listens: their weights are large, their gradient is zero."""
    loud = np.where(np.arange(64) < 32, 20.0, 1.0).astype(np.float32)
    variant = mlp()
    model = onnx.load_model_from_string(variant.payload)
    for each in model.graph.initializer:
        if each.name == "w1":
            each.CopyFrom(from_array(to_array(each) * loud, "w1"))
        if each.name == "w2":
            each.CopyFrom(from_array(to_array(each) * (loud == 1.0)[:, None], "w2"))
    variant = dataclasses.replace(variant, model=model.SerializeToString())
    dataset = data_for(variant)
    assert accuracy(PruneChannels(0.5, "taylor")(variant, dataset), dataset) == 1.0
    assert accuracy(PruneChannels(0.5, "l1")(variant), dataset) < 0.5


def test_ranked_globally_layers_lose_different_shares_and_the_same_in_all(cnn):
    structure = read_structure(cnn[0])
    technique = PruneChannels(0.5, ranking="global")
    removed = technique.choose(technique.weigh(structure, None), 0.5)
    assert sum(map(len, removed)) == pytest.approx(0.5 * sum(map(len, structure.coupling.groups)), abs=1)


# --- how far ---


@pytest.mark.parametrize("kind", ["macs", "parameters", "bytes"])
@pytest.mark.parametrize("keep", [0.3, 0.7])
def test_a_share_of_what_can_be_counted_is_reached_and_no_more_is_removed_than_that_takes(kind, keep, cnn):
    def size(variant):
        return variant.size_bytes if kind == "bytes" else getattr(counted(variant), kind)

    variant, _ = cnn
    pruned = PruneChannels(target=kind, keep=keep)(variant)
    share = size(pruned) / size(variant)
    assert keep - 0.13 < share <= keep  # one of 16 channels more would be too many


def test_a_share_that_cannot_be_reached_says_what_is_left(cnn):
    with pytest.raises(TechniqueError, match=r"keep=0.001 of the macs .* cannot be reached: 0\.\d+ are left"):
        PruneChannels(target="macs", keep=0.001)(cnn[0])


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, r"raise keep to 0\.\d+$"),
        ({"what": "inner"}, r"raise keep to 0\.\d+$"),
        ({"only": "w1", "round_to": 8}, r"raise keep to 0\.\d+, or set only='' and round_to=1$"),
        ({"only": "w*", "round_to": 1}, r"raise keep to 0\.\d+$"),
    ],
)
def test_only_what_would_help_is_advised_where_a_share_cannot_be_reached(settings, says):
    weights = [weight("w1", 32, 64), weight("w2", 64, 64), weight("w3", 64, 10)]
    nodes = [
        node("MatMul", "x w1", "m1"),
        node("Relu", "m1", "r1"),
        node("MatMul", "r1 w2", "m2"),
        node("Relu", "m2", "r2"),
        node("MatMul", "r2 w3", "y"),
    ]
    with pytest.raises(TechniqueError, match=says):
        PruneChannels(target="macs", keep=0.001, **settings)(build(nodes, weights, ("batch", 32)))


def test_residual_streams_are_advised_where_there_are_some_and_they_stay_whole():
    with pytest.raises(TechniqueError, match=r"raise keep to 0\.\d+, or set what='all'$") as refusal:
        PruneChannels(target="parameters", keep=0.001, what="inner")(load_model("resnet20@digits"))
    keep = float(str(refusal.value).partition("raise keep to ")[2].partition(",")[0])
    assert PruneChannels(target="parameters", keep=keep, what="inner")(load_model("resnet20@digits"))


def test_the_largest_network_that_is_fast_enough_is_kept_though_time_does_not_always_fall(cnn, monkeypatch):
    """A clock that counts channels, but takes every seventh width for slow."""

    def clock(original, narrow, runtime, protocol, progress):
        widths = [tensors(each)["w1"].shape[0] for each in narrow]
        return [width / 16 + (width == 7) for width in widths]

    monkeypatch.setattr(target, "time_shares", clock)
    for keep, width in ((0.5, 8), (0.3, 4), (0.8, 12)):
        pruned = PruneChannels(target="latency", keep=keep)(cnn[0])
        assert tensors(pruned)["w1"].shape[0] == width
    with pytest.raises(
        TechniqueError, match=r"keep=0.01 of the latency .* cannot be reached: 0.062 are left"
    ):
        PruneChannels(target="latency", keep=0.01)(cnn[0])


def test_a_brief_look_that_saw_too_little_time_is_not_believed(cnn, monkeypatch):
    """A clock that counts channels, and in short blocks takes ten for nine."""

    def clock(original, narrow, runtime, protocol, progress):
        widths = [tensors(each)["w1"].shape[0] for each in narrow]
        return [(width - (width == 10 and protocol == Protocol.brief())) / 16 for width in widths]

    monkeypatch.setattr(target, "time_shares", clock)
    pruned = PruneChannels(target="latency", keep=0.6)(cnn[0])
    assert tensors(pruned)["w1"].shape[0] == 9


def test_a_latency_that_only_a_brief_look_saw_is_out_of_reach(cnn, monkeypatch):
    """A clock that stands still at 0.6 of the time, but for one short block."""

    def clock(original, narrow, runtime, protocol, progress):
        first = protocol == Protocol.brief()
        return [0.51 if first and tensors(each)["w1"].shape[0] == 1 else 0.6 for each in narrow]

    monkeypatch.setattr(target, "time_shares", clock)
    with pytest.raises(TechniqueError, match=r"keep=0.5 of the latency .* 0.600 are left.*raise keep to 0.6"):
        PruneChannels(target="latency", keep=0.5)(cnn[0])


def test_where_one_layer_makes_a_step_the_others_are_given_back_what_there_is_time_for(monkeypatch):
    """A clock by which the first layer costs much above ten channels and nothing below; the others by their width."""

    def widths(variant):
        weights = {name: value.shape[0] for name, value in tensors(variant).items() if value.ndim > 1}
        return list(weights.values())

    def clock(original, narrow, runtime, protocol, progress):
        whole = widths(original)
        shares = [[now / before for now, before in zip(widths(each), whole, strict=True)] for each in narrow]
        return [0.5 * (each[0] > 0.5) + 0.25 * each[1] + 0.25 * each[2] for each in shares]

    monkeypatch.setattr(target, "time_shares", clock)
    variant = ExportOnnx()(load_model("lenet5@digits"), load_dataset("digits"))
    whole = widths(variant)
    made = widths(PruneChannels(target="latency", keep=0.45)(variant))
    shares = [now / before for now, before in zip(made, whole, strict=True)]
    assert shares[0] == 0.5
    assert 0.42 < 0.25 * shares[1] + 0.25 * shares[2] <= 0.45


def test_where_several_layers_make_a_step_at_once_only_as_many_as_it_takes_stay_narrow(monkeypatch):
    """A clock of an engine that computes eight channels at a time: at half of the channels all layers fall at once."""

    def widths(variant):
        return [value.shape[0] for value in tensors(variant).values() if value.ndim == 4]

    def clock(original, narrow, runtime, protocol, progress):
        whole = widths(original)
        return [
            sum(-(-now // 8) / (before / 8) for now, before in zip(widths(each), whole, strict=True))
            / len(whole)
            for each in narrow
        ]

    monkeypatch.setattr(target, "time_shares", clock)
    variant = ExportOnnx()(load_model("resnet20@digits"), load_dataset("digits"))
    for keep in (0.6, 0.7, 0.8):
        pruned = PruneChannels(target="latency", keep=keep)(variant)
        assert 0.93 * keep < clock(variant, [pruned], "", None, None)[0] <= keep


def test_a_latency_is_met_by_measuring():
    """With a network large enough that its channels, and not its calls, take the time, on a busy machine too."""
    variant = ExportOnnx()(load_model("resnet20@digits"), load_dataset("digits"))
    pruned = PruneChannels(target="latency", keep=0.6)(variant)
    assert counted(pruned).macs < counted(variant).macs
    assert target.time_shares(variant, [pruned], "onnxruntime", Protocol.brief())[0] < 0.9


def test_a_width_that_is_asked_for_is_kept(cnn):
    shapes = {n: v.shape for n, v in tensors(PruneChannels(0.4, round_to=8)(cnn[0])).items()}
    assert shapes["w1"][0] == 8


def test_widths_are_rounded_to_what_an_engine_computes_at_a_time(cnn, monkeypatch):
    """An engine that computes eight channels at a time: 9 to 16 of them take as long as 16."""

    def in_eights(original, narrow, runtime, protocol, progress):
        return [
            math.prod(-(-tensors(each)[name].shape[0] // 8) / 2 for name in ("w1", "w2")) for each in narrow
        ]

    monkeypatch.setattr(target, "time_shares", in_eights)
    shapes = {n: v.shape for n, v in tensors(PruneChannels(0.4, round_to=0)(cnn[0])).items()}
    assert shapes["w1"][0] == 8


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"target": "macs"}, "counting what"),
        ({"round_to": 0}, "counting what"),
        ({"importance": "taylor", "batch_size": 4}, "asking gradients"),
    ],
)
def test_the_search_tells_how_far_it_is_and_can_be_stopped(cnn, monkeypatch, settings, says):
    monkeypatch.setattr(target, "time_shares", lambda original, narrow, *_: [1.0] * len(narrow))
    technique, told = PruneChannels(**settings), []
    technique(*cnn, lambda fraction, message: told.append((fraction, message)))
    fractions = [fraction for fraction, _ in told]
    assert fractions == sorted(fractions)
    assert len({fraction for fraction, message in told if message.startswith(says)}) > 5

    def stop(fraction, message):
        if message.startswith(says):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        technique(*cnn, stop)


# --- which groups mind ---


def test_the_scan_measures_each_group_alone_and_leaves_the_model(cnn):
    variant, dataset = cnn
    before = variant.fingerprint()
    found = scan_channels(variant, dataset, ratios=(0.25, 0.75))
    groups = [group.name for group in read_structure(variant).coupling.groups]
    assert [each.group for each in found] == [name for name in groups for _ in range(2)]
    assert variant.fingerprint() == before
    assert all(each.removed == round(each.ratio * each.units) for each in found)
    assert all(each.drop == pytest.approx(1.0 - each.quality) for each in found)  # whole, it is always right
    with pytest.raises(ConfigError, match=r"ratio=1.5 is out of range"):
        scan_channels(variant, dataset, ratios=(1.5,))


# --- single weights ---


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_the_smallest_weights_of_a_file_become_zero(scope, cnn):
    variant, _ = cnn
    before, after = tensors(variant), tensors(PruneMagnitude(0.7, scope=scope)(variant))
    names = ("w1", "w2", "w3")
    total, zeros = (sum(f(after[name]) for name in names) for f in (np.size, lambda x: int((x == 0).sum())))
    assert zeros == pytest.approx(0.7 * total, abs=2)
    for name, values in before.items():
        stays = after[name] != 0
        assert np.array_equal(after[name][stays], values[stays])
        if name not in names:
            assert np.array_equal(after[name], values), name


def test_zeros_stay_zeros_while_a_file_is_fine_tuned(cnn):
    variant, dataset = cnn
    technique = PruneMagnitude(0.8, fine_tune_epochs=1, augment="none", learning_rate=0.01, threads=1)
    tuned = tensors(technique(variant, dataset))
    zeros = {name: values == 0 for name, values in tensors(PruneMagnitude(0.8)(variant)).items()}
    assert all((tuned[name][zeros[name]] == 0).all() for name in ("w1", "w2", "w3"))
    assert not np.array_equal(tuned["w1"], tensors(PruneMagnitude(0.8)(variant))["w1"])


def test_two_of_four_run_along_the_inputs_whichever_way_round_the_file_stores_a_product():
    nodes = [
        node("Conv", "x w1", "c", group=2),
        node("ConvTranspose", "c w2", "t"),
        node("GlobalAveragePool", "t", "p"),
        node("Flatten", "p", "f"),
        node("MatMul", "f w3", "m"),
        node("Gemm", "m w4", "g", transB=1),
        node("Gemm", "g w5", "y"),
    ]
    shapes = {"w1": (12, 4, 3, 3), "w2": (12, 9, 2, 2), "w3": (9, 8), "w4": (7, 8), "w5": (7, 10)}
    variant = build(nodes, [weight(name, *shape) for name, shape in shapes.items()], ("batch", 8, 6, 6))
    after = tensors(PruneMagnitude(0.5, "n:m")(variant))
    for name, axis in {"w1": 1, "w2": 0, "w3": 0, "w4": 1, "w5": 0}.items():
        zeros = np.moveaxis(after[name] == 0, axis, -1)
        whole = zeros.shape[-1] // 4 * 4
        assert (zeros[..., :whole].reshape(-1, 4).sum(1) == 2).all(), name
        assert (zeros[..., whole:].sum(-1) == max(0, zeros.shape[-1] % 4 - 2)).all(), name


def test_a_weight_of_no_channels_has_no_runs_of_four():
    assert lowest_of_every(4, torch.ones(0, 3, 3, 3), 2).shape == (0, 3, 3, 3)
    assert lowest_of_every(4, torch.ones(3, 0, 3, 3), 2).shape == (3, 0, 3, 3)


# --- several outputs ---


@pytest.mark.parametrize(
    "technique",
    [
        PruneMagnitude(0.5, fine_tune_epochs=1, alpha=0.5, threads=1),
        PruneWeights(0.5, criterion="taylor"),
        PruneChannels(importance="taylor"),
    ],
    ids=lambda technique: technique.name,
)
def test_of_several_outputs_the_first_is_trained_by(technique, cnn):
    variant, dataset = cnn
    model = onnx.load_model_from_string(variant.payload)
    model.graph.output.append(onnx.helper.make_tensor_value_info("m", onnx.TensorProto.FLOAT, ("batch", 10)))
    outputs = (*variant.outputs, TensorSpec("m", "float32", ("batch", 10)))
    two = dataclasses.replace(variant, model=model.SerializeToString(), outputs=outputs)
    made, alone = tensors(technique(two, dataset)), tensors(technique(variant, dataset))
    assert all(np.array_equal(made[name], values) for name, values in alone.items())


# --- the command ---


@pytest.mark.parametrize("method", ["channels", "magnitude"])
def test_a_file_goes_in_and_a_file_comes_out(method, cnn, tmp_path):
    given, made = tmp_path / "model.onnx", tmp_path / "pruned.onnx"
    given.write_bytes(cnn[0].payload)
    result = CliRunner().invoke(app, ["prune", str(given), "--method", method, "--out", str(made)])
    assert result.exit_code == 0, result.output
    onnx.checker.check_model(onnx.load(made), full_check=True)
    assert (made.stat().st_size < 0.6 * given.stat().st_size) == (method == "channels")
