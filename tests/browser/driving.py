"""What a reader does in a lesson: run every cell, bring a widget into view, move a slider, click, wait."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

VISIBLE_WITHIN_MS = 1500
LAB_OPENS_WITHIN_MS = 90_000
CELLS_BEGIN_WITHIN_MS = 30_000
CELLS_RUN_WITHIN_MS = 300_000
JOB_ENDS_WITHIN_MS = 180_000

ERROR = ".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.error']"
NO_CELL_WAITS = "![...document.querySelectorAll('.jp-InputPrompt')].some(p => p.innerText.includes('*'))"
DO_AND_TIME = """
async ([place, expected, action]) => {
    const start = performance.now();
    (0, eval)(action);
    while (!document.querySelector(place).innerText.includes(expected) && performance.now() - start < 10000)
        await new Promise(resolve => setTimeout(resolve, 5));
    return performance.now() - start;
}
"""


def run_lesson(page: Any, address: str, last: str) -> None:
    """Open a lesson, run all its cells, and wait for its `last` widget and the last cell; no cell may fail."""
    from playwright.sync_api import TimeoutError as NothingRan

    # JupyterLab may show its menu before the notebook hears it; then no cell ever begins, and the page is opened anew.
    for _ in range(3):
        page.goto(address)
        page.wait_for_selector("text=/[|] Idle/", timeout=LAB_OPENS_WITHIN_MS)
        page.click("text=Run >> nth=0")
        page.click("text=Run All Cells")
        with contextlib.suppress(NothingRan):
            page.wait_for_function(f"!({NO_CELL_WAITS})", timeout=CELLS_BEGIN_WITHIN_MS)
            break
    page.wait_for_selector(f"{last}, {ERROR}", timeout=CELLS_RUN_WITHIN_MS)
    page.wait_for_function(NO_CELL_WAITS, timeout=CELLS_RUN_WITHIN_MS)
    assert page.locator(ERROR).all_inner_texts() == []


def show(page: Any, screenshot: Callable[[Any, str], None], widget: str, name: str) -> Any:
    """Bring a widget into view, and keep how it looks."""
    found = page.locator(f".labkit-{widget}")
    found.scroll_into_view_if_needed()
    found.evaluate("each => each.scrollIntoView()")
    screenshot(page, name)
    return found


def slide(page: Any, widget: str, key: str, expected: str) -> float:
    """Move a widget's first slider by one, and return the milliseconds until the widget says what is expected."""
    page.locator(f"{widget} [role='slider'], {widget} .noUi-handle").first.focus()
    page.keyboard.press(key)
    return float(page.evaluate(DO_AND_TIME, [f"{widget} .labkit-says", expected, ""]))


def click(page: Any, button: str, place: str, expected: str) -> float:
    """Click, and return the milliseconds until the place says what is expected."""
    action = f"document.querySelector({button!r}).click()"
    return float(page.evaluate(DO_AND_TIME, [place, expected, action]))


def wait_for_end(page: Any, panel: str) -> None:
    """Wait until the panel's job has ended, however it did."""
    status = f"document.querySelector('.labkit-{panel} .labkit-status').innerText"
    page.wait_for_function(f"/^(Done|Stopped|Failed)/.test({status})", timeout=JOB_ENDS_WITHIN_MS)
