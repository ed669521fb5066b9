"""Hostile Keras files that are refused before Keras is imported: name → (what makes the bytes, what the error says)."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable
from typing import Any

from tests.hostile.making import RANDOM, Malicious, link_entry, with_entry, zipped


def layer(
    kind: str, module: str | None = "keras.layers", registered: Any = None, **config: Any
) -> dict[str, Any]:
    """One layer as Keras writes it."""
    return {"module": module, "class_name": kind, "config": config, "registered_name": registered}


def keras_config(*layers: Any) -> bytes:
    """A Sequential of an input and the layers."""
    first = layer("InputLayer", batch_shape=[None, 4], dtype="float32", name="x")
    config = {"name": "m", "layers": [first, *layers]}
    return json.dumps(layer("Sequential", "keras", **config)).encode()


def keras(*layers: Any, **files: bytes) -> bytes:
    """A .keras archive around them; its weights are no more than HDF5's mark."""
    named = {name.replace("__", "/").replace("_dot_", "."): files[name] for name in files}
    kept = {
        "metadata.json": b"{}",
        "config.json": keras_config(*layers),
        "model.weights.h5": b"\x89HDF\r\n\x1a\n",
    }
    return zipped({name: content for name, content in (kept | named).items() if content})


KERAS: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "is empty|not a ZIP"),
    "random": (lambda: RANDOM, "not a ZIP"),
    "truncated": (lambda: keras()[:-40], "not a ZIP"),
    "HDF5 of Keras 2": (lambda: b"\x89HDF\r\n\x1a\n" + bytes(100), "not a ZIP"),
    "bomb": (lambda: zipped({"config.json": bytes(90_000_000)}, zipfile.ZIP_DEFLATED), "bomb"),
    "name above": (lambda: keras(**{"assets__..__..__x": b"x"}), "lead out"),
    "link": (lambda: with_entry(keras(), link_entry("assets/x")), "a link"),
    "duplicate": (lambda: with_entry(keras(), zipfile.ZipInfo("config.json")), "twice"),
    "nested zip": (lambda: keras(**{"more.zip": zipped({"x": b"x"})}), "more.zip"),
    "no config": (lambda: keras(**{"config.json": b""}), "config.json is missing"),
    "no weights": (lambda: keras(**{"model.weights.h5": b""}), "weights.h5 is missing"),
    "weights are a pickle": (lambda: keras(**{"model.weights.h5": pickle.dumps(Malicious())}), "not HDF5"),
    "config is no JSON": (lambda: keras(**{"config.json": b"{"}), "not valid JSON"),
    "config nested without end": (lambda: keras(**{"config.json": b"[" * 200_000}), "not valid JSON"),
    "config of many values": (lambda: keras(**{"config.json": b"[" + b"[]," * 9_000_000 + b"0]"}), "values"),
    "Lambda with byte code": (
        lambda: keras(layer("Lambda", function={"class_name": "__lambda__", "config": {"code": "4wEAAA"}})),
        "Python code",
    ),
    "Lambda under its own module": (
        lambda: keras(layer("Lambda", "keras.src.layers.core.lambda_layer")),
        "Python code",
    ),
    "lambda as an activation": (
        lambda: keras(layer("Dense", units=1, activation=layer("__lambda__", None))),
        "Python code",
    ),
    "module os": (lambda: keras(layer("system", "os")), "of 'os'"),
    "module subprocess": (lambda: keras(layer("Popen", "subprocess", args="id")), "of 'subprocess'"),
    "module builtins": (lambda: keras(layer("eval", "builtins")), "of 'builtins'"),
    "a function": (
        lambda: keras(
            layer("Dense", activation={"module": "builtins", "class_name": "function", "config": "exec"})
        ),
        "a Python function",
    ),
    "get_file": (lambda: keras(layer("get_file", "keras.utils", origin="http://x")), "of 'keras.utils'"),
    "load_model": (lambda: keras(layer("load_model", "keras.models", filepath="x")), "of 'keras.models'"),
    "a dotted name": (lambda: keras(layer("utils.get_file", "keras")), "of 'keras'"),
    "keras.config": (
        lambda: keras(layer("enable_unsafe_deserialization", "keras.config")),
        "of 'keras.config'",
    ),
    "deep inside Keras": (lambda: keras(layer("func_load", "keras.src.utils.python_utils")), "python_utils"),
    "a function of layers": (lambda: keras(layer("deserialize", "keras.layers")), "no class of Keras"),
    "keras_hub": (lambda: keras(layer("Backbone", "keras_hub.models")), "keras_hub"),
    "TorchModuleWrapper": (lambda: keras(layer("TorchModuleWrapper", module_="x")), "pickle"),
    "TFSMLayer": (lambda: keras(layer("TFSMLayer", filepath="/tmp/x")), "another model"),
    "JaxLayer": (lambda: keras(layer("JaxLayer")), "Python code"),
    "no module, the older way": (lambda: keras(layer("Dense", None, units=1)), "which module"),
    "registered name": (
        lambda: keras(layer("Dense", registered="Evil>Dense", units=1)),
        "of its author's own",
    ),
    "vocabulary from a file": (
        lambda: keras(layer("StringLookup", vocabulary="/etc/passwd")),
        "'/etc/passwd'",
    ),
    "vocabulary of TextVectorization": (
        lambda: keras(layer("TextVectorization", vocabulary="/etc/passwd")),
        "'/etc/passwd'",
    ),
    "class that is no text": (lambda: keras(layer(["Dense"])), "no class of Keras"),  # type: ignore[arg-type]
    "config without a class": (lambda: keras(**{"config.json": b"[]"}), "names no class"),
}
