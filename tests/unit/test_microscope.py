"""The microscope: it names the operator that was broken, what it sees it says, and it is silent where all is well."""

from __future__ import annotations

import dataclasses
import functools
import re

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from benchmarks.plants import PLANTS, Planted, converted, models, plant
from labkit.convert import ExportOnnx, ExportPt2, OnnxToOpenVino
from labkit.data import load_dataset
from labkit.errors import ConfigError, ParityError, TechniqueError
from labkit.microscope import MicroscopeReport, microscope, plot_departures, taps
from labkit.microscope.match import agreement
from labkit.technique import probe
from labkit.variant import TensorSpec, Variant

FLOAT_PAIRS = ("ONNX, ONNX", "PyTorch, ONNX", "ONNX, OpenVINO")


def network(*nodes: onnx.NodeProto, name: str = "net", width: int = 6, **constants: np.ndarray) -> Variant:
    """x [N, width] → y, as ONNX."""
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "size"])],
        [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    specs = [TensorSpec(each, "float32", ("batch", width)) for each in ("x", "y")]
    return Variant(name, "onnx", model.SerializeToString(), (specs[0],), (specs[1],), task="regression")


def node(op_type: str, inputs: str, output: str, **attributes) -> onnx.NodeProto:
    return helper.make_node(op_type, inputs.split(), [output], f"{op_type}_{output}", **attributes)


@functools.cache
def looked_at(name: str) -> tuple[Planted, MicroscopeReport]:
    """A plant, and what the microscope says of it."""
    broken = plant(name)
    return broken, microscope(broken.reference, broken.other, load_dataset("digits"))


W = np.random.RandomState(0).standard_normal((6, 6)).astype(np.float32)


def test_there_are_twenty_plants():
    assert len(PLANTS) == 20


@pytest.mark.parametrize("name", PLANTS)
def test_it_names_the_planted_operator(name):
    broken, report = looked_at(name)
    assert report.names(broken.operator), report.says
    assert not report.names("another operator")


@pytest.mark.parametrize("pair", ["PyTorch, ONNX with batch norms", "ONNX, quantized ONNX", *FLOAT_PAIRS])
def test_it_is_silent_where_nothing_was_planted(pair, digits):
    reference, sound = models(pair)
    report = microscope(reference, converted(sound, pair), digits)
    assert report.first is None and "Nothing departs" in report.says
    assert not report.suspects and {row.status for row in report.rows} <= {"equal", "fused away"}


def test_the_reverse_is_named_too(digits):
    broken = plant("ReLU left out")
    report = microscope(broken.other, broken.reference, digits)
    assert report.names(broken.operator) and report.first.change == "put in"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("dilation of 2", r"'dilations' is \[1, 1\] in the reference and \[2, 2\]"),
        ("everything times 1.001", "1.001 times"),
        ("clipped at 1", "Clip in the other. The other clips it: .* lie above 1"),
        ("leaky ReLU", "Where it is above 0 both agree"),
        ("bias missing", "all 16 channels a constant is added: look at the bias"),
        ("two channels exchanged", "Channels 1, 5 of 16 are the reference's in another order"),
        ("one output channel 1 % too large", r"channel 17 of 64 .* factor \(1.01\)"),
        ("batch norm with another epsilon", "epsilon"),
        ("shortcut from elsewhere", "It reads 'relu_4' in the reference and 'relu_2' in the other"),
        ("weights rounded to float16", "float16"),
        ("activations cast to whole numbers", "whole numbers"),
        ("grid of an activation 8 times too short", "clips it"),
    ],
)
def test_it_says_what_kind_of_fault_it_is(name, words):
    _, report = looked_at(name)
    assert re.search(words, report.says), report.says


def test_operators_that_were_folded_are_named_together():
    first = looked_at("kernels turned")[1].first
    assert [each.operator for each in first.reference] == ["conv2d", "batch_norm"]
    assert [each.operator for each in first.other] == ["Conv"]
    assert first.operator.layer == "blocks.8.conv2"


