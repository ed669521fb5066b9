"""TensorRT on an NVIDIA GPU: an engine that was compiled for exactly one kind of GPU.

Code that no machine of ours could run yet: `is_available` says why, wherever that is so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from labkit.errors import ModelFileError
from labkit.runtimes.base import Availability, RunOptions, Runtime, Session
from labkit.variant import Array, Variant


class TensorRtSession(Session):
    """An execution context; PyTorch's CUDA tensors are its buffers."""

    def __init__(self, variant: Variant, options: RunOptions, tensorrt: Any) -> None:
        super().__init__(variant, options)
        import torch

        self._torch = torch
        logger = tensorrt.Logger(tensorrt.Logger.ERROR)
        self._engine = tensorrt.Runtime(logger).deserialize_cuda_engine(variant.payload)
        if self._engine is None:
            raise ModelFileError(
                f"TensorRT refuses {variant.name!r}: an engine fits only the GPU and the version that built it"
            )
        self._context = self._engine.create_execution_context()

    def execute(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Named arrays in, named arrays out; copying to the GPU and back is part of it."""
        torch, context = self._torch, self._context
        given = {name: torch.from_numpy(array).cuda().contiguous() for name, array in feeds.items()}
        for name, tensor in given.items():
            context.set_input_shape(name, tuple(tensor.shape))
            context.set_tensor_address(name, tensor.data_ptr())
        results = {}
        for spec in self.variant.outputs:
            shape = tuple(context.get_tensor_shape(spec.name))
            results[spec.name] = torch.empty(shape, dtype=getattr(torch, spec.dtype), device="cuda")
            context.set_tensor_address(spec.name, results[spec.name].data_ptr())
        context.execute_async_v3(torch.cuda.current_stream().cuda_stream)
        self.synchronize()
        return {name: tensor.cpu().numpy() for name, tensor in results.items()}

    def synchronize(self) -> None:
        """Wait for the GPU."""
        self._torch.cuda.synchronize()

    def close(self) -> None:
        """Give the engine's memory back."""
        self._context = self._engine = None
        super().close()


class TensorRt(Runtime):
    """TensorRT, with float32 kept float32 (no TF32)."""

    name = "tensorrt"
    formats = ("tensorrt",)
    devices = ("cuda",)
    package = "tensorrt"
    install = "pip install tensorrt, beside a CUDA build of torch, on a machine with an NVIDIA GPU"

    def is_available(self) -> Availability:
        """Whether the package is here, and a GPU that PyTorch can see."""
        available = super().is_available()
        if not available.ok:
            return available
        import torch

        if not torch.cuda.is_available():
            return Availability(False, "PyTorch sees no NVIDIA GPU here", self.install)
        return available

    def open(self, variant: Variant, options: RunOptions) -> Session:
        """Deserialise the engine; ModelFileError if this GPU cannot run it."""
        return TensorRtSession(variant, options, self.engine())
