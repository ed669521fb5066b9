"""What the quantization lesson shows at once, because it was measured before: whole, and true of what is shipped."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from labkit.errors import ConfigError
from labkit.quantize.mixed import propose
from labkit.teach.recording import FILE, MIXED, WIDTHS, load_recording
from labkit.widgets import tally


def test_every_layer_was_measured_in_every_width() -> None:
    widths: dict[str, set[int]] = {}
    for each in load_recording().choices:
        widths.setdefault(each.weight, set()).add(each.bits)
    assert len(widths) == 26
    assert all(found == set(WIDTHS) for found in widths.values())


def test_the_recorded_models_are_those_that_the_search_proposes() -> None:
    recording = load_recording()
    sizes = [point.size_bytes for point in recording.points]
    assert sizes == sorted(sizes)
    proposed = propose(recording.choices, MIXED.points)
    assert {tuple(each.items()) for each in proposed} == {
        tuple(point.assignment.items()) for point in recording.points
    }


_AGAIN = """
import json
from labkit import load_dataset, load_model
from labkit.convert import ExportOnnx
from labkit.progress import silent
from labkit.teach.recording import DATASET, MIXED, MODEL, NETWORK, load_recording, measure_point
data = load_dataset(DATASET)
network = NETWORK(ExportOnnx()(load_model(MODEL), data), data)
assignment = load_recording().points[0].assignment
point = measure_point(network, MIXED.stock(network, data, silent), assignment, data, silent)
print(json.dumps([point.counts, point.assignment, point.size_bytes, point.drop_pp]))
"""


@pytest.mark.extra
def test_a_recorded_model_that_is_made_again_is_as_large_and_as_bad() -> None:
    """In a fresh process, as the one that recorded it was."""
    done = subprocess.run([sys.executable, "-c", _AGAIN], capture_output=True, text=True, check=True)
    counts, assignment, size_bytes, drop_pp = json.loads(done.stdout.splitlines()[-1])
    recorded = load_recording().points[0]
    assert (counts, assignment) == (recorded.counts, recorded.assignment)
    assert size_bytes == pytest.approx(recorded.size_bytes, rel=0.001)
    assert drop_pp == pytest.approx(recorded.drop_pp, abs=3)  # on another CPU a close call may turn
    assert recorded.drop_pp > 50


def test_a_few_layers_with_more_bits_are_worth_it() -> None:
    """What the game is about: without it there is nothing to find."""
    recording = load_recording()
    good = [point for point in recording.points if point.drop_ci95[0] <= 0]  # no difference detected
    uniform = next(point for point in good if set(point.assignment.values()) == {8})
    weights = [tally(recording.choices, point.assignment, 0).weight_bytes for point in (good[0], uniform)]
    assert weights[0] < 0.7 * weights[1]


def test_a_file_that_is_no_recording_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text(FILE.read_text()[:100])
    with pytest.raises(ConfigError, match=r"broken\.json"):
        load_recording(broken)
