"""The temperature panel with no browser: a recording that answers at once, and a student trained at a click."""

from __future__ import annotations

import html
import time
from typing import Any

import pytest

from labkit.errors import Cancelled, LabkitError
from labkit.progress import Progress
from labkit.teach.distilling import RecordedStudents, Recording
from labkit.widgets import TemperaturePanel, draw_temperatures, temperature_table
from tests.quantization_widgets import HOSTILE, WAIT_S, words

ANSWERS_WITHIN_S = 0.2
ALONE = RecordedStudents(8.0, 0.0, (12, 10, 14))
RECORDED = Recording(
    225,
    (
        ALONE,
        *(RecordedStudents(t, a, (round(t), 4, 6)) for a in (0.5, 1.0) for t in (1.0, 4.0, 20.0)),
    ),
    {},
)


def panel(measure: Any = lambda temperature, alpha, seed, progress: 7) -> TemperaturePanel:
    return TemperaturePanel(
        RECORDED, measure, lambda settings: f"labkit distill {settings.temperature} {HOSTILE}"
    )


@pytest.mark.parametrize(
    ("temperature", "alpha", "found"),
    [(4.0, 1.0, (4.0, 1.0)), (8.0, 0.9, (4.0, 1.0)), (9.1, 0.8, (20.0, 1.0)), (0.2, 0.3, (1.0, 0.5))],
)
def test_the_nearest_settings_are_those_of_the_nearest_alpha_and_then_of_the_nearest_ratio(
    temperature: float, alpha: float, found: tuple[float, float]
) -> None:
    near = RECORDED.nearest(temperature, alpha)
    assert (near.temperature, near.alpha) == found
    assert RECORDED.nearest(temperature, 0.1) is ALONE


def test_moving_a_slider_answers_at_once_and_runs_nothing() -> None:
    made = panel(lambda *_: pytest.fail("nothing may be trained without a click"))
    start = time.perf_counter()
    made.form.controls["temperature"].value = 20.0
    assert time.perf_counter() - start < ANSWERS_WITHIN_S
    assert "temperature 20 and alpha 1: 10.0 errors of 225" in made.says.value
    assert "On labels alone it is 12.0" in made.says.value
    before = made.picture.value
    made.form.controls["alpha"].value = 0.5
    assert made.picture.value != before and made.job.state == "idle"
    assert [control.description for control in made.form.controls.values()] == ["temperature", "alpha"]


def test_the_table_holds_every_recorded_setting_with_its_interval_and_the_drawing_its_mark() -> None:
    table = temperature_table(RECORDED)
    assert table.count("<tr>") == 1 + len(RECORDED.sweep) and "12, 10, 14" in table
    shown = words(draw_temperatures(RECORDED, 20.0, 1.0))
    assert {"10.0", "alpha 0.5", "alpha 1", "labels alone (alpha 0)", "20"} <= set(shown)
    assert draw_temperatures(RECORDED, 20.0, 1.0) != draw_temperatures(RECORDED, 20.0, 0.5)
    assert "12.0" in words(draw_temperatures(RECORDED, 20.0, 0.0))


def test_measure_here_trains_at_exactly_these_settings_each_time_with_the_next_seed() -> None:
    asked: list[tuple[float, float, int]] = []

    def measure(temperature: float, alpha: float, seed: int, progress: Progress) -> int:
        asked.append((temperature, alpha, seed))
        return 5

    made = panel(measure)
    assert (
        made.run_button.description == "Measure here" and "nothing measured here yet" in made.view.table.value
    )
    made.form.controls["temperature"].value = 4.2
    for _ in range(2):
        made.run_button.click()
        assert made.job.result(WAIT_S) == 5
    made.form.controls["alpha"].value = 0.5
    made.run_button.click()
    made.job.result(WAIT_S)
    assert asked == [(4.2, 1.0, 0), (4.2, 1.0, 1), (4.2, 0.5, 0)]
    assert made.view.table.value.count("<tr>") == 1 + 3 and "4.667" in made.view.table.value


def test_a_training_that_fails_is_told_and_one_can_be_stopped() -> None:
    def fail(*_: Any) -> int:
        raise LabkitError(f"no {HOSTILE}")

    made = panel(fail)
    made.run_button.click()
    with pytest.raises(LabkitError, match="no "):
        made.job.result(WAIT_S)
    assert "Failed" in made.status.value and HOSTILE not in made.status.value and made.tries == []

    def slow(temperature: float, alpha: float, seed: int, progress: Progress) -> int:
        while True:
            time.sleep(0.01)
            progress(0.5, "training")

    made = panel(slow)
    made.run_button.click()
    made.stop_button.click()
    with pytest.raises(Cancelled):
        made.job.result(WAIT_S)
    assert made.tries == []


def test_the_command_below_is_that_of_the_settings_and_escaped() -> None:
    made = panel()
    made.form.controls["temperature"].value = 3.0
    assert f"labkit distill 3.0 {HOSTILE}" in html.unescape(made.command.value)
    assert HOSTILE not in made.command.value
