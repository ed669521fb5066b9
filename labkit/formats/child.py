"""The child's half of the sandbox: limits, and one answer in JSON.

    python -P -m labkit.formats.onnx_child MEMORY_BYTES CPU_SECONDS < model.onnx

Processor time is what this process has used itself, so that a busy machine condemns no innocent file.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

_LONGEST_ANSWER = 10_000_000


class Problem(Exception):
    """Why the file is refused: what is in it, and the fix where there is one."""


def limit_memory(extra_bytes: int) -> None:
    """Allow `extra_bytes` beyond what is mapped now, on systems that can limit it."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with open("/proc/self/statm") as file:
            mapped = int(file.read().split()[0]) * resource.getpagesize()
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        allowed = mapped + extra_bytes
        resource.setrlimit(resource.RLIMIT_AS, (allowed if most < 0 else min(allowed, most), most))
    except (ImportError, OSError, ValueError):
        pass


def limit_time(seconds: float) -> None:
    """Have the system end this process after so much processor time; elsewhere the parent's clock does."""
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_PROF, seconds)


def in_short(error: BaseException) -> str:
    """A library's message on one line, and not a long one."""
    return " ".join(str(error).split())[:250] or type(error).__name__


def answer(work: Callable[[bytes, int], dict[str, Any]]) -> None:
    """Do `work(payload, memory_bytes)` on what stands on stdin, and print its answer as JSON, whatever happens."""
    stdout = os.dup(1)
    os.dup2(2, 1)  # what a library prints is no answer
    limit_time(float(sys.argv[2]))
    try:
        found = work(sys.stdin.buffer.read(), int(sys.argv[1]))
    except Problem as problem:
        found = {"problem": str(problem)}
    except MemoryError:
        found = {"problem": "it takes far more memory than its size explains"}
    except Exception as error:  # the libraries' own surprises about a malformed file
        found = {"problem": f"it is malformed: {in_short(error)}"}
    text = json.dumps(found)
    if len(text) > _LONGEST_ANSWER:
        text = json.dumps({"problem": "it holds more layers or tensors than can be told"})
    with os.fdopen(stdout, "w", encoding="utf-8") as out:
        out.write(text)
    os._exit(0)  # an engine's own threads may hang at the exit


def zeros(item: dict[str, Any], free: int = 1) -> Any:
    """An array of zeros for {"name", "dtype", "shape"}; a size that is not a number becomes `free`."""
    import numpy as np

    return np.zeros([size if isinstance(size, int) else free for size in item["shape"]], item["dtype"])
