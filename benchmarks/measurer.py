"""Is the measurer itself right? It measures what is known beforehand, and must find it.

    python -m benchmarks.measurer [--quick] [--json]

Synthetic sessions, timed by the loop that times models, are busy until a deadline, so their time is known
exactly. They are disturbed as a real machine disturbs: by a slow drift that all share, by jitter, and by an
interruption now and then. The ratio of two of them is known, and 95 of 100 intervals should hold it; twins
(A/A) must not be called different. `real_coverage_pct` is the same on real arithmetic, repeated k times
against m times, under whatever this machine was doing. Then cheats are planted, sessions that only look fast:
each must be caught, and no honest one accused.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from benchmarks import run_benchmark
from labkit.data import load_dataset
from labkit.errors import MeasurementError
from labkit.measure import Candidate, Protocol, measure
from labkit.measure.run import open_session
from labkit.measure.timing import Timed, Timing, time_sessions
from labkit.runtimes import RunOptions, Session
from labkit.statistics import percentile, ratio_interval
from labkit.variant import Array, TensorSpec, Variant
from labkit.zoo import load_model

RATIOS = (1.0, 1.05, 1.5, 2.0)
KNOWN_MS = (0.1, 0.3, 1.0)
STALL_MS = 20.0
SHORT = Protocol(blocks=12, block_ms=3.0, warmup_ms=2.0)
MANY_RUNS = Protocol(blocks=12, block_ms=6.0, warmup_ms=2.0, min_runs_per_block=25)
SCORED_SAMPLES = 40
SCREENING = Protocol(blocks=4, block_ms=5.0, warmup_ms=5.0, min_runs_per_block=8)
NOTHING = Variant("nothing", "onnx", b"", (TensorSpec("x", "float32", ("batch", 1)),), ())
FEEDS = [{"x": np.zeros((1, 1), np.float32)}]


class Weather:
    """What disturbs a machine. The drift is shared by all that run in it, so taking turns cancels it."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.drift = 0.0

    def disturb(self, run_ms: float) -> float:
        """Drift by some 10 % within a fifth of a second, jitter by 5 %, once in 100 runs wait up to 2 ms."""
        self.drift = 0.999 * self.drift + 0.005 * self.random.standard_normal()
        run_ms *= float(np.exp(self.drift + 0.05 * self.random.standard_normal()))
        return run_ms + (self.random.uniform(0.2, 2.0) if self.random.random() < 0.01 else 0.0)


