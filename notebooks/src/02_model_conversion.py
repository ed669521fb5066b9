# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 02 · Model conversion: the same function, written down for another engine
#
# A network trained in PyTorch is to run where there is no PyTorch. Somebody has to write it down again, in a
# format that another engine reads. How do you know that the copy still computes the same?
#
# **You will**
# - open a model file and find the three things that are in it,
# - convert a network and prove, number by number, that nothing was lost,
# - fold a batch normalisation by hand, and watch an engine fuse the rest,
# - break a network on purpose, in ways that accuracy does not notice, and find the one operator that is wrong.
#
# **Time and memory:** a minute or two to run, thirty to play; under 900 MB. No network, no GPU.

# %% tags=["parameters"]
PROFILE = None
MODEL = "resnet20@digits"
SMALL = "lenet5@digits"
DATASET = "digits"
THREADS = 1
SEED = 0

# %% tags=["setup"]
import dataclasses
import os
from hashlib import sha256
from pathlib import Path

import numpy as np
import onnx
import torch
from IPython.display import HTML, SVG, Image, display

import labkit as lk
from labkit.convert import save_as, tolerance
from labkit.convert.torch_to_onnx import quiet
from labkit.errors import ParityError
from labkit.formats.onnx_file import write_metadata
from labkit.microscope import microscope, plot_departures
from labkit.onnx_graph.optimize import BATCH_NORM_FOLDING, optimize_graph
from labkit.plots import png, table_html
from labkit.runtimes.base import muted
from labkit.teach import check, claim, decision, predict, previous_decision

profile = PROFILE or os.environ.get("LABKIT_PROFILE", "class")
folder = Path("results") / "02_model_conversion"  # the files that this lesson writes


def fingerprint(answer):
    """Tells a right answer from a wrong one, and gives neither away."""
    return sha256(f"02_model_conversion {str(answer).strip()}".encode()).hexdigest()[:8]


# %% [markdown] tags=["exercise"]
# Two networks that read handwritten digits: `lenet5`, small enough to see all of it at once, and `resnet20`, large
# enough to hide a mistake in. A *logit* is the score that a network gives to one of the ten digits; the largest
# of the ten is its answer.

# %% tags=["exercise"]
data = lk.load_dataset(DATASET)
small, model = lk.load_model(SMALL), lk.load_model(MODEL)

# %% [markdown]
# Each lesson takes up where another ended. If you have run the tour, this is what you decided to ship:

# %%
before = previous_decision("00_tour")
before if before else print(
    "Nothing decided yet: 00_tour ends in a decision, but this lesson runs without it."
)

# %% [markdown]
# ## What a model file is
#
# Whatever the format, three things are in a model file:
#
# | | what it is | in `lenet5` |
# |---|---|---|
# | **parameters** | the numbers that training found, usually called θ | weights and biases of each layer |
# | **operations** | what is done with numbers, each a word of the format's vocabulary | `Conv`, `MaxPool`, `Gemm` … |
# | **graph** | which operation reads the result of which | the image goes into the first `Conv`, its result into … |
#
# Together they are a function: y = f(x; θ). The format is only the way of writing it down. **ONNX** is the one that
# most engines read; its vocabulary has a version, the *opset*. Let us write `lenet5` in it, and look inside.
# Looking does not run the file: a file from a stranger is opened in a room of its own.

# %%
as_onnx = lk.convert(small, "onnx", data)
(file,) = save_as(as_onnx.variant, folder / "lenet5.onnx")

from labkit.inspection import draw_graph, inspect_file, layer_table, summary

inside = inspect_file(file)
print(summary(inside))

# %% [markdown]
# `batch` is not a number: the file takes any number of images at a time. Keep an eye on it. Next comes the graph,
# from the image at the top to the ten logits at the bottom, and under it the same as a table. Five kinds of
# operators are enough: `Conv` moves small filters over the image, `MaxPool` keeps the largest of each few
# neighbours, `Reshape` lays the numbers in one row, `Gemm` multiplies them by a matrix and adds a bias, and `Relu`
# puts 0 where a number is negative. A *multiply-add* is one multiplication and one addition: how many a layer does
# for one image is its work. A question mark stands for a size that nobody wrote down.

