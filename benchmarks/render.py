"""Write the generated pages of docs/ and parts of README.md from the results of the last full runs.

    python -m benchmarks.render [--check]

Every figure that a reader sees comes from `benchmarks/results/*.json`; `--check` exits with 1 where a page is out of
date. Between `<!-- generated: NAME -->` and `<!-- end: NAME -->` nothing is written by hand.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

from benchmarks.bytes import page as bytes_words
from benchmarks.bytes.page import bytes_page
from benchmarks.distillation import page as distillation
from benchmarks.pruning import words as pruning_words
from benchmarks.pruning.page import pruning_page
from benchmarks.quantization import words as quantization_words
from benchmarks.quantization.page import quantization_page
from benchmarks.tables import machine, rounded

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"

OPTIMIZED = {
    **{
        f"best_{figure}_{runtime}": f"{what}, {title}"
        for runtime, title in pruning_words.TITLES.items()
        for figure, what in {
            "speedup": "the best that loses half a point at most, times PyTorch eager",
            "drop_pp": "points that it loses",
            "drop_upper_pp": "the upper end of their interval",
        }.items()
    },
    "int8_size_ratio": "int8 file / float32 file",
    "smallest_size_ratio": "smallest finalist within half a point / float32 file",
}
WORDS = {
    "sleep_p50_error_pct": "error of the median of a known sleep, %",
    "ratio_coverage_pct": "intervals that hold a known ratio, %",
    "ratio_intervals": "… of so many",
    "aa_false_positive_pct": "identical twins called different, %",
    "aa_intervals": "… of so many pairs",
    "real_coverage_pct": "intervals that hold a known ratio of real sessions, on the machine as it was, %",
    "real_intervals": "… of so many",
    "null_overhead_us": "what timing itself costs, µs a run",
    "stall_p99_ratio": "p99 with an injected stall / without",
    "cheats_caught": "cheating models caught",
    "cheats_planted": "cheating models planted",
    "honest_accused": "honest sessions accused of cheating",
    "honest_measured": "… of so many",
    "import_ms": "`import labkit`, ms",
    "help_ms": "`labkit --help`, ms",
    "demo_seconds": "`labkit demo --json`, s",
    "demo_peak_mb": "its peak memory, MB",
    **OPTIMIZED,
    **{
        f"{figure}_{key}": f"{title}: {words}"
        for key, title in {"digits": "digits", "fashion_mnist": "Fashion-MNIST"}.items()
        for figure, words in OPTIMIZED.items()
    },
    "chosen_test_speedup": "what the demo chose: times PyTorch eager",
    "chosen_test_drop_pp": "… points lost on test",
    "chosen_pool_speedup": "… its pool of workers / one worker",
    "models": "models in the conversion matrix",
    "cells": "… in how many formats all together",
    "cells_passed_pct": "… of which keep their numbers, %",
    "cells_typed_pct": "of the others, refused with a reason of labkit's own, %",
    "microscope_found": "planted operators that the microscope names",
    "microscope_planted": "… of so many",
    "microscope_slowest_seconds": "… the slowest, s",
    "overhead_ratio": "`lk.convert` with its proof / PyTorch's bare exporter, resnet20",
    "overhead_ratio_low": "… the low end of its interval",
    "overhead_ratio_high": "… the high end",
    "convert_seconds": "`lk.convert`, s",
    "bare_seconds": "the bare exporter, s",
    "inspect_seconds": "`labkit inspect` on 100 MB, s",
    "inspect_peak_over_file": "its peak memory / the file",
    "hostile_files": "hostile model files",
    "hostile_slowest_seconds": "… the slowest, s on the wall",
    "hostile_clean": "… refused in one line, nothing left behind",
    "two_workers_batch1": "two workers / one, batch 1",
    "two_workers_batch8": "two workers / one, batch 8",
    "two_workers_batch32": "two workers / one, batch 32",
    **quantization_words.WORDS,
    **distillation.WORDS,
    **bytes_words.WORDS,
    **pruning_words.WORDS,
}


IN_README = {
    "bytes": bytes_words.IN_README,
    "pruning": pruning_words.IN_README,
    "quantization": quantization_words.IN_README,
}
"""Benchmark name → the figures that the README shows, where it does not show all."""


HAVE_A_PAGE = ("bytes", "conversion", "distillation", "pruning", "quantization")
"""The benchmarks whose tables have a page of their own."""


def results() -> dict[str, dict[str, Any]]:
    """Benchmark name → what its last full run printed."""
    return {
        path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))
    }


def number(value: float | None) -> str:
    """Three significant digits; null is a dash."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def figure_table(name: str, document: dict[str, Any], only: Collection[str] | None = None) -> str:
    """A benchmark's figures as a Markdown table; all of them, or `only` these."""
    rows = [
        f"| {WORDS.get(key, key.replace('_', ' '))} | {_figure(key, value)} |"
        for key, value in document["figures"].items()
        if only is None or key in only
    ]
    return "\n".join([f"| `python -m benchmarks.{name}` | measured |", "|---|---:|", *rows])


def _figure(key: str, value: float | None) -> str:
    """Points and per cent to two decimals, all else to three digits."""
    return rounded(value) if value is not None and key.endswith(("_pp", "_pct")) else number(value)


