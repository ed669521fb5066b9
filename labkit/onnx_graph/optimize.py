"""ONNX Runtime's own rewritings of a graph, made visible: what is left of a file at each level, and how it runs.

Before it runs a file, ONNX Runtime rewrites it, and throws the result away with the session. Here the result is
kept. Each level holds the ones before it:

- "none": the file as it is, save that operators which stand for several are written out as these;
- "basic": what depends on no input is computed once (constant folding), operators that do nothing go, and a
  batch normalisation becomes part of the convolution before it;
- "extended": operators that follow one another become one, such as Conv and Relu a FusedConv (operator fusion);
- "all": and the numbers are laid out as this processor likes them. Such a file belongs to this kind of machine.

Nothing here is ours but the looking: `fold_batch_norm` is the one rewriting of these that is written out (fold.py).
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from labkit.errors import ConfigError, TechniqueError, nearest
from labkit.runtimes import RunOptions, get_runtime
from labkit.runtimes.onnx_runtime import OnnxRuntime

LEVELS = ("none", "basic", "extended", "all")
BATCH_NORM_FOLDING = "ConvBNFusion"
"""What ONNX Runtime calls its own folding: to be left out where ours is to do it."""


@dataclass(frozen=True)
class OptimizedGraph:
    """A file as ONNX Runtime rewrote it at `level`: its bytes, and each kind of operator with its count."""

    level: str
    payload: bytes
    operators: Mapping[str, int]

    @property
    def size_bytes(self) -> int:
        """Length of `payload`."""
        return len(self.payload)


class AsWritten(OnnxRuntime):
    """ONNX Runtime with its rewriting switched off, so that what is timed is the file as it is written."""

    def settings(self, options: RunOptions) -> dict[str, Any]:
        """The usual ones, at the level "none"."""
        return {**super().settings(options), "graph_optimization_level": _level("none")}


def optimize_graph(payload: bytes, level: str = "all", without: Sequence[str] = ()) -> OptimizedGraph:
    """Let ONNX Runtime rewrite an ONNX file's bytes at `level`, one of LEVELS, and keep what it made.

    `without` names rewritings of ONNX Runtime that are to be left out, by its own names (BATCH_NORM_FOLDING).
    Raises ConfigError for an unknown level, TechniqueError if ONNX Runtime refuses the file.
    """
    if level not in LEVELS:
        raise ConfigError(f"level={level!r} is unknown; {nearest(level, LEVELS)}")
    plain = _rewrite(payload, "none", ())  # a second look finds more once composite operators are written out
    made = plain if level == "none" else _rewrite(plain, level, without)
    return OptimizedGraph(level, made, count_operators(made))


def count_operators(payload: bytes) -> dict[str, int]:
    """Each kind of operator in an ONNX file's bytes with its count, the most frequent first."""
    nodes = onnx.load_model_from_string(payload).graph.node
    return dict(Counter(node.op_type for node in nodes).most_common())


def _rewrite(payload: bytes, level: str, without: Sequence[str]) -> bytes:
    engine = get_runtime("onnxruntime").engine()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "optimized.onnx"
        told = engine.SessionOptions()
        told.log_severity_level = (
            4  # it warns that such a file belongs to this machine, and the docstring does
        )
        told.intra_op_num_threads = 1
        told.graph_optimization_level = _level(level)
        told.optimized_model_filepath = str(out)
        try:
            engine.InferenceSession(
                payload, told, providers=["CPUExecutionProvider"], disabled_optimizers=list(without)
            )
            return out.read_bytes()
        except Exception as error:  # onnxruntime raises a dozen kinds of its own
            raise TechniqueError(f"ONNX Runtime cannot rewrite this file: {str(error)[:300]}") from None


def _level(name: str) -> Any:
    levels = get_runtime("onnxruntime").engine().GraphOptimizationLevel
    return levels.ORT_DISABLE_ALL if name == "none" else getattr(levels, f"ORT_ENABLE_{name.upper()}")
