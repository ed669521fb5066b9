"""Calibration in a process of its own, which tells how much memory it had: `python -m … TOOL FILES COUNT CALIBRATOR`.

A process remembers the most that it ever had resident. On Linux it can be told to forget: so first everything is
loaded (imports, model, samples), what is resident then is noted, the peak is forgotten, and calibration makes its own.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from labkit.measure.memory import resident_peak_bytes

BATCH_SIZE = 32


def labkit(folder: Path, count: int, calibrator: str) -> Callable[[], object]:
    """Load what labkit's calibration needs; what is returned calibrates."""
    from labkit.data import load_dataset
    from labkit.progress import silent
    from labkit.quantize.calibration.calibrate import calibrate, pick
    from labkit.quantize.gate import start
    from labkit.zoo import load_model

    variant = load_model(folder / "variant")
    work = start(variant)
    samples = pick(variant, load_dataset("fashion-mnist").split("train"), count)
    return lambda: calibrate(variant, work.model, work.tensors, samples, calibrator, None, silent)


def onnxruntime(folder: Path, count: int, calibrator: str) -> Callable[[], object]:
    """The same of ONNX Runtime's own calibrator, which is given the same batches."""
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, create_calibrator

    with np.load(folder / "samples.npz") as stored:
        ((name, samples),) = ((name, stored[name][:count]) for name in stored.files)

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches: Iterator[Any] = iter(np.array_split(samples, -(-count // BATCH_SIZE)))

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self.batches, None)
            return None if batch is None else {name: batch}

    method = getattr(CalibrationMethod, calibrator)
    made = create_calibrator(
        str(folder / "float.onnx"),
        augmented_model_path=str(folder / "augmented.onnx"),
        calibrate_method=method,
    )

    def run() -> None:
        made.collect_data(Reader())
        made.compute_data()

    return run


def main() -> None:
    """Load, forget the peak, calibrate; print `peak_bytes` of all, and `own_bytes` above what was loaded (or null)."""
    tool, folder, count, calibrator = sys.argv[1:]
    calibrate = {"labkit": labkit, "onnxruntime": onnxruntime}[tool](Path(folder), int(count), calibrator)
    gc.collect()
    loading = resident_peak_bytes()
    loaded = _forget_peak()
    calibrate()
    peak = resident_peak_bytes()
    own = None if loaded is None else peak - loaded
    print(json.dumps({"peak_bytes": max(loading, peak), "own_bytes": own}))


def _forget_peak() -> int | None:
    """Let the peak be what is resident now, and return that in bytes; None where the system cannot (only Linux can)."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return None
    return resident_peak_bytes()


if __name__ == "__main__":
    main()
