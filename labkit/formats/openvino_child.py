"""Opens an OpenVINO model that nobody vouches for, and runs it once on zeros, under the sandbox's limits."""

from __future__ import annotations

from typing import Any

import numpy as np

from labkit.formats.child import Problem, answer, in_short, limit_memory, zeros
from labkit.runtimes.openvino import OpenVino
from labkit.variant import unframed


def inspect(payload: bytes, memory_bytes: int) -> dict[str, Any]:
    """What goes in and comes out. Raises Problem."""
    openvino = OpenVino().engine()
    core = openvino.Core()
    core.set_property("CPU", {"INFERENCE_NUM_THREADS": 1})
    files = unframed(payload)
    limit_memory(memory_bytes)
    try:
        weights = openvino.Tensor(np.frombuffer(files["model.bin"], np.uint8))
        model = core.read_model(files["model.xml"], weights)
        inputs, outputs = ([_describe(port) for port in ports] for ports in (model.inputs, model.outputs))
        request = core.compile_model(model, "CPU").create_infer_request()
    except MemoryError:
        raise
    except Exception as error:
        raise Problem(f"OpenVINO cannot open it: {in_short(error)}") from None
    if not inputs or not outputs:
        raise Problem("it takes no inputs" if not inputs else "it has no outputs")
    request.infer([zeros(item) for item in inputs])
    return {"inputs": inputs, "outputs": outputs, "metadata": _metadata(model)}


def _metadata(model: Any) -> dict[str, str]:
    """What labkit wrote into the ONNX file that this was converted from: OpenVINO keeps it."""
    found = {}
    for key in ("task", "labels", "preprocessing"):
        place = ["framework", f"labkit.{key}"]
        if model.has_rt_info(place):
            found[f"labkit.{key}"] = str(model.get_rt_info(place).value)
    return found


def _describe(port: Any) -> dict[str, Any]:
    dtype = np.dtype(port.element_type.to_dtype())
    shape = [None if size.is_dynamic else size.get_length() for size in port.partial_shape]
    return {"name": port.any_name, "dtype": dtype.name, "shape": shape}


if __name__ == "__main__":
    answer(inspect)
