"""What this machine is, and how much of it is ours: CPUs, memory, fast instructions, versions.

Inside a container a machine looks bigger than it is. On Binder Python may count 64 CPUs while the
system lets a notebook use one: 64 threads then take turns, each waits for the others, and every
timing is nonsense. So labkit asks what it is *allowed* to use, and sets its threads to that.

Linux keeps the allowance in small text files, one folder for each control group (cgroup). Groups
lie inside groups, and a process obeys all those around it, so the tightest counts. There are two
layouts: version 2 has one tree (`cpu.max`, `memory.max`), version 1 a tree for each resource.

Every record carries an `Environment`, because a latency says little without the machine behind
it. It names neither the computer nor the person.
"""

from __future__ import annotations

import functools
import math
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from labkit.errors import ConfigError

CORE = (
    "torch", "onnx", "onnxscript", "onnxruntime", "numpy", "scikit-learn", "safetensors", "pillow", "pooch",
    "typer", "tqdm", "psutil", "threadpoolctl", "matplotlib", "jupyterlab", "ipywidgets", "papermill",
    "jupytext", "constriction",
)  # fmt: skip
"""The packages that labkit always needs: the dependencies in pyproject.toml."""

EXTRAS = {
    "openvino": ("openvino",),
    "tensorflow": (
        "ai-edge-litert",
        "tensorflow" if sys.platform == "darwin" else "tensorflow-cpu",
        "tf2onnx",
    ),
    "mindspore": ("mindspore",),
}
"""The packages that each optional part needs: `pip install 'labkit[openvino]'`."""

ALTERNATIVES = {"onnxruntime": ("onnxruntime-gpu",)}
"""Packages that bring the same thing under another name."""

CPU_FEATURES = (
    "avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "amx_tile",
    "neon", "dotprod", "i8mm", "bf16",
)  # fmt: skip
"""The instructions that decide how fast a small number format runs."""

SPELLINGS = {
    "asimd": "neon", "asimddp": "dotprod",  # Linux on ARM
    "advsimd": "neon", "feat_dotprod": "dotprod", "feat_i8mm": "i8mm", "feat_bf16": "bf16",  # macOS on ARM
    "avx2_0": "avx2", "avx512vnni": "avx512_vnni",  # macOS on Intel
}  # fmt: skip
"""What other systems call some of them → our name."""

CGROUP_FILES: dict[str, dict[str, tuple[str, ...]]] = {
    "cpu": {"cgroup v2": ("cpu.max",), "cgroup v1": ("cpu.cfs_quota_us", "cpu.cfs_period_us")},
    "memory": {"cgroup v2": ("memory.max",), "cgroup v1": ("memory.limit_in_bytes",)},
}
"""Where each layout writes a limit, below the group's folder."""


@dataclass(frozen=True)
class CpuQuota:
    """How many CPUs' worth of time we may use (2.5 is possible), the threads that fit, and who said so."""

    cpus: float
    threads: int
    source: str


@dataclass(frozen=True)
class MemoryLimit:
    """How many bytes we may use before the system stops us, and who said so."""

    bytes: int
    source: str


def cpu_quota(
    root: Path = Path("/"), env: Mapping[str, str] | None = None, affinity: int | None = None
) -> CpuQuota:
    """Find the CPUs we may use: the first quota that is set, and never more than we may run on.

    Asked in turn: LABKIT_CPUS, CPU_LIMIT (JupyterHub and Binder set it), cgroup v2, cgroup v1.
    root is where /proc and /sys begin, affinity the number of CPUs we may run on: a test gives its own.
    Raises ConfigError if a variable holds no sensible number.
    """
    env = os.environ if env is None else env
    allowed, source = _usable_cpus() if affinity is None else (affinity, "affinity")
    cpus = float(allowed)
    quota = _from_env(env, ("LABKIT_CPUS", "CPU_LIMIT"), 0.001, "CPUs") or _from_cgroup(root, "cpu")
    if quota and quota[0] <= cpus:
        cpus, source = quota
    return CpuQuota(cpus, max(1, math.floor(cpus)), source)


