# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 06 · Weight coding: the same network in the fewest bytes
#
# A pruned network is full of zeros, and its file is as large as before: a zero takes four bytes like any other
# `float32`. Here the bytes go. First the numbers are made few; that may cost, and is measured. Then they are coded,
# which costs nothing: every bit comes back. Together: a file about a hundred times smaller.
#
# **You will**
# - find out what zip can save of a trained network, and how few bits there could be,
# - build a Huffman tree by hand, and then code symbols that cost a tenth of a bit,
# - see how few values a layer's weights can share, and train those values,
# - take a coded file apart, byte by byte, and find out what the next one should save.
#
# **Time and memory:** under a minute to run, thirty to play; under 900 MB. No network, no GPU.

# %% tags=["parameters"]
PROFILE = None
MODEL = "lenet300@digits"
DATASET = "digits"
THREADS = 1
SEED = 0

# %% tags=["setup"]
import os
import zlib
from hashlib import sha256
from pathlib import Path

import numpy as np
from IPython.display import HTML, SVG, display

import labkit as lk
from labkit.encode.entropy import entropy, least_bits
from labkit.measure.quality import evaluate
from labkit.plots import table_html
from labkit.progress import silent
from labkit.teach import check, claim, decision, predict, previous_decision

profile = PROFILE or os.environ.get("LABKIT_PROFILE", "class")
folder = Path("results") / "06_weight_coding"  # the files that this lesson writes
data = lk.load_dataset(DATASET)
network = lk.load_model(MODEL)


def accuracy_pct(variant):
    """The share of the validation images that it answers right, in %."""
    return 100 * data.task.quality(evaluate(variant, data, "validation"))


def fingerprint(answer):
    """Tells a right answer from a wrong one, and gives neither away."""
    return sha256(f"06_weight_coding {str(answer).strip()}".encode()).hexdigest()[:8]


def show(rows, columns=None):
    """Rows as a table."""
    display(HTML(table_html(rows, columns or list(rows[0]))))


# %% [markdown]
# The network is `lenet300`, three fully connected layers, trained to read handwritten digits. It is a network of its
# own, and not that of the lessons before: the papers report their results on its kind. Most of its numbers stand in the
# first layer:

# %%
tensors = {name: each.numpy() for name, each in network.model.state_dict().items()}
weights = {name: each for name, each in tensors.items() if name.endswith("weight")}
show([{"tensor": name, "shape": str(each.shape), "bytes": each.nbytes} for name, each in tensors.items()])
for lesson in ("04_pruning", "05_distillation"):
    before = previous_decision(lesson)
    display(before) if before else print(f"Nothing decided yet in {lesson}: this lesson runs without it.")

# %%
as_float = accuracy_pct(network)
count = sum(each.size for each in weights.values())
one_image_pp = 100 / len(data.split("validation"))
claim(
    "it has more than 300,000 weights, nine of ten in its first layer",
    count > 300_000 and weights["fc1.weight"].size > 0.9 * count,
)
claim("it reads more than 97 % of the digits", as_float > 97)
claim("one validation image is less than half a point", one_image_pp < 0.5)

# %% [markdown]
# ## Predict: zip it
#
# Text shrinks to less than half when it is zipped. By how much does the file of this network shrink, in percent?

# %%
guess = predict("The zipped file will be smaller by", unit="%")
guess

# %%
plain = b"".join(each.tobytes() for each in tensors.values())  # what lies in the float32 file
zipped = zlib.compress(plain, 9)
saved_pct = 100 * (1 - len(zipped) / len(plain))
planes = np.frombuffer(plain, np.uint8).reshape(-1, 4).T  # all first bytes, all second bytes, …
bits = [entropy(np.bincount(plane, minlength=256)) for plane in planes]
show([{"byte of each number": place, "bits that it holds": each} for place, each in enumerate(bits, 1)])

# %%
text = Path(lk.__file__).read_bytes()  # of labkit itself
claim("text shrinks to less than half", len(zlib.compress(text, 9)) < len(text) / 2)
claim("of the network zip saves 12 % at most", 0 < saved_pct < 12)
claim("three of the four bytes are noise: more than 7.9 of 8 bits", min(bits[:3]) > 7.9)
claim("only the fourth, sign and seven of eight exponent bits, holds less than 3 bits", bits[3] < 3)
guess.reveal(saved_pct, why="Three of four bytes are the last digits of a number, and those look random.")

# %% [markdown]
# The last digits of a weight are where training happened to stop. They look like noise, and no compressor can shorten
# noise. (What is in the table is the *entropy*, which comes next.) So there are two kinds of step, and this lesson
# keeps them apart:
#
# | | what it does | costs accuracy? |
# |---|---|---|
# | **prune**, **cluster** | fewer different numbers | perhaps: it is measured |
# | **code** | fewer bits for the same numbers | never: every bit comes back |
#
# ### What must not work
#
# A coder that shortens *everything* would be a swindle: there are more long messages than short ones. Bytes drawn at
# random must come out as long as they went in, whoever tries:

# %%
import lzma

noise = np.random.default_rng(SEED).integers(0, 256, 100_000, dtype=np.uint8).tobytes()
claim("zlib gains nothing on noise", len(zlib.compress(noise, 9)) >= len(noise))
claim("lzma neither", len(lzma.compress(noise)) >= len(noise))
claim("its entropy says so: 8 bits a byte, all but a thousandth", entropy(np.bincount(list(noise))) > 7.99)

