"""OpenVINO IR: `model.xml` lists layers, ports and edges; `model.bin` beside it holds the constants' bytes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree
from xml.parsers import expat

from labkit.errors import ModelFileError
from labkit.inspection.macs import Sample, total_macs, untold
from labkit.inspection.record import ExternalFile, Inspection, Layer, Shape, Stored, TensorInfo
from labkit.inspection.request import Request
from labkit.inspection.storage import REAL, bytes_of, tally

Element = ElementTree.Element
_LARGEST_XML_BYTES = 64 * 1024 * 1024
_DTYPES = {
    **{f"f{bits}": f"float{bits}" for bits in (16, 32, 64)},
    **{f"{sign}{bits}": f"{'u' * (sign == 'u')}int{bits}" for sign in "iu" for bits in (2, 4, 8, 16, 32, 64)},
    **{
        "fp16": "float16",
        "fp32": "float32",
        "fp64": "float64",
        "bf16": "bfloat16",
        "boolean": "bool",
        "bool": "bool",
    },
    "f8e4m3": "float8_e4m3fn",
    "f8e5m2": "float8_e5m2",
}
_UNCOUNTED = (
    "Sequence",
    "Cell",
    "BackpropData",
    "Einsum",
    "Attention",
    "Deformable",
    "TensorIterator",
    "Loop",
    "If",
)


def read(request: Request) -> Inspection:
    """What a pair of .xml and .bin holds. Raises ModelFileError for XML with a DTD, and for constants out of bounds."""
    net = _parse(request.file)
    weights = request.file.with_suffix(".bin")
    if weights.is_symlink() or not weights.is_file():
        raise ModelFileError(f"{weights.name!r}, which holds its weights, is not beside it, or is a link")
    layers = {layer.get("id", ""): layer for layer in net.iterfind("layers/layer")}
    edges = {
        (edge.get("to-layer", ""), edge.get("to-port", "")): (
            edge.get("from-layer", ""),
            edge.get("from-port", ""),
        )
        for edge in net.iterfind("edges/edge")
    }
    constants, precision = _constants(layers, edges, weights.stat().st_size)
    inputs = tuple(
        _port_info(each, _outputs(each)[0]) for each in layers.values() if each.get("type") == "Parameter"
    )
    outputs = []
    for each in layers.values():
        if each.get("type") == "Result":
            source, port = next((edges[key] for key in edges if key[0] == each.get("id")), ("", ""))
            found = (
                [out for out in _outputs(layers[source]) if out.get("id") == port] if source in layers else []
            )
            outputs += [_port_info(layers[source], found[0])] if found else []
    sample = Sample.of(inputs, request.sizes)
    names = {
        (key, out.get("id", "")): _port_name(each, out)
        for key, each in layers.items()
        for out in _outputs(each)
    }
    drawn = tuple(
        _layer(each, edges, names, constants, sample)
        for key, each in layers.items()
        if key not in constants and each.get("type") not in ("Parameter", "Result")
    )
    version = net.find("rt_info/Runtime_version")
    return Inspection(
        file=request.path,
        format="openvino",
        bytes=request.file.stat().st_size + weights.stat().st_size,
        producer=None if version is None else f"OpenVINO {version.get('value', '')}",
        ir_version=int(net.get("version", "0")),
        opsets={"opset": max((_opset(each) for each in layers.values()), default=0)},
        inputs=inputs,
        outputs=tuple(outputs),
        precision=precision,
        parameters=sum(layer.parameters or 0 for layer in drawn),
        macs=total_macs(drawn),
        external_files=(ExternalFile(weights.name, weights.stat().st_size, "none recorded"),),
        operators=dict(Counter(layer.operator for layer in drawn)),
        layers=drawn,
        notes=("verified: every constant lies within the .bin, as long as it claims", *untold(drawn)),
    )


def _parse(path: Path) -> Element:
    """The document's root. No DTD gets in, and so no entity: they grow without end, or name files."""

    def refuse(*_: object) -> None:
        raise ModelFileError("it declares a document type, which no OpenVINO model does: refused")

    if path.stat().st_size > _LARGEST_XML_BYTES:
        raise ModelFileError("its .xml is larger than 64 MiB")
    builder = ElementTree.TreeBuilder()
    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(path.read_bytes(), True)
        root: Element = builder.close()
    except (expat.ExpatError, AssertionError) as error:
        raise ModelFileError(f"it is not valid XML: {error}") from None
    if root.tag != "net" or root.find("layers") is None:
        raise ModelFileError("it is XML, but not an OpenVINO model: it has no <net> with <layers>")
    return root


