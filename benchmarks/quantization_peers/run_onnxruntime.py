"""ONNX Runtime's `quantize_static`, after the preprocessing that its documentation asks for.

`per_channel` is what its documentation advises for x86 with VNNI: unsigned activations, signed weights, 8 bits each.
`per_channel_layers` leaves all but convolutions and matrix products in float, as is usual for transformers.
"""

import tempfile
from pathlib import Path

from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from peer_script import Feeds, batches, run

_BEST = {"per_channel": True, "activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
SETTINGS = {
    "default": {},
    "per_channel": _BEST,
    "per_channel_layers": {**_BEST, "op_types_to_quantize": ["Conv", "Gemm", "MatMul"]},
}


class Reader(CalibrationDataReader):
    """Hands out one sample after the other, then None."""

    def __init__(self, feeds: Feeds) -> None:
        self._samples = iter(batches(feeds))

    def get_next(self) -> Feeds | None:
        """The next sample."""
        return next(self._samples, None)


def quantize(model: Path, feeds: Feeds, out: Path, setting: dict) -> None:
    """Fold and infer shapes, calibrate, write QDQ."""
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(model, prepared)
        quantize_static(prepared, out, Reader(feeds), **setting)


if __name__ == "__main__":
    run(SETTINGS, ("onnxruntime", "onnx"), quantize)
