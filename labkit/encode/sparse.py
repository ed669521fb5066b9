"""A sparse matrix of codebook entries, described to a coder: which cells are kept, and which entry each holds.

Pruning by magnitude does not scatter. Kept weights lie in few rows (units that matter) and few columns (inputs
that matter), and beside each other (strokes of a kernel, neighbouring pixels). The description follows that:

1. Which rows and which columns hold anything. All else is never looked at again.
2. Line by line, `width` columns at a time (a line of pixels, of a kernel), in two halves: every second column,
   then those between, which then have neighbours on both sides. A cell's probability comes from counts of
   what is known by then (`likelihood.py`).
3. Of each kept cell the codebook entry, adaptively: its probabilities are the counts so far, separately for cells
   whose neighbours are mostly negative, balanced, mostly positive.

A step codes hundreds of cells at once, so that numpy does the work.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from labkit.encode.adaptive import Values, code_flags
from labkit.encode.coder import Coder
from labkit.encode.likelihood import FEATURES, Likelihood, Sample, log2
from labkit.variant import Array

_STEP_BITS = 2  # bytes for speed: a file grows by a hundredth or so, and is read in half the time
WIDEST, _FEW_STEPS, _CELLS_A_STEP = 64, 1024, 64
MOST_STEPS, _MOST_CELLS = 10_000, 2**20  # of a matrix, and of a line
_FLAGS = 16  # flags coded at once, or as many more as make up whole lines


@dataclass(frozen=True)
class Settings:
    """What the reader has to be told before: how the columns lie, and what makes a cell likely.

    width: columns of a line; phases: in how many parts a line is coded; head_start: columns that a row is taken
    to have passed, with half a weight kept, before the first; weights: int8 [phases, F], F = 0 where every cell is
    kept; by_sign: whether the neighbours' signs are looked at.
    """

    width: int
    phases: int
    head_start: int
    weights: Array
    by_sign: bool

    @property
    def dense(self) -> bool:
        """Whether every cell is kept."""
        return not self.weights.shape[1]


def allowed(width: int, phases: int, shape: tuple[int, int], left: int = MOST_STEPS) -> bool:
    """Whether a matrix may be laid out so: no step is huge, and there are not so many that reading takes minutes.

    left: the steps that the file has left.
    """
    rows, columns = shape
    if not 1 <= width <= min(columns, WIDEST) or width * rows > _MOST_CELLS:
        return False
    if steps(width, phases, shape) > min(left, MOST_STEPS):
        return False
    return phases * _rounded_up(columns, width) <= max(_FEW_STEPS, _rounded_up(rows * columns, _CELLS_A_STEP))


def steps(width: int, phases: int, shape: tuple[int, int]) -> int:
    """How many steps it takes to read a matrix laid out so: lines of flags, then lines of cells."""
    rows, columns = shape
    flags = _rounded_up(rows, _FLAGS) + _rounded_up(columns, _flags_of_columns(width))
    return flags + phases * _rounded_up(columns, width)


@dataclass
class Known:
    """What stands in the file before this matrix and may help with it; int64 counts of kept weights.

    before: [units] of the layer before; rows: [r] of this layer's weight, for its bias.
    """

    before: Array | None = None
    rows: Array | None = None
    columns: int = 0  # how many columns `rows` was counted in

    def features(self, shape: tuple[int, int]) -> int:
        """How many of FEATURES a matrix of this shape can use."""
        if shape[1] == 1:
            return 2
        return len(FEATURES) - (self.of_columns(shape[1]) is None)

    def of_columns(self, columns: int) -> Array | None:
        """For every column, how many weights its unit kept in the layer before; None if the numbers do not fit."""
        if self.before is None or columns % len(self.before):
            return None
        return np.repeat(self.before, columns // len(self.before))


def describe(
    coder: Coder, grid: Array | None, shape: tuple[int, int], signs: Array, settings: Settings, known: Known
) -> Array:
    """Code the matrix, or read it where `grid` is None, and return it.

    grid: whole numbers [rows, columns], 0 or 1 + an entry of the codebook; signs: int8 [K], of the entries, K ≤ 255.
    What is returned is uint8.
    """
    likelihood = Likelihood(settings.weights)
    values = Values(signs, settings.by_sign)
    found = np.zeros(shape, dtype=np.uint8)
    rows, columns = alive(coder, grid, shape, settings, known)
    around = _Around(shape, rows, signs, settings, known)
    for phase, line in _lines(columns, settings):
        there = None if grid is None else grid[np.ix_(rows, line)].T
        if settings.dense:
            cell = np.arange(len(line) * len(rows))
        else:
            spare = likelihood.spare(phase, *around.features(line))
            answer = None if there is None else (there > 0).ravel().astype(np.int32)
            cell = np.flatnonzero(coder.symbols(answer, spare, "positions").astype(bool))
        around.passed(line)
        if not len(cell):
            continue
        at = cell // len(rows)
        column, row = line[at], cell - at * len(rows)
        place = around.place(column, row)
        entries = values.code(coder, None if there is None else there.ravel()[cell] - 1, around.sign(place))
        found[rows[row], column] = 1 + entries
        around.learn(place, row, entries)
    return found


def sample(grid: Array, settings: Settings, known: Known) -> tuple[Array, float]:
    """The weights that fit this matrix best, with the bits that its positions then cost; see `Sample.fit`.

    Every step counts as _STEP_BITS more: fewer, larger steps are quicker to read.
    """
    asked = Sample(settings.phases, known.features(grid.shape))
    kept: list[list[Array]] = [[] for _ in range(settings.phases)]
    rows, columns = np.flatnonzero(grid.any(1)), np.flatnonzero(grid.any(0))
    around = _Around(grid.shape, rows, np.zeros(1, np.int8), settings, known)
    for phase, line in _lines(columns, settings):
        there = grid[np.ix_(rows, line)].T > 0
        asked.look(phase, *around.features(line))
        kept[phase].append(there.ravel())
        at, row = np.nonzero(there)
        around.passed(line)
        around.learn(around.place(line[at], row), row, np.zeros(len(row), np.int64))
    weights, bits = asked.fit(kept)
    return weights, bits + _STEP_BITS * sum(map(len, kept))


def alive(
    coder: Coder, grid: Array | None, shape: tuple[int, int], settings: Settings, known: Known
) -> tuple[Array, Array]:
    """Which rows and which columns hold anything: their indices, int64 [r], int64 [c]."""
    if settings.dense:
        return np.arange(shape[0]), np.arange(shape[1])
    before = known.of_columns(shape[1])
    found = []
    for axis, width, counts in (
        (0, _FLAGS, known.rows),
        (1, _flags_of_columns(settings.width), before),
    ):
        flags = None if grid is None else np.asarray(grid.any(1 - axis), np.int32)
        found.append(np.flatnonzero(code_flags(coder, flags, shape[axis], width, counts)))
    return found[0], found[1]


def _rounded_up(count: int, size: int) -> int:
    """How many parts of this size hold so many."""
    return -(-count // size)


def _flags_of_columns(width: int) -> int:
    """How many flags of columns are coded at once: whole lines."""
    return _rounded_up(_FLAGS, width) * width


def _lines(columns: Array, settings: Settings) -> Iterator[tuple[int, Array]]:
    """The columns that are coded at once, with their phase."""
    line, phase = columns // settings.width, columns % settings.width % settings.phases
    step = line * settings.phases + phase
    order = np.argsort(step, kind="stable")
    for part in np.split(order, np.flatnonzero(np.diff(step[order])) + 1):
        if len(part):
            yield int(phase[part[0]]), columns[part]


class _Around:
    """What is known by now around every cell of the rows that are alive.

    Each kept weight adds to the twelve cells around it: 1 to the count, or 2 to those next to it, and as much of its
    sign. Both lie in one number, count + 256 · signs. `signs`: int8 [K], of the codebook's entries.
    """

    def __init__(
        self, shape: tuple[int, int], rows: Array, signs: Array, settings: Settings, known: Known
    ) -> None:
        w = settings.width
        self._margin, self._rows = 2 * w + 2, len(rows)
        steps = [1, -1, w, -w, w + 1, w - 1, -w - 1, 1 - w, 2, -2, 2 * w, -2 * w]
        self._steps = np.array(steps)[:, None] * self._rows
        self._adds = np.array([2] * 4 + [1] * 8, dtype=np.int16)[:, None] * (1 + 256 * signs.astype(np.int16))
        self._cells = np.zeros((shape[1] + 2 * self._margin, self._rows), dtype=np.int16)
        self._flat = self._cells.reshape(-1)  # the same numbers
        self._kept = np.zeros(self._rows, dtype=np.int64) if known.rows is None else known.rows[rows]
        self._passed = settings.head_start + known.columns
        before = known.of_columns(shape[1])
        self._before = None if before is None else log2(before)

    def features(self, line: Array) -> tuple[Array, list[Array], Array]:
        """(row, columns, cells), as `Likelihood.spare` takes them."""
        cells = self._cells[line + self._margin] & 255
        row = log2(self._kept) - log2(np.array(self._passed))
        columns = [log2(cells.sum(1, dtype=np.int64))]
        if self._before is not None:
            columns.append(self._before[line])
        return row, columns, cells

    def place(self, column: Array, row: Array) -> Array:
        """Where the cells at (column, row) lie, as one number each. int64 [n], int64 [n] → int64 [n]."""
        return (column + self._margin) * self._rows + row

    def sign(self, place: Array) -> Array:
        """0, 1, 2 where the kept neighbours are mostly negative, balanced, mostly positive. int64 [n] → int16 [n]."""
        signs: Array = np.sign(self._flat.take(place) >> 8)
        return signs + 1

    def passed(self, line: Array) -> None:
        """The cells of `line` are known."""
        self._passed += len(line)

    def learn(self, place: Array, row: Array, entries: Array) -> None:
        """These cells, in these rows, were kept, with these entries. int64 [n], int64 [n], int [n]."""
        np.add.at(self._flat, (place + self._steps).ravel(), self._adds.take(entries, axis=1).ravel())
        self._kept += np.bincount(row, minlength=self._rows)
