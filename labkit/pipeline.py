"""Every technique by name, and Pipeline: several of them in a row, itself a technique, kept as TOML.

[[step]]
technique = "prune_channels"
pruning_ratio = 0.5

[[step]]
technique = "export_onnx"
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from labkit.convert import CONVERTERS, Converter
from labkit.data import Dataset
from labkit.distill import (
    Distill,
    DistillAttention,
    DistillDecoupled,
    DistillHints,
    DistillLogits,
    DistillSelf,
    Retaught,
)
from labkit.doors import door
from labkit.encode import ClusterWeights, FactorizeLowRank
from labkit.errors import ConfigError, TechniqueError, nearest
from labkit.files import check_writable, read_toml, write_atomically
from labkit.kept import kept
from labkit.progress import Progress, part
from labkit.prune import PruneChannels, PruneMagnitude, PruneWeights, RemoveDeadUnits
from labkit.quantize import (
    Equalize,
    QuantizeAware,
    QuantizeDynamic,
    QuantizeInt8,
    QuantizeMixed,
    QuantizeWeights,
    StoreHalf,
)
from labkit.technique import Technique
from labkit.train import Train
from labkit.variant import Variant

TECHNIQUES: tuple[type[Technique], ...] = (
    Train,
    *CONVERTERS,
    QuantizeInt8,
    QuantizeDynamic,
    QuantizeWeights,
    StoreHalf,
    QuantizeMixed,
    QuantizeAware,
    Equalize,
    PruneMagnitude,
    PruneWeights,
    PruneChannels,
    RemoveDeadUnits,
    Distill,
    ClusterWeights,
    DistillHints,
    DistillAttention,
    DistillDecoupled,
    DistillLogits,
    DistillSelf,
    FactorizeLowRank,
)
_LARGEST_FILE_BYTES = 100_000


@dataclass(frozen=True)
class Pipeline(Technique):
    """Apply `steps` one after the other; each adds its own entry to the lineage.

    Of a step that is a Pipeline itself the steps are taken, so that `steps` holds none.
    """

    name: ClassVar[str] = "pipeline"
    title: ClassVar[str] = "Pipeline"

    steps: tuple[Technique, ...] = ()
    checkpoint: str | Path | None = None
    """A folder where the result of each step is kept: the same pipeline, called again, goes on behind the last one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.steps:
            raise ConfigError("a Pipeline needs at least one step")
        if not isinstance(self.checkpoint, (str, Path, type(None))):
            raise ConfigError(f"checkpoint={self.checkpoint!r} must be a folder's path, or None")
        steps: list[Technique] = []
        for number, step in enumerate(self.steps, 1):
            if not isinstance(step, Technique):
                raise ConfigError(f"a Pipeline is made of techniques, {step!r} is none")
            if isinstance(step, Pipeline) and step.checkpoint:
                raise ConfigError(
                    f"step {number} is a Pipeline with checkpoint={step.checkpoint!r}: give it to the whole Pipeline"
                )
            steps += step.steps if isinstance(step, Pipeline) else [step]
        object.__setattr__(self, "steps", tuple(steps))

    @property
    def takes(self) -> tuple[str, ...]:  # type: ignore[override]
        """The formats of the first step."""
        return self.steps[0].takes

    @property
    def needs_dataset(self) -> bool:  # type: ignore[override]
        """Whether any step needs one."""
        return any(step.needs_dataset for step in self.steps)

    @property
    def config(self) -> dict[str, Any]:
        """The steps as plain data."""
        return {"step": [{"technique": step.name, **step.config} for step in self.steps]}

    def makes(self, format_: str) -> str:
        """The format that comes out where this one goes in; TechniqueError for a step that cannot follow another."""
        for number, step in enumerate(self.steps, 1):
            if format_ not in step.takes:
                raise TechniqueError(
                    f"step {number}, {step.name}, works on {' or '.join(step.takes)}, and what reaches it is "
                    f"{format_}: {self._way_to(step, format_)}"
                )
            format_ = step.target if isinstance(step, Converter) else format_
        return format_

    def _way_to(self, step: Technique, format_: str) -> str:
        """What would bring a variant of this format to a step that does not take it, as advice."""
        there = [each for each in self.steps if isinstance(each, Converter) and each is not step]
        if any({each.target, *each.takes} & set(step.takes) for each in there):
            return "put the steps into another order"
        for each in CONVERTERS:
            if format_ in each.takes and each.target in step.takes:
                return f'put a step before it: [[step]] and below it technique = "{each.name}"'
        return step.instead_of(format_)

    def requires(self, variant: Variant, dataset: Dataset | None) -> None:
        """Also refuse steps that cannot follow each other, before the first of them begins."""
        super().requires(variant, dataset)
        self.makes(variant.format)
        if self.checkpoint:
            check_writable(self.checkpoint)
        for step in self.steps:
            if isinstance(step, Retaught):
                step.check_teacher()

    def apply(self, variant: Variant, dataset: Dataset | None, progress: Progress) -> Variant:
        """Every step in turn, each under its own contract."""
        for index, step in enumerate(self.steps):
            share = part(progress, index / len(self.steps), (index + 1) / len(self.steps), f"{step.title}: ")
            if self.checkpoint:
                variant = kept(Path(self.checkpoint), step, variant, dataset, share)
            else:
                variant = step(variant, dataset, share)
        return variant

    @door
    def save(self, path: str | Path) -> None:
        """Write the pipeline as TOML. Raises ConfigError for a text that is no Unicode, such as some files' names."""
        lines = []
        for step in self.config["step"]:
            lines.append("[[step]]")
            lines.extend(f"{key} = {_toml(key, value)}" for key, value in step.items() if value is not None)
            lines.append("")
        write_atomically(path, "\n".join(lines).encode())

    @classmethod
    @door
    def load(cls, path: str | Path) -> Pipeline:
        """Read what `save` wrote, or what a person typed; ConfigError names the file, the step and the field."""
        path = Path(path)
        document = read_toml(path, ConfigError, _LARGEST_FILE_BYTES, "a recipe")
        for key in document:
            if key != "step":
                raise ConfigError(
                    f"{path} has {key!r} outside of any step: begin each with a line [[step]], and write its fields "
                    f"below; {nearest(key, ['step'])}"
                )
        steps = document.get("step")
        if not steps or not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
            raise ConfigError(f"{path} has no steps: begin each with a line [[step]]")
        return cls(tuple(_step(f"{path}, step {number}", step) for number, step in enumerate(steps, 1)))


def _toml(key: str, value: Any) -> str:
    """The value of a field as TOML, which is JSON but for two things: no halves of characters, and no bare U+007F."""
    text = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError(
            f"{key}={value!r} is no Unicode text, and a recipe holds no other: rename it"
        ) from None
    return text


def _step(where: str, fields: dict[str, Any]) -> Technique:
    """The technique of one step of a recipe; ConfigError says `where` it stands."""
    if "technique" not in fields:
        raise ConfigError(
            f'{where} has no technique: below its [[step]] write one, such as technique = "prune_magnitude"'
        )
    try:
        return make_technique(str(fields.pop("technique")), fields)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def make_technique(name: str, config: Mapping[str, Any]) -> Technique:
    """A technique from its name and its fields; ConfigError with a suggestion for an unknown one of either."""
    for cls in TECHNIQUES:
        if cls.name == name:
            known = [field.name for field in dataclasses.fields(cls)]
            for key in config:
                if key not in known:
                    raise ConfigError(f"{name} has no field {key!r}; {nearest(key, known)}")
            return cls(**config)
    raise ConfigError(f"unknown technique {name!r}; {nearest(name, [cls.name for cls in TECHNIQUES])}")
