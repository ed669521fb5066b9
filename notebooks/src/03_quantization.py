# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 03 · Quantization: the same network in fewer bits
#
# A conversion loses nothing. Here something is lost on purpose: digits of every number, in exchange for a smaller
# and faster file. How much may be lost, where does it hurt, and why is it sometimes not faster at all?
#
# **You will**
# - lay numbers on a grid, and multiply matrices in whole numbers only, as the processor does,
# - let one broken image ruin a network, and choose the calibrator that does not mind,
# - see a network collapse in 8 bits, and cure it in two ways,
# - go down to 4 bits: by learned rounding, by bits where they count, and by training,
# - play detective: why is this int8 file not faster?
#
# **Time and memory:** a minute or two to run, forty to play; under 900 MB. No network, no GPU.

# %% tags=["parameters"]
PROFILE = None
MODEL = "resnet20@digits"
SMALL = "lenet5@digits"
THIN = "mobilenet@digits"
DATASET = "digits"
THREADS = 1
SEED = 0

# %% tags=["setup"]
import dataclasses
import os
import textwrap
from hashlib import sha256
from pathlib import Path

import numpy as np
from IPython.display import HTML, SVG, display

import labkit as lk
from labkit.plots import table_html
from labkit.progress import silent
from labkit.teach import check, claim, decision, predict, previous_decision

profile = PROFILE or os.environ.get("LABKIT_PROFILE", "class")
folder = Path("results") / "03_quantization"  # the files that this lesson writes


def fingerprint(answer):
    """Tells a right answer from a wrong one, and gives neither away."""
    return sha256(f"03_quantization {str(answer).strip()}".encode()).hexdigest()[:8]


def show(rows, columns=None):
    """Rows as a table."""
    display(HTML(table_html(rows, columns or list(rows[0]))))


# %% [markdown]
# Three networks that read handwritten digits: `lenet5`, small and simple, `resnet20`, and `mobilenet`, which does
# with few numbers what others do with many, and is therefore the first to suffer. All three as ONNX, the format
# that lesson 02 proved equal:

# %%
data = lk.load_dataset(DATASET)
small, resnet, thin = (lk.ExportOnnx()(lk.load_model(name), data) for name in (SMALL, MODEL, THIN))
before = previous_decision("02_model_conversion")
before if before else print(
    "Nothing decided yet: 02_model_conversion ends in a decision, but this lesson runs without it."
)

# %%
from labkit.measure.quality import evaluate


def accuracy_pct(variant):
    """The share of the validation images that it answers right, in %."""
    return 100 * data.task.quality(evaluate(variant, data, "validation"))


as_float = {each.name: accuracy_pct(each) for each in (small, resnet, thin)}
show([{"network": name, "accuracy_pct": value} for name, value in as_float.items()])
one_image_pp = 100 / len(data.split("validation"))
claim("each reads more than 98 % of the digits", min(as_float.values()) > 98)
claim("one validation image is less than half a point", one_image_pp < 0.5)

# %% [markdown]
# ## A grid
#
# A `float32` spends 32 bits on a number. With 8 bits there are 256 numbers to choose from, with 4 bits 16. Which
# ones? **Quantization** lays an even grid over the range that is needed, and moves each number to the nearest point:
#
# $$ q = \mathrm{clamp}\big(\mathrm{round}(x / s) + z\big) \qquad\qquad x \approx s\,(q - z) $$
#
# | | what it is |
# |---|---|
# | q | a whole number, 0…255 or −128…127 with 8 bits: what is stored |
# | s, the **scale** | the distance between two neighbours on the grid |
# | z, the **zero point** | the whole number that stands for exactly 0: padding and ReLU make many zeros |
# | clamp | what lies beyond the grid's end is put on the end: it is *clipped* |
#
# A **symmetric** grid has 0 in its middle, which suits weights. An **asymmetric** one runs from the least value to
# the largest. After a ReLU nothing is negative, and half of a symmetric grid would be wasted.
#
# **Move the bits, and watch the arrows.** Then the symmetry: who gains by it here? Then the granularity: at
# `per_tensor` all rows share one scale, at `per_channel` each row has its own, and at `per_group` each few weights.

# %%
from labkit.widgets import GridExplorer, draw_grid, grid_table, make_grid

weight = next(p for p in lk.load_model(MODEL).model.parameters() if p.ndim == 4).detach().numpy()
GridExplorer(weight[:4], "the first four filters of resnet20", bits=4)

# %% [markdown]
# In plain code, the same for one scale and for four:

# %%
grids = {name: make_grid(weight[:4], bits=4, granularity=name) for name in ("per_tensor", "per_channel")}
display(SVG(draw_grid(weight[:4], grids["per_tensor"], "the first four filters, one scale")))
for name, grid in grids.items():
    display(HTML(f"<b>{name}</b>{grid_table(weight[:4], grid)}"))

# %% [markdown]
# ### The kernel in ten lines
#
# No library is needed for the formula. Here it is for the weights of the first filter, on an asymmetric grid:


