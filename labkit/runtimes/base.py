"""Runtime and Session: the one way in which labkit runs a model, whoever executes it.

A Runtime turns a variant into a Session with the number of threads and the precision set explicitly, because
every engine has its own ideas of both. A Session maps named arrays to named arrays.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from types import TracebackType
from typing import Any, ClassVar

from labkit.errors import ConfigError, LabkitError, TensorError, UnavailableError
from labkit.variant import Array, Variant

PRECISIONS = ("float32", "bfloat16")
DEVICES = ("cpu", "cuda")
_MOST_THREADS = 1024


@dataclass(frozen=True)
class Availability:
    """Whether a runtime can be used here; if not, why, and the line that installs it."""

    ok: bool
    reason: str = ""
    install: str = ""


@dataclass(frozen=True)
class RunOptions:
    """How to run: intra-op threads, device, and the precision of the model's floating-point arithmetic."""

    threads: int = 1
    device: str = "cpu"
    precision: str = "float32"

    def __post_init__(self) -> None:
        if type(self.threads) is not int or not 1 <= self.threads <= _MOST_THREADS:
            raise ConfigError(f"threads={self.threads!r} must be a whole number 1..{_MOST_THREADS}")
        if self.device not in DEVICES:
            raise ConfigError(f"device={self.device!r} is not supported; allowed: {', '.join(DEVICES)}")
        if self.precision not in PRECISIONS:
            raise ConfigError(f"precision={self.precision!r} is unknown; allowed: {', '.join(PRECISIONS)}")


class Session(ABC):
    """A loaded model. Use it in a `with` statement, or call `close`."""

    def __init__(self, variant: Variant, options: RunOptions) -> None:
        self.variant = variant
        self.options = options

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Named inputs → named outputs; TensorError for a wrong name, dtype, shape, or a NaN.

        What only the engine can know (an image that is too small for the network's pooling) is a TensorError too.
        """
        self.variant.check_feeds(feeds)
        try:
            return self.execute(feeds)
        except (LabkitError, MemoryError):
            raise
        except Exception as error:  # every engine has kinds of its own
            shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in feeds.items())
            raise TensorError(
                f"{self.variant.name!r} cannot compute on {shapes}: {str(error)[:300] or repr(error)}"
            ) from error

    @abstractmethod
    def execute(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """`run` without the checks: what the timed blocks call, after a checked run of the same feeds."""

    def synchronize(self) -> None:  # noqa: B027 - nothing to wait for is a fine default
        """Wait until the device has finished; on a CPU `execute` returns only then."""

    def close(self) -> None:
        """Give the model's memory back; closing twice is harmless, running afterwards is a LabkitError."""
        self.execute = self._refuse  # type: ignore[method-assign]

    def _refuse(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        raise LabkitError(f"this session of {self.variant.name!r} is closed: load the variant again")

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def is_installed(package: str) -> bool:
    """Whether `package` (dots allowed) could be imported, found out without importing its last part."""
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # of what stands before the dot
        return False


@contextlib.contextmanager
def muted() -> Iterator[None]:
    """Keep off the terminal what C++ libraries write to stdout and stderr behind Python's back."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept, nowhere = (os.dup(1), os.dup(2)), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        yield
    finally:
        sys.stdout.flush()
        for number, copy in enumerate(kept, 1):
            os.dup2(copy, number)
            os.close(copy)
        os.close(nowhere)


def import_engine(package: str) -> Any:
    """Import a package whose libraries have much to say while they start."""
    if package in sys.modules:
        return sys.modules[package]
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GLOG_v", "3")
    with muted():
        return importlib.import_module(package)


class Runtime(ABC):
    """One engine."""

    name: ClassVar[str]
    formats: ClassVar[tuple[str, ...]]
    precisions: ClassVar[tuple[str, ...]] = ("float32",)
    devices: ClassVar[tuple[str, ...]] = ("cpu",)
    package: ClassVar[str]
    install: ClassVar[str] = "pip install labkit"

    def is_available(self) -> Availability:
        """Whether the engine's package is installed here."""
        if not is_installed(self.package):
            return Availability(False, f"the package {self.package} is not installed", self.install)
        return Availability(True)

    def engine(self) -> Any:
        """Import the engine's package; one that keeps telemetry in the user's home is told not to first."""
        return import_engine(self.package)

    def load(self, variant: Variant, options: RunOptions | None = None) -> Session:
        """Prepare `variant` to run.

        Raises UnavailableError if the engine is missing, ConfigError for a precision or format it does not take.
        """
        options = options or RunOptions(device=self.devices[0])
        available = self.is_available()
        if not available.ok:
            raise UnavailableError(f"{self.name} cannot be used: {available.reason}; {available.install}")
        if variant.format not in self.formats:
            raise ConfigError(
                f"{self.name} runs {' or '.join(self.formats)}, {variant.name!r} is {variant.format}"
                + ("; export it first: labkit.ExportOnnx()" if "onnx" in self.formats else "")
            )
        if options.precision not in self.precisions:
            raise ConfigError(
                f"{self.name} cannot be told to compute in {options.precision}; allowed: {', '.join(self.precisions)}"
            )
        if options.device not in self.devices:
            raise ConfigError(f"{self.name} runs on {', '.join(self.devices)}, not on {options.device}")
        return self.open(variant, options)

    def settings(self, options: RunOptions) -> dict[str, Any]:
        """What the engine is told for `options`, as plain data: a package repeats it word for word."""
        return {}

    @abstractmethod
    def open(self, variant: Variant, options: RunOptions) -> Session:
        """Make the session; availability, format and precision have been checked."""
