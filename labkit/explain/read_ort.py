"""Reading ONNX Runtime's profile: a JSON file of events that it writes when it is asked to, read and removed."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx

from labkit.errors import ModelFileError
from labkit.explain.executed import CONVERSION, DYNAMIC, LAYER, OTHER, Executed
from labkit.explain.layers import name_nodes
from labkit.runtimes import RunOptions, Runtime
from labkit.variant import Array, Variant

_WARM_UP = 2
_ENDING = "_kernel_time"
_CONVERSIONS = ("QuantizeLinear", "DequantizeLinear", "ReorderInput", "ReorderOutput", "Cast")
_DYNAMIC = ("DynamicQuantizeLinear", "ConvInteger", "MatMulInteger")
LAYERS = (
    "Conv", "FusedConv", "NhwcFusedConv", "ConvTranspose", "FusedConvTranspose", "Gemm", "FusedGemm", "MatMul",
    "FusedMatMul", "QLinearConv", "QLinearMatMul", "QGemm", "MatMulIntegerToFloat", "DynamicQuantizeMatMul",
    "MatMulNBits", "QAttention", "Attention", "MultiHeadAttention",
)  # fmt: skip
"""What multiplies and adds."""


def read(
    variant: Variant, feeds: Mapping[str, Array], runtime: Runtime, options: RunOptions, runs: int
) -> Sequence[Executed]:
    """Each operator's time in `runs` runs, those that warm up not counted; ModelFileError if it cannot run."""
    ort = runtime.engine()
    model = name_nodes(onnx.load_model_from_string(variant.payload))
    with tempfile.TemporaryDirectory(prefix="labkit-profile-") as folder:
        told = ort.SessionOptions()
        told.log_severity_level = 3
        for name, value in runtime.settings(options).items():
            told.add_session_config_entry(name, value) if "." in name else setattr(told, name, value)
        told.enable_profiling = True
        told.profile_file_prefix = str(Path(folder) / "profile")
        try:
            session = ort.InferenceSession(
                model.SerializeToString(), told, providers=["CPUExecutionProvider"]
            )
            for _ in range(_WARM_UP + runs):
                session.run(None, dict(feeds))
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        except Exception as error:  # onnxruntime raises a dozen kinds of its own
            raise ModelFileError(f"ONNX Runtime cannot run {variant.name!r}: {str(error)[:300]}") from None
    return _operators(events, {node.name for node in model.graph.node})


def _operators(events: Sequence[Mapping[str, Any]], in_file: set[str]) -> list[Executed]:
    """One entry for each operator that ran in every run, by its name."""
    times: defaultdict[str, list[float]] = defaultdict(list)
    told: dict[str, Mapping[str, Any]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(_ENDING):
            name = event["name"].removesuffix(_ENDING)
            times[name].append(event["dur"] / 1000)
            told.setdefault(name, event["args"])
    return [
        Executed(
            kind=told[name]["op_name"],
            name=name,
            work=_work(told[name]["op_name"], name in in_file),
            precision=_precision(told[name]),
            run_ms=tuple(run_ms[_WARM_UP:] or run_ms),
        )
        for name, run_ms in times.items()
    ]


def _work(kind: str, in_file: bool) -> str:
    if kind in LAYERS:
        return LAYER
    if kind in _DYNAMIC:
        return DYNAMIC
    return CONVERSION if kind in _CONVERSIONS or (kind == "Transpose" and not in_file) else OTHER


def _precision(arguments: Mapping[str, Any]) -> str:
    """What an operator computes in: integers where it is one of the quantized kind, else its output's type."""
    kind = str(arguments["op_name"])
    if kind.startswith(("QLinear", "QGemm", "QAttention", "DynamicQuantize")) or "Integer" in kind:
        return "int8"
    types = [name for shape in arguments.get("output_type_shape", []) for name in shape]
    return {"float": "float32", "uint8": "int8"}.get(types[0], types[0]) if types else ""
