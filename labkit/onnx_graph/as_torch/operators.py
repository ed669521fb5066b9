"""The table: each ONNX operator, said in torch's words. `function(node, *inputs)` gives the output or all of them.

An input that the node leaves out is None. Whole numbers that say how (a Reshape's sizes, a Slice's ends) come as
tensors like everything else, and may be computed from the shape of a free batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from labkit.onnx_graph.as_torch import windows
from labkit.onnx_graph.as_torch.elementwise import ELEMENTWISE, Operator, plain
from labkit.onnx_graph.as_torch.node import Node, ints, to_tensor

# --- products and normalisations ---


def _gemm(node: Node, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    """alpha·A·B + beta·C, A and B transposed if asked."""
    a, b = (a.T if node.get("transA", 0) else a), (b.T if node.get("transB", 0) else b)
    alpha, beta = node.get("alpha", 1.0), node.get("beta", 1.0)
    product = a @ b if alpha == 1 else alpha * (a @ b)
    return product if c is None else product + (c if beta == 1 else beta * c)


def _batch_norm(node: Node, x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """In training the batch's own mean and variance, of which `mean` and `variance` keep running averages."""
    if node.get("training_mode", 0):
        raise node.refuse(
            "its training_mode is 1, so it uses the batch's own statistics: export it in evaluation mode"
        )
    momentum = 1 - node.get("momentum", 0.9)  # ONNX names the share that stays, torch the share that is new
    return functional.batch_norm(
        x, mean, variance, gamma, beta, node.training, momentum, node.get("epsilon", 1e-5)
    )


