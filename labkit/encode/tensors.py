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
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from labkit.encode.codebook import Codebook, read_codebook, split
from labkit.encode.coder import Price, Reader, Writer
from labkit.encode.packed import in_pieces, little_endian, pack, unpack
from labkit.encode.sparse import WIDEST, Known, Settings, alive, allowed, describe, sample, steps
from labkit.encode.varint import read_varint, varint
from labkit.errors import ModelFileError
from labkit.variant import Array

STORED, PACKED, HALF, CODED = range(4)
KINDS = ("stored", "packed", "float16", "coded")
_DENSE, _BY_SIGN, _TWO_PHASES = 16, 32, 64
MOST_STEPS_OF_A_FILE = 50_000


@dataclass
class Context:
    """What the tensors before this one tell about it: how many weights each unit has kept.

    steps_left: how many more the coded tensors of the file may take to read.
    """

    units: Array | None = None
    columns: int = 0
    steps_left: int = MOST_STEPS_OF_A_FILE

    def known(self, shape: tuple[int, ...]) -> Known:
        """For a matrix, the units that lead into it; for a bias, the weights of its own units."""
        if len(shape) > 1:
            return Known(before=self.units)
        same = self.units is not None and self.units.shape == tuple(shape)
        return Known(rows=self.units, columns=self.columns) if same else Known()

    def learn(self, shape: tuple[int, ...], grid: Array, settings: Settings | None) -> None:
        """Take over the counts of a coded matrix, and the steps that it took."""
        if settings is not None:
            self.steps_left -= steps(settings.width, settings.phases, grid.shape)
        if len(shape) > 1:
            self.units, self.columns = (grid > 0).sum(1), int((grid > 0).any(0).sum())


@dataclass(frozen=True)
class Dissection:
    """A tensor's record taken apart: the tensor, the kind, part → bytes, and part → the bound of its symbols in bits.

    bounds: of coded tensors only, for Deflate looks around too, and the entropy of single bytes is no bound for it.
    grid: the entries of a coded tensor's codebook, uint8 [rows, columns]; None for the other kinds.
    """

    tensor: Array
    kind: str
    parts: Mapping[str, int]
    bounds: Mapping[str, float]
    grid: Array | None = None


def encode_tensor(tensor: Array, context: Context) -> bytes:
    """The smallest record of a tensor; `context` learns from it."""
    plain = np.ascontiguousarray(tensor)
    records = [bytes([STORED]) + little_endian(plain), bytes([PACKED]) + pack(plain)]
    if plain.dtype == np.float32:
        with np.errstate(over="ignore", invalid="ignore"):
            half = plain.astype(np.float16)
        if half.astype(np.float32).tobytes() == plain.tobytes():
            records.append(bytes([HALF]) + pack(half))
        entries = split(plain)
        if entries is not None:
            grid, codebook = entries[0].reshape(_matrix(plain.shape)), entries[1]
            known, settings = context.known(plain.shape), None
            if len(codebook.values):
                settings = _best_settings(grid, codebook, known, context.steps_left)
            if settings or not len(codebook.values):
                records.append(_coded(grid, codebook, known, settings))
    best = min(records, key=len)
    if best[0] & 3 == CODED:
        context.learn(plain.shape, grid, settings)
    return best


def decode_tensor(data: bytes, shape: tuple[int, ...], dtype: np.dtype[Any], context: Context) -> Array:
    """The tensor of a record; `context` learns from it. Raises ModelFileError for a record of anything else."""
    kind = _kind(data, dtype)
    return _Coded(data, shape, context).tensor if kind == CODED else _plain(kind, data, shape, dtype)


def dissect_tensor(data: bytes, shape: tuple[int, ...], dtype: np.dtype[Any], context: Context) -> Dissection:
    """`decode_tensor`, with every byte of the record told apart."""
    kind = _kind(data, dtype)
    if kind != CODED:
        parts = {"head": 1, "values": len(data) - 1}
        return Dissection(_plain(kind, data, shape, dtype), KINDS[kind], parts, {})
    coded, price = _Coded(data, shape, context), Price()
    if coded.settings is not None:
        grid, signs = coded.grid, coded.codebook.signs
        describe(price, grid, grid.shape, signs, coded.settings, coded.known)
    stream = len(data) - coded.start
    values = round(stream * price.bits.get("values", 0.0) / max(sum(price.bits.values()), 1e-9))
    parts = {"head": 1, "codebook": coded.after_codebook - 1, "settings": coded.start - coded.after_codebook}
    parts |= {"positions": stream - values, "values": values}
    return Dissection(coded.tensor, KINDS[kind], parts, price.bits, coded.grid)


