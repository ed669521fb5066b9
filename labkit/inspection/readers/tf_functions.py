"""Following the calls of a TensorFlow graph: each is replaced by the body of the function that it calls.

A node's inputs are texts: `node`, `node:1` in the graph, `node:output:0` in a function, `^node` for "after it". What
depends on constants alone (the reshaping of a bias, the parts of a folded normalisation) is a constant too. The
numbers of the fields are those of tensorflow/core/framework: graph, node_def, function, attr_value.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from labkit.errors import ModelFileError
from labkit.inspection.layout import parents_first
from labkit.inspection.macs import Sample
from labkit.inspection.readers.message import Message
from labkit.inspection.record import Layer, Shape
from labkit.inspection.storage import REAL, count_of

_NAMES = (
    "float32 float64 int32 uint8 int16 int8 string complex64 int64 bool qint8 quint8 qint32 bfloat16 qint16 quint16 "
    "uint16 complex128 float16 resource variant uint32 uint64"
)
DTYPES = dict(enumerate(_NAMES.split(), 1))
_CALLS = ("StatefulPartitionedCall", "PartitionedCall")
_SAME = ("Identity", "ReadVariableOp", "StopGradient", "PreventGradient")
_MOST_LAYERS, _DEEPEST = 20_000, 50
_PRODUCTS = {
    "MatMul": "transpose_a",
    "BatchMatMul": "adj_x",
    "BatchMatMulV2": "adj_x",
    "BatchMatMulV3": "adj_x",
}
_UNCOUNTED = ("Backprop", "Einsum", "RNN", "LSTM", "GRU", "While", "If", "Case", "Xla")


@dataclass(frozen=True)
class Constant:
    """A variable, or a constant in the graph; only real numbers of a rank above 0 count as parameters."""

    shape: Shape
    dtype: str

    @property
    def count(self) -> int:
        """How many numbers it holds, where these are parameters."""
        return count_of(self.shape) if self.shape and self.dtype in REAL else 0


@dataclass(frozen=True)
class _Value:
    """A tensor: its name in the inspection; `sources` are the constants that it is made of, None if computed."""

    name: str
    shape: Shape | None = None
    sources: frozenset[str] | None = None


class Walk:
    """One walk through a graph; `layers` and the `constants` that they use are what it finds."""

    def __init__(self, graph: Message, sample: Sample) -> None:
        library = graph.one(2)
        self.layers: list[Layer] = []
        self.constants: dict[str, Constant] = {}
        self._graph, self._sample = graph, sample
        functions = [(each, each.one(1)) for each in (library.each(1) if library else [])]
        self._functions = {signature.text(1): each for each, signature in functions if signature}
        self._seen: dict[str, Constant] = {}

    def follow(self, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> None:
        """Collect what leads from `inputs` to `outputs`, each a reference in the graph → its name in the signature."""
        bound = {reference.split(":")[0]: [_Value(name)] for reference, name in inputs.items()}
        needed = {reference.split(":")[0] for reference in outputs}
        made = self._body(self._graph.each(1), bound, "", needed, 0)
        names = {self._value(reference, made).name: name for reference, name in outputs.items()}
        self.layers = [_renamed(layer, names) for layer in self.layers]

    def _body(
        self,
        nodes: Sequence[Message],
        bound: Mapping[str, list[_Value]],
        prefix: str,
        needed: set[str],
        depth: int,
    ) -> dict[str, list[_Value]]:
        """Walk through one list of nodes, as far as `needed` depends on it; returns each node's values."""
        if depth > _DEEPEST:
            raise ModelFileError(f"its functions call one another more than {_DEEPEST} deep")
        index = {node.text(1): number for number, node in enumerate(nodes)}
        sources = [[_node_of(text) for text in node.texts(3) if not text.startswith("^")] for node in nodes]
        waiting, wanted = [name for name in needed if name in index], set[str]()
        while waiting:
            name = waiting.pop()
            if name not in wanted and name not in bound:
                wanted.add(name)
                waiting += [each for each in sources[index[name]] if each in index]
        values = dict(bound)
        for number in parents_first([[index[name] for name in each if name in index] for each in sources]):
            node = nodes[number]
            if node.text(1) in wanted:
                given = [self._value(text, values) for text in node.texts(3) if not text.startswith("^")]
                values[node.text(1)] = self._node(node, given, prefix, depth)
        return values

    def _node(self, node: Message, given: list[_Value], prefix: str, depth: int) -> list[_Value]:
        """The values that a node puts out; a layer is kept where it computes."""
        operator, name, attributes = node.text(2), prefix + node.text(1), node.entries(5)
        if operator in _SAME and given:
            return given[:1]
        if operator in _CALLS and "f" in attributes:
            return self._call(attributes["f"], given, f"{name}/", depth)
        if operator in ("VarHandleOp", "Const"):
            return [self._constant(operator, name, attributes)]
        shape = _output_shape(attributes)
        if given and all(value.sources is not None for value in given):
            return [_Value(name, shape, frozenset[str]().union(*(value.sources or () for value in given)))]
        if len(self.layers) >= _MOST_LAYERS:
            raise ModelFileError(f"its functions unfold to more than {_MOST_LAYERS:,} layers")
        used = {source for value in given for source in value.sources or ()}
        self.constants.update({each: self._seen[each] for each in used})
        self.layers.append(
            Layer(
                name=name,
                operator=operator,
                inputs=tuple(value.name for value in given if value.sources is None),
                outputs=(name,),
                output_shape=shape,
                dtype=DTYPES.get(_type(attributes)),
                parameters=sum(self._seen[each].count for each in used),
                macs=_macs(operator, attributes, given, shape, self._sample),
            )
        )
        return [_Value(name, shape)]

    def _call(self, attribute: Message, given: list[_Value], prefix: str, depth: int) -> list[_Value]:
        called = attribute.one(10)
        function = self._functions.get(called.text(1) if called else "")
        signature = function.one(1) if function else None
        if function is None or signature is None:
            raise ModelFileError("it calls a function that its library does not hold: the file is damaged")
        arguments = [argument.text(1) for argument in signature.each(2)]
        results = {entry.text(1): entry.text(2) for entry in function.each(4)}
        returned = [results.get(item.text(1), "") for item in signature.each(3)]
        bound = {name: [value] for name, value in zip(arguments, given, strict=False)}
        needed = {_node_of(text) for text in returned}
        short = prefix if len(prefix) < 80 else prefix[-80:]
        made = self._body(function.each(3), bound, short, needed, depth + 1)
        return [self._value(text, made) for text in returned]

    def _constant(self, operator: str, name: str, attributes: Mapping[str, Message]) -> _Value:
        shape = _output_shape(attributes) if operator == "Const" else None
        if "shape" in attributes:
            shape = read_shape(attributes["shape"].one(7))
        self._seen[name] = Constant(shape or (), DTYPES.get(_type(attributes), "?"))
        return _Value(name, shape, frozenset([name]))

    def _value(self, reference: str, values: Mapping[str, list[_Value]]) -> _Value:
        """The value that a reference names: the last part is the output's number, where there is one."""
        found = values.get(_node_of(reference))
        if not found:
            raise ModelFileError(f"a node takes {reference[:80]!r}, which nothing makes: the file is damaged")
        last = reference.split(":")[-1]
        return found[min(int(last), len(found) - 1) if last.isdecimal() and ":" in reference else 0]


