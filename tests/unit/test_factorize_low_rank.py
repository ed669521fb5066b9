"""Two thin layers for one: as near as the rank allows, exact at full rank, and rebuilt from a config without pickle."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from labkit.encode import FactorizeLowRank, decode, encode
from labkit.errors import ConfigError, TechniqueError
from labkit.models import build
from labkit.technique import probe
from labkit.variant import TensorSpec, Variant
from labkit.zoo import load_model


def run(variant):
    with torch.no_grad():
        return variant.model(*(torch.from_numpy(x) for x in probe(variant).values()))


def product(pair):
    first, second = (layer.weight.detach().flatten(1) for layer in pair)
    return second @ first


def test_the_product_is_the_nearest_matrix_of_its_rank(lenet):
    made = FactorizeLowRank(by="parameters", keep=0.3)(lenet)
    matrix = lenet.model.fc1.weight.detach()
    u, s, v = np.linalg.svd(matrix.double().numpy(), full_matrices=False)
    rank = made.model.config["low_rank"]["fc1"]
    assert rank == int(0.3 * matrix.numel() / sum(matrix.shape))
    best = (u[:, :rank] * s[:rank]) @ v[:rank]
    assert product(made.model.fc1).numpy() == pytest.approx(best, abs=1e-5)


def test_a_network_of_low_rank_computes_the_same_in_fewer_weights(lenet):
    model = copy.deepcopy(lenet.model)
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer, rank in ((model.conv2, 8), (model.fc1, 20)):
            rows, columns = layer.weight.flatten(1).shape
            thin = torch.randn(rows, rank, generator=random) @ torch.randn(rank, columns, generator=random)
            layer.weight.copy_(0.01 * thin.view_as(layer.weight))
    variant = dataclasses.replace(lenet, model=model)
    made = FactorizeLowRank(keep=1 - 1e-7)(variant)
    assert made.model.config["low_rank"] == {"conv2": 8, "fc1": 20}
    assert torch.allclose(run(made), run(variant), rtol=1e-3, atol=1e-3 * run(variant).abs().max().item())
    assert made.size_bytes < 0.2 * variant.size_bytes


def test_energy_keeps_as_many_singular_values_as_the_share_needs():
    spectrum, shape = torch.tensor([3.0, 2.0, 1.0]), torch.Size((30, 30))  # energies 9, 4, 1 of 14
    ranks = [FactorizeLowRank(keep=keep).rank(spectrum, shape) for keep in (0.6, 0.65, 0.92, 0.93)]
    assert ranks == [1, 2, 2, 3]


@pytest.mark.parametrize(
    "name", ["lenet5@digits", "resnet20@digits", "mobilenet@digits", "vit@fashion-mnist"]
)
def test_it_is_rebuilt_from_its_config(name, tmp_path):
    made = FactorizeLowRank(keep=0.6)(load_model(name))
    again = Variant.load(made.save(tmp_path / "a"))
    assert again.digest == made.digest and torch.equal(run(again), run(made))


def test_it_is_coded_too(lenet):
    made = FactorizeLowRank(keep=0.5)(lenet)
    assert decode(encode(made)).digest == made.digest


def test_grouped_convolutions_and_small_layers_stay():
    mobilenet = load_model("mobilenet@digits")
    made = FactorizeLowRank(keep=0.7)(mobilenet)
    grouped = [
        name for name, m in mobilenet.model.named_modules() if isinstance(m, nn.Conv2d) and m.groups > 1
    ]
    assert grouped and not set(grouped) & set(made.model.config["low_rank"])
    before, after = (sum(p.numel() for p in each.model.parameters()) for each in (mobilenet, made))
    assert after < before


def test_what_gains_nothing_is_refused(lenet):
    with pytest.raises(TechniqueError, match=r"lower keep=0\.9999"):
        FactorizeLowRank(keep=0.9999)(
            dataclasses.replace(lenet, model=build({**lenet.model.config, "hidden": 12}))
        )


@pytest.mark.parametrize(
    ("ranks", "says"),
    [
        ({"fc9": 3}, "low_rank names 'fc9'"),
        ({"dropout": 3}, "which is no linear layer"),
        ({"fc2": 11}, r"low_rank\['fc2'\]=11 must be a whole number 1..10"),
        ({"fc2": True}, "must be a whole number"),
        ([3], "must map layers to ranks"),
    ],
)
def test_a_config_that_cannot_be_is_refused(ranks, says, lenet):
    with pytest.raises(ConfigError, match=says):
        build({**lenet.model.config, "low_rank": ranks})


def test_a_network_keeps_its_precision(cases):
    variant, _ = cases["regression"]
    spec = [dataclasses.replace(each, dtype="float64") for each in (*variant.inputs, *variant.outputs)]
    double = dataclasses.replace(
        variant, model=copy.deepcopy(variant.model).double(), inputs=spec[:1], outputs=spec[1:]
    )
    made = FactorizeLowRank(by="parameters", keep=0.5)(double)
    assert {parameter.dtype for parameter in made.model.parameters()} == {torch.float64}


def test_a_weight_that_is_no_number_is_named(lenet):
    model = copy.deepcopy(lenet.model)
    with torch.no_grad():
        model.fc1.weight[2, 3] = torch.nan
    with pytest.raises(TechniqueError, match="'fc1' .* NaN"):
        FactorizeLowRank()(dataclasses.replace(lenet, model=model))


class Shared(nn.Module):
    """A weight in two layers, a layer in two places, and a block in two places; `first` and `last` are their own."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(6, 64), nn.Linear(64, 10)
        self.a, self.b = nn.Linear(64, 64), nn.Linear(64, 64)
        self.b.weight = self.a.weight
        self.c = self.d = nn.Linear(64, 64)
        block = nn.Sequential(nn.Linear(64, 64), nn.ReLU())
        self.blocks = nn.Sequential(block, block)

    def forward(self, x):
        return self.last(self.blocks(self.d(self.c(self.b(self.a(self.first(x))))).relu()))


