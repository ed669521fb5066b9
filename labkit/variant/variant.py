"""A Variant: one model in one format, what goes in and out, and how it came to be.

Variants are frozen. A technique makes a *new* one and leaves its input as it was, so that before and after
can be compared. `formats.py` lists the formats: a live model of a framework, one file's bytes, or a folder's.
Saving writes JSON and safetensors or the format's own files, never pickle, and is atomic: the model's file is
named after its content, and `variant.json`, which names it, is renamed into place last.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from labkit.doors import door
from labkit.errors import ConfigError, ModelFileError, TensorError
from labkit.files import check_text, read_json, write_atomically
from labkit.variant.description import LONGEST_NAME, check_description, read_name
from labkit.variant.files import framed, object_bytes, read_model
from labkit.variant.formats import get_format, joined
from labkit.variant.lineage import Step, read_step
from labkit.variant.saving import written_model
from labkit.variant.tensors import Array, Preprocessing, TensorSpec, read_preprocessing, read_specs

SCHEMA_VERSION = 1


@dataclass(frozen=True, eq=False)
class Variant:
    """A model in one format (`model`: a torch Module, a file's bytes, a folder's files) and all that running it needs.

    `preprocessing` maps an input's name to its Preprocessing; an input that is not named there is fed as it is.
    A name of more than 200 characters loses its middle. Raises ModelFileError for a control character in a name, a
    label or another word, and for two inputs or outputs of one name.
    """

    MADE_BY: ClassVar[str] = "labkit.as_variant(module, example), labkit.load_model or labkit.load_onnx"
    """What a door (`labkit.doors`) advises whoever passes something else."""

    name: str
    format: str
    model: Any
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    task: str = "classification"
    labels: tuple[str, ...] = ()
    preprocessing: Mapping[str, Preprocessing] = field(default_factory=dict)
    lineage: tuple[Step, ...] = ()
    file_bytes: int | None = None
    """The size of the coded file that it was decoded from; None where `payload` is what would be shipped."""

    def __post_init__(self) -> None:
        if len(self.name) > LONGEST_NAME:
            object.__setattr__(self, "name", f"{self.name[:100]}…{self.name[101 - LONGEST_NAME :]}")
        specs = (*self.inputs, *self.outputs)
        words = (word for spec in specs for word in (spec.name, spec.layout or "", *map(str, spec.shape)))
        steps = (step.technique for step in self.lineage)
        check_text(ModelFileError, self.name, self.task, *self.labels, *words, *self.preprocessing, *steps)
        for side, specs in (("inputs", self.inputs), ("outputs", self.outputs)):
            names = [spec.name for spec in specs]
            if len(set(names)) < len(names):
                raise ModelFileError(f"{self.name!r} has two {side} of one name among {names}: rename one")

    @functools.cached_property
    def payload(self) -> bytes:
        """The bytes that would be shipped for the model itself: its file, or its files one after the other."""
        return (
            object_bytes(self.format, self.model)
            if get_format(self.format).kind == "object"
            else joined(self.model)
        )

    @property
    def size_bytes(self) -> int:
        """What would be shipped: the coded file that it came from, else `payload`."""
        return len(self.payload) if self.file_bytes is None else self.file_bytes

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of format, config and payload as they were when first asked for."""
        return self.fingerprint()

    def fingerprint(self) -> str:
        """The digest computed afresh from the model as it is now: this is how tampering is noticed."""
        body = (
            object_bytes(self.format, self.model)
            if get_format(self.format).kind == "object"
            else framed(self.model)
        )
        config = json.dumps(getattr(self.model, "config", None), sort_keys=True)
        return hashlib.sha256(f"{self.format}\n{config}\n".encode() + body).hexdigest()

    @functools.cached_property
    def quantized(self) -> bool:
        """Whether the graph turns activations into integers; a converted one does what its ONNX parent did."""
        if self.format != "onnx":
            return any(
                step.technique.startswith("quantize") or step.config.get("precision") == "int8"
                for step in self.lineage
            )
        import onnx

        nodes = onnx.load_model_from_string(self.model).graph.node
        return any(node.op_type in ("QuantizeLinear", "DynamicQuantizeLinear") for node in nodes)

    @property
    def fixed_batch(self) -> int | None:
        """The number of samples that the model insists on (some files are exported so), None if it takes any."""
        sizes = [spec.shape[0] for spec in self.inputs if spec.shape]
        if any(isinstance(size, str) for size in sizes):  # a fixed first axis beside it is no batch
            return None
        return next((size for size in sizes if isinstance(size, int)), None)

    @door
    def feeds(self, batch: Mapping[str, Array]) -> dict[str, Array]:
        """Stored samples (name → [N, …]) to model inputs, preprocessed and checked.

        With a single input and a single stored array the names may differ; otherwise they must match, as input_1
        matches input.1: some formats allow no dots.
        Raises TensorError for a missing name or an array that does not fit.
        """
        given = dict(batch)
        if len(self.inputs) == 1 and len(given) == 1:
            given = {self.inputs[0].name: next(iter(given.values()))}
        names = [spec.name for spec in self.inputs]
        plain = {re.sub(r"\W", "_", name): array for name, array in given.items()}
        given |= {name: plain[name] for name in names if name not in given and name in plain}
        missing = [name for name in names if name not in given]
        if missing:
            raise TensorError(
                f"input {missing[0]!r} is missing; the model takes {names}, got {list(given)}: the data's arrays "
                "go by these names"
            )
        feeds = {
            name: self.preprocessing[name](given[name]) if name in self.preprocessing else given[name]
            for name in names
        }
        self.check_feeds(feeds)
        return feeds

    def check_feeds(self, feeds: Mapping[str, Array]) -> None:
        """Raise TensorError unless `feeds` has exactly the model's inputs, each fitting its TensorSpec."""
        names = [spec.name for spec in self.inputs]
        given = list(feeds) if isinstance(feeds, Mapping) else type(feeds).__name__
        if not isinstance(feeds, Mapping) or set(feeds) != set(names):
            raise TensorError(f"the model takes a mapping of the inputs {names}, got {given}")
        sizes: dict[str, int] = {}
        for spec in self.inputs:
            spec.check(feeds[spec.name], sizes)
            spec.check_finite(feeds[spec.name])

    def derive(self, name: str, step: Step, **changes: Any) -> Variant:
        """A new variant with `changes`, its lineage longer by `step`; it was decoded from no file."""
        return dataclasses.replace(
            self, name=name, lineage=(*self.lineage, step), **{"file_bytes": None, **changes}
        )

    @door
    def save(self, folder: str | Path) -> Path:
        """Write `variant.json` and the model's file into `folder`; an interrupted save leaves the old one whole.

        Raises ModelFileError for a model that cannot be saved, LabkitError for a folder that cannot be written.
        """
        folder = Path(folder)
        check_description(self, repr(self.name))
        document = {
            "schema_version": SCHEMA_VERSION,
            **{key: getattr(self, key) for key in ("name", "format", "task", "labels")},
            "inputs": [dataclasses.asdict(spec) for spec in self.inputs],
            "outputs": [dataclasses.asdict(spec) for spec in self.outputs],
            "preprocessing": {key: dataclasses.asdict(value) for key, value in self.preprocessing.items()},
            "lineage": [dataclasses.asdict(step) for step in self.lineage],
            "config": getattr(self.model, "config", None) if self.format == "torch" else None,
        }
        with written_model(self.format, self.model, self.payload, folder) as (name, checksum):
            document |= {"file": name, "sha256": checksum}
            write_atomically(folder / "variant.json", json.dumps(document, indent=1).encode())
        return folder

    @classmethod
    @door
    def load(cls, folder: str | Path) -> Variant:
        """Read what `save` wrote. Raises ModelFileError if anything is missing, changed or malformed."""
        folder = Path(folder)
        document = read_json(folder / "variant.json", ModelFileError)
        try:
            if document["schema_version"] != SCHEMA_VERSION:
                raise ModelFileError(
                    f"{folder} was written by schema version {document['schema_version']}; this labkit reads "
                    f"{SCHEMA_VERSION}"
                )
            model = read_model(folder, document)
            variant = cls(
                name=read_name(document["name"]),
                format=str(document["format"]),
                model=model,
                inputs=read_specs(document["inputs"], "inputs"),
                outputs=read_specs(document["outputs"], "outputs"),
                task=str(document["task"]),
                labels=tuple(map(str, document["labels"])),
                preprocessing={
                    key: read_preprocessing(value) for key, value in document["preprocessing"].items()
                },
                lineage=tuple(
                    read_step(item, f"lineage[{index}]") for index, item in enumerate(document["lineage"])
                ),
            )
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError, ConfigError) as error:
            reason = f"{type(error).__name__}: {str(error)[:300]}"
            raise ModelFileError(
                f"{folder}/variant.json is malformed ({reason}): save the variant again"
            ) from None
        check_description(variant, f"{folder}/variant.json")
        return variant
