"""Reading OpenVINO's profile: after each run a request tells what every operator took, and with which kernel."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from labkit.errors import ModelFileError
from labkit.explain.executed import CONVERSION, LAYER, OTHER, Executed
from labkit.runtimes import RunOptions, Runtime
from labkit.runtimes.openvino import read_openvino
from labkit.variant import Array, Variant

_WARM_UP = 2
_CONVERSIONS = ("Reorder", "Convert", "FakeQuantize", "Quantize")
_LAYERS = ("Convolution", "Deconvolution", "FullyConnected", "MatMul", "GroupConvolution")
_PRECISIONS = {"i8": "int8", "u8": "int8", "f32": "float32", "bf16": "bfloat16", "f16": "float16"}


def read(
    variant: Variant, feeds: Mapping[str, Array], runtime: Runtime, options: RunOptions, runs: int
) -> Sequence[Executed]:
    """Each operator's time in `runs` runs, those that warm up not counted; ModelFileError if it cannot run."""
    engine = runtime.engine()
    times: defaultdict[str, list[float]] = defaultdict(list)
    told: dict[str, tuple[str, str]] = {}
    try:
        core = engine.Core()
        model = read_openvino(core, engine, variant)
        settings = {**runtime.settings(options), "PERF_COUNT": True}
        request = core.compile_model(model, "CPU", settings).create_infer_request()
        for run in range(_WARM_UP + runs):
            request.infer(dict(feeds), share_inputs=True)
            for info in request.profiling_info:
                if run >= _WARM_UP and info.status == info.Status.EXECUTED:
                    times[info.node_name].append(info.real_time.total_seconds() * 1000)
                    told[info.node_name] = (info.node_type, info.exec_type)
    except Exception as error:  # openvino raises RuntimeError and kinds of its own
        raise ModelFileError(f"OpenVINO cannot run {variant.name!r}: {str(error)[-300:]}") from None
    return [
        Executed(kind, name, _work(kind), _precision(kernel), tuple(times[name]))
        for name, (kind, kernel) in told.items()
    ]


def _work(kind: str) -> str:
    return LAYER if kind.startswith(_LAYERS) else CONVERSION if kind in _CONVERSIONS else OTHER


def _precision(kernel: str) -> str:
    """The end of a kernel's name, brgconv_avx512_bf16 → bfloat16."""
    return _PRECISIONS.get(kernel.rpartition("_")[2].lower(), kernel)