def memory_limit(
    root: Path = Path("/"), env: Mapping[str, str] | None = None, physical_bytes: int | None = None
) -> MemoryLimit:
    """Find the memory we may use: the first limit that is set, and never more than the machine has.

    Asked in turn: MEM_LIMIT (JupyterHub and Binder set it), cgroup v2, cgroup v1. Version 1 writes
    "no limit" as a number far beyond any machine, so the machine's own memory wins against it.
    Raises ConfigError if the variable holds no sensible number.
    """
    env = os.environ if env is None else env
    most = _physical_bytes() if physical_bytes is None else physical_bytes
    limit = _from_env(env, ("MEM_LIMIT",), 1, "bytes") or _from_cgroup(root, "memory")
    if limit and limit[0] <= most:
        return MemoryLimit(int(limit[0]), limit[1])
    return MemoryLimit(most, "physical memory")


def cpu_features(root: Path = Path("/")) -> tuple[str, ...]:
    """Name which of `CPU_FEATURES` the processor has; empty on a system that does not tell."""
    info = _cpuinfo(root)
    words = (info.get("flags") or info.get("Features", "")).split()
    if not words and sys.platform == "darwin":
        words = _mac_words(_sysctl("hw.optional", "machdep.cpu.leaf7_features"))
    present = {SPELLINGS.get(word.lower(), word.lower()) for word in words}
    return tuple(name for name in CPU_FEATURES if name in present)


def cpu_model(root: Path = Path("/")) -> str:
    """Name the processor as the system does; an ARM one often gives only its maker's and part's number."""
    import platform

    info = _cpuinfo(root)
    name = info.get("model name") or info.get("Model") or info.get("Hardware")
    if not name and "CPU part" in info:
        name = f"ARM implementer {info.get('CPU implementer')} part {info['CPU part']}"
    if not name and sys.platform == "darwin":
        name = _sysctl("-n", "machdep.cpu.brand_string").strip()
    return name or platform.processor() or platform.machine() or "unknown"


def installed_versions() -> dict[str, str]:
    """Look up the version of each of our packages that is installed, without importing any of them."""
    wanted = [*CORE, *(name for names in EXTRAS.values() for name in names)]
    names = [each for name in wanted for each in (name, *ALTERNATIVES.get(name, ()))]
    return {name: version for name in names if (version := _version(name))}


@dataclass(frozen=True)
class Environment:
    """The stamp on every record: what a figure was measured on."""

    os: str
    machine: str
    python: str
    cpu_model: str
    cpu_features: tuple[str, ...]
    cpus: float
    threads: int
    cpu_source: str
    memory_bytes: int
    memory_source: str
    labkit_version: str
    versions: Mapping[str, str] = field(hash=False)

    @property
    def has_vnni(self) -> bool:
        """Whether an x86 processor multiplies and adds int8 numbers in one instruction."""
        return "avx512_vnni" in self.cpu_features or "avx_vnni" in self.cpu_features

    @property
    def has_amx(self) -> bool:
        """Whether the processor has a unit that multiplies whole tiles of int8 or bfloat16 matrices."""
        return "amx_int8" in self.cpu_features or "amx_bf16" in self.cpu_features

    @property
    def has_bf16(self) -> bool:
        """Whether bfloat16 is computed in hardware, and not by way of float32."""
        return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(self.cpu_features)

    def to_json(self) -> dict[str, object]:
        """Give a flat mapping for a record; each package becomes `NAME_version`, as in `torch_version`."""
        plain = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "versions"}
        packages = {f"{name.replace('-', '_')}_version": version for name, version in self.versions.items()}
        return {**plain, "cpu_features": list(self.cpu_features), **packages}


