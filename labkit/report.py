"""The report: one HTML file that needs no other, for a person who was not there.

It holds the decision in words, the table, the Pareto plot, every rejection with its reason, how each finalist came
to be, and the machine. Everything that comes from outside (names, labels, paths) is escaped.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit import __version__
from labkit.files import write_atomically
from labkit.plots import image_html, pareto

if TYPE_CHECKING:
    from labkit.measure import Comparison, Measurement, Pair
    from labkit.strategy import Confirmation, Outcome

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 84rem; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; font-size: 0.86rem; width: 100% } caption { text-align: left; font-weight: 600 }
th, td { border-bottom: 1px solid #ddd; padding: 0.3rem 0.5rem; text-align: left; vertical-align: top }
td:first-child { overflow-wrap: anywhere; min-width: 9rem }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
tr.chosen { background: #e8f3ee } .note { color: #555 } img { max-width: 100% } h2 { margin-top: 2rem }
.box { border-left: 4px solid #0a7d55; background: #f3f8f6; padding: 0.6rem 1rem } .wide { overflow-x: auto }
"""


def write_report(outcome: Outcome, folder: str | Path) -> Path:
    """Write `index.html` into `folder` and return its path."""
    path = Path(folder) / "index.html"
    write_atomically(path, render(outcome).encode())
    return path


def render(outcome: Outcome) -> str:
    """The whole page as text."""
    requirement = outcome.decision.requirement
    chosen = outcome.decision.chosen.key if outcome.decision.chosen else None
    front = pareto(
        [r for r in outcome.screening.measurements if _alike(r, requirement.batch_size, requirement.threads)],
        x="latency_p50_ms",
        chosen=chosen,
    )
    body = [
        f"<h1>labkit: {_e(requirement.title or requirement.name)}</h1>",
        _decision(outcome),
        "<h2>The finalists, side by side</h2>",
        _table(outcome.finals, chosen, "Interleaved with the baseline on validation; intervals are 95 %"),
        "<h2>Accuracy against latency</h2>",
        f"<p class='note'>All candidates at batch {requirement.batch_size}, {requirement.threads} thread(s), screened "
        "briefly: the plot shows where to look, the table above what was proved.</p>",
        image_html(front),
        "<h2>Why not the others</h2>",
        _rejections(outcome),
        "<h2>Everything that was screened</h2>",
        _table(outcome.screening, chosen, "One after the other, so without speed ratios"),
        "<h2>How it came to be</h2>",
        _lineage(outcome),
        "<h2>Where this was measured</h2>",
        _environment(outcome.finals.measurements[0].environment),
        f"<p class='note'>labkit {_e(__version__)}. Latencies are of one batch on this machine at that moment; another "
        "machine gives others. Raw block times lie beside records.jsonl.</p>",
    ]
    page = "\n".join(body)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>labkit: {_e(requirement.name)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>'
        f"<body>\n{page}\n</body></html>\n"
    )


def _decision(outcome: Outcome) -> str:
    decision = outcome.decision
    limits = (
        "; ".join(f"{key} {value:g}" for key, value in decision.requirement.limits.given().items()) or "none"
    )
    asked = f"objective {decision.requirement.objective}; limits: {limits}"
    if decision.chosen is None:
        return (
            f"<div class='box'><p><b>Nothing qualifies.</b> {_e(decision.advice)}</p><p>{_e(asked)}</p></div>"
        )
    where = f"platform: {decision.platform}, method: {decision.method}"
    lines = [f"<p><b>Run {_e(decision.chosen.key)}</b> ({_e(where)}).</p>"]
    lines.append(f"<p>Required: {_e(asked)}. {_e(decision.advice[:1].upper() + decision.advice[1:])}.</p>")
    if outcome.confirmation is not None:
        measured = outcome.confirmation.measured
        lines.append(
            f"<p><b>{_e(outcome.confirmation.status.capitalize())}</b> on test, looked at once: "
            f"{_e(outcome.confirmation.reason)}. {_e(str(measured.quality_metric).capitalize())} {_quality(measured)}; "
            f"{_e(confirmation_in_words(outcome.confirmation))}.</p>"
        )
    if outcome.pool is not None:
        low, high = outcome.pool.speedup_ci95
        lines.append(
            f"<p>Two workers instead of one, at batch {outcome.pool.batch_size}: {outcome.pool.speedup:.2f}× "
            f"[{low:.2f}, {high:.2f}] the throughput.</p>"
        )
    return f"<div class='box'>{''.join(lines)}</div>"


def confirmation_in_words(confirmation: Confirmation) -> str:
    """What was measured on test, in one clause."""
    pairs = confirmation.comparison.pairs
    return pair_in_words(pairs[0] if pairs else None)


