# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 04 · Pruning: which weights are needed at all?
#
# Lesson 03 kept every number and wrote it shorter. Here numbers are left out. How many can a network spare, which
# ones, how does one find them, and is what is left any faster?
#
# **You will**
# - take nine weights of ten out of a network, by a rule of ten lines,
# - ask what a weight is worth, and let chance answer as well: it must lose,
# - see layer by layer which ones mind,
# - find out what zeros do to the time and to the file, and then take out whole channels,
# - play for multiply-adds, and measure milliseconds,
# - draw a lottery ticket.
#
# **Time and memory:** a minute or two to run, forty to play; under 900 MB. No network, no GPU.

# %% tags=["parameters"]
PROFILE = None
MODEL = "resnet20@digits"
SMALL = "lenet5@digits"
DATASET = "digits"
THREADS = 1
SEED = 0

# %% tags=["setup"]
import copy
import dataclasses
import os
import textwrap
import zlib
from hashlib import sha256

import numpy as np
import torch
from IPython.display import HTML, SVG, display

import labkit as lk
from labkit.measure.quality import evaluate
from labkit.plots import table_html
from labkit.progress import silent
from labkit.teach import check, claim, decision, predict, previous_decision

profile = PROFILE or os.environ.get("LABKIT_PROFILE", "class")
data = lk.load_dataset(DATASET)


def fingerprint(answer):
    """Tells a right answer from a wrong one, and gives neither away."""
    return sha256(f"04_pruning {str(answer).strip()}".encode()).hexdigest()[:8]


def show(rows, columns=None):
    """Rows as a table."""
    display(HTML(table_html(rows, columns or list(rows[0]))))


def accuracy_pct(variant):
    """The share of the validation images that it answers right, in %."""
    return 100 * data.task.quality(evaluate(variant, data, "validation"))


# %% [markdown]
# The networks are those of lesson 03: `lenet5`, two convolutions and two linear layers, and `resnet20`, twenty layers
# deep. This time as PyTorch modules, since what was pruned is usually trained a little more.

# %%
small, resnet = lk.load_model(SMALL), lk.load_model(MODEL)
before = previous_decision("03_quantization")
before if before else print(
    "Nothing decided yet: 03_quantization ends in a decision, but this lesson runs without it."
)

# %%
from labkit.prune.masks import prunable_layers

whole_pct = {each.name: accuracy_pct(each) for each in (small, resnet)}
weights = {name: w.detach().numpy() for name, w in prunable_layers(small.model).items()}
show([{"network": name, "accuracy_pct": value} for name, value in whole_pct.items()])
show([{"layer of lenet5": name, "weights": w.size} for name, w in weights.items()])
one_image_pp = 100 / len(data.split("validation"))
claim("each reads more than 98 % of the digits", min(whole_pct.values()) > 98)
claim("one validation image is less than half a point", one_image_pp < 0.5)
claim(
    "one point is two of the 225 validation images",
    (len(data.split("validation")), int(1 / one_image_pp)) == (225, 2),
)
shares = {name: w.size / sum(each.size for each in weights.values()) for name, w in weights.items()}
claim("95 % of lenet5's weights are in fc1", round(100 * shares["fc1"]) == 95)

# %% [markdown]
# ## What a zero does
#
# A layer multiplies each input by a weight and adds up. A weight of 0 adds nothing: that connection is cut. **Magnitude
# pruning** cuts those that add least, the smallest ones:
#
# $$ P(w) = w \text{ where } |w| \ge \theta, \text{ else } 0 $$
#
# The **sparsity** is the share that becomes zero, and the threshold θ follows from it. It matters *among whom* the
# smallest are looked for: in the whole network (**global**), or in each layer for itself (**per layer**).
#
# ### The kernel in ten lines


# %% tags=["nbval-check-output"]
def smallest(weights, sparsity):
    """True for the smallest of all these weights together: so many of them that `sparsity` of all go."""
    sizes = np.concatenate([np.abs(w).ravel() for w in weights])
    gone = np.zeros(len(sizes), bool)
    gone[np.argsort(sizes, kind="stable")[: round(sparsity * len(sizes))]] = True
    parts = np.split(gone, np.cumsum([w.size for w in weights])[:-1])
    return [part.reshape(w.shape) for part, w in zip(parts, weights, strict=True)]


def per_layer(weights, sparsity):
    return [smallest([w], sparsity)[0] for w in weights]


import labkit.prune as theirs

kernels = {"global": smallest, "layer": per_layer}
for scope, kernel in kernels.items():
    for sparsity in (0.5, 0.9):
        pruned = theirs.PruneMagnitude(sparsity=sparsity, scope=scope)(small)
        found = [w.detach().numpy() for w in prunable_layers(pruned.model).values()]
        masks = kernel(list(weights.values()), sparsity)
        claim(
            f"{scope}, {sparsity:.0%}: labkit zeroes the same weights, and leaves the others alone",
            all(
                np.array_equal(a, np.where(m, 0, w))
                for a, m, w in zip(found, masks, weights.values(), strict=True)
            ),
        )

