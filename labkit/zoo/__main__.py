"""`python -m labkit.zoo NAME…` trains shipped networks again by their recipes and writes weights and cards."""

from __future__ import annotations

import json
import sys

from labkit.zoo import build, recipes


def _report(fraction: float, message: str) -> None:
    print(f"\r{fraction:6.1%} {message}", end="", file=sys.stderr)


for name in sys.argv[1:] or recipes():
    print(json.dumps(build(name, progress=_report)))
