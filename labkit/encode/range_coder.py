"""A range coder: a whole message becomes one number, and a symbol of probability p costs log2(1/p) bits, no more.

Huffman's codes are whole bits, which wastes most where one symbol is nearly certain: a weight that is zero 99
times of 100 deserves 0.014 bits and gets 1. A range coder keeps an interval of numbers, `low … low + range`,
at first all of them. Each symbol cuts it to a part as large as the symbol is probable; whatever number lies in
the last interval tells the whole message (Martin 1979; Rissanen's arithmetic coding is the same idea).

Probabilities are whole numbers of 2^-24, and no symbol's is 0. The interval is 64 bits wide; as soon as its
upper 32 bits are settled, they are written. The decoder reads beyond the end of the message as zeros.

This is the coder to read. `coder.py` has the same one, bit for bit, in a compiled library.
"""

from __future__ import annotations

from labkit.errors import ModelFileError

PRECISION = 24
"""Probabilities are whole numbers of 2^-PRECISION."""
_WORD, _ALL = 2**32, 2**64 - 1


class RangeEncoder:
    """Symbols in, one number out: `encode` each, then `finish`."""

    def __init__(self) -> None:
        self._low, self._range = 0, _ALL
        self._words: list[int] = []  # the settled part of `low`, 32 bits each

    def encode(self, start: int, width: int) -> None:
        """Cut to the symbol that owns start … start + width of the 2^24 parts of all probability."""
        part = self._range >> PRECISION
        self._low += part * start
        self._range = part * width
        if self._low > _ALL:  # a carry runs back into what was settled
            self._low &= _ALL
            place = len(self._words) - 1
            while self._words[place] == _WORD - 1:
                self._words[place] = 0
                place -= 1
            self._words[place] += 1
        if self._range < _WORD:
            self._words.append(self._low >> 32)
            self._low = self._low << 32 & _ALL
            self._range <<= 32

    def finish(self) -> bytes:
        """The shortest bytes that, with zeros after them, lie in the interval."""
        settled = b"".join(word.to_bytes(4, "big") for word in self._words)
        return shortest(int.from_bytes(settled, "big") << 64 | self._low, self._range, len(settled) + 8)


class RangeDecoder:
    """The message again: ask for the `target`, find the symbol that owns it, and say so with `consume`."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0
        self._range = _ALL
        self._offset = self._word() << 32 | self._word()  # how far above `low` the message lies

    def target(self) -> int:
        """Which of the 2^24 parts of all probability the next symbol owns. Raises ModelFileError if it is beyond."""
        found = self._offset // (self._range >> PRECISION)
        if found >> PRECISION:
            raise ModelFileError("the coded weights are damaged: no symbol has this code")
        return found

    def consume(self, start: int, width: int) -> None:
        """Cut to the symbol that owns start … start + width, as the encoder did."""
        part = self._range >> PRECISION
        self._offset -= part * start
        self._range = part * width
        if self._range < _WORD:
            self._range <<= 32
            self._offset = self._offset << 32 | self._word()

    def _word(self) -> int:
        word = self._data[self._at : self._at + 4].ljust(4, b"\0")
        self._at += 4
        return int.from_bytes(word, "big")


def shortest(low: int, width: int, length: int) -> bytes:
    """The fewest bytes whose number, filled with zeros to `length` bytes, lies in low … low + width − 1.

    width: at least 2^32 of the last 64 bits, so that all but the last 8 bytes are settled.
    """
    for size in range(length - 8, length):
        unit = 1 << 8 * (length - size)
        number = -(-low // unit)
        if number * unit < low + width:
            return number.to_bytes(size, "big").rstrip(b"\0")
    raise AssertionError("an interval holds its own lower end")
