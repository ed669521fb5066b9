"""Sixteen bits for the weights: half the file, and as good as nothing lost.

float16 has 11 significant bits, reaches up to 65,504, and below 0.00006 loses bits, down to 6e-8; bfloat16 has 8, and
the whole reach of float32. The weights are stored in sixteen bits and made float32 again when the file is opened, so
every runtime takes the file and computes as it did before. To *compute* in bfloat16 is another choice, and the
runtime's: RunOptions(precision="bfloat16").
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx
from onnx import helper, numpy_helper

from labkit.data import Dataset
from labkit.errors import TechniqueError
from labkit.onnx_graph import Graph, open_graph, replace_nodes
from labkit.progress import Progress
from labkit.quantize.arithmetic.floats import BFLOAT16, FLOAT16
from labkit.quantize.gate import Gated, check_weights
from labkit.technique import knob
from labkit.variant import Variant

_FEWEST_VALUES = 64
"""For fewer, a Cast and its name take more bytes than it saves."""


@dataclass(frozen=True)
class StoreHalf(Gated):
    """Store the weights in float16 or bfloat16; compute in float32."""

    name: ClassVar[str] = "store_half"
    title: ClassVar[str] = "Weights in 16 bits"
    takes: ClassVar[tuple[str, ...]] = ("onnx",)

    dtype: str = knob("float16", "11 significant bits, or 8 and more reach", choices=("float16", "bfloat16"))

    def apply(self, variant: Variant, dataset: Dataset | None, progress: Progress) -> Variant:
        """Store every float32 constant of 64 numbers or more in sixteen bits, each rounded to the nearest.

        Raises TechniqueError if there is none, one holds a number that is not finite or becomes infinite, the model
        is quantized already, or quality drops by more than `max_drop_pp` on the dataset's training samples.
        """
        model = open_graph(variant.payload)
        check_weights(variant, model)
        tensors = [each for each in model.graph.initializer if _is_worth_it(each)]
        if not tensors:
            raise TechniqueError(
                f"{variant.name!r} holds no float32 weights of {_FEWEST_VALUES} numbers or more: there is nothing to "
                "make smaller"
            )
        graph, casts = Graph(model), []
        for index, tensor in enumerate(tensors):
            progress(index / len(tensors), f"{tensor.name} in {self.dtype}")
            name = tensor.name
            tensor.CopyFrom(self._rounded(variant, tensor, graph.new_name(f"{name}/{self.dtype}")))
            casts.append(helper.make_node("Cast", [tensor.name], [name], to=onnx.TensorProto.FLOAT))
        replace_nodes(model, [*casts, *model.graph.node])
        name = f"{variant.name}+{self.dtype}"
        result = variant.derive(name, self.step(variant), model=model.SerializeToString())
        other = "bfloat16" if self.dtype == "float16" else "float16"
        held = self.hold(variant, result, dataset, f"dtype={other!r}")
        progress(1.0, f"{len(casts)} tensors in {self.dtype}")
        return held

    def _rounded(self, variant: Variant, tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
        """The same numbers in sixteen bits, called `name`."""
        values = numpy_helper.to_array(tensor)
        form = FLOAT16 if self.dtype == "float16" else BFLOAT16
        bits = form.encode(values)
        if not np.isfinite(form.decode(bits)).all():
            instead = "use dtype='bfloat16'" if form is FLOAT16 else "leave it in float32"
            raise TechniqueError(
                f"{tensor.name!r} of {variant.name!r} holds {np.abs(values).max():g}, and {self.dtype} ends at "
                f"{form.largest:g}: {instead}"
            )
        kind = getattr(onnx.TensorProto, self.dtype.upper())
        return helper.make_tensor(name, kind, values.shape, bits.astype("<u2").tobytes(), raw=True)


def _is_worth_it(tensor: onnx.TensorProto) -> bool:
    return tensor.data_type == onnx.TensorProto.FLOAT and math.prod(tensor.dims) >= _FEWEST_VALUES
