"""Whatever is passed to a public door: an error of ours that says what was wanted."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import labkit as lk
from labkit.doors import door
from labkit.errors import ConfigError, LabkitError


class Thing:
    pass


@door
def enter(
    path: str | Path = "",
    number: float = 0.0,
    count: int = 0,
    things: Sequence[Thing] = (),
    named: Mapping[str, Thing] | None = None,
    told: Callable[[str], None] = print,
    anything: Any = None,
) -> str:
    """The lesson."""
    return "in"


@pytest.mark.parametrize(
    "fits",
    [
        {"path": Path("x"), "number": 1, "count": 2, "things": [Thing()], "anything": 3},
        {
            "path": "x",
            "number": np.float64(1.5),
            "things": (Thing(), Thing()),
            "named": {"a": 1},
            "told": repr,
        },
        {},
    ],
)
def test_what_the_annotations_allow_comes_in(fits: dict[str, Any]) -> None:
    assert enter(**fits) == "in"
    assert (enter.__name__, enter.__doc__) == ("enter", "The lesson.")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"path": None}, "enter: path must be a str or a Path, not None"),
        ({"path": b"x"}, "enter: path must be a str or a Path, not b'x'"),
        ({"path": 3}, "enter: path must be a str or a Path, not an int"),
        ({"number": True}, "enter: number must be a float, not True"),
        ({"number": "1"}, "enter: number must be a float, not '1'"),
        ({"count": 2.5}, "enter: count must be an int, not 2.5"),
        ({"count": True}, "enter: count must be an int, not True"),
        ({"things": Thing()}, "enter: things must be a sequence, each a Thing, not a Thing"),
        ({"things": "abc"}, "enter: things must be a sequence, each a Thing, not 'abc'"),
        (
            {"things": [3]},
            "enter: things must be a sequence, each a Thing, not a list that begins with an int",
        ),
        ({"named": [1]}, "enter: named must be a Mapping or None, not a list that begins with an int"),
        ({"told": 5}, "enter: told must be a function, not an int"),
    ],
)
def test_what_they_do_not_allow_is_named_with_what_was_wanted(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        enter(**bad)


NO_PATHS = (None, 5, 3.5, [], {}, b"x", True, np.array([1]))
OPENERS: dict[str, Callable[..., Any]] = {
    "load_model": lk.load_model,
    "load_dataset": lk.load_dataset,
    "load_onnx": lk.load_onnx,
    "load_requirement": lk.load_requirement,
    "Study": lk.Study,
    "Variant.load": lk.Variant.load,
    "Pipeline.load": lk.Pipeline.load,
}


@pytest.mark.parametrize("name", OPENERS)
def test_no_path_is_told_so(name: str) -> None:
    for value in NO_PATHS:
        with pytest.raises(ConfigError, match=f"^{name}: .* must be a str or a Path, not "):
            OPENERS[name](value)


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (
            lambda model, data: lk.measure(None, data),
            "candidates must be a sequence, each a Candidate, not None",
        ),
        (lambda model, data: lk.measure(lk.Candidate(model, "torch"), data), "not a Candidate"),
        (lambda model, data: lk.measure(["x"], data), "not a list that begins with 'x'"),
        (lambda model, data: lk.measure([lk.Candidate(model, "torch")], "digits"), "a Dataset, not 'digits'"),
        (
            lambda model, data: lk.measure([lk.Candidate(model, "torch")], data, seed=1.5),
            "seed must be an int",
        ),
        (lambda model, data: lk.measure([lk.Candidate(model, "torch")], data, seed=-1), "seed=-1 must be 0"),
        (
            lambda model, data: lk.measure([lk.Candidate(model, "torch")], data, split=None),
            "split must be a str",
        ),
        (
            lambda model, data: lk.measure([lk.Candidate(model, "torch")], data, progress=5),
            "a function or None",
        ),
        (lambda model, data: lk.compare(None), "a Records or a sequence, each a Measurement, not None"),
        (lambda model, data: lk.compare("x"), "not 'x'"),
        (lambda model, data: lk.choose(None, None), "comparison must be a Comparison, not None"),
        (lambda model, data: lk.optimize("resnet20@digits", data, None, "out"), "model must be a Variant"),
        (
            lambda model, data: lk.optimize(model, data, "classroom", "out"),
            "requirement must be a Requirement",
        ),
        (lambda model, data: lk.ExportOnnx()(None), "variant must be a Variant, not None"),
        (
            lambda model, data: lk.ExportOnnx()(model, "digits"),
            "dataset must be a Dataset or None, not 'digits'",
        ),
        (lambda model, data: lk.parity("a", "b"), "reference must be a Variant, not 'a'"),
        (lambda model, data: lk.parity(model, model, runtime="torch"), "runtime must be a Runtime or None"),
        (lambda model, data: lk.parity(model, model, batches=()), "batches="),
        (lambda model, data: lk.parity(model, model, batches=(1.5,)), "each an int"),
        (lambda model, data: lk.parity(model, model, samples={"zz": np.zeros((9, 1, 32, 32))}), "zz"),
        (lambda model, data: lk.WorkerPool("x", "onnxruntime"), "variant must be a Variant, not 'x'"),
        (lambda model, data: lk.get_runtime(None), "unknown runtime None"),
        (lambda model, data: lk.Candidate(model, None), "unknown runtime None"),
        (lambda model, data: lk.Candidate(model, "torch", batch_size=2.5), "batch_size=2.5"),
        (lambda model, data: lk.Candidate(model, "torch", threads=True), "threads=True"),
        (lambda model, data: lk.RunOptions(threads=True), "threads=True"),
        (lambda model, data: lk.Train(epochs=True), "epochs=True"),
        (lambda model, data: model.feeds(None), "batch must be a Mapping, not None"),
        (lambda model, data: model.check_feeds([1]), "a mapping of the inputs"),
        (lambda model, data: data.split(None), "name must be a str, not None"),
        (lambda model, data: data.split("test").batches(1.5), "batch_size must be an int, not 1.5"),
    ],
)
def test_every_door_says_what_it_wanted(
    use: Callable[..., Any], message: str, request: pytest.FixtureRequest
) -> None:
    model, data = request.getfixturevalue("lenet"), request.getfixturevalue("digits")
    with pytest.raises(LabkitError, match=re.escape(message)):
        functools.partial(use, model, data)()


def test_records_of_different_tasks_get_no_difference_in_quality() -> None:
    from tests.unit.test_measure_comparison import measurement

    items = [measurement("a"), measurement("b", quality_metric="mse")]
    (pair,) = lk.compare(items).pairs
    assert pair.quality_drop is None and "different samples" in pair.null_reasons["quality_drop"]
