"""ONNX → TensorFlow: the graph is read node by node, and each operator is said again in TensorFlow's words.

The most interesting thing about it is the order of the axes. An image is [N, C, H, W] in ONNX (the values of
one channel lie together) and [N, H, W, C] in TensorFlow, whose convolutions on a CPU know no other. To
transpose before and after every convolution would be right and slow. So each tensor carries a tag, the layout
that it is in at present. A convolution takes channels-last and gives channels-last; what works number by
number does not care and passes the tag on; whoever needs ONNX's order (a Reshape) asks for it, and then the
tensor is transposed once and both forms are remembered. A ResNet is transposed at its entrance and nowhere else.

What is known now is computed now: a node whose inputs are all constants runs at once, and its result is a
constant. Shapes are numpy arrays, their free sizes TensorFlow scalars (`node.py`): so the batch stays free
and all that was fixed stays fixed, which TensorFlow Lite needs.

    module = as_tensorflow(model)
    tf.saved_model.save(module, folder, signatures=module.__call__)
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import onnx.version_converter
from onnx import numpy_helper

from labkit.convert.onnx_as_tensorflow import (
    convolutions,
    elementwise,
    indexing,
    linear,
    normalizations,
    recurrent,
    reductions,
    resizing,
    shapes,
)
from labkit.convert.onnx_as_tensorflow.node import (
    DTYPES,
    Node,
    Operator,
    Value,
    is_known,
    library,
    rank,
    tensor,
    tf,
    to_channels_last,
    to_onnx,
)
from labkit.errors import TechniqueError

OPERATORS: dict[str, Operator] = {
    **elementwise.OPERATORS,
    **shapes.OPERATORS,
    **indexing.OPERATORS,
    **linear.OPERATORS,
    **convolutions.OPERATORS,
    **normalizations.OPERATORS,
    **reductions.OPERATORS,
    **resizing.OPERATORS,
    **recurrent.OPERATORS,
}
_OLDEST_OPSET, _OPSET = 13, 18
_MOST_FOLDED = 1 << 16  # elements that a constant may have which was not in the file


def supported() -> frozenset[str]:
    """The ONNX operators that are translated; those that ONNX defines by others are taken apart first."""
    return frozenset(OPERATORS)


def as_tensorflow(model: onnx.ModelProto) -> Any:
    """A `tf.Module` that computes what `model` computes, on the same feeds.

    Its `__call__` is a `tf.function` with an input signature: ONNX's inputs in their order, with their dtypes
    and shapes, a named or unknown size being None. It returns {output's name: tensor}. Names are those of the
    ONNX file, made fit for TensorFlow by `tensorflow_names`; the mapping lies in `module.input_names` and
    `module.output_names` (ONNX's name → TensorFlow's).
    Raises TechniqueError if an operator cannot be translated, naming every such operator at once.
    """
    model = _prepared(model)
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    if not inputs:
        raise TechniqueError("the model takes no inputs: what it computes is a constant")
    names = tensorflow_names(value.name for value in inputs)
    output_names = tensorflow_names(value.name for value in model.graph.output)

    def call(module: Any, *feeds: Any) -> dict[str, Any]:
        given = dict(zip(names, feeds, strict=True))
        translation = _Translation({**constants, **given})
        for node in model.graph.node:
            translation.add(node, _opset(model))
        results = {short: translation.in_onnx_order(name) for name, short in output_names.items()}
        return {short: tf.identity(tensor(value), name=short) for short, value in results.items()}

    signature = [_spec(value, names[value.name]) for value in inputs]
    members = {
        "__call__": tf.function(call, input_signature=signature, autograph=False),
        "input_names": names,
        "output_names": output_names,
    }
    module = type("OnnxModule", (tf.Module,), members)()
    module.__call__.get_concrete_function()  # traced now, so that what is refused is refused here
    return module


def tensorflow_names(names: Iterable[str]) -> dict[str, str]:
    """ONNX's names → names that TensorFlow leaves as they are: ASCII letters, digits and "_", a letter first.

    Any other character becomes "_", and a name that was taken gets a number, so no two become one:
    {"input.1": "input_1", "input:1": "input_1_2", "x": "x"}.
    """
    given: dict[str, str] = {}
    for name in names:
        short = re.sub(r"[^A-Za-z0-9_]", "_", name)
        short = short if re.match("[A-Za-z]", short) else f"arg_{short}"
        taken = {other.lower() for other in given.values()}
        numbered = (f"{short}_{number}" for number in range(2, len(taken) + 3))
        given[name] = next(each for each in (short, *numbered) if each.lower() not in taken)
    return given


class _Translation:
    """The values so far, by ONNX's names, each in ONNX's order of axes or channels-last or, once asked, both."""

    def __init__(self, values: dict[str, Value]) -> None:
        self._onnx: dict[str, Value] = dict(values)
        self._last: dict[str, Any] = {}

    def in_onnx_order(self, name: str) -> Value:
        """The value in ONNX's order; None for an input that was left out."""
        if name and name not in self._onnx:
            x = self._last[name]
            self._onnx[name] = tf.transpose(x, to_onnx(rank(x)))
        return self._onnx[name] if name else None

    def channels_last(self, name: str) -> Any:
        """The value channels-last."""
        if name not in self._last:
            x = self._onnx[name]
            self._last[name] = library(x).transpose(x, to_channels_last(rank(x))) if rank(x) > 2 else x
        return self._last[name]

    def add(self, proto: onnx.NodeProto, opset: int) -> None:
        """Translate one node and remember its outputs."""
        node, operator = Node(proto, opset), OPERATORS[proto.op_type]
        inputs = self._inputs(node, operator, list(proto.input))
        try:
            results = _apply(node, operator, inputs)
        except TechniqueError:
            raise
        except Exception as error:  # TensorFlow has no such kernel, or does not take such a shape
            raise node.refuse(_in_short(error)) from error
        where = self._last if node.channels_last else self._onnx
        for name, result in zip(proto.output, results, strict=False):
            if name:
                where[name] = result

    def _inputs(self, node: Node, operator: Operator, names: list[str]) -> list[Value]:
        if operator.layout == "all":
            return self._in_one_layout(node, names)
        first = names[0] if names else ""
        if first and operator.layout != "onnx":
            known = first in self._onnx and isinstance(self._onnx[first], np.ndarray)
            asked = operator.layout == "last" and not known
            if asked or (operator.layout == "first" and first not in self._onnx):
                node.channels_last = True
                return [self.channels_last(first), *map(self.in_onnx_order, names[1:])]
        return [self.in_onnx_order(name) for name in names]

    def _in_one_layout(self, node: Node, names: list[str]) -> list[Value]:
        """All channels-last if all that are computed are so at present, constants brought to it; else ONNX's."""
        known = {n for n in names if n in self._onnx and isinstance(self._onnx[n], np.ndarray)}
        computed = [n for n in names if n and n not in known]
        ranks = {rank(self._last[n]) for n in computed if n in self._last}
        fits = all(rank(self._onnx[n]) <= max(ranks, default=0) for n in known)
        fresh = any(n not in self._onnx for n in computed)
        if not (fresh and fits and len(ranks) == 1 and all(n in self._last for n in computed)):
            return [self.in_onnx_order(name) for name in names]
        node.channels_last, full = True, ranks.pop()
        return [_spread(self._onnx[n], full) if n in known else self._last.get(n) for n in names]


def _spread(constant: Value, full: int) -> Value:
    """A constant that ONNX lines up with the last axes of a tensor, as it lines up with it channels-last."""
    if constant.ndim == 0:
        return constant
    shape = (1,) * (full - constant.ndim) + constant.shape
    return constant.reshape(shape).transpose(to_channels_last(full))


def _apply(node: Node, operator: Operator, inputs: Sequence[Value]) -> Sequence[Value]:
    """The operator's results: constants out of constants, as long as they stay small."""
    given = [value for value in inputs if value is not None]
    if not all(isinstance(value, np.ndarray) for value in given):
        return _several(operator.apply(node, *inputs))
    if not all(is_known(value) for value in given):
        return _several(operator.apply(node, *inputs))
    with tf.init_scope():
        results = _several(operator.apply(node, *inputs))
        folded = [None if x is None else np.asarray(x) for x in results]
    if max((x.size for x in folded if x is not None), default=0) > _MOST_FOLDED + sum(x.size for x in given):
        return _several(operator.apply(node, *inputs))
    return folded


def _several(result: Any) -> Sequence[Value]:
    return result if isinstance(result, tuple) else (result,)


def _prepared(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model in a recent opset, with functions put in their place and all operators known."""
    if 0 < _opset(model) < _OLDEST_OPSET:
        try:
            model = onnx.version_converter.convert_version(model, _OPSET)
        except Exception as error:
            raise TechniqueError(
                f"the model's opset {_opset(model)} is too old, and onnx cannot convert it to {_OPSET} "
                f"({_in_short(error)}): export it again with opset {_OPSET}"
            ) from None
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    nodes = model.graph.node
    composite = {n.op_type for n in nodes if n.op_type not in OPERATORS and _is_defined(n, model)}
    if composite:
        model = _with_defaults(model, composite)
        names = [("", name) for name in sorted(composite)]
        with contextlib.suppress(
            RuntimeError
        ):  # it cannot take every one apart: `_check_operators` names them
            model = onnx.inliner.inline_selected_functions(model, names, inline_schema_functions=True)
    _check_operators(model)
    return model


def _with_defaults(model: onnx.ModelProto, kinds: set[str]) -> onnx.ModelProto:
    """A copy whose nodes of these kinds have the attributes they left out: ONNX's inliner forgets the defaults."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    for node in model.graph.node:
        if node.op_type in kinds:
            written = {attribute.name for attribute in node.attribute}
            schema = onnx.defs.get_schema(node.op_type, _opset(model))
            defaults = (declared.default_value for declared in schema.attributes.values())
            node.attribute.extend(value for value in defaults if value.name and value.name not in written)
    return model


def _is_defined(node: onnx.NodeProto, model: onnx.ModelProto) -> bool:
    """Whether ONNX itself defines the operator by others."""
    if node.domain not in ("", "ai.onnx") or not onnx.defs.has(node.op_type):
        return False
    schema: Any = onnx.defs.get_schema(node.op_type, _opset(model))
    return bool(schema.has_function or schema.has_context_dependent_function)


def _check_operators(model: onnx.ModelProto) -> None:
    missing: dict[str, str] = {}
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx") or node.op_type not in OPERATORS:
            kind = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
            missing.setdefault(kind, node.name or node.output[0])
    if missing:
        names = ", ".join(f"{kind} (node {name!r})" for kind, name in sorted(missing.items()))
        raise TechniqueError(
            f"operators of opset {_opset(model)} that are not translated to TensorFlow: {names}. "
            "Export the model without them, or run it in ONNX Runtime"
        )


def _opset(model: onnx.ModelProto) -> int:
    return next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)


def _spec(value: onnx.ValueInfoProto, name: str) -> Any:
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not kind.HasField("shape"):
        raise TechniqueError(f"input {value.name!r} is not a tensor of known rank: export it as one")
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
    if dtype.name not in DTYPES:
        name = onnx.TensorProto.DataType.Name(kind.elem_type).lower()
        raise TechniqueError(f"input {value.name!r} holds {name}: use float32, float16 or an integer type")
    shape = [d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim]
    return tf.TensorSpec(shape, dtype, name=name)


def _in_short(error: Exception) -> str:
    return " ".join(str(error).split())[:250] or type(error).__name__
