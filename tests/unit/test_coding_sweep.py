"""What the weight coding lesson shows at once, because it was measured before: whole, and true of what is shipped."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from labkit.data import load_dataset
from labkit.errors import ConfigError
from labkit.progress import silent
from labkit.teach.coding_sweep import DATASET, FILE, LEVELS, MODEL, SPARSITIES, load_coding, measure
from labkit.widgets import find_point
from labkit.widgets.anatomy_rows import GROUPS
from labkit.zoo import load_model


def test_there_is_a_file_for_every_stop_and_all_its_bytes_are_told() -> None:
    recording = load_coding()
    stops = [(point.sparsity, point.levels) for point in recording.points]
    assert stops == list(itertools.product(SPARSITIES, LEVELS))
    assert all(list(point.groups) == list(GROUPS) and point.size_bytes > 0 for point in recording.points)
    assert all(point.drop_ci95[0] <= point.drop_pp <= point.drop_ci95[1] for point in recording.points)


def test_zeros_and_few_levels_save_bytes_and_there_is_something_to_find() -> None:
    recording = load_coding()
    sizes = {(point.sparsity, point.levels): point.size_bytes for point in recording.points}
    for (sparsity, levels), size in sizes.items():
        assert size < sizes[sparsity, 16] or levels == 16
        assert sparsity < 0.8 or size < sizes[0.0, levels]
    assert sizes[0.5, 2] > sizes[0.0, 2]  # half the weights zero: a third value, and a larger file
    good = [point for point in recording.points if point.drop_pp <= 0.5]
    bad = [point for point in recording.points if point.drop_pp > 2]
    assert min(point.size_bytes for point in good) * 100 < recording.float_bytes and bad


def test_a_recorded_file_that_is_made_again_is_as_large_and_as_good() -> None:
    network, dataset = load_model(MODEL), load_dataset(DATASET)
    recording = load_coding()
    assert recording.float_bytes == network.size_bytes
    recorded = find_point(recording.points, 0.97, 8)
    again, weighed = measure(network, 0.97, 8, dataset, silent)
    assert again.size_bytes == weighed.found.size_bytes == pytest.approx(recorded.size_bytes, rel=0.1)
    assert again.accuracy_pct == pytest.approx(recorded.accuracy_pct, abs=2)  # another CPU trains differently


def test_a_file_that_is_no_recording_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text(FILE.read_text()[:100])
    with pytest.raises(ConfigError, match=r"broken\.json"):
        load_coding(broken)
