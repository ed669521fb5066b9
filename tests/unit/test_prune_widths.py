"""Groups of channels as wide as somebody says: counted, cut, and refused where that makes no sense."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from labkit.data import load_dataset
from labkit.errors import ConfigError, TechniqueError
from labkit.measure.counting import count
from labkit.prune import PruneChannels, Widths
from labkit.prune.importance import channel_importance
from labkit.technique import probe
from tests.pruning_widgets import small_widths


@pytest.fixture(scope="module")
def widths() -> Widths:
    return small_widths()


def test_nothing_narrowed_is_the_whole_network(widths: Widths) -> None:
    whole = widths.structure.variant
    assert widths.removed({}) == [] and widths.channels({}) == widths.groups
    assert widths.macs({}) == count(whole, probe(whole, batch_size=1)).macs


def test_what_was_counted_is_what_the_narrow_network_does(widths: Widths) -> None:
    kept = {"stem.weight": 0.5, "blocks.1.conv1.weight": 0.25}
    narrow = widths.narrow(kept)
    assert count(narrow, probe(narrow, batch_size=1)).macs == widths.macs(kept) < widths.macs({})
    assert widths.channels(kept) == {**widths.groups, "stem.weight": 8, "blocks.1.conv1.weight": 8}
    assert narrow.model.stem.weight.shape[0] == 8


def test_all_alike_is_what_channel_pruning_makes_of_the_ratio(widths: Widths) -> None:
    mine = widths.narrow(dict.fromkeys(widths.groups, 0.5))
    theirs = PruneChannels(pruning_ratio=0.5)(widths.structure.variant)
    pairs = zip(mine.model.state_dict().values(), theirs.model.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_the_graph_computes_what_the_module_does(widths: Widths) -> None:
    kept = {"stem.weight": 0.5}
    graph, module = widths.graph(kept), widths.narrow(kept)
    feeds = probe(module)
    from labkit.runtimes import get_runtime

    with get_runtime("onnxruntime").load(graph) as session:
        found = session.run(feeds)["logits"]
    with torch.no_grad():
        expected = module.model(torch.from_numpy(feeds["image"])).numpy()
    assert np.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        ({"stem.wieght": 0.5}, "did you mean 'stem.weight'"),
        ({"stem.weight": 0.0}, "allowed: 0 < share ≤ 1"),
        ({"stem.weight": 1.5}, "allowed: 0 < share ≤ 1"),
    ],
)
def test_groups_and_shares_that_there_are_not_are_refused(
    widths: Widths, kept: dict[str, float], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        widths.macs(kept)


def test_an_importance_that_asks_gradients_is_refused_without_data_and_taken_with_it() -> None:
    variant, data = small_widths().structure.variant, load_dataset("digits")
    with pytest.raises(TechniqueError, match="importance='taylor' needs .*dataset=.*or take 'l1'"):
        Widths(variant, importance="taylor")
    kept = {"stem.weight": 0.25}
    assert Widths(variant, importance="taylor", dataset=data).channels(kept)["stem.weight"] == 4


def test_an_importance_of_no_gradients_at_all_is_refused() -> None:
    structure = small_widths().structure
    group = structure.coupling.groups[0]
    with pytest.raises(TechniqueError, match="importance='taylor' needs"):
        channel_importance("taylor", group, structure.values, np.random.default_rng(0), [])
