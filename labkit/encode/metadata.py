"""What a decoder must know of a variant besides its numbers, in a few dozen bytes.

Name, architecture, task, labels, inputs, outputs and preprocessing are written as compact JSON and deflated. Deflate
replaces what it has seen before by a reference; here it starts with a text already seen, DICTIONARY, in which
the usual keys and values stand. So a model that resembles the usual ones costs little more than its name. The
dictionary is part of the format: changing it would make older files unreadable.
"""

from __future__ import annotations

import dataclasses
import json
import zlib
from typing import Any

from labkit.errors import ConfigError, ModelFileError
from labkit.files import parse_json
from labkit.variant import Variant, check_description, read_name, read_preprocessing
from labkit.variant.tensors import read_specs

DICTIONARY = (
    b'"inner":[[64,64,64]],"stages":[16,32,64],"expansion":4,"depth":4,"heads":4,"patch":4,"first_stride":1,'
    b'"architecture":"resnet8","architecture":"vit","architecture":"mobilenet","architecture":"resnet20"'
    b'"T-shirt/top","Trouser","Pullover","Dress","Coat","Sandal","Shirt","Sneaker","Bag","Ankle boot"'
    b'"int64""regression","labels":[],"layout":null,"mean":[0.0],"std":[1.0],"preprocessing":{}'
    b'"scale":0.0625,"mean":[0.3053],"std":[0.3763],[0.286],"std":[0.353],"shape":["batch",1,32,32],"digits'
    b'+distill+prune_channels+factorize_low_rank+prune_magnitude+cluster_weights","config":{'
    b'"architecture":"lenet300","hidden":[300,100],"dropout":0.2,{"channels":[20,50],"hidden":500,"dropout":0.3,'
    b'"input_shape":[1,28,28],"num_outputs":10,"architecture":"lenet5"},"task":"classification",'
    b'"labels":["0","1","2","3","4","5","6","7","8","9"],"inputs":[{"name":"image","dtype":"float32",'
    b'"shape":["batch",1,28,28],"layout":"NCHW"}],"outputs":[{"name":"logits","dtype":"float32",'
    b'"shape":["batch",10],"layout":null}],"preprocessing":{"image":{"scale":0.00392156862745098,'
    b'"mean":[0.1307],"std":[0.3082],"layout":"NCHW"}}}{"name":"lenet5@mnist+prune_magnitude+cluster_weights'
)
_LARGEST_BYTES = 1_000_000


def pack_metadata(variant: Variant) -> bytes:
    """The deflated description of a PyTorch variant.

    Raises ModelFileError for one that could not be rebuilt from it, or that contradicts itself.
    """
    config = getattr(variant.model, "config", None)
    if variant.format != "torch" or config is None:
        raise ModelFileError(
            f"{variant.name!r} is no network of labkit's architectures in PyTorch, so no file could rebuild it: encode "
            "the PyTorch variant that it was made from"
        )
    check_description(variant, repr(variant.name))
    document = {
        "name": variant.name,
        "config": config,
        "task": variant.task,
        "labels": variant.labels,
        "inputs": [dataclasses.asdict(spec) for spec in variant.inputs],
        "outputs": [dataclasses.asdict(spec) for spec in variant.outputs],
        "preprocessing": {name: dataclasses.asdict(value) for name, value in variant.preprocessing.items()},
    }
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    packer = zlib.compressobj(9, zlib.DEFLATED, -15, zdict=DICTIONARY)
    return packer.compress(text) + packer.flush()


def unpack_metadata(data: bytes, what: str) -> dict[str, Any]:
    """The description again, as arguments for Variant, with `config` beside them.

    Raises ModelFileError for anything else; it never unpacks more than 1 MB, whatever the data claims.
    """
    unpacker = zlib.decompressobj(-15, zdict=DICTIONARY)
    try:
        text = unpacker.decompress(data, _LARGEST_BYTES)
        if not unpacker.eof or unpacker.unused_data:
            raise ValueError("it is cut off, or longer than a megabyte")
        document = parse_json(text)
        fields: dict[str, Any] = {
            "name": read_name(document["name"]),
            "task": _text(document["task"]),
            "labels": tuple(_text(label) for label in document["labels"]),
            "inputs": read_specs(document["inputs"], "inputs"),
            "outputs": read_specs(document["outputs"], "outputs"),
            "preprocessing": {name: read_preprocessing(v) for name, v in document["preprocessing"].items()},
        }
        check_description(Variant(format="torch", model=None, **fields), "it contradicts itself")
        return {**fields, "config": dict(document["config"])}
    except (
        zlib.error,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
        ConfigError,
        ModelFileError,
    ) as error:
        raise ModelFileError(f"{what}: its description is damaged ({str(error)[:200]})") from None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} should be a text")
    return value
