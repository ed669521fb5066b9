"""Where every byte of a coded file went, in groups to draw and to compare.

groups = byte_groups(anatomy(path))        # {"positions": …, "values": …, …}, the file's size in all
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from labkit.encode.anatomy import Anatomy, Part
from labkit.encode.baselines import Baseline
from labkit.plots import table_html
from labkit.widgets.catalogue import text

GROUPS = {
    "positions": "anatomy.group.positions",
    "values": "anatomy.group.values",
    "stored": "anatomy.group.stored",
    "codebooks": "anatomy.group.codebooks",
    "frame": "anatomy.group.frame",
}
"""Each group, and its name in the catalogue. Of coded tensors, where the kept weights are and which value each has;
tensors that are stored as they are; the codebooks and settings of the coder; the file's own frame, lengths and first
bytes of the records."""
PART_COLUMNS = ("tensor", "part", "bytes", "share", "bound", "alone")


@dataclass(frozen=True)
class Weighed:
    """A coded file to look at: its anatomy, and what others make of the same weights."""

    found: Anatomy
    others: tuple[Baseline, ...] = ()


def group_of(part: Part) -> str:
    """Which of GROUPS a part of the file belongs to."""
    if part.part in ("codebook", "settings"):
        return "codebooks"
    if not part.tensor or part.part in ("length", "head"):
        return "frame"
    return part.part if part.alone_bytes is not None else "stored"


def byte_groups(found: Anatomy) -> dict[str, int]:
    """GROUPS → bytes; all together are the file's size."""
    groups = dict.fromkeys(GROUPS, 0)
    for part in found.parts:
        groups[group_of(part)] += part.bytes
    return groups


def by_tensor(found: Anatomy) -> dict[str, list[Part]]:
    """Tensor → its parts, in the file's order; the file's frame last, as ""."""
    tensors: dict[str, list[Part]] = {}
    for part in found.parts:
        tensors.setdefault(part.tensor, []).append(part)
    tensors[""] = tensors.pop("")
    return tensors


def best_of_others(others: Sequence[Baseline]) -> dict[str, int]:
    """Compressor → its bytes with the weights in the form that suits it better; without those that are missing."""
    best: dict[str, int] = {}
    for each in others:
        name = each.name.partition(",")[0]
        if each.bytes is not None:
            best[name] = min(each.bytes, best.get(name, each.bytes))
    return best


def coded_bytes(parts: Sequence[Part]) -> tuple[int, float, float]:
    """Of the coded symbols among `parts`: their bytes, their bound, and the bound if each stood alone, in bytes."""
    coded = [part for part in parts if part.alone_bytes is not None]
    return (
        sum(part.bytes for part in coded),
        sum(part.bound_bytes or 0.0 for part in coded),
        sum(part.alone_bytes or 0.0 for part in coded),
    )


def anatomy_says(weighed: Weighed) -> str:
    """The size, what it is made of, and how near the bound it comes; in a few sentences."""
    found, groups = weighed.found, byte_groups(weighed.found)
    largest = max(groups, key=lambda group: groups[group])
    coded, bound, alone = coded_bytes(found.parts)
    said = [
        text(
            "anatomy.says",
            size=found.size_bytes,
            ratio=found.ratio,
            decoded=found.decoded_bytes,
            largest=text(GROUPS[largest]),
            share=groups[largest] / found.size_bytes,
        )
    ]
    if bound:
        said.append(text("anatomy.bound", coded=coded, bound=bound, excess=coded / bound - 1, alone=alone))
    if best := best_of_others(weighed.others):
        name = min(best, key=lambda each: best[each])
        said.append(text("anatomy.others", name=name, bytes=best[name], ratio=best[name] / found.size_bytes))
    return " ".join(said)


def anatomy_table(weighed: Weighed) -> str:
    """HTML tables: every part with PART_COLUMNS and their sum, the file's size; then the other compressors."""
    found = weighed.found
    rows: list[Mapping[str, object]] = [
        {
            "tensor": part.tensor or text("anatomy.file"),
            "part": part.part,
            "bytes": part.bytes,
            "share": f"{part.bytes / found.size_bytes:.1%}",
            "bound": part.bound_bytes,
            "alone": part.alone_bytes,
        }
        for part in found.parts
    ]
    whole = {"tensor": text("grid.all"), "bytes": found.size_bytes, "share": "100.0%"}
    tables = table_html([*rows, whole], PART_COLUMNS) + f"<p>{text('anatomy.note')}</p>"
    if weighed.others:
        others = [
            {
                "compressor": each.name,
                "bytes": each.bytes,
                "times ours": each.bytes / found.size_bytes if each.bytes else None,
                "null_reasons": {"bytes": each.note, "times ours": each.note},
            }
            for each in weighed.others
        ]
        tables += table_html(others, ("compressor", "bytes", "times ours"))
    return tables