# %% [markdown]
# ## Predict: nine of ten
#
# Nine of ten weights of `lenet5` become zero, the smallest of the whole network. Nothing is trained afterwards. What
# accuracy is left?

# %%
guess = predict("The accuracy with 90 % of the weights gone will be", unit="%")
guess

# %%
rows = []
for sparsity in (0.5, 0.8, 0.9, 0.95):
    row = {"sparsity": sparsity}
    for scope in kernels:
        pruned = theirs.PruneMagnitude(sparsity=sparsity, scope=scope)(small)
        row[f"{scope}: accuracy_pct"] = accuracy_pct(pruned)
    rows.append(row)
show(rows)

# %%
left = {scope: {row["sparsity"]: row[f"{scope}: accuracy_pct"] for row in rows} for scope in kernels}
claim("nine of ten gone, a point is lost at most", left["global"][0.9] >= whole_pct[small.name] - 1)
claim(
    "with the same share from each layer, more than 30 points",
    left["layer"][0.9] < whole_pct[small.name] - 30,
)
guess.reveal(left["global"][0.9], why="Most weights were never needed. They helped to find the others.")

# %% [markdown]
# The same number of zeros, and so different an end. `conv1` has 500 weights, and everything else depends on them;
# `fc1` has 625,000. A global threshold takes its zeros where there are plenty. One sparsity for all layers cuts `conv1`
# as hard as `fc1`.

# %%
masks = smallest(list(weights.values()), 0.9)
gone = dict(zip(weights, (float(mask.mean()) for mask in masks), strict=True))
show([{"layer": name, "weights": w.size, "gone, global": f"{gone[name]:.0%}"} for name, w in weights.items()])
claim("conv1 has 500 weights, fc1 625,000", (weights["conv1"].size, weights["fc1"].size) == (500, 625_000))
claim("the global threshold spares conv1: it loses less than half", gone["conv1"] < 0.5)

# %% [markdown]
# ## What a weight is worth
#
# "Small" is one answer. There are others. Each gives every weight a score, and the lowest go first:
#
# | criterion | what it asks |
# |---|---|
# | `magnitude` | is it small? |
# | `lamp` | is it small beside those of its layer that are larger? So no layer dies out |
# | `lamp_per_bit` | the same for each bit that the weight will take in a coded file, which lesson 06 weighs |
# | `taylor` | by how much would the loss change without it? Asks the gradients, and so needs images and labels |
# | `movement` | does training move it towards zero, or away? Needs a training |
# | `random` | nothing. This is the **control**: whatever does not beat it knows nothing about weights |

# %%
sparsities = (0.5, 0.8, 0.98)
criteria = ("magnitude", "lamp", "taylor", "random")
rows = []
for name in criteria:
    row = {"criterion": name}
    for sparsity in sparsities:
        technique = theirs.PruneWeights(criterion=name, sparsity=sparsity, seed=SEED)
        row[f"{sparsity:.0%} gone: accuracy_pct"] = accuracy_pct(technique(small, data))
    rows.append(row)
show(rows)

# %%
by = {row["criterion"]: [value for name, value in row.items() if name != "criterion"] for row in rows}
informed = [value for name in criteria[:-1] for value in by[name][:2]]
claim(
    "at 50 and at 80 %, every criterion but chance loses a point at most",
    min(informed) >= whole_pct[small.name] - 1,
)
claim(
    "at 98 %, `magnitude` and `lamp` are more than 20 points ahead of `taylor`",
    min(by["magnitude"][2], by["lamp"][2]) > by["taylor"][2] + 20,
)
claim(
    "the control must fail, and does: a half at random costs more than 30 points",
    by["random"][0] < whole_pct[small.name] - 30,
)

# %% [markdown]
# At 50 and 80 % the three criteria lose a point at most. At 98 %, nothing trained, `taylor` is far behind the two that
# need no images: try a criterion where it gets hard. Chance has failed long before. And what if not the smallest
# weights go, but the largest, and only one in a hundred?

# %%
crippled = copy.deepcopy(small.model)
largest = smallest([1 / np.maximum(np.abs(w), 1e-12) for w in weights.values()], 0.01)
with torch.no_grad():
    for weight, mask in zip(prunable_layers(crippled).values(), largest, strict=True):
        weight[torch.from_numpy(mask)] = 0
without_largest = accuracy_pct(dataclasses.replace(small, model=crippled))
print(f"without the largest hundredth: {without_largest:.1f} %")
claim("the largest hundredth is worth more than ten points", without_largest < whole_pct[small.name] - 10)
claim("and more than the smallest nine tenths together", without_largest < left["global"][0.9])

# %% [markdown]
# From a terminal: `labkit prune lenet5@digits --method weights --set criterion=lamp --set sparsity=0.9 --out thin`.
#
# ## Which layers mind
#
# Prune one layer alone, leave all others whole, measure, and put it back: that gives its **sensitivity**, a curve over
# the sparsity. Here are the curves of all 22 layers of `resnet20`, recorded before, since they are some hundred
# networks to measure. Solid: the smallest weights go first. Dashed: the control, at random.
#
# **Move the sparsity** from left to right. Who falls first? Then choose `random`: how much sooner do the layers fall?

