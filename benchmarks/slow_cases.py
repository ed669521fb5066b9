"""Models that ought to be faster and are not, each for one known reason, for `explain` to find.

Every case is made as people make it: a tool's defaults, a width that nobody thought about, a thread count copied
from another machine. A case says which cause is the true one, and brings a `cure`: the same model without that
cause, in which it must not be named.

    case = slow_case("quantize_static with its defaults")
    found = explain(case.variant, load_dataset("digits"), **case.options)
    found.names(case.cause)
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from labkit.convert import ExportOnnx
from labkit.data import Dataset, load_dataset
from labkit.environment import current
from labkit.onnx_graph import Graph, add_constant, open_graph, replace_nodes
from labkit.prune.magnitude import smallest
from labkit.quantize import QuantizeInt8
from labkit.train import fresh_variant
from labkit.variant import TensorSpec, Variant
from labkit.zoo import load_model

_CALIBRATION_SAMPLES = 32


@dataclass(frozen=True, eq=False)
class SlowCase:
    """A variant and how it is run; `cause` is what makes it slow.

    `options` are those of `explain`, the baseline among them. `cure` and `cure_options` are the same without the
    cause. `absent` says why the case cannot be planted on this machine ("" if it can).
    """

    cause: str
    variant: Variant
    options: Mapping[str, Any]
    cure: Variant
    cure_options: Mapping[str, Any]
    absent: str = ""


@dataclass(frozen=True)
class Run:
    """How a case is run, and what differs in its cure."""

    batch_size: int = 8
    more: Mapping[str, Any] = field(default_factory=dict)
    cured: Mapping[str, Any] = field(default_factory=dict)


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
    for tensor, weight, mask in zip(stored.values(), weights, smallest(weights, sparsity), strict=True):
        tensor.CopyFrom(numpy_helper.from_array(weight.masked_fill(mask, 0.0).numpy(), tensor.name))
    return dataclasses.replace(
        variant, name=f"{variant.name}, {sparsity:.0%} zeros", model=model.SerializeToString()
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


def defaults() -> SlowCase:
    """Signed activations and one scale a tensor: what quantize_static does if not told otherwise."""
    return _case("signed_activations", quantized_static(resnet()), resnet_int8(), against=resnet())


def dynamic() -> SlowCase:
    """Dynamic quantization, which is for transformers, on a convolutional network."""
    return _case("dynamic_convolutions", quantized_dynamic(resnet()), resnet_int8(), 2, against=resnet())


def light(width: int) -> nn.Module:
    """Convolutions of one pixel, between which little happens."""
    layers = _rows(8, lambda: [nn.Conv2d(width, width, 1), nn.ReLU()])
    return Images([nn.Conv2d(1, width, 3, 2, 1), nn.ReLU(), *layers], width)


def conversions() -> SlowCase:
    """Numbers are rounded to a grid before their ReLU and once more behind it, so that nothing can be fused."""
    model = exported("light", lambda: light(32))
    kept = {"QDQKeepRemovableActivations": True}
    twice = quantized_well(model, extra_options=kept, nodes_to_exclude=[_first_conv(model)])
    return _case("conversions", _rounded_before_relu(twice), quantized_well(model), 32, against=model)


def _rounded_before_relu(variant: Variant) -> Variant:
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


def narrow() -> SlowCase:
    """One input channel, then sixteen: ONNX Runtime's integer kernels are slower than its float ones there."""
    model, wide = exported("narrow", lambda: light(16)), exported("wide", lambda: light(64))
    spared = quantized_well(wide, nodes_to_exclude=[_first_conv(wide)])
    slow = _case("slow_integer_layers", quantized_well(model), spared, 32, against=model)
    return dataclasses.replace(slow, cure_options={**slow.cure_options, "against": wide})


def _first_conv(variant: Variant) -> str:
    return next(n.name for n in open_graph(variant.payload).graph.node if n.op_type == "Conv")


def tiny() -> SlowCase:
    """Thirty convolutions of 8 channels on 8 × 8 pixels, one sample at a time."""

    def net() -> nn.Module:
        return Images(
            [nn.Conv2d(1, 8, 3, 4, 1), nn.ReLU(), *_rows(30, lambda: [nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU()])],
            8,
        )

    model = exported("narrow and deep", net)
    return _case("tiny_layers", quantized_well(model), resnet_int8(), 1, against=model)


def zeros() -> SlowCase:
    """Nine of ten weights are zero, here and there."""
    return _case("unstructured_zeros", pruned(resnet(), 0.9), resnet(), against=resnet())


def thirty_channels() -> SlowCase:
    """A width that is no multiple of anything."""
    made = [ExportOnnx()(_of_width(width), digits()) for width in (30, 32)]
    return _case("unaligned_channels", made[0], made[1], against=made[1])


