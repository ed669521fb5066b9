"""Whether what is said of a model holds together: a file may be whole, its checksum right, and contradict itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from labkit.errors import ConfigError, ModelFileError
from labkit.variant.tensors import Preprocessing, TensorSpec

if TYPE_CHECKING:
    from labkit.variant.variant import Variant

LONGEST_NAME = 200


def read_name(value: Any) -> str:
    """The name of a variant from plain data; ValueError for one that labkit gives none."""
    if not isinstance(value, str):
        raise ValueError(f"the name {value!r} should be a text")
    if len(value) > LONGEST_NAME:
        raise ValueError(f"the name has {len(value)} characters; allowed: at most {LONGEST_NAME}")
    return value


def check_description(variant: Variant, what: str) -> None:
    """Raise ModelFileError, beginning with `what`, if task, labels or preprocessing are not those of such a model.

    And if the name is empty, or an output has the name of an input.
    """
    from labkit.task import get_task

    if not variant.name.strip():
        raise ModelFileError(f"{what}: the name is empty")
    try:
        get_task(variant.task)
    except ConfigError as error:
        raise ModelFileError(f"{what}: {error}") from None
    inputs = {spec.name: spec for spec in variant.inputs}
    for name, preprocessing in variant.preprocessing.items():
        if name not in inputs:
            names = ", ".join(map(repr, inputs))
            raise ModelFileError(f"{what}: preprocessing is for {name!r}, the model takes {names}")
        _check_channels(inputs[name], preprocessing, what)
    classes = next((spec.shape[1] for spec in variant.outputs[:1] if len(spec.shape) == 2), None)
    if variant.labels and isinstance(classes, int) and classes != len(variant.labels):
        raise ModelFileError(f"{what}: {len(variant.labels)} labels for a model with {classes} outputs")
    same = [spec.name for spec in variant.outputs if spec.name in inputs]
    if same and variant.format == "torch":  # a file may hand an input through
        raise ModelFileError(f"{what}: an output is named like the input {same[0]!r}")


def _check_channels(spec: TensorSpec, preprocessing: Preprocessing, what: str) -> None:
    """Mean and std are one number, or one for each channel of the input."""
    if len(spec.shape) < 2:
        return
    channels = spec.shape[1 if preprocessing.layout == "NCHW" and len(spec.shape) == 4 else -1]
    for field, values in (("mean", preprocessing.mean), ("std", preprocessing.std)):
        if isinstance(channels, int) and len(values) not in (1, channels):
            unit = "channel" if channels == 1 else "channels"
            raise ModelFileError(
                f"{what}: preprocessing of {spec.name!r} has {len(values)} numbers for {field}, where the input has "
                f"{channels} {unit}"
            )
