"""What others make of the same weights: the general compressors, and Deep Compression's own code.

Each is given the weights in its better form too. `dense`: the float32 numbers as they lie in memory. `sparse`: of a
tensor with a codebook the kept weights' count in each row, their columns and their codebook entries, byte planes apart,
as in a compressed sparse row (CSR) matrix. Only what a decoder needs is counted, and no names or shapes: the comparison
errs in the others' favour.
"""

from __future__ import annotations

import bz2
import importlib.util
import lzma
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from labkit.doors import door
from labkit.encode.codebook import Codebook, split
from labkit.encode.gaps import to_gaps
from labkit.encode.huffman import code_lengths
from labkit.variant import Array, Variant

_GAP_BITS = range(2, 9)


@dataclass(frozen=True)
class Baseline:
    """A compressor and the bytes it needs; None where it is not installed, with the line that installs it."""

    name: str
    bytes: int | None
    note: str = ""


@door
def baselines(variant: Variant) -> tuple[Baseline, ...]:
    """The bytes that each other way takes for the tensors of a PyTorch variant."""
    tensors = [tensor.detach().cpu().numpy() for tensor in variant.model.state_dict().values()]
    forms = {
        "dense": b"".join(tensor.tobytes() for tensor in tensors),
        "sparse": b"".join(_csr(tensor) for tensor in tensors),
    }
    found = []
    for name, pack in _compressors():
        for form, content in forms.items():
            if pack is None:
                found.append(Baseline(f"{name}, {form}", None, "pip install 'zstandard>=0.25,<0.26'"))
            else:
                found.append(Baseline(f"{name}, {form}", len(pack(content))))
    found.append(Baseline("gaps and Huffman", sum(deep_compression_bytes(tensor) for tensor in tensors)))
    return tuple(found)


def deep_compression_bytes(tensor: Array) -> int:
    """What Deep Compression takes: relative indices and codebook entries, both Huffman-coded, with their tables.

    The gap's width is the best of 2 … 8 bits, chosen per tensor; a table stores each code's length in a byte, up to
    the last symbol that occurs. A tensor without a codebook is stored as it is.
    """
    entries = _entries(tensor)
    if entries is None:
        return tensor.nbytes
    grid, codebook = entries
    options = []
    for bits in _GAP_BITS:
        gaps, kept = to_gaps(grid.ravel(), bits)
        options.append(_huffman_bytes(gaps) + _huffman_bytes(kept))
    return min(options) + len(codebook.to_bytes())


def _huffman_bytes(symbols: Array) -> int:
    counts = np.bincount(symbols)
    bits = int((counts * code_lengths(counts)).sum())
    return -(-bits // 8) + len(counts)


def _csr(tensor: Array) -> bytes:
    entries = _entries(tensor)
    if entries is None:
        return tensor.tobytes()
    grid, codebook = entries
    matrix = grid.reshape(grid.shape[0] if grid.ndim else 1, -1)
    row, column = np.nonzero(matrix)
    number = np.uint16 if matrix.shape[1] < 2**16 else np.uint32
    planes = [
        _planes(np.bincount(row, minlength=len(matrix)).astype(number)),
        _planes(column.astype(number)),
        matrix[row, column].astype(np.uint8).tobytes(),
    ]
    return b"".join(planes) + codebook.to_bytes()


def _entries(tensor: Array) -> tuple[Array, Codebook] | None:
    return split(np.ascontiguousarray(tensor)) if tensor.dtype == np.float32 else None


def _planes(numbers: Array) -> bytes:
    return numbers.view(np.uint8).reshape(-1, numbers.itemsize).T.tobytes()


def _compressors() -> Iterator[tuple[str, Callable[[bytes], bytes] | None]]:
    yield "zlib -9", lambda content: zlib.compress(content, 9)
    yield "bzip2 -9", lambda content: bz2.compress(content, 9)
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]
    yield "lzma -9e", lambda content: lzma.compress(content, lzma.FORMAT_RAW, filters=filters)
    if importlib.util.find_spec("zstandard") is None:
        yield "zstd -22", None
    else:
        import zstandard

        yield "zstd -22", zstandard.ZstdCompressor(level=22, write_content_size=False).compress
