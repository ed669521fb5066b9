"""Where every byte of a coded file went, and how few it could have been.

Three figures stand in a row. `bytes`: what the part takes in the file; all rows together are the file's size exactly.
`bound`: Shannon's bound for its symbols with the probabilities that the coder used, log2(1/p) added up: no
coder can do better with this model. `alone`: the bound if every symbol were coded for itself, with the
frequencies of the whole tensor: the difference between the two is what looking around was worth.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.doors import door
from labkit.encode.container import checked
from labkit.encode.entropy import least_bits
from labkit.encode.tensors import Dissection, dissect_tensor
from labkit.encode.varint import varint
from labkit.errors import ModelFileError
from labkit.files import read_regular
from labkit.variant import LARGEST_BYTES, Variant

_LEGEND = """\
Sizes are in bytes. bound: Shannon's, the fewest that these symbols can take with the probabilities
that the coder used. alone: the fewest if each symbol is coded for itself, with the frequencies of its
whole tensor known beforehand. What is stored, or deflated, has neither."""


@dataclass(frozen=True)
class Part:
    """One row: bytes of one part of one tensor's record; tensor "" is the file's own frame.

    `bound_bytes` and `alone_bytes` are None where no symbols are coded with probabilities: there is no bound of them.
    """

    tensor: str
    part: str
    bytes: int
    bound_bytes: float | None = None
    alone_bytes: float | None = None


@dataclass(frozen=True)
class Anatomy:
    """All parts of a file. `decoded_bytes`: of the tensors that it decodes to; `network`: what it is, in words."""

    parts: tuple[Part, ...]
    decoded_bytes: int
    network: str = ""

    @property
    def size_bytes(self) -> int:
        """The file's size: the sum of its parts."""
        return sum(part.bytes for part in self.parts)

    @property
    def ratio(self) -> float:
        """Decoded bytes by the file's."""
        return self.decoded_bytes / self.size_bytes

    @property
    def excess_pct(self) -> float:
        """By how much the coded symbols take more than their bound, in percent; 0 where nothing is coded."""
        bound = sum(part.bound_bytes or 0.0 for part in self._coded)
        return 100 * (sum(part.bytes for part in self._coded) / bound - 1) if bound else 0.0

    @property
    def _coded(self) -> list[Part]:
        return [part for part in self.parts if part.bound_bytes is not None and part.alone_bytes is not None]

    def to_json(self) -> dict[str, Any]:
        """Everything as plain data."""
        rows = [{"tensor": p.tensor, "part": p.part, "bytes": p.bytes} for p in self.parts]
        for row, part in zip(rows, self.parts, strict=True):
            row |= {"bound_bytes": part.bound_bytes, "alone_bytes": part.alone_bytes}
        facts = {"size_bytes": self.size_bytes, "decoded_bytes": self.decoded_bytes, "ratio": self.ratio}
        return {"network": self.network, **facts, "excess_pct": self.excess_pct, "parts": rows}

    def table(self) -> str:
        """What the file holds; its parts as text, a line each, their sum, and what the columns mean."""
        lines = [self.network, ""] if self.network else []
        lines += [f"{'tensor':<16} {'part':<12} {'bytes':>9} {'bound':>11} {'alone':>11}"]
        for part in self.parts:
            figures = [part.bound_bytes, part.alone_bytes]
            words = " ".join(f"{each:>11,.1f}" if each is not None else f"{'':>11}" for each in figures)
            lines.append(f"{part.tensor or 'file':<16} {part.part:<12} {part.bytes:>9,} {words}".rstrip())
        lines.append(f"{'all':<16} {'':<12} {self.size_bytes:>9,}")
        weights = f"{self.decoded_bytes:,} bytes of weights"
        lines += [
            "",
            _LEGEND,
            f"The file is {self.ratio:.1f}× smaller than the {weights} that it decodes to;",
            "what was removed from the network before is not among these.",
        ]
        lines.append(
            f"The coded symbols take {self.excess_pct:.2f} % more than their bound."
            if self._coded
            else "No symbols are coded here: for that, the weights have to share few values (`--method cluster`)."
        )
        return "\n".join(lines)


@door
def anatomy(path: str | Path) -> Anatomy:
    """Take a coded file apart. Raises ModelFileError for anything else, and for one that is damaged."""
    return dissect(read_regular(path, ModelFileError, LARGEST_BYTES, "coded weights"), str(path))


@door
def dissect(content: bytes, what: str = "the coded file") -> Anatomy:
    """`anatomy` of a file's bytes."""
    reader, tensors = checked(content, what), {}
    described = len(content) - 4 - reader.left
    parts = [Part("", "magic", 4), Part("", "description", described), Part("", "checksum", 4)]
    for name, size, found in reader.each(dissect_tensor):
        parts.append(Part(name, "length", len(varint(size))))
        parts += _rows(name, found)
        tensors[name] = found.tensor
    network = _in_words(reader.variant(tensors))  # refuses what no model can be made of
    return Anatomy(tuple(parts), sum(tensor.nbytes for tensor in tensors.values()), network)


def _in_words(variant: Variant) -> str:
    """Such as "lenet5@mnist, of the architecture lenet5: image [batch, 1, 28, 28] → logits [batch, 10]"."""
    sides = (", ".join(map(str, specs)) for specs in (variant.inputs, variant.outputs))
    return f"{variant.name}, of the architecture {variant.model.config['architecture']}: {' → '.join(sides)}"


def _rows(name: str, found: Dissection) -> Iterator[Part]:
    for part, size in found.parts.items():
        bound = found.bounds.get(part)
        if size or bound:
            yield Part(name, part, size, None if bound is None else bound / 8, _alone(part, found))


def _alone(part: str, found: Dissection) -> float | None:
    if found.grid is None or part not in found.bounds:
        return None
    kept = found.grid > 0
    return least_bits(kept if part == "positions" else found.grid[kept]) / 8
