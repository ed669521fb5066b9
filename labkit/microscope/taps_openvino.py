"""Taps of OpenVINO models: every operator's output is declared a result, in float32 on one thread."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from labkit.errors import ModelFileError, UnavailableError
from labkit.microscope.taps import INPUT, Tap
from labkit.runtimes import RunOptions, get_runtime
from labkit.runtimes.openvino import read_openvino
from labkit.variant import Array, Variant


def read(variant: Variant, feeds: Mapping[str, Array]) -> Iterator[Tap]:
    """The taps of an `openvino` variant ("model.xml" and "model.bin")."""
    runtime = get_runtime("openvino")
    available = runtime.is_available()
    if not available.ok:
        raise UnavailableError(f"openvino cannot be used: {available.reason}; {available.install}")
    engine = runtime.engine()
    core = engine.Core()
    try:
        model = read_openvino(core, engine, variant)
        given = [_name(output) for output in model.inputs]
        named = dict(zip(given, (spec.name for spec in variant.inputs), strict=True))
        read = [_Operator(op, named) for op in _operators(model)]  # before new results rename what they read
        watched = {name: output for op in read for name, output in op.outputs.items()}
        places = {_place(output): name for name, output in watched.items()}
        model.add_outputs(list(watched.values()))
        compiled = core.compile_model(model, "CPU", runtime.settings(RunOptions()))
        results = compiled({place: feeds[named[name]] for place, name in enumerate(given)})
        values = {
            places[_place(port.get_node().input_value(0))]: results[place].copy()
            for place, port in enumerate(model.outputs)
        }
    except Exception as error:  # openvino raises RuntimeError and kinds of its own
        raise ModelFileError(f"OpenVINO cannot run {variant.name!r}: {str(error)[-300:]}") from None
    for spec in variant.inputs:
        yield Tap(spec.name, INPUT, spec.name, "", (), feeds[spec.name])
    for each in read:
        for name in each.outputs:
            yield Tap(name, each.kind, each.node, each.node, each.inputs, values[name], each.attributes)


class _Operator:
    """What is to be told of one operator; `outputs` are its tensors by name, without unread side results."""

    def __init__(self, op: Any, named: Mapping[str, str]) -> None:
        self.kind, self.node = op.get_type_name(), op.get_friendly_name()
        sources = (_name(port.get_source_output()) for port in op.inputs())
        self.inputs = tuple(dict.fromkeys(named.get(name, name) for name in sources))
        told = [each for each in op.outputs() if each.get_index() == 0 or each.get_target_inputs()]
        self.outputs = {_name(output): output for output in told}
        self.attributes = dict(op.get_attributes())


def _operators(model: Any) -> Iterator[Any]:
    """Those that depend on an input, in topological order."""
    depends: set[str] = set()
    for op in model.get_ordered_ops():
        kind, name = op.get_type_name(), op.get_friendly_name()
        sources = (port.get_source_output().get_node().get_friendly_name() for port in op.inputs())
        if kind == "Parameter" or depends.intersection(sources):
            depends.add(name)
            if kind not in ("Parameter", "Result"):
                yield op


def _name(output: Any) -> str:
    """The tensor's name, which survives from ONNX; one without is called after its operator."""
    names = sorted(output.get_names())
    return names[0] if names else f"{output.get_node().get_friendly_name()}:{output.get_index()}"


def _place(output: Any) -> tuple[str, int]:
    return output.get_node().get_friendly_name(), output.get_index()
