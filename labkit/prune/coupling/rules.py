"""Operator → the rule that tells which channels of its inputs and outputs hang together; others stay whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from labkit.prune.coupling import elementwise as same
from labkit.prune.coupling import layers, moves, shapes
from labkit.prune.coupling.axis import Axes
from labkit.prune.coupling.reading import Reading

Rule = Callable[[Reading], list[Axes]]
"""Ties what the node's inputs have in common; returns the axes of its outputs."""

_FUNCTIONS = """
    Abs Acos Add And Asin Atan BitShift Ceil Celu Clip Cos Div Elu Equal Erf Exp Floor Gelu
    Greater GreaterOrEqual HardSigmoid HardSwish IsNaN LeakyRelu Less LessOrEqual Log Max Mean Min Mish Mod
    Mul Neg Not Or PRelu Pow Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Softplus Softsign Sqrt Sub Sum Swish
    Tan Tanh ThresholdedRelu Where Xor"""
_POOLS = "AveragePool GlobalAveragePool GlobalLpPool GlobalMaxPool LpPool MaxPool"
_REDUCTIONS = """
    ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
    ReduceSumSquare"""

RULES: Mapping[str, Rule] = {
    "Conv": layers.convolution,
    "ConvTranspose": layers.transposed_convolution,
    "MatMul": layers.product,
    "Gemm": layers.general_product,
    "Einsum": layers.einsum,
    "BatchNormalization": layers.channel_norm,
    "InstanceNormalization": layers.channel_norm,
    "LayerNormalization": layers.layer_norm,
    "RMSNormalization": layers.layer_norm,
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax", "LpNormalization"), layers.along_axis),
    "Transpose": moves.transpose,
    "Squeeze": moves.squeeze,
    "Unsqueeze": moves.unsqueeze,
    "Concat": moves.concat,
    "Split": moves.split,
    "Slice": moves.slice_,
    "Gather": moves.gather,
    "GatherND": moves.gather_rows,
    "Pad": moves.pad,
    "Reshape": shapes.reshape,
    "Flatten": shapes.reshape,
    "Expand": shapes.expand,
    "Resize": shapes.resize,
    "DepthToSpace": shapes.depth_to_space,
    "SpaceToDepth": shapes.space_to_depth,
    "Shape": same.sizes_of,
    **dict.fromkeys(("Cast", "CastLike", "Dropout", "Identity"), same.passed_on),
    **dict.fromkeys(_FUNCTIONS.split(), same.elementwise),
    **dict.fromkeys(_POOLS.split(), same.per_channel),
    **dict.fromkeys(_REDUCTIONS.split(), same.reduction),
}
