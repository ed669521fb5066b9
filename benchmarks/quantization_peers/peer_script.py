"""What the scripts of the peers share. They run in environments without labkit, hence plain Python and numpy.

python run_PEER.py SETTING MODEL.onnx CALIBRATION.npz OUT REPORT.json
"""

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

Feeds = dict[str, np.ndarray]


def batches(feeds: Feeds, size: int = 1) -> list[Feeds]:
    """The calibration samples in batches. feeds: name → [N, …]; each batch: name → [size, …]."""
    count = len(next(iter(feeds.values())))
    return [{name: array[i : i + size] for name, array in feeds.items()} for i in range(0, count, size)]


def run(
    settings: Mapping[str, Mapping[str, Any]],
    packages: tuple[str, ...],
    quantize: Callable[[Path, Feeds, Path, Mapping[str, Any]], None],
) -> None:
    """Quantize as the command line says, and report versions, settings and seconds (imports not counted)."""
    setting = settings[sys.argv[1]]
    model, calibration, out, report = map(Path, sys.argv[2:6])
    with np.load(calibration) as stored:
        feeds = dict(stored)
    started = time.perf_counter()
    quantize(model, feeds, out, setting)
    seconds = time.perf_counter() - started
    told = {
        "versions": {name: version(name) for name in packages},
        "settings": ", ".join(f"{key}={_told(value)}" for key, value in setting.items()) or "defaults",
        "seconds": round(seconds, 2),
    }
    report.write_text(json.dumps(told))


def _told(value: Any) -> str:
    """A setting in a few words: an enumeration's name; of a tool's own settings, those that are not its defaults."""
    if not is_dataclass(value):
        return str(getattr(value, "name", value))
    usual = type(value)()
    changed = {key: found for key, found in vars(value).items() if found != getattr(usual, key)}
    return ", ".join(f"{key}={_told(found)}" for key, found in changed.items())
