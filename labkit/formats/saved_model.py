"""TensorFlow's SavedModel: a folder with the graph in `saved_model.pb` and the weights under `variables/`.

Its graph is a program: it may hold operators that read and write files or call Python. They are looked for by
name in the bytes, before TensorFlow is even imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from labkit.errors import ModelFileError
from labkit.variant import read_folder

CHILD = "labkit.formats.tensorflow_child"
_REFUSED = (
    *("ReadFile", "WriteFile", "MatchingFiles", "PyFunc", "PyFuncStateless", "EagerPyFunc"),
    *("WholeFileReaderV2", "TFRecordReaderV2", "TextLineReaderV2", "FixedLengthRecordReaderV2"),
    *(
        "TFRecordDataset",
        "TextLineDatasetV2",
        "TextLineDataset",
        "FixedLengthRecordDatasetV2",
        "GeneratorDataset",
    ),
    *("CreateSummaryFileWriter", "ImportEvent", "DebugIdentityV2", "DebugNumericSummaryV2"),
    *("LMDBReader", "InitializeTableFromTextFileV2", "RpcCall", "RpcServerStart", "RpcClient", "XlaLaunch"),
    *("DataServiceDatasetV2", "DataServiceDatasetV3", "DataServiceDatasetV4"),
)


def read(path: Path) -> dict[str, bytes]:
    """The folder's files, relative name → bytes."""
    return read_folder(path)


def check(model: Mapping[str, bytes], what: str) -> None:
    """Raise ModelFileError for a graph that reaches out of the model."""
    graph = model.get("saved_model.pb", b"")
    if not graph:
        raise ModelFileError(f"{what} is not a SavedModel: saved_model.pb is missing or empty")
    for operator in _REFUSED:
        # NodeDef.op is field 2, a text: the byte 0x12, its length, then the name.
        if b"\x12" + bytes([len(operator)]) + operator.encode() in graph:
            raise ModelFileError(
                f"{what} holds the operator {operator}, which reaches out of the model: refused"
            )


def budget(size: int) -> tuple[int, float]:
    """(bytes of memory, seconds of processor time) that opening and running a file of `size` bytes may take."""
    return int(2e9 + 8 * size), 20.0 + size / 5e6
