"""Every sentence that predictions, checks and decisions show, by key: one table to translate."""

from __future__ import annotations

STRINGS = {
    "check.right": "✓ right: {answer}",
    "check.not quite": "✗ not quite: {answer}. {hint}",
    "check.not yet": "… not yet: replace None by your answer, and run this cell again",
    "check.impossible": "✗ not quite: {answer} cannot be checked: {error}. {hint}",
    "claim": "✓ {claim}",
    "decision.variant": "To ship",
    "decision.constraint": "The constraint that binds",
    "decision.risk": "The risk that remains",
    "predict.answer": "Answer {unit}",
    "predict.lock": "Lock in my prediction",
    "predict.open": "{question} (not answered)",
    "predict.locked": "{question} (locked in: {answer})",
    "reveal.open": "Not answered. Measured: {measured}. {why}",
    "reveal.exact": "You predicted {answer}, and so it is: {measured}. {why}",
    "reveal.factor": "You predicted {answer}. Measured: {measured}, off by a factor of {factor:.2g}. {why}",
    "reveal.difference": "You predicted {answer}. Measured: {measured}, off by {difference:.3g}. {why}",
    "reveal.other": "You predicted {answer}. Measured: {measured}. {why}",
}


def text(key: str, **values: object) -> str:
    """The sentence for `key`, its {names} filled in. It is plain text: escape it where it becomes HTML."""
    return STRINGS[key].format(**values).strip()
