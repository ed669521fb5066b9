"""The quality pass: every sample of a split once, in order, one score each. No clock runs here."""

from __future__ import annotations

import numpy as np

from labkit.data import Dataset
from labkit.errors import MeasurementError
from labkit.measure.lock import Patience
from labkit.progress import Progress, silent
from labkit.runtimes import RunOptions, Runtime, Session, reference_runtime
from labkit.task import Scores
from labkit.variant import Variant

QUALITY_BATCH_SIZE = 100


def score_samples(
    session: Session,
    dataset: Dataset,
    split: str,
    batch_size: int = QUALITY_BATCH_SIZE,
    progress: Progress = silent,
) -> Scores:
    """One score per sample of `split`, by the dataset's task, from the first output of `session`. Returns [N].

    Raises MeasurementError if an output is not finite: a NaN would silently count as class 0.
    """
    samples = dataset.split(split)
    output_name = session.variant.outputs[0].name
    fixed = session.variant.fixed_batch
    scores: list[Scores] = []
    patience = Patience()
    done = 0
    for batch in samples.batches(fixed or batch_size):
        filled = (
            batch.take(np.arange(fixed) % len(batch)) if fixed else batch
        )  # the last batch, repeated to fit
        with patience.shared():
            output = session.run(session.variant.feeds(filled.inputs))[output_name][: len(batch)]
        if not np.isfinite(output).all():
            raise MeasurementError(
                f"{session.variant.name!r} gives NaN or infinity for samples {done}..{done + len(batch) - 1} of {split}"
            )
        scores.append(dataset.task.scores(output, batch.target))
        done += len(batch)
        progress(done / len(samples), f"quality: {done}/{len(samples)}")
    return np.concatenate(scores)


def evaluate(
    variant: Variant,
    dataset: Dataset,
    split: str = "validation",
    runtime: Runtime | None = None,
    options: RunOptions | None = None,
    progress: Progress = silent,
) -> Scores:
    """`score_samples` in a session of its own; the reference runtime unless another is given."""
    with (runtime or reference_runtime(variant)).load(variant, options) as session:
        return score_samples(session, dataset, split, progress=progress)
