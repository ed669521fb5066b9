"""Every edge of the format graph that needs TensorFlow or MindSpore: there, and back where it makes sense."""

from __future__ import annotations

import numpy as np
import pytest

from labkit.convert import CONVERTERS, as_variant, convert, parity
from labkit.convert.map import edges, format_map
from labkit.errors import ConfigError, ModelFileError, ParityError, TechniqueError
from labkit.runtimes import RUNTIMES, RunOptions, get_runtime
from labkit.technique import probe
from labkit.variant import TensorSpec, Variant
from labkit.zoo import load_model
from tests.extra.models import keras_model, mindspore_model

pytestmark = pytest.mark.extra


def test_all_edges_but_tensorrt_are_open_here():
    shut = [edge for edge in edges() if not edge["available"]]
    assert [edge["converter"] for edge in shut] == ["onnx_to_tensorrt"]
    assert "unverified" in format_map() and "tensorrt is not installed" in format_map()
    assert {runtime.name for runtime in RUNTIMES if not runtime.is_available().ok} == {"tensorrt"}


@pytest.mark.parametrize("name", ["image", "two_inputs", "regression"])
@pytest.mark.parametrize("target", ["tensorflow", "tflite"])
def test_onnx_goes_to_tensorflow_and_to_tflite_and_back(name, target, forms):
    there, dataset = forms(target, name)
    back = convert(there, "onnx", dataset)
    original, _ = forms("onnx", name)
    report = parity(original, back.variant, dataset)
    assert report.max_rel_error < 1e-5
    assert [row.batch_size for row in report.rows] == [1, 3, 7]


@pytest.mark.parametrize("target", ["onnx", "tensorflow", "tflite", "openvino"])
def test_a_keras_model_goes_everywhere(target, forms):
    variant, dataset = forms("keras", "image")
    done = convert(variant, target, dataset)
    assert all(hop.report.max_rel_error < 1e-4 for hop in done.hops)
    assert done.path.startswith("keras → ") and done.path.endswith(target)


@pytest.mark.parametrize("target", ["onnx", "openvino", "tflite"])
def test_a_mindspore_cell_goes_everywhere_with_a_free_batch(target, forms):
    variant, dataset = forms("mindspore", "image")
    done = convert(variant, target, dataset)
    assert all(hop.report.max_rel_error < 1e-4 for hop in done.hops)
    assert done.variant.inputs[0].shape[0] == "batch"


def test_tflite_in_fewer_bits_is_smaller_and_its_error_is_larger(forms):
    variant, dataset = forms("onnx", "image")
    sizes, errors = [], []
    for precision in ("float32", "float16", "int8"):
        done = convert(variant, "tflite", dataset, precision=precision)
        sizes.append(done.variant.size_bytes)
        errors.append(done.hops[-1].report.max_rel_error)
    assert sizes[0] > 1.9 * sizes[1] > 3.6 * sizes[2] / 2 and errors[0] < errors[1] < errors[2]
    with pytest.raises(TechniqueError, match="needs a dataset to calibrate on"):
        convert(variant, "tflite", precision="int8")


def test_a_hop_that_departs_is_refused_with_its_table_unless_it_is_to_be_kept(forms):
    variant, dataset = forms("onnx", "image")
    settings = {"precision": "int8", "tolerance": 1e-6}
    with pytest.raises(ParityError, match="exceeds the tolerance 1e-06.*max_rel_error"):
        convert(variant, "tflite", dataset, **settings)
    kept = convert(variant, "tflite", dataset, keep=True, **settings).variant
    assert kept.lineage[-1].config["keep"] is True


@pytest.mark.parametrize("target", ["tensorflow", "tflite", "keras"])
def test_a_saved_variant_and_the_bare_file_are_read_back(target, forms, tmp_path):
    variant, dataset = forms(target, "image")
    read = load_model(variant.save(tmp_path / "saved"))
    assert read.digest == variant.digest and read.inputs == variant.inputs
    (bare,) = (tmp_path / "saved").glob("model-*")
    foreign = load_model(bare)
    assert [spec.shape for spec in foreign.inputs] == [spec.shape for spec in variant.inputs]
    assert parity(variant, foreign, probe(variant, 11)).max_rel_error == 0


def test_live_models_become_variants():
    model = as_variant(keras_model())
    assert isinstance(model, Variant)
    assert (model.format, model.inputs[0].shape) == ("keras", ("batch", 32, 32, 1))
    cell = mindspore_model()
    with pytest.raises(ConfigError, match="pass example="):
        as_variant(cell)
    variant = as_variant(cell, np.zeros((1, 1, 32, 32), np.float32))
    assert (variant.inputs[0].name, variant.outputs[0].shape) == ("input", ("batch", 10))


def test_tensorflow_takes_its_threads_once(forms):
    variant, _ = forms("tensorflow", "image")
    runtime = get_runtime("tensorflow")
    with runtime.load(variant) as session:
        other = session.options.threads + 1
    with pytest.raises(ConfigError, match=f"not {other}: start again"):
        runtime.load(variant, RunOptions(threads=other))


def test_the_same_keras_file_gives_the_same_onnx(forms):
    variant, dataset = forms("keras", "image")
    assert (
        convert(variant, "onnx", dataset).variant.payload == convert(variant, "onnx", dataset).variant.payload
    )


def test_every_converter_is_an_edge_of_its_own():
    ends = [(source, converter.target) for converter in CONVERTERS for source in converter.takes]
    assert len(set(ends)) == len(ends)


def test_outputs_of_one_layer_keep_apart(forms):
    import keras

    inputs = keras.Input((5, 3))
    made = keras.layers.LSTM(4, return_sequences=True, return_state=True, name="enc")(inputs)
    model = keras.Model(inputs, made)
    for target in ("tensorflow", "onnx"):
        done = convert(model, target)
        assert [spec.name for spec in done.variant.outputs] == ["enc", "enc_1", "enc_2"]
        assert len({row.output for row in done.hops[0].report.rows}) == 3


def test_keras_names_that_tensorflow_does_not_allow_become_plain_and_code_is_refused():
    import keras

    model = keras.Sequential([keras.layers.Input((3,), name="my input"), keras.layers.Dense(2, name="out-1")])
    for target in ("tensorflow", "onnx", "tflite"):
        assert convert(model, target).hops[0].report.max_rel_error < 1e-5
    done = convert(model, "tensorflow").variant
    assert [spec.name for spec in (*done.inputs, *done.outputs)] == ["my_input", "out_1"]
    inputs = keras.Input((3,))
    code = keras.Model(inputs, keras.layers.Lambda(lambda x: x + 1)(inputs))
    with pytest.raises(ModelFileError, match="Keras refuses"):
        convert(code, "onnx")


def test_names_with_dots_reach_tensorflow_with_an_example():
    import torch

    class Sum(torch.nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return a + 2 * b

    random = np.random.default_rng(0)
    specs = tuple(TensorSpec(f"input.{i}", "float32", ("batch", 3)) for i in (1, 2))
    outputs = (TensorSpec("y", "float32", ("batch", 3)),)
    variant = Variant("sum", "torch", Sum().eval(), specs, outputs, task="regression")
    onnx_ = convert(variant, "onnx").variant
    example = {spec.name: random.standard_normal((4, 3)).astype(np.float32) for spec in specs}
    done = convert(onnx_, "tflite", example=example)
    assert [spec.name for spec in done.variant.inputs] == ["input_1", "input_2"]
