"""Peak memory, in a process of its own: the only place where a peak belongs to one model.

Inside a notebook the highest memory ever used is that of everything that ran there. So a fresh process loads
this one candidate, runs it a few times, and reports the most that was resident at once: the interpreter and
the runtime's own libraries included, because a container that runs the model needs them too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from labkit.errors import MeasurementError
from labkit.measure.candidate import Candidate
from labkit.runtimes import RunOptions, get_runtime
from labkit.variant import Array, Variant

_RUNS = 3
_CHILD = "from labkit.measure.memory import child; child()"


def peak_memory(candidate: Candidate, feeds: Mapping[str, Array], timeout_s: float = 120.0) -> int:
    """The bytes that were resident at most in a fresh process that loads `candidate` and runs `feeds`.

    Raises MeasurementError if the process fails or is not done in time, ModelFileError if the variant cannot
    be saved.
    """
    with tempfile.TemporaryDirectory(prefix="labkit-memory-") as folder:
        candidate.variant.save(folder)
        np.savez(Path(folder) / "feeds.npz", **feeds)  # type: ignore[arg-type]
        how = {"runtime": candidate.runtime, "threads": candidate.threads, "precision": candidate.precision}
        command = [sys.executable, "-c", _CHILD, folder, json.dumps(how)]
        package = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
        try:
            done = subprocess.run(
                command,
                env={**os.environ, "PYTHONPATH": path},
                capture_output=True,
                text=True,
                timeout=timeout_s,
            )
        except subprocess.TimeoutExpired:
            raise MeasurementError(
                f"{candidate.key}: no answer on its memory within {timeout_s:g} s"
            ) from None
    last = (done.stderr.strip().splitlines() or [""])[-1]
    if done.returncode != 0:
        raise MeasurementError(
            f"{candidate.key}: the process that was to show its memory failed: {last[:300]}"
        )
    return int(done.stdout.split()[-1])


def child() -> None:
    """What the fresh process does: load, run, print the peak in bytes."""
    folder, how = sys.argv[1], json.loads(sys.argv[2])
    variant = Variant.load(folder)
    with np.load(Path(folder) / "feeds.npz", allow_pickle=False) as arrays:
        feeds = {name: arrays[name] for name in arrays.files}
    options = RunOptions(threads=how["threads"], precision=how["precision"])
    with get_runtime(how["runtime"]).load(variant, options) as session:
        for _ in range(_RUNS):
            session.run(feeds)
            session.synchronize()
        print(resident_peak_bytes())


def resident_peak_bytes() -> int:
    """The most memory that this process had resident at once.

    On Linux from /proc, not getrusage: that one also remembers the process that started us.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
