"""Every technique keeps the template's promises; and the template catches those that do not."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch

from labkit.convert import Converter
from labkit.errors import Cancelled, ConfigError, TechniqueError
from labkit.pipeline import TECHNIQUES, Pipeline, make_technique
from labkit.prune import RemoveDeadUnits
from labkit.technique import Technique, knob, knobs

QUICK = {
    "train": {"epochs": 1, "max_samples": 64},
    "quantize_mixed": {"points": 3, "calibration_samples": 32, "check_samples": 64, "max_drop_pp": 100.0},
    "quantize_aware": {"epochs": 1, "max_samples": 64, "max_drop_pp": 100.0},
    **{
        method: {"epochs": 1, "student": "lenet5", "max_samples": 64}
        for method in ("distill", "distill_logits", "distill_hints", "distill_attention", "distill_decoupled")
    },
    "distill_self": {"epochs": 1, "max_samples": 64},
    "prune_magnitude": {"fine_tune_epochs": 1, "max_samples": 64},
    "prune_weights": {"fine_tune_epochs": 1, "max_samples": 64},
    "prune_channels": {"fine_tune_epochs": 1, "max_samples": 64},
    "factorize_low_rank": {"fine_tune_epochs": 1, "max_samples": 64},
    "cluster_weights": {"fine_tune_epochs": 1, "max_samples": 64},
}
here = [cls for cls in TECHNIQUES if not issubclass(cls, Converter) or cls.is_available().ok]
techniques = pytest.mark.parametrize("cls", here, ids=lambda cls: cls.name)


def quick(cls):
    config = {
        k: v for k, v in QUICK.get(cls.name, {}).items() if k in {f.name for f in dataclasses.fields(cls)}
    }
    return cls(**config)


def input_for(cls, request):
    variant, dataset = request.getfixturevalue("forms")(cls.takes[0], "image")
    if cls is RemoveDeadUnits:
        variant = dataclasses.replace(variant, model=copy.deepcopy(variant.model))
        with torch.no_grad():
            next(variant.model.parameters())[1] = 0  # a channel that nothing makes
            dict(variant.model.named_parameters())["conv1.bias"][1] = 0
    return variant, dataset


@techniques
def test_it_returns_a_new_variant_and_leaves_its_input(cls, request):
    variant, dataset = input_for(cls, request)
    before, steps = variant.fingerprint(), variant.lineage
    result = quick(cls)(variant, dataset)
    assert variant.fingerprint() == before and variant.lineage == steps
    assert result is not variant and result.digest != before
    assert result.lineage[-1].technique == cls.name and before in result.lineage[-1].parents
    assert result.task == variant.task and result.labels == variant.labels
    assert result.preprocessing == variant.preprocessing


@techniques
def test_its_config_survives_json(cls):
    technique = quick(cls)
    assert make_technique(cls.name, json.loads(json.dumps(technique.config))) == technique


@techniques
def test_the_same_seed_gives_the_same_bytes(cls, request):
    variant, dataset = input_for(cls, request)
    first, second = quick(cls)(variant, dataset), quick(cls)(variant, dataset)
    if getattr(cls, "reproducible", True):
        assert first.payload == second.payload
    else:  # the weights, if not the names of functions
        same = [name for name in first.model if first.model[name] == second.model[name]]
        assert set(first.model) - set(same) == {"saved_model.pb"} and first.size_bytes == second.size_bytes


@techniques
def test_every_knob_refuses_what_is_out_of_range_and_names_it(cls):
    assert knobs(cls), "a technique without knobs has no user interface"
    for field in knobs(cls):
        assert field.metadata["help"]
        for value in bad_values(field):
            with pytest.raises(ConfigError, match=field.name) as caught:
                cls(**{field.name: value})
            assert repr(value) in str(caught.value)


@techniques
def test_its_own_knobs_are_shown_before_those_that_it_shares(cls):
    names = [field.name for field in knobs(cls)]
    own = [name for name in vars(cls).get("__annotations__", {}) if name in names]
    assert set(names[: len(own)]) == set(own) and names == [field.name for field in knobs(cls())]


def bad_values(field):
    meta = field.metadata
    if meta["choices"]:
        return ["no such choice"]
    if isinstance(field.default, bool):
        return ["yes"]
    number = float if field.default is None else type(field.default)
    bad = [math.nan] if field.default is None or isinstance(field.default, float) else [0.5]
    for bound, step in (("min", -1), ("max", 1)):
        if meta[bound] is not None:
            bad.append(number(meta[bound] + step))
    bad += [number(meta[bound]) for bound in ("above", "below") if meta[bound] is not None]
    return bad


@techniques
def test_the_wrong_format_says_what_to_do(cls, request):
    form = next(form for form in ("torch", "onnx", "pt2") if form not in cls.takes)
    other = request.getfixturevalue("forms")(form, "image")
    with pytest.raises(TechniqueError, match=r"export it first|PyTorch|labkit.convert"):
        quick(cls)(*other)


@techniques
def test_it_can_be_cancelled(cls, request):
    variant, dataset = input_for(cls, request)
    reported = []

    def stop(fraction, message):
        reported.append(message)
        raise Cancelled

    with pytest.raises(Cancelled):
        quick(cls)(variant, dataset, stop)
    assert len(reported) == 1, "it went on after Cancelled"


@pytest.mark.parametrize("name", ["two_inputs", "regression"])
def test_export_and_quantization_take_models_of_any_shape(name, cases, onnx_cases):
    variant, dataset = onnx_cases[name]
    quantized = make_technique("quantize_int8", {})(variant, dataset)
    assert quantized.digest != variant.digest
    assert [spec.name for spec in quantized.inputs] == [spec.name for spec in cases[name][0].inputs]


@pytest.mark.parametrize("name", ["two_inputs", "regression"])
def test_training_takes_models_of_any_shape(name, cases):
    variant, dataset = cases[name]
    trained = make_technique("train", {"epochs": 3, "learning_rate": 0.02, "augment": "none"})(
        variant, dataset
    )
    assert trained.digest != variant.digest


@dataclass(frozen=True)
class Faulty(Technique):
    """A technique with the fault that its field names."""

    name: ClassVar[str] = "faulty"
    title: ClassVar[str] = "Faulty"
    takes: ClassVar[tuple[str, ...]] = ("torch",)
    fault: str = knob("mutates", "what to do wrong", choices=("mutates", "nothing", "same", "nan", "none"))

    def apply(self, variant, dataset, progress):
        model = copy.deepcopy(variant.model)
        if self.fault == "mutates":
            variant.model.fc2.bias.data += 1
        if self.fault == "same":
            return variant
        if self.fault == "nan":
            model.fc2.bias.data[0] = np.nan
        if self.fault in ("mutates", "none"):
            model.fc2.bias.data += 2
        return variant.derive(variant.name, self.step(variant), model=model)


@pytest.mark.parametrize(
    ("fault", "says"),
    [("mutates", "was given"), ("nothing", "changed nothing"), ("same", "changed nothing"), ("nan", "NaN")],
)
def test_the_template_catches_a_faulty_technique(fault, says, lenet, digits):
    fresh = dataclasses.replace(lenet, model=copy.deepcopy(lenet.model))
    Faulty("none")(fresh, digits)
    with pytest.raises(TechniqueError, match=says):
        Faulty(fault)(fresh, digits)


def test_a_technique_that_needs_data_says_so(lenet):
    with pytest.raises(TechniqueError, match="load_dataset"):
        make_technique("train", {})(lenet)


def test_data_for_another_task_is_refused(cases):
    with pytest.raises(TechniqueError, match="regression"):
        make_technique("train", {})(cases["image"][0], cases["regression"][1])


def test_a_pipeline_is_a_technique_and_survives_toml(tmp_path, lenet, digits):
    pipeline = Pipeline(
        (
            make_technique("prune_magnitude", {"sparsity": 0.5}),
            make_technique("export_onnx", {}),
            make_technique("quantize_int8", {}),
        )
    )
    pipeline.save(tmp_path / "recipe.toml")
    assert Pipeline.load(tmp_path / "recipe.toml") == pipeline
    result = pipeline(lenet, digits)
    assert [step.technique for step in result.lineage[-3:]] == [
        "prune_magnitude",
        "export_onnx",
        "quantize_int8",
    ]


EXPORT = '[[step]]\ntechnique = "export_onnx"\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no steps"),
        ("[[step]]\ntechnique = 'prune_magnitud'", "did you mean 'prune_magnitude'"),
        ("[[step]]\ntechnique = 'prune_magnitude'\nsparsitty = 1", "did you mean 'sparsity'"),
        ("[[step]]\ntechnique = 'prune_magnitude'\nsparsity = 1.0", "sparsity"),
        ("step = 3", "no steps"),
        ("[[step", "TOML"),
        ("step = []", "no steps"),
        ("[[step]]\nsparsity = 0.5", r"step 1 has no technique: .* such as technique = \"prune_magnitude\""),
        (f"{EXPORT}[[step]]\ntechnique = 'prunee'", r"step 2: unknown technique 'prunee'"),
        (
            f"{EXPORT}[[step]]\ntechnique = 'quantize_int8'\nbitz = 4",
            "step 2: quantize_int8 has no field 'bitz'",
        ),
        (f"{EXPORT}[[step]]\ntechnique = 'prune_magnitude'\nsparsity = 2.0", "step 2: .*sparsity=2.0"),
        ("#" * 200_000, "not a recipe"),
    ],
)
def test_a_bad_recipe_is_refused_with_the_file_and_the_step(text, says, tmp_path):
    (tmp_path / "recipe.toml").write_text(text)
    with pytest.raises(ConfigError, match=rf"recipe\.toml.*{says}"):
        Pipeline.load(tmp_path / "recipe.toml")


def test_a_recipe_that_begins_with_a_byte_order_mark_is_read(tmp_path):
    """Notepad writes one."""
    (tmp_path / "recipe.toml").write_bytes(EXPORT.encode("utf-8-sig"))
    assert [step.name for step in Pipeline.load(tmp_path / "recipe.toml").steps] == ["export_onnx"]


def test_steps_that_cannot_follow_each_other_are_refused_before_the_first_begins(lenet, digits):
    told = []
    pipeline = Pipeline(tuple(make_technique(name, {}) for name in ("export_onnx", "cluster_weights")))
    with pytest.raises(TechniqueError, match="step 2, cluster_weights, works on torch, .* is onnx"):
        pipeline(lenet, digits, lambda fraction, message: told.append(message))
    assert not told


@pytest.mark.parametrize(
    ("names", "reaches", "says"),
    [
        (["quantize_int8"], "torch", "put a step before it: .*technique = .export_onnx.*"),
        (
            ["prune_weights", "quantize_int8"],
            "torch",
            "step 2, .* put a step before it: .*technique = .export_onnx.*",
        ),
        (["quantize_int8", "export_onnx"], "torch", "step 1, .* put the steps into another order"),
        (["export_onnx", "cluster_weights"], "torch", "step 2, .* put the steps into another order"),
        (["cluster_weights"], "onnx", "use the PyTorch variant"),
    ],
)
def test_a_step_that_cannot_take_what_reaches_it_says_what_would_help(names, reaches, says):
    recipe = Pipeline(tuple(make_technique(name, {}) for name in names))
    with pytest.raises(TechniqueError, match=says) as refusal:
        recipe.makes(reaches)
    assert ("another order" in str(refusal.value)) == ("another order" in says)


def test_an_empty_pipeline_is_refused():
    with pytest.raises(ConfigError, match="at least one step"):
        Pipeline(())
