"""One word for each kind of operator: every format calls a convolution something else."""

from __future__ import annotations

from labkit.microscope.taps import Operator

_WORDS = {
    "conv": "conv conv1d conv2d conv3d convolution groupconvolution conv_2d depthwise_conv_2d convinteger",
    "gemm": "gemm matmul linear addmm mm bmm fully_connected batch_matmul",
    "norm": "batch_norm batchnormalization batchnorminference",
    "relu": "relu relu_",
    "add": "add add_",
    "subtract": "sub sub_ subtract",
    "multiply": "mul mul_ multiply",
    "divide": "div div_ divide",
    "clip": "clip clamp clamp_ hardtanh relu6 relu_n1_to_1",
    "mean": "mean reducemean globalaveragepool adaptive_avg_pool2d",
    "maximum": "amax reducemax globalmaxpool reduce_max",
    "average pool": "avg_pool2d averagepool avgpool average_pool_2d",
    "max pool": "max_pool2d maxpool max_pool_2d",
    "softmax": "softmax",
    "reshape": "reshape view flatten squeeze unsqueeze expand_dims",
    "transpose": "transpose permute",
    "concat": "concat cat concatenation",
    "cast": "cast convert to _to_copy",
    "gather": "gather embedding index_select",
    "pad": "pad padv2 constant_pad_nd mirror_pad",
    "identity": "identity dropout clone contiguous alias detach",
    "quantize": "quantizelinear quantize",
    "dequantize": "dequantizelinear dequantize",
}
_KINDS = {word: kind for kind, words in _WORDS.items() for word in words.split()}


def kind(operator: Operator) -> str:
    """The common word, or the format's own in small letters."""
    word = operator.operator.lower()
    return _KINDS.get(word, word)


def transparent(operator: Operator) -> bool:
    """Whether it hands on what it reads; one format writes such operators down and another leaves them out."""
    return kind(operator) in ("identity", "reshape")


HINTS = {
    "conv": "its weights and bias, strides, pads, dilations and groups",
    "gemm": "its weights and bias, whether they are transposed, alpha and beta",
    "norm": "its epsilon, and the order of scale, bias, mean and variance",
    "mean": "its axes",
    "maximum": "its axes",
    "average pool": "its window, pads, ceil_mode and whether it counts the padding",
    "max pool": "its window, pads and ceil_mode",
    "softmax": "its axis",
    "concat": "its axis and the order of what it joins",
    "transpose": "its permutation",
    "reshape": "its target shape",
    "clip": "its limits",
    "relu": "whether it is there, and its slope below 0",
    "cast": "the type it casts to",
    "quantize": "its scale and zero_point",
    "dequantize": "its scale and zero_point",
    "gather": "its table, indices and axis",
    "input": "the preprocessing of each variant",
}
