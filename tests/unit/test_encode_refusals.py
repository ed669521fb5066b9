"""A network that its config would not rebuild is refused before it is coded, and what differs is named."""

from __future__ import annotations

import copy
import dataclasses

import pytest
from torch import nn
from torch.nn.utils import weight_norm as old_weight_norm
from torch.nn.utils.parametrizations import weight_norm

from labkit.encode import encode
from labkit.errors import ModelFileError


def wider(model):
    model.fc1 = nn.Linear(model.fc1.in_features, 510)


def longer(model):
    model.extra = nn.Linear(3, 3)


def shorter(model):
    model.fc2 = nn.Identity()


@pytest.mark.filterwarnings("ignore::FutureWarning")  # the older weight_norm is deprecated
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda model: weight_norm(model.fc1), r"no 'fc1\.weight', .*remove_parametrizations"),
        (lambda model: old_weight_norm(model.fc1), r"no 'fc1\.weight', .*remove_weight_norm\(layer\)"),
        (shorter, r"no 'fc2\.weight', which the lenet5 of its config has"),
        (longer, r"'extra\.weight', which the lenet5 of its config has not"),
        (
            wider,
            r"'fc1\.weight' of \[510, \d+\], where the lenet5 of its config has \[500, \d+\].* model\.config",
        ),
    ],
)
def test_a_network_that_is_not_its_config_s_is_refused_and_the_tensor_is_named(change, says, lenet):
    model = copy.deepcopy(lenet.model)
    change(model)
    with pytest.raises(ModelFileError, match=says):
        encode(dataclasses.replace(lenet, model=model))
