"""The model's own file beside `variant.json`: named after its content, checked before it is believed."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from labkit.errors import ModelFileError
from labkit.files import check_safetensors_header, read_json, read_regular

LARGEST_BYTES = 2**31 - 1
"""Of a model's file: protobuf's own limit."""


def former_file(folder: Path) -> str | None:
    """The model's file of an older save in `folder`; never a file that `save` has not written."""
    try:
        name = read_json(folder / "variant.json", ModelFileError).get("file")
    except ModelFileError:
        return None
    return (
        name
        if isinstance(name, str) and re.fullmatch(r"model-[0-9a-f]{12}\.(safetensors|onnx)", name)
        else None
    )


def read_payload(path: Path, expected: str) -> bytes:
    """The bytes of a file whose SHA-256 is `expected`; ModelFileError for any other, and for a link."""
    try:
        if path.is_symlink():
            raise ModelFileError(f"{path} is a link: refused, because it may lead out of the folder")
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror}") from None
    payload = read_regular(path, ModelFileError, LARGEST_BYTES, "a model's file")
    if hashlib.sha256(payload).hexdigest() != expected:
        raise ModelFileError(
            f"{path} is not the file that was saved (its checksum differs): restore or save again"
        )
    return payload


def torch_bytes(model: Any) -> bytes:
    """A PyTorch model's parameters as safetensors."""
    import torch
    from safetensors.torch import save

    # Copies, because safetensors refuses tensors that share memory, as tied weights do.
    tensors = model.state_dict().items()
    return save({name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors})


def torch_model(config: Any, payload: bytes) -> Any:
    """The architecture that `config` names with the parameters of `payload`; ModelFileError where they do not fit."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    from labkit.models import build

    if not isinstance(config, dict):
        raise ModelFileError("variant.json has no config for its architecture")
    check_safetensors_header(payload)
    try:
        tensors = load(payload)
        with torch.device("meta"):  # costs nothing, whatever widths the config claims
            expected = {name: tensor.shape for name, tensor in build(config).state_dict().items()}
        if expected != {name: tensor.shape for name, tensor in tensors.items()}:
            raise ModelFileError("the parameters do not fit the architecture: save the variant again")
        model = build(config)
        model.load_state_dict(tensors)
    except (SafetensorError, RuntimeError) as error:
        first = str(error).splitlines()[-1].strip()
        raise ModelFileError(f"the parameters do not fit the architecture: {first}") from None
    return model.eval()