@functools.cache
def current() -> Environment:
    """Describe the machine we run on; asked once in a process, since it does not change under us."""
    import platform

    from labkit import __version__

    quota, memory = cpu_quota(), memory_limit()
    return Environment(
        os=f"{platform.system()} {platform.release()}",
        machine=platform.machine(),
        python=platform.python_version(),
        cpu_model=cpu_model(),
        cpu_features=cpu_features(),
        cpus=quota.cpus,
        threads=quota.threads,
        cpu_source=quota.source,
        memory_bytes=memory.bytes,
        memory_source=memory.source,
        labkit_version=__version__,
        versions=installed_versions(),
    )


def _from_env(
    env: Mapping[str, str], names: tuple[str, ...], least: float, unit: str
) -> tuple[float, str] | None:
    for name in names:
        if text := env.get(name, "").strip():
            try:
                value = float(text)
            except ValueError:
                value = math.nan
            if not least <= value < math.inf:  # a NaN fails this too
                raise ConfigError(f"{name}={text!r}: give a number of {unit}, at least {least}, or unset it")
            return value, name
    return None


def _from_cgroup(root: Path, resource: str) -> tuple[float, str] | None:
    """Take the tightest limit of all groups around this process; a file we cannot read sets none."""
    for source, names in CGROUP_FILES[resource].items():
        limits = []
        for folder in _group_folders(root, resource if source == "cgroup v1" else ""):
            numbers = [number for name in names for number in _numbers(folder / name)]
            if len(numbers) == (2 if resource == "cpu" else 1) and min(numbers) > 0:  # v1: -1 is no limit
                limits.append(numbers[0] / numbers[1] if resource == "cpu" else numbers[0])
        if limits:
            return min(limits), source
    return None


def _group_folders(root: Path, controller: str) -> Iterator[Path]:
    """Walk from this process's own group up to the top of its tree; controller "" means version 2.

    In a container /proc often gives the path that the host sees, which is not there on the inside:
    the top folder then is the container's own group, and it is always visited.
    """
    lines = [line.split(":", 2) for line in _read(root / "proc/self/cgroup").splitlines()]
    groups = [(line[1], line[2]) for line in lines if len(line) == 3 and controller in line[1].split(",")]
    for names, path in groups or [(controller, "/")]:
        parts = [part for part in path.split("/") if part]
        for mount in {controller, names} if controller else {"", "unified"}:
            top = root / "sys/fs/cgroup" / mount
            yield from (top.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1))


def _numbers(path: Path) -> list[int]:
    """Read the whole numbers in a small file; none if it is missing, malformed or says "max"."""
    try:
        return [int(word) for word in _read(path).split()]
    except ValueError:
        return []


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _usable_cpus() -> tuple[int, str]:
    if hasattr(os, "sched_getaffinity"):  # not on macOS, nor on Windows
        return len(os.sched_getaffinity(0)), "affinity"
    return os.cpu_count() or 1, "CPU count"


def _physical_bytes() -> int:
    import psutil  # type: ignore[import-untyped, unused-ignore]

    return int(psutil.virtual_memory().total)


def _cpuinfo(root: Path) -> dict[str, str]:
    """Read /proc/cpuinfo; it repeats its keys for each processor, and the first one speaks for all."""
    found: dict[str, str] = {}
    for name, _, value in (line.partition(":") for line in _read(root / "proc/cpuinfo").splitlines()):
        found.setdefault(name.strip(), value.strip())
    return found


def _mac_words(text: str) -> list[str]:
    """Pick what is there from lines such as "hw.optional.avx2_0: 1" and "machdep.cpu.….: AVX2 BMI2"."""
    words: list[str] = []
    for name, _, value in (line.partition(":") for line in text.splitlines()):
        words += [name.rpartition(".")[2]] if value.strip() == "1" else value.split()
    return words


def _sysctl(*arguments: str) -> str:
    import subprocess

    try:  # a name this Mac does not know fails the command; what it does know is printed all the same
        command = ["sysctl", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=False).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def _version(name: str) -> str:
    """Give an installed package's version, or "" where it is missing or its record is damaged."""
    from importlib import metadata

    try:
        return metadata.version(name) or ""
    except (metadata.PackageNotFoundError, KeyError):
        return ""
