"""Operators that work number by number, in torch's words: activations, arithmetic, comparisons."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from labkit.onnx_graph.as_torch.node import Node

Operator = Callable[..., Any]


def plain(function: Callable[..., Tensor]) -> Operator:
    """An operator without attributes."""
    return lambda node, *inputs: function(*inputs)


def _many(function: Callable[..., Tensor]) -> Operator:
    """An operator of any number of operands out of the one of two."""
    return lambda node, *inputs: functools.reduce(function, inputs)


def _mean(node: Node, *inputs: Tensor) -> Tensor:
    total: Tensor = functools.reduce(torch.add, inputs)
    return total / len(inputs)


def _clip(node: Node, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    x = x if low is None else torch.maximum(x, low)
    return x if high is None else torch.minimum(x, high)


def _divide(a: Tensor, b: Tensor) -> Tensor:
    """A / b; of integers the part before the point, as in C."""
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def _mod(node: Node, a: Tensor, b: Tensor) -> Tensor:
    """What is left of A / b: with the sign of b, or of A if `fmod` asks for that."""
    return torch.fmod(a, b) if node.get("fmod", 0) else torch.remainder(a, b)


def _hard_sigmoid(node: Node, x: Tensor) -> Tensor:
    line: Tensor = node.get("alpha", 0.2) * x + node.get("beta", 0.5)
    return line.clamp(0, 1)


def _selu(node: Node, x: Tensor) -> Tensor:
    alpha, gamma = node.get("alpha", 1.6732632), node.get("gamma", 1.050701)
    result: Tensor = gamma * functional.elu(x, alpha)
    return result


def _thresholded_relu(node: Node, x: Tensor) -> Tensor:
    return torch.where(x > node.get("alpha", 1.0), x, torch.zeros_like(x))


def _prelu(x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x < 0, slope * x, x)


ELEMENTWISE: dict[str, Operator] = {
    "Relu": plain(torch.relu),
    "LeakyRelu": lambda node, x: functional.leaky_relu(x, node.get("alpha", 0.01)),
    "PRelu": plain(_prelu),
    "ThresholdedRelu": _thresholded_relu,
    "Elu": lambda node, x: functional.elu(x, node.get("alpha", 1.0)),
    "Celu": lambda node, x: functional.celu(x, node.get("alpha", 1.0)),
    "Selu": _selu,
    "Softplus": plain(functional.softplus),
    "Softsign": plain(functional.softsign),
    "Mish": plain(functional.mish),
    "Sigmoid": plain(torch.sigmoid),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": plain(functional.hardswish),
    "Tanh": plain(torch.tanh),
    "Gelu": lambda node, x: functional.gelu(x, approximate=node.get("approximate", "none")),
    "Erf": plain(torch.erf),
    "Clip": _clip,
    "Add": plain(torch.add),
    "Sub": plain(torch.sub),
    "Mul": plain(torch.mul),
    "Div": plain(_divide),
    "Mod": _mod,
    "Pow": plain(torch.pow),
    "Sqrt": plain(torch.sqrt),
    "Reciprocal": plain(torch.reciprocal),
    "Neg": plain(torch.neg),
    "Abs": plain(torch.abs),
    "Sign": plain(torch.sign),
    "Floor": plain(torch.floor),
    "Ceil": plain(torch.ceil),
    "Round": plain(torch.round),
    "Exp": plain(torch.exp),
    "Log": plain(torch.log),
    "Sin": plain(torch.sin),
    "Cos": plain(torch.cos),
    "Sum": _many(torch.add),
    "Mean": _mean,
    "Min": _many(torch.minimum),
    "Max": _many(torch.maximum),
    "Equal": plain(torch.eq),
    "Less": plain(torch.lt),
    "LessOrEqual": plain(torch.le),
    "Greater": plain(torch.gt),
    "GreaterOrEqual": plain(torch.ge),
    "And": plain(torch.logical_and),
    "Or": plain(torch.logical_or),
    "Not": plain(torch.logical_not),
    "Where": plain(torch.where),
    "Cast": lambda node, x: x.to(node.dtype(node.get("to"))),
}
