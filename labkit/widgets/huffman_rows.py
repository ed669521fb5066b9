"""A Huffman tree built by hand: the nodes that there are, the merges so far, and what the codes cost with them.

    forest = Forest({"a": 5, "b": 2, "c": 1}).merge(2, 1)      # c and b become node 3, which occurs 3 times
    forest.merge(3, 0).codes                                   # {"a": "1", "b": "01", "c": "00"}

Whoever merges the two rarest nodes each time has built Huffman's tree. `labkit.encode.huffman` does it by itself.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from labkit.encode.entropy import entropy
from labkit.encode.huffman import code_lengths
from labkit.errors import ConfigError
from labkit.plots import table_html
from labkit.widgets.catalogue import text

FOREST_COLUMNS = ("symbol", "count", "share", "log2(1/share)", "code", "bits", "bits × count")
_MOST_SYMBOLS = 12
_LONGEST_NAME = 20


@dataclass(frozen=True)
class Node:
    """A symbol, or what two nodes were merged into: the `symbols` below it, and how often they occur together."""

    number: int
    symbols: tuple[str, ...]
    count: int
    children: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """Its symbols in one short text."""
        joined = "+".join(self.symbols)
        if len(self.symbols) == 1 or len(joined) <= _LONGEST_NAME:
            return joined
        return text("huffman.many", first=self.symbols[0], count=len(self.symbols) - 1)


@dataclass(frozen=True)
class Forest:
    """Symbols with how often each occurs, and `steps`: the two nodes that each merge took, left then right.

    The K symbols are the nodes 0 … K − 1, and the n-th merge makes the node K + n. Raises ConfigError for fewer than
    2 symbols, more than can be drawn, a count below 1, or a step that takes a node which is no root.
    """

    counts: Mapping[str, int]
    steps: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        if not 2 <= len(self.counts) <= _MOST_SYMBOLS:
            raise ConfigError(f"{len(self.counts)} symbols make no tree to draw; give 2 to {_MOST_SYMBOLS}")
        if any(count < 1 for count in self.counts.values()):
            raise ConfigError("every symbol must occur: leave out those whose count is 0")
        alive = set(range(len(self.counts)))
        for made, (left, right) in enumerate(self.steps, len(self.counts)):
            if left == right or not {left, right} <= alive:
                raise ConfigError(
                    f"nodes {left} and {right} cannot be merged; there are {sorted(alive)}: take two of them"
                )
            alive = alive - {left, right} | {made}

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes, by number."""
        made = [Node(number, (name,), count) for number, (name, count) in enumerate(self.counts.items())]
        for step in self.steps:
            left, right = (made[number] for number in step)
            made.append(Node(len(made), left.symbols + right.symbols, left.count + right.count, step))
        return tuple(made)

    @property
    def roots(self) -> tuple[Node, ...]:
        """The nodes that nothing was made of yet, each where its first symbol was; one when it is done."""
        merged = {number for step in self.steps for number in step}
        place = {name: index for index, name in enumerate(self.counts)}
        found = [node for node in self.nodes if node.number not in merged]
        return tuple(sorted(found, key=lambda node: min(place[name] for name in node.symbols)))

    @property
    def is_done(self) -> bool:
        """Whether all symbols hang on one node."""
        return len(self.steps) == len(self.counts) - 1

    @property
    def codes(self) -> dict[str, str]:
        """Symbol → its way down from the root that it hangs on so far: 0 is left, 1 is right."""
        ways, nodes = {node.number: "" for node in self.roots}, self.nodes
        for node in reversed(nodes):
            for digit, child in zip("01", node.children, strict=False):
                ways[child] = ways[node.number] + digit
        return {name: ways[number] for number, name in enumerate(self.counts)}

    @property
    def total(self) -> int:
        """Symbols in the message."""
        return sum(self.counts.values())

    @property
    def message_bits(self) -> int:
        """What the message takes with the codes so far: each merge gave one bit more to all symbols below it."""
        return sum(node.count for node in self.nodes if node.children)

    @property
    def mean_bits(self) -> float:
        """The mean length of a code so far, in bits a symbol."""
        return self.message_bits / self.total

    @property
    def best_bits(self) -> float:
        """The same for Huffman's codes: no other tree has less."""
        counts = list(self.counts.values())
        return float((code_lengths(counts) * counts).sum()) / self.total

    @property
    def entropy(self) -> float:
        """Shannon's bound, in bits a symbol."""
        return entropy(np.array(list(self.counts.values())))

    @property
    def fixed_bits(self) -> int:
        """What every symbol takes if all codes are equally long."""
        return math.ceil(math.log2(len(self.counts)))

    def merge(self, left: int, right: int) -> Forest:
        """The forest after one more merge."""
        return dataclasses.replace(self, steps=(*self.steps, (left, right)))

    def rarest(self) -> tuple[Node, Node]:
        """The two roots that occur least: whom Huffman would merge next."""
        first, second, *_ = sorted(self.roots, key=lambda node: node.count)
        return first, second

    def slips(self) -> dict[int, tuple[Node, Node]]:
        """Which merges did not take two of the rarest: the node that was made → the two that Huffman would take."""
        found, now = {}, Forest(self.counts)
        for step in self.steps:
            taken = sorted(now.nodes[number].count for number in step)
            rarest = now.rarest()
            now = now.merge(*step)
            if taken != [node.count for node in rarest]:  # of equally rare ones, any will do
                found[len(now.nodes) - 1] = rarest
        return found


def forest_says(forest: Forest) -> str:
    """How far the tree is, whether the last merge was Huffman's, and what the codes cost; in a sentence or two."""
    figures = {
        "mean": forest.mean_bits,
        "best": forest.best_bits,
        "entropy": forest.entropy,
        "fixed": forest.fixed_bits,
        "more": forest.mean_bits - forest.best_bits,
        "roots": len(forest.roots),
    }
    slips, last = forest.slips(), forest.nodes[-1].number
    said = []
    if last in slips:
        first, second = slips[last]
        said.append(
            text("huffman.slip", first=first.name, second=second.name, one=first.count, other=second.count)
        )
    elif forest.steps and not forest.is_done:
        said.append(text("huffman.right"))
    if not forest.is_done:
        said.append(text("huffman.open", **figures))
    elif round(figures["more"] * forest.total) > 0:
        said.append(text("huffman.worse", **figures))
    else:
        said.append(text("huffman.best", **figures))
    return " ".join(said)


def forest_table(forest: Forest) -> str:
    """An HTML table with FOREST_COLUMNS: each symbol with its code so far, and all together."""
    codes = forest.codes
    rows: list[dict[str, object]] = [
        {
            "symbol": name,
            "count": count,
            "share": f"{count / forest.total:.1%}",
            "log2(1/share)": math.log2(forest.total / count),
            "code": codes[name] or "–",
            "bits": len(codes[name]),
            "bits × count": len(codes[name]) * count,
        }
        for name, count in forest.counts.items()
    ]
    whole = {
        "symbol": text("grid.all"),
        "count": forest.total,
        "log2(1/share)": forest.entropy,
        "bits": forest.mean_bits,
        "bits × count": forest.message_bits,
    }
    return table_html([*rows, whole], FOREST_COLUMNS) + f"<p>{text('huffman.note')}</p>"
