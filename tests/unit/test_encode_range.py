"""The range coder: ours and the compiled one are one code, it costs what Shannon says, and a model is one function."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.encode.codebook import INT8, read_codebook, split
from labkit.encode.coder import ONE, Price, Reader, Writer, shares
from labkit.encode.likelihood import log_table, probability_table
from labkit.encode.range_coder import RangeDecoder, RangeEncoder
from labkit.errors import ModelFileError


def draw(seed: int, count: int, kinds: int, sharpness: float):
    """Random probabilities, and symbols that follow them: int64 [n, K], int32 [n]."""
    random = np.random.default_rng(seed)
    widths = 1 + shares((1 + 1e6 * random.random((count, kinds)) ** sharpness).astype(np.int64))
    symbols = (random.integers(0, ONE, (count, 1)) >= np.cumsum(widths, 1)).sum(1)
    return widths, symbols.astype(np.int32)


def coded(widths, symbols) -> bytes:
    writer = Writer()
    for part in np.array_split(np.arange(len(symbols)), 3):
        writer.symbols(symbols[part], widths[part] - 1, "")
    return writer.finish()


messages = st.tuples(st.integers(0, 10**6), st.integers(0, 200), st.integers(2, 9), st.floats(0, 30))


@given(messages)
def test_the_coder_to_read_and_the_compiled_one_write_the_same_bytes(case):
    widths, symbols = draw(*case)
    ours, starts = RangeEncoder(), np.cumsum(widths, 1) - widths
    for row, symbol in enumerate(symbols):
        ours.encode(int(starts[row, symbol]), int(widths[row, symbol]))
    assert ours.finish() == coded(widths, symbols)


@given(messages)
def test_either_reads_what_was_written(case):
    widths, symbols = draw(*case)
    content = coded(widths, symbols)
    assert Reader(content).symbols(None, widths - 1, "").tolist() == symbols.tolist()
    decoder, ends = RangeDecoder(content), np.cumsum(widths, 1)
    for row, symbol in enumerate(symbols):
        found = int(np.searchsorted(ends[row], decoder.target(), side="right"))
        assert found == symbol
        decoder.consume(int(ends[row, found] - widths[row, found]), int(widths[row, found]))


@given(messages)
def test_a_message_takes_at_most_a_byte_and_a_half_more_than_its_bound(case):
    """It may take less, by luck: zeros at its end are not written."""
    widths, symbols = draw(*case)
    price = Price()
    price.symbols(symbols, widths - 1, "all")
    assert len(coded(widths, symbols)) <= price.bits.get("all", 0) / 8 + 1.5


def test_no_more_than_a_byte_below_their_bound_do_messages_take_on_the_average():
    saved = []
    for seed in range(200):
        widths, symbols = draw(seed, 174, 7, 25.0)
        price = Price()
        price.symbols(symbols, widths - 1, "all")
        saved.append(price.bits["all"] / 8 - len(coded(widths, symbols)))
    assert sum(saved) / len(saved) <= 1


@pytest.mark.parametrize("last", [0, 1])
def test_a_carry_runs_back_through_words_that_are_all_ones(last):
    """Thirty of the topmost, least probable parts settle words of all ones; what follows may still move them up."""
    widths = np.concatenate([np.tile([ONE - 1, 1], (30, 1)), np.tile([ONE // 3, ONE - ONE // 3], (40, 1))])
    symbols = np.array([1] * 30 + [1] * 39 + [last], np.int32)
    encoder = RangeEncoder()
    for width, symbol in zip(widths, symbols, strict=True):
        encoder.encode(int(width[0]) * int(symbol), int(width[symbol]))
    assert encoder.finish() == coded(widths, symbols)
    assert Reader(coded(widths, symbols)).symbols(None, widths - 1, "").tolist() == symbols.tolist()


def test_bytes_that_no_message_could_have_are_refused_by_either():
    widths = np.tile(np.array([[1, ONE - 1]]), (50, 1))
    with pytest.raises(ModelFileError, match="no symbol has this code"):
        Reader(b"\xff" * 40).symbols(None, widths - 1, "")
    decoder = RangeDecoder(b"\xff" * 40)
    with pytest.raises(ModelFileError, match="no symbol has this code"):
        for _ in widths:
            decoder.target()
            decoder.consume(1, ONE - 1)


@given(st.lists(st.lists(st.integers(0, 10**6), min_size=3, max_size=3).filter(sum), min_size=1, max_size=9))
def test_shares_add_up_and_none_is_negative(counts):
    spare = shares(np.array(counts))
    assert (spare >= 0).all() and (spare.sum(1) == ONE - spare.shape[1]).all()


def test_the_tables_round_the_same_way_everywhere():
    """No entry lies so near the middle between two whole numbers that the last bit of a logarithm could decide."""
    exact = 256 * np.log2(np.arange(1, len(log_table()), dtype=np.longdouble))
    assert np.abs(exact % 1 - 0.5).min() > 1e-7
    t = np.arange(-20 * 256, 20 * 256 + 1) / np.longdouble(256)
    assert np.abs(ONE / (1 + 2**-t) % 1 - 0.5).min() > 1e-7
    assert (np.diff(probability_table()) >= 0).all() and probability_table()[20 * 256] == ONE // 2


# --- codebooks ---

floats = st.floats(width=32) | st.sampled_from([0.0, -0.0, 0.5, -0.75, 3.0])


@given(st.lists(floats, min_size=1, max_size=60))
def test_codebooks_give_back_every_bit(values):
    tensor = np.array(values, np.float32)
    entries, codebook = split(tensor)
    again, size = read_codebook(codebook.to_bytes() + b"more", codebook.form)
    assert size == len(codebook.to_bytes())
    assert again.with_zero()[entries].tobytes() == tensor.tobytes()


def test_a_codebook_takes_the_fewest_bytes_that_are_exact():
    sizes = {}
    for name, values in {
        "whole": [0.5, -0.25, 31.75],
        "half": [0.1, -0.3],
        "float32": [0.1, 1 / 3],
    }.items():
        numbers = np.array(values, np.float16 if name == "half" else np.float32).astype(np.float32)
        sizes[name] = len(split(numbers)[1].to_bytes())
    assert sizes == {"whole": 1 + 1 + 3, "half": 1 + 2 * 2, "float32": 1 + 2 * 4}


def test_256_different_values_are_no_codebook():
    assert split(np.arange(256, dtype=np.float32)) is not None  # 0 is no entry
    assert split(np.arange(257, dtype=np.float32)) is None


@pytest.mark.parametrize("data", [b"", b"\x03", b"\x03\x00\x01"])
def test_a_codebook_that_is_cut_off_is_refused(data):
    with pytest.raises(ModelFileError, match="codebook"):
        read_codebook(data, INT8)
