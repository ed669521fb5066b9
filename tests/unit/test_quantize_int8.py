"""QuantizeInt8: real integers in the runtimes, the accuracy kept, and no silent failure."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from labkit.convert import ExportOnnx, load_onnx
from labkit.errors import TechniqueError
from labkit.measure.quality import evaluate
from labkit.onnx_graph import Graph
from labkit.quantize import QuantizeInt8, quantization_report
from labkit.runtimes import get_runtime
from labkit.train import fresh_variant
from labkit.zoo import load_model
from tests.graphs import data_for, mlp
from tests.quantized import ENGINES, operators


@pytest.fixture(scope="module", params=["lenet5@digits", "resnet20@digits"])
def pair(request, digits):
    """(the exported float model, the same in int8)."""
    exported = ExportOnnx()(load_model(request.param), digits)
    return exported, QuantizeInt8()(exported, digits)


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


def test_a_quantized_model_is_not_quantized_again(pair, digits):
    with pytest.raises(TechniqueError, match="quantized already"):
        QuantizeInt8()(pair[1], digits)


# --- laid out for an engine -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vit(digits):
    """(a small transformer that nobody trained, in int8 for ONNX Runtime, for OpenVINO)."""
    fresh = fresh_variant({"architecture": "vit", "hidden": 48, "depth": 2, "patch": 4}, digits)
    exported = ExportOnnx()(fresh, digits)
    made = [QuantizeInt8(max_drop_pp=100.0, runtime=each)(exported, digits) for each in ENGINES]
    return exported, *made


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
