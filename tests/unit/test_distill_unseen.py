"""The bias that an unseen class lacks, against trying every place; and the benchmark that needs it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from benchmarks.distillation import hinton, page
from labkit.distill import best_offset


def right(logits, target, classes, offset):
    moved = logits.copy()
    moved[:, classes] += offset
    return int((moved.argmax(1) == target).sum())


@given(st.integers(0, 10_000), st.sampled_from([[3], [0, 2], [0, 1, 2]]))
def test_no_other_offset_classifies_more_samples(seed, classes):
    random = np.random.RandomState(seed)
    logits, target = random.randn(25, 4) * 3, random.randint(0, 4, 25)
    found = right(logits, target, classes, best_offset(logits, target, classes))
    assert found >= max(right(logits, target, classes, offset) for offset in np.linspace(-20, 20, 401))


@given(
    st.lists(st.tuples(*[st.integers(-2, 2)] * 3, st.integers(0, 2)), min_size=1, max_size=6),
    st.sampled_from([[0], [2], [0, 1]]),
)
@example([(0, 0, -2, 0), (2, -1, 2, 2), (2, -2, 2, 2), (-1, -2, 2, 2)], [0])
def test_nor_does_it_where_logits_are_equal(samples, classes):
    numbers = np.array(samples)
    logits, target = numbers[:, :3].astype(float), numbers[:, 3]
    found = right(logits, target, classes, best_offset(logits, target, classes))
    between = np.arange(-5, 5.5, 0.25)[1::2]  # no logit overtakes another exactly here
    assert found == max(right(logits, target, classes, offset) for offset in between)


def test_a_bias_that_was_taken_away_is_found_again():
    random = np.random.RandomState(0)
    target = random.randint(0, 4, 2000)
    logits = np.eye(4)[target] * 4 + random.randn(2000, 4)
    lowered = logits - np.array([0, 0, 0, 5.0])
    assert best_offset(lowered, target, [3]) == pytest.approx(5.0, abs=1.0)
    assert (
        right(lowered, target, [3], 0.0)
        < 1600
        < right(lowered, target, [3], best_offset(lowered, target, [3]))
    )


@pytest.fixture
def tiny(digits, monkeypatch):
    """The benchmark on digits, with short training."""
    short = {"epochs": 6, "batch_size": 32}
    monkeypatch.setattr(hinton, "load_dataset", lambda name: digits)
    monkeypatch.setattr(hinton, "TEACHER", dataclasses.replace(hinton.TEACHER, **short))
    monkeypatch.setattr(hinton, "STUDENT", dataclasses.replace(hinton.STUDENT, width=0.1, **short))
    monkeypatch.setattr(hinton, "IN_HASTE", {"epochs": 6, "max_samples": 800})
    hinton.teacher.cache_clear()
    yield hinton
    hinton.teacher.cache_clear()


def test_the_benchmark_counts_errors_and_its_page_shows_them(tiny):
    table, three = tiny.hintons_table(True), tiny.missing_three(True)
    assert list(table.figures) == [*(f"{name}_errors" for name in tiny.TABLE), "training_images"]
    for found in (table, three):
        for row in found.rows:
            assert row["errors_ci95"][0] <= row["errors"] == found.figures[f"{row['network']}_errors"]
    before, after = three.rows
    assert before["errors"] - after["errors"] == after["fewer_errors"] > 0
    assert before["unseen_errors"] > after["unseen_errors"] and before["unseen"] == after["unseen"] > 40
    figures = table.figures | three.figures
    document = {"table": table.rows + three.rows, "figures": figures, "null_reasons": {}}
    text = page.distillation_page(document, "this machine")
    assert f"| never saw a 3 | 206 | **{before['errors']}** |" in text
    assert all(name in page.WORDS for name in figures if name != "training_images")


def test_without_the_data_there_are_reasons_in_place_of_figures(tiny, monkeypatch):
    def missing(name):
        raise hinton.DataError("mnist is nowhere: run labkit data fetch")

    monkeypatch.setattr(hinton, "load_dataset", missing)
    found = tiny.missing_three(False)
    assert set(found.figures.values()) == {None}
    assert found.null_reasons["missing_three_errors"].startswith("mnist is nowhere")
