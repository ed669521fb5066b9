"""The same model with one suspected cause taken away, so that the clock can say what the cause costs.

Two of these leave the function as it is (grids shifted from signed to unsigned) or do not care about it (zeros
filled, since a dense kernel takes as long for any numbers). The third is no model at all, but a chain of one
layer's convolution: what a layer of such a shape reaches on this machine when nothing else is in its way.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from labkit.onnx_graph import Graph, add_constant, open_graph
from labkit.variant import Array, TensorSpec, Variant

_OPSET, _IR_VERSION = 18, 10


def unsigned(variant: Variant) -> Variant | None:
    """The same function with every signed activation grid moved up by 128: q' = q + 128, z' = z + 128.

    None if there is nothing signed between a QuantizeLinear and its DequantizeLinear.
    """
    model = open_graph(variant.payload)
    graph = Graph(model)
    moved: dict[str, str] = {}
    changed = False
    for node in graph.nodes:
        zero_point = graph.constant(node.input[2]) if len(node.input) > 2 else None
        if node.op_type != "QuantizeLinear" or zero_point is None or zero_point.dtype != np.int8:
            continue
        users = graph.consumers[node.output[0]]
        if not users or any(user.op_type != "DequantizeLinear" for user in users):
            continue
        if zero_point.any() and any(len(user.input) < 3 for user in users):  # noqa: PLR2004 - theirs is 0
            continue
        name = node.input[2]
        if name not in moved:
            lifted = (zero_point.astype(np.int16) + 128).astype(np.uint8)
            moved[name] = add_constant(model, graph.new_name(f"{name}/unsigned"), lifted)
        for each in (node, *users):
            each.input[2:] = [moved[name]]
        changed = True
    del model.graph.value_info[:]
    return _with(variant, "on unsigned grids", model) if changed else None


def without_zeros(variant: Variant, names: set[str]) -> Variant:
    """The same file with a small number in place of every zero of the stored float weights `names`."""
    model = open_graph(variant.payload)
    random = np.random.default_rng(0)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.name in names and values.dtype == np.float32:
            small = (0.01 * random.standard_normal(values.shape)).astype(np.float32)
            filled = np.where(values == 0, small, values)
            tensor.CopyFrom(numpy_helper.from_array(filled, tensor.name))
    return _with(variant, "without zeros", model)


def _with(variant: Variant, words: str, model: onnx.ModelProto) -> Variant:
    """A stand-in for `variant` that is timed and forgotten: no step of anybody's lineage."""
    return Variant(
        f"{variant.name} {words}",
        "onnx",
        model.SerializeToString(),
        variant.inputs,
        variant.outputs,
        variant.task,
    )


@dataclass(frozen=True)
class Chain:
    """Convolutions in a row, `inputs` → `outputs` channels and back, on images of `size`, in int8 or float32."""

    inputs: int
    outputs: int
    kernel: tuple[int, int]
    size: tuple[int, int]
    int8: bool
    pairs: int = 2

    def macs(self, batch_size: int) -> int:
        """Multiply-adds of one run."""
        pixels = batch_size * self.size[0] * self.size[1]
        return 2 * self.pairs * pixels * self.inputs * self.outputs * self.kernel[0] * self.kernel[1]

    def aligned(self, block: int) -> Chain:
        """The same with its channels rounded up to a multiple of `block`."""
        inputs, outputs = (-(-each // block) * block for each in (self.inputs, self.outputs))
        return Chain(inputs, outputs, self.kernel, self.size, self.int8, self.pairs)

    def variant(self) -> Variant:
        """X [batch, inputs, H, W] → y of the same shape, with random weights."""
        random = np.random.default_rng(0)
        made: list[onnx.NodeProto] = []
        constants: dict[str, Array] = {
            "scale": np.array(0.05, np.float32),
            "zero": np.array(0, np.uint8),
            "weight_scale": np.array(0.01, np.float32),
        }
        tensor = self._round("x", made)
        (rows, columns), widths = self.kernel, (self.inputs, self.outputs)
        for index in range(2 * self.pairs):
            source, target = widths[index % 2], widths[(index + 1) % 2]
            weight = random.integers(-50, 50, (target, source, rows, columns)).astype(np.int8)
            constants[f"w{index}"] = weight if self.int8 else weight.astype(np.float32) / np.float32(100)
            result = "y" if index == 2 * self.pairs - 1 and not self.int8 else f"c{index}"
            pads = [(rows - 1) // 2, (columns - 1) // 2, rows // 2, columns // 2]
            made.append(helper.make_node("Conv", [tensor, self._weight(index, made)], [result], pads=pads))
            tensor = self._round(result, made, "y" if index == 2 * self.pairs - 1 else "")
        return _network(made, constants, self.inputs, self.size)

    def _weight(self, index: int, made: list[onnx.NodeProto]) -> str:
        if self.int8:
            made.append(
                helper.make_node("DequantizeLinear", [f"w{index}", "weight_scale"], [f"w{index}/float"])
            )
        return f"w{index}/float" if self.int8 else f"w{index}"

    def _round(self, tensor: str, made: list[onnx.NodeProto], last: str = "") -> str:
        if not self.int8:
            return tensor
        result = last or f"{tensor}/dequantized"
        made.append(helper.make_node("QuantizeLinear", [tensor, "scale", "zero"], [f"{tensor}/quantized"]))
        made.append(helper.make_node("DequantizeLinear", [f"{tensor}/quantized", "scale", "zero"], [result]))
        return result


def _network(
    nodes: list[onnx.NodeProto], constants: dict[str, Array], channels: int, size: tuple[int, int]
) -> Variant:
    shape: list[str | int | None] = ["batch", channels, *size]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
    x, y = (TensorSpec(name, "float32", ("batch", channels, *size)) for name in ("x", "y"))
    return Variant("a chain of convolutions", "onnx", model.SerializeToString(), (x,), (y,), "regression")