# %% tags=["nbval-check-output"]
def choose(x, bits):
    low, high = min(x.min(), 0), max(x.max(), 0)  # the range must hold 0
    scale = (np.float64(high) - low) / (2**bits - 1)
    return np.float32(scale), np.int32(np.rint(-low / scale))


def quantize(x, scale, zero_point, bits):
    return np.clip(np.rint(x / scale) + zero_point, 0, 2**bits - 1).astype(np.uint8)


def dequantize(q, scale, zero_point):
    return scale * (q.astype(np.int32) - zero_point).astype(np.float32)


import labkit.quantize as theirs

x = weight[0]
for bits in (8, 4, 2):
    scale, zero_point = choose(x, bits)
    q = quantize(x, scale, zero_point, bits)
    back = dequantize(q, scale, zero_point)
    claim(
        f"{bits} bits: labkit's scale and zero point",
        (scale, zero_point) == theirs.choose_scale(x.min(), x.max(), bits),
    )
    claim(
        f"{bits} bits: labkit's whole numbers", np.array_equal(q, theirs.quantize(x, scale, zero_point, bits))
    )
    claim(
        f"{bits} bits: and the same way back", np.array_equal(back, theirs.dequantize(q, scale, zero_point))
    )
    claim(
        f"{bits} bits: nothing has moved by more than half a step", np.abs(back - x).max() <= 0.5001 * scale
    )

# %% [markdown]
# ### What a bit is worth
#
# Each bit less makes every step twice as long, and every error with it. The *signal-to-noise ratio* (SNR) compares
# the size of the numbers with the size of their errors, in decibels (dB): 20 dB less are ten times the error, so a
# factor of 2 is 6 dB. For all weights of a larger layer, one scale per filter:

# %%
from labkit.quantize.arithmetic.grid import weight_grid
from labkit.quantize.noise import snr_db

larger = max((p for p in lk.load_model(MODEL).model.parameters() if p.ndim == 4), key=lambda p: p.numel())
larger = larger.detach().numpy().astype(np.float32)
rows = []
for bits in range(8, 1, -1):
    error = weight_grid(larger, axis=0, bits=bits).round(larger) - larger
    rows.append(
        {"bits": bits, "numbers on the grid": 2**bits, "snr_db": snr_db((larger**2).sum(), (error**2).sum())}
    )
show(rows)
step_db = (rows[0]["snr_db"] - rows[4]["snr_db"]) / 4
claim("from 8 to 4 bits, each bit costs about 6 dB", 5 < step_db < 7)
claim(
    "a factor of 2 is 6 dB, one of 10 is 20 dB", [round(20 * np.log10(ratio)) for ratio in (2, 10)] == [6, 20]
)

# %% [markdown]
# ## Whole numbers only
#
# Why would the result be *faster*? Because nobody multiplies the floats. Put both grids into a product of matrices,
# and the scales move out of the sum:
#
# $$ \sum_k s_a(a - z_a)\cdot s_w\,w \;=\; s_a s_w\Big(\sum_k a\,w \;-\; z_a\sum_k w\Big) $$
#
# What is left inside are whole numbers of 8 bits, added up in 32 bits. Processors do that several times as fast as
# with floats. The second sum depends on the weights alone, and is made once, beforehand. Let us compute a
# layer of `lenet5` that way: its inputs on an asymmetric grid, its weights on a symmetric one (so that their zero
# point is 0, and drops out).

# %% tags=["nbval-check-output"]
import onnx
from onnx import TensorProto, helper

from labkit.onnx_graph import Graph
from labkit.quantize.arithmetic.integer import integer_matmul
from labkit.quantize.calibration.calibrate import activations, pick
from labkit.quantize.gate import start
from labkit.runtimes import get_runtime

work = start(small)  # the graph, its batch normalisations folded, and which tensors need a grid
layer = work.plan.layers[2]  # the third of four, a matrix product
images = pick(small, data.split("calibration"), 64)
(batch,) = [
    dict(values) for values in activations(small, work.model, [layer.input, layer.output], images, silent)
][:1]
inputs, outputs = batch[layer.input], batch[layer.output]
w = Graph(work.model).constant(layer.weight)
w = w.T if layer.axis == 0 else w  # [inputs, outputs]
b = Graph(work.model).constant(layer.bias)

a_scale, a_zero = choose(inputs, 8)
a8 = quantize(inputs, a_scale, a_zero, 8)
w_scale = np.float32(np.abs(w).max() / 127)
w8 = np.rint(w / w_scale).astype(np.int8)


def product(a, w, a_zero):
    """[M, K] and [K, N] → [M, N]: whole numbers in, whole numbers out, no float in between."""
    return a.astype(np.int32) @ w.astype(np.int32) - a_zero * w.astype(np.int32).sum(axis=0)


sums = product(a8, w8, a_zero)
reached = sums * (a_scale * w_scale) + b  # back to floats

# %% [markdown]
# And what does the engine make of it? A file with nothing in it but this product tells. (Its weights are unsigned here,
# shifted by 128 with the zero point to match: some processors clip the sums of unsigned times signed numbers.)

