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
    "map.title": "The formats, and what converts into what",
    "map.legend.here": "a converter that is here",
    "map.legend.missing": "one to install first",
    "map.legend.path": "the way that you chose",
    "map.yes": "yes",
    "map.button.source": "from {name}",
    "map.button.target": "to {name}",
    "map.from": "Click the format that you have.",
    "map.to": "From {source}: now click the format that you need.",
    "map.open": "{path}: all that is needed is here.",
    "map.shut": "{path}: something must be installed first, see the table.",
    "map.none": "No way leads from {source} to {target}: what a compiler has rewritten is not turned back.",
    "map.command": "(choose two formats first)",
    "convert.model": "which network to convert",
    "convert.to": "the format that you need; what is offered is what this machine can make",
    "convert.tolerance": "the largest error that you accept, as a share of the largest output",
    "convert.none": "nothing converted yet",
    "convert.equal": "the same",
    "convert.departs": "departs",
    "convert.figure": "Largest error of {count} comparisons as a share of the largest output: {errors}; "
    "tolerance {tolerance:.3g}",
    "microscope.suspect": "which file to hold against {reference}",
    "microscope.batch_size": "training images that both are run on",
    "microscope.none": "nothing looked at yet",
    "cell": "The same in a cell:",
    "grid.title": "The grid on the number line, {name}",
    "grid.axis": "value",
    "grid.more.rows": " (the first {shown} of {rows} lines; the figures are of all)",
    "grid.more.weights": " (the first {shown} weights of a line; the figures are of all)",
    "grid.channel": "channel {channel}",
    "grid.group": "channel {channel}, group {group}",
    "grid.all": "all",
    "grid.legend.weight": "a weight",
    "grid.legend.point": "a number that the grid can hold",
    "grid.legend.arrow": "where a weight is rounded to",
    "grid.worst": "largest error {error:.3g}",
    "grid.one": "one scale of {scale:.4g}, zero_point {zero_point}",
    "grid.several": "{scales} scales",
    "grid.says": "{bits} bits, {grids}: largest error {largest_error:.3g}, SNR {snr_db:.1f} dB, "
    "{bytes:,} bytes, scales and zero points included, instead of {float_bytes:,}.",
    "grid.bits": "2^bits numbers on the grid",
    "grid.symmetry": "symmetric: 0 in the middle; asymmetric: from the least weight to the largest",
    "grid.granularity": "which weights share a scale",
    "grid.group_size": "weights of a channel that share a scale (per_group only)",
    "clipping.title": "What to clip, {name}",
    "clipping.tensor": "which tensor to look at",
    "clipping.symmetry": "as the grid shall be; a symmetric one wastes half of itself after a ReLU",
    "clipping.threshold": "the threshold: which share of the full range the grid covers; the rest is clipped",
    "clipping.counts": "values",
    "clipping.log": "(logarithmic)",
    "clipping.yours": "yours, {share:.0%}",
    "clipping.best": "least error, {share:.0%}",
    "clipping.error": "error",
    "clipping.error.note": "as a share of\nthe values’ power\n(logarithmic)",
    "clipping.share": "share of the full range that the grid covers",
    "clipping.legend.rounding": "rounding",
    "clipping.legend.clipping": "clipping",
    "clipping.legend.error": "both together",
    "clipping.mark.best": "least at {share:.0%}: {snr_db:.1f} dB",
    "clipping.mark.yours": "yours, {share:.0%}: {snr_db:.1f} dB",
    "clipping.says": "{bits} bits over {share:.0%} of the full range: {clip_rate:.3%} of the values are clipped; "
    "rounding costs {rounding:.2g} of the values’ power, clipping {clipping:.2g}: SNR {snr_db:.1f} dB. "
    "The least error is at {best:.0%}: {best_snr_db:.1f} dB.",
    "microscope.rows": "All {count} operators, in the order of computation",
}


def text(key: str, **values: object) -> str:
    """The string for `key`, its {names} filled in. It is plain text: escape it where it becomes HTML."""
    return STRINGS[key].format(**values)
