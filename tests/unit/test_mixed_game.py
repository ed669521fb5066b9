"""The mixed game with no browser: what each choice costs, and measuring one."""

from __future__ import annotations

import ast
import html
import time
from collections.abc import Mapping
from typing import Any

import pytest

from labkit.errors import Cancelled, ConfigError, LabkitError
from labkit.progress import Progress, silent
from labkit.widgets import assignment_table, draw_assignment, points_view, tally
from tests.quantization_widgets import BUDGET, CHOICES, HOSTILE, LAYERS, WAIT_S, game, uniform, words


def test_bytes_and_noises_add_up() -> None:
    total = tally(CHOICES, {LAYERS[0]: 32, LAYERS[1]: 8, LAYERS[2]: 4}, BUDGET)
    assert (total.weight_bytes, total.noise) == (3200 + 1600 + 1200, pytest.approx(2e-4 + 3e-2))
    assert total.over_bytes == 1000


@pytest.mark.parametrize("assignment", [{}, {**uniform(8), LAYERS[1]: 5}])
def test_an_assignment_that_was_not_measured_is_refused(assignment: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="measured were 32, 8, 4 bits"):
        tally(CHOICES, assignment, BUDGET)


def test_over_the_budget_is_said_in_words_in_the_sentence_and_in_the_drawing() -> None:
    for bits, word, sign in ((32, "Over the budget", "✗"), (8, "Within the budget", "✓")):
        total = tally(CHOICES, uniform(bits), BUDGET)
        assert total.says.startswith(word)
        assert any(sign in each for each in words(draw_assignment(total)))
    assert "14,200 too many" in tally(CHOICES, uniform(32), BUDGET).says
    exactly = tally(CHOICES, uniform(8), 4800)
    assert exactly.says.startswith("Within the budget") and "0 left" in exactly.says


def test_each_layer_is_told_with_its_bits_bytes_and_share_of_the_noise() -> None:
    total = tally(CHOICES, {**uniform(8), LAYERS[1]: 4}, BUDGET)
    drawing, table = draw_assignment(total), assignment_table(total)
    assert words(drawing).count("8 bits") == 2 and words(drawing).count("4 bits") == 1
    assert "98.0%" in table and any("98%" in each for each in words(drawing))
    assert drawing != draw_assignment(tally(CHOICES, uniform(8), BUDGET))


def test_a_dropdown_changes_the_sum_at_once_and_runs_nothing() -> None:
    made = game(measure=lambda *_: pytest.fail("nothing may be measured without a click"))
    assert "Over the budget" in made.says.value
    made.form.set_all(8)
    assert "Within the budget" in made.says.value and made.job.state == "idle"
    made.form.controls[LAYERS[0]].value = 32
    assert made.form.build() == {**uniform(8), LAYERS[0]: 32}
    assert "Over the budget" in made.says.value and "'conv1.weight': 32" in html.unescape(made.command.value)


def test_the_button_of_a_width_sets_every_layer_and_answers_once() -> None:
    made, answers = game(), []
    made.says.observe(lambda change: answers.append(change.new), "value")
    made.form.buttons[4].click()
    assert made.form.build() == uniform(4) and len(answers) == 1


def test_the_line_under_the_game_holds_the_assignment() -> None:
    made = game()
    made.form.set_all(8)
    made.form.controls[LAYERS[2]].value = 4
    line = html.unescape(made.command.value.partition("<pre")[2].partition(">")[2].partition("</pre>")[0])
    ast.parse(line)
    called = eval(line, {"measure": lambda given, progress: given, "weights": LAYERS, "silent": silent})
    assert called == made.form.build()


def test_measure_mine_starts_a_job_and_shows_the_point_beside_the_recorded_ones() -> None:
    made = game()
    assert made.run_button.description == "Measure mine"
    assert made.view.table.value.count(">recorded<") == 2 and ">yours<" not in made.view.table.value
    made.form.set_all(8)
    made.form.controls[LAYERS[2]].value = 4
    made.run_button.click()
    assert made.job.result(WAIT_S).assignment == made.form.build()
    table = made.view.table.value
    assert "try 1 (8: 2, 4: 1)" in table and "[0.3, 0.8]" in table and ">yours<" in table
    assert "3 candidates" in made.view.figure.value and "your last: try 1" in made.view.figure.value
    made.form.set_all(32)
    made.run_button.click()
    made.job.result(WAIT_S)
    assert len(made.tries) == 2 and "over by 14,200" in made.view.table.value
    assert "try 1" in made.view.table.value and "your last: try 2" in made.view.figure.value


def test_a_measurement_that_fails_is_told_and_adds_no_try() -> None:
    def fail(assignment: Mapping[str, int], progress: Progress) -> Any:
        raise LabkitError(f"no such layer {HOSTILE}")

    made = game(fail)
    made.run_button.click()
    with pytest.raises(LabkitError, match="no such layer"):
        made.job.result(WAIT_S)
    assert "Failed" in made.status.value and made.tries == []


def test_a_measurement_can_be_stopped() -> None:
    def slow(assignment: Mapping[str, int], progress: Progress) -> Any:
        while True:
            time.sleep(0.01)
            progress(0.5, "measuring")

    made = game(slow)
    made.run_button.click()
    made.stop_button.click()
    with pytest.raises(Cancelled):
        made.job.result(WAIT_S)
    assert made.tries == []


def test_a_game_with_nothing_recorded_shows_that_nothing_is_measured_yet() -> None:
    figure, _ = points_view(CHOICES, BUDGET, [], [])
    assert "0 candidates" in str(figure.get_label())
