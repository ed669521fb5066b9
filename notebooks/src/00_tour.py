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
# - see what eight bits do to a weight, in ten lines,
# - export the network, quantize it, and measure every version on *this* machine,
# - say how sure a measurement is, and choose by a requirement instead of by taste.
#
# **Time and memory:** two minutes to run, twenty to play; under 900 MB. No network, no GPU.

# %% tags=["parameters"]
PROFILE = None
MODEL = "resnet20@digits"
DATASET = "digits"
THREADS = 1
SEED = 0

# %% tags=["setup"]
import os
import tempfile
from pathlib import Path

import numpy as np
from IPython.display import HTML, Image, display

from labkit import ExportOnnx, PruneChannels, PruneMagnitude, QuantizeInt8, load_dataset, load_model
from labkit.measure import Candidate, Protocol, compare, measure
from labkit.plots import pareto, png, table_html
from labkit.quantize import choose_scale, dequantize, quantize
from labkit.runtimes import RUNTIMES
from labkit.strategy import choose, load_requirement
from labkit.study import Study
from labkit.teach import check, claim, decision, predict
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

# %% tags=["exercise"]
model = load_model(MODEL)
data = load_dataset(DATASET)
requirement = load_requirement("classroom")
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
# ## Eight bits, in ten lines
#
# An 8-bit integer can take 256 values. Lay an even grid of 256 points over the weights, from the smallest
# to the largest, and move each weight to its nearest point. The grid needs two numbers: the distance
# between two points (`scale`) and the point that stands for exactly 0 (`zero_point`).

# %% tags=["nbval-check-output"]
weight = next(p for p in model.model.parameters() if p.ndim == 4).detach().numpy()  # the first convolution

low, high = min(float(weight.min()), 0.0), max(float(weight.max()), 0.0)
scale = np.float32((high - low) / 255)
zero_point = round(-low / ((high - low) / 255))
whole = np.clip(np.rint(weight / scale) + zero_point, 0, 255).astype(np.uint8)
back = (whole.astype(np.int32) - zero_point).astype(np.float32) * scale

their_scale, their_zero_point = choose_scale(weight.min(), weight.max())
claim("the same grid as labkit's", scale == their_scale and zero_point == their_zero_point)
claim("the same 8-bit numbers", np.array_equal(whole, quantize(weight, their_scale, their_zero_point)))
claim("and the same way back", np.array_equal(back, dequantize(whole, their_scale, their_zero_point)))
claim("256 values", 2 ** (8 * whole.itemsize) == 256)
claim("no weight has moved by more than half a step", np.abs(back - weight).max() <= scale / 2 * 1.0001)
claim("a quarter of the bytes", 4 * whole.nbytes == weight.nbytes)

# %% [markdown]
# Half a step is the whole price. Whether the *network* notices is another question, and only a measurement
# answers it.

# %% [markdown]
# ## Make the variants
#
# `ExportOnnx` rewrites the network in a format that other engines read, and proves that it still computes
# the same. `QuantizeInt8` looks at a few hundred training images to choose its grids, and moves everything
# onto them.

# %% tags=["exercise"]
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
# That is why the table gives a `speedup` with an interval: the truth is in there 95 times out of 100.
#
# Quality has an interval as well. A few hundred images cannot tell 99 % from 100 %.

# %% tags=["exercise"]
settings = {"batch_size": requirement.batch_size, "threads": THREADS}
engines = [r.name for r in RUNTIMES if "onnx" in r.formats and r.is_available().ok]
candidates = [Candidate(variant, engine, **settings) for variant in (onnx, int8) for engine in engines]
baseline = Candidate(model, "torch", **settings)

records = measure(candidates, data, against=baseline, protocol=protocol, seed=SEED)
comparison = compare(records)
show(comparison)

# %%
best = max(records.measurements, key=lambda row: row.throughput_samples_per_s)
engine = "PyTorch" if best.runtime == "torch" else "another runtime"
winner = f"{best.precision} in {engine}"
fastest.reveal(winner, why=f"It is {best.key} here; on another processor it may be another one.")