class Spin(Session):
    """Busy for `run_ms`, as the weather has it; one run in `stall_every` stalls for 20 ms."""

    def __init__(self, run_ms: float, weather: Weather | None = None, stall_every: int = 0) -> None:
        super().__init__(NOTHING, RunOptions())
        self.run_ms, self.weather, self.stall_every = run_ms, weather, stall_every
        self.runs = 0

    def execute(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Spin; what is drawn at random is drawn while the time runs."""
        start = time.perf_counter_ns()
        self.runs += 1
        stalls = self.stall_every and self.runs % self.stall_every == 0
        run_ms = STALL_MS if stalls else self.run_ms
        deadline = start + 1e6 * (self.weather.disturb(run_ms) if self.weather else run_ms)
        while time.perf_counter_ns() < deadline:
            pass
        return {}


class Null(Session):
    """What is left where a session does nothing is what timing costs."""

    def execute(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Do nothing."""
        return {}


class Arithmetic(Session):
    """The hyperbolic tangents of a vector, `times` over.

    All share one vector: where in memory an array happens to begin is worth 25 % of its time, and two sessions
    with an array each are then truly different.
    """

    vector = np.linspace(-1, 1, 16_384, dtype=np.float32)
    result = np.empty_like(vector)

    def __init__(self, times: int) -> None:
        super().__init__(NOTHING, RunOptions())
        self.times = times

    def execute(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Compute, and throw away."""
        for _ in range(self.times):
            np.tanh(self.vector, out=self.result)
        return {}


class Planted(Session):
    """An honest session, and a behaviour that stands between it and whoever asks."""

    def __init__(self, honest: Session, behave: Behaviour) -> None:
        super().__init__(honest.variant, honest.options)
        self.honest, self.behave = honest, behave
        self.runs = 0
        self.watched = False
        self.memory: dict[Any, dict[str, Array]] = {}

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """A checked run: the behaviour may see that it is being watched."""
        self.watched = True
        try:
            return super().run(feeds)
        finally:
            self.watched = False

    def execute(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Whatever the behaviour makes of it."""
        self.runs += 1
        return self.behave(self, feeds)

    def remembered(self, key: Any, feeds: Mapping[str, Array], keep: bool = True) -> dict[str, Array]:
        """The answer kept under `key`; an honest one if there is none, which is then kept."""
        if key in self.memory:
            return self.memory[key]
        answer = self.honest.execute(feeds)
        return self.memory.setdefault(key, answer) if keep else answer


Behaviour = Callable[[Planted, Mapping[str, Array]], dict[str, Array]]
WARM_RUNS = 20


def honest(session: Planted, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Does its work: the control."""
    return session.honest.execute(feeds)


def repeats_itself(session: Planted, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Works once for each shape of input, and gives that answer ever after."""
    return session.remembered(feeds["image"].shape, feeds)


def remembers_content(session: Planted, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Keeps a cache from an input's bytes to its answer."""
    return session.remembered(feeds["image"].tobytes(), feeds)


def remembers_objects(session: Planted, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Keeps a cache from an array's place in memory to its answer."""
    return session.remembered((feeds["image"].ctypes.data, len(feeds["image"])), feeds)


def remembers_the_start(session: Planted, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Keeps a cache of what came first, and works on all that comes later."""
    return session.remembered(feeds["image"].tobytes(), feeds, keep=session.runs < WARM_RUNS)


def stops_working(session: Planted, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Works while it warms up, and from then on gives its last answer."""
    shape = feeds["image"].shape
    if session.runs < WARM_RUNS:
        session.memory.pop(shape, None)
    return session.remembered(shape, feeds)


def gives_nan(session: Planted, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Answers not a number, from the start."""
    return {name: array * np.nan for name, array in session.honest.execute(feeds).items()}


def turns_to_nan(session: Planted, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Answers not a number, once it is warm."""
    return (honest if session.runs < WARM_RUNS else gives_nan)(session, feeds)


def gives_a_constant(session: Planted, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Answers zeros of the right shape."""
    return {"logits": np.zeros((len(feeds["image"]), 10), np.float32)}


def drops_rows(session: Planted, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Runs half of the batch, and answers that half."""
    return session.honest.execute({"image": feeds["image"][: len(feeds["image"]) // 2]})


def guesses_when_timed(session: Planted, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Works on the large batches that quality is measured on, and guesses on all others."""
    images = feeds["image"].reshape(len(feeds["image"]), -1)
    return honest(session, feeds) if len(images) >= SCORED_SAMPLES else {"logits": images[:, 300:310].copy()}


def works_when_watched(session: Planted, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Works in `run`, which checks, and not in `execute`, which is timed."""
    return honest(session, feeds) if session.watched else {"logits": feeds["image"][:, 0, 9, :10].copy()}


CHEATS: tuple[Behaviour, ...] = (
    repeats_itself, remembers_content, remembers_objects, remembers_the_start, stops_working, gives_nan,
    turns_to_nan, gives_a_constant, drops_rows, guesses_when_timed, works_when_watched,
)  # fmt: skip


def accusation(behave: Behaviour) -> str | None:
    """What `measure` says of LeNet-5 with `behave` planted into its session; None if it notices nothing."""
    candidate = Candidate(load_model("lenet5@digits"), "torch", batch_size=8)
    try:
        measure(
            [candidate],
            load_dataset("digits"),
            n_samples=SCORED_SAMPLES,
            protocol=SCREENING,
            open_session=lambda each: Planted(open_session(each), behave),
        )
    except MeasurementError as error:
        return str(error)
    return None


def pair(first: Session, second: Session, seed: int) -> dict[str, Timing]:
    """Two sessions, timed in turns."""
    return time_sessions({"first": Timed(first, FEEDS), "second": Timed(second, FEEDS)}, SHORT, seed)


def coverage(
    trials: int, make: Callable[[float, int], tuple[Session, Session]], what: str
) -> list[dict[str, Any]]:
    """For each known ratio, how many of `trials` intervals hold it, by the block's median and by its mean."""
    rows = []
    for ratio in RATIOS:
        held = {"median": 0, "mean": 0}
        widths: dict[str, list[float]] = {"median": [], "mean": []}
        for trial in range(trials):
            timings = pair(*make(ratio, trial), seed=trial)
            runs = [each.run_ms.reshape(SHORT.blocks, -1) for each in timings.values()]
            for name, statistic in (("median", np.median), ("mean", np.mean)):
                first, second = (np.log(statistic(each, axis=1)) for each in runs)
                _, (low, high) = ratio_interval(first - second)
                held[name] += low <= ratio <= high
                widths[name].append(100 * (high / low - 1))
        row: dict[str, Any] = {"what": what, "known_ratio": ratio, "intervals": trials}
        for name, count in held.items():
            row |= {f"held_by_{name}": count, f"{name}_width_pct": round(float(np.median(widths[name])), 2)}
        rows.append(row)
    return rows


def synthetic(ratio: float, seed: int) -> tuple[Session, Session]:
    """Two spinning sessions in the same weather."""
    weather = Weather(seed)
    return Spin(0.2 * ratio, weather), Spin(0.2, weather)


def real(ratio: float, seed: int) -> tuple[Session, Session]:
    """The same arithmetic, more often and less."""
    return Arithmetic(round(20 * ratio)), Arithmetic(20)


def twins_called_different(trials: int) -> int:
    """How many of `trials` pairs of equal sessions are called different."""
    different = 0
    for trial in range(trials):
        timings = pair(*synthetic(1.0, 10_000 + trial), seed=trial)
        _, (low, high) = ratio_interval(
            np.log(timings["first"].block_ms) - np.log(timings["second"].block_ms)
        )
        different += not low <= 1.0 <= high
    return different


def held_pct(rows: list[dict[str, Any]]) -> float:
    """Of all intervals in `rows`, the percentage that hold the truth, by the statistic that labkit uses."""
    held, intervals = (sum(int(row[name]) for row in rows) for name in ("held_by_median", "intervals"))
    return 100 * held / intervals


def known_times() -> list[dict[str, Any]]:
    """The median of sessions whose time is known, and the error in it."""
    rows = []
    for known_ms in KNOWN_MS:
        timing = time_sessions({"spin": Timed(Spin(known_ms), FEEDS)}, MANY_RUNS)["spin"]
        p50_ms = float(np.median(timing.run_ms))
        rows.append({"known_ms": known_ms, "p50_ms": p50_ms, "error_pct": 100 * abs(p50_ms / known_ms - 1)})
    return rows


def stall_ratio() -> float:
    """p99 of a session that stalls in every 50th run, over that of one that does not."""
    sessions = {"stalls": Timed(Spin(0.2, stall_every=50), FEEDS), "steady": Timed(Spin(0.2), FEEDS)}
    timings = time_sessions(sessions, MANY_RUNS)
    p99 = {name: percentile(timing.run_ms, 99) for name, timing in timings.items()}
    assert p99["stalls"] is not None and p99["steady"] is not None, "300 runs support a p99"
    return p99["stalls"] / p99["steady"]


def measure_measurer(quick: bool) -> dict[str, Any]:
    """All figures; `quick` uses fewer intervals, and says how many."""
    trials = 15 if quick else 100
    synthetic_rows = coverage(trials, synthetic, "spin until a deadline, disturbed")
    twins = twins_called_different(4 * trials)
    real_rows = coverage(trials // 2, real, "real arithmetic, as disturbed as the machine was")
    times = known_times()
    null = time_sessions({"null": Timed(Null(NOTHING, RunOptions()), FEEDS)}, MANY_RUNS)["null"]
    accusations = {behave.__name__: accusation(behave) for behave in CHEATS}
    controls = [accusation(honest) for _ in range(2 if quick else 10)]
    figures = {
        "sleep_p50_error_pct": max(row["error_pct"] for row in times),
        "ratio_coverage_pct": held_pct(synthetic_rows),
        "ratio_intervals": 4 * trials,
        "aa_false_positive_pct": 100 * twins / (4 * trials),
        "aa_intervals": 4 * trials,
        "real_coverage_pct": held_pct(real_rows),
        "real_intervals": 4 * (trials // 2),
        "null_overhead_us": 1e3 * float(np.median(null.run_ms)),
        "stall_p99_ratio": stall_ratio(),
        "cheats_caught": sum(text is not None for text in accusations.values()),
        "cheats_planted": len(CHEATS),
        "honest_accused": sum(text is not None for text in controls),
        "honest_measured": len(controls),
    }
    cheats = [{"cheat": name, "accusation": text} for name, text in accusations.items()]
    return {"figures": figures, "table": [*synthetic_rows, *real_rows, *times, *cheats]}


if __name__ == "__main__":
    run_benchmark("measurer", measure_measurer)
