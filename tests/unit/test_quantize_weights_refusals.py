"""Weight-only quantization: what must not pass in silence."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from labkit.errors import Cancelled, ConfigError, TechniqueError
from labkit.quantize import Equalize, StoreHalf, quantization_report
from labkit.quantize.dynamic import QuantizeDynamic
from labkit.quantize.gate import Gated, Quantizes
from labkit.quantize.static import QuantizeInt8
from labkit.quantize.weight_only import QuantizeWeights
from tests.graphs import build, constant, data_for, mlp, node, normal


def loud_weight():
    """One weight three thousand times the others, to an output that nobody uses."""
    w = normal("loud", 64, 32)
    w[0] *= 3000
    after = normal("after", 10, 64)
    after[:, 0] = 0
    nodes = [node("Gemm", "x loud", "h", transB=1), node("Gemm", "h after", "y", transB=1)]
    return build(nodes, [constant("loud", w), constant("after", after)], ("batch", 32))


def test_a_collapse_names_the_worst_layer_and_what_to_try():
    variant = loud_weight()
    dataset = data_for(variant)
    with pytest.raises(
        TechniqueError, match="max_drop_pp=10.0. Worst is the weight 'loud'.*Try granularity='per_channel'"
    ):
        QuantizeWeights(bits=8, granularity="per_tensor")(variant, dataset)
    kept = QuantizeWeights(bits=8)(variant, dataset)
    assert quantization_report(kept).drop_pp < 5
    with pytest.raises(TechniqueError, match="Try more bits"):
        QuantizeWeights(bits=2)(variant, dataset)
    assert quantization_report(QuantizeWeights(bits=2)(variant)).drop_pp is None, "nobody looked"


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_a_weight_that_is_not_finite_is_refused_by_name(bad):
    variant = mlp()
    model = onnx.load_model_from_string(variant.payload)
    values = numpy_helper.to_array(model.graph.initializer[0]).copy()
    values[3, 4] = bad
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(values, "w1"))
    with pytest.raises(TechniqueError, match="weight 'w1'.*holds 1 values"):
        QuantizeWeights()(dataclasses.replace(variant, model=model.SerializeToString()))
    QuantizeWeights()(variant)


@pytest.mark.parametrize("first", [QuantizeWeights(), QuantizeDynamic(), QuantizeInt8(max_drop_pp=100.0)])
def test_a_quantized_model_is_not_quantized_again(first):
    variant = mlp()
    done = first(variant, data_for(variant) if first.needs_dataset else None)
    with pytest.raises(TechniqueError, match="quantized already: start from the float model"):
        QuantizeWeights()(done)


def test_nothing_to_quantize_is_refused():
    variant = build([node("Flatten", "x", "f"), node("Relu", "f", "y")], [], outputs=("batch", 768))
    with pytest.raises(TechniqueError, match="no Conv or ConvTranspose or Gemm or MatMul"):
        QuantizeWeights()(variant)


@pytest.mark.parametrize(
    "config",
    [{"bits": 1}, {"bits": 9}, {"group_size": 8}, {"group_size": 48}, {"rounding": "gptp"}],
)
def test_a_knob_out_of_range_names_itself(config):
    with pytest.raises(ConfigError, match=next(iter(config))):
        QuantizeWeights(**config)


def test_a_rounding_that_learns_asks_for_samples():
    with pytest.raises(TechniqueError, match="rounding='gptq' learns from samples: pass a dataset"):
        QuantizeWeights(rounding="gptq")(mlp())


def test_the_same_input_gives_the_same_bytes():
    variant = mlp()
    dataset = data_for(variant)
    for rounding in ("nearest", "adaround"):
        technique = QuantizeWeights(rounding=rounding, max_drop_pp=100.0)
        assert technique(variant, dataset).payload == technique(variant, dataset).payload
    assert QuantizeWeights()(variant).payload != QuantizeWeights(bits=3)(variant).payload


def test_it_can_be_stopped_at_every_report():
    variant = mlp()
    dataset = data_for(variant)
    technique, reports = QuantizeWeights(rounding="gptq", max_drop_pp=100.0), []
    technique(variant, dataset, lambda fraction, message: reports.append(fraction))
    assert reports == sorted(reports) and reports[-1] == 1.0
    for stop_at in (0, len(reports) // 2, len(reports) - 1):
        seen = []

        def stop(fraction, message, seen=seen, stop_at=stop_at):
            seen.append(fraction)
            if len(seen) > stop_at:
                raise Cancelled

        with pytest.raises(Cancelled):
            technique(variant, dataset, stop)
        assert len(seen) == stop_at + 1


def test_every_quantization_passes_the_same_gate():
    assert issubclass(QuantizeWeights, Quantizes) and issubclass(QuantizeDynamic, Quantizes)
    assert issubclass(StoreHalf, Gated) and issubclass(Equalize, Gated) and issubclass(Quantizes, Gated)
