"""A Task owns what "good" means: the loss to train with, the metric to report, the test of a difference.

Nothing else in labkit asks "is this classification?". A new kind of model needs one more class here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from labkit.errors import ConfigError, DataError, TensorError, nearest
from labkit.statistics import Interval, Paired, mcnemar, mean_interval, paired_mean, wilson

if TYPE_CHECKING:
    from torch import Tensor

Scores = NDArray[np.float64]

_ROUNDING = 0.01
"""What probabilities in bfloat16 may be short of 1."""
_SMALLEST = float(np.finfo(np.float32).tiny)
"""What is taken for a probability that was rounded to 0."""


class Task(ABC):
    """Per-sample scores in, a quality with its interval and paired differences out."""

    name: ClassVar[str]
    metric: ClassVar[str]
    higher_is_better: ClassVar[bool]
    target_dtype: ClassVar[str]

    @abstractmethod
    def loss(self, output: Tensor, target: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """The mean training loss of a batch: output [N, …], target [N] → []."""

    @abstractmethod
    def scores(self, output: NDArray[Any], target: NDArray[Any]) -> Scores:
        """One score per sample [N] from the model's first output [N, …]."""

    @abstractmethod
    def interval(self, scores: Scores) -> Interval:
        """The 95 % interval of `quality(scores)`."""

    @abstractmethod
    def compare(self, baseline: Scores, other: Scores) -> Paired:
        """The paired difference other − baseline on the same samples, in the metric's own unit."""

    @abstractmethod
    def check_target(self, target: NDArray[Any], labels: tuple[str, ...]) -> None:
        """Raise DataError if the targets cannot be what this task predicts."""

    def quality(self, scores: Scores) -> float:
        """The metric over all samples: the mean score."""
        return float(np.mean(scores))

    def drop(self, paired: Paired) -> tuple[float, Interval]:
        """How much worse, positive when worse, whichever direction the metric has."""
        low, high = paired.ci95
        if self.higher_is_better:  # 0.0 − x, not −x: a drop of nothing is 0.0, never −0.0
            return 0.0 - paired.difference, (0.0 - high, 0.0 - low)
        return paired.difference, (low, high)


class Classification(Task):
    """One class per sample; the score is 1 where the largest logit is the label's, else 0."""

    name = "classification"
    metric = "accuracy"
    higher_is_better = True
    target_dtype = "int64"

    def loss(self, output: Tensor, target: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Cross-entropy of logits [N, C], or of a network's own softmax of them, against class indices [N]."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(as_logits(output), target, label_smoothing=label_smoothing)

    def scores(self, output: NDArray[Any], target: NDArray[Any]) -> Scores:
        """[N, C] logits and [N] labels → [N] of 0.0 or 1.0."""
        if output.ndim != 2 or len(output) != len(target):
            raise TensorError(
                f"classification reads logits [samples, classes], the model answered {list(output.shape)} to "
                f"{len(target)} samples: is its first output the one that classifies?"
            )
        return np.asarray(output.argmax(axis=-1) == target, dtype=np.float64)

    def interval(self, scores: Scores) -> Interval:
        """Wilson's score interval."""
        return wilson(int(scores.sum()), len(scores))

    def compare(self, baseline: Scores, other: Scores) -> Paired:
        """McNemar's test on the samples that exactly one of the two got right."""
        return mcnemar(baseline > 0.5, other > 0.5)

    def check_target(self, target: NDArray[Any], labels: tuple[str, ...]) -> None:
        """Labels must be whole numbers 0..C−1, and of two classes at least."""
        if target.dtype.kind not in "iu":
            raise DataError(f"labels have dtype {target.dtype}; use whole numbers 0, 1, 2, …")
        if target.ndim != 1:
            raise DataError(f"labels have shape {list(target.shape)}; give one whole number a sample, [N]")
        low, high = int(target.min()), int(target.max())
        if low < 0 or (labels and high >= len(labels)):
            allowed = f"0..{len(labels) - 1}" if labels else "0 and above"
            raise DataError(f"labels run from {low} to {high}; allowed are {allowed}")
        if low == high:
            raise DataError(f"every label is {low}: with one class there is nothing to classify")


def as_logits(output: Tensor) -> Tensor:
    """Logits as they are; of probabilities, which a network that ends in a softmax puts out, the logarithms. [N, C].

    These are its logits but for a constant in each row, of which no softmax takes notice. To take the softmax of
    probabilities instead would tell all classes to be nearly alike, and a network so trained hardly learns.
    """
    detached = output.detach()
    if detached.ndim != 2 or bool((detached < 0).any()):
        return output
    if bool(((detached.sum(1) - 1).abs() > _ROUNDING).any()):
        return output
    return output.clamp_min(_SMALLEST).log()


class Regression(Task):
    """One or more numbers per sample; the score is the squared error (the metric is its mean: lower is better)."""

    name = "regression"
    metric = "mse"
    higher_is_better = False
    target_dtype = "float32"

    def loss(self, output: Tensor, target: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Mean squared error; output [N, …] and target of the same number of elements."""
        from torch.nn.functional import mse_loss

        return mse_loss(output.reshape(target.shape), target)

    def scores(self, output: NDArray[Any], target: NDArray[Any]) -> Scores:
        """[N, …] and [N, …] → [N] mean squared error of each sample."""
        if output.ndim == 0 or len(output) != len(target) or output.size != target.size:
            raise TensorError(
                f"the model answered {list(output.shape)} to {len(target)} samples whose targets are "
                f"{list(target.shape)}: it predicts something else"
            )
        error = output.reshape(len(target), -1).astype(np.float64) - target.reshape(len(target), -1)
        return np.asarray((error**2).mean(axis=1), dtype=np.float64)

    def interval(self, scores: Scores) -> Interval:
        """Student's interval of the mean."""
        return mean_interval(scores)

    def compare(self, baseline: Scores, other: Scores) -> Paired:
        """The mean difference of squared errors, sample by sample."""
        return paired_mean(baseline, other)

    def check_target(self, target: NDArray[Any], labels: tuple[str, ...]) -> None:
        """Targets must be finite numbers, not all the same."""
        if target.dtype.kind not in "fiu" or not np.isfinite(target).all():
            raise DataError("regression targets must be finite numbers")
        if target.min() == target.max():
            raise DataError(f"every target is {target.flat[0]}: there is nothing to predict")


TASKS: tuple[Task, ...] = (Classification(), Regression())


def get_task(name: str) -> Task:
    """The task of that name; ConfigError with a suggestion otherwise."""
    for task in TASKS:
        if task.name == name:
            return task
    raise ConfigError(f"unknown task {name!r}; {nearest(name, [task.name for task in TASKS])}")
