"""Export to ONNX: the same numbers, a free batch, one clean file, and no model in training mode."""

from __future__ import annotations

import copy
import dataclasses
import subprocess
import sys
import threading

import onnx
import pytest
import torch
from torch import nn

from labkit.convert import ExportOnnx, load_onnx, parity
from labkit.convert.torch_to_onnx import quiet
from labkit.errors import ConfigError, ParityError, TechniqueError
from labkit.variant import TensorSpec, Variant


def variant_of(module: nn.Module, shape=("batch", 8), outputs=("batch", 3), **changes) -> Variant:
    variant = Variant(
        "m",
        "torch",
        module.eval(),
        (TensorSpec("x", "float32", shape),),
        (TensorSpec("y", "float32", outputs),),
    )
    return dataclasses.replace(variant, **changes)


@pytest.mark.parametrize("name", ["image", "two_inputs", "regression"])
def test_models_of_any_shape_compute_the_same_after_export(name, cases, onnx_cases):
    variant, dataset = cases[name]
    exported, _ = onnx_cases[name]
    report = parity(variant, exported, dataset)
    assert report.max_rel_error < 1e-5
    assert [row.batch_size for row in report.rows] == [1, 3, 7]
    assert report.top1_agreement == (None if variant.task == "regression" else 1.0)
    assert (exported.inputs, exported.outputs) == (variant.inputs, variant.outputs)


def test_every_named_dimension_stays_free(onnx_cases):
    graph = onnx.load_model_from_string(onnx_cases["two_inputs"][0].payload).graph
    for value in graph.input:
        assert [d.dim_param for d in value.type.tensor_type.shape.dim] == ["batch", "time"]


def test_a_fixed_batch_stays_fixed():
    module = nn.Linear(8, 3)
    exported = ExportOnnx()(variant_of(module, shape=(4, 8), outputs=(4, 3)))
    assert exported.inputs[0].shape == (4, 8)


def test_the_file_alone_can_be_loaded_again(onnx_cases, tmp_path):
    for name, (exported, _) in onnx_cases.items():
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(exported.payload)
        loaded = load_onnx(path)
        for field in ("task", "labels", "preprocessing", "payload"):
            assert getattr(loaded, field) == getattr(exported, field), (name, field)
        assert [(s.name, s.dtype, s.shape) for s in loaded.inputs] == [
            (s.name, s.dtype, s.shape) for s in exported.inputs
        ]


def test_batch_norms_are_folded_and_the_file_is_one_and_clean():
    module = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
    module[1].running_mean.normal_()
    exported = ExportOnnx()(variant_of(module, ("batch", 1, 8, 8), ("batch", 144)))
    model = onnx.load_model_from_string(exported.payload)
    assert [node.op_type for node in model.graph.node].count("BatchNormalization") == 0
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    assert not any(node.metadata_props for node in model.graph.node)
    assert b".py" not in exported.payload, "a stack trace tells where the exporting machine keeps its files"


def test_the_same_model_gives_the_same_bytes_with_data_or_without(cases, onnx_cases):
    variant, _ = cases["image"]
    assert ExportOnnx()(variant).payload == onnx_cases["image"][0].payload


def test_training_mode_is_refused_wherever_it_hides(lenet):
    model = copy.deepcopy(lenet.model)
    model.dropout.train()
    with pytest.raises(TechniqueError, match=r"dropout.*model.eval\(\)"):
        ExportOnnx()(dataclasses.replace(lenet, model=model))


class OnlyTwo(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.zeros(2, x.shape[1])


class OnlyEven(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(2, -1, 8).reshape(-1, 8)


@pytest.mark.parametrize(
    ("module", "says"), [(OnlyTwo(), "fixed dimension 'batch'"), (OnlyEven(), "batch 1")]
)
def test_a_model_that_cannot_take_every_batch_is_refused(module, says):
    with pytest.raises(TechniqueError, match=says):
        ExportOnnx()(variant_of(module, outputs=("batch", 8)))


class OtherNumbersInExport(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * (1.01 if torch.compiler.is_compiling() else 1.0)


def test_wrong_numbers_are_caught_and_shown():
    with pytest.raises(ParityError, match="max_rel_error.*tolerance") as caught:
        ExportOnnx()(variant_of(OtherNumbersInExport(), outputs=("batch", 8)))
    assert "top1_agreement" in str(caught.value)


def test_an_operator_that_onnx_does_not_have_is_named():
    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.special.airy_ai(x)

    with pytest.raises(TechniqueError, match="airy_ai"):
        ExportOnnx()(variant_of(Odd(), outputs=("batch", 8)))


@pytest.mark.parametrize("config", [{"opset": 17}, {"opset": 99}, {"tolerance": 0.0}])
def test_what_is_out_of_range_is_refused(config):
    with pytest.raises(ConfigError, match=next(iter(config))):
        ExportOnnx(**config)


@pytest.mark.parametrize("opset", [18, 23])
def test_the_opset_is_the_one_asked_for(opset):
    exported = ExportOnnx(opset=opset)(variant_of(nn.Linear(8, 3)))
    assert onnx.load_model_from_string(exported.payload).opset_import[0].version == opset


def test_nothing_reaches_stdout_or_stderr():
    code = (
        "from labkit.zoo import load_model; from labkit.convert import ExportOnnx;"
        "ExportOnnx()(load_model('lenet5@digits'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_what_other_threads_print_meanwhile_is_not_lost(capsys):
    with quiet():
        print("from the exporting thread")
        thread = threading.Thread(target=print, args=("from another thread",))
        thread.start()
        thread.join()
    assert capsys.readouterr().out == "from another thread\n"


def test_torch_s_exporter_does_write_to_both():
    code = (
        "import torch; torch.onnx.export(torch.nn.Linear(2, 2).eval(), (torch.ones(2, 2),), dynamo=True,"
        "dynamic_shapes=({0: torch.export.Dim('batch')},))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout and done.stderr


@pytest.mark.parametrize("package", ["labkit.convert", "labkit.quantize"])
def test_importing_the_package_does_not_import_torch(package):
    code = f"import sys, {package}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
