"""Write the folder that leaves the laboratory: everything to run the chosen model, and nothing of labkit in it.

model.onnx     the model
card.json      inputs, preprocessing, labels, how to run it, what was measured, how it came to be
samples.npz    a few stored samples, to try it
run.py         15 lines: numpy and the runtime only
README.md      the same in words
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from labkit.data import Split
from labkit.errors import LabkitError, TechniqueError
from labkit.files import read_json, write_atomically
from labkit.runtimes import RunOptions, get_runtime
from labkit.variant import Variant

FILES = {"model.onnx", "card.json", "samples.npz", "run.py", "README.md"}
_OPEN = {
    "onnxruntime": """\
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime
options = onnxruntime.SessionOptions()
for key, value in card["run"]["settings"].items():
    options.add_session_config_entry(key, value) if "." in key else setattr(options, key, value)
session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
outputs = session.run(None, feeds)[0]
""",
    "openvino": """\
import openvino
model = openvino.Core().compile_model(folder / "model.onnx", "CPU", card["run"]["settings"])
outputs = model(feeds)[0]
""",
}

_SCRIPT = '''\
"""{title}: python run.py [samples.npz]   needs numpy and {runtime}"""
import json, os, pathlib, sys
import numpy as np

folder = pathlib.Path(__file__).resolve().parent
card = json.loads((folder / "card.json").read_text())
samples = np.load(sys.argv[1] if len(sys.argv) > 1 else folder / "samples.npz", allow_pickle=False)
feeds = {{spec["name"]: samples[spec["name"]] for spec in card["inputs"]}}
for name, p in card["preprocessing"].items():
    x = (feeds[name].astype(np.float32) * np.float32(p["scale"]) - np.float32(p["mean"])) / np.float32(p["std"])
    feeds[name] = np.ascontiguousarray(x.transpose(0, 3, 1, 2) if p["layout"] == "NCHW" and x.ndim == 4 else x)
{open}print(json.dumps({answer}))
'''
_ANSWER = {
    "classification": '[card["labels"][i] if card["labels"] else int(i) for i in outputs.argmax(-1)]',
    "regression": "outputs.tolist()",
}


def check_replaceable(folder: str | Path) -> None:
    """Raise LabkitError if `folder` is there and is not a package of labkit's: its files are somebody else's."""
    folder = Path(folder)
    if not os.path.lexists(folder):
        return
    try:
        names = {path.name for path in folder.iterdir()}
        card = read_json(folder / "card.json", LabkitError) if names else {"sha256_of_variant": ""}
        ours = names <= FILES and "sha256_of_variant" in card and not folder.is_symlink()
    except (OSError, LabkitError):
        ours = False
    if not ours:
        raise LabkitError(
            f"{folder} is not a package that labkit wrote: move it away, or choose another folder"
        )


def write_package(
    variant: Variant,
    runtime: str,
    threads: int,
    precision: str,
    samples: Split,
    folder: str | Path,
    evidence: Mapping[str, Any] | None = None,
) -> Path:
    """Write the package for `variant` (ONNX) as it runs on `runtime` ("onnxruntime" or "openvino").

    samples: stored samples (not preprocessed) that go along to try it; evidence: measured figures for the card.
    The folder appears whole or not at all; an older package there is replaced, anything else refused.
    Raises TechniqueError for a variant that is not ONNX or a runtime that has no script.
    """
    if variant.format != "onnx" or runtime not in _OPEN:
        raise TechniqueError(
            f"{variant.name!r} ({variant.format} on {runtime}) cannot be packaged; allowed: onnx on {', '.join(_OPEN)}"
        )
    folder = Path(folder)
    check_replaceable(folder)
    aside = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.partial")
    try:
        write_atomically(aside / "model.onnx", variant.payload)
        card = _card(variant, runtime, threads, precision, evidence or {})
        write_atomically(aside / "card.json", json.dumps(card, indent=1).encode())
        write_atomically(aside / "samples.npz", _samples(variant, samples))
        write_atomically(aside / "run.py", script(variant, runtime).encode())
        write_atomically(aside / "README.md", _readme(variant, card).encode())
        _replace_folder(aside, folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def script(variant: Variant, runtime: str) -> str:
    """The text of run.py."""
    title = variant.name.replace('"', "").replace("\\", "").replace("{", "").replace("}", "")
    return _SCRIPT.format(title=title, runtime=runtime, open=_OPEN[runtime], answer=_ANSWER[variant.task])


def _card(
    variant: Variant, runtime: str, threads: int, precision: str, evidence: Mapping[str, Any]
) -> dict[str, Any]:
    settings = get_runtime(runtime).settings(RunOptions(threads=threads, precision=precision))
    return {
        "name": variant.name,
        "task": variant.task,
        "labels": list(variant.labels),
        "inputs": [dataclasses.asdict(spec) for spec in variant.inputs],
        "outputs": [dataclasses.asdict(spec) for spec in variant.outputs],
        "preprocessing": {key: dataclasses.asdict(value) for key, value in variant.preprocessing.items()},
        "run": {
            "runtime": runtime,
            "threads": threads,
            "precision": "int8" if variant.quantized else precision,
            "settings": settings,
        },
        "size_bytes": variant.size_bytes,
        "sha256_of_variant": variant.digest,
        "evidence": dict(evidence),
        "lineage": [dataclasses.asdict(step) for step in variant.lineage],
    }


def _samples(variant: Variant, samples: Split) -> bytes:
    arrays = dict(samples.inputs)
    if len(arrays) == 1:
        arrays = {variant.inputs[0].name: next(iter(arrays.values()))}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _readme(variant: Variant, card: Mapping[str, Any]) -> str:
    inputs = "\n".join(f"- `{spec.name}`: {spec.dtype} {list(spec.shape)}" for spec in variant.inputs)
    run = card["run"]
    return f"""# {variant.name}

A {variant.task} model of {variant.size_bytes:,} bytes, chosen and packaged by labkit.

    pip install numpy {run["runtime"]}
    python run.py                 # the samples in samples.npz
    python run.py mine.npz        # your own, stored under the same names

It takes, after the preprocessing that `card.json` describes and `run.py` applies:

{inputs}

`card.json` says what was measured, on which machine, and every step from the trained model to this file.
"""


def _replace_folder(aside: Path, folder: Path) -> None:
    """Rename `aside` into place; an older folder is moved away first and deleted last."""
    old = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.old")
    try:
        if folder.exists():
            os.rename(folder, old)
        try:
            os.rename(aside, folder)
        except OSError:
            if old.exists():
                os.rename(old, folder)
            raise
    except OSError as error:
        raise LabkitError(f"cannot write {folder}: {error.strerror}; the folder there is unchanged") from None
    shutil.rmtree(old, ignore_errors=True)
