"""A finding: one cause, what it costs here, on what that rests, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass

from labkit.explain.trials import Ratio


@dataclass(frozen=True)
class Finding:
    """`cause` is one of CAUSES (causes.py), `share` the share of the variant's time that it accounts for.

    Where the cause was taken away and the clock asked, `trial` is how many times faster that was, and `share`
    what was gone. For a baseline that had it better than it should, `share` is of the time that it should take.
    """

    cause: str
    share: float
    says: str
    advice: str
    trial: Ratio | None = None
