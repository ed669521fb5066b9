"""The benchmark of LeNet in bytes, on digits and in haste: what it makes, keeps, weighs and shows."""

from __future__ import annotations

import dataclasses

import pytest

from benchmarks import keep
from benchmarks.bytes import making, page, weighing
from labkit.encode import load_encoded, save_encoded
from labkit.errors import DataError
from labkit.technique import Technique
from labkit.zoo import load_model


@pytest.fixture
def tiny(digits, monkeypatch, tmp_path):
    """The smaller network's plan with a few steps, and a folder of its own for what is made."""
    haste = {
        "dense_epochs": 3,
        "prune_epochs": 2,
        "cluster_epochs": 1,
        "kept": {"gentle": 15000, "strict": 9000, "small": 4000},
    }
    plan = dataclasses.replace(making.PLANS["lenet300"], **haste)
    monkeypatch.setattr(weighing, "IN_HASTE", {**haste, "max_samples": 0})
    monkeypatch.setattr(weighing, "SEEDS", (0,))
    monkeypatch.setattr(weighing, "PLANS", {"lenet300": plan})
    monkeypatch.setattr(weighing, "load_dataset", lambda name: digits)
    token = keep._folder.set(tmp_path)
    yield plan
    keep._folder.reset(token)


def test_files_are_weighed_and_the_page_shows_them(tiny, monkeypatch, digits):
    found = weighing.lenet300(quick=False)
    dense, gentle, strict, small = found.rows
    assert [row["file"] for row in found.rows] == ["dense", "gentle", "strict", "small"]
    assert "bytes" not in dense and 12_000 < gentle["weights_kept"] <= 15_000
    assert 8000 < strict["weights_kept"] <= 9000 and 3000 < small["weights_kept"] <= 4000
    assert strict["ratio"] == 4 * 266_610 / strict["bytes"] > 40
    assert small["bytes"] < strict["bytes"] < gentle["bytes"]
    assert found.figures["lenet300_strict_ratio"] == strict["ratio"]
    assert strict["error_pct_ci95"][0] < strict["error_pct"] < strict["error_pct_ci95"][1]
    assert 0 < found.figures["lenet300_entropy_excess_pct"] < 3
    assert found.figures["lenet300_lzma_over_ours"] > 1.15 < found.figures["lenet300_zstd_over_ours"]

    networks = making.make(tiny, digits, 0)
    levels = [networks[name].lineage[-1].config["linear_levels"] for name in making.FINAL]
    assert levels == [8, 8, 6], "finer codebooks where nothing may be lost"

    def make_nothing(technique, *_):
        raise InterruptedError(f"{technique.name} is to be made")

    monkeypatch.setattr(Technique, "__call__", make_nothing)
    speed = weighing.decoding(quick=False)  # what was kept is not made again
    assert all(row["decode_mb_per_s"] > 0 < row["decoded_bytes"] for row in speed.rows)
    with pytest.raises(InterruptedError, match="prune_weights is to be made"):  # where another plan differs
        making.make(dataclasses.replace(tiny, kept={**tiny.kept, "small": 3000}), digits, 0)
    rows = [{"part": "lenet300", **row} for row in found.rows]
    rows += [{"part": "decoding", **row} for row in speed.rows]
    figures = {**found.figures, "lenet300_small_ratio": 99.0, "lenet300_dense_error_pct": 1.0}
    figures |= {"lenet300_gentle_error_pct": 0.9, "lenet300_strict_error_pct": 1.2}
    text = page.bytes_page({"table": rows, "figures": figures}, "machine")
    assert "| … points of error above its dense networks: none | -0.10 | met |" in text
    assert "| … points of error above its dense networks: none | 0.20 | **missed** |" in text
    assert "| LeNet-300-100, small: at least 100 times smaller | 99.00 | **missed** |" in text
    assert "| LeNet-5, strict: at least 150 times smaller | – | not measured |" in text
    assert (
        f"| 0 | small | {small['weights_kept']:,} | {small['bytes']:,} | **{small['ratio']:.0f}×** |" in text
    )
    assert set(found.figures) | set(speed.figures) <= set(page.WORDS)


def test_without_the_data_there_are_reasons_in_place_of_figures(tiny, monkeypatch):
    def missing(name):
        raise DataError("mnist is nowhere: run labkit data fetch")

    monkeypatch.setattr(weighing, "load_dataset", missing)
    for found in (weighing.lenet300(False), weighing.decoding(False)):
        assert set(found.figures.values()) == {None}
        assert all(reason.startswith("mnist is nowhere") for reason in found.null_reasons.values())


def test_what_comes_from_a_coded_file_is_as_large_as_that_file(tmp_path):
    variant = load_model("lenet300@digits")
    path = save_encoded(variant, tmp_path / "a.lkz")
    decoded = load_encoded(path)
    assert decoded.size_bytes == path.stat().st_size < variant.size_bytes
    assert decoded.digest == variant.digest
    changed = decoded.derive("changed", decoded.lineage[-1])
    assert changed.size_bytes == variant.size_bytes, "what is made of it is in no coded file"
