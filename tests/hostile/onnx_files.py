"""Hostile ONNX files, as data: name → (the model or its bytes, a pattern of what the error says)."""

from __future__ import annotations

import io
import pickle
import zipfile

import numpy as np
from onnx import TensorProto, helper, numpy_helper

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

HOSTILE_ONNX = {
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

SHOWN_ONNX = {
    *(
        "opset too new",
        "unknown domain",
        "huge input",
        "Expand bomb, folded",
        "Expand bomb, run",
        "endless Loop",
    ),
    *("sequence input", "string input", "bfloat16 input", "no inputs", "no outputs"),
    *(name for name in HOSTILE_ONNX if name.startswith("metadata")),
}
"""What only opening and running tells, or only loading asks for: inspect_file shows them."""
