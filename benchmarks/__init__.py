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
    arguments = command_line(name).parse_args()
    document = {**measure(arguments.quick), "environment": current().to_json()}
    if not arguments.quick:
        write_result(name, document)
    show(document, arguments.json)


def command_line(name: str) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions, done in under 50 s")
    parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    return parser


def write_result(name: str, document: dict[str, Any]) -> None:
    """Put the document where the pages are generated from: whole, or not at all."""
    write_atomically(RESULTS / f"{name}.json", f"{_json(document)}\n".encode())


def show(document: dict[str, Any], as_json: bool) -> None:
    """Print the document on stdout, as JSON or to be read."""
    print(_json(document) if as_json else _readable(document))


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False)


def _readable(document: dict[str, Any]) -> str:
    lines = [f"{key}: {value}" for key, value in document["figures"].items()]
    lines += ["  ".join(f"{key}={value}" for key, value in row.items()) for row in document["table"]]
    return "\n".join(lines)
