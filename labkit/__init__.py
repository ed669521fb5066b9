"""labkit: take a trained model and a requirement; find, prove and package the best way to run it.

    import labkit as lk

    model = lk.load_model("resnet20@digits")
    data = lk.load_dataset("digits")
    onnx = lk.ExportOnnx()(model, data)
    int8 = lk.QuantizeInt8()(onnx, data)
    records = lk.measure([lk.Candidate(int8, "onnxruntime", batch_size=32)], data,
                         against=lk.Candidate(model, "torch", batch_size=32))
    print(lk.compare(records).table())

Importing this package imports nothing heavy: each name below is fetched when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "LabkitError": "errors",
    "Variant": "variant",
    "TensorSpec": "variant",
    "Preprocessing": "variant",
    "load_dataset": "data",
    "load_model": "zoo",
    "Train": "train",
    "convert": "convert",
    "as_variant": "convert",
    "ExportOnnx": "convert",
    "load_onnx": "convert",
    "parity": "convert",
    "microscope": "microscope",
    "explain": "explain",
    "QuantizeInt8": "quantize",
    "QuantizeDynamic": "quantize",
    "QuantizeWeights": "quantize",
    "StoreHalf": "quantize",
    "QuantizeMixed": "quantize",
    "QuantizeAware": "quantize",
    "Equalize": "quantize",
    "PruneMagnitude": "prune",
    "PruneWeights": "prune",
    "PruneChannels": "prune",
    "Distill": "distill",
    "Pipeline": "pipeline",
    "RunOptions": "runtimes",
    "get_runtime": "runtimes",
    "Candidate": "measure",
    "Protocol": "measure",
    "measure": "measure",
    "compare": "measure",
    "WorkerPool": "parallel",
    "Study": "study",
    "load_requirement": "strategy",
    "choose": "strategy",
    "optimize": "workflow",
}

__all__ = ["__version__", *_HOME]

if TYPE_CHECKING:
    from labkit.convert import ExportOnnx, as_variant, convert, load_onnx
    from labkit.convert.parity import parity
    from labkit.data import load_dataset
    from labkit.distill import Distill
    from labkit.errors import LabkitError
    from labkit.explain import explain
    from labkit.measure import Candidate, Protocol, compare, measure
    from labkit.parallel import WorkerPool
    from labkit.pipeline import Pipeline
    from labkit.prune import PruneChannels, PruneMagnitude, PruneWeights
    from labkit.quantize import (
        Equalize,
        QuantizeAware,
        QuantizeDynamic,
        QuantizeInt8,
        QuantizeMixed,
        QuantizeWeights,
        StoreHalf,
    )
    from labkit.runtimes import RunOptions, get_runtime
    from labkit.strategy import choose, load_requirement
    from labkit.study import Study
    from labkit.train import Train
    from labkit.variant import Preprocessing, TensorSpec, Variant
    from labkit.workflow import optimize
    from labkit.zoo import load_model


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'labkit' has no attribute {name!r}")
    home = importlib.import_module(f"labkit.{_HOME[name]}")
    value = (
        home if _HOME[name] == name else getattr(home, name)
    )  # measure, convert, microscope, explain: packages that can be called
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
