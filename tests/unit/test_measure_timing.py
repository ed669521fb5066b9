"""The timed loop, on sessions whose time is known."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labkit.errors import Cancelled, ConfigError
from labkit.measure import Protocol, lock
from labkit.measure.timing import Timed, time_sessions
from labkit.runtimes import RunOptions, Session
from labkit.statistics import percentile, ratio_interval
from labkit.variant import Array, TensorSpec, Variant

SHORT = Protocol(blocks=10, block_ms=2.0, warmup_ms=1.0, min_runs_per_block=1)
NOTHING = Variant("nothing", "onnx", b"", (TensorSpec("x", "float32", ("batch", 1)),), ())
BATCHES = [{"x": np.full((1, 1), index, np.float32)} for index in range(4)]


@pytest.fixture(autouse=True)
def own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_LOCK", str(tmp_path / "own.lock"))


class Clock:
    """A clock that only moves when a session works: what is measured is then exact, on any machine."""

    now_ns = 0

    def __call__(self) -> int:
        return self.now_ns


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(time, "perf_counter_ns", made)
    return made


class Work(Session):
    """Takes `run_ms`, and `sync_ms` more until it is finished; keeps a diary of what it was fed."""

    def __init__(self, clock: Clock, run_ms: float = 0.0, sync_ms: float = 0.0) -> None:
        super().__init__(NOTHING, RunOptions())
        self.clock, self.run_ms, self.sync_ms = clock, run_ms, sync_ms
        self.diary: list[float] = []
        self.collecting: set[bool] = set()

    def execute(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        self.clock.now_ns += int(self.run_ms * 1e6)
        self.diary.append(float(feeds["x"][0, 0]))
        self.collecting.add(gc.isenabled())
        return {"y": feeds["x"]}

    def synchronize(self) -> None:
        self.clock.now_ns += int(self.sync_ms * 1e6)


def test_a_known_time_is_found(clock: Clock) -> None:
    timing = time_sessions({"a": Timed(Work(clock, 0.5), BATCHES)}, SHORT)["a"]
    assert set(timing.run_ms) == {0.5}


def test_synchronize_is_inside_the_timed_region(clock: Clock) -> None:
    timing = time_sessions({"a": Timed(Work(clock, 0.1, sync_ms=0.4), BATCHES)}, SHORT)["a"]
    assert set(timing.run_ms) == {0.5}


def test_a_known_ratio_is_found_whatever_slows_the_rounds(clock: Clock) -> None:
    class Drifting(Work):
        def execute(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
            drift = 1 + clock.now_ns / 1e8  # twice as slow after 100 ms
            self.clock.now_ns += int(self.run_ms * drift * 1e6)
            return {}

    sessions = {"a": Timed(Drifting(clock, 0.4), BATCHES), "b": Timed(Drifting(clock, 0.2), BATCHES)}
    timings = time_sessions(sessions, Protocol(blocks=40, block_ms=2.0, warmup_ms=1.0))
    assert timings["a"].run_ms.max() > 1.5 * timings["a"].run_ms.min()
    ratio, (low, high) = ratio_interval(np.log(timings["a"].block_ms) - np.log(timings["b"].block_ms))
    assert low <= 2.0 <= high and high / low < 1.05


def test_a_stall_shows_in_p99_and_not_in_the_ratio(clock: Clock) -> None:
    class Stalling(Work):
        def execute(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
            self.diary.append(0.0)
            self.clock.now_ns += 5_000_000 if len(self.diary) % 40 == 0 else 200_000
            return {}

    protocol = Protocol(blocks=12, block_ms=6.0, warmup_ms=1.0)
    timings = time_sessions(
        {"a": Timed(Stalling(clock), BATCHES), "b": Timed(Work(clock, 0.2), BATCHES)}, protocol
    )
    p99 = percentile(timings["a"].run_ms, 99)
    assert p99 == 5.0 and percentile(timings["b"].run_ms, 99) == 0.2
    assert np.array_equal(timings["a"].block_ms, timings["b"].block_ms)


def test_blocks_and_runs_are_as_the_protocol_says(clock: Clock) -> None:
    session = Work(clock, 0.3)
    timing = time_sessions({"a": Timed(session, BATCHES)}, SHORT)["a"]
    assert len(timing.block_ms) == 10
    runs = timing.run_ms.reshape(10, -1)
    assert np.array_equal(timing.block_ms, np.median(runs, axis=1))
    assert timing.warmup_runs + len(timing.run_ms) == len(session.diary), (
        "every run is either counted or discarded"
    )
    assert timing.warmup_runs >= 10 + 1, "the first run of every block is discarded"


def test_a_slow_session_still_gets_the_least_number_of_runs(clock: Clock) -> None:
    protocol = Protocol(blocks=2, block_ms=0.1, warmup_ms=0.0, min_runs_per_block=3)
    assert len(time_sessions({"a": Timed(Work(clock, 1.0), BATCHES)}, protocol)["a"].run_ms) == 6


def test_a_session_that_does_nothing_gets_no_more_than_the_most(clock: Clock) -> None:
    protocol = Protocol(
        blocks=2, block_ms=1000.0, warmup_ms=1000.0, min_runs_per_block=1, max_runs_per_block=50
    )
    assert len(time_sessions({"a": Timed(Work(clock), BATCHES)}, protocol)["a"].run_ms) == 100


def test_batches_take_turns_across_blocks(clock: Clock) -> None:
    session = Work(clock, 0.3)
    time_sessions({"a": Timed(session, BATCHES)}, SHORT)
    assert session.diary == [index % 4 for index in range(len(session.diary))]


def order_of_blocks(clock: Clock, seed: int) -> list[str]:
    seen: list[str] = []
    sessions = {name: Timed(Work(clock, 0.05), BATCHES) for name in "abc"}
    time_sessions(sessions, SHORT, seed, lambda fraction, message: seen.append(message[-1]))
    return seen


def test_every_round_times_each_once_in_a_random_order_that_the_seed_repeats(clock: Clock) -> None:
    order = order_of_blocks(clock, 1)
    rounds = ["".join(order[start : start + 3]) for start in range(0, 30, 3)]
    assert all(sorted(each) == ["a", "b", "c"] for each in rounds)
    assert len(set(rounds)) > 1
    assert order == order_of_blocks(clock, 1) and order != order_of_blocks(clock, 2)


def test_no_garbage_is_collected_in_a_block_and_collection_is_on_again_after(clock: Clock) -> None:
    session = Work(clock)
    assert gc.isenabled()
    time_sessions({"a": Timed(session, BATCHES)}, SHORT)
    assert session.collecting == {False} and gc.isenabled()
    gc.disable()
    try:
        time_sessions({"a": Timed(session, BATCHES)}, SHORT)
        assert not gc.isenabled(), "whoever had switched it off finds it off"
    finally:
        gc.enable()


def test_collection_is_on_again_after_an_error(clock: Clock) -> None:
    class Broken(Work):
        def execute(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        time_sessions({"a": Timed(Broken(clock), BATCHES)}, SHORT)
    assert gc.isenabled()


def test_check_sees_the_last_outputs_of_each_batch(clock: Clock) -> None:
    seen: list[dict[int, float]] = []
    check = lambda last: seen.append({index: float(out["y"][0, 0]) for index, out in last.items()})  # noqa: E731
    time_sessions({"a": Timed(Work(clock, 0.1), BATCHES, check)}, SHORT)
    assert all(index == value for each in seen for index, value in each.items())
    assert set(seen[-1]) == {0, 1, 2, 3}


def test_cancelling_stops_at_that_block_and_frees_the_machine(clock: Clock) -> None:
    def stop(fraction: float, message: str) -> None:
        if fraction > 0.3:
            raise Cancelled

    session = Work(clock, 0.2)
    with pytest.raises(Cancelled):
        time_sessions({"a": Timed(session, BATCHES)}, SHORT, progress=stop)
    with lock.exclusive(0.0) as held:
        assert held


def test_blocks_hold_the_machine(clock: Clock) -> None:
    held_in_block: list[bool] = []

    class Curious(Work):
        def execute(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
            thread = threading.Thread(target=self.look)
            thread.start()
            thread.join()
            return super().execute(feeds)

        def look(self) -> None:
            with lock.shared(0.0) as free:
                held_in_block.append(not free)

    timing = time_sessions({"a": Timed(Curious(clock, 0.5), BATCHES)}, SHORT)["a"]
    assert all(held_in_block) and timing.lock_held


def test_the_machine_is_let_go_after_every_round(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[float] = []
    take = lock.exclusive
    monkeypatch.setattr(lock, "exclusive", lambda timeout_s: (taken.append(timeout_s), take(timeout_s))[1])
    time_sessions({name: Timed(Work(clock, 0.5), BATCHES) for name in "ab"}, SHORT)
    assert taken == [SHORT.lock_timeout_s] * (2 + SHORT.blocks)


def test_a_machine_that_never_falls_quiet_is_waited_for_once_and_recorded(clock: Clock) -> None:
    release, ready = threading.Event(), threading.Event()

    def work() -> None:
        with lock.shared():
            ready.set()
            release.wait(60)

    worker = threading.Thread(target=work)
    worker.start()
    ready.wait(10)
    try:
        start = time.monotonic()
        protocol = Protocol(blocks=10, block_ms=1.0, warmup_ms=1.0, lock_timeout_s=0.5)
        timing = time_sessions({"a": Timed(Work(clock, 0.1), BATCHES)}, protocol)["a"]
        assert not timing.lock_held
        assert 0.5 <= time.monotonic() - start < 4, "one wait, not one a round"
    finally:
        release.set()
        worker.join()


def test_cpu_share_is_what_we_got_of_a_core(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "process_time_ns", lambda: clock.now_ns // 4)
    timing = time_sessions({"a": Timed(Work(clock, 0.5), BATCHES)}, SHORT)["a"]
    assert timing.cpu_share == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"blocks": 1}, ("Protocol.blocks=1", "2 ≤ blocks")),
        ({"blocks": 2.5}, ("Protocol.blocks=2.5", "whole")),
        ({"block_ms": float("nan")}, ("block_ms=nan", "≤ block_ms ≤")),
        ({"block_ms": -1}, ("block_ms=-1",)),
        ({"warmup_ms": float("inf")}, ("warmup_ms=inf",)),
        ({"warmup_ms": "60"}, ("warmup_ms='60'",)),
        ({"min_runs_per_block": 0}, ("min_runs_per_block=0",)),
        ({"max_runs_per_block": True}, ("max_runs_per_block=True",)),
        (
            {"min_runs_per_block": 9, "max_runs_per_block": 3},
            ("max_runs_per_block=3", "min_runs_per_block=9"),
        ),
        ({"lock_timeout_s": -1.0}, ("lock_timeout_s=-1.0",)),
    ],
)
def test_protocol_refuses_and_says_what_is_allowed(change: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        Protocol(**change)
    assert all(word in str(caught.value) for word in words)


def test_the_paired_protocols_support_what_they_promise() -> None:
    paired = Protocol.paired()
    assert paired.blocks >= 10 and paired.blocks * paired.min_runs_per_block >= 59
    assert Protocol.brief().blocks >= 10
    assert paired.runs_per_block(1.0) == 30