# %%
from labkit.teach.pruning_recording import load_pruning
from labkit.widgets import (
    SensitivityExplorer,
    curves_of,
    draw_sensitivity,
    sensitivity_says,
    sensitivity_table,
)

recorded = load_pruning()
scans = recorded.curves
SensitivityExplorer(scans, sparsity=0.9)

# %% [markdown]
# In plain code:

# %%
curves = curves_of(scans)
display(SVG(draw_sensitivity(curves, 0.9, "magnitude")))
print(sensitivity_says(curves, 0.9, "magnitude"))
display(HTML(sensitivity_table(curves, 0.9)))

# %% [markdown]
# And measured here, one of those layers at one sparsity, beside what was recorded of it; and all four of `lenet5`:

# %%
again = theirs.scan_layers(small, data, (0.5, 0.9, 0.99))
show([{"layer": row.layer, "sparsity": row.sparsity, "points lost": 100 * row.drop} for row in again])
alone = copy.deepcopy(resnet.model)
stem = prunable_layers(alone)["stem"]
(mask,) = smallest([stem.detach().numpy()], 0.9)
with torch.no_grad():
    stem[torch.from_numpy(mask)] = 0
here_pp = whole_pct[resnet.name] - accuracy_pct(dataclasses.replace(resnet, model=alone))
lost = {kind: {each.layer: each.lost_pp(kind, 0.9) for each in curves} for kind in scans}
print(f"stem of resnet20, 90 %: {here_pp:.1f} points lost here, {lost['magnitude']['stem']:.1f} recorded")

# %%
claim("22 layers", len(curves) == 22)
worst = sorted(lost["magnitude"], key=lost["magnitude"].get, reverse=True)[:5]
claim(
    "stem, the first layer, minds most at 90 %, then the second shortcut",
    worst[:2] == ["stem", "blocks.6.shortcut.0"],
)
claim(
    "then the two layers of the first block, and blocks.7.conv2",
    set(worst[2:]) == {"blocks.0.conv1", "blocks.0.conv2", "blocks.7.conv2"},
)
claim(
    "what was recorded of it is measured here, within 3 points", abs(lost["magnitude"]["stem"] - here_pp) <= 3
)
half = {kind: [each.lost_pp(kind, 0.5) for each in curves] for kind in scans}
claim("the smaller half of any one layer costs half a point at most", max(half["magnitude"]) <= 0.5)
claim(
    "a random half costs more than 30 points in six layers and more", sum(x > 30 for x in half["random"]) >= 6
)
claim(
    "at 90 %, chance is worse in every layer",
    all(lost["random"][x] > lost["magnitude"][x] for x in lost["random"]),
)
largest = [each for each in curves if each.weights == max(layer.weights for layer in curves)]
shown = [each for each in largest if each.curves["magnitude"][0.9].drop_ci95[0] > 0]
claim(
    "of the five largest layers, of 36,864 weights, two lose nothing that 225 images could show",
    (largest[0].weights, len(largest), len(shown)) == (36_864, 5, 3),
)
claim("and one loses 27 points", round(max(lost["magnitude"][each.layer] for each in shown)) == 27)
minds = {row.layer: row.drop for row in again if row.sparsity == 0.9}
claim("in lenet5, too, it is the first layer that minds most", max(minds, key=minds.get) == "conv1")

# %% [markdown]
# The smaller half of any one layer goes for next to nothing; a random half ruins the network in many. With 90 % gone,
# the stem minds most, then one shortcut, the first block, and `blocks.7.conv2`. Size does not tell: of the five layers
# of 36,864 weights two lose nothing that 225 images could show, and one loses 27 points. A curve says what a layer
# minds *untrained*, though. Training mends much of it, and that is next.
#
# ## When they go
#
# At once, and then a training that mends (**one shot**). In rounds: prune a little, train, prune again (**iterative**,
# as Han et al. did in 2015, *Learning both Weights and Connections*). Or during the training, fast at first and slower
# as it gets scarce (**gradual**, along a cubic curve). What is zero stays zero while it trains; only in `gradual` may a
# cut weight come back, until the curve has reached its end. Here 49 of 50 weights of `lenet5` go, with the same number
# of epochs for each:

