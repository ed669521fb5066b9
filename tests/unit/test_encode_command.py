"""`labkit encode`, `labkit apply` and `labkit inspect`: from a model to a file that is weighed, and back."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from labkit.cli.telling import quality_of
from labkit.encode import anatomy
from labkit.errors import ConfigError
from labkit.pipeline import Pipeline
from labkit.task import get_task
from labkit.technique import Technique
from labkit.zoo import load_model
from tests.small_lenet import save_small_lenet

RECIPE = """
[[step]]
technique = "prune_magnitude"
sparsity = 0.8

[[step]]
technique = "cluster_weights"
conv_levels = 4
bias_levels = 2
"""


@pytest.fixture
def run(run, tmp_path, lenet):
    """Run `labkit` where a small variant lies in "model": (status, stdout, stderr)."""
    save_small_lenet(lenet, "model")
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return run


def test_a_recipe_is_one_command_from_model_to_file(run, tmp_path):
    status, out, err = run("apply", "model", "--recipe", "recipe.toml", "--out", "a.lkz")
    assert (status, err) == (0, "")
    size = (tmp_path / "a.lkz").stat().st_size
    assert f"{size:,} bytes" in out and "saved in a.lkz" in out
    assert "prune_magnitude+cluster_weights" in load_model(tmp_path / "a.lkz").name


def test_a_recipe_may_end_in_another_format(run, tmp_path):
    (tmp_path / "recipe.toml").write_text(
        '[[step]]\ntechnique = "prune_magnitude"\n[[step]]\ntechnique = "export_onnx"\n'
    )
    status, out, _ = run("apply", "model", "--recipe", "recipe.toml", "--out", "a.onnx")
    assert status == 0 and "saved in a.onnx" in out
    assert load_model(tmp_path / "a.onnx").format == "onnx"


def test_a_model_is_coded_as_it_is_or_clustered_first(run, tmp_path):
    assert run("encode", "model", "--out", "plain.lkz")[0] == 0
    assert load_model(tmp_path / "plain.lkz").digest == load_model(tmp_path / "model").digest
    assert (
        run("encode", "model", "--method", "cluster", "--set", "linear_levels=3", "--out", "few.lkz")[0] == 0
    )
    assert (tmp_path / "few.lkz").stat().st_size < 0.25 * (tmp_path / "plain.lkz").stat().st_size
    assert run("encode", "model", "--method", "cluster", "--out", "folder")[0] == 0
    assert (tmp_path / "folder" / "variant.json").exists()


def test_any_command_that_makes_a_pytorch_model_can_end_in_coded_weights(run, tmp_path):
    status, _, err = run("prune", "model", "--out", "pruned.lkz")
    assert (status, err) == (0, "") and load_model(tmp_path / "pruned.lkz").name == "small+prune_magnitude"
    status, _, err = run("quantize", "model", "--method", "half", "--out", "half.lkz")
    assert status == 1 and "which PyTorch variants have" in err


def test_it_shows_where_every_byte_went_and_what_others_take(run, tmp_path):
    status, out, _ = run(
        "encode", "model", "--method", "cluster", "--out", "a.lkz", "--show", "--dataset", "digits"
    )
    assert status == 0 and "lzma -9e, sparse" in out and "on 225 validation samples" in out
    assert anatomy(tmp_path / "a.lkz").table() in out
    status, inspected, _ = run("inspect", "a.lkz")
    assert inspected.strip() == anatomy(tmp_path / "a.lkz").table()


def test_a_recipe_that_trains_asks_for_data(run, tmp_path):
    (tmp_path / "recipe.toml").write_text('[[step]]\ntechnique = "prune_weights"\nfine_tune_epochs = 1\n')
    status, _, err = run("apply", "model", "--recipe", "recipe.toml", "--out", "a.lkz")
    assert status == 1 and "the recipe needs samples, and model does not say" in err and "digits" in err


def test_json_is_one_document(run, tmp_path):
    document = json.loads(run("encode", "model", "--out", "a.lkz", "--json")[1])
    assert document["size_bytes"] == (tmp_path / "a.lkz").stat().st_size
    assert document["baselines"]["lzma -9e, dense"] > 0
    inspected = json.loads(run("inspect", "a.lkz", "--json")[1])
    assert inspected["size_bytes"] == document["size_bytes"]
    network = inspected["network"]
    assert network == "small, of the architecture lenet5: image [batch, 1, 32, 32] → logits [batch, 10]"
    assert run("inspect", "a.lkz")[1].startswith(network + "\n\ntensor ")


def test_a_number_that_json_has_not_is_null():
    facts, words = quality_of(get_task("regression"), np.array([1.0]))
    json.dumps(facts, allow_nan=False)
    assert facts["quality"] == 1.0 and facts["quality_ci95"] == [None, None] and "inf" in words


def test_what_is_no_architecture_any_more_is_kept_as_onnx(run, tmp_path, monkeypatch):
    def wrapped(self, variant, dataset, progress):
        return dataclasses.replace(variant, model=torch.nn.Sequential(variant.model).eval())

    monkeypatch.setattr(Pipeline, "__call__", wrapped)
    status, _, err = run("apply", "model", "--recipe", "recipe.toml", "--out", "wrapped")
    assert status == 0, err
    assert "keeping it as ONNX" in err
    assert load_model(tmp_path / "wrapped").format == "onnx"


@pytest.mark.parametrize(
    ("before", "says"),
    [
        ("sparsity = 0.9\n", "has 'sparsity' outside of any step"),
        ('[[steps]]\ntechnique = "prune_magnitude"\n', "did you mean 'step'"),
        ("a" + ".a" * 2000 + " = 1\n", "a line with more than 100 dots"),
        ("[" + "a." * 2000 + "a]\n", "a line with more than 100 dots"),
    ],
)
def test_what_a_recipe_would_be_read_without_is_refused(before, says, tmp_path):
    (tmp_path / "recipe.toml").write_text(before + RECIPE)
    with pytest.raises(ConfigError, match=says):
        Pipeline.load(tmp_path / "recipe.toml")


def test_the_recipes_of_the_documentation_are_read():
    for recipe in (Path(__file__).resolve().parents[2] / "docs" / "recipes").glob("*.toml"):
        assert Pipeline.load(recipe).steps


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("encode", "model", "--out", "folder"), "end folder in .lkz"),
        (("encode", "model", "--out", "a.lkz", "--set", "linear_levels=3"), "leave out --set"),
        (("encode", "model", "--method", "clustr", "--out", "a.lkz"), "did you mean 'cluster'"),
        (("encode", "model", "--out", "model/variant.json/a.lkz"), "cannot write"),
        (
            ("encode", "model", "--method", "cluster", "--set", "fine_tune_epochs=1", "--out", "a.lkz"),
            "pass --dataset",
        ),
        (("apply", "model", "--recipe", "none.toml", "--out", "a.lkz"), "cannot read none.toml"),
        (("apply", "model", "--recipe", "to_onnx.toml", "--out", "a.lkz"), "the model is ONNX"),
        (("apply", "model", "--recipe", "to_onnx.toml", "--out", "folder.onnx"), "folder.onnx is a folder"),
        (
            ("prune", "model", "--out", "a.onnx"),
            "the model is a PyTorch module: give a folder, or end it in '.lkz' for coded weights, and then: "
            "labkit convert FOLDER --to onnx --out a.onnx",
        ),
        (("prune", "model", "--out", "a.keras"), "or end it in '.lkz' for coded weights\n"),
        (("inspect", "model/variant.lkz"), "cannot read"),
        (("inspect", "a.lkz", "--draw", "a.svg"), "leave out all options but --json"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_leaves_nothing(words, says, run, tmp_path, monkeypatch):
    monkeypatch.setattr(Technique, "__call__", lambda *_: pytest.fail("it began all the same"))
    (tmp_path / "to_onnx.toml").write_text('[[step]]\ntechnique = "export_onnx"\n')
    (tmp_path / "folder.onnx").mkdir()
    before = set(tmp_path.rglob("*"))
    status, out, err = run(*words)
    assert (status, out) == (1, "") and says in err and err.count("\n") == 1
    assert set(tmp_path.rglob("*")) == before


def test_a_recipe_that_was_stopped_says_how_it_goes_on(run, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("labkit.pipeline.Pipeline.load", stop)
    words = ("apply", "model", "--recipe", "recipe.toml", "--out", "a.lkz")
    status, _, err = run(*words)
    assert status == 130 and err.endswith("labkit: stopped\n")
    assert "stopped; the same command goes on with what it kept" in run(*words, "--checkpoint", "kept")[2]
