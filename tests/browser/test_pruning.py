"""The pruning lesson in a browser: run every cell, move the sliders, play for multiply-adds and measure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.browser.driving import VISIBLE_WITHIN_MS, click, run_lesson, show, slide, wait_for_end

LESSON = Path(__file__).resolve().parents[2] / "notebooks" / "04_pruning.ipynb"


@pytest.mark.extra
def test_a_reader_runs_the_lesson_moves_the_sliders_and_plays(
    page: Any,
    jupyter: Callable[[Path], str],
    screenshot: Callable[[Any, str], None],
    record_testsuite_property: Callable[[str, object], None],
) -> None:
    run_lesson(page, jupyter(LESSON), ".labkit-tickets")
    screenshot(page, "pruning-0-end")
    times = {}

    sensitivity = show(page, screenshot, "sensitivity", "pruning-1-sensitivity")
    assert "stem minds most" in sensitivity.locator(".labkit-says").inner_text()
    times["sparsity_ms"] = slide(page, ".labkit-sensitivity", "ArrowRight", "With 95%")
    sensitivity.locator("select").select_option("random")
    page.wait_for_function(
        "document.querySelector('.labkit-sensitivity .labkit-says').innerText.includes('at random')"
    )
    assert sensitivity.locator("tbody tr").count() == 22  # noqa: PLR2004 - layers of resnet20
    screenshot(page, "pruning-2-sensitivity-moved")

    game = show(page, screenshot, "channels", "pruning-3-game")
    times["game_ms"] = click(
        page, ".labkit-channels .labkit-all-0_5", ".labkit-channels .labkit-says", "Reached"
    )
    page.click(".labkit-channels .labkit-run")
    wait_for_end(page, "channels")
    screenshot(page, "pruning-4-game-half")
    game.locator(".labkit-figure").scroll_into_view_if_needed()
    screenshot(page, "pruning-5-measured")
    assert "try 1 (50%: 12)" in game.locator(".labkit-rows").inner_text()

    show(page, screenshot, "tickets", "pruning-6-tickets")
    times["round_ms"] = slide(page, ".labkit-tickets", "ArrowLeft", "With 4.5%")
    screenshot(page, "pruning-7-tickets-moved")
    for name, milliseconds in times.items():
        record_testsuite_property(name, round(milliseconds))
    assert max(times.values()) <= VISIBLE_WITHIN_MS, times
