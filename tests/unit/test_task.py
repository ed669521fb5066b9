"""A task scores samples, reports a quality with its interval, and tests a difference."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from labkit.errors import ConfigError, DataError, TensorError
from labkit.task import TASKS, Classification, Regression, get_task


def test_classification_scores_are_hits():
    scores = Classification().scores(np.array([[1.0, 2], [3, 0], [0, 1]]), np.array([1, 1, 1]))
    assert scores.tolist() == [1, 0, 1] and Classification().quality(scores) == pytest.approx(2 / 3)


@pytest.mark.parametrize("shape", [(3,), (3, 4, 4), (2, 4), ()])
def test_an_output_that_is_not_logits_is_refused(shape):
    with pytest.raises(TensorError, match=r"reads logits \[samples, classes\]"):
        Classification().scores(np.zeros(shape), np.array([1, 1, 1]))


def test_regression_scores_are_squared_errors_whatever_the_output_s_shape():
    scores = Regression().scores(np.array([[1.0], [4.0]], np.float32), np.array([2.0, 2.0]))
    assert scores.tolist() == [1, 4]


def test_a_drop_is_positive_when_worse_in_either_direction():
    good, bad = np.ones(100), np.concatenate([np.zeros(30), np.ones(70)])
    drop, (low, high) = Classification().drop(Classification().compare(good, bad))
    assert drop == pytest.approx(0.3) and 0 < low < 0.3 < high
    drop, (low, high) = Regression().drop(Regression().compare(bad, bad + np.linspace(0.4, 0.6, 100)))
    assert drop == pytest.approx(0.5) and 0 < low < 0.5 < high


def test_losses_are_torch_s():
    logits, target = torch.randn(8, 3), torch.arange(8) % 3
    expected = torch.nn.functional.cross_entropy(logits, target, label_smoothing=0.1)
    assert Classification().loss(logits, target, 0.1) == expected
    assert Regression().loss(torch.ones(4, 1), torch.zeros(4)) == 1


def test_an_unknown_task_suggests_the_nearest():
    assert [get_task(task.name) for task in TASKS] == list(TASKS)
    with pytest.raises(ConfigError, match="did you mean 'classification'"):
        get_task("clasification")


def test_labels_are_one_number_a_sample():
    for shape in ((4, 2), (4, 2, 1)):
        with pytest.raises(DataError, match=r"one whole number a sample"):
            Classification().check_target(np.arange(np.prod(shape)).reshape(shape), ())


def test_a_regression_never_stretches_one_number_over_several():
    for output, target in (((4, 3), (4,)), ((4, 1), (4, 3)), ((4, 2), (4, 3)), ((3,), (4,)), ((), (4,))):
        with pytest.raises(TensorError, match="predicts something else"):
            Regression().scores(np.zeros(output), np.zeros(target))
