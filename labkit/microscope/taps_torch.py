"""Taps of PyTorch models: `torch.export` writes the forward pass down, an interpreter runs it node by node."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import fx

from labkit.errors import TechniqueError
from labkit.microscope.taps import INPUT, Tap
from labkit.variant import Array, Variant


class _Recorder(fx.Interpreter):
    """Runs a graph and keeps what every node returned."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.values: dict[fx.Node, Any] = {}

    def run_node(self, node: fx.Node) -> Any:
        """Run and remember."""
        value = super().run_node(node)
        self.values[node] = value.clone() if isinstance(value, torch.Tensor) else value
        return value


def read(variant: Variant, feeds: Mapping[str, Array]) -> Iterator[Tap]:
    """The taps of a `torch` or `pt2` variant; TechniqueError if PyTorch cannot write the forward pass down."""
    example = tuple(torch.from_numpy(feeds[spec.name].copy()) for spec in variant.inputs)
    module = _graph(variant, example)
    recorder = _Recorder(module)
    with torch.inference_mode():
        recorder.run(*example)
    placeholders = [node for node in module.graph.nodes if node.op == "placeholder"]
    names = dict(zip(placeholders, (spec.name for spec in variant.inputs), strict=True))
    for node in module.graph.nodes:
        value = recorder.values.get(node)
        if node in names:
            yield Tap(names[node], INPUT, names[node], "", (), feeds[names[node]])
        elif node.op == "call_function" and isinstance(value, torch.Tensor):
            maker = _maker(node, recorder)
            inputs = tuple(names.get(each, each.name) for each in _inputs(maker, recorder))
            yield Tap(node.name, _kind(maker), maker.name, _layer(maker), inputs, value.numpy())


def _graph(variant: Variant, example: tuple[torch.Tensor, ...]) -> fx.GraphModule:
    try:
        if variant.format == "pt2":
            program = torch.export.load(io.BytesIO(variant.model))
        else:
            program = torch.export.export(variant.model.eval(), example)
    except Exception as error:  # whatever the model's own forward raises
        reason = str(error).strip().splitlines()
        raise TechniqueError(
            f"PyTorch cannot write down the graph of {variant.name!r}: {reason[0] if reason else repr(error)}"
        ) from None
    module = program.module()
    assert isinstance(module, fx.GraphModule)  # noqa: S101 - torch.export makes no other
    return module


def _maker(node: fx.Node, recorder: _Recorder) -> fx.Node:
    """The operator whose result `node` is: for one part of a tuple, the node that made the tuple."""
    source = node.args[0] if node.args else None
    if isinstance(source, fx.Node) and not isinstance(recorder.values.get(source), torch.Tensor):
        return _maker(source, recorder) if source.op == "call_function" else node
    return node


def _inputs(node: fx.Node, recorder: _Recorder) -> Iterator[fx.Node]:
    for each in node.all_input_nodes:
        if isinstance(recorder.values.get(each), torch.Tensor):
            yield each
        else:
            yield from _inputs(each, recorder)


def _kind(node: fx.Node) -> str:
    """aten.conv2d.default → conv2d."""
    return str(getattr(node.target, "__name__", node.target)).split(".")[0]


def _layer(node: fx.Node) -> str:
    """The path of the module that called it; empty for the model itself."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    return str(stack[-1][0]) if stack else ""
