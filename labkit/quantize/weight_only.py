"""Weight-only quantization: 2 to 8 bits for the weights, float for the activations.

Where a model is slow because its weights must be fetched (large matrices, small batches), or where its file is too
large, few bits for the weights are all that is wanted. No calibration is needed for the nearest rounding. With few
bits it pays to learn the rounding instead (`rounding`), or to give every group of weights its own scale.

When the file is opened, matrix products become ONNX Runtime's packed MatMulNBits. It knows only weights [I, O], and no
ReLU right behind, so the products are written that way. With float32 arithmetic (labkit's runtimes insist on that) 4
bits are nearly as fast as float32, and 8 bits much slower. Convolutions are expanded to float32 when the file is
opened (`expand`): smaller in the file, and as fast as before.

Fewer bits than 4 are stored as 4: they cost accuracy and save nothing in the file but what a packer makes of it.
5 to 7 bits are stored as 8.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar

import onnx
from onnx import helper

from labkit.data import Dataset
from labkit.errors import ConfigError, TechniqueError
from labkit.onnx_graph import Graph, attribute, replace_nodes, set_constant
from labkit.progress import Progress, part
from labkit.quantize.calibration.calibrate import pick
from labkit.quantize.gate import Quantizes, Work, start
from labkit.quantize.graph.expand import expand_when_loaded
from labkit.quantize.graph.plan import Plan, make_plan
from labkit.quantize.graph.qdq import SMALLEST_GROUP, round_weights, weight_grids
from labkit.quantize.rounding.learn import ROUNDINGS, learn_weights
from labkit.technique import knob
from labkit.variant import Variant


@dataclass(frozen=True)
class QuantizeWeights(Quantizes):
    """Weights in 2 to 8 bits; activations stay in float."""

    name: ClassVar[str] = "quantize_weights"
    title: ClassVar[str] = "Quantize weights only"
    takes: ClassVar[tuple[str, ...]] = ("onnx",)

    bits: int = knob(4, "of each weight", min=2, max=8)
    granularity: str = knob(
        "per_channel",
        "a scale for each output channel, for each group of input channels, or for all",
        choices=("per_channel", "per_group", "per_tensor"),
    )
    group_size: int = knob(
        32, "most input channels with one scale: a power of 2", min=SMALLEST_GROUP, max=256
    )
    rounding: str = knob("nearest", "to the nearest point, or learned from samples", choices=ROUNDINGS)
    calibration_samples: int = knob(512, "samples that a learned rounding sees", min=1, max=100_000)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.group_size & (self.group_size - 1):
            raise ConfigError(
                f"QuantizeWeights.group_size={self.group_size} must be a power of 2: 16, 32, 64, 128 or 256"
            )

    def requires(self, variant: Variant, dataset: Dataset | None) -> None:
        """As every technique does; and a rounding that learns needs samples."""
        super().requires(variant, dataset)
        if self.rounding != "nearest" and dataset is None:
            raise TechniqueError(
                f"rounding={self.rounding!r} learns from samples: pass a dataset, or use rounding='nearest'"
            )

    def apply(self, variant: Variant, dataset: Dataset | None, progress: Progress) -> Variant:
        """Fold, choose grids and rounding, store.

        Raises TechniqueError if nothing can be quantized, a weight is not finite, or quality drops by more than
        `max_drop_pp` on the dataset's training samples; without a dataset the drop is not measured.
        """
        work = start(variant)
        _turn_weights(work.model)
        plan = make_plan(work.model)
        work.plan = Plan(plan.layers, {}, plan.left)
        graph = Graph(work.model)
        grids = weight_grids(
            graph,
            work.plan,
            {},
            self.bits,
            self.granularity != "per_tensor",
            self.group_size if self.granularity == "per_group" else 0,
        )
        if self.rounding == "nearest":
            work.weights, used = round_weights(graph, grids), 0
        else:
            assert dataset is not None  # noqa: S101 - `requires` has checked it
            samples = pick(variant, dataset.split("calibration"), self.calibration_samples)
            used, learning = len(samples), part(progress, 0.0, 0.9)
            learned = learn_weights(
                self.rounding, variant, work.model, work.plan.layers, grids, samples, learning
            )
            work.take(learned)
        return self.write(variant, work, dataset, progress, {}, used)

    def insert(self, model: onnx.ModelProto, work: Work) -> None:
        """As QDQ nodes, so that ONNX Runtime packs the products and expands the convolutions once, in place."""
        super().insert(model, work)
        expand_when_loaded(model, {layer.output for layer in work.plan.layers if "Conv" in layer.op_type})
        _part_from_relu(model, {layer.output for layer in work.plan.layers if layer.axis == 1})


def _turn_weights(model: onnx.ModelProto) -> None:
    """Store a weight that every Gemm turns first (transB) as they need it, [O, I] → [I, O], in place."""
    graph = Graph(model)
    for name in graph.constants:
        users = graph.consumers[name]
        turned = [node for node in users if node.op_type == "Gemm" and attribute(node, "transB", 0)]
        values = graph.constant(name)
        if values is None or not users or len(turned) < len(users) or name in graph.outputs:
            continue
        if any(name in (node.input[0], *node.input[2:]) for node in users):
            continue
        set_constant(model, name, values.T)
        for node in turned:
            node.attribute.remove(next(each for each in node.attribute if each.name == "transB"))


def _part_from_relu(model: onnx.ModelProto, products: Collection[str]) -> None:
    """Product → ReLU becomes product → Sum → ReLU, in place: ONNX Runtime does not pack what it could fuse."""
    graph = Graph(model)
    nodes: list[onnx.NodeProto] = []
    for node in graph.nodes:
        y = node.output[0]
        user = graph.only_consumer(y)
        if y not in products or user is None or user.op_type not in ("Relu", "Clip"):
            nodes.append(node)
            continue
        product = graph.new_name(f"{y}/product")
        nodes.append(helper.make_node("MatMul", node.input[:2], [product], node.name))
        nodes.append(helper.make_node("Sum", [product, *node.input[2:]], [y], f"{y}/sum"))
    replace_nodes(model, nodes)
