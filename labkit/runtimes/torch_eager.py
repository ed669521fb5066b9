"""PyTorch as it is written: each operation is dispatched from Python, one after the other. The baseline.

An exported program (`.pt2`) is the same operations without the Python code that called them.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping
from typing import Any

from labkit.errors import ModelFileError
from labkit.runtimes.base import RunOptions, Runtime, Session
from labkit.variant import Array, Variant


class TorchSession(Session):
    """A module in evaluation mode, without gradients."""

    def __init__(self, variant: Variant, options: RunOptions) -> None:
        super().__init__(variant, options)
        import torch

        self._torch = torch
        self._module = variant.model.eval() if variant.format == "torch" else exported(variant).module()
        self._autocast = options.precision == "bfloat16"

    def execute(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Named arrays in, float32 (or whole-number) arrays out."""
        arrays = self.observe(feeds)
        return {spec.name: array for spec, array in zip(self.variant.outputs, arrays, strict=True)}

    def observe(self, feeds: Mapping[str, Array]) -> list[Array]:
        """The outputs in their order, whatever the variant calls them, and however many there are."""
        torch = self._torch
        if torch.get_num_threads() != self.options.threads:
            torch.set_num_threads(self.options.threads)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=self._autocast):
            result = self._module(*(torch.from_numpy(feeds[spec.name]) for spec in self.variant.inputs))
        tensors, _ = torch.utils._pytree.tree_flatten(result)  # a dict or nested tuples: in their order
        short = (torch.float16, torch.bfloat16)  # numpy lacks the second
        return [(tensor.float() if tensor.dtype in short else tensor).numpy() for tensor in tensors]


def exported(variant: Variant) -> Any:
    """The ExportedProgram of a pt2 variant; ModelFileError if PyTorch refuses it."""
    import torch

    logger = logging.getLogger("torch.export")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        return torch.export.load(io.BytesIO(variant.payload))
    except Exception as error:
        raise ModelFileError(f"PyTorch refuses {variant.name!r}: {str(error)[:300]}") from None
    finally:
        logger.setLevel(level)


class TorchEager(Runtime):
    """PyTorch eager mode on the CPU."""

    name = "torch"
    formats = ("torch", "pt2")
    precisions = ("float32", "bfloat16")
    package = "torch"

    def open(self, variant: Variant, options: RunOptions) -> Session:
        """Wrap the module; nothing is copied."""
        return TorchSession(variant, options)
