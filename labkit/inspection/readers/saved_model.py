"""TensorFlow's SavedModel: `saved_model.pb` walked field by field, without TensorFlow.

    SavedModel → meta graph → graph: nodes, and a library of functions, each a list of nodes
                            → signatures: the names of what goes in and out

What a model computes lies in functions that call one another (`tf_functions.py` follows the calls). The layers
are those that the signature `serving_default` reaches. The fields' numbers are those of
tensorflow/core/protobuf/meta_graph.proto.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from labkit.errors import ModelFileError
from labkit.formats import saved_model
from labkit.inspection.macs import Sample, total_macs, untold
from labkit.inspection.readers.message import Message
from labkit.inspection.readers.tf_functions import DTYPES, Walk, read_shape
from labkit.inspection.record import ExternalFile, Inspection, TensorInfo
from labkit.inspection.request import Request
from labkit.inspection.storage import bytes_of, tally

_LARGEST_BYTES = 128 * 1024 * 1024
_SIGNATURE = "serving_default"


def read(request: Request) -> Inspection:
    """What a SavedModel holds. Raises ModelFileError if its graph is damaged or has no signature to serve."""
    folder = request.file if request.file.is_dir() else request.file.parent
    path = folder / "saved_model.pb"
    if path.is_symlink() or path.stat().st_size > _LARGEST_BYTES:
        raise ModelFileError("saved_model.pb is a link, or larger than 128 MiB")
    data = path.read_bytes()
    saved_model.check({"saved_model.pb": data}, "it")
    meta = Message(data, 0, len(data)).one(2)
    graph = meta.one(2) if meta else None
    if meta is None or graph is None:
        raise ModelFileError("saved_model.pb holds no graph: it is damaged, or no SavedModel")
    signatures = meta.entries(5)
    if _SIGNATURE not in signatures:
        known = ", ".join(name for name in signatures if not name.startswith("__")) or "none"
        raise ModelFileError(f"it has no signature {_SIGNATURE!r} (it has: {known}): save it with one")
    given, results = signatures[_SIGNATURE].entries(1), signatures[_SIGNATURE].entries(2)
    inputs = _infos(given)
    walk = Walk(graph, Sample.of(inputs, request.sizes))
    walk.follow(
        {item.text(1): name for name, item in given.items()}, {i.text(1): n for n, i in results.items()}
    )
    files = _variable_files(folder)
    about = meta.one(1)
    return Inspection(
        file=request.path,
        format="tensorflow",
        bytes=len(data) + sum(file.bytes for file in files),
        producer=f"tensorflow {about.text(5)}" if about and about.text(5) else None,
        inputs=inputs,
        outputs=_infos(results),
        precision=tally(
            (each.dtype, each.count, bytes_of(each.dtype, each.count))
            for each in walk.constants.values()
            if each.count
        ),
        parameters=sum(each.count for each in walk.constants.values()),
        macs=total_macs(walk.layers),
        external_files=files,
        operators=dict(Counter(layer.operator for layer in walk.layers)),
        layers=tuple(walk.layers),
        notes=(
            "not verified: the variables' files, of which only the size was read",
            "parameters include running statistics, which the graph does not tell apart",
            *untold(walk.layers),
        ),
    )


def _infos(items: Mapping[str, Message]) -> tuple[TensorInfo, ...]:
    """TensorInfo of meta_graph.proto: dtype is field 2, the shape field 3."""
    return tuple(
        TensorInfo(name, DTYPES.get(item.number(2), "?"), read_shape(item.one(3)))
        for name, item in items.items()
    )


def _variable_files(folder: Path) -> tuple[ExternalFile, ...]:
    files = sorted((folder / "variables").glob("variables.*"))
    for file in files:
        if file.is_symlink():
            raise ModelFileError(f"variables/{file.name} is a link: refused, it may lead out of the folder")
    return tuple(
        ExternalFile(f"variables/{file.name}", file.stat().st_size, "none recorded") for file in files
    )
