"""Static int8: ranges from the samples, and what must not pass in silence."""

from __future__ import annotations

import dataclasses
import resource

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from labkit.data import Split
from labkit.errors import Cancelled, ConfigError, DataError, LabkitError, TechniqueError
from labkit.onnx_graph import Graph, open_graph
from labkit.quantize import QuantizeInt8, quantization_report
from labkit.quantize.calibration.calibrate import Range, pick
from labkit.quantize.graph.plan import make_plan
from labkit.quantize.graph.qdq import activation_grids, round_weights, weight_grids
from labkit.quantize.noise import measure_noise
from labkit.technique import probe
from tests.graphs import build, constant, data_for, mlp, node, normal, small_cnn, weight
from tests.quantized import ranges_of


@pytest.fixture(scope="module")
def exported(onnx_cases):
    return onnx_cases["image"]


def with_calibration(dataset, images):
    split = Split({"image": images}, dataset.split("train").target[: len(images)])
    return dataclasses.replace(dataset, splits={**dataset.splits, "calibration": split})


def test_no_calibration_sample_is_refused(exported):
    variant, dataset = exported
    with pytest.raises(ConfigError, match="calibration_samples=0"):
        QuantizeInt8(calibration_samples=0)
    with pytest.raises(DataError, match="no calibration sample"):
        QuantizeInt8()(variant, with_calibration(dataset, np.zeros((0, 32, 32, 1), np.uint8)))


def test_nan_among_the_calibration_samples_is_refused(exported):
    variant, dataset = exported
    images = np.full((4, 32, 32, 1), np.nan, np.float32)
    with pytest.raises(DataError, match="NaN"):
        QuantizeInt8()(variant, with_calibration(dataset, images))


def test_activations_that_are_all_zero_are_refused():
    variant = build([node("MatMul", "x w", "y")], [weight("w", 32, 10)], ("batch", 32))
    dataset = data_for(variant)
    zero = dataset.split("train").take(slice(0, 5))
    zero = Split({"x": np.zeros_like(zero.inputs["x"])}, zero.target)
    with pytest.raises(DataError, match="every activation is 0"):
        QuantizeInt8()(variant, dataclasses.replace(dataset, splits={**dataset.splits, "calibration": zero}))


def test_one_narrow_sample_is_reported_by_its_clip_rate():
    variant = mlp()
    dataset = data_for(variant)
    narrow = Split({"x": dataset.split("train").inputs["x"][:1] / 4}, dataset.split("train").target[:1])
    dataset = dataclasses.replace(dataset, splits={**dataset.splits, "calibration": narrow})
    report = quantization_report(QuantizeInt8(max_drop_pp=100.0)(variant, dataset))
    assert report.calibration_samples == 1 and report.clip_rate > 0.1
    wide = quantization_report(QuantizeInt8(max_drop_pp=100.0)(variant, data_for(variant)))
    assert wide.clip_rate < 0.01


def test_a_collapse_is_refused_and_says_what_to_try(exported):
    variant, dataset = exported
    narrow = dataset.split("train").inputs["image"][:1] // 60 + 70
    with pytest.raises(TechniqueError, match="max_drop_pp=10.0.*clipped most.*calibration samples"):
        QuantizeInt8()(variant, with_calibration(dataset, narrow))


def loud_channel():
    """A layer one of whose channels has weights a thousand times the others', and is not used after."""
    w = normal("loud", 64, 32)
    w[0] *= 3000
    after = normal("after", 10, 64)
    after[:, 0] = 0
    nodes = [node("Gemm", "x loud", "h", transB=1), node("Gemm", "h after", "y", transB=1)]
    return build(nodes, [constant("loud", w), constant("after", after)], ("batch", 32))


def test_the_worst_layer_is_named():
    variant = loud_channel()
    dataset = data_for(variant)
    with pytest.raises(TechniqueError, match="Worst is the .*Try granularity='per_channel'"):
        QuantizeInt8(granularity="per_tensor")(variant, dataset)
    model = open_graph(variant.payload)
    plan = make_plan(model)
    ranges = ranges_of(variant, model, [*plan.tensors], dataset.split("calibration"))
    train, graph, grids = dataset.split("train"), Graph(model), activation_grids(ranges)

    def noises(per_channel):
        weights = round_weights(graph, weight_grids(graph, plan, grids, per_channel=per_channel))
        return {n.tensor: n.snr_db for n in measure_noise(variant, model, plan, grids, weights, train)}

    per_tensor, per_channel = noises(False), noises(True)
    assert per_tensor["loud"] < 3 < 30 < per_channel["loud"]
    assert abs(per_tensor["x"] - per_channel["x"]) < 1e-9


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_a_weight_that_is_not_finite_is_refused_by_name(bad):
    variant = mlp()
    dataset = data_for(variant)
    model = onnx.load_model_from_string(variant.payload)
    values = numpy_helper.to_array(model.graph.initializer[0]).copy()
    values[3, 4] = bad
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(values, "w1"))
    with pytest.raises(TechniqueError, match="weight 'w1'.*holds 1 values"):
        QuantizeInt8()(dataclasses.replace(variant, model=model.SerializeToString()), dataset)


