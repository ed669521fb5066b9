"""Calibration: run real samples through the float model and note which range each activation takes.

Weights can be looked at; activations exist only while the model runs. So a few hundred samples are run, batch
by batch, with the wanted tensors as extra outputs. Of each batch only a few numbers are kept, so the memory
needed does not grow with the number of samples.

Min–max keeps everything, and one outlier then stretches the grid for all. A percentile below 100 gives up the
outermost values (they saturate) for a finer grid: a histogram from a second pass says where to cut.
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
from labkit.progress import Progress, part
from labkit.runtimes import get_runtime
from labkit.variant import Array, Variant

_BINS = 2048
_BATCH_BYTES = 64_000_000
_LARGEST_BATCH = 32


@dataclass(frozen=True)
class Range:
    """The smallest and largest value of an activation that the grid shall hold."""

    low: float
    high: float


def activations(
    variant: Variant, model: onnx.ModelProto, names: Sequence[str], samples: Split, progress: Progress
) -> Iterator[dict[str, Array]]:
    """Run `samples` through `model` and yield, for each batch, name → values [N, …] of the tensors `names`.

    Batches are as large as 64 MB of yielded values allow, 32 at most; where the model's batch is fixed,
    `samples` must be a multiple of it (`pick`). Raises DataError for samples that do not fit the model, or
    that make a value NaN or infinite.
    """
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
        size = max(1, min(_LARGEST_BATCH, _BATCH_BYTES // bytes_per_sample))


def calibrate(
    variant: Variant,
    model: onnx.ModelProto,
    names: Sequence[str],
    samples: Split,
    percentile: float,
    progress: Progress,
) -> dict[str, Range]:
    """The range of each tensor in `names` over `samples`; `percentile` is the share of values kept, in %.

    Raises DataError for no samples, for samples that cannot be run, or if all activations are 0 for all.
    """
    if len(samples) == 0:
        raise DataError("there is no calibration sample: the ranges of the activations cannot be chosen")
    two_passes = percentile < 100
    low, high = dict.fromkeys(names, math.inf), dict.fromkeys(names, -math.inf)
    for values in activations(variant, model, names, samples, part(progress, 0, 0.5 if two_passes else 1)):
        for name, array in values.items():
            low[name], high[name] = min(low[name], float(array.min())), max(high[name], float(array.max()))
    if not any(low[name] or high[name] for name in names):
        raise DataError("every activation is 0 for every calibration sample: use samples like the real ones")
    ranges = {name: Range(low[name], high[name]) for name in names}
    if not two_passes:
        return ranges
    counts = {name: np.zeros(_BINS, np.int64) for name in names}
    for values in activations(variant, model, names, samples, part(progress, 0.5, 1)):
        for name, array in values.items():
            counts[name] += np.histogram(array, _BINS, (low[name], _above(ranges[name])))[0]
    return {name: _cut(ranges[name], counts[name], percentile) for name in names}


def clip_rates(
    variant: Variant, model: onnx.ModelProto, ranges: dict[str, Range], samples: Split, progress: Progress
) -> dict[str, float]:
    """Name → the share of its values over `samples` that lie outside its range, and will saturate.

    On the samples that chose the ranges this is 0 by construction; on others it shows if those were enough.
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


def _above(range_: Range) -> float:
    return range_.high if range_.high > range_.low else range_.low + 1.0


def _cut(range_: Range, counts: Array, percentile: float) -> Range:
    """Give up at most (100 − percentile) / 2 % of the values at each end. counts: [bins] over the range."""
    edges = np.linspace(range_.low, _above(range_), len(counts) + 1)
    allowed = counts.sum() * (100 - percentile) / 200
    first = int(np.searchsorted(np.cumsum(counts), allowed, side="right"))
    last = len(counts) - int(np.searchsorted(np.cumsum(counts[::-1]), allowed, side="right"))
    return Range(float(edges[first]), min(float(edges[last]), range_.high))
