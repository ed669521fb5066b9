"""Reading a tensor takes little memory beside the tensor, however few bytes declare it, and is right bit by bit."""

from __future__ import annotations

import tracemalloc
import zlib

import numpy as np
import pytest

from labkit.encode import packed
from labkit.encode.tensors import CODED, HALF, PACKED, Context, decode_tensor
from labkit.errors import ModelFileError

FLOAT32, SIDE = np.dtype(np.float32), 2000


def deflated(data):
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(
    "record",
    [
        bytes([CODED, 0]),
        bytes([PACKED]) + deflated(bytes(4 * SIDE**2)),
        bytes([HALF]) + deflated(bytes(2 * SIDE**2)),
    ],
    ids=["coded", "packed", "float16"],
)
def test_a_record_of_few_bytes_takes_little_more_memory_than_its_tensor(record):
    assert len(record) < 20_000
    tracemalloc.start()
    try:
        tensor = decode_tensor(record, (SIDE, SIDE), FLOAT32, Context())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert not tensor.any() and tensor.flags.writeable
    assert peak < 1.35 * tensor.nbytes, (peak, tensor.nbytes)


@pytest.mark.parametrize("at_once", [1, 2, 7, 30, 64, 10_000])
def test_however_little_is_read_at_once_the_tensor_is_the_same_and_damage_is_noticed(at_once, monkeypatch):
    monkeypatch.setattr(packed, "_AT_ONCE", at_once)
    random = np.random.default_rng(0)
    for shape, dtype in (((5, 7), np.float32), ((), np.int64), ((3, 40), np.float64), ((300,), np.float32)):
        tensor = random.integers(-2, 3, shape).astype(dtype)
        planes = np.frombuffer(tensor.tobytes(), np.uint8).reshape(-1, tensor.itemsize).T.tobytes()
        record = bytes([PACKED]) + deflated(planes)
        again = decode_tensor(record, shape, tensor.dtype, Context())
        assert again.tobytes() == tensor.tobytes() and again.shape == tensor.shape
        for wrong, says in (
            (record + b"x", "longer than its shape"),
            (record + bytes(70), "longer than its shape"),
            (bytes([PACKED]) + deflated(planes + b"x"), "longer than its shape"),
            (bytes([PACKED]) + deflated(planes[:-1]), f"has {len(planes) - 1} bytes"),
            (record[:-1], "cut off|bytes: damaged"),
        ):
            with pytest.raises(ModelFileError, match=says):
                decode_tensor(wrong, shape, tensor.dtype, Context())
    halves = random.standard_normal((9, 11)).astype(np.float16)
    planes = np.frombuffer(halves.tobytes(), np.uint8).reshape(-1, 2).T.tobytes()
    again = decode_tensor(bytes([HALF]) + deflated(planes), (9, 11), FLOAT32, Context())
    assert again.dtype == FLOAT32 and np.array_equal(again, halves.astype(np.float32))


@pytest.mark.parametrize(("count", "says"), [(0, "longer"), (2, "longer"), (4, "has 12 bytes")])
def test_what_was_packed_fits_its_shape_or_is_refused(count, says):
    data = packed.pack(np.arange(3, dtype=np.float32))
    with pytest.raises(ModelFileError, match=says):
        packed.unpack(data, np.empty((count, 4), np.uint8))
