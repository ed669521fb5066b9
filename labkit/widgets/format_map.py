"""The format graph as a map to click: first what you have, then what you need; the way there lights up."""

from __future__ import annotations

import html

import ipywidgets as widgets
from traitlets import Unicode

from labkit.convert.edges import is_open
from labkit.plots import table_html
from labkit.variant import get_format
from labkit.widgets import format_drawing as drawing
from labkit.widgets.catalogue import text
from labkit.widgets.command import convert_command
from labkit.widgets.format_way import HOP_COLUMNS, hops, way

_TWO_LINES = (
    "<style>.labkit-map button {white-space: pre; font-size: 10px; line-height: 1.3; padding: 0}</style>"
)


class FormatMap(widgets.VBox):  # type: ignore[misc]
    """Every format a button on the drawn graph. `source` and `target` are format names, "" if not chosen yet.

    A first click chooses the source, a second the target, a third starts anew. `model` is what the command
    line under the map names.
    """

    source = Unicode("")
    target = Unicode("")

    def __init__(self, source: str = "", target: str = "", model: str = "MODEL") -> None:
        self._model = model
        self.picture, self.words, self.command = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self.picture.layout = widgets.Layout(
            grid_area=f"1 / 1 / {drawing.ROWS + 2} / {drawing.COLUMNS + 1}", margin="0"
        )
        self.buttons = {name: self._button(name) for name in drawing.PLACES}
        board = widgets.GridBox([self.picture, *self.buttons.values()])
        board.layout = widgets.Layout(
            grid_template_columns=f"repeat({drawing.COLUMNS}, {drawing.CELL_WIDTH}px)",
            grid_template_rows=f"repeat({drawing.ROWS}, {drawing.CELL_HEIGHT}px) auto",
            grid_gap="0",
            align_items="center",
            justify_items="center",
            overflow="auto",
        )
        for name in ("picture", "words", "command"):
            getattr(self, name).add_class(f"labkit-map-{name}")
        super().__init__([board, self.words, self.command], source=source, target=target)
        self.add_class("labkit-map")
        self.observe(self._show, ["source", "target"])
        self._show()

    def click(self, name: str) -> None:
        """What a click on a format does."""
        with self.hold_trait_notifications():
            if self.source and not self.target and name != self.source:
                self.target = name
            else:
                self.source, self.target = name, ""

    def _button(self, name: str) -> widgets.Button:
        column, row = drawing.PLACES[name]
        size = {"width": f"{drawing.BOX_WIDTH}px", "height": f"{drawing.BOX_HEIGHT}px", "margin": "0"}
        layout = widgets.Layout(grid_area=f"{row + 1} / {column + 1} / auto / auto", **size)
        button = widgets.Button(tooltip=get_format(name).title, layout=layout)
        button.add_class(f"labkit-map-{name}")
        button.on_click(lambda _: self.click(name))
        return button

    def _show(self, change: object = None) -> None:
        """Draw the map, mark the two ends, say the way in words and as a command."""
        source, target = self.source, self.target
        path = way(get_format(source).name, get_format(target).name) if source and target else ()
        for name, button in self.buttons.items():
            words, button.button_style = name, ""
            if name == source:
                words, button.button_style = text("map.button.source", name=name), "info"
            elif name == target:
                words, button.button_style = text("map.button.target", name=name), "success"
            button.description = f"{words}\n{get_format(name).title}"
        self.picture.value = _TWO_LINES + drawing.draw_map(path, source)
        known = "map.none" if not path else "map.open" if is_open(path) else "map.shut"
        key = "map.from" if not source else "map.to" if not target else known
        formats = " → ".join([source, *(each.target for each in path)])
        words = text(key, source=source, target=target, path=formats)
        table = table_html(hops(source, path), HOP_COLUMNS) if path else ""
        self.words.value = f'<p role="status">{html.escape(words)}</p>{table}'
        line = convert_command(self._model, target) if path else text("map.command")
        self.command.value = f"{html.escape(text('command'))}<pre>{html.escape(line)}</pre>"
