"""ONNX files from elsewhere: good ones load, hostile ones are refused in time, in memory and in one line."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import resource
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from labkit.convert import load_onnx
from labkit.errors import ConfigError, LabkitError, ModelFileError
from labkit.variant import Preprocessing

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def value(name, shape, dtype=FLOAT):
    return helper.make_tensor_value_info(name, dtype, shape)


def constant(name, values, dtype=np.float32):
    return numpy_helper.from_array(np.array(values, dtype), name)


def model(nodes, constants=(), inputs=None, outputs=None, opset=18, ir_version=10):
    graph = helper.make_graph(
        nodes, "g", inputs or [value("x", ["n", 4])], outputs or [value("y", ["n", 4])], list(constants)
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


def node(kind, inputs, outputs, **attributes):
    return helper.make_node(kind, inputs.split(), outputs.split(), **attributes)


def relu(**changes):
    return model([node("Relu", "x", "y")], **changes)


def add(weight):
    return model([node("Add", "x w", "y")], [weight])


def external(location):
    weight = TensorProto(name="w", data_type=FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value=location)
    return weight


def hidden_external():
    """External data in an attribute inside the body of an If, not among the initializers."""
    inner = helper.make_graph(
        [node("Constant", "", "w", value=external("w.bin"))], "b", [], [value("w", [4])]
    )
    return model(
        [node("If", "c", "w", then_branch=inner, else_branch=inner), node("Add", "x w", "y")],
        [constant("c", True, bool)],
    )


def cycle():
    return model([node("Add", "x b", "a"), node("Relu", "a", "b"), node("Relu", "b", "y")])


def expand(source):
    """A tensor of 2^31 floats, 8 GB, from a constant or from the input."""
    nodes = [
        node("Expand", f"{source} s", "e"),
        node("ReduceSum", "e", "r", keepdims=0),
        node("Add", "x r", "y"),
    ]
    if source == "m":
        nodes.insert(0, node("ReduceMax", "x", "m", keepdims=0))
    return model(nodes, [constant("s", [2**31], np.int64), constant("o", [1.0])])


def endless_loop():
    body = helper.make_graph(
        [node("Identity", "c", "c2"), node("Identity", "v", "v2")],
        "body",
        [value("i", [], INT64), value("c", [], BOOL), value("v", ["n", 4])],
        [value("c2", [], BOOL), value("v2", ["n", 4])],
    )
    constants = [constant("turns", 2**62, np.int64), constant("c0", True, bool)]
    return model([node("Loop", "turns c0 x", "y", body=body)], constants)


def recursive_function():
    function = helper.make_function(
        "me", "F", ["a"], ["b"], [node("F", "a", "b", domain="me")], [helper.make_opsetid("me", 1)]
    )
    made = model([node("F", "x", "y", domain="me")])
    made.functions.append(function)
    made.opset_import.append(helper.make_opsetid("me", 1))
    return made


def sequence_input():
    return model(
        [node("SequenceAt", "x i", "y")],
        [constant("i", 0, np.int64)],
        inputs=[helper.make_tensor_sequence_value_info("x", FLOAT, None)],
    )


def identity(dtype):
    return model(
        [node("Identity", "x", "y")], inputs=[value("x", ["n"], dtype)], outputs=[value("y", ["n"], dtype)]
    )


def unknown_domain():
    made = model([node("Frobnicate", "x", "y", domain="evil")])
    made.opset_import.append(helper.make_opsetid("evil", 1))
    return made


def with_metadata(key, text):
    made = relu()
    made.metadata_props.add(key=key, value=text)
    return made


def zip_bomb():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model", bytes(10_000_000))
    return buffer.getvalue()


def raw(dims):
    return TensorProto(name="w", data_type=FLOAT, dims=dims, raw_data=bytes(16))


GOOD = relu().SerializeToString()
TYPED_DATA = TensorProto(name="w", data_type=FLOAT, dims=[2**20, 2**22], float_data=[1.0, 2.0])
NO_INPUTS = model([node("Identity", "o", "y")], [constant("o", [1.0])], outputs=[value("y", [1])])
del NO_INPUTS.graph.input[:]
NO_OUTPUTS = relu()
del NO_OUTPUTS.graph.output[:]

HOSTILE = {
    "empty": (b"", "is empty"),
    "truncated": (GOOD[: len(GOOD) // 2], "not an ONNX file"),
    "random": (np.random.default_rng(0).bytes(10_000), "not an ONNX file"),
    "pickle": (pickle.dumps(list(range(1000))), "not an ONNX file"),
    "zip bomb": (zip_bomb(), "not an ONNX file"),
    "IR too new": (relu(ir_version=99), "IR version 99 is newer"),
    "opset too new": (relu(opset=99), "opset 99 is newer"),
    "unknown operator": (model([node("Frobnicate", "x", "y")]), "Frobnicate"),
    "unknown domain": (unknown_domain(), "Frobnicate"),
    "cycle": (cycle(), "topologically sorted"),
    "duplicate outputs": (
        model([node("Relu", "x", "a"), node("Neg", "x", "a"), node("Relu", "a", "y")]),
        "'a' has been used as output names multiple",
    ),
    "duplicate constants": (model([node("Add", "x w", "y")], [constant("w", [1.0])] * 2), "not unique"),
    "16 TiB claimed": (add(raw([2**20, 2**22])), "claims 4398046511104 elements, .* but holds 16"),
    "16 TiB claimed, typed data": (add(TYPED_DATA), "claims|size|dimension|match"),
    "one huge dimension": (add(raw([2**42])), "dimension of 4398046511104"),
    "negative dimension": (add(raw([-4])), "dimension of -4"),
    "huge input": (relu(inputs=[value("x", [2**40])], outputs=[value("y", [2**40])]), "shape"),
    "external data above": (add(external("../secret")), "leaves the folder"),
    "external data, absolute": (add(external("/etc/passwd")), "not a relative path"),
    "external data, hidden": (hidden_external(), "refused|not there"),
    "Expand bomb, folded": (expand("o"), "far more memory"),
    "Expand bomb, run": (expand("m"), "far more memory"),
    "endless Loop": (endless_loop(), "to open and run once.*patience"),
    "recursive function": (recursive_function(), "recursive"),
    "sequence input": (sequence_input(), "'x' is a seq"),
    "string input": (identity(TensorProto.STRING), "string"),
    "bfloat16 input": (identity(TensorProto.BFLOAT16), "bfloat16"),
    "unknown element type": (
        add(TensorProto(name="w", data_type=99, dims=[4], raw_data=bytes(16))),
        "type 99, which this onnx does not know",
    ),
    "no inputs": (NO_INPUTS, "no inputs"),
    "no outputs": (NO_OUTPUTS, "outputs|valid"),
    "metadata: not JSON": (with_metadata("labkit.labels", "{"), "metadata is malformed"),
    "metadata: NaN": (
        with_metadata(
            "labkit.preprocessing", '{"x": {"scale": NaN, "mean": [0], "std": [1], "layout": null}}'
        ),
        "metadata is malformed",
    ),
    "metadata: std 0": (
        with_metadata("labkit.preprocessing", '{"x": {"scale": 1, "mean": [0], "std": [0], "layout": null}}'),
        "metadata is malformed",
    ),
    "metadata: unknown task": (with_metadata("labkit.task", '"divination"'), "divination"),
    "metadata: another model's": (
        with_metadata("labkit.preprocessing", '{"z": {"scale": 1, "mean": [0], "std": [1], "layout": null}}'),
        "'z'",
    ),
}


def written(tmp_path: Path, content) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    return path


def processor_seconds() -> float:
    """Of this process and its finished children: the clock on the wall counts other programs too."""
    usages = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_quickly_and_in_one_line(name, tmp_path):
    content, says = HOSTILE[name]
    path = written(tmp_path, content)
    before = processor_seconds()
    with pytest.raises(ModelFileError, match=says) as caught:
        load_onnx(path)
    assert processor_seconds() - before <= 2.0
    assert (
        "model.onnx" in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 600
    )
    assert os.listdir(tmp_path) == ["model.onnx"]


def test_a_bomb_takes_no_memory_to_speak_of(tmp_path):
    """In a process of its own, so that no other test's children are counted."""
    for name in ("Expand bomb, folded", "Expand bomb, run", "16 TiB claimed", "huge input"):
        (tmp_path / f"{name}.onnx").write_bytes(HOSTILE[name][0].SerializeToString())
    code = (
        "import pathlib, resource, sys\n"
        "from labkit.convert import load_onnx\n"
        "from labkit.errors import ModelFileError\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for path in pathlib.Path(sys.argv[1]).glob('*.onnx'):\n"
        "    try: load_onnx(path)\n"
        "    except ModelFileError: continue\n"
        "    sys.exit(f'{path} was let through')\n"
        "after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(after - before + resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) / 1e3 < 300, "MB, parent and largest child together"


def test_the_plain_reader_would_have_let_them_through(tmp_path):
    """The negative control: without our checks these are opened, or answered only after they have run."""
    assert onnx.load_model_from_string(cycle().SerializeToString()).graph.node
    assert onnx.load_model_from_string(add(raw([-4])).SerializeToString()).graph.initializer
    (tmp_path / "w.bin").write_bytes(np.full(4, 7, np.float32).tobytes())
    path = written(tmp_path, add(external("w.bin")))
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert session.run(None, {"x": np.zeros((1, 4), np.float32)})[0][0, 0] == 7
    ort.InferenceSession(endless_loop().SerializeToString(), providers=["CPUExecutionProvider"])


def test_external_data_through_a_link_is_refused(tmp_path):
    (tmp_path / "w.bin").symlink_to("/etc/passwd")
    with pytest.raises(ModelFileError, match="'w.bin' is a link"):
        load_onnx(written(tmp_path, add(external("w.bin"))))


def test_external_data_in_the_folder_is_gathered_and_its_checksum_verified(tmp_path):
    (tmp_path / "w.bin").write_bytes(np.full(4, 7, np.float32).tobytes())
    made = add(external("w.bin"))
    one_file = load_onnx(written(tmp_path, made))
    session = ort.InferenceSession(one_file.payload, providers=["CPUExecutionProvider"])
    assert session.run(None, {"x": np.zeros((1, 4), np.float32)})[0][0, 0] == 7
    checksum = hashlib.sha1((tmp_path / "w.bin").read_bytes(), usedforsecurity=False).hexdigest()
    made.graph.initializer[0].external_data.add(key="checksum", value=checksum)
    assert load_onnx(written(tmp_path, made)).payload == one_file.payload
    (tmp_path / "w.bin").write_bytes(np.full(4, 8, np.float32).tobytes())
    with pytest.raises(ModelFileError, match="w.bin is not the file that the model was saved with"):
        load_onnx(tmp_path / "model.onnx")
    (tmp_path / "w.bin").write_bytes(b"short")
    with pytest.raises(ModelFileError, match="of 'w.bin', which has 5"):
        load_onnx(tmp_path / "model.onnx")


@pytest.mark.parametrize("place", ["nowhere.onnx", ".", "pipe.onnx"])
def test_what_is_no_file_is_refused(place, tmp_path):
    os.mkfifo(tmp_path / "pipe.onnx")
    with pytest.raises(ModelFileError, match="does not exist|is not a file|does not end in .onnx"):
        load_onnx(tmp_path / place)


def test_fuzzed_bytes_raise_our_errors_only(tmp_path):
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(12):
        content = bytearray(endless_loop().SerializeToString() if random.random() < 0.2 else GOOD)
        for position in random.integers(0, len(content), 3):
            content[position] = random.integers(0, 256)
        try:
            load_onnx(written(tmp_path, bytes(content)))
        except LabkitError:
            refused += 1
    print(f"{refused} of 12 refused")
    assert refused >= 3


def test_a_good_file_becomes_a_variant(tmp_path):
    path = written(tmp_path, relu())
    variant = load_onnx(path)
    assert (variant.name, variant.format, variant.task, variant.payload) == (
        "model",
        "onnx",
        "classification",
        path.read_bytes(),
    )
    assert variant.inputs[0].shape == ("n", 4)
    (step,) = variant.lineage
    assert (step.technique, dict(step.config), step.origin) == ("load_onnx", {"file": "model.onnx"}, "file")


@pytest.mark.parametrize("unnamed", [-1, None])
def test_dimensions_without_a_name_get_one(unnamed, tmp_path):
    shape = [unnamed, 3, unnamed, 8]
    variant = load_onnx(written(tmp_path, relu(inputs=[value("x", shape)], outputs=[value("y", shape)])))
    assert variant.inputs[0].shape == ("batch", 3, "x_2", 8)
    assert variant.inputs[0].layout == "NCHW"


def test_a_batch_that_the_exporter_fixed_is_kept(tmp_path):
    variant = load_onnx(written(tmp_path, relu(inputs=[value("x", [1, 4])], outputs=[value("y", [1, 4])])))
    assert variant.inputs[0].shape == (1, 4)


def test_an_initializer_among_the_inputs_is_no_input(tmp_path):
    old = add(constant("w", [1, 2, 3, 4]))
    old.graph.input.append(value("w", [4]))
    assert [spec.name for spec in load_onnx(written(tmp_path, old)).inputs] == ["x"]


def test_several_inputs_of_whole_numbers_are_taken(tmp_path):
    nodes = [node("Add", "a b", "s"), node("Cast", "s", "y", to=FLOAT)]
    made = model(nodes, inputs=[value("a", ["n", "t"], INT64), value("b", ["n", "t"], INT64)],
                 outputs=[value("y", ["n", "t"])])  # fmt: skip
    variant = load_onnx(written(tmp_path, made))
    assert [(spec.name, spec.dtype) for spec in variant.inputs] == [("a", "int64"), ("b", "int64")]


def test_a_model_that_cannot_run_one_row_is_not_refused_for_it(tmp_path):
    made = model([node("Gather", "x second", "y")], [constant("second", [1], np.int64)])
    assert load_onnx(written(tmp_path, made)).inputs


def test_what_is_given_wins_over_what_the_file_says(tmp_path):
    path = written(tmp_path, with_metadata("labkit.task", '"regression"'))
    assert load_onnx(path).task == "regression"
    given = load_onnx(
        path, task="classification", labels=list("abcd"), preprocessing={"x": Preprocessing(2.0)}
    )
    assert (given.task, given.labels, given.preprocessing["x"].scale) == (
        "classification",
        tuple("abcd"),
        2.0,
    )


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"labels": ["a", "b", "c"]}, ModelFileError, "3 labels for a model with 4 outputs"),
        ({"task": "divination"}, ConfigError, "unknown task"),
        ({"preprocessing": {"z": Preprocessing()}}, ModelFileError, "'z'"),
        ({"patience": 0}, ConfigError, "patience"),
        ({"patience": float("nan")}, ConfigError, "patience"),
    ],
)
def test_what_does_not_fit_is_refused(given, error, says, tmp_path):
    with pytest.raises(error, match=says):
        load_onnx(written(tmp_path, relu()), **given)


def test_patience_lets_a_trusted_file_take_its_time(tmp_path):
    slow = endless_loop()
    slow.graph.initializer[0].CopyFrom(constant("turns", 2_000_000, np.int64))
    path = written(tmp_path, slow)
    with pytest.raises(ModelFileError, match="patience"):
        load_onnx(path, patience=0.3)
    assert load_onnx(path, patience=60).inputs
