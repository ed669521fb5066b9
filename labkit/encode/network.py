"""The network that a coded file is rebuilt as: made of its config alone, and held against what is said of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from labkit.errors import ConfigError, ModelFileError
from labkit.variant import TensorSpec, Variant

_FREE_BYTES, _LARGEST_RATIO, _MOST_BYTES = 32 * 2**20, 2000, 256 * 2**20
"""A file may decode to 32 MiB whatever its size, beyond that to 2000 times its size, and never to more than 256 MiB."""


def declared(config: Any, size_bytes: int, what: str) -> Any:
    """The network that a file declares, without numbers; ModelFileError if it would be too many bytes."""
    most = min(_MOST_BYTES, _FREE_BYTES + _LARGEST_RATIO * size_bytes)
    try:
        return without_numbers(config, what, most)
    except (ConfigError, RuntimeError, TypeError, ValueError) as error:
        raise ModelFileError(f"{what}: its architecture cannot be built ({str(error)[:200]})") from None


def without_numbers(config: Any, what: str, most_bytes: int = _MOST_BYTES) -> Any:
    """The network of an architecture with tensors that have a shape and no numbers: it costs nothing, however wide.

    Raises ModelFileError if with numbers they would be more than `most_bytes`.
    """
    import torch

    from labkit.models import build

    with torch.device("meta"):
        network = build(config).eval()
    total = sum(tensor.numel() * tensor.itemsize for tensor in network.state_dict().values())
    if total > most_bytes:
        raise ModelFileError(
            f"{what} would decode to {total} bytes, where {most_bytes} are allowed: refused as a bomb; a network that "
            "large is kept in a folder"
        )
    return network


def check_outputs(model: Any, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], what: str) -> None:
    """Raise ModelFileError unless the network takes `inputs` and makes `outputs` of them.

    It is run on a batch of no sample: that has all shapes but the first axis, and costs nothing.
    """
    import torch

    try:
        sizes: list[Any] = [(0, *spec.shape[1:]) for spec in inputs]
        feeds = [
            torch.empty(size, dtype=getattr(torch, spec.dtype))
            for size, spec in zip(sizes, inputs, strict=True)
        ]
        with torch.inference_mode():
            found, _ = torch.utils._pytree.tree_flatten(model(*feeds))
    except Exception as error:  # whatever a network finds wrong with an input
        raise ModelFileError(
            f"{what} is damaged: its network does not take the inputs that it declares ({str(error)[:200]})"
        ) from None
    made, said = [list(each.shape[1:]) for each in found], [list(spec.shape[1:]) for spec in outputs]
    if made != said:
        raise ModelFileError(f"{what} is damaged: its network makes {made} of a sample, and declares {said}")


def check_rebuilt(variant: Variant, tensors: Any, order: Any) -> None:
    """Raise ModelFileError unless the network's tensors are those that its config builds, by name, shape and type."""
    whose = f"the {variant.model.config['architecture']} of its config"
    for name, built in order.items():
        if name not in tensors:
            raise ModelFileError(
                f"{variant.name!r} has no {name!r}, which {whose} has, and a file is rebuilt from the config: store a "
                "weight that is computed anew (weight_norm does so) with "
                "torch.nn.utils.parametrize.remove_parametrizations(layer, 'weight'), for the older weight_norm "
                "torch.nn.utils.remove_weight_norm(layer), or put a removed layer back"
            )
        shape, due = list(tensors[name].shape), list(built.shape)
        if shape != due:
            raise ModelFileError(
                f"{variant.name!r} has {name!r} of {shape}, where {whose} has {due}, and a file is rebuilt from the "
                "config: write the network's own widths into model.config"
            )
        if tensors[name].dtype != built.dtype:
            raise ModelFileError(
                f"{name} of {variant.name!r} holds {tensors[name].dtype}, where its architecture has {built.dtype}, "
                "and a file is read into that: call model.float() before it is coded"
            )
    for name in tensors:
        if name not in order:
            raise ModelFileError(
                f"{variant.name!r} has {name!r}, which {whose} has not, and a file is rebuilt from the config: take "
                "what was added out again, or keep the network as ONNX, labkit.ExportOnnx()"
            )