# %%
shapes = {"a": a8.shape, "w": w8.shape, "a_zero": (), "w_zero": ()}
declared = [helper.make_tensor_value_info(name, TensorProto.UINT8, shape) for name, shape in shapes.items()]
result = [helper.make_tensor_value_info("y", TensorProto.INT32, sums.shape)]
graph = helper.make_graph(
    [helper.make_node("MatMulInteger", list(shapes), ["y"])], "product", declared, result
)
proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
engine = get_runtime("onnxruntime").engine().InferenceSession(proto.SerializeToString())
fed = {"a": a8, "w": w8.astype(np.int16) + 128, "a_zero": a_zero, "w_zero": 128}
(by_engine,) = engine.run(None, {name: np.asarray(each, np.uint8) for name, each in fed.items()})

claim("labkit's integer product is the same", np.array_equal(sums, integer_matmul(a8, w8, a_zero)))
claim("and ONNX Runtime's, in every one of its numbers", np.array_equal(sums, by_engine))
claim(
    "the layer's outputs are within 2 % of the float ones",
    np.abs(reached - outputs).max() < 0.02 * np.abs(outputs).max(),
)
off_by_one = product(a8, w8, a_zero + 1) * (a_scale * w_scale) + b
claim(
    "a zero point that is off by one is not",
    np.abs(off_by_one - outputs).max() > 0.02 * np.abs(outputs).max(),
)

# %% [markdown]
# ## Weights can be looked at, activations must be watched
#
# Weights lie in the file. **Activations**, the numbers that flow between layers, exist only while an image passes.
# To choose their grids, a few hundred images are run through the float network, and the range of each tensor is
# noted: **calibration**. But which range? One that holds everything leaves the grid coarse; a shorter one is finer
# and clips the largest values. Between the two is a best one, and **calibrators** differ in how they look for it:
#
# | calibrator | the range that it takes |
# |---|---|
# | `minmax` | all that was seen |
# | `moving_average` | the average over batches of their extremes |
# | `percentile` | all but the outermost 0.01 % of the values |
# | `entropy` | the one whose histogram loses the least information |
# | `mse` | the one with the least squared error, of rounding and clipping together |
#
# **Drag the threshold (`share`)** at 4 bits, then at 8. Rounding and clipping trade places, and the best share
# moves. `conv2d_1` is what the second convolution gives; its values come in a bell shape with a few far out.

# %%
from labkit.widgets import ClippingExplorer, clipping_table, draw_clipping, sweep_clipping, watch

calibration = pick(small, data.split("calibration"), 256)
seen = watch(activations(small, work.model, work.tensors, calibration, silent))
CHOSEN = work.plan.tensors[layer.input]  # the tensor whose grid it shares
ClippingExplorer(seen, tensor=CHOSEN, bits=4)

# %% [markdown]
# In plain code, and as a table, with a threshold of 80 %. The **clip rate** is the share of values that are clipped:

# %%
sweep = sweep_clipping(seen[CHOSEN], bits=4)
display(SVG(draw_clipping(sweep, 0.8, CHOSEN)))
display(HTML(clipping_table(sweep, 0.8)))
fine = sweep_clipping(seen[CHOSEN], bits=8)
claim("with 4 bits, clipping pays: the best threshold cuts something off", sweep.best < 1)
claim("and with 8 bits it pays less", fine.best > sweep.best)

# %% [markdown]
# ## Predict: one broken image
#
# Now the calibration images are not as clean as they should be. One of 256 was stored with 16 bits instead of 8 and
# is 256 times too bright. Nobody looks at calibration images. `lenet5` is quantized to 8 bits with it, once with
# each calibrator. What accuracy is left when `minmax` chooses the ranges?

# %%
guess = predict("The accuracy with minmax, one image of 256 broken, will be", unit="%")
guess

# %%
from labkit.quantize import quantization_report
from labkit.quantize.calibration.observers import CALIBRATORS


def calibrated_on(images):
    """The dataset, with other calibration images."""
    split = dataclasses.replace(data.split("calibration"), inputs={"image": images})
    return dataclasses.replace(data, splits={**data.splits, "calibration": split})


pixels = data.split("calibration").inputs["image"].astype(np.float32)
broken_pixels = pixels.copy()
broken_pixels[0] *= 256
broken = calibrated_on(broken_pixels)
seen_broken = watch(
    activations(small, work.model, [CHOSEN], pick(small, broken.split("calibration"), 256), silent)
)

rows = []
for name in CALIBRATORS:
    row = {"calibrator": name}
    for label, images, watched in (("", data, seen), ("broken: ", broken, seen_broken)):
        made = lk.QuantizeInt8(calibrator=name, max_drop_pp=100.0)(small, images)
        cut = sweep_clipping(watched[CHOSEN]).chosen[name]
        row |= {f"{label}range up to": cut.range.high, f"{label}clip_rate": f"{cut.clip_rate:.3%}"}
        row |= {f"{label}accuracy_pct": accuracy_pct(made)}
    rows.append(row)
