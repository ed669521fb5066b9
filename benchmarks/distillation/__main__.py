"""Hinton's experiments on MNIST (Hinton, Vinyals and Dean 2015, section 3): is it in the soft targets, and how much?

    python -m benchmarks.distillation [--parts ONE,ANOTHER] [--keep FOLDER] [--quick] [--json]

A teacher of 784-1200-1200-10, trained with dropout and with digits moved by up to two pixels; a student of
784-800-800-10 that never sees a moved digit, without any regularisation: on the labels alone, and on the teacher's
answers to the same images; and, beyond Hinton's table, both on moved digits, both three times as long, and a student of
the teacher's logits, or of their mean over moved images. Then the first with no 3 among these images, and with nothing
but 7s and 8s. Three seeds, each with a teacher of its own. All settings were chosen on validation images, each bias
correction too; the figures are of all 10,000 test images. Without `--quick` it takes about two and a half hours on one
thread.
`--quick` trains one teacher on fewer images for a few epochs, and says how many; its errors are those of small data.
"""

from __future__ import annotations

from benchmarks.distillation.hinton import (
    hintons_table,
    logits,
    longer,
    missing_three,
    sevens_and_eights,
    temperatures,
)
from benchmarks.keep import keep_in
from benchmarks.parts import run_parts

PARTS = (hintons_table, logits, longer, missing_three, sevens_and_eights, temperatures)

if __name__ == "__main__":
    run_parts("distillation", PARTS, in_haste=(hintons_table, missing_three), keep=keep_in, one_machine=False)
