"""Writing a converted model where the next tool looks for it."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from labkit.doors import door
from labkit.errors import ConfigError, ModelFileError
from labkit.files import check_writable, read_json, write_atomically, write_together
from labkit.variant import FORMATS, Format, Variant, get_format

_CODED = ".lkz"
_BEGINS = {
    _CODED: (0, b"LKZ"),
    ".onnx": (0, b"\x08"),
    ".xml": (0, b"<"),
    ".tflite": (4, b"TFL3"),
    ".keras": (0, b"PK"),
    ".pt2": (0, b"PK"),
}
"""Ending → where such a file has which bytes."""


@door
def save_as(variant: Variant, out: str | Path) -> list[Path]:
    """Write `variant` to `out`, and return what was written, the model's own files last.

    `out` may be a file with the format's own ending: then that is the model and nothing else is written (OpenVINO's
    weights lie beside it in a `.bin`). `.lkz` is a file of coded weights, for a PyTorch variant. Anything else is a
    folder that keeps the whole variant; the model lies in it under a name made of its content. Raises ConfigError for
    the ending of another format.
    """
    out, shape = Path(out), get_format(variant.format)
    check_out(variant.format, out)
    if out.suffix.lower() == _CODED:
        from labkit.encode import save_encoded

        return [save_encoded(variant, out)]
    if _is_file(shape, out):
        if shape.kind == "file":
            write_atomically(out, variant.payload)
            return [out]
        weights = out.with_suffix(".bin")
        write_together({weights: variant.model["model.bin"], out: variant.model["model.xml"]})
        return [weights, out]
    variant.save(out)
    name = read_json(out / "variant.json", ModelFileError)["file"]
    return [out / "variant.json", out / name]


def check_out(format_: str, out: Path) -> None:
    """Raise now what `save_as` would raise at the end: another format's ending, or a place that cannot be written.

    That is ConfigError for another format's ending and for no name at all, LabkitError for the place.
    """
    if out == Path():  # what an empty text becomes
        raise ConfigError(f"the place to write to has no name: give a new file or folder, or {Path.cwd()}")
    shape, ending = get_format(format_), out.suffix.lower()
    if os.path.isdir(out) and (ending == _CODED or _is_file(shape, out)):
        raise ConfigError(
            f"{out} is a folder, where a file is to be written: give another name, or remove it"
        )
    if ending == _CODED:
        if format_ != "torch":
            smaller = "; what makes an ONNX file smaller is `labkit quantize`" if format_ == "onnx" else ""
            raise ConfigError(
                f"{out} would be coded weights, which PyTorch variants have; the model is {_a(shape)}: "
                f"{_instead(shape)}{smaller}. Coded weights need a network of labkit's, from `labkit train` or the zoo"
            )
        _check_replaceable(out)
        return check_writable(out.absolute().parent, out.name)
    other = next((each for each in FORMATS if ending and each.suffix == ending and each != shape), None)
    if other is not None:
        raise ConfigError(
            f"{out} ends as {other.title} does, the model is {_a(shape)}: {_instead(shape)}"
            f"{_then(shape, other, out)}"
        )
    if _is_file(shape, out):
        _check_replaceable(out)
        return check_writable(out.absolute().parent, out.name)
    known = [_CODED, *(each.suffix for each in FORMATS if each.suffix)]
    if difflib.get_close_matches(ending, known, 1, 0.7) and not os.path.lexists(out):
        raise ConfigError(f"{out} would be a folder, and has nearly the ending of a file: {_instead(shape)}")
    check_writable(out)


def _check_replaceable(out: Path) -> None:
    """Raise ConfigError if a file is there that does not begin as its ending promises: it may be somebody's notes."""
    weights = out.with_suffix(".bin")
    if out.suffix.lower() == ".xml" and os.path.isfile(weights) and not os.path.lexists(out):
        raise ConfigError(
            f"{weights}, where the weights of {out.name} would lie, is there and belongs to no {out.name}: give "
            "another name, or remove it"
        )
    if not os.path.isfile(out):  # what else may be there is for `check_writable`
        return
    start, begins = _BEGINS.get(out.suffix.lower(), (0, b""))
    try:
        with out.open("rb") as file:
            head = file.read(16)
    except OSError:
        return
    if head and not head[start:].startswith(begins):
        raise ConfigError(
            f"{out} is there and is no {out.suffix} model, so it is not replaced: give another name, or remove it"
        )


def _a(shape: Format) -> str:
    return f"a {shape.title}" if shape.kind == "object" else shape.title


def _instead(shape: Format) -> str:
    """The names that a model of this format can be written under, as advice."""
    if shape.name == "torch":
        return f"give a folder, or end it in {_CODED!r} for coded weights"
    is_one_file = shape.suffix and shape.kind != "object"
    return f"end it in {shape.suffix!r}, or give a folder" if is_one_file else "give a folder"


def _then(shape: Format, wanted: Format, out: Path) -> str:
    """How a folder of PyTorch's becomes the file that was asked for, where a conversion leads there."""
    from labkit.convert.edges import CONVERTERS

    leads_there = shape.name == "torch" and any(each.target == wanted.name for each in CONVERTERS)
    return f", and then: labkit convert FOLDER --to {wanted.name} --out {out}" if leads_there else ""


def _is_file(shape: Format, out: Path) -> bool:
    return bool(shape.suffix) and out.suffix.lower() == shape.suffix and shape.kind != "object"
