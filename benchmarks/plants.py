"""Twenty faults, each planted in one operator of a model, for the microscope to find.

Every plant breaks one operator as real conversions have broken it: an epsilon that was lost, padding on the
wrong side, a layout exchanged, an activation folded away, weights that went through half precision. They are
spread over the depth of the network and over the pairs of formats. A plant names the operator that it broke;
the microscope is right if it names that one first, and not a neighbour.

    broken = plant("batch norm with another epsilon")
    microscope(broken.reference, broken.other, load_dataset("digits")).names(broken.operator)
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from labkit.convert import ExportOnnx, OnnxToOpenVino
from labkit.data import load_dataset
from labkit.onnx_graph import Graph, attribute, replace_nodes
from labkit.quantize import QuantizeInt8
from labkit.variant import Array, Step, Variant
from labkit.zoo import load_model

Break = Callable[[onnx.ModelProto], str]
"""Breaks one operator of a graph in place, and returns the name of its node."""


@dataclass(frozen=True)
class Planted:
    """A pair of variants that differ in one `operator`, by its name in the ONNX file."""

    name: str
    pair: str
    reference: Variant
    other: Variant
    operator: str


def conv(model: onnx.ModelProto, layer: str) -> onnx.NodeProto:
    """The convolution whose weight belongs to `layer`, as in blocks.3.conv1."""
    return next(
        n for n in model.graph.node if n.op_type == "Conv" and n.input[1].startswith(f"{layer}.weight")
    )


def after(model: onnx.ModelProto, node: onnx.NodeProto, op_type: str) -> onnx.NodeProto:
    """The next operator of a kind, from `node` on along its first users."""
    graph = Graph(model)
    while node.op_type != op_type:
        node = graph.consumers[node.output[0]][0]
    return node


def weights(model: onnx.ModelProto, name: str, change: Callable[[Array], Array]) -> None:
    """Put `change` of the stored numbers `name` in their place."""
    tensor = next(each for each in model.graph.initializer if each.name == name)
    tensor.CopyFrom(
        numpy_helper.from_array(np.ascontiguousarray(change(numpy_helper.to_array(tensor))), name)
    )


def settle(node: onnx.NodeProto, **attributes: object) -> None:
    """Give attributes other values."""
    kept = [each for each in node.attribute if each.name not in attributes]
    node.ClearField("attribute")
    node.attribute.extend(
        [*kept, *(helper.make_attribute(k, v) for k, v in attributes.items() if v is not None)]
    )


def become(node: onnx.NodeProto, op_type: str, *inputs: str, **attributes: object) -> str:
    """Make another operator of a node, with its name and its result's."""
    node.op_type = op_type
    node.ClearField("attribute")
    settle(node, **attributes)
    if inputs:
        node.input[:] = inputs
    return node.name


def store(model: onnx.ModelProto, name: str, values: Array) -> str:
    """Store a constant; returns its name."""
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))
    return name


def insert_after(model: onnx.ModelProto, node: onnx.NodeProto, *inserted: onnx.NodeProto) -> None:
    """Write operators into the graph's list behind `node`."""
    place = [each.output[0] for each in model.graph.node].index(node.output[0]) + 1
    replace_nodes(model, [*model.graph.node[:place], *inserted, *model.graph.node[place:]])


def redirect(model: onnx.ModelProto, tensor: str, instead: str) -> None:
    """Let all that read `tensor` read another."""
    for user in Graph(model).consumers[tensor]:
        user.input[:] = [instead if name == tensor else name for name in user.input]


def put_between(model: onnx.ModelProto, node: onnx.NodeProto, *inserted: onnx.NodeProto) -> str:
    """Put operators between a node and all its users, in a row; returns the name of the first."""
    redirect(model, node.output[0], inserted[-1].output[0])
    inserted[0].input[0] = node.output[0]
    insert_after(model, node, *inserted)
    return inserted[0].name


def other_epsilon(model: onnx.ModelProto) -> str:
    """The convolution was folded with an epsilon of 1e-3 instead of 1e-5."""
    norm = _norm("blocks.4.bn1")
    before, now = (np.sqrt(norm["running_var"] + epsilon) for epsilon in (1e-5, 1e-3))
    factor = (before / now).astype(np.float32)
    node, shift = conv(model, "blocks.4.conv1"), norm["bias"].astype(np.float32)
    weights(model, node.input[1], lambda w: w * factor[:, None, None, None])
    weights(model, node.input[2], lambda b: (b - shift) * factor + shift)
    return node.name


def mean_and_variance_swapped(model: onnx.ModelProto) -> str:
    """An unfolded batch normalisation reads its statistics in the wrong order."""
    node = after(model, conv(model, "blocks.6.conv2"), "BatchNormalization")
    node.input[3], node.input[4] = node.input[4], node.input[3]
    weights(model, node.input[4], np.abs)
    return node.name


def one_channel_scaled(model: onnx.ModelProto) -> str:
    """The weights of one output channel of 64 are 1 % too large."""
    node = conv(model, "blocks.7.conv2")
    factor = np.where(np.arange(64) == 17, 1.01, 1).astype(np.float32)
    weights(model, node.input[1], lambda w: w * factor[:, None, None, None])
    return node.name