def pair_in_words(pair: Pair | None) -> str:
    """One clause about speed and quality against the baseline; "it is the baseline" without a pair."""
    if pair is None:
        return "it is the baseline itself"
    clauses = []
    if pair.speedup is not None and pair.speedup_ci95 is not None:
        clauses.append(
            f"{pair.speedup:.1f}× [{pair.speedup_ci95[0]:.1f}, {pair.speedup_ci95[1]:.1f}] the baseline's speed"
        )
    if pair.accuracy_drop_pp is not None and pair.accuracy_drop_pp_ci95 is not None:
        low, high = pair.accuracy_drop_pp_ci95
        clauses.append(f"accuracy drop {pair.accuracy_drop_pp:+.2f} points [{low:+.2f}, {high:+.2f}]")
    elif pair.quality_drop is not None:
        clauses.append(f"{pair.quality_metric} drop {pair.quality_drop:+.4g}")
    return ", ".join(clauses)


_COLUMNS = ("variant", "runtime", "precision")
_NUMBER_COLUMNS = (
    "speed ratio [95 %]", "drop [95 %]", "quality [95 %]", "size, bytes", "p50, ms", "p95, ms", "samples/s", "batch",
    "threads",
)  # fmt: skip


def _table(comparison: Comparison, chosen: str | None, caption: str) -> str:
    head = "".join(f"<th scope='col'>{name}</th>" for name in _COLUMNS)
    head += "".join(f"<th scope='col' class='n'>{name}</th>" for name in _NUMBER_COLUMNS)
    rows = "\n".join(_row(record, pair, chosen) for record, pair in comparison.with_pairs())
    return (
        f"<div class='wide'><table><caption>{_e(caption)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{rows}</tbody></table></div>"
    )


def _row(record: Measurement, pair: Pair | None, chosen: str | None) -> str:
    drop, ratio = "baseline", "1"
    if pair is not None:
        drop = _interval(pair.accuracy_drop_pp, pair.accuracy_drop_pp_ci95, "+.2f")
        if pair.accuracy_drop_pp is None:
            drop = _interval(pair.quality_drop, pair.quality_drop_ci95, "+.4g")
        ratio = _interval(pair.speedup, pair.speedup_ci95, ".2f")
    names = "".join(f"<td>{_e(text)}</td>" for text in (record.variant, record.runtime, record.precision))
    names = names.replace("+", "<wbr>+")  # a long name breaks between its techniques
    numbers = (
        ratio,
        drop,
        _quality(record),
        f"{record.size_bytes:,}",
        _number(record.latency_p50_ms),
        _number(record.latency_p95_ms),
        _number(record.throughput_samples_per_s),
        str(record.batch_size),
        str(record.intra_op_threads),
    )
    mark = " class='chosen'" if record.key == chosen else ""
    return f"<tr{mark}>{names}{''.join(f'<td class=n>{_e(text)}</td>' for text in numbers)}</tr>"


def _quality(record: Measurement) -> str:
    if record.quality is None:
        return "–"
    scale, form = (100, ".2f") if record.quality_metric == "accuracy" else (1, ".4g")
    interval = record.quality_ci95
    text = f"{record.quality * scale:{form}}"
    return (
        text if interval is None else f"{text} [{interval[0] * scale:{form}}, {interval[1] * scale:{form}}]"
    )


def _interval(value: float | None, interval: Sequence[float] | None, form: str) -> str:
    if value is None:
        return "–"
    return (
        f"{value:{form}}"
        if interval is None
        else f"{value:{form}} [{interval[0]:{form}}, {interval[1]:{form}}]"
    )


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _rejections(outcome: Outcome) -> str:
    rows = "".join(
        f"<tr><td>{_e(r.key)}</td><td>{_e(r.broke)}</td><td>{_e(r.reason)}</td></tr>"
        for r in outcome.decision.rejected
    )
    rows += "".join(
        f"<tr><td>{_e(what)}</td><td>not built</td><td>{_e(why)}</td></tr>"
        for what, why in outcome.built.skipped
    )
    return (
        "<table><thead><tr><th>candidate</th><th>what it broke</th><th>why</th></tr></thead>"
        f"<tbody>{rows}</tbody></table>"
    )


def _lineage(outcome: Outcome) -> str:
    items = []
    for variant in outcome.built.variants:
        steps = " → ".join(f"{step.technique} ({step.origin})" for step in variant.lineage)
        items.append(
            f"<li><b>{_e(variant.name)}</b> ({_e(variant.format)}, {variant.size_bytes:,} bytes): {_e(steps)}</li>"
        )
    return f"<ul>{''.join(items)}</ul>"


def _environment(environment: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><th>{_e(str(key))}</th><td>{_e(_flat(value))}</td></tr>" for key, value in environment.items()
    )
    return f"<table><tbody>{rows}</tbody></table>"


def _flat(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _alike(record: Measurement, batch_size: int, threads: int) -> bool:
    return record.batch_size == batch_size and record.intra_op_threads == threads


def _e(text: str) -> str:
    return html.escape(text)
