"""The most int8 multiply-adds per second that one core reaches here, found by trying.

No runtime is at its peak on every shape: a product may be too small to be worth its way in, or too large for the
cache. So chains of products and of convolutions in several sizes run on both runtimes, with unsigned and with signed
activations, and the best run of all is the peak. Between two layers of a chain nothing leaves int8.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.quantization import RUNTIMES
from labkit.runtimes import RunOptions, get_runtime
from labkit.variant import TensorSpec, Variant

_LAYERS = 8
_PIXELS = 16
_SECONDS, _QUICK_SECONDS = 1.0, 0.2


@dataclass(frozen=True)
class Chain:
    """Eight layers, each a product [rows, channels]·[channels, channels], or a 3×3 convolution of as many positions."""

    channels: int
    rows: int
    kernel: int = 1

    @property
    def macs(self) -> int:
        """Multiply-adds of all layers."""
        return _LAYERS * self.rows * self.channels**2 * self.kernel**2

    @property
    def shape(self) -> tuple[int, ...]:
        """Of input and output: [rows, channels], or [images, channels, 16, 16]."""
        if self.kernel == 1:
            return self.rows, self.channels
        return self.rows // _PIXELS**2, self.channels, _PIXELS, _PIXELS

    def __str__(self) -> str:
        if self.kernel == 1:
            return f"product {self.rows}×{self.channels}×{self.channels}"
        return f"convolution {self.kernel}×{self.kernel}, {self.channels} channels, {self.rows} positions"


CHAINS = (
    Chain(512, 512),
    Chain(1024, 256),
    Chain(1024, 1024),
    Chain(2048, 2048),
    Chain(128, 1024, kernel=3),
    Chain(256, 1024, kernel=3),
    Chain(512, 512, kernel=3),
)


def int8_rates(quick: bool) -> list[dict[str, Any]]:
    """One row for each runtime, chain and sign, with its best multiply-adds per second; one thread.

    `quick` tries one product and one convolution, unsigned: what it calls the peak may be lower than it is.
    """
    seconds = _QUICK_SECONDS if quick else _SECONDS
    chains, dtypes = ((CHAINS[1], CHAINS[5]), (np.uint8,)) if quick else (CHAINS, (np.uint8, np.int8))
    return [
        {
            "runtime": runtime,
            "chain": str(chain),
            "activations": np.dtype(dtype).name,
            "gmacs_per_s": chain.macs / _best_seconds(chain, dtype, runtime, seconds) / 1e9,
        }
        for runtime in RUNTIMES
        for chain in chains
        for dtype in dtypes
    ]


def _best_seconds(chain: Chain, dtype: type, runtime: str, seconds: float) -> float:
    """The fastest of all runs within `seconds`, three at least; the first is not counted."""
    x = np.random.default_rng(0).random(chain.shape, np.float32)
    with get_runtime(runtime).load(_variant(chain, dtype), RunOptions()) as session:
        session.run({"x": x})
        times: list[float] = []
        end = time.perf_counter() + seconds
        while len(times) < 3 or time.perf_counter() < end:
            begin = time.perf_counter()
            session.execute({"x": x})
            times.append(time.perf_counter() - begin)
    return min(times)


def _variant(chain: Chain, dtype: type) -> Variant:
    """The chain as QDQ. With its zero point at 0, uint8 is a ReLU as well."""
    random = np.random.default_rng(0)
    nodes = [helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q0"])]
    constants: dict[str, Any] = {"scale": np.float32(1.0), "zero": dtype(0), "weight_scale": np.float32(0.01)}
    weight = (chain.channels, chain.channels) + (chain.kernel, chain.kernel) * (chain.kernel > 1)
    for i in range(_LAYERS):
        constants[f"w{i}"] = random.integers(-127, 128, weight).astype(np.int8)
        layer = (
            helper.make_node("MatMul", [f"d{i}", f"f{i}"], [f"y{i}"])
            if chain.kernel == 1
            else helper.make_node("Conv", [f"d{i}", f"f{i}"], [f"y{i}"], pads=[chain.kernel // 2] * 4)
        )
        nodes += [
            helper.make_node("DequantizeLinear", [f"q{i}", "scale", "zero"], [f"d{i}"]),
            helper.make_node("DequantizeLinear", [f"w{i}", "weight_scale"], [f"f{i}"]),
            layer,
            helper.make_node("QuantizeLinear", [f"y{i}", "scale", "zero"], [f"q{i + 1}"]),
        ]
    nodes.append(helper.make_node("DequantizeLinear", [f"q{_LAYERS}", "scale", "zero"], ["y"]))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, chain.shape) for name in ("x", "y")]
    stored = [numpy_helper.from_array(np.asarray(values), name) for name, values in constants.items()]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    specs = [TensorSpec(name, "float32", chain.shape) for name in ("x", "y")]
    return Variant("chain", "onnx", model.SerializeToString(), (specs[0],), (specs[1],))
