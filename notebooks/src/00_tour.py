# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 00 · Tour: from a trained network to one that you can ship
#
# You start with a network that reads handwritten digits, and a wish: *thirty students take a picture at the
# same moment, and one laptop answers them all.* You end with the file to ship, and with reasons.
#
# **You will**
# - see what eight bits do to a weight, in five lines,
# - export the network, quantize it, and measure every version on *this* machine,
# - say how sure a measurement is, and choose by a requirement instead of by taste.
#
# **Time and memory:** a minute or two to run, twenty to play; under 900 MB. No network, no GPU.

# %% tags=["parameters"]
PROFILE = None
MODEL = "resnet20@digits"
DATASET = "digits"
THREADS = 1
SEED = 0

# %% tags=["setup"]
from hashlib import sha256

from IPython.display import HTML, Image, display

from labkit.plots import pareto, png, table_html
from labkit.teach import check, claim, decision, predict


def fingerprint(answer):
    """Tells a right answer from a wrong one, and gives neither away."""
    return sha256(f"00_tour {str(answer).strip().upper()}".encode()).hexdigest()[:8]


# %%
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from labkit import ExportOnnx, PruneChannels, PruneMagnitude, QuantizeInt8, load_dataset, load_model
from labkit.measure import Candidate, Protocol, compare, measure
from labkit.quantize.arithmetic.grid import weight_grid
from labkit.runtimes import RUNTIMES
from labkit.strategy import choose, load_requirement
from labkit.study import Study, note
from labkit.widgets import ComparePanel

profile = PROFILE or os.environ.get("LABKIT_PROFILE", "class")
protocol = {"ci": Protocol.brief(), "class": Protocol.paired(), "full": Protocol(blocks=30)}[profile]
COLUMNS = ["variant", "runtime", "size_bytes", "latency_p50_ms", "speedup", "speedup_ci95"]
COLUMNS += ["quality", "quality_ci95"]


def show(comparison, chosen=None):
    """A figure, and the same as a table: for readers of the page, and for those who do not see the figure."""
    figure = pareto(comparison.measurements, chosen=chosen)
    table = table_html(comparison.to_rows(), COLUMNS)
    display(Image(png(figure), alt=figure.get_label()), HTML(table))


# %% [markdown]
# ## The idea
#
# A trained network is a list of numbers and a recipe for using them. To ship it you may change three
# things:
#
# | you change | for example | you hope for |
# |---|---|---|
# | the **format** | PyTorch → ONNX | a faster engine can read it |
# | the **numbers** | 32-bit floats → 8-bit integers | a smaller, faster file |
# | the **runtime** | PyTorch → ONNX Runtime, OpenVINO | the same answers, sooner |
#
# Each change makes a new *variant* and leaves the old one alone, so that you can always compare. Hope is
# not enough: every change is measured for **size**, **speed** and **quality**, all three.

# %%
model = load_model(MODEL)
data = load_dataset(DATASET)
requirement = replace(load_requirement("classroom"), threads=THREADS)
print(f"{model.name}: {model.size_bytes:,} bytes; {len(data.split('validation'))} validation images")
print(f"wanted: {requirement.title}")

# %% [markdown]
# The wish is written down as a *requirement*: 32 pictures at a time, at most 400,000 bytes, at most half a
# point of accuracy lost, and then as many pictures a second as possible.

# %%
claim("32 pictures at a time", requirement.batch_size == 32)
claim("at most 400,000 bytes", requirement.limits.max_size_bytes == 400_000)
claim("at most half a point lost", requirement.limits.max_accuracy_drop_pp == 0.5)
claim("the network as it came is too large for that", model.size_bytes > requirement.limits.max_size_bytes)

# %% [markdown]
# ## Predict first
#
# Commit to a number before you measure: being surprised is how one learns. Nobody grades this.

# %%
smaller = predict("How many times smaller will the file be with 8-bit numbers?", unit="×")
smaller

# %%
fastest = predict(
    "Which will answer the most pictures a second on this machine?",
    ["float32 in PyTorch", "float32 in another runtime", "int8 in another runtime"],
)
fastest

