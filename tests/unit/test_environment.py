"""What labkit believes about the machine, tried on small made-up /proc and /sys trees."""

from __future__ import annotations

import dataclasses
import getpass
import json
import os
import pickle
import socket
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

from labkit import environment
from labkit.environment import (
    CORE,
    EXTRAS,
    CpuQuota,
    Environment,
    MemoryLimit,
    cpu_features,
    cpu_model,
    cpu_quota,
    installed_versions,
    memory_limit,
)
from labkit.errors import ConfigError

V2, V1_CPU, V1_MEMORY = "sys/fs/cgroup", "sys/fs/cgroup/cpu,cpuacct", "sys/fs/cgroup/memory"
V1_GROUPS = "12:cpuset:/else\n5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n0::/\n"
GIB = 2**30


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def quota(root: Path, files: dict[str, str], affinity: int = 64, **env: str) -> CpuQuota:
    return cpu_quota(tree(root, files), env, affinity)


def limit(root: Path, files: dict[str, str], physical_bytes: int = 64 * GIB, **env: str) -> MemoryLimit:
    return memory_limit(tree(root, files), env, physical_bytes)


# --- CPUs ---


def test_v2_own_group_sets_the_quota(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/user/me\n", f"{V2}/user/me/cpu.max": "250000 100000\n"}
    assert quota(tmp_path, files) == CpuQuota(2.5, 2, "cgroup v2")


@pytest.mark.parametrize("tightest", ["", "/user", "/user/me"])
def test_v2_tightest_group_on_the_way_up_counts(tmp_path: Path, tightest: str) -> None:
    files = {"proc/self/cgroup": "0::/user/me\n"}
    files |= {f"{V2}{group}/cpu.max": "800000 100000\n" for group in ("", "/user", "/user/me")}
    files[f"{V2}{tightest}/cpu.max"] = "300000 100000\n"
    files[f"{V2}/stranger/cpu.max"] = "100000 100000\n"
    assert quota(tmp_path, files) == CpuQuota(3.0, 3, "cgroup v2")


def test_v2_period_other_than_the_usual_is_divided_by(tmp_path: Path) -> None:
    assert quota(tmp_path, {f"{V2}/cpu.max": "100000 50000\n"}).cpus == 2.0


def test_v2_max_is_no_limit(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/me\n",
        f"{V2}/me/cpu.max": "max 100000\n",
        f"{V2}/cpu.max": "max 100000\n",
    }
    assert quota(tmp_path, files, affinity=6) == CpuQuota(6.0, 6, "affinity")


def test_v2_max_below_a_limited_parent_obeys_the_parent(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/a/b\n",
        f"{V2}/a/b/cpu.max": "max 100000\n",
        f"{V2}/a/cpu.max": "200000 100000",
    }
    assert quota(tmp_path, files) == CpuQuota(2.0, 2, "cgroup v2")


@pytest.mark.parametrize("path", ["/kubepods/pod1/abc", "/../../abc", "/"])
def test_v2_in_a_container_the_top_folder_is_its_own_group(tmp_path: Path, path: str) -> None:
    files = {"proc/self/cgroup": f"0::{path}\n", f"{V2}/cpu.max": "100000 100000\n"}
    assert quota(tmp_path, files) == CpuQuota(1.0, 1, "cgroup v2")


def test_v2_is_found_without_proc(tmp_path: Path) -> None:
    assert quota(tmp_path, {f"{V2}/cpu.max": "100000 100000\n"}).cpus == 1.0


@pytest.mark.parametrize("mount", ["cpu,cpuacct", "cpu"])
@pytest.mark.parametrize("group", ["", "/docker", "/docker/abc"])
def test_v1_tightest_group_counts_wherever_it_is_mounted(tmp_path: Path, mount: str, group: str) -> None:
    files = {"proc/self/cgroup": V1_GROUPS}
    for each, micros in (("", 700000), ("/docker", 700000), ("/docker/abc", 700000), (group, 150000)):
        files[f"sys/fs/cgroup/{mount}{each}/cpu.cfs_quota_us"] = f"{micros}\n"
        files[f"sys/fs/cgroup/{mount}{each}/cpu.cfs_period_us"] = "100000\n"
    assert quota(tmp_path, files) == CpuQuota(1.5, 1, "cgroup v1")


def test_v1_group_of_another_controller_is_not_ours(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": V1_GROUPS}
    for mount in ("cpu", "cpuset", "cpu,cpuacct"):
        files[f"sys/fs/cgroup/{mount}/else/cpu.cfs_quota_us"] = "100000\n"
        files[f"sys/fs/cgroup/{mount}/else/cpu.cfs_period_us"] = "100000\n"
    assert quota(tmp_path, files).source == "affinity"


def test_v2_group_is_not_mistaken_for_one_of_v1(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "4:memory:/else\n0::/me\n", f"{V2}/else/cpu.max": "100000 100000\n"}
    assert quota(tmp_path, files).source == "affinity"


def test_v2_tree_beside_those_of_v1_is_found(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "4:memory:/\n0::/me\n", f"{V2}/unified/me/cpu.max": "200000 100000\n"}
    assert quota(tmp_path, files) == CpuQuota(2.0, 2, "cgroup v2")


def test_v1_minus_one_is_no_limit(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": V1_GROUPS,
        f"{V1_CPU}/cpu.cfs_quota_us": "-1\n",
        f"{V1_CPU}/cpu.cfs_period_us": "100000\n",
    }
    assert quota(tmp_path, files, affinity=4) == CpuQuota(4.0, 4, "affinity")


def test_v2_is_asked_before_v1(tmp_path: Path) -> None:
    files = {
        f"{V2}/cpu.max": "300000 100000",
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000",
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
    }
    assert quota(tmp_path, files) == CpuQuota(3.0, 3, "cgroup v2")


@pytest.mark.parametrize(
    "text", ["", "fast\n", "100000\n", "100000 0\n", "0 100000\n", "1 2 3\n", "-5 -1\n", "nan 1\n"]
)
def test_malformed_cgroup_file_is_ignored(tmp_path: Path, text: str) -> None:
    assert quota(tmp_path, {f"{V2}/cpu.max": text}, affinity=4) == CpuQuota(4.0, 4, "affinity")


def test_malformed_list_of_groups_is_ignored(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "nonsense\n\n:\n::::\n", f"{V2}/cpu.max": "200000 100000"}
    assert quota(tmp_path, files).cpus == 2.0


def test_affinity_below_the_quota_wins(tmp_path: Path) -> None:
    assert quota(tmp_path, {f"{V2}/cpu.max": "800000 100000"}, affinity=2) == CpuQuota(2.0, 2, "affinity")
    assert quota(tmp_path, {}, affinity=2, LABKIT_CPUS="32") == CpuQuota(2.0, 2, "affinity")


def test_quota_equal_to_the_affinity_is_named(tmp_path: Path) -> None:
    assert quota(tmp_path, {f"{V2}/cpu.max": "200000 100000"}, affinity=2).source == "cgroup v2"


def test_part_of_a_cpu_still_gives_one_thread(tmp_path: Path) -> None:
    assert quota(tmp_path, {f"{V2}/cpu.max": "1000 100000"}) == CpuQuota(0.01, 1, "cgroup v2")


def test_variables_come_before_the_cgroup_and_ours_comes_first(tmp_path: Path) -> None:
    files = {f"{V2}/cpu.max": "800000 100000"}
    assert quota(tmp_path, files, CPU_LIMIT="0.5") == CpuQuota(0.5, 1, "CPU_LIMIT")
    assert quota(tmp_path, files, CPU_LIMIT="0.5", LABKIT_CPUS="3") == CpuQuota(3.0, 3, "LABKIT_CPUS")


def test_empty_variable_is_as_good_as_none(tmp_path: Path) -> None:
    assert quota(tmp_path, {}, affinity=4, LABKIT_CPUS="", CPU_LIMIT=" ").source == "affinity"


@pytest.mark.parametrize("name", ["LABKIT_CPUS", "CPU_LIMIT"])
@pytest.mark.parametrize("value", ["lots", "0", "-1", "nan", "inf", "2 CPUs", "0.0001"])
def test_senseless_cpu_variable_is_refused_by_name(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        quota(tmp_path, {}, **{name: value})
    assert str(caught.value) == f"{name}={value!r}: give a number of CPUs, at least 0.001, or unset it"


def test_the_real_environment_is_asked_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_CPUS", "0.25")
    monkeypatch.setenv("MEM_LIMIT", "1000000")
    assert cpu_quota(tmp_path) == CpuQuota(0.25, 1, "LABKIT_CPUS")
    assert memory_limit(tmp_path) == MemoryLimit(1000000, "MEM_LIMIT")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no CPU affinity")
def test_real_affinity_is_seen(tmp_path: Path) -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert cpu_quota(tmp_path, {}) == CpuQuota(1.0, 1, "affinity")
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(("count", "expected"), [(12, 12), (None, 1)])
def test_without_affinity_the_cpus_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int | None, expected: int
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: count)
    assert cpu_quota(tmp_path, {}) == CpuQuota(float(expected), expected, "CPU count")


# --- memory ---


def test_v2_memory_of_the_tightest_group_counts(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/a/b\n",
        f"{V2}/a/b/memory.max": "max\n",
        f"{V2}/a/memory.max": f"{2 * GIB}\n",
        f"{V2}/memory.max": f"{8 * GIB}\n",
    }
    assert limit(tmp_path, files) == MemoryLimit(2 * GIB, "cgroup v2")


def test_v2_memory_max_is_no_limit(tmp_path: Path) -> None:
    assert limit(tmp_path, {f"{V2}/memory.max": "max\n"}) == MemoryLimit(64 * GIB, "physical memory")


def test_v1_memory_of_the_tightest_group_counts(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": V1_GROUPS,
        f"{V1_MEMORY}/docker/abc/memory.limit_in_bytes": f"{4 * GIB}\n",
        f"{V1_MEMORY}/docker/memory.limit_in_bytes": f"{3 * GIB}\n",
        f"{V1_MEMORY}/memory.limit_in_bytes": "9223372036854771712\n",
    }
    assert limit(tmp_path, files) == MemoryLimit(3 * GIB, "cgroup v1")


@pytest.mark.parametrize("no_limit", [9223372036854771712, 2**63 - 1, 2**64 - 1])
def test_v1_memory_far_beyond_the_machine_is_no_limit(tmp_path: Path, no_limit: int) -> None:
    files = {f"{V1_MEMORY}/memory.limit_in_bytes": f"{no_limit}\n"}
    assert limit(tmp_path, files) == MemoryLimit(64 * GIB, "physical memory")


@pytest.mark.parametrize("text", ["", "plenty\n", "-1\n", "0\n", "1 2\n", "1.5\n"])
def test_malformed_memory_file_is_ignored(tmp_path: Path, text: str) -> None:
    assert limit(tmp_path, {f"{V2}/memory.max": text}).source == "physical memory"


def test_memory_variable_comes_before_the_cgroup(tmp_path: Path) -> None:
    files = {f"{V2}/memory.max": f"{2 * GIB}\n"}
    assert limit(tmp_path, files, MEM_LIMIT=str(4 * GIB)) == MemoryLimit(4 * GIB, "MEM_LIMIT")


def test_memory_variable_cannot_exceed_the_machine(tmp_path: Path) -> None:
    assert limit(tmp_path, {}, 8 * GIB, MEM_LIMIT="1e300") == MemoryLimit(8 * GIB, "physical memory")


@pytest.mark.parametrize("value", ["2G", "0", "-1", "0.5", "nan", "inf"])
def test_senseless_memory_variable_is_refused_by_name(tmp_path: Path, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        limit(tmp_path, {}, MEM_LIMIT=value)
    assert str(caught.value) == f"MEM_LIMIT={value!r}: give a number of bytes, at least 1, or unset it"


def test_physical_memory_is_the_real_machines(tmp_path: Path) -> None:
    import psutil

    assert memory_limit(tmp_path, {}) == MemoryLimit(psutil.virtual_memory().total, "physical memory")


# --- the processor ---

X86 = """processor\t: 0
model name\t: {model}
flags\t\t: fpu sse4_2 avx2 {flags}
vmx flags\t: avx512_bf16

processor\t: 1
model name\t: another
flags\t\t: fpu amx_int8
"""
ARM = """processor\t: 0
Features\t: fp asimd asimdhp asimddp i8mm bf16
CPU implementer\t: 0x41
CPU part\t: 0xd40
"""
RASPBERRY = """processor\t: 0
Features\t: fp asimd crc32
CPU part\t: 0xd08

Model\t\t: Raspberry Pi 4
"""
ALL_AMX = "avx512f avx512_bf16 amx_bf16 avx512_vnni amx_tile amx_int8"
WITH_AMX = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "amx_tile")


@pytest.mark.parametrize(
    ("text", "model", "features"),
    [
        (X86.format(model="Xeon 8481C", flags=ALL_AMX), "Xeon 8481C", WITH_AMX),
        (X86.format(model="i7-1260P", flags="avx_vnni"), "i7-1260P", ("avx2", "avx_vnni")),
        (ARM, "ARM implementer 0x41 part 0xd40", ("neon", "dotprod", "i8mm", "bf16")),
        (RASPBERRY, "Raspberry Pi 4", ("neon",)),
    ],
    ids=["amx", "vnni", "arm", "raspberry"],
)
def test_linux_processor_is_read(tmp_path: Path, text: str, model: str, features: tuple[str, ...]) -> None:
    root = tree(tmp_path, {"proc/cpuinfo": text})
    assert (cpu_model(root), cpu_features(root)) == (model, features)


def test_processor_with_unreadable_bytes_is_still_read(tmp_path: Path) -> None:
    tree(tmp_path, {"proc/cpuinfo": ""}).joinpath("proc/cpuinfo").write_bytes(b"x: \xff\nflags: avx2\n")
    assert cpu_features(tmp_path) == ("avx2",)


MAC_ARM = """hw.optional.AdvSIMD: 1
hw.optional.arm.FEAT_DotProd: 1
hw.optional.arm.FEAT_I8MM: 0
hw.optional.arm.FEAT_BF16: 1
"""
MAC_INTEL = "hw.optional.avx2_0: 1\nhw.optional.avx512f: 0\nmachdep.cpu.leaf7_features: BMI2 AVX512VNNI\n"


@pytest.mark.parametrize(
    ("text", "features"),
    [(MAC_ARM, ("neon", "dotprod", "bf16")), (MAC_INTEL, ("avx2", "avx512_vnni")), ("", ())],
    ids=["arm", "intel", "silent"],
)
def test_mac_processor_is_read_from_sysctl(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, features: tuple[str, ...]
) -> None:
    def sysctl(command: list[str], **_: object) -> SimpleNamespace:
        return SimpleNamespace(stdout="Apple M2\n" if "machdep.cpu.brand_string" in command else text)

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(subprocess, "run", sysctl)
    assert (cpu_model(tmp_path), cpu_features(tmp_path)) == ("Apple M2", features)


@pytest.mark.parametrize("error", [FileNotFoundError("sysctl"), subprocess.TimeoutExpired("sysctl", 5)])
def test_mac_without_a_working_sysctl_tells_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def sysctl(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(subprocess, "run", sysctl)
    assert cpu_features(tmp_path) == ()


def test_elsewhere_no_feature_is_claimed_and_the_model_has_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert cpu_features(tmp_path) == ()
    assert cpu_model(tmp_path)


@pytest.mark.parametrize(
    ("features", "vnni", "amx", "bf16"),
    [
        (WITH_AMX, True, True, True),
        (("avx2", "avx_vnni"), True, False, False),
        (("avx512f", "avx512_vnni", "avx512_bf16"), True, False, True),
        (("amx_tile", "amx_int8"), False, True, False),
        (("amx_tile", "amx_bf16"), False, True, True),
        (("amx_tile",), False, False, False),
        (("neon", "dotprod", "i8mm", "bf16"), False, False, True),
        ((), False, False, False),
    ],
)
def test_features_answer_what_they_are_asked_for(
    features: tuple[str, ...], vnni: bool, amx: bool, bf16: bool
) -> None:
    here = dataclasses.replace(environment.current(), cpu_features=features)
    assert (here.has_vnni, here.has_amx, here.has_bf16) == (vnni, amx, bf16)


# --- the stamp ---


def test_stamp_is_flat_json_with_every_field() -> None:
    here = environment.current()
    record = here.to_json()
    assert json.loads(json.dumps(record)) == record
    assert not any(isinstance(value, dict) for value in record.values())
    names = {field.name for field in dataclasses.fields(Environment)} - {"versions"}
    assert names <= set(record)
    assert record["torch_version"] == here.versions["torch"]
    assert record["scikit_learn_version"] == here.versions["scikit-learn"]


def test_stamp_agrees_with_the_parts() -> None:
    here = environment.current()
    assert CpuQuota(here.cpus, here.threads, here.cpu_source) == cpu_quota()
    assert MemoryLimit(here.memory_bytes, here.memory_source) == memory_limit()
    assert (here.cpu_model, here.cpu_features) == (cpu_model(), cpu_features())
    assert here.python == ".".join(map(str, sys.version_info[:3]))


def test_stamp_is_frozen_taken_once_and_travels_to_workers() -> None:
    here = environment.current()
    assert here is environment.current()
    assert pickle.loads(pickle.dumps(here)) == here
    assert hash(here) == hash(pickle.loads(pickle.dumps(here)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        here.cpus = 99.0  # type: ignore[misc]


def test_stamp_names_neither_computer_nor_person(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "secret-host")
    monkeypatch.setattr(getpass, "getuser", lambda: "secret-user")
    monkeypatch.setattr(
        os, "uname", lambda: os.uname_result(("Linux", "secret-host", "6.1", "#1 secret-build", "x86_64"))
    )
    monkeypatch.setattr("platform._uname_cache", None)
    text = json.dumps(environment.current.__wrapped__().to_json())
    assert "Linux 6.1" in text  # the made-up names were there to be taken
    assert "secret" not in text


def test_versions_are_of_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    known = {"torch": "2.13.0+cpu", "onnxruntime-gpu": "1.31.0", "openvino": None, "stranger": "1"}

    def version(name: str) -> str | None:
        if name == "onnx":
            raise KeyError("Version")  # how a damaged record shows itself on some Pythons; None on others
        if name not in known:
            raise metadata.PackageNotFoundError(name)
        return known[name]

    monkeypatch.setattr(metadata, "version", version)
    assert installed_versions() == {"torch": "2.13.0+cpu", "onnxruntime-gpu": "1.31.0"}


def test_lists_of_packages_agree_with_pyproject() -> None:
    pyproject = Path(__file__).parents[2] / "pyproject.toml"
    if not pyproject.exists():
        pytest.skip("no pyproject.toml beside the tests")
    from packaging.requirements import Requirement

    def names(lines: list[str]) -> set[str]:
        wanted = map(Requirement, lines)
        return {each.name for each in wanted if each.marker is None or each.marker.evaluate()}

    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    assert names(project["dependencies"]) == set(CORE)
    extras = {extra: names(lines) for extra, lines in project["optional-dependencies"].items()}
    assert {extra: lines for extra, lines in extras.items() if extra != "test"} == {
        extra: set(packages) for extra, packages in EXTRAS.items()
    }


def test_neither_import_nor_stamp_imports_a_package() -> None:
    heavy = {"torch", "numpy", "onnx", "onnxruntime", "openvino", "matplotlib"}
    code = (
        "import sys; from labkit import environment; light = 'psutil' not in sys.modules\n"
        f"environment.current(); print(light, sorted({heavy!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True []"
