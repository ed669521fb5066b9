"""Quantization-aware training on a network of the kit: the file answers as the trained module does."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from labkit.convert import ExportOnnx
from labkit.data import load_dataset
from labkit.errors import Cancelled, TechniqueError
from labkit.progress import silent
from labkit.quantize.aware import QuantizeAware
from labkit.quantize.report import quantization_report
from labkit.runtimes import get_runtime
from labkit.zoo import load_model

QUICK = QuantizeAware(
    weight_bits=4,
    activation_bits=4,
    epochs=1,
    batch_size=32,
    calibration_samples=64,
    max_samples=320,
    threads=1,
)


@pytest.fixture(scope="module")
def lenet():
    return ExportOnnx()(load_model("lenet5@digits"))


def logits_of(variant, dataset, runtime):
    split = dataset.split("validation")
    with get_runtime(runtime).load(variant) as session:
        return session.run(variant.feeds(split.inputs))[variant.outputs[0].name], split.target


def test_the_exported_file_answers_as_the_trained_module_does(lenet):
    dataset = load_dataset("digits")
    result = QUICK(lenet, dataset)
    work, module = QUICK.fake(lenet, dataset, silent)
    trained = QUICK.train(lenet, module, dataset, silent)
    as_module = dataclasses.replace(lenet, format="torch", model=trained)
    ours, target = logits_of(as_module, dataset, "torch")
    for runtime in ("onnxruntime", "openvino"):
        if not get_runtime(runtime).is_available().ok:
            continue
        theirs, _ = logits_of(result, dataset, runtime)
        assert np.abs(theirs - ours).mean() < 0.05 * ours.std()
        assert (theirs.argmax(1) == ours.argmax(1)).mean() >= 0.995
        difference = (theirs.argmax(1) == target).mean() - (ours.argmax(1) == target).mean()
        assert abs(difference) <= 0.005
    untrained, _ = logits_of(dataclasses.replace(as_module, model=module), dataset, "torch")
    assert np.abs(untrained - ours).mean() > 0.05 * ours.std()
    report = quantization_report(result)
    assert report.quantized == report.layers == sum(report.bits.values()) and report.bits["8"] == 2
    assert result.size_bytes < 0.35 * lenet.size_bytes


def test_its_seed_makes_the_same_bytes_and_another_seed_others(lenet):
    dataset = load_dataset("digits")
    quick = dataclasses.replace(QUICK, max_samples=64)
    first = quick(lenet, dataset).payload
    assert quick(lenet, dataset).payload == first
    assert dataclasses.replace(quick, seed=1)(lenet, dataset).payload != first


def test_it_can_listen_to_the_float_model(lenet):
    dataset = load_dataset("digits")
    quick = dataclasses.replace(QUICK, max_samples=64, alpha=1.0)
    assert quick(lenet, dataset).payload != dataclasses.replace(quick, alpha=0.0)(lenet, dataset).payload


def test_it_stops_on_request_and_tells_how_far_it_is(lenet):
    told = []

    def progress(fraction, message):
        told.append(fraction)
        if fraction > 0.4:
            raise Cancelled()

    with pytest.raises(Cancelled):
        QUICK(lenet, load_dataset("digits"), progress)
    assert told == sorted(told) and len(told) > 5


def test_what_is_quantized_already_is_refused(lenet):
    dataset = load_dataset("digits")
    once = dataclasses.replace(QUICK, max_samples=64)(lenet, dataset)
    with pytest.raises(TechniqueError, match="already"):
        QUICK(once, dataset)


def test_a_collapse_is_not_handed_out(lenet):
    strict = dataclasses.replace(
        QUICK,
        weight_bits=2,
        activation_bits=2,
        edge_bits=2,
        max_samples=32,
        learning_rate=1e-6,
        max_drop_pp=0.0,
    )
    with pytest.raises(TechniqueError, match="points on"):
        strict(lenet, load_dataset("digits"))
