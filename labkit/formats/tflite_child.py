"""Opens a TensorFlow Lite model that nobody vouches for, and runs it once on zeros, under the sandbox's limits."""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import interpreter as litert

from labkit.formats.child import Problem, answer, in_short, limit_memory, zeros
from labkit.runtimes.litert import tensors


def inspect(payload: bytes, memory_bytes: int) -> dict[str, Any]:
    """What goes in and comes out. Raises Problem."""
    limit_memory(memory_bytes)
    try:
        interpreter = litert.Interpreter(model_content=payload, num_threads=1)
        inputs, outputs = (
            [_describe(item) for item in tensors(interpreter, side)] for side in ("input", "output")
        )
        indices = [item["index"] for item in tensors(interpreter, "input")]
        for item, index in zip(inputs, indices, strict=True):
            interpreter.resize_tensor_input(index, zeros(item).shape)
        interpreter.allocate_tensors()
        for item, index in zip(inputs, indices, strict=True):
            interpreter.set_tensor(index, zeros(item))
        interpreter.invoke()
    except MemoryError:
        raise
    except Exception as error:
        raise Problem(f"LiteRT cannot open it: {in_short(error)}") from None
    if not inputs or not outputs:
        raise Problem("it takes no inputs" if not inputs else "it has no outputs")
    return {"inputs": inputs, "outputs": outputs, "metadata": {}}


def _describe(item: dict[str, Any]) -> dict[str, Any]:
    shape = [None if size < 0 else int(size) for size in item["shape_signature"]]
    return {"name": item["name"], "dtype": np.dtype(item["dtype"]).name, "shape": shape, "layout": None}


if __name__ == "__main__":
    answer(inspect)
