"""Sixteen bits for the weights: half the file, and as good as nothing lost.

float16 has 11 significant bits and reaches 65,504; bfloat16 has 8, and the whole reach of float32. The weights are
stored in sixteen bits and made float32 again when the file is opened, so every runtime takes the file and computes as
it did before. To *compute* in bfloat16 is another choice, and the runtime's: RunOptions(precision="bfloat16").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx
from onnx import helper, numpy_helper

from labkit.data import Dataset
from labkit.errors import TechniqueError
from labkit.onnx_graph import open_graph, replace_nodes
from labkit.progress import Progress
from labkit.quantize.floats import BFLOAT16, FLOAT16
from labkit.technique import Technique, knob
from labkit.variant import Variant

_FEWEST_VALUES = 16
"""A Cast and its name take as many bytes as that saves."""


@dataclass(frozen=True)
class StoreHalf(Technique):
    """Store the weights in float16 or bfloat16; compute in float32."""

    name: ClassVar[str] = "store_half"
    title: ClassVar[str] = "Weights in 16 bits"
    takes: ClassVar[tuple[str, ...]] = ("onnx",)

    dtype: str = knob("float16", "11 significant bits, or 8 and more reach", choices=("float16", "bfloat16"))

    def apply(self, variant: Variant, dataset: Dataset | None, progress: Progress) -> Variant:
        """Store every float32 constant of 16 numbers or more in sixteen bits.

        Raises TechniqueError if there is none, or one holds a number that float16 does not reach.
        """
        model = open_graph(variant.payload)
        kind = onnx.TensorProto.FLOAT16 if self.dtype == "float16" else onnx.TensorProto.BFLOAT16
        form = FLOAT16 if self.dtype == "float16" else BFLOAT16
        casts = []
        for tensor in list(model.graph.initializer):
            values = numpy_helper.to_array(tensor)
            if values.dtype != np.float32 or values.size < _FEWEST_VALUES:
                continue
            largest = float(np.abs(values).max())
            if not largest <= form.largest:
                raise TechniqueError(
                    f"{tensor.name!r} of {variant.name!r} holds {largest:g}, and {self.dtype} ends at "
                    f"{form.largest:g}: use dtype='bfloat16'"
                )
            stored = helper.make_tensor(
                f"{tensor.name}/{self.dtype}",
                kind,
                values.shape,
                form.encode(values).astype(np.uint16).tobytes(),
                raw=True,
            )
            casts.append(helper.make_node("Cast", [stored.name], [tensor.name], to=onnx.TensorProto.FLOAT))
            tensor.CopyFrom(stored)
        if not casts:
            raise TechniqueError(
                f"{variant.name!r} holds no float32 weights: there is nothing to make smaller"
            )
        replace_nodes(model, [*casts, *model.graph.node])
        name = f"{variant.name}+{self.dtype}"
        return variant.derive(name, self.step(variant), model=model.SerializeToString())
