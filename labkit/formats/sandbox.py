"""A file from outside is opened in a process that can be lost.

The child gets the bytes on stdin, and limits of memory and of processor time that begin once its libraries are
in: those are not the file's fault. It answers with one JSON object, {"problem": "…"} or what it found. A file
that lies, loops or explodes costs us a child, and our own process not one byte.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from labkit.errors import ModelFileError

_WORDS = {"OPENBLAS_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8", "ORT_DISABLE_TELEMETRY": "1"}
_WORDS |= {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}


def ask(module: str, path: Path, payload: bytes, memory_bytes: int, cpu_seconds: float) -> dict[str, Any]:
    """What `python -m module` answers about `payload`; ModelFileError, naming `path`, if it has a problem with it.

    memory_bytes and cpu_seconds are what the child may use beyond its imports.
    """
    command = [sys.executable, "-P", "-m", module, str(memory_bytes), str(cpu_seconds)]
    try:
        with tempfile.TemporaryDirectory() as scratch:  # what a child that was ended leaves goes with it
            done = subprocess.run(
                command,
                input=payload,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **_WORDS, "TMPDIR": scratch},
                timeout=20 + 20 * cpu_seconds,
                check=False,
            )
        out_of_time = done.returncode == -getattr(signal, "SIGPROF", 0)
    except subprocess.TimeoutExpired:
        out_of_time = True
    if out_of_time:
        raise ModelFileError(
            f"{path} takes longer to open and run once than its size explains: "
            "if you trust it, give it more patience (load_model(path, patience=10), labkit convert --patience 10)"
        )
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise ModelFileError(f"{path} crashes the process that opens it (status {done.returncode})") from None
    if "problem" in answer:
        raise ModelFileError(f"{path}: {answer['problem']}")
    return answer