# %% [markdown]
# ## Eight bits, in five lines
#
# An 8-bit integer can take 256 values, from −128 to 127. Take the weights of one filter, and lay an even grid
# over them: 0 stays 0, the largest weight, positive or negative, becomes ±127, and every weight moves to its
# nearest point. One number per filter, the distance between two points (`scale`), is all that must be kept
# beside the integers. Each filter gets a grid of its own, so that one with large weights does not coarsen the
# others.

# %% tags=["nbval-check-output"]
weight = next(p for p in model.model.parameters() if p.ndim == 4).detach().numpy()  # the first convolution

largest = np.abs(weight).max(axis=(1, 2, 3), keepdims=True)  # of each filter, that is of each output channel
scale = largest / np.float32(127)
whole = np.clip(np.rint(weight / scale), -128, 127).astype(np.int8)
back = whole * scale

grid = weight_grid(weight, axis=0)
their_whole = grid.quantize(weight)
claim("the same grids as labkit's", np.array_equal(scale.ravel(), grid.scale))
claim("the same 8-bit numbers", np.array_equal(whole, their_whole))
claim("and the same way back", np.array_equal(back, grid.dequantize(their_whole)))
claim("256 values, from −128 to 127", [np.iinfo(np.int8).min, np.iinfo(np.int8).max] == [-128, 127])
claim("no weight has moved by more than half a step", np.all(np.abs(back - weight) <= scale / 2 * 1.0001))
claim("a quarter of the bytes", 4 * whole.nbytes == weight.nbytes)

one_grid = np.rint(weight / scale.max()) * scale.max()
claim("one grid for all filters is worse", np.abs(one_grid - weight).mean() > np.abs(back - weight).mean())

# %% [markdown]
# Half a step is the whole price for the weights. Whether the *network* notices is another question, and only a
# measurement answers it.

# %% [markdown]
# ## Make the variants
#
# `ExportOnnx` rewrites the network in a format that other engines read, and proves that it still computes
# the same. `QuantizeInt8` then moves everything onto 8-bit grids: the weights as you just did, and so the
# *activations*, the numbers that flow from layer to layer. Nobody knows them before a picture comes in, so
# their grids are chosen from a few hundred training images. And as many of them are never negative, their grids
# are not centred on 0: they run from the smallest value to the largest, and a second number, the `zero_point`,
# says which point stands for 0.

# %%
onnx = ExportOnnx()(model, data)
int8 = QuantizeInt8()(onnx, data)
for variant in (model, onnx, int8):
    print(f"{variant.name:32} {variant.format:6} {variant.size_bytes:>9,} bytes")

# %%
ratio = model.size_bytes / int8.size_bytes
claim("more than 3 times smaller, and less than 4 times", 3 < ratio < 4)
smaller.reveal(
    ratio, why="32 bits became 8, so 4 is the limit; the grids and the graph take some of it back."
)

# %% [markdown]
# ## Measure
#
# Two runs of one program never take the same time. So the candidates take **turns**, in random order, again
# and again: whatever slowed the machine for a moment slowed its neighbours too, and cancels in the ratio.
#
# | in the table | it says |
# |---|---|
# | `size_bytes` | the bytes of the file that you would ship |
# | `latency_p50_ms` | milliseconds for one batch of 32 pictures: the middle of all runs, half of them were faster |
# | `speedup` | how many times as fast as the *baseline*, the network in PyTorch, which itself has none (–) |
# | `speedup_ci95` | the speedups that these runs leave plausible, the 95 % *confidence interval* |
# | `quality` | the share of the validation images that were answered right; `quality_ci95` goes with it |
#
# Such an interval is built to hold the truth 95 times out of 100, if nothing but chance moves the figures. A
# busy machine is not chance: there it holds the truth less often. How often, labkit tests on itself: see
# [docs/benchmarks.md](../docs/benchmarks.md). Quality has an interval as a few hundred images are only a
# sample: they cannot tell 99 % from 100 %.
#
# In the figure each candidate is a point: further left is faster, higher is better. The dashed line is the
# **Pareto front**: it joins the candidates that no other beats in both. For each of the rest, somebody on the
# front is at least as good in speed *and* quality, and better in one. If these two were all that counts, you
# would ship one from the front.
#
# A candidate's name is its **key**: `resnet20@digits+quantize_int8 · openvino · b32 · t1 · int8` is the network
# `resnet20` trained on `digits`, quantized, executed by OpenVINO in batches of 32 pictures on 1 thread, and
# computed in int8.

