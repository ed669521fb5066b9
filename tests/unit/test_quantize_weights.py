"""QuantizeWeights: the file means exactly what the grid says, the engines read it so, and nothing fails in silence."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from labkit.errors import ModelFileError, TechniqueError
from labkit.explain.layers import ModelFile
from labkit.onnx_graph import Graph, open_graph
from labkit.onnx_graph.optimize import optimize_graph
from labkit.quantize import quantization_report, weight_grid
from labkit.quantize.gate import start
from labkit.quantize.graph.plan import Plan
from labkit.quantize.graph.qdq import insert_qdq, round_weights, weight_grids
from labkit.quantize.static import QuantizeInt8
from labkit.quantize.weight_only import QuantizeWeights
from labkit.runtimes import RunOptions, get_runtime
from labkit.technique import probe
from tests.graphs import attention, build, data_for, mlp, node, small_cnn, weight

ENGINES = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(not get_runtime(name).is_available().ok, reason=f"needs the extra {name}"),
    )
    for name in ("onnxruntime", "openvino")
]
GRANULARITIES = ("per_channel", "per_group", "per_tensor")
AXES = {"MatMul": {"per_channel": 1, "per_group": 0}, "Conv": {"per_channel": 0, "per_group": 1}}


def dense(inputs=48, outputs=20, *after, kind="MatMul", turned=0, bias=False, shape=("batch",)):
    """One product of x with a stored weight, and what comes after."""
    w = weight("w", *((outputs, inputs) if turned else (inputs, outputs)))
    settings = {"transB": 1} if turned else {}
    first = node(kind, "x w b" if bias else "x w", "h" if after else "y", **settings)
    rest = [node(each, "h", "y") for each in after]
    return build([first, *rest], [w, weight("b", outputs)][: 1 + bias], (*shape, inputs), (*shape, outputs))


def pointwise(inputs=48, outputs=20):
    """A convolution that is a product of matrices: 1×1."""
    shapes = (("batch", inputs, 1, 1), ("batch", outputs, 1, 1))
    return build([node("Conv", "x w", "y")], [weight("w", outputs, inputs, 1, 1)], *shapes)


def stored(variant, name="w"):
    return Graph(onnx.load_model_from_string(variant.payload)).constant(name)


def answers(variant, x, engine="onnxruntime"):
    with get_runtime(engine).load(variant) as session:
        return session.run({"x": x})["y"]


def operators(variant):
    return Counter(optimize_graph(variant.payload).operators)


def kinds(variant):
    return Counter(each.op_type for each in onnx.load_model_from_string(variant.payload).graph.node)


# --- the file means what the grid says --------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("bits", range(2, 9))
def test_an_engine_reads_exactly_the_numbers_of_the_grid(bits, granularity, engine):
    """One-hot inputs bring each weight to the output by itself: with float32 arithmetic nothing is rounded then."""
    technique = QuantizeWeights(bits=bits, granularity=granularity, group_size=16)
    for make, kind in ((dense, "MatMul"), (pointwise, "Conv")):
        variant = make()
        w, axis = stored(variant), AXES[kind].get(granularity)
        grid = weight_grid(w, axis, bits, 16 if granularity == "per_group" else 0)
        x = np.eye(48, dtype=np.float32)
        found = answers(technique(variant), x if kind == "MatMul" else x[..., None, None], engine)
        expected = grid.dequantize(grid.quantize(w))
        expected = expected if kind == "MatMul" else expected[..., 0, 0].T
        np.testing.assert_array_equal(found.reshape(48, 20), expected)
        assert not np.array_equal(found.reshape(48, 20), w if kind == "MatMul" else w[..., 0, 0].T)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("inputs", "scales"), [(64, 2), (48, 3), (40, None), (33, None), (16, 1)])
def test_groups_are_whole_as_openvino_wants_them(inputs, scales, engine):
    """Half a group, or a scale per channel, where 32 do not divide the channels."""
    variant = dense(inputs)
    quantized = QuantizeWeights(bits=4, granularity="per_group")(variant)
    assert stored(quantized, "w/scale").shape == ((scales, 20) if scales else (20,))
    w = stored(variant)
    grid = weight_grid(w, 0, 4, inputs // scales) if scales else weight_grid(w, 1, 4)
    np.testing.assert_array_equal(answers(quantized, np.eye(inputs, dtype=np.float32), engine), grid.round(w))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("inputs", [17, 33, 65])
def test_four_bits_and_an_odd_number_of_inputs_are_read_rightly(inputs, engine):
    """OpenVINO 2026.4 misreads such weights, unless they are made whole bytes first."""
    variant = dense(inputs)
    quantized = QuantizeWeights(bits=4)(variant)
    w = stored(variant)
    found = answers(quantized, np.eye(inputs, dtype=np.float32), engine)
    np.testing.assert_array_equal(found, weight_grid(w, 1, 4).round(w))
    assert kinds(quantized)["Cast"] == 1 and kinds(QuantizeWeights(bits=4)(dense(34)))["Cast"] == 0


def test_openvino_refuses_a_group_that_is_short():
    """The negative control: ONNX and ONNX Runtime allow it."""
    if not get_runtime("openvino").is_available().ok:
        pytest.skip("needs the extra openvino")
    work = start(dense(40))
    graph, plan = Graph(work.model), Plan(work.plan.layers, {}, {})
    w = graph.constant("w")
    insert_qdq(work.model, plan, {}, round_weights(graph, {"w": weight_grid(w, 0, 4, 32)}))
    short = dataclasses.replace(dense(40), model=work.model.SerializeToString())
    x = np.eye(40, dtype=np.float32)
    np.testing.assert_array_equal(answers(short, x), weight_grid(w, 0, 4, 32).round(w))
    with pytest.raises(ModelFileError, match="cannot be divided by block_size"):
        answers(short, x, "openvino")


def test_two_three_and_four_bits_take_half_the_bytes_of_eight():
    variant = dense(64, 63)
    sizes, raw = {}, {}
    for bits in range(2, 9):
        quantized = QuantizeWeights(bits=bits)(variant)
        sizes[bits] = quantized.size_bytes
        raw[bits] = Graph(onnx.load_model_from_string(quantized.payload)).constants["w/quantized"]
        assert quantization_report(quantized).bits == {str(bits): 1}
    assert {len(raw[bits].raw_data) for bits in (2, 3, 4)} == {64 * 63 // 2}
    assert {raw[bits].data_type for bits in (2, 3, 4)} == {TensorProto.INT4}
    assert {len(raw[bits].raw_data) for bits in (5, 6, 7, 8)} == {64 * 63}
    assert sizes[2] == sizes[3] == sizes[4] and abs(sizes[8] - sizes[4] - 64 * 63 / 2) < 32


def test_fewer_bits_use_fewer_of_the_numbers():
    for bits in (2, 3, 4, 8):
        integers = stored(QuantizeWeights(bits=bits, granularity="per_tensor")(dense()), "w/quantized")
        reach = 2 ** (bits - 1) - 1
        assert np.abs(integers.astype(int)).max() == reach


# --- how the engines run it -------------------------------------------------------------------------

FORMS = {
    "MatMul": dense,
    "MatMul on [batch, time, channels]": lambda: dense(shape=("batch", "time")),
    "MatMul → Relu": lambda: dense(48, 20, "Relu"),
    "Gemm": lambda: dense(kind="Gemm", bias=True),
    "Gemm, turned": lambda: dense(kind="Gemm", turned=1, bias=True),
    "Gemm, turned, no bias → Relu": lambda: dense(48, 20, "Relu", kind="Gemm", turned=1),
    "two layers": mlp,
}


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("name", FORMS)
def test_onnx_runtime_packs_every_product(name, granularity, bits):
    variant = FORMS[name]()
    quantized = QuantizeWeights(bits=bits, granularity=granularity, group_size=16)(variant)
    found = operators(quantized)
    wanted = kinds(variant)["MatMul"] + kinds(variant)["Gemm"]
    assert found["MatMulNBits"] == wanted and not found["DequantizeLinear"] + found["MatMul"] + found["Gemm"]


@pytest.mark.parametrize("name", ["Gemm, turned", "two layers"])
def test_without_another_layout_it_would_not_pack_them(name):
    """The negative control: the same grids, written as the model came."""
    work = start(FORMS[name]())
    graph = Graph(work.model)
    plan = Plan(work.plan.layers, {}, {})
    insert_qdq(work.model, plan, {}, round_weights(graph, weight_grids(graph, plan, {}, 4, True, 16)))
    found = Counter(optimize_graph(work.model.SerializeToString()).operators)
    assert found["DequantizeLinear"] == 1


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("engine", ENGINES)
def test_another_layout_is_the_same_function(name, engine):
    variant = FORMS[name]()
    x = probe(variant, 5)["x"]
    found = answers(QuantizeWeights(bits=8)(variant), x, engine)
    expected = answers(variant, x)
    assert 0 < np.abs(found - expected).max() < 0.03 * np.abs(expected).max()


def test_a_turned_weight_that_somebody_else_reads_keeps_its_layout():
    nodes = [node("Gemm", "x w", "h", transB=1), node("MatMul", "h w", "y")]
    variant = build(nodes, [weight("w", 32, 32)], ("batch", 32), ("batch", 32))
    quantized = QuantizeWeights(bits=8)(variant)
    x = probe(variant, 3)["x"]
    np.testing.assert_allclose(answers(quantized, x), answers(variant, x), atol=0.1)
    assert "transposed" in quantization_report(quantized).left["y"]


def float_reference(quantized, x):
    """x · ŵ in float64, ŵ as the file says."""
    graph = Graph(open_graph(quantized.payload))
    dequantize = next(each for each in graph.nodes if each.op_type == "DequantizeLinear")
    q, scale = (graph.constant(name) for name in dequantize.input[:2])
    return x.astype(np.float64) @ (q.astype(np.float64) * scale)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("engine", ENGINES)
def test_activations_are_not_rounded_in_secret(engine, bits):
    quantized = QuantizeWeights(bits=bits)(dense(64, 48))
    x = probe(quantized, 5)["x"]
    assert np.abs(answers(quantized, x, engine) - float_reference(quantized, x)).max() < 1e-5


def test_left_to_themselves_both_engines_round_them():
    """The negative control of the test above, and why the runtimes say what they say."""
    quantized = QuantizeWeights(bits=8)(dense(64, 48))
    x = probe(quantized, 5)["x"]
    expected = float_reference(quantized, x)
    by_default = ort.InferenceSession(quantized.payload, providers=["CPUExecutionProvider"]).run(
        None, {"x": x}
    )
    assert np.abs(by_default[0] - expected).max() > 1e-3
    told = get_runtime("onnxruntime").settings(RunOptions())
    assert told["session.qdq_matmulnbits_accuracy_level"] == "1"
    openvino = get_runtime("openvino")
    in_float32, in_bfloat16 = (openvino.settings(RunOptions(precision=p)) for p in openvino.precisions)
    assert in_float32["DYNAMIC_QUANTIZATION_GROUP_SIZE"] == 0
    assert "DYNAMIC_QUANTIZATION_GROUP_SIZE" not in in_bfloat16
    if openvino.is_available().ok:
        core = openvino.engine().Core()
        hint = {"INFERENCE_PRECISION_HINT": "f32"}
        found = core.compile_model(core.read_model(quantized.payload), "CPU", hint)(x)[0]
        assert np.abs(found - expected).max() > 1e-3


# --- models of any user -----------------------------------------------------------------------------


@pytest.mark.parametrize(("opset", "ir_version"), [(11, 6), (13, 7), (18, 9), (21, 10)])
@pytest.mark.parametrize("bits", [4, 8])
def test_the_opset_is_raised_only_where_four_bits_need_it(opset, ir_version, bits):
    variant = small_cnn(opset, ir_version)
    quantized = QuantizeWeights(bits=bits)(variant)
    model = onnx.load_model_from_string(quantized.payload)
    onnx.checker.check_model(model, full_check=True)
    found = model.opset_import[0].version
    assert found >= 21 if bits == 4 else found == max(opset, 18 if opset < 13 else 0)
    assert quantization_report(quantized).quantized == 3


def with_foreign_operator(opset=18):
    variant = build(
        [node("MatMul", "x w1", "h"), node("Relu", "h", "r"), node("MatMul", "r w2", "y")],
        [weight("w1", 32, 64), weight("w2", 64, 10)],
        ("batch", 32),
        opset=opset,
    )
    model = onnx.load_model_from_string(variant.payload)
    model.graph.node[1].CopyFrom(helper.make_node("Gelu", ["h"], ["r"], domain="com.microsoft"))
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return dataclasses.replace(variant, model=model.SerializeToString())


def test_an_operator_of_a_foreign_domain_is_carried_over():
    variant = with_foreign_operator()
    quantized = QuantizeWeights(bits=4, granularity="per_group")(variant)
    x = probe(variant, 4)["x"]
    a, b = answers(variant, x), answers(quantized, x)
    assert 0 < np.abs(a - b).max() < 0.3 * np.abs(a).max()


def test_where_onnx_cannot_raise_the_opset_it_is_said(monkeypatch):
    def fail(model, version):
        raise RuntimeError("no adapter for Gelu of my.domain")

    monkeypatch.setattr(onnx.version_converter, "convert_version", fail)
    with pytest.raises(TechniqueError, match=r"from 18 \(no adapter for Gelu.*export it again with opset 21"):
        QuantizeWeights(bits=4)(with_foreign_operator())
    QuantizeWeights(bits=8)(with_foreign_operator())
    QuantizeWeights(bits=5)(with_foreign_operator())


@pytest.mark.parametrize("batch", [1, 4])
def test_a_fixed_batch_is_taken_as_it_is(batch):
    variant = small_cnn(batch=batch)
    quantized = QuantizeWeights(bits=8)(variant, data_for(variant))
    assert quantized.inputs[0].shape[0] == batch and quantization_report(quantized).quantized == 3


def test_layers_that_share_a_weight_store_it_once():
    nodes = [node("Gemm", "x w b1", "h"), node("Relu", "h", "r"), node("Gemm", "r w b2", "y")]
    constants = [weight("w", 32, 32), weight("b1", 32), weight("b2", 32)]
    variant = build(nodes, constants, ("batch", 32), ("batch", 32))
    quantized = QuantizeWeights(bits=8)(variant)
    names = [each.name for each in onnx.load_model_from_string(quantized.payload).graph.initializer]
    assert names.count("w/quantized") == 1 and "w" not in names
    x = probe(variant, 3)["x"]
    np.testing.assert_allclose(answers(quantized, x), answers(variant, x), atol=0.1)


@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
@pytest.mark.parametrize("bits", [4, 8])
def test_convolutions_are_expanded_when_the_file_is_opened_and_not_in_every_run(bits, granularity):
    variant = small_cnn()
    quantized = QuantizeWeights(bits=bits, granularity=granularity)(variant)
    assert kinds(quantized)["Cast"] == 2, "both convolutions, and not the product"
    found = operators(quantized)
    assert found["Conv"] == 2 and not found["Cast"] + found["Mul"]
    assert [each.weight_grid for each in ModelFile(quantized, 1).layers] == [f"int{bits}"] * 3


def test_convolutions_alone_are_not_quantized_again_either():
    variant = pointwise()
    quantized = QuantizeWeights()(variant)
    assert "DequantizeLinear" not in kinds(quantized)
    with pytest.raises(TechniqueError, match="quantized already: start from the float model"):
        QuantizeInt8()(quantized, data_for(variant))


def test_a_group_larger_than_the_channels_is_a_scale_per_channel():
    variant = dense(40, 20)
    group, channel = (
        QuantizeWeights(granularity=each, group_size=64)(variant) for each in ("per_group", "per_channel")
    )
    assert stored(group, "w/scale").shape == stored(channel, "w/scale").shape == (20,)
    within = QuantizeWeights(granularity="per_group", group_size=16)(dense(48, 20))
    assert stored(within, "w/scale").shape == (3, 20)


def test_products_of_activations_stay_float_with_the_reason():
    report = quantization_report(QuantizeWeights(bits=8)(attention()))
    assert (report.quantized, report.layers) == (3, 5) and report.calibration_samples == 0
    assert set(report.left) == {"s", "o"} and "computed" in report.left["s"] and report.drop_pp is None


def test_a_learned_rounding_is_nearer_to_the_float_model():
    variant = FORMS["Gemm, turned"]()
    dataset = data_for(variant)
    x = dataset.split("test").inputs["x"]
    expected = answers(variant, x)
    errors = {
        name: np.square(
            answers(QuantizeWeights(3, rounding=name, max_drop_pp=100.0)(variant, dataset), x) - expected
        )
        for name in ("nearest", "gptq")
    }
    assert errors["gptq"].mean() < 0.9 * errors["nearest"].mean()
