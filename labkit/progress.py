"""How long work tells how far it is, and how it is stopped.

A `Progress` is called as `progress(fraction, message)` between batches. It may raise `Cancelled`; the work
then stops at that batch and leaves nothing half-written. A panel's Stop button and Ctrl-C both use this.
"""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[float, str], None]


def silent(fraction: float, message: str) -> None:
    """Report to nobody."""


def part(progress: Progress | None, start: float, end: float, prefix: str = "") -> Progress:
    """A Progress that fills only the stretch start..end of a larger one."""
    report = progress or silent
    return lambda fraction, message: report(start + (end - start) * fraction, prefix + message)
