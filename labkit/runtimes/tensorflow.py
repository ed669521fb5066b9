"""TensorFlow on the CPU: a SavedModel's signature, or a Keras model, as one traced function."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from labkit.errors import ConfigError, ModelFileError
from labkit.runtimes.base import RunOptions, Runtime, Session
from labkit.variant import Array, Variant, write_folder


class TensorFlowSession(Session):
    """A tf.function over named tensors; the loaded object is kept, because it owns the weights."""

    def __init__(self, variant: Variant, options: RunOptions, tf: Any) -> None:
        super().__init__(variant, options)
        self._tf = tf
        try:
            self._owner, self._function = open_tensorflow(variant, tf)
        except Exception as error:  # tensorflow and keras raise a dozen kinds
            raise ModelFileError(f"TensorFlow refuses {variant.name!r}: {str(error)[:300]}") from None

    def execute(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Named arrays in, named arrays out."""
        results = self._function({name: self._tf.constant(array) for name, array in feeds.items()})
        return {spec.name: results[spec.name].numpy() for spec in self.variant.outputs}

    def close(self) -> None:
        """Drop the function and its weights."""
        self._owner = self._function = None
        super().close()


def open_tensorflow(variant: Variant, tf: Any) -> tuple[Any, Any]:
    """(what owns the weights, a function from named tensors to named tensors)."""
    if variant.format == "keras":
        model = open_keras(variant)
        traced = tf.function(model, reduce_retracing=True)
        inputs, outputs = ([spec.name for spec in specs] for specs in (variant.inputs, variant.outputs))

        def call(feeds: Mapping[str, Any]) -> dict[str, Any]:
            tensors = [feeds[name] for name in inputs]
            results = traced(tensors if len(tensors) > 1 else tensors[0], training=False)
            return dict(zip(outputs, tf.nest.flatten(results), strict=True))

        return model, call
    with tempfile.TemporaryDirectory() as folder:
        place = write_folder(Path(folder) / "model", variant.model)
        owner = tf.saved_model.load(str(place))
    signature = owner.signatures["serving_default"]
    return owner, lambda feeds: signature(**feeds)


def open_keras(variant: Variant) -> Any:
    """The Keras model of a keras variant; code inside the file is never run (`safe_mode`)."""
    import keras

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        path.write_bytes(variant.payload)
        return keras.saving.load_model(path, compile=False, safe_mode=True)


class TensorFlow(Runtime):
    """TensorFlow's own executor, in float32."""

    name = "tensorflow"
    formats = ("tensorflow", "keras")
    package = "tensorflow"
    install = "pip install 'labkit[tensorflow]'"
    _threads: ClassVar[int] = 0

    def open(self, variant: Variant, options: RunOptions) -> Session:
        """Load the model; ConfigError if this process has already begun with another number of threads."""
        tf = self.engine()
        cls = type(self)
        if cls._threads not in (0, options.threads):
            raise ConfigError(
                f"TensorFlow takes its threads once in a process, here {cls._threads}, not {options.threads}: "
                "start again (a notebook: restart the kernel)"
            )
        if not cls._threads:
            try:
                tf.config.threading.set_intra_op_parallelism_threads(options.threads)
                tf.config.threading.set_inter_op_parallelism_threads(1)
            except RuntimeError:
                raise ConfigError(
                    "TensorFlow was used before labkit could set its threads: start again, and load the model "
                    "with labkit first"
                ) from None
            cls._threads = options.threads
        return TensorFlowSession(variant, options, tf)
