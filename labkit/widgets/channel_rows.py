"""Widths of groups of channels, and what they come to: the channel game's figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from labkit.errors import DataError
from labkit.plots import table_html
from labkit.prune import Widths
from labkit.prune.channel_sensitivity import GroupPruned
from labkit.widgets.catalogue import text
from labkit.widgets.game import Tried, tries_view

Shares = Mapping[str, float]
"""Group → the share of its channels that stays."""

_ROW_COLUMNS = ("group", "coupled", "kept", "channels", "saves_alone", "alone_points_lost", "alone_ci95")
_POINT_COLUMNS = (
    "variant",
    "whose",
    "goal",
    "macs",
    "macs_share",
    "time_share",
    "accuracy_drop_pp",
    "accuracy_drop_pp_ci95",
)


class Narrowed(Tried, Protocol):
    """A network of chosen widths that was measured."""

    @property
    def macs(self) -> int:
        """Multiply-adds of one sample."""

    @property
    def time_share(self) -> float:
        """Its time as a share of the whole network's."""


@dataclass(frozen=True)
class WidthOption:
    """A group at one width, all others whole: so many of its `units`, and the share of all multiply-adds saved.

    `alone` is what was measured of it without any training; None for the whole width, which loses nothing.
    """

    group: str
    residual: bool
    share: float
    channels: int
    units: int
    saved: float
    alone: GroupPruned | None

    @property
    def lost_pp(self) -> float:
        """Points lost with this group alone so narrow, and nothing trained."""
        return 100 * self.alone.drop if self.alone else 0.0


@dataclass(frozen=True)
class WidthsTotal:
    """What chosen widths come to: each group's option, and all multiply-adds against the goal."""

    options: tuple[WidthOption, ...]
    macs: int
    whole_macs: int
    keep: float

    @property
    def share(self) -> float:
        """Of the whole network's multiply-adds that are left."""
        return self.macs / self.whole_macs

    @property
    def is_over(self) -> bool:
        """Whether more is left than the goal allows."""
        return self.share > self.keep

    @property
    def says(self) -> str:
        """Multiply-adds against the goal, in one sentence."""
        narrowed = sum(option.share < 1 for option in self.options)
        words = {"macs": self.macs, "whole": self.whole_macs, "share": self.share, "keep": self.keep}
        key = "channels.over" if self.is_over else "channels.within"
        return text(key, narrowed=narrowed, groups=len(self.options), **words)


class Options:
    """Every group at every width that is offered, and what a choice of them comes to.

    scans: the rows of `scan_channels`, at the ratios 1 − share of all shares below 1. Raises DataError where one is
    missing.
    """

    def __init__(self, widths: Widths, scans: Sequence[GroupPruned], keep: float) -> None:
        self.widths, self.keep, self.whole_macs = widths, keep, widths.macs({})
        alone = {(row.group, round(1 - row.ratio, 6)): row for row in scans}
        self.shares = (1.0, *sorted({share for _, share in alone}, reverse=True))
        self.options: dict[tuple[str, float], WidthOption] = {}
        for group, units in widths.groups.items():
            for share in self.shares:
                if share < 1 and (group, share) not in alone:
                    raise DataError(
                        f"{group} was not scanned with {share:.0%} of its channels: scan them all"
                    )
                self.options[group, share] = WidthOption(
                    group,
                    group in widths.residual,
                    share,
                    widths.channels({group: share})[group],
                    units,
                    1 - widths.macs({group: share}) / self.whole_macs,
                    alone.get((group, share)),
                )

    def total(self, shares: Shares) -> WidthsTotal:
        """What these widths come to; a group that is not named stays whole."""
        chosen = tuple(self.options[group, shares.get(group, 1.0)] for group in self.widths.groups)
        return WidthsTotal(chosen, self.widths.macs(shares), self.whole_macs, self.keep)


def widths_table(total: WidthsTotal) -> str:
    """An HTML table: each group, what stays of it, and what that saves and costs alone."""
    rows: list[dict[str, Any]] = []
    for each in total.options:
        row: dict[str, Any] = {"group": each.group, "coupled": _coupled(each), "kept": f"{each.share:.0%}"}
        row |= {"channels": f"{each.channels}/{each.units}", "saves_alone": f"{each.saved:.1%}"}
        row["alone_points_lost"] = each.lost_pp
        if each.alone:
            row["alone_ci95"] = tuple(100 * end for end in each.alone.drop_ci95)
        rows.append(row)
    return table_html(rows, _ROW_COLUMNS)


def _coupled(option: WidthOption) -> str:
    return text("channels.residual" if option.residual else "channels.inner")


def widths_view(options: Options, recorded: Sequence[Narrowed], tries: Sequence[Narrowed]) -> tuple[Any, str]:
    """Time against points lost of `recorded` networks and of one's own `tries`; and a table, multiply-adds beside."""

    def figures(point: Narrowed) -> dict[str, Any]:
        share = point.macs / options.whole_macs
        goal = text("channels.row.over" if share > options.keep else "channels.row.within")
        return {"goal": goal, "macs": point.macs, "macs_share": share, "time_share": point.time_share}

    return tries_view(recorded, tries, figures, "time_share", _POINT_COLUMNS)
