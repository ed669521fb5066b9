"""ONNX in TensorFlow's words: against ONNX's own tests, against ONNX Runtime, and on to TensorFlow Lite."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from importlib.util import find_spec

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.loader import load_model_tests
from torch import nn

from labkit.convert import ExportOnnx
from labkit.errors import TechniqueError
from labkit.quantize import QuantizeInt8
from labkit.variant import TensorSpec, Variant
from labkit.zoo import load_model

if find_spec("tensorflow"):  # without it this file must still be collected, to be deselected
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    from labkit.convert.onnx_as_tensorflow import as_tensorflow, supported, tensorflow_names, translate
    from labkit.convert.onnx_as_tensorflow.node import Operator

pytestmark = pytest.mark.extra

BATCHES = (1, 3, 7)


# ONNX's own tests of its operators


def as_array(value):
    return numpy_helper.to_array(value) if isinstance(value, TensorProto) else np.asarray(value)


def with_constants(model, feeds):
    """The same model with all inputs but the first made constants: TensorFlow wants axes, pads and the like so."""
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    for value, array in zip(list(copy.graph.input)[1:], feeds[1:], strict=True):
        copy.graph.initializer.append(numpy_helper.from_array(array, value.name))
        copy.graph.input.remove(value)
    return copy


def agrees(model, feeds, expected, rtol, atol):
    module = as_tensorflow(model)
    results = module(*map(tf.constant, feeds))
    for value, wanted in zip(model.graph.output, expected, strict=True):
        got = results[module.output_names[value.name]].numpy()
        half = {"float16": 5e-3, "bfloat16": 2e-2}.get(wanted.dtype.name, 0)
        if got.dtype != wanted.dtype or got.shape != wanted.shape:
            return False
        if not np.allclose(
            got.astype(float), wanted.astype(float), max(rtol, half), max(atol, half / 5, 1e-6), True
        ):
            return False
    return True


def verdict(case):
    """ "agrees", "agrees with constants", "differs", or why it is refused."""
    feeds, expected = (list(map(as_array, arrays)) for arrays in case.data_sets[0])
    try:
        return "agrees" if agrees(case.model, feeds, expected, case.rtol, case.atol) else "differs"
    except TechniqueError as error:
        if len(feeds) < 2 or "not translated" in str(error):
            return str(error)
    try:
        fixed = with_constants(case.model, feeds)
        right = agrees(fixed, feeds[:1], expected, case.rtol, case.atol)
        return "agrees with constants" if right else "differs"
    except TechniqueError as error:
        return str(error)


def of_tensors(case):
    values = (*case.model.graph.input, *case.model.graph.output)
    return bool(case.data_sets) and all(value.type.HasField("tensor_type") for value in values)


@pytest.fixture(scope="module")
def node_tests():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's, on overflows that the tests are about
        return {case.name: case for case in load_model_tests(kind="node") if of_tensors(case)}


REFUSED = {
    "is in training mode": 8,
    "peepholes": 1,
    "gives indices": 2,
    "scale for each block": 3,
    "pixels lie by 'tf_crop_and_resize'": 4,
    "scatters no 'mul'": 2,
    "takes no inputs": 1,
}


def test_onnx_s_own_tests_of_its_operators_agree_or_are_refused_with_a_reason(node_tests):
    verdicts = {name: verdict(case) for name, case in node_tests.items()}
    kinds = ("agrees", "agrees with constants", "differs", "not translated", " holds ", "too old", *REFUSED)
    count = Counter(
        next((k for k in kinds if k in v), v) if "agrees" not in v else v for v in verdicts.values()
    )
    print(dict(count))
    assert [name for name, answer in verdicts.items() if answer == "differs"] == []
    assert count["agrees"] > 1000 and count["agrees with constants"] > 200
    assert {kind: count[kind] for kind in REFUSED} == REFUSED
    assert set(count) <= set(kinds)


def test_a_wrong_translation_would_be_seen(node_tests, monkeypatch):
    monkeypatch.setitem(translate.OPERATORS, "Relu", Operator(lambda node, x: tf.nn.relu6(x + 0.01), "all"))
    assert verdict(node_tests["test_relu"]) == "differs"
    monkeypatch.undo()
    assert verdict(node_tests["test_relu"]) == "agrees"


# Whole models, in which layouts meet


class Mobile(nn.Module):
    """Depthwise convolutions, a batch normalisation by itself, squeeze and excitation."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 8, 3, 2, 1), nn.Hardswish())
        self.deep = nn.Conv2d(8, 16, 5, 2, 2, groups=8)
        self.gate = nn.Sequential(nn.Conv2d(16, 4, 1), nn.ReLU6(), nn.Conv2d(4, 16, 1), nn.Hardsigmoid())
        self.last = nn.Sequential(nn.Conv2d(16, 16, 3, padding=2, dilation=2, groups=16), nn.PReLU(16))
        self.fc = nn.Linear(16, 5)

    def forward(self, x):
        x = self.deep(self.first(x))
        x = x * self.gate(x.mean((2, 3), keepdim=True))
        return self.fc(self.last(x).mean((2, 3)))