show(rows)

# %%
claim(
    "percentile gives up 0.01 %, one value in ten thousand", CALIBRATORS["percentile"]().percentile == 99.99
)
with_broken = {row["calibrator"]: row["broken: accuracy_pct"] for row in rows}
clean = [row["accuracy_pct"] for row in rows]
claim(
    "with clean images all five are as good as float, to one image",
    min(clean) >= as_float[small.name] - 1.01 * one_image_pp,
)
claim("with one broken image minmax is ruined", with_broken["minmax"] < 50)
claim("so are percentile and mse", max(with_broken["percentile"], with_broken["mse"]) < 60)
claim("entropy and the moving average hold", min(with_broken["entropy"], with_broken["moving_average"]) > 97)
guess.reveal(
    with_broken["minmax"], why="The grid was stretched for one image; all the others share a few points."
)

# %% [markdown]
# No calibrator is the best. `minmax` believes everything. `percentile` gives up one value in ten thousand, and the
# broken image brings one in 256. `mse` counts squares, and the square of something huge is huge. Two hold here, by
# luck of their formula. The cure is to *look* at the histogram, and to throw the image out.
#
# ### What must not pass
#
# The opposite mistake is a calibration set that is narrower than life. Here are the same images, photographed in
# the dusk, a quarter as bright. No calibrator can know what it has not seen:

# %%
from labkit.errors import TechniqueError

dusk = calibrated_on(pixels / 4)
try:
    lk.QuantizeInt8()(small, dusk)
    refused = ""
except TechniqueError as error:
    refused = str(error)
print(refused)
narrow = quantization_report(lk.QuantizeInt8(max_drop_pp=100.0)(small, dusk))
sound = quantization_report(lk.QuantizeInt8()(small, data))
claim("labkit refuses what it made, as it has become too bad", "max_drop_pp" in refused)
claim("more than a quarter of a tensor's values are clipped", narrow.clip_rate > 0.25)
claim("which is seen at once in the report, beside a sound one", sound.clip_rate < 0.01)

# %% [markdown]
# ## Predict: one scale for all
#
# A weight may have one scale (`per_tensor`), or one for each output channel (`per_channel`). Now comes `mobilenet`.
# It has *depthwise* convolutions: each of their channels looks at one input channel alone, with nine weights, and
# nothing forces these channels to be of like size. In larger networks they have been seen to grow far apart.
#
# To see that here, we rescale channels on purpose. A ReLU does not care: what one layer makes ten times larger, the
# next one divides by ten. It is the same function, and float does not notice: `max_rel_error`, the largest difference
# between the outputs as a share of the largest output, will show it. In 8 bits, with one scale for all channels of a
# weight: how many points of accuracy are lost?

# %%
lost = predict("Points lost in 8 bits, one scale for each weight", unit="points")
lost

# %%
from labkit.quantize.equalize import Unbalance

unbalanced = Unbalance(spread=100.0)(thin, data)  # up to a hundred times as large as another channel
even = lk.Equalize()(unbalanced, data)
networks = {"as trained": thin, "unbalanced": unbalanced, "unbalanced, then equalised": even}
rows, dropped = [], {}
for name, variant in networks.items():
    row = {
        "weights": name,
        "in float: max_rel_error": lk.parity(thin, variant, data, batches=(7,)).max_rel_error,
    }
    for granularity in ("per_tensor", "per_channel"):
        made = lk.QuantizeInt8(granularity=granularity, max_drop_pp=100.0)(variant, data)
        dropped[name, granularity] = as_float[thin.name] - accuracy_pct(made)
        row[f"{granularity}: points lost"] = dropped[name, granularity]
    rows.append(row)
show(rows)

# %%
collapse = dropped["unbalanced", "per_tensor"]
claim("in float all three are the same function", max(row["in float: max_rel_error"] for row in rows) < 1e-4)
claim(
    "as trained, nobody notices: a point at most",
    max(dropped["as trained", g] for g in ("per_tensor", "per_channel")) <= 1,
)
claim("unbalanced, one scale for all costs more than 20 points", collapse > 20)
claim("a scale for each channel costs 1.5 points at most", dropped["unbalanced", "per_channel"] <= 1.5)
claim(
    "equalised, even one scale for all gets back 80 % of it and more",
    dropped["unbalanced, then equalised", "per_tensor"] < 0.2 * collapse,
)
lost.reveal(
    collapse, why="The largest channel sets the step, and beside it the small ones are rounded to nothing."
)

# %% [markdown]
# Two cures. **Per channel** gives each channel a grid of its own, for one more number a channel: labkit does that
# unless told otherwise. **Cross-layer equalisation** is for engines that know one scale only: it rescales the
# channels as we did, but so that all of them use their grid alike. It changes the weights, and not the function.
#
# A cure must not work where nothing is ill. What does equalisation do to a network that is even already?

