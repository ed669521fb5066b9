"""The matrix's PyTorch networks: small ones, each for an operator or a habit that converters have stumbled over."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from labkit.models import build
from labkit.variant import Array
from labkit.zoo import load_model


def shipped(name: str) -> Callable[[Mapping[str, Array]], nn.Module]:
    """A trained network from the zoo."""

    def make(_: Mapping[str, Array]) -> nn.Module:
        module: nn.Module = load_model(name).model
        return module

    return make


def fresh(architecture: str, *shape: int) -> Callable[[Mapping[str, Array]], nn.Module]:
    """One of labkit's architectures for images of `shape`, as `seeded` leaves it."""
    return seeded(lambda: build({"architecture": architecture, "input_shape": shape, "num_outputs": 10}))


def seeded(create: Callable[[], nn.Module]) -> Callable[[Mapping[str, Array]], nn.Module]:
    """An untrained network, the same each time, in which every part has a say.

    As they are created, a batch norm's scale is 1 and its shift and mean are 0, and folding it away wrongly would not
    be seen: so they are drawn, and the statistics are those of a pass over samples. And all samples would give nearly
    the same logits: so the last layer's inputs are standardised over those samples.
    """

    def make(feeds: Mapping[str, Array]) -> nn.Module:
        tensors = [torch.from_numpy(array) for array in feeds.values()]
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            module = create()
            norms = [each for each in module.modules() if isinstance(each, nn.BatchNorm1d | nn.BatchNorm2d)]
            for norm in norms:
                norm.weight.uniform_(0.5, 1.5)
                norm.bias.normal_(std=0.2)
                norm.momentum = 1.0  # keep nothing of the former statistics
            module.train()(*tensors)
            for norm in norms:
                norm.momentum = 0.1
            _spread(module.eval(), tensors)
        return module

    return make


def _spread(module: nn.Module, tensors: list[Tensor]) -> None:
    """Let the last linear layer, if there is one, read (x − mean) / std of what it reads on these samples."""
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    if not layers:
        return
    read: list[Tensor] = []
    handle = layers[-1].register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    module(*tensors)
    handle.remove()
    mean, std = read[0].mean(0), read[0].std(0)
    layers[-1].weight /= std.clamp(min=float(std.mean()) / 4)
    layers[-1].bias -= layers[-1].weight @ mean


class Recurrent(nn.Module):
    """Series [N, T, 8] → logits [N, 5]: two recurrent layers, batch first, read at the last step."""

    def __init__(self, kind: type[nn.RNNBase], bidirectional: bool) -> None:
        super().__init__()
        self.rnn = kind(8, 24, num_layers=2, batch_first=True, bidirectional=bidirectional)
        self.fc = nn.Linear(48 if bidirectional else 24, 5)

    def forward(self, series: Tensor) -> Tensor:
        """See the class."""
        return self.fc(self.rnn(series)[0][:, -1])


class Encoder(nn.Module):
    """Series [N, T, 12] → logits [N, 6]: PyTorch's own transformer encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(12, 32)
        layer = nn.TransformerEncoderLayer(32, 4, 64, activation="gelu", batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.fc = nn.Linear(32, 6)

    def forward(self, series: Tensor) -> Tensor:
        """See the class."""
        return self.fc(self.encoder(self.embed(series)).mean(1))


class Bert(nn.Module):
    """Ids and mask, both [N, T] int64 → logits [N, 3]: BERT's arithmetic with PyTorch's layers (post-norm, GELU).

    The first place is never masked (BERT's own [CLS] stands there): where all of a row is, PyTorch gives NaN.
    """

    def __init__(self, longest: int) -> None:
        super().__init__()
        self.words = nn.Embedding(100, 32, padding_idx=0)
        self.places = nn.Embedding(longest, 32)
        self.norm = nn.LayerNorm(32)
        layer = nn.TransformerEncoderLayer(32, 4, 64, activation="gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.pooler, self.fc = nn.Linear(32, 32), nn.Linear(32, 3)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """See the class."""
        places = torch.arange(ids.shape[1])
        x = self.norm(self.words(ids) + self.places(places))
        x = self.encoder(x, src_key_padding_mask=(mask == 0) & (places > 0))
        return self.fc(torch.tanh(self.pooler(x[:, 0])))


class LibraryBert(nn.Module):
    """Ids and mask, both [N, T] int64 → logits [N, 3]: the BERT of `transformers`, built from its config."""

    def __init__(self, longest: int) -> None:
        from transformers import BertConfig, BertForSequenceClassification

        super().__init__()
        sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
        config = BertConfig(vocab_size=100, max_position_embeddings=longest, num_labels=3, **sizes)
        self.body = BertForSequenceClassification(config)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """See the class."""
        return self.body(input_ids=ids, attention_mask=mask).logits


class WordBag(nn.Module):
    """Ids and mask, both [N, T] int64, T free → logits [N, 3]: the mean of the embeddings not masked."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(100, 16)
        self.fc1, self.fc2 = nn.Linear(16, 32), nn.Linear(32, 3)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """See the class."""
        weights = mask.to(torch.float32).unsqueeze(-1)
        mean = (self.table(ids) * weights).sum(1) / weights.sum(1).clamp(min=1.0)
        return self.fc2(torch.relu(self.fc1(mean)))


def conv_bn(
    inputs: int, outputs: int, kernel: int = 3, activation: type[nn.Module] = nn.ReLU, **more: Any
) -> Any:
    """Convolution, batch norm, activation; the image keeps its size unless a stride says otherwise."""
    convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False, **more)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), activation())


