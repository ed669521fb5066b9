"""An ONNX graph carried out in torch: ONNX Runtime's numbers operator by operator, and gradients that are right."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from labkit.convert import ExportOnnx
from labkit.data import load_dataset
from labkit.errors import TechniqueError
from labkit.onnx_graph import open_graph
from labkit.onnx_graph.as_torch import as_torch
from labkit.onnx_graph.as_torch.operators import OPERATORS
from labkit.train import fresh_variant

RANDOM = np.random.default_rng(0)


def floats(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


def graph(nodes, inputs, constants, outputs, opset=18):
    """A model whose batch is free: inputs and constants are name → array."""
    values = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(array.dtype), ["batch", *array.shape[1:]]
        )
        for name, array in inputs.items()
    ]
    weights = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    body = helper.make_graph(nodes, "test", values, [onnx.ValueInfoProto(name=n) for n in outputs], weights)
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def reference(model, feeds):
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def ours(model, feeds):
    module = as_torch(open_graph(model.SerializeToString()))
    with torch.no_grad():
        result = module(*(torch.from_numpy(array) for array in feeds.values()))
    return [each.numpy() for each in (result if isinstance(result, tuple) else (result,))]


def agree(model, feeds):
    for mine, theirs in zip(ours(model, feeds), reference(model, feeds), strict=True):
        assert mine.shape == theirs.shape and mine.dtype == theirs.dtype
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5)


IMAGE = (2, 3, 9, 8)
KERNEL = {"kernel_shape": [3, 2], "strides": [2, 1]}
ints = lambda *values: np.array(values, np.int64)  # noqa: E731

# what it is called → (op_type, shape of x, further inputs, attributes)
CASES = {
    "Conv with uneven padding": ("Conv", IMAGE, [floats(4, 3, 3, 2), floats(4)], {"pads": [1, 0, 2, 1]}),
    "Conv, even padding, strides": (
        "Conv",
        IMAGE,
        [floats(4, 3, 3, 3), floats(4)],
        {"pads": [1, 1, 1, 1], "strides": [2, 2]},
    ),
    "Conv in groups with gaps": ("Conv", IMAGE, [floats(6, 1, 3, 2)], {"group": 3, "dilations": [2, 1]}),
    "Conv SAME_UPPER": ("Conv", IMAGE, [floats(4, 3, 4, 2)], {"auto_pad": "SAME_UPPER", "strides": [2, 3]}),
    "Conv SAME_LOWER": ("Conv", IMAGE, [floats(4, 3, 4, 2)], {"auto_pad": "SAME_LOWER"}),
    "Conv in one dimension": ("Conv", (2, 3, 9), [floats(4, 3, 2)], {}),
    "ConvTranspose": (
        "ConvTranspose",
        IMAGE,
        [floats(3, 2, 3, 3), floats(2)],
        {"strides": [2, 2], "pads": [1, 0, 0, 2], "output_padding": [1, 0]},
    ),
    "Gemm": (
        "Gemm",
        (2, 5),
        [floats(3, 5), floats(3)],
        {"transB": 1, "alpha": 0.5, "beta": 2.0},
    ),
    "MatMul": ("MatMul", (2, 4, 5), [floats(5, 3)], {}),
    "BatchNormalization": (
        "BatchNormalization",
        IMAGE,
        [floats(3), floats(3), floats(3), np.abs(floats(3)) + 0.1],
        {"epsilon": 0.01},
    ),
    "LayerNormalization": ("LayerNormalization", IMAGE, [floats(9, 8), floats(9, 8)], {"axis": 2}),
    "Relu": ("Relu", IMAGE, [], {}),
    "Clip": ("Clip", IMAGE, [np.float32(-0.5), np.float32(0.7)], {}),
    "LeakyRelu": ("LeakyRelu", IMAGE, [], {"alpha": 0.3}),
    "Sigmoid": ("Sigmoid", IMAGE, [], {}),
    "HardSigmoid": ("HardSigmoid", IMAGE, [], {"alpha": 0.3, "beta": 0.4}),
    "HardSwish": ("HardSwish", IMAGE, [], {}),
    "Tanh": ("Tanh", IMAGE, [], {}),
    "Erf": ("Erf", IMAGE, [], {}),
    "Softmax": ("Softmax", IMAGE, [], {"axis": 1}),
    "LogSoftmax": ("LogSoftmax", IMAGE, [], {}),
    "Add": ("Add", IMAGE, [floats(3, 1, 1)], {}),
    "Sub": ("Sub", IMAGE, [floats(8)], {}),
    "Mul": ("Mul", IMAGE, [floats(8)], {}),
    "Div": ("Div", IMAGE, [np.abs(floats(8)) + 1], {}),
    "Pow": ("Pow", IMAGE, [np.float32(2)], {}),
    "Neg": ("Neg", IMAGE, [], {}),
    "Exp": ("Exp", IMAGE, [], {}),
    "Min": ("Min", IMAGE, [floats(8), floats(9, 1)], {}),
    "Max": ("Max", IMAGE, [floats(8), floats(9, 1)], {}),
    **{
        name: (name, IMAGE, [], {})
        for name in (
            "Elu",
            "Celu",
            "Selu",
            "Softplus",
            "Softsign",
            "ThresholdedRelu",
            "Reciprocal",
            "Abs",
            "Sign",
        )
        + ("Floor", "Ceil", "Round", "Sin", "Cos")
    },
    "Elu, steeper": ("Elu", IMAGE, [], {"alpha": 0.3}),
    "Celu, steeper": ("Celu", IMAGE, [], {"alpha": 0.3}),
    "Selu, steeper": ("Selu", IMAGE, [], {"alpha": 0.3, "gamma": 2.0}),
    "Mish": ("Mish", IMAGE, [], {}),
    "PRelu": ("PRelu", IMAGE, [floats(3, 1, 1)], {}),
    "Mod of the sign of A": ("Mod", IMAGE, [floats(8)], {"fmod": 1}),
    "Sum": ("Sum", IMAGE, [floats(8), floats(9, 1)], {}),
    "Mean": ("Mean", IMAGE, [floats(8), floats(9, 1)], {}),
    **{name: (name, IMAGE, [floats(8)], {}) for name in ("Less", "LessOrEqual", "Greater", "GreaterOrEqual")},
    "ReduceMin": ("ReduceMin", IMAGE, [ints(2, 3)], {}),
    "ReduceL1": ("ReduceL1", IMAGE, [ints(1, 3)], {}),
    "ReduceL2": ("ReduceL2", IMAGE, [ints(1)], {"keepdims": 0}),
    "ReduceSumSquare": ("ReduceSumSquare", IMAGE, [ints(1)], {}),
    "Tile": ("Tile", IMAGE, [ints(1, 2, 1, 3)], {}),
    "DepthToSpace": ("DepthToSpace", (2, 12, 3, 5), [], {"blocksize": 2}),
    "DepthToSpace, pixel shuffle": ("DepthToSpace", (2, 12, 3, 5), [], {"blocksize": 2, "mode": "CRD"}),
    "InstanceNormalization": ("InstanceNormalization", IMAGE, [floats(3), floats(3)], {"epsilon": 0.01}),
    "GroupNormalization": ("GroupNormalization", (2, 6, 5, 4), [floats(3), floats(3)], {"num_groups": 3}),
    "MaxPool": ("MaxPool", IMAGE, [], {**KERNEL, "pads": [1, 0, 2, 1]}),
    "MaxPool rounded up": ("MaxPool", IMAGE, [], {"kernel_shape": [2, 2], "strides": [2, 3], "ceil_mode": 1}),
    "AveragePool": ("AveragePool", IMAGE, [], {**KERNEL, "pads": [1, 0, 1, 1]}),
    "AveragePool with its padding": (
        "AveragePool",
        IMAGE,
        [],
        {**KERNEL, "pads": [1, 0, 1, 1], "count_include_pad": 1},
    ),
    "GlobalAveragePool": ("GlobalAveragePool", IMAGE, [], {}),
    "GlobalMaxPool": ("GlobalMaxPool", IMAGE, [], {}),
    "ReduceMean": ("ReduceMean", IMAGE, [ints(2, -1)], {"keepdims": 0}),
    "ReduceMean of everything": ("ReduceMean", IMAGE, [], {}),
    "ReduceSum": ("ReduceSum", IMAGE, [ints(1)], {}),
    "ReduceSum of nothing": ("ReduceSum", IMAGE, [], {"noop_with_empty_axes": 1}),
    "ReduceMax": ("ReduceMax", IMAGE, [ints(2, 3)], {}),
    "Flatten": ("Flatten", IMAGE, [], {"axis": 2}),
    "Flatten from the end": ("Flatten", IMAGE, [], {"axis": -1}),
    "Flatten from the start": ("Flatten", IMAGE, [], {"axis": 0}),
    "Reshape": ("Reshape", IMAGE, [ints(0, -1, 4)], {}),
    "Transpose": ("Transpose", IMAGE, [], {"perm": [0, 2, 3, 1]}),
    "Transpose of all": ("Transpose", IMAGE, [], {}),
    "Squeeze": ("Squeeze", (2, 1, 3, 1), [ints(1, -1)], {}),
    "Unsqueeze": ("Unsqueeze", (2, 3), [ints(-1, 1)], {}),
    "Concat": ("Concat", (2, 3), [floats(2, 4)], {"axis": -1}),
    "Slice": ("Slice", IMAGE, [ints(1, -5), ints(2**62, -1), ints(2, 3), ints(2, 1)], {}),
    "Slice backwards": ("Slice", IMAGE, [ints(-1), ints(-(2**62)), ints(3), ints(-2)], {}),
    "Slice of nothing": ("Slice", IMAGE, [ints(50), ints(60), ints(3)], {}),
    "Gather": ("Gather", IMAGE, [np.array([[0, -1], [2, 1]])], {"axis": 1}),
    "Shape": ("Shape", IMAGE, [], {"start": 1, "end": -1}),
    "Expand": ("Expand", (2, 1, 3), [ints(4, 1)], {}),
    "Cast": ("Cast", IMAGE, [], {"to": TensorProto.INT64}),
    "Identity": ("Identity", IMAGE, [], {}),
    "Dropout": ("Dropout", IMAGE, [np.float32(0.5)], {}),
    "Pad": ("Pad", IMAGE, [ints(0, 0, 1, 0, 0, 0, 2, 3), np.float32(7)], {}),
    "Pad some axes": ("Pad", IMAGE, [ints(1, 2), np.float32(7), ints(-1)], {}),
    "Pad with its edge": ("Pad", IMAGE, [ints(0, 0, 1, 0, 0, 0, 2, 3)], {"mode": "edge"}),
    "Pad with its mirror": ("Pad", IMAGE, [ints(0, 0, 1, 0, 0, 0, 2, 3)], {"mode": "reflect"}),
    "Pad the width with its edge": ("Pad", IMAGE, [ints(0, 0, 0, 2, 0, 0, 0, 1)], {"mode": "edge"}),
    "Pad the height with its mirror": ("Pad", IMAGE, [ints(0, 0, 3, 0, 0, 0, 2, 0)], {"mode": "reflect"}),
    "Pad channels with their mirror": ("Pad", IMAGE, [ints(0, 2, 0, 0, 0, 1, 0, 0)], {"mode": "reflect"}),
    "Pad samples and cut channels": ("Pad", IMAGE, [ints(1, -1, 0, 0, 2, 0, 0, 0)], {"mode": "edge"}),
}


@pytest.mark.parametrize("case", CASES)
def test_an_operator_gives_onnx_runtime_s_numbers(case):
    op_type, shape, others, attributes = CASES[case]
    names = [f"c{index}" for index in range(len(others))]
    places = ["c0", "c1", "", "c2"] if case == "Slice without axes" else names
    node = helper.make_node(op_type, ["x", *places], ["y"], **attributes)
    feeds = {"x": floats(*shape)}
    agree(graph([node], feeds, dict(zip(names, others, strict=True)), ["y"]), feeds)


@pytest.mark.parametrize("op_type", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("kernel", [2, 3])
@pytest.mark.parametrize("pads", [[0, 0, 1, 1], [1, 0, 1, 1], [1, 1, 0, 0]])
def test_rounded_up_no_pooling_window_begins_in_the_padding_at_the_end(op_type, kernel, pads):
    feeds = {"x": floats(2, 3, 6, 7)}
    kinds = ({},) if op_type == "MaxPool" else ({"count_include_pad": 0}, {"count_include_pad": 1})
    for stride in (1, 2, 3):
        window = {"kernel_shape": [kernel, kernel], "strides": [stride, 3], "pads": pads, "ceil_mode": 1}
        for kind in kinds:
            node = helper.make_node(op_type, ["x"], ["y"], **window, **kind)
            agree(graph([node], feeds, {}, ["y"], opset=19), feeds)


def test_gelu_and_sqrt_and_log_too():
    feeds = {"x": np.abs(floats(2, 5)) + 0.1}
    for approximate in ("none", "tanh"):
        node = helper.make_node("Gelu", ["x"], ["y"], approximate=approximate)
        agree(graph([node], feeds, {}, ["y"], opset=20), feeds)
    for op_type in ("Sqrt", "Log"):
        agree(graph([helper.make_node(op_type, ["x"], ["y"])], feeds, {}, ["y"]), feeds)


def test_truth_and_whole_numbers_are_computed_too():
    nodes = [
        helper.make_node("Greater", ["x", "zero"], ["a"]),
        helper.make_node("Less", ["x", "one"], ["b"]),
        helper.make_node("And", ["a", "b"], ["both"]),
        helper.make_node("Not", ["both"], ["outside"]),
        helper.make_node("Or", ["outside", "a"], ["c"]),
        helper.make_node("Cast", ["c"], ["n"], to=TensorProto.INT64),
        helper.make_node("Sub", ["n", "five"], ["m"]),
        helper.make_node("Mod", ["m", "three"], ["y"]),
    ]
    constants = {"zero": np.float32(0), "one": np.float32(1), "five": ints(5), "three": ints(3)}
    feeds = {"x": floats(4, 6)}
    agree(graph(nodes, feeds, constants, ["y"]), feeds)


@pytest.mark.parametrize("groups", [2, 3])
def test_a_group_norm_scales_each_channel_since_operator_set_21(groups):
    feeds = {"x": floats(2, 6, 5, 4)}
    node = helper.make_node("GroupNormalization", ["x", "s", "b"], ["y"], num_groups=groups)
    agree(graph([node], feeds, {"s": floats(6), "b": floats(6)}, ["y"], opset=21), feeds)


def test_a_split_has_sizes_or_a_number_of_parts():
    feeds = {"x": floats(2, 7)}
    by_size = helper.make_node("Split", ["x", "sizes"], ["a", "b"], axis=1)
    agree(graph([by_size], feeds, {"sizes": ints(3, 4)}, ["a", "b"]), feeds)
    in_parts = helper.make_node("Split", ["x"], ["a", "b", "c"], axis=1, num_outputs=3)
    agree(graph([in_parts], feeds, {}, ["a", "b", "c"]), feeds)


@pytest.mark.parametrize("batch", [1, 3])
def test_sizes_may_be_computed_from_the_shape_of_a_free_batch(batch):
    make = helper.make_node
    nodes = [
        make("Shape", ["x"], ["shape"]),
        make("Gather", ["shape", "zero"], ["count"]),
        make("Unsqueeze", ["count", "axis"], ["count1"]),
        make("Concat", ["count1", "six"], ["sizes"], axis=0),
        make("Reshape", ["x", "sizes"], ["rows"]),
        make("ConstantOfShape", ["sizes"], ["twos"], value=numpy_helper.from_array(np.float32([2]))),
        make("Range", ["zero", "count", "one"], ["numbers"]),
        make("Equal", ["numbers", "zero"], ["first"]),
        make("Unsqueeze", ["first", "last"], ["column"]),
        make("Where", ["column", "rows", "twos"], ["y"]),
    ]
    feeds = {"x": floats(batch, 2, 3)}
    constants = {
        "zero": np.int64(0), "one": np.int64(1), "axis": ints(0), "last": ints(-1), "six": ints(6)
    }  # fmt: skip
    agree(graph(nodes, feeds, constants, ["y"]), feeds)


def test_two_inputs_keep_their_order_and_numbers_outside_their_place_would_be_seen():
    feeds = {"ids": np.array([[1, 2], [0, 3]]), "mask": floats(2, 2, 1)}
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("Mul", ["rows", "mask"], ["y"]),
    ]
    model = graph(nodes, feeds, {"table": floats(5, 4)}, ["y"])
    agree(model, feeds)
    model.graph.node[1].op_type = "Add"
    wrong = ours(model, feeds)[0]
    model.graph.node[1].op_type = "Mul"
    assert np.abs(wrong - reference(model, feeds)[0]).max() > 0.1


def exported(architecture, **config):
    dataset = load_dataset("digits")
    variant = fresh_variant({"architecture": architecture, **config}, dataset)
    torch.manual_seed(0)
    with torch.no_grad():  # no two weights alike: the exporter would store them once
        for parameter in variant.model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    images = variant.feeds(dataset.split("validation").take(slice(0, 5)).inputs)["image"]
    return variant, ExportOnnx()(variant), images


@pytest.mark.parametrize(
    "architecture, config",
    [("resnet20", {}), ("mobilenet", {}), ("vit", {"depth": 2})],
)
def test_an_exported_network_gives_the_same_logits_for_any_batch(architecture, config):
    _, variant, images = exported(architecture, **config)
    model = onnx.load_model_from_string(variant.payload)
    for batch in (1, 5):
        feeds = {"image": images[:batch]}
        np.testing.assert_allclose(ours(model, feeds)[0], reference(model, feeds)[0], atol=1e-5)


def test_the_gradients_are_those_of_the_module_that_was_exported():
    torch_variant, variant, images = exported("vit", depth=1)
    module, again = torch_variant.model, as_torch(open_graph(variant.payload))
    target = torch.arange(5)
    for each in (module, again):
        torch.nn.functional.cross_entropy(each(torch.from_numpy(images)), target).backward()
    theirs = {tuple(p.shape): [] for p in module.parameters()}
    for parameter in module.parameters():
        theirs[tuple(parameter.shape)].append(parameter.grad)
    found = 0
    for name, values in again.constants().items():
        gradient = again.constant(name).grad
        if gradient is None:
            continue
        found += values.numel()
        candidates = theirs.get(tuple(values.shape), []) + [
            each.T for each in theirs.get(tuple(values.shape)[::-1], []) if each.ndim == 2
        ]
        assert min(float((gradient - each).abs().max()) for each in candidates) < 1e-5, name
    assert found == sum(parameter.numel() for parameter in module.parameters())


def test_a_gradient_agrees_with_finite_differences():
    feeds = {"x": floats(2, 3, 5, 5)}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[0, 1, 1, 0], strides=[2, 1]),
        helper.make_node("HardSwish", ["a"], ["b"]),
        helper.make_node("AveragePool", ["b"], ["c"], kernel_shape=[2, 2], pads=[1, 0, 0, 1]),
        helper.make_node("Flatten", ["c"], ["d"]),
        helper.make_node("Softmax", ["d"], ["y"]),
    ]
    module = as_torch(graph(nodes, feeds, {"w": floats(4, 3, 2, 2)}, ["y"])).double()
    x = torch.from_numpy(feeds["x"]).double()

    def score():
        return (module(x) ** 2).sum()

    weight = module.constant("w")
    score().backward()
    direction, step = torch.randn_like(weight), 1e-5
    with torch.no_grad():
        weight += step * direction
        after = score()
        weight -= 2 * step * direction
        slope = (after - score()) / (2 * step)
    assert float((weight.grad * direction).sum()) == pytest.approx(float(slope), rel=1e-6)
    assert abs(float(slope)) > 1e-6


def norm_model():
    feeds = {"x": 3 + 2 * floats(16, 3, 4, 4)}
    constants = {"g": floats(3), "b": floats(3), "m": np.zeros(3, np.float32), "v": np.ones(3, np.float32)}
    node = helper.make_node("BatchNormalization", ["x", "g", "b", "m", "v"], ["y"], momentum=0.8)
    return graph([node], feeds, constants, ["y"]), feeds


def test_in_training_a_batch_norm_uses_the_batch_and_keeps_running_averages():
    model, feeds = norm_model()
    module = as_torch(model)
    x = torch.from_numpy(feeds["x"])
    as_it_was = module(x)
    module.train()
    y = module(x)
    mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3))
    normal = (y - module.constant("b")[:, None, None]) / module.constant("g")[:, None, None]
    torch.testing.assert_close(normal.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(module.constant("m"), 0.2 * mean)
    torch.testing.assert_close(module.constant("v"), 0.8 + 0.2 * variance)
    assert not torch.allclose(module.eval()(x), as_it_was)
    assert {name for name, _ in module.named_parameters()}.isdisjoint({"m", "v"})
    assert module.constant("g").requires_grad and not module.constant("m").requires_grad


def two_norms(own):
    """Two batch norms as they begin; their constants stored once, as optimizers do, or each by itself."""
    feeds, ones, zeros = {"x": 1 + floats(16, 3, 4, 4)}, np.ones(3, np.float32), np.zeros(3, np.float32)
    names = [["g", "b", "m", "v"], ["G", "B", "M", "V"]] if own else [["one", "zero", "zero", "one"]] * 2
    stored = {name: ones if name in {"g", "v", "G", "V", "one"} else zeros for name in sum(names, [])}
    first = helper.make_node("BatchNormalization", ["x", *names[0]], ["n"])
    second = helper.make_node("BatchNormalization", ["n", *names[1]], ["y"])
    return graph([first, helper.make_node("Relu", ["n"], ["r"]), second], feeds, stored, ["r", "y"])


def test_a_batch_norm_that_uses_the_batch_s_statistics_when_it_runs_is_refused():
    model, feeds = norm_model()
    model.graph.node[0].attribute.append(helper.make_attribute("training_mode", 1))
    module = as_torch(model)
    for mode in (True, False):
        with pytest.raises(TechniqueError, match=r"BatchNormalization .*training_mode.*: export it"):
            module.train(mode)(torch.from_numpy(feeds["x"]))


def test_batch_norms_that_share_their_constants_are_trained_like_any():
    x, results = torch.from_numpy(1 + floats(16, 3, 4, 4)), []
    for own in (False, True):
        module = as_torch(open_graph(two_norms(own).SerializeToString())).train()
        optimizer = torch.optim.SGD(module.parameters(), 0.05)
        for _ in range(5):
            optimizer.zero_grad()
            r, y = module(x)
            ((r - 2).square().mean() + (y - x).square().mean()).backward()
            optimizer.step()
        results.append(module.eval()(x)[1])
    torch.testing.assert_close(*results)
    assert results[0].isfinite().all()


def test_dropout_drops_in_training_only():
    feeds = {"x": np.ones((2, 100), np.float32)}
    module = as_torch(graph([helper.make_node("Dropout", ["x"], ["y"])], feeds, {}, ["y"]))
    x = torch.ones(2, 100)
    assert torch.equal(module(x), x)
    assert (module.train()(x) == 0).any()


def test_a_copy_is_trained_alone():
    model, feeds = norm_model()
    module = as_torch(model)
    other = copy.deepcopy(module).train()
    other(torch.from_numpy(feeds["x"]))
    assert not torch.equal(other.constant("m"), module.constant("m"))


@pytest.mark.parametrize(
    "node, named",
    [
        (helper.make_node("Det", ["x"], ["y"]), r"Det \(1×\)"),
        (helper.make_node("FusedConv", ["x"], ["y"], domain="com.microsoft"), "com.microsoft.FusedConv"),
        (helper.make_node("Relu", ["x"], ["y"], domain="elsewhere"), "elsewhere.Relu"),
    ],
)
def test_an_operator_that_is_not_in_the_table_is_named(node, named):
    model = graph([helper.make_node("Relu", ["x"], ["z"]), node], {"x": floats(2, 2)}, {}, ["y"])
    with pytest.raises(TechniqueError, match=named):
        as_torch(model)


@pytest.mark.parametrize(
    "node, constants, why",
    [
        (helper.make_node("Pad", ["x", "p"], ["y"], mode="wrap"), {"p": ints(0, 0, 1, 1)}, "wrap"),
        (helper.make_node("MaxPool", ["x"], ["y", "i"], kernel_shape=[1]), {}, "places"),
        (helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT8E4M3FN), {}, "float8"),
    ],
)
def test_what_an_operator_cannot_do_is_said_with_its_name(node, constants, why):
    shape = (2, 3, 4) if node.op_type == "MaxPool" else (2, 3)
    module = as_torch(graph([node], {"x": floats(*shape)}, constants, ["y"]))
    with pytest.raises(TechniqueError, match=why):
        module(torch.ones(shape))


def test_every_operator_of_the_table_is_tried_here():
    with open(__file__, encoding="utf-8") as file:
        source = file.read()
    untried = {name for name in OPERATORS if f'"{name}"' not in source}
    assert untried == set()
