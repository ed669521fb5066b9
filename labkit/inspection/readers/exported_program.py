"""PyTorch's exported program (.pt2): a ZIP with the graph in JSON. Nothing is unpickled, no weight is read."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from labkit.formats import pt2_file
from labkit.inspection.macs import Sample, total_macs, untold
from labkit.inspection.readers.zipped import open_archive, read_json_entry
from labkit.inspection.record import Inspection, Layer, Shape, Stored, TensorInfo
from labkit.inspection.request import Request
from labkit.inspection.storage import bytes_of, count_of, tally

_FROM_0 = (
    "? uint8 int8 int16 int32 int64 float16 float32 float64 complex32 complex64 complex128 bool bfloat16"
)
_FROM_28 = "uint16 float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz float8_e8m0fnu uint32 uint64"
_DTYPES = dict(enumerate(_FROM_0.split())) | dict(enumerate(_FROM_28.split(), 28))
"""ScalarType of torch/_export/serde/schema.py → NumPy's name."""

_SYMBOL = re.compile(r"Symbol\('(\w+)'[^()]*\)|(\w+)")
_UNCOUNTED = ("lstm", "gru", "rnn", "einsum", "conv_transpose", "bilinear", "tensordot")
_FACTORS = {"mm": "self", "bmm": "self", "matmul": "self", "addmm": "mat1", "baddbmm": "batch1"}
"""Operator of aten → the argument whose last size a matrix product sums over."""


def read(request: Request) -> Inspection:
    """What an exported program holds. Raises ModelFileError if it was not written by torch.export.save."""
    with open_archive(request.file) as archive:
        names = {name.partition("/")[2]: name for name in archive.namelist()}
        pt2_file.check_files([name for name in archive.namelist() if "/extra/" not in name], "it")
        document = read_json_entry(archive, names["models/model.json"])
        config = names.get("data/weights/model_weights_config.json")
        weights = read_json_entry(archive, config) if config else {"config": {}}
    document.pop("guards_code", None)  # loading leaves it out, too
    for each in (document, weights):
        pt2_file.check_document(each, "it")
    weights = weights["config"]
    graph, signature = document["graph_module"]["graph"], document["graph_module"]["signature"]
    infos = {name: _info(name, meta) for name, meta in graph["tensor_values"].items()}
    constants, inputs = {}, []
    for spec in signature["input_specs"]:
        kind, body = next(iter(spec.items()))
        name = body["arg"].get("name") or next(_tensors(body["arg"]), "")
        if kind == "user_input":
            inputs += [infos[name]] if name in infos else []
        else:
            constants[name] = infos[name] if kind == "parameter" and name in infos else None
    outputs = [infos[name] for spec in signature["output_specs"] for name in _tensors(spec) if name in infos]
    sample = Sample.of(inputs, request.sizes)
    layers = tuple(_layer(node, infos, constants, sample) for node in graph["nodes"])
    return Inspection(
        file=request.path,
        format="pt2",
        bytes=request.file.stat().st_size,
        producer=f"pytorch {document['torch_version']}",
        opsets=document["opset_version"],
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        precision=_precision(weights),
        parameters=sum(
            count_of(_shape(item["tensor_meta"])) for item in weights.values() if item["is_param"]
        ),
        macs=total_macs(layers),
        operators=dict(Counter(layer.operator for layer in layers)),
        layers=layers,
        notes=("not verified: the weights; the graph was read, and nothing unpickled", *untold(layers)),
    )


def _layer(
    node: Mapping[str, Any], infos: Mapping[str, TensorInfo], constants: Mapping[str, Any], sample: Sample
) -> Layer:
    arguments = {item["name"]: list(_tensors(item["arg"])) for item in node["inputs"]}
    used = [name for names in arguments.values() for name in names]
    outputs = tuple(name for item in node["outputs"] for name in _tensors(item))
    output = infos.get(outputs[0]) if outputs else None
    operator = str(node["target"]).removeprefix("torch.ops.")
    return Layer(
        name=node.get("name") or (outputs[0] if outputs else operator),
        operator=operator,
        inputs=tuple(name for name in used if name not in constants),
        outputs=outputs,
        output_shape=output.shape if output else None,
        dtype=output.dtype if output else None,
        parameters=sum(count_of(info.shape) for name in set(used) if (info := constants.get(name))),
        macs=None if _is_transposed(node) else _macs(operator, arguments, infos, output, sample),
    )


def _is_transposed(node: Mapping[str, Any]) -> bool:
    """Whether it is aten.convolution in its transposed form."""
    return any(item["name"] == "transposed" and item["arg"].get("as_bool") for item in node["inputs"])


def _macs(
    operator: str,
    arguments: Mapping[str, list[str]],
    infos: Mapping[str, TensorInfo],
    output: TensorInfo | None,
    sample: Sample,
) -> int | None:
    """Multiply-adds by the operator's name: aten.conv2d.default sums over the weight [outputs, …]'s other sizes."""
    name = operator.split(".")[1] if operator.startswith("aten.") else ""
    shapes = {key: infos[names[0]].shape for key, names in arguments.items() if names and names[0] in infos}
    out = output.shape if output else None
    if name == "scaled_dot_product_attention":
        query, key = shapes.get("query"), shapes.get("key")
        first, second = (
            sample.macs(query, key[-2:-1] if key else None),
            sample.macs(out, key[-2:-1] if key else None),
        )
        return None if first is None or second is None else first + second
    if any(word in name for word in _UNCOUNTED):
        return None
    if name.startswith("conv"):
        weight = shapes.get("weight")
        return sample.macs(out, weight[1:] if weight else None)
    factor = shapes.get("weight") if name == "linear" else shapes.get(_FACTORS.get(name, ""))
    if name == "linear" or name in _FACTORS:
        return sample.macs(out, factor[-1:] if factor else None)
    return 0


def _tensors(argument: Any) -> Iterator[str]:
    """The names of the tensors in an argument: alone, in a list, or optional in a list."""
    if isinstance(argument, list):
        for each in argument:
            yield from _tensors(each)
    elif isinstance(argument, dict):
        for key, value in argument.items():
            if key == "as_tensor":
                yield value["name"]
            elif key in ("as_tensors", "as_nested_tensors"):
                yield from (each["name"] for each in value)
            elif key in ("as_optional_tensors", "user_output", "arg"):
                yield from _tensors(value)


def _info(name: str, meta: Mapping[str, Any]) -> TensorInfo:
    return TensorInfo(name, _DTYPES.get(meta["dtype"], "?"), _shape(meta))


def _shape(meta: Mapping[str, Any]) -> Shape:
    return tuple(_size(item) for item in meta["sizes"])


def _size(item: Mapping[str, Any]) -> int | str | None:
    """A size: a number, a symbol's name, or None for an expression of several."""
    if "as_int" in item:
        return int(item["as_int"])
    match = _SYMBOL.fullmatch(str(item.get("as_expr", {}).get("expr_str", "")))
    return (match[1] or match[2]) if match else None


def _precision(weights: Mapping[str, Any]) -> dict[str, Stored]:
    """Numbers and bytes of the weights and buffers, by dtype, as their metadata tell."""
    metas = [_info(name, item["tensor_meta"]) for name, item in weights.items()]
    sizes = [(meta.dtype or "?", count_of(meta.shape)) for meta in metas]
    return tally((dtype, count, bytes_of(dtype, count)) for dtype, count in sizes)
