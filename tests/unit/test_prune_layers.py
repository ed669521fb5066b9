"""Which weights of a module are pruned: those that its ONNX file would be pruned of, too."""

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from labkit.convert import ExportOnnx
from labkit.errors import TechniqueError
from labkit.prune import PruneMagnitude
from labkit.prune.masks import input_axes, prunable_layers, silence
from labkit.variant import TensorSpec, Variant


class Growing(nn.Module):
    """A transposed convolution before a plain one."""

    def __init__(self):
        super().__init__()
        self.grow, self.conv = nn.ConvTranspose2d(4, 16, 3, padding=1), nn.Conv2d(16, 10, 1)

    def forward(self, x):
        return self.conv(torch.relu(self.grow(x))).mean((2, 3))


class Attending(nn.Module):
    """An attention before a linear layer."""

    def __init__(self, **sizes):
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True, **sizes)
        self.fc = nn.Linear(16, 10)

    def forward(self, x):
        return self.fc(self.attention(x, x, x, need_weights=False)[0].mean(1))


def variant_of(module, *shape):
    torch.manual_seed(0)
    specs = [TensorSpec("x", "float32", ("batch", *shape)), TensorSpec("y", "float32", ("batch", 10))]
    return Variant("made", "torch", module.eval(), (specs[0],), (specs[1],))


def zeros(values):
    return {each.size: int((each == 0).sum()) for each in values if each.size > 64}  # without the biases


@pytest.mark.parametrize(
    ("module", "shape"), [(Growing(), (4, 8, 8)), (Attending(), (5, 16))], ids=["transposed", "attention"]
)
def test_a_module_loses_what_its_file_loses(module, shape):
    variant = variant_of(module, *shape)
    pruned = PruneMagnitude(sparsity=0.5, scope="layer")(variant)
    of_module = zeros(value.numpy() for value in pruned.model.state_dict().values())
    file = onnx.load_model_from_string(
        PruneMagnitude(sparsity=0.5, scope="layer")(ExportOnnx()(variant)).payload
    )
    assert of_module == zeros(map(numpy_helper.to_array, file.graph.initializer))
    assert all(count == size // 2 for size, count in of_module.items())


def test_of_a_transposed_convolution_every_four_inputs_lose_two():
    module = nn.Sequential(nn.ConvTranspose1d(8, 6, 3, groups=2), nn.Conv1d(6, 4, 1))
    assert input_axes(module) == [0, 1]
    weight = PruneMagnitude(sparsity=0.5, scope="n:m", group_size=4)(variant_of(module, 8, 9)).model[0].weight
    assert np.array_equal((weight == 0).reshape(2, 4, 3, 3).sum(1), np.full((2, 3, 3), 2))


@pytest.mark.parametrize("groups", [1, 2])
def test_a_bias_goes_with_the_last_weight_of_its_output(groups):
    layer = nn.ConvTranspose2d(4, 6, 3, groups=groups)
    with torch.no_grad():
        layer.bias.fill_(1.0)
    mask = torch.zeros(layer.weight.shape, dtype=torch.bool)
    mask[-2:, 1] = True  # of one group all inputs that there are, of two the second's
    silence(layer, [mask])
    alive = torch.nonzero(layer.bias == 0).flatten().tolist()
    assert alive == ([] if groups == 1 else [4])


def test_the_input_projections_of_an_attention_are_layers_of_their_own():
    assert list(prunable_layers(Attending())) == ["attention.in_proj", "attention.out_proj", "fc"]
    module = Attending(kdim=16, vdim=8)
    assert list(prunable_layers(module))[:3] == ["attention.q_proj", "attention.k_proj", "attention.v_proj"]
    with torch.no_grad():
        module.attention.in_proj_bias.fill_(1.0)
    masks = [torch.zeros(weight.shape, dtype=torch.bool) for weight in prunable_layers(module).values()]
    masks[1][3] = True
    silence(module, masks)
    assert torch.nonzero(module.attention.in_proj_bias == 0).flatten().tolist() == [16 + 3]


@pytest.mark.parametrize(
    ("computed", "advice"),
    [
        (torch.nn.utils.weight_norm, r"torch\.nn\.utils\.remove_weight_norm\(layer\)"),
        (torch.nn.utils.spectral_norm, r"torch\.nn\.utils\.remove_spectral_norm\(layer\)"),
        (torch.nn.utils.parametrizations.weight_norm, r"remove_parametrizations\(layer, 'weight'\)"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_a_weight_that_is_computed_is_refused_with_what_stores_it(computed, advice):
    module = nn.Sequential(computed(nn.Linear(4, 4)))
    with pytest.raises(
        TechniqueError, match=f"the weight of '0' .*: store it first, with .*{advice}"
    ) as refused:
        prunable_layers(module)
    typed = str(refused.value).partition("with ")[2]
    exec(typed, {"torch": torch, "layer": module[0]})  # noqa: S102 - what a reader would type
    assert list(prunable_layers(module)) == ["0"]
