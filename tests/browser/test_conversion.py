"""The conversion lesson in a browser: run every cell, click through the map, convert, and find a fault."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.browser.driving import VISIBLE_WITHIN_MS, click, run_lesson, wait_for_end

LESSON = Path(__file__).resolve().parents[2] / "notebooks" / "02_model_conversion.ipynb"


@pytest.mark.extra
def test_a_reader_runs_the_lesson_clicks_the_map_converts_and_finds_the_fault(
    page: Any,
    jupyter: Callable[[Path], str],
    screenshot: Callable[[Any, str], None],
    record_testsuite_property: Callable[[str, object], None],
) -> None:
    run_lesson(page, jupyter(LESSON), ".labkit-microscope")
    screenshot(page, "conversion-0-end")

    page.locator(".labkit-map").scroll_into_view_if_needed()
    words, times = ".labkit-map-words", {}
    screenshot(page, "conversion-1-map")
    times["source_ms"] = click(page, ".labkit-map-torch", words, "From torch")
    times["target_ms"] = click(page, ".labkit-map-openvino", words, "onnx → openvino")
    assert page.locator(f"{words} tbody tr").count() == 2
    assert page.locator(".labkit-map-picture circle").count() == 2
    page.click(".labkit-map-torch")
    page.click(".labkit-map-tflite")
    page.wait_for_function(f"document.querySelector('{words}').innerText.includes('tensorflow → tflite')")
    screenshot(page, "conversion-2-clicked")

    times["convert_ms"] = click(
        page, ".labkit-convert .labkit-run", ".labkit-convert .labkit-status", "Running"
    )
    wait_for_end(page, "convert")
    panel = page.locator(".labkit-convert")
    panel.scroll_into_view_if_needed()
    screenshot(page, "conversion-3-converted")
    assert panel.locator(".labkit-status").inner_text().startswith("Done")
    assert panel.locator(".labkit-rows tbody tr").count() == 6
    assert "6 comparisons" in panel.locator(".labkit-figure img").get_attribute("alt")

    times["microscope_ms"] = click(
        page, ".labkit-microscope .labkit-run", ".labkit-microscope .labkit-status", "Running"
    )
    wait_for_end(page, "microscope")
    panel = page.locator(".labkit-microscope")
    panel.scroll_into_view_if_needed()
    screenshot(page, "conversion-4-found")
    assert panel.locator(".labkit-status").inner_text().startswith("Done")
    assert "blocks.2.conv1" in panel.locator(".labkit-says").inner_text()
    for name, milliseconds in times.items():
        record_testsuite_property(name, round(milliseconds))
    assert max(times.values()) <= VISIBLE_WITHIN_MS, times
