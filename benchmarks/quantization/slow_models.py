"""The networks of the slow cases, and what people do to them: tools with their defaults, or by hand."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import logging
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from labkit.convert import ExportOnnx
from labkit.data import Dataset, load_dataset
from labkit.onnx_graph import Graph, add_constant, open_graph, replace_nodes
from labkit.prune.masks import lowest
from labkit.prune.scores import magnitudes
from labkit.quantize import QuantizeInt8
from labkit.variant import TensorSpec, Variant
from labkit.zoo import load_model

_CALIBRATION_SAMPLES = 32


def digits() -> Dataset:
    """The data of all cases."""
    return load_dataset("digits")


@functools.cache
def resnet() -> Variant:
    """ResNet-20 in float32, as ONNX."""
    return ExportOnnx()(load_model("resnet20@digits"), digits())


@functools.cache
def resnet_int8() -> Variant:
    """The same in int8 as labkit makes it: no cause of slowness is known in it."""
    return QuantizeInt8()(resnet(), digits())


class Images(nn.Module):
    """Layers on an image, averaged over the pixels, and ten outputs."""

    def __init__(self, layers: list[nn.Module], channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.fc = nn.Linear(channels, 10)

    def forward(self, image: Tensor) -> Tensor:
        """Image [N, 1, 32, 32] → logits [N, 10]."""
        logits: Tensor = self.fc(self.layers(image).mean((2, 3)))
        return logits


def exported(name: str, make: Callable[[], nn.Module]) -> Variant:
    """An untrained network, as ONNX: how fast it is does not depend on what it knows."""
    data = digits()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = make().eval()
    variant = Variant(
        name,
        "torch",
        module,
        (TensorSpec("image", "float32", ("batch", *data.image_shape()), "NCHW"),),
        (TensorSpec("logits", "float32", ("batch", len(data.labels))),),
        labels=data.labels,
        preprocessing={"image": data.standardise()},
    )
    return ExportOnnx()(variant, data)


def quantized_static(variant: Variant, **settings: Any) -> Variant:
    """By ONNX Runtime's quantize_static with these settings and otherwise its defaults."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            samples = digits().split("calibration").take(np.arange(_CALIBRATION_SAMPLES))
            self.batches = iter([variant.feeds(samples.inputs)])

        def get_next(self) -> Any:
            return next(self.batches, None)

    with _quiet(), tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "int8.onnx"
        quantize_static(onnx.load_model_from_string(variant.payload), str(out), Reader(), **settings)
        return dataclasses.replace(variant, name=f"{variant.name}, quantize_static", model=out.read_bytes())


def quantized_well(variant: Variant, **settings: Any) -> Variant:
    """By the same, with the settings that suit ONNX Runtime: unsigned activations, weights per channel."""
    from onnxruntime.quantization import QuantType

    return quantized_static(variant, activation_type=QuantType.QUInt8, per_channel=True, **settings)


def quantized_dynamic(variant: Variant) -> Variant:
    """By ONNX Runtime's quantize_dynamic, with its defaults."""
    from onnxruntime.quantization import quantize_dynamic

    with _quiet(), tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "int8.onnx"
        quantize_dynamic(onnx.load_model_from_string(variant.payload), str(out))
        return dataclasses.replace(variant, name=f"{variant.name}, quantize_dynamic", model=out.read_bytes())


def weights_in_int8(variant: Variant) -> Variant:
    """Every convolution's weight stored in int8 behind a DequantizeLinear; activations stay float."""
    model = open_graph(variant.payload)
    graph, nodes = Graph(model), []
    for node in graph.nodes:
        weight = graph.constant(node.input[1]) if node.op_type == "Conv" else None
        if weight is not None:
            scale = (np.abs(weight).max((1, 2, 3)) / 127).astype(np.float32)
            q = np.round(weight / scale[:, None, None, None]).astype(np.int8)
            name = node.input[1]
            inputs = [add_constant(model, f"{name}/int8", q), add_constant(model, f"{name}/scale", scale)]
            nodes.append(helper.make_node("DequantizeLinear", inputs, [f"{name}/float"], axis=0))
            node.input[1] = f"{name}/float"
        nodes.append(node)
    replace_nodes(model, nodes)
    return dataclasses.replace(
        variant, name=f"{variant.name}, weights in int8", model=model.SerializeToString()
    )


def pruned(variant: Variant, sparsity: float) -> Variant:
    """The same with its smallest weights at zero, over all layers together."""
    model = open_graph(variant.payload)
    names = [n.input[1] for n in model.graph.node if n.op_type == "Conv"]
    stored = {tensor.name: tensor for tensor in model.graph.initializer if tensor.name in names}
    weights = [torch.from_numpy(numpy_helper.to_array(tensor).copy()) for tensor in stored.values()]
    masks = lowest(magnitudes(weights), sparsity)
    for tensor, weight, mask in zip(stored.values(), weights, masks, strict=True):
        tensor.CopyFrom(numpy_helper.from_array(weight.masked_fill(mask, 0.0).numpy(), tensor.name))
    return dataclasses.replace(
        variant, name=f"{variant.name}, {sparsity:.0%} zeros", model=model.SerializeToString()
    )


def rounded_before_relu(variant: Variant) -> Variant:
    """One more QuantizeLinear and DequantizeLinear between each quantized layer and its ReLU."""
    model = open_graph(variant.payload)
    graph, nodes = Graph(model), []
    for node in graph.nodes:
        behind = graph.only_consumer(node.output[0])
        if node.op_type == "Relu" and behind is not None and behind.op_type == "QuantizeLinear":
            source, scale = node.input[0], graph.constant(behind.input[1])
            assert scale is not None  # noqa: S101 - quantize_static stores it
            parameters = [
                add_constant(model, f"{source}/scale", 2 * scale),
                add_constant(model, f"{source}/zero_point", np.uint8(128)),
            ]
            nodes += [
                helper.make_node("QuantizeLinear", [source, *parameters], [f"{source}/quantized"]),
                helper.make_node(
                    "DequantizeLinear", [f"{source}/quantized", *parameters], [f"{source}/rounded"]
                ),
            ]
            node.input[0] = f"{source}/rounded"
        nodes.append(node)
    replace_nodes(model, nodes)
    return dataclasses.replace(
        variant, name=f"{variant.name}, rounded twice", model=model.SerializeToString()
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The quantizers have much to say, on every channel."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)