# %%
display(SVG(draw_graph(inside)))
print(layer_table(inside))

# %%
numbers = sum(stored.bytes for stored in inside.precision.values())
claim("eight operators, of five kinds", (len(inside.layers), len(inside.operators)) == (8, 5))
claim("the batch is free, in and out", inside.dynamic == {"image": ("batch",), "logits": ("batch",)})
claim("ten logits for each image", inside.outputs[0].shape == ("batch", 10))
claim("more than 99 % of the file are the numbers themselves", numbers / inside.bytes > 0.99)
claim("and every number takes four bytes", abs(numbers / inside.parameters - 4) < 0.001)

# %% [markdown]
# More than 99 % of the file are the parameters, four bytes each. Eight operators and the arrows between them
# take the rest. The same from a terminal: `labkit inspect results/02_model_conversion/lenet5.onnx`.

# %% [markdown]
# ## The map
#
# Formats are places, converters the roads between them. **Click the format that you have, then the one that you
# need**: the way lights up, and what is missing on it is told with the line that installs it. Most ways lead
# through ONNX. None leads back out of OpenVINO or TensorRT: what a compiler has rewritten for one machine is not
# turned back.

# %%
from labkit.widgets import ConvertPanel, FormatMap, MicroscopePanel, draw_map

FormatMap("torch", "openvino", model=SMALL)

# %% [markdown]
# In plain code, the same map and the same way, with what is here (●) and what is not (○):

# %%
from labkit.convert import find_path
from labkit.convert.map import edges, format_map

path = find_path("torch", "openvino")
display(SVG(draw_map(path, "torch")))
print(format_map())
claim("two hops, through ONNX", [hop.target for hop in path] == ["onnx", "openvino"])
claim(
    "none leads out of OpenVINO or TensorRT", {"openvino", "tensorrt"}.isdisjoint(e["from"] for e in edges())
)
claim(
    "most lead into ONNX or out of it",
    sum("onnx" in (e["from"], e["to"]) for e in edges()) > len(edges()) / 2,
)

# %% [markdown]
# ## Predict: how much is lost?
#
# PyTorch → ONNX → OpenVINO: written down anew twice, executed by another engine, in the same 32-bit floating-point
# numbers (`float32`). Compare the logits before and after. Take the largest difference, and divide it by the
# largest logit. Which order of magnitude will it have?

# %%
SIZES = ["none at all", "a ten-millionth", "a ten-thousandth", "a hundredth"]
lost = predict("The largest error of the logits, as a share of the largest logit, will be about …", SIZES)
lost

# %% [markdown]
# ## Convert, and prove
#
# labkit converts hop by hop and proves each hop before it takes the next. The proof is called **parity**: both
# forms get the same images and all their outputs are compared, in batches of 1, of 3 and of 7. Why three sizes, you
# will see further down.

# %%
from labkit.widgets.conversion_views import errors_figure
from labkit.widgets.convert_work import parity_rows

as_openvino = lk.convert(as_onnx.variant, "openvino", data)
print(as_onnx.table(), as_openvino.table(), sep="\n")

rows = [row for done in (as_onnx, as_openvino) for row in parity_rows(done.hops[0], tolerance("float32"))]
figure = errors_figure(rows)
display(Image(png(figure), alt=figure.get_label()))

# %%
errors = [hop.report.max_rel_error for done in (as_onnx, as_openvino) for hop in done.hops]
sizes = dict(zip(SIZES, [0, 1e-7, 1e-4, 1e-2], strict=True))
measured = min(sizes, key=lambda name: abs(np.log10(max(errors)) - np.log10(sizes[name] or 1e-12)))
batches = [row.batch_size for row in as_onnx.hops[0].report.rows]
claim("compared in batches of 1, 3 and 7", batches == [1, 3, 7])
claim("less than a millionth", max(errors) < 1e-6)
claim("but not nothing", max(errors) > 0)
lost.reveal(
    measured, why="float32 keeps 24 binary digits, and sums taken in another order round differently."
)

