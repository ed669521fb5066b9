"""The couplings of a whole graph: which of its channels form a group to choose from, which stay whole and why."""

from __future__ import annotations

import contextlib
import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from labkit.onnx_graph import Graph, add_constant, keep_used, read_by
from labkit.prune.coupling.axis import Axes, Ledger, Numbers, Place
from labkit.prune.coupling.group import Group, Member
from labkit.prune.coupling.reading import Edit, Reading, Unruled, left
from labkit.prune.coupling.rules import RULES
from labkit.prune.coupling.sizes import find_sizes
from labkit.variant import Array

_MOST_ROUNDS = 4
WRITING = ("makes", "scales", "shifts")
EVERYWHERE = (*WRITING, "reads")


@dataclass(frozen=True, eq=False)
class Coupling:
    """What hangs together in `model`: `groups` in the order of the graph; weight → why all that it makes stays.

    `followed`: the groups whose cut the numbers that a module keeps beside its tensors follow (`modules.fitting`).
    """

    model: onnx.ModelProto
    groups: tuple[Group, ...]
    whole: Mapping[str, str]
    _units: Numbers = field(repr=False)
    _places: Mapping[Place, Numbers] = field(repr=False)
    _edits: Mapping[int, Edit] = field(repr=False)
    _widths: Mapping[int, Axes] = field(repr=False)
    followed: tuple[Group, ...] = ()

    def indices(self, removed: Sequence[Numbers]) -> dict[Place, Array]:
        """Which indices of every initializer's axes stay once the units are removed: only places that lose some."""
        gone = self._gone(removed)
        return {
            place: np.flatnonzero(~gone[numbers])
            for place, numbers in self._places.items()
            if gone[numbers].any()
        }

    def stand(self, removed: Sequence[Numbers], roles: Sequence[str]) -> Iterator[tuple[str, int, Array]]:
        """Where these units stand in one of the roles: (initializer, axis, their indices)."""
        gone = self._gone(removed)
        for member in (member for group in self.groups for member in group.members):
            lost = gone[self._places[member.tensor, member.axis]]
            if member.role in roles and lost.any():
                yield member.tensor, member.axis, np.flatnonzero(lost)

    def widths(self, removed: Sequence[Numbers]) -> Iterator[tuple[onnx.NodeProto, list[int], list[int]]]:
        """Every node that is told how long to make axes of which some become shorter, their sizes, and those left."""
        gone = self._gone(removed)
        for index, axes in self._widths.items():
            sizes = (
                [axis.size for axis in axes],
                [left(axis, lambda numbers: ~gone[numbers]) for axis in axes],
            )
            if sizes[0] != sizes[1]:
                yield self.model.graph.node[index], *sizes

    def without(self, reasons: Mapping[Group, str]) -> Coupling:
        """The same with some groups left whole, and why."""
        groups = tuple(group for group in self.groups if group not in reasons)
        whole = {**self.whole, **{group.name: why for group, why in reasons.items()}}
        return dataclasses.replace(self, groups=groups, whole=whole)

    def _gone(self, removed: Sequence[Numbers]) -> NDArray[np.bool_]:
        """For each number whether its unit is removed."""
        return np.isin(self._units, np.concatenate([np.empty(0, np.int64), *removed]))

    def remove(self, removed: Sequence[Numbers]) -> onnx.ModelProto:
        """The graph without these units, as a new model: weights cut, and what nodes are told about sizes corrected.

        removed: numbers from the `units` of groups; of each group, and of each of its pieces, one unit must stay.
        """
        gone = self._gone(removed)
        narrow = onnx.ModelProto()
        narrow.CopyFrom(self.model)
        tensors = {tensor.name: tensor for tensor in narrow.graph.initializer}
        changed: dict[str, Array] = {}
        for (name, axis), stay in self.indices(removed).items():
            values = changed[name] if name in changed else numpy_helper.to_array(tensors[name])
            changed[name] = values.take(stay, axis)
        for name, values in changed.items():
            tensors[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), name))
        graph = Graph(narrow)

        def write(values: Array) -> str:
            wish = f"{node.output[0]}/{len(narrow.graph.initializer)}"
            return add_constant(narrow, graph.new_name(wish), values)

        for index, edit in self._edits.items():
            node = graph.nodes[index]
            edit(node, lambda numbers: ~gone[numbers], write)
        del narrow.graph.value_info[:]
        keep_used(narrow, narrow.graph.node)
        return narrow

    def masked(self, removed: Sequence[Numbers], roles: Sequence[str] = WRITING) -> onnx.ModelProto:
        """The graph with these units zero in all places of the roles: where they are made, scaled or shifted.

        With "reads" besides, whatever a function makes of zero (a sigmoid ½) is not read either.
        """
        zeroed = onnx.ModelProto()
        zeroed.CopyFrom(self.model)
        tensors = {tensor.name: tensor for tensor in zeroed.graph.initializer}
        for name, axis, indices in self.stand(removed, roles):
            values = numpy_helper.to_array(tensors[name]).copy()
            np.moveaxis(values, axis, 0)[indices] = 0
            tensors[name].CopyFrom(numpy_helper.from_array(values, name))
        return zeroed


def find_coupling(model: onnx.ModelProto) -> Coupling:
    """Read the graph of `model`, as `open_graph` gives it, and find what hangs together in it.

    Raises TechniqueError if the graph cannot be run.
    """
    graph = Graph(model)
    sizes = find_sizes(model)
    wanted, unwanted = set[tuple[int, int]](), set[tuple[int, int]]()
    for _ in range(_MOST_ROUNDS):
        reading = Reading(graph, sizes, frozenset(wanted), frozenset(unwanted))
        _read(reading)
        if reading.ledger.wanted <= wanted and reading.ledger.unwanted <= unwanted:
            break
        wanted |= reading.ledger.wanted
        unwanted |= reading.ledger.unwanted
    return _group(reading)


