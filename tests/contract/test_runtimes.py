"""Every runtime keeps the same promises, on an image classifier, a two-input int64 model and a regression."""

from __future__ import annotations

import dataclasses
import gc
import os
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch

from labkit.errors import ConfigError, LabkitError, TensorError, UnavailableError
from labkit.runtimes import RUNTIMES, Availability, RunOptions, get_runtime, reference_runtime
from labkit.technique import probe
from labkit.variant import TensorSpec

CASES = ("image", "two_inputs", "regression")
OWN = ("mindspore", "tensorrt")  # no path of conversions ends there: tests of their own
available = [runtime for runtime in RUNTIMES if runtime.is_available().ok and runtime.name not in OWN]
runtimes = pytest.mark.parametrize("runtime", available, ids=lambda runtime: runtime.name)


def case_for(runtime, name, request):
    return request.getfixturevalue("forms")(runtime.formats[0], name)


def test_every_runtime_of_the_kit_is_tested_here():
    assert {runtime.name for runtime in available} >= {"torch", "onnxruntime", "openvino"}


@runtimes
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_outputs_have_the_declared_names_shapes_and_the_reference_s_numbers(
    runtime, name, batch_size, request
):
    variant, dataset = case_for(runtime, name, request)
    reference_variant, _ = request.getfixturevalue("cases")[name]
    feeds = variant.feeds(dataset.split("test").take(slice(0, batch_size)).inputs)
    with (
        runtime.load(variant) as session,
        reference_runtime(reference_variant).load(reference_variant) as reference,
    ):
        outputs, expected = session.run(feeds), reference.run(feeds)
    assert list(outputs) == [spec.name for spec in variant.outputs]
    for spec in variant.outputs:
        assert outputs[spec.name].shape == (batch_size, *spec.shape[1:])
        assert str(outputs[spec.name].dtype) == spec.dtype
        np.testing.assert_allclose(outputs[spec.name], expected[spec.name], rtol=1e-4, atol=1e-4)


@runtimes
def test_an_answer_is_not_overwritten_by_the_next_run(runtime, request):
    variant, dataset = case_for(runtime, "image", request)
    first, second = (variant.feeds(dataset.split("test").take(slice(i, i + 2)).inputs) for i in (0, 2))
    with runtime.load(variant) as session:
        kept = session.run(first)["logits"]
        before = kept.copy()
        session.run(second)
    np.testing.assert_array_equal(kept, before)


@runtimes
@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (lambda x: {"picture": x}, "image"),
        (lambda x: {}, "image"),
        (lambda x: {"image": x.astype(np.float64)}, "float64"),
        (lambda x: {"image": x[0]}, "3 dimensions"),
        (lambda x: {"image": x[:, :, :16]}, "axis 2"),
        (lambda x: {"image": x[:0]}, "empty"),
        (lambda x: {"image": np.where(np.arange(32) == 3, np.float32("nan"), x)}, "NaN"),
        (lambda x: {"image": np.where(np.arange(32) == 3, np.float32("inf"), x)}, "infinite"),
        (lambda x: {"image": x.tolist()}, "list"),
    ],
    ids=["name", "missing", "dtype", "rank", "shape", "empty", "nan", "inf", "list"],
)
def test_a_bad_tensor_is_refused_by_name(runtime, fault, says, request):
    variant, _ = case_for(runtime, "image", request)
    good = probe(variant)["image"]
    with runtime.load(variant) as session:
        session.run({"image": good})
        with pytest.raises(TensorError, match=says):
            session.run(fault(good))


@runtimes
def test_a_closed_session_says_so_and_may_be_closed_again(runtime, request):
    variant, _ = case_for(runtime, "image", request)
    feeds = probe(variant)
    with runtime.load(variant) as session:
        session.run(feeds)
    session.close()
    for use in (session.run, session.execute):
        with pytest.raises(LabkitError, match="session of 'lenet5@digits' is closed: load the variant again"):
            use(feeds)


def test_a_closed_session_of_onnx_runtime_gives_its_memory_back_at_once(request):
    """Not when Python looks for cycles next: a calibration opens and closes many."""
    variant, _ = case_for(get_runtime("onnxruntime"), "image", request)
    session = get_runtime("onnxruntime").load(variant)
    held = weakref.ref(session._session)
    gc.disable()
    try:
        session.close()
        assert held() is None
    finally:
        gc.enable()


