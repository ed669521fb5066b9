"""Hostile model files of every format, as data: name → Case.

Each is made from a good file by one change, so that nothing but the change can be what is refused. ONNX, exported
programs, Keras and OpenVINO have modules of their own beside this one; here are the others, and all of them together.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.hostile.keras_files import KERAS
from tests.hostile.making import RANDOM, Case, Malicious, zipped
from tests.hostile.onnx_files import GOOD, HOSTILE_ONNX, SHOWN_ONNX
from tests.hostile.openvino_files import IR
from tests.hostile.pt2_files import PT2, PT2_OPENED

DATA = Path(__file__).parents[1] / "data"
Files = Mapping[str, bytes | Path]
LITERT = (DATA / "small.tflite").read_bytes()


def patched(content: bytes, place: int, new: bytes) -> bytes:
    """The bytes with others at one place."""
    return content[:place] + new + content[place + len(new) :]


TFLITE: dict[str, tuple[Callable[[], bytes], str, bool]] = {
    "empty": (lambda: b"", "is empty|TFL3", False),
    "random": (lambda: RANDOM, "TFL3", False),
    "a pickle": (lambda: pickle.dumps(Malicious()), "TFL3", False),
    "wrong mark": (lambda: patched(LITERT, 4, b"TFL9"), "TFL3", False),
}
TFLITE_OPENED: dict[str, tuple[Callable[[], bytes], str, bool]] = {
    "truncated": (lambda: LITERT[:1000], "LiteRT|truncated|damaged", False),
    "nothing but a mark": (lambda: b"\0\0\0\0TFL3", "LiteRT|truncated|damaged", False),
    "root out of range": (lambda: patched(LITERT, 0, b"\xff\xff\xff\x7f"), "LiteRT|truncated|damaged", False),
    "table out of range": (
        lambda: patched(LITERT, 28, b"\xff\xff\xff\xff"),
        "LiteRT|truncated|damaged",
        False,
    ),
}
"""Those that need the interpreter, where load_model is concerned."""


def message(*fields: tuple[int, bytes]) -> bytes:
    """A protobuf message of fields that are messages or texts."""
    parts = []
    for number, content in fields:
        size, length = len(content), b""
        while size > 127:
            length, size = length + bytes([size & 127 | 128]), size >> 7
        parts.append(bytes([number << 3 | 2]) + length + bytes([size]) + content)
    return b"".join(parts)


def graph_with(operator: str, in_a_function: bool = False, tag: bytes = b"\x12", longer: int = 0) -> bytes:
    """The good SavedModel's graph and one operator more; its length may be written in `longer` bytes than needed."""
    length = bytes([len(operator)])
    if longer:
        length = bytes([len(operator) | 0x80]) + b"\x80" * (longer - 1) + b"\0"
    node = message((1, b"n")) + tag + length + operator.encode()
    inside = message((2, message((1, message((3, node)))))) if in_a_function else message((1, node))
    return (DATA / "saved_model/saved_model.pb").read_bytes() + message((2, message((2, inside))))


def saved_model(**changed: bytes | Path | None) -> Files:
    """The good SavedModel's files with some changed: saved_model_pb, variables_index, variables_data, or more."""
    names = {
        "saved_model_pb": "saved_model.pb",
        "variables_index": "variables/variables.index",
        "variables_data": "variables/variables.data-00000-of-00001",
    }
    files: dict[str, bytes | Path | None] = {
        key: (DATA / "saved_model" / name).read_bytes() for key, name in names.items()
    }
    return {
        f"m/{names.get(key, key)}": content
        for key, content in (files | changed).items()
        if content is not None
    }


