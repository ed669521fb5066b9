"""Parses an ONNX file under the sandbox's limits and throws it away: 10 MB of empty nodes become a gigabyte."""

from __future__ import annotations

from typing import Any

import onnx

from labkit.formats.child import Problem, answer, limit_memory


def inspect(payload: bytes, memory_bytes: int) -> dict[str, Any]:
    """Nothing, if the payload can be parsed. Raises Problem."""
    limit_memory(memory_bytes)
    try:
        onnx.ModelProto.FromString(payload)
    except MemoryError:
        raise
    except Exception:  # protobuf's own kinds
        raise Problem("it is not an ONNX file, or only a part of one") from None
    return {}


if __name__ == "__main__":
    answer(inspect)
