"""QuantizeInt8: real integers in the runtimes, the accuracy kept, and no silent failure."""

from __future__ import annotations

import dataclasses
import resource
from collections import Counter

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

from labkit.convert import ExportOnnx, load_onnx
from labkit.data import Split
from labkit.errors import Cancelled, ConfigError, DataError, LabkitError, TechniqueError
from labkit.measure.quality import evaluate
from labkit.onnx_graph import Graph, fold_batch_norm, join_bias, open_graph
from labkit.quantize import QuantizeInt8, quantization_report
from labkit.quantize.calibration.calibrate import Range, calibrate, pick
from labkit.quantize.graph.plan import make_plan
from labkit.quantize.graph.qdq import activation_grids, insert_qdq, round_weights, weight_grids
from labkit.quantize.noise import measure_noise
from labkit.runtimes import get_runtime
from labkit.technique import probe
from labkit.train import fresh_variant
from labkit.zoo import load_model
from tests.graphs import (
    attention,
    batch_norm,
    branches,
    build,
    constant,
    conv1d,
    data_for,
    mlp,
    node,
    normal,
    small_cnn,
    weight,
)


def silent(fraction, message):
    pass


def ranges_of(variant, model, names, samples, calibrator="minmax", percentile=None):
    found = calibrate(variant, model, names, samples, calibrator, percentile, silent)
    return {name: each.range for name, each in found.items()}


@pytest.fixture(scope="module", params=["lenet5@digits", "resnet20@digits"])
def pair(request, digits):
    """(the exported float model, the same in int8)."""
    exported = ExportOnnx()(load_model(request.param), digits)
    return exported, QuantizeInt8()(exported, digits)


