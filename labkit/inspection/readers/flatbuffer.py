"""FlatBuffers, read in place: each table says at which of its fields' numbers it holds something, and where.

    table   →  4 bytes: how far *before* it its vtable lies
    vtable  →  2 bytes its length, 2 bytes the table's, then 2 bytes a field: the field's place in the table, 0 = absent
    a field that is a table, vector or text holds 4 bytes: how far *behind* itself that begins
    vector  →  4 bytes count, then the elements; a text is a vector of bytes

Everything is little-endian. Nothing is copied but what is asked for. https://flatbuffers.dev/internals
"""

from __future__ import annotations

import struct

from labkit.errors import ModelFileError
from labkit.onnx_graph.wire import Bytes


class Table:
    """A table in `data` at `position`; fields are asked for by number, and absent ones are a default."""

    def __init__(self, data: Bytes, position: int) -> None:
        self.data, self.position = data, position
        self._vtable = position - self._number("<i", position)
        self._size = self._number("<H", self._vtable)

    def number(self, field: int, kind: str, default: int = 0) -> int:
        """A number of struct's `kind`, such as "<i"."""
        place = self._place(field)
        return self._number(kind, place) if place else default

    def table(self, field: int) -> Table | None:
        """A table that a field points to."""
        place = self._place(field)
        return Table(self.data, self._target(place)) if place else None

    def tables(self, field: int) -> list[Table]:
        """A vector of tables."""
        start, count = self.vector(field, 4)
        return [Table(self.data, self._target(start + 4 * index)) for index in range(count)]

    def numbers(self, field: int, kind: str = "<i") -> tuple[int, ...]:
        """A vector of numbers."""
        width = struct.calcsize(kind)
        start, count = self.vector(field, width)
        return tuple(self._number(kind, start + width * index) for index in range(count))

    def text(self, field: int) -> str:
        """A text; bytes that are none are replaced."""
        start, count = self.vector(field, 1)
        return self.data[start : start + count].decode(errors="replace")

    def vector(self, field: int, width: int) -> tuple[int, int]:
        """Where a vector's elements of `width` bytes begin, and how many there are; (0, 0) for none."""
        place = self._place(field)
        if not place:
            return 0, 0
        start = self._target(place)
        count = self._number("<I", start)
        if start + 4 + width * count > len(self.data):
            raise ModelFileError(f"a vector at byte {start} claims {count} elements: the file is truncated")
        return start + 4, count

    def _place(self, field: int) -> int:
        entry = 4 + 2 * field
        offset = self._number("<H", self._vtable + entry) if entry + 2 <= self._size else 0
        return self.position + offset if offset else 0

    def _target(self, place: int) -> int:
        return place + self._number("<I", place)

    def _number(self, kind: str, place: int) -> int:
        width = struct.calcsize(kind)
        if not 0 <= place <= len(self.data) - width:
            raise ModelFileError(
                f"it points to byte {place} of {len(self.data)}: the file is truncated or damaged"
            )
        value: int = struct.unpack(kind, self.data[place : place + width])[0]
        return value
