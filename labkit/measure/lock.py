"""One lock for the whole machine: while somebody times, nobody else of ours computes.

A latency that was taken while a training run used the same cores says nothing. So timed blocks hold this lock
alone (`exclusive`), and heavy work holds it together with other heavy work, batch by batch (`shared`). It is
a file, so it works between processes, and the system releases it when its holder dies.

Two files, because one starves: work that takes `shared` again at once after every batch leaves no gap for a
timed block to slip into. Whoever wants the lock first passes the *gate*; a timed block keeps the gate shut
while it waits.

Nobody waits for ever: after `timeout_s` the work goes on without the lock, and is told so.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

DEFAULT_TIMEOUT_S = 60.0
_held = threading.local()


def path() -> Path:
    """The lock's file: LABKIT_LOCK if it is set, else one per user in the system's temporary folder."""
    user = os.getuid() if hasattr(os, "getuid") else "user"
    return Path(os.environ.get("LABKIT_LOCK") or Path(tempfile.gettempdir()) / f"labkit-measure-{user}.lock")


@contextmanager
def exclusive(timeout_s: float = DEFAULT_TIMEOUT_S) -> Iterator[bool]:
    """Hold the machine alone; yields whether that was achieved within `timeout_s` seconds."""
    with _hold("exclusive", timeout_s) as held:
        yield held


@contextmanager
def shared(timeout_s: float = DEFAULT_TIMEOUT_S) -> Iterator[bool]:
    """Hold the machine together with other heavy work, but not during a timed block; yields whether we do."""
    with _hold("shared", timeout_s) as held:
        yield held


class Patience:
    """How long a run still waits for the machine: after one timeout it only tries, so it waits in vain once."""

    def __init__(self, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        self.timeout_s = timeout_s

    def exclusive(self) -> AbstractContextManager[bool]:
        """`exclusive`, with what is left of our patience."""
        return self._wait(exclusive)

    def shared(self) -> AbstractContextManager[bool]:
        """`shared`, with what is left of our patience: for one batch of training, calibration or scoring."""
        return self._wait(shared)

    @contextmanager
    def _wait(self, take: Callable[[float], AbstractContextManager[bool]]) -> Iterator[bool]:
        with take(self.timeout_s) as held:
            if not held:
                self.timeout_s = 0.0
            yield held


@contextmanager
def _hold(mode: str, timeout_s: float) -> Iterator[bool]:
    """A thread that holds the lock already is not made to wait for itself.

    Inside `exclusive` anything is granted; inside `shared`, `exclusive` is not: others may be sharing.
    """
    outer = getattr(_held, "mode", None)
    if outer is not None:
        yield outer == "exclusive" or mode == "shared"
        return
    door = _take(mode, time.monotonic() + timeout_s)
    _held.mode = mode if door is not None else None
    try:
        yield door is not None
    finally:
        _held.mode = None
        if door is not None:
            _release(door)


def _take(mode: str, deadline: float) -> int | None:
    """The descriptor that holds the lock, or None if it could not be had in time."""
    file = path()
    try:
        gate = _open(file.with_name(file.name + ".gate"))
        try:
            return _wait_for(_open(file), mode, deadline) if _wait(gate, mode, deadline) else None
        finally:
            _release(gate)
    except OSError:  # no such folder, or not ours to write
        return None


def _wait_for(door: int, mode: str, deadline: float) -> int | None:
    if _wait(door, mode, deadline):
        return door
    _release(door)
    return None


def _open(file: Path) -> int:
    return os.open(file, os.O_CREAT | os.O_RDWR | getattr(os, "O_NOFOLLOW", 0), 0o600)


def _wait(descriptor: int, mode: str, deadline: float) -> bool:
    pause_s = 0.0002
    while not _try(descriptor, mode):
        if time.monotonic() >= deadline:
            return False
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, 0.005)
    return True


if sys.platform == "win32":
    import msvcrt

    def _try(descriptor: int, mode: str) -> bool:
        """Windows locks exclusively only: `shared` looks whether the door is free, and leaves it open."""
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            if mode == "shared":
                msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)
        except OSError:
            return False
        return True

    def _release(descriptor: int) -> None:
        os.close(descriptor)
else:
    import fcntl

    def _try(descriptor: int, mode: str) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_NB | (fcntl.LOCK_SH if mode == "shared" else fcntl.LOCK_EX))
        except BlockingIOError:
            return False
        return True

    def _release(descriptor: int) -> None:
        """Unlock before closing: a child that was forked meanwhile holds a copy of the descriptor."""
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)
