"""Imports run one way only, and `import labkit` is light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import labkit

PACKAGE = Path(labkit.__file__).parent

# Lower may not import higher; what stands on one line may import each other.
ORDER = [
    {"errors"},
    {"doors"},
    {"files", "progress", "statistics", "models", "methods"},
    {"environment", "variant", "task"},
    {"data"},
    {"runtimes", "onnx_graph"},
    {"technique", "formats"},
    {"measure", "kept", "checkpoint"},
    {"train"},
    {"convert", "quantize", "prune", "distill", "encode"},
    {"microscope"},
    {"inspection", "explain"},
    {"zoo", "pipeline"},
    {"parallel"},
    {"journal"},
    {"study"},
    {"strategy"},
    {"package"},
    {"plots", "notebook"},
    {"report"},
    {"workflow", "doctor", "sweep"},
    {"widgets", "teach"},
    {"cli"},
    {"__main__"},
]
RANK = {name: rank for rank, names in enumerate(ORDER) for name in names}


def module_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(source: str):
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "labkit":
            parts = node.module.split(".")
            yield from [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
        if isinstance(node, ast.Import):
            yield from [alias.name.split(".")[1] for alias in node.names if alias.name.startswith("labkit.")]


def upward(source: str, home: str) -> list[str]:
    return [name for name in imports_of(source) if name in RANK and RANK[name] > RANK[home]]


def files():
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


def test_every_part_of_the_package_has_its_place_in_the_order():
    assert {module_of(path) for path in files()} == set(RANK)


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path):
    assert upward(path.read_text(encoding="utf-8"), module_of(path)) == []


def test_an_upward_import_would_be_seen():
    assert upward("from labkit.cli import app", "errors") == ["cli"]
    assert upward("def f():\n    import labkit.widgets.job", "measure") == ["widgets"]
    assert upward("from labkit import widgets", "measure") == ["widgets"]
    assert upward("from labkit.errors import LabkitError", "cli") == []


def test_nothing_below_the_widgets_imports_ipywidgets():
    for path in files():
        if RANK[module_of(path)] < RANK["widgets"]:
            assert "ipywidgets" not in [
                name
                for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                for name in (
                    [node.module or ""]
                    if isinstance(node, ast.ImportFrom)
                    else [alias.name for alias in node.names]
                    if isinstance(node, ast.Import)
                    else []
                )
            ], path


def modules_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(' '.join(sys.modules))"
    return set(
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.split()
    )


HEAVY = {"torch", "matplotlib", "ipywidgets", "onnx", "onnxruntime", "openvino", "sklearn", "numpy"}


def test_importing_labkit_imports_nothing_heavy():
    assert not HEAVY & modules_after("import labkit")


def test_the_command_line_s_help_imports_nothing_heavy():
    assert not HEAVY & modules_after("import labkit.cli")


def test_a_heavy_import_would_be_seen():
    assert modules_after("import numpy") & HEAVY == {"numpy"}


def test_every_public_name_is_there():
    for name in labkit.__all__:
        assert getattr(labkit, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        labkit.no_such_name  # noqa: B018


@pytest.mark.parametrize("first", ["labkit.measure.measuring", "labkit.measure", "labkit"])
def test_measure_can_be_called_whatever_was_imported_first(first):
    modules_after(f"import labkit, {first}; assert callable(labkit.measure); labkit.measure.__name__")
