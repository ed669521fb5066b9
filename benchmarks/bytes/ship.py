"""Put the best small LeNet-5 file into the zoo, with its card.

    python -m benchmarks.bytes.ship FOLDER

FOLDER is where a full run has kept what it trained. Which of the seeds is the best is told by the validation images.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks.bytes.making import PLANS, SHIPPED
from benchmarks.bytes.weighing import made
from benchmarks.keep import keep_in
from labkit.data import load_dataset
from labkit.encode import encode
from labkit.measure.quality import evaluate
from labkit.zoo import ship_coded

if __name__ == "__main__":
    keep_in(Path(sys.argv[1]))
    data = load_dataset("mnist")
    files = [networks["small"] for _, networks in made(PLANS["lenet5"], data, quick=False)]
    best = max(files, key=lambda variant: float(evaluate(variant, data, "validation").mean()))
    print(json.dumps(ship_coded(SHIPPED, encode(best)), indent=1))