# %% [markdown]
# So conversion loses nothing that you could notice, and that is what to expect *every* time. What is left is
# rounding: a `float32` has 24 binary digits, about one part in ten million, and an engine that adds in another
# order rounds other sums. Whoever says "accuracy dropped a little in the conversion" has changed more than the
# format, or has a mistake to find.
#
# The **tolerance** is the largest error that rounding can explain. labkit accepts one ten-thousandth for `float32`,
# about a thousand times its last digit, as a deep network adds up many roundings.
#
# ### The proof in four lines
#
# Why divide by the *largest* logit, and not each difference by its own logit? Some logits are nearly 0, and a
# harmless difference would look huge beside them.

# %% tags=["nbval-check-output"]
from labkit.runtimes import get_runtime

images = small.feeds(data.split("train").take(np.arange(7)).inputs)
y = get_runtime("torch").load(small).run(images)["logits"]
z = get_runtime("onnxruntime").load(as_onnx.variant).run(images)["logits"]
by_hand = np.abs(z.astype(np.float64) - y).max() / np.abs(y).max()

theirs = lk.parity(small, as_onnx.variant, data, batches=(7,))
claim("the same number as labkit's", by_hand == theirs.max_rel_error)
claim("the same answer for every image", (z.argmax(axis=1) == y.argmax(axis=1)).all())
last_digit = float(np.finfo(np.float32).eps)
claim("24 binary digits: the last one is worth 2⁻²³, about a ten-millionth", last_digit == 2**-23)
claim("the tolerance is a ten-thousandth", tolerance("float32") == 1e-4)
claim("which is about a thousand times the last digit", 500 < tolerance("float32") / last_digit < 2000)

# %% [markdown]
# ### Play
#
# Convert something else, or ask for more than rounding allows: what happens at a `tolerance` of `1e-8`?

# %%
ConvertPanel([SMALL, MODEL], DATASET)

# %% [markdown]
# ## float32 that is none
#
# One more way to lose digits, and no converter is to blame for it. Some processors have a unit that multiplies
# whole blocks of `bfloat16`, numbers of 16 bits that keep only 8 binary digits, and is faster than with `float32`
# (Intel calls its own AMX). OpenVINO uses it by itself where it finds it: the file says `float32`, and nobody asked
# for anything else.

# %%
openvino = get_runtime("openvino").engine()
core = openvino.Core()
untold = core.compile_model(core.read_model(as_onnx.variant.payload), "CPU")
has_bfloat16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
print("this processor computes in bfloat16:", "yes" if has_bfloat16 else "no")
print("OpenVINO, told nothing, computes in:", untold.get_property("INFERENCE_PRECISION_HINT").get_type_name())

# %% [markdown]
# labkit therefore always says which precision it wants, and holds the result against the tolerance of *that*
# precision:

# %%
rows = []
for precision in ("float32", "bfloat16"):
    report = lk.parity(
        small,
        as_onnx.variant,
        data,
        runtime=get_runtime("openvino"),
        options=lk.RunOptions(precision=precision),
    )
    error, accepted = report.max_rel_error, tolerance(precision)
    rows.append({"precision": precision, "max_rel_error": error, "tolerance": accepted})
    report.check(accepted)
display(HTML(table_html(rows, list(rows[0]))))

# %%
in_float32, in_bfloat16 = (row["max_rel_error"] for row in rows)
claim("bfloat16 keeps 8 binary digits: the last is worth 2⁻⁷", torch.finfo(torch.bfloat16).eps == 2**-7)
claim("each is within its own tolerance", all(row["max_rel_error"] <= row["tolerance"] for row in rows))
claim("float32 is exact to a millionth", in_float32 < 1e-6)
claim("bfloat16 would fail as float32, where it exists", in_bfloat16 > 1e-4 or not has_bfloat16)
claim("bfloat16's tolerance is 500 times as wide", round(tolerance("bfloat16") / tolerance("float32")) == 500)

# %% [markdown]
# That is no reason to avoid `bfloat16`: it may be just what you want to ship. It is a reason to decide it yourself,
# as a change of *precision* with a tolerance of its own, and not to find it in the errors of a format conversion.
# Where the processor has no such unit, OpenVINO computes in `float32` either way, and both lines of the table look
# alike.

