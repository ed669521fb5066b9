"""The Huffman builder with no browser: click two nodes, and see whether the tree, the words and the bits agree."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from typing import Any

import numpy as np
import pytest

from labkit.encode.entropy import entropy
from labkit.encode.huffman import code_lengths, merges
from labkit.errors import ConfigError
from labkit.widgets import Forest, HuffmanBuilder, draw_forest, forest_table
from labkit.widgets.huffman_rows import forest_says
from tests.coding_widgets import COUNTS
from tests.quantization_widgets import HOSTILE, SVG, words


def by_the_rule(counts: dict[str, int]) -> Forest:
    forest = Forest(counts)
    while not forest.is_done:
        forest = forest.merge(*(node.number for node in forest.rarest()))
    return forest


@pytest.mark.parametrize("seed", range(5))
def test_the_rarest_first_makes_the_codes_of_labkits_own_huffman(seed: int) -> None:
    drawn = np.random.default_rng(seed).integers(1, 50, size=9).tolist()
    counts = {f"s{index}": count for index, count in enumerate(drawn)}
    forest = by_the_rule(counts)
    lengths = np.array([len(code) for code in forest.codes.values()])
    assert forest.message_bits == (lengths * drawn).sum() == (code_lengths(drawn) * drawn).sum()
    assert forest.mean_bits == forest.best_bits and not forest.slips()
    assert forest.entropy == entropy(np.array(drawn)) <= forest.mean_bits < forest.entropy + 1
    assert len(forest.steps) == len(merges(drawn))


def test_no_code_begins_with_another_one_whatever_is_merged() -> None:
    forest = Forest(COUNTS).merge(0, 1).merge(5, 2).merge(3, 6).merge(4, 7)
    codes = list(forest.codes.values())
    assert forest.is_done and len(set(codes)) == len(codes)
    assert not any(a != b and a.startswith(b) for a in codes for b in codes)


def test_a_merge_of_others_than_the_rarest_is_told_and_its_price_is_right() -> None:
    slipped = Forest(COUNTS).merge(0, 1)  # the two most frequent
    assert list(slipped.slips()) == [5]
    said = forest_says(slipped)
    assert "Not the two rarest" in said and HOSTILE in said and "d (9)" in said
    while not slipped.is_done:
        slipped = slipped.merge(*(node.number for node in slipped.rarest()))
    assert slipped.mean_bits > slipped.best_bits
    assert f"{slipped.mean_bits - slipped.best_bits:.3f} more than the best" in forest_says(slipped)


def test_of_equally_rare_nodes_any_will_do() -> None:
    forest = Forest({"a": 2, "b": 2, "c": 2, "d": 2}).merge(3, 1).merge(0, 2).merge(4, 5)
    assert not forest.slips() and "none is better" in forest_says(forest)


@pytest.mark.parametrize(
    ("counts", "steps"),
    [
        ({"a": 1}, ()),
        ({"a": 1, "b": 0}, ()),
        (COUNTS, ((0, 0),)),
        (COUNTS, ((0, 1), (1, 2))),
        (COUNTS, ((0, 7),)),
    ],
)
def test_what_makes_no_tree_is_refused(counts: dict[str, int], steps: Any) -> None:
    with pytest.raises(ConfigError):
        Forest(counts, steps)


def test_two_clicks_merge_and_a_second_on_the_same_lets_go() -> None:
    made = HuffmanBuilder(COUNTS)
    made.buttons[3].click()
    assert "✓ d: 9" in made.buttons[3].description and "d is chosen" in made.says.value
    made.buttons[3].click()
    assert made.chosen == -1 and made.buttons[3].description == "d: 9"
    made.buttons[3].click()
    made.buttons[4].click()
    assert made.forest.steps == ((3, 4),) and "Right" in made.says.value


def test_the_merged_node_stands_on_the_button_that_was_clicked_last() -> None:
    """Who works with the keyboard is there, and must not fall off the page."""
    made = HuffmanBuilder(COUNTS)
    made.choose(3)
    made.choose(4)
    assert made.buttons[4].description.endswith(": 15") and made.buttons[4].layout.display is None
    assert made.buttons[3].layout.display == "none"


def test_undo_takes_one_merge_back_and_reset_all() -> None:
    made = HuffmanBuilder(COUNTS)
    assert made.undo_button.disabled
    for number in (3, 4, 2, 5):
        made.choose(number)
    after_one = Forest(COUNTS, ((3, 4),))
    made.undo_button.click()
    assert made.forest == after_one and made.picture.value == draw_forest(after_one)
    assert [button.layout.display for button in made.buttons].count("none") == 1
    made.choose(2)
    made.reset_button.click()
    assert made.forest.steps == () and made.chosen == -1
    assert [button.description for button in made.buttons[:2]] == ["a: 40", "b: 30"]


def test_a_whole_tree_takes_no_more_clicks() -> None:
    made = HuffmanBuilder({"a": 3, "b": 1})
    made.choose(0)
    made.choose(1)
    assert all(button.disabled for button in made.buttons) and "✓ The tree is whole" in made.says.value


def test_drawing_and_table_hold_the_same_codes() -> None:
    forest = by_the_rule(COUNTS)
    shown, table = words(draw_forest(forest)), forest_table(forest)
    for name, code in forest.codes.items():
        assert code in shown and f">{code}<" in table
        assert name == HOSTILE or name in shown
    assert f"mean length of a code so far: {forest.mean_bits:.3f} bits" in shown
    description = ElementTree.fromstring(draw_forest(forest)).findtext(f"{SVG}desc") or ""
    assert "none is better" in description and f"code {forest.codes['a']}" in description


def test_a_slip_is_marked_in_the_drawing_by_more_than_its_colour() -> None:
    assert "✗ not the rarest" in words(draw_forest(Forest(COUNTS).merge(0, 1)))
    assert "✗ not the rarest" not in words(draw_forest(Forest(COUNTS).merge(3, 4)))


def test_no_two_symbols_are_drawn_on_each_other() -> None:
    drawing = ElementTree.fromstring(draw_forest(by_the_rule(COUNTS)))
    places = [float(each.get("x", "")) for each in drawing.iter(f"{SVG}text") if each.text in COUNTS]
    assert len(places) >= len(COUNTS) - 1 and min(np.diff(sorted(places))) > 60


def test_the_node_that_was_chosen_first_becomes_the_branch_0() -> None:
    forest = Forest({"a": 5, "b": 2, "c": 1}).merge(2, 1).merge(3, 0)
    assert forest.codes == {"a": "1", "b": "01", "c": "00"}
