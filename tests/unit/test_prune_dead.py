"""Units that nothing makes or nothing reads go, and the outputs stay what they were."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from labkit.convert import ExportOnnx
from labkit.errors import TechniqueError
from labkit.measure.quality import evaluate
from labkit.prune import PruneWeights, RemoveDeadUnits
from labkit.runtimes import reference_runtime
from labkit.technique import probe
from labkit.variant import TensorSpec, Variant
from labkit.zoo import load_model
from tests.graphs import batch_norm, build, constant, node, normal, weight


def answers(variant):
    with reference_runtime(variant).load(variant) as session:
        return session.run(probe(variant))["logits"]


def with_dead_units():
    """lenet300, of which fc1's units 0-9 are read by none, 10-14 made by none, and 20 read by one that is not read."""
    variant = load_model("lenet300@digits")
    with torch.no_grad():
        first, second, third = (variant.model.get_submodule(f"fc{k}") for k in (1, 2, 3))
        second.weight[:, :10] = 0
        first.weight[10:15], first.bias[10:15] = 0, 0
        third.weight[:, 7] = 0
        second.weight[:, 20] = 0
        second.weight[7, 20] = 1.0
    return dataclasses.replace(variant, name="planted")


@pytest.mark.parametrize("file", [False, True], ids=["module", "onnx"])
def test_exactly_the_dead_units_go_and_nothing_changes(file, digits):
    variant = with_dead_units()
    variant = ExportOnnx()(variant, digits) if file else variant
    result = RemoveDeadUnits()(variant)
    if not file:
        assert result.model.config["hidden"] == [300 - 10 - 5 - 1, 100 - 1]
    assert result.size_bytes < variant.size_bytes
    assert np.allclose(answers(result), answers(variant), atol=1e-5)
    with pytest.raises(TechniqueError, match="every unit of .* counts"):
        RemoveDeadUnits()(result)


def test_a_unit_without_weights_but_with_a_bias_counts():
    variant = load_model("lenet300@digits")
    with torch.no_grad():
        variant.model.fc1.weight[3] = 0
        variant.model.fc1.bias[3] = 0.5
    with pytest.raises(TechniqueError, match="every unit of .* counts"):
        RemoveDeadUnits()(variant)


def test_behind_a_batch_norm_zero_weights_alone_are_not_dead(digits):
    variant = load_model("resnet20@digits")
    name, layer = next((n, m) for n, m in variant.model.named_modules() if isinstance(m, torch.nn.Conv2d))
    with torch.no_grad():
        layer.weight[0] = 0
    with pytest.raises(TechniqueError, match="every unit of .* counts"):
        RemoveDeadUnits()(variant)


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_behind_a_batch_norm_its_scale_and_shift_decide(shift):
    variant = load_model("resnet20@digits")
    norm = next(m for n, m in variant.model.named_modules() if n.startswith("blocks.0") and "bn1" in n)
    with torch.no_grad():
        norm.weight[2], norm.bias[2] = 0.0, shift
    if shift:
        with pytest.raises(TechniqueError, match="every unit of .* counts"):
            RemoveDeadUnits()(variant)
        return
    result = RemoveDeadUnits()(variant)
    assert result.model.config["inner"][0][0] == variant.model.config["inner"][0][0] - 1
    assert np.allclose(answers(result), answers(variant), atol=1e-5)


def test_a_network_of_which_one_unit_is_left_keeps_it():
    variant = load_model("lenet300@digits")
    with torch.no_grad():
        variant.model.fc2.weight[:] = 0
        variant.model.fc2.bias[:] = 0
    result = RemoveDeadUnits()(variant)
    assert result.model.config["hidden"] == [1, 1]
    assert np.allclose(answers(result), answers(variant), atol=1e-6)


def test_after_a_pruning_that_trains_units_without_weights_are_without_a_bias_and_go(digits):
    pruned = PruneWeights(
        sparsity=0.99, schedule="gradual", regrow=False, fine_tune_epochs=2, batch_size=64, optimizer="adamw",
        learning_rate=0.002,
    )(load_model("lenet300@digits"), digits)  # fmt: skip
    rows = (pruned.model.fc1.weight == 0).all(1)
    assert rows.any() and (pruned.model.fc1.bias[rows] == 0).all()
    result = RemoveDeadUnits()(pruned)
    assert result.model.config["hidden"][0] <= 300 - int(rows.sum())
    assert np.array_equal(evaluate(result, digits, "test"), evaluate(pruned, digits, "test"))


def small(*layers):
    torch.manual_seed(0)
    model = torch.nn.Sequential(*layers).eval()
    spec = [TensorSpec(name, "float32", ("batch", 6)) for name in ("x", "y")]
    return Variant("small", "torch", model, spec[:1], spec[1:])


def test_behind_a_function_that_makes_something_of_nothing_a_unit_counts_and_it_is_said_what_to_do():
    variant = small(torch.nn.Linear(6, 8), torch.nn.Sigmoid(), torch.nn.Linear(8, 6))
    with torch.no_grad():
        variant.model[0].weight[:3], variant.model[0].bias[:3] = 0, 0
        variant.model[2].weight[:, 5] = 0
    with pytest.raises(TechniqueError, match="as a sigmoid makes ½.*what='unread'"):
        RemoveDeadUnits()(variant)
    assert RemoveDeadUnits(what="unread")(variant).model[0].out_features == 7


