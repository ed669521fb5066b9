"""What a file weighs, what it errs, and what others make of the same weights."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks.bytes.making import IN_HASTE, SEEDS, SHIPPED, make
from benchmarks.bytes.plans import FINAL, PLANS, Plan
from benchmarks.parts import Found, nulls
from labkit.data import Dataset, load_dataset
from labkit.encode import decode, dissect, encode
from labkit.encode.baselines import baselines
from labkit.errors import DataError
from labkit.measure.quality import evaluate
from labkit.prune.masks import prunable_weights
from labkit.statistics import wilson
from labkit.variant import Variant
from labkit.zoo import CODED, FOLDER, card

Row = dict[str, Any]
_DECODINGS = 15


def lenet300(quick: bool) -> Found:
    """LeNet-300-100 in three files for each seed."""
    return _files(PLANS["lenet300"], quick)


def lenet5(quick: bool) -> Found:
    """LeNet-5 in three files for each seed."""
    return _files(PLANS["lenet5"], quick)


def decoding(quick: bool) -> Found:
    """How fast the files that the other parts have made decode: in turns, the median of each over all rounds."""
    rows, names = [], ["decode_mb_per_s"]
    data = _mnist()
    if isinstance(data, str):
        return nulls(names, data)
    files = [
        (plan.network, seed, name, encode(networks[name]))
        for plan in PLANS.values()
        for seed, networks in made(plan, data, quick)
        for name in FINAL
    ]
    times = np.array([[_seconds(content) for *_, content in files] for _ in range(_DECODINGS)])
    for (network, seed, name, content), seconds in zip(files, np.median(times, axis=0), strict=True):
        decoded = dissect(content).decoded_bytes
        row = {"network": network, "seed": seed, "file": name, "decoded_bytes": decoded}
        rows.append({**row, "decode_ms": 1e3 * seconds, "decode_mb_per_s": decoded / 1e6 / seconds})
    slowest = min(row["decode_mb_per_s"] for row in rows)
    return Found({"decode_mb_per_s": slowest}, rows)


def anatomy(quick: bool) -> Found:
    """Where every byte of the file in the zoo went, and its error by its card; nothing is measured."""
    found = dissect((FOLDER / SHIPPED / CODED).read_bytes())
    rows = [{"file": SHIPPED, "part_of_file": row.pop("part"), **row} for row in found.to_json()["parts"]]
    figures = {
        "shipped_bytes": found.size_bytes,
        "shipped_ratio": PLANS["lenet5"].float_bytes / found.size_bytes,
        "shipped_error_pct": 100 * (1 - card(SHIPPED)["quality"]),
    }
    return Found(figures, rows)


def _files(plan: Plan, quick: bool) -> Found:
    names = [f"{plan.network}_{each}" for each in _FIGURES]
    data = _mnist()
    if isinstance(data, str):
        return nulls(names, data)
    rows = [
        {"network": plan.network, "seed": seed, "file": name, **_weigh(plan, variant, data, name)}
        for seed, networks in made(plan, data, quick)
        for name, variant in networks.items()
    ]
    found = Found({name: figure(rows) for name, figure in zip(names, _FIGURES.values(), strict=True)}, rows)
    if quick:
        found.figures["training_images"] = IN_HASTE["max_samples"]
    return found


def _weigh(plan: Plan, variant: Variant, data: Dataset, name: str) -> Row:
    """Errors on all test images; of a file also its bytes, the excess over its bound, and the others' bytes."""
    content = encode(variant) if name in FINAL else b""
    correct = evaluate(decode(content) if content else variant, data, "test")
    total, wrong = len(correct), len(correct) - int(correct.sum())
    low, high = wilson(wrong, total)
    row: Row = {"error_pct": 100 * wrong / total, "error_pct_ci95": [100 * low, 100 * high]}
    if not content:
        return row
    others = {each.name: each.bytes for each in baselines(variant) if each.bytes is not None}
    least = {
        kind: min(size for each, size in others.items() if each.startswith(kind)) for kind in ("lzma", "zstd")
    }
    return row | {
        "bytes": len(content),
        "ratio": plan.float_bytes / len(content),
        "weights_kept": sum(int((each != 0).sum()) for each in prunable_weights(variant.model)),
        "excess_pct": dissect(content).excess_pct,
        "lzma_bytes": least["lzma"],
        "zstd_bytes": least["zstd"],
        "gaps_huffman_bytes": others["gaps and Huffman"],
    }


def _seconds(content: bytes) -> float:
    start = time.perf_counter()
    decode(content)
    return time.perf_counter() - start


def made(plan: Plan, data: Dataset, quick: bool) -> Iterator[tuple[int, dict[str, Variant]]]:
    """Seed, and what was made with it."""
    if quick:
        plan = dataclasses.replace(plan, **IN_HASTE)
    for seed in SEEDS[:1] if quick else SEEDS:
        yield seed, make(plan, data, seed)


def _mnist() -> Dataset | str:
    """The data, or why they are not here."""
    try:
        return load_dataset("mnist")
    except DataError as error:
        return str(error)


def _median(file: str, key: str) -> Callable[[Sequence[Row]], float]:
    return lambda rows: statistics.median(row[key] for row in rows if row["file"] == file)


def _of_files(
    pick: Callable[[Iterator[float]], float], over: Callable[[Row], float]
) -> Callable[[Sequence[Row]], float]:
    return lambda rows: pick(over(row) for row in rows if "bytes" in row)


_FIGURES: dict[str, Callable[[Sequence[Row]], float]] = {
    "dense_error_pct": _median("dense", "error_pct"),
    **{f"{file}_{key}": _median(file, key) for file in FINAL for key in ("ratio", "error_pct")},
    "entropy_excess_pct": _of_files(max, lambda row: row["excess_pct"]),
    "lzma_over_ours": _of_files(min, lambda row: row["lzma_bytes"] / row["bytes"]),
    "zstd_over_ours": _of_files(min, lambda row: row["zstd_bytes"] / row["bytes"]),
    "gaps_huffman_over_ours": _of_files(min, lambda row: row["gaps_huffman_bytes"] / row["bytes"]),
}
"""Name, behind the network's → how it is found from the rows: medians over the seeds, then of the worst file."""
