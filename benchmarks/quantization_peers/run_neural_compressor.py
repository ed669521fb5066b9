"""Intel's neural-compressor 2.6, the last one that quantizes ONNX; static, without a search over settings.

`default` writes ONNX Runtime's own integer operators, which no other runtime reads; `qdq` writes standard ONNX.
Its SmoothQuant is left out: asked for as documented it changes no byte, with domain="nlp" a small transformer is
no better for it, and with quant_level=1 that one's accuracy collapses.
"""

from collections.abc import Iterator
from pathlib import Path

from neural_compressor import PostTrainingQuantConfig, quantization
from peer_script import Feeds, batches, run

SETTINGS = {
    "default": {},
    "qdq": {"quant_format": "QDQ"},
}


class Loader:
    """Its idea of a dataloader: pairs of inputs and labels, and a batch size."""

    batch_size = 1

    def __init__(self, feeds: Feeds) -> None:
        self._samples = batches(feeds, self.batch_size)

    def __iter__(self) -> Iterator[tuple[Feeds, None]]:
        """One sample after the other; labels are of no use here."""
        return ((sample, None) for sample in self._samples)

    def __len__(self) -> int:
        """The number of batches."""
        return len(self._samples)


def quantize(model: Path, feeds: Feeds, out: Path, setting: dict) -> None:
    """Calibrate on all samples (its default is the first 100), and write the model."""
    loader = Loader(feeds)
    config = PostTrainingQuantConfig(calibration_sampling_size=[len(loader)], **setting)
    quantized = quantization.fit(str(model), config, calib_dataloader=loader)
    if quantized is None:
        raise SystemExit("neural-compressor found no quantized model")
    quantized.save(str(out))


if __name__ == "__main__":
    run(SETTINGS, ("neural-compressor", "onnx", "onnxruntime"), quantize)