# %%
epochs = {"ci": 2, "class": 4, "full": 12}[profile]
ways = {
    "one shot, untrained": {},
    "one shot": {"fine_tune_epochs": epochs},
    "iterative": {"schedule": "iterative", "rounds": 2, "fine_tune_epochs": epochs // 2},
    "gradual": {"schedule": "gradual", "fine_tune_epochs": epochs},
}
few = {"ci": 600}.get(profile, 0)  # training images; 0 are all
rows, after = [], {}
for name, knobs in ways.items():
    after[name] = theirs.PruneMagnitude(sparsity=0.98, max_samples=few, threads=THREADS, seed=SEED, **knobs)(
        small, data
    )
    rows.append({"schedule": name, "accuracy_pct": accuracy_pct(after[name])})
show(rows)
zeros = [theirs.masks.sparsity_of(theirs.masks.prunable_weights(each.model)) for each in after.values()]

# %%
reached = {row["schedule"]: row["accuracy_pct"] for row in rows}
trained = [value for name, value in reached.items() if name != "one shot, untrained"]
claim("untrained, 49 of 50 weights gone costs more than 10 points", reached["one shot, untrained"] < 89)
claim("trained, every schedule ends above 92 %", min(trained) > 92)
claim(
    "and the zeros are still there: 98 % of the weights, in each",
    all(abs(each - 0.98) < 1e-4 for each in zeros),
)

# %% [markdown]
# Which schedule is best is not decided by one short training on a small dataset; on large ones the gentle ones win
# where little is left. What all have in common is worth more: the training after the cut.
#
# ## Predict: nine of ten weights are zero. How much faster?
#
# One `lenet5` as it is, one with nine of ten weights zero and as accurate as before. Both as ONNX files, on the same
# engine, taking turns. How many times as fast is the second? (A third runs along, in the pattern **2:4**: of every four
# weights in a row, two are zero.)

# %%
faster = predict("With 90 % zeros it is faster by a factor of", unit="×")
faster

# %%
from labkit.measure import Candidate, Protocol, compare
from labkit.measure import measure as race

protocol = {
    "ci": Protocol(blocks=20, block_ms=10.0, warmup_ms=20.0, min_runs_per_block=2),
    "class": Protocol.paired(),
    "full": Protocol(blocks=30),
}[profile]


def time_ratios(others, original):
    """Name → the time of each as a share of the original's, and its 95 % interval: one image, all in turns."""
    longer = dataclasses.replace(protocol, blocks=protocol.blocks * (2 if len(others) < 3 else 1))
    named = [dataclasses.replace(each, name=name) for name, each in others.items()]
    first, *rest = (Candidate(each, "onnxruntime", threads=THREADS) for each in (original, *named))
    pairs = compare(race(rest, data, against=first, protocol=longer, n_samples=16)).pairs
    ends = [tuple(1 / end for end in reversed(pair.speedup_ci95)) for pair in pairs]
    return {name: (1 / pair.speedup, both) for name, pair, both in zip(others, pairs, ends, strict=True)}


dense = lk.ExportOnnx()(small, data)
sparse = {
    "90 % zeros": theirs.PruneMagnitude(sparsity=0.9)(small),
    "2:4": theirs.PruneWeights(sparsity=0.5, scope="n:m", group_size=4)(small, data),
}
sparse = {name: lk.ExportOnnx()(each, data) for name, each in sparse.items()}
taken = time_ratios(sparse, dense)

rows = []
for name, each in {"dense": dense, **sparse}.items():
    share, ci95 = taken.get(name, (1.0, None))
    row = {"variant": name, "accuracy_pct": accuracy_pct(each), "size_bytes": each.size_bytes}
    row |= {"zipped_bytes": len(zlib.compress(each.payload)), "time_share": share, "time_share_ci95": ci95}
    rows.append(row)
show(rows)

# %%
by_name = {row["variant"]: row for row in rows}
claim(
    "the same accuracy, within a point",
    min(row["accuracy_pct"] for row in rows) >= whole_pct[small.name] - 1,
)
claim(
    "the files are of equal size, to a hundredth",
    all(abs(row["size_bytes"] / dense.size_bytes - 1) < 0.01 for row in rows),
)
zipped = {name: row["zipped_bytes"] for name, row in by_name.items()}
claim("zipped, the zeros show: less than a quarter", zipped["90 % zeros"] < 0.25 * zipped["dense"])
claim("neither saves a quarter of the time", min(share for share, _ in taken.values()) > 0.75)
faster.reveal(
    1 / taken["90 % zeros"][0], why="A dense kernel multiplies by zero as carefully as by anything else."
)

# %% [markdown]
# A file of `float32` spends four bytes on a zero, and the engine multiplies by it: a dense kernel does not look. Some
# engines have sparse kernels, which must be asked for, and measured. 2:4 is for hardware: some GPUs have a unit that
# knows it; the kernel that ran here does not.
#
# What zeros *are* good for is bytes, once they are coded: zipping shows it, and lesson 06 does better. On the time,
# labkit says:

# %%
short = {"ci": Protocol(blocks=4, block_ms=10.0, warmup_ms=5.0, min_runs_per_block=2)}.get(profile)
why = lk.explain(sparse["90 % zeros"], data, against=dense, batch_size=8, threads=THREADS, protocol=short)
print(*(textwrap.fill(line, 110) for line in why.says.splitlines()), sep="\n")
claim("the cause that it names is the zeros", why.names("unstructured_zeros"))
sizes = {name: weights[name].size for name in ("conv2", "fc1")}
share = sum(gone[name] * size for name, size in sizes.items()) / sum(sizes.values())
claim(
    "those of conv2 and of fc1, which is 92 % zero",
    f"{share:.0%} of the weights of 2 layers" in why.says and round(100 * gone["fc1"]) == 92,
)

# %% [markdown]
# ## And if whole channels go?
#
# What a dense kernel does notice is a smaller matrix. **Structured pruning** takes out whole channels, and what is left
# is an ordinary network, only narrower. A convolution of k × k costs
#
# $$ k^2 \cdot C_{in} \cdot C_{out} \cdot H \cdot W $$
#
# multiply-adds. But a channel does not live in one layer. Whoever *makes* it loses a filter, and whoever *reads* it
# loses an input. In a residual network it is worse: blocks add their result to what flows past them, and what is
# added must be equally wide. So channel 3 of that **residual stream** belongs to every layer that adds to it, and all
# of them lose it, or none.
#
# labkit reads this off the graph. Each column is a group of channels that leave together:

# %%
from labkit.widgets import coupling_table, draw_coupling

widths = theirs.Widths(resnet)
display(SVG(draw_coupling(widths)))
display(HTML(coupling_table(widths)))
print(textwrap.fill(widths.structure.summary(), 110))

# %%
first = widths.structure.coupling.groups[0]
claim("twelve groups of channels can shrink", len(widths.groups) == 12)
claim("three of them are residual streams", len(widths.residual) == 3)
claim("the first stream is made by four layers", len(first.of_role("makes")) == 4)
claim("and read by five", len(first.of_role("reads")) == 5)

# %% [markdown]
# The last layer keeps its outputs: they are the ten digits.
#
# ### Half of the channels
#
# Half of the channels of every group go: each filter's importance is the sum of its absolute weights (`l1`), and the
# least important leave. Before any training, the narrow network must compute exactly what the whole one would with
# those channels at zero. Let us see that first, and then what it saves.

# %%
from labkit.prune.coupling.coupling import EVERYWHERE
from labkit.prune.coupling.modules import masked_module

half = dict.fromkeys(widths.groups, 0.5)
narrow = widths.narrow(half)
zeroed = masked_module(resnet.model, widths.structure.coupling, widths.removed(half), EVERYWHERE)
images = torch.from_numpy(resnet.feeds(data.split("validation").take(slice(0, 32)).inputs)["image"])
with torch.no_grad():
    cut, masked = narrow.model(images), zeroed(images)
apart = float((cut - masked).abs().max() / masked.abs().max())
macs_share = widths.macs(half) / widths.macs({})
print(f"largest difference {apart:.1e} of the largest output; multiply-adds left: {macs_share:.1%}")
claim("the narrow network is the whole one without these channels, to a hundred-thousandth", apart < 1e-5)
claim("a quarter of the multiply-adds is left", abs(macs_share - 0.25) < 0.01)

# %% [markdown]
# Half as many channels in, half as many out: a quarter of the work. And of the time? Multiply-adds are counted,
# milliseconds are measured, and only the second is what anybody waits for:

# %%
levels = {"all of it": 1.0, "three quarters": 0.75, "half": 0.5, "two fifths": 0.4, "a quarter": 0.25}
plans = {name: dict.fromkeys(widths.groups, share) for name, share in levels.items()}
graphs = [widths.graph(plan) for plan in plans.values()]
taken = time_ratios(dict(zip(plans, graphs, strict=True)), widths.structure.graph([]))
rows = [
    {
        "channels left": name,
        "first stage": widths.channels(plan)["stem.weight"],
        "macs_share": widths.macs(plan) / widths.macs({}),
        "time_share": taken[name][0],
        "time_share_ci95": taken[name][1],
    }
    for name, plan in plans.items()
]
show(rows)

# %%
at = {row["channels left"]: row for row in rows}
claim("with half of the channels it is faster", at["half"]["time_share"] < 0.85)
claim(
    "but not four times as fast: what is saved in time is less than in multiply-adds",
    at["half"]["time_share"] > macs_share,
)

# %% [markdown]
# `time_share` falls more slowly than `macs_share`. Reading and writing, calling operators and the layers that do not
# multiply cost what they did. And a processor computes 8 or 16 channels at a time: of 6 it may make as much work as
# of 8, or more. So compare *half*, whose stages have 8, 16 and 32 channels, with *two fifths*, of 6, 13 and 26: a third
# fewer multiply-adds. And less time? Let the two take turns. Below it is what `round_to` does, a knob of labkit's
# `PruneChannels`: the widths become multiples of it (with 0 it measures which multiple the engine likes). With two
# fifths of the channels left, 16, 32 and 64 become:

# %%
from labkit.prune.channels import remaining

narrower = {"two fifths": widths.graph(plans["two fifths"])}
share, (low, high) = time_ratios(narrower, widths.graph(plans["half"]))["two fifths"]
print(f"two fifths of the channels take {share:.2f} [{low:.2f}, {high:.2f}] times as long as half of them")
show([{"of": c, **{f"round_to={m}": remaining(c, 0.6, m) for m in (1, 4, 8, 16)}} for c in (16, 32, 64)])
stages = {
    name: [widths.channels(plans[name])[each] for each in widths.residual] for name in ("half", "two fifths")
}
claim("at half the stages have 8, 16 and 32 channels", stages["half"] == [8, 16, 32])
claim("at two fifths they have 6, 13 and 26", stages["two fifths"] == [6, 13, 26])
claim("and a third fewer multiply-adds", 0.6 < at["two fifths"]["macs_share"] / macs_share < 0.7)
claim("which save less than a quarter of the time", share > 0.75)
claim(
    "rounded to 8, every width is a multiple of it", all(remaining(c, 0.6, 8) % 8 == 0 for c in (16, 32, 64))
)

# %% [markdown]
# A third fewer multiply-adds, and far from a third less time; where this was written, none. The widths no longer fit.
#
# ### To a target, in milliseconds
#
# So do not ask for channels; ask for what you need. `target="latency"` measures networks of several widths in turns,
# until the share `keep` of the time is left, or a little less, for time falls in steps. Then a short training, in which
# the whole network teaches the narrow one (`alpha`; lesson 05 asks whether that helps):

# %%
tuning = {"ci": 1, "class": 4, "full": 12}[profile]
technique = theirs.PruneChannels(
    target="latency",
    keep=0.7,
    fine_tune_epochs=tuning,
    alpha=0.5,
    threads=THREADS,
    seed=SEED,
)
target = technique(resnet, data)
exported, as_float = lk.ExportOnnx()(target, data), lk.ExportOnnx()(resnet, data)
time_share, (low, high) = time_ratios({exported.name: exported}, as_float)[exported.name]
size_share = exported.size_bytes / as_float.size_bytes
lost_pp = whole_pct[resnet.name] - accuracy_pct(exported)
said = f"{time_share:.0%} [{low:.0%}, {high:.0%}] of the time"
print(f"{said}, {technique.keep:.0%} asked for; {size_share:.0%} of the bytes, {lost_pp:.1f} points lost")
claim("it is faster by more than a tenth", time_share < 0.9)
claim("five points are lost at most, after a training this short", lost_pp <= 5)
claim("and the file is smaller by a fifth at least", size_share < 0.8)

# %% [markdown]
# From a terminal: `labkit prune resnet20@digits --method channels --set target=latency --set keep=0.7
# --set fine_tune_epochs=4 --set alpha=0.5 --dataset digits --out narrow`.
#
# ## A game: where are channels too many?
#
# Twelve groups, and **your goal is half of the multiply-adds: choose how wide each group stays.** The bars show what a
# group saves, and what it costs *alone and untrained*; hatched are the residual streams. Three streams save most, and
# cost most: or does it only look so? Then press **Measure mine**: your network is cut, trained for two epochs and
# measured here, beside some that were recorded.

# %%
from labkit.teach.pruning_recording import measure_widths
from labkit.widgets import ChannelGame, Options, draw_widths

options = Options(widths, recorded.groups, keep=0.5)


def measure(assignment, progress=silent):
    return measure_widths(widths, assignment, data, progress)


ChannelGame(options, measure, recorded.points)

# %% [markdown]
# In plain code: everything half as wide inside the blocks, and a quarter less in the first stream, which leaves 12 of
# its 16 channels. Beside it the same with all 16: the two take turns.

# %%
mine = {name: 1.0 if name in widths.residual else 0.5 for name in widths.groups}
mine["stem.weight"] = 0.75
total = options.total(mine)
point = measure(mine)
print(total.says)
display(SVG(draw_widths(total)))
print(f"{point.drop_pp:.1f} [{point.drop_ci95[0]:.1f}, {point.drop_ci95[1]:.1f}] points lost")
sixteen = mine | {"stem.weight": 1.0}
more, (low, high) = time_ratios({"12": widths.graph(mine)}, widths.graph(sixteen))["12"]
show(
    [
        {"first stream": 16, "macs_share": options.total(sixteen).share, "time": 1.0},
        {"first stream": 12, "macs_share": total.share, "time": more, "time_ci95": (low, high)},
    ],
    ["first stream", "macs_share", "time", "time_ci95"],
)

# %%
costs = {each.group: each.lost_pp for each in options.total(half).options}
claim("untrained, half of the first stream alone costs more than 50 points", costs["stem.weight"] > 50)
everything = next(each for each in recorded.points if each.assignment == half)
claim(
    "recorded: half of everything, trained for two epochs, loses three points at most",
    everything.drop_pp <= 3,
)
claim("the goal is reached: half of the multiply-adds at most", total.share <= 0.5)
claim("and three points are lost at most", point.drop_pp <= 3)
claim(
    "the first stream has 12 channels of 16",
    [widths.channels(each)["stem.weight"] for each in (mine, sixteen)] == [12, 16],
)
fewer = total.share / options.total(sixteen).share
claim("which saves a tenth of the multiply-adds", round(fewer, 1) == 0.9)
claim("and no more of the time, as far as this shows", high > fewer)

# %% [markdown]
# **12 channels instead of 16: a tenth fewer multiply-adds, and where this was written no time won. Why?**
#
# <details><summary>Think, then open the answer</summary>
#
# The kernels work on blocks of 8 or 16 channels. Twelve are filled up to sixteen, and cost what sixteen cost, or more:
# getting in and out of the blocks takes time, too. So the last tenth reached the goal, and nobody waits less for it.
#
# </details>
#
# What a group costs untrained says where to look, and not how it ends. Two epochs mend what seemed ruined.
#
# ## A lottery ticket
#
# If so few weights are enough, why not train only those from the start? Because a *sparse* network that is trained from
# scratch often ends worse (how often is disputed: Liu et al. 2019). Unless one knows *which* weights. Train, cut the
# smallest fifth of each layer (of the last a tenth), set what is left back to **its first values**, train again, and so
# on: Frankle and Carbin (2019) called what remains a winning **ticket**. The control has the same mask, and newly drawn
# weights.
#
# Recorded: LeNet-300-100 on the digits, fifteen rounds, three seeds. **Move the round.** On the left, how it ends; on
# the right, how it learns.

# %%
from labkit.widgets import TicketExplorer, draw_tickets, rounds_of, tickets_say, tickets_table

tickets = recorded.tickets
TicketExplorer(tickets, round=15)

# %% [markdown]
# In plain code:

# %%
from labkit.widgets.ticket_rows import middle

rounds = rounds_of(tickets)
display(SVG(draw_tickets(rounds, 15)))
print(textwrap.fill(tickets_say(rounds, 15), 110))
display(HTML(tickets_table(rounds)))

# %% [markdown]
# And drawn here, a small one in four rounds that each cut half of a layer, and of the last a quarter:

# %%
from labkit.train import Train

recipe = Train(epochs=3, batch_size=32, learning_rate=0.05, augment="none", threads=THREADS, seed=SEED)
config = {"architecture": "lenet300", "hidden": [100, 50]}
drawn = theirs.draw_tickets(config, data, recipe, rounds=4, rate=0.5, output_rate=0.25, controls=(4,))
last = drawn[-1]
rows = [
    {
        "network": "whole",
        "kept": 1.0,
        "after an epoch": drawn[0].ticket.curve[0],
        "at the end": drawn[0].ticket.curve[-1],
    },
    {
        "network": "ticket",
        "kept": last.kept,
        "after an epoch": last.ticket.curve[0],
        "at the end": last.ticket.curve[-1],
    },
    {
        "network": "control",
        "kept": last.kept,
        "after an epoch": last.control.curve[0],
        "at the end": last.control.curve[-1],
    },
]
show(rows)

# %%
seventh, fifteenth = rounds[7], rounds[15]
whole_median, ticket, control = (
    middle(each) for each in (rounds[0].tickets, fifteenth.tickets, fifteenth.controls)
)
claim(
    "after seven rounds 21 % of the weights are left, after fifteen 3.6 %",
    (round(100 * seventh.kept), round(100 * fifteenth.kept, 1)) == (21, 3.6),
)
claim("after seven the ticket ends no worse than the whole network", middle(seventh.tickets) >= whole_median)
claim("after fifteen it ends a point below it at most", ticket >= whole_median - 1)
claim("and the control more than 10 points below the ticket", control < ticket - 10)
claim(
    "after one epoch the control is more than 50 points behind",
    middle(fifteenth.controls, 0) < middle(fifteenth.tickets, 0) - 50,
)
claim("here, too, the ticket learns faster than the control", last.ticket.curve[0] > last.control.curve[0])

# %% [markdown]
# With 21 % of the weights the ticket is as good as the whole network, with 3.6 % hardly a point worse; the control is
# more than ten points behind. The mask alone is not the secret, or the control would do as well. And what it costs is
# honest to say: the ticket is known only after the whole network was trained, many times over. It has a limit, too:
# large networks must be set back to a point early in their training, not to its start (Frankle et al. 2020).

# %% [markdown] tags=["exercise"]
# ## Exercise: two of four
#
# The pattern 2:4: of every four weights in a row, the two smallest become zero. `w` has 4 rows of 8 weights, so two
# runs of four in each row. What is left of it? Let NumPy compute it.

# %% tags=["exercise"]
w = np.random.default_rng(4).normal(size=(4, 8))

# %%
two_of_four = None  # your answer
### BEGIN SOLUTION
runs = w.reshape(4, 2, 4)
order = np.argsort(np.abs(runs), axis=-1)
kept = runs.copy()
np.put_along_axis(kept, order[..., :2], 0.0, axis=-1)
two_of_four = kept.reshape(4, 8)
### END SOLUTION

# %%
check(
    two_of_four,
    expected=lambda made: fingerprint((np.asarray(made, float).round(3) + 0.0).tolist()) == "ff878c7b",
    hint="reshape w to (4, 2, 4), sort by the absolute value along the last axis, and zero the first two",
)

# %% [markdown] tags=["exercise"]
# ## Exercise: find the error
#
# **1.** A handout prints: "Pruning is P(x) = Σ max(0, w − θ)." Take the weights (−0.9, −0.2, 0.1, 0.8) and θ = 0.5.
# What does max(0, w − θ) make of each, and what should pruning leave of each? Answer with two lists, such as
# `[[1, 2, 3, 4], [1, 2, 3, 4]]`, rounded to one digit behind the point.

# %%
printed_and_right = None  # your answer
### BEGIN SOLUTION
printed_and_right = [[0, 0, 0, 0.3], [-0.9, 0, 0, 0.8]]
### END SOLUTION

# %%
check(
    printed_and_right,
    expected=lambda answer: (
        fingerprint([[round(float(each), 1) + 0.0 for each in part] for part in answer]) == "168056ab"
    ),
    hint="What happens to a negative weight in max(0, …)? And what to one that is large enough to stay?",
)

# %% [markdown]
# <details><summary>Why? Open this when the check says that you are right</summary>
#
# The printed form drops every negative weight, however large, and shrinks those that stay. Pruning looks at |w|, and
# leaves what it keeps as it is. (And it is no sum: each weight is judged for itself.)
#
# </details>

# %% [markdown] tags=["exercise"]
# **2.** The same handout: `prune.GlobalL1Unstructured().prune(model)`. There is no such class. PyTorch does have global
# magnitude pruning, as a function of `torch.nn.utils.prune` that takes pairs of a module and the name of its
# parameter. Zero 80 % of all weights of `model` with it, and make it permanent (`prune.remove`), so that no mask stays
# behind. Your answer is the pruned module.

# %% tags=["exercise"]
from torch.nn.utils import prune

from labkit.prune import PruneMagnitude
from labkit.prune.masks import prunable_layers


def same_weights(module, other):
    """Whether both have the same weights in all layers."""
    pairs = zip(prunable_layers(module).values(), prunable_layers(other).values(), strict=True)
    return all(torch.equal(mine, theirs) for mine, theirs in pairs)


model = copy.deepcopy(lk.load_model(SMALL).model)
pairs = [(layer, "weight") for layer in (model.conv1, model.conv2, model.fc1, model.fc2)]

# %%
pruned_model = None  # your answer
### BEGIN SOLUTION
prune.global_unstructured(pairs, prune.L1Unstructured, amount=0.8)
for layer, name in pairs:
    prune.remove(layer, name)
pruned_model = model
### END SOLUTION

# %%
check(
    pruned_model,
    expected=lambda made: (
        not any("mask" in name for name, _ in made.named_buffers())
        and same_weights(made, PruneMagnitude(sparsity=0.8)(lk.load_model(SMALL)).model)
    ),
    hint="one call that is given all pairs, then prune.remove for each of them",
)

# %% [markdown]
# It zeroes the same weights as labkit's `PruneMagnitude`. And nothing was trained by it: that is a step of its own.

# %% [markdown] tags=["exercise"]
# ## Exercise: numbers to reach
#
# `resnet20` must answer in at most **half of the time** (one image, one thread, ONNX Runtime), and lose **at most one
# point** on the validation images: two of the 225. You have 6 epochs at most. Answer with a `PruneChannels(…)`; the
# check carries it out and measures, in less than a minute.

# %% tags=["exercise"]
from labkit.measure import Protocol
from labkit.prune import PruneChannels, read_structure
from labkit.prune.target import time_shares


def reaches(technique):
    """Whether it keeps the epochs, the time and the accuracy."""
    network = lk.load_model(MODEL)
    made = technique(network, data)
    graphs = [read_structure(each).graph([]) for each in (network, made)]
    (share,) = time_shares(graphs[0], graphs[1:], "onnxruntime", Protocol.paired())
    lost = accuracy_pct(network) - accuracy_pct(made)
    print(f"{technique.fine_tune_epochs} epochs, {share:.0%} of the time, {lost:.2f} points lost")
    return technique.fine_tune_epochs <= 6 and share <= 0.5 and lost <= 1.0


# %%
answer = None  # your answer
### BEGIN SOLUTION
answer = PruneChannels(pruning_ratio=0.7, round_to=8, fine_tune_epochs=5, alpha=0.9, threads=1)
### END SOLUTION

# %%
check(
    answer,
    expected=reaches,
    hint="Widths that the processor likes (round_to), and the whole network as teacher (alpha near 1)",
)

# %% [markdown]
# ## The decision
#
# Zeros bought next to no time here; they buy bytes once they are coded (lesson 06). Channels bought both, on the engine
# that was measured, and leave an ordinary network, which can be quantized as in lesson 03.

# %%
decision(
    "04_pruning",
    variant=f"{target.name}: channels to {technique.keep:.0%} of the time, fine-tuned",
    constraint="latency of one image",
    risk="the loss was measured on few images: its interval is wider than the loss",
    drop_pp=round(lost_pp, 2),
    time_share=round(time_share, 2),
    size_bytes=exported.size_bytes,
)

# %% [markdown]
# ## In short
#
# - Most weights can go, if the right ones go: the smallest, looked for in the whole network. Chance must fail.
# - Layers differ. The first one minds most; for the others size does not tell, a curve does.
# - After the cut, train: it mends what looks ruined.
# - A zero saves no time in a dense kernel, and no byte of a plain file. It saves bytes once it is coded.
# - A channel saves both. What hangs together leaves together; multiply-adds are counted, milliseconds measured.
# - A ticket is a mask *and* its first weights; the mask alone is worth less.
#
# Next: **[05 · Distillation](05_distillation.ipynb)**, where a network learns from another one's answers.