# %% [markdown]
# ## Before and after: folding, by hand and by the engine
#
# A converter may write the function down in fewer words. `resnet20` has a *batch normalisation* after each
# convolution, which while training keeps the numbers in a good range. When training is over, it is one
# multiplication and one addition per channel, with constants: a mean μ, a variance σ², a scale γ, a shift β, and a
# tiny ε that keeps the root away from 0. A convolution multiplies and adds as well. So one can do the work of both:
#
# $$ \gamma\,\frac{w * x + b - \mu}{\sqrt{\sigma^2+\varepsilon}} + \beta \;=\; (w\,k) * x + (b-\mu)\,k + \beta,
# \qquad k = \frac{\gamma}{\sqrt{\sigma^2 + \varepsilon}} $$

# %% [markdown] tags=["exercise"]
# `traced` is `resnet20` as PyTorch's tracer writes it down, with nothing tidied up. `plain` is the same file after the
# first thing that an engine does, **constant folding**: whatever depends on no image is computed once, now, and not
# again for every image.

# %% tags=["exercise"]
image = torch.zeros(2, 1, 32, 32)  # two, not one: you will see why
with quiet():
    traced = torch.onnx.export(
        model.model,
        (image,),
        dynamo=True,
        optimize=False,
        external_data=False,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        input_names=["image"],
        output_names=["logits"],
    ).model_proto


def variant_of(proto, name):
    """The graph as a variant: how images are prepared is written into the file, too."""
    write_metadata(proto, model)
    return dataclasses.replace(model, name=name, format="onnx", model=proto.SerializeToString())


as_traced = optimize_graph(traced.SerializeToString(), "none")
tidy = optimize_graph(traced.SerializeToString(), "basic", without=[BATCH_NORM_FOLDING])
plain = variant_of(onnx.load_model_from_string(tidy.payload), "resnet20, batch norms and all")

# %% [markdown]
# Here that is a lot: the tracer wrote each bias of zero as four operators that make a zero. We let ONNX Runtime do it,
# and keep its hands off the batch normalisations. Those are ours:

# %% tags=["nbval-check-output"]
from labkit.onnx_graph import Graph, fold_batch_norm

graph = Graph(onnx.load_model_from_string(plain.payload))
conv = graph.nodes[0]
norm = graph.only_consumer(conv.output[0])
w, b = (graph.constant(name).astype(np.float64) for name in conv.input[1:])
gamma, beta, mean, variance = (graph.constant(name).astype(np.float64) for name in norm.input[1:])
epsilon = 1e-5

k = gamma / np.sqrt(variance + epsilon)
folded_w = (w * k[:, None, None, None]).astype(np.float32)
folded_b = ((b - mean) * k + beta).astype(np.float32)

ours = onnx.load_model_from_string(plain.payload)
count = fold_batch_norm(ours)
engines = optimize_graph(traced.SerializeToString(), "basic")


def first_convolution(proto):
    node = next(node for node in proto.graph.node if node.op_type == "Conv")
    return [Graph(proto).constant(name) for name in node.input[1:]]


theirs_w, theirs_b = first_convolution(onnx.load_model_from_string(engines.payload))
labkit_w, labkit_b = first_convolution(ours)
close = {"rtol": 1e-5, "atol": 1e-6}
claim("21 batch normalisations were folded", count == 21)
claim("your weight is labkit's, bit by bit", np.array_equal(folded_w, labkit_w))
claim("and so is your bias", np.array_equal(folded_b, labkit_b))
claim("ONNX Runtime's weight is the same, to rounding", np.allclose(theirs_w, labkit_w, **close))
claim("and its bias", np.allclose(theirs_b, labkit_b, **close))

# %% [markdown]
# The engine goes on where we stop. **Operator fusion** makes one operator of several that follow one another, as
# `Conv` and `Relu`: the numbers in between never leave the processor's fast memory. At last it lays the numbers out
# as this processor likes them. Each step is a file, and each file is timed as it is written: with the
# engine's own rewriting switched off, in turns, as the tour did.