def test_what_was_put_in_has_a_row_of_its_own_before_what_it_spoils():
    broken, report = looked_at("grid of an activation 8 times too short")
    at = [row.operator.node for row in report.rows].index(broken.operator)
    assert report.rows[at].status == "departs" and report.rows[at].snr_db < report.scale.limit_db
    assert "departs" not in {row.status for row in report.rows[:at]}
    behind = [row.status for row in report.rows[at:] if row.status != "departs"]
    assert behind[0] == "after the departure"


def test_all_after_the_departure_is_told_from_all_before():
    _, report = looked_at("dilation of 2")
    states = [row.status for row in report.rows]
    at = states.index("departs")
    assert set(states[:at]) == {"equal"} and set(states[at + 1 :]) == {"after the departure"}
    assert report.rows[at].operator == report.first.operator
    lines = report.table().splitlines()
    assert len(lines) == len(report.rows) + 1 and "departs" in lines[at + 1]


@pytest.mark.parametrize("case", ["image", "two_inputs", "regression"])
def test_a_sound_export_departs_nowhere(case, cases, onnx_cases):
    variant, dataset = cases[case]
    for pair in ((variant, onnx_cases[case][0]), (onnx_cases[case][0], variant)):
        assert microscope(*pair, dataset).first is None
    assert microscope(variant, OnnxToOpenVino()(onnx_cases[case][0]), dataset).first is None


def test_an_exported_program_is_looked_into_too(cases):
    variant, dataset = cases["image"]
    report = microscope(variant, ExportPt2()(variant, dataset), dataset)
    assert report.first is None and all(row.status == "equal" for row in report.rows)


@pytest.mark.parametrize("batch_size", [2, 7])
def test_any_batch_will_do(batch_size, onnx_cases):
    variant, dataset = onnx_cases["image"]
    assert microscope(variant, OnnxToOpenVino()(variant), dataset, batch_size=batch_size).first is None


def test_a_change_that_has_no_effect_is_no_departure():
    """The two scales cancel out, as where weights are equalised: the tensor between them is another one."""
    first = node("MatMul", "x a", "h"), node("MatMul", "h b", "y")
    report = microscope(network(*first, a=W, b=W), network(*first, a=W * 1.5, b=W / 1.5))
    assert report.first is None
    assert [row.status for row in report.rows] == ["equal", "recovers", "equal"]


def test_rounding_that_adds_up_is_blamed_on_nobody():
    """Sixty layers, each of which differs by as little as no single operator is named for."""
    layers = [node("Mul", f"h{i} a{i}" if i else "x a0", f"h{i + 1}") for i in range(60)]
    layers[-1].output[0] = "y"
    factors = {f"a{i}": 1 + W[i % 6] / 4 for i in range(60)}
    more = {name: (factor * (1 + 1e-6)).astype(np.float32) for name, factor in factors.items()}
    report = microscope(network(*layers, **factors), network(*layers, **more))
    assert report.first is None and "little by little" in report.says
    assert "drifts" in {row.status for row in report.rows}


@pytest.mark.parametrize(
    ("sound", "broken", "operator"),
    [
        (node("Softmax", "h", "y", axis=1), node("Softmax", "h", "y", axis=0), "Softmax_y"),
        (node("Concat", "h x", "y", axis=1), node("Concat", "x h", "y", axis=1), "Concat_y"),
        (node("Gemm", "h w", "y"), node("Gemm", "h w", "y", transB=1), "Gemm_y"),
        (node("Relu", "h", "y"), node("Relu", "x", "y"), "Relu_y"),
    ],
)
def test_other_operators(sound, broken, operator):
    before = node("MatMul", "x w", "h")
    report = microscope(network(before, sound, w=W), network(before, broken, w=W))
    assert report.names(operator)
    assert microscope(network(before, sound, w=W), network(before, sound, w=W)).first is None


