"""What every command shares: progress on stderr, JSON on stdout, fields typed as KEY=VALUE."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from labkit.errors import ConfigError
from labkit.progress import Progress


def print_json(document: Any) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(json.dumps(document, indent=1, allow_nan=False) + "\n")


def say(text: str = "") -> None:
    """A line for a person: on stderr, so that stdout stays clean for tables and JSON."""
    print(text, file=sys.stderr, flush=True)


def progress_line() -> Progress:
    """A Progress that keeps one line up to date where stderr is a terminal, and is silent elsewhere."""
    if not sys.stderr.isatty():
        return lambda fraction, message: None
    last = 0.0

    def report(fraction: float, message: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last > 0.1 or fraction >= 1:
            last = now
            print(
                f"\r\x1b[2K{fraction:5.0%}  {message[:90]}",
                end="" if fraction < 1 else "\r\x1b[2K",
                file=sys.stderr,
            )

    return report


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """`["bits=8", "scope=layer"]` → {"bits": 8, "scope": "layer"}; numbers and booleans are recognised."""
    parsed: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set {setting!r} must have the form FIELD=VALUE, such as --set sparsity=0.5")
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = text
        parsed[key.replace("-", "_")] = value if not isinstance(value, (list, Mapping)) else text
    return parsed