# %%
from labkit.measure import Protocol
from labkit.measure.timing import Timed, time_sessions
from labkit.onnx_graph.optimize import AsWritten, count_operators
from labkit.statistics import ratio_interval

steps = {
    "as traced": as_traced.payload,
    "constants folded (ONNX Runtime)": plain.payload,
    "batch norms folded (ours)": ours.SerializeToString(),
    "batch norms folded (ONNX Runtime)": engines.payload,
    "operators fused (ONNX Runtime)": optimize_graph(traced.SerializeToString(), "extended").payload,
    "laid out for this processor": optimize_graph(traced.SerializeToString(), "all").payload,
}
one_image = model.feeds(data.split("validation").take(np.arange(1)).inputs)
variants = {name: dataclasses.replace(plain, name=name, model=payload) for name, payload in steps.items()}
timed = {
    name: Timed(AsWritten().load(each, lk.RunOptions(threads=THREADS)), [one_image])
    for name, each in variants.items()
}
protocol = {"ci": Protocol.brief(), "class": Protocol.paired(), "full": Protocol(blocks=30)}[profile]
times = time_sessions(timed, protocol, seed=SEED)

rows = []
for name, each in variants.items():
    counted = count_operators(each.payload)
    clock, first = times[name].block_ms, times["as traced"].block_ms
    speedup, interval = ratio_interval(np.log(first) - np.log(clock))
    row = {
        "file": name,
        "operators": sum(counted.values()),
        "batch norms": counted.get("BatchNormalization", 0),
    }
    row |= {"size_bytes": each.size_bytes, "latency_p50_ms": float(np.median(clock))}
    row |= {"speedup": speedup, "speedup_ci95": interval}
    row |= {"max_rel_error": lk.parity(model, each, data, runtime=AsWritten()).max_rel_error}
    rows.append(row)
display(HTML(table_html(rows, list(rows[0]))))

# %%
traced_row, constants, by_us, by_engine, fused, laid_out = rows
norms = [row["batch norms"] for row in rows]
traced_as = (as_traced.operators["Conv"], as_traced.operators["BatchNormalization"])
makers = sum(as_traced.operators[kind] for kind in ("Shape", "Expand", "Cast"))
claim("a batch normalisation for each convolution", traced_as == (21, 21))
claim("the tracer wrote each of 21 biases of zero as four operators", makers == 4 * 21)
claim("all six compute the same function", all(row["max_rel_error"] < 1e-6 for row in rows))
claim(
    "constant folding removes more than half of the operators",
    constants["operators"] < traced_row["operators"] / 2,
)
claim("but not one batch normalisation", norms[:2] == [21, 21])
claim("folding removes all of them, ours as theirs", norms[2:] == [0, 0, 0, 0])
claim("ours has as many operators as theirs", by_us["operators"] == by_engine["operators"])
claim("fusion removes still more", by_us["operators"] > fused["operators"] >= laid_out["operators"])
claim("the bytes hardly change: 3 % at most", by_us["size_bytes"] > 0.97 * traced_row["size_bytes"])
claim("the last file is no slower than the first", laid_out["speedup_ci95"][1] > 1)

# %% [markdown]
# Three things to take away. All six compute the same function. The number of operators falls to a fraction, and the
# file hardly gets smaller: its bytes are the parameters. And fewer operators alone are not yet much faster: on most
# processors the gain comes at the end, when the numbers lie where the processor wants them. Read the intervals:
# where one holds the 1, no difference was detected.
#
# Other engines do the same, each in its own way. This is what OpenVINO really executes of the file with 21 batch
# normalisations in it:

# %%
from collections import Counter