def benchmarks_page(documents: dict[str, dict[str, Any]]) -> str:
    """docs/benchmarks.md."""
    parts = [
        "# Benchmarks",
        "Generated by `python -m benchmarks.render` from `benchmarks/results/`. Each figure is measured by the command "
        "above its column; side by side means same data, same threads, same run, interleaved.",
    ]
    for name, document in documents.items():
        parts += [
            f"## {name}",
            f"Measured on {machine(document['environment'])}.",
            figure_table(name, document),
        ]
        if name in HAVE_A_PAGE:
            parts.append(f"Row by row: [{name}.md]({name}.md).")
    return "\n\n".join(parts) + "\n"


def conversion_page(document: dict[str, Any]) -> str:
    """docs/conversion.md: every model of the matrix in every format, or the reason why not."""
    rows = [row for row in document["table"] if "target" in row]
    targets = list(dict.fromkeys(row["target"] for row in rows))
    by_model: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        by_model.setdefault(row["model"], {"": row})[row["target"]] = row
    lines = [f"| model | from | {' | '.join(targets)} |", f"|---|---|{'---:|' * len(targets)}"]
    for model, found in by_model.items():
        cells = [_cell(found.get(target)) for target in targets]
        lines.append(f"| {model} | {found['']['source']} | {' | '.join(cells)} |")
    reasons = [
        f"- {row['model']} → {row['target']}: {row.get('detail') or _departed(row)}"
        for row in rows
        if row["verdict"] != "passed"
    ]
    faults = ["| planted fault | between | operator | found | s |", "|---|---|---|---|---:|"] + [
        f"| {row['fault']} | {row['pair']} | `{row['operator']}` | {_YES[row['found']]} | {row['seconds']} |"
        for row in document["table"]
        if "fault" in row
    ]
    parts = [
        "# The conversion matrix",
        "Generated by `python -m benchmarks.render` from the last `python -m benchmarks.conversion`. A number is the "
        "largest error at batches 1, 3 and 7 as a share of the largest output, with precision pinned to float32; 1e-4 "
        "is allowed, and no sample of 600 with a margin above ten times that may change its class. TensorRT is left "
        "out: it needs an NVIDIA GPU, and nobody has seen its edge run yet.",
        f"Measured on {machine(document['environment'])}.",
        "\n".join(lines),
        "\n".join(["What did not pass, with its reason:", "", *reasons]) if reasons else "Every cell passed.",
        *(
            [f"Not installed when this was run: {', '.join(document['left_out'])}."]
            if document["left_out"]
            else []
        ),
        "## The planted faults\n\nOne operator broken on purpose; the microscope must name it.",
        "\n".join(faults),
    ]
    return "\n\n".join(parts) + "\n"


def _departed(row: dict[str, Any]) -> str:
    return f"max_rel_error {row.get('max_rel_error')}, top-1 agreement {row.get('top1_agreement')}"


_YES = {True: "yes", False: "no"}


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    return f"{row['max_rel_error']:.1g}" if row["verdict"] == "passed" else f"{row['verdict']}, see below"


def fill(page: str, name: str, text: str) -> str:
    """Replace what stands between the markers of `name`."""
    pattern = rf"(<!-- generated: {name} -->\n).*?(<!-- end: {name} -->)"
    return re.sub(pattern, lambda match: match[1] + text + "\n" + match[2], page, flags=re.DOTALL)


def pages() -> dict[Path, str]:
    """Every generated page as it should be."""
    documents = results()
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    if "start" in documents:
        told = "\n".join(f"    {line}".rstrip() for line in documents["start"]["told"].splitlines())
        readme = fill(readme, "demo", f"On {machine(documents['start']['environment'])}:\n\n{told}\n")
    tables = [figure_table(name, document, IN_README.get(name)) for name, document in documents.items()]
    readme = fill(readme, "benchmarks", "\n\n".join(tables))
    found = {ROOT / "README.md": readme, ROOT / "docs" / "benchmarks.md": benchmarks_page(documents)}
    if "bytes" in documents:
        found[ROOT / "docs" / "bytes.md"] = bytes_page(
            documents["bytes"], machine(documents["bytes"]["environment"])
        )
    if "conversion" in documents:
        found[ROOT / "docs" / "conversion.md"] = conversion_page(documents["conversion"])
    if "distillation" in documents:
        document = documents["distillation"]
        found[ROOT / "docs" / "distillation.md"] = distillation.distillation_page(
            document, machine(document["environment"])
        )
    if "pruning" in documents:
        document = documents["pruning"]
        found[ROOT / "docs" / "pruning.md"] = pruning_page(document, machine(document["environment"]))
    if "quantization" in documents:
        document = documents["quantization"]
        found[ROOT / "docs" / "quantization.md"] = quantization_page(
            document, machine(document["environment"])
        )
    return found


def stale() -> list[Path]:
    """The pages that are out of date."""
    return [
        path
        for path, text in pages().items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]


if __name__ == "__main__":
    old = stale()
    if "--check" in sys.argv:
        print("\n".join(f"out of date: {path.relative_to(ROOT)}" for path in old) or "up to date")
        sys.exit(bool(old))
    for path in old:
        path.parent.mkdir(exist_ok=True)
        path.write_text(pages()[path], encoding="utf-8")
        print(f"wrote {path.relative_to(ROOT)}")
