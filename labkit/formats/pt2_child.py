"""Opens an exported program that nobody vouches for, and runs it once, under the sandbox's limits."""

from __future__ import annotations

import io
import logging
import warnings
from typing import Any

import torch

from labkit.formats.child import Problem, answer, in_short, limit_memory, zeros


def inspect(payload: bytes, memory_bytes: int) -> dict[str, Any]:
    """What goes in and comes out. Raises Problem."""
    logging.disable()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    limit_memory(memory_bytes)
    try:
        program = torch.export.load(io.BytesIO(payload))
    except MemoryError:
        raise
    except Exception as error:
        raise Problem(f"PyTorch cannot open it: {in_short(error)}") from None
    found = describe(program)
    _run_once(program, found["inputs"], memory_bytes)
    return found


def _run_once(program: Any, inputs: list[dict[str, Any]], memory_bytes: int) -> None:
    """Two samples of zeros. To fail is forgiven (a free size may be too small for it), to hang or to explode is not."""
    feeds = [torch.from_numpy(zeros(item, free=2)) for item in inputs]
    limit_memory(memory_bytes + min(4 * memory_bytes, 16 * sum(feed.nbytes for feed in feeds)))
    try:
        with torch.inference_mode():
            program.module()(*feeds)
    except Exception as error:
        if isinstance(error, MemoryError) or "alloc" in str(error):
            raise MemoryError from None


def describe(program: Any) -> dict[str, Any]:
    """The inputs and outputs of an ExportedProgram; a free dimension has the name of its symbol."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    signature = program.graph_signature
    inputs = [_tensor(str(name), values.get(name)) for name in signature.user_inputs]
    outputs = [_tensor(str(name), values.get(name)) for name in signature.user_outputs]
    taken = {item["name"] for item in inputs}
    for index, item in enumerate(
        outputs
    ):  # an input that is passed through, or given twice, has one name only
        item["name"] = f"output_{index}" if item["name"] in taken else item["name"]
        taken.add(item["name"])
    if not inputs or not outputs:
        raise Problem("it takes no inputs" if not inputs else "it has no outputs")
    symbols = {size for item in inputs for size in item["shape"] if isinstance(size, str)}
    first = next((size for item in inputs for size in item["shape"][:1] if isinstance(size, str)), None)
    names = {symbol: "batch" if symbol == first else f"size_{symbol}" for symbol in symbols}
    for item in (*inputs, *outputs):
        item["shape"] = [names.get(size) if isinstance(size, str) else size for size in item["shape"]]
    return {"inputs": inputs, "outputs": outputs, "metadata": {}}


def _tensor(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, torch.Tensor):
        raise Problem(f"{name!r} is no tensor")
    shape = [size if isinstance(size, int) else str(size) for size in value.shape]
    return {"name": name, "dtype": str(value.dtype).removeprefix("torch."), "shape": shape}


if __name__ == "__main__":
    answer(inspect)
