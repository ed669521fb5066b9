"""Small networks in the style of public libraries, which nobody wrote with pruning in mind.

Each has random weights and batch norms that have seen something; `ARCHITECTURES` maps a name to what makes it.
Every one takes images [N, 3, 16, 16] and gives logits [N, 10], or an image for the U-Net.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from labkit.variant import TensorSpec, Variant

IMAGE = (3, 16, 16)


def conv_bn(inputs, outputs, kernel=3, stride=1, groups=1, activation=nn.ReLU):
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), *([activation()] if activation else []))


class Head(nn.Module):
    """A body of feature maps, then the average over the image and one linear layer."""

    def __init__(self, body, channels):
        super().__init__()
        self.body, self.pool, self.fc = body, nn.AdaptiveAvgPool2d(1), nn.Linear(channels, 10)

    def forward(self, x):
        return self.fc(torch.flatten(self.pool(self.body(x)), 1))


class BasicBlock(nn.Module):
    """torchvision, resnet.py."""

    def __init__(self, inputs, outputs, stride=1):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
        self.downsample = (
            conv_bn(inputs, outputs, 1, stride, activation=None) if stride > 1 or inputs != outputs else None
        )

    def forward(self, x):
        identity = x if self.downsample is None else self.downsample(x)
        y = functional.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += identity
        return functional.relu(y)


class Bottleneck(nn.Module):
    """torchvision, resnet.py: 1×1, 3×3, 1×1; with `groups` it is a ResNeXt's."""

    def __init__(self, inputs, width, outputs, stride=1, groups=1):
        super().__init__()
        self.conv1 = conv_bn(inputs, width, 1)
        self.conv2 = conv_bn(width, width, 3, stride, groups)
        self.conv3 = conv_bn(width, outputs, 1, activation=None)
        self.shortcut = conv_bn(inputs, outputs, 1, stride, activation=None)

    def forward(self, x):
        return functional.relu(self.conv3(self.conv2(self.conv1(x))) + self.shortcut(x))


class PaddedShortcut(nn.Module):
    """He et al. 2016, option A: the shortcut drops pixels and pads the new channels with zeros."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv, self.extra = conv_bn(inputs, outputs, 3, 2, activation=None), (outputs - inputs) // 2

    def forward(self, x):
        short = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.extra, self.extra))
        return functional.relu(self.conv(x) + short)


class SqueezeExcite(nn.Module):
    """torchvision, ops/misc.py: a gate for each channel, from the means of all of them."""

    def __init__(self, channels, squeezed, gate=nn.Sigmoid):
        super().__init__()
        self.fc1, self.fc2, self.gate = (
            nn.Conv2d(channels, squeezed, 1),
            nn.Conv2d(squeezed, channels, 1),
            gate(),
        )

    def forward(self, x):
        scale = functional.adaptive_avg_pool2d(x, 1)
        return self.gate(self.fc2(functional.relu(self.fc1(scale)))) * x


class InvertedResidual(nn.Module):
    """MobileNetV2, and with `squeeze` MobileNetV3 and EfficientNet."""

    def __init__(self, inputs, outputs, expansion=3, stride=1, activation=nn.ReLU6, squeeze=None, kernel=3):
        super().__init__()
        inner = inputs * expansion
        gate = [squeeze(inner)] if squeeze else []
        self.layers = nn.Sequential(
            conv_bn(inputs, inner, 1, activation=activation),
            conv_bn(inner, inner, kernel, stride, inner, activation),
            *gate,
            conv_bn(inner, outputs, 1, activation=None),
        )
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x):
        return x + self.layers(x) if self.adds else self.layers(x)


class DenseLayer(nn.Module):
    """torchvision, densenet.py: norm, ReLU, 1×1, norm, ReLU, 3×3, and the input kept beside the result."""

    def __init__(self, inputs, growth):
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, 2 * growth, 1, bias=False)
        self.norm2, self.conv2 = (
            nn.BatchNorm2d(2 * growth),
            nn.Conv2d(2 * growth, growth, 3, 1, 1, bias=False),
        )

    def forward(self, x):
        y = self.conv1(functional.relu(self.norm1(x)))
        return torch.cat([x, self.conv2(functional.relu(self.norm2(y)))], 1)


class Inception(nn.Module):
    """GoogLeNet: four branches of different widths side by side."""

    def __init__(self, inputs):
        super().__init__()
        self.one = conv_bn(inputs, 8, 1)
        self.three = nn.Sequential(conv_bn(inputs, 6, 1), conv_bn(6, 12, 3))
        self.five = nn.Sequential(conv_bn(inputs, 4, 1), conv_bn(4, 6, 5))
        self.pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), conv_bn(inputs, 5, 1))

    def forward(self, x):
        return torch.cat([self.one(x), self.three(x), self.five(x), self.pool(x)], 1)


def channel_shuffle(x, groups):
    n, channels, height, width = x.shape
    x = x.view(n, groups, channels // groups, height, width)
    return x.transpose(1, 2).contiguous().view(n, channels, height, width)


class ShuffleUnit(nn.Module):
    """ShuffleNetV2: half of the channels pass, half are worked on, and then they are shuffled."""

    def __init__(self, channels):
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(
            conv_bn(half, half, 1), conv_bn(half, half, 3, 1, half, None), conv_bn(half, half, 1)
        )

    def forward(self, x):
        first, second = x.chunk(2, dim=1)
        return channel_shuffle(torch.cat((first, self.branch(second)), 1), 2)


class GroupShuffle(nn.Module):
    """ShuffleNetV1: two grouped 1×1 convolutions with a shuffle between them."""

    def __init__(self, channels, groups):
        super().__init__()
        self.first, self.groups = conv_bn(channels, channels, 1, 1, groups), groups
        self.middle = conv_bn(channels, channels, 3, 1, channels, None)
        self.last = conv_bn(channels, channels, 1, 1, groups, None)

    def forward(self, x):
        y = channel_shuffle(self.first(x), self.groups)
        return functional.relu(x + self.last(self.middle(y)))


class VGG(nn.Module):
    """Convolutions, then a flattened image of 4×4 pixels a channel read by linear layers."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 12, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(12, 20, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Linear(20 * 4 * 4, 40),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(40, 24),
            nn.ReLU(),
            nn.Linear(24, 10),
        )

    def forward(self, x):
        return self.classifier(torch.flatten(self.features(x), 1))


