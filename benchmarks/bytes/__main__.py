"""How few bytes does LeNet take on MNIST? One file that decodes to the model, weighed whole, and timed.

    python -m benchmarks.bytes [--parts ONE,ANOTHER] [--keep FOLDER] [--quick] [--json]

Bytes are those of the file: codebooks, positions, description and checksum included. They are compared with the
float32 bytes of the network's parameters. Errors are of all 10,000 test images; `making.py` says
how everything was chosen. Three seeds, each with a dense network of its own. `gentle` and `strict` files are meant to
err no more than that dense network, `small` ones no more than the published baseline. Training takes some four hours
of one core; with `--keep FOLDER` what is trained stays there, and a second run trains nothing. `decoding` wants a quiet
machine; `anatomy` takes apart the file that `python -m benchmarks.bytes.ship FOLDER` has put into the zoo.
`--quick` trains for a few epochs on 4,000 images, and its errors are those of small data.
"""

from __future__ import annotations

from benchmarks.bytes.weighing import anatomy, decoding, lenet5, lenet300
from benchmarks.keep import keep_in
from benchmarks.parts import run_parts

if __name__ == "__main__":
    run_parts("bytes", (lenet300, lenet5, decoding, anatomy), in_haste=(lenet300,), keep=keep_in)
