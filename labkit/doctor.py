"""The first thing to run when something is slow or missing: `labkit doctor`.

It looks at what decides whether labkit works here, and how fast: the Python, the CPUs and memory we
may use, the instructions that make int8 and bfloat16 quick, the packages, runtimes and datasets. Each
finding is one line, with the line to type where something can be done about it:

    ✓ as it should be      ! worth knowing, labkit works      ✗ labkit does not work without it

A doctor must not faint: whatever breaks while it looks becomes a finding, and it looks on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

from labkit.environment import ALTERNATIVES, CORE, EXTRAS, Environment, current

Status = Literal["ok", "note", "missing"]
MARKS: dict[Status, str] = {"ok": "✓", "note": "!", "missing": "✗"}
OLDEST_PYTHON = (3, 11)
LESSON_BYTES = 900_000_000
"""The memory that a lesson may take."""

WORTH = {
    "VNNI": (
        "multiplies int8 four at a time, so an int8 model can be up to about 4 times as fast as float32",
        "absent; an int8 model is smaller, but may be no faster than float32 here",
    ),
    "dotprod": ("the counterpart of VNNI on ARM: an int8 model can be up to about 4 times as fast", ""),
    "AMX": (
        "multiplies whole tiles of int8 or bfloat16: the most speed, in a runtime that uses it",
        "absent; int8 and bfloat16 gain less here than on a server that has it",
    ),
    "bf16": (
        "bfloat16 is computed in hardware: half the bytes of float32, and faster in a runtime that uses it",
        "absent; bfloat16 goes by way of float32 here, so it saves bytes but no time",
    ),
}
"""What each fast instruction gives, and what it means to be without it."""


@dataclass(frozen=True)
class Finding:
    """One thing that the doctor looked at; `fix` is the line to type, or empty."""

    name: str
    status: Status
    text: str
    fix: str = ""

    def line(self) -> str:
        """Read it aloud: "! openvino: not installed (optional) → pip install 'labkit[openvino]'"."""
        return f"{MARKS[self.status]} {self.name}: {self.text}" + (f" → {self.fix}" if self.fix else "")


@dataclass(frozen=True)
class Diagnosis:
    """All findings about one environment."""

    environment: Environment
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is missing that labkit cannot do without."""
        return all(finding.status != "missing" for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Give {"environment": {…}, "findings": [{"name", "status", "text", "fix"}, …]}."""
        findings = [asdict(finding) for finding in self.findings]
        return {"environment": self.environment.to_json(), "findings": findings}

    def text(self) -> str:
        """Give one line for each finding."""
        return "\n".join(finding.line() for finding in self.findings)


def diagnose(environment: Environment | None = None) -> Diagnosis:
    """Look at everything; only what is in front of us is read, nothing is downloaded or changed."""
    environment = environment or current()
    findings = (
        _python(environment),
        _cpus(environment),
        _memory(environment),
        *_features(environment),
        *_packages(environment),
        *_runtimes(),
        *_datasets(),
    )
    return Diagnosis(environment, findings)


def _python(environment: Environment) -> Finding:
    version = tuple(int(part) for part in environment.python.split(".")[:2])
    if version < OLDEST_PYTHON:
        oldest = ".".join(map(str, OLDEST_PYTHON))
        return Finding("Python", "missing", f"{environment.python}; labkit needs {oldest} or newer")
    return Finding("Python", "ok", f"{environment.python} on {environment.os}, {environment.machine}")


def _cpus(environment: Environment) -> Finding:
    cpus, threads = environment.cpus, environment.threads
    text = f"{_count(cpus, 'CPU')} (from {environment.cpu_source})"
    text += f": labkit will use up to {_count(threads, 'thread')}"
    if cpus < 1:
        return Finding("CPUs", "note", f"{text}; the system pauses us often, so timings will scatter")
    return Finding("CPUs", "ok", text + ("; parallel work gains little here" if threads == 1 else ""))


def _memory(environment: Environment) -> Finding:
    text = f"{environment.memory_bytes / 1e9:.1f} GB (from {environment.memory_source})"
    needed = f"a lesson needs up to {LESSON_BYTES / 1e9:.1f} GB"
    enough = environment.memory_bytes >= LESSON_BYTES
    return Finding("memory", "ok" if enough else "note", text if enough else f"{text}; {needed}")


def _features(environment: Environment) -> Iterator[Finding]:
    """Say what the fast instructions are worth, since they decide which number format pays off here."""
    features = environment.cpu_features
    yield Finding("CPU", "ok", f"{environment.cpu_model} ({', '.join(features) or 'no feature listed'})")
    if not features and not environment.os.startswith(("Linux", "Darwin")):
        yield Finding("CPU features", "note", "this system lists none; measure to see if int8 pays off here")
        return
    int8 = {"dotprod": True} if "dotprod" in features else {"VNNI": environment.has_vnni}
    for name, present in {**int8, "AMX": environment.has_amx, "bf16": environment.has_bf16}.items():
        with_it, without_it = WORTH[name]
        yield Finding(name, "ok" if present else "note", with_it if present else without_it)


def _packages(environment: Environment) -> Iterator[Finding]:
    for name in CORE:
        missing = Finding(name, "missing", "not installed, and labkit needs it", "pip install labkit")
        yield _present(name, environment) or missing
    for extra, names in EXTRAS.items():
        for name in names:
            absent = Finding(name, "note", "not installed (optional)", f"pip install 'labkit[{extra}]'")
            yield _present(name, environment) or absent


def _present(name: str, environment: Environment) -> Finding | None:
    for each in (name, *ALTERNATIVES.get(name, ())):
        if version := environment.versions.get(each):
            return Finding(name, "ok", version if each == name else f"{version} (as {each})")
    return None


def _runtimes() -> list[Finding]:
    try:
        from labkit.runtimes import RUNTIMES
    except Exception as error:
        return [_broken("runtimes", error)]
    return [_look(f"runtime {runtime.name}", partial(_runtime, runtime)) for runtime in RUNTIMES]


def _runtime(runtime: Any) -> tuple[Status, str, str]:
    availability = runtime.is_available()
    if availability.ok:
        return "ok", "ready", ""
    return "note", availability.reason, availability.install


def _datasets() -> list[Finding]:
    try:
        from labkit.data import DATASETS
    except Exception as error:
        return [_broken("datasets", error)]
    return [_look(f"data {name}", partial(_dataset, name)) for name in DATASETS]


def _dataset(name: str) -> tuple[Status, str, str]:
    from labkit.data import location

    if where := location(name):
        home = os.path.expanduser("~") + os.sep
        found = os.path.join("~", where.removeprefix(home)) if where.startswith(home) else where
        return "ok", found, ""  # the report may be passed on, and a home folder tells the person's name
    return "note", "not on this machine", f"labkit data fetch {name}"


def _look(name: str, question: Callable[[], tuple[Status, str, str]]) -> Finding:
    try:
        return Finding(name, *question())
    except Exception as error:
        return _broken(name, error)


def _broken(name: str, error: Exception) -> Finding:
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return Finding(name, "note", f"could not be checked ({reason})")


def _count(number: float, unit: str) -> str:
    return f"{number:g} {unit}" if number == 1 else f"{number:g} {unit}s"
