"""What the doctor says, of machines made up for the purpose and of the one it runs on."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from labkit import environment
from labkit.doctor import MARKS, Diagnosis, Finding, diagnose
from labkit.environment import CORE, EXTRAS, Environment

HEALTHY = Environment(
    os="Linux 6.1",
    machine="x86_64",
    python="3.11.7",
    cpu_model="Xeon",
    cpu_features=("avx2", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16"),
    cpus=2.0,
    threads=2,
    cpu_source="affinity",
    memory_bytes=16_000_000_000,
    memory_source="cgroup v2",
    labkit_version="0.1.0",
    versions={name: "1.2.3" for name in (*CORE, *(each for names in EXTRAS.values() for each in names))},
)


class FakeRuntime:
    def __init__(self, name: str, ok: bool = True, broken: bool = False) -> None:
        self.name, self.ok, self.broken = name, ok, broken

    def is_available(self) -> SimpleNamespace:
        if self.broken:
            raise OSError("libgomp.so.1:\n cannot open")
        if self.ok:
            return SimpleNamespace(ok=True, reason="", install="")
        return SimpleNamespace(ok=False, reason="the package x is not installed", install="pip install x")


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> tuple[ModuleType, ModuleType]:
    """Runtimes and datasets of our own making: these tests are about the doctor alone."""
    runtimes: Any = ModuleType("labkit.runtimes")
    runtimes.RUNTIMES = (FakeRuntime("torch"), FakeRuntime("openvino", ok=False))
    data: Any = ModuleType("labkit.data")
    data.DATASETS = ("digits", "fashion-mnist")
    data.location = {"digits": "bundled with scikit-learn"}.get
    monkeypatch.setitem(sys.modules, "labkit.runtimes", runtimes)
    monkeypatch.setitem(sys.modules, "labkit.data", data)
    return runtimes, data


def find(diagnosis: Diagnosis, name: str) -> Finding:
    (found,) = (finding for finding in diagnosis.findings if finding.name == name)
    return found


def seen(name: str, **changes: Any) -> Finding:
    return find(diagnose(dataclasses.replace(HEALTHY, **changes)), name)


def without(*names: str) -> dict[str, str]:
    return {name: version for name, version in HEALTHY.versions.items() if name not in names}


def test_healthy_machine_is_ok_and_only_the_planted_gaps_are_noted() -> None:
    diagnosis = diagnose(HEALTHY)
    assert diagnosis.ok
    worrying = {finding.name for finding in diagnosis.findings if finding.status != "ok"}
    assert worrying == {"runtime openvino", "data fashion-mnist"}


def test_names_are_unique_so_that_a_script_can_ask_for_one() -> None:
    names = [finding.name for finding in diagnose(HEALTHY).findings]
    assert len(names) == len(set(names))


def test_text_has_one_marked_line_for_each_finding_with_its_fix_at_the_end() -> None:
    diagnosis = diagnose(dataclasses.replace(HEALTHY, versions=without("onnx", "openvino")))
    lines = diagnosis.text().splitlines()
    assert len(lines) == len(diagnosis.findings)
    assert all(line[0] == MARKS[found.status] for line, found in zip(lines, diagnosis.findings, strict=True))
    assert "✓ numpy: 1.2.3" in lines
    assert "✗ onnx: not installed, and labkit needs it → pip install labkit" in lines
    assert "! openvino: not installed (optional) → pip install 'labkit[openvino]'" in lines


def test_json_holds_the_environment_and_every_finding() -> None:
    diagnosis = diagnose(HEALTHY)
    document = json.loads(json.dumps(diagnosis.to_json()))
    assert document["environment"] == HEALTHY.to_json()
    assert len(document["findings"]) == len(diagnosis.findings)
    assert {"name": "torch", "status": "ok", "text": "1.2.3", "fix": ""} in document["findings"]


@pytest.mark.parametrize("name", CORE)
def test_missing_core_package_is_not_ok(name: str) -> None:
    diagnosis = diagnose(dataclasses.replace(HEALTHY, versions=without(name)))
    assert not diagnosis.ok
    assert (find(diagnosis, name).status, find(diagnosis, name).fix) == ("missing", "pip install labkit")


def test_missing_extra_is_noted_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXTRAS, "serve", ("fastapi", "uvicorn"))
    diagnosis = diagnose(dataclasses.replace(HEALTHY, versions=without("openvino")))
    assert diagnosis.ok
    for name, extra in (("openvino", "openvino"), ("fastapi", "serve"), ("uvicorn", "serve")):
        fix = f"pip install 'labkit[{extra}]'"
        assert find(diagnosis, name) == Finding(name, "note", "not installed (optional)", fix)


def test_package_under_another_name_counts() -> None:
    versions = {**without("onnxruntime"), "onnxruntime-gpu": "1.31.0"}
    assert seen("onnxruntime", versions=versions) == Finding(
        "onnxruntime", "ok", "1.31.0 (as onnxruntime-gpu)"
    )


@pytest.mark.parametrize(
    ("python", "status"),
    [("3.9.18", "missing"), ("3.10.4", "missing"), ("3.11.0", "ok"), ("3.13.0rc1", "ok"), ("4.0.0", "ok")],
)
def test_old_python_is_not_ok(python: str, status: str) -> None:
    found = seen("Python", python=python)
    assert found.status == status
    assert found.text.startswith(python)
    assert ("3.11 or newer" in found.text) == (status == "missing")


@pytest.mark.parametrize(
    ("cpus", "threads", "status", "text"),
    [
        (2.0, 2, "ok", "2 CPUs (from affinity): labkit will use up to 2 threads"),
        (2.5, 2, "ok", "2.5 CPUs (from affinity): labkit will use up to 2 threads"),
        (
            1.0,
            1,
            "ok",
            "1 CPU (from affinity): labkit will use up to 1 thread; parallel work gains little here",
        ),
    ],
)
def test_cpus_are_told_with_their_source_and_meaning(
    cpus: float, threads: int, status: str, text: str
) -> None:
    assert seen("CPUs", cpus=cpus, threads=threads) == Finding("CPUs", status, text)  # type: ignore[arg-type]


def test_part_of_a_cpu_warns_that_timings_scatter() -> None:
    found = seen("CPUs", cpus=0.5, threads=1, cpu_source="cgroup v2")
    assert found.status == "note"
    assert found.text.startswith("0.5 CPUs (from cgroup v2): labkit will use up to 1 thread;")
    assert "scatter" in found.text


def test_memory_is_noted_below_what_a_lesson_needs() -> None:
    assert seen("memory") == Finding("memory", "ok", "16.0 GB (from cgroup v2)")
    assert seen("memory", memory_bytes=900_000_000).status == "ok"
    small = seen("memory", memory_bytes=899_999_999)
    assert (small.status, "a lesson needs up to 0.9 GB" in small.text) == ("note", True)


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        (HEALTHY.cpu_features, {"VNNI": "ok", "AMX": "ok", "bf16": "ok"}),
        (("avx2", "avx_vnni"), {"VNNI": "ok", "AMX": "note", "bf16": "note"}),
        (("avx2",), {"VNNI": "note", "AMX": "note", "bf16": "note"}),
        (("neon", "dotprod", "bf16"), {"dotprod": "ok", "AMX": "note", "bf16": "ok"}),
        ((), {"VNNI": "note", "AMX": "note", "bf16": "note"}),
    ],
)
def test_features_are_told_present_or_absent(features: tuple[str, ...], expected: dict[str, str]) -> None:
    findings = diagnose(dataclasses.replace(HEALTHY, cpu_features=features)).findings
    told = {each.name: each for each in findings if each.name in ("VNNI", "dotprod", "AMX", "bf16")}
    assert {name: each.status for name, each in told.items()} == expected
    assert all(each.text.startswith("absent") == (each.status == "note") for each in told.values())


def test_system_that_lists_no_features_is_not_told_that_it_has_none() -> None:
    diagnosis = diagnose(dataclasses.replace(HEALTHY, os="Windows 11", cpu_features=()))
    assert find(diagnosis, "CPU features").status == "note"
    assert not any(finding.text.startswith("absent") for finding in diagnosis.findings)


def test_runtime_that_cannot_run_gives_its_reason_and_line() -> None:
    assert seen("runtime torch") == Finding("runtime torch", "ok", "ready")
    expected = Finding("runtime openvino", "note", "the package x is not installed", "pip install x")
    assert seen("runtime openvino") == expected


def test_missing_dataset_gives_the_line_that_fetches_it() -> None:
    assert seen("data digits") == Finding("data digits", "ok", "bundled with scikit-learn")
    expected = Finding("data fashion-mnist", "note", "not on this machine", "labkit data fetch fashion-mnist")
    assert seen("data fashion-mnist") == expected


@pytest.mark.parametrize(
    ("home", "where", "told"),
    [
        ("/home/ada", "/home/ada/.cache/labkit/mnist", "~/.cache/labkit/mnist"),
        ("/home/ada", "/home/adam/mnist", "/home/adam/mnist"),
        ("/", "/usr/share/datasets/mnist", "/usr/share/datasets/mnist"),
    ],
)
@pytest.mark.skipif(os.name != "posix", reason="POSIX paths")
def test_home_folder_is_not_told(
    monkeypatch: pytest.MonkeyPatch, surroundings: Any, home: str, where: str, told: str
) -> None:
    monkeypatch.setenv("HOME", home)
    surroundings[1].location = lambda name: where
    assert seen("data digits").text == told


def test_what_breaks_under_the_doctor_is_a_finding_and_the_rest_is_still_told(surroundings: Any) -> None:
    runtimes, data = surroundings
    runtimes.RUNTIMES = (FakeRuntime("torch", broken=True), FakeRuntime("onnxruntime"))

    def location(name: str) -> str:
        if name == "digits":
            raise RuntimeError("no registry")
        return "/data"

    data.location = location
    broken = Finding("runtime torch", "note", "could not be checked (OSError: libgomp.so.1: cannot open)")
    assert seen("runtime torch") == broken
    assert seen("runtime onnxruntime").status == "ok"
    assert seen("data digits").text == "could not be checked (RuntimeError: no registry)"
    assert seen("data fashion-mnist").status == "ok"


@pytest.mark.parametrize(("module", "name"), [("labkit.runtimes", "runtimes"), ("labkit.data", "datasets")])
def test_part_that_cannot_even_be_imported_is_a_finding(
    monkeypatch: pytest.MonkeyPatch, module: str, name: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    found = seen(name)
    assert found.status == "note"
    assert found.text.startswith("could not be checked (ModuleNotFoundError:")


def test_this_machine_is_diagnosed_with_its_real_parts() -> None:
    code = "import json; from labkit.doctor import diagnose; print(json.dumps(diagnose().to_json()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    document = json.loads(done.stdout)
    assert document["environment"] == json.loads(json.dumps(environment.current().to_json()))
    findings = {finding["name"]: finding for finding in document["findings"]}
    assert not [name for name, finding in findings.items() if finding["status"] == "missing"]
    assert findings["data digits"]["status"] == findings["runtime torch"]["status"] == "ok"
    assert "could not be checked" not in done.stdout
