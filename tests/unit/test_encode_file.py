"""A file of coded weights decodes to the variant, bit for bit; every byte is told apart; damage is our error."""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import os
import re
import resource
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from labkit.encode import (
    ClusterWeights,
    StreamReader,
    anatomy,
    decode,
    dissect,
    encode,
    load_encoded,
    save_encoded,
)
from labkit.encode import metadata as description
from labkit.encode.baselines import _csr, baselines, deep_compression_bytes
from labkit.encode.codebook import FLOAT32, Codebook
from labkit.encode.coder import Reader
from labkit.encode.container import VERSION
from labkit.encode.likelihood import FEATURES
from labkit.encode.sparse import Known, Settings, allowed, steps
from labkit.encode.tensors import (
    CODED,
    KINDS,
    Context,
    _coded,
    decode_tensor,
    dissect_tensor,
    encode_tensor,
)
from labkit.encode.varint import varint
from labkit.errors import ConfigError, ModelFileError
from labkit.models import build
from labkit.prune import PruneMagnitude
from labkit.variant import Variant
from labkit.zoo import load_model

EXAMPLES = int(os.environ.get("LABKIT_ROUND_TRIPS", "150"))
DOC = (Path(__file__).resolve().parents[2] / "docs" / "weight-file.md").read_text(encoding="utf-8")
TINY = {
    "architecture": "lenet5",
    "input_shape": [1, 16, 16],
    "num_outputs": 10,
    "channels": [3, 4],
    "hidden": 12,
}


@pytest.fixture(scope="module")
def sparse(lenet) -> Variant:
    """Realistic: 2 % of lenet5@digits, each layer with 8 different values."""
    return ClusterWeights(conv_levels=8, bias_levels=8)(PruneMagnitude(0.98)(lenet))


@pytest.fixture(scope="module")
def content(sparse) -> bytes:
    return encode(sparse)


@pytest.fixture(scope="module")
def tiny(lenet) -> bytes:
    """A small file with every part in it."""
    torch.manual_seed(0)
    inputs = (dataclasses.replace(lenet.inputs[0], shape=("batch", *TINY["input_shape"])),)
    variant = dataclasses.replace(lenet, model=build(TINY).eval(), inputs=inputs)
    return encode(ClusterWeights(conv_levels=5, bias_levels=3)(PruneMagnitude(0.8)(variant)))


def sealed(body: bytes) -> bytes:
    return body + zlib.crc32(body).to_bytes(4, "big")


# --- tensors ---

pools = st.sampled_from(
    [
        [0.0],
        [0.5],
        [0.0, 0.5],
        [0.0] * 9 + [0.25, -0.5],
        [0.0] * 30 + [1.0, -2.0, 3.0],
        [0.0, -0.0, 1.5],
        [0.1, 1 / 3, 0.0],
        [float("nan"), float("inf"), 0.0, 1.0],
        [1e-45, 3e38, -1.0],
        [k / 7 for k in range(40)],
    ]
)
shapes = st.lists(st.integers(1, 9), min_size=0, max_size=4)
tensors = st.builds(
    lambda shape, pool, seed: np.random.default_rng(seed).choice(np.array(pool, np.float32), tuple(shape)),
    shapes,
    pools,
    st.integers(0, 999),
)


@settings(max_examples=EXAMPLES)
@given(st.lists(tensors, min_size=1, max_size=3))
def test_tensors_come_back_bit_for_bit_with_what_the_ones_before_tell(several):
    writing, reading = Context(), Context()
    for tensor in several:
        tensor = np.asarray(tensor)
        record = encode_tensor(tensor, writing)
        again = decode_tensor(record, tensor.shape, tensor.dtype, reading)
        assert again.tobytes() == tensor.tobytes() and again.shape == tensor.shape
        assert len(record) <= 1 + tensor.nbytes


@pytest.mark.parametrize("dtype", [np.int64, np.float64, np.uint8])
def test_other_types_come_back_too(dtype):
    tensor = np.arange(40).astype(dtype).reshape(5, 8)
    record = encode_tensor(tensor, Context())
    assert decode_tensor(record, (5, 8), tensor.dtype, Context()).tobytes() == tensor.tobytes()


