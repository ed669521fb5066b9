"""Whether `explain` names the true cause of every planted case of a quantized model that is not faster."""

from __future__ import annotations

from benchmarks.parts import Found
from benchmarks.quantization.slow_cases import CASES, slow_case
from benchmarks.quantization.slow_models import digits
from labkit.cli.terminal import say
from labkit.explain import explain


def explained(quick: bool) -> Found:
    """Every case that can be planted on this machine, by the clock; `quick` or not, for it is the same clock."""
    found = Found()
    for name in CASES:
        case = slow_case(name)
        if case.absent:
            found.rows.append({"case": name, "absent": case.absent})
            continue
        say(f"explain: {name}")
        told = explain(case.variant, digits(), **case.options)
        causes = [finding.cause for finding in told.findings]
        row = {"case": name, "cause": case.cause, "named": causes, "found": causes[:1] == [case.cause]}
        found.rows.append(row)
    planted = [row for row in found.rows if "found" in row]
    found.figures = {"explain_found": sum(row["found"] for row in planted), "explain_planted": len(planted)}
    return found
