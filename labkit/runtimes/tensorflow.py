"""TensorFlow on the CPU: a SavedModel's signature, or a Keras model, as one traced function."""

from __future__ import annotations

import importlib
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from labkit.environment import current
from labkit.errors import ConfigError, ModelFileError
from labkit.runtimes.base import RunOptions, Runtime, Session
from labkit.variant import Array, TensorSpec, Variant, write_folder


class TensorFlowSession(Session):
    """A tf.function over named tensors; the loaded object is kept, because it owns the weights."""

    def __init__(self, variant: Variant, options: RunOptions, tf: Any) -> None:
        super().__init__(variant, options)
        self._tf = tf
        try:
            self._owner, self._function = open_tensorflow(variant, tf)
        except ModelFileError:
            raise
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
        traced = tf.function(keras_function(model, variant, tf), input_signature=signature(variant, tf))
        return model, lambda feeds: traced(*(feeds[spec.name] for spec in variant.inputs))
    owner = load_saved_model(variant, tf)
    serving = owner.signatures["serving_default"]
    return owner, lambda feeds: serving(**feeds)


def load_saved_model(variant: Variant, tf: Any) -> Any:
    """The object that a SavedModel's folder describes; its weights are in memory, the folder is gone."""
    with tempfile.TemporaryDirectory() as folder:
        return tf.saved_model.load(str(write_folder(Path(folder) / "model", variant.model)))


def plain(name: str) -> str:
    """A name that TensorFlow allows in a signature: letters, digits and "_"."""
    return re.sub(r"\W", "_", name, flags=re.ASCII)


def signature(variant: Variant, tf: Any) -> list[Any]:
    """The variant's inputs as TensorFlow's TensorSpecs, free dimensions None: one trace for every batch."""
    return [
        tf.TensorSpec(
            [None if isinstance(size, str) else size for size in spec.shape], spec.dtype, plain(spec.name)
        )
        for spec in variant.inputs
    ]


def keras_function(model: Any, variant: Variant, tf: Any) -> Any:
    """A Keras model as a function of tensors in the variant's order that gives output name → tensor."""
    names = [spec.name for spec in variant.outputs]

    def call(*tensors: Any) -> dict[str, Any]:
        results = model(list(tensors) if len(tensors) > 1 else tensors[0], training=False)
        return dict(zip(names, tf.nest.flatten(results), strict=True))

    return call


def keras_specs(model: Any) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """What goes into a built Keras model and comes out; its first axis is the batch."""
    if not getattr(model, "inputs", None):
        raise ConfigError(
            "this Keras model does not say what goes in (a subclassed one never does, a Sequential does after its "
            "first call): export it with model.export(folder), and pass that folder"
        )
    names = [tensor.name.split(":")[0] for tensor in model.inputs]
    inputs = zip(names, model.inputs, strict=True)
    named = getattr(model, "output_names", None) or [model.layers[-1].name]  # a Sequential has one
    outputs = zip(_unlike(named, names), model.outputs, strict=True)
    made = ([_spec(name, tensor) for name, tensor in each] for each in (inputs, outputs))
    return tuple(next(made)), tuple(next(made))


def _unlike(names: Sequence[str], taken: Sequence[str]) -> list[str]:
    """The names, numbered where one comes again: a layer with several outputs gives each of them its own name."""
    found: list[str] = []
    for name in names:
        tried, number = name, 0
        while tried in (*found, *taken):
            number += 1
            tried = f"{name}_{number}"
        found.append(tried)
    return found


def _spec(name: str, tensor: Any) -> TensorSpec:
    shape = [
        size if size is not None else f"{name}_{axis}" if axis else "batch"
        for axis, size in enumerate(tensor.shape)
    ]
    return TensorSpec(name, str(tensor.dtype), tuple(shape))


def open_keras(variant: Variant) -> Any:
    """The Keras model of a keras variant; code inside the file is never run (`safe_mode`)."""
    import keras

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        path.write_bytes(variant.payload)
        try:
            return keras.saving.load_model(path, compile=False, safe_mode=True)
        except Exception as error:  # ValueError for code, and a dozen kinds of its own
            raise ModelFileError(f"Keras refuses {variant.name!r}: {str(error)[:300]}") from None


class TensorFlow(Runtime):
    """TensorFlow's own executor, in float32."""

    name = "tensorflow"
    formats = ("tensorflow", "keras")
    package = "tensorflow"
    install = "pip install 'labkit[tensorflow]'"

    def load(self, variant: Variant, options: RunOptions | None = None) -> Session:
        """As every runtime does; without options, with the threads that this process has begun with."""
        if options is None and self.is_available().ok:
            options = RunOptions(threads=self._begun() or 1)
        return super().load(variant, options)

    def open(self, variant: Variant, options: RunOptions) -> Session:
        """Load the model; ConfigError if this process has already begun with another number of threads."""
        tf = self.engine()
        if self._begun() not in (0, options.threads):
            raise ConfigError(
                f"TensorFlow takes its threads once in a process, here {self._begun()}, not {options.threads}: "
                "start again (a notebook: restart the kernel)"
            )
        if not self._begun():
            tf.config.threading.set_intra_op_parallelism_threads(options.threads)
            tf.config.threading.set_inter_op_parallelism_threads(1)
            tf.constant(0)  # begins
        return TensorFlowSession(variant, options, tf)

    def _begun(self) -> int:
        """The threads that TensorFlow computes with in this process; 0 if it has not begun."""
        tf = self.engine()
        context: Any = importlib.import_module("tensorflow.python.eager.context").context()
        if not context._initialized:  # there is no public way to ask
            return 0
        return int(tf.config.threading.get_intra_op_parallelism_threads()) or current().threads