def channels_swapped(model: onnx.ModelProto) -> str:
    """Two output channels have each other's weights and bias."""
    node = conv(model, "blocks.1.conv1")
    order = np.r_[0, 5, 2:5, 1, 6:16]
    for name in node.input[1:3]:
        weights(model, name, lambda values: values[order])
    return node.name


def bias_missing(model: onnx.ModelProto) -> str:
    """The convolution was folded without its bias."""
    node = conv(model, "stem")
    weights(model, node.input[2], np.zeros_like)
    return node.name


def pads_on_one_side(model: onnx.ModelProto) -> str:
    """Both rows of padding lie at the end, as TensorFlow's SAME puts them under a stride of 2."""
    node = conv(model, "blocks.3.conv1")
    settle(node, pads=[0, 0, 2, 2])
    return node.name


def dilated(model: onnx.ModelProto) -> str:
    """A dilation of 2, with the padding that keeps the shape."""
    node = conv(model, "blocks.5.conv2")
    settle(node, dilations=[2, 2], pads=[2, 2, 2, 2])
    return node.name


def relu_removed(model: onnx.ModelProto) -> str:
    """A ReLU is left out."""
    node = after(model, conv(model, "blocks.4.conv2"), "Relu")
    redirect(model, node.output[0], node.input[0])
    replace_nodes(model, [each for each in model.graph.node if each is not node and each.name != node.name])
    return node.name


def leaky(model: onnx.ModelProto) -> str:
    """A ReLU lets a hundredth of what is negative through."""
    return become(after(model, conv(model, "blocks.2.conv1"), "Relu"), "LeakyRelu", alpha=0.01)


def clipped_low(model: onnx.ModelProto) -> str:
    """A ReLU became one that ends at 1."""
    node = after(model, conv(model, "blocks.8.conv1"), "Relu")
    limits = (store(model, "low", np.float32(0)), store(model, "high", np.float32(1)))
    return become(node, "Clip", node.input[0], *limits)


def subtracted(model: onnx.ModelProto) -> str:
    """The shortcut is subtracted."""
    return become(after(model, conv(model, "blocks.0.conv2"), "Add"), "Sub")


def shortcut_from_elsewhere(model: onnx.ModelProto) -> str:
    """The shortcut comes from one block earlier."""
    node = after(model, conv(model, "blocks.2.conv2"), "Add")
    node.input[1] = after(model, conv(model, "blocks.0.conv2"), "Relu").output[0]
    return node.name


def wrong_axes(model: onnx.ModelProto) -> str:
    """The average over rows and columns takes the numbers as channels-last, which they are not."""
    node = next(each for each in model.graph.node if each.op_type == "ReduceMean")
    shape = store(model, "shape", np.array([0, 8, 8, 64]))
    relu = Graph(model).producer[node.input[0]]
    insert_after(
        model, relu, helper.make_node("Reshape", [relu.output[0], shape], ["read_anew"], "read_anew")
    )
    node = next(each for each in model.graph.node if each.op_type == "ReduceMean")
    axes = store(model, "axes", np.array([1, 2]))
    return become(node, "ReduceMean", "read_anew", axes, keepdims=attribute(node, "keepdims", 1))


def largest_instead_of_mean(model: onnx.ModelProto) -> str:
    """The largest value of each channel instead of its average."""
    node = next(each for each in model.graph.node if each.op_type == "ReduceMean")
    return become(node, "ReduceMax", keepdims=attribute(node, "keepdims", 1))


def gemm_scaled(model: onnx.ModelProto) -> str:
    """The last layer's alpha is 0.5."""
    node = next(each for each in model.graph.node if each.op_type == "Gemm")
    settle(node, alpha=0.5)
    return node.name


def kernel_turned(model: onnx.ModelProto) -> str:
    """Rows and columns of the kernels are exchanged."""
    node = conv(model, "blocks.8.conv2")
    weights(model, node.input[1], lambda w: w.swapaxes(2, 3))
    return node.name


def half_precision(model: onnx.ModelProto) -> str:
    """The weights of one layer went through float16."""
    node = conv(model, "blocks.5.conv1")
    weights(model, node.input[1], lambda w: w.astype(np.float16).astype(np.float32))
    return node.name


def scaled_a_little(model: onnx.ModelProto) -> str:
    """Everything is multiplied by 1.001."""
    node = after(model, conv(model, "blocks.1.conv2"), "Add")
    factor = store(model, "factor", np.float32(1.001))
    return put_between(model, node, helper.make_node("Mul", ["", factor], ["scaled"], "scale"))


def cast_to_int(model: onnx.ModelProto) -> str:
    """Activations go through whole numbers."""
    node = after(model, conv(model, "blocks.6.conv1"), "Relu")
    return put_between(
        model,
        node,
        helper.make_node("Cast", [""], ["whole"], "to_int", to=onnx.TensorProto.INT32),
        helper.make_node("Cast", ["whole"], ["float"], "to_float", to=onnx.TensorProto.FLOAT),
    )


