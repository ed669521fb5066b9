"""Hostile exported programs, as data: name → (what makes the bytes, a pattern of what the error says)."""

from __future__ import annotations

import functools
import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from typing import Any

from tests.hostile.making import CODE, RANDOM, Malicious, link_entry, overlapping, with_entry, zipped


@functools.cache
def program() -> bytes:
    """A good exported program: ids and mask [batch, time] → [batch, 3], with arithmetic of sizes in it."""
    import torch

    class Words(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.fc = torch.nn.Embedding(16, 8), torch.nn.Linear(8, 3)

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            rows = ids.shape[0] * 2
            total = (self.table(ids) * mask.unsqueeze(-1)).sum(1)
            return self.fc(total.repeat(2, 1).reshape(rows, 8)) + ids.shape[1] ** 2 + ids.shape[1] // 2

    sizes = {0: torch.export.Dim("batch", min=1, max=64), 1: torch.export.Dim("time", min=2, max=32)}
    example = (torch.ones(3, 6, dtype=torch.int64), torch.ones(3, 6, dtype=torch.int64))
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(Words().eval(), example, dynamic_shapes=(sizes, sizes)), buffer)
    return buffer.getvalue()


GRAPH, WEIGHTS = "archive/models/model.json", "archive/data/weights/model_weights_config.json"


def unzipped() -> dict[str, bytes]:
    """The good program's files."""
    with zipfile.ZipFile(io.BytesIO(program())) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def program_with(**added: bytes) -> bytes:
    """With files more, or others: data__weights__x="…" is archive/data/weights/x."""
    return zipped(unzipped() | {f"archive/{name.replace('__', '/')}": added[name] for name in added})


def program_where(old: str, new: Any, file: str = GRAPH) -> bytes:
    """With `old` replaced in one of the documents by `new`, in JSON; there must be something to replace."""
    files = unzipped()
    text = files[file].decode()
    assert old in text
    files[file] = text.replace(old, new if isinstance(new, str) else json.dumps(new)).encode()
    return zipped(files)


def program_set(key: str, value: Any, file: str = GRAPH) -> bytes:
    """With every `key` in a document set to `value`, however deep."""
    files = unzipped()
    seen = []

    def hook(item: dict[str, Any]) -> dict[str, Any]:
        if item.get(key) is not None:
            seen.append(key)
            item[key] = value
        return item

    files[file] = json.dumps(json.loads(files[file], object_hook=hook)).encode()
    assert seen
    return zipped(files)


def in_spec(kind: str, context: Any) -> str:
    """How inputs are packed, with a container of another kind in it."""
    leaf = {"type": None, "context": None, "children_spec": []}
    pair = {"type": "builtins.tuple", "context": "null", "children_spec": [leaf, leaf]}
    words = {"type": kind, "context": json.dumps(context), "children_spec": []}
    return json.dumps([1, {"type": "builtins.tuple", "context": "null", "children_spec": [pair, words]}])


def with_imports() -> bytes:
    """An Enum in the context of a container, whose module PyTorch imports."""
    spec = in_spec("builtins.dict", [{"__enum__": True, "fqn": "antigravity:E", "name": "A"}])
    return program_set("in_spec", spec)


EMBEDDING = '"torch.ops.aten.embedding.default"'


def symbolic(text: str) -> bytes:
    """With another text where a size stands."""
    return program_set("expr_str", text)


