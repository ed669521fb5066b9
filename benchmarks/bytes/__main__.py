"""How few bytes does LeNet take on MNIST? One file that decodes to the model, weighed whole, and timed.

    python -m benchmarks.bytes [--parts ONE,ANOTHER] [--quick] [--json]

Bytes are those of the file: codebooks, positions, description and checksum included. They are compared with the
float32 bytes of the network's parameters. Errors are of all 10,000 test images, on which nothing was chosen; three
seeds, each with a dense network of its own. `strict` files are meant to err no more than that dense network, `small`
ones no more than the published baseline. What is made is kept in the cache folder: about two hours of one core the
first time, and an interrupted run goes on where it was. `decoding` wants a quiet machine; `anatomy` takes apart
the file that `python -m benchmarks.bytes.ship` has put into the zoo.
`--quick` trains for a few epochs on 4,000 images, and its errors are those of small data.
"""

from __future__ import annotations

from benchmarks.bytes.weighing import anatomy, decoding, lenet5, lenet300
from benchmarks.parts import run_parts

if __name__ == "__main__":
    run_parts("bytes", (lenet300, lenet5, decoding, anatomy), in_haste=(lenet300,))
