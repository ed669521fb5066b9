"""One tensor as bytes, and back, in the smallest of four ways, each exact to the last bit.

kind 0   stored: the tensor's own bytes, little-endian
kind 1   packed: all first bytes, then all second bytes, …, deflated: exponents are alike, and stand together
kind 2   the same in float16, where every value is one
kind 3   coded: a codebook, and the entry of every weight by a range coder (`sparse.py`)

The record's first byte holds the kind and, for kind 3, the codebook's form and what the settings have switched on.
"""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from labkit.encode.codebook import Codebook, read_codebook, split
from labkit.encode.coder import Price, Reader, Writer
from labkit.encode.sparse import Known, Settings, describe, sample
from labkit.encode.varint import read_varint, varint
from labkit.errors import ModelFileError
from labkit.variant import Array

STORED, PACKED, HALF, CODED = range(4)
KINDS = ("stored", "packed", "float16", "coded")
_WIDEST = 64
_DENSE, _BY_SIGN, _TWO_PHASES = 16, 32, 64


@dataclass
class Context:
    """What the tensors before this one tell about it: how many weights each unit has kept."""

    units: Array | None = None
    columns: int = 0

    def known(self, shape: tuple[int, ...]) -> Known:
        """For a matrix, the units that lead into it; for a bias, the weights of its own units."""
        if len(shape) > 1:
            return Known(before=self.units)
        same = self.units is not None and self.units.shape == tuple(shape)
        return Known(rows=self.units, columns=self.columns) if same else Known()

    def learn(self, shape: tuple[int, ...], grid: Array) -> None:
        """Take over the counts of a coded matrix."""
        if len(shape) > 1:
            self.units, self.columns = (grid > 0).sum(1), int((grid > 0).any(0).sum())


@dataclass(frozen=True)
class Record:
    """A tensor's bytes, and what they are for: part → bytes in the file, part → the bound of its symbols in bits."""

    data: bytes
    kind: str
    parts: Mapping[str, int]
    bounds: Mapping[str, float] = field(default_factory=dict)


def encode_tensor(tensor: Array, context: Context) -> Record:
    """The smallest record of a tensor; `context` learns from it."""
    plain = np.ascontiguousarray(tensor)
    candidates = [Record(bytes([STORED]) + _little(plain), KINDS[STORED], {"head": 1, "values": plain.nbytes})]
    candidates.append(_packed(PACKED, plain))
    if plain.dtype == np.float32:
        with np.errstate(over="ignore", invalid="ignore"):
            half = plain.astype(np.float16)
        if half.astype(np.float32).tobytes() == plain.tobytes():
            candidates.append(_packed(HALF, half))
        entries = split(plain)
        if entries is not None:
            grid = entries[0].reshape(_matrix(plain.shape))
            candidates.append(_coded(grid, entries[1], context.known(plain.shape)))
    best = min(candidates, key=lambda record: len(record.data))
    if best.kind == KINDS[CODED]:
        context.learn(plain.shape, grid)
    return best


def decode_tensor(data: bytes, shape: tuple[int, ...], dtype: np.dtype[np.generic], context: Context) -> Array:
    """The tensor of a record; `context` learns from it. Raises ModelFileError for a record of anything else."""
    if not data:
        raise ModelFileError("a tensor's record is empty")
    count, kind = int(np.prod(shape, dtype=np.int64)), data[0] & 3
    if kind == CODED:
        if dtype != np.float32:
            raise ModelFileError(f"a coded tensor should be {dtype}, and codebooks are of float32: damaged")
        grid, codebook = _read_coded(data, _matrix(shape), context.known(shape))
        context.learn(shape, grid)
        return np.concatenate([np.zeros(1, np.float32), codebook.values])[grid].reshape(shape)
    stored = np.dtype(np.float16) if kind == HALF else dtype
    if data[0] > HALF or kind == HALF and dtype != np.float32:
        raise ModelFileError("a tensor's record is of no known kind")
    plain = data[1:] if kind == STORED else _inflate(data[1:], count * stored.itemsize)
    if len(plain) != count * stored.itemsize:
        raise ModelFileError(f"a tensor of {count} numbers has {len(plain)} bytes: damaged")
    if kind != STORED:
        plain = np.frombuffer(plain, np.uint8).reshape(stored.itemsize, count).T.tobytes()
    return np.frombuffer(plain, stored.newbyteorder("<")).astype(dtype).reshape(shape)