class Attention(nn.Module):
    """timm, layers/attention.py: one product for queries, keys and values, taken apart after a reshape."""

    def __init__(self, dim, heads, head_dim):
        super().__init__()
        self.num_heads, self.head_dim = heads, head_dim
        self.qkv, self.proj = nn.Linear(dim, 3 * heads * head_dim), nn.Linear(heads * head_dim, dim)

    def forward(self, x):
        n, tokens, _ = x.shape
        qkv = self.qkv(x).reshape(n, tokens, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        scores = (q * self.head_dim**-0.5) @ k.transpose(-2, -1)
        y = (scores.softmax(-1) @ v).transpose(1, 2).reshape(n, tokens, self.num_heads * self.head_dim)
        return self.proj(y)


class SeparateAttention(nn.Module):
    """Hugging Face, BERT: three products, `view` to heads, torch's own attention."""

    def __init__(self, dim, heads):
        super().__init__()
        self.num_attention_heads, self.attention_head_size = heads, dim // heads
        self.all_head_size = dim
        self.query, self.key, self.value = (nn.Linear(dim, dim) for _ in range(3))
        self.dense = nn.Linear(dim, dim)

    def forward(self, x):
        shape = (*x.shape[:-1], self.num_attention_heads, self.attention_head_size)
        q, k, v = (layer(x).view(shape).transpose(1, 2) for layer in (self.query, self.key, self.value))
        y = functional.scaled_dot_product_attention(q, k, v)
        return self.dense(y.transpose(1, 2).reshape(*x.shape[:-1], self.all_head_size))


class Encoder(nn.Module):
    """norm, attention, norm, MLP, each added to the stream."""

    def __init__(self, dim, attention):
        super().__init__()
        self.norm1, self.attn, self.norm2 = nn.LayerNorm(dim), attention, nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """Patches, a class token, learnt positions, two blocks, the class token read out."""

    def __init__(self, dim=24):
        super().__init__()
        self.patches = nn.Conv2d(3, dim, 4, 4)
        self.cls, self.positions = nn.Parameter(torch.randn(1, 1, dim)), nn.Parameter(torch.randn(1, 17, dim))
        self.blocks = nn.Sequential(
            Encoder(dim, Attention(dim, 4, 6)), Encoder(dim, SeparateAttention(dim, 6))
        )
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, 10)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], 1) + self.positions
        return self.head(self.norm(self.blocks(x))[:, 0])


class UNet(nn.Module):
    """Down, up with a transposed convolution or by interpolation, and what was there before beside it."""

    def __init__(self):
        super().__init__()
        self.down1, self.down2, self.bottom = conv_bn(3, 8), conv_bn(8, 12), conv_bn(12, 16)
        self.up2 = nn.ConvTranspose2d(16, 10, 2, 2)
        self.merge2, self.merge1, self.last = conv_bn(22, 12), conv_bn(20, 8), nn.Conv2d(8, 2, 1)

    def forward(self, x):
        first = self.down1(x)
        second = self.down2(functional.max_pool2d(first, 2))
        bottom = self.bottom(functional.max_pool2d(second, 2))
        y = self.merge2(torch.cat([self.up2(bottom), second], 1))
        y = functional.interpolate(y, scale_factor=2.0, mode="nearest")
        return self.last(self.merge1(torch.cat([y, first], 1)))


