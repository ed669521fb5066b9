"""What the edges into ONNX share whose converters are not ours: names given back, nothing of this process kept."""

from __future__ import annotations

import re
from typing import Any

from labkit.convert.converter import paired
from labkit.convert.torch_to_onnx import innermost, quiet, strip
from labkit.errors import TechniqueError
from labkit.formats.onnx_file import write_metadata
from labkit.runtimes.base import muted
from labkit.runtimes.tensorflow import signature
from labkit.variant import Variant

_COUNTED = re.compile(r"__(\d+)(?!\w)")
OPSET = 18
"""The newest that tf2onnx writes."""


def traced(variant: Variant, tf: Any, function: Any) -> Any:
    """A function of tensors in the variant's order as an ONNX model, by tf2onnx; TechniqueError if it cannot.

    A constant that the function took from outside (the mean that a Normalization layer was given, say) comes out of
    tf2onnx as one more input: it is put back to where its value is known.
    """
    import tf2onnx
    from onnx import numpy_helper

    specs = signature(variant, tf)
    with quiet(), muted():
        try:
            call = tf.function(function, input_signature=specs)
            model, _ = tf2onnx.convert.from_function(call, input_signature=specs, opset=OPSET)
            captured = {
                inside.name: outside for outside, inside in call.get_concrete_function().graph.captures
            }
        except Exception as error:
            raise TechniqueError(f"tf2onnx cannot convert {variant.name!r}: {innermost(error)}") from None
    inputs = list(model.graph.input)
    del model.graph.input[:]
    for value in inputs:
        if value.name in captured:
            weight = numpy_helper.from_array(captured[value.name].numpy(), value.name)
            model.graph.initializer.append(weight)
        else:
            model.graph.input.append(value)
    return model


def finished(variant: Variant, model: Any) -> dict[str, Any]:
    """The converter's ONNX model with the variant's names for what goes in and out, and without debugging texts."""
    names = paired([v.name for v in model.graph.input], [s.name for s in variant.inputs], "inputs")
    names |= paired([v.name for v in model.graph.output], [s.name for s in variant.outputs], "outputs")
    rename(model, names)
    for values, specs in ((model.graph.input, variant.inputs), (model.graph.output, variant.outputs)):
        by_name = {spec.name: spec for spec in specs}
        for value in values:
            dimensions = value.type.tensor_type.shape.dim
            for size, dimension in zip(by_name[value.name].shape, dimensions, strict=False):
                if isinstance(size, str):
                    dimension.dim_param = size
    number_by_place(model)
    model.graph.name = "main"
    strip(model)
    write_metadata(model, variant)
    return {"model": model.SerializeToString()}


def number_by_place(model: Any) -> None:
    """Number the names that tf2onnx counted through the whole process (`Conv__40`) by their place in this graph.

    Weights come in an order of chance too, and are put into that of their first use.
    """
    places: dict[str, str] = {}

    def placed(name: str) -> str:
        return _COUNTED.sub(lambda found: f"__{places.setdefault(found[1], str(len(places)))}", name)

    for node in model.graph.node:
        node.name = placed(node.name)
        node.input[:] = map(placed, node.input)
        node.output[:] = map(placed, node.output)
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        value.name = placed(value.name)
    order: dict[str, int] = {}
    for node in model.graph.node:
        for name in node.input:
            order.setdefault(name, len(order))
    weights = sorted(model.graph.initializer, key=lambda tensor: (order.get(tensor.name, -1), tensor.name))
    del model.graph.initializer[:]
    model.graph.initializer.extend(weights)


def rename(model: Any, names: dict[str, str]) -> None:
    """Give tensors other names, in place; TechniqueError if a new name is already somebody else's."""
    taken = {name for node in model.graph.node for name in node.output} | {
        value.name for value in (*model.graph.input, *model.graph.initializer)
    }
    clash = {new for old, new in names.items() if old != new and new in taken - set(names)}
    if clash:
        raise TechniqueError(f"the converted model already uses the name {min(clash)!r} inside")
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for value in (*model.graph.input, *model.graph.output):
        value.name = names.get(value.name, value.name)
