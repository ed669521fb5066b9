"""The peers of the quantization benchmark: what they are given, what comes back, and what is said when one cannot.

No peer's environment is made here. ONNX Runtime's script runs in ours, which has all that it imports.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import benchmarks.quantization_peers as peers
from benchmarks.quantization_peers import PEERS, environments, quantize
from labkit.errors import ConfigError, DataError, TechniqueError, UnavailableError
from labkit.runtimes import get_runtime
from labkit.variant import TensorSpec, Variant

SAMPLES = np.random.default_rng(0).standard_normal((12, 1, 6, 6)).astype(np.float32)


@pytest.fixture
def files(tmp_path) -> tuple[Path, Path]:
    """A convolution of four channels with a Relu, and twelve samples for it."""
    weights = np.random.default_rng(1).standard_normal((4, 1, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["c"], name="conv"),
        helper.make_node("Relu", ["c"], ["map"]),
    ]
    ends = [
        helper.make_tensor_value_info("image", 1, ["batch", 1, 6, 6]),
        helper.make_tensor_value_info("map", 1, ["batch", 4, 4, 4]),
    ]
    graph = helper.make_graph(nodes, "small", ends[:1], ends[1:], [numpy_helper.from_array(weights, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, tmp_path / "model.onnx")
    np.savez(tmp_path / "samples.npz", image=SAMPLES)
    return tmp_path / "model.onnx", tmp_path / "samples.npz"


@pytest.fixture
def our_python(monkeypatch):
    monkeypatch.setattr(peers, "python_of", lambda environment: Path(sys.executable))


def float_variant(model: Path) -> Variant:
    spec = TensorSpec("image", "float32", ("batch", 1, 6, 6))
    out = TensorSpec("map", "float32", ("batch", 4, 4, 4))
    return Variant("small", "onnx", model.read_bytes(), (spec,), (out,))


def run(variant: Variant) -> np.ndarray:
    with get_runtime("onnxruntime").load(variant) as session:
        return session.run({"image": SAMPLES})["map"]


def scales_of(file: Path) -> list[int]:
    """How many scales each stored int8 weight has."""
    graph = onnx.load(file).graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    return [
        int(np.prod(stored[node.input[1]].dims))
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in stored
    ]


@pytest.mark.parametrize(("peer", "scales"), [("ort_default", 1), ("ort_per_channel", 4)])
def test_what_onnx_runtime_makes_runs_as_a_variant_close_to_the_original(
    files, our_python, tmp_path, peer, scales
):
    result = quantize(peer, *files, tmp_path / "out")
    assert result.file.parent == (tmp_path / "out").resolve() and result.seconds > 0
    assert set(result.versions) == {"onnxruntime", "onnx"}
    assert ("defaults" in result.settings) == (peer == "ort_default")
    assert scales_of(result.file) == [scales]

    original = float_variant(files[0])
    variant = result.variant(original)
    assert variant.quantized and not original.quantized
    assert variant.lineage[-1].technique == f"quantize_by_{peer}"
    error = np.abs(run(variant) - run(original)).max()
    assert 0 < error < 0.05 * np.abs(run(original)).max()


def test_the_same_calibration_decides_the_ranges_and_another_one_others(files, our_python, tmp_path):
    same = [quantize("ort_per_channel", *files, tmp_path / name).file.read_bytes() for name in "ab"]
    np.savez(tmp_path / "narrow.npz", image=SAMPLES / 10)
    other = quantize("ort_per_channel", files[0], tmp_path / "narrow.npz", tmp_path / "c")
    assert same[0] == same[1] != other.file.read_bytes()


def test_an_unknown_peer_suggests_the_nearest(files, tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'nncf_best'"):
        quantize("nncf_bst", *files, tmp_path)


@pytest.mark.parametrize("missing", [0, 1])
def test_a_file_that_is_not_there_is_named_before_any_work(files, tmp_path, missing):
    files[missing].unlink()
    with pytest.raises(DataError, match=files[missing].name):
        quantize("ort_default", *files, tmp_path)


def test_a_peer_that_fails_tells_its_own_last_words(files, our_python, tmp_path):
    files[0].write_bytes(b"no model")
    with pytest.raises(
        TechniqueError, match="ort_default cannot quantize this model: .*(Protobuf|Decode|pars)"
    ):
        quantize("ort_default", *files, tmp_path / "out")


def test_a_peer_that_takes_too_long_is_stopped(files, our_python, tmp_path):
    with pytest.raises(TechniqueError, match="ort_default was not done after 0"):
        quantize("ort_default", *files, tmp_path / "out", limit_s=0.01)


def test_an_environment_that_cannot_be_filled_says_why_and_leaves_nothing(files, tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(
        UnavailableError, match="the environment of 'nncf' cannot be made: ERROR: No matching"
    ) as e:
        quantize("nncf", *files, tmp_path / "out")
    assert "\n" not in str(e.value)
    assert list((tmp_path / "cache" / "benchmarks").iterdir()) == []


def test_an_environment_is_made_once_and_a_half_built_one_again(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_CACHE_DIR", str(tmp_path))
    filled = []
    monkeypatch.setattr(environments, "_fill", lambda python, wanted, limit_s: filled.append(python))
    python = environments.python_of("nncf")
    assert python.exists() and environments.python_of("nncf") == python and len(filled) == 1
    (python.parents[1] / "complete").unlink()
    environments.python_of("nncf")
    assert len(filled) == 2 and environments.python_of("onnxruntime") != python


def test_every_peer_has_its_script_its_setting_and_pinned_requirements():
    """The scripts cannot be imported here, where their tools are not: their settings are looked up in their text."""
    folder = Path(peers.__file__).parent
    for name in PEERS:
        peer = peers._PEERS[name]
        text = (folder / f"run_{peer.tool}.py").read_text()
        assert f'"{peer.setting}": ' in text
        lines = (folder / "requirements" / f"{peer.tool}.txt").read_text().split()
        assert lines and all("==" in line for line in lines)
        assert not any(line.startswith(("torch", "nvidia", "tensorflow")) for line in lines)
