"""What the distillation lesson shows at once, because it was measured before: whole, and true of what is shipped."""

from __future__ import annotations

from pathlib import Path

import pytest

from labkit.data import load_dataset
from labkit.errors import ConfigError
from labkit.progress import silent
from labkit.teach.distilling import (
    ALPHAS,
    CHECK_SPLIT,
    FILE,
    METHODS,
    SEEDS,
    STUDENT,
    TEACHER,
    TEMPERATURES,
    count_errors,
    load_recording,
)
from labkit.zoo import load_model


def test_every_temperature_was_tried_at_every_alpha_with_every_seed() -> None:
    recording = load_recording()
    expected = {(t, a) for t in TEMPERATURES for a in ALPHAS if a} | {(STUDENT.temperature, 0.0)}
    assert {(each.temperature, each.alpha) for each in recording.sweep} == expected
    assert len(recording.sweep) == len(expected) and set(recording.methods) == set(METHODS)
    counts = [*(each.errors for each in recording.sweep), *recording.methods.values()]
    assert all(len(errors) == len(SEEDS) for errors in counts)
    assert recording.images == len(load_dataset("digits").split(CHECK_SPLIT))


def test_plain_soft_targets_are_the_sweeps_own_student() -> None:
    recording = load_recording()
    own = recording.nearest(STUDENT.temperature, STUDENT.alpha)
    assert (own.temperature, own.alpha) == (STUDENT.temperature, STUDENT.alpha)
    assert recording.methods[STUDENT.title] == own.errors


def test_a_recorded_student_that_is_trained_again_is_as_good() -> None:
    recorded = load_recording().nearest(STUDENT.temperature, STUDENT.alpha)
    again = count_errors(STUDENT, 0, load_model(TEACHER), load_dataset("digits"), silent)
    assert again == pytest.approx(recorded.mean, abs=0.02 * load_recording().images)


def test_every_teacher_is_worth_having() -> None:
    """What the lesson's sliders are about: without it there is nothing to see."""
    recording = load_recording()
    alone = recording.nearest(STUDENT.temperature, 0.0).mean
    assert all(each.mean < alone for each in recording.sweep if each.alpha)


def test_a_file_that_is_no_recording_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text(FILE.read_text()[:100])
    with pytest.raises(ConfigError, match=r"broken\.json"):
        load_recording(broken)
