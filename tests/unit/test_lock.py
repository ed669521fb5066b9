"""The machine's lock: alone for timed blocks, together for heavy work, never for ever."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit.measure import lock


@pytest.fixture(autouse=True)
def own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "own.lock"
    monkeypatch.setenv("LABKIT_LOCK", str(file))
    return file


def in_thread(mode: str, timeout_s: float) -> bool:
    """Whether another thread gets the lock while this one keeps what it has."""
    got: list[bool] = []

    def attempt() -> None:
        with getattr(lock, mode)(timeout_s) as held:
            got.append(held)

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    return got[0]


@pytest.fixture
def holder() -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock alone, until it is told to stop."""
    code = "from labkit.measure.lock import exclusive\nwith exclusive(30) as held:\n print(held, flush=True)\n input()"
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None and child.stdout.readline().strip() == "True"
    yield child
    child.kill()
    child.wait()


@pytest.mark.parametrize(
    ("mine", "other", "both"),
    [
        ("shared", "shared", True),
        ("shared", "exclusive", False),
        ("exclusive", "shared", False),
        ("exclusive", "exclusive", False),
    ],
)
def test_timed_blocks_are_alone_and_heavy_work_is_together(mine: str, other: str, both: bool) -> None:
    with getattr(lock, mine)() as held:
        assert held
        assert in_thread(other, 0.05) is both
    assert in_thread(other, 0.0)


@pytest.mark.parametrize(
    ("outer", "inner", "granted"),
    [
        ("exclusive", "exclusive", True),
        ("exclusive", "shared", True),
        ("shared", "shared", True),
        ("shared", "exclusive", False),
    ],
)
def test_a_thread_never_waits_for_itself(outer: str, inner: str, granted: bool) -> None:
    start = time.monotonic()
    with getattr(lock, outer)(), getattr(lock, inner)(30.0) as held:
        assert held is granted
    assert time.monotonic() - start < 5
    assert in_thread("exclusive", 0.0), "all is released at the end"


def test_the_inner_release_keeps_the_outer_lock() -> None:
    with lock.exclusive():
        with lock.exclusive():
            pass
        assert not in_thread("shared", 0.0)


def test_another_process_is_kept_out_and_we_go_on_after_the_timeout(holder: subprocess.Popen[str]) -> None:
    start = time.monotonic()
    with lock.exclusive(0.2) as held:
        assert not held
    assert 0.2 <= time.monotonic() - start < 5


def test_a_killed_holder_leaves_the_lock_free(holder: subprocess.Popen[str]) -> None:
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with lock.exclusive(5.0) as held:
        assert held


def test_work_that_never_pauses_does_not_starve_a_timed_block() -> None:
    stop = threading.Event()

    def train() -> None:
        while not stop.is_set():
            with lock.shared():
                time.sleep(0.005)

    workers = [threading.Thread(target=train) for _ in range(2)]
    for worker in workers:
        worker.start()
    try:
        with lock.exclusive(20.0) as held:
            assert held
    finally:
        stop.set()
        for worker in workers:
            worker.join()


def test_an_error_inside_releases_the_lock() -> None:
    with pytest.raises(ZeroDivisionError), lock.exclusive():
        raise ZeroDivisionError
    assert in_thread("exclusive", 0.0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_does_not_keep_the_lock() -> None:
    with lock.exclusive():
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
    try:
        assert in_thread("exclusive", 0.0)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_no_descriptor_is_left_open() -> None:
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for _ in range(20):
        with lock.exclusive(), lock.shared():
            in_thread("shared", 0.0)
    after = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    assert after == before


def test_a_folder_that_cannot_be_written_means_no_lock_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_LOCK", "/nonexistent/folder/lock")
    with lock.exclusive(30.0) as held:
        assert not held


def test_a_planted_link_is_not_followed(own_lock: Path, tmp_path: Path) -> None:
    target = tmp_path / "precious"
    own_lock.symlink_to(target)
    with lock.exclusive(1.0) as held:
        assert not held
    assert not target.exists()


def test_taking_it_costs_less_than_50_us() -> None:
    def once() -> float:
        start = time.perf_counter()
        with lock.exclusive():
            pass
        return time.perf_counter() - start

    assert statistics.median(once() for _ in range(500)) < 50e-6


def test_the_default_file_lies_in_the_temporary_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LABKIT_LOCK")
    assert lock.path().name.startswith("labkit-measure-")
