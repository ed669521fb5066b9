"""What a drawing of a graph shows: its boxes, what each hangs below, and what had to be left out.

Up to 300 layers each has a box of its own. Beyond that, layers in a row without a branch share boxes; if even
these are too many, the first 300 are drawn, and a remark says how many are missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from labkit.inspection.record import Inspection, Layer, TensorInfo
from labkit.inspection.table import shape_text

MOST_BOXES = 300
_FEWEST_BOXES = 100


@dataclass(frozen=True)
class Look:
    """The colours of a family, and the parts of operators' names by which it is known."""

    stroke: str
    fill: str
    words: tuple[str, ...] = ()


FAMILIES = {
    "input, output": Look("#000000", "#ffffff"),
    "quantization": Look("#CC79A7", "#f7e6ef", ("quantize", "fakequant")),
    "convolution": Look("#0072B2", "#dcebf5", ("conv",)),
    "normalization": Look("#009E73", "#d9f2ea", ("norm", "lrn")),
    "pooling": Look("#56B4E9", "#e5f4fc", ("pool", "reduce", "mean", "argmax", "topk")),
    "activation": Look(
        "#E69F00",
        "#fdf1d9",
        (
            "relu",
            "sigmoid",
            "tanh",
            "softmax",
            "gelu",
            "clip",
            "hardtanh",
            "elu",
            "swish",
            "silu",
            "erf",
            "softplus",
        ),
    ),
    "product": Look(
        "#D55E00",
        "#fae4d6",
        ("gemm", "matmul", "linear", "dense", "fullyconnected", "addmm", "bmm", "einsum", "attention")
        + ("lstm", "gru", "rnn", "aten.mm"),
    ),
    "arithmetic": Look(
        "#8a7f00", "#fbf8cf", ("add", "sub", "mul", "div", "pow", "sqrt", "sum", "exp", "neg")
    ),
    "other": Look("#767676", "#f0f0f0"),
}
"""Family → its look; the first whose word is in the operator's name has it. Okabe and Ito's colours."""


@dataclass(frozen=True)
class Box:
    """One box: its lines, the family that colours it, and what is told when the pointer rests on it."""

    lines: tuple[str, ...]
    family: str
    told: str


def sketch(inspection: Inspection) -> tuple[list[Box], list[list[int]], str]:
    """The boxes, for each the indices of those above it, and a remark (empty if nothing was left out)."""
    runs, remark = [[layer] for layer in inspection.layers], ""
    if len(runs) > MOST_BOXES:
        runs = _runs(inspection.layers)
        remark = f"{len(inspection.layers):,} layers: runs without a branch share boxes."
    if len(runs) > MOST_BOXES:
        kept = sum(map(len, runs[:MOST_BOXES]))
        remark = f"The first {kept:,} of {len(inspection.layers):,} layers; the table has all."
        runs = runs[:MOST_BOXES]
    inputs, outputs = inspection.inputs[:MOST_BOXES], inspection.outputs[:MOST_BOXES]
    made = {info.name: index for index, info in enumerate(inputs)}
    boxes, needs = [_port(info, "input") for info in inputs], [[""]] * len(inputs)
    for run in runs:
        boxes.append(_box(run))
        inside = {name for layer in run for name in layer.outputs}
        needs.append([name for layer in run for name in layer.inputs if name not in inside])
        made.update({name: len(boxes) - 1 for name in inside})
    for info in outputs:
        if info.name in made or not inspection.layers:
            boxes.append(_port(info, "output"))
            needs.append([info.name])
    return boxes, [[made[name] for name in names if name in made] for names in needs], remark


def family_of(operator: str) -> str:
    """The family of an operator of any format: Conv, aten.conv2d.default, CONV_2D → convolution."""
    plain = operator.lower().replace("_", "")
    return next(
        (family for family, look in FAMILIES.items() if any(word in plain for word in look.words)), "other"
    )


def _runs(layers: Sequence[Layer]) -> list[list[Layer]]:
    """Layers in the file's order, each joined to the one before where nothing else comes in or goes out."""
    users = Counter(name for layer in layers for name in set(layer.inputs))
    producer = {name for layer in layers for name in layer.outputs}
    longest = -(-len(layers) // _FEWEST_BOXES)  # so that a chain does not become one box
    runs: list[list[Layer]] = []
    for layer in layers:
        last = runs[-1][-1] if runs else None
        needed = {name for name in layer.inputs if name in producer}
        is_next = needed and last and needed <= set(last.outputs)
        if last and is_next and len(runs[-1]) < longest and sum(users[name] for name in last.outputs) == 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return runs


def _box(run: Sequence[Layer]) -> Box:
    first, last = run[0], run[-1]
    costs = f"{sum(each.parameters or 0 for each in run):,} parameters"
    if all(each.macs is not None for each in run):
        costs += f", {sum(each.macs or 0 for each in run):,} multiply-adds"
    shape = shape_text(last.output_shape)
    if len(run) == 1:
        told = f"{first.operator} {first.name}: {first.dtype or '?'} {shape}, {costs}"
        return Box((first.operator, first.name, shape), family_of(first.operator), told)
    dearest = max(run, key=lambda each: (each.macs or 0, each.parameters or 0))
    kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(each.operator for each in run).items())
    lines = (f"{dearest.operator} and {len(run) - 1} more", last.name, shape)
    return Box(lines, family_of(dearest.operator), f"{first.name} to {last.name}: {kinds}; {costs}")


def _port(info: TensorInfo, what: str) -> Box:
    shape = shape_text(info.shape)
    return Box(
        (info.name, f"{what} {info.dtype or ''}".strip(), shape),
        "input, output",
        f"{what} {info.name}: {shape}",
    )
