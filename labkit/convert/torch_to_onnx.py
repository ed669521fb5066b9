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

from labkit.convert.parity import parity
from labkit.data import Dataset
from labkit.errors import TechniqueError
from labkit.formats.onnx_file import write_metadata
from labkit.progress import Progress
from labkit.technique import Technique, knob, probe
from labkit.variant import Variant

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class ExportOnnx(Technique):
    """Write a PyTorch variant as one ONNX file with a free batch, and prove that it computes the same."""

    name: ClassVar[str] = "export_onnx"
    title: ClassVar[str] = "Export to ONNX"
    takes: ClassVar[tuple[str, ...]] = ("torch",)

    opset: int = knob(18, "version of ONNX's operator set", min=18, max=23)
    tolerance: float = knob(1e-4, "largest error, as a share of the largest output", above=0.0, max=1.0)

    def requires(self, variant: Variant, dataset: Dataset | None) -> None:
        """Also refuse a model in training mode, which would keep its dropout and batch statistics."""
        super().requires(variant, dataset)
        training = [name or "the model" for name, module in variant.model.named_modules() if module.training]
        if training:
            where = f"{training[0]} of {variant.name!r}"
            raise TechniqueError(f"{where} is in training mode: call model.eval() first")

    def apply(self, variant: Variant, dataset: Dataset | None, progress: Progress) -> Variant:
        """Export, then compare at batches 1, 3 and 7: on `dataset`'s training samples, or on random ones."""
        progress(0.0, "tracing the forward pass")
        model = _export(variant, dataset, self.opset)
        _strip(model)
        _check_dimensions(variant, model)
        write_metadata(model, variant)
        payload = model.SerializeToString()
        result = variant.derive(variant.name, self.step(variant), format="onnx", model=payload)
        progress(0.8, "comparing the outputs")
        parity(variant, result, dataset).check(self.tolerance)
        progress(1.0, "exported")
        return result


def _export(variant: Variant, dataset: Dataset | None, opset: int) -> onnx.ModelProto:
    """Trace with an example of two samples: one would look like a constant 1."""
    import torch

    named = {size for spec in variant.inputs for size in spec.shape if isinstance(size, str)}
    dimensions = {name: torch.export.Dim(name) for name in sorted(named)}
    example = probe(variant)
    if dataset is not None and not any(isinstance(spec.shape[0], int) for spec in variant.inputs):
        example = variant.feeds(dataset.split("train").take(slice(0, 2)).inputs)
    with _quiet():
        try:
            program: Any = torch.onnx.export(
                variant.model,
                tuple(torch.from_numpy(example[spec.name].copy()) for spec in variant.inputs),
                input_names=[spec.name for spec in variant.inputs],
                output_names=[spec.name for spec in variant.outputs],
                opset_version=opset,
                dynamo=True,
                dynamic_shapes=tuple(
                    {axis: dimensions[size] for axis, size in enumerate(spec.shape) if isinstance(size, str)}
                    for spec in variant.inputs
                ),
                external_data=False,
                verbose=False,
            )
        except Exception as error:  # whatever the model's own forward raises comes out here, wrapped
            raise TechniqueError(f"PyTorch cannot export {variant.name!r}: {_innermost(error)}") from None
    proto: onnx.ModelProto = program.model_proto
    return proto


def _innermost(error: BaseException) -> str:
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
def _quiet() -> Iterator[None]:
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


def _strip(model: onnx.ModelProto) -> None:
    """Remove what only debugging needs: it holds stack traces, and so the paths of the exporting machine."""
    from labkit.formats.onnx_child import graphs

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