compiled = core.compile_model(core.read_model(plain.payload), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
kinds = [
    str(each.get_rt_info()["layerType"].value) for each in compiled.get_runtime_model().get_ordered_ops()
]
executed = Counter(kind for kind in kinds if kind not in ("Const", "Input", "Output"))
print(dict(executed.most_common()))
claim("no batch normalisation is left", not any("norm" in kind.lower() for kind in executed))

# %% [markdown]
# An engine does all this by itself whenever it loads a file, so there is rarely a need to do it before. There is
# one exception: **quantization** (lesson 03) must know the weights that are really used, so there the folding comes
# first.

# %% [markdown]
# ## Predict: the frozen batch
#
# A mistake that is easily made. A tracer watches the network while it works on an *example*, and writes down what
# it saw. Shown a single image, it may write down "reshape to 1 row", where it should have written "to as many rows
# as there are images". We make that mistake by hand, in the one place where `lenet5` has room for it:

# %%
frozen = onnx.load_model_from_string(as_onnx.variant.payload)
reshape = next(node for node in frozen.graph.node if node.op_type == "Reshape")
shape = next(tensor for tensor in frozen.graph.initializer if tensor.name == reshape.input[1])
rows_and_columns = onnx.numpy_helper.to_array(shape)
one_row = np.array([1, rows_and_columns[1]])
shape.CopyFrom(onnx.numpy_helper.from_array(one_row, shape.name))
print(f"{reshape.op_type}: {rows_and_columns.tolist()} became {one_row.tolist()}  (−1: as many as there are)")
frozen = dataclasses.replace(as_onnx.variant, name="lenet5, frozen", model=frozen.SerializeToString())

# %%
breaks = predict(
    "The proof tries batches of 1, then 3, then 7. At which does the frozen file break?",
    ["at 1", "at 3", "at 7", "at none of them"],
)
breaks

# %%
alone = lk.parity(small, frozen, data, batches=(1,)).check(tolerance("float32"))
try:
    with muted():  # the engine writes its own complaint besides
        lk.parity(small, frozen, data)
    refused = ""
except ParityError as error:
    refused = str(error)
print(refused[:90], "…")

# %%
claim("with one image at a time it is perfect", alone.max_rel_error < 1e-6)
claim(
    "the input still promises any batch", frozen.inputs[0].shape[0] == "batch" and frozen.fixed_batch is None
)
claim("and at 3 it breaks", "fails at batch 3" in refused)
others = {size for layer in inside.layers for size in layer.output_shape[1:]}
claim("no other size in lenet5 is 3 or 7", others.isdisjoint({3, 7}))
breaks.reveal("at 3", why="One image is all that the tracer ever saw.")

# %% [markdown]
# Who tests with one image finds nothing; the file works until the first busy hour. That is why parity tries three
# sizes. 3 and 7 were taken because hardly any other size in a network is 3 or 7 (in `lenet5` none is), so that no
# other axis can pass for the batch. When you export by hand, show the tracer **two** images or more and name the
# dimension that is free (`dynamic_shapes` above).

# %% [markdown]
# ## What must not pass
#
# A proof that accepts everything proves nothing. So we break `resnet20` on purpose, with a mistake that has been
# made in earnest: the ε of batch normalisation is 0.00001 in PyTorch, and 0.001 in Keras. Whoever carries the
# weights from one to the other and forgets that number gets a network that runs, and is a little wrong. Here it is
# forgotten in one layer of 21. (And beside it stands another mistake, to be used further down: rows and columns
# exchanged.)


# %%
def with_other_epsilon(variant, layer, epsilon):
    proto = onnx.load_model_from_string(variant.payload)
    for node in proto.graph.node:
        if node.op_type == "BatchNormalization" and node.input[1] == f"{layer}.weight":
            attribute = next(a for a in node.attribute if a.name == "epsilon")
            attribute.f = epsilon
    return variant_of(proto, f"epsilon {epsilon:g} in {layer}")


def with_turned_kernels(variant, layer):
    proto = onnx.load_model_from_string(variant.payload)
    weight = next(tensor for tensor in proto.graph.initializer if tensor.name == f"{layer}.weight")
    turned = onnx.numpy_helper.to_array(weight).swapaxes(2, 3)  # rows for columns: an axis mistake
    weight.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(turned), weight.name))
    return variant_of(proto, f"turned kernels in {layer}")


BROKEN = "blocks.7.bn2"
broken = with_other_epsilon(plain, BROKEN, 1e-3)
sound_report = lk.parity(model, plain, data).check(tolerance("float32"))
broken_report = lk.parity(model, broken, data)
try:
    broken_report.check(tolerance("float32"))
    refused = ""
except ParityError as error:
    refused = str(error)
