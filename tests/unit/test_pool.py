"""The pool answers every request once, in order, and leaves no thread behind."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from labkit.errors import Cancelled, ConfigError, LabkitError, TensorError
from labkit.parallel import WorkerPool, pool
from labkit.runtimes import RUNTIMES, Session

runtimes = [runtime for runtime in RUNTIMES if runtime.is_available().ok]


def workers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("labkit-worker")]


@pytest.mark.parametrize("runtime", runtimes, ids=lambda runtime: runtime.name)
@pytest.mark.parametrize("name", ["image", "two_inputs", "regression"])
def test_it_gives_the_same_answers_in_the_same_order(runtime, name, request):
    fixture = "cases" if "torch" in runtime.formats else "onnx_cases"
    variant, dataset = request.getfixturevalue(fixture)[name]
    batches = [variant.feeds(batch.inputs) for batch in dataset.split("test").batches(8)]
    output = variant.outputs[0].name
    with runtime.load(variant) as session:
        expected = [session.run(feeds)[output] for feeds in batches]
    with WorkerPool(variant, runtime.name, num_workers=3) as workers_pool:
        found = [outputs[output] for outputs in workers_pool.map(batches)]
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
    assert workers() == []


class Slow(Session):
    """Takes a while, or fails where the picture's first value is negative."""

    def execute(self, feeds):
        time.sleep(0.02)
        if feeds["image"].flat[0] < 0:
            raise RuntimeError("the engine broke")
        return {"logits": feeds["image"][:, 0, 0, :10]}


@pytest.fixture
def slow(monkeypatch, onnx_cases):
    class Engine:
        def load(self, variant, options=None):
            return Slow(variant, options)

    monkeypatch.setattr(pool, "get_runtime", lambda name: Engine())
    return onnx_cases["image"][0]


def picture(value):
    return {"image": np.full((1, 1, 32, 32), value, np.float32)}


def test_a_failing_request_gets_its_error_and_the_others_their_answers(slow):
    with WorkerPool(slow, "slow", 2) as workers_pool:
        futures = [workers_pool.submit(picture(value)) for value in (1, -1, 2, -2, 3)]
        assert [future.result()["logits"][0, 0] for future in futures[::2]] == [1, 2, 3]
        for future in futures[1::2]:
            with pytest.raises(RuntimeError, match="broke"):
                future.result()


def test_two_workers_work_at_the_same_time(slow):
    def seconds(count):
        with WorkerPool(slow, "slow", count) as workers_pool:
            started = time.monotonic()
            list(workers_pool.map(picture(1) for _ in range(20)))
            return time.monotonic() - started

    assert seconds(4) < 0.6 * seconds(1)


def test_a_full_queue_makes_the_caller_wait(slow):
    with WorkerPool(slow, "slow", 1, max_waiting=2) as workers_pool:
        started = time.monotonic()
        for _ in range(8):
            workers_pool.submit(picture(1))
        assert time.monotonic() - started > 0.06


def test_map_never_holds_more_than_two_batches_a_worker(slow):
    taken = []

    def batches():
        for value in range(50):
            taken.append(value)
            yield picture(value)

    with WorkerPool(slow, "slow", 2) as workers_pool:
        outputs = workers_pool.map(batches())
        next(outputs)
        assert len(taken) <= 4
        outputs.close()


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit, Cancelled])
def test_stopping_drops_what_waits(slow, stop):
    started = time.monotonic()
    with pytest.raises(stop), WorkerPool(slow, "slow", 1, max_waiting=64) as workers_pool:
        futures = [workers_pool.submit(picture(1)) for _ in range(60)]
        raise stop
    assert time.monotonic() - started < 0.5
    assert all(future.done() for future in futures)
    assert workers() == []


def test_after_closing_nothing_is_accepted_and_nothing_is_lost(slow):
    workers_pool = WorkerPool(slow, "slow", 2)
    futures = [workers_pool.submit(picture(1)) for _ in range(10)]
    workers_pool.close()
    workers_pool.close()
    assert all(future.result() for future in futures)
    with pytest.raises(LabkitError, match="closed"):
        workers_pool.submit(picture(1))


def test_a_bad_tensor_is_refused_at_once(slow):
    with WorkerPool(slow, "slow", 1) as workers_pool, pytest.raises(TensorError, match="rank|dimensions"):
        workers_pool.submit({"image": np.zeros((32, 32), np.float32)})


@pytest.mark.parametrize(
    "config", [{"num_workers": 0}, {"num_workers": -1}, {"num_workers": 1.5}, {"max_waiting": 0}]
)
def test_bad_numbers_are_named(config, slow):
    with pytest.raises(ConfigError, match=next(iter(config))):
        WorkerPool(slow, "slow", **config)
