"""The tour in a browser: run every cell, press Run and Stop, and see what a reader would see."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.browser.driving import JOB_ENDS_WITHIN_MS, VISIBLE_WITHIN_MS, click, run_lesson

ROOT = Path(__file__).resolve().parents[2]
TOUR = ROOT / "notebooks" / "00_tour.ipynb"
ENDED = "!/^(Running|Stopping)/.test(document.querySelector('.labkit-status').innerText)"
PROGRESS = "parseFloat(document.querySelector('.labkit-progress .progress-bar').style.width) / 100 "


@pytest.fixture
def lesson(tmp_path: Path) -> Path:
    """The tour; before it is built, a notebook with its panel on a small model."""
    if TOUR.exists():
        return TOUR
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell(
                "from labkit import ExportOnnx, PruneChannels\n"
                "from labkit.widgets import ComparePanel\n"
                "narrow = (PruneChannels(pruning_ratio=0.3), ExportOnnx())\n"
                'ComparePanel("lenet5@digits", "digits", {"onnx": (ExportOnnx(),), "narrow": narrow})'
            )
        ],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    )
    path = tmp_path / "small.ipynb"
    nbformat.write(notebook, path)
    return path


def test_a_reader_runs_the_tour_measures_stops_and_sees_it(
    page: Any,
    jupyter: Callable[[Path], str],
    screenshot: Callable[[Any, str], None],
    lesson: Path,
    record_testsuite_property: Callable[[str, object], None],
) -> None:
    run_lesson(page, jupyter(lesson), ".labkit-panel")
    page.locator(".labkit-panel").scroll_into_view_if_needed()
    status, figure = page.locator(".labkit-status"), page.locator(".labkit-figure img")
    empty = figure.get_attribute("src")
    screenshot(page, "1-ready")

    run_ms = click(page, ".labkit-run", ".labkit-status", "Running")
    wait_until(page, PROGRESS + "> 0.05")
    screenshot(page, "2-running")
    wait_until(page, ENDED)
    assert status.inner_text().startswith("Done")
    assert figure.get_attribute("src") != empty
    assert "candidates" in figure.get_attribute("alt")
    assert page.locator(".labkit-rows tbody tr").count() >= 2
    screenshot(page, "3-done")

    again_ms = click(page, ".labkit-run", ".labkit-status", "Running")
    wait_until(page, PROGRESS + "> 0.05")
    stop_ms = click(page, ".labkit-stop", ".labkit-status", "Stop")
    wait_until(page, ENDED)
    screenshot(page, "4-stopped")
    assert status.inner_text().startswith("Stopped")

    times = {"run_ms": run_ms, "again_ms": again_ms, "stop_ms": stop_ms}
    if page.locator(".labkit-recorded").count():
        times["recorded_ms"] = click(page, ".labkit-recorded", ".labkit-status", "Measured earlier")
        assert "candidates" in figure.get_attribute("alt")
        screenshot(page, "5-recorded")
    for name, milliseconds in times.items():
        record_testsuite_property(name, round(milliseconds))
    assert max(times.values()) <= VISIBLE_WITHIN_MS, times


def wait_until(page: Any, condition: str) -> None:
    """Wait for something to become true in the page, as long as a job may take."""
    page.wait_for_function(condition, timeout=JOB_ENDS_WITHIN_MS)
