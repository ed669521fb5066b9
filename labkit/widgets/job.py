"""Job: work that runs beside the notebook, tells how far it is, and can be stopped.

A cell that computes blocks the kernel, and a blocked kernel cannot hear the Stop button: clicks arrive only
between cells. So a panel's work runs on a thread of its own, and the cell that made it has long ended.

Three rules keep that safe:
- The worker speaks through traits alone. What a thread prints lands in whichever cell happens to run.
- It is stopped only where it reports progress, between two batches, so nothing is left half-written.
- No exception is lost: it becomes the state "failed" with the error's text, and `result()` raises it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from traitlets import Float, HasTraits, Unicode

from labkit.errors import Cancelled, LabkitError

STATES = ("idle", "running", "done", "stopped", "failed")
REPORT_EVERY_S = 0.1


class Job(HasTraits):
    """`function(*arguments, progress=…)` on one daemon thread at a time, observable by its traits.

    job = Job(work); job.observe(show, "fraction"); job.start(…); job.stop(); job.result(timeout=60)
    """

    state = Unicode("idle", help="one of STATES")
    fraction = Float(0.0, help="0 to 1, as last reported; about ten times a second at most")
    message = Unicode("", help="what is being done, or the error's text")

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self._function = function
        self._lock = threading.RLock()  # held while a run begins or ends, so that observers see one order
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._outcome: Future[Any] = Future()
        self._reported = 0.0

    def start(self, *arguments: Any) -> None:
        """Begin; LabkitError if it is running already."""
        with self._lock:
            if self.state == "running":
                raise LabkitError("this is running already: press Stop first, or wait until it is done")
            self._stop, self._outcome, self._reported = threading.Event(), Future(), 0.0
            self.fraction, self.message, self.state = 0.0, "", "running"
            self._thread = threading.Thread(target=self._work, args=arguments, name="labkit-job", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Ask the work to end at its next report; returns at once, and does nothing if nothing runs."""
        self._stop.set()

    @property
    def stopping(self) -> bool:
        """Whether it has been asked to stop and has not ended yet."""
        return self.state == "running" and self._stop.is_set()

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the end, and return what the function returned or raise what it raised.

        Raises Cancelled after a stop, TimeoutError if it still runs after `timeout` seconds.
        """
        with self._lock:
            thread, outcome = self._thread, self._outcome
        if thread is None:
            raise LabkitError("nothing has run yet: press Run, or call start()")
        if threading.current_thread() is not thread:  # an observer may ask too, and must not wait for itself
            thread.join(timeout)
            if thread.is_alive():
                raise TimeoutError(f"still running after {timeout} s: {self.message}")
        return outcome.result(timeout=0)

    def _work(self, *arguments: Any) -> None:
        state, message = "done", ""
        try:
            self._outcome.set_result(self._function(*arguments, progress=self._report))
        except BaseException as error:  # not even SystemExit may end this thread unseen
            self._outcome.set_exception(error)
            state = "stopped" if isinstance(error, Cancelled) else "failed"
            message = str(error) if isinstance(error, LabkitError) else f"{type(error).__name__}: {error}"
        with self._lock:
            self.fraction = 1.0 if state == "done" else self.fraction
            self.message, self.state = message, state

    def _report(self, fraction: float, message: str) -> None:
        """The Progress that the function is given: the only place where a stop takes effect."""
        if self._stop.is_set():
            raise Cancelled()
        now = time.monotonic()
        if now - self._reported >= REPORT_EVERY_S:
            self._reported = now
            self.fraction, self.message = min(1.0, max(0.0, fraction)), message
