"""pyproject.toml, constraints.txt and binder/ agree with one another, and the wheel carries what it needs."""

import importlib.util
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import labkit

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONSTRAINTS, BINDER = ROOT / "constraints.txt", ROOT / "binder" / "requirements.txt"


def pins(path: Path) -> dict[str, str]:
    """Name → exact version, of each line that is not a comment or an option."""
    lines = [line for line in path.read_text().splitlines() if line and line[0] not in "#-"]
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}


def closure(*extras: str) -> set[str]:
    """The names of labkit's dependencies with these extras, of their dependencies, and so on."""
    found: set[tuple[str, tuple[str, ...]]] = set()
    ahead = [("labkit", extras)]
    while ahead:
        name, extras = ahead.pop()
        for requirement in map(Requirement, metadata.requires(name) or []):
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
                needed = canonicalize_name(requirement.name), tuple(sorted(requirement.extras))
                if needed not in found:
                    found.add(needed)
                    ahead.append(needed)
    return {name for name, _ in found}


def test_the_version_is_said_twice_and_equal():
    assert PROJECT["version"] == labkit.__version__


def test_an_old_python_is_refused_by_pip_as_by_run_py():
    assert PROJECT["requires-python"] == ">=3.11"
    assert "sys.version_info < (3, 11)" in (ROOT / "run.py").read_text()


@pytest.mark.parametrize("extra", [None, *PROJECT["optional-dependencies"]])
def test_every_direct_dependency_is_pinned_inside_its_range(extra):
    lines = PROJECT["dependencies"] if extra is None else PROJECT["optional-dependencies"][extra]
    for requirement in map(Requirement, lines):
        assert requirement.specifier.contains(pins(CONSTRAINTS)[canonicalize_name(requirement.name)]), (
            requirement
        )


def test_torch_is_pinned_without_a_local_version_so_that_every_system_finds_it():
    assert "+" not in pins(CONSTRAINTS)["torch"]


def test_the_pins_are_sorted_and_each_is_there_once():
    lines = [line for line in CONSTRAINTS.read_text().splitlines() if not line.startswith("#")]
    assert lines == sorted(lines, key=str.lower)
    assert len(lines) == len(pins(CONSTRAINTS))


linux_311 = pytest.mark.skipif(
    sys.platform != "linux" or sys.version_info[:2] != (3, 11),
    reason="made on Linux with Python 3.11: elsewhere some packages need a few others",
)
needs_extras = pytest.mark.skipif(
    importlib.util.find_spec("tf2onnx") is None, reason="the extras are not installed in this environment"
)


@linux_311
@pytest.mark.parametrize(
    ("path", "extras"),
    [
        pytest.param(CONSTRAINTS, ("test", "openvino", "tensorflow", "mindspore"), marks=needs_extras),
        (BINDER, ("openvino",)),
    ],
    ids=["run.py", "binder"],
)
def test_the_pins_are_all_dependencies_of_dependencies_and_nothing_else(path, extras):
    others = {"notebook"}  # Binder's own server, in the version that goes with our JupyterLab
    others |= (
        {"tensorflow"} if "tensorflow" in extras else set()
    )  # which macOS takes instead of tensorflow-cpu
    assert pins(path).keys() == closure(*extras) | others


@linux_311
def test_what_the_default_installation_needs_is_pinned():
    assert closure("test", "openvino") <= pins(CONSTRAINTS).keys()


def test_the_wheel_carries_the_weights_the_cards_and_the_sheets(tmp_path):
    options = ["--quiet", "--no-build-isolation", "--no-deps", "--wheel-dir", tmp_path]
    command = [sys.executable, "-m", "pip", "wheel", *options, ROOT]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("labkit-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder, inside in (("datasets", "labkit/datasets"), ("labkit", "labkit")):
        files = [path.relative_to(ROOT / folder) for path in (ROOT / folder).rglob("*") if path.is_file()]
        shipped = [path for path in files if not any(part[0] in "._" for part in path.parent.parts)]
        assert [path for path in shipped if f"{inside}/{path.as_posix()}" not in names] == []
    assert {name.split("/")[0] for name in names} == {"labkit", f"labkit-{labkit.__version__}.dist-info"}