SAVED_MODEL: dict[str, tuple[Callable[[], Files], str]] = {
    "no graph": (
        lambda: saved_model(saved_model_pb=None),
        "no model that labkit knows|of no kind|no variant",
    ),
    "empty graph": (lambda: saved_model(saved_model_pb=b""), "empty|no graph"),
    "graph is a link": (lambda: saved_model(saved_model_pb=Path("/etc/passwd")), "is a link"),
    "variables are a link": (lambda: saved_model(variables_data=Path("/etc/passwd")), "is a link"),
    "ReadFile": (lambda: saved_model(saved_model_pb=graph_with("ReadFile")), "operator ReadFile"),
    "WriteFile": (lambda: saved_model(saved_model_pb=graph_with("WriteFile")), "operator WriteFile"),
    "PyFunc in a function": (
        lambda: saved_model(saved_model_pb=graph_with("PyFunc", True)),
        "operator PyFunc",
    ),
    "WriteFile in a function": (
        lambda: saved_model(saved_model_pb=graph_with("WriteFile", True)),
        "operator WriteFile",
    ),
    "WriteFile with a long length": (
        lambda: saved_model(saved_model_pb=graph_with("WriteFile", longer=1)),
        "operator WriteFile",
    ),
    "WriteFile with a long tag": (
        lambda: saved_model(saved_model_pb=graph_with("WriteFile", tag=b"\x92\x80\x00", longer=3)),
        "operator WriteFile",
    ),
    "a text file's table": (
        lambda: saved_model(saved_model_pb=graph_with("InitializeTableFromTextFileV2")),
        "operator InitializeTableFromTextFileV2",
    ),
}
"""Refused by the bytes of the graph, before TensorFlow is imported."""

REFUSED: dict[str, tuple[str, bytes, str]] = {
    "Keras's old format": ("m.h5", b"\x89HDF\r\n\x1a\n", "old format"),
    "HDF5": ("m.hdf5", b"\x89HDF\r\n\x1a\n", "old format"),
    "PyTorch's pickle": ("m.pt", pickle.dumps(Malicious()), "a pickle"),
    "another name for it": ("m.pth", pickle.dumps(Malicious()), "a pickle"),
    "a plain pickle": ("m.pkl", pickle.dumps(Malicious()), "a pickle"),
    "a checkpoint": ("m.ckpt", pickle.dumps(Malicious()), "without the network"),
    "MindSpore's file": ("m.mindir", RANDOM, "MindSpore"),
    "PyTorch's .bin": ("m.bin", pickle.dumps(Malicious()), "no model that labkit knows|a pickle"),
    "a zip": ("m.zip", zipped({"x": b"x"}), "no model that labkit knows|of no kind"),
    "an ONNX file called .pt2": ("m.pt2", GOOD, "not a ZIP"),
    "an ONNX file called .tflite": ("m.tflite", GOOD, "TFL3"),
    "a pickle called .onnx": (
        "m.onnx",
        pickle.dumps(Malicious()),
        "not an ONNX|damaged|wire|field|truncated|ends",
    ),
    "a zip called .onnx": ("m.onnx", zipped({"x": b"x"}), "not an ONNX|damaged|wire|field|truncated|ends"),
}
"""Kinds that are never opened, and files under a name of another kind."""


def tensors(header: str, data: int = 16, length: int | None = None) -> bytes:
    """A safetensors file with this header, a claim of its length, and `data` bytes of numbers."""
    return struct.pack("<Q", len(header) if length is None else length) + header.encode() + bytes(data)


W = '"w":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}'
SAFETENSORS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "truncated"),
    "random": (RANDOM, "truncated|longer"),
    "duplicate keys": (tensors(f"{{{W},{W}}}"), "'w' twice"),
    "header beyond the file": (tensors("{}", length=10_000), "longer than the file"),
    "header beyond any file": (tensors("{}", length=2**63), "longer than the file"),
    "header is no JSON": (tensors("{"), "not JSON"),
    "nested without end": (tensors("[" * 100_000), "not JSON"),
    "overlap": (tensors(f"{{{W},{W.replace('w', 'v')}}}"), "begins at byte 0"),
    "beyond the data": (tensors(f"{{{W}}}", data=4), "end at byte 16"),
    "16 TiB claimed": (tensors(f"{{{W.replace('[4]', '[4398046511104]')}}}"), "claims"),
    "negative": (tensors(f"{{{W.replace('[4]', '[-4]')}}}"), "no whole number"),
}
"""A file of tensors has no graph: load_model says so, and inspect_file looks into it."""


