"""Mixed precision: how much smaller than uniform 8 bits a model is that is no worse, and whether the front holds.

The mixed model is chosen on validation: the smallest of the search for which the paired interval against uniform
int8 does not exclude "no difference". That one alone is then held against int8 on test. The front is the one that
the search itself measured; a uniform model beats it if on test every model of the front that is no larger is worse,
with an interval that excludes 0.
"""

from __future__ import annotations

from typing import Any

from benchmarks.parts import Found, nulls
from benchmarks.quantization.common import Subject, not_shipped, subject
from labkit.cli.terminal import progress_line
from labkit.quantize.mixed import Point, QuantizeMixed, pareto
from labkit.task import Scores

MODEL = "resnet20"
FIGURES = ("mixed_size_ratio", "mixed_drop_pp", "mixed_front_below_uniform")


def mixed_precision(quick: bool) -> Found:
    """resnet20: all models of the search, the chosen one, and uniform int8 beside them."""
    given = subject(MODEL, quick)
    if given is None:
        return nulls(FIGURES, not_shipped(MODEL))
    technique = QuantizeMixed(rounding="gptq", points=4) if quick else QuantizeMixed(points=12)
    points = technique.search(given.variant, given.dataset, progress_line())
    int8 = given.int8["onnxruntime"]
    validation, test = given.scores(int8, "validation"), given.scores(int8)
    scores = [given.scores(point.variant) for point in points]
    front, rows = pareto(points), []
    for point, own in zip(points, scores, strict=True):
        rows.append(
            {
                "model": MODEL,
                "bits": point.counts,
                "size_bytes": point.size_bytes,
                "size_over_int8": point.size_bytes / int8.size_bytes,
                "on_front": point in front,
                **given.behind(
                    "validation_behind_int8_pp", validation, given.scores(point.variant, "validation")
                ),
                **given.behind("behind_int8_pp", test, own),
                **given.behind("drop_pp", given.float_scores, own),
            }
        )
    chosen = choose(rows)
    for row in rows:
        row["chosen"] = row is chosen
    beating = sum(_beats_the_front(given, i, points, front, scores) for i in range(len(points)))
    return Found(
        dict(zip(FIGURES, (chosen["size_over_int8"], chosen["behind_int8_pp"], beating), strict=True)), rows
    )


def choose(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The smallest that is not worse than int8 on validation, as far as the interval tells; test has no say.

    Where all are worse, the one that is least so: its own figures then say it.
    """
    good = [row for row in rows if row["validation_behind_int8_pp_ci95"][0] <= 0]
    if not good:
        return min(rows, key=lambda row: row["validation_behind_int8_pp_ci95"][0])
    return min(good, key=lambda row: row["size_bytes"])


def _beats_the_front(
    given: Subject, index: int, points: list[Point], front: list[Point], scores: list[Scores]
) -> bool:
    """Whether point `index` is uniform and, on test, better than all models of the front that are no larger."""
    point = points[index]
    if len(set(point.assignment.values())) > 1:
        return False
    rivals = [i for i, each in enumerate(points) if each in front and each.size_bytes <= point.size_bytes]
    return all(given.behind("pp", scores[index], scores[i])["pp_ci95"][0] > 0 for i in rivals)