def _plain(kind: int, data: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """The tensor of a record of another kind than coded; beside it little memory is taken."""
    count, little = int(np.prod(shape, dtype=np.int64)), dtype.newbyteorder("<")
    if kind == STORED:
        if len(data) - 1 != count * dtype.itemsize:
            raise ModelFileError(f"a tensor of {count} numbers has {len(data) - 1} bytes: damaged")
        return np.frombuffer(data, little, offset=1).astype(dtype).reshape(shape)
    cells = np.empty((count, dtype.itemsize), np.uint8)
    numbers = cells.reshape(-1).view(little)
    if kind == HALF:  # in the first half of each number's own bytes, until it is made of them
        unpack(data[1:], cells[:, :2])
        halves = cells.reshape(-1).view("<f2")[::2]
        for part in in_pieces(count):
            numbers[part] = halves[part].astype(little)
    else:
        unpack(data[1:], cells)
    return numbers.astype(dtype, copy=False).reshape(shape)


def _kind(data: bytes, dtype: np.dtype[Any]) -> int:
    """The kind of a record that is to hold a tensor of this type; ModelFileError if there is none such."""
    kind = data[0] & 3 if data else -1
    if kind < 0 or (kind != CODED and data[0] > HALF) or (kind in (CODED, HALF) and dtype != np.float32):
        raise ModelFileError(f"a record of {dtype} is of no known kind: damaged")
    return kind


def _coded(grid: Array, codebook: Codebook, known: Known, settings: Settings | None) -> bytes:
    start = codebook.to_bytes()
    head = CODED | codebook.form << 2
    if settings is None:
        return bytes([head]) + start
    writer = Writer()
    describe(writer, grid, grid.shape, codebook.signs, settings, known)
    head |= _BY_SIGN * settings.by_sign | _DENSE * settings.dense | _TWO_PHASES * (settings.phases == 2)
    start += varint(settings.width) + varint(settings.head_start) + settings.weights.tobytes()
    return bytes([head]) + start + writer.finish()


class _Coded:
    """A record of kind 3, read; `start` is where the range coder's bytes begin, and `context` learns from it.

    grid: the codebook's entries, uint8 [rows, columns]; settings: None where all weights are zero.
    """

    def __init__(self, data: bytes, shape: tuple[int, ...], context: Context) -> None:
        self._shape, self.known = shape, context.known(shape)
        self.codebook, size = read_codebook(data[1:], data[0] >> 2 & 3)
        self.start = self.after_codebook = 1 + size
        self.settings: Settings | None = None
        if len(self.codebook.values):
            self.settings = self._read_settings(data, context.steps_left)
            signs, reader = self.codebook.signs, Reader(data[self.start :])
            self.grid = describe(reader, None, _matrix(shape), signs, self.settings, self.known)
        elif len(data) > self.start:
            raise ModelFileError("a coded tensor goes on where all is said: the file is damaged")
        else:
            self.grid = np.zeros(_matrix(shape), np.uint8)
        context.learn(shape, self.grid, self.settings)

    @property
    def tensor(self) -> Array:
        """What the entries stand for."""
        values, entries = self.codebook.with_zero(), self.grid.reshape(-1)
        tensor = np.empty(entries.size, np.float32)
        for part in in_pieces(entries.size):  # numpy makes 8 bytes of each index first
            tensor[part] = values.take(entries[part])
        return tensor.reshape(self._shape)

    def _read_settings(self, data: bytes, steps_left: int) -> Settings:
        head, shape = data[0], _matrix(self._shape)
        width, at = read_varint(data, self.after_codebook)
        head_start, at = read_varint(data, at)
        phases = 2 if head & _TWO_PHASES else 1
        features = 0 if head & _DENSE else self.known.features(shape)
        weights = np.frombuffer(data[at : at + phases * features], np.int8)
        fits = allowed(width, phases, shape, steps_left)
        if not fits or len(weights) < phases * features or head & 128:
            raise ModelFileError(
                "the settings of a coded tensor are damaged, or it would take too long to read"
            )
        self.start = at + phases * features
        return Settings(width, phases, head_start, weights.reshape(phases, features), bool(head & _BY_SIGN))


def _best_settings(grid: Array, codebook: Codebook, known: Known, steps_left: int) -> Settings | None:
    """Of the few settings that are worth a try, those with the fewest bytes; None where none is allowed."""
    kept, columns = int((grid > 0).sum()), grid.shape[1]
    nothing = np.zeros((1, 0), np.int8)
    best, least = None, math.inf
    if kept < grid.size:
        cells = int(grid.any(1).sum()) * int(grid.any(0).sum())
        head_start = round(cells / (2 * kept))
        for width, phases in _layouts(grid, steps_left):
            start = Settings(width, phases, head_start, nothing, False)
            weights, bits = sample(grid, start, known)
            tried, flags = dataclasses.replace(start, weights=weights), Price()
            alive(flags, grid, grid.shape, tried, known)
            bits += 8 * weights.size + sum(flags.bits.values())
            if bits < least:
                best, least = tried, bits
    elif allowed(min(columns, WIDEST), 1, grid.shape, steps_left):
        best = Settings(min(columns, WIDEST), 1, 0, nothing, False)
    if best is None:
        return None
    signed = dataclasses.replace(best, by_sign=True)
    return min(best, signed, key=lambda settings: _bits(grid, codebook, settings, known))


def _bits(grid: Array, codebook: Codebook, settings: Settings, known: Known) -> float:
    price = Price()
    describe(price, grid, grid.shape, codebook.signs, settings, known)
    return sum(price.bits.values())


def _layouts(grid: Array, steps_left: int) -> list[tuple[int, int]]:
    """Widths of a line to try, each with one phase and with two: columns at such distances are kept together."""
    columns = grid.shape[1]
    found = [(1, 1)]
    if columns > 1:
        kept = grid > 0
        together = {w: int((kept[:, w:] & kept[:, :-w]).sum()) for w in range(2, min(columns, WIDEST))}
        widths = {*sorted(together, key=lambda w: -together[w])[:2], min(columns, 16), min(columns, WIDEST)}
        found = [(width, phases) for width in sorted(widths) for phases in (1, 2)]
    return [each for each in found if allowed(*each, grid.shape, steps_left)]


def _matrix(shape: tuple[int, ...]) -> tuple[int, int]:
    """Outputs by inputs: [out, in, kh, kw] → (out, in · kh · kw); a vector has one column."""
    rows = shape[0] if shape else 1
    return rows, int(np.prod(shape[1:], dtype=np.int64))
