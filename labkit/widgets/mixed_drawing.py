"""An assignment of bits, drawn: the bytes against the budget on top, then a line of bars for each layer."""

from __future__ import annotations

from labkit.quantize.sensitivity import FLOAT_BITS
from labkit.widgets.board_drawing import FULL, GREEN, HATCHED, LONGEST_BAR, PALE, Gauge, Line, draw_board
from labkit.widgets.catalogue import text
from labkit.widgets.mixed_rows import Tally
from labkit.widgets.svg import Axis

_LEAST_NOISE = 1e-6  # of the outputs' power, 60 dB below it: less is no bar
_FILLS = (FULL, HATCHED, GREEN)


def draw_assignment(total: Tally) -> str:
    """An SVG document of a `tally`: the bytes of all weights against the budget, bytes and noise of each layer."""
    size = Axis(0, max(each.weight_bytes for each in total.choices), 0, LONGEST_BAR)
    noise = Axis(_LEAST_NOISE, 1.0, 0, LONGEST_BAR, log=True)
    fewer = sorted({each.bits for each in total.choices} - {FLOAT_BITS}, reverse=True)
    fills = {FLOAT_BITS: PALE, **{bits: _FILLS[index % len(_FILLS)] for index, bits in enumerate(fewer)}}
    lines = []
    for layer in total.layers:
        share = layer.noise / total.noise if total.noise else 0.0
        heard = text("mixed.noise", snr_db=layer.snr_db, share=share) if layer.noise else text("mixed.exact")
        bars = (
            (size(layer.weight_bytes), f"{layer.weight_bytes:,}"),
            (noise(layer.noise) if layer.noise else 0.0, heard),
        )
        lines.append(Line(layer.weight, text("mixed.bits", bits=layer.bits), fills[layer.bits], bars))
    told = [total.says, *(text("mixed.told", **vars(each), snr_db=each.snr_db) for each in total.layers)]
    keys = ("mixed.column.layer", "mixed.column.bits", "mixed.column.bytes", "mixed.column.noise")
    return draw_board(text("mixed.title"), " ".join(told), _gauge(total), [text(key) for key in keys], lines)


def _gauge(total: Tally) -> Gauge:
    widest: dict[str, int] = {}
    for each in total.choices:
        widest[each.weight] = max(each.weight_bytes, widest.get(each.weight, 0))
    verdict = "mixed.gauge.over" if total.over_bytes > 0 else "mixed.gauge.within"
    return Gauge(
        total.weight_bytes,
        total.budget_bytes,
        sum(widest.values()),
        text("mixed.weights", bytes=total.weight_bytes),
        text(verdict, bytes=abs(total.over_bytes)),
        text("mixed.budget", bytes=total.budget_bytes),
    )
