"""What a command made, beside what it was made of: bytes, zeros, multiply-adds, and quality on the same samples."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labkit.cli.terminal import print_json, say

_MANY_ZEROS = 0.3
_HARDLY_ANY = 0.1
"""Of a layer's weights, less than this share of what is left of all."""
_CODED = ".lkz"


def save(made: Any, out: Path, data: Any) -> tuple[Any, str]:
    """Write the variant; returns it as it was written, and words that say where.

    An ONNX file also says what is known of it: the next command need not be told again how its images are prepared.
    """
    from labkit.convert import save_as
    from labkit.formats.onnx_file import described

    made = _savable(made, out, data)
    if made.format == "onnx":
        made = dataclasses.replace(made, model=described(made))
    there = out.is_file() or (out / "variant.json").is_file()
    save_as(made, out)
    where = f"the folder {out}" if out.suffix and out.is_dir() else str(out)
    return made, f"saved in {where}" + (", in place of the model that was there" if there else "")


def _savable(made: Any, out: Path, data: Any) -> Any:
    """The variant; in ONNX where a folder could not rebuild it: no config of labkit's architectures has its widths."""
    from labkit.convert import convert

    if made.format != "torch" or hasattr(made.model, "config") or out.suffix.lower() == _CODED:
        return made
    say(f"no config of labkit's architectures has the widths of {made.name}: keeping it as ONNX")
    return convert(made, "onnx", data).variant


def tell(
    made: Any,
    out: Path,
    saved: str,
    data: Any,
    json: bool,
    before: Any = None,
    alone: Any = None,
    technique: Any = None,
) -> None:
    """Say what `technique` made, and what it is worth beside `before` and beside `alone`, its baseline."""
    from labkit.distill import Distill

    size_bytes = out.stat().st_size if out.suffix.lower() == _CODED else made.size_bytes
    about = {"name": made.name, "out": str(out), "format": made.format, "size_bytes": size_bytes}
    account = Account.of(made, size_bytes, data, before, alone)
    if before is not None and isinstance(technique, Distill) and account.grew:
        account.lines.append(
            "the student is larger than its teacher: --set width=0.25 or another --set student=NAME makes it smaller"
        )
    target = getattr(technique, "target", None)
    if before is not None and target == "latency":
        account.time(made, before, technique)
    elif before is not None and target is not None:
        account.lines.append(
            "fewer multiply-adds are less time only where the widths suit the processor: --set target=latency asks for "
            "time itself, and measures it"
        )
    if before is not None and getattr(technique, "fine_tune_epochs", 1) == 0 and account.is_lower:
        account.lines += _emptied(made) if getattr(technique, "scope", "") == "global" else []
        account.lines.append("training may bring back what was lost: --set fine_tune_epochs=4")
    if json:
        print_json({**about, "digest": made.digest, **account.facts})
        return
    print(f"{made.name}: {size_bytes:,} bytes, {account.quality}; {saved}")
    account.print_lines()
    if account.zeros > _MANY_ZEROS and out.suffix.lower() != _CODED:
        smaller = "fewer channels (--method channels) take less of both"
        if made.format == "torch":
            smaller = f"labkit encode {out} --out {out}{_CODED} writes them small"
        print(f"  zeros take as many bytes there as other numbers, and as much time: {smaller}")


def _emptied(made: Any) -> list[str]:
    """A line on the layers that lost by far the most, where the smallest weights of all layers together went."""
    from labkit.prune.files import in_torch
    from labkit.prune.masks import prunable_layers

    weights = prunable_layers((made if made.format == "torch" else in_torch(made)).model)
    left = {name: float((weight != 0).float().mean()) for name, weight in weights.items()}
    overall = sum(left[name] * weights[name].numel() for name in left) / sum(
        w.numel() for w in weights.values()
    )
    lost = ", ".join(
        f"{name} {1 - share:.1%}" for name, share in left.items() if share < _HARDLY_ANY * overall
    )
    if not lost:
        return []
    return [
        f"the smallest weights of all layers together went, and these lost nearly all of theirs: {lost}; --set "
        "scope=layer takes as large a share of each, --method weights --set criterion=lamp looks at each layer's own"
    ]


