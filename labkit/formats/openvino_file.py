"""OpenVINO's pair of files: `model.xml` names the operators, `model.bin` beside it holds the weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from labkit.errors import ModelFileError
from labkit.formats.reading import read_file

CHILD = "labkit.formats.openvino_child"


def read(path: Path) -> dict[str, bytes]:
    """{"model.xml", "model.bin"} from the path of the first, or of their folder."""
    if path.is_dir():
        path = path / "model.xml"
    weights = path.with_suffix(".bin")
    if weights.is_symlink():
        raise ModelFileError(f"{weights} is a link: refused, because it may lead out of the folder")
    xml = read_file(path, "an OpenVINO model")
    return {"model.xml": xml, "model.bin": read_file(weights, "OpenVINO's weights", may_be_empty=True)}


def check(model: Mapping[str, bytes], what: str) -> None:
    """Raise ModelFileError for what is no XML, or XML that declares entities: they grow without end, or name files."""
    if set(model) != {"model.xml", "model.bin"}:
        raise ModelFileError(f"{what} is no pair of model.xml and model.bin")
    xml = model["model.xml"]
    if b"\0" in xml:  # UTF-16, in which the next test would see nothing; OpenVINO writes UTF-8
        raise ModelFileError(f"{what} is not UTF-8, so not an OpenVINO model")
    if b"<!DOCTYPE" in xml or b"<!ENTITY" in xml:
        raise ModelFileError(f"{what} declares XML entities, which no OpenVINO model does: refused")
    if not xml.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"<"):
        raise ModelFileError(f"{what} is not XML, so not an OpenVINO model")


def budget(size: int) -> tuple[int, float]:
    """(bytes of memory, seconds of processor time) that opening and running a file of `size` bytes may take."""
    return int(600e6 + 8 * size), 1.5 + size / 10e6
