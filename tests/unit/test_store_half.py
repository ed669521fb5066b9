"""StoreHalf: half the bytes, every number rounded once to the nearest, and the same function of those numbers."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper

from labkit.convert import load_onnx
from labkit.errors import Cancelled, ConfigError, TechniqueError
from labkit.onnx_graph.optimize import optimize_graph
from labkit.quantize.arithmetic.floats import BFLOAT16, FLOAT16
from labkit.quantize.dynamic import QuantizeDynamic
from labkit.quantize.half import StoreHalf
from labkit.quantize.weight_only import QuantizeWeights
from labkit.runtimes import get_runtime
from labkit.technique import probe
from tests.graphs import attention, branches, build, constant, data_for, mlp, node, normal, small_cnn, weight

ENGINES = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(not get_runtime(name).is_available().ok, reason=f"needs the extra {name}"),
    )
    for name in ("onnxruntime", "openvino")
]
FORMS = {"float16": FLOAT16, "bfloat16": BFLOAT16}
both = pytest.mark.parametrize("dtype", FORMS)


def answers(variant, x, engine="onnxruntime"):
    with get_runtime(engine).load(variant) as session:
        return session.run({"x": x})["y"]


def tensors(variant):
    return {each.name: each for each in onnx.load_model_from_string(variant.payload).graph.initializer}


def rounded(variant, form):
    """The float model with its large constants rounded, stored as they were: in float32."""
    model = onnx.load_model_from_string(variant.payload)
    held = [node.attribute[0].t for node in model.graph.node if node.op_type == "Constant"]
    for tensor in (*model.graph.initializer, *held):
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.size >= 64:
            tensor.CopyFrom(numpy_helper.from_array(form.round(values), tensor.name))
    return dataclasses.replace(variant, model=model.SerializeToString())


def product(values):
    values = np.asarray(values, np.float32)
    return build(
        [node("MatMul", "x w", "y")],
        [constant("w", values)],
        ("batch", len(values)),
        ("batch", values.shape[1]),
    )


@both
def test_every_number_is_rounded_once_to_the_nearest(dtype):
    values = np.concatenate(
        [np.linspace(-3, 3, 500), [1 + 2**-11, 1 + 2**-9, 1e-7, 6e-8, 6e4, 0.1, 1e-3, 0.0]]
    )
    variant = product(values.reshape(-1, 4))
    stored = tensors(StoreHalf(dtype)(variant))[f"w/{dtype}"]
    assert stored.data_type == getattr(TensorProto, dtype.upper())
    bits = np.frombuffer(stored.raw_data, "<u2")
    expected = torch.tensor(values.astype(np.float32)).to(getattr(torch, dtype)).view(torch.uint16).numpy()
    np.testing.assert_array_equal(bits, expected)
    cut = torch.tensor(values.astype(np.float32)).view(torch.int32).numpy() >> 16
    assert not np.array_equal(bits, cut.astype(np.uint16)), "to cut the bits off is not to round"


@both
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("make", [mlp, small_cnn, branches, attention, lambda: small_cnn(11, 6)])
def test_the_answers_are_those_of_the_rounded_float_model(make, engine, dtype):
    variant = make()
    half = StoreHalf(dtype)(variant)
    onnx.checker.check_model(onnx.load_model_from_string(half.payload), full_check=True)
    x = probe(variant, 3)["x"]
    found, expected = answers(half, x, engine), answers(rounded(variant, FORMS[dtype]), x, engine)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, atol=1e-6 * scale)
    assert np.abs(answers(variant, x, engine) - expected).max() > 1e-5 * scale, "rounding must show"


@both
def test_the_file_is_half_as_large_and_runs_as_before(dtype):
    variant = product(np.random.default_rng(0).standard_normal((128, 128)))
    half = StoreHalf(dtype)(variant)
    assert 0.5 < half.size_bytes / variant.size_bytes < 0.51
    assert optimize_graph(half.payload).operators == optimize_graph(variant.payload).operators


def test_what_is_small_stays_as_it_is():
    variant = build(
        [node("MatMul", "x w", "m"), node("Add", "m b", "y")],
        [weight("w", 16, 10), weight("b", 10)],
        ("batch", 16),
    )
    found = tensors(StoreHalf()(variant))
    assert set(found) == {"w/float16", "b"} and found["b"].data_type == TensorProto.FLOAT


def test_no_small_tensor_makes_the_file_larger():
    """From 64 numbers on a Cast pays; for a few it would not."""
    for count in (64, 65):
        variant = product(np.random.default_rng(0).standard_normal((count, 1)))
        assert StoreHalf()(variant).size_bytes < variant.size_bytes


def test_weights_that_an_old_file_lists_among_its_inputs_are_stored_too():
    variant = mlp()
    model = onnx.load_model_from_string(variant.payload)
    value = onnx.helper.make_tensor_value_info("w1", TensorProto.FLOAT, [32, 64])
    model.graph.input.append(value)
    listed = dataclasses.replace(variant, model=model.SerializeToString())
    half = StoreHalf()(listed)
    x = probe(variant, 3)["x"]
    np.testing.assert_array_equal(answers(half, x), answers(StoreHalf()(variant), x))


def test_the_file_says_the_same_when_it_is_opened_again(tmp_path, onnx_cases):
    variant, dataset = onnx_cases["image"]
    half = StoreHalf()(variant, dataset)
    (tmp_path / "half.onnx").write_bytes(half.payload)
    again = load_onnx(tmp_path / "half.onnx")
    assert again.labels == variant.labels and again.preprocessing == variant.preprocessing
    assert half.size_bytes < 0.52 * variant.size_bytes


# --- what must not pass in silence ------------------------------------------------------------------


def test_a_collapse_is_refused_where_there_are_samples_to_see_it_on():
    """Two outputs that differ in the fourth digit: bfloat16 keeps three."""
    first = normal("w", 32)
    variant = product(np.stack([first, first + 1e-4 * normal("v", 32)], axis=1))
    dataset = data_for(variant)
    told = "store_half costs 'user' .* points on 256 training samples.*max_drop_pp=10.0. Try dtype='float16'"
    with pytest.raises(TechniqueError, match=told):
        StoreHalf(dtype="bfloat16")(variant, dataset)
    assert StoreHalf(dtype="bfloat16")(variant) and StoreHalf(dtype="bfloat16", max_drop_pp=100)(
        variant, dataset
    )


def test_a_number_that_is_too_large_is_refused_by_name():
    values = np.ones((16, 16))
    values[3, 3] = 65519.0  # the last that rounds down to 65,504
    assert StoreHalf()(product(values))
    values[3, 3] = 65520.0
    with pytest.raises(
        TechniqueError, match="'w' of 'user' holds 65520, and float16 ends at 65504: use dtype='bfloat16'"
    ):
        StoreHalf()(product(values))
    assert StoreHalf("bfloat16")(product(values))
    values[3, 3] = np.finfo(np.float32).max
    with pytest.raises(TechniqueError, match="bfloat16 ends at 3.38953e[+]38: leave it in float32"):
        StoreHalf("bfloat16")(product(values))


@both
@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_a_weight_that_is_not_finite_is_refused_by_name(bad, dtype):
    values = np.ones((16, 16))
    values[3, 3] = bad
    with pytest.raises(TechniqueError, match="weight 'w' of 'user' holds 1 values that are NaN or infinite"):
        StoreHalf(dtype)(product(values))


def test_where_there_is_nothing_to_do_it_says_so():
    few = build([node("MatMul", "x w", "y")], [weight("w", 5, 10)], ("batch", 5))
    with pytest.raises(TechniqueError, match="no float32 weights of 64 numbers or more"):
        StoreHalf()(few)
    with pytest.raises(TechniqueError, match="no float32 weights"):
        StoreHalf()(StoreHalf()(mlp()))


@pytest.mark.parametrize("first", [QuantizeWeights(), QuantizeDynamic()])
def test_the_scales_of_a_quantized_model_are_left_alone(first):
    with pytest.raises(TechniqueError, match="quantized already"):
        StoreHalf()(first(mlp()))


def test_a_form_that_does_not_exist_is_refused():
    with pytest.raises(ConfigError, match="StoreHalf.dtype='float8' is unknown"):
        StoreHalf("float8")


def test_the_same_input_gives_the_same_bytes_and_a_stop_is_heard():
    variant = mlp()
    reports = []
    first = StoreHalf()(variant, None, lambda fraction, message: reports.append(fraction))
    assert first.payload == StoreHalf()(variant).payload != StoreHalf("bfloat16")(variant).payload
    assert reports == sorted(reports) and reports[-1] == 1.0 and len(reports) == 4

    def stop(fraction, message):
        raise Cancelled

    with pytest.raises(Cancelled):
        StoreHalf()(variant, None, stop)
