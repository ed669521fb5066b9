"""The format graph: a path is found, every hop is proved, what cannot be is refused with the next thing to type."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from labkit.cli import app
from labkit.convert import (
    CONVERTERS,
    Converter,
    as_variant,
    convert,
    find_path,
    find_paths,
    parity,
    reachable,
)
from labkit.convert.edges import every_path
from labkit.convert.map import edges, format_map
from labkit.errors import (
    ConfigError,
    ModelFileError,
    ParityError,
    TechniqueError,
    TensorError,
    UnavailableError,
)
from labkit.formats.archive import read_zip
from labkit.runtimes import Availability, get_runtime
from labkit.variant import FORMATS, Preprocessing, TensorSpec, Variant
from labkit.zoo import load_model


@pytest.fixture
def all_installed(monkeypatch):
    monkeypatch.setattr(Converter, "is_available", classmethod(lambda cls: Availability(True)))


def formats_of(path) -> list[str]:
    return [edge.target for edge in path]


def test_the_shortest_path_is_found(all_installed):
    assert formats_of(find_path("torch", "tflite")) == ["onnx", "tensorflow", "tflite"]
    assert formats_of(find_path("keras", "tflite")) == ["tensorflow", "tflite"]
    assert formats_of(find_path("mindspore", "openvino")) == ["onnx", "openvino"]


def test_other_paths_follow_and_no_format_is_met_twice(all_installed):
    paths = [formats_of(path) for path in find_paths("keras", "tflite")]
    assert paths == [["tensorflow", "tflite"], ["onnx", "tensorflow", "tflite"]]
    for source in FORMATS:
        for target in FORMATS:
            for path in every_path(source.name, target.name):
                assert len({source.name, *formats_of(path)}) == len(path) + 1


def test_formats_that_no_path_reaches_are_named():
    with pytest.raises(ConfigError, match="no conversion leads from openvino to onnx; .* reaches: none"):
        find_path("openvino", "onnx")
    with pytest.raises(ConfigError, match="already: nothing to convert"):
        find_path("onnx", "onnx")
    with pytest.raises(ConfigError, match="did you mean 'tflite'"):
        find_path("onnx", "tflight")
    assert reachable("torch") == ["pt2", "onnx", "openvino", "tensorflow", "tflite", "tensorrt"]


def test_a_missing_package_is_named_with_the_line_that_installs_it(monkeypatch):
    gone = Availability(False, "the package tensorflow is not installed", "pip install 'labkit[tensorflow]'")
    for edge in CONVERTERS:
        monkeypatch.setattr(edge, "is_available", classmethod(lambda cls: gone))
    with pytest.raises(
        UnavailableError, match=r"goes through export_onnx: .* pip install 'labkit\[tensorflow\]'"
    ):
        find_path("torch", "onnx")
    assert all(not edge["available"] for edge in edges())
    assert "○" in format_map() and "●" not in format_map().split("\n", 1)[1]


def test_the_map_shows_every_edge_and_that_tensorrt_is_unverified():
    text = format_map()
    assert all(edge["from"] in text and edge["to"] in text for edge in edges())
    assert "TensorRT engine  (code, unverified)" in text
    assert len(edges()) == sum(len(edge.takes) for edge in CONVERTERS)


@pytest.mark.parametrize("name", ["image", "two_inputs", "regression"])
@pytest.mark.parametrize("target", ["pt2", "openvino"])
def test_models_of_any_shape_arrive_with_their_numbers(name, target, cases):
    variant, dataset = cases[name]
    done = convert(variant, target, dataset)
    assert done.path == ("torch → pt2" if target == "pt2" else "torch → onnx → openvino")
    assert all(hop.report.max_rel_error < 1e-5 for hop in done.hops)
    assert [row.batch_size for row in done.hops[0].report.rows] == [1, 3, 7]
    assert [step.technique for step in done.variant.lineage[-len(done.hops) :]] == [
        hop.converter.name for hop in done.hops
    ]
    assert "max_rel_error" in done.table()


@pytest.mark.parametrize("target", ["pt2", "openvino"])
def test_what_is_saved_is_read_back_as_variant_and_as_bare_file(target, cases, tmp_path):
    variant, dataset = cases["image"]
    done = convert(variant, target, dataset)
    done.save(tmp_path / "folder")
    assert load_model(tmp_path / "folder").digest == done.variant.digest
    bare = tmp_path / ("model.pt2" if target == "pt2" else "model.xml")
    written = done.save(bare)
    assert written[-1] == bare and (bare.with_suffix(".bin") in written) == (target == "openvino")
    read = load_model(bare)
    assert [spec.shape for spec in read.inputs] == [spec.shape for spec in variant.inputs]
    if target == "openvino":  # it carries what labkit wrote into the ONNX file
        assert (read.labels, read.preprocessing) == (variant.labels, variant.preprocessing)


def test_an_exported_program_holds_no_pickle_and_no_path_of_this_machine(cases):
    payload = convert(cases["image"][0], "pt2").variant.payload
    assert b"stack_trace" not in payload and b"site-packages" not in payload and b"/home" not in payload
    files = read_zip(payload, "a program")
    assert not [name for name, content in files.items() if content[:1] == b"\x80" or content[:2] == b"PK"]


class Doubled(nn.Module):
    """Two outputs of one input, the second with an axis that is not the batch's."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x * 2, x.sum(1, keepdim=True)


