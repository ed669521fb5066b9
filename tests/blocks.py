"""Single blocks of published networks whose channels are hard to follow, each with random weights.

`BLOCKS` maps a name to what makes it; every one takes images [N, 3, 16, 16].
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class Tokens(nn.Module):
    """Patches of 4×4 pixels as [N, 16, D], the block with what it is added to, the mean of the tokens, ten logits."""

    def __init__(self, block, dim=24):
        super().__init__()
        self.patches, self.block, self.head = nn.Conv2d(3, dim, 4, 4), block, nn.Linear(dim, 10)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2).contiguous()
        return self.head((x + self.block(x)).mean(1))


class Image(nn.Module):
    """A convolution with 16 channels, the block, and a convolution with 4, whose images are the answer."""

    def __init__(self, block, channels):
        super().__init__()
        self.first, self.block, self.last = nn.Conv2d(3, 16, 3, padding=1), block, nn.Conv2d(channels, 4, 1)

    def forward(self, x):
        return self.last(functional.relu(self.block(functional.relu(self.first(x)))))


class EinsumAttention(nn.Module):
    """vit-pytorch: products of queries, keys and values in Einstein's notation, and heads mixed (DeepViT)."""

    def __init__(self, dim=24, heads=4):
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim) for _ in range(4))
        self.num_heads = heads

    def forward(self, x):
        n, tokens, dim = x.shape
        q, k, v = (
            layer(x).reshape(n, tokens, self.num_heads, -1).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        weights = torch.einsum("bhid,bhjd->bhij", q, k).softmax(-1)
        return self.out(torch.einsum("b h i j, b h j d -> b h i d", weights, v).transpose(1, 2).flatten(2))


class GroupedQueryAttention(nn.Module):
    """Llama: two heads of queries share one of keys and values, which are repeated by an expand."""

    def __init__(self, dim=24, heads=8, shared=2, head_dim=3):
        super().__init__()
        self.head_dim, self.repeats = head_dim, shared
        self.query, self.out = nn.Linear(dim, heads * head_dim), nn.Linear(heads * head_dim, dim)
        self.key, self.value = (nn.Linear(dim, heads // shared * head_dim) for _ in range(2))

    def repeat(self, x):
        n, heads, tokens, dim = x.shape
        x = x[:, :, None].expand(n, heads, self.repeats, tokens, dim)
        return x.reshape(n, heads * self.repeats, tokens, dim)

    def forward(self, x):
        q, k, v = (
            layer(x).view(*x.shape[:-1], -1, self.head_dim).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        y = (q @ self.repeat(k).transpose(2, 3)).softmax(-1) @ self.repeat(v)
        return self.out(y.transpose(1, 2).reshape(*x.shape[:-1], -1))


class Conv1D(nn.Module):
    """GPT-2's name for a linear layer whose weight is [inputs, outputs]; it keeps its width as `nf`."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.nf = outputs
        self.weight, self.bias = (
            nn.Parameter(torch.randn(inputs, outputs)),
            nn.Parameter(torch.randn(outputs)),
        )

    def forward(self, x):
        y = torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight)
        return y.view(x.size()[:-1] + (self.nf,))


class GPT2Attention(nn.Module):
    """One product makes queries, keys and values, and is split by a width that the attention keeps."""

    def __init__(self, dim=24, heads=4):
        super().__init__()
        self.split_size, self.head_dim = dim, dim // heads
        self.c_attn, self.c_proj = Conv1D(dim, 3 * dim), Conv1D(dim, dim)

    def forward(self, x):
        shape = (*x.shape[:-1], -1, self.head_dim)
        q, k, v = (part.view(shape).transpose(1, 2) for part in self.c_attn(x).split(self.split_size, dim=2))
        y = functional.scaled_dot_product_attention(q, k, v)
        return self.c_proj(y.transpose(1, 2).reshape(*x.shape[:-1], -1))


class RelativeAttention(nn.Module):
    """Swin, BEiT: a bias for each head, looked up in a table by how far two tokens are apart."""

    def __init__(self, dim=24, heads=4, tokens=16):
        super().__init__()
        self.head_dim, self.out = dim // heads, nn.Linear(dim, dim)
        self.query, self.key, self.value = (nn.Linear(dim, dim) for _ in range(3))
        self.table = nn.Parameter(torch.randn(2 * tokens - 1, heads))
        place = torch.arange(tokens)
        self.register_buffer("apart", place[:, None] - place + tokens - 1)

    def forward(self, x):
        shape = (*x.shape[:-1], -1, self.head_dim)
        q, k, v = (layer(x).view(shape).transpose(1, 2) for layer in (self.query, self.key, self.value))
        weights = (q @ k.transpose(2, 3) + self.table[self.apart].permute(2, 0, 1)).softmax(-1)
        return self.out((weights @ v).transpose(1, 2).reshape(*x.shape[:-1], -1))


class TorchAttention(nn.Module):
    """torch's own attention, whose code takes one width for all that it reads and makes."""

    def __init__(self, dim=24, heads=4):
        super().__init__()
        self.attention = nn.MultiheadAttention(dim, heads, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x, need_weights=False)[0]


class MixedKernels(nn.Module):
    """MixNet: a part of the channels for each size of kernel; the layer keeps how wide the parts are."""

    def __init__(self, widths=(6, 10)):
        super().__init__()
        self.widths = list(widths)
        self.parts = nn.ModuleList(
            nn.Conv2d(width, width, size, padding=size // 2, groups=width)
            for size, width in zip((3, 5), widths, strict=True)
        )

    def forward(self, x):
        parts = torch.split(x, self.widths, 1)
        return torch.cat([layer(part) for layer, part in zip(self.parts, parts, strict=True)], 1)


class Indexed(nn.Module):
    """CondenseNet: channels are picked, some of them twice, by indices that a buffer holds."""

    def __init__(self, channels=16, picked=20):
        super().__init__()
        self.register_buffer("index", torch.arange(picked) * 7 % channels)

    def forward(self, x):
        return torch.index_select(x, 1, self.index)


class SelectiveKernels(nn.Module):
    """SKNet: weights for each channel of two branches, viewed by a width that the block keeps."""

    def __init__(self, channels=16, squeezed=8):
        super().__init__()
        self.channels = channels
        self.branches = nn.ModuleList(
            nn.Conv2d(channels, channels, size, padding=size // 2) for size in (1, 3)
        )
        self.squeeze, self.weigh = nn.Linear(channels, squeezed), nn.Linear(squeezed, 2 * channels)

    def forward(self, x):
        made = torch.stack([branch(x) for branch in self.branches], 1)
        weights = self.weigh(functional.relu(self.squeeze(made.sum(1).mean((2, 3)))))
        return (made * weights.view(x.shape[0], 2, self.channels, 1, 1).softmax(1)).sum(1)


class DualPath(nn.Module):
    """DPN: some channels are added to a stream, the others are kept beside it; the block keeps how many."""

    def __init__(self, channels=16, added=10, beside=6):
        super().__init__()
        self.added = added
        self.conv, self.input = (
            nn.Conv2d(channels, added + beside, 3, padding=1),
            nn.Conv2d(channels, added, 1),
        )

    def forward(self, x):
        y = self.conv(x)
        return torch.cat([self.input(x) + y[:, : self.added], y[:, self.added :]], 1)


class Stairs(nn.Module):
    """Res2Net: each part of the channels is added to what the part before it became; all are of one width."""

    def __init__(self, width=4, parts=4):
        super().__init__()
        self.width = width
        self.steps = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(parts - 1))

    def forward(self, x):
        first, *others = torch.split(x, self.width, 1)
        made = [first, self.steps[0](others[0])]
        for step, part in zip(self.steps[1:], others[1:], strict=True):
            made.append(step(part + made[-1]))
        return torch.cat(made, 1)


class SlicedConv(nn.Conv2d):
    """OctConv: one weight, whose first rows make one kind of channels and the others another."""

    def __init__(self, inputs=16, first=7, second=5):
        super().__init__(inputs, first + second, 1)
        self.first = first

    def forward(self, x):
        kinds = slice(None, self.first), slice(self.first, None)
        one, other = (functional.conv2d(x, self.weight[rows], self.bias[rows]) for rows in kinds)
        return torch.cat([one, functional.hardtanh(other)], 1)


class MaskedConv(nn.Conv2d):
    """X-DenseNet: a fixed part of the connections is missing; the weight is masked each time anew."""

    def __init__(self, *shape):
        super().__init__(*shape)
        self.register_buffer("mask", (torch.rand(self.weight.shape) < 0.5).float())

    def forward(self, x):
        return functional.conv2d(x, self.weight * self.mask, self.bias)


class Anchors(nn.Module):
    """A detector's head: beside its channels, whose width it keeps, it keeps lists of tensors and of settings."""

    def __init__(self, channels=12):
        super().__init__()
        self.channels, self.conv = channels, nn.Conv2d(16, channels, 1)
        self.anchors, self.names = [torch.zeros(3), torch.ones(3)], ("near", None, channels)

    def forward(self, x):
        y = self.conv(x).view(x.shape[0], self.channels, -1) * self.anchors[1].sum()
        return y.unflatten(2, x.shape[2:])


class ScaledConv(nn.Module):
    """A layer of its own kind that divides by a number: it equals a size of the weight, or both, by chance alone."""

    def __init__(self, inputs=8, outputs=12, scale=8, view=False):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.randn(outputs))
        self.scale, self.width, self.warm_up = scale, outputs if view else -1, outputs

    def forward(self, x):
        y = functional.conv2d(x, self.weight, self.bias, padding=1) / self.scale
        return y.view(x.shape[0], self.width, *x.shape[2:])


class Pyramid(nn.Module):
    """FPN, SegFormer: a small map grows to the size of a larger one, whatever that is, and is joined with it."""

    def __init__(self):
        super().__init__()
        self.down, self.merge = nn.Conv2d(16, 12, 3, 2, 1), nn.Conv2d(28, 8, 1)

    def forward(self, x):
        y = functional.interpolate(self.down(x), size=x.size()[2:], mode="bilinear", align_corners=False)
        return self.merge(torch.cat([x, y], 1))


class Cosine(nn.Module):
    """A face embedding, brought to length one and compared with one direction for each class."""

    def __init__(self):
        super().__init__()
        self.conv, self.embed = nn.Conv2d(3, 8, 3), nn.Linear(8, 16)
        self.classes = nn.Parameter(torch.randn(10, 16))

    def forward(self, x):
        y = self.embed(functional.relu(self.conv(x)).mean((2, 3)))
        return functional.normalize(y, dim=1) @ self.classes.t()


def weight_norm():
    """Every weight is a direction times a length, computed anew each time."""
    norm = nn.utils.parametrizations.weight_norm
    convolutions = norm(nn.Conv2d(3, 12, 3)), nn.ReLU(), norm(nn.Conv2d(12, 8, 3)), nn.ReLU()
    return nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(8 * 12 * 12, 10))


BLOCKS = {
    "einsum": lambda: Tokens(EinsumAttention()),
    "grouped_queries": lambda: Tokens(GroupedQueryAttention()),
    "gpt2": lambda: Tokens(GPT2Attention()),
    "relative": lambda: Tokens(RelativeAttention()),
    "torch_attention": lambda: Tokens(TorchAttention()),
    "sliced_weight": lambda: Image(SlicedConv(), 12),
    "indexed": lambda: Image(Indexed(), 20),
    "selective_kernels": lambda: Image(SelectiveKernels(), 16),
    "dual_path": lambda: Image(DualPath(), 16),
    "mixed_kernels": lambda: Image(MixedKernels(), 16),
    "stairs": lambda: Image(Stairs(), 16),
    "anchors": lambda: Image(Anchors(), 12),
    "scaled": lambda: Image(nn.Sequential(nn.Conv2d(16, 8, 1), nn.ReLU(), ScaledConv()), 12),
    "scaled_viewed": lambda: Image(nn.Sequential(nn.Conv2d(16, 8, 1), nn.ReLU(), ScaledConv(view=True)), 12),
    "pyramid": lambda: Image(Pyramid(), 8),
    "pixel_shuffle": lambda: Image(nn.Sequential(nn.Conv2d(16, 32, 1), nn.PixelShuffle(2)), 8),
    "transposed_depthwise": lambda: Image(nn.ConvTranspose2d(16, 32, 4, 2, 1, groups=16), 32),
    "transposed_grouped": lambda: Image(nn.ConvTranspose2d(16, 12, 4, 2, 1, groups=2), 12),
    "cosine": Cosine,
    "weight_norm": weight_norm,
}


class MaskedAttention(nn.Module):
    """BERT: ids and attention_mask, both int64 [N, T]; tokens whose mask is 0 are not attended to. Ten logits."""

    def __init__(self, dim=24, heads=4):
        super().__init__()
        self.words, self.head_dim = nn.Embedding(20, dim), dim // heads
        self.query, self.key, self.value = (nn.Linear(dim, dim) for _ in range(3))
        self.out, self.head = nn.Linear(dim, dim), nn.Linear(dim, 10)

    def forward(self, ids, attention_mask):
        x = self.words(ids)
        shape = (*x.shape[:-1], -1, self.head_dim)
        q, k, v = (layer(x).view(shape).transpose(1, 2) for layer in (self.query, self.key, self.value))
        counts = attention_mask[:, None, None, :] > 0
        y = functional.scaled_dot_product_attention(q, k, v, attn_mask=counts)
        return self.head((x + self.out(y.transpose(1, 2).flatten(2))).mean(1))
