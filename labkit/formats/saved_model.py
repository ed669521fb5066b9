"""TensorFlow's SavedModel: a folder with the graph in `saved_model.pb` and the weights under `variables/`.

Its graph is a program: it may hold operators that read and write files or call Python. They are looked for by
name in the bytes, before TensorFlow is even imported. Those that every SavedModel has, for its own saver, are left
to the child, which looks who calls them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from labkit.errors import ModelFileError
from labkit.variant import read_folder

CHILD = "labkit.formats.tensorflow_child"
_LARGEST_GRAPH_BYTES = 128 * 1024 * 1024
_REFUSED = """
ReadFile WriteFile MatchingFiles PyFunc PyFuncStateless EagerPyFunc InitializeTableFromTextFile
InitializeTableFromTextFileV2 LoadAndRemapMatrix GenerateVocabRemapping DistributedSave DumpTensor
WholeFileReader WholeFileReaderV2 TFRecordReader TFRecordReaderV2 TextLineReader TextLineReaderV2 LMDBReader
FixedLengthRecordReader FixedLengthRecordReaderV2 IdentityReader IdentityReaderV2 FileSystemSetConfiguration
TFRecordDataset TFRecordDatasetV2 TextLineDataset FixedLengthRecordDataset FixedLengthRecordDatasetV2
CSVDataset CSVDatasetV2 SqlDataset LMDBDataset GeneratorDataset MatchingFilesDataset CacheDataset CacheDatasetV2
SnapshotDataset SnapshotDatasetV2 SnapshotDatasetReader SnapshotChunkDataset SnapshotNestedDatasetReader
ListSnapshotChunksDataset SaveDataset SaveDatasetV2 LoadDataset DatasetToTFRecord DatasetFromGraph
ExperimentalCSVDataset ExperimentalSqlDataset ExperimentalLMDBDataset ExperimentalMatchingFilesDataset
ExperimentalDatasetToTFRecord DataServiceDataset DataServiceDatasetV2 DataServiceDatasetV3 DataServiceDatasetV4
RegisterDataset RegisterDatasetV2 IteratorFromStringHandle IteratorFromStringHandleV2
CreateSummaryFileWriter CreateSummaryDbWriter ImportEvent WriteSummary WriteRawProtoSummary WriteGraphSummary
DebugIdentity DebugIdentityV2 DebugIdentityV3 DebugNanCount DebugNumericSummary DebugNumericSummaryV2
RpcCall RpcServer RpcServerStart RpcServerRegister RpcClient RpcGetValue RemoteCall CollectiveBcastRecv
PrintV2 Print XlaLaunch XlaLaunchV2 XlaCustomCall XlaCustomCallV2 XlaHostCompute DecodeProtoV2 EncodeProto Abort
Send Recv _Send _Recv _HostSend _HostRecv TPUCompile TPUExecute SdcaFprint BigQueryReader
"""
"""Operators that reach out of the model: files, the network, Python, other programs' memory, the terminal."""


def _spelt(operator: str) -> bytes:
    """How NodeDef.op stands in the bytes: its length, then the name. A length may be written longer than needed."""
    size = len(operator)
    return rb"(?:\x%02x|\x%02x\x80{0,8}\x00)%s" % (size, size | 0x80, operator.encode())


_IN_THE_GRAPH = re.compile(
    rb"(?:\x12|\x92\x80{0,8}\x00)(?:" + b"|".join(map(_spelt, _REFUSED.split())) + rb")", re.DOTALL
)
"""NodeDef.op is field 2, a text: the byte 0x12, then the length and the name."""


def read(path: Path) -> dict[str, bytes]:
    """The folder's files, relative name → bytes."""
    return read_folder(path)


def check(model: Mapping[str, bytes], what: str) -> None:
    """Raise ModelFileError for a graph that reaches out of the model."""
    graph = model.get("saved_model.pb", b"")
    if not graph:
        raise ModelFileError(f"{what} is not a SavedModel: saved_model.pb is missing or empty")
    if len(graph) > _LARGEST_GRAPH_BYTES:
        raise ModelFileError(
            f"{what} has a saved_model.pb of more than 128 MiB: weights belong into variables/"
        )
    found = _IN_THE_GRAPH.search(graph)
    if found:
        operator = re.sub(rb"^.*[^A-Za-z0-9_]", b"", found[0], flags=re.DOTALL).decode()
        raise ModelFileError(f"{what} holds the operator {operator}, which reaches out of the model: refused")


def budget(size: int) -> tuple[int, float]:
    """(bytes of memory, seconds of processor time) that opening and running a file of `size` bytes may take."""
    return int(2e9 + 8 * size), 20.0 + size / 5e6