def test_nothing_to_quantize_is_refused():
    variant = build([node("Flatten", "x", "f"), node("Relu", "f", "y")], [], outputs=("batch", 768))
    with pytest.raises(TechniqueError, match="no Conv or ConvTranspose or Gemm or MatMul"):
        QuantizeInt8()(variant, data_for(variant))


def test_another_quantizer_says_nothing_when_it_did_nothing(tmp_path):
    """The negative control of the refusals above: elsewhere such faults pass in silence."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    variant = build([node("Elu", "x", "y")], [], ("batch", 10))

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.batches = iter([probe(variant)])

        def get_next(self):
            return next(self.batches, None)

    (tmp_path / "float.onnx").write_bytes(variant.payload)
    quantize_static(tmp_path / "float.onnx", tmp_path / "int8.onnx", Reader())
    assert [each.op_type for each in onnx.load(tmp_path / "int8.onnx").graph.node] == ["Elu"]
    with pytest.raises(TechniqueError, match="nothing"):
        QuantizeInt8()(variant, data_for(variant))


# --- calibration ------------------------------------------------------------------------------------


def test_ranges_are_the_extremes_of_all_batches():
    variant = mlp()
    samples = data_for(variant, 100).split("train")
    found = ranges_of(variant, open_graph(variant.payload), ["x", "y"], samples)
    x = samples.inputs["x"]
    assert found["x"] == Range(float(x.min()), float(x.max()))
    assert found["y"].low < 0 < found["y"].high


def test_a_percentile_gives_up_the_outermost_values():
    variant = mlp()
    samples = data_for(variant, 300).split("train")
    samples.inputs["x"][0, 0] = 1000.0
    model = open_graph(variant.payload)
    everything = ranges_of(variant, model, ["x"], samples)["x"]
    most = ranges_of(variant, model, ["x"], samples, "percentile", 99.0)["x"]
    assert everything.high == 1000.0 and 0 < most.high < 5
    inside = np.mean((samples.inputs["x"] >= most.low) & (samples.inputs["x"] <= most.high))
    assert 0.99 <= inside < 1


def test_memory_does_not_grow_with_the_samples():
    nodes = [
        node("Conv", "x w", "c", pads=[1] * 4),
        node("GlobalAveragePool", "c", "g"),
        node("Flatten", "g", "y"),
    ]
    variant = build(nodes, [weight("w", 10, 3, 3, 3)], ("batch", 3, 64, 64))
    model = open_graph(variant.payload)
    image = normal("image", 1, 3, 64, 64)
    peaks = []
    for count in (64, 2048):
        samples = Split({"x": np.broadcast_to(image, (count, 3, 64, 64))}, np.zeros(count))
        ranges_of(variant, model, ["x", "c"], samples)
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)
    kept_mb = (2048 - 64) * 10 * 64 * 64 * 4 / 1e6
    assert peaks[1] - peaks[0] < 0.1 * kept_mb, (
        f"{peaks} MB; keeping every activation would take {kept_mb:.0f}"
    )


def test_samples_are_spread_and_fill_a_fixed_batch():
    split = Split({"x": np.arange(10)}, np.arange(10))
    assert pick(mlp(), split, 4).target.tolist() == [0, 3, 6, 9]
    assert pick(mlp(), split, 99).target.tolist() == list(range(10))
    assert len(pick(small_cnn(batch=4), split, 9)) == 12


def test_the_same_input_gives_the_same_bytes(exported):
    variant, dataset = exported
    assert QuantizeInt8()(variant, dataset).payload == QuantizeInt8()(variant, dataset).payload


def test_it_can_be_stopped_at_every_report(exported):
    variant, dataset = exported
    reports = []
    QuantizeInt8()(variant, dataset, lambda fraction, message: reports.append(fraction))
    assert reports == sorted(reports) and reports[0] >= 0 and reports[-1] == 1.0
    for stop_at in (0, len(reports) // 2, len(reports) - 1):
        seen = []

        def stop(fraction, message, seen=seen, stop_at=stop_at):
            seen.append(fraction)
            if len(seen) > stop_at:
                raise Cancelled

        with pytest.raises(Cancelled):
            QuantizeInt8()(variant, dataset, stop)


def test_every_refusal_is_one_of_ours(exported):
    variant, dataset = exported
    wrong = dataclasses.replace(dataset, task_name="regression")
    with pytest.raises(LabkitError, match="regression"):
        QuantizeInt8()(variant, wrong)
