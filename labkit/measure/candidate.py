"""A Candidate is what is measured: a variant, run in one particular way."""

from __future__ import annotations

from dataclasses import dataclass

from labkit.errors import ConfigError
from labkit.runtimes import RunOptions, get_runtime
from labkit.variant import Variant

_LARGEST = 65536


def candidate_key(
    variant: str, runtime: str, batch_size: int, threads: int, precision: str, num_workers: int = 1
) -> str:
    """The name that a candidate has in every record, table and plot.

    "resnet20@digits+int8 · openvino · b32 · t1 · int8"; more than one worker adds " · w2".
    """
    parts = [variant, runtime, f"b{batch_size}", f"t{threads}", precision]
    return " · ".join(parts + [f"w{num_workers}"] * (num_workers > 1))


@dataclass(frozen=True, eq=False)
class Candidate:
    """A variant, the runtime that executes it, and how: two candidates with the same key are the same.

    `threads` are the intra-op threads of each of `num_workers` workers, `precision` is that of the model's
    floating-point arithmetic (a quantized model's integers stay integers).
    Raises ConfigError if a number is out of range or the runtime does not take the variant.
    """

    variant: Variant
    runtime: str
    batch_size: int = 1
    threads: int = 1
    precision: str = "float32"
    num_workers: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.variant, Variant):
            raise ConfigError(f"variant={self.variant!r} must be a Variant: use labkit.load_model(…)")
        for field in ("batch_size", "num_workers"):
            value = getattr(self, field)
            if type(value) is not int or not 1 <= value <= _LARGEST:
                raise ConfigError(f"{field}={value!r} must be a whole number 1..{_LARGEST}")
        runtime = get_runtime(self.runtime)
        options = self.options
        if self.variant.format not in runtime.formats:
            raise ConfigError(
                f"runtime={self.runtime!r} runs {' or '.join(runtime.formats)}, "
                f"{self.variant.name!r} is {self.variant.format}"
            )
        if options.precision not in runtime.precisions:
            raise ConfigError(
                f"precision={self.precision!r} cannot be had from {self.runtime}; "
                f"allowed: {', '.join(runtime.precisions)}"
            )

    @property
    def key(self) -> str:
        """See `candidate_key`."""
        settings = (self.batch_size, self.threads, self.effective_precision, self.num_workers)
        return candidate_key(self.variant.name, self.runtime, *settings)

    @property
    def effective_precision(self) -> str:
        """What is computed in: "float32", "bfloat16", "int8", or "int8+bfloat16" (see Measurement)."""
        if not self.variant.quantized:
            return self.precision
        return "int8" if self.precision == "float32" else f"int8+{self.precision}"

    @property
    def options(self) -> RunOptions:
        """What the runtime is told."""
        return RunOptions(threads=self.threads, precision=self.precision)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Candidate) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)
