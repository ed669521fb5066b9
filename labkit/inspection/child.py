"""The inspection's child process: picks the reader for a kind of file, and answers with an Inspection in JSON.

echo '{"path": "m.onnx", "kind": "onnx", …}' | python -P -m labkit.inspection.child MEMORY_BYTES CPU_SECONDS
"""

from __future__ import annotations

import importlib
import json
from typing import Any

from labkit.errors import LabkitError
from labkit.formats.child import Problem, answer, limit_memory
from labkit.inspection.readers import READERS
from labkit.inspection.request import Request


def look(payload: bytes, memory_bytes: int) -> dict[str, Any]:
    """The Inspection of the file that `payload` asks about, as plain data. Raises Problem."""
    asked = json.loads(payload)
    reader = importlib.import_module(f"labkit.inspection.readers.{READERS[asked.pop('kind')]}")
    limit_memory(memory_bytes)
    try:
        found: dict[str, Any] = reader.read(Request(**asked)).to_json()
    except LabkitError as error:
        raise Problem(str(error)) from None
    return found


if __name__ == "__main__":
    answer(look)
