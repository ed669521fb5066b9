"""An inspection in words: a header of facts, and the layers as an aligned table."""

from __future__ import annotations

import html
from collections.abc import Iterable

from labkit.inspection.record import Inspection, Layer, Shape

MOST_LAYERS = 40
_NONE = "–"
_WIDEST = 44


def summary(inspection: Inspection) -> str:
    """The facts about a file, one a line: "inputs  image float32 [batch, 1, 32, 32]"."""
    facts = [
        ("file", f"{inspection.file}, {_bytes(inspection.bytes)}"),
        ("format", _joined([inspection.format, _ir(inspection), inspection.producer])),
        ("opsets", _joined(f"{domain} {version}" for domain, version in inspection.opsets.items())),
        *(("input", f"{t.name}  {t.dtype or '?'} {shape_text(t.shape)}") for t in inspection.inputs),
        *(("output", f"{t.name}  {t.dtype or '?'} {shape_text(t.shape)}") for t in inspection.outputs),
        (
            "dynamic",
            "; ".join(f"{name}: {', '.join(dims)}" for name, dims in inspection.dynamic.items()) or "none",
        ),
        ("parameters", _number(inspection.parameters)),
        (
            "precision",
            _joined(
                f"{dtype} {stored.count:,} numbers in {_bytes(stored.bytes)}"
                for dtype, stored in inspection.precision.items()
            ),
        ),
        ("multiply-adds", f"{_number(inspection.macs)} per sample"),
        *(
            ("external", f"{file.name}, {_bytes(file.bytes)}, checksum {file.checksum}")
            for file in inspection.external_files
        ),
        (
            "operators",
            _joined(
                f"{name} {count}" for name, count in sorted(inspection.operators.items(), key=_most_first)
            ),
        ),
        *(("note", note) for note in inspection.notes),
    ]
    return "\n".join(f"{name:<14} {printable(text)}" for name, text in facts if text)


def layer_table(inspection: Inspection, most: int | None = None) -> str:
    """One line a layer, in the graph's order; with `most`, only those that cost most, and a line that says so."""
    layers = list(inspection.layers)
    shown = layers
    if most is not None and len(layers) > most:
        dearest = sorted(range(len(layers)), key=lambda index: _cost(layers[index]), reverse=True)[:most]
        shown = [layers[index] for index in sorted(dearest)]
    rows = [("layer", "operator", "output", "dtype", "parameters", "multiply-adds"), *map(_row, shown)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if index > 3 else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    if len(shown) < len(layers):
        lines.append(f"the {len(shown)} most expensive of {len(layers)} layers; --all shows every one")
    return "\n".join(lines)


def notebook_html(inspection: Inspection) -> str:
    """The drawing, the facts and the whole table, for a notebook's cell."""
    from labkit.inspection.drawing import draw_graph

    text = html.escape(f"{summary(inspection)}\n\n{layer_table(inspection)}")
    scroll = "overflow:auto;max-height:40em"
    return (
        f'<div style="display:flex;gap:1em"><div style="{scroll};flex:1">{draw_graph(inspection)}</div>'
        f'<pre style="{scroll};flex:1">{text}</pre></div>'
    )


def shape_text(shape: Shape | None) -> str:
    """[batch, 1, 32, 32]; a size that nobody knows is a question mark."""
    if shape is None:
        return _NONE
    return f"[{', '.join('?' if size is None else str(size) for size in shape)}]"


def printable(text: str) -> str:
    """A text without the characters that would steer a terminal: names come from the file."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def _row(layer: Layer) -> tuple[str, ...]:
    name = layer.name if len(layer.name) <= _WIDEST else f"…{layer.name[1 - _WIDEST :]}"
    cells = (name, layer.operator, shape_text(layer.output_shape), layer.dtype or _NONE)
    return (*map(printable, cells), _number(layer.parameters), _number(layer.macs))


def _cost(layer: Layer) -> tuple[int, int]:
    return layer.macs or 0, layer.parameters or 0


def _most_first(item: tuple[str, int]) -> tuple[int, str]:
    return -item[1], item[0]


def _ir(inspection: Inspection) -> str | None:
    return None if inspection.ir_version is None else f"IR version {inspection.ir_version}"


def _joined(parts: Iterable[str | None]) -> str:
    return ", ".join(part for part in parts if part)


def _number(value: int | None) -> str:
    return _NONE if value is None else f"{value:,}"


def _bytes(size: int) -> str:
    return (
        f"{size / 1e6:.2f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB" if size >= 1000 else f"{size} bytes"
    )