# %%
once, twice = (Graph(onnx.load_model_from_string(each.payload)) for each in (even, lk.Equalize()(even, data)))
moved = 0.0
for name in once.constants:
    w, w_again = once.constant(name), twice.constant(name)
    if w is not None and w.dtype == np.float32 and w.ndim > 1 and np.abs(w).max() > 0:
        moved = max(moved, float(np.abs(w_again - w).max() / np.abs(w).max()))
print(f"the weight that moved most moved by {moved:.1e} of its tensor's largest")
claim("equalised once more, no weight moves by a hundredth", moved < 0.01)

# %% [markdown]
# From a terminal: `labkit quantize mobilenet@digits --method equalize --dataset digits --out even`, and
# `labkit quantize even --set granularity=per_tensor --dataset digits --out int8`.
#
# ## Live, on every runtime
#
# `resnet20` in 8 bits, as you would ship it. The file holds **QDQ** nodes: behind each tensor stand a
# *QuantizeLinear* and a *DequantizeLinear*, the two halves of the formula above. Executed as they stand, they would be
# more work than before. The engine recognises the pattern, and puts arithmetic in whole numbers in its place.

# %%
from labkit.environment import current
from labkit.measure import Candidate, Protocol, compare
from labkit.measure import measure as race
from labkit.runtimes import RUNTIMES
from labkit.widgets import ComparePanel

protocol = {"ci": Protocol.brief(), "class": Protocol.paired(), "full": Protocol(blocks=30)}[
    profile
]  # how long
engines = [r.name for r in RUNTIMES if "onnx" in r.formats and r.is_available().ok]
settings = {"batch_size": 32, "threads": THREADS}
rows, pairs, int8 = [], {}, {}
for engine in engines:
    int8[engine] = lk.QuantizeInt8(runtime=engine)(resnet, data)  # laid out as this engine likes it
    candidate, baseline = (Candidate(each, engine, **settings) for each in (int8[engine], resnet))
    compared = compare(race([candidate], data, against=baseline, protocol=protocol, seed=SEED))
    rows += compared.to_rows()
    (pairs[engine],) = compared.pairs
COLUMNS = ["variant", "runtime", "size_bytes", "latency_p50_ms", "speedup", "speedup_ci95"]
show(rows, [*COLUMNS, "quality", "quality_ci95"])
reports = [quantization_report(each) for each in int8.values()]
print(*reports, sep="\n")

# %%
claim("all of its layers are in 8 bits", all(set(each.bits) == {"8"} and not each.left for each in reports))
largest = max(each.size_bytes for each in int8.values())
claim("the file is more than 3 times smaller", resnet.size_bytes > 3 * largest)
claim(
    "half a point of accuracy is lost at most", max(pair.accuracy_drop_pp for pair in pairs.values()) <= 0.5
)
has_unit = current().has_vnni or current().has_amx
reach = min(pair.speedup_ci95[1] for pair in pairs.values())
claim("no runtime is slower with it, where the processor has a unit for it", reach > 1 or not has_unit)

# %% [markdown]
# Each `speedup` is against float32 on the *same* runtime, both taking turns; the rows without one are the float32
# baselines. How much it is depends on the processor: units for products of 8-bit numbers (VNNI and AMX are Intel's
# names for theirs) make the difference.
#
# ### Play
#
# Press **Run**. It starts with one image at a time: what is left of the gain? And does one scale for all
# channels save time?

# %%
chains = {
    "float32": (lk.ExportOnnx(),),
    "int8": (lk.ExportOnnx(), lk.QuantizeInt8()),
    "int8 per tensor": (lk.ExportOnnx(), lk.QuantizeInt8(granularity="per_tensor")),
}
ComparePanel(MODEL, DATASET, chains)

# %% [markdown]
# ## Fewer bits, and which way to round
#
# **Weight-only** quantization stores weights in 2 to 8 bits, and computes in float: for files that must be small.
# (No engine reads fewer than 4 bits: 2 and 3 are stored in 4, and cost accuracy alone.) With few points on the grid it
# matters *to which* of its two neighbours a weight goes. The nearest is best for the weight. For the layer's **output**
# it is not: the errors of many weights are added up there, and can be made to cancel. **Learned rounding** looks at a
# few images, here 16 without labels, and decides weight by weight:
#
# | rounding | how |
# |---|---|
# | `nearest` | each weight for itself |
# | `gptq` | one input after the other; the weights that are still free make up for the error so far |
# | `descent` | goes on from there: moves one weight at a time for as long as the layer's output gets better |

# %%
images = thin.feeds(data.split("validation").take(slice(0, 64)).inputs)


def logits_of(variant):
    """The network's outputs, one number for each class and image."""
    with get_runtime("onnxruntime").load(variant) as session:
        return session.run(images)["logits"].astype(np.float64)