ONCE = """
import sys
from labkit.runtimes import get_runtime
from labkit.technique import probe
from labkit.zoo import load_model
variant = load_model(sys.argv[2])
with get_runtime(sys.argv[1]).load(variant) as session:
    session.run(probe(variant))
"""


@runtimes
def test_no_engine_leaves_anything_in_the_home(runtime, request, tmp_path):
    """Telemetry would: an identifier of the machine, and what was run on it."""
    saved = case_for(runtime, "image", request)[0].save(tmp_path / "saved")
    home = tmp_path / "home"
    home.mkdir()
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "OMP_NUM_THREADS")}
    environment = {**kept, "HOME": str(home), "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", ONCE, runtime.name, saved]
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=120)
    settings = ("matplotlib", ".keras")  # TensorFlow imports both; neither tells anybody anything
    left = [path for path in home.rglob("*") if path.is_file()]
    assert [path for path in left if not any(name in path.parts for name in settings)] == []


def test_what_only_the_engine_can_know_is_refused_too(cases):
    variant, _ = cases["image"]
    free = (TensorSpec("image", "float32", ("batch", 1, "height", "width"), "NCHW"),)
    anything = dataclasses.replace(variant, inputs=free)
    with get_runtime("torch").load(anything) as session:
        with pytest.raises(TensorError, match=r"cannot compute on image \[1, 1, 7, 7\]: ") as caught:
            session.run({"image": np.zeros((1, 1, 7, 7), np.float32)})
        assert caught.value.__cause__ is not None


@runtimes
def test_two_inputs_must_agree_on_a_named_dimension(runtime, request):
    variant, _ = case_for(runtime, "two_inputs", request)
    feeds = {"ids": np.zeros((2, 6), np.int64), "mask": np.ones((3, 6), np.int64)}
    with runtime.load(variant) as session, pytest.raises(TensorError, match="axis 0"):
        session.run(feeds)


@runtimes
def test_a_format_or_precision_it_does_not_take_is_refused(runtime, request):
    other = request.getfixturevalue("onnx_cases" if "torch" in runtime.formats else "cases")["image"][0]
    with pytest.raises(ConfigError, match="runs"):
        runtime.load(other)
    if "bfloat16" not in runtime.precisions:
        with pytest.raises(ConfigError, match="bfloat16"):
            runtime.load(case_for(runtime, "image", request)[0], RunOptions(precision="bfloat16"))


@runtimes
def test_bfloat16_is_really_computed_in_bfloat16(runtime, request):
    if "bfloat16" not in runtime.precisions:
        pytest.skip("this runtime computes in what the file declares")
    variant, dataset = case_for(runtime, "image", request)
    feeds = variant.feeds(dataset.split("test").take(slice(0, 16)).inputs)
    with runtime.load(variant) as exact, runtime.load(variant, RunOptions(precision="bfloat16")) as rounded:
        error = np.abs(exact.run(feeds)["logits"] - rounded.run(feeds)["logits"]).max()
    assert 1e-4 < error < 1.0


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_are_what_was_asked_for(threads, cases, onnx_cases):
    options = RunOptions(threads=threads)
    feeds = probe(cases["image"][0])
    with get_runtime("torch").load(cases["image"][0], options) as session:
        session.run(feeds)
        assert torch.get_num_threads() == threads
    with get_runtime("onnxruntime").load(onnx_cases["image"][0], options) as session:
        assert session._session.get_session_options().intra_op_num_threads == threads
    with get_runtime("openvino").load(onnx_cases["image"][0], options) as session:
        assert session._request.get_compiled_model().get_property("INFERENCE_NUM_THREADS") == threads


@pytest.mark.parametrize(
    "config",
    [
        {"threads": 0},
        {"threads": -1},
        {"threads": 1.5},
        {"threads": True},
        {"device": "tpu"},
        {"precision": "float8"},
    ],
)
def test_bad_run_options_name_the_field(config):
    with pytest.raises(ConfigError, match=next(iter(config))):
        RunOptions(**config)


def test_an_unknown_runtime_suggests_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'onnxruntime'"):
        get_runtime("onnx-runtime")


def test_a_missing_engine_names_the_line_that_installs_it(monkeypatch, onnx_cases):
    runtime = get_runtime("openvino")
    monkeypatch.setattr(type(runtime), "package", "no_such_engine")
    assert runtime.is_available() == Availability(
        False, "the package no_such_engine is not installed", "pip install 'labkit[openvino]'"
    )
    with pytest.raises(UnavailableError, match="pip install"):
        runtime.load(onnx_cases["image"][0])
