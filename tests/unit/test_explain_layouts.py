"""Explain: a change of layout in memory is not taken for a border between integers and floats, nor the reverse."""

from __future__ import annotations

import pytest

from labkit.explain import CAUSES, profile
from labkit.explain.causes import diagnose
from labkit.explain.layers import ModelFile
from labkit.explain.profile import Operator
from labkit.runtimes import RunOptions, get_runtime
from labkit.technique import probe
from tests.graphs import build, node, weight
from tests.unit.test_explain import chain_variant, evidence, operator


def between(kind: str, share: float) -> Operator:
    return operator("", share, share, kind=kind, name=kind, work="conversion")


def test_changes_of_layout_are_not_taken_for_conversions_of_integers():
    layer = operator("", 0.7, 0.7)
    found = diagnose(evidence(layer, between("ReorderInput", 0.1), between("ReorderOutput", 0.2)))
    assert [each.cause for each in found] == ["layouts"]
    assert found[0].share == pytest.approx(0.3)
    assert "layout" in found[0].says and "ReorderOutput 20%" in found[0].says
    assert "integers" not in found[0].says + found[0].advice
    assert "round_to" in found[0].advice


def test_conversions_of_numbers_are_told_apart_from_changes_of_layout():
    layer = operator("", 0.65, 0.65)
    found = diagnose(evidence(layer, between("Cast", 0.2), between("ReorderOutput", 0.15)))
    assert [(each.cause, round(each.share, 3)) for each in found] == [("conversions", 0.2), ("layouts", 0.15)]
    assert "Reorder" not in found[0].says


def test_in_a_quantized_file_changes_of_layout_belong_to_the_borders_of_integers():
    parts = between("QuantizeLinear", 0.2), between("Transpose", 0.1), operator("", 0.7, 0.7)
    found = {
        each.cause: each.share
        for each in diagnose(evidence(*parts, file=ModelFile(chain_variant(int8=True), 1)))
    }
    assert found["conversions"] == pytest.approx(0.3)
    assert "layouts" not in found


@pytest.mark.parametrize("width", [32, 20])
def test_a_float_network_whose_convolutions_leave_their_blocks_is_told_of_layouts(width):
    nodes = [
        node("Conv", "x w", "c", pads=[1] * 4),
        node("MaxPool", "c", "p", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", "p w", "y", pads=[1] * 4),
    ]
    variant = build(nodes, [weight("w", width, width, 3, 3)], (1, width, 8, 8), (1, width, 4, 4))
    file = ModelFile(variant, 1)
    found = profile(variant, probe(variant, 1), get_runtime("onnxruntime"), RunOptions(), file)
    kinds = [each.kind for each in found.operators]
    if "ReorderOutput" not in kinds:
        pytest.skip("this processor's kernels have no blocks of channels")
    assert kinds.count("ReorderOutput") == (1 if width == 32 else 2)
    causes = [cause.__name__ for cause in CAUSES if cause(evidence(*found.operators, file=file)) is not None]
    assert "layouts" in causes and "conversions" not in causes
