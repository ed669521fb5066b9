"""A pipeline that was saved is loaded as it was, whatever its steps are made of."""

from __future__ import annotations

import pytest

from labkit.convert import ExportOnnx
from labkit.distill import Distill
from labkit.errors import ConfigError, TechniqueError
from labkit.pipeline import Pipeline
from labkit.prune import PruneMagnitude
from labkit.quantize import QuantizeInt8


@pytest.mark.parametrize("place", ["/data/\U0001f600.npz", "/data/Ä\t\x7f\x1f\"'\\u0041.npz"])
def test_texts_of_any_characters_come_back(place, tmp_path):
    recipe = Pipeline((Distill(transfer=place, alpha=1.0),))
    recipe.save(tmp_path / "recipe.toml")
    assert Pipeline.load(tmp_path / "recipe.toml") == recipe


def test_a_text_that_no_file_can_hold_is_refused_and_named(tmp_path):
    recipe = Pipeline((Distill(transfer="/data/\udcff.npz", alpha=1.0),))
    with pytest.raises(ConfigError, match=r"transfer='/data/.udcff\.npz' is no Unicode text.* rename"):
        recipe.save(tmp_path / "recipe.toml")
    assert not list(tmp_path.iterdir())


def test_the_steps_of_a_pipeline_in_a_pipeline_are_steps_like_the_others(tmp_path):
    recipe = Pipeline((PruneMagnitude(), Pipeline((Pipeline((ExportOnnx(),)), QuantizeInt8()))))
    assert recipe == Pipeline((PruneMagnitude(), ExportOnnx(), QuantizeInt8()))
    assert recipe.makes("torch") == "onnx"
    recipe.save(tmp_path / "recipe.toml")
    assert Pipeline.load(tmp_path / "recipe.toml") == recipe
    with pytest.raises(TechniqueError, match="step 2, export_onnx"):
        Pipeline((Pipeline((ExportOnnx(),)), ExportOnnx())).makes("torch")


def test_a_checkpoint_of_a_part_is_refused():
    part = Pipeline((PruneMagnitude(),), checkpoint="kept")
    with pytest.raises(
        ConfigError, match=r"step 1 is a Pipeline with checkpoint='kept'.* give it to the whole"
    ):
        Pipeline((part,))