class UNet(nn.Module):
    """Down, up in three ways, joined along the channels, normalised in groups; an image comes out."""

    def __init__(self):
        super().__init__()
        self.down = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.GroupNorm(4, 8), nn.SiLU(), nn.MaxPool2d(3, 2, 1)
        )
        self.up = nn.ConvTranspose2d(8, 6, 3, 2, 1, output_padding=1, groups=2)
        self.norm = nn.InstanceNorm2d(14, affine=True)
        self.out = nn.Conv2d(17, 2, 3, padding=1)

    def forward(self, x):
        deep = self.down(x)
        near = nn.functional.interpolate(deep, scale_factor=2, mode="nearest")
        both = self.norm(torch.cat([self.up(deep), near], 1))
        smooth = nn.functional.interpolate(both, scale_factor=2, mode="bilinear")
        return self.out(torch.cat([smooth, x], 1)).softmax(1)


class Shuffle(nn.Module):
    """Groups of channels, shuffled by a reshape, split, cut and padded; pooling in several ways."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 12, 3, padding="same"), nn.Conv2d(12, 12, 3, groups=3)
        self.fc = nn.Linear(3 * 8 * 7 + 12 * 4, 5)

    def forward(self, x):
        x = nn.functional.pad(self.first(x), (1, 2, 0, 1), mode="reflect")
        x = nn.functional.leaky_relu(self.second(x))[:, :, 1:, :-2].contiguous()
        n, c, h, w = x.shape
        x = x.view(n, 3, 4, h, w).transpose(1, 2).reshape(n, c, h, w)
        a, b, *_ = torch.split(x, 3, 1)
        pooled = nn.functional.avg_pool2d(
            a + b.amax(1, keepdim=True), 2, 2, ceil_mode=True, count_include_pad=False
        )
        spread = nn.functional.adaptive_avg_pool2d(torch.nn.functional.avg_pool2d(x, 3, 1, 1), 2)
        return self.fc(torch.cat([pooled.flatten(1), spread.flatten(1)], 1))


class ConvNext(nn.Module):
    """A wide depthwise convolution, then channels-last layers as PyTorch writes them."""

    def __init__(self):
        super().__init__()
        self.stem, self.deep = nn.Conv2d(3, 8, 4, 4), nn.Conv2d(8, 8, 7, padding=3, groups=8)
        self.norm, self.wide, self.narrow = nn.LayerNorm(8), nn.Linear(8, 16), nn.Linear(16, 8)
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        x = self.stem(x)
        y = self.norm(self.deep(x).permute(0, 2, 3, 1))
        x = x + self.narrow(nn.functional.gelu(self.wide(y))).permute(0, 3, 1, 2)
        return self.fc(x.mean((-2, -1)))


class Sound(nn.Module):
    """One-dimensional convolutions, with holes and without."""

    def __init__(self):
        super().__init__()
        self.first, self.second = (
            nn.Conv1d(8, 6, 3, padding=2, dilation=2),
            nn.Conv1d(6, 6, 4, 2, 1, groups=6),
        )
        self.norm, self.up, self.fc = nn.BatchNorm1d(6), nn.ConvTranspose1d(6, 4, 4, 2, 1), nn.Linear(4, 5)

    def forward(self, x):
        x = torch.tanh(self.first(x.transpose(1, 2)))
        x = nn.functional.max_pool1d(self.norm(self.second(x)), 2)
        return self.fc(self.up(x).mean(2))


class Recurrent(nn.Module):
    """x [N, T, 8] → [N, 5], both ways along the sequence, in two layers."""

    def __init__(self, kind):
        super().__init__()
        self.layers = kind(8, 7, num_layers=2, bidirectional=True, batch_first=True)
        self.fc = nn.Linear(14, 5)

    def forward(self, x):
        return self.fc(self.layers(x)[0][:, -1])


class Encoder(nn.Module):
    """Self-attention over x [N, T, 8], and a mean over time."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, activation="gelu", batch_first=True)
        self.layers, self.fc = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(8, 5)

    def forward(self, x):
        return self.fc(self.layers(x).mean(1))


