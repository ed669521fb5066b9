"""Looking into model files: what is told is what one counts by hand, and no file harms whoever looks."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import labkit.zoo
from labkit.convert import ExportOnnx
from labkit.errors import ConfigError, LabkitError, ModelFileError
from labkit.inspection import Inspection, TensorInfo, inspect_file, layer_table, summary
from labkit.inspection.readers import READERS
from labkit.measure.counting import count
from labkit.onnx_graph.slim import DATA, MESSAGES, SMALL_BYTES, is_left_out, slim
from labkit.onnx_graph.stored import constants, graphs
from labkit.onnx_graph.wire import encode_field, encode_varint, varint

DATA_FOLDER = Path(__file__).parents[1] / "data"
BIG = np.arange(32 * 40, dtype=np.float32).reshape(32, 40)


def constant(name, values):
    return numpy_helper.from_array(np.asarray(values), name)


def model(nodes, constants=(), shape=("batch", 32), opset=18, **more):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * len(shape))],
        list(constants),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10, **more)


def node(kind, inputs, outputs, **attributes):
    return helper.make_node(kind, inputs.split(), outputs.split(), **attributes)


def product(weight=None):
    return model([node("MatMul", "x w", "y")], [constant("w", BIG) if weight is None else weight])


def with_everything():
    """A large tensor in each place where one can lie: initializer, attribute, branch of an If, function, sparse."""
    inner = helper.make_graph(
        [node("Constant", "", "c", value=constant("inner", BIG))],
        "b",
        [],
        [helper.make_tensor_value_info("c", TensorProto.FLOAT, BIG.shape)],
    )
    sparse = helper.make_sparse_tensor(
        constant("values", np.ones(600, np.float32)), constant("indices", np.arange(600)), [1000]
    )
    made = model(
        [
            node("Constant", "", "k", value=constant("k", BIG)),
            node("If", "yes", "i", then_branch=inner, else_branch=inner),
            node("Add", "k i", "ki"),
            node("MatMul", "x ki", "y"),
        ],
        [constant("w", BIG), constant("yes", np.array(True))],
    )
    made.graph.sparse_initializer.append(sparse)
    made.functions.append(
        helper.make_function(
            "own",
            "F",
            [],
            ["f"],
            [node("Constant", "", "f", value=constant("f", BIG))],
            [helper.make_opsetid("", 18)],
        )
    )
    made.opset_import.append(helper.make_opsetid("own", 1))
    return made


def saved(tmp_path, what, name="m.onnx"):
    path = tmp_path / name
    path.write_bytes(what if isinstance(what, bytes) else what.SerializeToString())
    return path


# The walk through the file


def test_the_fields_numbers_are_those_of_the_installed_onnx():
    for message, numbers in {**MESSAGES, "TensorProto": DATA}.items():
        fields = getattr(onnx, message).DESCRIPTOR.fields_by_name
        assert numbers == {name: fields[name].number for name in numbers}, message


def test_no_way_to_a_tensor_is_forgotten():
    on_the_way = {*MESSAGES, "TensorProto"}
    for message, numbers in MESSAGES.items():
        fields = getattr(onnx, message).DESCRIPTOR.fields
        assert set(numbers) == {
            f.name for f in fields if f.message_type and f.message_type.name in on_the_way
        }


def test_the_slim_model_is_the_model_without_the_data_of_its_large_tensors():
    whole = with_everything()
    payload = whole.SerializeToString()
    found = slim(payload)
    assert found.left_out_bytes == 5 * BIG.nbytes + 600 * (4 + 8)
    assert found.model.ByteSize() < len(payload) - found.left_out_bytes
    for graph in graphs(whole):
        for tensor in constants(graph):
            if tensor.ByteSize() > SMALL_BYTES:
                tensor.ClearField("raw_data")
    assert found.model == whole


def test_a_model_without_large_tensors_stays_as_it_is():
    whole = product(constant("w", np.ones((32, 2), np.float32)))
    found = slim(whole.SerializeToString())
    assert (found.model, found.left_out_bytes) == (whole, 0)
    assert not any(is_left_out(tensor) for tensor in found.model.graph.initializer)


@pytest.mark.parametrize(
    ("dtype", "packed"),
    [(TensorProto.FLOAT, 1), (TensorProto.DOUBLE, 1), (TensorProto.INT64, 1), (TensorProto.INT32, 1)]
    + [(TensorProto.UINT64, 1), (TensorProto.INT8, 1), (TensorProto.FLOAT16, 1), (TensorProto.INT4, 2)],
)
def test_numbers_that_stand_one_by_one_are_counted(dtype, packed):
    tensor = helper.make_tensor("w", dtype, [2000], [3] * 2000)
    tensor.ClearField("raw_data")
    field = {
        TensorProto.FLOAT: "float_data",
        TensorProto.DOUBLE: "double_data",
        TensorProto.INT64: "int64_data",
        TensorProto.UINT64: "uint64_data",
    }.get(dtype, "int32_data")
    getattr(tensor, field)[:] = [300] * (2000 // packed)
    assert slim(product(tensor).SerializeToString()).left_out_bytes > SMALL_BYTES
    getattr(tensor, field).pop()
    with pytest.raises(ModelFileError, match=f"claims 2000 elements, {2000 // packed} numbers"):
        slim(product(tensor).SerializeToString())


@pytest.mark.parametrize("size", [4, 4000], ids=["small", "large"])
@pytest.mark.parametrize("change", [-4, 4])
def test_a_tensor_that_holds_more_or_less_than_it_claims_is_refused(size, change):
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[size], raw_data=bytes(4 * size))
    slim(product(tensor).SerializeToString())
    tensor.raw_data = bytes(4 * size + change)
    with pytest.raises(ModelFileError, match="'w' claims"):
        slim(product(tensor).SerializeToString())


@pytest.mark.parametrize("size", [-1, 2**31])
def test_a_dimension_out_of_all_reason_is_refused(size):
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[size], raw_data=bytes(5000))
    with pytest.raises(ModelFileError, match=f"a dimension of {size}"):
        slim(product(tensor).SerializeToString())


def test_a_tensor_cannot_pass_for_one_whose_data_were_left_out():
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1000])
    with pytest.raises(ModelFileError, match="holds 0"):
        slim(product(tensor).SerializeToString())


@pytest.mark.parametrize("value", [0, 1, 127, 128, 150, 2**31, 2**63])
def test_a_varint_comes_back(value):
    encoded = encode_varint(value)
    assert varint(encoded, 0, len(encoded)) == (value, len(encoded))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x80" * 20, "does not end"),
        (b"\x3a\xff\xff\xff\xff\x0f", "truncated"),
        (b"\x0b\x0c", "wire type 3"),
        (b"\x00\x00", "number 0"),
    ],
)
def test_bytes_that_are_no_message_are_refused(data, words):
    with pytest.raises(ModelFileError, match=words):
        slim(data)


def test_graphs_within_graphs_without_end_are_refused():
    data = b"\x00" * 2000
    for _ in range(40):
        for field in (6, 5, 1):  # graph → node → attribute → graph
            data = encode_field(field, data)
    with pytest.raises(ModelFileError, match="deep"):
        slim(encode_field(7, data))


def test_every_truncation_is_refused_or_still_a_model():
    payload = with_everything().SerializeToString()
    for end in range(0, len(payload), 101):
        with contextlib.suppress(ModelFileError):
            slim(payload[:end])


@settings(max_examples=150)
@given(st.data())
def test_damage_raises_nothing_but_a_model_file_error(data):
    payload = bytearray(with_everything().SerializeToString())
    for _ in range(data.draw(st.integers(1, 6))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ModelFileError):
        slim(bytes(payload))


# ONNX


@pytest.fixture(scope="module")
def exported(tmp_path_factory, lenet, digits):
    variant = ExportOnnx()(lenet, digits)
    path = tmp_path_factory.mktemp("exported") / "lenet5.onnx"
    path.write_bytes(variant.payload)
    return variant, path


def test_a_network_is_counted_as_measure_counts_it(exported):
    variant, path = exported
    found = inspect_file(path)
    counts = count(variant, {"image": np.zeros((1, 1, 32, 32), np.float32)})
    assert (found.macs, found.parameters) == (counts.macs, counts.parameters)
    assert found.macs == sum(layer.macs for layer in found.layers)
    assert found.parameters == sum(layer.parameters for layer in found.layers)
    assert found.operators["Conv"] == 2 and found.precision["float32"].bytes == 4 * counts.parameters
    assert found.opsets == {"ai.onnx": 18} and found.bytes == path.stat().st_size
    assert found.inputs == (TensorInfo("image", "float32", ("batch", 1, 32, 32)),)
    assert found.dynamic == {"image": ("batch",), "logits": ("batch",)}
    first = found.layers[0]
    assert (first.operator, first.output_shape, first.dtype) == ("Conv", ("batch", 20, 28, 28), "float32")
    assert first.macs == 28 * 28 * 20 * 25


def test_an_inspection_comes_back_from_json(exported):
    found = inspect_file(exported[1])
    again = Inspection.from_json(json.loads(json.dumps(found.to_json())))
    assert again == found


def test_a_saved_variant_is_inspected_with_what_it_declares(exported, tmp_path):
    variant, path = exported
    found, of_file = inspect_file(variant.save(tmp_path / "v")), inspect_file(path)
    assert found.format == "labkit variant of onnx" and found.layers == of_file.layers
    assert found.inputs[0].shape == ("batch", 1, 32, 32)
    zoo = inspect_file(Path(labkit.zoo.__file__).parent / "resnet20@digits")
    assert zoo.precision["float32"].count == 273_754 and zoo.inputs == found.inputs


def test_a_dimension_that_the_work_depends_on_can_be_bound(tmp_path):
    path = saved(tmp_path, model([node("MatMul", "x w", "y")], [constant("w", BIG)], ("batch", "time", 32)))
    found = inspect_file(path)
    assert found.macs is None and "--size time=N" in found.notes[-1]
    assert inspect_file(path, {"time": 7}).macs == 7 * 32 * 40
    assert inspect_file(path).parameters == BIG.size


@pytest.mark.parametrize("size", [0, 2**31, True])
def test_a_size_out_of_range_is_refused(tmp_path, size):
    with pytest.raises(ConfigError, match="sizes\\['time'\\]"):
        inspect_file(saved(tmp_path, product()), {"time": size})


def test_a_fixed_batch_is_counted_per_sample(tmp_path):
    path = saved(tmp_path, model([node("MatMul", "x w", "y")], [constant("w", BIG)], (4, 32)))
    assert inspect_file(path).macs == 32 * 40


def test_what_is_not_counted_is_said(tmp_path):
    path = saved(tmp_path, model([node("Einsum", "x w", "y", equation="bi,ij->bj")], [constant("w", BIG)]))
    found = inspect_file(path)
    assert found.macs is None and any("Einsum" in note for note in found.notes)


def test_constants_in_every_place_are_part_of_the_precision(tmp_path):
    found = inspect_file(saved(tmp_path, with_everything()))
    assert found.precision["float32"].count == 5 * BIG.size + 600
    assert found.precision["int64"].bytes == 600 * 8
    assert found.operators["If"] == 1


def test_the_weights_of_constant_nodes_and_of_branches_are_parameters(tmp_path):
    found = inspect_file(saved(tmp_path, with_everything()))
    layers = {layer.operator: layer.parameters for layer in found.layers}
    assert layers == {"If": 2 * BIG.size, "Add": BIG.size, "MatMul": 0}
    in_the_function, unused = BIG.size, BIG.size
    assert found.parameters == sum(layers.values()) + in_the_function + unused


def cycle():
    return model([node("Add", "x b", "a"), node("Relu", "a", "b"), node("Relu", "b", "y")])


def test_the_checker_sees_every_file(tmp_path):
    with pytest.raises(ModelFileError, match="not valid ONNX"):
        inspect_file(saved(tmp_path, cycle()))
    with pytest.raises(ModelFileError, match="not valid ONNX"):
        inspect_file(saved(tmp_path, model([node("NoSuchOperator", "x", "y")])))


# External data


def external(tmp_path, location="w.bin", checksum=None, length=BIG.nbytes, content=None):
    tensor = TensorProto(
        name="w", data_type=TensorProto.FLOAT, dims=BIG.shape, data_location=TensorProto.EXTERNAL
    )
    for key, value in (("location", location), ("offset", "0"), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)
    if checksum:
        tensor.external_data.add(key="checksum", value=checksum)
    (tmp_path / "w.bin").write_bytes(BIG.tobytes() if content is None else content)
    return saved(tmp_path, product(tensor))


def test_external_data_are_found_and_their_checksum_verified(tmp_path):
    found = inspect_file(external(tmp_path, checksum=hashlib.sha1(BIG.tobytes()).hexdigest()))
    (file,) = found.external_files
    assert (file.name, file.bytes, file.checksum) == ("w.bin", BIG.nbytes, "verified")
    assert found.parameters == BIG.size and found.macs == BIG.size
    assert inspect_file(external(tmp_path)).external_files[0].checksum == "none recorded"


def test_another_file_than_was_saved_is_refused(tmp_path):
    with pytest.raises(ModelFileError, match="SHA-1 differs"):
        inspect_file(external(tmp_path, checksum=hashlib.sha1(b"other").hexdigest()))


def test_a_large_file_is_verified_when_asked(tmp_path):
    path = external(tmp_path, checksum=hashlib.sha1(b"other").hexdigest())
    os.truncate(tmp_path / "w.bin", 17_000_000)
    found = inspect_file(path)
    assert found.external_files[0].checksum == "not verified"
    assert any("--verify-data" in note for note in found.notes)
    with pytest.raises(ModelFileError, match="SHA-1 differs"):
        inspect_file(path, verify_data=True)


@pytest.mark.parametrize(
    "location", ["/etc/passwd", "../w.bin", "a/../w.bin", "C:\\w.bin", "\\\\host\\w.bin", "", "absent.bin"]
)
def test_external_data_stay_within_the_folder(tmp_path, location):
    with pytest.raises(ModelFileError, match="'w' keeps its data in"):
        inspect_file(external(tmp_path, location))


def test_a_link_is_not_followed(tmp_path):
    path = external(tmp_path, "link.bin")
    (tmp_path / "link.bin").symlink_to(tmp_path / "w.bin")
    with pytest.raises(ModelFileError, match="is a link"):
        inspect_file(path)


def test_external_data_hold_what_the_tensor_claims(tmp_path):
    with pytest.raises(ModelFileError, match="claims bytes 0 to 5120 of 'w.bin', which has 8"):
        inspect_file(external(tmp_path, content=b"8 bytes."))
    with pytest.raises(ModelFileError, match="but its external data are 4"):
        inspect_file(external(tmp_path, length=4))


# The other formats


class Small(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 2, 3)
        self.fc = torch.nn.Linear(32, 3)

    def forward(self, image):
        return self.fc(self.conv(image).relu().flatten(1))


HAND_MACS = 4 * 4 * 2 * 9 + 32 * 3


def test_an_exported_program_is_read_without_unpickling(tmp_path):
    batch = torch.export.Dim("batch")
    program = torch.export.export(Small().eval(), (torch.zeros(2, 1, 6, 6),), dynamic_shapes=({0: batch},))
    torch.export.save(program, tmp_path / "m.pt2")
    found = inspect_file(tmp_path / "m.pt2")
    assert (found.macs, found.parameters) == (HAND_MACS, 2 * 9 + 2 + 32 * 3 + 3)
    assert found.operators["aten.conv2d.default"] == 1 and found.opsets["aten"] > 0
    assert found.inputs[0].name == "image" and found.inputs[0].shape[1:] == (1, 6, 6)
    assert isinstance(found.inputs[0].shape[0], str) and found.outputs[0].dtype == "float32"


def test_a_tflite_file_is_read_without_tensorflow():
    found = inspect_file(DATA_FOLDER / "small.tflite")
    assert (found.macs, found.parameters) == (HAND_MACS, 2 * 9 + 2 + 32 * 3)
    assert found.operators == {"CONV_2D": 1, "RESHAPE": 1, "FULLY_CONNECTED": 1}
    assert found.inputs[0].shape == (None, 6, 6, 1) and found.inputs[0].dynamic == ("axis 0",)
    assert found.outputs[0].shape == (None, 3) and found.precision["float32"].count == found.parameters


def test_a_saved_model_is_read_without_tensorflow():
    found = inspect_file(DATA_FOLDER / "saved_model")
    assert (found.macs, found.parameters) == (HAND_MACS, 2 * 9 + 32 * 3 + 3)
    assert found.operators == {"Conv2D": 1, "Relu": 1, "Reshape": 1, "MatMul": 1, "AddV2": 1}
    assert found.inputs[0] == TensorInfo("image", "float32", (None, 6, 6, 1))
    assert found.outputs[0] == TensorInfo("logits", "float32", (None, 3))
    assert inspect_file(DATA_FOLDER / "saved_model" / "saved_model.pb").layers == found.layers


@pytest.mark.parametrize("name", ["small.tflite", "saved_model/saved_model.pb"])
def test_damage_to_tensorflow_s_files_is_a_model_file_error(name, tmp_path):
    from labkit.inspection.readers import saved_model, tflite
    from labkit.inspection.request import Request

    shutil.copytree(DATA_FOLDER, tmp_path, dirs_exist_ok=True)
    path, random = tmp_path / name, np.random.RandomState(0)
    payload = path.read_bytes()
    reader = tflite if name.endswith("tflite") else saved_model
    for turn in range(150):
        damaged = bytearray(payload[: random.randint(8, len(payload))] if turn % 3 == 0 else payload)
        for at in random.randint(0, len(damaged), 4):
            damaged[at] = random.randint(256)
        path.write_bytes(damaged)
        with contextlib.suppress(LabkitError):
            reader.read(Request(str(path)))


IR = """<?xml version="1.0"?><net name="m" version="11"><layers>
<layer id="0" name="x" type="Parameter" version="opset1"><data shape="?,32" element_type="f32"/>
 <output><port id="0" precision="FP32" names="x"><dim>-1</dim><dim>32</dim></port></output></layer>
