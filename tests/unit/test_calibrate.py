"""Calibration on a model: a range for every tensor, in bounded memory, and refusals in words."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from labkit.data import Split
from labkit.errors import ConfigError, DataError
from labkit.onnx_graph import open_graph
from labkit.pipeline import make_technique
from labkit.progress import silent
from labkit.quantize import QuantizeInt8, quantization_report
from labkit.quantize.calibration.calibrate import activations, calibrate
from labkit.quantize.calibration.observers import CALIBRATORS
from labkit.quantize.graph.plan import make_plan

every_calibrator = pytest.mark.parametrize("name", CALIBRATORS)


@pytest.fixture(scope="module")
def model(onnx_cases):
    """(variant, graph, tensors, dataset) of an image classifier."""
    variant, dataset = onnx_cases["image"]
    graph = open_graph(variant.payload)
    return variant, graph, sorted(set(make_plan(graph).tensors.values())), dataset


def images(values):
    values = np.asarray(values)
    return Split({"image": values}, np.zeros(len(values), np.int64))


@every_calibrator
def test_every_tensor_gets_a_range_a_histogram_and_its_clip_rate(name, model):
    variant, graph, names, dataset = model
    samples = dataset.split("calibration").take(slice(0, 70))
    found = calibrate(variant, graph, names, samples, name, None, silent)
    seen = {each: [] for each in names}
    for values in activations(variant, graph, names, samples, silent):
        for each in names:
            seen[each].append(values[each].ravel())
    assert list(found) == names
    for each, result in found.items():
        x, width = np.concatenate(seen[each]).astype(np.float64), np.diff(result.edges)[0]
        assert result.counts.sum() == x.size and len(result.edges) == len(result.counts) + 1
        low, high = min(result.range.low, 0), max(result.range.high, 0)
        certain = np.mean((x < low - width) | (x > high + width))
        possible = np.mean((x < low) | (x > high)) + np.max(result.counts) / x.size
        assert certain <= result.clip_rate <= possible
        assert result.clip_rate == 0 if name == "minmax" else result.clip_rate < 0.01


def test_a_batch_does_not_stay_in_memory_beside_the_next(model):
    variant, graph, names, dataset = model
    samples = dataset.split("calibration").take(slice(0, 40))
    assert not any([*activations(variant, graph, names, samples, silent)]), (
        "emptied when the next was asked for"
    )
    batches = activations(variant, graph, names, samples, silent)
    assert set(next(batches)) == set(names), "the negative control"


@every_calibrator
def test_calibration_samples_of_no_use_are_refused_by_all(name, model):
    variant, graph, names, dataset = model
    one = dataset.split("calibration").take(slice(0, 1)).inputs["image"].astype(np.float32)
    with pytest.raises(DataError, match="no calibration sample"):
        calibrate(variant, graph, names, images(one[:0]), name, None, silent)
    for bad in (math.nan, math.inf):
        with pytest.raises(DataError, match="NaN|infinite|finite"):
            calibrate(variant, graph, names, images(np.where(one > 100, bad, one)), name, None, silent)


@every_calibrator
def test_activations_that_are_all_zero_are_refused_by_all(name, onnx_cases):
    variant, dataset = onnx_cases["regression"]
    x = dataset.split("calibration").inputs["x"][:8]
    for scale in (0, 1e-30):
        samples = Split({"x": (scale * x).astype(np.float32)}, np.zeros(8))
        if scale:
            assert calibrate(variant, open_graph(variant.payload), ["x"], samples, name, None, silent)
        else:
            with pytest.raises(DataError, match="every activation is 0"):
                calibrate(variant, open_graph(variant.payload), ["x"], samples, name, None, silent)


@every_calibrator
def test_one_narrow_sample_is_reported_by_its_clip_rate(name, model):
    variant, _, _, dataset = model
    image = dataset.split("train").inputs["image"][:1] // 60 + 70
    narrow = {**dataset.splits, "calibration": Split({"image": image}, np.zeros(1, np.int64))}
    quantizer = QuantizeInt8(calibrator=name, max_drop_pp=100.0)
    poor, good = (
        quantization_report(quantizer(variant, each))
        for each in (dataclasses.replace(dataset, splits=narrow), dataset)
    )
    assert poor.clip_rate > 0.1 > 0.01 > good.clip_rate
    assert good.drop_pp < 1 and poor.calibration_samples == 1


def test_recipes_from_before_there_were_calibrators_work_or_say_what_to_type(model):
    old = make_technique("quantize_int8", {"percentile": 100.0})
    assert old(model[0], model[3]).payload == QuantizeInt8()(model[0], model[3]).payload
    with pytest.raises(ConfigError, match="give calibrator='percentile' with it"):
        make_technique("quantize_int8", {"percentile": 99.99})
    cut = QuantizeInt8(calibrator="percentile", percentile=99.9)(model[0], model[3])
    assert quantization_report(cut).clip_rate > quantization_report(old(model[0], model[3])).clip_rate
