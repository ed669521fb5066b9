"""How likely is it that a weight was kept? A logistic regression of five numbers, in whole numbers only.

    log-odds = w₀ + w₁ · row + w₂ · columns + w₃ · cells + w₄ · before

Each of the four is the logarithm of a count: how many weights this row has kept so far, how many were kept in
the columns around, how many around this very cell, and how many the previous layer kept for the unit that this
column comes from. A unit that few weights enter is left by few.

Whoever writes fits the weights to the layer and stores them, one byte each: a tiny model of the model, for a
few bytes that save hundreds. Everything is computed in whole numbers, because the reader must arrive at the very
same probabilities on any machine, and floating-point logarithms differ in their last bits.
"""

from __future__ import annotations

import functools

import numpy as np

from labkit.encode.coder import ONE
from labkit.variant import Array

UNIT = 256
"""Logarithms are to base 2, in whole numbers of 1/UNIT."""
FEATURES = ("everywhere", "row", "columns", "cells", "before")
_LARGEST_COUNT = 2**17
_MOST = 20 * UNIT  # log-odds beyond ±20 bits are treated as ±20
_WEIGHT_UNIT, _BIAS_UNIT = 32, 64  # a weight of 32 is 1; a bias of 1 is 64/256 bits
_SCALE = np.array([_BIAS_UNIT, 1, 1, 1, 1], dtype=np.int32)


@functools.cache
def log_table() -> Array:
    """UNIT · log2(n) for n = 0 … 2^17, rounded; 0 for 0. int32."""
    table: Array = np.round(UNIT * np.log2(np.maximum(np.arange(_LARGEST_COUNT + 1), 1))).astype(np.int32)
    return table


@functools.cache
def probability_table() -> Array:
    """ONE / (1 + 2^(−t / UNIT)) for t = −20 … 20 bits, rounded, within 1 … ONE − 1. int64."""
    t = np.arange(-_MOST, _MOST + 1) / UNIT
    table: Array = np.clip(np.round(ONE / (1 + 2.0**-t)), 1, ONE - 1).astype(np.int64)
    return table


@functools.cache
def spare_table() -> Array:
    """For the same t what a coder asks for: what a zero and a one have of ONE beyond 1 each. float64 [t, 2]."""
    ones = probability_table()
    return np.stack([ONE - ones, ones], axis=1).astype(np.float64) - 1


def log2(counts: Array) -> Array:
    """The logarithm of (2 · count + 1) to base 2 in 1/UNIT, for counts from 0 on. Any shape → int32 of the same."""
    logarithms: Array = log_table().take(2 * counts + 1, mode="clip")
    return logarithms


class Likelihood:
    """The stored weights at work. weights: int8 [phases, F], F of FEATURES in their order; what is left out is 0."""

    def __init__(self, weights: Array) -> None:
        full = np.zeros((len(weights), len(FEATURES)), dtype=np.int32)
        full[:, : weights.shape[1]] = weights
        self._bias, self._row, self._columns, _, self._before = full.T * _SCALE[:, None]
        self._cells = full[:, 3:4] * log2(np.arange(256)) // _WEIGHT_UNIT

    def spare(self, phase: int, row: Array, columns: list[Array], cells: Array) -> Array:
        """What "not kept" and "kept" have of ONE beyond 1 each, cell by cell: float64 [c · r, 2].

        row: int32 [r]; columns: one or two of int32 [c]; cells: [c, r], counts below 256.
        """
        odds = self._cells[phase].take(cells)
        odds += self._row[phase] * row // _WEIGHT_UNIT
        here = self._columns[phase] * columns[0]
        if len(columns) > 1:
            here = here + self._before[phase] * columns[1]
        odds += (here // _WEIGHT_UNIT + self._bias[phase] + _MOST)[:, None]
        spare: Array = spare_table().take(odds.ravel(), axis=0, mode="clip")
        return spare


class Sample:
    """Stands in for a Likelihood that is not known yet, and keeps what it is asked about, to fit one."""

    def __init__(self, phases: int, features: int) -> None:
        self.seen: list[list[Array]] = [[] for _ in range(phases)]
        self._features = features

    def look(self, phase: int, row: Array, columns: list[Array], cells: Array) -> None:
        """Keep what describes these cells."""
        parts = [np.full(cells.shape, UNIT), np.broadcast_to(row, cells.shape)]
        wide = [np.broadcast_to(each[:, None], cells.shape) for each in columns]
        features = [*parts, wide[0], log2(cells), *wide[1:]][: self._features]
        self.seen[phase].append(np.stack([each.ravel() for each in features], axis=1).astype(np.float32))

    def fit(self, kept: list[list[Array]]) -> tuple[Array, float]:
        """The weights under which what was kept is likeliest: int8 [phases, F]; and what it costs then, in bits.

        kept: for every phase, the answers in the order of the questions.
        """
        fitted = [
            _fit(np.concatenate(x) / UNIT, np.concatenate(y)) if x else (None, 0.0)
            for x, y in zip(self.seen, kept, strict=True)
        ]
        some = next(weights for weights, _ in fitted if weights is not None)
        weights = np.stack([some * 0 if each is None else each for each, _ in fitted])
        scale = np.array([UNIT / _BIAS_UNIT] + [_WEIGHT_UNIT] * (weights.shape[1] - 1))
        return np.clip(np.round(weights * scale), -128, 127).astype(np.int8), sum(cost for _, cost in fitted)


def _fit(x: Array, y: Array) -> tuple[Array, float]:
    """Newton's method on the log-likelihood, with a little weight decay; a step that would make it worse is halved.

    x: [n, F] in bits, the first column 1; y: [n] of 0 and 1. Returns [F] and the cost in bits.
    """
    stride = -(-len(x) // _MOST_CELLS)
    x, y, scale = x[::stride].astype(np.float64), y[::stride].astype(np.float64), np.log(2.0)
    share = np.clip(y.mean(), 1e-6, 1 - 1e-6)
    weights = np.zeros(x.shape[1])
    weights[0] = np.log2(share / (1 - share))
    best = _loss(x, y, weights)
    for _ in range(20):
        p = 1 / (1 + np.exp(-scale * np.clip(x @ weights, -40, 40)))
        slope = x.T @ (y - p) * scale - _DECAY * weights
        bend = (x * (p * (1 - p) * scale**2)[:, None]).T @ x + _DECAY * np.eye(len(weights))
        step = np.linalg.solve(bend, slope)
        while (loss := _loss(x, y, weights + step)) > best and np.abs(step).max() > 1e-3:
            step /= 2
        if best - loss < 0.1:
            break
        weights, best = weights + step, loss
    return weights, best / scale * stride


_DECAY = 0.02
_MOST_CELLS = 100_000  # every so many-th cell is enough to fit five numbers


def _loss(x: Array, y: Array, weights: Array) -> float:
    odds = np.log(2.0) * (x @ weights)
    return float((np.logaddexp(0, odds) - y * odds).sum() + _DECAY / 2 * weights @ weights)