def operators(variant, tmp_path):
    """What ONNX Runtime makes of the file: operator → count in the graph that it executes."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    ort.InferenceSession(variant.payload, options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)


def test_the_accuracy_is_kept_within_half_a_point(pair, digits):
    before, after = (evaluate(variant, digits, "test") for variant in pair)
    drop_pp = 100 * (before.mean() - after.mean())
    print(f"{pair[0].name}: {before.mean():.4f} → {after.mean():.4f} of {len(after)}")
    assert drop_pp <= 0.5


def test_it_runs_as_real_int8(pair, tmp_path):
    exported, quantized = pair
    before, after = operators(exported, tmp_path), operators(quantized, tmp_path)
    wanted = Counter(node.op_type for node in onnx.load_model_from_string(exported.payload).graph.node)
    assert after["QLinearConv"] == wanted["Conv"]
    assert after["QLinearAdd"] == wanted["Add"]
    assert after["QGemm"] == wanted["Gemm"]
    assert not after["Conv"] + after["Gemm"] + after["Add"] + after["FusedConv"] + after["Relu"]
    assert not before["QLinearConv"], "the float model must not pass this test"


def test_the_file_is_at_most_a_third(pair):
    exported, quantized = pair
    assert quantized.size_bytes <= 0.33 * exported.size_bytes


def test_what_was_quantized_is_counted_in_the_file(pair, tmp_path):
    exported, quantized = pair
    report = quantization_report(quantized)
    kinds = Counter(node.op_type for node in onnx.load_model_from_string(exported.payload).graph.node)
    assert report.quantized == report.layers == kinds["Conv"] + kinds["Gemm"]
    assert not report.left and report.calibration_samples == 256 and report.clip_rate < 0.01
    (tmp_path / "m.onnx").write_bytes(quantized.payload)
    assert quantization_report(load_onnx(tmp_path / "m.onnx")) == report
    with pytest.raises(TechniqueError, match="was not quantized"):
        quantization_report(exported)


def test_openvino_runs_it_as_real_int8_and_computes_the_same(pair, digits):
    openvino = get_runtime("openvino")
    if not openvino.is_available().ok:
        pytest.skip("needs the extra openvino")
    exported, quantized = pair
    assert openvino_precisions(exported) == {"f32"}
    assert openvino_precisions(quantized) == {"u8"}
    feeds = quantized.feeds(digits.split("validation").take(slice(0, 64)).inputs)
    with openvino.load(quantized) as first, get_runtime("onnxruntime").load(quantized) as second:
        a, b = first.run(feeds)["logits"], second.run(feeds)["logits"]
    assert (a.argmax(1) == b.argmax(1)).mean() > 0.95
    assert np.abs(a - b).max() < 0.1 * np.abs(b).max()


def openvino_facts(variant):
    """What OpenVINO tells of every operator that it executes."""
    import openvino

    core = openvino.Core()
    hint = {"INFERENCE_PRECISION_HINT": "f32"}
    graph = core.compile_model(core.read_model(variant.payload), "CPU", hint).get_runtime_model()
    facts = [node.get_rt_info() for node in graph.get_ordered_ops()]
    return [{name: fact[name].value for name in ("layerType", "runtimePrecision")} for fact in facts]


def openvino_precisions(variant):
    """In which number formats OpenVINO runs the layers with weights."""
    weighted = [
        each for each in openvino_facts(variant) if each["layerType"] in ("Convolution", "FullyConnected")
    ]
    assert weighted
    return {each["runtimePrecision"] for each in weighted}


# --- laid out for an engine -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vit(digits):
    """(a small transformer that nobody trained, in int8 for ONNX Runtime, for OpenVINO)."""
    fresh = fresh_variant({"architecture": "vit", "hidden": 48, "depth": 2, "patch": 4}, digits)
    exported = ExportOnnx()(fresh, digits)
    made = [QuantizeInt8(max_drop_pp=100.0, runtime=each)(exported, digits) for each in ENGINES]
    return exported, *made


ENGINES = ("onnxruntime", "openvino")


def grids_of(variant):
    """Tensor → the number format that it is rounded to."""
    model = onnx.load_model_from_string(variant.payload)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    quantizers = [each for each in model.graph.node if each.op_type == "QuantizeLinear"]
    return {each.input[0]: numpy_helper.to_array(constants[each.input[2]]).dtype.name for each in quantizers}


def test_for_onnx_runtime_a_transformer_s_biases_join_integer_sums_and_gelu_is_one(vit, tmp_path):
    exported, made, _ = vit
    before, after = operators(exported, tmp_path), operators(made, tmp_path)
    assert after["QGemm"] == quantization_report(made).quantized - 1 == 13 and after["QLinearConv"] == 1
    assert (
        after["Gelu"] + after["BiasGelu"] == 2
        and not after["Erf"] + after["Split"] + after["MatMulIntegerToFloat"]
    )
    assert before["Erf"] == 2 and before["Split"] == 2, "the float model must not pass this test"
    assert set(grids_of(made).values()) == {"uint8"}


def test_for_openvino_products_read_signed_numbers_and_convolutions_unsigned_ones(vit):
    _, _, made = vit
    found = grids_of(made)
    assert found.pop("image") == "uint8"
    assert Counter(found.values()) == {"int8": len(found)}
    assert openvino_precisions(made) == {"u8", "i8"}


def test_for_openvino_a_product_after_a_relu_keeps_all_256_values():
    variant = mlp()
    made = QuantizeInt8(max_drop_pp=15.0, runtime="openvino")(variant, data_for(variant))
    assert grids_of(made) == {"x": "int8", "r1": "uint8"}


@pytest.mark.parametrize("engine", ENGINES)
def test_products_of_two_activations_have_no_grid(vit, engine):
    made = vit[1 + ENGINES.index(engine)]
    model = onnx.load_model_from_string(made.payload)
    rounded = {each.output[0] for each in model.graph.node if each.op_type == "DequantizeLinear"}
    products = [each for each in model.graph.node if each.op_type == "MatMul"]
    attention = [each for each in products if not rounded & set(each.input)]
    assert len(attention) == 4, "two in each of two blocks"


@pytest.mark.parametrize("engine", ENGINES)
def test_a_tensor_that_is_only_moved_is_rounded_once(vit, engine):
    """OpenVINO would compute a second rounding on the same grid."""
    graph = Graph(onnx.load_model_from_string(vit[1 + ENGINES.index(engine)].payload))
    for each in graph.nodes:
        mover = graph.producer.get(each.input[0]) if each.op_type == "QuantizeLinear" else None
        if mover is not None and mover.op_type in ("Reshape", "Transpose"):
            above = graph.producer[mover.input[0]]
            assert above.op_type != "DequantizeLinear", each.input[0]


def test_for_openvino_a_branch_is_added_before_it_is_rounded(digits):
    exported = ExportOnnx()(load_model("resnet20@digits"), digits)
    made = {engine: QuantizeInt8(runtime=engine)(exported, digits) for engine in ENGINES}
    graph = Graph(onnx.load_model_from_string(exported.payload))
    into_sums = {each.input[0] for each in graph.nodes if each.op_type == "Add"}
    assert len(into_sums) == 9
    assert into_sums <= grids_of(made["onnxruntime"]).keys()
    assert not into_sums & grids_of(made["openvino"]).keys()
    assert openvino_precisions(made["openvino"]) == {"u8"}
    before, after = (evaluate(each, digits, "test") for each in (exported, made["openvino"]))
    assert 100 * (before.mean() - after.mean()) <= 0.5


@pytest.mark.parametrize("engine", ENGINES)
def test_either_layout_computes_the_same_on_both_engines(vit, digits, engine):
    made = vit[1 + ENGINES.index(engine)]
    feeds = made.feeds(digits.split("validation").take(slice(0, 64)).inputs)
    with get_runtime("openvino").load(made) as first, get_runtime("onnxruntime").load(made) as second:
        a, b = first.run(feeds)["logits"], second.run(feeds)["logits"]
    with get_runtime("onnxruntime").load(vit[0]) as session:
        exact = session.run(feeds)["logits"]
    assert np.abs(a - b).max() < 0.05 * np.abs(b).max()
    assert np.abs(b - exact).max() < 0.1 * np.abs(exact).max()


# --- models of any user -----------------------------------------------------------------------------


USERS = {
    "cnn": (small_cnn, 3, {"QLinearConv": 2, "QLinearAdd": 1, "QGemm": 1}),
    "cnn, opset 11": (lambda: small_cnn(11, 6), 3, {"QLinearConv": 2, "QLinearAdd": 1, "QGemm": 1}),
    "mlp": (mlp, 2, {"QGemm": 1, "MatMulIntegerToFloat": 1}),
    "conv1d": (conv1d, 2, {"QLinearConv": 1, "QLinearGlobalAveragePool": 1, "QGemm": 1}),
    "branches": (branches, 4, {"QLinearConv": 3, "QLinearConcat": 1, "QLinearAveragePool": 1, "QGemm": 1}),
    "attention": (attention, 3, {"MatMulIntegerToFloat": 2, "QGemm": 1}),
}


@pytest.mark.parametrize("name", USERS)
def test_a_user_s_model_runs_as_real_int8(name, tmp_path):
    make, layers, expected = USERS[name]
    variant = make()
    quantized = QuantizeInt8(max_drop_pp=15.0)(variant, data_for(variant))
    assert quantization_report(quantized).quantized == layers
    found = operators(quantized, tmp_path)
    assert {kind: found[kind] for kind in expected} == expected
    onnx.checker.check_model(onnx.load_model_from_string(quantized.payload), full_check=True)


def test_what_stayed_float_is_named_with_the_reason():
    variant = attention()
    report = quantization_report(QuantizeInt8(max_drop_pp=15.0)(variant, data_for(variant)))
    assert (report.quantized, report.layers) == (3, 5)
    assert set(report.left) == {"s", "o"} and "computed" in report.left["s"]


@pytest.mark.parametrize("batch", [1, 4])
def test_a_fixed_batch_is_taken_as_it_is(batch):
    variant = small_cnn(batch=batch)
    quantized = QuantizeInt8().apply(variant, data_for(variant), silent)
    assert quantized.inputs[0].shape[0] == batch
    assert quantization_report(quantized).quantized == 3


@pytest.mark.parametrize("with_relu", [False, True])
def test_a_convolution_whose_output_is_the_model_s_keeps_its_name(with_relu):
    nodes = [node("Conv", "x w b", "c" if with_relu else "y")] + [node("Relu", "c", "y")] * with_relu
    variant = build(nodes, [weight("w", 10, 3, 3, 3), weight("b", 10)], outputs=("batch", 10, 14, 14))
    model = open_graph(variant.payload)
    plan = make_plan(model)
    samples = Split({"x": normal("samples", 8, 3, 16, 16)}, np.zeros(8))
    grids = activation_grids(ranges_of(variant, model, [*plan.tensors], samples))
    graph = Graph(model)
    insert_qdq(model, plan, grids, round_weights(graph, weight_grids(graph, plan, grids)))
    quantized = dataclasses.replace(variant, model=model.SerializeToString())
    with get_runtime("onnxruntime").load(variant) as a, get_runtime("onnxruntime").load(quantized) as b:
        x, y = (session.run(dict(samples.inputs))["y"] for session in (a, b))
    assert 0 < np.abs(x - y).max() < 0.05 * np.abs(x).max()


def test_folding_and_joining_change_no_number():
    variant = small_cnn()
    model = open_graph(variant.payload)
    assert fold_batch_norm(model) == 2 and join_bias(model) == 1
    assert not {"BatchNormalization", "MatMul"} & {n.op_type for n in model.graph.node}
    folded = dataclasses.replace(variant, model=model.SerializeToString())
    feeds = probe(variant, 5)
    with get_runtime("onnxruntime").load(variant) as a, get_runtime("onnxruntime").load(folded) as b:
        np.testing.assert_allclose(a.run(feeds)["y"], b.run(feeds)["y"], rtol=1e-4, atol=1e-5)


def test_a_batch_norm_is_left_where_the_convolution_has_another_user():
    nodes = [
        node("Conv", "x w1", "c1", pads=[1] * 4),
        node("BatchNormalization", "c1 gamma1 beta1 mean1 var1", "n1"),
        node("Add", "n1 c1", "y"),
    ]
    variant = build(nodes, [weight("w1", 16, 3, 3, 3), *batch_norm(1)], outputs=("batch", 16, 16, 16))
    assert fold_batch_norm(open_graph(variant.payload)) == 0


def test_layers_that_share_a_weight_store_it_once():
    nodes = [
        node("Gemm", "x w b1", "h"),
        node("Relu", "h", "r"),
        node("Gemm", "r w b2", "y"),
    ]
    variant = build(nodes, [weight("w", 10, 10), weight("b1", 10), weight("b2", 10)], ("batch", 10))
    quantized = QuantizeInt8(max_drop_pp=15.0)(variant, data_for(variant))
    stored = [t.name for t in onnx.load_model_from_string(quantized.payload).graph.initializer]
    assert stored.count("w/quantized") == 1 and "w" not in stored


def test_a_weight_shared_the_other_way_round_stays_float_in_one_layer():
    nodes = [node("Gemm", "x w b1", "h"), node("Gemm", "h w b2", "y", transB=1)]
    variant = build(nodes, [weight("w", 10, 10), weight("b1", 10), weight("b2", 10)], ("batch", 10))
    report = quantization_report(QuantizeInt8(max_drop_pp=15.0)(variant, data_for(variant)))
    assert report.quantized == 1 and "transposed" in report.left["y"]


def test_a_channel_of_nearly_nothing_does_not_overflow_its_bias():
    w = np.concatenate([np.full((1, 3, 3, 3), 1e-30), np.zeros((1, 3, 3, 3)), np.ones((8, 3, 3, 3))])
    nodes = [node("Conv", "x w b", "c"), node("GlobalAveragePool", "c", "g"), node("Flatten", "g", "y")]
    bias = constant("b", [3.0, -2.0, *[0.0] * 8])
    variant = build(nodes, [constant("w", w), bias])
    quantized = QuantizeInt8(max_drop_pp=100.0)(variant, data_for(variant))
    with get_runtime("onnxruntime").load(quantized) as session:
        y = session.run(probe(quantized))["y"]
    np.testing.assert_allclose(y[:, :2], [[3.0, -2.0]] * 2, atol=0.3)


def tokens_of_a_convolution():
    nodes = [
        node("Conv", "x w b", "c", strides=[4, 4]),
        node("Reshape", "c shape", "r"),
        node("Transpose", "r", "t", perm=[0, 2, 1]),
        node("ReduceMean", "t axes", "m", keepdims=0),
        node("Gemm", "m w2 b2", "y"),
    ]
    constants = [weight("w", 16, 3, 4, 4), constant("b", np.linspace(-1, 0.5, 16)), weight("w2", 16, 10)]
    constants += [
        weight("b2", 10),
        constant("axes", [1], np.int64),
        constant("shape", [-1, 16, 16], np.int64),
    ]
    return build(nodes, constants)


def tokens_that_a_layer_reads_too():
    nodes = [
        node("MatMul", "x w", "a"),
        node("MatMul", "a w2", "h"),
        node("Add", "h a", "z"),
        node("ReduceMean", "a axes", "m", keepdims=0),
        node("ReduceMean", "z axes", "n", keepdims=0),
        node("Add", "m n", "f"),
        node("Gemm", "f w3 b3", "y"),
    ]
    constants = [weight("w", 16, 16), weight("w2", 16, 16), weight("w3", 16, 10), weight("b3", 10)]
    return build(nodes, [*constants, constant("axes", [1], np.int64)], ("batch", 8, 16))


def sequence_without_relu():
    nodes = [
        node("Conv", "x w b", "c", pads=[1, 1]),
        node("GlobalAveragePool", "c", "g"),
        node("Flatten", "g", "f"),
        node("Gemm", "f w2 b2", "y"),
    ]
    constants = [weight("w", 16, 4, 3), constant("b", np.linspace(-1, 0.5, 16)), weight("w2", 16, 10)]
    return build(nodes, [*constants, weight("b2", 10)], ("batch", 4, 32))


def sequence_whose_mean_no_layer_reads():
    nodes = [
        node("Conv", "x w b", "c", pads=[1, 1]),
        node("Relu", "c", "r"),
        node("ReduceMean", "r axes", "m", keepdims=0),
        node("Tanh", "m", "y"),
    ]
    constants = [
        weight("w", 10, 4, 3),
        constant("b", np.linspace(-1, 0.5, 10)),
        constant("axes", [2], np.int64),
    ]
    return build(nodes, constants, ("batch", 4, 32))


AVERAGED = (
    tokens_of_a_convolution,
    tokens_that_a_layer_reads_too,
    sequence_without_relu,
    sequence_whose_mean_no_layer_reads,
)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("make", AVERAGED)
def test_the_mean_of_a_sequence_is_the_same_number_in_openvino(make, engine):
    """With an unsigned grid it would be off by several standard deviations of the logits."""
    variant = make()
    made = QuantizeInt8(max_drop_pp=15.0, runtime=engine)(variant, data_for(variant))
    feeds = probe(variant, 32)
    with get_runtime("onnxruntime").load(variant) as session:
        exact = session.run(feeds)["y"]
    for runtime in ENGINES:
        with get_runtime(runtime).load(made) as session:
            assert np.abs(session.run(feeds)["y"] - exact).max() < 0.2 * exact.std(), runtime


# --- what must not pass in silence ------------------------------------------------------------------


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


def test_a_quantized_model_is_not_quantized_again(pair, digits):
    with pytest.raises(TechniqueError, match="quantized already"):
        QuantizeInt8()(pair[1], digits)


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
