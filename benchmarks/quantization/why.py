"""Whether `explain` names the true cause of every planted case of a quantized model that is not faster."""

from __future__ import annotations

from benchmarks.quantization.common import Figures, Rows
from benchmarks.quantization.slow_cases import CASES, slow_case
from labkit.cli.terminal import say
from labkit.explain import explain


def explained(quick: bool) -> tuple[Figures, Rows]:
    """Every case that can be planted on this machine, by the clock."""
    rows: Rows = []
    for name in CASES:
        case = slow_case(name)
        if case.absent:
            rows.append({"case": name, "absent": case.absent})
            continue
        say(f"explain: {name}")
        told = explain(case.variant, **case.options)
        causes = [finding.cause for finding in told.findings]
        rows.append({"case": name, "cause": case.cause, "named": causes, "found": causes[:1] == [case.cause]})
    planted = [row for row in rows if "found" in row]
    return {"explain_found": sum(row["found"] for row in planted), "explain_planted": len(planted)}, rows