# %%
gained = comparison.pair(best.key)
claim("the best candidate is faster than PyTorch, and surely so", gained.speedup_ci95[0] > 1)
claim(
    "its quality is within the requirement",
    gained.accuracy_drop_pp <= requirement.limits.max_accuracy_drop_pp,
)

# %% [markdown]
# ## Play
#
# Tick what you want to see, press **Run**, and watch the front grow; **Stop** works at any time. Below the
# figure stands the command line that does the same. Things to try:
# - Does `int8` still win with one picture at a time (`batch_size` 1)?
# - `narrow` throws 30 % of the channels away and does not train again. What does that cost?
# - Are two threads twice as fast?

# %%
study = Path(tempfile.mkdtemp(prefix="labkit-")) / "tour"
Study(study).append_run(records)
narrow = (PruneChannels(pruning_ratio=0.3), ExportOnnx())
ComparePanel(
    MODEL,
    DATASET,
    {"onnx": (ExportOnnx(),), "int8": (ExportOnnx(), QuantizeInt8()), "narrow": narrow},
    recorded=study,
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
zeros = np.mean([float((p == 0).float().mean()) for p in sparse.model.parameters() if p.ndim == 4])
pruned = measure(
    [Candidate(sparse, "torch", **settings)], data, against=baseline, protocol=protocol, seed=SEED
)
against_dense = compare(pruned).pairs[0]

claim("most weights are zero now", zeros > 0.5)
claim("not one byte is saved", sparse.size_bytes == model.size_bytes)
claim("and it is not even 1.5 times as fast", against_dense.speedup_ci95[0] < 1.5)

# %% [markdown]
# A dense engine multiplies by zero like by any other number, and a zero takes 32 bits like any other
# number. Zeros pay off only if something *skips* them (lesson 04) or *codes* them (lesson 06). Remember
# this when a paper promises "70 % fewer weights".

# %% [markdown]
# ## Exercise: choose by hand
#
# Which candidate would you ship? It must meet every wall of the requirement (not PyTorch, at most 400,000
# bytes, at most half a point lost), and among those be the one with the most pictures a second. Answer with
# its `key`.

# %% tags=["exercise"]
for row in records.measurements:
    speed = f"{row.throughput_samples_per_s:8,.0f} pictures/s"
    print(f"{row.key:72} {row.size_bytes:>9,} bytes {speed}, {row.accuracy_drop_pp:z.2f} points lost")

# %%
my_choice = None  # your answer
### BEGIN SOLUTION
meets = [r for r in records.measurements if r.size_bytes <= 400_000 and r.accuracy_drop_pp <= 0.5]
meets = [r for r in meets if r.runtime != "torch"]
my_choice = max(meets, key=lambda r: r.throughput_samples_per_s).key
### END SOLUTION

# %%
check(
    my_choice,
    expected=lambda key: key == choose(comparison, requirement).chosen.key,
    hint="Cross out every line that breaks a wall; of the rest, take the one with the most pictures a second.",
)

# %% [markdown]
# ## The decision
#
# `choose` does the same for any number of candidates, and says for each one that it rejects which wall it
# broke.

# %%
made = choose(comparison, requirement)
claim("one candidate meets every wall", made.chosen is not None)
for rejected in made.rejected:
    print(f"✗ {rejected.key}: {rejected.reason}")
print(f"✓ {made.chosen.key}")
show(comparison, chosen=made.chosen.key)

# %%
claim("the choice is an int8 file", made.chosen.precision.startswith("int8"))
claim("it fits into 400,000 bytes", made.chosen.size_bytes <= 400_000)
decision(
    "00_tour",
    variant=made.chosen.key,
    constraint="size: the float32 files are all too large",
    risk="the validation images are few; a loss of a point would hide in the interval",
    size_bytes=made.chosen.size_bytes,
    speedup=round(comparison.pair(made.chosen.key).speedup, 2),
)

# %% [markdown]
# ## In short
#
# - A variant is a model in one format; a technique makes a new one; a runtime executes it.
# - Int8 moves each weight by half a step at most, and takes a quarter of the bytes.
# - Speed is a ratio with an interval, never without the quality beside it.
# - Zeros alone make nothing faster.
# - A requirement turns "I like this one" into a decision with reasons.
#
# Next: **01 · Deployment strategy**, where the requirement comes from.