@pytest.mark.parametrize(
    ("tensor", "kind"),
    [
        (np.zeros((30, 40)), "coded"),
        (np.random.default_rng(0).random((40, 40)) < 0.1, "coded"),
        (np.arange(4.0) / 3, "stored"),
        (np.random.default_rng(0).standard_normal(3000).astype(np.float16), "float16"),
        (np.random.default_rng(0).standard_normal(3000) * 0.01, "packed"),
    ],
)
def test_the_smallest_way_is_taken(tensor, kind):
    tensor = tensor.astype(np.float32)
    record = encode_tensor(tensor, Context())
    assert dissect_tensor(record, tensor.shape, tensor.dtype, Context()).kind == kind


def test_dead_rows_and_columns_cost_next_to_nothing():
    random = np.random.default_rng(0)
    block = random.choice(np.array([0.0, 1.0, -1.0], np.float32), (20, 30), p=[0.8, 0.1, 0.1])
    wide = np.zeros((400, 600), np.float32)
    wide[40:60, 300:330] = block
    alone, inside = (len(encode_tensor(each, Context())) for each in (block, wide))
    assert inside - alone < 40, (alone, inside)


def test_of_layouts_of_nearly_the_same_bytes_the_one_that_is_read_in_fewer_steps_is_taken(monkeypatch):
    tensor = load_model("lenet5@mnist+encode").model.conv2.weight.detach().numpy()

    def bytes_and_steps():
        steps, symbols = [], Reader.symbols
        record = encode_tensor(tensor, Context())
        with monkeypatch.context() as patch:
            patch.setattr(Reader, "symbols", lambda *each: steps.append(1) or symbols(*each))
            decode_tensor(record, tensor.shape, tensor.dtype, Context())
        return len(record), len(steps)

    size, steps = bytes_and_steps()
    monkeypatch.setattr("labkit.encode.sparse._STEP_BITS", 0)
    least, most = bytes_and_steps()
    assert least <= size < 1.05 * least and steps < 0.2 * most


def test_neighbours_kept_together_are_cheaper_than_scattered_ones():
    random = np.random.default_rng(0)
    values = random.integers(1, 9, (60, 240)).astype(np.float32)
    clustered = values * np.kron(random.random((60, 30)) < 0.05, np.ones((1, 8), np.float32))
    scattered = random.permuted(clustered, axis=1)
    positions = [
        dissect_tensor(encode_tensor(each, Context()), each.shape, each.dtype, Context()).parts["positions"]
        for each in (clustered, scattered)
    ]
    assert positions[0] < 0.6 * positions[1], positions


def test_a_unit_that_few_weights_enter_is_expected_to_be_left_by_few():
    random = np.random.default_rng(0)
    share = random.random(120) ** 3
    first = (random.random((120, 200)) < share[:, None]).astype(np.float32)
    second = (random.random((50, 120)) < share).astype(np.float32)
    context = Context()
    encode_tensor(first, context)
    assert len(encode_tensor(second, context)) < 0.95 * len(encode_tensor(second, Context()))


# --- the file ---


def test_the_variant_comes_back(sparse, content):
    again = decode(content)
    assert again.digest == sparse.digest
    for field in ("name", "task", "labels", "inputs", "outputs", "preprocessing", "format"):
        assert getattr(again, field) == getattr(sparse, field), field
    assert [(step.technique, step.origin) for step in again.lineage] == [("decode", "file")]


@pytest.mark.parametrize("name", ["lenet5@digits", "resnet20@digits", "mobilenet@digits"])
def test_networks_that_were_never_pruned_come_back_smaller(name):
    variant = load_model(name)
    coded = encode(variant)
    assert decode(coded).digest == variant.digest
    assert len(coded) < 0.95 * variant.size_bytes


def test_the_same_variant_gives_the_same_bytes(sparse, content):
    assert encode(decode(content)) == content


def test_it_is_smaller_than_general_compressors_and_deep_compression_make_it(sparse, content):
    others = {each.name: each.bytes for each in baselines(sparse)}
    best = {name: min(v for k, v in others.items() if v and k.startswith(name)) for name in ("lzma", "zlib")}
    print(len(content), others)
    assert len(content) < best["lzma"] / 1.15 < best["zlib"]
    assert len(content) < others["gaps and Huffman"]
    if others["zstd -22, sparse"]:
        assert len(content) < min(v for k, v in others.items() if k.startswith("zstd")) / 1.15


