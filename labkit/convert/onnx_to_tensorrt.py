"""ONNX → TensorRT: an engine compiled for the GPU of this very machine.

Code that no machine of ours could run yet: `is_available` says why, wherever that is so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from labkit.convert.converter import Converter
from labkit.data import Dataset
from labkit.errors import TechniqueError
from labkit.progress import Progress
from labkit.runtimes import Availability, get_runtime
from labkit.technique import knob
from labkit.variant import Variant


@dataclass(frozen=True)
class OnnxToTensorRt(Converter):
    """Build an engine for batches of 1 to `largest_batch`, in float32 without TF32."""

    name: ClassVar[str] = "onnx_to_tensorrt"
    title: ClassVar[str] = "ONNX to TensorRT"
    takes: ClassVar[tuple[str, ...]] = ("onnx",)
    target: ClassVar[str] = "tensorrt"
    verified: ClassVar[bool] = False

    largest_batch: int = knob(32, "the engine runs batches up to this size", min=7, max=4096)

    @classmethod
    def is_available(cls) -> Availability:
        """What the runtime says: the package, and a GPU."""
        return get_runtime("tensorrt").is_available()

    def convert(self, variant: Variant, dataset: Dataset | None, progress: Progress) -> dict[str, Any]:
        """Parse, give every free dimension its range, and compile."""
        tensorrt = get_runtime("tensorrt").engine()
        logger = tensorrt.Logger(tensorrt.Logger.ERROR)
        builder = tensorrt.Builder(logger)
        network = builder.create_network(0)
        parser = tensorrt.OnnxParser(network, logger)
        if not parser.parse(variant.payload):
            reasons = "; ".join(str(parser.get_error(index)) for index in range(parser.num_errors))
            raise TechniqueError(f"TensorRT cannot read {variant.name!r}: {reasons[:300]}")
        config = builder.create_builder_config()
        config.clear_flag(tensorrt.BuilderFlag.TF32)
        profile = builder.create_optimization_profile()
        for spec in variant.inputs:
            least, most = (
                [size if isinstance(size, int) else free for size in spec.shape]
                for free in (1, self.largest_batch)
            )
            profile.set_shape(spec.name, least, most, most)
        config.add_optimization_profile(profile)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise TechniqueError(f"TensorRT built no engine for {variant.name!r}: its log says why")
        return {"model": bytes(plan)}