PT2: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "is empty|not a ZIP"),
    "random": (lambda: RANDOM, "not a ZIP"),
    "truncated": (lambda: program()[:-3000], "not a ZIP"),
    "a pickle": (lambda: pickle.dumps(Malicious()), "not a ZIP"),
    "another zip": (lambda: zipped({"a.txt": b"hello"}), "not an exported program"),
    "name above": (lambda: with_entry(program(), zipfile.ZipInfo("../x")), "lead out"),
    "name absolute": (lambda: with_entry(program(), zipfile.ZipInfo("/tmp/x")), "lead out"),
    "name with backslash": (lambda: with_entry(program(), zipfile.ZipInfo("archive\\..\\x")), "lead out"),
    "name with drive": (lambda: with_entry(program(), zipfile.ZipInfo("C:/x")), "lead out"),
    "duplicate": (lambda: with_entry(program(), zipfile.ZipInfo(GRAPH)), "twice"),
    "link": (lambda: with_entry(program(), link_entry("archive/x")), "a link"),
    "bomb": (lambda: zipped({GRAPH: bytes(90_000_000)}, zipfile.ZIP_DEFLATED), "bomb"),
    "overlapping bomb": (lambda: overlapping(zipped({"aaaaaa": bytes(300_000)})), "bomb|damaged"),
    "bomb that claims little": (
        lambda: zipped({GRAPH: bytes(60_000_000)}, zipfile.ZIP_DEFLATED).replace(
            struct.pack("<I", 60_000_000), struct.pack("<I", 1000)
        ),
        "damaged|JSON|claims",
    ),
    "values without end": (lambda: zipped({GRAPH: b"[" + b"[]," * 9_000_000 + b"0]"}), "values"),
    "nested without end": (lambda: zipped({GRAPH: b"[" * 200_000}), "not valid JSON"),
    "use_pickle": (lambda: program_set("use_pickle", True, WEIGHTS), "as a pickle"),
    "hidden pickle": (lambda: program_with(data__constants__x=pickle.dumps(Malicious(), 0)), "constants/x"),
    "pickle among the weights": (
        lambda: program_with(data__weights__model=pickle.dumps([1])),
        "weights/model",
    ),
    "pickle in an older place": (
        lambda: program_with(**{"data__weights__model.pt": b"PK"}),
        "weights/model.pt",
    ),
    "compiled code": (lambda: program_with(**{"data__aotinductor__model__x.so": b"\x7fELF"}), "aotinductor"),
    "script object": (
        lambda: program_with(
            data__constants__custom_obj_0=pickle.dumps(Malicious(), 0),
            **{
                "data__constants__model_constants_config.json": json.dumps(
                    {"config": {"x": {"path_name": "custom_obj_0", "use_pickle": False}}}
                ).encode()
            },
        ),
        "custom_obj_0",
    ),
    "guards in a second graph": (lambda: program_with(**{"models__evil.json": b"{}"}), "models/evil.json"),
    "calls methodcaller": (lambda: program_where(EMBEDDING, "_operator.methodcaller"), "methodcaller|JSON"),
    "calls torch.load": (lambda: program_where(EMBEDDING, ["torch.load"]), "torch.load"),
    "calls torch.hub.load": (lambda: program_where(EMBEDDING, '"torch.hub.load"'), "calls 'torch.hub.load'"),
    "calls an extension": (lambda: program_where(EMBEDDING, '"#extension"'), "calls '#extension'"),
    "calls os.system": (lambda: program_where(EMBEDDING, '"os.system"'), "calls 'os.system'"),
    "saves a file": (lambda: program_where(EMBEDDING, '"torch.ops.aten.save.default"'), "aten.save"),
    "maps a file": (lambda: program_where(EMBEDDING, '"torch.ops.aten.from_file.default"'), "aten.from_file"),
    "size: code": (lambda: symbolic(CODE), "where a size should stand"),
    "size: attribute": (lambda: symbolic("Integer.__class__"), "where a size"),
    "size: text": (lambda: symbolic(f"Symbol({CODE!r})"), "where a size"),
    "size: lambda": (lambda: symbolic("(lambda: 1)()"), "where a size"),
    "size: comprehension": (lambda: symbolic("[x for x in (1,)]"), "where a size"),
    "size: power without end": (
        lambda: symbolic("Pow(Integer(9), Pow(Integer(9), Integer(9)))"),
        "where a size",
    ),
    "size: nested without end": (lambda: symbolic("(" * 5000 + "1" + ")" * 5000), "where a size"),
    "input's name is code": (lambda: program_where('"mask"', f'"mask={CODE}"'), "which is no name"),
    "argument's name is code": (
        lambda: program_set("forward_arg_names", ["ids", f"mask={CODE}"]),
        "which is no name",
    ),
    "symbol's name is code": (lambda: program_set("range_constraints", {CODE: {}}), "which is no name"),
    "imports a module": (with_imports, "packs its inputs"),
    "imports a factory": (
        lambda: program_set("in_spec", in_spec("collections.defaultdict", {"default_factory_module": "os"})),
        "packs its inputs",
    ),
}

PT2_OPENED: dict[str, tuple[Callable[[], bytes], str, bool]] = {
    "size 2^62": (
        lambda: program_where('"as_int": 16', '"as_int": 4611686018427387904', WEIGHTS),
        "whose size is",
        True,
    ),
    "size NaN": (lambda: program_where('"as_int": 16', '"as_int": NaN', WEIGHTS), "whose size is", False),
    "weights too short": (lambda: program_with(data__weights__weight_0=b"1234"), "claims 512 bytes", True),
    "weights missing": (
        lambda: zipped({k: v for k, v in unzipped().items() if not k.endswith("weight_1")}),
        "has lost weight_1",
        True,
    ),
}
"""Those whose weights are not what is claimed; `inspect_file`, which reads no weights, shows some."""
