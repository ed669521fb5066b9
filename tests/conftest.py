"""Small models and data that every test may ask for: one image classifier is not the only shape of a model."""

from __future__ import annotations

import functools
import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from torch import nn

from labkit.cli import main
from labkit.convert import ExportOnnx, convert
from labkit.data import Dataset, Split, load_dataset
from labkit.data.dataset import make_splits
from labkit.variant import TensorSpec, Variant
from labkit.zoo import load_model

os.environ.setdefault("LABKIT_HEADLESS", "1")
settings.register_profile("patient", deadline=None)  # a busy machine is not a fault of the code
settings.load_profile("patient")


class TwoInputs(nn.Module):
    """ids [N, T] and mask [N, T], both int64 → logits [N, 3]: a bag of words."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(16, 8)
        self.fc = nn.Linear(8, 3)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        weights = mask.to(torch.float32).unsqueeze(-1)
        total = (self.table(ids) * weights).sum(1)
        return self.fc(total / weights.sum(1).clamp(min=1.0))


def _two_inputs() -> tuple[Variant, Dataset]:
    torch.manual_seed(0)
    spec = [TensorSpec(name, "int64", ("batch", "time")) for name in ("ids", "mask")]
    variant = Variant(
        "two_inputs",
        "torch",
        TwoInputs().eval(),
        tuple(spec),
        (TensorSpec("logits", "float32", ("batch", 3)),),
        labels=("a", "b", "c"),
    )
    random = np.random.RandomState(0)
    ids = random.randint(0, 16, (400, 6))
    mask = (random.rand(400, 6) < 0.8).astype(np.int64)
    target = (ids * mask).sum(1) % 3
    splits = make_splits(
        Split({"ids": ids.astype(np.int64), "mask": mask}, target), None, None, "classification"
    )
    return variant, Dataset("words", "classification", splits, ("a", "b", "c"))


def _regression() -> tuple[Variant, Dataset]:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 1)).eval()
    variant = Variant(
        "regression",
        "torch",
        module,
        (TensorSpec("x", "float32", ("batch", 5)),),
        (TensorSpec("y", "float32", ("batch", 1)),),
        task="regression",
    )
    random = np.random.RandomState(0)
    x = random.standard_normal((400, 5)).astype(np.float32)
    y = (x @ np.arange(1, 6, dtype=np.float32)).astype(np.float32)
    return variant, Dataset("plane", "regression", make_splits(Split({"x": x}, y), None, None, "regression"))


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """Run `labkit …` in this process, in an empty folder: (status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["labkit", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return call


@pytest.fixture(scope="session")
def digits() -> Dataset:
    dataset = load_dataset("digits")
    for split in dataset.splits.values():  # shared by all tests, so none of them may write to it
        for array in (*split.inputs.values(), split.target):
            array.setflags(write=False)
    return dataset


@pytest.fixture(scope="session")
def lenet() -> Variant:
    return load_model("lenet5@digits")


@pytest.fixture(scope="session")
def cases(digits: Dataset, lenet: Variant) -> dict[str, tuple[Variant, Dataset]]:
    """Three models of different shape, each with data: image classifier, two int64 inputs, regression."""
    return {"image": (lenet, digits), "two_inputs": _two_inputs(), "regression": _regression()}


@pytest.fixture(scope="session")
def onnx_cases(cases: dict[str, tuple[Variant, Dataset]]) -> dict[str, tuple[Variant, Dataset]]:
    """The same three as ONNX."""
    return {name: (ExportOnnx()(variant, dataset), dataset) for name, (variant, dataset) in cases.items()}


@pytest.fixture(scope="session")
def forms(cases: dict[str, tuple[Variant, Dataset]]) -> Callable[[str, str], tuple[Variant, Dataset]]:
    """`forms(format, case)`: one of the three in any format that the converters reach, made once."""

    @functools.cache
    def form(format_: str, name: str) -> tuple[Variant, Dataset]:
        variant, dataset = cases[name]
        if format_ in ("keras", "mindspore"):
            return getattr(importlib.import_module("tests.extra.models"), f"{format_}_case")(dataset)
        return (variant if format_ == "torch" else convert(variant, format_, dataset).variant), dataset

    return form
