"""A protobuf message read by its fields' numbers: what `wire.py` walks over, asked for by name in the readers."""

from __future__ import annotations

from collections import defaultdict

from labkit.onnx_graph.wire import LENGTH, VARINT, Bytes, Field, fields, varint


class Message:
    """The message in data[start:end]; absent fields are empty, zero or None, as protobuf has it."""

    def __init__(self, data: Bytes, start: int, end: int) -> None:
        self._data = data
        self._fields: dict[int, list[Field]] = defaultdict(list)
        for field in fields(data, start, end):
            self._fields[field.number].append(field)

    def each(self, number: int) -> list[Message]:
        """A repeated field of messages."""
        return [Message(self._data, field.begin, field.end) for field in self._of(number, LENGTH)]

    def one(self, number: int) -> Message | None:
        """A field that is a message; of several the last one."""
        found = self._of(number, LENGTH)
        return Message(self._data, found[-1].begin, found[-1].end) if found else None

    def texts(self, number: int) -> list[str]:
        """A repeated field of texts; bytes that are none are replaced."""
        found = self._of(number, LENGTH)
        return [self._data[field.begin : field.end].decode(errors="replace") for field in found]

    def text(self, number: int) -> str:
        """A field that is a text."""
        return next(reversed(self.texts(number)), "")

    def number(self, number: int) -> int:
        """A field that is a whole number; negative ones come as their two's complement in 64 bits."""
        found = self._of(number, VARINT)
        value = varint(self._data, found[-1].begin, found[-1].end)[0] if found else 0
        return value - (1 << 64) if value >= 1 << 63 else value

    def entries(self, number: int) -> dict[str, Message]:
        """A map from texts to messages, which is stored as messages of key (1) and value (2)."""
        pairs = [(entry.text(1), entry.one(2)) for entry in self.each(number)]
        return {key: value for key, value in pairs if value is not None}

    def _of(self, number: int, kind: int) -> list[Field]:
        return [field for field in self._fields.get(number, ()) if field.kind == kind]
