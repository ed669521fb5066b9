"""PyTorch's exported program: a ZIP with the graph in JSON and the weights as raw bytes.

Raw, unless somebody wants it otherwise: the same archive may hold pickles, which PyTorch unpickles without asking, and
shapes as texts, which it evaluates. labkit writes no pickle, and from an archive of somebody else's it keeps only
what needs none. Each operator and each text is held against a list first.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from labkit.errors import ModelFileError
from labkit.formats.archive import read_zip
from labkit.formats.reading import read_file

CHILD = "labkit.formats.pt2_child"
_OPERATORS = re.compile(
    r"torch\.ops\.(aten|prims)\.\w+\.\w+|_operator\.(getitem|add|sub|mul|neg|mod|pow|\w*div|[gl][et]|eq|ne)"
)
_SYMBOLIC = re.compile(r"torch\.sym_(int|float|max|min|not|sum|ite|sqrt)|math\.(ceil|floor|trunc)")
_WORD = re.compile(r"[^\s,()=]+")
_NUMBER = re.compile(r"'?(-?\d+(\.\d+)?|[a-z]+\d+)'?")
_NAMES = {
    *(
        "Symbol",
        "positive",
        "integer",
        "nonnegative",
        "negative",
        "nonzero",
        "zero",
        "real",
        "True",
        "False",
        "oo",
    ),
    *(
        "Integer",
        "Float",
        "Rational",
        "Add",
        "Mul",
        "Pow",
        "Max",
        "Min",
        "Mod",
        "PythonMod",
        "FloorDiv",
        "CeilDiv",
    ),
    *(
        "CleanDiv",
        "IntTrueDiv",
        "Where",
        "Equality",
        "Unequality",
        "GreaterThan",
        "LessThan",
        "StrictGreaterThan",
    ),
    *("StrictLessThan", "ceiling", "floor", "+", "-", "*", "/", "**", "<", ">", "!"),
}
_PICKLES = (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_SAMPLES = re.compile(r"(^|.*/)data/sample_inputs/[^/]+\.pt")


def read(path: Path) -> bytes:
    """The archive, written anew without its sample inputs: they are a pickle, and nothing needs them."""
    return without_samples(read_file(path, "an exported program"), str(path))


def without_samples(payload: bytes, what: str) -> bytes:
    """The same program in an archive whose sample inputs are empty."""
    files = read_zip(payload, what)
    return write_zip({name: b"" if _SAMPLES.fullmatch(name) else files[name] for name in files})


def bare(payload: bytes, what: str) -> bytes:
    """An archive of our own: without sample inputs, and without the stack traces that name the exporting machine."""
    files = read_zip(without_samples(payload, what), what)
    for name in files:
        if name.endswith("models/model.json"):
            document = json.loads(files[name])
            for _, value in list(entries(document)):
                if isinstance(value, dict):
                    value.pop("stack_trace", None)
            files[name] = json.dumps(document).encode()
        elif name.endswith("serialization_id"):
            files[name] = b"0" * len(files[name])
    return write_zip(files)


def check(model: bytes, what: str) -> None:
    """Raise ModelFileError unless the program can be opened without unpickling or evaluating anything."""
    files = read_zip(model, what)
    if not any(name.endswith("models/model.json") for name in files):
        raise ModelFileError(f"{what} is not an exported program: models/model.json is missing")
    for name, content in files.items():
        if name.endswith(".json"):
            _check_json(name, content, what)
        elif content and "/weights/" not in name and (name.endswith(".pt") or content[:2] in _PICKLES):
            raise ModelFileError(f"{what} hides an archive or a pickle in {name[:80]!r}: refused")


def budget(size: int) -> tuple[int, float]:
    """(bytes of memory, seconds of processor time) that opening and running a file of `size` bytes may take."""
    return int(1e9 + 8 * size), 4.0 + size / 10e6


def write_zip(files: Mapping[str, bytes]) -> bytes:
    """An uncompressed archive that has the same bytes whenever it is written."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in files:
            archive.writestr(zipfile.ZipInfo(name), files[name])
    return buffer.getvalue()


def _check_json(name: str, content: bytes, what: str) -> None:
    try:
        document = json.loads(content)
        for key, value in entries(document):
            if key == "use_pickle" and value is not False:
                raise ModelFileError(
                    f"{what} keeps a tensor as a pickle ({name}): refused, for a pickle can run code"
                )
            if key == "target" and not (_OPERATORS.fullmatch(str(value)) or _SYMBOLIC.fullmatch(str(value))):
                raise ModelFileError(
                    f"{what} calls {str(value)[:80]!r}, which is no operator of PyTorch's own: refused"
                )
            if key == "expr_str" and not _is_a_size(str(value)):
                raise ModelFileError(f"{what} holds {str(value)[:80]!r} where a size should stand: refused")
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{what}: {name[:80]!r} is not valid JSON: {error}") from None


def entries(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key and value of a JSON document, however deep."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            yield from each.items()
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each


def _is_a_size(expression: str) -> bool:
    """Whether a text that PyTorch evaluates is arithmetic of sizes, and not a program."""
    words = _WORD.findall(expression)
    return all(word in _NAMES or _NUMBER.fullmatch(word) for word in words)
