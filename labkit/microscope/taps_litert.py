"""Taps of LiteRT (TensorFlow Lite) models: the interpreter keeps every tensor, and no delegate takes over.

Its tensors are channels-last, and an activation function is often part of the operator before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from labkit.errors import ModelFileError, UnavailableError
from labkit.microscope.taps import INPUT, Tap
from labkit.runtimes import get_runtime
from labkit.runtimes.litert import tensors
from labkit.variant import Array, Variant


def read(variant: Variant, feeds: Mapping[str, Array]) -> Iterator[Tap]:
    """The taps of a `tflite` variant; integers that stand for real numbers are given as those."""
    runtime = get_runtime("litert")
    available = runtime.is_available()
    if not available.ok:
        raise UnavailableError(f"litert cannot be used: {available.reason}; {available.install}")
    litert = runtime.engine()
    try:
        interpreter = litert.Interpreter(
            model_content=variant.payload,
            num_threads=1,
            experimental_preserve_all_tensors=True,
            experimental_op_resolver_type=litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
        places = {item["name"]: item["index"] for item in tensors(interpreter, "input")}
        for name, array in feeds.items():
            interpreter.resize_tensor_input(places[name], list(array.shape))
        interpreter.allocate_tensors()
        for name, array in feeds.items():
            interpreter.set_tensor(places[name], np.ascontiguousarray(array))
        interpreter.invoke()
    except (ValueError, RuntimeError) as error:
        raise ModelFileError(f"LiteRT cannot run {variant.name!r}: {str(error)[:300]}") from None
    details = {each["index"]: each for each in interpreter.get_tensor_details()}
    names = {index: f"{each['name']}#{index}" for index, each in details.items()}
    for name in feeds:
        names[places[name]] = name
        yield Tap(name, INPUT, name, "", (), feeds[name])
    for op in interpreter._get_ops_details():
        inputs = tuple(dict.fromkeys(names[index] for index in op["inputs"] if index in names))
        for index in op["outputs"]:
            value = _real(interpreter.get_tensor(index), details[index]["quantization_parameters"])
            node = f"{op['op_name']} {op['index']}"
            yield Tap(names[index], op["op_name"], node, details[index]["name"], inputs, value)


def _real(value: Array, grid: Mapping[str, Array]) -> Array:
    if len(grid["scales"]) != 1 or value.dtype.kind not in "iu":
        return value.copy()
    real: Array = (value.astype(np.float32) - grid["zero_points"][0]) * grid["scales"][0]
    return real
