"""The weight coding lesson in a browser: build a tree by clicks and by keys, move the sliders, and make a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.browser.driving import VISIBLE_WITHIN_MS, click, run_lesson, show, slide, wait_for_end

LESSON = Path(__file__).resolve().parents[2] / "notebooks" / "06_weight_coding.ipynb"
BY_COUNT = """
buttons => buttons.filter(each => each.offsetParent)
    .sort((a, b) => count(a) - count(b))
    .map(each => each.innerText);
function count(each) { return parseInt(each.innerText.split(': ')[1].replaceAll(',', '')); }
"""


@pytest.mark.extra
def test_a_reader_builds_the_tree_moves_the_sliders_and_makes_a_file(
    page: Any,
    jupyter: Callable[[Path], str],
    screenshot: Callable[[Any, str], None],
    record_testsuite_property: Callable[[str, object], None],
) -> None:
    run_lesson(page, jupyter(LESSON), ".labkit-coding")
    screenshot(page, "coding-0-end")
    times = {}

    tree = show(page, screenshot, "huffman", "coding-1-tree")
    says = ".labkit-huffman .labkit-says"
    times["choose_ms"] = click(page, ".labkit-huffman .labkit-node", says, "is chosen")
    click(page, ".labkit-huffman .labkit-node", says, "6 nodes are left")  # a second click lets go of it
    for left in range(5, 0, -1):
        rarest = tree.locator(".labkit-node").evaluate_all(BY_COUNT)[:2]
        tree.get_by_role("button", name=rarest[0], exact=True).click()
        page.wait_for_function(f"document.querySelector('{says}').innerText.includes('is chosen')")
        second = tree.get_by_role("button", name=rarest[1], exact=True)
        second.focus()
        page.keyboard.press("Enter")
        expected = f"{left} nodes are left" if left > 1 else "none is better"
        page.wait_for_function(f"document.querySelector('{says}').innerText.includes('{expected}')")
        if left == 3:
            screenshot(page, "coding-2-tree-growing")
            focused = "document.activeElement.classList.contains('labkit-node') && document.activeElement.offsetParent"
            assert page.evaluate(f"!!({focused})")  # the keyboard is on the node that was made
    screenshot(page, "coding-3-tree-whole")
    times["undo_ms"] = click(page, ".labkit-huffman .labkit-undo", says, "2 nodes are left")

    show(page, screenshot, "codebook", "coding-4-codebook")
    times["levels_ms"] = slide(page, ".labkit-codebook", "ArrowRight", "share 5 values")
    screenshot(page, "coding-5-codebook-moved")

    anatomy = show(page, screenshot, "anatomy >> nth=0", "coding-6-anatomy")
    anatomy.get_by_text("Every byte in a table").click()
    page.wait_for_function("document.querySelector('.labkit-anatomy .labkit-rows tbody tr').offsetParent")
    screenshot(page, "coding-7-anatomy-table")

    panel = show(page, screenshot, "coding", "coding-8-panel")
    times["sparsity_ms"] = slide(page, ".labkit-coding", "ArrowRight", "95% zeros")
    screenshot(page, "coding-9-panel-moved")
    page.click(".labkit-coding .labkit-run")
    wait_for_end(page, "coding")
    panel.locator(".labkit-tried").scroll_into_view_if_needed()
    screenshot(page, "coding-10-made-here")
    assert "made here" in panel.locator(".labkit-tried").inner_text()
    assert "bytes of weights" in panel.locator(".labkit-anatomy .labkit-says").inner_text()
    for name, milliseconds in times.items():
        record_testsuite_property(name, round(milliseconds))
    assert max(times.values()) <= VISIBLE_WITHIN_MS, times
