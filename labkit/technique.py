"""Technique: a function from a variant to a *new* variant, with a contract that no author can forget.

A technique is a frozen dataclass; its fields are its configuration, declared with `knob`, which also says what
is allowed. Calling it runs requires → apply → ensures: the input must fit, must come out untouched, something must
really have changed, and the result must run and be finite. Then the step is written into the lineage.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from labkit.data import Dataset
from labkit.doors import door
from labkit.errors import ConfigError, TechniqueError, nearest
from labkit.progress import Progress, silent
from labkit.runtimes import reference_runtime
from labkit.variant import Array, Step, Variant, trial_shapes

_LARGEST_NUMBER = 1e300
_LARGEST_PROBE_BYTES = 2**31


def knob(
    default: Any,
    help: str,
    *,
    min: float | None = None,
    max: float | None = None,
    below: float | None = None,
    above: float | None = None,
    choices: Sequence[str] | Sequence[float] = (),
    unit: str = "",
    kw_only: Any = dataclasses.MISSING,
) -> Any:
    """A dataclass field with everything that checks it and everything a form needs to draw its control.

    `min` and `max` are included in what is allowed, `above` and `below` are not. `kw_only` marks one that a family
    of techniques shares: it is given by name, and shown last.
    """
    metadata: dict[str, Any] = {"help": help, "unit": unit, "choices": tuple(choices)}
    metadata.update({"min": min, "max": max, "below": below, "above": above})
    return dataclasses.field(default=default, metadata=metadata, kw_only=kw_only)


def knobs(config: Any) -> list[dataclasses.Field[Any]]:
    """The knobs of a dataclass in the order to show them in: its own, then those that it shares with others.

    Without those that it calls `idle`: they mean nothing to this one of a family.
    """
    family = (config if isinstance(config, type) else type(config)).__mro__
    own_first = {
        name: place
        for place, cls in reversed(list(enumerate(family)))
        for name in vars(cls).get("__annotations__", ())
    }
    idle = getattr(config, "idle", ())
    return sorted(
        (field for field in dataclasses.fields(config) if field.metadata and field.name not in idle),
        key=lambda field: own_first[field.name],
    )


def check_knobs(config: Any) -> None:
    """Raise ConfigError for the first field of a dataclass whose value is of the wrong type or out of range."""
    for field in knobs(config):
        value, meta = getattr(config, field.name), field.metadata
        if value is None and field.default is None:
            continue
        where = f"{type(config).__name__}.{field.name}={value!r}"
        if meta["choices"]:
            if value not in meta["choices"]:
                raise ConfigError(f"{where} is unknown; {nearest(str(value), map(str, meta['choices']))}")
            continue
        kind = float if field.default is None else type(field.default)  # None: no limit is set
        if isinstance(value, int) and abs(value) > _LARGEST_NUMBER:
            raise ConfigError(
                f"{type(config).__name__}.{field.name} is out of range; allowed: {range_of(field.name, meta)}"
            )
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            object.__setattr__(config, field.name, float(value))
            value = float(value)
        if kind is str and type(value) is int:  # a class that is called 3
            object.__setattr__(config, field.name, str(value))
            value = str(value)
        if type(value) is not kind:
            advice = _as_typed(value, kind, field.default) if isinstance(value, str) else ""
            raise ConfigError(f"{where} must be of type {kind.__name__}, not {type(value).__name__}{advice}")
        if isinstance(value, (int, float)) and not _inside(value, meta):
            raise ConfigError(f"{where} is out of range; allowed: {range_of(field.name, meta)}")


def _as_typed(text: str, kind: type, default: Any) -> str:
    """How to write what a person meant by `text`: "90%" → ": write 0.9"."""
    if kind is bool:
        return ": write true or false"
    try:
        number = float(text.rstrip("% ")) / (100 if text.rstrip().endswith("%") else 1)
    except ValueError:
        number = math.nan
    if math.isfinite(number) and (kind is float or number.is_integer()):
        return f": write {kind(number)!r}"
    such = "" if default is None else f", such as {default!r}"
    return f": write a {'whole ' if kind is int else ''}number{such}"


def _inside(value: float, meta: Any) -> bool:
    return (
        math.isfinite(value)
        and (meta["min"] is None or value >= meta["min"])
        and (meta["max"] is None or value <= meta["max"])
        and (meta["above"] is None or value > meta["above"])
        and (meta["below"] is None or value < meta["below"])
    )


def range_of(name: str, meta: Any) -> str:
    """What a number called `name` may be, by the metadata of its knob: "0 ≤ name < 1 (unit)"."""
    low = (
        f"{meta['min']} ≤ "
        if meta["min"] is not None
        else f"{meta['above']} < "
        if meta["above"] is not None
        else ""
    )
    high = (
        f" ≤ {meta['max']}"
        if meta["max"] is not None
        else f" < {meta['below']}"
        if meta["below"] is not None
        else ""
    )
    return f"{low}{name}{high}" + (f" ({meta['unit']})" if meta["unit"] else "")


@dataclass(frozen=True)
class Technique(ABC):
    """The template. An author writes `apply`, and says which formats it takes and whether it needs data."""

    name: ClassVar[str]
    title: ClassVar[str]
    takes: ClassVar[tuple[str, ...]]
    needs_dataset: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_knobs(self)

    @door
    def __call__(
        self, variant: Variant, dataset: Dataset | None = None, progress: Progress | None = None
    ) -> Variant:
        """Apply to `variant` and return the new one; `progress` is told how far it is and may cancel.

        Raises TechniqueError if the technique does not fit the variant, changed its input, or changed nothing.
        """
        self.requires(variant, dataset)
        before = variant.digest
        result = self.apply(variant, dataset, progress or silent)
        self.ensures(variant, before, result, dataset)
        return result

    @property
    def config(self) -> dict[str, Any]:
        """The fields as a JSON-serialisable dictionary."""
        return {field.name: getattr(self, field.name) for field in knobs(self)}

    def requires(self, variant: Variant, dataset: Dataset | None) -> None:
        """Raise TechniqueError unless this technique can work on `variant`."""
        if variant.format not in self.takes:
            takes = " or ".join(self.takes)
            advice = self.instead_of(variant.format)
            raise TechniqueError(
                f"{self.name} works on {takes}, {variant.name!r} is {variant.format}: {advice}"
            )
        if self.needs_dataset and dataset is None:
            raise TechniqueError(
                f"{self.name} needs a dataset: pass one, such as labkit.load_dataset('digits')"
            )
        if dataset is not None and self.needs_dataset:
            if dataset.task_name != variant.task:
                raise TechniqueError(
                    f"{variant.name!r} does {variant.task}, dataset {dataset.name!r} is for {dataset.task_name}"
                )
            dataset.check_classes(variant)

    def refuse_idle(self, field: str, advice: str) -> None:
        """Raise ConfigError where a field was set that has no effect with these others: somebody counts on it."""
        value, default = getattr(self, field), type(self).__dataclass_fields__[field].default
        if value != default:
            raise ConfigError(f"{type(self).__name__}.{field}={value!r} would have no effect: {advice}")

    def also_reads(self) -> tuple[str, ...]:
        """Digests of what the result follows from besides its fields, the variant and the dataset: none, most often."""
        return ()

    def instead_of(self, format_: str) -> str:
        """What to do with a variant in a format that this technique does not take, as advice."""
        if self.takes == ("onnx",):
            return "export it first: labkit.ExportOnnx()"
        if format_ == "onnx" and getattr(self, "target", "") == "onnx":
            return "it is ONNX already: leave this step out, or give the PyTorch variant"
        if "torch" not in self.takes:
            return f"convert it first: labkit.convert(variant, {self.takes[0]!r})"
        made = "the PyTorch or the ONNX" if "onnx" in self.takes else "the PyTorch"
        return f"use {made} variant, or train a network of labkit's: `labkit train MODEL --out DIR`"

    @abstractmethod
    def apply(self, variant: Variant, dataset: Dataset | None, progress: Progress) -> Variant:
        """Make the new variant; the input must stay as it is."""

    def ensures(self, variant: Variant, before: str, result: Variant, dataset: Dataset | None) -> None:
        """Raise TechniqueError unless the input is untouched, something changed, and the result runs."""
        if variant.fingerprint() != before:
            raise TechniqueError(
                f"{self.name} changed the variant that it was given: this is a bug in the technique"
            )
        if result is variant or result.fingerprint() == before:
            raise TechniqueError(f"{self.name} changed nothing in {variant.name!r} (config {self.config})")
        feeds = (
            probe(result)
            if dataset is None
            else result.feeds(dataset.split("train").take(slice(0, result.fixed_batch or 2)).inputs)
        )
        with reference_runtime(result).load(result) as session:
            outputs = session.run(feeds)
        for name, array in outputs.items():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise TechniqueError(
                    f"after {self.name}, output {name!r} of {variant.name!r} holds NaN or infinity"
                )

    def step(self, *parents: Variant) -> Step:
        """The lineage entry for this run."""
        return Step(self.name, self.config, tuple(parent.digest for parent in parents))


def probe(variant: Variant, batch_size: int = 2, seed: int = 0) -> dict[str, Array]:
    """Random inputs that fit the variant: standard normal floats, zeros for whole numbers, ones for masks.

    Named dimensions take `batch_size`, and the places of an image more (`trial_shapes`). Whole-number inputs are often
    indices into a table whose length the model does not tell, and 0 is the one that always exists. Those with "mask"
    in their name tell which tokens count: of attention to none at all every engine makes something else.
    Raises TechniqueError for more than 2 GiB.
    """
    random = np.random.default_rng(seed)
    feeds: dict[str, Array] = {}
    shapes = trial_shapes([spec.shape for spec in variant.inputs], batch_size)
    for spec, shape in zip(variant.inputs, shapes, strict=True):
        dtype = np.dtype(spec.dtype)
        if math.prod(shape) * dtype.itemsize > _LARGEST_PROBE_BYTES:
            raise TechniqueError(
                f"{variant.name!r} takes {spec.name!r} of shape {shape}, more than {_LARGEST_PROBE_BYTES} bytes: "
                "too large to be tried"
            )
        if dtype.kind == "f":
            feeds[spec.name] = random.standard_normal(shape).astype(dtype)
        else:
            feeds[spec.name] = np.full(shape, "mask" in spec.name, dtype)
    return feeds