def _coded(grid: Array, codebook: Codebook, known: Known) -> Record:
    book = codebook.to_bytes()
    if not len(codebook.values):
        return Record(bytes([CODED | codebook.form << 2]) + book, KINDS[CODED], {"head": 1, "codebook": len(book)})
    settings = _best_settings(grid, codebook, known)
    writer, price = Writer(), Price()
    describe(writer, grid, grid.shape, codebook.signs, settings, known)
    describe(price, grid, grid.shape, codebook.signs, settings, known)
    head = CODED | codebook.form << 2 | _BY_SIGN * settings.by_sign
    head |= _DENSE * settings.dense | _TWO_PHASES * (settings.phases == 2)
    stored = b"" if settings.dense else settings.weights.tobytes()
    how = varint(settings.width) + varint(settings.head_start) + stored
    stream = writer.finish()
    values = round(len(stream) * price.bits.get("values", 0.0) / max(sum(price.bits.values()), 1e-9))
    parts = {"head": 1, "codebook": len(book), "settings": len(how)}
    parts |= {"positions": len(stream) - values, "values": values}
    return Record(bytes([head]) + book + how + stream, KINDS[CODED], parts, price.bits)


def _read_coded(data: bytes, shape: tuple[int, int], known: Known) -> tuple[Array, Codebook]:
    head = data[0]
    codebook, size = read_codebook(data[1:], head >> 2 & 3)
    at = 1 + size
    if not len(codebook.values):
        return np.zeros(shape, np.int32), codebook
    width, at = read_varint(data, at)
    head_start, at = read_varint(data, at)
    phases = 2 if head & _TWO_PHASES else 1
    features = 0 if head & _DENSE else known.features(shape)
    weights = np.frombuffer(data[at : at + phases * features], np.int8)
    if not 1 <= width <= max(shape[1], 1) or len(weights) < phases * features or head & 128:
        raise ModelFileError("the settings of a coded tensor are damaged")
    settings = Settings(width, phases, head_start, weights.reshape(phases, features), bool(head & _BY_SIGN))
    stream = data[at + phases * features :]
    return describe(Reader(stream), None, shape, codebook.signs, settings, known), codebook


def _best_settings(grid: Array, codebook: Codebook, known: Known) -> Settings:
    """Of the few settings that are worth a try, those with the fewest bytes."""
    kept, columns = int((grid > 0).sum()), grid.shape[1]
    nothing = np.zeros((1, 0), np.int8)
    best, least = Settings(min(columns, 64), 1, 0, nothing, False), math.inf
    if kept < grid.size:
        alive = int(grid.any(1).sum()) * int(grid.any(0).sum())
        head_start = round(alive / (2 * kept))
        for width, phases in _layouts(grid):
            start = Settings(width, phases, head_start, nothing, False)
            weights, bits = sample(grid, start, known)
            if bits + 8 * weights.size < least:
                best, least = dataclasses.replace(start, weights=weights), bits + 8 * weights.size
    signed = dataclasses.replace(best, by_sign=True)
    return min(best, signed, key=lambda settings: _bits(grid, codebook, settings, known))


def _bits(grid: Array, codebook: Codebook, settings: Settings, known: Known) -> float:
    price = Price()
    describe(price, grid, grid.shape, codebook.signs, settings, known)
    return sum(price.bits.values())


def _layouts(grid: Array) -> list[tuple[int, int]]:
    """Widths of a line to try, each with one phase and with two: columns at such distances are kept together."""
    columns = grid.shape[1]
    if columns == 1:
        return [(1, 1)]
    kept = grid > 0
    together = {w: int((kept[:, w:] & kept[:, :-w]).sum()) for w in range(2, min(columns, _WIDEST))}
    widths = {*sorted(together, key=lambda w: -together[w])[:2], min(columns, 16), min(columns, _WIDEST)}
    return [(width, phases) for width in sorted(widths) for phases in (1, 2)]


def _matrix(shape: tuple[int, ...]) -> tuple[int, int]:
    """Outputs by inputs: [out, in, kh, kw] → (out, in · kh · kw); a vector has one column."""
    rows = shape[0] if shape else 1
    return rows, int(np.prod(shape[1:], dtype=np.int64))


def _packed(kind: int, plain: Array) -> Record:
    planes = np.frombuffer(_little(plain), np.uint8).reshape(-1, plain.itemsize).T.tobytes()
    squeezed = _deflate(planes)
    return Record(bytes([kind]) + squeezed, KINDS[kind], {"head": 1, "values": len(squeezed)})


def _little(plain: Array) -> bytes:
    return plain.astype(plain.dtype.newbyteorder("<")).tobytes()


def _deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


def _inflate(data: bytes, size: int) -> bytes:
    """The `size` bytes that were deflated; never more, whatever the data would unpack to."""
    unpacker = zlib.decompressobj(-15)
    try:
        plain = unpacker.decompress(data, size + 1)
    except zlib.error as error:
        raise ModelFileError(f"a packed tensor is damaged: {error}") from None
    if not unpacker.eof or unpacker.unused_data:
        raise ModelFileError("a packed tensor is cut off, or longer than its shape")
    return plain
