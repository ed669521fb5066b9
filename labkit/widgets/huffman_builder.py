"""The Huffman builder: choose two nodes to merge, again and again, until all symbols hang on one tree."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from functools import partial

import ipywidgets as widgets

from labkit.widgets.catalogue import text
from labkit.widgets.explorer import cell_html
from labkit.widgets.huffman_drawing import draw_forest
from labkit.widgets.huffman_rows import Forest, Node, forest_says, forest_table

NOBODY = -1


class HuffmanBuilder(widgets.VBox):  # type: ignore[misc]
    """A button for each node: a first click chooses one, a second merges the two; the tree grows in the drawing.

    HuffmanBuilder({"zero": 30, "plus": 12, "minus": 9})

    counts: symbol → how often it occurs. A merged node takes the place of the second button, where the keyboard is.
    Raises ConfigError for what makes no tree.
    """

    def __init__(self, counts: Mapping[str, int]) -> None:
        self.forest, self.chosen = Forest(dict(counts)), NOBODY
        self.buttons = [widgets.Button(layout={"width": "auto"}) for _ in counts]
        self._boards = [tuple(range(len(counts)))]  # after each merge: button → the node that it stands for
        for place, button in enumerate(self.buttons):
            button.add_class("labkit-node")
            button.on_click(partial(self._clicked, place))
        self.undo_button = self._button(text("huffman.undo"), text("huffman.undo.help"), self.undo)
        self.reset_button = self._button(text("huffman.reset"), text("huffman.reset.help"), self.reset)
        self.undo_button.add_class("labkit-undo")
        self.reset_button.add_class("labkit-reset")
        self.says, self.picture, self.table, self.code = (widgets.HTML() for _ in range(4))
        for name, part in {"says": self.says, "figure": self.picture, "rows": self.table}.items():
            part.add_class(f"labkit-{name}")
        self.code.add_class("labkit-command")
        board = widgets.HBox(self.buttons, layout={"flex_flow": "row wrap"})
        bar = widgets.HBox([self.undo_button, self.reset_button])
        beside = widgets.HBox([self.picture, self.table], layout={"flex_flow": "row wrap"})
        super().__init__([board, bar, self.says, beside, self.code])
        self.add_class("labkit-huffman")
        self._show()

    def choose(self, number: int) -> None:
        """What a click on a node does: choose it, let go of it, or merge it with the chosen one.

        The node that was chosen first becomes the branch 0. Raises ConfigError for a node that is merged already.
        """
        if self.chosen in (NOBODY, number):
            self.chosen = number if self.chosen == NOBODY else NOBODY
        else:
            self.forest = self.forest.merge(self.chosen, number)
            stands = {number: len(self.forest.nodes) - 1, self.chosen: NOBODY}
            self._boards.append(tuple(stands.get(each, each) for each in self._boards[-1]))
            self.chosen = NOBODY
        self._show()

    def undo(self) -> None:
        """Take the last merge back, if there is one."""
        self._go_back(max(0, len(self.forest.steps) - 1))

    def reset(self) -> None:
        """Begin anew."""
        self._go_back(0)

    def __repr__(self) -> str:
        """A short one: a notebook keeps it beside the widget, and compares it from run to run."""
        return f"HuffmanBuilder({len(self.forest.counts)} symbols)"

    def _go_back(self, steps: int) -> None:
        self.forest, self.chosen = Forest(self.forest.counts, self.forest.steps[:steps]), NOBODY
        self._boards = self._boards[: steps + 1]
        self._show()

    def _clicked(self, place: int, button: object) -> None:
        self.choose(self._boards[-1][place])

    def _button(self, name: str, help: str, action: Callable[[], None]) -> widgets.Button:
        button = widgets.Button(description=name, tooltip=help)
        button.on_click(lambda _: action())
        return button

    def _show(self) -> None:
        nodes, done = self.forest.nodes, self.forest.is_done
        for button, number in zip(self.buttons, self._boards[-1], strict=True):
            button.layout.display = "none" if number == NOBODY else None
            if number != NOBODY:
                self._label(button, nodes[number])
            button.disabled = done
        self.undo_button.disabled = self.reset_button.disabled = not self.forest.steps
        said = forest_says(self.forest)
        if self.chosen != NOBODY:
            said = text("huffman.chosen", name=nodes[self.chosen].name)
        self.says.value = f'<p role="status">{html.escape(said)}</p>'
        self.picture.value = draw_forest(self.forest, self.chosen)
        self.table.value = forest_table(self.forest)
        self.code.value = cell_html(f"draw_forest(Forest(counts, {self.forest.steps}))")

    def _label(self, button: widgets.Button, node: Node) -> None:
        key = "huffman.button.chosen" if node.number == self.chosen else "huffman.button"
        button.description = text(key, name=node.name, count=node.count)
        button.tooltip = text("huffman.button.help", name=node.name)
        button.button_style = "warning" if node.number == self.chosen else ""