print(refused.replace(" | ", "\n"))


# %%
def answers(variant):
    """What the variant answers to all validation images, a digit each."""
    images = variant.feeds(data.split("validation").take(slice(None)).inputs)
    with get_runtime("onnxruntime").load(variant) as session:
        return session.run(images)["logits"].argmax(axis=1)


different = int((answers(plain) != answers(broken)).sum())
claim("PyTorch's epsilon is 0.00001", torch.nn.BatchNorm2d(1).eps == 1e-5)
claim("the sound one passes", sound_report.max_rel_error < 1e-6)
claim("parity refuses the broken one", "exceeds the tolerance" in refused)
times_as_wrong = broken_report.max_rel_error / sound_report.max_rel_error
claim("its error is more than 100 times that of the sound one", times_as_wrong > 100)
claim("and yet it gives the same answer to every validation image", different == 0)

# %% [markdown]
# Look at the last line: on the validation images, accuracy is *the same*. A test of accuracy would have let this
# file pass, and it would have been wrong first where it hurts: on the images that were doubtful already. Numbers
# find what answers hide.

# %% [markdown]
# ## The microscope
#
# Parity says *that* two files disagree. To find out *where*, look at every number in between: each operator of the
# one beside its counterpart in the other. As long as what an operator reads agrees, everything before it is sound.
# The first whose inputs agree and whose result does not is the one to look at. All behind it only pass the error
# on.

# %%
report = microscope(model, broken, data)
figure = plot_departures(report)
display(Image(png(figure), alt=figure.get_label()))
print(report.says)

# %% [markdown]
# The *signal-to-noise ratio* tells how large the numbers are beside their differences, in decibels (dB): about 140
# dB is the last digit of `float32`, and every 20 dB less are ten times more error. And as a table, around the
# place:

# %%
place = [row.status for row in report.rows].index("departs")
lines = report.table().splitlines()
print("\n".join([lines[0], *lines[max(1, place - 3) : place + 5]]))
claim("140 dB are about the last digit", abs(20 * np.log10(1 / last_digit) - 140) < 3)
claim("the microscope names the layer that we broke", report.first.operator.layer == BROKEN)
claim("before it, all agree", {row.status for row in report.rows[:place]} == {"equal"})
claim("none agrees behind it", "equal" not in {row.status for row in report.rows[place + 1 :]})

# %% [markdown]
# ### Play
#
# Three suspects, and one of them is innocent. Which? And what is wrong with the others? Read the sentence above the
# table: it tells more than the place.

# %%
suspects = {
    "A": with_turned_kernels(plain, "blocks.2.conv1"),
    "B": plain,
    "C": with_other_epsilon(plain, "blocks.0.bn1", 1e-2),
}
files = {name: save_as(each, folder / f"suspect-{name}.onnx")[0] for name, each in suspects.items()}
MicroscopePanel(MODEL, files, DATASET)

# %% [markdown] tags=["exercise"]
# ## Exercise: find the operator
#
# One layer of `suspect` is broken. Its name was drawn by lot and is kept under seal. Find it with the microscope,
# which compares `model` with `suspect` on `data`, and give the layer's name as it stands in the report, such as
# `"blocks.3.conv2"`.


# %% tags=["exercise"]
def break_one():
    """A copy of `plain` with one layer broken, and a seal on its name."""
    proto = onnx.load_model_from_string(plain.payload)
    layers = [tensor for tensor in proto.graph.initializer if list(tensor.dims[2:]) == [3, 3]]
    chosen = layers[int(fingerprint("lot"), 16) % len(layers)]
    weight = onnx.numpy_helper.to_array(chosen).copy()
    weight[3] *= 1.02  # one channel of many, two per cent too large
    chosen.CopyFrom(onnx.numpy_helper.from_array(weight, chosen.name))
    return variant_of(proto, "suspect"), fingerprint(chosen.name.removesuffix(".weight"))


suspect, seal = break_one()

# %%
broken_layer = None  # your answer
### BEGIN SOLUTION
broken_layer = microscope(model, suspect, data).first.operator.layer
### END SOLUTION