# %% [markdown]
# ## Shannon's bound
#
# How few bits could a message take? In 1948 Claude Shannon gave the answer. A symbol that makes up the share p of a
# message deserves log2(1/p) bits: one half of the message is worth 1 bit, a thousandth about 10. On average over the
# message that is its **entropy**:
#
# $$ H = \sum_s p_s \log_2 \frac{1}{p_s} \qquad \text{bits a symbol} $$
#
# No code that treats symbols one by one can be shorter on average. Here is the formula, and labkit's:


# %% tags=["nbval-check-output"]
def H(counts):
    p = np.array(counts) / sum(counts)
    return float((p * np.log2(1 / p)).sum())


for counts in ([1, 1], [3, 1], [1, 1, 1, 1], [97, 1, 1, 1], [8, 4, 2, 1, 1]):
    claim(f"{counts}: {H(counts):.3f} bits, as labkit says", abs(H(counts) - entropy(counts)) < 1e-12)

# %% [markdown]
# The more unequal the shares, the less there is to say. Of 100 weights of which 97 are zero, a weight takes a quarter
# of a bit.

# %%
claim("97 of 100: about a quarter of a bit", 0.2 < H([97, 1, 1, 1]) < 0.3)
claim("a half is worth 1 bit, a thousandth about 10", (np.log2(2), round(np.log2(1000))) == (1, 10))

# %% [markdown]
# ## Build the tree
#
# The bound says how short, not *how*. David Huffman's code of 1952 does it with one rule. Each symbol starts as a node
# of its own. Two nodes are merged into one, which occurs as often as both together, again and again, until a single
# node is left. Then a symbol's code is the way down to it: 0 for left, 1 for right. Every merge makes the codes of all
# symbols below it one bit longer.
#
# So *which two* would you merge first? Here are the 1000 weights of the last layer, rounded to six values. **Click
# two nodes**, and watch the bar: at the end it may reach the line of the best tree, but here never Shannon's. (That
# takes shares of a half, a quarter, an eighth, … only.) Try it wrong once, on purpose.

# %%
from labkit.encode.kmeans import lloyd, nearest
from labkit.widgets import Forest, HuffmanBuilder, draw_forest, forest_table

last = weights["fc3.weight"]
values = lloyd(last.ravel(), 6)
entries = nearest(last.ravel(), values)
counts = {f"{value:+.2f}": int(n) for value, n in zip(values, np.bincount(entries), strict=True)}
HuffmanBuilder(counts)

# %% [markdown]
# In plain code: a tree that always merges the two rarest, and one that begins with the two most frequent.

# %%
forest = Forest(counts)
while not forest.is_done:
    forest = forest.merge(*(node.number for node in forest.rarest()))
wrong = Forest(counts)
while not wrong.is_done:
    frequent = sorted(wrong.roots, key=lambda node: -node.count)
    wrong = wrong.merge(frequent[0].number, frequent[1].number)
display(SVG(draw_forest(forest)))
display(HTML(forest_table(forest)))

# %%
claim("the rarest first: nobody does better", forest.mean_bits == forest.best_bits and not forest.slips())
claim(
    "it is above Shannon's bound, by less than a tenth of a bit", 0 <= forest.mean_bits - forest.entropy < 0.1
)
claim(
    "the most frequent first: more bits than equally long codes take", wrong.mean_bits > wrong.fixed_bits == 3
)

# %% [markdown]
# ### The kernel in ten lines
#
# The two rarest are what a *heap* hands out: a list whose smallest entry is always at hand. No tree is needed, only
# the symbols below each node:


# %% tags=["nbval-check-output"]
import heapq

import labkit.encode.huffman as theirs


def code_lengths(counts):
    lengths = [0] * len(counts)
    heap = [(count, (symbol,)) for symbol, count in enumerate(counts)]
    heapq.heapify(heap)
    while len(heap) > 1:
        (a, left), (b, right) = heapq.heappop(heap), heapq.heappop(heap)
        for symbol in left + right:
            lengths[symbol] += 1
        heapq.heappush(heap, (a + b, left + right))
    return lengths


drawn = np.random.default_rng(SEED)
several = [drawn.integers(1, 1000, size) for size in (2, 3, 8, 64, 255)]
for each in several:
    ours = np.array(code_lengths(each.tolist()))
    claim(f"{len(each)} symbols: labkit's code lengths", np.array_equal(ours, theirs.code_lengths(each)))
    mean = (ours * each).sum() / each.sum()
    claim(f"{len(each)} symbols: between H and H + 1", H(each) <= mean < H(each) + 1)
halves = [8, 4, 2, 1, 1]
mean = np.dot(code_lengths(halves), halves) / sum(halves)
claim(f"{halves}: shares of a half, a quarter, … meet the bound", mean == H(halves))

# %% [markdown]
# The file must hold the tree as well, or nobody can decode it. But only the *lengths* are needed. Give the codes out in
# order, the short ones first, counting upwards: that is the **canonical** code, and whoever knows the lengths can do
# the same counting.

