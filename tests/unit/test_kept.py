"""What a step made is kept, found again by all that it follows from, and never taken for something else."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from typer.testing import CliRunner

from labkit.cli import app
from labkit.data import load_dataset
from labkit.distill import Distill
from labkit.encode import ClusterWeights
from labkit.errors import Cancelled, ConfigError, LabkitError, ModelFileError, TechniqueError
from labkit.kept import place_of
from labkit.pipeline import Pipeline
from labkit.progress import silent
from labkit.prune import PruneChannels, PruneMagnitude
from labkit.train import Train
from labkit.zoo import load_model

RECIPE = Pipeline(
    (
        PruneChannels(0.5, fine_tune_epochs=1, max_samples=64, threads=1),
        PruneMagnitude(sparsity=0.5, fine_tune_epochs=1, max_samples=64, threads=1),
    )
)


@pytest.fixture(scope="module")
def digits():
    return load_model("lenet5@digits"), load_dataset("digits")


@pytest.fixture
def trainings(monkeypatch):
    """The names of the techniques that trained anything."""
    from labkit.prune import fine_tune

    seen, fit = [], fine_tune.fit

    def counted(recipe, variant, *rest):
        seen.append(variant.name)
        return fit(recipe, variant, *rest)

    monkeypatch.setattr(fine_tune, "fit", counted)
    return seen


def stop_at(fraction):
    def progress(done, message):
        if done >= fraction:
            raise Cancelled("stopped")

    return progress


def test_a_recipe_that_was_stopped_goes_on_behind_its_last_finished_step(digits, trainings, tmp_path):
    variant, dataset = digits
    recipe = dataclasses.replace(RECIPE, checkpoint=tmp_path)
    with pytest.raises(Cancelled):
        recipe(variant, dataset, stop_at(0.75))
    assert len(trainings) == 2 and len(list(tmp_path.iterdir())) == 1
    made = recipe(variant, dataset)
    assert len(trainings) == 3 and len(list(tmp_path.iterdir())) == 2
    assert recipe(variant, dataset).digest == made.digest and len(trainings) == 3
    straight = RECIPE(variant, dataset)
    assert made.fingerprint() == straight.fingerprint() and made.lineage == straight.lineage


def test_other_settings_another_source_or_other_data_are_not_what_was_kept(digits, trainings, tmp_path):
    variant, dataset = digits
    step = RECIPE.steps[0]
    recipe = Pipeline((step,), checkpoint=tmp_path)
    recipe(variant, dataset)
    fewer = dataclasses.replace(
        dataset, splits={**dataset.splits, "train": dataset.split("train").take(slice(200))}
    )
    tuned = Train(1, max_samples=32, threads=1)(variant, dataset)
    for other, source, data in (
        (Pipeline((dataclasses.replace(step, seed=1),), checkpoint=tmp_path), variant, dataset),
        (recipe, tuned, dataset),
        (recipe, variant, fewer),
    ):
        before = len(trainings)
        other(source, data)
        assert len(trainings) == before + 1


def test_what_is_kept_and_damaged_is_refused_and_named(digits, tmp_path):
    variant, dataset = digits
    recipe = dataclasses.replace(RECIPE, checkpoint=tmp_path)
    recipe(variant, dataset, silent)
    for weights in tmp_path.rglob("*.safetensors"):
        weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    with pytest.raises(ModelFileError, match="prune_channels-"):
        recipe(variant, dataset)


def test_the_folder_is_no_part_of_the_recipe(tmp_path):
    assert dataclasses.replace(RECIPE, checkpoint=tmp_path).config == RECIPE.config


def test_the_command_keeps_its_steps_too(trainings, tmp_path):
    RECIPE.save(tmp_path / "recipe.toml")
    command = [
        "apply",
        "lenet5@digits",
        "--recipe",
        str(tmp_path / "recipe.toml"),
        "--out",
        str(tmp_path / "made"),
    ]
    for _ in range(2):
        result = CliRunner().invoke(app, [*command, "--checkpoint", str(tmp_path / "steps")])
        assert result.exit_code == 0, result.output
    assert len(trainings) == 2 and len(list((tmp_path / "steps").iterdir())) == 2


def test_a_teacher_that_is_not_there_is_missed_before_the_first_step_begins(digits, trainings):
    variant, dataset = digits
    last = ClusterWeights(fine_tune_epochs=1, alpha=0.5, teacher="nowhere", threads=1)
    with pytest.raises(TechniqueError, match="teacher='nowhere' is neither"):
        Pipeline((RECIPE.steps[0], last))(variant, dataset)
    assert not trainings


def test_what_a_field_only_names_is_not_taken_for_what_was_there_before(digits, tmp_path):
    variant, dataset = digits
    images = dataset.split("train").take(slice(64))
    step = Distill("lenet5", width=0.2, alpha=1.0, transfer=str(tmp_path / "a.npz"), epochs=1, threads=1)
    places = []
    for scale in (1, 2):
        np.savez(tmp_path / "a.npz", x=images.inputs["image"] // scale)
        places.append(place_of(tmp_path, step, variant, dataset))
    assert places[0] != places[1]


def test_the_same_weights_with_other_preprocessing_and_the_same_images_with_other_labels_are_something_else(
    digits, tmp_path
):
    variant, dataset = digits
    step, train = RECIPE.steps[0], dataset.split("train")
    (name, preprocessing), *_ = variant.preprocessing.items()
    brighter = dataclasses.replace(
        variant, preprocessing={name: dataclasses.replace(preprocessing, scale=1.0)}
    )
    turned = dataclasses.replace(train, target=train.target[::-1].copy())
    relabelled = dataclasses.replace(dataset, splits={**dataset.splits, "train": turned})
    places = [
        place_of(tmp_path, step, *each)
        for each in ((variant, dataset), (brighter, dataset), (variant, relabelled))
    ]
    assert len(set(places)) == 3 and place_of(tmp_path, step, variant, dataset) == places[0]


def test_a_folder_that_cannot_be_written_is_refused_before_the_first_step(digits, trainings, tmp_path):
    variant, dataset = digits
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(LabkitError, match="cannot write into"):
        Pipeline(RECIPE.steps, checkpoint=str(tmp_path / "file" / "steps"))(variant, dataset)
    assert not trainings
    with pytest.raises(ConfigError, match="checkpoint=7 must be"):
        Pipeline(RECIPE.steps, checkpoint=7)