<layer id="1" name="w" type="Const" version="opset1">
 <data element_type="f16" shape="32, 40" offset="0" size="2560"/>
 <output><port id="0" precision="FP16"><dim>32</dim><dim>40</dim></port></output></layer>
<layer id="2" name="w32" type="Convert" version="opset1"><data destination_type="f32"/>
 <input><port id="0" precision="FP16"><dim>32</dim><dim>40</dim></port></input>
 <output><port id="1" precision="FP32"><dim>32</dim><dim>40</dim></port></output></layer>
<layer id="3" name="product" type="MatMul" version="opset1"><data transpose_a="false" transpose_b="false"/>
 <input><port id="0" precision="FP32"><dim>-1</dim><dim>32</dim></port>
  <port id="1" precision="FP32"><dim>32</dim><dim>40</dim></port></input>
 <output><port id="2" precision="FP32" names="y"><dim>-1</dim><dim>40</dim></port></output></layer>
<layer id="4" name="y/sink" type="Result" version="opset1">
 <input><port id="0" precision="FP32"><dim>-1</dim><dim>40</dim></port></input></layer>
</layers><edges>
<edge from-layer="1" from-port="0" to-layer="2" to-port="0"/>
<edge from-layer="0" from-port="0" to-layer="3" to-port="0"/>
<edge from-layer="2" from-port="1" to-layer="3" to-port="1"/>
<edge from-layer="3" from-port="2" to-layer="4" to-port="0"/>
</edges></net>"""


def ir(tmp_path, text=IR, data=bytes(2560)):
    (tmp_path / "m.bin").write_bytes(data)
    return saved(tmp_path, text if isinstance(text, bytes) else text.encode(), "m.xml")


def test_an_openvino_model_is_read_without_openvino(tmp_path):
    found = inspect_file(ir(tmp_path))
    assert (found.macs, found.parameters) == (32 * 40, 32 * 40)
    assert found.precision["float16"].bytes == 2560 and found.operators == {"MatMul": 1}
    assert found.inputs == (TensorInfo("x", "float32", (None, 32)),)
    assert found.outputs == (TensorInfo("y", "float32", (None, 40)),)
    assert found.layers[0].inputs == ("x",) and found.external_files[0].bytes == 2560


def test_an_openvino_model_must_hold_what_it_claims(tmp_path):
    with pytest.raises(ModelFileError, match=r"of a \.bin of 2559"):
        inspect_file(ir(tmp_path, data=bytes(2559)))
    (tmp_path / "m.bin").unlink()
    with pytest.raises(ModelFileError, match="not beside it"):
        inspect_file(tmp_path / "m.xml")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16"])
def test_xml_with_a_document_type_is_refused_in_any_encoding(tmp_path, encoding):
    bomb = IR.replace('<?xml version="1.0"?>', '<!DOCTYPE net [<!ENTITY a "aaaa">]>')
    with pytest.raises(ModelFileError, match="document type"):
        inspect_file(ir(tmp_path, bomb.encode(encoding)))


def keras_layer(kind, name, shape=None, **config):
    layer = {
        "module": "keras.layers",
        "class_name": kind,
        "config": {"name": name, "dtype": "float32", **config},
    }
    return layer | ({"build_config": {"input_shape": shape}} if shape else {})


def keras_file(tmp_path, layers):
    config = {"module": "keras", "class_name": "Sequential", "config": {"name": "s", "layers": layers}}
    path = tmp_path / "m.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.15.1"}))
        archive.writestr("model.weights.h5", b"\x89HDF\r\n\x1a\n")
    return path


def test_a_keras_file_is_counted_from_its_configuration(tmp_path):
    layers = [
        keras_layer("InputLayer", "image", batch_shape=[None, 32]),
        keras_layer("Dense", "first", [None, 32], units=40, use_bias=True),
        keras_layer("Dense", "second", [None, 40], units=10, use_bias=False),
    ]
    found = inspect_file(keras_file(tmp_path, layers))
    assert (found.macs, found.parameters) == (32 * 40 + 40 * 10, 33 * 40 + 40 * 10)
    assert found.inputs[0] == TensorInfo("image", "float32", (None, 32))
    assert found.outputs[0] == TensorInfo("second", "float32", (None, 10))
    assert found.producer == "keras 3.15.1"


def test_a_layer_of_python_code_is_refused(tmp_path):
    with pytest.raises(ModelFileError, match="Lambda"):
        inspect_file(keras_file(tmp_path, [keras_layer("Lambda", "evil", function="…")]))


def safetensors_file(tmp_path, header, data_bytes):
    text = json.dumps(header).encode()
    return saved(tmp_path, len(text).to_bytes(8, "little") + text + bytes(data_bytes), "m.safetensors")


def entry(begin, end, shape=(2, 4), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def test_safetensors_are_told_from_their_header(tmp_path):
    found = inspect_file(safetensors_file(tmp_path, {"a": entry(0, 32), "b": entry(32, 48, dtype="F16")}, 48))
    assert found.parameters == 16 and found.macs is None
    assert found.precision["float32"].bytes == 32 and found.precision["float16"].bytes == 16


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({"a": entry(0, 28)}, "but holds 28 bytes"),
        ({"a": entry(4, 36)}, "begins at byte 4"),
        ({"a": entry(0, 32), "b": entry(16, 48)}, "begins at byte 16"),
        ({"a": entry(0, 32)}, "end at byte 32"),
        ({"a": entry(0, 32, (-2, -4))}, "no whole number from 0"),
    ],
)
def test_safetensors_must_fill_the_file_exactly(tmp_path, header, words):
    with pytest.raises(ModelFileError, match=words):
        inspect_file(safetensors_file(tmp_path, header, 48))


def test_every_reader_is_there():
    import importlib

    for module in READERS.values():
        assert callable(importlib.import_module(f"labkit.inspection.readers.{module}").read)


# What is refused, and how it is said


class Trap:
    def __reduce__(self):
        return (os.mkdir, ("trapped",))


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".pkl", ".h5"])
def test_files_that_run_code_are_not_opened(tmp_path, monkeypatch, suffix):
    monkeypatch.chdir(tmp_path)
    path = saved(tmp_path, pickle.dumps(Trap()), f"m{suffix}")
    with pytest.raises(ModelFileError, match="code|pickle"):
        inspect_file(path)
    assert not (tmp_path / "trapped").exists()


def test_what_is_no_model_is_told_what_is_understood(tmp_path):
    with pytest.raises(ConfigError, match=r"\.onnx.*\.safetensors.*SavedModel"):
        inspect_file(saved(tmp_path, b"hello", "m.txt"))
    with pytest.raises(ConfigError, match=r"\.onnx"):
        inspect_file(tmp_path)
    with pytest.raises(ModelFileError, match="does not exist"):
        inspect_file(tmp_path / "absent.onnx")
    with pytest.raises(ConfigError, match="path must be"):
        inspect_file(None)


@pytest.mark.parametrize("name", ["m.onnx", "m.pt2", "m.tflite", "m.xml", "m.keras", "m.safetensors"])
@pytest.mark.parametrize("content", [b"", b"hello, world", os.urandom(3000)], ids=["empty", "text", "random"])
def test_rubbish_of_every_name_is_one_line_of_refusal(tmp_path, name, content):
    (tmp_path / "m.bin").write_bytes(b"")
    with pytest.raises(ModelFileError) as caught:
        inspect_file(saved(tmp_path, content, name))
    assert "\n" not in str(caught.value) and name in str(caught.value)


def test_an_archive_that_unpacks_to_gigabytes_costs_nothing(tmp_path):
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("m/models/model.json", "w") as file,
    ):
        for _ in range(80):
            file.write(b" " * 2**20)
    with pytest.raises(ModelFileError, match="refused as a bomb"):
        inspect_file(saved(tmp_path, buffer.getvalue(), "m.pt2"))


# In words


def many_layers(tmp_path, count=50):
    nodes = [node("Relu", "x", "t0"), *(node("Relu", f"t{i}", f"t{i + 1}") for i in range(count - 2))]
    return saved(tmp_path, model([*nodes, node("MatMul", f"t{count - 2} w", "y")], [constant("w", BIG)]))


def test_a_long_table_is_cut_to_the_most_expensive_and_says_so(tmp_path):
    found = inspect_file(many_layers(tmp_path))
    lines = layer_table(found, 40).splitlines()
    assert len(lines) == 1 + 40 + 1 and "40 most expensive of 50" in lines[-1]
    assert any("MatMul" in line and "1,280" in line for line in lines)
    assert len(layer_table(found).splitlines()) == 1 + 50


def test_the_summary_says_what_was_and_was_not_verified(tmp_path):
    text = summary(inspect_file(saved(tmp_path, product())))
    assert "verified: ONNX's checker" in text and "[batch, 32]" in text and "1,280 per sample" in text


def test_names_cannot_steer_the_terminal(tmp_path):
    evil = "\x1b[2Jgone\n"
    path = saved(
        tmp_path, model([helper.make_node("MatMul", ["x", "w"], ["y"], name=evil)], [constant("w", BIG)])
    )
    found = inspect_file(path)
    assert found.layers[0].name == evil
    assert "\x1b" not in layer_table(found) and len(layer_table(found).splitlines()) == 2
    assert "\x1b" not in summary(found) and "<script" not in found._repr_html_()


def test_the_command_prints_facts_and_layers(tmp_path, run):
    path = many_layers(tmp_path)
    status, out, _ = run("inspect", path, "--draw", tmp_path / "g.svg")
    assert status == 0 and "40 most expensive of 50" in out and "float32" in out
    assert (tmp_path / "g.svg").read_text().startswith("<svg")
    assert "most expensive" not in run("inspect", path, "--all")[1]


@pytest.mark.parametrize(("name", "file"), [("lenet5@mnist", "."), ("lenet5@mnist+encode", "model.lkz")])
def test_the_command_takes_a_name_of_the_zoo_for_its_file(run, name, file):
    status, named, err = run("inspect", name)
    assert (status, err) == (0, "")
    assert named == run("inspect", labkit.zoo.FOLDER / name / file)[1]


def test_a_file_that_exists_comes_before_a_network_of_its_name(tmp_path, run):
    saved(tmp_path, product()).rename("lenet5@mnist")
    status, _, err = run("inspect", "lenet5@mnist")
    assert status == 1 and "of no kind that can be inspected" in err


def test_the_command_suggests_the_nearest_network_and_leaves_paths_to_their_readers(run):
    status, _, err = run("inspect", "lenet5@mnits")
    assert status == 1 and "unknown model 'lenet5@mnits'; did you mean 'lenet5@mnist'?" in err
    for path in ("lenet5@mnits.onnx", "models/lenet5@mnits"):
        assert f"{path} does not exist" in run("inspect", path)[2]


def test_the_command_s_json_is_the_inspection(tmp_path, run):
    path = saved(tmp_path, model([node("MatMul", "x w", "y")], [constant("w", BIG)], ("batch", "time", 32)))
    status, out, _ = run("inspect", path, "--json", "--size", "time=3")
    assert status == 0 and Inspection.from_json(json.loads(out)) == inspect_file(path, {"time": 3})


@pytest.mark.parametrize("size", ["time", "time=x", "=3", "time=-1"])
def test_the_command_refuses_a_size_that_is_none(tmp_path, run, size):
    status, _, err = run("inspect", saved(tmp_path, product()), "--size", size)
    assert status == 1 and "NAME=N" in err and "Traceback" not in err
