"""Networks that take images of any size: they are tried with images large enough for what is in them."""

import os
import subprocess
import sys

import pytest

from labkit.technique import probe
from labkit.variant import TensorSpec, Variant, trial_shapes
from tests.graphs import build, node, weight

PRUNED = """
import sys
from labkit import load_onnx
from labkit.prune import PruneChannels, PruneMagnitude
variant = load_onnx(sys.argv[1])
assert PruneMagnitude()(variant).model != variant.model
print(len(PruneChannels(pruning_ratio=0.5)(variant).model) < len(variant.model))
"""


@pytest.fixture
def strided(tmp_path):
    """A file whose pool makes less than nothing of an image of 2 × 2."""
    nodes = [
        node("Conv", "x w1 b1", "c1", pads=[1] * 4, strides=[2, 2]),
        node("Relu", "c1", "r"),
        node("MaxPool", "r", "p", kernel_shape=[3, 3], strides=[2, 2]),
        node("Conv", "p w2", "c2"),
        node("GlobalAveragePool", "c2", "g"),
        node("Flatten", "g", "y"),
    ]
    stored = [weight("w1", 16, 3, 3, 3), weight("b1", 16), weight("w2", 10, 16, 1, 1)]
    path = tmp_path / "strided.onnx"
    path.write_bytes(build(nodes, stored, ("batch", 3, "height", "width")).payload)
    return path


def test_a_file_that_takes_images_of_any_size_is_opened_and_pruned(strided):
    command = [sys.executable, "-c", PRUNED, str(strided)]  # a fault in an engine would end this process too
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr[-500:]


@pytest.mark.parametrize(
    ("shapes", "tried"),
    [
        ([("batch", 3, "height", "width")], [[2, 3, 32, 32]]),
        ([(None, 3, None, None)], [[2, 3, 32, 32]]),
        ([("batch", "time")], [[2, 2]]),
        ([("batch", 4, "time")], [[2, 4, 32]]),
        ([("batch", 4, "time"), ("batch", "time")], [[2, 4, 32], [2, 32]]),
        ([("batch", "time", 16), ("batch", "time")], [[2, 2, 16], [2, 2]]),
    ],
)
def test_samples_and_steps_are_few_and_the_places_of_an_image_are_many(shapes, tried):
    assert trial_shapes(shapes, samples=2) == tried


def test_a_probe_has_as_many_samples_as_asked_for():
    spec = (TensorSpec("x", "float32", ("batch", 3, "height", "width")),)
    assert probe(Variant("free", "onnx", b"", spec, spec), batch_size=1)["x"].shape == (1, 3, 32, 32)
