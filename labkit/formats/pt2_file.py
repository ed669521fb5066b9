"""PyTorch's exported program: a ZIP with the graph in JSON and the weights as raw bytes.

Raw, unless somebody wants it otherwise: the same archive may hold pickles, which PyTorch unpickles without asking, and
texts that it evaluates: sizes when the program is opened, guards when it is run. labkit writes neither, and from an
archive of somebody else's it keeps only what needs none. The rest is held against lists: which files there are,
which operators are called, which texts stand for sizes (`sizes.py`).
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from labkit.errors import ModelFileError
from labkit.formats.archive import read_zip
from labkit.formats.reading import entries, objects, read_document, read_file
from labkit.formats.sizes import is_a_size
from labkit.variant import LARGEST_BYTES

CHILD = "labkit.formats.pt2_child"
_GRAPH = "models/model.json"
_BYTES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 2,
    7: 4,
    8: 8,
    12: 1,
    13: 2,
}  # of PyTorch's dtypes, by their numbers
_FILE = re.compile(
    r"models/model\.json|data/weights/(weight_\d+|model_weights_config\.json)|archive_(format|version)|version"
    r"|data/constants/(tensor_\d+|model_constants_config\.json)|data/sample_inputs/model\.pt|byteorder"
    r"|\.(data/\w+|format_version|storage_alignment)"
)
_STORED = re.compile(r"(weight|tensor)_\d+")
_NAME = re.compile(r"[\w.]*")
_OPERATORS = re.compile(
    r"torch\.ops\.(aten|prims)\.(?!(save|from_file|_print|warn)\.)\w+\.\w+"
    r"|_operator\.(getitem|add|sub|mul|neg|mod|pow|\w*div|[gl][et]|eq|ne)"
    r"|torch\.sym_(int|float|max|min|not|sum|ite|sqrt)|math\.(ceil|floor|trunc)"
)
"""What a graph may call. aten has a few operators that reach for files: they are left out."""

_CONTAINERS = (None, "builtins.tuple", "builtins.list", "builtins.dict")


def read(path: Path) -> bytes:
    """The archive, written anew without sample inputs and guards: pickle and program, which nothing needs."""
    return without_code(read_file(path, "an exported program"), str(path))


def without_code(payload: bytes, what: str) -> bytes:
    """The same program in an archive whose sample inputs and guards are empty."""
    files = read_zip(payload, what)
    kept = {name: b"" if name.endswith(".pt") else files[name] for name in files if "/extra/" not in name}
    for name in kept:
        if name.endswith(f"/{_GRAPH}"):
            document = read_document(kept[name], f"{what}: {_GRAPH}")
            if isinstance(document, dict) and document.pop("guards_code", None):
                kept[name] = json.dumps(document).encode()
    return write_zip(kept)


def bare(payload: bytes, what: str) -> bytes:
    """An archive of our own: without code, and without the stack traces that name the exporting machine."""
    files = read_zip(without_code(payload, what), what)
    for name in files:
        if name.endswith(_GRAPH):
            document = json.loads(files[name])
            for _, value in list(entries(document)):
                if isinstance(value, dict):
                    value.pop("stack_trace", None)
            files[name] = json.dumps(document).encode()
        elif name.endswith("serialization_id"):
            files[name] = b"0" * len(files[name])
    return write_zip(files)


def check(model: bytes, what: str) -> None:
    """Raise ModelFileError unless the program can be opened and run without unpickling or evaluating anything."""
    files = read_zip(model, what)
    check_files(files, what)
    for name, content in files.items():
        inner = name.partition("/")[2]
        if inner.endswith(".pt") and content:
            raise ModelFileError(f"{what} holds a pickle, {inner!r}: refused, for a pickle can run code")
        if inner.endswith(".json"):
            document = read_document(content, f"{what}: {inner}")
            check_document(document, what)
            if inner.endswith("_config.json"):
                _check_stored(document, name.rpartition("/")[0], files, what)


def _check_stored(document: Any, folder: str, files: Mapping[str, bytes], what: str) -> None:
    """Raise ModelFileError for a tensor whose file is missing, or holds fewer bytes than its sizes claim."""
    for entry in objects(document):
        meta, name = entry.get("tensor_meta"), entry.get("path_name")
        if not isinstance(meta, dict) or not isinstance(name, str):
            continue
        content = files.get(f"{folder}/{name}")
        if content is None:
            raise ModelFileError(f"{what} has lost {name}, the file of a tensor: copy it again")
        sizes, strides = ([_whole(each) for each in meta.get(key) or ()] for key in ("sizes", "strides"))
        if min((*sizes, *strides), default=0) < 0:
            raise ModelFileError(f"{what} has a tensor whose size is {str(meta.get('sizes'))[:80]}: refused")
        furthest = sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=False))
        needed = (1 + furthest) * _BYTES.get(_whole(meta.get("dtype")), 0) if 0 not in sizes else 0
        if len(content) < needed:
            raise ModelFileError(
                f"{what} claims {needed} bytes for a tensor, its file {name} has {len(content)}"
            )


def _whole(value: Any) -> int:
    """A size as PyTorch writes it, {"as_int": 3}; −1 for what is no whole number, or larger than any file."""
    number = value.get("as_int") if isinstance(value, dict) else value
    return number if type(number) is int and 0 <= number <= LARGEST_BYTES else -1


def check_files(names: Iterable[str], what: str) -> None:
    """Raise ModelFileError for an archive without a graph, and for files that no exported program needs."""
    parts = [name.partition("/") for name in names]
    roots = {root for root, _, _ in parts}
    if len(roots) != 1 or _GRAPH not in (inner for _, _, inner in parts):
        raise ModelFileError(
            f"{what} is not an exported program: {_GRAPH} is missing; export it again with torch.export.save"
        )
    for _, _, inner in parts:
        if not _FILE.fullmatch(inner):
            raise ModelFileError(
                f"{what} holds {inner[:80]!r}, which may be a pickle or compiled code, and no exported program "
                "needs: refused"
            )


def check_document(document: Any, what: str) -> None:
    """Raise ModelFileError for whatever PyTorch would unpickle, import, call or evaluate in one of the documents."""
    for key, value in entries(document):
        if key == "use_pickle" and value is not False:
            raise ModelFileError(f"{what} keeps a tensor as a pickle: refused, for a pickle can run code")
        if key == "path_name" and not _STORED.fullmatch(str(value)):
            raise ModelFileError(
                f"{what} keeps {str(value)[:80]!r}, which is no tensor but a pickle: refused"
            )
        if key == "fqn" or key.endswith("name") or key in ("forward_arg_names", "range_constraints"):
            _check_names(value, what)
        if key == "guards_code" and value:
            raise ModelFileError(
                f"{what} holds guards, texts that PyTorch evaluates: export it again with labkit"
            )
        if key in ("target", "as_operator") and not _OPERATORS.fullmatch(str(value)):
            raise ModelFileError(
                f"{what} calls {str(value)[:80]!r}, which is no operator of PyTorch's own: refused"
            )
        if key == "expr_str" and not is_a_size(str(value)):
            raise ModelFileError(f"{what} holds {str(value)[:80]!r} where a size should stand: refused")
        if key in ("in_spec", "out_spec"):
            _check_containers(value, what)


def _check_containers(text: Any, what: str) -> None:
    """How inputs and outputs are packed, a document in the document: kinds but tuple, list and dict import modules."""
    for key, value in entries(read_document(str(text or "null").encode(), f"{what}: in_spec or out_spec")):
        if (key == "type" and value not in _CONTAINERS) or (key == "context" and "{" in str(value)):
            raise ModelFileError(f"{what} packs its inputs or outputs in {str(value)[:80]!r}: refused")
        if key == "context" and value:
            _check_names(
                read_document(str(value).encode(), f"{what}: the context of in_spec or out_spec"), what
            )


def _check_names(names: Any, what: str) -> None:
    """PyTorch writes Python code in which the names of a graph stand, and runs it."""
    for name in names if isinstance(names, (list, dict)) else [names]:
        if isinstance(name, str) and not _NAME.fullmatch(name):
            raise ModelFileError(f"{what} names something {name[:80]!r}, which is no name: refused")


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
