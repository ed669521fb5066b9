"""A Variant: one model in one format, what goes in and out, and how it came to be."""

from __future__ import annotations

from labkit.variant.description import check_description, read_name
from labkit.variant.files import LARGEST_BYTES, check_name, framed, read_folder, unframed, write_folder
from labkit.variant.formats import FORMATS, Format, get_format
from labkit.variant.lineage import Step
from labkit.variant.tensors import Array, Preprocessing, TensorSpec, read_preprocessing
from labkit.variant.trial import trial_shapes
from labkit.variant.variant import Variant

__all__ = [
    "FORMATS",
    "LARGEST_BYTES",
    "Array",
    "Format",
    "Preprocessing",
    "Step",
    "TensorSpec",
    "Variant",
    "check_description",
    "check_name",
    "framed",
    "get_format",
    "read_folder",
    "read_name",
    "read_preprocessing",
    "trial_shapes",
    "unframed",
    "write_folder",
]
