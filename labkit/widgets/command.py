"""The exact line to type: what was clicked, as `labkit …` commands that do the same."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable

from labkit.convert import Converter
from labkit.methods import command_of
from labkit.technique import Technique, knobs
from labkit.variant import get_format


def technique_command(technique: Technique, source: str, dataset: str, out: str) -> str:
    """`labkit prune resnet20@digits --method magnitude --set sparsity=0.9 --dataset digits --out sparse`.

    A converter is told by its format, any other technique by its command and method. Defaults are left out.
    """
    if isinstance(technique, Converter):
        words = ["labkit", "convert", source, "--to", technique.target]
    else:
        command, method = command_of(technique.name)
        words = ["labkit", command, source, *(["--method", method] if method else [])]
    for field in knobs(technique):
        given = getattr(technique, field.name)
        if given != field.default:
            words += ["--set", f"{field.name}={given if isinstance(given, str) else json.dumps(given)}"]
    return shlex.join([*words, "--dataset", dataset, "--out", out])


def convert_command(
    source: str, target: str, dataset: str | None = None, tolerance: float | None = None
) -> str:
    """`labkit convert resnet20@digits --to openvino --dataset digits --out resnet20.xml`; what is None is left out."""
    words = ["labkit", "convert", source, "--to", target]
    words += ["--dataset", dataset] if dataset else []
    words += ["--set", f"tolerance={tolerance!r}"] if tolerance is not None else []
    stem = source.rpartition("/")[2].partition("@")[0].partition(".")[0]
    return shlex.join([*words, "--out", f"{stem}{get_format(target).suffix}"])


def measure_command(
    sources: Iterable[str], runtimes: Iterable[str], dataset: str, batch_size: int, threads: int
) -> str:
    """`labkit measure A B --runtime onnxruntime --dataset digits --batch-size 1 --threads 1`."""
    chosen = [word for runtime in runtimes for word in ("--runtime", runtime)]
    numbers = ["--batch-size", str(batch_size), "--threads", str(threads)]
    return shlex.join(["labkit", "measure", *sources, *chosen, "--dataset", dataset, *numbers])
