"""A Huffman tree drawn as it grows: the symbols at the bottom, each merge a node above the two that it took."""

from __future__ import annotations

from labkit.widgets import svg
from labkit.widgets.catalogue import text
from labkit.widgets.huffman_rows import Forest, Node, forest_says
from labkit.widgets.svg import Axis

WIDTH = 780
_SIDE, _TOP = 16, 26
_STEP = 44  # between a node and the one above it
_RADIUS = 20
_LEAF_HEIGHT, _LEAF_WIDTH = 40, 84
_GAUGE = 66  # below the codes: the lengths as a bar


def draw_forest(forest: Forest, chosen: int = -1) -> str:
    """An SVG document of a tree in the making, and of its mean code length beside Shannon's bound.

    chosen: the number of a root to mark, −1 for none.
    """
    leaves = [number for root in forest.roots for number in _leaves(forest.nodes, root)]
    room = (WIDTH - 2 * _SIDE) / len(leaves)
    bottom = _TOP + (len(leaves) - 1) * _STEP + 20
    places: dict[int, tuple[float, float]] = {
        number: (_SIDE + (index + 0.5) * room, bottom) for index, number in enumerate(leaves)
    }
    heights = dict.fromkeys(leaves, 0)
    for node in forest.nodes[len(leaves) :]:
        left, right = node.children
        heights[node.number] = 1 + max(heights[left], heights[right])
        middle = (places[left][0] + places[right][0]) / 2
        places[node.number] = middle, bottom - 8 - heights[node.number] * _STEP
    parts: list[str] = []
    for node in forest.nodes[len(leaves) :]:
        for digit, child in zip("01", node.children, strict=True):
            parts += _branch(places[node.number], places[child], digit)
    roots, slips, codes = {root.number for root in forest.roots}, forest.slips(), forest.codes
    for node in forest.nodes:
        style = _style(node.number in roots, node.number == chosen)
        if node.children:
            parts += _draw_merged(node, places[node.number], style, node.number in slips)
        else:
            parts += _draw_leaf(node, places[node.number], min(room - 6, _LEAF_WIDTH), style)
            below = bottom + _LEAF_HEIGHT + 18
            parts.append(
                svg.words(places[node.number][0], below, codes[node.symbols[0]], "middle", 14, bold=True)
            )
    parts += _draw_gauge(forest, bottom + _LEAF_HEIGHT + 44)
    told = [forest_says(forest), *(_tell(forest, node) for node in forest.nodes)]
    height = bottom + _LEAF_HEIGHT + 44 + _GAUGE
    return svg.document(WIDTH, height, text("huffman.title"), " ".join(told), parts)


def _leaves(nodes: tuple[Node, ...], root: Node) -> list[int]:
    """The symbols below a node, from left to right."""
    if not root.children:
        return [root.number]
    return [leaf for child in root.children for leaf in _leaves(nodes, nodes[child])]


def _style(is_root: bool, is_chosen: bool) -> str:
    """The rim: thick and orange for the chosen one, dark for what can be merged, grey for what has been."""
    color = svg.ORANGE if is_chosen else svg.DARK if is_root else svg.GREY
    return f'stroke="{color}" stroke-width="{4 if is_chosen else 2 if is_root else 1}"'


def _branch(above: tuple[float, float], below: tuple[float, float], digit: str) -> list[str]:
    (x1, y1), (x2, y2) = above, below
    x, y = x1 + 0.5 * (x2 - x1), y1 + 0.5 * (y2 - y1)
    aside = -9 if digit == "0" else 9
    return [
        svg.line(x1, y1, x2, y2, svg.GREY, 1.4),
        svg.words(x + aside, y + 4, digit, "middle", 13, svg.BLUE, bold=True),
    ]


def _draw_leaf(node: Node, place: tuple[float, float], width: float, style: str) -> list[str]:
    x, y = place
    return [
        svg.rect(x - width / 2, y, width, _LEAF_HEIGHT, "#eaf3f9", f'rx="4" {style}'),
        svg.words(x, y + 17, svg.shorten(node.name, max(3, int(width / 7))), "middle", bold=True),
        svg.words(x, y + 33, f"{node.count:,}", "middle", 11),
    ]


def _draw_merged(node: Node, place: tuple[float, float], style: str, is_slip: bool) -> list[str]:
    x, y = place
    parts = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{_RADIUS}" fill="#fff" {style}/>']
    parts.append(svg.words(x, y + 4, f"{node.count:,}", "middle", 11, bold=True))
    if is_slip:
        mark = text("huffman.slip.mark")
        parts.append(svg.words(x + _RADIUS + 4, y - 10, mark, size=11, color=svg.VERMILLION, bold=True))
    return parts


def _draw_gauge(forest: Forest, top: float) -> list[str]:
    """The mean length so far as a bar from 0, with a line at Shannon's bound and one at Huffman's length."""
    axis = Axis(0, max(forest.fixed_bits, forest.mean_bits, 1) * 1.04, _SIDE, WIDTH - _SIDE)
    bound, best = axis(forest.entropy), axis(forest.best_bits)
    label = text("huffman.gauge", mean=forest.mean_bits)
    return [
        svg.words(_SIDE, top + 8, label, bold=True),
        svg.rect(_SIDE, top + 16, axis.end - axis.start, 14, "#fff", f'stroke="{svg.GREY}"'),
        svg.rect(_SIDE, top + 16, axis(forest.mean_bits) - _SIDE, 14, svg.BLUE),
        svg.line(bound, top + 10, bound, top + 38, svg.VERMILLION, 2.5),
        svg.words(
            bound - 6,
            top + 50,
            text("huffman.gauge.bound", entropy=forest.entropy),
            "end",
            color=svg.VERMILLION,
        ),
        svg.line(best, top + 10, best, top + 38, svg.GREEN, 2.5, "5 3"),
        svg.words(best + 6, top + 50, text("huffman.gauge.best"), color=svg.GREEN),
    ]


def _tell(forest: Forest, node: Node) -> str:
    if node.children:
        left, right = (forest.nodes[child].name for child in node.children)
        return text("huffman.told.merged", left=left, right=right, count=node.count)
    return text("huffman.told", name=node.name, count=node.count, code=forest.codes[node.symbols[0]] or "–")
