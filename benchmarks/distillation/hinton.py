"""The experiments, each a part that trains its students; the teachers are trained once and shared.

Teacher and students have the settings that were best on validation images among those tried, with seed 0. Only the
teacher has dropout; moved digits are seen by the teacher and by the students named so.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.keep import trained
from benchmarks.parts import Found, nulls
from labkit.cli.terminal import say
from labkit.data import Dataset, load_dataset
from labkit.distill import Distill, DistillLogits, best_offset
from labkit.errors import DataError
from labkit.statistics import mcnemar, wilson
from labkit.train import Train, fresh_variant
from labkit.variant import Variant

SEEDS = (0, 1, 2)
TEMPERATURES = (1.0, 2.5, 8.0, 20.0, 50.0)
TABLE = ("teacher", "student", "distilled", "student_moved", "distilled_moved")
LONGER = ("student_longer", "distilled_longer")
LOGITS = ("logits_teacher", "logits_student", "logits_distilled", "logits_looked")
DROPOUT = 0.3
TEACHER = Train(epochs=40, batch_size=256, learning_rate=0.1, weight_decay=0.0, augment="shift", threads=1)
STUDENT = Distill(
    "mlp",
    width=2 / 3,  # of the architecture's own two layers of 1,200 units: 800
    epochs=40,
    batch_size=256,
    learning_rate=0.1,
    weight_decay=0.0,
    augment="none",
    temperature=20.0,
    alpha=1.0,
    threads=1,
)
IN_HASTE = {"epochs": 12, "max_samples": 4000}

Logits = NDArray[np.float32]
Row = dict[str, Any]


def hintons_table(quick: bool) -> Found:
    """Teacher, student and distilled student: how much of the teacher's lead do its answers carry?

    The last two see moved digits, as the teacher did: what is left to be had from its answers then?
    """

    def rows(data: Dataset, seed: int) -> list[Row]:
        networks = {
            "teacher": teacher(seed, quick),
            "student": student(data, seed, quick, alpha=0.0),
            "distilled": student(data, seed, quick),
            "student_moved": student(data, seed, quick, alpha=0.0, augment="shift"),
            "distilled_moved": student(data, seed, quick, augment="shift"),
        }
        answers = {name: logits_of(network, data, "test") for name, network in networks.items()}
        found = {name: row(data, name, logits) for name, logits in answers.items()}
        for alone, taught in (("student", "distilled"), ("student_moved", "distilled_moved")):
            found[taught] |= fewer(data, answers[alone], answers[taught])
        return list(found.values())

    return over_seeds(TABLE, rows, quick)


def logits(quick: bool) -> Found:
    """The logits themselves in place of soft targets, beside teacher and student on labels of the same machine.

    Then the teacher's mean logits over moved images: the student still sees none of these.
    """

    def rows(data: Dataset, seed: int) -> list[Row]:
        change = {key: value for key, value in STUDENT.config.items() if key != "temperature"}
        technique = DistillLogits(**{**change, "seed": seed, **(IN_HASTE if quick else {})})
        looking = dataclasses.replace(technique, teacher_shift=1)
        networks = (
            teacher(seed, quick),
            student(data, seed, quick, alpha=0.0),
            trained(technique, teacher(seed, quick), data),
            trained(looking, teacher(seed, quick), data),
        )
        answers = [logits_of(network, data, "test") for network in networks]
        found = [row(data, name, each) for name, each in zip(LOGITS, answers, strict=True)]
        for taught in (2, 3):
            found[taught] |= fewer(data, answers[1], answers[taught])
        return found

    return over_seeds(LOGITS, rows, quick)


def longer(quick: bool) -> Found:
    """Three times as many epochs, on the same images: who gains by patience, labels or a teacher's answers?"""
    epochs = 3 * STUDENT.epochs

    def rows(data: Dataset, seed: int) -> list[Row]:
        alone = logits_of(student(data, seed, quick, alpha=0.0, epochs=epochs), data, "test")
        taught = logits_of(student(data, seed, quick, epochs=epochs), data, "test")
        found = [row(data, name, logits) for name, logits in zip(LONGER, (alone, taught), strict=True)]
        found[-1] |= fewer(data, alone, taught)
        return found

    return over_seeds(LONGER, rows, quick)


def missing_three(quick: bool) -> Found:
    """A student that has never seen a 3; then with the bias of that class raised."""
    return unseen("missing_three", "3", quick)


def sevens_and_eights(quick: bool) -> Found:
    """A student that has seen nothing but 7s and 8s; then with the biases of all the others raised."""
    return unseen("sevens_and_eights", "0,1,2,3,4,5,6,9", quick)


