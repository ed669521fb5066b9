"""An assignment of bits, drawn: the bytes against the budget on top, then a line of bars for each layer."""

from __future__ import annotations

from labkit.quantize.sensitivity import FLOAT_BITS
from labkit.widgets import svg
from labkit.widgets.catalogue import text
from labkit.widgets.mixed_rows import Tally
from labkit.widgets.svg import Axis

WIDTH = 940
_ROW, _TOP, _BAR_HEIGHT = 22, 108, 14
_NAME, _BITS, _BYTES, _NOISE = 8, 228, 290, 600  # where the columns begin
_BAR = 190  # the longest bar of a layer; its words stand behind it
_GAUGE_TOP, _GAUGE_HEIGHT = 32, 20
_LONGEST_NAME = 32
_LEAST_NOISE = 1e-6  # of the outputs' power, 60 dB below it: less is no bar
_HATCH = (
    '<defs><pattern id="labkit-few-bits" width="6" height="6" patternUnits="userSpaceOnUse" '
    'patternTransform="rotate(45)"><rect width="6" height="6" fill="#fff"/>'
    f'<line x1="0" y1="0" x2="0" y2="6" stroke="{svg.ORANGE}" stroke-width="7"/></pattern></defs>'
)
_FLOAT = (svg.LIGHT, f'stroke="{svg.GREY}"')
_FILLS = ((svg.BLUE, ""), ("url(#labkit-few-bits)", f'stroke="{svg.ORANGE}"'), (svg.GREEN, ""))


def draw_assignment(total: Tally) -> str:
    """An SVG document of a `tally`: the bytes of all weights against the budget, bytes and noise of each layer."""
    size = Axis(0, max(each.weight_bytes for each in total.choices), 0, _BAR)
    noise = Axis(_LEAST_NOISE, 1.0, 0, _BAR, log=True)
    fewer = sorted({each.bits for each in total.choices} - {FLOAT_BITS}, reverse=True)
    fills = {FLOAT_BITS: _FLOAT, **{bits: _FILLS[index % len(_FILLS)] for index, bits in enumerate(fewer)}}
    parts = [_HATCH, *_draw_budget(total)]
    columns = {
        "mixed.column.layer": _NAME,
        "mixed.column.bits": _BITS,
        "mixed.column.bytes": _BYTES,
        "mixed.column.noise": _NOISE,
    }
    parts += [svg.words(x, _TOP - 8, text(key), bold=True) for key, x in columns.items()]
    for index, layer in enumerate(total.layers):
        y = _TOP + index * _ROW
        share = layer.noise / total.noise if total.noise else 0.0
        heard = text("mixed.noise", snr_db=layer.snr_db, share=share) if layer.noise else text("mixed.exact")
        parts += [
            svg.words(_NAME, y + 12, svg.shorten(layer.weight, _LONGEST_NAME)),
            svg.words(_BITS, y + 12, text("mixed.bits", bits=layer.bits)),
            *_bar(_BYTES, y, size(layer.weight_bytes), f"{layer.weight_bytes:,}", fills[layer.bits]),
            *_bar(_NOISE, y, noise(layer.noise) if layer.noise else 0, heard, fills[layer.bits]),
        ]
    told = [total.says, *(text("mixed.told", **vars(each), snr_db=each.snr_db) for each in total.layers)]
    height = _TOP + _ROW * len(total.layers) + 10
    return svg.document(WIDTH, height, text("mixed.title"), " ".join(told), parts)


def _bar(x: float, y: float, length: float, said: str, fill: tuple[str, str]) -> list[str]:
    """A bar with its words behind it."""
    return [
        svg.rect(x, y + 1, max(1.5, length), _BAR_HEIGHT, *fill),
        svg.words(x + length + 6, y + 12, said, size=11),
    ]


def _draw_budget(total: Tally) -> list[str]:
    """One bar of all bytes, and a line where the budget ends; what is beyond it is hatched."""
    widest: dict[str, int] = {}
    for each in total.choices:
        widest[each.weight] = max(each.weight_bytes, widest.get(each.weight, 0))
    axis = Axis(0, 1.02 * max(sum(widest.values()), total.budget_bytes), _NAME, WIDTH - 12)
    end, limit, bottom = axis(total.weight_bytes), axis(total.budget_bytes), _GAUGE_TOP + _GAUGE_HEIGHT
    said = text(
        "mixed.gauge.over" if total.over_bytes > 0 else "mixed.gauge.within", bytes=abs(total.over_bytes)
    )
    color = svg.VERMILLION if total.over_bytes > 0 else svg.GREEN
    budget = text("mixed.budget", bytes=total.budget_bytes)
    return [
        svg.rect(_NAME, _GAUGE_TOP, axis.end - _NAME, _GAUGE_HEIGHT, "#fff", f'stroke="{svg.GREY}"'),
        svg.rect(_NAME, _GAUGE_TOP, end - _NAME, _GAUGE_HEIGHT, svg.BLUE),
        svg.rect(limit, _GAUGE_TOP, end - limit, _GAUGE_HEIGHT, "url(#labkit-few-bits)"),
        svg.line(limit, _GAUGE_TOP - 8, limit, bottom + 8, svg.DARK, 2.5),
        svg.words(
            _NAME, _GAUGE_TOP - 12, text("mixed.weights", bytes=total.weight_bytes), size=13, bold=True
        ),
        svg.words(WIDTH - 12, _GAUGE_TOP - 12, said, "end", 13, color, bold=True),
        svg.words(min(max(limit, 90), WIDTH - 100), bottom + 22, budget, "middle"),
    ]