def stored_weights(variant):
    """Every weight that the file holds in few bits, back in floats: whole numbers times their scale."""
    graph = Graph(onnx.load_model_from_string(variant.payload))
    found = []
    for node in graph.nodes:
        cast = graph.producer.get(node.input[0]) if node.op_type == "Mul" else None
        if node.op_type == "DequantizeLinear":  # a product's weight; the engine knows what the node means
            q, scale = graph.constant(node.input[0]), graph.constant(node.input[1])
        elif cast is not None and cast.op_type == "Cast":  # a convolution's, written out: float(q) · scale
            q, scale = graph.constant(cast.input[0]), graph.constant(node.input[1])
        else:
            continue
        if q is not None and q.ndim > 1:
            found.append(q.astype(np.float32) * (scale[None] if scale.ndim == 1 else scale))
    return found


def distance(variant):
    """‖θ − θ*‖² / ‖θ*‖²: how far the weights have moved from those in 8 bits, the nearest thing to float."""
    pairs = list(zip(stored_weights(variant), stored_weights(fine_weights), strict=True))
    return sum(((a - b) ** 2).sum() for a, b in pairs) / sum((b**2).sum() for _, b in pairs)


fine_weights = lk.QuantizeWeights(bits=8)(thin, data)
claim(
    "all of its weights are found",
    len(stored_weights(fine_weights)) == quantization_report(fine_weights).layers,
)
y = logits_of(thin)
rows = []
for bits, rounding in [(4, "nearest"), (4, "gptq"), (2, "nearest"), (2, "gptq"), (2, "descent")]:
    technique = lk.QuantizeWeights(bits=bits, rounding=rounding, calibration_samples=16, max_drop_pp=100.0)
    made = technique(thin, data)
    row = {"bits": bits, "rounding": rounding, "points lost": as_float[thin.name] - accuracy_pct(made)}
    row["output snr_db"] = snr_db(((y - y.mean(axis=0)) ** 2).sum(), ((logits_of(made) - y) ** 2).sum())
    row["weights moved"] = float(distance(made))
    rows.append(row)
show(rows)

# %%
few = {(row["bits"], row["rounding"]): row for row in rows}
lost_at_2 = few[2, "nearest"]["points lost"]
claim(
    "with 4 bits nobody loses more than a point",
    max(few[4, r]["points lost"] for r in ("nearest", "gptq")) <= 1,
)
claim("16 images are enough for that", technique.calibration_samples == 16)
claim("with 2 bits the nearest rounding loses more than 20 points", lost_at_2 > 20)
claim(
    "learned rounding gets back 80 % of them and more",
    max(few[2, r]["points lost"] for r in ("gptq", "descent")) < 0.2 * lost_at_2,
)
claim(
    "at 4 bits, too, the learned output is the closer one",
    few[4, "gptq"]["output snr_db"] > few[4, "nearest"]["output snr_db"],
)

# %% [markdown]
# Read the last two columns together. The weights of the learned rounding have moved *further*, and its outputs are
# *closer*. Keep that in mind for the exercises.

# %%
claim(
    "at 4 bits learned rounding moves the weights further than the nearest does",
    few[4, "gptq"]["weights moved"] > few[4, "nearest"]["weights moved"],
)

# %% [markdown]
# ## A game: who gets the bits?
#
# Layers differ. One does not mind 4 bits, another ruins everything. Its **sensitivity** is the noise that it brings
# to the network's output when it alone is rounded, and all others are float. Noises of different layers nearly add
# up, and bytes do exactly: so any choice of bits, **mixed precision**, can be judged at once, without running it.
#
# The unbalanced network is the board. With 8 bits for every layer it is good, with 4 bits for every layer useless.
# **Your budget is 115,000 bytes of weights: give each layer 8 bits or 4.** The bars show its bytes, and its noise in dB
# with the share that it has in all noise. Where do bytes buy most? Then press **Measure mine**: your model is made and
# measured here, beside those that labkit's own search has found (recorded before).

# %%
from labkit.teach.recording import MIXED, load_recording, measure_point
from labkit.widgets import MixedGame, draw_assignment, tally

BUDGET = 115_000
recording = load_recording()
candidates = MIXED.stock(unbalanced, data, silent)  # the grids, and each weight in 8 and in 4 bits
names = list(dict.fromkeys(each.weight for each in recording.choices))


def measure(assignment, progress=silent):
    return measure_point(unbalanced, candidates, assignment, data, progress)


MixedGame(recording.choices, BUDGET, measure, recording.points)

# %% [markdown]
# In plain code: 4 bits for all, but 8 for the six that make most of the noise.

# %%
noise = {each.weight: each.noise for each in recording.choices if each.bits == 4}
loudest = sorted(noise, key=noise.get)[-6:]
tries = {"all 8 bits": dict.fromkeys(names, 8), "all 4 bits": dict.fromkeys(names, 4)}
tries["six with 8 bits"] = {**tries["all 4 bits"], **dict.fromkeys(loudest, 8)}
points = {name: measure(assignment) for name, assignment in tries.items()}
totals = {name: tally(recording.choices, assignment, BUDGET) for name, assignment in tries.items()}
display(SVG(draw_assignment(totals["six with 8 bits"])))
rows = [
    {
        "bits": name,
        "weight_bytes": totals[name].weight_bytes,
        "predicted snr_db": snr_db(1.0, totals[name].noise),
        "points lost": point.drop_pp,
        "points lost, ci95": point.drop_ci95,
    }
    for name, point in points.items()
]
show(rows)

