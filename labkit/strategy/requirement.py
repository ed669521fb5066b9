"""A requirement sheet: what the deployment must hold, and what to make as good as possible within that.

title = "…"
objective = "throughput_samples_per_s"      # what to improve; the other limits are walls
batch_size = 32                             # how requests arrive
threads = 1
[limits]
max_accuracy_drop_pp = 0.5                  # against the baseline, point estimate on validation
max_size_bytes = 400_000
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.doors import door
from labkit.errors import ConfigError, nearest
from labkit.files import read_toml
from labkit.runtimes import RUNTIMES
from labkit.technique import check_knobs, knob

SHEETS = Path(__file__).parent / "requirements"
OBJECTIVES = {
    "throughput_samples_per_s": True,
    "latency_p50_ms": False,
    "size_bytes": False,
}
"""What can be improved → whether more is better."""

_LARGEST_SHEET_BYTES = 100_000


@dataclass(frozen=True)
class Limits:
    """The walls; None is no wall. `_upper` bounds the paired 95 % interval instead of the point estimate."""

    max_accuracy_drop_pp: float | None = knob(
        None, "accuracy lost against the baseline", min=-100, max=100, unit="points"
    )
    max_accuracy_drop_upper_pp: float | None = knob(
        None, "upper end of the drop's 95 % interval", min=-100, max=100, unit="points"
    )
    min_accuracy: float | None = knob(None, "share of samples that must be right", min=0, max=1)
    max_quality_drop: float | None = knob(
        None, "drop in the task's own metric (regression: mse)", min=-1e9, max=1e9
    )
    max_latency_p50_ms: float | None = knob(None, "median time of one batch", above=0, unit="ms")
    max_latency_p95_ms: float | None = knob(None, "95th percentile of one batch", above=0, unit="ms")
    min_throughput_samples_per_s: float | None = knob(None, "samples per second", above=0, unit="1/s")
    max_size_bytes: float | None = knob(None, "bytes of the model file", above=0, unit="bytes")

    def __post_init__(self) -> None:
        check_knobs(self)

    def given(self) -> dict[str, float]:
        """The limits that are set, in the order in which they are tried."""
        return {
            f.name: value for f in dataclasses.fields(self) if (value := getattr(self, f.name)) is not None
        }


@dataclass(frozen=True)
class Requirement:
    """A requirement sheet as data; validated at construction."""

    name: str
    title: str = ""
    objective: str = "throughput_samples_per_s"
    batch_size: int = knob(32, "samples that arrive together", min=1, max=65536)
    threads: int = knob(1, "CPU threads that the model may use", min=1, max=1024)
    runtimes: tuple[str, ...] = ("onnxruntime", "openvino")
    limits: Limits = dataclasses.field(default_factory=Limits)

    def __post_init__(self) -> None:
        check_knobs(self)
        for field in ("name", "title", "objective"):
            if not isinstance(getattr(self, field), str):
                raise ConfigError(f"{field}={getattr(self, field)!r} must be a text, in quotes")
        if self.objective not in OBJECTIVES:
            raise ConfigError(
                f"objective={self.objective!r} is unknown; {nearest(str(self.objective), OBJECTIVES)}"
            )
        known = [runtime.name for runtime in RUNTIMES]
        for runtime in self.runtimes:
            if runtime not in known:
                raise ConfigError(f"runtimes holds {runtime!r}; {nearest(str(runtime), known)}")
        if not self.runtimes:
            raise ConfigError("runtimes is empty: name at least one engine that may run the model")

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {**dataclasses.asdict(self), "runtimes": list(self.runtimes), "limits": self.limits.given()}


def sheets() -> tuple[str, ...]:
    """The names of the sheets that come with labkit."""
    return tuple(sorted(path.stem for path in SHEETS.glob("*.toml")))


@door
def load_requirement(name_or_path: str | Path) -> Requirement:
    """A shipped sheet by name, or your own TOML file. ConfigError names the field, its value and what is allowed."""
    path = Path(name_or_path)
    if str(name_or_path) in sheets():
        path = SHEETS / f"{name_or_path}.toml"
    if not os.path.isfile(path):  # unlike Path's, it takes any text: no file has that name
        raise ConfigError(
            f"no requirement sheet {str(name_or_path)!r}; {nearest(str(name_or_path), sheets())}; or a .toml"
        )
    return _from_sheet(path, read_toml(path, ConfigError, _LARGEST_SHEET_BYTES, "a requirement sheet"))


def _from_sheet(path: Path, sheet: Mapping[str, Any]) -> Requirement:
    top = [f.name for f in dataclasses.fields(Requirement) if f.name != "name"]
    _refuse_unknown(path, sheet, top)
    limits = sheet.get("limits", {})
    if not isinstance(limits, dict):
        raise ConfigError(f"{path}: limits must be a table, [limits], got {limits!r}")
    walls = [f.name for f in dataclasses.fields(Limits)]
    _refuse_unknown(path, limits, walls)
    for key, value in limits.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ConfigError(f"{path}: {key}={value!r} must be a number")
    runtimes = sheet.get("runtimes", ("onnxruntime", "openvino"))
    if not isinstance(runtimes, (list, tuple)):
        raise ConfigError(f"{path}: runtimes must be a list, got {runtimes!r}")
    values = {**sheet, "runtimes": tuple(runtimes), "limits": Limits(**limits)}
    return Requirement(name=path.stem, **values)


def _refuse_unknown(path: Path, table: Mapping[str, Any], known: list[str]) -> None:
    for key in table:
        if key not in known:
            raise ConfigError(f"{path}: unknown field {key!r}; {nearest(key, known)}")
