"""The conversion lesson in a browser: run every cell, click through the map, convert, and find a fault."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

LESSON = Path(__file__).resolve().parents[2] / "notebooks" / "02_model_conversion.ipynb"
VISIBLE_WITHIN_MS = 1500
LAB_OPENS_WITHIN_MS = 90_000
CELLS_RUN_WITHIN_MS = 240_000
JOB_ENDS_WITHIN_MS = 120_000

ERROR = ".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.error']"
NO_CELL_WAITS = "![...document.querySelectorAll('.jp-InputPrompt')].some(p => p.innerText.includes('*'))"
CLICK_AND_TIME = """
async ([button, place, expected]) => {
    const start = performance.now();
    document.querySelector(button).click();
    while (!document.querySelector(place).innerText.includes(expected) && performance.now() - start < 10000)
        await new Promise(resolve => setTimeout(resolve, 5));
    return performance.now() - start;
}
"""


def test_a_reader_runs_the_lesson_clicks_the_map_converts_and_finds_the_fault(
    page: Any,
    jupyter: Callable[[Path], str],
    screenshot: Callable[[Any, str], None],
    record_testsuite_property: Callable[[str, object], None],
) -> None:
    page.goto(jupyter(LESSON))
    page.wait_for_selector("text=/[|] Idle/", timeout=LAB_OPENS_WITHIN_MS)
    page.click("text=Run >> nth=0")
    page.click("text=Run All Cells")
    page.wait_for_selector(f".labkit-microscope, {ERROR}", timeout=CELLS_RUN_WITHIN_MS)
    page.wait_for_function(NO_CELL_WAITS, timeout=CELLS_RUN_WITHIN_MS)
    assert page.locator(ERROR).all_inner_texts() == []
    screenshot(page, "conversion-0-end")

    page.locator(".labkit-map").scroll_into_view_if_needed()
    words, times = ".labkit-map-words", {}
    screenshot(page, "conversion-1-map")
    times["source_ms"] = page.evaluate(CLICK_AND_TIME, [".labkit-map-torch", words, "From torch"])
    times["target_ms"] = page.evaluate(CLICK_AND_TIME, [".labkit-map-openvino", words, "onnx → openvino"])
    assert page.locator(f"{words} tbody tr").count() == 2
    assert page.locator(".labkit-map-picture circle").count() == 2
    page.click(".labkit-map-torch")
    page.click(".labkit-map-tflite")
    page.wait_for_function(f"document.querySelector('{words}').innerText.includes('tensorflow → tflite')")
    screenshot(page, "conversion-2-clicked")

    times["convert_ms"] = page.evaluate(CLICK_AND_TIME, run("convert", "Running"))
    wait_for_end(page, "convert")
    panel = page.locator(".labkit-convert")
    panel.scroll_into_view_if_needed()
    screenshot(page, "conversion-3-converted")
    assert panel.locator(".labkit-status").inner_text().startswith("Done")
    assert panel.locator(".labkit-rows tbody tr").count() == 6
    assert "6 comparisons" in panel.locator(".labkit-figure img").get_attribute("alt")

    times["microscope_ms"] = page.evaluate(CLICK_AND_TIME, run("microscope", "Running"))
    wait_for_end(page, "microscope")
    panel = page.locator(".labkit-microscope")
    panel.scroll_into_view_if_needed()
    screenshot(page, "conversion-4-found")
    assert panel.locator(".labkit-status").inner_text().startswith("Done")
    assert "blocks.2.conv1" in panel.locator(".labkit-says").inner_text()
    for name, milliseconds in times.items():
        record_testsuite_property(name, round(milliseconds))
    assert max(times.values()) <= VISIBLE_WITHIN_MS, times


def run(panel: str, expected: str) -> list[str]:
    """The arguments of CLICK_AND_TIME that press Run in a panel."""
    return [f".labkit-{panel} .labkit-run", f".labkit-{panel} .labkit-status", expected]


def wait_for_end(page: Any, panel: str) -> None:
    """Wait until the panel's job has ended, however it did."""
    status = f"document.querySelector('.labkit-{panel} .labkit-status').innerText"
    page.wait_for_function(f"!/^(Running|Stopping)/.test({status})", timeout=JOB_ENDS_WITHIN_MS)
