"""A pool of worker threads, each with a session of its own, fed from one bounded queue.

Threads are enough here: every engine releases Python's global lock while it computes. Two workers with one
intra-op thread each usually beat one worker with two, because nothing has to be split and joined inside a layer.
Each request gets exactly one answer or one error; a full queue makes the caller wait instead of eating memory.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import CancelledError, Future
from types import TracebackType

from labkit.doors import door
from labkit.errors import Cancelled, ConfigError, LabkitError
from labkit.runtimes import RunOptions, Session, get_runtime
from labkit.variant import Array, Variant

Feeds = Mapping[str, Array]
Outputs = dict[str, Array]
_Request = tuple[Feeds, "Future[Outputs]"]
_MOST_WORKERS = 256
_MOST_WAITING = 100_000


class WorkerPool:
    """`num_workers` threads that run one variant.

    with WorkerPool(variant, "onnxruntime", num_workers=2) as pool:
        for outputs in pool.map(batches): ...
    """

    @door
    def __init__(
        self,
        variant: Variant,
        runtime: str,
        num_workers: int = 2,
        options: RunOptions | None = None,
        max_waiting: int = 64,
    ) -> None:
        for field, value, most in (
            ("num_workers", num_workers, _MOST_WORKERS),
            ("max_waiting", max_waiting, _MOST_WAITING),
        ):
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
                raise ConfigError(f"{field}={value!r} must be a whole number 1..{most}")
        self.variant = variant
        self.num_workers = num_workers
        self._requests: queue.Queue[_Request | None] = queue.Queue(max_waiting)
        self._closed = False
        self._lock = threading.Lock()
        sessions: list[Session] = []
        try:
            sessions = [get_runtime(runtime).load(variant, options) for _ in range(num_workers)]
        except BaseException:
            for session in sessions:
                session.close()
            raise
        self._threads = [
            threading.Thread(target=self._work, args=(session,), name=f"labkit-worker-{index}", daemon=True)
            for index, session in enumerate(sessions)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, feeds: Feeds) -> Future[Outputs]:
        """Queue one batch and return its future; waits while `max_waiting` batches are queued already.

        Raises TensorError at once if the feeds do not fit, LabkitError if the pool is closed.
        """
        self.variant.check_feeds(feeds)
        future: Future[Outputs] = Future()
        with self._lock:  # so that no request can slip in behind the closing marks
            if self._closed:
                raise LabkitError("this pool is closed: open a new WorkerPool")
            self._requests.put((feeds, future))
        return future

    @door
    def map(self, batches: Iterable[Feeds]) -> Iterator[Outputs]:
        """The outputs of each batch, in order; at most two batches per worker are under way at once."""
        under_way: list[Future[Outputs]] = []
        try:
            for feeds in batches:
                under_way.append(self.submit(feeds))
                if len(under_way) >= 2 * self.num_workers:
                    yield under_way.pop(0).result()
            while under_way:
                yield under_way.pop(0).result()
        finally:
            for future in under_way:
                future.cancel()

    def close(self) -> None:
        """Finish what is queued, stop the workers and free the sessions. Closing twice is harmless."""
        with self._lock:
            if not self._closed:
                self._closed = True
                for _ in self._threads:
                    self._requests.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self, session: Session) -> None:
        with session:
            while (request := self._requests.get()) is not None:
                feeds, future = request
                if not future.set_running_or_notify_cancel():
                    continue
                try:
                    future.set_result(session.execute(feeds))
                except BaseException as error:  # every request gets an answer, whatever went wrong
                    future.set_exception(error)

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and issubclass(kind, (KeyboardInterrupt, SystemExit, Cancelled, CancelledError)):
            self._drop_waiting()
        self.close()

    def _drop_waiting(self) -> None:
        while True:
            try:
                request = self._requests.get_nowait()
            except queue.Empty:
                return
            if request is not None:
                request[1].cancel()