def resnet_basic():
    return Head(nn.Sequential(conv_bn(3, 8), BasicBlock(8, 8), BasicBlock(8, 16, 2), BasicBlock(16, 16)), 16)


def resnet_bottleneck():
    return Head(nn.Sequential(conv_bn(3, 8), Bottleneck(8, 6, 16, 2), Bottleneck(16, 8, 16)), 16)


def resnet_padded():
    return Head(nn.Sequential(conv_bn(3, 8), BasicBlock(8, 8), PaddedShortcut(8, 16), BasicBlock(16, 16)), 16)


def resnext():
    blocks = [Bottleneck(8, 16, 12, 2, groups=8), Bottleneck(12, 16, 12, groups=2)]
    return Head(nn.Sequential(conv_bn(3, 8), *blocks), 12)


def mobilenet_v2():
    blocks = [InvertedResidual(8, 12, stride=2), InvertedResidual(12, 12), InvertedResidual(12, 16, stride=2)]
    return Head(nn.Sequential(conv_bn(3, 8, activation=nn.ReLU6), *blocks), 16)


def mobilenet_v3():
    def squeeze(inner):
        return SqueezeExcite(inner, inner // 4, nn.Hardsigmoid)

    blocks = [
        InvertedResidual(8, 12, stride=2, activation=nn.Hardswish, squeeze=squeeze, kernel=5),
        InvertedResidual(12, 12, activation=nn.Hardswish, squeeze=squeeze),
    ]
    return Head(nn.Sequential(conv_bn(3, 8, activation=nn.Hardswish), *blocks), 12)


def efficientnet():
    def squeeze(inner):
        return SqueezeExcite(inner, 4)

    blocks = [
        InvertedResidual(8, 12, 4, 2, nn.SiLU, squeeze),
        InvertedResidual(12, 12, 4, 1, nn.SiLU, squeeze),
    ]
    return Head(
        nn.Sequential(conv_bn(3, 8, activation=nn.SiLU), *blocks, conv_bn(12, 24, 1, activation=nn.SiLU)), 24
    )


def densenet():
    block1 = [DenseLayer(8 + 4 * i, 4) for i in range(3)]
    transition = [nn.BatchNorm2d(20), nn.ReLU(), nn.Conv2d(20, 10, 1, bias=False), nn.AvgPool2d(2)]
    block2 = [DenseLayer(10 + 4 * i, 4) for i in range(2)]
    return Head(
        nn.Sequential(conv_bn(3, 8), *block1, *transition, *block2, nn.BatchNorm2d(18), nn.ReLU()), 18
    )


def inception():
    return Head(nn.Sequential(conv_bn(3, 8), Inception(8), nn.MaxPool2d(2), Inception(31)), 31)


def shufflenet():
    return Head(nn.Sequential(conv_bn(3, 16), ShuffleUnit(16), ShuffleUnit(16), conv_bn(16, 24, 1)), 24)


def shufflenet_grouped():
    return Head(nn.Sequential(conv_bn(3, 12), GroupShuffle(12, 3), conv_bn(12, 16, 1)), 16)


def group_norm():
    body = [
        nn.Conv2d(3, 12, 3, padding=1),
        nn.GroupNorm(6, 12),
        nn.ReLU(),
        nn.Conv2d(12, 16, 3),
        nn.GroupNorm(4, 16),
    ]
    return Head(nn.Sequential(*body, nn.ReLU()), 16)


ARCHITECTURES = {
    "resnet_basic": resnet_basic,
    "resnet_bottleneck": resnet_bottleneck,
    "resnet_padded": resnet_padded,
    "resnext": resnext,
    "mobilenet_v2": mobilenet_v2,
    "mobilenet_v3": mobilenet_v3,
    "efficientnet": efficientnet,
    "densenet": densenet,
    "inception": inception,
    "shufflenet": shufflenet,
    "shufflenet_grouped": shufflenet_grouped,
    "vgg": VGG,
    "vit": ViT,
    "unet": UNet,
    "group_norm": group_norm,
}


def make(name, seed=0):
    """The architecture as a variant: no parameter or statistic at its first value, and signals that do not fade."""
    torch.manual_seed(seed)
    module = ARCHITECTURES[name]()
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight)
    with torch.no_grad():
        for key, tensor in module.state_dict().items():
            if key.endswith("running_var"):
                tensor.uniform_(0.5, 2.0)
            elif tensor.ndim == 1:
                tensor.add_(0.3 * torch.randn(tensor.shape))
    outputs = ("batch", 2, 16, 16) if name == "unet" else ("batch", 10)
    specs = TensorSpec("image", "float32", ("batch", *IMAGE)), TensorSpec("logits", "float32", outputs)
    return Variant(name, "torch", module.eval(), specs[:1], specs[1:])
