"""PyTorch → ONNX: the forward pass is traced into a graph of standard operators, θ goes into the same file.

A conversion has no backward pass and learns nothing. What can go wrong is quieter than a failure: a model in
training mode is traced with its dropout and its batch statistics, an example of one sample freezes the
batch at 1, and now and then the exported arithmetic is simply another. So the mode is checked before, the
batch and the numbers after. In evaluation mode a batch normalisation is one multiply and one add per
channel; PyTorch's exporter folds it into the convolution before it, and later quantization relies on that.
"""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TextIO

from labkit.convert.converter import Converter
from labkit.data import Dataset
from labkit.errors import TechniqueError
from labkit.formats.onnx_file import write_metadata
from labkit.progress import Progress
from labkit.runtimes.torch_eager import exported
from labkit.technique import knob, probe
from labkit.variant import Variant

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class ExportOnnx(Converter):
    """Write a PyTorch variant as one ONNX file with a free batch, and prove that it computes the same."""

    name: ClassVar[str] = "export_onnx"
    title: ClassVar[str] = "Export to ONNX"
    takes: ClassVar[tuple[str, ...]] = ("torch", "pt2")
    target: ClassVar[str] = "onnx"

    opset: int = knob(18, "version of ONNX's operator set", min=18, max=23)

    def requires(self, variant: Variant, dataset: Dataset | None) -> None:
        """Also refuse a model in training mode, which would keep its dropout and batch statistics."""
        super().requires(variant, dataset)
        check_not_training(variant)

    def convert(self, variant: Variant, dataset: Dataset | None, progress: Progress) -> dict[str, Any]:
        """Trace the forward pass; the batch must come out free."""
        model = _export(variant, dataset, self.opset)
        strip(model)
        _check_dimensions(variant, model)
        write_metadata(model, variant)
        return {"model": model.SerializeToString()}


def check_not_training(variant: Variant) -> None:
    """Raise TechniqueError for a module in training mode."""
    modules = variant.model.named_modules() if variant.format == "torch" else ()
    training = [name or "the model" for name, module in modules if module.training]
    if training:
        raise TechniqueError(
            f"{training[0]} of {variant.name!r} is in training mode: call model.eval() first"
        )


def example(variant: Variant, dataset: Dataset | None) -> tuple[Any, ...]:
    """Two samples as tensors: one would look like a constant 1."""
    import torch

    feeds = probe(variant)
    if dataset is not None and variant.fixed_batch is None:
        feeds = variant.feeds(dataset.split("train").take(slice(0, 2)).inputs)
    return tuple(torch.from_numpy(feeds[spec.name].copy()) for spec in variant.inputs)


def dynamic_shapes(variant: Variant) -> tuple[dict[int, Any], ...]:
    """For each input, its free axes: axis → torch.export.Dim, one for each name."""
    import torch

    named = {size for spec in variant.inputs for size in spec.shape if isinstance(size, str)}
    dimensions = {name: torch.export.Dim(name) for name in sorted(named)}
    return tuple(
        {axis: dimensions[size] for axis, size in enumerate(spec.shape) if isinstance(size, str)}
        for spec in variant.inputs
    )


def _export(variant: Variant, dataset: Dataset | None, opset: int) -> onnx.ModelProto:
    import torch

    traced: dict[str, Any] = {"args": example(variant, dataset), "dynamic_shapes": dynamic_shapes(variant)}
    with quiet():
        try:
            program: Any = torch.onnx.export(
                variant.model if variant.format == "torch" else exported(variant),
                input_names=[spec.name for spec in variant.inputs],
                output_names=[spec.name for spec in variant.outputs],
                opset_version=opset,
                dynamo=True,
                external_data=False,
                verbose=False,
                **(traced if variant.format == "torch" else {}),
            )
        except Exception as error:  # whatever the model's own forward raises comes out here, wrapped
            raise TechniqueError(f"PyTorch cannot export {variant.name!r}: {innermost(error)}") from None
    proto: onnx.ModelProto = program.model_proto
    return proto


def innermost(error: BaseException) -> str:
    """The first line of the error at the bottom of the chain: the exporter wraps it in pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:2])[:300]}"


class _OtherThreads(io.TextIOBase):
    """A stream that passes on what other threads write: in a notebook, they may be printing meanwhile."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._muted = stream, threading.get_ident()

    def write(self, text: str) -> int:
        """Pass `text` on, or drop it."""
        return len(text) if threading.get_ident() == self._muted else self._stream.write(text)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporter's progress, warnings and log lines off the terminal: stdout may be carrying JSON."""
    logger = logging.getLogger("torch")
    level = logger.level
    with (
        contextlib.redirect_stdout(_OtherThreads(sys.stdout)),
        contextlib.redirect_stderr(_OtherThreads(sys.stderr)),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            logger.setLevel(level)


def strip(model: onnx.ModelProto) -> None:
    """Remove what only debugging needs: it holds stack traces, and so the paths of the exporting machine."""
    from labkit.onnx_graph.stored import graphs

    main = model.graph
    nodes = [node for graph in graphs(model) for node in graph.node]
    for part in (model, *graphs(model), *nodes, *main.input, *main.output, *main.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    for graph in graphs(model):
        del graph.value_info[:]


def _check_dimensions(variant: Variant, model: onnx.ModelProto) -> None:
    """Raise TechniqueError if a dimension that was to stay free came out as a number."""
    for spec, value in zip(variant.inputs, model.graph.input, strict=True):
        for size, dimension in zip(spec.shape, value.type.tensor_type.shape.dim, strict=True):
            if isinstance(size, str) and not dimension.dim_param:
                raise TechniqueError(
                    f"the export fixed dimension {size!r} of input {spec.name!r} at {dimension.dim_value}: "
                    "look for code in the model's forward that turns a shape into a Python number"
                )
