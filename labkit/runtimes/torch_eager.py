"""PyTorch as it is written: each operation is dispatched from Python, one after the other. The baseline."""

from __future__ import annotations

from collections.abc import Mapping

from labkit.runtimes.base import RunOptions, Runtime, Session
from labkit.variant import Array, Variant


class TorchSession(Session):
    """A module in evaluation mode, without gradients."""

    def __init__(self, variant: Variant, options: RunOptions) -> None:
        super().__init__(variant, options)
        import torch

        self._torch = torch
        self._module = variant.model
        self._module.eval()
        self._autocast = options.precision == "bfloat16"

    def execute(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Named arrays in, float32 (or whole-number) arrays out."""
        torch = self._torch
        if torch.get_num_threads() != self.options.threads:
            torch.set_num_threads(self.options.threads)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=self._autocast):
            result = self._module(*(torch.from_numpy(feeds[spec.name]) for spec in self.variant.inputs))
        tensors = result if isinstance(result, (tuple, list)) else (result,)
        return {
            spec.name: (tensor.float() if tensor.is_floating_point() else tensor).numpy()
            for spec, tensor in zip(self.variant.outputs, tensors, strict=True)
        }


class TorchEager(Runtime):
    """PyTorch eager mode on the CPU."""

    name = "torch"
    formats = ("torch",)
    precisions = ("float32", "bfloat16")
    package = "torch"

    def open(self, variant: Variant, options: RunOptions) -> Session:
        """Wrap the module; nothing is copied."""
        return TorchSession(variant, options)
