"""Huffman's code: the shortest that gives every symbol a whole number of bits (Huffman 1952).

Take the two rarest symbols, make them the branches 0 and 1 of a node that occurs as often as both together,
and repeat until one node is left. A symbol's code is the way to it, so the frequent ones, which were joined
last, have the short codes. With H = Σ p · log2(1/p), Shannon's bound, the mean length lies in H ≤ L < H + 1.

Only the *lengths* of the codes are stored: a canonical code counts upwards within each length, so the lengths
say it all.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from labkit.errors import ConfigError, ModelFileError
from labkit.variant import Array

LONGEST = 32
"""The longest code that is written or read, in bits."""


@dataclass(frozen=True)
class Merge:
    """One step of the building: the symbols below the two rarest nodes, and how often each of the two occurs."""

    left: tuple[int, ...]
    right: tuple[int, ...]
    left_count: int
    right_count: int


def merges(counts: Sequence[int] | Array) -> list[Merge]:
    """The steps that build the tree: one fewer than there are symbols that occur. counts: [K], how often each does.

    Of nodes that are equally rare, the one with the smallest first symbol goes first, so that the tree is the
    same everywhere.
    """
    nodes: list[tuple[int, tuple[int, ...]]] = [
        (int(count), (symbol,)) for symbol, count in enumerate(counts) if count > 0
    ]
    heapq.heapify(nodes)
    steps = []
    while len(nodes) > 1:
        left_count, left = heapq.heappop(nodes)
        right_count, right = heapq.heappop(nodes)
        steps.append(Merge(left, right, left_count, right_count))
        heapq.heappush(nodes, (left_count + right_count, left + right))
    return steps


def code_lengths(counts: Sequence[int] | Array) -> Array:
    """The length of each symbol's code in bits, 0 for one that never occurs; a lone symbol takes 1 bit. [K] → [K].

    Raises ConfigError where a code would be longer than LONGEST, which takes millions of symbols, some very rare.
    """
    lengths = (np.asarray(counts) > 0).astype(np.int64)
    if lengths.sum() > 1:
        lengths[:] = 0
        for step in merges(counts):
            lengths[list(step.left + step.right)] += 1
    if lengths.max(initial=0) > LONGEST:
        raise ConfigError(f"a code of {lengths.max()} bits is longer than {LONGEST}: group the rare symbols")
    return lengths


def canonical_codes(lengths: Array) -> list[str]:
    """Each symbol's code as a text of 0 and 1, "" for a length of 0: ordered by length, then by symbol, counted up.

    canonical_codes([2, 1, 2]) → ["10", "0", "11"]. Raises ModelFileError for lengths that no code can have.
    """
    order, starts = _order(lengths)
    codes = [""] * len(lengths)
    for symbol, start in zip(order.tolist(), starts.tolist(), strict=True):
        codes[symbol] = format(start, f"0{LONGEST}b")[: int(lengths[symbol])]
    return codes


def encode(symbols: Array, lengths: Array) -> bytes:
    """The symbols' codes one after the other, then zeros up to a whole byte. symbols: [n] whole numbers below K."""
    codes = np.array(canonical_codes(lengths), dtype=object)
    used = np.unique(symbols)
    if used.size and (used[0] < 0 or used[-1] >= len(codes) or (np.asarray(lengths)[used] == 0).any()):
        raise ConfigError(
            "a symbol that occurs has no code: make the lengths from the counts of this message"
        )
    bits = np.frombuffer("".join(codes[symbols]).encode(), np.uint8) - ord("0")
    return np.packbits(bits).tobytes()


def decode(data: bytes, lengths: Array, count: int) -> Array:
    """The first `count` symbols of an encoded message: int64 [count].

    Looks at the LONGEST bits after *every* bit at once and asks which code they begin with; then walks from code
    to code. Raises ModelFileError for lengths that make no code, a way that is no code, or too few bits.
    """
    order, starts = _order(lengths)
    if count > 8 * len(data) or (count and not len(order)):
        raise ModelFileError(f"{len(data)} bytes cannot hold {count} codes: the coded weights are truncated")
    if not count:
        return np.zeros(0, dtype=np.int64)
    bits = np.unpackbits(np.frombuffer(data + bytes(LONGEST // 8), np.uint8)).astype(np.uint64)
    window = np.zeros(8 * len(data), dtype=np.uint64)
    for place in range(LONGEST):
        window = window << np.uint64(1) | bits[place : place + len(window)]
    entry = np.searchsorted(starts, window, side="right") - 1
    symbol = order[entry]
    step = np.asarray(lengths, dtype=np.int64)[symbol]
    step[window - starts[entry] >> (np.uint64(LONGEST) - step.astype(np.uint64)) > 0] = (
        0  # a way that is no code
    )
    found, at, steps = [], 0, step.tolist()
    for _ in range(count):
        if at >= len(steps) or not steps[at]:
            raise ModelFileError("the bits are no code of this table: the coded weights are damaged")
        found.append(at)
        at += steps[at]
    if at > len(steps):
        raise ModelFileError("the last code is cut off: the coded weights are truncated")
    return symbol[found].astype(np.int64)


def _order(lengths: Array) -> tuple[Array, Array]:
    """The symbols in the order of their codes, and each code with zeros after it up to LONGEST bits."""
    lengths = np.asarray(lengths, dtype=np.int64)
    if ((lengths < 0) | (lengths > LONGEST)).any():
        raise ModelFileError(f"a code's length must lie in 0 … {LONGEST}: the table is damaged")
    used = np.flatnonzero(lengths)
    order = used[np.argsort(lengths[used], kind="stable")]
    sizes = 2 ** (LONGEST - lengths[order])  # how many of all 2^LONGEST windows begin with this code
    if sum(sizes.tolist()) > 2**LONGEST:
        raise ModelFileError("these lengths make no code (Kraft's sum is above 1): the table is damaged")
    return order, (np.cumsum(sizes) - sizes).astype(np.uint64)
