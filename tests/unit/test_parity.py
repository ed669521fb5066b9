"""Parity: small differences pass, real ones do not, and the report says where they are."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from labkit.convert import parity, tolerance
from labkit.errors import ConfigError, ParityError
from labkit.runtimes import RunOptions, get_runtime
from labkit.technique import probe
from labkit.variant import TensorSpec, Variant


def affine(scale: float, shift: float = 0.0, batch: int | str = "batch", width: int = 4) -> Variant:
    """y = scale · x + shift, as ONNX."""
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "scale"], ["s"]), helper.make_node("Add", ["s", "shift"], ["y"])],
        "affine",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, width])],
        [numpy_helper.from_array(np.float32(v), n) for n, v in (("scale", scale), ("shift", shift))],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    spec = [TensorSpec(name, "float32", (batch, width)) for name in ("x", "y")]
    return Variant(f"affine {scale}", "onnx", model.SerializeToString(), (spec[0],), (spec[1],))


def test_a_model_equals_itself():
    report = parity(affine(2.0), affine(2.0)).check(1e-12)
    assert (report.max_abs_error, report.max_rel_error, report.top1_agreement) == (0.0, 0.0, 1.0)


@pytest.mark.parametrize("factor", [1.0001, 1.01, 2.0, -1.0])
def test_the_relative_error_is_that_of_the_output_s_own_scale(factor):
    report = parity(affine(3.0), affine(3.0 * factor))
    assert report.max_rel_error == pytest.approx(abs(factor - 1), rel=1e-2)


def test_a_planted_error_is_refused_with_the_table():
    report = parity(affine(1.0), affine(1.0, shift=0.01))
    assert report.check(0.1) is report
    with pytest.raises(ParityError, match=r"'affine 1.0'.*exceeds the tolerance 0.0001.*batch"):
        report.check(tolerance("float32"))


def test_nan_in_one_of_them_is_refused():
    with pytest.raises(ParityError, match="nan"):
        parity(affine(1.0), affine(float("nan"))).check(1.0)


def test_a_turned_order_of_logits_is_seen():
    assert parity(affine(1.0), affine(-1.0)).top1_agreement < 0.5


def test_a_regression_has_no_top1():
    first = dataclasses.replace(affine(1.0), task="regression")
    report = parity(first, affine(1.0))
    assert report.top1_agreement is None and "–" in report.table()


def test_a_fixed_batch_is_compared_at_that_size_only():
    report = parity(affine(1.0, batch=2), affine(1.0))
    assert [row.batch_size for row in report.rows] == [2]


def test_outputs_of_another_shape_are_refused():
    model = onnx.load_model_from_string(affine(1.0).payload)
    model.graph.node[1].output[0] = "half"
    model.graph.node.append(helper.make_node("Concat", ["half", "half"], ["y"], axis=1))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 8
    with pytest.raises(ParityError, match=r"\(1, 4\), in the other \(1, 8\)"):
        parity(affine(1.0), dataclasses.replace(affine(1.0), model=model.SerializeToString()))


def test_a_model_that_cannot_take_a_batch_is_named():
    model = onnx.load_model_from_string(affine(1.0).payload)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.ones((3, 1), np.float32), "scale"))
    frozen = dataclasses.replace(affine(1.0), name="frozen", model=model.SerializeToString())
    with pytest.raises(ParityError, match="'frozen' fails at batch 7"):
        parity(affine(1.0), frozen, batches=(3, 7))


def test_ready_feeds_of_any_name_may_be_given():
    feeds = probe(affine(1.0), batch_size=11)
    assert parity(affine(1.0), affine(1.0), feeds).max_abs_error == 0


def test_real_samples_come_through_each_variant_s_own_preprocessing(onnx_cases):
    variant, dataset = onnx_cases["image"]
    other = dataclasses.replace(variant, preprocessing={})
    with pytest.raises(Exception, match="dtype"):
        parity(variant, other, dataset)


def test_another_runtime_and_precision_may_run_the_other(cases):
    variant, dataset = cases["image"]
    options = RunOptions(precision="bfloat16")
    report = parity(variant, variant, dataset, runtime=get_runtime("torch"), options=options)
    assert tolerance("float32") < report.max_rel_error <= tolerance("bfloat16")


def test_an_unknown_precision_is_refused():
    with pytest.raises(ConfigError, match="float32"):
        tolerance("float33")
