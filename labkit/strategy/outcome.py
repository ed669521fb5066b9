"""What `optimize` found: every comparison it made, the decision, and what was written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.environment import current
from labkit.measure import Comparison, Pair
from labkit.parallel import PoolGain
from labkit.strategy.confirmation import Confirmation
from labkit.strategy.decision import Decision
from labkit.strategy.grid import Built


@dataclass(frozen=True, eq=False)
class Outcome:
    """All that `optimize` found: the comparisons hold every record with its pairs."""

    screening: Comparison
    finals: Comparison
    decision: Decision
    confirmation: Confirmation | None
    pool: PoolGain | None
    built: Built
    package: Path | None

    def records(self) -> list[dict[str, Any]]:
        """Every record of every run: screening, finals, confirmation, pool."""
        runs = [self.screening.measurements, self.finals.measurements]
        if self.confirmation is not None:
            runs.append(self.confirmation.comparison.measurements)
        if self.pool is not None:
            runs.append(self.pool.records.measurements)
        return [record.to_json() for run in runs for record in run]

    def to_json(self) -> dict[str, Any]:
        """The document that `--json` prints."""
        return {
            "records": self.records(),
            "comparison": [pair_row(pair) for pair in self.finals.pairs],
            "decision": {**self.decision.to_json(), "confirmed_on_test": self._confirmed()},
            "pool": None if self.pool is None else self.pool.to_json(),
            "skipped": [{"what": what, "reason": reason} for what, reason in self.built.skipped],
            "environment": current().to_json(),
        }

    def _confirmed(self) -> dict[str, Any] | None:
        if self.confirmation is None:
            return None
        pairs = self.confirmation.comparison.pairs
        words = {"status": self.confirmation.status, "reason": self.confirmation.reason}
        return {
            **words,
            "measured": self.confirmation.measured.to_json(),
            **(pair_row(pairs[0]) if pairs else {}),
        }


def pair_row(pair: Pair) -> dict[str, Any]:
    """A Pair as plain data."""
    return {
        "key": pair.key,
        "baseline_key": pair.baseline_key,
        "speedup": pair.speedup,
        "speedup_ci95": pair.speedup_ci95,
        "speed_verdict": pair.speed_verdict,
        "quality_drop": pair.quality_drop,
        "quality_drop_ci95": pair.quality_drop_ci95,
        "accuracy_drop_pp": pair.accuracy_drop_pp,
        "accuracy_drop_pp_ci95": pair.accuracy_drop_pp_ci95,
        "p_value": pair.p_value,
        "quality_verdict": pair.quality_verdict,
    }