def read_shape(shape: Message | None) -> Shape | None:
    """TensorShapeProto: dims are field 2 (size 1, name 2), an unknown rank is field 3; -1 is a size that may vary."""
    if shape is None or shape.number(3):
        return None
    sizes = [dim.number(1) for dim in shape.each(2)]
    return tuple(size if size >= 0 else None for size in sizes)


def _macs(
    operator: str,
    attributes: Mapping[str, Message],
    given: Sequence[_Value],
    shape: Shape | None,
    sample: Sample,
) -> int | None:
    """Kernels are [height, width, in, out], of a depthwise convolution [height, width, channels, multiplier]."""
    if any(word in operator for word in _UNCOUNTED):
        return None
    if operator in ("Conv2D", "Conv3D", "DepthwiseConv2dNative") and len(given) > 1:
        kernel = given[1].shape
        return sample.macs(shape, kernel[: 2 if operator.startswith("Depth") else -1] if kernel else None)
    if operator in _PRODUCTS and given:
        flag, factor = attributes.get(_PRODUCTS[operator]), given[0].shape
        turned = flag is not None and flag.number(5) > 0
        return sample.macs(shape, (factor[-2:-1] if turned else factor[-1:]) if factor else None)
    return 0


def _output_shape(attributes: Mapping[str, Message]) -> Shape | None:
    """The first of `_output_shapes`, a list (1) of shapes (7)."""
    attribute = attributes.get("_output_shapes")
    listed = attribute.one(1) if attribute else None
    shapes = listed.each(7) if listed else []
    return read_shape(shapes[0]) if shapes else None


def _type(attributes: Mapping[str, Message]) -> int:
    """The dtype of what comes out (`dtype`), or of what goes through (`T`); 0 for neither."""
    return next((attributes[name].number(6) for name in ("dtype", "T") if name in attributes), 0)


def _node_of(reference: str) -> str:
    return reference.split(":")[0]


def _renamed(layer: Layer, names: Mapping[str, str]) -> Layer:
    """A layer whose output bears the signature's name, where it is an output of the model."""
    inputs, outputs = (
        tuple(names.get(name, name) for name in each) for each in (layer.inputs, layer.outputs)
    )
    return dataclasses.replace(layer, inputs=inputs, outputs=outputs)
