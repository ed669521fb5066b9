"""The quantization lesson in a browser: run every cell, move the sliders, play the game, and ask the detective."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.browser.driving import VISIBLE_WITHIN_MS, click, run_lesson, show, slide, wait_for_end

LESSON = Path(__file__).resolve().parents[2] / "notebooks" / "03_quantization.ipynb"


@pytest.mark.extra
def test_a_reader_runs_the_lesson_moves_the_sliders_plays_and_asks_why(
    page: Any,
    jupyter: Callable[[Path], str],
    screenshot: Callable[[Any, str], None],
    record_testsuite_property: Callable[[str, object], None],
) -> None:
    run_lesson(page, jupyter(LESSON), ".labkit-explain")
    screenshot(page, "quantization-0-end")
    times = {}

    grid = show(page, screenshot, "grid", "quantization-1-grid")
    times["grid_ms"] = slide(page, ".labkit-grid", "ArrowRight", "5 bits")
    assert grid.locator("tbody tr").count() == 5  # four channels, and all together
    grid.locator("select").nth(1).select_option("per_channel")
    page.wait_for_function(
        "document.querySelector('.labkit-grid .labkit-says').innerText.includes('4 scales')"
    )
    screenshot(page, "quantization-2-grid-moved")

    show(page, screenshot, "clipping", "quantization-3-clipping")
    times["clipping_ms"] = slide(page, ".labkit-clipping", "ArrowLeft", "3 bits")
    screenshot(page, "quantization-4-clipping-moved")

    game = show(page, screenshot, "mixed", "quantization-5-game")
    times["game_ms"] = click(
        page, ".labkit-mixed .labkit-all-4", ".labkit-mixed .labkit-says", "Within the budget"
    )
    page.click(".labkit-mixed .labkit-run")
    wait_for_end(page, "mixed")
    game.locator(".labkit-figure").scroll_into_view_if_needed()
    screenshot(page, "quantization-6-measured")
    assert "try 1 (4: 26)" in game.locator(".labkit-rows").inner_text()

    detective = show(page, screenshot, "explain", "quantization-7-detective")
    times["detective_ms"] = click(
        page, ".labkit-explain .labkit-run", ".labkit-explain .labkit-status", "Running"
    )
    wait_for_end(page, "explain")
    detective.scroll_into_view_if_needed()
    screenshot(page, "quantization-8-explained")
    assert "Only the weights are quantized" in detective.locator(".labkit-says").inner_text()
    for name, milliseconds in times.items():
        record_testsuite_property(name, round(milliseconds))
    assert max(times.values()) <= VISIBLE_WITHIN_MS, times
