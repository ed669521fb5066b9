"""Protocol buffers on the wire: how to walk through a message without parsing it.

A message is a row of fields, and a field is a tag and a value. The tag is a varint, `number << 3 | type`: the number
is what the `.proto` file gives the field, the type tells how to find the value's end, and so how to step over it:

    type 0   varint: seven bits a byte, lowest first; the top bit says that another byte follows (10 at most)
    type 1   eight bytes
    type 2   a length (varint), then so many bytes: a text, raw data, packed numbers, or a message again
    type 5   four bytes

(3 and 4 bracketed "groups" once; neither ONNX nor TensorFlow uses them.) `08 96 01` is field 1, a varint, 150.
A field that is 100 MB long is stepped over as fast as one of 3 bytes: nobody needs to touch what is inside.

https://protobuf.dev/programming-guides/encoding
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol, overload

from labkit.errors import ModelFileError

VARINT, EIGHT_BYTES, LENGTH, FOUR_BYTES = 0, 1, 2, 5
_LONGEST_VARINT = 10


class Bytes(Protocol):
    """What a walk needs of the data: bytes have it, and so has a file that is mapped into memory."""

    @overload
    def __getitem__(self, key: int, /) -> int: ...
    @overload
    def __getitem__(self, key: slice, /) -> bytes: ...
    def __len__(self) -> int: ...


class Field(NamedTuple):
    """One field: its tag stands at `start`, its value at `begin` to `end` (for type 2 without the length)."""

    number: int
    kind: int
    start: int
    begin: int
    end: int


def fields(data: Bytes, start: int, end: int) -> Iterator[Field]:
    """Each field of the message in data[start:end]; ModelFileError where the bytes are no message."""
    position = start
    while position < end:
        tag, begin = varint(data, position, end)
        number, kind = tag >> 3, tag & 7
        if kind == LENGTH:
            length, begin = varint(data, begin, end)
            stop = begin + length
        elif kind == VARINT:
            stop = varint(data, begin, end)[1]
        elif kind in (FOUR_BYTES, EIGHT_BYTES):
            stop = begin + (4 if kind == FOUR_BYTES else 8)
        else:
            raise ModelFileError(f"byte {position} begins a field of wire type {kind}, which is not in use")
        if not number:
            raise ModelFileError(f"byte {position} begins a field of number 0, which does not exist")
        if stop > end:
            raise ModelFileError(
                f"the field at byte {position} ends {stop - end} bytes behind its end: the file is truncated"
            )
        yield Field(number, kind, position, begin, stop)
        position = stop


def varint(data: Bytes, position: int, end: int) -> tuple[int, int]:
    """The number that stands at `position`, and where it ends."""
    value = 0
    for index in range(min(_LONGEST_VARINT, end - position)):
        byte = data[position + index]
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, position + index + 1
    raise ModelFileError(f"the number at byte {position} does not end: the file is truncated or damaged")


def encode_varint(value: int) -> bytes:
    """The bytes of a number: 150 → 96 01."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def encode_field(number: int, body: bytes) -> bytes:
    """A field of type 2 around `body`."""
    return encode_varint(number << 3 | LENGTH) + encode_varint(len(body)) + body


def count_varints(data: Bytes, begin: int, end: int) -> int:
    """How many packed numbers data[begin:end] holds: each has one byte without the top bit, its last."""
    followed = bytes(range(0x80, 0x100))
    step = 1 << 20
    return sum(
        len(data[at : min(at + step, end)].translate(None, followed)) for at in range(begin, end, step)
    )
