"""Hostile OpenVINO models, as data: name → (the files, what the error says, whether inspect_file may show it)."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.hostile.making import RANDOM
from tests.hostile.onnx_files import endless_loop


def ir(
    layers: str = "", data: str = 'shape="4" offset="0" size="16"', head: str = "", edges: str = ""
) -> bytes:
    """x [2, 4] + a constant [4] → y."""
    port = '<port id="{}" precision="FP32"{}><dim>2</dim><dim>4</dim></port>'
    return f"""<?xml version="1.0"?>{head}
<net name="m" version="11"><layers>
<layer id="0" name="x" type="Parameter" version="opset1"><data shape="2,4" element_type="f32"/>
<output>{port.format(0, ' names="x"')}</output></layer>
<layer id="1" name="w" type="Const" version="opset1"><data element_type="f32" {data}/>
<output><port id="0" precision="FP32"><dim>4</dim></port></output></layer>
{
        layers
        or f'''<layer id="2" name="y" type="Add" version="opset1"><data auto_broadcast="numpy"/>
<input>{port.format(0, '')}<port id="1" precision="FP32"><dim>4</dim></port></input>
<output>{port.format(2, ' names="y"')}</output></layer>'''
    }
<layer id="3" name="r" type="Result" version="opset1"><input>{port.format(0, "")}</input></layer>
</layers><edges>{edges}<edge from-layer="0" from-port="0" to-layer="2" to-port="0"/>
<edge from-layer="1" from-port="0" to-layer="2" to-port="1"/>
<edge from-layer="2" from-port="2" to-layer="3" to-port="0"/></edges></net>""".encode()


def endless() -> dict[str, bytes]:
    """ONNX's Loop of 2^62 turns, as OpenVINO writes it."""
    import openvino

    model = openvino.Core().read_model(io.BytesIO(endless_loop().SerializeToString()))
    with tempfile.TemporaryDirectory() as folder:
        openvino.save_model(model, f"{folder}/m.xml", compress_to_fp16=False)
        return {name: Path(folder, name).read_bytes() or b"0" for name in ("m.xml", "m.bin")}


ENTITIES = '<!DOCTYPE net [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
OUTSIDE = '<!DOCTYPE net [<!ENTITY a SYSTEM "file:///etc/passwd">]>'
IR: dict[str, tuple[Callable[[], Mapping[str, bytes | Path]], str, bool]] = {
    "empty": (lambda: {"m.xml": b"", "m.bin": b"1"}, "empty|not valid XML", False),
    "random": (lambda: {"m.xml": b"A" + RANDOM, "m.bin": bytes(16)}, "UTF-8|not XML|not valid XML", False),
    "truncated": (lambda: {"m.xml": ir()[:700], "m.bin": bytes(16)}, "OpenVINO|not valid XML", False),
    "another XML": (lambda: {"m.xml": b"<html/>", "m.bin": bytes(16)}, "OpenVINO", False),
    "entities": (lambda: {"m.xml": ir(head=ENTITIES), "m.bin": bytes(16)}, "entities|document type", False),
    "external entity": (
        lambda: {"m.xml": ir(head=OUTSIDE), "m.bin": bytes(16)},
        "entities|document type",
        False,
    ),
    "UTF-16": (
        lambda: {"m.xml": ir(head=ENTITIES).decode().encode("utf-16"), "m.bin": bytes(16)},
        "UTF-8|type",
        False,
    ),
    "no .bin": (lambda: {"m.xml": ir()}, "m.bin.*(not exist|not beside)", False),
    ".bin is a link": (lambda: {"m.xml": ir(), "m.bin": Path("/etc/passwd")}, "is a link", False),
    ".bin too short": (lambda: {"m.xml": ir(), "m.bin": bytes(7)}, "OpenVINO|claims", False),
    "offset beyond": (
        lambda: {"m.xml": ir(data='shape="4" offset="99" size="16"'), "m.bin": bytes(16)},
        "OpenVINO|claims",
        False,
    ),
    "offset overflows": (
        lambda: {"m.xml": ir(data=f'shape="4" offset="{2**64 - 8}" size="16"'), "m.bin": bytes(16)},
        "OpenVINO|claims",
        False,
    ),
    "negative size": (
        lambda: {"m.xml": ir(data='shape="4" offset="0" size="-16"'), "m.bin": bytes(16)},
        "OpenVINO|claims",
        False,
    ),
    "size is a text": (
        lambda: {"m.xml": ir(data='shape="4" offset="0" size="x"'), "m.bin": bytes(16)},
        "OpenVINO|malformed",
        False,
    ),
    "16 TiB claimed": (
        lambda: {"m.xml": ir(data=f'shape="{2**42}" offset="0" size="{2**44}"'), "m.bin": bytes(16)},
        "OpenVINO|claims",
        False,
    ),
    "cycle": (
        lambda: {
            "m.xml": ir().replace(
                b'<edge from-layer="0" from-port="0"', b'<edge from-layer="2" from-port="2"'
            ),
            "m.bin": bytes(16),
        },
        "OpenVINO|crashes|no inputs",
        True,
    ),
    "unknown layer": (
        lambda: {"m.xml": ir().replace(b'type="Add"', b'type="Evil"'), "m.bin": bytes(16)},
        "OpenVINO",
        True,
    ),
    "extension": (
        lambda: {
            "m.xml": ir().replace(b'type="Add" version="opset1"', b'type="Add" version="extension"'),
            "m.bin": bytes(16),
        },
        "OpenVINO",
        True,
    ),
    "endless Loop": (endless, "longer to open and run|far more memory", True),
    "huge input": (
        lambda: {
            "m.xml": ir()
            .replace(b'shape="2,4"', b'shape="2000000000,4"')
            .replace(b"<dim>2</dim>", b"<dim>2000000000</dim>"),
            "m.bin": bytes(16),
        },
        "OpenVINO|far more memory|malformed|crashes",
        True,
    ),
}