IMAGE, SEQUENCE = {"image": ("float32", (3, 16, 16))}, {"x": ("float32", (12, 8))}
FREE_IMAGE, FREE_SEQUENCE = {"image": ("float32", (3, "h", "w"))}, {"x": ("float32", ("time", 8))}
MODELS = {
    "mobile": (Mobile, IMAGE),
    "unet": (UNet, IMAGE),
    "shuffle": (Shuffle, IMAGE),
    "convnext": (ConvNext, IMAGE),
    "sound": (Sound, SEQUENCE),
    "lstm": (lambda: Recurrent(nn.LSTM), SEQUENCE),
    "gru": (lambda: Recurrent(nn.GRU), SEQUENCE),
    "rnn": (lambda: Recurrent(nn.RNN), SEQUENCE),
    "encoder": (Encoder, SEQUENCE),
    "mobile, any size": (Mobile, FREE_IMAGE),
    "lstm, any length": (lambda: Recurrent(nn.LSTM), FREE_SEQUENCE),
    "encoder, any length": (Encoder, FREE_SEQUENCE),
}
SIZES = {"h": 16, "w": 24, "time": 9}


def exported(name, opset=18):
    """ONNX bytes of one of MODELS, with random weights and statistics."""
    make, inputs = MODELS[name]
    torch.manual_seed(0)
    module = make()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
    specs = tuple(TensorSpec(key, dtype, ("batch", *shape)) for key, (dtype, shape) in inputs.items())
    variant = Variant(name, "torch", module.eval(), specs, (TensorSpec("y", "float32", ("batch", 5)),))
    return ExportOnnx(opset=opset)(variant).payload


def random_feeds(session, batch):
    random, feeds = np.random.default_rng(batch), {}
    for value in session.get_inputs():
        shape = [batch, *(SIZES.get(size, size) for size in value.shape[1:])]
        floating = value.type == "tensor(float)"
        feeds[value.name] = (
            random.standard_normal(shape).astype(np.float32) if floating else random.integers(0, 2, shape)
        )
    return feeds


def worst(results, expected):
    """The largest error as a share of the largest output."""
    return max(np.abs(results[n] - y).max() / np.abs(y).max() for n, y in expected.items())


def in_tensorflow(loaded, feeds):
    results = loaded.signatures["serving_default"](**{name: tf.constant(x) for name, x in feeds.items()})
    return {name: y.numpy() for name, y in results.items()}


def in_lite(payload, feeds):
    interpreter = Interpreter(model_content=payload)
    signature = interpreter.get_signature_list()["serving_default"]["inputs"]
    assert set(signature) == set(feeds)
    for details in interpreter.get_input_details():
        name = next(name for name in feeds if details["name"] == f"serving_default_{name}:0")
        interpreter.resize_tensor_input(details["index"], feeds[name].shape)
    return interpreter.get_signature_runner()(**feeds)


def check_everywhere(payload, folder, tolerance=1e-4):
    """ONNX Runtime's numbers, in TensorFlow and in TensorFlow Lite with its own operators alone."""
    module = as_tensorflow(onnx.load_model_from_string(payload))
    tf.saved_model.save(module, str(folder), signatures=module.__call__)
    lite = tf.lite.TFLiteConverter.from_saved_model(str(folder)).convert()
    loaded, session = tf.saved_model.load(str(folder)), ort.InferenceSession(payload)
    for batch in BATCHES:
        feeds = random_feeds(session, batch)
        expected = dict(
            zip([value.name for value in session.get_outputs()], session.run(None, feeds), strict=True)
        )
        assert worst(in_tensorflow(loaded, feeds), expected) <= tolerance, batch
        assert worst(in_lite(lite, feeds), expected) <= tolerance, batch


