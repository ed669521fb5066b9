"""Keras (.keras): a ZIP with the layers in JSON. The weights lie in HDF5, which stays closed.

How many parameters a layer has follows from its configuration and the shape that it was built for.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from labkit.formats import keras_file
from labkit.inspection.macs import Sample, total_macs, untold
from labkit.inspection.readers.zipped import open_archive, read_entry, read_json_entry
from labkit.inspection.record import Inspection, Layer, Shape, TensorInfo
from labkit.inspection.request import Request

_WORDS = """
Input Activation ReLU Softmax Pool Flatten Reshape Dropout Padding Cropping Add Subtract Multiply Average Maximum
Minimum Concatenate UpSampling Permute Rescaling ELU GaussianNoise RepeatVector Dot
"""
_WEIGHTLESS = tuple(_WORDS.split())
_UNCOUNTED = ("Dot", "Attention")


def read(request: Request) -> Inspection:
    """What a .keras file holds. Raises ModelFileError for a Lambda layer and other code, as `load_model` does."""
    with open_archive(request.file) as archive:
        names = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
        keras_file.check_files(names, read_entry(archive, "model.weights.h5", 8), "it")
        config = read_json_entry(archive, "config.json")
        metadata = read_json_entry(archive, "metadata.json")
        weights = sum(entry.file_size for entry in archive.infolist() if entry.filename.endswith(".h5"))
    keras_file.check_config(config, "it")
    items = config["config"]["layers"]
    made = _made(items, config["class_name"] == "Sequential")
    inputs = tuple(
        TensorInfo(_name(item), _dtype(item), _batch_shape(item))
        for item in items
        if _kind(item) == "InputLayer"
    )
    sample = Sample.of(inputs, request.sizes)
    layers = tuple(_layer(item, made, sample) for item in items if _kind(item) != "InputLayer")
    parameters = [layer.parameters for layer in layers]
    last = {name for layer in layers for name in layer.outputs} - {
        name for each in layers for name in each.inputs
    }
    return Inspection(
        file=request.path,
        format="keras",
        bytes=request.file.stat().st_size,
        producer=f"keras {metadata.get('keras_version', '')}".strip(),
        inputs=inputs,
        outputs=tuple(
            TensorInfo(layer.name, layer.dtype, layer.output_shape)
            for layer in layers
            if set(layer.outputs) & last
        ),
        parameters=None if None in parameters else sum(each or 0 for each in parameters),
        macs=total_macs(layers),
        operators=dict(Counter(layer.operator for layer in layers)),
        layers=layers,
        notes=(
            f"not verified: the weights, {weights:,} bytes of HDF5, were not opened; parameters follow from the layers",
            *untold(layers),
        ),
    )


class _Made:
    """What each layer takes, by the name of the layer that makes it, and the shape that each puts out."""

    def __init__(self) -> None:
        self.takes: dict[str, list[str]] = {}
        self.shapes: dict[str, Shape] = {}


def _made(items: list[dict[str, Any]], sequential: bool) -> _Made:
    made, before = _Made(), ""
    for item in items:
        name = _name(item)
        if sequential:
            made.takes[name] = [before] if before else []
            shape = (item.get("build_config") or {}).get("input_shape")
            if before and shape:
                made.shapes[before] = _sizes(shape)
            before = name
        else:
            tensors = list(_tensors(item.get("inbound_nodes", [])))
            made.takes[name] = [tensor["keras_history"][0] for tensor in tensors]
            made.shapes.update({tensor["keras_history"][0]: _sizes(tensor["shape"]) for tensor in tensors})
    return made


def _tensors(value: Any) -> Iterator[dict[str, Any]]:
    """Every symbolic tensor in a layer's arguments, however deep they are nested."""
    if isinstance(value, dict):
        if value.get("class_name") == "__keras_tensor__":
            yield value["config"]
        else:
            yield from _tensors(list(value.values()))
    elif isinstance(value, list):
        for each in value:
            yield from _tensors(each)


def _layer(item: dict[str, Any], made: _Made, sample: Sample) -> Layer:
    name, kind, config = _name(item), _kind(item), item["config"]
    taken = [made.shapes[each] for each in made.takes[name] if each in made.shapes]
    given = (item.get("build_config") or {}).get("input_shape")
    shape = _sizes(given) if given else taken[0] if taken else None
    output = made.shapes.get(name)
    if output is None and kind == "Dense" and shape:
        output = (*shape[:-1], config["units"])
    kernel = _kernel(kind, config, shape)
    macs: int | None = 0
    if kernel is not None:
        macs = sample.macs(output, kernel[:-1] if kind != "DepthwiseConv2D" else kernel[:2])
    elif any(word in kind for word in _UNCOUNTED) or not _is_known(kind):
        macs = None
    return Layer(
        name=name,
        operator=kind,
        inputs=tuple(made.takes[name]),
        outputs=(name,),
        output_shape=output,
        dtype=_dtype(item),
        parameters=_parameters(kind, config, shape, kernel),
        macs=macs,
    )


def _kernel(kind: str, config: Mapping[str, Any], shape: Shape | None) -> tuple[int, ...] | None:
    """The shape of a layer's kernel, [in, units] or [height, width, in, filters]; None if it has none that is known."""
    if shape is None:
        return None
    channels = shape[1 if config.get("data_format") == "channels_first" else -1]
    if not isinstance(channels, int):
        return None
    if kind == "Dense":
        return (channels, config["units"])
    if kind in ("Conv1D", "Conv2D", "Conv3D"):
        return (*config["kernel_size"], channels // config.get("groups", 1), config["filters"])
    if kind == "DepthwiseConv2D":
        return (*config["kernel_size"], channels, config.get("depth_multiplier", 1))
    return None


def _parameters(
    kind: str, config: Mapping[str, Any], shape: Shape | None, kernel: tuple[int, ...] | None
) -> int | None:
    if kernel is not None:
        biases = kernel[-1] if kind != "DepthwiseConv2D" else kernel[-1] * kernel[-2]
        return math.prod(kernel) + (biases if config.get("use_bias", True) else 0)
    if kind == "Embedding":
        return int(config["input_dim"] * config["output_dim"])
    if kind in ("BatchNormalization", "LayerNormalization") and shape and isinstance(shape[-1], int):
        return shape[-1] * (
            bool(config.get("scale", True)) + bool(config.get("center", True))
        )  # what is learnt
    return 0 if any(word in kind for word in _WEIGHTLESS) else None


def _is_known(kind: str) -> bool:
    """Whether a layer without a kernel is known to multiply nothing that counts."""
    return any(word in kind for word in (*_WEIGHTLESS, "Normalization", "Embedding"))


def _name(item: Mapping[str, Any]) -> str:
    return str(item.get("name") or item["config"].get("name", ""))


def _kind(item: Mapping[str, Any]) -> str:
    return str(item["class_name"])


def _dtype(item: Mapping[str, Any]) -> str | None:
    dtype = item["config"].get("dtype")
    return str(dtype["config"]["name"]) if isinstance(dtype, dict) else dtype


def _batch_shape(item: Mapping[str, Any]) -> Shape | None:
    shape = item["config"].get("batch_shape")
    return _sizes(shape) if shape else None


def _sizes(shape: list[int | None]) -> Shape:
    return tuple(shape)
