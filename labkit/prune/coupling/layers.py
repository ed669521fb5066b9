"""Layers with weights, and what scales and normalises: how each ties the channels that it reads to those it makes."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from labkit.prune.coupling.axis import Axes, Axis
from labkit.prune.coupling.elementwise import broadcast
from labkit.prune.coupling.reading import Kept, Reading, Unruled, Write


def convolution(reading: Reading) -> list[Axes]:
    """Conv: y[o] = Σ_i w[o, i] ∗ x[i]; with g groups, each g-th of the outputs sees its g-th of the inputs only."""
    x, weight = reading.input(0), reading.input(1)
    groups = reading.attribute("group", 1)
    if groups == 1:
        reading.ledger.tie(x[1], weight[1])
    else:
        _grouped(reading, x[1], weight[0], weight[1], groups)
    return _convolved(reading, weight[0], weight[1])


def transposed_convolution(reading: Reading) -> list[Axes]:
    """ConvTranspose: its weight is [inputs, outputs of a group, …]."""
    x, weight = reading.input(0), reading.input(1)
    groups = reading.attribute("group", 1)
    reading.ledger.tie(x[1], weight[0])
    if groups == 1:
        return _convolved(reading, weight[1], weight[0])
    size, own, shared = groups * weight[1].size, weight[0].numbers, weight[1].numbers
    if (
        groups >= x[1].size // groups
    ):  # many small groups go as wholes, each with all the outputs that it makes
        reading.ledger.keep(weight[1], f"{reading.title()} makes them in every group")
        outputs = None if own is None else np.repeat(own.reshape(groups, -1)[:, 0], weight[1].size)
        _whole_groups(reading, weight[0], groups)
        makes = Axis(size, outputs, weight[0].why, weight[0].source)
        return _convolved(reading, makes, weight[0])
    if own is not None:
        rows = own.reshape(groups, -1)
        reading.ledger.tie_numbers(rows[:1], rows)
    outputs = None if shared is None else np.tile(shared, groups)
    return _convolved(reading, Axis(size, outputs, weight[1].why, weight[1].source), weight[0])


def _convolved(reading: Reading, makes: Axis, reads: Axis) -> list[Axes]:
    """The result [N, channels of `makes`, …image], with the bias tied."""
    if makes.source is None and makes.numbers is not None:
        reading.ledger.reparametrized.append((reading.title(), makes.numbers))
    reading.makes(makes)
    reading.ledger.play("reads", reads)
    if reads.source is None:
        reading.reads(reading.input(0)[1])
    if reading.has(2):
        reading.ledger.tie(makes, reading.input(2)[0])
        reading.ledger.play("shifts", reading.input(2)[0])
    image = reading.whole(reading.node.output[0], "it is a place in an image")[2:]
    return [(reading.input(0)[0], Axis(makes.size, makes.numbers, makes.why), *image)]


def _grouped(reading: Reading, inputs: Axis, makes: Axis, reads: Axis, groups: int) -> None:
    """Many small groups go as wholes, depthwise channels among them; of few large ones, each loses the same."""
    ledger, share = reading.ledger, inputs.size // groups
    rows, outputs = (
        None if axis.numbers is None else axis.numbers.reshape(groups, -1) for axis in (inputs, makes)
    )
    if rows is None or outputs is None or groups < share:
        if rows is not None:
            ledger.tie_numbers(rows[:1], rows)
            ledger.tie(Axis(share, rows[0]), reads)
        if outputs is not None:
            ledger.tie_numbers(outputs[:1], outputs)
        return
    ledger.tie_numbers(rows[:, :1], rows)
    ledger.tie_numbers(rows[:, 0], outputs[:, 0])
    _whole_groups(reading, makes, groups)


def _whole_groups(reading: Reading, channels: Axis, groups: int) -> None:
    """Have all channels of a group leave together, and the node know how many groups are left."""
    if channels.numbers is None:
        return
    rows = channels.numbers.reshape(groups, -1)
    first = rows[:, 0]
    reading.ledger.tie_numbers(rows[:, :1], rows)

    def fewer_groups(node: onnx.NodeProto, kept: Kept, write: Write) -> None:
        _set(node, "group", int(kept(first).sum()))

    reading.when_cut(fewer_groups)


def product(reading: Reading) -> list[Axes]:
    """MatMul: [… , m, k] · [… , k, n]. What two computed tensors are multiplied along leaves no trace in the result."""
    first, second = reading.input(0), reading.input(1)
    if len(first) < 2 or len(second) < 2:
        raise Unruled(f"{reading.title()} multiplies a vector")
    ledger = reading.ledger
    ledger.tie(first[-1], second[-2])
    batch = broadcast(reading, [first[:-2], second[:-2]])
    if reading.is_computed(0) and reading.is_computed(1):
        ledger.wanted.update(part for axis in batch if axis.size > 1 for part in axis.parts)
    reading.makes(first[-2])
    reading.makes(second[-1])
    reading.reads(first[-1], second[-2])
    return [(*batch, _result(first[-2]), _result(second[-1]))]


def einsum(reading: Reading) -> list[Axes]:
    """Einsum: axes of one letter are one axis; what is summed over may lack what is zero, as in a MatMul."""
    terms, arrow, result = reading.attribute("equation").replace(" ", "").partition("->")
    split = terms.split(",")
    if not arrow or "." in terms + result or any(len(set(term)) < len(term) for term in split):
        raise Unruled(
            f"{reading.title()} is written without an arrow, with dots, or with a letter twice in a term"
        )
    given = [reading.input(place) for place in range(len(reading.node.input))]
    if list(map(len, split)) != list(map(len, given)) or not set(result) <= set(terms) - {","}:
        raise Unruled(f"{reading.title()} has an equation that does not fit its inputs")
    inputs = list(zip(split, given, strict=True))
    met = {letter: [axes[term.index(letter)] for term, axes in inputs if letter in term] for letter in terms}
    joined = {
        letter: broadcast(reading, [(axis,) for axis in axes])[0] for letter, axes in met.items() if axes
    }
    for letter, axes in met.items():
        if letter not in result:
            reading.reads(*axes)
        for axis in axes if letter in result else ():
            reading.makes(axis)
    if sum(map(reading.is_computed, range(len(inputs)))) > 1:
        shared = (joined[letter] for letter in result if len(met[letter]) > 1)
        reading.ledger.wanted.update(part for axis in shared if axis.size > 1 for part in axis.parts)
    return [tuple(_result(joined[letter]) for letter in result)]


def general_product(reading: Reading) -> list[Axes]:
    """Gemm: A · B + C, each of the first two turned over if its attribute says so."""
    first, second = reading.input(0), reading.input(1)
    first = first[::-1] if reading.attribute("transA", 0) else first
    second = second[::-1] if reading.attribute("transB", 0) else second
    reading.ledger.tie(first[1], second[0])
    reading.makes(first[0])
    reading.makes(second[1])
    reading.reads(first[1], second[0])
    result = (_result(first[0]), _result(second[1]))
    if reading.has(2):
        broadcast(reading, [result, reading.input(2)])
        for axis in reading.input(2):
            reading.ledger.play("shifts", axis)
    return [result]


def _result(axis: Axis) -> Axis:
    """The axis as one of a computed tensor, which no initializer holds."""
    return Axis(axis.size, axis.numbers, axis.why, parts=axis.parts)


def channel_norm(reading: Reading) -> list[Axes]:
    """BatchNormalization and InstanceNormalization: each channel has its own scale, shift and statistics."""
    x = reading.input(0)
    if reading.attribute("training_mode", 0):
        raise Unruled(f"{reading.title()} is in training mode")
    for position in range(1, len(reading.node.input)):
        reading.ledger.tie(x[1], reading.input(position)[0])
    for role, position in (("scales", 1), ("shifts", 2)):
        reading.ledger.play(role, reading.input(position)[0])
    if reading.node.op_type == "InstanceNormalization":
        reading.ledger.keep_all(x[2:], _averages(reading))
    return [x]


def layer_norm(reading: Reading) -> list[Axes]:
    """LayerNormalization: over fewer channels the mean would be another, so all of them stay."""
    x = reading.input(0)
    start = reading.attribute("axis", -1) % len(x)
    for axes in (x[start:], *(reading.input(i) for i in range(1, len(reading.node.input)) if reading.has(i))):
        reading.ledger.keep_all(axes, _averages(reading))
    return [x, *(reading.whole(name, _averages(reading)) for name in reading.node.output[1:] if name)]


def along_axis(reading: Reading) -> list[Axes]:
    """Softmax and its like: every result depends on the whole axis."""
    x = reading.input(0)
    reading.ledger.keep(x[reading.attribute("axis", -1)], f"{reading.title()} needs all of them for each")
    return [x]


def _averages(reading: Reading) -> str:
    return f"{reading.title()} averages over them, and over fewer the mean would be another"


def _set(node: onnx.NodeProto, name: str, value: int) -> None:
    """Give the node an attribute, in place of the one it has."""
    others = [each for each in node.attribute if each.name != name]
    del node.attribute[:]
    node.attribute.extend([*others, helper.make_attribute(name, value)])
