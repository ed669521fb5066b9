"""What a teacher says of an image, at any temperature: the soft-target explorer's figures.

    told = ask(teacher, data.split("validation").take([18, 37]), data.labels)
    told["image 1: 3"].at(8.0)

The teacher is asked once, for its logits. A temperature only divides them, so that a slider needs no network.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from labkit.data import Split
from labkit.distill.soft_targets import as_module
from labkit.encode.entropy import entropy
from labkit.errors import ConfigError, DataError
from labkit.plots import table_html
from labkit.variant import Array, Variant
from labkit.widgets.catalogue import text

SOFT_TARGET_COLUMNS = ("class", "logit", "at temperature 1", "at yours")


@dataclass(frozen=True, eq=False)
class SoftTarget:
    """An image [H, W], the name of its class, the names of all C classes, and the teacher's logits [C]."""

    image: Array
    label: str
    labels: tuple[str, ...]
    logits: Array

    def at(self, temperature: float) -> Array:
        """softmax(logits / temperature): probabilities [C]. Raises ConfigError for a temperature of 0 or less."""
        if not temperature > 0:
            raise ConfigError(f"temperature={temperature!r} must be above 0")
        shares = np.exp((self.logits - self.logits.max()) / temperature)
        return np.asarray(shares / shares.sum())

    def bits(self, temperature: float) -> float:
        """The entropy of the answer: 0 where one class has it all, log2(C) where all are alike."""
        return entropy(self.at(temperature))

    def ranked(self, temperature: float) -> list[tuple[str, float]]:
        """Each class with its probability, the largest first."""
        pairs = zip(self.labels, self.at(temperature).tolist(), strict=True)
        return sorted(pairs, key=lambda pair: -pair[1])


def ask(teacher: Variant, split: Split, labels: tuple[str, ...]) -> dict[str, SoftTarget]:
    """What the teacher says of every image of `split`, by a name such as "image 2: 7".

    teacher: a PyTorch or ONNX variant with one image [C, H, W] as its input, shown in grey. Raises DataError for
    no image.
    """
    if not len(split):
        raise DataError("there is no image to ask about: take at least one from the split")
    images = teacher.feeds(split.inputs)[teacher.inputs[0].name]
    with torch.no_grad():
        logits = as_module(teacher)(torch.from_numpy(images)).double().numpy()
    told = {}
    for number, (image, target, answer) in enumerate(zip(images, split.target, logits, strict=True), 1):
        label = labels[int(target)]
        name = text("soft.image", number=number, label=label)
        told[name] = SoftTarget(image.mean(axis=0), label, labels, answer)
    return told


def soft_target_table(told: SoftTarget, temperature: float) -> str:
    """An HTML table with SOFT_TARGET_COLUMNS: every class, and the entropy of both answers."""
    plain, soft = told.at(1.0), told.at(temperature)
    rows = [
        dict(zip(SOFT_TARGET_COLUMNS, (label, float(logit), percent(p), percent(q)), strict=True))
        for label, logit, p, q in zip(told.labels, told.logits, plain, soft, strict=True)
    ]
    last = (
        text("soft.entropy.row"),
        None,
        *(text("soft.bits", bits=told.bits(t)) for t in (1.0, temperature)),
    )
    return table_html([*rows, dict(zip(SOFT_TARGET_COLUMNS, last, strict=True))], SOFT_TARGET_COLUMNS)


def soft_target_says(told: SoftTarget, temperature: float) -> str:
    """The three likeliest classes and the entropy, in one sentence."""
    said = [
        text("soft.said", label=label, share=percent(share)) for label, share in told.ranked(temperature)[:3]
    ]
    return text(
        "soft.says",
        label=told.label,
        temperature=temperature,
        said=", ".join(said),
        bits=told.bits(temperature),
        most=float(np.log2(len(told.labels))),
        bits_at_1=told.bits(1.0),
    )


def percent(share: float) -> str:
    """A probability in percent, with two figures however small it is."""
    return f"{100 * share:.1f} %" if share >= 0.001 else f"{100 * share:.1g} %"
