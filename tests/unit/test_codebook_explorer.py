"""The codebook explorer with no browser: clusters, error and bits are those of the rooms that labkit codes with."""

from __future__ import annotations

import html

import numpy as np
import pytest

from labkit.encode import ClusterWeights
from labkit.encode.entropy import entropy
from labkit.encode.huffman import code_lengths
from labkit.errors import ConfigError
from labkit.widgets import CodebookExplorer, draw_codebook, share_weights, sharing_table, sweep_levels
from labkit.widgets.codebook_rows import STARTS
from labkit.zoo import load_model
from tests.coding_widgets import some_weights
from tests.quantization_widgets import words


def test_the_values_are_those_that_cluster_weights_gives_the_layer() -> None:
    network = load_model("lenet300@digits")
    weight = network.model.state_dict()["fc3.weight"].numpy()
    for start in STARTS:
        made = ClusterWeights(linear_levels=5, start=start, values="float32")(network)
        theirs = np.unique(made.model.state_dict()["fc3.weight"].numpy())
        assert np.allclose(share_weights(weight, 5, start).values, theirs, atol=1e-6)


def test_figures_are_those_of_the_weights_with_every_value_in_place() -> None:
    weights = some_weights()
    kept = np.sort(weights[weights != 0].astype(np.float64))
    sharing = share_weights(weights, 6)
    nearest = sharing.values[np.abs(kept[:, None] - sharing.values).argmin(1)]
    assert sharing.error == pytest.approx(((nearest - kept) ** 2).sum() / (kept**2).sum())
    assert sharing.counts.sum() == len(kept) == 900
    assert sharing.entropy == entropy(sharing.counts) <= sharing.huffman_bits <= sharing.fixed_bits == 3
    assert np.array_equal(sharing.code_bits, code_lengths(sharing.counts))


def test_more_levels_cost_bits_and_save_error_and_the_best_codebook_is_no_worse() -> None:
    sweep = sweep_levels(some_weights())
    assert list(sweep) == list(range(2, 17))
    assert sweep[16].error < 0.2 * sweep[4].error and sweep[16].entropy > sweep[4].entropy + 1
    for levels in (2, 7, 12):
        assert share_weights(some_weights(), levels, "exact").error <= sweep[levels].error + 1e-12


@pytest.mark.parametrize(
    ("weights", "levels", "start"),
    [
        (np.zeros(10), 4, "linear"),
        (np.ones(10), 4, "linear"),
        (np.array([1.0, np.nan]), 4, "linear"),
        (np.arange(1.0, 5000.0), 4, "linear"),
        (np.arange(1.0, 50.0), 1, "linear"),
        (np.arange(1.0, 50.0), 17, "linear"),
        (np.arange(1.0, 50.0), 4, "random"),
    ],
)
def test_what_cannot_be_shown_is_refused(weights: np.ndarray, levels: int, start: str) -> None:
    with pytest.raises(ConfigError):
        share_weights(weights, levels, start)


def test_moving_the_levels_shows_as_many_values_and_the_table_agrees() -> None:
    made = CodebookExplorer(some_weights(), "fc", levels=4)
    for levels in (3, 6):
        made.form.controls["levels"].value = levels
        sharing = share_weights(some_weights(), levels)
        shown = words(made.picture.value)
        assert {f"{value:.3g}" for value in sharing.values} <= set(shown)
        assert f"entropy {sharing.entropy:.2f}" in shown and f"{sharing.error:.2%}" in shown
        assert f"share {levels} values" in made.says.value and made.table.value == sharing_table(sharing)
    before = made.says.value
    made.form.controls["start"].value = "exact"
    assert made.says.value != before


def test_the_line_under_the_histogram_draws_the_same() -> None:
    made = CodebookExplorer(some_weights(), levels=5)
    line = html.unescape(made.code.value.partition("<pre")[2].partition(">")[2].partition("</pre>")[0])
    names = {"draw_codebook": draw_codebook, "share_weights": share_weights, "sweep_levels": sweep_levels}
    assert eval(line, {**names, "weights": some_weights()}) == made.picture.value