def grid_too_short(model: onnx.ModelProto) -> str:
    """In a quantized model, one activation's scale is an eighth of what it should be."""
    node = next(each for each in model.graph.node if each.name == "relu_7/quantize")
    weights(model, node.input[1], lambda scale: scale / np.float32(8))
    return node.name


_ONNX, _OPENVINO, _LITERT = "ONNX, ONNX", "ONNX, OpenVINO", "ONNX, LiteRT"
_TORCH, _UNFOLDED = "PyTorch, ONNX", "PyTorch, ONNX with batch norms"
_QUANTIZED = "ONNX, quantized ONNX"

PLANTS: Mapping[str, tuple[str, Break]] = {
    "batch norm with another epsilon": (_TORCH, other_epsilon),
    "batch norm with mean and variance exchanged": (_UNFOLDED, mean_and_variance_swapped),
    "one output channel 1 % too large": (_TORCH, one_channel_scaled),
    "two channels exchanged": (_OPENVINO, channels_swapped),
    "bias missing": (_OPENVINO, bias_missing),
    "padding on one side": (_TORCH, pads_on_one_side),
    "dilation of 2": (_ONNX, dilated),
    "ReLU left out": (_OPENVINO, relu_removed),
    "leaky ReLU": (_TORCH, leaky),
    "clipped at 1": (_ONNX, clipped_low),
    "subtracted instead of added": (_TORCH, subtracted),
    "shortcut from elsewhere": (_OPENVINO, shortcut_from_elsewhere),
    "mean over the wrong axes": (_ONNX, wrong_axes),
    "largest instead of mean": (_OPENVINO, largest_instead_of_mean),
    "last layer scaled by 0.5": (_ONNX, gemm_scaled),
    "kernels turned": (_TORCH, kernel_turned),
    "weights rounded to float16": (_OPENVINO, half_precision),
    "everything times 1.001": (_ONNX, scaled_a_little),
    "activations cast to whole numbers": (_TORCH, cast_to_int),
    "grid of an activation 8 times too short": (_QUANTIZED, grid_too_short),
}
"""Name → (pair of formats, the fault). All on `resnet20@digits`."""


def plant(name: str, pair: str | None = None) -> Planted:
    """Plant the fault `name` in the second of its pair of formats, or of another `pair`."""
    usual, break_ = PLANTS[name]
    pair = pair or usual
    reference, sound = models(pair)
    model = onnx.load_model_from_string(sound.payload)
    operator = break_(model)
    onnx.checker.check_model(model)
    step = Step("plant", {"fault": name}, (sound.digest,))
    broken = sound.derive(f"{sound.name}, {name}", step, model=model.SerializeToString())
    return Planted(name, pair, reference, converted(broken, pair), operator)


@functools.cache
def models(pair: str) -> tuple[Variant, Variant]:
    """The reference of a pair, and the sound ONNX file that a fault is planted in."""
    trained = load_model("resnet20@digits")
    exported = dataclasses.replace(ExportOnnx()(trained), name="resnet20 as ONNX")
    if pair == _TORCH:
        return trained, exported
    if pair == _QUANTIZED:
        return exported, QuantizeInt8()(exported, load_dataset("digits"))
    if pair == _UNFOLDED:
        return trained, _unfolded(exported)
    return exported, exported


def converted(broken: Variant, pair: str) -> Variant:
    """The broken ONNX file in the second format of its pair."""
    if pair == _OPENVINO:
        return OnnxToOpenVino()(broken)
    if pair == _LITERT:
        from labkit.convert.onnx_to_tensorflow import OnnxToTensorFlow
        from labkit.convert.tensorflow_to_tflite import TensorFlowToTflite

        return TensorFlowToTflite()(OnnxToTensorFlow()(broken))
    return broken


def _unfolded(folded: Variant) -> Variant:
    """The same function with every batch normalisation an operator of its own again."""
    model = onnx.load_model_from_string(folded.payload)
    state = load_model("resnet20@digits").model.state_dict()
    layers = [node.input[1].removesuffix(".weight") for node in model.graph.node if node.op_type == "Conv"]
    for layer in layers:
        node = conv(model, layer)
        prefix = layer.replace("stem", "bn").replace("conv", "bn").replace("shortcut.0", "shortcut.1")
        weights(model, node.input[1], lambda _, name=f"{layer}.weight": state[name].numpy())
        parts = ("weight", "bias", "running_mean", "running_var")
        names = [store(model, f"{prefix}.{part}", state[f"{prefix}.{part}"].numpy()) for part in parts]
        result = node.output[0]
        node.output[0] = f"{result}_raw"
        del node.input[2:]
        insert_after(
            model,
            node,
            helper.make_node("BatchNormalization", [node.output[0], *names], [result], f"{prefix}_node"),
        )
    step = Step("unfold", {}, (folded.digest,))
    return folded.derive("resnet20 with batch norms", step, model=model.SerializeToString())


@functools.cache
def _norm(layer: str) -> dict[str, Array]:
    """Parameters of a batch normalisation of the trained model, in float64."""
    state = load_model("resnet20@digits").model.get_submodule(layer).state_dict()
    return {name: values.double().numpy() for name, values in state.items()}