def _of_width(width: int) -> Variant:
    stages = [width, width, 2 * width]
    config = {"architecture": "resnet20", "stages": stages, "inner": [[each] * 3 for each in stages]}
    return dataclasses.replace(fresh_variant(config, digits()), name=f"resnet20, {width} channels")


def weight_only() -> SlowCase:
    """A quarter of the bytes, and the arithmetic as before."""
    return _case("weight_only", weights_in_int8(resnet()), resnet_int8(), against=resnet())


def threads() -> SlowCase:
    """Four times as many threads as CPUs."""
    many = 4 * current().threads
    return _case("too_many_threads", resnet_int8(), resnet_int8(), 32, {"threads": many}, {"threads": 1})


def transposed() -> SlowCase:
    """An hourglass: its way up is made of transposed convolutions, which have no integer kernel in ONNX Runtime."""

    def net(up: Callable[[int, int], nn.Module]) -> Callable[[], nn.Module]:
        down = [nn.Conv2d(1, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU()]
        return lambda: Images(
            [*down, up(64, 32), nn.ReLU(), up(32, 16), nn.ReLU(), nn.Conv2d(16, 16, 3, 1, 1)], 16
        )

    slow = exported("hourglass", net(lambda i, o: nn.ConvTranspose2d(i, o, 4, 2, 1)))
    shuffled = net(lambda i, o: nn.Sequential(nn.Conv2d(i, 4 * o, 3, 1, 1), nn.PixelShuffle(2)))
    return _case(
        "float_layers",
        quantized_well(slow),
        quantized_well(exported("shuffling hourglass", shuffled)),
        against=slow,
    )


def attention() -> SlowCase:
    """A small transformer: softmax, layer normalisation and GELU take most of the time."""
    model = ExportOnnx()(fresh_variant({"architecture": "vit"}, digits()), digits())
    return _case("outside_layers", quantized_well(model), resnet_int8(), 4, against=model)


def unfair_baseline() -> SlowCase:
    """OpenVINO computes the float model in bfloat16 by itself."""
    return dataclasses.replace(
        _case(
            "baseline_not_float32",
            resnet_int8(),
            resnet_int8(),
            8,
            {"runtime": "openvino", "against_precision": "auto"},
            {"runtime": "openvino", "against_precision": "float32"},
            against=resnet(),
        ),
        absent="" if current().has_bf16 else "this processor has no bfloat16, so OpenVINO stays in float32",
    )


def no_vnni() -> SlowCase:
    """An older processor, which has AVX2 and nothing for int8; the machine is described, not there."""
    old = dataclasses.replace(current(), cpu_features=("avx2",), cpu_model="a processor of 2015")
    new = dataclasses.replace(current(), cpu_features=("avx2", "avx512f", "avx512_vnni"))
    return _case(
        "missing_instructions", resnet_int8(), resnet_int8(), 8, {"environment": old}, {"environment": new},
        against=resnet(),
    )  # fmt: skip


def one_sample() -> SlowCase:
    """Matrices of 4 M weights, read anew for each sample."""

    def net() -> nn.Module:
        layers = [nn.Flatten(), nn.Linear(1024, 2048), nn.ReLU(), nn.Linear(2048, 2048), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(2048, 10))

    model = exported("wide and flat", net)
    return _case("small_batch", model, model, 1, {}, {"batch_size": 32})


def _rows(times: int, make: Callable[[], list[nn.Module]]) -> list[nn.Module]:
    return [layer for _ in range(times) for layer in make()]


def _case(
    cause: str,
    variant: Variant,
    cure: Variant,
    batch_size: int = 8,
    slow: Mapping[str, Any] | None = None,
    cured: Mapping[str, Any] | None = None,
    against: Variant | None = None,
) -> SlowCase:
    shared = {"batch_size": batch_size, "against": against}
    return SlowCase(cause, variant, {**shared, **(slow or {})}, cure, {**shared, **(cured or {})})


CASES: Mapping[str, Callable[[], SlowCase]] = {
    "quantize_static with its defaults": defaults,
    "dynamic quantization of convolutions": dynamic,
    "rounded twice": conversions,
    "one pixel, sixteen channels": narrow,
    "thirty tiny layers": tiny,
    "90 % zeros": zeros,
    "30 channels": thirty_channels,
    "weights only": weight_only,
    "four times too many threads": threads,
    "transposed convolutions": transposed,
    "attention": attention,
    "baseline in bfloat16": unfair_baseline,
    "a processor without VNNI": no_vnni,
    "one sample at a time": one_sample,
}
"""Name → what plants it."""


@functools.cache
def slow_case(name: str) -> SlowCase:
    """Plant the case `name`."""
    return CASES[name]()