def vectors(model, *shape):
    inputs, outputs = (
        TensorSpec("x", "float32", ("batch", *shape)),
        TensorSpec("y", "float32", ("batch", 10)),
    )
    return Variant("own", "torch", model.eval(), (inputs,), (outputs,))


def test_layers_that_share_a_weight_stay_whole_and_go_on_sharing_it():
    variant = vectors(Shared(), 6)
    made = FactorizeLowRank(by="parameters", keep=0.5)(variant)
    model = made.model
    assert model.b.weight is model.a.weight and model.d is model.c and model.blocks[0] is model.blocks[1]
    assert isinstance(model.c, nn.Linear)
    assert [len(each) for each in (model.first, model.last, model.blocks[0][0])] == [2, 2, 2]
    before, after = (sum(p.numel() for p in each.model.parameters()) for each in (variant, made))
    assert after < before


class Reads(nn.Module):
    """What many networks do: look at a layer's weight, here for its type, or multiply with it."""

    def __init__(self, *own):
        super().__init__()
        self.cast, self.tied = nn.Linear(64, 64), nn.Linear(64, 64)
        self.rest = nn.Sequential(*own)

    def forward(self, x):
        x = self.cast(x.to(self.cast.weight.dtype)).relu()
        return self.rest(nn.functional.linear(x, self.tied.weight, self.tied.bias))


def test_a_layer_whose_weight_the_network_reads_stays_whole():
    made = FactorizeLowRank(keep=0.3)(vectors(Reads(nn.Linear(64, 10)), 64))
    assert isinstance(made.model.cast, nn.Linear) and isinstance(made.model.tied, nn.Linear)
    assert len(made.model.rest[0]) == 2


def test_the_layers_of_pytorch_s_transformer_stay_whole_where_it_reads_their_weights():
    encoder = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, dropout=0.0)
    made = FactorizeLowRank(keep=0.3)(vectors(nn.Sequential(encoder, nn.Flatten(), nn.Linear(80, 10)), 5, 16))
    assert isinstance(made.model[0].linear1, nn.Linear) and len(made.model[2]) == 2


def test_where_all_layers_must_stay_whole_the_refusal_names_them():
    with pytest.raises(TechniqueError, match=r"no layer of 'own'.*; 2 stay whole, .* \('cast', 'tied'\)"):
        FactorizeLowRank(keep=0.3)(vectors(Reads(nn.AdaptiveAvgPool1d(10)), 64))