# %%
recorded = next(point for point in recording.points if point.assignment == tries["all 4 bits"])
claim("all in 4 bits is useless: more than 50 points lost", points["all 4 bits"].drop_pp > 50)
claim(
    "with six of 26 in 8 bits, three points are lost at most",
    (len(names), points["six with 8 bits"].drop_pp <= 3) == (26, True),
)
claim("and it fits into 115,000 bytes", totals["six with 8 bits"].over_bytes <= 0 and BUDGET == 115_000)
claim(
    "that is less than 70 % of uniform 8 bits",
    totals["six with 8 bits"].weight_bytes < 0.7 * totals["all 8 bits"].weight_bytes,
)
claim(
    "what was recorded is what is measured here, within 3 points",
    abs(recorded.drop_pp - points["all 4 bits"].drop_pp) <= 3,
)

# %% [markdown]
# labkit searches such models by itself, under a limit of quality, size or time:
# `labkit quantize mobilenet@digits --method mixed --set max_drop_pp=0.5 --dataset digits --out mixed`.
#
# ## Why is it not faster?
#
# The question that is asked most. Three files of `resnet20`, all of them "quantized to 8 bits", come in, and two are
# hardly faster than float32. `explain` times each operator, races the file against the baseline, and against itself
# with one suspect taken away. Then it says what it found. **Press Run for A, B and C.** Then give C eight threads.

# %%
from labkit.convert import save_as
from labkit.widgets import ExplainPanel

suspects = {
    "A": lk.QuantizeWeights(bits=8)(resnet),
    "B": lk.QuantizeDynamic(convolutions=True)(resnet),
    "C": int8["onnxruntime"],
}
files = {name: save_as(each, folder / f"suspect-{name}.onnx")[0] for name, each in suspects.items()}
(as_float32,) = save_as(resnet, folder / "float32.onnx")
ExplainPanel(files, as_float32, DATASET)

# %% [markdown]
# In plain code, for A and B:

# %%
short = {"ci": Protocol(blocks=4, block_ms=10.0, warmup_ms=5.0, min_runs_per_block=2)}.get(profile)
verdicts = {
    name: lk.explain(suspects[name], data, against=resnet, batch_size=8, threads=THREADS, protocol=short)
    for name in ("A", "B")
}
for name, why in verdicts.items():
    print(*(textwrap.fill(line, 110) for line in f"{name}: {why.says}".splitlines()), "", sep="\n")
print(verdicts["B"].table())

# %%
claim("A: only its weights are quantized", verdicts["A"].names("weight_only"))
claim("B: convolutions under dynamic quantization", verdicts["B"].names("dynamic_convolutions"))
claim("neither is 1.5 times as fast as float32", max(why.speedup.value for why in verdicts.values()) < 1.5)

# %% [markdown]
# Look at the pattern of these answers: *what* takes the time, *on what evidence*, and *what to do*. The most frequent
# causes: only the weights are quantized; convolutions under dynamic quantization; layers that stayed in float;
# conversions between; layers so small that calling them is the work; more threads than processors.
#
# ## Training for the grid
#
# All of this came after training. **Quantization-aware training** (QAT) trains on the grid: forwards, weights and
# activations are rounded; backwards, the gradient passes through the rounding as if it were not there (the
# *straight-through* estimator), and the scales are learned as well. The weights settle where rounding hurts least. With
# 2 bits for the weights of `mobilenet`, 4 for its activations, 8 for the first and the last layer, and a training of
# a few seconds:

# %%
from labkit.quantize import QuantizeAware

epochs = {"ci": 1, "class": 2, "full": 6}[profile]
aware = QuantizeAware(weight_bits=2, activation_bits=4, epochs=epochs, threads=THREADS, max_drop_pp=100.0)
_, untrained = aware.fake(thin, data, silent)  # on the grid, but not trained for it
untrained = dataclasses.replace(thin, format="torch", model=untrained)
trained = aware(thin, data)
rows = [
    {"variant": "float32", "accuracy_pct": as_float[thin.name], "size_bytes": thin.size_bytes},
    {"variant": "on the grid, untrained", "accuracy_pct": accuracy_pct(untrained)},
    {
        "variant": "on the grid, trained",
        "accuracy_pct": accuracy_pct(trained),
        "size_bytes": trained.size_bytes,
    },
]
show(rows, ["variant", "accuracy_pct", "size_bytes"])

# %%
_, without, with_training = (row["accuracy_pct"] for row in rows)
claim("untrained, more than 20 points are lost", without < as_float[thin.name] - 20)
claim("trained, 2 points at most", with_training >= as_float[thin.name] - 2)

# %% [markdown]
# What was learned is written as QDQ again: the file runs wherever the others do. QAT costs a training, and needs
# labels and time: try the cheaper cures first. From a terminal: `labkit quantize mobilenet@digits --method aware
# --set weight_bits=2 --set activation_bits=4 --dataset digits --out aware`.

