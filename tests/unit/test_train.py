"""One training loop serves training, fine-tuning and distillation: same seed, same bytes, stopped or not."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.optim.optimizer import register_optimizer_step_pre_hook

import labkit.train
from labkit.convert import ExportOnnx
from labkit.data import SPLITS, Dataset, Split
from labkit.errors import Cancelled, ConfigError, DataError, TechniqueError
from labkit.measure.lock import Patience
from labkit.measure.quality import evaluate
from labkit.progress import silent
from labkit.quantize import QuantizeInt8
from labkit.train import Train, fit, fresh_variant

TINY = {"architecture": "resnet8", "stages": [4, 4, 8], "inner": [[4], [4], [8]], "dropout": 0.2}
QUICK = Train(epochs=4, batch_size=32, max_samples=96, threads=1)  # 3 steps an epoch


@pytest.fixture(scope="module")
def start(digits):
    return fresh_variant(TINY, digits)


def state_of(module):
    return {name: tensor.numpy().tobytes() for name, tensor in module.state_dict().items()}


def stop_at(message):
    """A Progress that presses Stop at the first report that begins with `message`."""

    def progress(fraction, reported):
        if reported.startswith(message):
            raise Cancelled

    return progress


# --- reproducible ---


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(start, digits):
    first, second = QUICK(start, digits), QUICK(start, digits)
    other = dataclasses.replace(QUICK, seed=1)(start, digits)
    assert first.payload == second.payload
    assert first.payload != other.payload


def test_a_fresh_variant_follows_from_its_seed(digits):
    assert fresh_variant(TINY, digits, 3).digest == fresh_variant(TINY, digits, 3).digest
    assert fresh_variant(TINY, digits, 3).digest != fresh_variant(TINY, digits, 4).digest


def test_training_leaves_the_callers_random_numbers_and_threads_alone(start, digits):
    torch.manual_seed(5)
    expected, threads = torch.rand(3), torch.get_num_threads()
    torch.manual_seed(5)
    dataclasses.replace(QUICK, epochs=1)(start, digits)
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads


# --- resumable ---


@pytest.mark.parametrize("finished", [1, 2, 3])
def test_a_run_that_was_stopped_continues_as_if_it_never_had_been(finished, start, digits, tmp_path):
    whole = fit(QUICK, start, digits, silent)
    with pytest.raises(Cancelled):
        fit(QUICK, start, digits, stop_at(f"epoch {finished + 1}/"), checkpoint=tmp_path)
    resumed = fit(QUICK, start, digits, silent, checkpoint=tmp_path)
    assert state_of(resumed) == state_of(whole)


def test_the_comparison_notices_a_checkpoint_without_momentum(start, digits, tmp_path):
    whole = fit(QUICK, start, digits, silent)
    with pytest.raises(Cancelled):
        fit(QUICK, start, digits, stop_at("epoch 3/"), checkpoint=tmp_path)
    path = tmp_path / "epoch-2.safetensors"
    tensors = {name: tensor for name, tensor in load_file(path).items() if not name.startswith("optimizer.")}
    save_file(tensors, path)
    assert state_of(fit(QUICK, start, digits, silent, checkpoint=tmp_path)) != state_of(whole)


def test_a_finished_run_is_not_repeated(start, digits, tmp_path):
    first = fit(QUICK, start, digits, silent, checkpoint=tmp_path)
    again = fit(QUICK, start, digits, stop_at("epoch"), checkpoint=tmp_path)
    assert state_of(again) == state_of(first)
    assert [path.name for path in tmp_path.glob("epoch-*")] == ["epoch-4.safetensors"]


@pytest.mark.parametrize("change", [{"seed": 1}, {"epochs": 5}, {"learning_rate": 0.05}])
def test_the_checkpoint_of_another_recipe_is_refused(change, start, digits, tmp_path):
    fit(QUICK, start, digits, silent, checkpoint=tmp_path)
    with pytest.raises(ConfigError, match="another training run"):
        fit(dataclasses.replace(QUICK, **change), start, digits, silent, checkpoint=tmp_path)


def test_the_checkpoint_of_another_start_is_refused(start, digits, tmp_path):
    fit(QUICK, start, digits, silent, checkpoint=tmp_path)
    with pytest.raises(ConfigError, match="another training run"):
        fit(QUICK, fresh_variant(TINY, digits, 9), digits, silent, checkpoint=tmp_path)


def test_a_checkpoint_that_is_not_json_is_refused(start, digits, tmp_path):
    (tmp_path / "checkpoint.json").write_text("{")
    with pytest.raises(ConfigError, match="not valid JSON"):
        fit(QUICK, start, digits, silent, checkpoint=tmp_path)


def no_manifest_file(folder):
    next(folder.glob("epoch-*")).unlink()


def cut_short(folder):
    path = next(folder.glob("epoch-*"))
    path.write_bytes(path.read_bytes()[:100])


def another_network(folder):
    save_file({"model.fc.weight": torch.zeros(1)}, next(folder.glob("epoch-*")))


def no_epochs(folder):
    manifest = json.loads((folder / "checkpoint.json").read_text())
    del manifest["epochs"]
    (folder / "checkpoint.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("damage", [no_manifest_file, cut_short, another_network, no_epochs])
def test_a_damaged_checkpoint_says_what_to_do(damage, start, digits, tmp_path):
    fit(QUICK, start, digits, silent, checkpoint=tmp_path)
    damage(tmp_path)
    with pytest.raises(ConfigError, match=r"is damaged .*: remove the folder"):
        fit(QUICK, start, digits, silent, checkpoint=tmp_path)


# --- cancellable ---


@pytest.mark.parametrize("batches", [1, 2, 4])
def test_stop_takes_effect_at_the_next_batch(batches, start, digits):
    before, steps = start.fingerprint(), []

    def stop(fraction, message):
        steps.append(fraction)
        if len(steps) == batches:
            raise Cancelled

    with pytest.raises(Cancelled):
        QUICK(start, digits, stop)
    assert len(steps) == batches
    assert start.fingerprint() == before


def test_progress_runs_from_the_first_batch_to_one(start, digits):
    fractions = []
    QUICK(start, digits, lambda fraction, message: fractions.append(fraction))
    assert np.allclose(fractions, np.arange(1, 13) / 12)


# --- the schedule ---


def learning_rates(recipe, start, dataset):
    rates = []
    hook = register_optimizer_step_pre_hook(
        lambda optimizer, *_: rates.append([group["lr"] for group in optimizer.param_groups])
    )
    try:
        fit(recipe, start, dataset, silent)
    finally:
        hook.remove()
    return rates


def check_warm_up_then_cosine(rates, highest):
    rates = [rate for rate, other in rates if rate == other]  # both groups of parameters, the same rate
    warm_up = len(rates) // 20
    assert np.allclose(rates[:warm_up], highest * np.arange(1, warm_up + 1) / warm_up)
    rest = len(rates) - warm_up
    cosine = [highest / 2 * (1 + math.cos(math.pi * k / rest)) for k in range(rest)]
    assert np.allclose(rates[warm_up:], cosine)
    assert max(rates) == pytest.approx(highest) and 0 < rates[-1] < 0.02 * highest


def test_the_rate_warms_up_then_falls_along_half_a_cosine(start, digits):
    recipe = Train(epochs=20, batch_size=32, max_samples=64, learning_rate=0.3, threads=1)
    check_warm_up_then_cosine(learning_rates(recipe, start, digits), 0.3)


def test_the_check_notices_a_rate_that_never_falls(start, digits, monkeypatch):
    monkeypatch.setattr(labkit.train, "_cosine", lambda highest, step, total: highest)
    recipe = Train(epochs=20, batch_size=32, max_samples=64, threads=1)
    with pytest.raises(AssertionError):
        check_warm_up_then_cosine(learning_rates(recipe, start, digits), 0.1)


# --- what it learns, and what it must not do ---


def test_it_learns(digits):
    def errors(variant):
        split = digits.split("validation")
        logits = variant.model(torch.from_numpy(variant.feeds(split.inputs)["image"])).detach().numpy()
        return np.mean(logits.argmax(1) != split.target)

    start = fresh_variant({"architecture": "lenet5", "channels": [6, 12], "hidden": 32}, digits)
    trained = Train(epochs=3, batch_size=32, learning_rate=0.05, threads=1)(start, digits)
    assert errors(start) > 0.8
    assert errors(trained) < 0.5


def test_only_weights_are_pulled_to_zero(start, digits):
    def no_gradient(output, target, inputs):
        return output.sum() * 0

    recipe = dataclasses.replace(QUICK, weight_decay=0.1)
    trained = fit(recipe, start, digits, silent, loss=no_gradient)
    for (name, before), after in zip(start.model.named_parameters(), trained.parameters(), strict=True):
        if before.ndim > 1:
            assert after.norm() < 0.99 * before.norm(), name
        else:
            assert torch.equal(after, before), name


def test_the_hook_runs_after_every_update(start, digits):
    seen = []
    fit(QUICK, start, digits, silent, after_step=lambda module: seen.append(state_of(module)["fc.bias"]))
    assert len(seen) == len(set(seen)) == 12


def test_the_result_is_in_evaluation_mode_and_the_input_still_what_it_was(start, digits):
    before = start.fingerprint()
    trained = QUICK(start, digits)
    assert not any(module.training for module in trained.model.modules())
    assert start.fingerprint() == before


def test_a_last_batch_of_one_is_left_out(start, digits):
    Train(epochs=1, batch_size=32, max_samples=33, threads=1)(start, digits)  # batch norm would raise


@pytest.mark.parametrize(("kind", "positions"), [("shift", 25), ("shift+flip", 50)])
def test_an_augmented_image_is_a_shifted_or_mirrored_one(kind, positions):
    image = np.random.RandomState(0).rand(1, 2, 6, 6).astype(np.float32)
    padded = np.pad(image[0], ((0, 0), (2, 2), (2, 2)), mode="edge")
    shifted = [padded[:, y : y + 6, x : x + 6] for y in range(5) for x in range(5)]
    possible = {array.tobytes() for array in shifted}
    if kind == "shift+flip":
        possible |= {np.ascontiguousarray(array[:, :, ::-1]).tobytes() for array in shifted}
    made = labkit.train._augment(np.repeat(image, 1000, 0), kind, np.random.RandomState(1))
    assert {array.tobytes() for array in made} == possible
    assert len(possible) == positions


# --- errors ---


def test_a_loss_that_explodes_says_what_to_do(digits):
    start = fresh_variant({"architecture": "lenet5"}, digits)
    for weight in start.model.parameters():
        weight.data *= 1e12  # what a few steps at such a rate lead to
    recipe = Train(epochs=2, learning_rate=10.0, precision="float32", max_samples=256, threads=1)
    with pytest.raises(TechniqueError, match=r"the loss became (nan|inf) in epoch 1: .* than 10\.0"):
        recipe(start, digits)


def test_a_loss_of_nan_is_caught_in_the_batch_where_it_appears(start, digits):
    steps = []

    def loss(output, target, inputs):
        steps.append(None)
        return output.sum() * (math.nan if len(steps) == 5 else 0.0)

    with pytest.raises(TechniqueError, match="nan in epoch 2"):
        fit(QUICK, start, digits, silent, loss=loss)
    assert len(steps) == 5


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"epochs": 0}, r"Train\.epochs=0 is out of range; allowed: 1 ≤ epochs ≤ 1000"),
        ({"epochs": 2.0}, r"Train\.epochs=2\.0 must be of type int"),
        ({"epochs": True}, r"Train\.epochs=True must be of type int"),
        ({"batch_size": 0}, r"Train\.batch_size=0 .* 1 ≤ batch_size ≤ 4096"),
        ({"learning_rate": 0.0}, r"Train\.learning_rate=0\.0 .* 0\.0 < learning_rate ≤ 10\.0"),
        ({"learning_rate": math.nan}, r"Train\.learning_rate=nan"),
        ({"weight_decay": 1.0}, r"Train\.weight_decay=1\.0 .* 0\.0 ≤ weight_decay < 1\.0"),
        ({"momentum": -0.1}, r"Train\.momentum=-0\.1 .* 0\.0 ≤ momentum < 1\.0"),
        ({"label_smoothing": 1.0}, r"Train\.label_smoothing=1\.0"),
        ({"augment": "shfit"}, r"Train\.augment='shfit' is unknown; did you mean 'shift'"),
        ({"precision": "int8"}, r"Train\.precision='int8' is unknown; .*known: auto, bfloat16, float32"),
        ({"seed": -1}, r"Train\.seed=-1 .* 0 ≤ seed ≤ 2147483647"),
        ({"threads": 1025}, r"Train\.threads=1025 .* 0 ≤ threads ≤ 1024"),
    ],
)
def test_a_bad_knob_names_the_field_the_value_and_the_range(change, says):
    with pytest.raises(ConfigError, match=says):
        Train(**change)


def test_an_integer_is_taken_where_a_fraction_is_meant():
    assert Train(learning_rate=1).learning_rate == 1.0


def test_the_shipped_architectures_take_classified_images_only(cases, digits):
    with pytest.raises(TechniqueError, match="regression"):
        fresh_variant(TINY, cases["regression"][1])
    with pytest.raises(DataError, match="does not hold one image"):
        fresh_variant(TINY, cases["two_inputs"][1])
    lost = SimpleNamespace(**{**vars(digits), "task_name": "regression"})
    with pytest.raises(TechniqueError, match="classify images"):
        fresh_variant(TINY, lost)


# --- the machine's lock ---


@pytest.mark.parametrize("work", ["train", "calibrate", "score"])
def test_heavy_work_waits_while_somebody_times(work, start, digits, lenet, monkeypatch):
    """Every batch asks for the lock; a batch that computed without it would not be in the list."""
    asked = []

    @contextlib.contextmanager
    def shared(self):
        asked.append(work)
        yield True

    exported = ExportOnnx()(lenet, digits)
    monkeypatch.setattr(Patience, "shared", shared)
    if work == "train":
        fit(dataclasses.replace(QUICK, epochs=1), start, digits, silent)
        assert len(asked) == 3
    elif work == "calibrate":
        QuantizeInt8(calibration_samples=64)(exported, digits)
        assert len(asked) > 2
    else:
        evaluate(lenet, digits)
        assert len(asked) == 3


def test_a_batch_of_one_that_batch_norm_cannot_use_says_what_to_do():
    images = np.arange(64, dtype=np.uint8).reshape(4, 4, 4, 1)
    split = Split({"image": images}, np.arange(4) % 2)
    dataset = Dataset("tiny", "classification", dict.fromkeys(SPLITS, split), ("a", "b"))
    start = fresh_variant({"architecture": "resnet8"}, dataset)
    for few in ({"batch_size": 1}, {"max_samples": 1}):
        with pytest.raises(TechniqueError, match="give batch_size and max_samples of 2 or more"):
            Train(epochs=1, threads=1, **few)(start, dataset)


def test_answers_that_do_not_fit_the_labels_are_refused_in_words(start, digits):
    with pytest.raises(
        TechniqueError, match=r"cannot compute a batch \[32, 1, \d+, \d+\]: .*give data that fits"
    ):
        fit(QUICK, start, digits, silent, loss=lambda output, target, inputs: output @ output)


def test_a_batch_of_one_trains_too(digits):
    start = fresh_variant({"architecture": "lenet5"}, digits)
    trained = fit(
        Train(epochs=1, batch_size=1, max_samples=8, learning_rate=0.01, threads=1), start, digits, silent
    )
    assert state_of(trained) != state_of(start.model)


def test_a_checkpoint_removes_nobody_elses_files(start, digits, tmp_path):
    (tmp_path / "epoch-mine.safetensors").write_bytes(b"mine")
    fit(QUICK, start, digits, silent, checkpoint=tmp_path)
    assert (tmp_path / "epoch-mine.safetensors").read_bytes() == b"mine"
    assert len(list(tmp_path.glob("epoch-*"))) == 2
