"""Calibration: run real samples through the float model and note which range each activation takes.

Weights can be looked at; activations exist only while the model runs. So a few hundred samples are run, batch
by batch, with the wanted tensors as extra outputs. Of each batch only a few numbers are kept, so the memory
needed does not grow with the number of samples.

Which range the values seen deserve is a question with several answers: the calibrators in `observers`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from labkit.data import Split
from labkit.errors import DataError, TensorError
from labkit.measure.lock import Patience
from labkit.progress import Progress
from labkit.quantize.calibration.histogram import Range
from labkit.quantize.calibration.observers import Observer, make_observer
from labkit.runtimes import get_runtime
from labkit.variant import Array, Variant

__all__ = ["Calibration", "Range", "activations", "calibrate", "clip_rates", "pick"]

_BATCH_BYTES = 64_000_000
_LARGEST_BATCH = 32


@dataclass(frozen=True, eq=False)
class Calibration:
    """What calibration found for one tensor.

    `range` is what its grid shall hold; `counts` [B] and `edges` [B + 1] the histogram of the values that were seen;
    `clip_rate` the share of those that lie outside the range, and will saturate.
    """

    range: Range
    counts: Array
    edges: Array
    clip_rate: float


def activations(
    variant: Variant, model: onnx.ModelProto, names: Sequence[str], samples: Split, progress: Progress
) -> Iterator[dict[str, Array]]:
    """Run `samples` through `model` and yield, for each batch, name → values [N, …] of the tensors `names`.

    Batches are as large as 64 MB of yielded values allow, 32 at most; where the model's batch is fixed,
    `samples` must be a multiple of it (`pick`). Each dictionary is emptied when the next is asked for: there is
    never more than one batch in memory. Raises DataError for samples that do not fit the model, or that make a
    value NaN or infinite.
    """
    if len(samples) == 0:
        raise DataError(f"there are no samples to run {variant.name!r} on: the split is empty")
    ort = get_runtime("onnxruntime").engine()
    observed = onnx.ModelProto()
    observed.CopyFrom(model)
    inputs = {value.name for value in model.graph.input}
    outputs = {value.name for value in model.graph.output}
    observed.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names if n not in inputs | outputs)
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(observed.SerializeToString(), options, providers=["CPUExecutionProvider"])
    wanted = [name for name in names if name not in inputs]
    patience = Patience()
    size, fixed, done = 1, variant.fixed_batch, 0
    while done < len(samples):
        try:
            feeds = variant.feeds(samples.take(slice(done, done + (fixed or size))).inputs)
        except TensorError as error:
            raise DataError(f"the samples cannot be used for calibration: {error}") from None
        with patience.shared():
            values = dict(zip(wanted, session.run(wanted, feeds) if wanted else (), strict=True))
        values.update({name: feeds[name] for name in names if name in inputs})
        for name, array in values.items():
            if not np.isfinite(array).all():
                raise DataError(f"samples from {done} on make the activation {name!r} NaN or infinite")
        yield values
        count = fixed or min(size, len(samples) - done)
        done += count
        progress(done / len(samples), f"calibrating: {done}/{len(samples)} samples")
        bytes_per_sample = max(1, sum(array.nbytes for array in values.values()) // count)
        values.clear()  # or this batch would still be in memory while the next one is computed
        size = max(1, min(_LARGEST_BATCH, _BATCH_BYTES // bytes_per_sample))


def calibrate(
    variant: Variant,
    model: onnx.ModelProto,
    names: Sequence[str],
    samples: Split,
    calibrator: str,
    percentile: float | None,
    progress: Progress,
    bits: int = 8,
    symmetric: bool = False,
) -> dict[str, Calibration]:
    """Name → what `calibrator` chose for each tensor in `names` after one pass over `samples`.

    calibrator: a name in `CALIBRATORS`. percentile: the share of values, in %, that the calibrator "percentile"
    keeps; None for its default. bits, symmetric: the grids that the ranges are for.
    Raises ConfigError for an unknown calibrator or bits outside 2..8; DataError for no samples, for samples that
    cannot be run, or if all activations are 0 for all of them.
    """
    observers = {name: make_observer(calibrator, percentile, bits, symmetric) for name in names}
    if len(samples) == 0:
        raise DataError("there is no calibration sample: the ranges of the activations cannot be chosen")
    for values in activations(variant, model, names, samples, progress):
        for name, array in values.items():
            observers[name].observe(array)
    histograms = [observer.histogram for observer in observers.values()]
    if not any(histogram.low or histogram.high for histogram in histograms):
        raise DataError("every activation is 0 for every calibration sample: use samples like the real ones")
    return {name: _result(observer) for name, observer in observers.items()}


def clip_rates(
    variant: Variant, model: onnx.ModelProto, ranges: dict[str, Range], samples: Split, progress: Progress
) -> dict[str, float]:
    """Name → the share of its values over `samples` that lie outside its range, and will saturate.

    On the samples that chose the ranges, `Calibration.clip_rate` says it; on others it shows if those were enough.
    """
    outside, total = dict.fromkeys(ranges, 0), dict.fromkeys(ranges, 0)
    for values in activations(variant, model, list(ranges), samples, progress):
        for name, array in values.items():
            low, high = min(ranges[name].low, 0), max(ranges[name].high, 0)
            margin = 0.01 * (high - low)  # a hair beyond the largest value seen is no news
            outside[name] += int(np.count_nonzero((array < low - margin) | (array > high + margin)))
            total[name] += array.size
    return {name: outside[name] / total[name] for name in ranges}


def pick(variant: Variant, split: Split, count: int) -> Split:
    """`count` samples of `split` (all, if it has no more), evenly spread over it.

    Where the model's batch is fixed, samples are repeated until the batches are full.
    """
    indices = np.linspace(0, len(split) - 1, min(count, len(split))).round().astype(int)
    batch = variant.fixed_batch or 1
    return split.take(np.resize(indices, math.ceil(len(indices) / batch) * batch))


def _result(observer: Observer) -> Calibration:
    chosen, histogram = observer.range(), observer.histogram
    return Calibration(chosen, histogram.counts, histogram.edges, histogram.share_outside(chosen))