def temperatures(quick: bool) -> Found:
    """How much the temperature matters: one teacher, and what its students get wrong of the validation images."""

    def rows(data: Dataset, seed: int) -> list[Row]:
        found = []
        for temperature in TEMPERATURES:
            say(f"temperature {temperature:g}")
            taught = student(data, seed, quick, temperature=temperature)
            wrong = int((~right(logits_of(taught, data, "validation"), data, "validation")).sum())
            found.append({"temperature": temperature, "validation_errors": wrong})
        return found

    return over_seeds((), rows, quick, SEEDS[:1])


def unseen(name: str, classes: str, quick: bool) -> Found:
    """A student that sees no image of these classes, and the same one with their biases put right."""

    def rows(data: Dataset, seed: int) -> list[Row]:
        taught = student(data, seed, quick, without=classes)
        which = [data.labels.index(each) for each in classes.split(",")]
        target = data.split("validation").target
        offset = best_offset(logits_of(taught, data, "validation"), target, which)
        logits = logits_of(taught, data, "test")
        fixed = logits.copy()
        fixed[:, which] += offset
        found = [row(data, name, logits, which), row(data, f"{name}_fixed", fixed, which)]
        found[-1] |= {"biases_raised_by": offset, **fewer(data, logits, fixed)}
        return found

    return over_seeds((name, f"{name}_fixed"), rows, quick)


def over_seeds(networks: Sequence[str], rows: Any, quick: bool, seeds: Sequence[int] = SEEDS) -> Found:
    """The rows of every seed, and the median of the errors of each network."""
    names = [f"{network}_errors" for network in networks]
    try:
        data = load_dataset("mnist")
    except DataError as error:
        if not names:  # a part without figures has none to be told the reason of
            raise
        return nulls(names, str(error))
    found = Found()
    for seed in seeds[:1] if quick else seeds:
        say(f"seed {seed}")
        found.rows += [{"seed": seed, **each} for each in rows(data, seed)]
    for network, name in zip(networks, names, strict=True):
        found.figures[name] = float(
            np.median([each["errors"] for each in found.rows if each["network"] == network])
        )
    if quick:
        found.figures["training_images"] = IN_HASTE["max_samples"]
    return found


@functools.cache
def teacher(seed: int, quick: bool) -> Variant:
    """Trained once for all parts."""
    data = load_dataset("mnist")
    recipe = dataclasses.replace(TEACHER, seed=seed, **(IN_HASTE if quick else {}))
    return trained(recipe, fresh_variant({"architecture": "mlp", "dropout": DROPOUT}, data, seed), data)


def student(data: Dataset, seed: int, quick: bool, **change: Any) -> Variant:
    """The student as it is, or with some of its settings changed, by the teacher of the same seed."""
    technique = dataclasses.replace(STUDENT, seed=seed, **{**change, **(IN_HASTE if quick else {})})
    return trained(technique, teacher(seed, quick), data)


def logits_of(variant: Variant, data: Dataset, split: str) -> Logits:
    """[N, 10], in float32."""
    image = torch.from_numpy(variant.feeds(data.split(split).inputs)["image"])
    with torch.no_grad():
        logits: Logits = variant.model(image).numpy()
    return logits


def right(logits: Logits, data: Dataset, split: str) -> NDArray[np.bool_]:
    """Which samples are classified as they are labelled: [N]."""
    return np.asarray(logits.argmax(1) == data.split(split).target)


def row(data: Dataset, network: str, logits: Logits, unseen_classes: Sequence[int] = ()) -> Row:
    """How many test images are wrong, with the 95 % interval; and of the unseen classes, how many of how many."""
    wrong = ~right(logits, data, "test")
    count, total = int(wrong.sum()), len(wrong)
    found: Row = {"network": network, "errors": count, "errors_ci95": in_errors(wilson(count, total), total)}
    if unseen_classes:
        of_unseen = np.isin(data.split("test").target, unseen_classes)
        found |= {"unseen_errors": int(wrong[of_unseen].sum()), "unseen": int(of_unseen.sum())}
    return found


def fewer(data: Dataset, before: Logits, after: Logits) -> Row:
    """How many errors fewer on the same images, with the paired 95 % interval."""
    paired = mcnemar(right(before, data, "test"), right(after, data, "test"))
    total = len(before)
    return {
        "fewer_errors": round(paired.difference * total),
        "fewer_errors_ci95": in_errors(paired.ci95, total),
    }


def in_errors(interval: tuple[float, float], total: int) -> list[int]:
    """An interval of shares as one of counts, to whole errors."""
    return [round(bound * total) for bound in interval]
