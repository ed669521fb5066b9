"""Every string that a panel shows, by key: one table to translate, one copy of the code.

text("state.failed", error="ONNX Runtime refuses 'x'")
"""

from __future__ import annotations

STRINGS = {
    "run": "Run",
    "run.help": "Measure on this machine with the settings above",
    "stop": "Stop",
    "stop.help": "Stop at the next batch; nothing is left half-written",
    "recorded": "Show recorded",
    "recorded.help": "Show a result that was measured before, at once",
    "progress": "Progress",
    "command": "The same from a terminal:",
    "command.none": "(mend the settings first)",
    "state.idle": "Ready. Press Run.",
    "state.running": "Running. {message}",
    "state.stopping": "Stopping after this batch …",
    "state.done": "Done.",
    "state.stopped": "Stopped. What was measured so far is below.",
    "state.failed": "Failed: {message}",
    "recorded.shown": "Measured earlier, on {cpu}; not measured now.",
    "recorded.refused": "There is nothing recorded for this panel, or a run is under way.",
    "several.none": "choose at least one",
    "compare.variants": "which models to measure beside the baseline, {baseline}",
    "compare.runtimes": "what executes them; each model runs where its format fits",
    "compare.batch_size": "samples that the model takes at a time",
    "compare.threads": "CPU threads of each runtime; more than your quota makes everything slower",
    "compare.pace": "After Run: each model took turns with the baseline alone; times are given at the pace of "
    "the first baseline, as its time / speedup.",
    "compare.no_match": "none of the models chosen ({variants}) has a format that {runtimes} runs; "
    "onnxruntime and openvino run ONNX, torch runs PyTorch",
}


def text(key: str, **values: object) -> str:
    """The string for `key`, its {names} filled in. It is plain text: escape it where it becomes HTML."""
    return STRINGS[key].format(**values)
