"""The answer: the ratio first, then where the time goes, then each cause in words."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from labkit.explain.finding import Finding
from labkit.explain.profile import Profile
from labkit.explain.trials import Ratio

_MOST_ROWS = 15


@dataclass(frozen=True)
class Explanation:
    """What was found out about one variant on one runtime.

    `run_ms` is the median of a run without the profiler, `speedup` how many times faster than the baseline
    (above 1 is faster), `findings` the causes, the first the largest. `notes` say what weakens all this.
    """

    profile: Profile
    run_ms: float
    against: Profile | None
    speedup: Ratio | None
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()

    def names(self, cause: str) -> bool:
        """Whether `cause` is the one named first."""
        return bool(self.findings) and self.findings[0].cause == cause

    @property
    def says(self) -> str:
        """The answer for a person: a line for the ratio, and one for each finding."""
        lines = [self._headline()]
        for number, finding in enumerate(self.findings, 1):
            lines.append(f"{number}. {finding.says} What to do: {finding.advice}.")
        if not self.findings:
            lines.append(f"Nothing stands out: {self._where()}.")
        return "\n".join([*lines, *(f"Note: {note}." for note in self.notes)])

    def table(self) -> str:
        """The most expensive operators as text, one line each."""
        slowest = sorted(self.profile.operators, key=lambda each: -each.ms)
        lines = [
            f"{'operator':<22} {'layer':<26} {'computed in':<12} {'ms':>8} {'share':>6} {'Mmacs':>8} {'Gmacs/s':>8}"
        ]
        for each in slowest[:_MOST_ROWS]:
            macs = "–" if each.macs is None else f"{each.macs / 1e6:.2f}"
            speed = "–" if each.macs_per_ms is None else f"{each.macs_per_ms / 1e6:.1f}"
            lines.append(
                f"{_short(each.kind, 22):<22} {_short(each.layer or '–', 26):<26} {each.precision:<12} "
                f"{each.ms:>8.3f} {each.share:>6.1%} {macs:>8} {speed:>8}"
            )
        rest = slowest[_MOST_ROWS:]
        if rest:
            name = f"{len(rest)} more"
            lines.append(
                f"{name:<62} {sum(each.ms for each in rest):>8.3f} {sum(each.share for each in rest):>6.1%}"
            )
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Plain data; the profiles with every operator."""
        return {
            "variant": self.profile.variant,
            "runtime": self.profile.runtime,
            "batch_size": self.profile.batch_size,
            "threads": self.profile.threads,
            "run_ms": self.run_ms,
            "speedup": _plain(self.speedup),
            "findings": [{**dataclasses.asdict(each), "trial": _plain(each.trial)} for each in self.findings],
            "notes": list(self.notes),
            "profile": dataclasses.asdict(self.profile),
            "against": dataclasses.asdict(self.against) if self.against else None,
        }

    def _headline(self) -> str:
        here = (
            f"{self.profile.runtime}, batch {self.profile.batch_size}, {self.profile.threads} thread"
            + "s" * (self.profile.threads > 1)
        )
        if self.speedup is None or self.against is None:
            return f"{self.profile.variant!r} takes {self.run_ms:.3g} ms ({here})."
        low, high = self.speedup.ci95
        verdict = (
            "is faster"
            if low > 1
            else "is slower"
            if high < 1
            else "is neither faster nor slower, as far as this shows"
        )
        return f"{self.profile.variant!r} {verdict}: {self.speedup} the speed of {self.against.variant!r} ({here})."

    def _where(self) -> str:
        kinds = list(self.profile.by_kind().items())[:2]
        total = self.profile.total_ms or 1.0
        return "the time goes into " + " and ".join(f"{kind} ({ms / total:.0%})" for kind, ms in kinds)


def _plain(ratio: Ratio | None) -> dict[str, Any] | None:
    return None if ratio is None else {"value": ratio.value, "ci95": list(ratio.ci95)}


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
