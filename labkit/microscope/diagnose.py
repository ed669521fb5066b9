"""What kind of difference is it? Cheap tests on the two results, each with one plain sentence if it fits.

Two wrong tensors often tell at sight what went wrong: one is the other transposed, or is the same but for its
borders, or but for one channel. The tests go from what is certain (the files themselves say other numbers) to
what is likely (the error has the size of float16's rounding); the first that fits is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from labkit.microscope.front import Front
from labkit.microscope.kinds import kind
from labkit.microscope.match import agreement, layouts
from labkit.microscope.search import Side, sources, translated
from labkit.microscope.taps import Tap
from labkit.variant import Array

_SAME_DB = 85.0  # of a result after a repair, where the repair itself was estimated from rounded numbers
_EXPLAINED_DB = 25.0  # a repair explains an error that it makes so much smaller
_NOTHING = 1e-3  # of the largest error of any channel: the channel is the same
_FLOAT16_DB = (55.0, 95.0)


def diagnose(reference: Side, other: Side, front: Front) -> str:
    """The first finding that fits; empty if none does."""
    if front.change == "left out":
        return ""
    exchanged = ""
    if not front.change:
        first, second = front.mine[0], front.theirs[0]
        found = _wiring(sources(reference, first), translated(other, second)) or _settings(first, second)
        if found:
            return found
        exchanged = _kinds(front) + " "
    return (exchanged + _by_value(*results(other, front))).strip()


def _by_value(x: Array, y: Array) -> str:
    if x.size != y.size:
        return f"Its result has shape {list(x.shape)}, in the other {list(y.shape)}."
    if x.dtype.kind != "f" or y.dtype.kind != "f":
        return _whole(x.astype(np.float64), y.astype(np.float64))
    if not np.isfinite(y).all():
        return (
            f"In the other, {np.count_nonzero(~np.isfinite(y))} of its {y.size} values are NaN or infinite."
        )
    fits = [(agreement(x, z).snr_db, z) for _, z in layouts(y)]
    a, b = x.astype(np.float64), max(fits, key=lambda fit: fit[0])[1].reshape(x.shape).astype(np.float64)
    tests = (_whole, _transposed, _clipped, _activation, _border, _scaled, _channels, _swapped, _float16)
    return next((found for test in tests if (found := test(a, b))), "")


def results(other: Side, front: Front) -> tuple[Array, Array]:
    """What both come to; for operators put in, what they read and what they make of it."""
    theirs = front.theirs
    before = other.taps[theirs[0].inputs[0]] if front.change == "put in" else front.mine[-1]
    return before.value, theirs[-1].value


def _kinds(front: Front) -> str:
    first, second = front.mine[0], front.theirs[0]
    if len(front.mine) != len(front.theirs) or kind(first) == kind(second):
        return ""
    return f"It is {first.operator} in the reference and {second.operator} in the other."


def _wiring(mine: set[str], theirs: set[str]) -> str:
    """It computes the right thing from the wrong tensor."""
    if len(mine) != len(theirs) or mine == theirs:
        return ""
    return f"It reads {_list(mine - theirs)} in the reference and {_list(theirs - mine)} in the other."


def _settings(first: Tap, second: Tap) -> str:
    """Attributes and stored parameters, where both are written in the same words."""
    a, b = first.settings, second.settings
    if first.operator != second.operator or not set(a) & set(b):
        return ""
    for key in sorted(set(a) | set(b)):
        if key not in a or key not in b:
            return f"Its {key} is given only in the {'reference' if key in a else 'other'}."
        if isinstance(a[key], np.ndarray):
            if not np.array_equal(a[key], b[key]):
                return f"The numbers stored at its {key} differ{_which(a[key], b[key])}."
        elif a[key] != b[key]:
            return (
                f"Its attribute {key!r} is {_text(a[key])} in the reference and {_text(b[key])} in the other."
            )
    return ""


def _which(a: Array, b: Array) -> str:
    """Which output channels (axis 0) of a parameter differ."""
    if a.shape != b.shape:
        return f" in shape: {list(a.shape)} and {list(b.shape)}"
    if a.ndim < 1:
        return f": {a} and {b}"
    if a.ndim == 4 and np.array_equal(a.swapaxes(2, 3), b):
        return ": its rows and columns are exchanged"
    rows = [int(i) for i in np.flatnonzero((a != b).reshape(len(a), -1).any(axis=1))]
    where = f"in {_channel_list(rows, len(a))}"
    if np.array_equal(a.astype(np.float16).astype(a.dtype), b):
        return f" {where}: it was rounded to float16"
    return f" {where}, by up to {np.max(np.abs(b - a)) / (np.max(np.abs(a)) or 1.0):.2g} of its scale"


def _whole(x: Array, y: Array) -> str:
    if not np.array_equal(y, np.round(y)) or np.array_equal(x, np.round(x)):
        return ""
    return "In the other all of its values are whole numbers: something is cast to an integer type."


def _transposed(x: Array, y: Array) -> str:
    for i in range(1, x.ndim):
        for j in range(i + 1, x.ndim):
            if x.shape[i] == x.shape[j] and _same(x, y.swapaxes(i, j)):
                return f"The results are the same with axes {i} and {j} exchanged."
    return ""


def _clipped(x: Array, y: Array) -> str:
    """Whatever differs has one and the same value in the other: the largest, or the smallest, that it can hold."""
    for side, word, beyond in ((y.max(), "above", x > y.max()), (y.min(), "below", x < y.min())):
        differs = np.abs(x - y) > 0.05 * np.abs(x).max()
        if beyond.any() and differs.any() and np.all(beyond[differs]) and _close(y[beyond], side):
            return (
                f"The other clips it: {np.mean(beyond):.1%} of its values lie {word} {side:.4g}, and all become "
                f"{side:.4g}."
            )
    return ""


def _activation(x: Array, y: Array) -> str:
    """Same where positive, different where not."""
    positive = x > 0
    if not positive.any() or positive.all() or not _same(x[positive], y[positive]):
        return ""
    return "Where it is above 0 both agree, below they do not: the activation function is another one."


def _border(x: Array, y: Array) -> str:
    """Same inside, different along the edges of the last two axes."""
    if x.ndim != 4 or min(x.shape[2:]) < 4:
        return ""
    if not _same(x[:, :, 1:-1, 1:-1], y[:, :, 1:-1, 1:-1]):
        return ""
    return "Only the border of the images differs: look at its pads."


def _scaled(x: Array, y: Array) -> str:
    factor = float(np.vdot(x, y) / (np.vdot(x, x) or 1.0))
    if _explains(factor * x, x, y):
        return f"The other's result is {factor:.6g} times the reference's."
    shift = float(np.mean(y - x))
    return f"The other's result is the reference's plus {shift:.4g}." if _explains(x + shift, x, y) else ""


def _channels(x: Array, y: Array) -> str:
    """A constant for each channel (axis 1), or a factor and a constant, explain it all."""
    if x.ndim < 2:
        return ""
    a, b = _by_channel(x), _by_channel(y)
    differ = _differing(a, b)
    where = f"In {_channel_list(differ, len(a))}"
    if a.shape[1] > 1 and _explains(a + (b - a).mean(axis=1, keepdims=True), a, b):
        return f"{where} a constant is added: look at the bias."
    centred_a, centred_b = (each - each.mean(axis=1, keepdims=True) for each in (a, b))
    power = (centred_a**2).sum(axis=1)
    factors = np.where(power > 0, (centred_a * centred_b).sum(axis=1) / np.where(power > 0, power, 1.0), 1.0)
    if a.shape[1] > 2 and _explains(factors[:, None] * centred_a + b.mean(axis=1, keepdims=True), a, b):
        low, high = factors[differ].min(), factors[differ].max()
        times = f"{low:.5g}" if low == high else f"{low:.5g} to {high:.5g}"
        return (
            f"{where} the other's result is the reference's times a factor ({times}) plus a constant: look at the "
            "normalisation's epsilon and variance, or at the scale of the weights."
        )
    return ""


def _swapped(x: Array, y: Array) -> str:
    """Some channels (axis 1) hold what others should."""
    if x.ndim < 2:
        return ""
    a, b = _by_channel(x), _by_channel(y)
    differ = _differing(a, b)
    sources = {c for c in differ for d in differ if c != d and _same(a[d], b[c])}
    if sources == set(differ) and len(differ) > 1:
        return f"{_channel_list(differ, len(a)).capitalize()} are the reference's in another order."
    if 0 < len(differ) <= len(a) // 4:
        return f"Only {_channel_list(differ, len(a))} differ{'s' if len(differ) == 1 else ''}."
    return ""


def _float16(x: Array, y: Array) -> str:
    low, high = _FLOAT16_DB
    if low <= agreement(x, y).snr_db <= high:
        return "The error is of the size of float16's rounding: look for weights or results kept in half precision."
    return ""


def _same(x: Array, y: Array) -> bool:
    found = agreement(x, y)
    return found.snr_db >= _SAME_DB and not found.layout


def _explains(repaired: Array, x: Array, y: Array) -> bool:
    """Whether a repair of `x` leaves next to nothing of the error, and little enough of it."""
    return agreement(repaired, y).snr_db >= max(_SAME_DB, agreement(x, y).snr_db + _EXPLAINED_DB)


def _by_channel(x: Array) -> Array:
    """[N, C, …] → [C, all the rest]."""
    return np.moveaxis(x, 1, 0).reshape(x.shape[1], -1)


def _differing(a: Array, b: Array) -> list[int]:
    """The rows that are not the same; the largest difference decides what is the same."""
    errors = np.abs(b - a).max(axis=1)
    return [int(row) for row in np.flatnonzero(errors > _NOTHING * errors.max())]


def _close(values: Array, target: float) -> bool:
    return bool(np.all(np.abs(values - target) <= 1e-4 * (abs(target) or 1.0)))


def _channel_list(channels: Sequence[int], count: int) -> str:
    """Channel 3 of 64; all 64 channels."""
    if len(channels) == count:
        return f"all {count} channels"
    if len(channels) == 1:
        return f"channel {channels[0]} of {count}"
    shown = ", ".join(map(str, channels[:4]))
    return f"channels {shown} of {count}" if len(channels) <= 4 else f"{len(channels)} of {count} channels"


def _list(names: set[str]) -> str:
    return ", ".join(repr(name) for name in sorted(names))


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