# %%
lengths = np.array(code_lengths(list(counts.values())))
codes = theirs.canonical_codes(lengths)
show(
    [
        {"value": name, "bits": int(n), "code": code}
        for name, n, code in zip(counts, lengths, codes, strict=True)
    ]
)
packed = theirs.encode(entries, lengths)
print(f"{len(entries)} weights in {len(packed)} bytes; in float32 they took {4 * len(entries)}")
claim("every symbol comes back", np.array_equal(theirs.decode(packed, lengths, len(entries)), entries))
claim("what was counted is what was written", len(packed) == -(-forest.message_bits // 8))

# %% [markdown]
# ## Mostly zeros
#
# Now prune: the smallest weights become zero. The file has to say *where* the others are. Three ways, each for all
# weights of the network in one row:
#
# | | what is written |
# |---|---|
# | bitmap | a bit for each weight: kept or not |
# | runs | for each run of like bits, which bit it is, and how long it is |
# | gaps | for each kept weight, how far it is from the one before |
#
# A length gets a fixed number of bits. A run that does not fit is cut into pieces; a gap that does not fit is bridged
# by *fillers*, and a bit tells fillers from weights. The best width is chosen for each. Beside them stands the bound,
# the entropy of kept and not kept.

# %%
from labkit.encode.gaps import to_gaps
from labkit.encode.runs import coded_bits, find_runs

magnitudes = np.concatenate([np.abs(each).ravel() for each in weights.values()])
WIDTHS = range(1, 9)


def ways(kept):
    """Bits a weight for each way to say which are kept."""
    n = len(kept)
    return {
        "mean run": float(find_runs(kept)[1].mean()),
        "bitmap": 1.0,
        "runs": min(coded_bits(kept, 1, width) for width in WIDTHS) / n,
        "gaps": min((1 + width) * len(to_gaps(kept, width)[0]) for width in WIDTHS) / n,
        "Shannon's bound": least_bits(kept) / n,
    }


masks = {zeros: magnitudes >= np.quantile(magnitudes, zeros) for zeros in (0.5, 0.8, 0.95, 0.98)}
table = {zeros: ways(mask) for zeros, mask in masks.items()}
show([{"zeros": f"{zeros:.0%}", **row} for zeros, row in table.items()])

# %%
half, most = table[0.5], table[0.98]
claim("at 50 % neither runs nor gaps pay: more than a bit a weight", min(half["runs"], half["gaps"]) > 1)
claim("because runs are short there: fewer than 3 weights on average", half["mean run"] < 3)
claim("at 98 % both take less than a third of the bitmap", max(most["runs"], most["gaps"]) < 1 / 3)
claim(
    "and nothing is below the bound",
    all(
        row["Shannon's bound"] <= min(row["bitmap"], row["runs"], row["gaps"]) + 1e-4
        for row in table.values()
    ),
)

# %% [markdown]
# The bound is also a good detective. Leave out the bit that says which symbol a piece is of, since they "take turns
# anyway", and the table looks better still: *below* the bound for symbols one by one. Too good? With lengths of one
# bit a piece is 1 or 2 long. A run of four is then cut into two pieces, and two runs of two give the same:

# %%
cheated = min(coded_bits(masks[0.5], 0, width) for width in WIDTHS) / len(masks[0.5])
bound = half["Shannon's bound"]
print(f"{cheated:.2f} bits a weight; the bound is {bound:.2f}")
claim("without that bit, runs would be below the bound", cheated < bound)


def pieces(message, longest=2):
    """The lengths alone, of runs that are cut to at most `longest`."""
    lengths = find_runs(message)[1].tolist()
    return [min(longest, length - cut) for length in lengths for cut in range(0, length, longest)]


one, another = [0, 0, 0, 0], [0, 0, 1, 1]
print(f"{one} gives the pieces {pieces(one)}, and {another} gives {pieces(another)}")
claim("two messages, one code: nobody can decode it", pieces(one) == pieces(another) == [2, 2])

# %% [markdown]
# Below the bound is a warning. Here it is a swindle; further down it will be knowledge.
#
# For the rest of the lesson: 95 of 100 weights are gone, and a short training has mended what broke (lesson 04).

# %%
sparse = lk.PruneMagnitude(sparsity=0.95, fine_tune_epochs=2, threads=THREADS)(network, data)


def kept_of(variant):
    """Which weights are not zero, all layers in one row."""
    return np.concatenate([p.detach().numpy().ravel() != 0 for p in variant.model.parameters() if p.ndim > 1])


claim("95 % are zero", round(100 * (1 - kept_of(sparse).mean()), 1) == 95)
claim("and still it reads: a point is lost at most", as_float - accuracy_pct(sparse) <= 1)

# %% [markdown]
# ## Codebooks
#
# *Where* is settled; *what* comes next. The kept weights are all different numbers, 32 bits each. **k-means** looks for
# a few values that stand best for all of them: each weight becomes the value nearest to it, and each value moves to
# the mean of its weights, in turns. The values are the **codebook**, stored once; for each weight only its entry is
# left.
#
# **Move the levels.** The *error* is the squared error, as a share of the weights' squares. How much of it does each
# doubling leave, and how many bits more does it cost? Then try the other start: `exact` finds the best codebook there
# is.

# %%
from labkit.widgets import CodebookExplorer, draw_codebook, share_weights, sharing_table, sweep_levels

CodebookExplorer(last, "fc3.weight of lenet300", levels=4)

# %% [markdown]
# In plain code, for eight levels:

# %%
levels = sweep_levels(last)
display(SVG(draw_codebook(levels[8], levels, "fc3.weight of lenet300")))
display(HTML(sharing_table(levels[8])))
ratios = [levels[2 * k].error / levels[k].error for k in (2, 4, 8)]
claim(
    "each doubling leaves between a fifth and a half of the error", all(0.2 < each < 0.5 for each in ratios)
)
steps = [levels[2 * k].entropy - levels[k].entropy for k in (2, 4, 8)]
claim("and costs less than one more bit", max(steps) < 1)
claim(
    "Huffman's codes are within a tenth of a bit of the bound",
    all(s.huffman_bits - s.entropy < 0.1 for s in levels.values()),
)
claim(
    "the best codebook is at least as good as what k-means found",
    all(share_weights(last, k, "exact").error <= levels[k].error + 1e-12 for k in (4, 8, 16)),
)

# %% [markdown]
# ## Predict: two values
#
# Take it to the end: *two* values a layer, as in "a bit positive" and "a bit negative". Nothing is pruned, and nothing
# is trained. More than 300,000 different weights become six. How many points of accuracy are lost?

# %%
lost = predict("Points lost with two values for each layer", unit="points")
lost

# %%
from labkit.encode import ClusterWeights

rows, accuracy, outcome = [], {}, {}
for k in (32, 8, 4, 2):
    made = ClusterWeights(linear_levels=k, values="float32")(network)
    different = len(
        np.unique(np.concatenate([p.detach().numpy().ravel() for p in made.model.parameters() if p.ndim > 1]))
    )
    outcome[k] = evaluate(made, data, "validation")
    accuracy[k] = 100 * data.task.quality(outcome[k])
    rows.append(
        {
            "levels": k,
            "different weights": different,
            "accuracy_pct": accuracy[k],
            "points lost": as_float - accuracy[k],
        }
    )
show(rows)

# %%
claim("two values for each of three layers: six different weights", rows[-1]["different weights"] == 6)
different = len(np.unique(np.concatenate([each.ravel() for each in weights.values()])))
claim("before, there were more than 300,000", different > 300_000)
claim("with 8 levels a point is lost at most", as_float - accuracy[8] <= 1)
claim("with two, five points at most", as_float - accuracy[2] <= 5)
low, high = data.task.drop(data.task.compare(outcome[4], outcome[2]))[1]
claim("between four and two lie three images at most", abs(accuracy[4] - accuracy[2]) < 3.5 * one_image_pp)
claim("and 0 is inside the 95 % interval of that difference", low < 0 < high)
lost.reveal(
    as_float - accuracy[2], why="A neuron adds up hundreds of weights, and most of their errors cancel."
)

# %% [markdown]
# Four levels lost more than two, by three images at most: the interval says that this may be chance.
#
# Where it does hurt, the values can be **trained**. A value that many weights share moves by the sum of their gradients
# (an exercise below). Of a pruned network more depends on each weight: with 98 % of them gone, two values are too few
# for what is left. Does training bring everything back?

# %%
thinned = lk.PruneMagnitude(sparsity=0.98, fine_tune_epochs=2, threads=THREADS)(network, data)
two = {
    epochs: ClusterWeights(
        linear_levels=2, values="float32", fine_tune_epochs=epochs, threads=THREADS, learning_rate=0.01
    )(thinned, data)
    for epochs in (0, 3)
}
rows = [{"variant": "98 % zeros", "accuracy_pct": accuracy_pct(thinned)}]
rows += [
    {"variant": f"two values, {epochs} epochs of training", "accuracy_pct": accuracy_pct(made)}
    for epochs, made in two.items()
]
show(rows)

# %%
pruned_, untrained, trained = (row["accuracy_pct"] for row in rows)
claim("two values, not trained: more than five points are lost", untrained < pruned_ - 5)
claim("trained, a quarter of that and more is back", trained - untrained > 0.25 * (pruned_ - untrained))
claim("but not all: more than two points are still missing", trained < pruned_ - 2)
claim("the zeros stay where they were", np.array_equal(kept_of(two[3]), kept_of(thinned)))

# %% [markdown]
# ## A tenth of a bit
#
# Back to the zeros. Huffman's shortest code is one bit, and a symbol that is nearly certain deserves far less:
# log2(1/0.93) is a tenth of a bit. So of a bitmap of kept and not kept, Huffman saves nothing at all. One way out
# is to give codes to *blocks* of symbols; the table of codes then grows fast. The other: give the *whole message* a
# number.
#
# **How.** Each symbol cuts the interval from 0 to 1 to a part as long as the symbol is probable. Say a one has
# probability 1/4, and takes the upper part. Of the message 0, 0, 1 the first zero leaves 0 to 3/4, the second 0 to
# 9/16, and the one the last quarter of that, 27/64 to 36/64. Any number in there tells all three, such as 1/2.
#
# **How long.** A short interval needs many digits. Its length is the product of all probabilities, here 9/64: so the
# digits are the sum of all log2(1/p), Shannon's bound, plus two at most for the *whole* message. That is **arithmetic
# coding**, exactly, in fractions:


# %% tags=["nbval-check-output"]
from fractions import Fraction


def narrow(message, p_one):
    """[0, 1) cut symbol by symbol: ones take the upper part. Gives the start and the length of what is left."""
    low, length = Fraction(0), Fraction(1)
    for bit in message:
        low, length = (low + length * (1 - p_one), length * p_one) if bit else (low, length * (1 - p_one))
    return low, length


def encode(message, p_one):
    low, length = narrow(message, p_one)
    digits = 0
    while Fraction(1, 2**digits) > length / 2:  # fine enough that a number of so many digits lies inside
        digits += 1
    return -(-low * 2**digits // 1), digits  # the number, as digits after the point


def decode(number, digits, n, p_one):
    at, message = Fraction(int(number), 2**digits), []
    for _ in range(n):
        one = at >= 1 - p_one
        message.append(int(one))
        at = (at - (1 - p_one)) / p_one if one else at / (1 - p_one)
    return message


claim(
    "0, 0, 1 leaves 27/64 to 36/64", narrow([0, 0, 1], Fraction(1, 4)) == (Fraction(27, 64), Fraction(9, 64))
)
claim("1/2 tells all three", decode(1, 1, 3, Fraction(1, 4)) == [0, 0, 1])
p_one = Fraction(7, 100)
message = [0] * 30 + [1] + [0] * 40 + [1, 1] + [0] * 27
number, digits = encode(message, p_one)
bound = -float(sum(np.log2(float(p_one if bit else 1 - p_one)) for bit in message))
claim("a zero of probability 0.93 is worth a tenth of a bit", round(float(np.log2(100 / 93)), 1) == 0.1)
claim(f"100 symbols in {digits} bits; their bound is {bound:.1f}", bound <= digits < bound + 2)
claim("all of them come back", decode(number, digits, len(message), p_one) == message)

# %% [markdown]
# Fractions grow as the message does. A real coder keeps the interval in 64 bits and writes digits as soon as they are
# settled: a **range coder**, the short file `labkit/encode/range_coder.py`. Here it is on the bitmap of a whole
# layer, beside Huffman's code and the bound.

# %%
from labkit.encode.range_coder import PRECISION, RangeDecoder, RangeEncoder

layer = (sparse.model.state_dict()["fc2.weight"].numpy() != 0).ravel().astype(int)
share = max(1, round(layer.mean() * 2**PRECISION))  # of a one, in whole numbers of 2^-24
owns = {
    0: (0, 2**PRECISION - share),
    1: (2**PRECISION - share, share),
}  # where each symbol's part begins, its width
coder = RangeEncoder()
for bit in layer.tolist():
    coder.encode(*owns[bit])
coded = coder.finish()
reader, back = RangeDecoder(coded), []
for _ in layer:
    bit = int(reader.target() >= owns[1][0])
    reader.consume(*owns[bit])
    back.append(bit)
bound_bytes = least_bits(layer) / 8
by_huffman = theirs.encode(layer, theirs.code_lengths(np.bincount(layer)))
show(
    [
        {
            "symbols": len(layer),
            "kept": int(layer.sum()),
            "Shannon's bound": bound_bytes,
            "range coder": len(coded),
            "Huffman": len(by_huffman),
        }
    ]
)

# %%
claim("every symbol comes back", back == layer.tolist())
claim("Huffman: a bit for each, nothing is saved", len(by_huffman) == -(-len(layer) // 8))
claim(
    "the range coder is within 0.2 % of the bound, or two bytes",
    len(coded) <= max(1.002 * bound_bytes, bound_bytes + 2),
)

# %% [markdown]
# ### Below the bound?
#
# Nothing gets below the bound, but the bound depends on what one *knows*. Kept weights are not scattered evenly: some
# inputs matter (the middle of the image), some do not (its corners), and whole rows are gone. A coder that counts as it
# goes knows that, and expects more where there were many; the decoder counts along. `counted_bytes` is such a coder in
# a few lines, with one counter for each input or for each neuron.
#
# labkit's file looks at both, and at more. Its `bound` adds up log2(1/p) for the probabilities that it really used.
# `alone` is the bound for symbols one by one, with the same probabilities for the whole tensor.
#
# What must not work: shuffle the very same weights, so that there is nothing left to know.

# %%
import copy
import dataclasses

from labkit.encode import dissect
from labkit.encode import encode as encode_file
from labkit.widgets.anatomy_rows import coded_bytes

small = ClusterWeights(linear_levels=8, fine_tune_epochs=1, threads=THREADS)(sparse, data)
shuffled_model, mixer = copy.deepcopy(small.model), np.random.default_rng(SEED)
for parameter in shuffled_model.parameters():
    if parameter.ndim > 1:
        flat = parameter.data.flatten()
        parameter.data = flat[mixer.permutation(len(flat))].view_as(parameter)
shuffled = dataclasses.replace(small, model=shuffled_model)


def counted_bytes(bitmap):
    """What the bitmap takes with one counter for each column, line after line."""
    ones, total = np.ones(bitmap.shape[1]), 0.0
    for seen, line in enumerate(bitmap, 2):  # as if a one and a zero had been there before
        p = ones / seen
        total -= np.log2(np.where(line, p, 1 - p)).sum()
        ones += line
    return total / 8


rows, by_count = {}, {}
for name, variant in {"as trained": small, "shuffled": shuffled}.items():
    coded, bound, alone = coded_bytes(dissect(encode_file(variant)).parts)
    rows[name] = {
        "weights": name,
        "coded bytes": coded,
        "bound": bound,
        "alone": alone,
        "knowing saved": f"{1 - coded / alone:.1%}",
    }
    bitmap = variant.model.state_dict()["fc1.weight"].numpy() != 0
    by_count[name] = {
        "bytes for fc1: kept or not": name,
        "alone": least_bits(bitmap.ravel().astype(int)) / 8,
        "by input": counted_bytes(bitmap),
        "by neuron": counted_bytes(bitmap.T),
    }
show(list(by_count.values()))
show(list(rows.values()))

# %%
trained_, mixed = rows["as trained"], rows["shuffled"]
counted, chance = by_count["as trained"], by_count["shuffled"]
claim("counting by neuron saves a twentieth and more", counted["by neuron"] < 0.95 * counted["alone"])
claim("counting by input saves as well", counted["by input"] < counted["alone"])
claim(
    "of the shuffled weights they save nothing",
    chance["alone"] < min(chance["by neuron"], chance["by input"]),
)
claim("labkit's file saves more than a tenth", trained_["coded bytes"] < 0.9 * trained_["alone"])
claim("of the shuffled weights 1 % at most", mixed["coded bytes"] > 0.99 * mixed["alone"])
claim(
    "the coder stays within 3 % of its own bound, both times",
    max(r["coded bytes"] / r["bound"] for r in rows.values()) < 1.03,
)

# %% [markdown]
# ## The anatomy of a file
#
# Prune, cluster, code: `.lkz` is labkit's file for it, described byte by byte in
# [docs/weight-file.md](../docs/weight-file.md). Below is the one just made. Every byte is in the picture, and the sum
# is the file's size. **Before you look:** what takes the most, the *positions* of the kept weights or their *values*?
# And which tensor would you not have expected?

# %%
from labkit.encode import load_encoded, save_encoded
from labkit.encode.baselines import baselines
from labkit.widgets import AnatomyView, Weighed, anatomy_table, byte_groups, draw_anatomy

file = save_encoded(small, folder / "small.lkz")
weighed = Weighed(dissect(file.read_bytes()), baselines(small))
AnatomyView([weighed])

# %% [markdown]
# In plain code, with every byte in the table:

# %%
display(SVG(draw_anatomy(weighed)))
display(HTML(anatomy_table(weighed)))

# %%
size, groups = file.stat().st_size, byte_groups(weighed.found)
claim(
    "all parts together are the file, to the byte",
    sum(part.bytes for part in weighed.found.parts) == size == sum(groups.values()),
)
claim("it is about a hundred times smaller than in float32", 85 < network.size_bytes / size < 120)
claim("positions take more than values", groups["positions"] > groups["values"])
claim("a point of accuracy is lost at most", as_float - accuracy_pct(small) <= 1)
of_tensor = {name: sum(p.bytes for p in weighed.found.parts if p.tensor.startswith(name)) for name in tensors}
fewer, many = weights["fc2.weight"].size / count, of_tensor["fc2.weight"] / size
claim("the 300 biases of fc1 take more than 1,000 bytes", of_tensor["fc1.bias"] > 1000)
claim(
    "fc2 has 9 % of the weights, and a third of the bytes and more", round(fewer, 2) == 0.09 and many > 1 / 3
)
best_other = min((each for each in weighed.others if each.bytes is not None), key=lambda each: each.bytes)
claim("no other compressor comes within a tenth of it", best_other.bytes > 1.1 * size)
claim("the best of the others is gaps and Huffman", best_other.name == "gaps and Huffman")
claim(
    "and it decodes to the very network, bit for bit", load_encoded(file).fingerprint() == small.fingerprint()
)

# %% [markdown]
# Did you expect `fc1.bias`? Its 300 numbers are not clustered, and take more than 1,000 bytes. Or `fc2.weight`: 9 % of
# the weights, and more than a third of the bytes.
#
# The others are given a fair chance: each gets the weights in their dense form and as sparse indices, and the better
# counts. zlib and its kin pay for a repetition with an address; Huffman pays whole bits. Ours asks how probable a zero
# is *here*. The best of the others, gaps and Huffman, is the code of Han, Mao and Dally (*Deep Compression*, 2016).
# This lesson goes their way: prune, cluster, code.
#
# ### What must not pass
#
# A file that is so dense has nothing to spare. One flipped bit would change everything behind it. So the last four
# bytes are a checksum, and a damaged file is refused before anybody uses it:

# %%
from labkit.encode import decode as decode_file
from labkit.errors import ModelFileError

content, refused = file.read_bytes(), 0
for place in np.random.default_rng(SEED).choice(len(content), 50, replace=False).tolist():
    damaged = bytearray(content)
    damaged[place] ^= 1
    try:
        decode_file(bytes(damaged))
    except ModelFileError as error:
        refused, said = refused + 1, str(error)
print(said)
claim("50 of 50 flipped bits are noticed", refused == 50)

# %% [markdown]
# ## How far can it go?
#
# More zeros or fewer levels: what buys more bytes for the accuracy that it costs? The sliders show files that were made
# before, for this network: bytes, accuracy, and what each is made of. A bar marks the 95 % interval of what was lost:
# with so few images, a difference of a point is hardly one. **Find the smallest file within half a point.** Then press
# **Make it here**: the file is made on your machine, a few seconds, and shown beside what was recorded.

# %%
from labkit.teach.coding_sweep import LEVELS, SPARSITIES, load_coding
from labkit.teach.coding_sweep import measure as make_file
from labkit.widgets import CodingPanel, draw_coding, find_point

recording = load_coding()


def measure(sparsity, levels, progress=silent):
    return make_file(network, sparsity, levels, data, progress)


CodingPanel(recording.points, recording.float_bytes, recording.float_accuracy_pct, measure)

# %% [markdown]
# In plain code: one file, recorded and made here.

# %%
recorded = find_point(recording.points, 0.97, 8)
here, weighed_here = measure(0.97, 8)
display(SVG(draw_coding(recording.points, recorded, recording.float_bytes, recording.float_accuracy_pct)))
show(
    [
        {
            "whose": whose,
            "size_bytes": p.size_bytes,
            "accuracy_pct": p.accuracy_pct,
            "points lost": p.drop_pp,
            "ci95": p.drop_ci95,
        }
        for whose, p in (("recorded", recorded), ("here", here))
    ]
)

# %%
claim(
    "the recording is of this very network",
    recording.float_bytes == network.size_bytes and abs(recording.float_accuracy_pct - as_float) < 0.01,
)
claim("a file for every stop of the sliders", len(recording.points) == len(LEVELS) * len(SPARSITIES))
claim(
    "what was recorded is what is made here: within 10 % of the bytes",
    abs(here.size_bytes / recorded.size_bytes - 1) < 0.1,
)
claim("and within two points", abs(here.accuracy_pct - recorded.accuracy_pct) <= 2)
claim("more than 100 times smaller than float32", recording.float_bytes > 100 * here.size_bytes)
good = [point for point in recording.points if point.drop_pp <= 0.5]
smallest = min(good, key=lambda point: point.size_bytes)
claim("the smallest within half a point has at least 95 % zeros", smallest.sparsity >= 0.95)
none_zero, half_zero = (find_point(recording.points, zeros, 2).size_bytes for zeros in (0.0, 0.5))
claim("with two levels, half of the weights zero make the file larger", half_zero > none_zero)

# %% [markdown]
# Did you see the surprise at two levels? There a network with *half* of its weights zero takes more bytes than one with
# none. Zero is a value too: two levels are one bit a weight, and with zero there are three things to tell apart.
#
# From a terminal, `labkit apply lenet300@digits --recipe small.toml --out small.lkz` makes the file of the anatomy
# above, and `labkit encode small.lkz --out again.lkz --show` takes a file apart. Here is `small.toml`:
#
#     [[step]]
#     technique = "prune_magnitude"
#     sparsity = 0.95
#     fine_tune_epochs = 2
#
#     [[step]]
#     technique = "cluster_weights"
#     linear_levels = 8
#     fine_tune_epochs = 1
#
# ## Thin instead of sparse
#
# There is another way to have fewer numbers: write a layer's matrix as the product of two thin ones. From 300 × 1024
# numbers come r · (300 + 1024), if r *ranks* are enough. No zeros, and less to multiply. But multiply-adds are counted,
# and milliseconds measured (lesson 04), so all take turns: one image, one thread, ONNX Runtime. And to be fair, the
# thin layers get a codebook too:

# %%
from labkit.encode import FactorizeLowRank
from labkit.measure import Protocol
from labkit.prune.target import time_shares

thin = FactorizeLowRank(by="energy", keep=0.7, fine_tune_epochs=2, threads=THREADS)(network, data)
made = {
    "float32": network,
    "two thin layers for one": thin,
    "the same, clustered": ClusterWeights(linear_levels=8, fine_tune_epochs=1, threads=THREADS)(thin, data),
    "pruned, clustered": small,
}
short = Protocol(blocks=20, block_ms=10.0, warmup_ms=20.0, min_runs_per_block=2)
graphs = [lk.ExportOnnx()(each, data) for each in made.values()]
taken = time_shares(graphs[0], graphs[1:], "onnxruntime", short if profile == "ci" else Protocol.paired())
rows = {}
for (name, each), share in zip(made.items(), (1.0, *taken), strict=True):
    rows[name] = {
        "variant": name,
        "weights": int(kept_of(each).sum()),
        "coded bytes": len(encode_file(each)),
        "accuracy_pct": accuracy_pct(each),
        "time_share": share,
    }
show(list(rows.values()))

# %%
whole_, thin_, both_, sparse_ = rows.values()
claim("coding alone saves less than a fifth", whole_["coded bytes"] > 0.8 * network.size_bytes)
claim("thin: less than half of the bytes of float32", thin_["coded bytes"] < 0.5 * network.size_bytes)
claim("within two points", as_float - thin_["accuracy_pct"] <= 2)
claim("and in less than four fifths of the time", thin_["time_share"] < 0.8)
claim("70 % of the energy takes 37 % of the numbers", round(100 * thin_["weights"] / count) == 37)
claim("clustered, more than twice the bytes of the sparse file", both_["coded bytes"] > 2 * size)
claim("and it reads no better", both_["accuracy_pct"] <= sparse_["accuracy_pct"])
claim("zeros save less time than thin layers", sparse_["time_share"] > thin_["time_share"])
decoded = sum(each.numpy().nbytes for each in load_encoded(file).model.state_dict().values())
claim("decoded, the network is as large as before", decoded == len(plain))

# %% [markdown]
# For this network, then: low rank for time, sparsity and coding for bytes. With a codebook the thin layers still take
# more than twice the bytes of the sparse file. The weights of *this* network are not of low rank: to keep 70 % of their
# energy takes 37 % of the numbers. And coding saves bytes *only*: decoded, the network is as large in memory as it was,
# and its zeros are multiplied like any other number.

# %% [markdown] tags=["exercise"]
# ## Exercise: the gradient of a shared value
#
# The weights `w` of a layer are made of a codebook: `w[i] = codebook[entry[i]]`. Training has computed `gradient`, how
# the loss changes with each *weight*. How does it change with each of the four *values*? Let NumPy add it up: an array
# of four numbers.

# %% tags=["exercise"]
drawn = np.random.default_rng(6)
codebook = np.array([-0.5, -0.1, 0.2, 0.6])
entry = drawn.integers(0, 4, size=200)
inputs = drawn.normal(size=200)
gradient = 2 * (codebook[entry] @ inputs - 1.0) * inputs  # of the loss (w · inputs − 1)²

# %%
of_values = None  # your answer
### BEGIN SOLUTION
of_values = np.bincount(entry, weights=gradient)
### END SOLUTION

# %%
check(
    of_values,
    expected=lambda answer: (
        np.shape(answer) == (4,) and fingerprint([f"{each:.3f}" for each in answer]) == "ed98fe27"
    ),
    hint="each value moves by the sum over all weights that have it: np.bincount can add with weights",
)

# %%
if np.shape(of_values) == (4,):  # once there is an answer
    import torch

    values = torch.tensor(codebook, requires_grad=True)
    ((values[torch.from_numpy(entry)] @ torch.from_numpy(inputs) - 1.0) ** 2).backward()
    print("automatic differentiation says the same:", np.allclose(of_values, values.grad.numpy()))

# %% [markdown] tags=["exercise"]
# ## Exercise: find the error
#
# Two lines from a handout. Both have been printed, and both are wrong.
#
# **1.** "In Huffman's code the rarer symbols get the shorter codes." Take a message of 16 symbols: a eight times, b
# four times, c and d twice each. Code it once with Huffman's lengths, and once with the lengths given out the other way
# round, the shortest to d and the two longest to a and b. How many bits does a symbol take on average, first right,
# then as the handout says? Answer with the two numbers, such as `(1.5, 2.5)`.

# %%
right_and_wrong = None  # your answer
### BEGIN SOLUTION
right_and_wrong = (1.75, 2.625)
### END SOLUTION

# %%
check(
    right_and_wrong,
    expected=lambda answer: fingerprint([round(float(each), 3) for each in answer]) == "ae590893",
    hint="Huffman's lengths are 1, 2, 3 and 3. Bits of the message: count times length, added up; then divide by 16.",
)

# %% [markdown]
# Is your second number better or worse than four equally long codes? The formula that the handout prints beside it, as
# the size of a Huffman code, is Σ p · log2(1/p). That is Shannon's entropy, the bound. Does the code meet it here?
#
# <details><summary>Think, then open the answer</summary>
#
# Worse: four equally long codes take 2 bits each, so the wrong way round costs more than not coding at all. And yes,
# the right code meets the bound: all four probabilities are powers of a half (1/2, 1/4, 1/8, 1/8), so whole bits fit
# them exactly. With other probabilities some bits are lost.
#
# </details>

# %% [markdown] tags=["exercise"]
# **2.** "The size of a run-length code is Σ (1 + log2 i), over all positions i of the message." Take a message of 16
# zeros in a row. What does the handout's formula give, with i from 1 to 16? And what does a run-length code really
# take, if a run is one bit for its symbol and log2(16) bits for its length? Answer with two numbers of bits, rounded to
# one digit, such as `(12.3, 4.5)`.

# %%
printed_and_true = None  # your answer
### BEGIN SOLUTION
printed_and_true = (60.3, 5.0)
### END SOLUTION

# %%
check(
    printed_and_true,
    expected=lambda answer: fingerprint([round(float(each), 1) for each in answer]) == "5d52673b",
    hint="The first is a sum of 16 terms: let NumPy add them. The second has one term, as there is one run.",
)

# %% [markdown]
# How does your first number compare with the length of the message itself? A run-length code is a sum over *runs*.
#
# <details><summary>Think, then open the answer</summary>
#
# The message has 16 symbols of one bit each. By the handout's formula the "compressed" message would be almost four
# times as long. It adds up a term for each position, where the code has one for each run.
#
# </details>

# %% [markdown] tags=["exercise"]
# ## Exercise: numbers to reach
#
# **A file of `network` in fewer than 8,500 bytes that decodes to a network within half a point** of the float one, on
# the validation images. Prune, cluster, fine-tune as you like, and save it with `save_encoded`. The check weighs your
# file, decodes it, and lets it read. Your answer is the path of the file. (What does the anatomy say: where do the next
# bytes lie?)

# %% tags=["exercise"]
from labkit.encode import ClusterWeights, load_encoded, save_encoded

BUDGET_BYTES = 8_500


def reaches(path):
    """Whether the file is small enough, and what it decodes to good enough."""
    size_bytes, lost_pp = Path(path).stat().st_size, accuracy_pct(network) - accuracy_pct(load_encoded(path))
    print(f"{size_bytes:,} bytes, {lost_pp:.2f} points lost")
    return size_bytes < BUDGET_BYTES and lost_pp <= 0.5


# %%
mine = None  # your answer
### BEGIN SOLUTION
pruned = lk.PruneMagnitude(sparsity=0.97, fine_tune_epochs=6, threads=THREADS)(network, data)
shared = ClusterWeights(linear_levels=8, bias_levels=16, fine_tune_epochs=2, threads=THREADS)(pruned, data)
mine = save_encoded(shared, folder / "mine.lkz")
### END SOLUTION

# %%
check(
    mine,
    expected=reaches,
    hint="prune, with some epochs of fine-tuning; cluster, with a few; more zeros before fewer levels; biases count",
)

# %% [markdown]
# ## The decision
#
# Prune first: positions and values both become fewer. Then a codebook of eight values, trained. Then the coder, which
# costs nothing. Look at the anatomy, and go on where the bytes are.

# %%
decision(
    "06_weight_coding",
    variant="lenet300, 97 % zeros, 8 levels a layer, coded",
    constraint="bytes of the file, within half a point of accuracy",
    risk="few images to measure on: the interval of the loss is wider than half a point",
    size_bytes=here.size_bytes,
    drop_pp=round(here.drop_pp, 2),
    times_smaller=round(network.size_bytes / here.size_bytes, 1),
)

# %%
low, high = here.drop_ci95
claim("the interval of the loss is wider than half a point", high - low > 0.5)

# %% [markdown]
# ## In short
#
# - Coding loses nothing; pruning and sharing do, or may: measure those.
# - Entropy is the bound: log2(1/p) bits for a symbol of share p. The frequent ones get the short codes.
# - Huffman's codes are whole bits. Where a symbol is nearly certain, a range coder takes a tenth of a bit.
# - Runs and gaps pay where runs are long. A good *probability* pays everywhere.
# - The bound depends on what is known: look around, and it falls.
# - Weigh the file, not the parameters: everything that a decoder needs counts.
#
# Planned next: **07 · Parallel inference**, where several workers share the images.