class Pooled(nn.Module):
    """Pooling at odd sizes, where conventions about borders differ."""

    def __init__(self, **options: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.pool = nn.AvgPool2d(3, 2, 1, **options)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pool(torch.relu(self.conv(x))).flatten(1)


def test_padding_that_is_counted_in_an_average_is_seen_at_the_border():
    def variant(module: nn.Module) -> Variant:
        specs = TensorSpec("x", "float32", ("batch", 1, 11, 11)), TensorSpec("y", "float32", ("batch", 144))
        return Variant("pooled", "torch", module.eval(), specs[:1], specs[1:], task="regression")

    counted, other = variant(Pooled()), variant(Pooled(count_include_pad=False))
    report = microscope(counted, ExportOnnx()(other))
    assert report.first.operator.operator == "avg_pool2d" and "Only the border" in report.says
    assert microscope(counted, ExportOnnx()(counted)).first is None


def test_preprocessing_that_differs_is_seen_at_the_input(onnx_cases):
    variant, dataset = onnx_cases["image"]
    name, own = next(iter(variant.preprocessing.items()))
    brighter = dataclasses.replace(
        variant, preprocessing={name: dataclasses.replace(own, scale=own.scale * 2)}
    )
    report = microscope(variant, brighter, dataset)
    assert report.first.operator.operator == "Input" and report.names(name)


def test_nan_in_the_other_is_told():
    sound = node("MatMul", "x w", "h"), node("Relu", "h", "y")
    bad = W.copy()
    bad[0, 0] = np.nan
    report = microscope(network(*sound, w=W), network(*sound, w=bad))
    assert report.names("MatMul_h") and microscope(network(*sound, w=W), network(*sound, w=W)).first is None


def test_a_result_of_another_shape_is_told():
    before = node("MatMul", "x w", "h")
    report = microscope(
        network(before, node("Concat", "h h", "y", axis=1), w=W),
        network(before, node("Concat", "h h h", "y", axis=1), w=W),
    )
    assert report.names("Concat_y") and "shape [3, 12], in the other [3, 18]" in report.says


def test_taps_come_in_order_and_without_what_depends_on_no_input(onnx_cases):
    for variant, dataset in onnx_cases.values():
        feeds = variant.feeds(dataset.split("train").take(slice(0, 2)).inputs)
        seen: set[str] = set()
        for tap in taps(variant, feeds):
            assert seen.issuperset(tap.inputs) and (tap.inputs or tap.operator == "Input")
            seen.add(tap.name)
        assert {spec.name for spec in (*variant.inputs, *variant.outputs)} <= seen


def test_agreement_sees_through_a_layout_and_not_through_a_transposition():
    x = np.random.RandomState(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
    moved = agreement(x, np.moveaxis(x, 1, -1))
    assert (moved.snr_db, moved.layout) == (np.inf, "channels last")
    assert agreement(x, x.swapaxes(2, 3)).snr_db < 3


def test_agreement_is_the_noise_in_decibel():
    x = np.ones(100)
    assert agreement(x, x * 1.01).snr_db == pytest.approx(40)
    assert agreement(x, x * 1.01).max_rel_error == pytest.approx(0.01)


def test_infinities_that_both_have_are_equal():
    x = np.array([1.0, -np.inf, 2.0])
    assert agreement(x, x).snr_db == np.inf
    assert agreement(x, np.array([1.0, 0.0, 2.0])).snr_db == -np.inf


@pytest.mark.parametrize("name", ["dilation of 2", "activations cast to whole numbers"])
def test_the_figure_says_what_it_shows(name):
    _, report = looked_at(name)
    figure = plot_departures(report)
    assert report.first.operator.title in figure.axes[0].get_title(loc="left")
    assert report.says in str(figure.get_label())
    figure.canvas.draw()


def test_the_figure_of_two_equals_names_nobody():
    sound = network(node("MatMul", "x w", "y"), w=W)
    assert "nothing departs" in plot_departures(microscope(sound, sound)).axes[0].get_title(loc="left")


def test_a_format_without_taps_is_refused(lenet):
    with pytest.raises(TechniqueError, match="cannot look into.*onnx"):
        microscope(lenet, dataclasses.replace(lenet, format="keras"))


def test_models_of_other_inputs_are_refused(cases):
    with pytest.raises(ParityError, match="takes 1 inputs, .* takes 2"):
        microscope(cases["image"][0], cases["two_inputs"][0])


def test_an_empty_batch_is_refused(lenet):
    with pytest.raises(ConfigError, match="batch_size=0"):
        microscope(lenet, lenet, batch_size=0)


def test_ready_feeds_are_taken(lenet):
    assert microscope(lenet, lenet, probe(lenet, 4), batch_size=4).first is None