# %% [markdown] tags=["exercise"]
# ## Exercise: the symmetric grid
#
# Above stood the asymmetric grid. Weights use the symmetric one: signed numbers, zero point 0, as many on one side as
# on the other. With 4 bits these are the whole numbers from −7 to 7. Each output channel gets the finest scale with
# which its largest weight, positive or negative, still fits. The weights `w` are four channels of 3 × 3. What are the
# four scales? Let NumPy compute them.

# %% tags=["exercise"]
from labkit.quantize.arithmetic.grid import weight_grid

w = np.random.default_rng(3).normal(size=(4, 3, 3)) * np.array([1, 4, 0.5, 20]).reshape(4, 1, 1)

# %%
scales = None  # your answer
### BEGIN SOLUTION
scales = np.abs(w).reshape(4, 9).max(axis=1) / 7
### END SOLUTION

# %%
check(
    scales,
    expected=lambda made: (
        np.shape(made) == (4,) and np.allclose(made, weight_grid(w, axis=0, bits=4).scale, rtol=1e-5)
    ),
    hint="the largest absolute value of each channel, divided by the largest positive number of so many bits",
)

# %% [markdown] tags=["exercise"]
# ## Exercise: find the error
#
# Two lines from a handout. Both have been printed, and both are wrong.
#
# **1.** "8-bit quantization is Q(x) = ⌊255 x⌋." (⌊ ⌋ rounds *down*.) It has no scale and no zero point, so it is made
# for one range alone. Which x does its 0 stand for, and which x its 255 (where 255 x is that number itself)? And how
# many steps too small are its results *on average*, if x may be anything between? Answer with three numbers, such as
# `(-3, 3, 0.1)`.

# %%
range_and_error = None  # your answer
### BEGIN SOLUTION
range_and_error = (0, 1, 0.5)
### END SOLUTION

# %%
check(
    range_and_error,
    expected=lambda answer: fingerprint([float(each) for each in answer]) == "e133a174",
    hint="For which x is 255 x = 0, and for which 255? Rounding down loses something between nothing and a whole step.",
)

# %% [markdown]
# In general q = clamp(round(x / s) + z), as above: a scale and a zero point for the range that is there, and the
# nearest point, whose error is zero on average.

# %% [markdown] tags=["exercise"]
# **2.** "To compress a model is to solve min ‖θ − θ*‖²", that is, to find the weights θ that are closest to the
# trained ones θ*. Is that what we want? Take a neuron with two weights, θ* = (0.4, 0.4), whose two inputs are always
# equal, and a grid with two numbers, 0 and 1. There are four ways to round: (0, 0), (0, 1), (1, 0) and (1, 1). Which
# one is closest to θ*, and which one has an *output* closest to the trained neuron's? (Of two that are as good, take
# either.) Answer with the two pairs, such as `[(1, 1), (0, 0)]`.

# %%
closest = None  # your answer
### BEGIN SOLUTION
closest = [(0, 0), (1, 0)]
### END SOLUTION

# %%
check(
    closest,
    expected=lambda pairs: (
        fingerprint([tuple(pairs[0]), tuple(sorted(pairs[1], reverse=True))]) == "04f5bc1b"
    ),
    hint="The output is the input times θ1 + θ2. For θ* that sum is 0.8.",
)

# %% [markdown]
# That is why the learned rounding, whose weights had moved further, lost less. What to minimise is the error of the
# **output**, or of the loss itself. Closeness of weights is not closeness of outputs.
#
# ## The decision
#
# 8 bits, static, one scale per channel: less than a third of the bytes, hardly a sample lost, faster wherever the
# processor has products of 8-bit numbers. Fewer bits only if the bytes demand it.

# %%
chosen = suspects["C"]
save_as(chosen, folder / "resnet20-int8.onnx")
report = quantization_report(chosen)
drop_pp = as_float[resnet.name] - accuracy_pct(chosen)
claim("hardly a sample is lost: half a point at most", drop_pp <= 0.5)
claim("less than a third of the bytes", chosen.size_bytes < resnet.size_bytes / 3)
decision(
    "03_quantization",
    variant=f"{chosen.name}: static int8, per channel",
    constraint="half a point of accuracy at most, on the validation images",
    risk="calibration images that are not like those of the field: watch the clip rate",
    drop_pp=round(drop_pp, 2),
    clip_rate=report.clip_rate,
    size_bytes=chosen.size_bytes,
)

# %% [markdown]
# ## In short
#
# - A grid is a scale and a zero point. Each bit less doubles the error: 6 dB.
# - The speed comes from sums of whole numbers; the scales stand outside of the sum.
# - Weights can be looked at, activations must be watched: look at the images that do it, and at the clip rate.
# - One scale for all channels can ruin a network; a scale for each, or equalisation, cures it.
# - With few bits, round for the output and not for the weight; give bits to the layers that need them; then train.
# - If it is not faster, ask `labkit explain` before you guess.
#
# Next: **[04 · Pruning](04_pruning.ipynb)**, where whole weights are left out.
