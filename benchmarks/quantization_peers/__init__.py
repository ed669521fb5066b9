"""The tools that professionals use, each given the same float32 ONNX file and the same calibration images.

A peer runs in a process and an environment of its own (`environments.py`), by a script that shows how its own
documentation says to call it. What comes back is a model file that the kit's runtimes open like any other.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.quantization_peers.environments import python_of
from labkit.errors import ConfigError, DataError, TechniqueError, nearest
from labkit.variant import Step, Variant

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Peer:
    """A tool (its script and environment have the same name), one of its settings, and the form that it writes."""

    tool: str
    setting: str
    suffix: str = ".onnx"


_PEERS = {
    "ort_default": Peer("onnxruntime", "default"),
    "ort_per_channel": Peer("onnxruntime", "per_channel"),
    "ort_per_channel_layers": Peer("onnxruntime", "per_channel_layers"),
    "nncf": Peer("nncf", "default"),
    "nncf_best": Peer("nncf", "best"),
    "nncf_no_bias_correction": Peer("nncf", "no_bias_correction"),
    "nncf_transformer": Peer("nncf", "transformer"),
    "nncf_openvino": Peer("nncf", "default", ".xml"),
    "nncf_openvino_best": Peer("nncf", "best", ".xml"),
    "nncf_openvino_transformer": Peer("nncf", "transformer", ".xml"),
    "neural_compressor": Peer("neural_compressor", "default"),
    "neural_compressor_qdq": Peer("neural_compressor", "qdq"),
}
PEERS: tuple[str, ...] = tuple(_PEERS)


@dataclass(frozen=True)
class PeerResult:
    """What a peer made: its `file` (OpenVINO's .xml has its .bin beside it), with what, how, and how long it took."""

    name: str
    versions: dict[str, str]
    settings: str
    file: Path
    seconds: float

    def variant(self, original: Variant) -> Variant:
        """The file as a variant that is fed, labelled and scored like `original`, which it was made from."""
        config = {"versions": self.versions, "settings": self.settings}
        step = Step(f"quantize_by_{self.name}", config, (original.digest,))
        name = f"{original.name}+{self.name}"
        if self.file.suffix == ".onnx":
            return original.derive(name, step, format="onnx", model=self.file.read_bytes())
        weights = self.file.with_suffix(".bin")
        model = {"model.xml": self.file.read_bytes(), "model.bin": weights.read_bytes()}
        return original.derive(name, step, format="openvino", model=model)


def quantize(peer: str, model: Path, calibration: Path, out: Path, limit_s: float = 600.0) -> PeerResult:
    """Let `peer` quantize the float32 ONNX file `model`, and write the result into the folder `out`.

    calibration: an .npz with, under each input's name, the samples as the model takes them, float32 [N, C, H, W].
    Raises ConfigError for an unknown peer, DataError for a file that is not there, UnavailableError if the peer's
    environment cannot be made, TechniqueError with the peer's own reason if it fails or takes more than `limit_s`.
    """
    if peer not in _PEERS:
        raise ConfigError(f"unknown peer {peer!r}: {nearest(peer, PEERS)}")
    for path in (model, calibration):
        if not path.is_file():
            raise DataError(f"{path} is not there: a peer needs the float32 .onnx and the calibration .npz")
    chosen = _PEERS[peer]
    python = python_of(chosen.tool)
    out.mkdir(parents=True, exist_ok=True)
    file = out.resolve() / f"{peer}{chosen.suffix}"
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        script = _HERE / f"run_{chosen.tool}.py"
        paths = [str(path) for path in (model.resolve(), calibration.resolve(), file, report)]
        run_script(peer, [str(python), str(script), chosen.setting, *paths], Path(folder), limit_s)
        told = json.loads(report.read_text())
    return PeerResult(peer, told["versions"], told["settings"], file, told["seconds"])


def run_script(peer: str, command: list[str], folder: Path, limit_s: float, task: str = "quantize") -> None:
    """Run the script in a folder that is thrown away, home included: some peers leave logs and identifiers there.

    Raises TechniqueError with the peer's own reason if it fails at its task, or takes more than `limit_s`.
    """
    quiet = {
        "HOME": str(folder),
        "NNCF_CI": "1",
        "ORT_DISABLE_TELEMETRY": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    try:
        done = subprocess.run(
            command, cwd=folder, env=os.environ | quiet, capture_output=True, text=True, timeout=limit_s
        )
    except subprocess.TimeoutExpired:
        raise TechniqueError(
            f"{peer} was not done after {limit_s:.0f} s: give it more, or a smaller model"
        ) from None
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or [
            f"exit code {done.returncode}"
        ]
        raise TechniqueError(f"{peer} cannot {task} this model: {lines[-1]}")