# %%
settings = {"batch_size": requirement.batch_size, "threads": THREADS}
engines = [r.name for r in RUNTIMES if "onnx" in r.formats and r.is_available().ok]
candidates = [Candidate(variant, engine, **settings) for variant in (onnx, int8) for engine in engines]
baseline = Candidate(model, "torch", **settings)

records = measure(candidates, data, against=baseline, protocol=protocol, seed=SEED)
comparison = compare(records)
show(comparison)

# %%
gained = max(comparison.pairs, key=lambda pair: pair.speedup)
best = next(row for row in records.measurements if row.key == gained.key)
engine = "another runtime" if gained.speedup > 1 else "PyTorch"
fastest.reveal(
    f"{best.precision} in {engine}", why=f"It is {best.key} here; on another processor it may be another one."
)

# %%
claim("the best candidate is faster than PyTorch: all of its interval is above 1", gained.speedup_ci95[0] > 1)
claim("99 % would be in the interval of the best quality, too", best.quality_ci95[0] < 0.99)
claim(
    "a key names the variant, the runtime and the batch",
    candidates[-1].key.startswith(f"{int8.name} · {engines[-1]} · b32"),
)
claim(
    "its quality is within the requirement",
    gained.accuracy_drop_pp <= requirement.limits.max_accuracy_drop_pp,
)

# %% [markdown]
# ## Play
#
# Tick what you want to see, press **Run**, and watch the front grow; **Stop** works at any time, and **Show
# recorded** brings back what you measured above. Below the figure stands the command line that does the same.
# Things to try:
#
# - Does `int8` still win with one picture at a time (`batch_size` 1)?
# - `narrow` throws 30 % of the channels away and does not train again. What does that cost?
# - Are two threads twice as fast?

# %%
study = Study.current() or Study(Path(tempfile.mkdtemp(prefix="labkit-")) / "tour")  # a sweep has its own
study.append_run(records)
narrow = (PruneChannels(pruning_ratio=0.3), ExportOnnx())
ComparePanel(
    MODEL,
    DATASET,
    {"onnx": (ExportOnnx(),), "int8": (ExportOnnx(), QuantizeInt8()), "narrow": narrow},
    recorded=study.folder,
)

# %% [markdown]
# The panel holds no secrets: it calls what you called above. One picture at a time, in plain code:

# %%
alone = {"batch_size": 1, "threads": THREADS}
singles = [Candidate(variant, engines[0], **alone) for variant in (onnx, int8)]
one_at_a_time = measure(
    singles, data, against=Candidate(model, "torch", **alone), protocol=protocol, seed=SEED
)
show(compare(one_at_a_time))

# %% [markdown]
# ## What must not work
#
# Set 70 % of the weights to zero. Multiplying by zero is wasted work, so the network should be three times
# as fast and a third of the size. Should it?

# %%
sparse = PruneMagnitude(sparsity=0.7)(model, data)
weights = [p for p in sparse.model.parameters() if p.ndim > 1]  # of convolutions and linear layers
zeros = sum(int((p == 0).sum()) for p in weights) / sum(p.numel() for p in weights)
pruned = measure(
    [Candidate(sparse, "torch", **settings)], data, against=baseline, protocol=protocol, seed=SEED
)
against_dense = compare(pruned).pairs[0]

claim("70 % of all weights are zero now", abs(zeros - 0.7) < 0.01)
claim("not one byte is saved", sparse.size_bytes == model.size_bytes)
claim("and it is not even 1.5 times as fast", against_dense.speedup < 1.5)

# %% [markdown]
# A dense engine multiplies by zero like by any other number, and a zero takes 32 bits like any other
# number. Zeros pay off only if something *skips* them or *codes* them. Remember this when
# a paper promises "70 % fewer weights".