@pytest.mark.parametrize("name", MODELS)
def test_a_model_computes_the_same_in_tensorflow_and_in_tensorflow_lite(name, tmp_path):
    check_everywhere(exported(name), tmp_path)


@pytest.mark.parametrize("kind", ["two_inputs", "regression"])
def test_a_model_of_another_kind_computes_the_same(kind, onnx_cases, tmp_path):
    check_everywhere(onnx_cases[kind][0].payload, tmp_path)


def test_wrong_numbers_would_be_seen(tmp_path, monkeypatch):
    monkeypatch.setitem(translate.OPERATORS, "Tanh", Operator(lambda node, x: tf.tanh(1.01 * x), "all"))
    with pytest.raises(AssertionError):
        check_everywhere(exported("sound"), tmp_path)


def test_an_export_in_a_newer_opset_works_as_well(tmp_path):
    check_everywhere(exported("convnext", opset=23), tmp_path)


def test_an_int8_model_keeps_its_answers(lenet, digits, tmp_path):
    quantized = QuantizeInt8()(ExportOnnx()(lenet, digits), digits)
    check_everywhere(
        quantized.payload, tmp_path, tolerance=0.05
    )  # a half that rounds the other way is a step


def test_a_convolutional_network_is_transposed_once_at_its_entrance(digits):
    payload = ExportOnnx()(load_model("resnet20@digits"), digits).payload
    module = as_tensorflow(onnx.load_model_from_string(payload))
    count = Counter(op.type for op in module.__call__.get_concrete_function().graph.get_operations())
    assert count["Conv2D"] == 21
    assert count["Transpose"] == 1


# Names and refusals


def small_model(nodes, opset=18, inputs=("x",), outputs=("y",), constants=()):
    def values(names):
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in names]

    graph = helper.make_graph(nodes, "g", values(inputs), values(outputs), list(constants))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def test_the_signature_has_onnx_s_names_as_far_as_tensorflow_can_write_them(tmp_path):
    nodes = [helper.make_node("Add", ["input.1", "input:1"], ["层/out"])]
    module = as_tensorflow(small_model(nodes, inputs=["input.1", "input:1"], outputs=["层/out"]))
    assert module.input_names == {"input.1": "input_1", "input:1": "input_1_2"}
    assert module.output_names == {"层/out": "arg___out"}
    tf.saved_model.save(module, str(tmp_path), signatures=module.__call__)
    x = np.ones((5, 4), np.float32)
    results = in_tensorflow(tf.saved_model.load(str(tmp_path)), {"input_1": x, "input_1_2": 2 * x})
    assert results["arg___out"].tolist() == (3 * x).tolist()


def test_names_that_fall_together_stay_apart():
    names = ["a.b", "a:b", "a_b_2", "a_b", "A_b", "0", "_x"]
    short = tensorflow_names(names)
    assert list(short) == names
    assert len({name.lower() for name in short.values()}) == len(names)
    assert tensorflow_names(["x", "logits"]) == {"x": "x", "logits": "logits"}


def test_all_missing_operators_are_named_at_once():
    nodes = [helper.make_node("NonZero", ["x"], ["i"], name="where"), helper.make_node("Det", ["x"], ["d"])]
    nodes.append(helper.make_node("Wave", ["x"], ["y"], domain="my.own"))
    with pytest.raises(
        TechniqueError, match=r"opset 18.*Det \(node 'd'\), NonZero \(node 'where'\), my\.own\.Wave"
    ):
        as_tensorflow(small_model(nodes))
    assert "Relu" in supported() and not {"NonZero", "If", "Loop", "Scan"} & supported()


def test_what_an_operator_does_not_do_is_refused_with_its_node_and_the_fix():
    nodes = [helper.make_node("Dropout", ["x", "", "t"], ["y"], name="drop")]
    model = small_model(nodes, constants=[numpy_helper.from_array(np.array(True), "t")])
    with pytest.raises(TechniqueError, match=r"Dropout \(node 'drop', opset 18\).*evaluation mode"):
        as_tensorflow(model)


def test_an_old_opset_is_brought_up_to_date():
    model = small_model([helper.make_node("Squeeze", ["x"], ["y"], axes=[0])], opset=11)
    x = np.arange(4, dtype=np.float32)[None]
    assert as_tensorflow(model)(tf.constant(x))["y"].numpy().tolist() == [0, 1, 2, 3]