def variant(content: bytes = GOOD, name: str = "model-x.onnx", **changed: Any) -> Files:
    """A saved variant whose file is `content` under `name`; fields of variant.json can be changed."""
    spec = {"name": "x", "dtype": "float32", "shape": ["n", 4], "layout": None}
    document = {
        "schema_version": 1,
        "name": "m",
        "format": "onnx",
        "task": "classification",
        "labels": [],
        "inputs": [spec],
        "outputs": [spec | {"name": "y"}],
        "preprocessing": {},
        "lineage": [],
        "config": None,
        "file": name,
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    text = json.dumps(document | changed).encode()
    kept = {} if "/" in str(changed.get("file", "")) else {f"m/{name}": content}
    return {"m/variant.json": text, **kept}


VARIANTS: dict[str, tuple[Callable[[], Files], str, bool]] = {
    "swapped": (lambda: variant(sha256="0" * 64), "checksum differs", True),
    "of another model": (
        lambda: variant() | {"m/model-x.onnx": HOSTILE_ONNX["cycle"][0].SerializeToString()},
        "checksum|topolog",
        False,
    ),
    "file above": (lambda: variant(file="../model.onnx"), r"names '../model.onnx'", False),
    "file absolute": (lambda: variant(file="/etc/passwd"), "names '/etc/passwd'", False),
    "file is a link": (lambda: variant() | {"m/model-x.onnx": Path("/etc/passwd")}, "link|lead out", False),
    "file missing": (lambda: {"m/variant.json": variant()["m/variant.json"]}, "cannot read|not there", False),
    "unknown format": (lambda: variant(format="pickle"), "format 'pickle'", False),
    "another format": (lambda: variant(format="pt2"), "not a ZIP", False),
    "a folder's format": (
        lambda: variant(format="tensorflow"),
        "cannot read|no graph|not there|SavedModel|malformed|not a",
        False,
    ),
    "file is a number": (lambda: variant(file=7), "malformed|names|not there", False),
    "no fields": (lambda: {"m/variant.json": b"{}"}, "malformed|names", False),
    "no JSON": (lambda: {"m/variant.json": b"{"}, "not valid JSON", False),
    "hostile as a whole": (
        lambda: variant(HOSTILE_ONNX["cycle"][0].SerializeToString()),
        "topologically",
        False,
    ),
    "code as a whole": (
        lambda: variant(KERAS["Lambda with byte code"][0](), "model-x.keras", format="keras"),
        "Python code",
        False,
    ),
}


def _one_file(ending: str, cases: Mapping[str, Any]) -> dict[str, Case]:
    return {
        f"{ending}: {name}": Case(
            f"m.{ending}",
            lambda make=make, ending=ending: {f"m.{ending}": make()},
            says,
            *rest,
        )
        for name, (make, says, *rest) in cases.items()
    }


def _folder(kind: str, given: str, cases: Mapping[str, Any]) -> dict[str, Case]:
    return {f"{kind}: {name}": Case(given, make, says, *rest) for name, (make, says, *rest) in cases.items()}


def _onnx(content: Any) -> bytes:
    return content if isinstance(content, bytes) else content.SerializeToString()


STATIC = {
    **_one_file("pt2", PT2),
    **_one_file("keras", KERAS),
    **_one_file("tflite", TFLITE),
    **_folder("SavedModel", "m", SAVED_MODEL),
    **_folder("variant", "m", VARIANTS),
    **{
        name: Case(given, lambda given=given, content=content: {given: content}, says)
        for name, (given, content, says) in REFUSED.items()
    },
}
"""Refused here by what stands in the bytes, whether the format's package is installed or not."""

OPENED = {
    **{
        f"onnx: {name}": Case(
            "m.onnx", lambda content=content: {"m.onnx": _onnx(content)}, says, name in SHOWN_ONNX
        )
        for name, (content, says) in HOSTILE_ONNX.items()
    },
    **_one_file("pt2", PT2_OPENED),
    **_folder("OpenVINO", "m.xml", IR),
}
"""Refused by the child that opens them."""

INTERPRETED = _one_file("tflite", TFLITE_OPENED)
"""Refused by LiteRT's interpreter, which only the extras have; inspect_file reads them without it."""