# %% [markdown] tags=["exercise"]
# ## Exercise: choose by hand
#
# Six candidates were measured on another computer, so that the right answer is the same for all of us. Which
# one would you ship? It must meet every wall of the requirement (not PyTorch, at most 400,000 bytes, at most
# half a point of accuracy lost), and among those be the one with the most pictures a second. Points lost are
# percentage points, `accuracy_drop_pp`. Answer with a letter, such as `"E"`.

# %% tags=["exercise"]
# Measured with labkit on another computer: an AMD EPYC, one core, 32 pictures at a time, 30 blocks each.
FIELDS = ["key", "network", "precision", "runtime", "size_bytes", "pictures_per_s", "accuracy_drop_pp"]
RECORDED = [
    dict(zip(FIELDS, row, strict=True))
    for row in [
        ("A", "as it came", "int8", "onnxruntime", 313_211, 2_444, 0.0),
        ("B", "retrained to look at a quarter of the pixels", "float32", "openvino", 1_093_722, 4_507, 0.0),
        ("C", "30 % of the channels removed", "int8", "openvino", 170_813, 3_888, 2.22),
        ("D", "as it came", "int8", "openvino", 313_211, 3_385, 0.0),
        ("E", "as it came", "float32", "torch", 1_106_048, 780, 0.0),
        ("F", "as it came", "float32", "openvino", 1_093_722, 1_184, 0.0),
    ]
]
display(HTML(table_html(RECORDED, FIELDS)))

# %%
my_choice = None  # your answer
### BEGIN SOLUTION
meets = [row for row in RECORDED if row["size_bytes"] <= 400_000 and row["accuracy_drop_pp"] <= 0.5]
meets = [row for row in meets if row["runtime"] != "torch"]
my_choice = max(meets, key=lambda row: row["pictures_per_s"])["key"]
### END SOLUTION

# %%
check(
    my_choice,
    expected=lambda key: fingerprint(key) == "ded0bc68",
    hint="Cross out every line that breaks a wall; of the rest, take the one with the most pictures a second.",
)

# %% [markdown]
# ## The decision
#
# Now for the candidates that you measured on *this* machine. `choose` does by rule what you did by hand, for
# any number of them, and says for each one that it rejects which wall it broke. The constraint that *binds* is
# the wall that keeps a better candidate out: relax that one first if you need more. None binds if the best of
# all meets every wall.

# %%
made = choose(comparison, requirement)
claim("one candidate meets every wall", made.chosen is not None)
for rejected in made.rejected:
    print(f"✗ {rejected.key}: {rejected.reason}")
print(f"✓ {made.chosen.key}")
show(comparison, chosen=made.chosen.key)

# %%
gain = comparison.pair(made.chosen.key)
claim("the choice is an int8 file", made.chosen.precision.startswith("int8"))
claim("it fits into 400,000 bytes", made.chosen.size_bytes <= 400_000)
claim("but a loss of one point would hide in the interval", gain.accuracy_drop_pp_ci95[1] > 1)
note(  # for a sweep: `labkit sweep` runs this notebook many times, and collects what is noted
    chosen=made.chosen.key,
    size_bytes=made.chosen.size_bytes,
    speedup=gain.speedup,
    speedup_ci95=gain.speedup_ci95,
    accuracy_drop_pp=gain.accuracy_drop_pp,
)
decision(
    "00_tour",
    variant=made.chosen.key,
    constraint=made.binding or f"none, {made.advice}",
    risk="the validation images are few; a loss of a point would hide in the interval",
    size_bytes=made.chosen.size_bytes,
    speedup=round(gain.speedup, 2),
)

# %% [markdown]
# ## In short
#
# - A variant is a model in one format; a technique makes a new one; a runtime executes it.
# - Int8 moves each weight by half a step at most, and the file takes little more than a quarter of the bytes.
# - Speed is a ratio with an interval, never without the quality beside it.
# - Zeros alone make nothing faster.
# - A requirement turns "I like this one" into a decision with reasons.
#
# Planned next: **01 · Deployment strategy**, where the requirement comes from.