class UNet(nn.Module):
    """Image [N, 1, 32, 32] → map [N, 2, 32, 32]: down, up by transposed convolutions, joined across."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.bottom = conv_bn(1, 8), conv_bn(8, 16), conv_bn(16, 32)
        self.up2 = nn.ConvTranspose2d(32, 16, 2, stride=2)
        self.up1 = nn.ConvTranspose2d(16, 8, 3, stride=2, padding=1, output_padding=1)
        self.join2, self.join1 = conv_bn(32, 16), conv_bn(16, 8)
        self.out = nn.Conv2d(8, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        """See the class."""
        first = self.down1(image)
        second = self.down2(functional.max_pool2d(first, 2))
        x = self.bottom(functional.max_pool2d(second, 2))
        x = self.join2(torch.cat([self.up2(x), second], dim=1))
        return self.out(self.join1(torch.cat([self.up1(x), first], dim=1)))


class GroupNormNet(nn.Sequential):
    """Image [N, 3, 24, 24] → logits [N, 7]: GroupNorm and SiLU, and padding that reflects."""

    def __init__(self) -> None:
        super().__init__(
            *(nn.Conv2d(3, 16, 3, padding=1, padding_mode="reflect"), nn.GroupNorm(4, 16), nn.SiLU()),
            *(nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.GroupNorm(8, 32), nn.SiLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 7)),
        )


class TwoTowers(nn.Module):
    """Image [N, 3, 24, 24] and numbers [N, 6] → (logits [N, 4], embedding [N, 16] of length 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Sequential(
            conv_bn(3, 8), conv_bn(8, 16, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        self.numbers = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.LeakyReLU(0.1))
        self.fc = nn.Linear(32, 4)

    def forward(self, image: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        left, right = self.image(image), self.numbers(numbers)
        return self.fc(torch.cat([left, right], dim=1)), functional.normalize(left * right, dim=1)


class ChannelsLast(nn.Module):
    """Image [N, 20, 20, 3] → logits [N, 5]: a ConvNeXt block, whose linear layers want the channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 4, stride=4)
        self.depthwise = nn.Conv2d(16, 16, 5, padding=2, groups=16)
        self.norm = nn.LayerNorm(16)
        self.mlp = nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 16))
        self.scale = nn.Parameter(torch.rand(16))
        self.fc = nn.Linear(16, 5)

    def forward(self, image: Tensor) -> Tensor:
        """See the class."""
        x = self.stem(image.permute(0, 3, 1, 2))
        y = self.mlp(self.norm(self.depthwise(x).permute(0, 2, 3, 1))) * self.scale
        return self.fc((x + y.permute(0, 3, 1, 2)).mean((2, 3)))


class Audio(nn.Module):
    """Wave [N, 1, 512] → logits [N, 5]: dilated 1-D convolutions, gated as in WaveNet."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv1d(1, 16, 8, stride=4)
        self.layers = nn.ModuleList(
            nn.Conv1d(16, 32, 3, dilation=dilation, padding=dilation) for dilation in (1, 2, 4, 8)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(32) for _ in self.layers)
        self.fc = nn.Linear(16, 5)

    def forward(self, wave: Tensor) -> Tensor:
        """See the class."""
        x = self.stem(wave)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            filtered, gate = norm(layer(x)).chunk(2, dim=1)
            x = x + torch.tanh(filtered) * torch.sigmoid(gate)
        return self.fc(functional.adaptive_max_pool1d(x, 1).flatten(1))


class DenseNet(nn.Module):
    """Image [N, 3, 24, 24] → logits [N, 6]: each layer reads all before it, batch norm first."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        widths = range(12, 12 + 4 * 8, 8)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths)
        self.layers = nn.ModuleList(nn.Conv2d(width, 8, 3, padding=1, bias=False) for width in widths)
        self.fc = nn.Linear(44, 6)

    def forward(self, image: Tensor) -> Tensor:
        """See the class."""
        x = functional.max_pool2d(self.stem(image), 3, stride=2, padding=1)
        for norm, layer in zip(self.norms, self.layers, strict=True):
            x = torch.cat([x, layer(torch.relu(norm(x)))], dim=1)
        return self.fc(functional.avg_pool2d(x, 2).mean((2, 3)))


class MobileNetV3(nn.Module):
    """Image [N, 3, 32, 32] → logits [N, 8]: grouped and depthwise, squeeze-and-excitation, hard-swish."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 16, activation=nn.Hardswish, stride=2)
        self.grouped = conv_bn(16, 32, activation=nn.Hardswish, groups=4)
        self.depthwise = conv_bn(32, 32, 5, nn.Hardswish, stride=2, groups=32)
        self.squeeze, self.excite = nn.Conv2d(32, 8, 1), nn.Conv2d(8, 32, 1)
        self.narrow = conv_bn(32, 24, 1, nn.Identity)
        self.fc1, self.fc2 = nn.Linear(24, 48), nn.Linear(48, 8)

    def forward(self, image: Tensor) -> Tensor:
        """See the class."""
        x = self.depthwise(self.grouped(self.stem(image)))
        attention = self.excite(torch.relu(self.squeeze(functional.adaptive_avg_pool2d(x, 1))))
        x = self.narrow(x * functional.hardsigmoid(attention))
        return self.fc2(functional.hardswish(self.fc1(x.mean((2, 3)))))