def _layer_norm(node: Node, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    if len(node.outputs) > 1:
        raise node.refuse("its mean and deviation are used")
    axis = node.get("axis", -1) % x.ndim
    return functional.layer_norm(x, x.shape[axis:], scale, bias, node.get("epsilon", 1e-5))


def _instance_norm(node: Node, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    return functional.instance_norm(x, weight=scale, bias=bias, eps=node.get("epsilon", 1e-5))


def _group_norm(node: Node, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    groups = node.get("num_groups")
    if scale.numel() == groups != x.shape[1]:  # one for each group, as in operator set 18
        scale, bias = (each.repeat_interleave(x.shape[1] // groups) for each in (scale, bias))
    return functional.group_norm(x, groups, scale, bias, node.get("epsilon", 1e-5))


def _dropout(node: Node, x: Tensor, ratio: Tensor | None = None, mode: Tensor | None = None) -> Tensor:
    if len(node.outputs) > 1:
        raise node.refuse("its mask is used")
    return functional.dropout(x, 0.5 if ratio is None else float(ratio), node.training)


# --- reductions ---


def _reduce(function: Callable[..., Tensor]) -> Operator:
    """function(x, axes, keepdim) over the axes of an attribute (older operator sets) or of an input."""

    def apply(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
        chosen = node.get("axes") if axes is None else ints(axes)
        if not chosen:
            if node.get("noop_with_empty_axes", 0):
                return x
            chosen = list(range(x.ndim))
        return function(x, list(chosen), bool(node.get("keepdims", 1)))

    return apply


def _global(function: Callable[..., Tensor]) -> Operator:
    """A reduction over all but batch and channels, which stay."""
    return lambda node, x: function(x, list(range(2, x.ndim)), True)


# --- shapes and indices ---


def _reshape(node: Node, x: Tensor, sizes: Tensor) -> Tensor:
    wanted = ints(sizes)
    if not node.get("allowzero", 0):
        wanted = [x.shape[axis] if size == 0 else size for axis, size in enumerate(wanted)]
    return x.reshape(wanted)


def _flatten(node: Node, x: Tensor) -> Tensor:
    axis = node.get("axis", 1)
    return x.reshape(math.prod(x.shape[: axis % x.ndim if axis < 0 else axis]), -1)


def _squeeze(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    return x.squeeze() if axes is None else x.squeeze(tuple(ints(axes)))


def _unsqueeze(node: Node, x: Tensor, axes: Tensor) -> Tensor:
    rank = x.ndim + axes.numel()
    for axis in sorted(axis % rank for axis in ints(axes)):
        x = x.unsqueeze(axis)
    return x


def _slice(
    node: Node,
    x: Tensor,
    starts: Tensor,
    ends: Tensor,
    axes: Tensor | None = None,
    steps: Tensor | None = None,
) -> Tensor:
    along = range(starts.numel()) if axes is None else ints(axes)
    strides = [1] * starts.numel() if steps is None else ints(steps)
    for axis, start, end, step in zip(along, ints(starts), ints(ends), strides, strict=True):
        chosen = range(*slice(start, end, step).indices(x.shape[axis]))
        if step == 1:
            x = x.narrow(axis, min(chosen.start, x.shape[axis]), len(chosen))
        else:
            x = x.index_select(axis, torch.tensor(list(chosen), dtype=torch.int64, device=x.device))
    return x


def _split(node: Node, x: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
    axis = node.get("axis", 0)
    if sizes is not None:
        return torch.split(x, ints(sizes), axis)
    return torch.split(x, -(-x.shape[axis] // len(node.outputs)), axis)


def _gather(node: Node, x: Tensor, indices: Tensor) -> Tensor:
    axis = node.get("axis", 0) % x.ndim
    flat = torch.where(indices < 0, indices + x.shape[axis], indices).reshape(-1)
    sizes = (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
    return x.index_select(axis, flat).reshape(sizes)


def _shape(node: Node, x: Tensor) -> Tensor:
    return torch.tensor(x.shape[node.get("start", 0) : node.get("end")], dtype=torch.int64)


def _depth_to_space(node: Node, x: Tensor) -> Tensor:
    """Channels become blocks of pixels: the block is the slowest axis of the channels (DCR), or the fastest (CRD)."""
    size, (count, channels, height, width) = node.get("blocksize"), x.shape
    left = channels // size**2
    if node.get("mode", "DCR") == "DCR":
        blocks = x.reshape(count, size, size, left, height, width).permute(0, 3, 4, 1, 5, 2)
    else:
        blocks = x.reshape(count, left, size, size, height, width).permute(0, 1, 4, 2, 5, 3)
    return blocks.reshape(count, left, height * size, width * size)


def _expand(node: Node, x: Tensor, sizes: Tensor) -> Tensor:
    shape: torch.Size = torch.broadcast_shapes(x.shape, ints(sizes))  # type: ignore[no-untyped-call]
    return x.expand(shape)


def _pad(
    node: Node, x: Tensor, pads: Tensor, value: Tensor | None = None, axes: Tensor | None = None
) -> Tensor:
    along = list(range(x.ndim)) if axes is None else [axis % x.ndim for axis in ints(axes)]
    amounts = ints(pads)
    ends = dict(zip(along, zip(amounts[: len(along)], amounts[len(along) :], strict=True), strict=True))
    mode = node.get("mode", "constant")
    if mode == "constant":
        pairs = [amount for axis in reversed(range(x.ndim)) for amount in ends.get(axis, (0, 0))]
        return functional.pad(x, pairs, value=0.0 if value is None else value.item())
    if mode not in ("edge", "reflect"):
        raise node.refuse(f"its mode is {mode!r}")
    for axis, (begin, end) in ends.items():  # torch repeats and mirrors an image's last axes only, ONNX any
        last = x.shape[axis] - 1
        places = torch.arange(-begin, last + end + 1, device=x.device)
        inside = places.clamp(0, last) if mode == "edge" else last - (last - places.abs()).abs()
        x = x.index_select(axis, inside)
    return x


def _range(node: Node, start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    return torch.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype)


def _constant_of_shape(node: Node, sizes: Tensor) -> Tensor:
    value = node.get("value")
    filling = torch.zeros(1) if value is None else to_tensor(value, node.name)
    return filling.expand(ints(sizes))


OPERATORS: dict[str, Operator] = {
    **ELEMENTWISE,
    "Conv": windows.conv,
    "ConvTranspose": windows.conv_transpose,
    "MaxPool": windows.max_pool,
    "AveragePool": windows.average_pool,
    "GlobalAveragePool": _global(torch.mean),
    "GlobalMaxPool": _global(torch.amax),
    "Gemm": _gemm,
    "MatMul": plain(torch.matmul),
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "InstanceNormalization": _instance_norm,
    "GroupNormalization": _group_norm,
    "Dropout": _dropout,
    "Identity": plain(lambda x: x),
    "Softmax": lambda node, x: x.softmax(node.get("axis", -1)),
    "LogSoftmax": lambda node, x: x.log_softmax(node.get("axis", -1)),
    "ReduceMean": _reduce(torch.mean),
    "ReduceSum": _reduce(torch.sum),
    "ReduceMax": _reduce(torch.amax),
    "ReduceMin": _reduce(torch.amin),
    "ReduceL1": _reduce(lambda x, axes, keep: x.abs().sum(axes, keep)),
    "ReduceL2": _reduce(lambda x, axes, keep: x.square().sum(axes, keep).sqrt()),
    "ReduceSumSquare": _reduce(lambda x, axes, keep: x.square().sum(axes, keep)),
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Transpose": lambda node, x: x.permute(node.get("perm") or list(reversed(range(x.ndim)))),
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Concat": lambda node, *inputs: torch.cat(inputs, node.get("axis")),
    "Slice": _slice,
    "Split": _split,
    "Gather": _gather,
    "Shape": _shape,
    "Expand": _expand,
    "Tile": lambda node, x, repeats: x.repeat(ints(repeats)),
    "DepthToSpace": _depth_to_space,
    "Pad": _pad,
    "ConstantOfShape": _constant_of_shape,
    "Range": _range,
}
