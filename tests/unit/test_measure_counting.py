"""Parameters and multiply-adds: PyTorch and ONNX count alike, and both as one counts by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from labkit.convert import ExportOnnx
from labkit.data import Dataset
from labkit.measure.counting import count
from labkit.measure.records import Reason
from labkit.quantize import QuantizeDynamic, QuantizeWeights
from labkit.variant import Array, TensorSpec, Variant
from labkit.zoo import load_model

IMAGE = {"image": np.zeros((1, 1, 32, 32), np.float32)}


def variant(nodes: list[Any], weights: dict[str, Any], shape: tuple[int, ...], **more: Any) -> Variant:
    """An ONNX variant from x (its batch is symbolic) to y, by `nodes` over `weights`."""
    tensors = [
        value if isinstance(value, onnx.TensorProto) else numpy_helper.from_array(np.asarray(value), name)
        for name, value in weights.items()
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *shape])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        tensors,
    )
    opsets = [helper.make_opsetid("", 21), *more.get("opsets", [])]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return Variant(
        "v", "onnx", model.SerializeToString(), (TensorSpec("x", "float32", ("batch", *shape)),), ()
    )


def sample(*shape: int) -> dict[str, Array]:
    return {"x": np.zeros((1, *shape), np.float32)}


def node(op: str, inputs: list[str], output: str = "y", **attributes: Any) -> Any:
    return helper.make_node(op, inputs, [output], **attributes)


def by_hooks(module: torch.nn.Module, image: torch.Tensor) -> int:
    """The reference: what each convolution and linear layer does, told by its own shapes."""
    total = 0

    def add(layer: torch.nn.Module, inputs: Any, output: torch.Tensor) -> None:
        nonlocal total
        total += output.numel() * layer.weight[0].numel()

    layers = [m for m in module.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear))]
    handles = [layer.register_forward_hook(add) for layer in layers]
    with torch.no_grad():
        module(image)
    for handle in handles:
        handle.remove()
    return total


def test_lenet5_at_28_pixels_has_the_papers_parameters(lenet: Variant) -> None:
    from labkit.models import build

    module = build({"architecture": "lenet5", "input_shape": [1, 28, 28], "num_outputs": 10}).eval()
    model = Variant("l", "torch", module, (TensorSpec("image", "float32", ("batch", 1, 28, 28)),), ())
    counts = count(model, {"image": np.zeros((1, 1, 28, 28), np.float32)})
    assert counts.parameters == 431_080
    assert counts.macs == 24 * 24 * 20 * 25 + 8 * 8 * 50 * 20 * 25 + 800 * 500 + 500 * 10


@pytest.mark.parametrize("name", ["lenet5@digits", "resnet20@digits"])
def test_pytorch_and_its_export_count_alike(name: str, digits: Dataset) -> None:
    model = load_model(name)
    exported = ExportOnnx()(model, digits)
    torch_counts, onnx_counts = count(model, IMAGE), count(exported, IMAGE)
    assert torch_counts.macs == onnx_counts.macs == by_hooks(model.model, torch.zeros(1, 1, 32, 32))
    norms = [m for m in model.model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    folded = sum(norm.num_features for norm in norms)  # scale and shift became one bias
    assert onnx_counts.parameters == torch_counts.parameters - folded
    assert not model.quantized and not exported.quantized


def test_counting_leaves_the_module_as_it_was() -> None:
    shipped = load_model("resnet20@digits")
    module = shipped.model.train()
    module.fc.eval()
    model = Variant("r", "torch", module, shipped.inputs, shipped.outputs)
    before = model.fingerprint()
    count(model, IMAGE)
    assert module.training and not module.fc.training and module.bn.training
    assert model.fingerprint() == before
    assert all(not layer._forward_hooks and not layer._forward_pre_hooks for layer in module.modules())


def test_zeros_are_counted_out_of_the_parameters_but_not_of_the_work(lenet: Variant) -> None:
    import copy

    module = copy.deepcopy(lenet.model)
    with torch.no_grad():
        module.fc1.weight[:250] = 0
    before, after = (
        count(lenet, IMAGE),
        count(Variant("l", "torch", module, lenet.inputs, lenet.outputs), IMAGE),
    )
    assert after.macs == before.macs and after.parameters == before.parameters
    assert after.nonzero_parameters == before.nonzero_parameters - 250 * 1250


def test_attention_is_counted_in_pytorch() -> None:
    class Attend(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.scaled_dot_product_attention(x, x, x)

    model = Variant("a", "torch", Attend().eval(), (TensorSpec("x", "float32", ("batch", 2, 5, 8)),), ())
    assert count(model, sample(2, 5, 8)).macs == 2 * (2 * 5 * 5 * 8)


W = np.ones((6, 2, 3, 3), np.float32)


@pytest.mark.parametrize(
    ("nodes", "weights", "shape", "macs", "parameters"),
    [
        ([node("Conv", ["x", "w"])], {"w": W}, (2, 8, 8), 6 * 6 * 6 * 18, 108),
        ([node("Conv", ["x", "w"], group=3)], {"w": W}, (6, 8, 8), 6 * 6 * 6 * 18, 108),
        ([node("MatMul", ["x", "w"])], {"w": np.ones((4, 5), np.float32)}, (7, 4), 7 * 4 * 5, 20),
        (
            [node("Gemm", ["x", "w", "b"], transB=1)],
            {"w": np.ones((5, 4), np.float32), "b": np.ones(5, np.float32)},
            (4,),
            20,
            25,
        ),
        (
            [node("Reshape", ["x", "s"], "r"), node("Mul", ["r", "half"])],
            {"s": np.array([-1, 4]), "half": np.float32(0.5)},
            (2, 2),
            0,
            0,
        ),
        (
            [node("BatchNormalization", ["x", "gamma", "beta", "mean", "var"])],
            {name: np.ones(2, np.float32) for name in ("gamma", "beta", "mean", "var")},
            (2, 4, 4),
            0,
            4,
        ),
    ],
    ids=["conv", "grouped", "matmul", "gemm", "constants", "batch norm"],
)
def test_onnx_is_counted_as_by_hand(
    nodes: list[Any], weights: dict[str, Any], shape: tuple[int, ...], macs: int, parameters: int
) -> None:
    counted = variant(nodes, weights, shape)
    counts = count(counted, sample(*shape))
    assert (counts.macs, counts.parameters, counted.quantized) == (macs, parameters, False)


def quantize_dequantize(name: str) -> list[Any]:
    return [
        node("QuantizeLinear", [name, "sx", "zx"], f"{name}_q"),
        node("DequantizeLinear", [f"{name}_q", "sx", "zx"], f"{name}_dq"),
    ]


def test_a_quantized_convolution_counts_like_its_float_one() -> None:
    weights = {
        "w": W.astype(np.int8),
        "sw": np.ones(6, np.float32),
        "zw": np.zeros(6, np.int8),
        "b": np.ones(6, np.int32),
        "sx": np.float32(0.1),
        "zx": np.uint8(3),
    }
    nodes = [
        *quantize_dequantize("x"),
        node("DequantizeLinear", ["w", "sw", "zw"], "wf", axis=0),
        node("DequantizeLinear", ["b", "sw"], "bf", axis=0),
        node("Conv", ["x_dq", "wf", "bf"]),
    ]
    counted = variant(nodes, weights, (2, 8, 8))
    counts = count(counted, sample(2, 8, 8))
    assert (counts.macs, counts.parameters, counted.quantized) == (6 * 6 * 6 * 18, 114, True)


@pytest.mark.parametrize(
    ("zero_point", "attributes"),
    [
        (np.uint8(7), {}),
        (np.full(4, 7, np.uint8), {"axis": 0}),
        (np.full((4, 2), 7, np.uint8), {"axis": 1, "block_size": 4}),
        (np.full((4, 2), 7, np.uint8), {"axis": 1, "block_size": 5}),
    ],
    ids=["per tensor", "per channel", "per group", "last group short"],
)
def test_what_lies_at_the_zero_point_is_zero(zero_point: Any, attributes: dict[str, int]) -> None:
    columns = 8 if attributes.get("block_size") != 5 else 7
    stored = np.full((4, columns), 9, np.uint8)
    stored[1] = 7
    scale = np.ones(np.shape(zero_point), np.float32)
    nodes = [node("DequantizeLinear", ["w", "s", "z"], "wf", **attributes), node("MatMul", ["x", "wf"])]
    counted = variant(nodes, {"w": stored, "s": scale, "z": zero_point}, (4,))
    counts = count(counted, sample(4))
    assert counts.parameters == 4 * columns and counts.nonzero_parameters == 3 * columns
    assert not counted.quantized, "only the weights are integers"


def test_four_bit_weights_are_counted_one_by_one() -> None:
    stored = helper.make_tensor("w", TensorProto.INT4, [4, 2], [1, -2, 0, 3, 0, 0, 7, -8])
    nodes = [node("DequantizeLinear", ["w", "s"], "wf"), node("MatMul", ["x", "wf"])]
    counts = count(variant(nodes, {"w": stored, "s": np.float32(1)}, (4,)), sample(4))
    assert (counts.macs, counts.parameters, counts.nonzero_parameters) == (8, 8, 5)


def test_dynamic_quantization_is_counted_and_called_quantized() -> None:
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        node("MatMulInteger", ["q", "w", "z"], "i"),
        node("Cast", ["i"], to=TensorProto.FLOAT),
    ]
    counted = variant(nodes, {"w": np.ones((4, 5), np.int8)}, (4,))
    counts = count(counted, sample(4))
    assert (counts.macs, counts.parameters, counted.quantized) == (20, 20, True)


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ([node("Einsum", ["x", "w"], equation="bi,ij->bj")], "Einsum"),
        ([node("Mystery", ["x", "w"], domain="com.example")], "Mystery"),
        (
            [
                node("NonZero", ["x"], "n"),
                node("Cast", ["n"], "f", to=TensorProto.FLOAT),
                node("MatMul", ["f", "w"]),
            ],
            "cannot be inferred",
        ),
    ],
)
def test_what_cannot_be_counted_is_a_reason_and_no_number(nodes: list[Any], words: str) -> None:
    opsets = [helper.make_opsetid("com.example", 1)]
    counts = count(variant(nodes, {"w": np.ones((4, 5), np.float32)}, (4,), opsets=opsets), sample(4))
    assert isinstance(counts.macs, Reason) and words in counts.macs
    assert counts.parameters == 20


def held_inside(weight: Any) -> list[Any]:
    """A graph whose one product has its weight in a Constant node in both branches of an If."""
    branch = helper.make_graph(
        [node("Constant", [], "w", value=weight), node("MatMul", ["x", "w"], "b")],
        "branch",
        [],
        [helper.make_tensor_value_info("b", TensorProto.FLOAT, None)],
    )
    return [node("If", ["yes"], then_branch=branch, else_branch=branch)]


def test_the_weights_of_constant_nodes_are_counted_like_initializers() -> None:
    weight = np.ones((4, 5), np.float32)
    weight[0] = 0
    nodes = [
        node("Constant", [], "w", value=numpy_helper.from_array(weight)),
        node("Constant", [], "half", value=numpy_helper.from_array(np.float32(0.5))),
        node("Mul", ["x", "half"], "h"),
        node("MatMul", ["h", "w"]),
    ]
    counts = count(variant(nodes, {}, (4,)), sample(4))
    assert (counts.macs, counts.parameters, counts.nonzero_parameters) == (20, 20, 15)


def test_integers_of_constant_nodes_are_compared_with_their_zero_point() -> None:
    stored = np.array([[7, 9], [9, 9], [7, 7]], np.uint8)
    parts = {"w": stored, "s": np.ones(2, np.float32), "z": np.full(2, 7, np.uint8)}
    nodes = [
        *(
            node("Constant", [], name, value=numpy_helper.from_array(values))
            for name, values in parts.items()
        ),
        node("DequantizeLinear", ["w", "s", "z"], "wf", axis=1),
        node("MatMul", ["x", "wf"]),
    ]
    counts = count(variant(nodes, {}, (3,)), sample(3))
    assert (counts.parameters, counts.nonzero_parameters) == (6, 3)


def test_what_the_branches_of_an_if_hold_is_counted_too() -> None:
    nodes = held_inside(numpy_helper.from_array(np.eye(4, dtype=np.float32)))
    counts = count(variant(nodes, {"yes": np.array(True)}, (4,)), sample(4))
    assert isinstance(counts.macs, Reason) and "If" in counts.macs
    assert (counts.parameters, counts.nonzero_parameters) == (32, 8)


def test_the_sizes_by_which_an_image_is_enlarged_are_not_learnt() -> None:
    nodes = [
        node("Constant", [], "twice", value=numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32))),
        node("Resize", ["x", "", "twice"]),
    ]
    assert count(variant(nodes, {}, (1, 4, 4)), sample(1, 4, 4)).parameters == 0


@pytest.mark.parametrize(
    "technique",
    [QuantizeWeights(bits=8), QuantizeWeights(bits=2), QuantizeDynamic()],
    ids=["8", "2", "dynamic"],
)
@pytest.mark.parametrize("name", ["lenet5@digits", "lenet5@mnist+encode"])
def test_rounded_weights_are_as_many_as_they_were(name: str, technique: Any) -> None:
    """And as many of them zero, but for those that the grid rounds to it."""
    before = ExportOnnx()(load_model(name))
    first = next(iter(before.inputs))
    feeds = {first.name: np.zeros((1, *first.shape[1:]), np.float32)}
    was, now = count(before, feeds), count(technique(before), feeds)
    assert now.parameters == was.parameters
    assert 0.1 * was.nonzero_parameters < now.nonzero_parameters <= was.nonzero_parameters
