"""The graphs that other tests are about."""

from __future__ import annotations

import numpy as np

from tests.graphs import data_for, mlp, small_cnn


def test_a_graph_and_its_data_are_the_same_whatever_was_made_before():
    variant = small_cnn()
    samples = data_for(variant, 8).split("test").inputs["x"]
    data_for(mlp(), 8)
    again = small_cnn()
    assert again.payload == variant.payload
    np.testing.assert_array_equal(data_for(again, 8).split("test").inputs["x"], samples)
