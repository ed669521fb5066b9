"""To which point of its grid each weight goes: the nearest, or one that was learned from samples.

Layer by layer, from the input to the output: the layer's inputs are gathered, once in the float model and once in
the one whose earlier layers are rounded already, so that each layer can make up for the errors before it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import onnx

from labkit.data import Split
from labkit.errors import TechniqueError
from labkit.onnx_graph import Graph, set_constant
from labkit.progress import Progress, part, silent
from labkit.quantize.arithmetic.grid import Grid, integer_range
from labkit.quantize.calibration.calibrate import activations
from labkit.quantize.graph.plan import Layer
from labkit.quantize.graph.qdq import Rounded
from labkit.quantize.rounding.gptq import descend, gptq
from labkit.quantize.rounding.moments import Moments, Rows
from labkit.variant import Array, Variant

ROUNDINGS = ("nearest", "gptq", "adaround", "descent")
_SHRINKS = np.linspace(1.0, 0.4, 25)
_MOST_PRODUCTS = 4608**2
"""Of inputs with one another, in layers that are learned at the same time: 170 MB, of which some ten are needed."""


class Learned(NamedTuple):
    """A weight on its grid, and the bias of the layer that it was learned in, by name (None if that has none).

    A layer that shares the weight keeps its own bias as it is.
    """

    weight: Rounded
    bias_name: str
    bias: Array | None


def learn_weights(
    method: str,
    variant: Variant,
    model: onnx.ModelProto,
    layers: tuple[Layer, ...],
    grids: Mapping[str, Grid],
    samples: Split,
    progress: Progress,
) -> dict[str, Learned]:
    """Round the weights of `layers`, in the graph's order, each on what the layers before it now deliver.

    method: one of ROUNDINGS; "nearest" learns nothing but the biases. grids: weight → the grid to start from, whose
    scale a learned rounding may shrink. Returns weight → what was learned.
    Raises TechniqueError for a layer that is too large.
    """
    rows = _rows(method, variant, model, layers)
    so_far = onnx.ModelProto()
    so_far.CopyFrom(model)
    learned: dict[str, Learned] = {}
    for index, (name, each) in enumerate(rows.items()):
        report = part(progress, index / len(rows), (index + 1) / len(rows), f"{name}: ")
        moments, layer = _moments(method, model, each), each.layer
        for x, quantized in _inputs(variant, model, so_far, layer.input, samples, part(report, 0, 0.5)):
            moments.add(each.patches(x), each.patches(quantized))
        found = learned[name] = _learn(method, model, grids[name], each, moments, part(report, 0.5, 1))
        set_constant(so_far, name, found.weight.grid.dequantize(found.weight.integers))
        if found.bias is not None:
            set_constant(so_far, layer.bias, found.bias)
    return learned


def learn_alone(
    method: str,
    variant: Variant,
    model: onnx.ModelProto,
    layers: tuple[Layer, ...],
    grids: Mapping[str, Grid],
    samples: Split,
    progress: Progress,
) -> dict[str, Learned]:
    """As `learn_weights`, but each layer as if all others were float.

    One pass over the samples is enough, or a few where the products of all layers' inputs would take too much memory.
    """
    learned: dict[str, Learned] = {}
    turns = _turns(method, _rows(method, variant, model, layers).values())
    for index, turn in enumerate(turns):
        report = part(progress, index / len(turns), (index + 1) / len(turns))
        gathered = [(rows, _moments(method, model, rows)) for rows in turn]
        names = sorted({rows.layer.input for rows in turn})
        for values in activations(variant, model, names, samples, part(report, 0, 0.5)):
            for rows, moments in gathered:
                patches = rows.patches(values[rows.layer.input])
                moments.add(patches, patches)
        for place, (rows, moments) in enumerate(gathered):
            learning = part(report, 0.5 + 0.5 * place / len(turn), 0.5 + 0.5 * (place + 1) / len(turn))
            name = rows.layer.weight
            learned[name] = _learn(method, model, grids[name], rows, moments, learning)
    return learned


def _rows(
    method: str, variant: Variant, model: onnx.ModelProto, layers: tuple[Layer, ...]
) -> dict[str, Rows]:
    """Each weight of `layers` as the matrices that it is, in the first layer that has it."""
    graph = Graph(model)
    rows: dict[str, Rows] = {}
    for layer in layers:
        if layer.weight not in rows:
            rows[layer.weight] = Rows(graph, layer)
    if method != "nearest":
        _refuse_too_large(variant, rows)
    return rows


def _refuse_too_large(variant: Variant, rows: Mapping[str, Rows]) -> None:
    """Raise TechniqueError for a weight that would take too much memory to learn, before anything is run."""
    for name, each in rows.items():
        if each.products > _MOST_PRODUCTS:
            groups = f" in each of {each.groups} groups" if each.groups > 1 else ""
            raise TechniqueError(
                f"{name!r} of {variant.name!r} has {each.inputs} inputs{groups}: to learn its rounding needs the "
                f"products of all of them with one another, {each.products:,} numbers, and {_MOST_PRODUCTS:,} are the "
                "most: use rounding='nearest'"
            )


def _turns(method: str, rows: Collection[Rows]) -> list[list[Rows]]:
    """`rows` in their order, at a time as many as have room in memory together."""
    turns: list[list[Rows]] = [[]]
    room = _MOST_PRODUCTS
    for each in rows:
        needed = 0 if method == "nearest" else each.products
        if needed > room:
            turns.append([])
            room = _MOST_PRODUCTS
        turns[-1].append(each)
        room -= needed
    return turns


def _moments(method: str, model: onnx.ModelProto, rows: Rows) -> Moments:
    return Moments(Graph(model).constant(rows.layer.bias) is not None, only_means=method == "nearest")


def _learn(
    method: str,
    model: onnx.ModelProto,
    grid: Grid,
    rows: Rows,
    moments: Moments,
    progress: Progress,
) -> Learned:
    graph, layer = Graph(model), rows.layer
    weight, bias = graph.constant(layer.weight), graph.constant(layer.bias)
    assert weight is not None  # noqa: S101 - a plan's weights are constants
    rounded = _round(method, weight, grid, rows, moments, progress)
    if bias is None:
        return Learned(rounded, "", None)
    back = rounded.grid.dequantize(rounded.integers)
    shift = moments.bias_shift(rows.matrices(weight), rows.matrices(back))
    return Learned(rounded, layer.bias, (bias + shift).astype(np.float32))


def _round(
    method: str, weight: Array, grid: Grid, rows: Rows, moments: Moments, progress: Progress
) -> Rounded:
    if method == "nearest":
        return Rounded(grid.quantize(weight), grid)
    metric, target = moments.metric_and_target(rows.matrices(weight.astype(np.float64)))
    grid = shrunk(grid, rows, metric, target)
    scale = rows.matrices(grid.spread(weight.shape)).astype(np.float64)
    limits = integer_range(grid.bits, grid.signed)
    if method == "adaround":
        from labkit.quantize.rounding.adaround import (
            adaround,  # brings PyTorch, which nothing else here needs
        )

        q = adaround(target, metric, scale, *limits, progress)
    else:
        q = gptq(target, metric, scale, *limits)
    if method == "descent":
        q = descend(q, target, metric, scale, *limits)
    return Rounded(rows.weight(q).astype(np.int8), grid)


def shrunk(grid: Grid, rows: Rows, metric: Array, target: Array) -> Grid:
    """The grid with finer steps where that pays: a few large weights are cut off, all others gain.

    Every output is tried with 25 scales down to 0.4 of the one that covers all, rounded to nearest.
    """
    shape = rows.weight(target).shape
    full = rows.matrices(grid.spread(shape)).astype(np.float64)
    limits = integer_range(grid.bits, grid.signed)
    errors = []
    for shrink in _SHRINKS:
        steps = full * shrink
        difference = steps * np.clip(np.rint(target / steps), *limits) - target
        errors.append(np.sum((difference @ metric) * difference, axis=2))
    costs = np.array(errors)  # [shrinks, groups, outputs]
    if grid.axis is None:
        factor = np.full(full.shape[:2], _SHRINKS[costs.sum(axis=(1, 2)).argmin()])
    else:
        factor = _SHRINKS[costs.argmin(axis=0)]
    return grid.scaled(rows.weight(np.broadcast_to(factor[:, :, None], full.shape)))


def _inputs(
    variant: Variant,
    model: onnx.ModelProto,
    so_far: onnx.ModelProto,
    name: str,
    samples: Split,
    progress: Progress,
) -> Iterator[tuple[Array, Array]]:
    """The tensor `name` in both models, batch by batch."""
    pairs = zip(
        activations(variant, model, [name], samples, silent),
        activations(variant, so_far, [name], samples, progress),
        strict=True,
    )
    for first, second in pairs:
        yield first[name], second[name]
