"""Shannon's bound: no code that spends whole symbols can be shorter on average (Shannon 1948).

    H = Σ p · log2(1/p)    bits a symbol, p a symbol's share of the message

A symbol that fills half of the message deserves 1 bit, one that fills a thousandth about 10: the *frequent*
ones get the short codes. H bounds every code that looks at symbols one by one. A coder that also looks at
what stands around them (a context) has another, lower bound: the one of its own probabilities.
"""

from __future__ import annotations

import numpy as np

from labkit.variant import Array


def entropy(counts: Array) -> float:
    """Bits a symbol, of a message in which symbol s occurs counts[s] times; 0 for an empty one. counts: [K]."""
    counts = np.asarray(counts, dtype=np.float64)
    shares = counts[counts > 0] / max(counts.sum(), 1)
    return float(-(shares * np.log2(shares)).sum()) + 0.0


def least_bits(symbols: Array) -> float:
    """The bound for a whole message, in bits: n · H of its own counts. symbols: whole numbers or others, any shape."""
    _, counts = np.unique(symbols, return_counts=True)
    return int(counts.sum()) * entropy(counts)