def test_a_column_beyond_the_65535th_is_written_with_more_bytes():
    weights = np.zeros((1, 2**16 + 1), np.float32)
    weights[0, [3, 2**16]] = 0.5
    wide, narrow = _csr(weights), _csr(weights[:, : 2**16 - 1])
    assert wide[4:12] == bytes([3, 0, 0, 0, 0, 1, 0, 0]) and len(wide) > len(narrow)


def test_deep_compression_is_counted_as_its_paper_does_it():
    weights = np.zeros(64, np.float32)
    weights[[3, 10, 40]] = 0.5
    # 4 bits a gap: 4, 7, then two bridges over 16, …: 4 7 16 14 → 4 symbols of 2 bits, values 1 1 0 1 of 1 bit
    assert deep_compression_bytes(weights) <= 1 + 17 + 1 + 2 + 3


def test_every_byte_is_accounted_for(content, tmp_path):
    (tmp_path / "a.lkz").write_bytes(content)
    found = anatomy(tmp_path / "a.lkz")
    assert found.size_bytes == len(content) == sum(part.bytes for part in found.parts)
    assert {part.tensor for part in found.parts} - {""} == set(
        load_encoded(tmp_path / "a.lkz").model.state_dict()
    )
    assert found.ratio == pytest.approx(found.decoded_bytes / len(content))
    assert f"{len(content):,}" in found.table()


def test_the_table_says_what_its_figures_mean_and_what_the_file_is_compared_with(content):
    found = dissect(content)
    said = found.table()
    assert "in bytes" in said and "Shannon's" in said and "for itself" in said
    assert (
        f"{found.ratio:.1f}× smaller than the {found.decoded_bytes:,} bytes of weights that it decodes to"
        in said
    )
    assert "removed from the network before" in said
    assert f"{found.excess_pct:.2f} % more than their bound" in said


def test_where_no_symbols_are_coded_nothing_is_said_of_a_bound(lenet):
    found = dissect(encode(lenet))
    assert {part.bound_bytes for part in found.parts} == {None}
    assert "more than their bound" not in found.table() and "No symbols are coded" in found.table()


def test_the_coded_symbols_are_within_three_percent_of_their_bound_and_below_the_one_of_each_alone(content):
    found = dissect(content)
    assert 0 <= found.excess_pct < 3
    coded = [part for part in found.parts if part.alone_bytes]
    assert sum(part.bytes for part in coded) < sum(part.alone_bytes for part in coded)


def test_a_stream_gives_each_tensor_as_soon_as_its_record_is_there(sparse, content):
    class Counting(io.BytesIO):
        def read(self, count=-1):
            assert count >= 0, "it must not read all at once"
            return super().read(count)

    file = Counting(content)
    reader = StreamReader(file, len(content))
    names, places = [], []
    for name, array in reader:
        assert array.tobytes() == sparse.model.state_dict()[name].numpy().tobytes()
        names.append(name)
        places.append(file.tell())
    assert places == sorted(set(places)) and places[0] < 0.2 * len(content)
    assert names == list(reader.shapes)


def test_a_stream_notices_at_its_end_what_was_damaged(content):
    damaged = bytearray(content)
    damaged[-1] ^= 1
    reader = iter(StreamReader(io.BytesIO(bytes(damaged)), len(damaged)))
    with pytest.raises(ModelFileError, match="checksum"):
        list(reader)


def test_files_are_loaded_wherever_a_model_is_taken(tiny, tmp_path):
    variant = decode(tiny)
    path = save_encoded(variant, tmp_path / "a.lkz")
    assert path.read_bytes() == tiny
    assert load_model(path).digest == variant.digest
    with pytest.raises(ConfigError, match=r"should end in \.lkz"):
        save_encoded(variant, tmp_path / "a.bin")


def test_what_could_not_be_rebuilt_is_refused(cases, lenet):
    for variant in (cases["regression"][0], dataclasses.replace(lenet, format="onnx", model=b"")):
        with pytest.raises(ModelFileError, match="no file could rebuild it"):
            encode(variant)


def test_weights_of_another_type_than_the_architecture_has_are_refused_and_the_way_out_is_named(lenet):
    half = dataclasses.replace(lenet, model=copy.deepcopy(lenet.model).half())
    with pytest.raises(
        ModelFileError, match=r"torch\.float16, where .* torch\.float32.* call model\.float\(\)"
    ):
        encode(half)