def _read(reading: Reading) -> None:
    """Every node once, in the order of the graph."""
    graph = reading.graph
    for value in graph.model.graph.input:
        reading.store(value.name, reading.whole(value.name, f"{value.name!r} is an input of the model"))
    for reading.index, reading.node in enumerate(graph.nodes):
        try:
            rule = RULES.get(reading.node.op_type)
            if rule is None or reading.node.domain not in ("", "ai.onnx"):
                raise Unruled(f"labkit has no rule for {reading.title()}")
            written = rule(reading)
        except Unruled as reason:
            _give_up(reading, str(reason))
            continue
        for name, axes in zip(reading.node.output, written, strict=False):
            if name:
                reading.store(name, axes)
    for name in graph.outputs:
        with contextlib.suppress(Unruled):  # of unknown shape: whatever makes it stays whole already
            reading.ledger.keep_all(reading.axes(name), f"they are what the model puts out as {name!r}")


def _give_up(reading: Reading, why: str) -> None:
    """Whatever the node reads and writes stays whole."""
    for name in read_by(reading.node) - {""}:
        with contextlib.suppress(Unruled):  # a name from inside, or a tensor that was given up on before
            reading.ledger.keep_all(reading.axes(name), why)
    for name in reading.node.output:
        with contextlib.suppress(Unruled):  # whoever reads it will be given up on too
            reading.store(name, reading.whole(name, why))


def _group(reading: Reading) -> Coupling:
    """Sort the units that may go by where they stand: those of the same places are a group."""
    ledger = reading.ledger
    units = ledger.units()
    reasons: dict[int, str] = {}
    for numbers, why in ledger.reasons:
        for unit in np.unique(units[numbers]).tolist():
            reasons.setdefault(unit, why)
    standing: dict[int, list[tuple[Place, int]]] = defaultdict(list)
    for place, numbers in ledger.places.items():
        for unit, count in Counter(units[numbers].tolist()).items():
            standing[unit].append((place, count))
    alike: dict[tuple[tuple[Place, int], ...], list[int]] = defaultdict(list)
    for unit, where in standing.items():
        if unit not in reasons and any("makes" in ledger.roles[place] for place, _ in where):
            alike[tuple(where)].append(unit)
    added, unweighted = (
        np.unique(units[np.concatenate([np.empty(0, np.int64), *numbers])])
        for numbers in (ledger.added, ledger.unweighted)
    )
    groups, parts = [], Counter[str]()
    taken = _pieces(ledger, units, list(alike.values()))
    for (standings, alike_units), pieces in zip(alike.items(), taken, strict=True):
        if max(1, len(pieces)) >= len(alike_units):
            alone = len(alike_units) > 1
            why = "each of its channels is taken by itself" if alone else "all of its channels hang together"
            reasons.update(dict.fromkeys(alike_units, why))
            continue
        numbers = np.array(alike_units)
        members = tuple(
            Member(
                *place,
                _role(ledger.roles[place]),
                _indices(units[ledger.places[place]], numbers),
                normed=place not in ledger.unnormed,
            )
            for place, _ in standings
        )
        name = next(member.tensor for member in members if member.role == "makes")
        parts[name] += 1
        title = name if parts[name] == 1 else f"{name} (part {parts[name]})"
        bare = np.flatnonzero(np.isin(numbers, unweighted))
        groups.append(Group(title, numbers, members, bool(np.isin(numbers, added).any()), pieces, bare))
    whole = {
        place[0]: reasons[int(units[numbers[0]])]
        for place, numbers in ledger.places.items()
        if "makes" in ledger.roles[place] and all(int(unit) in reasons for unit in units[numbers])
    }
    grouped = {unit for group in groups for unit in group.units.tolist()}
    for title, numbers in ledger.reparametrized:
        if (unit := int(units[numbers[0]])) not in grouped:
            also = f", and {reasons[unit]}" if unit in reasons else ""
            whole[title] = f"its weight is computed while the model runs{also}"
    return Coupling(
        reading.graph.model, tuple(groups), whole, units, ledger.places, reading.edits, reading.widths
    )


def _pieces(ledger: Ledger, units: Numbers, alike: Sequence[list[int]]) -> list[tuple[Numbers, ...]]:
    """For each of `alike` the places in it of which one at least must stay, so that no piece is left with nothing.

    A piece of several of them is left to the one that it has most of. One that holds another needs no care of its own.
    """
    owner = {unit: index for index, group in enumerate(alike) for unit in group}
    found: list[set[frozenset[int]]] = [set() for _ in alike]
    for numbers in ledger.pieces:
        owners = Counter(owner.get(unit, -1) for unit in np.unique(units[numbers]).tolist())
        if owners and -1 not in owners:  # what is in none of them stays anyway
            index = owners.most_common(1)[0][0]
            found[index].add(frozenset(np.flatnonzero(np.isin(alike[index], units[numbers])).tolist()))
    return [
        tuple(np.array(sorted(piece)) for piece in pieces if not any(other < piece for other in pieces))
        for pieces in found
    ]


def _role(roles: set[str]) -> str:
    """A place may both make and read channels, where a weight is used twice: then it makes them."""
    return next((role for role in EVERYWHERE if role in roles), "")


def _indices(owners: Numbers, units: Numbers) -> Array:
    """For each unit the indices that are its own: [U, k], ascending."""
    order = np.argsort(owners, kind="stable")
    mine = order[np.isin(owners[order], units)].reshape(len(units), -1)
    return mine[np.argsort(np.argsort(units))]
