"""Models that ought to be faster and are not, each for one known reason, for `explain` to find.

Every case is made as people make it: a tool's defaults, a width that nobody thought about, a thread count copied
from another machine. A case says which cause is the true one, and brings a `cure`: the same model without that
cause, in which it must not be named.

    case = slow_case("quantize_static with its defaults")
    found = explain(case.variant, load_dataset("digits"), **case.options)
    found.names(case.cause)
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from benchmarks.quantization.slow_models import (
    Images,
    digits,
    exported,
    pruned,
    quantized_dynamic,
    quantized_static,
    quantized_well,
    resnet,
    resnet_int8,
    rounded_before_relu,
    weights_in_int8,
)
from labkit.convert import ExportOnnx
from labkit.environment import current
from labkit.onnx_graph import open_graph
from labkit.train import fresh_variant
from labkit.variant import Variant


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
    return _case("conversions", rounded_before_relu(twice), quantized_well(model), 32, against=model)


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
