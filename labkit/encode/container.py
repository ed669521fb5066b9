"""One file that decodes to the model: `.lkz`. Every byte is described in docs/weight-file.md.

    LKZ 1 | description | a record for each tensor | CRC-32

The architecture is in the description, and it says which tensors there are, in which order and of which shape:
none of that is written again. Nothing in the file is ever run, and nothing is allocated before the sizes were
checked. The checksum is there to notice damage; it proves no origin. CRC-32 catches every error of up to 32 bits in
a row, and any other but one in four thousand million, in 4 bytes; a digest against forgery would take 16.
"""

from __future__ import annotations

import dataclasses
import io
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np

from labkit.doors import door
from labkit.encode.metadata import pack_metadata, unpack_metadata
from labkit.encode.network import check_outputs, check_rebuilt, declared, without_numbers
from labkit.encode.tensors import Context, decode_tensor, encode_tensor
from labkit.encode.varint import varint
from labkit.errors import ConfigError, ModelFileError
from labkit.files import read_regular, write_atomically
from labkit.progress import Progress, silent
from labkit.variant import LARGEST_BYTES, Array, Step, Variant

T = TypeVar("T")
SUFFIX = ".lkz"
MAGIC, VERSION = b"LKZ", 1


@door
def encode(variant: Variant, progress: Progress | None = None) -> bytes:
    """The bytes of the file: decoded, they give exactly this variant's tensors, to the last bit.

    What is smallest is chosen tensor by tensor; a sparse one of few different values (PruneMagnitude, then
    ClusterWeights) shrinks most. Raises ModelFileError unless the variant is a PyTorch one of labkit's architectures,
    with the tensors that its config builds.
    """
    description = pack_metadata(variant)
    records = _records(variant, progress or silent)
    parts = [MAGIC, bytes([VERSION]), varint(len(description)), description]
    for record in records:
        parts += [varint(len(record)), record]
    body = b"".join(parts)
    content = body + zlib.crc32(body).to_bytes(4, "big")
    if decode(content).fingerprint() != variant.fingerprint():
        raise ModelFileError(f"{variant.name!r} does not come back from its coded file: a bug in labkit")
    return content


def _records(variant: Variant, progress: Progress) -> Iterator[bytes]:
    """The record of each tensor, in the order of whoever builds the network anew."""
    tensors, context = variant.model.state_dict(), Context()
    order = without_numbers(variant.model.config, repr(variant.name)).state_dict()
    check_rebuilt(variant, tensors, order)
    for index, name in enumerate(order):
        progress(index / len(order), f"coding {name}")
        yield encode_tensor(tensors[name].detach().cpu().numpy(), context)


@door
def save_encoded(variant: Variant, path: str | Path, progress: Progress | None = None) -> Path:
    """Write the coded file; returns its path. Raises ConfigError unless the name ends in .lkz."""
    path = Path(path)
    if path.suffix.lower() != SUFFIX:
        raise ConfigError(f"{path} should end in {SUFFIX}, the ending of coded weights")
    write_atomically(path, encode(variant, progress))
    return path


@door
def decode(content: bytes, what: str = "the coded file") -> Variant:
    """The variant that `encode` was given, without its lineage.

    Raises ModelFileError for a file that is damaged, cut off, of another version, or that claims more than it holds.
    """
    reader = checked(content, what)
    tensors = dict(reader)
    return dataclasses.replace(reader.variant(tensors), file_bytes=len(content))


def checked(content: bytes, what: str) -> StreamReader:
    """A reader of the whole file, its checksum compared. Raises ModelFileError for one that is damaged."""
    if len(content) < 8 or zlib.crc32(content[:-4]) != int.from_bytes(content[-4:], "big"):
        check_magic(content[:4], what)
        raise ModelFileError(f"{what} is damaged or cut off (its checksum differs): copy it again")
    return StreamReader(io.BytesIO(content), len(content), what)


@door
def load_encoded(path: str | Path) -> Variant:
    """The variant of a .lkz file, its lineage naming the file. Raises ModelFileError, as `decode` does."""
    path = Path(path)
    return decode(read_regular(path, ModelFileError, LARGEST_BYTES, "coded weights"), str(path))


class StreamReader:
    """Reads a coded file from front to back, and gives each tensor as soon as its bytes are there.

        for name, array in StreamReader(file, size_bytes): ...

    It holds one record at a time, never the file. Damage shows at the latest after the last tensor, where the
    checksum stands: whoever used the tensors before that has used them unchecked.
    """

    def __init__(self, file: BinaryIO, size_bytes: int, what: str = "the coded file") -> None:
        self._file, self.left, self._crc, self._what = file, size_bytes, 0, what
        check_magic(self._take(4), what)
        self.description = unpack_metadata(self._take(self._number()), what)
        self._network = declared(self.description["config"], size_bytes, what)
        self.shapes = {
            name: (tuple(tensor.shape), np.dtype(str(tensor.dtype).removeprefix("torch.")))
            for name, tensor in self._network.state_dict().items()
        }

    def __iter__(self) -> Iterator[tuple[str, Array]]:
        """Name and array of each tensor, in the network's order. Raises ModelFileError for damage."""
        for name, _, tensor in self.each(decode_tensor):
            yield name, tensor

    def each(self, read: Callable[[bytes, Any, Any, Context], T]) -> Iterator[tuple[str, int, T]]:
        """Name, bytes of the record, and what `read`, `decode_tensor` or `dissect_tensor`, makes of it."""
        context = Context()
        for name, shape in self.shapes.items():
            data = self._take(self._number())
            try:
                found = read(data, *shape, context)
            except ModelFileError as error:
                raise ModelFileError(f"{self._what}, tensor {name}: {error}") from None
            yield name, len(data), found
        crc = self._crc
        if self.left != 4 or int.from_bytes(self._take(4), "big") != crc:
            raise ModelFileError(f"{self._what} is damaged or cut off (its checksum differs): copy it again")

    def variant(self, tensors: dict[str, Array]) -> Variant:
        """The network with these tensors in it, which it shares; to be called once.

        Raises ModelFileError if it is no such one as the file declares.
        """
        import torch

        fields = {name: value for name, value in self.description.items() if name != "config"}
        model = self._network
        state = {
            name: torch.from_numpy(np.require(array, requirements="W")) for name, array in tensors.items()
        }
        model.load_state_dict(state, assign=True)
        check_outputs(model, fields["inputs"], fields["outputs"], self._what)
        step = Step("decode", {"file": Path(self._what).name}, (), origin="file")
        return Variant(format="torch", model=model, lineage=(step,), **fields)

    def _take(self, count: int) -> bytes:
        if count > self.left or len(data := self._file.read(count)) < count:
            raise ModelFileError(
                f"{self._what} is cut off: {count} bytes should follow where {self.left} are left"
            )
        self.left -= count
        self._crc = zlib.crc32(data, self._crc)
        return data

    def _number(self) -> int:
        number, shift = 0, 0
        while shift < 35:
            (byte,) = self._take(1)
            number |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return number
        raise ModelFileError(f"{self._what} is damaged: a length is too large")


def check_magic(head: bytes, what: str) -> None:
    """Raise ModelFileError unless a file that begins so is one of ours, and of a version that is understood."""
    if head[:3] != MAGIC:
        raise ModelFileError(f"{what} is no file of coded weights: it should begin with {MAGIC.decode()}")
    if head[3:4] != bytes([VERSION]):
        raise ModelFileError(
            f"{what} is of version {head[3:4].hex()}, this labkit reads {VERSION}: update labkit"
        )
