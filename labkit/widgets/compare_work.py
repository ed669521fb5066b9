"""What the compare panel runs: make each chosen variant, then time it in turns with the baseline."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from labkit.data import Dataset, load_dataset
from labkit.errors import ConfigError
from labkit.measure import Candidate, compare, measure
from labkit.progress import Progress, part
from labkit.runtimes import get_runtime
from labkit.technique import Technique
from labkit.variant import Variant
from labkit.widgets.catalogue import text
from labkit.zoo import load_model

Rows = list[dict[str, Any]]
Chain = tuple[Technique, ...]
_PERCENTILES = ("latency_p50_ms", "latency_p95_ms", "latency_p99_ms")
MAKING_SHARE = 0.3  # of a variant's part of the progress bar; the rest is measuring


def at_pace(row: dict[str, Any], baseline: Mapping[str, Any]) -> dict[str, Any]:
    """A candidate's row of a later run, its times as they would be at the pace of the first `baseline`.

    Only the paired `speedup` holds across runs, so the median becomes the baseline's / speedup, the throughput
    the baseline's · speedup; the percentiles are stretched as the median was. A null stays one.
    """
    speedup, median, pace = row["speedup"], row["latency_p50_ms"], baseline["latency_p50_ms"]
    if None in (speedup, median, pace):
        return row
    stretched = {name: row[name] for name in _PERCENTILES if row[name] is not None}
    throughput = baseline["throughput_samples_per_s"]
    return {
        **row,
        **{name: value * pace / speedup / median for name, value in stretched.items()},
        "throughput_samples_per_s": throughput and throughput * speedup,
    }


class Workbench:
    """A model, a dataset, and chains of techniques to try; everything is loaded when first needed.

    A variant that was made is kept, as the same chain makes the same variant: a second Run need not wait.
    """

    def __init__(self, model: str, dataset: str, chains: Mapping[str, Chain]) -> None:
        self.model, self.dataset, self.chains = model, dataset, dict(chains)
        self._data: Dataset | None = None
        self._made: dict[Chain, Variant] = {}

    def measure_each(self, config: Any, show: Callable[[Sequence[Any]], None], progress: Progress) -> Rows:
        """Measure what `config` (variants, runtimes, batch_size, threads) chooses; `show` rows after each.

        Each candidate takes turns with the baseline, so its speed-up is a paired one. The candidates do not
        take turns with one another (for that, `labkit.measure` takes them all at once), and the machine may
        have changed between them: so times are shown `at_pace` of the first baseline.
        """
        settings, total = (config.batch_size, config.threads), len(config.variants)
        rows: Rows = []
        for index, name in enumerate(config.variants):
            share = part(progress, index / total, (index + 1) / total, f"{name}: ")
            variant = self._make(self.chains[name], part(share, 0.0, MAKING_SHARE))
            baseline = Candidate(self._make((), share), "torch", *settings)
            fitting = [item for item in config.runtimes if variant.format in get_runtime(item).formats]
            width = (1 - MAKING_SHARE) / max(1, len(fitting))
            for place, runtime in enumerate(fitting):
                start = MAKING_SHARE + place * width
                candidate = Candidate(variant, runtime, *settings)
                report = part(share, start, start + width)
                records = measure([candidate], self._load_data(), against=baseline, progress=report)
                first, measured = compare(records).to_rows()
                rows = rows or [first]
                rows.append(at_pace(measured, rows[0]))
                show(rows)
        if not rows:
            chosen = ", ".join(config.variants)
            raise ConfigError(text("compare.no_match", variants=chosen, runtimes=", ".join(config.runtimes)))
        return rows

    def _make(self, chain: Chain, progress: Progress) -> Variant:
        if chain not in self._made:
            if chain:
                before = self._make(chain[:-1], part(progress, 0.0, 0.5))
                self._made[chain] = chain[-1](before, self._load_data(), part(progress, 0.5, 1.0))
            else:
                self._made[chain] = load_model(self.model)
        return self._made[chain]

    def _load_data(self) -> Dataset:
        if self._data is None:
            self._data = load_dataset(self.dataset)
        return self._data