def test_a_live_module_becomes_a_variant_and_its_outputs_are_observed():
    example = {"x": np.ones((2, 5), np.float32)}
    variant = as_variant(Doubled().eval(), example)
    assert [(spec.name, spec.shape) for spec in variant.inputs] == [("x", ("batch", 5))]
    assert [(spec.name, spec.shape) for spec in variant.outputs] == [
        ("output_0", ("batch", 5)),
        ("output_1", ("batch", 1)),
    ]
    done = convert(Doubled().eval(), "onnx", example=example)
    assert done.variant.name == "doubled" and done.hops[0].report.max_rel_error == 0


def test_the_proof_goes_round_in_the_example():
    class Half(nn.Module):
        """Not a number for zeros and for negative ones: random samples would be none."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.log(x)

    example = np.full((2, 3), 7, np.float32)
    assert convert(Half().eval(), "onnx", example=example).hops[0].report.max_rel_error < 1e-6
    variant = as_variant(Half().eval(), example)
    with pytest.raises(TechniqueError):
        convert(variant, "onnx")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ((nn.Linear(3, 2), None), "does not know its inputs' shapes: pass example="),
        ((nn.Linear(3, 2), {"x": [[1.0]]}), r"example\['x'\] must be a numpy array"),
        ((nn.Linear(3, 2), np.zeros((0, 3), np.float32)), "one or more samples"),
        ((object(), None), "a object is no model that labkit knows"),
    ],
)
def test_what_is_no_model_or_lacks_an_example_is_refused(given, says):
    with pytest.raises(ConfigError, match=says):
        as_variant(*given)


def test_an_unknown_setting_suggests_the_nearest(lenet):
    with pytest.raises(ConfigError, match="did you mean 'opset'"):
        convert(lenet, "onnx", opzet=18)


@dataclass(frozen=True)
class Wrong(Converter):
    """An edge that shifts the last bias: another function."""

    name: ClassVar[str] = "wrong"
    title: ClassVar[str] = "Wrong"
    takes: ClassVar[tuple[str, ...]] = ("torch",)
    target: ClassVar[str] = "torch"

    def convert(self, variant: Variant, dataset: Any, progress: Any) -> dict[str, Any]:
        import copy

        model = copy.deepcopy(variant.model)
        model.fc2.bias.data[0] += 1
        return {"model": model}


def test_a_hop_that_departs_is_refused_with_its_table_unless_it_is_to_be_kept(lenet, digits):
    with pytest.raises(ParityError, match=r"exceeds the tolerance 0.0001.*batch .* 7 logits"):
        Wrong()(lenet, digits)
    assert Wrong(keep=True)(lenet, digits).lineage[-1].config["keep"] is True
    assert Wrong(tolerance=1.0)(lenet, digits).digest != lenet.digest


def test_the_next_path_is_tried_where_a_converter_cannot_say_something(lenet, digits, monkeypatch):
    import labkit.convert.conversion as module

    class Refusing(Wrong):
        name = "refusing"

        def convert(self, variant, dataset, progress):
            raise TechniqueError("no word for this operator")

    (good,) = [edge for edge in CONVERTERS if edge.name == "export_onnx"]
    monkeypatch.setattr(module, "find_paths", lambda source, to: [(Refusing,), (good,)])
    assert convert(lenet, "onnx", digits).hops[0].converter.name == "export_onnx"
    monkeypatch.setattr(module, "find_paths", lambda source, to: [(Refusing,)])
    with pytest.raises(TechniqueError, match="no word for this operator"):
        convert(lenet, "onnx", digits)
    monkeypatch.setattr(module, "find_paths", lambda source, to: [(Wrong,), (good,)])
    with pytest.raises(ParityError):  # a wrong result is no reason to look elsewhere in silence
        convert(lenet, "onnx", digits)


def run(*words: object) -> None:
    app([str(word) for word in words], standalone_mode=False)


def test_the_command_writes_the_file_and_prints_the_proof(tmp_path, capsys):
    run("convert", "lenet5@digits", "--to", "openvino", "--out", tmp_path / "m.xml", "--json")
    document = json.loads(capsys.readouterr().out)
    assert document["path"] == "torch → onnx → openvino" and document["samples"] == "digits"
    assert [hop["converter"] for hop in document["hops"]] == ["export_onnx", "onnx_to_openvino"]
    assert all(hop["max_rel_error"] < 1e-5 and hop["top1_agreement"] == 1.0 for hop in document["hops"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.bin", "m.xml"]
    run("convert", "lenet5@digits", "--to", "pt2", "--out", tmp_path / "m.pt2")
    run("convert", tmp_path / "m.pt2", "--to", "onnx", "--out", tmp_path / "m.onnx")
    out = capsys.readouterr().out
    assert "compared on random samples" in out and f"wrote {tmp_path / 'm.onnx'}" in out


def test_nothing_is_written_where_the_conversion_is_refused(tmp_path, capsys):
    with pytest.raises(ConfigError, match="nothing to convert"):
        run("convert", "lenet5@digits", "--to", "torch", "--out", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_formats_command_tells_the_same_as_data(capsys):
    run("formats", "--json")
    assert json.loads(capsys.readouterr().out)["edges"] == edges()
    run("formats")
    assert capsys.readouterr().out.strip() == format_map().strip()


def test_a_live_model_is_told_how_its_images_are_prepared():
    network, example = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval(), np.zeros((1, 1, 2, 2), np.float32)
    images = np.full((3, 1, 2, 2), 255, np.uint8)
    with pytest.raises(TensorError, match=r"uint8.*preprocessing=labkit\.Preprocessing\(scale=1 / 255\)"):
        as_variant(network, example).feeds({"x": images})
    how = Preprocessing(scale=1 / 255)
    for given in (how, {"input": how}):
        variant = as_variant(network, example, preprocessing=given)
        assert variant.feeds({"x": images})["input"].tolist() == np.ones((3, 1, 2, 2)).tolist()
    with pytest.raises(ConfigError, match=r"preprocessing\['imput'\] is of no input.*did you mean 'input'"):
        as_variant(network, example, preprocessing={"imput": how})


def test_a_model_in_memory_that_cannot_be_rebuilt_is_not_saved(tmp_path):
    variant = as_variant(nn.Linear(3, 2).eval(), np.zeros((1, 3), np.float32))
    with pytest.raises(ModelFileError, match="cannot be rebuilt without pickle"):
        variant.save(tmp_path / "v")


class Difference(nn.Module):
    """a − b: the order of the arguments matters; the result comes as a dictionary."""

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"difference": a - b, "double": (a - b) * 2}


def test_an_example_follows_the_arguments_names_and_not_its_own_order():
    first, second = np.full((2, 3), 5, np.float32), np.full((2, 3), 1, np.float32)
    variant = as_variant(Difference().eval(), {"b": second, "a": first})
    assert [spec.name for spec in variant.inputs] == ["a", "b"] and len(variant.outputs) == 2
    done = convert(Difference().eval(), "onnx", example={"b": second, "a": first})
    with get_runtime("onnxruntime").load(done.variant) as session:
        assert session.run({"a": first, "b": second})["output_0"].max() == 4
    with pytest.raises(ConfigError, match=r"example\['c'\] is no argument of the model; .*a, b"):
        as_variant(Difference().eval(), {"a": first, "c": second})


def test_a_live_model_in_training_mode_is_refused_and_left_as_it_is():
    model = nn.Sequential(nn.Linear(3, 2), nn.Dropout()).train()
    with pytest.raises(TechniqueError, match="is in training mode: call model.eval"):
        convert(model, "onnx", example=np.zeros((2, 3), np.float32))
    assert model.training


def test_a_model_of_float64_stays_one_and_a_regression_is_one_in_the_file(tmp_path):
    example = np.random.default_rng(0).standard_normal((2, 3))
    done = convert(nn.Linear(3, 2).double().eval(), "onnx", example=example, task="regression")
    assert done.variant.outputs[0].dtype == "float64"
    read = load_model(done.save(tmp_path / "m.onnx")[0])
    assert (read.task, read.outputs[0].dtype) == ("regression", "float64")


@pytest.mark.parametrize(
    ("example", "says"),
    [
        (np.zeros((2, 3)), r"cannot compute on the example, input float64 \[2, 3\]"),
        (np.zeros((2, 4), np.float32), r"cannot compute on the example, input float32 \[2, 4\]"),
        ({}, "must hold at least one array"),
        (
            {"input": np.zeros((2, 3), np.float32), "x": np.zeros((1, 3), np.float32)},
            "same number of samples",
        ),
    ],
)
def test_an_example_that_the_model_cannot_take_is_told_in_its_words(example, says):
    with pytest.raises(ConfigError, match=says):
        convert(nn.Linear(3, 2).eval(), "onnx", example=example)


def test_a_fixed_axis_beside_a_free_batch_does_not_hide_a_frozen_one():
    """y = reshape(x, [1, 3]) + a[1]: right at batch 1 only, while `a` has one row always."""
    value = onnx.helper.make_tensor_value_info
    nodes = [
        onnx.helper.make_node("Reshape", ["x", "shape"], ["r"]),
        onnx.helper.make_node("Add", ["r", "a"], ["y"]),
    ]
    shape = onnx.numpy_helper.from_array(np.array([1, 3]), "shape")
    ends = [value("x", 1, ["batch", 3]), value("a", 1, [1])], [value("y", 1, ["batch", 3])]
    model = onnx.helper.make_model(
        onnx.helper.make_graph(nodes, "g", *ends, [shape]),
        opset_imports=[onnx.helper.make_opsetid("", 18)],
        ir_version=10,
    )
    specs = (TensorSpec("x", "float32", ("batch", 3)), TensorSpec("a", "float32", (1,)))
    outputs = (TensorSpec("y", "float32", ("batch", 3)),)
    frozen = Variant("frozen", "onnx", model.SerializeToString(), specs, outputs, task="regression")

    class Right(nn.Module):
        def forward(self, x: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
            return x + a

    right = Variant("right", "torch", Right().eval(), specs, outputs, task="regression")
    assert frozen.fixed_batch is None
    with pytest.raises(ParityError, match="at batch 3"):
        parity(right, frozen)


def test_two_outputs_of_one_name_are_no_variant(lenet):
    with pytest.raises(ModelFileError, match="two outputs of one name"):
        dataclasses.replace(lenet, outputs=lenet.outputs * 2)


def test_a_file_is_replaced_but_never_written_under_another_formats_ending(tmp_path, capsys):
    for _ in range(2):
        run("convert", "lenet5@digits", "--to", "onnx", "--out", tmp_path / "m.onnx")
    done = convert(load_model(tmp_path / "m.onnx"), "openvino")
    with pytest.raises(
        ConfigError, match="m.onnx ends as ONNX does, the model is OpenVINO IR: end it in '.xml'"
    ):
        done.save(tmp_path / "m.onnx")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "model-mine.txt").touch()
    assert [path.name for path in done.save(tmp_path / "folder")][0] == "variant.json"
    assert "model-mine.txt" not in [path.name for path in done.save(tmp_path / "folder")]


def test_the_microscope_can_be_called_by_its_short_name(lenet, digits):
    import labkit as lk

    assert lk.microscope(lenet, convert(lenet, "onnx", digits).variant, digits).first is None
