"""The microscope looks into LiteRT files: channels-last, activations fused, padding in operators of its own."""

from __future__ import annotations

import pytest

pytest.importorskip("tensorflow")
pytest.importorskip("ai_edge_litert")

from benchmarks.plants import PLANTS, converted, models, plant
from labkit.convert.onnx_to_tensorflow import OnnxToTensorFlow
from labkit.convert.tensorflow_to_tflite import TensorFlowToTflite
from labkit.microscope import microscope

pytestmark = pytest.mark.extra
PAIR = "ONNX, LiteRT"
UNNAMED = {"scale", "to_int"}  # what a plant puts in has another name in the LiteRT file
ELSEWHERE = ("quantized ONNX", "batch norms")


def test_a_sound_conversion_departs_nowhere(digits):
    reference, sound = models(PAIR)
    other = converted(sound, PAIR)
    report = microscope(reference, other, digits)
    assert report.first is None and "fused away" in report.says
    assert microscope(other, reference, digits).first is None


@pytest.mark.parametrize("name", [name for name, (pair, _) in PLANTS.items() if not pair.endswith(ELSEWHERE)])
def test_it_names_the_planted_operator(name, digits):
    broken = plant(name, PAIR)
    report = microscope(broken.reference, broken.other, digits)
    if broken.operator in UNNAMED or name == "clipped at 1":  # a minimum, put in before the ReLU
        assert report.first.other[0].operator in ("MUL", "CAST", "MINIMUM"), report.says
    else:
        assert report.names(broken.operator), report.says


def test_an_int8_file_is_read_as_what_its_integers_stand_for(digits):
    reference, sound = models(PAIR)
    other = TensorFlowToTflite(precision="int8", tolerance=0.9)(OnnxToTensorFlow()(sound), digits)
    report = microscope(reference, other, digits)
    assert report.scale.name == "quantized" and report.first is None, report.says
    assert min(row.snr_db for row in report.rows if row.status == "equal") < 50