def test_a_unit_that_no_weight_reads_but_the_output_counts():
    class Sums(torch.nn.Module):
        def forward(self, x):
            return x.unflatten(1, (4, 6)).sum(1)

    variant = ExportOnnx()(small(torch.nn.Linear(6, 24), torch.nn.ReLU(), Sums()))
    with pytest.raises(TechniqueError, match="every unit"):
        RemoveDeadUnits()(variant)


HEAD = [node("GlobalAveragePool", "z", "g"), node("Flatten", "g", "y")]


def silent(name, *shape, units):
    """A weight whose inputs `units` are zero."""
    values = normal(name, *shape)
    values[:, units] = 0
    return numpy_helper.from_array(values, name)


def makers(variant):
    tensors = onnx.load_model_from_string(variant.payload).graph.initializer
    return {each.name: each.dims[0] for each in tensors if each.name in ("w1", "w2")}


@pytest.mark.parametrize("what", ["both", "unmade", "unread"])
@pytest.mark.parametrize("function", ["Relu", "Sigmoid"])
def test_a_unit_that_is_summed_up_beside_a_weight_of_zero_counts(function, what):
    nodes = [
        node("Conv", "x w1", "c", pads=[1] * 4),
        node(function, "c", "s"),
        node("Conv", "s w2", "c2", pads=[1] * 4),
        node("ReduceSum", "s ax", "rs", keepdims=1),
        node("Add", "c2 rs", "z"),
        *HEAD,
    ]
    stored = [weight("w1", 16, 3, 3, 3), silent("w2", 10, 16, 3, 3, units=[0]), constant("ax", [1], np.int64)]
    said = {"both": "makes it, and something reads it", "unmade": "makes it", "unread": "something reads it"}[
        what
    ]
    with pytest.raises(TechniqueError, match=f"every unit of 'user' counts: .*{said}. Prune more"):
        RemoveDeadUnits(what=what)(build(nodes, stored))


def test_a_unit_that_meets_others_beside_a_weight_of_zero_counts():
    """Each token's channels are multiplied with those of the others: no stored weight reads them there."""
    nodes = [
        node("MatMul", "x w1", "h"),
        node("Transpose", "h", "t", perm=[0, 2, 1]),
        node("MatMul", "h t", "met"),
        node("MatMul", "h w2", "own"),
        node("MatMul", "met own", "a"),
        node("ReduceMean", "a ax", "y", keepdims=0),
    ]
    read = numpy_helper.from_array(numpy_helper.to_array(silent("w2", 10, 16, units=[0])).T.copy(), "w2")
    stored = [weight("w1", 8, 16), read, constant("ax", [1], np.int64)]
    with pytest.raises(TechniqueError, match="every unit"):
        RemoveDeadUnits()(build(nodes, stored, ("batch", 5, 8)))


def norm_without(units):
    gamma, beta, *rest = batch_norm(1)
    for each in (gamma, beta):
        values = numpy_helper.to_array(each).copy()
        values[units] = 0
        each.CopyFrom(numpy_helper.from_array(values, each.name))
    return [gamma, beta, *rest]


@pytest.mark.parametrize(("what", "left"), [("both", 15), ("unread", 15), ("unmade", None)])
def test_a_unit_of_a_sum_counts_though_a_batch_norm_silences_one_of_its_makers(what, left):
    nodes = [
        node("Conv", "x w1", "c1", pads=[1] * 4),
        node("BatchNormalization", "c1 gamma1 beta1 mean1 var1", "n1"),
        node("Conv", "x w2", "c2", pads=[1] * 4),
        node("Add", "n1 c2", "a"),
        node("Relu", "a", "r"),
        node("Conv", "r w3", "z"),
        *HEAD,
    ]
    stored = [weight("w1", 16, 3, 3, 3), weight("w2", 16, 3, 3, 3), silent("w3", 10, 16, 1, 1, units=[5])]
    variant = build(nodes, [*stored, *norm_without([0, 1])])
    if left is None:
        with pytest.raises(TechniqueError, match="every unit of 'user' counts: something makes it"):
            RemoveDeadUnits(what=what)(variant)
        return
    assert makers(RemoveDeadUnits(what=what)(variant)) == {"w1": left, "w2": left}


@pytest.mark.parametrize("between", [[], ["Relu"], ["Relu", "MaxPool"]], ids=str)
def test_behind_what_leaves_channels_by_themselves_a_batch_norm_decides_too(between):
    names = ["c", "d", "e"][: len(between) + 1]
    options = {"MaxPool": {"kernel_shape": [2, 2]}}
    passing = [
        node(op, *pair, **options.get(op, {}))
        for op, pair in zip(between, zip(names[:-1], names[1:], strict=True), strict=True)
    ]
    nodes = [
        node("Conv", "x w1", "c", pads=[1] * 4),
        *passing,
        node("BatchNormalization", f"{names[-1]} gamma1 beta1 mean1 var1", "n"),
        node("Conv", "n w2", "z"),
        *HEAD,
    ]
    variant = build(nodes, [weight("w1", 16, 3, 3, 3), weight("w2", 10, 16, 1, 1), *norm_without([3, 4])])
    assert makers(RemoveDeadUnits()(variant))["w1"] == 14