def test_negative_zeros_and_nans_come_back(lenet):
    model = copy.deepcopy(lenet.model)
    with torch.no_grad():
        model.fc2.weight.zero_()
        model.fc2.weight[0, :3] = torch.tensor([-0.0, float("nan"), float("inf")])
    variant = dataclasses.replace(lenet, model=model)
    assert decode(encode(variant)).digest == variant.digest


# --- damage ---


def test_a_file_cut_off_anywhere_is_refused(tiny):
    for size in range(len(tiny)):
        with pytest.raises(ModelFileError):
            decode(tiny[:size])
        if size != len(tiny) - 4:
            with pytest.raises(ModelFileError):  # and where the checksum is right, the parts still do not fit
                decode(sealed(tiny[:size]))


def test_every_flipped_bit_is_noticed(tiny):
    for place in range(len(tiny)):
        damaged = bytearray(tiny)
        damaged[place] ^= 1 << place % 8
        with pytest.raises(ModelFileError):
            decode(bytes(damaged))


@settings(max_examples=EXAMPLES)
@given(
    st.lists(
        st.tuples(st.integers(0, 10**6), st.binary(max_size=6), st.integers(0, 6)), min_size=1, max_size=3
    )
)
def test_whatever_is_written_into_it_it_decodes_or_is_refused(tiny, changes):
    """The checksum is made right again, so that everything behind it meets the damage."""
    body = tiny[:-4]
    for place, put, removed in changes:
        place %= len(body)
        body = body[:place] + put + body[place + removed :]
    try:
        decode(sealed(body))
    except ModelFileError as error:
        assert len(str(error)) < 600


@given(st.binary(max_size=400))
def test_random_bytes_are_refused(data):
    for each in (data, sealed(b"LKZ\x01" + data)):
        with pytest.raises(ModelFileError):
            decode(each)


def test_another_version_and_another_kind_say_what_they_are(tiny):
    with pytest.raises(ModelFileError, match="version 02"):
        decode(sealed(tiny[:3] + b"\x02" + tiny[4:-4]))
    with pytest.raises(ModelFileError, match="should begin with LKZ"):
        decode(b"PK\x03\x04" + tiny)


def file_of(config: dict[str, object], records: bytes, lenet: Variant) -> bytes:
    class Claims(nn.Module):
        pass

    model = Claims()
    model.config = config
    text = description.pack_metadata(dataclasses.replace(lenet, model=model))
    return sealed(b"LKZ\x01" + bytes([len(text)]) + text + records)


def test_a_small_file_that_claims_a_huge_network_allocates_nothing(lenet):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    huge = {**TINY, "channels": [8192, 8192], "hidden": 8192}
    with pytest.raises(ModelFileError, match="refused as a bomb"):
        decode(file_of(huge, b"\x01\x03" * 8, lenet))
    grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kb < 100_000, grown_kb


@pytest.mark.parametrize(
    "config", [{"architecture": "lenet6"}, {**TINY, "channels": [0, 1]}, {**TINY, "hidden": "x"}]
)
def test_an_architecture_that_does_not_exist_is_refused(config, lenet):
    with pytest.raises(ModelFileError, match="architecture cannot be built"):
        decode(file_of(config, b"", lenet))


def redescribed(tiny: bytes, edit) -> bytes:
    """The file with the JSON of its description edited, text → text, and its checksum made right again."""
    body = tiny[:-4]
    size, start, shift = 0, 4, 0
    while True:
        size |= (body[start] & 127) << shift
        start, shift = start + 1, shift + 7
        if body[start - 1] < 128:
            break
    unpacker = zlib.decompressobj(-15, zdict=description.DICTIONARY)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15, zdict=description.DICTIONARY)
    text = edit(unpacker.decompress(body[start : start + size]).decode())
    packed = packer.compress(text.encode()) + packer.flush()
    return sealed(body[:4] + varint(len(packed)) + packed + body[start + size :])


def with_fields(**changes):
    return lambda text: json.dumps(json.loads(text) | changes)


PREPARED = {"scale": 1.0, "mean": [0.0], "std": [1.0], "layout": "NCHW"}
LOGITS = {"name": "logits", "dtype": "float32", "shape": ["batch", 10], "layout": None}


