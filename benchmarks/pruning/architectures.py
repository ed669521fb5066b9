"""Networks that nobody wrote for pruning: how many lose channels, run, export, and equal themselves masked."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch

from benchmarks.parts import Found
from labkit.cli.terminal import say
from labkit.convert import ExportOnnx
from labkit.errors import LabkitError
from labkit.prune.coupling import find_coupling
from labkit.prune.coupling.modules import fitting, masked_module, narrow_module, trace
from labkit.runtimes import get_runtime
from tests.architectures import ARCHITECTURES, IMAGE, make

TOLERANCE = 1e-5
_SHARE = 0.4
_IN_HASTE = 2


def architectures(quick: bool) -> Found:
    """Of each, 40 % of the units of every group go, at random; the first two in haste."""
    rows = []
    for name in list(ARCHITECTURES)[: _IN_HASTE if quick else None]:
        say(name)
        try:
            rows.append({"architecture": name, **_measured(name)})
        except LabkitError as error:
            rows.append({"architecture": name, "passed": False, "refused": str(error)})
    passed = sum(row["passed"] for row in rows)
    return Found({"architectures": len(rows), "architectures_passed": passed}, rows)


def _measured(name: str) -> dict[str, Any]:
    """How far the pruned module is from the masked one, and its file from it; as shares of the largest output."""
    variant, random = make(name), np.random.default_rng(0)
    images = np.random.default_rng(1).standard_normal((3, *IMAGE)).astype(np.float32)
    coupling = fitting(variant, find_coupling(trace(variant)))
    removed = [
        group.units[random.permutation(len(group))[: max(1, int(_SHARE * len(group)))]]
        for group in coupling.groups
    ]
    narrow, masked = (make_(variant.model, coupling, removed) for make_ in (narrow_module, masked_module))
    whole, left, expected = (_answers(module, images) for module in (variant.model, narrow, masked))
    exported = ExportOnnx()(dataclasses.replace(variant, model=narrow))
    with get_runtime("onnxruntime").load(exported) as session:
        from_file = session.run({variant.inputs[0].name: images})[variant.outputs[0].name]
    parameters = [sum(each.numel() for each in module.parameters()) for module in (variant.model, narrow)]
    return {
        "groups": len(coupling.groups),
        "parameters": parameters[0],
        "parameters_left": parameters[1],
        **verdict(_furthest(left, expected), _furthest(from_file, left), _furthest(whole, expected)),
    }


def verdict(error: float, file_error: float, masking_changes: float) -> dict[str, Any]:
    """Passed if both are the same but for rounding, and the masked network is not simply the whole one."""
    passed = max(error, file_error) < TOLERANCE < masking_changes
    return {"error": error, "file_error": file_error, "masking_changes": masking_changes, "passed": passed}


def _answers(module: torch.nn.Module, images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    with torch.no_grad():
        answers: np.ndarray[Any, Any] = module(torch.from_numpy(images)).numpy()
    return answers


def _furthest(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> float:
    return float(np.abs(first - second).max() / np.abs(second).max())
