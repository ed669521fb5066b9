"""How much faster int8 is than float32 on the same runtime, and what share of this core's peak that is."""

from __future__ import annotations

import time

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.quantization.common import BATCH_SIZE, RUNTIMES, Figures, Rows, race, ratio, subject
from labkit.measure.counting import count
from labkit.quantize import QuantizeInt8
from labkit.runtimes import RunOptions, get_runtime
from labkit.variant import TensorSpec, Variant

_SIDE = 1024
_PEAK_RUNS = 20


def int8_speed(quick: bool) -> tuple[Figures, Rows]:
    """resnet20, batch 32, one thread: float32 (pinned), bfloat16 and int8, interleaved."""
    given = subject("resnet20", quick)
    if given is None:
        return {}, []
    int8 = QuantizeInt8()(given.variant, given.dataset)
    macs = count(given.variant, given.variant.feeds(given.calibration().take(slice(0, 1)).inputs)).macs
    figures: Figures = {}
    rows: Rows = []
    peak = {runtime: int8_peak(runtime, quick) for runtime in RUNTIMES}
    for runtime in RUNTIMES:
        entrants = {"float32": (given.variant, RunOptions()), "int8": (int8, RunOptions())}
        if runtime == "openvino":
            entrants["bfloat16"] = (given.variant, RunOptions(precision="bfloat16"))
        blocks = race(entrants, runtime, given, quick)
        for name in entrants:
            value, interval = ratio(blocks, "float32", name)
            row = {"runtime": runtime, "precision": name, "ms": float(np.median(blocks[name]))}
            rows.append({**row, "speedup": value, "speedup_ci95": interval})
            figures[f"{name}_speedup_{runtime}"] = value
        del figures[f"float32_speedup_{runtime}"]
        rate = macs * BATCH_SIZE / (float(np.median(blocks["int8"])) / 1e3) if isinstance(macs, int) else None
        figures[f"int8_share_of_peak_{runtime}"] = rate / max(peak.values()) if rate else None
    figures["int8_peak_gmacs_per_s"] = max(peak.values()) / 1e9
    return figures, rows


def int8_peak(runtime: str, quick: bool) -> float:
    """Multiply-adds per second of the best of many 1,024³ products uint8 × int8, one thread."""
    variant = _product()
    x = np.random.default_rng(0).standard_normal((_SIDE, _SIDE)).astype(np.float32)
    with get_runtime(runtime).load(variant, RunOptions()) as session:
        times = []
        for _ in range(5 if quick else _PEAK_RUNS):
            begin = time.perf_counter()
            session.run({"x": x})
            times.append(time.perf_counter() - begin)
    return _SIDE**3 / min(times)


def _product() -> Variant:
    """x·W with both in int8, as QDQ."""
    random = np.random.default_rng(0)
    constants = {
        "w": random.integers(-127, 128, (_SIDE, _SIDE)).astype(np.int8),
        "w_scale": np.float32(0.01),
        "scale": np.float32(0.03),
        "zero": np.uint8(128),
        "y_scale": np.float32(1.0),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "w_scale"], ["dw"]),
        helper.make_node("MatMul", ["d", "dw"], ["m"]),
        helper.make_node("QuantizeLinear", ["m", "y_scale", "zero"], ["yq"]),
        helper.make_node("DequantizeLinear", ["yq", "y_scale", "zero"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", _SIDE]) for name in ("x", "y")]
    stored = [numpy_helper.from_array(np.asarray(values), name) for name, values in constants.items()]
    graph = helper.make_graph(nodes, "product", ends[:1], ends[1:], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    specs = [TensorSpec(name, "float32", ("n", _SIDE)) for name in ("x", "y")]
    return Variant("product", "onnx", model.SerializeToString(), (specs[0],), (specs[1],))