def test_an_edited_description_that_holds_together_is_read(tiny):
    assert redescribed(tiny, lambda text: text) == tiny
    assert decode(redescribed(tiny, with_fields(name="mine", labels=[]))).name == "mine"


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (with_fields(labels=["a", "b", "c"]), "3 labels for a model with 10 outputs"),
        (with_fields(task="detection"), "unknown task 'detection'"),
        (
            with_fields(preprocessing={"sound": PREPARED}),
            "preprocessing is for 'sound', the model takes 'image'",
        ),
        (
            with_fields(preprocessing={"image": {**PREPARED, "mean": [0.1, 0.2, 0.3]}}),
            "preprocessing of 'image' has 3 numbers for mean, where the input has 1 channel",
        ),
        (with_fields(preprocessing={"image": {**PREPARED, "std": [1.0, 2.0]}}), "2 numbers for std"),
        (lambda text: text[:-1] + ',"task":"regression"}', "'task' stands there twice"),
        (with_fields(name=""), "the name is empty"),
        (with_fields(name="  "), "the name is empty"),
        (with_fields(name="a" * 201), "the name has 201 characters"),
        (with_fields(name="a\x1b[31m"), "control character"),
        (with_fields(name="a\u202egpj.exe"), "control character"),
        (with_fields(labels=["\u2066"] + ["a"] * 9), "control character"),
        (with_fields(outputs=[{**LOGITS, "name": "image"}]), "an output is named like the input 'image'"),
    ],
)
def test_a_description_that_contradicts_itself_is_refused(edit, says, tiny):
    with pytest.raises(ModelFileError, match=says) as refusal:
        decode(redescribed(tiny, edit), "a.lkz")
    assert str(refusal.value).startswith("a.lkz: ") and str(refusal.value).isprintable()
    with pytest.raises(ModelFileError, match=says):
        dissect(redescribed(tiny, edit))


def test_a_variant_that_contradicts_itself_is_not_coded_and_not_saved(lenet, tmp_path):
    wrong = dataclasses.replace(lenet, labels=("a", "b"))
    for write in (encode, lambda variant: variant.save(tmp_path / "folder")):
        with pytest.raises(ModelFileError, match="^'lenet5@digits': 2 labels for a model with 10 outputs"):
            write(wrong)
    assert not any(tmp_path.iterdir())


def test_a_deflated_tensor_never_unpacks_to_more_than_its_shape():
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = packer.compress(bytes(50_000_000)) + packer.flush()
    with pytest.raises(ModelFileError, match="longer than its shape"):
        decode_tensor(b"\x01" + bomb, (10, 10), np.dtype(np.float32), Context())


@pytest.mark.parametrize(("width", "phases"), [(1, 1), (2, 1), (4, 2), (65, 1), (8193, 1)])
def test_lines_so_short_or_so_long_that_reading_takes_minutes_or_gigabytes_are_refused(
    width, phases, monkeypatch
):
    matrix = np.zeros((3, 8193), np.float32)
    matrix[:, ::7] = 1.0
    honest = encode_tensor(matrix, Context())
    assert decode_tensor(honest, matrix.shape, matrix.dtype, Context()).tobytes() == matrix.tobytes()
    monkeypatch.setattr("labkit.encode.tensors._layouts", lambda *_: [(width, phases)])
    monkeypatch.setattr("labkit.encode.tensors.pack", lambda plain: b"-" * 99_999)
    hostile = encode_tensor(matrix, Context())
    assert hostile[0] & 3 == CODED
    with pytest.raises(ModelFileError, match="settings of a coded tensor are damaged"):
        decode_tensor(hostile, matrix.shape, matrix.dtype, Context())


@pytest.mark.parametrize("shape", [(1, 73_729), (1, 1), (1, 65), (5, 1)])
def test_there_is_a_layout_for_every_shape(shape):
    matrix = np.zeros(shape, np.float32)
    matrix[:, ::31] = 0.5
    record = encode_tensor(matrix, Context())
    assert decode_tensor(record, shape, matrix.dtype, Context()).tobytes() == matrix.tobytes()


def wide(columns: int) -> tuple[np.ndarray, bytes]:
    """A matrix of one row, and its record, whatever is allowed."""
    grid = np.random.default_rng(0).choice(2, (1, columns), p=[0.97, 0.03]).astype(np.int32)
    book = Codebook(np.array([0.5], np.float32), FLOAT32)
    weights = np.zeros((1, Known().features(grid.shape)), np.int8)
    return book.with_zero()[grid], _coded(grid, book, Known(), Settings(64, 1, 0, weights, False))


