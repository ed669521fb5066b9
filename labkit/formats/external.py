"""ONNX files whose weights lie in other files: gathered into one, after each of those was looked at.

An exporter writes large weights beside the graph. A hostile file may name any path there instead, or leave the name
and swap the content. So only a plain file in the model's own folder is read, and where the model records its
checksum (SHA-1, which no runtime verifies), it must be the one. A child parses the graph before we do.
"""

from __future__ import annotations

from pathlib import Path

from labkit.errors import ModelFileError
from labkit.formats.sandbox import ask
from labkit.variant import LARGEST_BYTES


def gathered(path: Path, payload: bytes) -> bytes:
    """The model at `path` as one file with all its weights; `payload` itself if it has them already.

    Raises ModelFileError for data outside the folder, behind a link, missing, too short or of another checksum.
    """
    if b"location" not in payload:  # the key of every entry that leads to another file
        return payload
    import onnx

    from labkit.onnx_graph.stored import constants, find_external, graphs, is_external, sha1_of

    ask(
        "labkit.formats.external_child",
        path,
        payload,
        100_000_000 + 6 * len(payload),
        0.8 + len(payload) / 20e6,
    )
    model = onnx.ModelProto.FromString(payload)
    outside = [tensor for graph in graphs(model) for tensor in constants(graph) if is_external(tensor)]
    if not outside:
        return payload
    verified: dict[Path, str] = {}
    total = len(payload)
    for tensor in outside:
        try:
            place = find_external(tensor, path.parent)
        except (ModelFileError, OSError, ValueError) as error:
            raise ModelFileError(f"{path}: {error}") from None
        total += place.length
        if total > LARGEST_BYTES:
            raise ModelFileError(
                f"{path} and its weights are larger than {LARGEST_BYTES} bytes: ONNX's own limit"
            )
        if place.checksum is not None:
            found = verified.setdefault(place.path, sha1_of(place.path))
            if found != place.checksum.lower():
                raise ModelFileError(
                    f"{path}: {place.path.name} is not the file that the model was saved with (its checksum "
                    "differs): restore it"
                )
        with open(place.path, "rb") as file:
            file.seek(place.offset)
            tensor.raw_data = file.read(place.length)
        del tensor.external_data[:]
        tensor.ClearField("data_location")
    whole: bytes = model.SerializeToString()
    return whole
