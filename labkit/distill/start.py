"""Where a student's weights begin: at random, or as every k-th block of its teacher.

A teacher of 3 blocks a stage and a student of 1 share stem, stage entries and classifier. Taking those weights
over, and leaving out the blocks between, gives the student a start that no random draw can match: DistilBERT
begins so, with every second layer of BERT (Sanh et al. 2019, section 2). What was left out, distillation mends.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from labkit.errors import TechniqueError
from labkit.variant import Variant

STARTS = ("random", "teacher")


def copy_weights(teacher: Variant, student: nn.Module) -> None:
    """Overwrite the student's parameters with its teacher's; block p of n becomes the teacher's block p·N/n of N.

    Raises TechniqueError, with the student as it was, unless every layer of it has one of equal shape in the teacher.
    """
    blocks = _blocks_of(teacher.model, student)
    source: Mapping[str, Tensor] = teacher.model.state_dict()
    taken = {}
    for name, tensor in student.state_dict().items():
        head, _, rest = name.removeprefix("blocks.").partition(".")
        there = f"blocks.{blocks.get(int(head))}.{rest}" if name.startswith("blocks.") else name
        if there not in source or source[there].shape != tensor.shape:
            raise TechniqueError(
                f"start='teacher' copies layers of equal shape, and {teacher.name!r} has none for the student's "
                f"{name}: let the student be as wide as its teacher and of the same family, or use start='random'"
            )
        taken[name] = source[there]
    student.load_state_dict(taken)


def _blocks_of(teacher: nn.Module, student: nn.Module) -> dict[int, int]:
    """Student's block → the teacher's that it starts as, stage by stage; empty for networks without blocks."""
    pairs: dict[int, int] = {}
    first = 0
    for theirs, ours in zip(_stages(teacher), _stages(student), strict=False):
        for position in range(ours):
            pairs[len(pairs)] = first + position * theirs // ours
        first += theirs
    return pairs


def _stages(model: Any) -> list[int]:
    """How many blocks each stage has, in a ResNet, a MobileNet or a ViT of labkit's; none for other networks."""
    config = getattr(model, "config", None)
    if not isinstance(config, Mapping):
        return []
    if "inner" in config:
        return [len(widths) for widths in config["inner"]]
    return [config["depth"]] if "depth" in config else list(config.get("blocks", ()))
