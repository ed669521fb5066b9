"""The drawing of a graph: it is valid SVG, shows every layer once, and no arrow runs through a box."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.inspection import Inspection, Layer, TensorInfo, draw_graph
from labkit.inspection.layout import layout, parents_first
from labkit.inspection.sketch import FAMILIES, MOST_BOXES, family_of, sketch

SVG = "{http://www.w3.org/2000/svg}"
WIDTH, GAP = 100.0, 20.0


def layer(name, inputs, operator="Conv"):
    return Layer(name, operator, tuple(inputs), (f"{name}.out",), ("batch", 8), "float32", 10, 20)


def inspection(layers, last=None):
    return Inspection(
        "m.onnx",
        "onnx",
        100,
        inputs=(TensorInfo("image", "float32", ("batch", 8)),),
        outputs=(TensorInfo(last or f"{layers[-1].name}.out", "float32", ("batch", 8)),),
        layers=tuple(layers),
    )


def residual():
    """image → a → b → c → add, and a → add."""
    return inspection(
        [
            layer("a", ["image"]),
            layer("b", ["a.out"], "Relu"),
            layer("c", ["b.out"]),
            layer("add", ["c.out", "a.out"], "Add"),
        ]
    )


def chain(count, branch_every=0):
    layers = [layer("n0", ["image"])]
    for index in range(1, count):
        more = [f"n{index - 2}.out"] if branch_every and index > 1 and index % branch_every == 0 else []
        layers.append(layer(f"n{index}", [f"n{index - 1}.out", *more]))
    return inspection(layers)


def texts(svg):
    return [element.text for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_every_layer_is_drawn_with_operator_name_and_shape():
    svg = draw_graph(residual())
    shown = texts(svg)
    for name in ("a", "b", "c", "add"):
        assert shown.count(name) == 1
    assert shown.count("[batch, 8]") == 6  # four layers, the input and the output
    assert shown.count("Conv") == 2 and "image" in shown and "add.out" in shown


def test_the_drawing_has_a_title_a_description_and_no_script():
    svg = draw_graph(residual())
    root = ElementTree.fromstring(svg)
    assert root.get("role") == "img"
    assert "m.onnx" in root.find(f"{SVG}title").text and "4 layers" in root.find(f"{SVG}desc").text
    assert not re.search(r"<script|<image|href|url\(", svg)


def test_the_legend_names_the_families_that_occur():
    shown = texts(draw_graph(residual()))
    assert {"convolution", "activation", "arithmetic"} <= set(shown) and "quantization" not in shown


def test_names_from_a_file_are_escaped():
    evil = '"><script>alert(1)</script>&\x00\x1b'
    svg = draw_graph(inspection([layer(evil, ["image"], "<b>")], "y"))
    ElementTree.fromstring(svg)
    assert "<script" not in svg and "<b>" not in svg


def test_an_arrow_that_skips_rows_goes_around_the_boxes():
    placed = layout([[], [0], [1], [2], [3, 1]], WIDTH, GAP)
    assert placed.rows == (0, 1, 2, 3, 4)
    assert placed.centres == pytest.approx([0] * 5, abs=0.1)  # the spine is a straight line
    (around,) = [points for points in placed.arrows if not all(boxed for _, _, boxed in points)]
    passing = [x for x, _, boxed in around if not boxed]
    assert len(passing) == 2 and all(abs(x - placed.centres[0]) > WIDTH / 2 for x in passing)


def test_branches_stand_side_by_side_below_their_parent():
    placed = layout([[], [0], [0], [0], [1, 2, 3]], WIDTH, GAP)
    assert placed.rows == (0, 1, 1, 1, 2)
    xs = sorted(placed.centres[1:4])
    assert [right - left for left, right in zip(xs, xs[1:], strict=False)] == pytest.approx([WIDTH + GAP] * 2)
    assert placed.centres[4] == pytest.approx(placed.centres[0]) == pytest.approx(xs[1])


@st.composite
def parent_lists(draw):
    count = draw(st.integers(1, 25))
    return [
        draw(st.lists(st.integers(0, max(box - 1, 0)), max_size=3)) if box else [] for box in range(count)
    ]


@settings(max_examples=150)
@given(parent_lists())
def test_no_two_boxes_touch_no_arrow_meets_a_box_and_every_arrow_is_drawn(parents):
    placed = layout(parents, WIDTH, GAP)
    for box, above in enumerate(parents):
        assert all(placed.rows[parent] < placed.rows[box] for parent in above)
        for other in range(box):
            if placed.rows[other] == placed.rows[box]:
                assert abs(placed.centres[other] - placed.centres[box]) >= WIDTH + GAP - 1e-6
    assert len(placed.arrows) == sum(len(set(above)) for above in parents)
    for points in placed.arrows:
        for x, row, boxed in points:
            rivals = [c for c, r in zip(placed.centres, placed.rows, strict=True) if r == row]
            assert boxed or all(abs(c - x) >= WIDTH / 2 + GAP - 1e-6 for c in rivals)


@settings(max_examples=100)
@given(st.lists(st.lists(st.integers(0, 11), max_size=3), min_size=12, max_size=12))
def test_a_circle_which_a_damaged_file_may_hold_is_cut(parents):
    assert sorted(parents_first(parents)) == list(range(12))
    placed = layout(parents, WIDTH, GAP)
    assert len(placed.rows) == 12


def test_parents_come_first():
    assert parents_first([[2], [0], []]) == [2, 0, 1]


@pytest.mark.parametrize("count", [1, 2, MOST_BOXES])
def test_a_small_graph_has_a_box_for_each_layer(count):
    boxes, _, remark = sketch(chain(count))
    assert (len(boxes), remark) == (count + 2, "")


def test_a_long_chain_shares_boxes_and_says_so():
    boxes, _, remark = sketch(chain(2000))
    assert len(boxes) == 100 + 2 and "2,000 layers" in remark
    svg = draw_graph(chain(2000))
    assert remark in texts(svg) and "Conv and 19 more" in svg


def test_a_graph_too_large_even_so_is_cut_and_says_so():
    boxes, parents, remark = sketch(chain(2000, branch_every=2))
    assert len(boxes) == MOST_BOXES + 1 and re.fullmatch(r"The first [\d,]+ of 2,000 layers; .*", remark)
    assert max(parent for above in parents for parent in above) < len(boxes)
    ElementTree.fromstring(draw_graph(chain(2000, branch_every=2)))


def test_a_file_without_a_graph_is_drawn_too():
    ElementTree.fromstring(draw_graph(Inspection("m.safetensors", "safetensors", 8)))


@pytest.mark.parametrize(
    ("operator", "family"),
    [("Conv", "convolution"), ("CONV_2D", "convolution"), ("aten.conv2d.default", "convolution")]
    + [("DepthwiseConv2dNative", "convolution"), ("Gemm", "product"), ("aten.linear.default", "product")]
    + [("FULLY_CONNECTED", "product"), ("BatchNormalization", "normalization"), ("MaxPool", "pooling")]
    + [("aten.relu.default", "activation"), ("LeakyRelu", "activation"), ("QuantizeLinear", "quantization")]
    + [("AddV2", "arithmetic"), ("Reshape", "other"), ("Mystery", "other")],
)
def test_operators_of_every_format_have_their_family(operator, family):
    assert family_of(operator) == family


def test_each_family_has_a_colour_of_its_own():
    assert len({look.stroke for look in FAMILIES.values()}) == len(FAMILIES)


def test_a_notebook_shows_the_drawing_and_the_table():
    html = residual()._repr_html_()
    assert html.count("<svg") == 1 and "<pre" in html and "multiply-adds" in html
