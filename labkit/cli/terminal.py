"""What every command shares: progress on stderr, JSON on stdout, fields typed as KEY=VALUE."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from labkit.errors import ConfigError
from labkit.progress import Progress

_LOG_PAUSE = 30.0
"""Seconds between two lines of progress where stderr is no terminal."""


def print_json(document: Any) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(json.dumps(document, indent=1, allow_nan=False) + "\n")


def say(text: str = "") -> None:
    """A line for a person: on stderr, so that stdout stays clean for tables and JSON."""
    print(text, file=sys.stderr, flush=True)


def progress_line() -> Progress:
    """A Progress that keeps one line up to date on a terminal; a log, which keeps every line, gets two a minute."""
    live = sys.stderr.isatty()
    pause = 0.1 if live else _LOG_PAUSE
    last = 0.0 if live else time.monotonic()

    def report(fraction: float, message: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last > pause or live and fraction >= 1:
            last = now
            line = f"{fraction:5.0%}  {message[:90]}"
            if not live:
                say(line)
            else:
                end = "" if fraction < 1 else "\r\x1b[2K"
                print(f"\r\x1b[2K{line}", end=end, file=sys.stderr)

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