@dataclass
class Account:
    """What there is to say of a variant, as facts for JSON and in words."""

    facts: dict[str, Any]
    quality: str = "quality not measured: no --dataset"
    zeros: float = 0.0
    lines: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, made: Any, size_bytes: int, data: Any, before: Any = None, alone: Any = None) -> Account:
        """Measured on the validation split of `data`, if there is one; `before` and `alone` on the same samples."""
        counts = _counts(made)
        account = cls({"metric": None, "quality": None, "quality_ci95": None, "n_samples": 0, **counts})
        account.zeros = 1 - counts["nonzero_parameters"] / max(counts["parameters"], 1)
        scores = account._judge(made, data) if data is not None else None
        if before is not None:
            account._beside(before, size_bytes, data, scores)
        if alone is not None:
            facts, told, paired = _compared(alone, data, scores)
            account.facts |= {"baseline": facts, **facts.pop("difference")}
            account.quality += f"; on the labels alone it has {told}, difference {paired}"
        return account

    @property
    def is_lower(self) -> bool:
        """Whether the accuracy is clearly below that of before."""
        high = self.facts.get("before", {}).get("difference_ci95", [0, 0])[1]
        return self.facts["metric"] == "accuracy" and high is not None and high < 0

    @property
    def grew(self) -> bool:
        """Whether there are more parameters than before."""
        return bool(self.facts["parameters"] > self.facts.get("before", self.facts)["parameters"])

    def time(self, made: Any, before: Any, technique: Any) -> None:
        """Measured anew: which share of the time of `before` is left, beside the one that was asked for."""
        from labkit.convert import convert
        from labkit.measure.protocol import Protocol
        from labkit.prune.target import time_share

        whole, narrow = (
            each if each.format == "onnx" else convert(each, "onnx").variant for each in (before, made)
        )
        share, (low, high) = time_share(whole, narrow, technique.runtime, Protocol.paired())
        self.facts |= {
            "time_share": share,
            "time_share_ci95": [low, high],
            "time_share_asked": technique.keep,
        }
        self.lines.append(
            f"time of one sample in {technique.runtime}: {share:.2f} [{low:.2f}, {high:.2f}] of before; asked for: "
            f"{technique.keep:g}"
        )

    def print_lines(self) -> None:
        """What stands below the first line."""
        for line in self.lines:
            print(f"  {line}")

    def _judge(self, made: Any, data: Any) -> Any:
        from labkit.measure.quality import evaluate

        scores = evaluate(made, data, "validation")
        measured, words = quality_of(data.task, scores)
        self.facts |= measured | {"n_samples": len(scores)}
        self.quality = f"{words} on {len(scores)} validation samples"
        return scores

    def _beside(self, before: Any, size_bytes: int, data: Any, scores: Any) -> None:
        from labkit.strategy import doubt

        was = {"name": before.name, "size_bytes": before.size_bytes, **_counts(before)}
        line = f"{before.name} before: {before.size_bytes:,} bytes, {before.size_bytes / size_bytes:.2f}× as many"
        if scores is not None:
            facts, told, paired = _compared(before, data, scores)
            was |= facts | facts.pop("difference")
            line += f"; {told}, now {paired}"
        self.lines.append(line)
        if scores is not None and data.task_name == "classification":
            self.facts["doubt"] = doubt(was["quality"], data) or None
            self.lines += filter(None, [self.facts["doubt"]])
        changes = [
            f"{title} {was[key]:,} → {self.facts[key]:,}"
            for key, title in (
                ("nonzero_parameters", "weights other than zero"),
                ("macs", "multiply-adds a sample"),
            )
            if was[key] is not None and self.facts[key] is not None
        ]
        if self.facts["macs_reason"]:
            changes.append(self.facts["macs_reason"])
        self.lines.append("; ".join(changes))
        self.facts["before"] = was


def quality_of(task: Any, scores: Any) -> tuple[dict[str, Any], str]:
    """The quality with its interval, as facts for JSON and in words."""
    (low, high), quality = task.interval(scores), task.quality(scores)
    quality_json, *ci95 = map(_json_number, (quality, low, high))
    facts = {"metric": task.metric, "quality": quality_json, "quality_ci95": ci95}
    return facts, f"{task.metric} {quality:.4f} [{low:.4f}, {high:.4f}]"


def _compared(other: Any, data: Any, scores: Any) -> tuple[dict[str, Any], str, str]:
    """Another variant's quality, as facts and in words, and how far the one with these scores is above it, in words."""
    from labkit.measure.quality import evaluate

    theirs = evaluate(other, data, "validation")
    facts, told = quality_of(data.task, theirs)
    paired = data.task.compare(theirs, scores)
    difference, *ci95 = map(_json_number, (paired.difference, *paired.ci95))
    facts["difference"] = {"difference": difference, "difference_ci95": ci95}
    low, high = paired.ci95
    return facts, told, f"{paired.difference:+.4f} [{low:+.4f}, {high:+.4f}]: {paired.verdict}"


def _counts(variant: Any) -> dict[str, Any]:
    """Multiply-adds of one sample, or None and the reason where they cannot be counted, and parameters."""
    from labkit.measure.counting import count
    from labkit.measure.records import Reason
    from labkit.technique import probe

    counts = count(variant, probe(variant, batch_size=1))
    why = str(counts.macs) if isinstance(counts.macs, Reason) else None
    return {
        "macs": None if why else counts.macs,
        "macs_reason": why,
        "parameters": counts.parameters,
        "nonzero_parameters": counts.nonzero_parameters,
    }


def _json_number(value: float) -> float | None:
    """The number, or None where JSON has none such: an interval of few samples is infinite."""
    return value if math.isfinite(value) else None