# %%
check(
    broken_layer,
    expected=lambda layer: fingerprint(layer) == seal,
    hint="microscope(model, suspect, data).says names it, in quotes, behind the kind of operator.",
)

# %% [markdown] tags=["exercise"]
# ## Exercise: find the error
#
# Three lines from a handout. Each is wrong, and each mistake has been printed. Mend them.
#
# **1.** "`onnx_tf.backend.prepare(onnx_model)` converts a TensorFlow model to ONNX." Look at what it is given. From
# which format to which does it really go? Answer with two of the map's names, such as `("keras", "onnx")`.

# %%
really = None  # your answer
### BEGIN SOLUTION
really = ("onnx", "tensorflow")
### END SOLUTION

# %%
check(
    really,
    expected=lambda pair: [fingerprint(name) for name in pair] == ["5d410ed3", "00650a7e"],
    hint="It is handed an ONNX model, and it is a backend: something that runs ONNX. It runs it in …",
)

# %% [markdown] tags=["exercise"]
# **2.** "`onnx.freeze_graph(model.state_dict(), 'model.onnx')` turns a PyTorch model into ONNX." Ask Python:
# `hasattr(onnx, "freeze_graph")`. A state dict could not be enough anyway: it holds the parameters, but neither the
# operations nor the graph. Which function of PyTorch does it? Answer with its full name, such as `"torch.save"`.

# %%
function = None  # your answer
### BEGIN SOLUTION
function = "torch.onnx.export"
### END SOLUTION

# %%
check(
    function,
    expected=lambda name: fingerprint(name) == "4cc20fbf",
    hint="This lesson has called it, in the cell that traces resnet20.",
)

# %% [markdown] tags=["exercise"]
# **3.** "Converting a model is y = f(x; θ), followed by θ ← θ − η ∇L(θ)." The second formula is a step of
# *training*. Does a conversion have one? Of the four, name all that a conversion **changes**: the function f, the
# parameters θ, the output y, the representation r (how f and θ are written down). Answer with their letters, such
# as `{"f", "y"}`.

# %%
changes = None  # your answer
### BEGIN SOLUTION
changes = set("r")
### END SOLUTION

# %%
check(
    changes,
    expected=lambda letters: fingerprint(sorted(letters)) == "603e3e3a",
    hint="Which of the four does parity prove unchanged? And nothing is learnt, so there is no gradient.",
)

# %% [markdown]
# ## The decision
#
# Which file goes on from here? The one that reaches the engine you need *and* whose proof you hold. For `resnet20`
# that is ONNX: one file, a free batch, read by ONNX Runtime and by OpenVINO alike.

# %%
chosen = variant_of(ours, "resnet20, batch norms folded")
proofs = {
    engine: lk.parity(model, chosen, data, runtime=get_runtime(engine)).check(tolerance("float32"))
    for engine in ("onnxruntime", "openvino")
}
worst = max(report.max_rel_error for report in proofs.values())
save_as(chosen, folder / "resnet20.onnx")
claim(
    "proved in both engines, at three batch sizes each", all(len(each.rows) == 3 for each in proofs.values())
)
decision(
    "02_model_conversion",
    variant=f"{chosen.name}: one ONNX file for ONNX Runtime and OpenVINO",
    constraint=f"parity in float32: at most {tolerance('float32'):g} of the largest logit, at batches 1, 3 and 7",
    risk="an engine that computes in bfloat16 by itself, wherever nobody pins the precision",
    max_rel_error=float(f"{worst:.1e}"),
    size_bytes=chosen.size_bytes,
    operators=sum(count_operators(chosen.payload).values()),
)

# %% [markdown]
# ## In short
#
# - A model file holds parameters, operations and a graph. Nearly all its bytes are parameters.
# - A conversion changes how f and θ are written down, and nothing else. Expect an error of rounding, and no more.
# - Prove it with numbers, not with accuracy, and at more than one batch size.
# - Folding and fusion leave the function as it is: fewer operators, nearly the same bytes, often less time.
# - Precision is a decision of its own. Pin it.
# - If the proof fails, the microscope names the operator.
#
# Next: **[03 · Quantization](03_quantization.ipynb)**, where something is lost on purpose.
