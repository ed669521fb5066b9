"""Opens a SavedModel or a Keras file that nobody vouches for, runs it once, under the sandbox's limits."""

from __future__ import annotations

import dataclasses
import importlib
import io
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from labkit.formats.child import Problem, answer, in_short, limit_memory, limit_time, zeros
from labkit.formats.saver import check_saver
from labkit.runtimes.tensorflow import keras_specs
from labkit.variant import unframed, write_folder

_RUN_SHARE = 0.05  # of the time that opening may take: a graph is compiled when it is loaded


def inspect(payload: bytes, memory_bytes: int) -> dict[str, Any]:
    """What goes in and comes out. Raises Problem."""
    tf.constant(0) + 1  # TensorFlow's threads and caches are not the file's fault
    limit_memory(memory_bytes)
    try:
        return _keras(payload) if payload.startswith(b"PK") else _saved_model(unframed(payload))
    except (MemoryError, Problem):
        raise
    except Exception as error:
        raise Problem(f"TensorFlow cannot open it: {in_short(error)}") from None


def _saved_model(files: dict[str, bytes]) -> dict[str, Any]:
    check_saver(files["saved_model.pb"])
    with tempfile.TemporaryDirectory() as folder:
        owner = tf.saved_model.load(str(write_folder(Path(folder) / "model", files)))
    signature = owner.signatures.get("serving_default")
    if signature is None:
        raise Problem("it has no signature 'serving_default': export it with one")
    _, named = signature.structured_input_signature
    inputs = [_describe(name, spec) for name, spec in named.items()]
    outputs = [_describe(name, spec) for name, spec in signature.structured_outputs.items()]
    limit_time(_RUN_SHARE * float(sys.argv[2]))
    signature(**{item["name"]: tf.constant(zeros(item)) for item in inputs})
    return {"inputs": inputs, "outputs": outputs, "metadata": {}}


def _keras(payload: bytes) -> dict[str, Any]:
    import keras

    _check_weights(payload)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        path.write_bytes(payload)
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    inputs, outputs = ([dataclasses.asdict(spec) for spec in specs] for specs in keras_specs(model))
    feeds = [tf.constant(zeros(item)) for item in inputs]
    try:
        model(feeds if len(feeds) > 1 else feeds[0], training=False)
    except tf.errors.ResourceExhaustedError:
        raise MemoryError from None
    return {"inputs": inputs, "outputs": outputs, "metadata": {}}


def _check_weights(payload: bytes) -> None:
    """Refuse HDF5 that takes its numbers from other files, leads in circles, or claims more than it holds."""
    h5py: Any = importlib.import_module("h5py")
    with zipfile.ZipFile(io.BytesIO(payload)) as archive:
        content = archive.read("model.weights.h5")

    links: dict[str, Any] = {}
    with h5py.File(io.BytesIO(content), "r") as file:
        file.visititems_links(links.__setitem__)  # an error raised in there would be lost
        for name, link in links.items():
            if not isinstance(link, h5py.HardLink):
                raise Problem(f"its weights {name[:80]!r} are a link to another place: refused")
            item = file[name]
            if isinstance(item, h5py.Dataset):
                if item.external or item.is_virtual:
                    raise Problem(f"its weights {name[:80]!r} lie in another file: refused")
                if item.nbytes > len(content):
                    raise Problem(
                        f"its weights {name[:80]!r} claim {item.nbytes} bytes, of {len(content)}: refused"
                    )


def _describe(name: str, spec: Any) -> dict[str, Any]:
    dtype = spec.dtype if isinstance(spec.dtype, str) else spec.dtype.name
    if not hasattr(np, dtype) or dtype == "string":
        raise Problem(f"{name!r} holds {dtype}, which numpy does not have")
    return {"name": name.split(":")[0], "dtype": dtype, "shape": list(spec.shape), "layout": None}


if __name__ == "__main__":
    answer(inspect)
