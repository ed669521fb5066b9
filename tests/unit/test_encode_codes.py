"""The codes to read: each gives back what it was given, is as long as the arithmetic says, and refuses nonsense."""

from __future__ import annotations

import contextlib
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.encode import huffman
from labkit.encode.bits import pack, unpack
from labkit.encode.entropy import entropy, least_bits
from labkit.encode.gaps import from_gaps, to_gaps
from labkit.encode.kmeans import exact, lloyd, nearest
from labkit.encode.runs import coded_bits, expand, find_runs
from labkit.encode.varint import read_varint, varint
from labkit.errors import ConfigError, ModelFileError

messages = st.lists(st.integers(0, 20), max_size=200).map(lambda each: np.array(each, np.int64))

# --- bits ---


@given(st.integers(1, 32).flatmap(lambda b: st.tuples(st.just(b), st.lists(st.integers(0, 2**b - 1)))))
def test_packed_numbers_come_back_and_take_their_bits(case):
    bits, numbers = case
    packed = pack(numbers, bits)
    assert len(packed) == -(-len(numbers) * bits // 8)
    assert unpack(packed, bits, len(numbers)).tolist() == numbers


def test_the_first_number_lies_in_the_high_bits():
    assert pack([5, 0, 7], 3) == bytes([0b10100011, 0b10000000])


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match=r"3 bits hold 0 … 7, not 8 … 8"):
        pack([8], 3)
    with pytest.raises(ModelFileError, match="do not fit into 1 bytes"):
        unpack(b"\0", 3, 3)
    with pytest.raises(ConfigError, match="bits=33"):
        pack([1], 33)


@given(st.integers(0, 2**40))
def test_varints_come_back(number):
    assert read_varint(b"x" + varint(number) + b"y", 1)[0] == number


@pytest.mark.parametrize("data", [b"", b"\xff", b"\xff" * 12])
def test_a_varint_without_an_end_is_refused(data):
    with pytest.raises(ModelFileError, match="cut off or too large"):
        read_varint(data, 0)


# --- Shannon's bound ---


def test_the_entropy_of_known_messages():
    assert entropy(np.array([1, 1])) == 1.0
    assert entropy(np.array([8])) == entropy(np.array([])) == 0.0
    assert entropy(np.array([4, 2, 1, 1])) == 1.75
    assert least_bits(np.array([3, 3, 3, 3, 7, 7, 1, 5])) == 8 * 1.75


# --- Huffman ---


def test_the_tree_is_built_from_the_rarest_upwards():
    steps = huffman.merges([5, 2, 1, 1])
    assert [(step.left, step.right) for step in steps] == [((2,), (3,)), ((1,), (2, 3)), ((1, 2, 3), (0,))]
    assert [(step.left_count, step.right_count) for step in steps] == [(1, 1), (2, 2), (4, 5)]


def test_the_frequent_symbols_have_the_short_codes():
    lengths = huffman.code_lengths([5, 2, 1, 1])
    assert lengths.tolist() == [1, 2, 3, 3]
    assert huffman.canonical_codes(lengths) == ["0", "10", "110", "111"]


@given(
    st.lists(st.integers(0, 50), min_size=1, max_size=30).filter(lambda counts: sum(map(bool, counts)) > 1)
)
def test_no_code_is_the_beginning_of_another_and_the_mean_length_is_within_a_bit_of_the_bound(counts):
    lengths = huffman.code_lengths(counts)
    codes = [code for code in huffman.canonical_codes(lengths) if code]
    assert not any(b.startswith(a) for a, b in itertools.permutations(codes, 2))
    mean = (lengths * counts).sum() / sum(counts)
    assert entropy(np.array(counts)) - 1e-9 <= mean < entropy(np.array(counts)) + 1


@pytest.mark.parametrize("counts", list(itertools.product((1, 2, 3, 5), repeat=4)))
def test_no_other_code_is_shorter(counts):
    """Every prefix code for four symbols has the lengths of one of two trees."""
    best = min(
        sum(c * n for c, n in zip(counts, each, strict=True))
        for shape in ((2, 2, 2, 2), (1, 2, 3, 3))
        for each in itertools.permutations(shape)
    )
    assert (huffman.code_lengths(counts) * counts).sum() == best


