"""What binder/ asks for, and the Dockerfile that repo2docker makes of it."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
INSTALL = 'pip install --no-cache-dir -r "binder/requirements.txt"'
COPY_SOURCES = "COPY --chown=0:0 src/ ${REPO_DIR}/"


def lines(name: str) -> list[str]:
    return [line for line in (ROOT / name).read_text().splitlines() if line and not line.startswith("#")]


def pins(name: str) -> list[str]:
    return [line for line in lines(name) if not line.startswith("-")]


def render(folder: Path) -> str:
    """What repo2docker prints for `folder`: the Python it takes, then the Dockerfile. Needs no Docker."""
    pytest.importorskip("repo2docker")
    command = [sys.executable, "-m", "repo2docker", "--no-build", "--debug", folder]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def dockerfile() -> str:
    return render(ROOT)


def test_the_pins_are_those_of_constraints_with_torch_as_its_cpu_build():
    assert [pin for pin in pins("binder/requirements.txt") if "+" in pin] == ["torch==2.13.0+cpu"]
    ordinary = {pin.removesuffix("+cpu") for pin in pins("binder/requirements.txt")}
    assert sorted(ordinary - set(pins("constraints.txt"))) == []


def test_every_core_dependency_is_pinned():
    core = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = {re.split(r"[<>=]", dependency)[0] for dependency in core}
    assert sorted(names - {pin.split("==")[0] for pin in pins("binder/requirements.txt")}) == []


def test_no_line_makes_every_commit_install_everything_again():
    options = [line for line in lines("binder/requirements.txt") if line.startswith("-")]
    assert options == ["--extra-index-url https://download.pytorch.org/whl/cpu"]


def test_post_build_installs_labkit_alone_and_can_be_executed():
    assert "pip install --no-cache-dir --no-deps ." in (ROOT / "binder/postBuild").read_text()
    assert os.name == "nt" or os.access(ROOT / "binder/postBuild", os.X_OK)


def test_the_image_has_python_3_11(dockerfile):
    assert "python=3.11" in dockerfile


def test_the_packages_are_installed_before_the_sources_are_copied(dockerfile):
    assert "dataset-fashion-mnist" in dockerfile[: dockerfile.index(COPY_SOURCES)]
    assert dockerfile.index(INSTALL) < dockerfile.index(COPY_SOURCES)


def test_post_build_runs_once_the_sources_are_there(dockerfile):
    assert dockerfile.index(COPY_SOURCES) < dockerfile.index("RUN ./binder/postBuild")


def test_a_line_that_refers_to_the_sources_would_be_noticed(tmp_path):
    shutil.copytree(ROOT / "binder", tmp_path / "binder")
    with open(tmp_path / "binder/requirements.txt", "a") as requirements:
        requirements.write("-e .\n")
    planted = render(tmp_path)
    assert planted.index(INSTALL) > planted.index(COPY_SOURCES)