def test_a_matrix_that_takes_too_many_steps_is_neither_written_coded_nor_read(monkeypatch):
    matrix, hostile = wide(400_000)
    record = encode_tensor(matrix, Context())
    assert record[0] & 3 != CODED
    assert decode_tensor(record, matrix.shape, matrix.dtype, Context()).tobytes() == matrix.tobytes()
    with pytest.raises(ModelFileError, match="would take too long to read"):
        decode_tensor(hostile, matrix.shape, matrix.dtype, Context())


def test_a_line_of_very_many_rows_is_not_read_at_once():
    assert allowed(64, 1, (2**14, 64)) and not allowed(64, 1, (2**14 + 1, 64))


def test_the_steps_of_a_file_are_counted_by_the_writer_and_the_reader_alike():
    matrix, hostile = wide(20_000)
    enough = steps(64, 1, matrix.shape)
    writing, reading = Context(steps_left=3 * enough), Context(steps_left=3 * enough)
    kinds = []
    for _ in range(4):
        record = encode_tensor(matrix, writing)
        kinds.append(KINDS[record[0] & 3])
        assert decode_tensor(record, matrix.shape, matrix.dtype, reading).tobytes() == matrix.tobytes()
        assert reading.steps_left == writing.steps_left
    assert kinds[0] == "coded" and kinds[-1] != "coded"
    with pytest.raises(ModelFileError, match="would take too long to read"):
        decode_tensor(hostile, matrix.shape, matrix.dtype, reading)


def test_bytes_after_a_codebook_without_entries_are_refused():
    nothing = encode_tensor(np.zeros((5, 5), np.float32), Context())
    assert not decode_tensor(nothing, (5, 5), np.dtype(np.float32), Context()).any()
    with pytest.raises(ModelFileError, match="goes on where all is said"):
        decode_tensor(nothing + b"junk", (5, 5), np.dtype(np.float32), Context())


def test_a_file_decodes_to_256_mib_at_most_however_large_it_is(lenet):
    large = {**TINY, "channels": [4, 8192], "hidden": 8192}
    with pytest.raises(ModelFileError, match="where 268435456 are allowed"):
        StreamReader(io.BytesIO(file_of(large, b"", lenet)), 2**30)
    with torch.device("meta"):
        network = build(large)
    with pytest.raises(ModelFileError, match="'lenet5@digits' would decode to .* kept in a folder"):
        encode(dataclasses.replace(lenet, model=network))


@pytest.mark.parametrize(
    ("field", "shape", "says"),
    [
        ("outputs", ("batch", 3), r"makes \[\[10\]\] of a sample, and declares \[\[3\]\]"),
        ("inputs", ("batch", 1, 9, 9), "does not take the inputs"),
        ("inputs", ("batch", 3, 32, 32), "does not take the inputs"),
    ],
)
def test_what_a_file_declares_is_what_its_network_does(field, shape, says, lenet, monkeypatch):
    other = dataclasses.replace(getattr(lenet, field)[0], shape=shape)
    with monkeypatch.context() as unchecked:
        unchecked.setattr("labkit.encode.container.check_outputs", lambda *_: None)
        content = encode(dataclasses.replace(lenet, labels=(), **{field: (other,)}))
    for read in (decode, dissect):
        with pytest.raises(ModelFileError, match=says):
            read(content)


def test_taking_a_file_apart_decodes_each_tensor_once(content, monkeypatch):
    made = []
    monkeypatch.setattr("labkit.encode.tensors.Reader", lambda data: made.append(data) or Reader(data))
    parts = dissect(content).parts
    assert 0 < len(made) <= len({part.tensor for part in parts})


# --- the page that describes it ---


def test_the_page_s_figures_are_the_code_s():
    assert f"`LKZ`, then version {VERSION}" in DOC
    assert re.findall(r"^\| (\d) \| (\w+) \| ", DOC, re.M) == [(str(k), name) for k, name in enumerate(KINDS)]
    assert all(f"`{feature}`" in DOC for feature in FEATURES) and CODED == 3
    assert f"{len(description.DICTIONARY)} bytes" in DOC
    assert f"{zlib.crc32(description.DICTIONARY):08x}" in DOC


def test_the_page_s_example_is_what_is_written(lenet):
    """The page takes a file of two layers apart, byte by byte."""
    shown = bytes.fromhex(
        "".join(re.findall(r"^    ([0-9a-f ]+)(?:  |$)", DOC.split("## An example")[1], re.M))
    )
    variant = decode(shown)
    assert encode(variant) == shown
