"""What calibration takes: the peak of a fresh process on 128 and on 4,096 samples, beside ONNX Runtime's own."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.quantization.common import Figures, Rows, subject

FEW, MANY = 128, 4096

_OURS = """
import resource, sys
import labkit as lk
from labkit.quantize.calibration.calibrate import calibrate, pick
from labkit.quantize.gate import start
from labkit.progress import silent
folder, count, calibrator = sys.argv[1], int(sys.argv[2]), sys.argv[3]
variant, data = lk.load_model(folder), lk.load_dataset("fashion-mnist")
work = start(variant)
samples = pick(variant, data.split("train"), count)
del data
calibrate(variant, work.model, work.tensors, samples, calibrator, None, silent)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
_THEIRS = """
import resource, sys
import numpy as np
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, create_calibrator
file, samples, count, method = sys.argv[1], np.load(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
(name,) = samples.files
batches = iter(np.array_split(samples[name][:count], max(1, count // 32)))
class Reader(CalibrationDataReader):
    def get_next(self):
        batch = next(batches, None)
        return None if batch is None else {name: batch}
made = create_calibrator(file, calibrate_method=getattr(CalibrationMethod, method))
made.collect_data(Reader())
made.compute_data()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def calibration_memory(quick: bool) -> tuple[Figures, Rows]:
    """resnet20; the ratio of the two peaks for each calibrator, the worst of ours as the figure."""
    given = subject("resnet20")
    if given is None:
        return {}, []
    rows: Rows = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        given.variant.save(folder / "variant")
        (folder / "float.onnx").write_bytes(given.variant.payload)
        train = given.dataset.split("train").take(slice(0, MANY))
        np.savez(folder / "samples.npz", **given.variant.feeds(train.inputs))
        ours = ("minmax",) if quick else ("minmax", "moving_average", "percentile", "entropy", "mse")
        for calibrator in ours:
            row = _row(calibrator, _OURS, [str(folder / "variant"), "{count}", calibrator])
            rows.append({"tool": "labkit", **row})
        for method in () if quick else ("MinMax", "Entropy"):
            files = [str(folder / "float.onnx"), str(folder / "samples.npz")]
            rows.append({"tool": "onnxruntime", **_row(method, _THEIRS, [*files, "{count}", method])})
    worst = max(row["ratio"] for row in rows if row["tool"] == "labkit" and row["ratio"] is not None)
    return {"calibration_memory_ratio": worst}, rows


def _row(calibrator: str, code: str, arguments: list[str]) -> dict[str, float | str | None]:
    few, many = (_peak_mb(code, [each.format(count=count) for each in arguments]) for count in (FEW, MANY))
    ratio = many / few if few and many else None
    return {"calibrator": calibrator, "peak_mb_128": few, "peak_mb_4096": many, "ratio": ratio}


def _peak_mb(code: str, arguments: list[str]) -> float | None:
    """The peak of a fresh process in MB, None if it was ended (by the system, for memory, mostly)."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    return float(done.stdout.split()[-1]) / 1e3 if done.returncode == 0 else None
