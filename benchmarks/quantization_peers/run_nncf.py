"""NNCF's `quantize` on the ONNX model, or, where a file that ends in .xml is wanted, on the OpenVINO model.

`best` is what its documentation advises where the defaults lose accuracy: asymmetric activations (MIXED), and the
slower, more exact bias correction. `transformer` is what it advises for transformers: it adds SmoothQuant.
"""

from pathlib import Path

import nncf
import onnx
import onnxruntime
import openvino
from peer_script import Feeds, batches, run

_MIXED = {"preset": nncf.QuantizationPreset.MIXED}
SETTINGS = {
    "default": {},
    "best": {**_MIXED, "fast_bias_correction": False},
    "no_bias_correction": {
        **_MIXED,
        "advanced_parameters": nncf.AdvancedQuantizationParameters(disable_bias_correction=True),
    },
    "transformer": {"model_type": nncf.ModelType.TRANSFORMER, "fast_bias_correction": False},
}


def quantize(model: Path, feeds: Feeds, out: Path, setting: dict) -> None:
    """Calibrate on one sample at a time, and write the model."""
    samples = batches(feeds)
    setting = {**setting, "subset_size": len(samples)}
    if out.suffix == ".xml":
        quantized = nncf.quantize(openvino.convert_model(model), nncf.Dataset(samples), **setting)
        openvino.save_model(quantized, out, compress_to_fp16=False)
    else:
        with_fusions_off()
        onnx.save(nncf.quantize(onnx.load(model), nncf.Dataset(samples), **setting), out)


def with_fusions_off() -> None:
    """Keep ONNX Runtime from fusing away what NNCF asks to see.

    NNCF's exact bias correction runs parts of the graph with inner tensors as outputs. ONNX Runtime (1.23 to 1.32
    tried) then fuses Conv, Add and Relu of a residual block into one, and fails: the tensor is no more. Without
    its extended fusions the results are the same, and NNCF can do its best.
    """
    options = onnxruntime.SessionOptions

    class Plain(options):
        def __init__(self) -> None:
            super().__init__()
            self.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC

    onnxruntime.SessionOptions = Plain


if __name__ == "__main__":
    run(SETTINGS, ("nncf", "onnx", "onnxruntime", "openvino"), quantize)
