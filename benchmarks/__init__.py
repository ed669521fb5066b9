"""Side-by-side measurements, one file per claim: `python -m benchmarks.NAME [--quick] [--json]`.

A full run writes its document to `benchmarks/results/NAME.json`, from which the pages are generated;
`--quick` writes nothing. `--json` prints the document on stdout and nothing else.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from labkit.environment import current
from labkit.files import write_atomically

RESULTS = Path(__file__).parent / "results"


def run_benchmark(name: str, measure: Callable[[bool], dict[str, Any]]) -> None:
    """The command line of a benchmark; `measure(quick)` gives at least `figures` and `table`."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions, done in under 50 s")
    parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    arguments = parser.parse_args()
    document = {**measure(arguments.quick), "environment": current().to_json()}
    text = json.dumps(document, indent=1, ensure_ascii=False)
    if not arguments.quick:
        write_atomically(RESULTS / f"{name}.json", f"{text}\n".encode())
    print(text if arguments.json else _readable(document))


def _readable(document: dict[str, Any]) -> str:
    lines = [f"{key}: {value}" for key, value in document["figures"].items()]
    lines += ["  ".join(f"{key}={value}" for key, value in row.items()) for row in document["table"]]
    return "\n".join(lines)
