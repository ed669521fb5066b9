"""Put the best small LeNet-5 file into the zoo, with its card.

    python -m benchmarks.bytes.ship FOLDER

FOLDER is where a full run has kept what it trained. Which of the seeds is the best is told by the validation images.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from benchmarks.bytes.making import SHIPPED
from benchmarks.bytes.plans import PLANS
from benchmarks.bytes.weighing import made
from benchmarks.keep import keep_in
from labkit.data import load_dataset
from labkit.encode import encode
from labkit.measure.quality import evaluate
from labkit.zoo import ship_coded

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "folder", type=Path, help="where `python -m benchmarks.bytes --keep` has kept its networks"
    )
    given = parser.parse_args().folder
    if not given.is_dir():
        parser.error(
            f"{given} is no folder: run `python -m benchmarks.bytes --parts lenet5 --keep {given}` first"
        )
    keep_in(given)
    data = load_dataset("mnist")
    files = {seed: networks["small"] for seed, networks in made(PLANS["lenet5"], data, quick=False)}
    best = max(files, key=lambda seed: float(evaluate(files[seed], data, "validation").mean()))
    print(json.dumps(ship_coded(SHIPPED, encode(files[best]), best), indent=1))
