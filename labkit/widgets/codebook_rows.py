"""What a codebook of so many values does to a tensor: the error, and the bits that each weight then takes.

    sharing = share_weights(weights, 8, "linear")
    sharing.error, sharing.entropy, sharing.huffman_bits, sharing.fixed_bits

The k-means is `labkit.encode.kmeans`', as in ClusterWeights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from labkit.encode.entropy import entropy
from labkit.encode.huffman import code_lengths
from labkit.encode.kmeans import exact, lloyd, nearest
from labkit.errors import ConfigError
from labkit.plots import table_html
from labkit.variant import Array
from labkit.widgets.catalogue import text

STARTS: Mapping[str, Callable[[Array, int], Array]] = {"linear": lloyd, "exact": exact}
SHARING_COLUMNS = ("value", "from", "to", "weights", "share", "code bits")
FEWEST_LEVELS, MOST_LEVELS = 2, 16
MOST_WEIGHTS = 4096
"""More take too long while a slider moves: the best codebook there is costs n² steps for every value."""


@dataclass(frozen=True, eq=False)
class Sharing:
    """A tensor's weights [n], ascending, and the values [k], ascending, that they share.

    levels: how many values were asked for; k is less where a cluster stayed empty. entries: int64 [n], the value that
    each weight becomes.
    """

    levels: int
    weights: Array
    values: Array
    entries: Array

    @property
    def counts(self) -> Array:
        """How many weights each value stands for: int64 [k]."""
        return np.bincount(self.entries, minlength=len(self.values))

    @property
    def error(self) -> float:
        """The squared error, as a share of the weights' squares."""
        errors = self.values[self.entries] - self.weights
        return float((errors**2).sum() / (self.weights**2).sum())

    @property
    def fixed_bits(self) -> int:
        """Bits of an entry if all take the same."""
        return math.ceil(math.log2(len(self.values)))

    @property
    def code_bits(self) -> Array:
        """The length of each entry's Huffman code: int64 [k]."""
        return code_lengths(self.counts)

    @property
    def huffman_bits(self) -> float:
        """The mean length of a Huffman code, in bits a weight."""
        return float((self.code_bits * self.counts).sum() / len(self.weights))

    @property
    def entropy(self) -> float:
        """Shannon's bound, in bits a weight."""
        return entropy(self.counts)

    @property
    def edges(self) -> Array:
        """Where one value's weights end and the next one's begin: float64 [k − 1]."""
        return (self.values[1:] + self.values[:-1]) / 2


def share_weights(weights: ArrayLike, levels: int, start: str = "linear") -> Sharing:
    """k-means of the weights that are not zero, from evenly spaced values ("linear") or the best there is ("exact").

    weights: any shape; zeros stay out, as in ClusterWeights. Raises ConfigError for more than MOST_WEIGHTS, fewer
    than two different ones, levels outside 2 … 16, or another start.
    """
    flat = np.sort(np.asarray(weights, dtype=np.float64).ravel())
    flat = flat[flat != 0]
    if not (flat.size and np.isfinite(flat).all() and flat[0] < flat[-1] and flat.size <= MOST_WEIGHTS):
        raise ConfigError(
            f"{flat.size} weights cannot be shown: give 2 to {MOST_WEIGHTS} that are finite and differ, such as "
            "those of a small layer"
        )
    if not FEWEST_LEVELS <= levels <= MOST_LEVELS:
        raise ConfigError(
            f"levels={levels} is out of range; allowed: {FEWEST_LEVELS} ≤ levels ≤ {MOST_LEVELS}"
        )
    if start not in STARTS:
        raise ConfigError(f"start={start!r} is unknown; choose one of {', '.join(STARTS)}")
    values = STARTS[start](flat, levels)
    return Sharing(levels, flat, values, nearest(flat, values))


def sweep_levels(weights: ArrayLike) -> dict[int, Sharing]:
    """Levels → what they do, for all from 2 to 16, each from evenly spaced values."""
    return {levels: share_weights(weights, levels) for levels in range(FEWEST_LEVELS, MOST_LEVELS + 1)}


def sharing_says(sharing: Sharing) -> str:
    """The figures in a sentence."""
    return text(
        "codebook.says",
        levels=len(sharing.values),
        weights=len(sharing.weights),
        error=sharing.error,
        fixed=sharing.fixed_bits,
        huffman=sharing.huffman_bits,
        entropy=sharing.entropy,
    )


def sharing_table(sharing: Sharing) -> str:
    """An HTML table with SHARING_COLUMNS: each value, the weights that become it, and all together."""
    ends = np.r_[sharing.weights[0], sharing.edges, sharing.weights[-1]].tolist()
    counts, bits = sharing.counts.tolist(), sharing.code_bits.tolist()
    total = len(sharing.weights)
    rows: list[dict[str, object]] = [
        {
            "value": value,
            "from": ends[index],
            "to": ends[index + 1],
            "weights": counts[index],
            "share": f"{counts[index] / total:.1%}",
            "code bits": bits[index],
        }
        for index, value in enumerate(sharing.values.tolist())
    ]
    whole = {"value": text("grid.all"), "weights": total, "code bits": sharing.huffman_bits}
    return table_html([*rows, whole], SHARING_COLUMNS)