def _constants(
    layers: Mapping[str, Element], edges: Mapping[tuple[str, str], tuple[str, str]], data_bytes: int
) -> tuple[dict[str, int], dict[str, Stored]]:
    """Layer → how many numbers, for constants and those that only change a constant's type; and all by dtype."""
    constants: dict[str, int] = {}
    found: list[tuple[str, int, int]] = []
    for key, layer in layers.items():
        data = layer.find("data")
        if layer.get("type") == "Const" and data is not None:
            shape = [int(size) for size in data.get("shape", "").split(",") if size.strip()]
            dtype = _DTYPES.get(data.get("element_type", ""), data.get("element_type", "?"))
            offset, size = int(data.get("offset", "0")), int(data.get("size", "0"))
            count = math.prod(shape)
            wrong = dtype != "string" and size != bytes_of(dtype, count)
            if not 0 <= offset <= offset + size <= data_bytes or min(shape, default=0) < 0 or wrong:
                raise ModelFileError(
                    f"constant {layer.get('name', '')[:80]!r} claims {shape} of {dtype} in bytes {offset} to "
                    f"{offset + size} of a .bin of {data_bytes}"
                )
            found.append((dtype, count, size))
            real = dtype in REAL or "int8" in dtype or "int4" in dtype
            constants[key] = count if shape and real else 0
        elif layer.get("type") == "Convert":
            sources = [source for (target, _), (source, _) in edges.items() if target == key]
            if sources and sources[0] in constants:
                constants[key] = constants[sources[0]]
    return constants, tally(found)


def _layer(
    layer: Element,
    edges: Mapping[tuple[str, str], tuple[str, str]],
    names: Mapping[tuple[str, str], str],
    constants: Mapping[str, int],
    sample: Sample,
) -> Layer:
    ports = layer.findall("input/port")
    sources = [edges.get((layer.get("id", ""), port.get("id", "")), ("", "")) for port in ports]
    outputs = _outputs(layer)
    shape = _shape(outputs[0]) if outputs else None
    return Layer(
        name=layer.get("name", ""),
        operator=layer.get("type", "?"),
        inputs=tuple(names[source] for source in sources if source in names and source[0] not in constants),
        outputs=tuple(_port_name(layer, out) for out in outputs),
        output_shape=shape,
        dtype=_dtype(outputs[0]) if outputs else None,
        parameters=sum(constants.get(source, 0) for source, _ in set(sources)),
        macs=_macs(layer, [_shape(port) for port in ports], shape, sample),
    )


def _macs(layer: Element, inputs: list[Shape], output: Shape | None, sample: Sample) -> int | None:
    kind = layer.get("type", "")
    if any(word in kind for word in _UNCOUNTED):
        return None
    if kind in ("Convolution", "GroupConvolution"):  # weights [O, I, …] and [groups, O, I, …]
        return sample.macs(output, inputs[1][1 if kind == "Convolution" else 2 :])
    if kind == "MatMul":
        data = layer.find("data")
        turned = data is not None and data.get("transpose_a") == "true"
        return sample.macs(output, inputs[0][-2:-1] if turned else inputs[0][-1:])
    return 0


def _opset(layer: Element) -> int:
    """The version of the operator set that a layer is of: opset8 → 8; 0 for an extension's."""
    version = layer.get("version", "").removeprefix("opset")
    return int(version) if version.isdecimal() else 0


def _outputs(layer: Element) -> list[Element]:
    return layer.findall("output/port")


def _shape(port: Element) -> Shape:
    sizes = [int(dim.text or -1) for dim in port.findall("dim")]
    return tuple(size if size >= 0 else None for size in sizes)


def _dtype(port: Element) -> str:
    kind = port.get("precision", "").lower()
    return _DTYPES.get(kind, kind)


def _port_name(layer: Element, port: Element) -> str:
    """The tensor's name, else one that no other port has: layers' names are unique only by their ids."""
    return (
        port.get("names", "").split(",")[0] or f"{layer.get('name', '')}:{layer.get('id')}.{port.get('id')}"
    )


def _port_info(layer: Element, port: Element) -> TensorInfo:
    return TensorInfo(_port_name(layer, port), _dtype(port), _shape(port))