@given(messages)
def test_huffman_coded_messages_come_back(symbols):
    lengths = huffman.code_lengths(np.bincount(symbols, minlength=1))
    coded = huffman.encode(symbols, lengths)
    assert huffman.decode(coded, lengths, len(symbols)).tolist() == symbols.tolist()
    assert len(coded) == -(-int(lengths[symbols].sum()) // 8)


def test_one_symbol_takes_one_bit():
    assert huffman.code_lengths([0, 9]).tolist() == [0, 1]
    assert huffman.encode(np.array([1] * 9), np.array([0, 1])) == b"\0\0"


def test_damaged_huffman_codes_are_refused():
    lengths = huffman.code_lengths([5, 2, 1, 1])
    coded = huffman.encode(np.array([3, 3, 3]), lengths)
    with pytest.raises(ModelFileError, match="truncated"):
        huffman.decode(coded[:1], lengths, 3)
    with pytest.raises(ModelFileError, match=r"Kraft"):
        huffman.decode(coded, np.array([1, 1, 1]), 3)
    with pytest.raises(ModelFileError, match="0 … 32"):
        huffman.decode(coded, np.array([1, 99]), 3)
    with pytest.raises(ModelFileError, match="no code of this table"):
        huffman.decode(b"\xff", np.array([2, 2]), 1)
    with pytest.raises(ModelFileError, match="cannot hold"):
        huffman.decode(b"\0", lengths, 10**12)
    with pytest.raises(ConfigError, match="has no code"):
        huffman.encode(np.array([1]), np.array([1, 0]))


@given(st.binary(max_size=20), st.lists(st.integers(-1, 40), max_size=8), st.integers(0, 50))
def test_random_bytes_are_decoded_or_refused(data, lengths, count):
    with contextlib.suppress(ModelFileError):
        assert len(huffman.decode(data, np.array(lengths, np.int64), count)) == count


# --- runs and gaps ---


@given(messages)
def test_runs_make_up_the_message_again(values):
    symbols, lengths = find_runs(values)
    assert (symbols[1:] != symbols[:-1]).all() and lengths.sum() == len(values)
    assert expand(symbols, lengths, len(values)).tolist() == values.tolist()


def test_runs_pay_only_where_they_are_long():
    assert coded_bits(np.zeros(1000, np.int64), 1, 8) == 4 * 9
    assert coded_bits(np.arange(1000) % 2, 1, 8) == 1000 * 9


@pytest.mark.parametrize("lengths", [[3, 4], [5, -1, 2], [2**62, 2**62], [0, 6]])
def test_runs_that_make_up_another_length_are_refused(lengths):
    with pytest.raises(ModelFileError, match="do not make up 6"):
        expand(np.arange(len(lengths)), np.array(lengths), 6)


@given(st.lists(st.sampled_from([0] * 12 + [1, 2, -3]), max_size=300), st.integers(1, 8))
def test_gaps_lead_to_every_weight_again(values, bits):
    weights = np.array(values, np.float32)
    gaps, kept = to_gaps(weights, bits)
    assert from_gaps(gaps, kept, len(weights)).tolist() == values
    assert not len(gaps) or 1 <= gaps.min() <= gaps.max() <= 2**bits


def test_a_gap_too_wide_is_bridged_by_a_filler():
    gaps, kept = to_gaps(np.array([0, 0, 3, 0, 0, 0, 0, 0, 0, 1]), 2)
    assert gaps.tolist() == [3, 4, 3] and kept.tolist() == [3, 0, 1]


@pytest.mark.parametrize("gaps", [[3, 4], [0, 1], [2**62, 2**62]])
def test_gaps_that_lead_out_are_refused(gaps):
    with pytest.raises(ModelFileError, match="past the last of 6"):
        from_gaps(np.array(gaps), np.ones(2), 6)


# --- k-means ---


def loss(values, centroids):
    return float(((values - centroids[nearest(values, centroids)]) ** 2).sum())


@given(st.lists(st.floats(-1, 1, width=16), min_size=1, max_size=9), st.integers(1, 4))
def test_exact_finds_what_trying_every_partition_finds(values, count):
    values = np.sort(np.array(values))
    best = min(
        sum(((part - part.mean()) ** 2).sum() for part in np.split(values, cuts))
        for k in range(min(count, len(values)))
        for cuts in itertools.combinations(range(1, len(values)), k)
    )
    assert loss(values, exact(values, count)) == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize("count", [2, 7, 20])
def test_exact_finds_the_same_as_the_plain_recursion_where_many_blocks_are_searched(count):
    values = np.sort(np.random.default_rng(count).standard_normal(300)) ** 3
    first, second = np.r_[0.0, np.cumsum(values)], np.r_[0.0, np.cumsum(values**2)]
    i, j = np.ogrid[:301, :301]
    apart = np.where(j > i, second[j] - second[i] - (first[j] - first[i]) ** 2 / np.maximum(j - i, 1), np.inf)
    cost = np.r_[0.0, np.full(300, np.inf)]
    for _ in range(count):
        cost = (cost[:, None] + apart).min(0)
    assert loss(values, exact(values, count)) == pytest.approx(cost[-1], rel=1e-9)


def test_lloyd_never_beats_exact_and_moves_each_centroid_to_the_mean_of_its_weights():
    values = np.random.default_rng(0).standard_normal(3000)
    centroids = lloyd(values, 8)
    assert loss(values, exact(values, 8)) <= loss(values, centroids) + 1e-9
    cluster = nearest(values, centroids)
    assert centroids == pytest.approx([values[cluster == k].mean() for k in range(8)])


def test_fewer_different_values_than_centroids_are_all_kept():
    for method in (lloyd, exact):
        assert method(np.array([2.0, 1.0, 2.0]), 5).tolist() == [1.0, 2.0]
