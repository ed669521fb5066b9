"""Training: one loop, used to train, to fine-tune what was pruned, and to distil.

Stochastic gradient descent with Nesterov momentum and a cosine learning rate; AdamW for transformers, whose layers
have gradients of such different sizes that no single rate suits all (Zhang et al. 2024, section 3). Every random
number is drawn from (seed, epoch), so a run that was interrupted after an epoch continues exactly as if it never
had been. Shuffling, shifting, flipping and dropout all follow from the seed; the thread count can change the last bits.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from labkit.checkpoint import keep, resume
from labkit.data import Dataset, Split
from labkit.environment import current
from labkit.errors import TechniqueError
from labkit.measure.lock import Patience
from labkit.progress import Progress
from labkit.technique import Technique, knob
from labkit.variant import Array, TensorSpec, Variant

Loss = Callable[[Tensor, Tensor, tuple[Tensor, ...]], Tensor]
Hook = Callable[[nn.Module], None]
_LARGEST_GRADIENT_NORM = (
    5.0  # longer gradients are shortened to it: networks without batch norm diverge early otherwise
)


@dataclass(frozen=True, kw_only=True)
class Trains(Technique):
    """A technique that trains its result: the knobs that all of these share, and the recipe that they make."""

    batch_size: int = knob(32, "samples per step", min=1, max=4096)
    learning_rate: float = knob(0.1, "the highest rate of the schedule", above=0.0, max=10.0)
    label_smoothing: float = knob(0.0, "share of the label given to all classes", min=0.0, below=1.0)
    augment: str = knob("shift", "random changes to images", choices=("none", "shift", "shift+flip"))
    weight_decay: float = knob(5e-4, "pull of the weights towards zero", min=0.0, below=1.0)
    optimizer: str = knob(
        "sgd", "sgd with Nesterov momentum, or adamw (learning_rate of about 0.001)", choices=("sgd", "adamw")
    )
    max_samples: int = knob(0, "use only the first so many training samples; 0 for all", min=0)
    seed: int = knob(0, "all randomness follows from it", min=0, max=2**31 - 1)
    threads: int = knob(0, "CPU threads; 0 for all that the quota allows", min=0, max=1024)

    def recipe(self, epochs: int) -> Train:
        """How to train for so many epochs, by these knobs."""
        return Train(epochs=epochs, **{f.name: getattr(self, f.name) for f in dataclasses.fields(Trains)})


@dataclass(frozen=True)
class Train(Trains):
    """Fit a PyTorch variant to a dataset's train split; on a trained variant, this is fine-tuning."""

    name: ClassVar[str] = "train"
    title: ClassVar[str] = "Training"
    takes: ClassVar[tuple[str, ...]] = ("torch",)
    needs_dataset: ClassVar[bool] = True

    epochs: int = knob(6, "passes over the training data", min=1, max=1000)
    batch_size: int = knob(64, "samples per step", min=1, max=4096, kw_only=True)
    momentum: float = knob(0.9, "share of the last step kept (AdamW's beta1)", min=0.0, below=1.0)
    precision: str = knob(
        "auto", "auto: bfloat16 where the CPU has it", choices=("auto", "float32", "bfloat16")
    )

    def apply(self, variant: Variant, dataset: Dataset | None, progress: Progress) -> Variant:
        """Train a copy and return it as a new variant."""
        assert dataset is not None  # noqa: S101 - `requires` has checked it
        module = fit(self, variant, dataset, progress)
        return variant.derive(variant.name, self.step(variant), model=module)


def fresh_variant(config: dict[str, Any], dataset: Dataset, seed: int = 0) -> Variant:
    """An untrained variant of one of MODELS, with its input's shape and number of outputs taken from `dataset`."""
    from labkit.models import build

    if dataset.task_name != "classification":
        raise TechniqueError(
            f"the shipped architectures classify images; {dataset.name!r} is {dataset.task_name}"
        )
    shape = dataset.image_shape()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = build({"input_shape": list(shape), "num_outputs": len(dataset.labels), **config}).eval()
    return Variant(
        name=f"{config['architecture']}@{dataset.name}",
        format="torch",
        model=module,
        inputs=(TensorSpec("image", "float32", ("batch", *shape), "NCHW"),),
        outputs=(TensorSpec("logits", "float32", ("batch", len(dataset.labels))),),
        task=dataset.task_name,
        labels=dataset.labels,
        preprocessing={"image": dataset.standardise()},
    )


def fit(
    recipe: Train,
    variant: Variant,
    dataset: Dataset,
    progress: Progress,
    loss: Loss | None = None,
    after_step: Hook | None = None,
    checkpoint: Path | None = None,
) -> nn.Module:
    """Train a copy of `variant.model` by `recipe`; `loss(output, target, inputs)` defaults to the task's own.

    `after_step` runs after every update (a pruning mask, say). With `checkpoint`, each epoch's state is kept in that
    folder and a later call continues from there. Raises Cancelled through `progress`, TechniqueError if the loss
    stops being finite, all parameters are frozen, or the network cannot compute a batch.
    """
    task = dataset.task
    train = dataset.split("train")
    if recipe.max_samples:
        train = train.take(slice(0, recipe.max_samples))
    module: nn.Module = copy.deepcopy(variant.model)
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise TechniqueError(
            f"{variant.name!r} has no parameter that training may change: give one back its gradient, as "
            "model.requires_grad_(True) does for all"
        )
    optimizer = _optimizer(recipe, module)
    criterion = loss or (lambda output, target, _: task.loss(output, target, recipe.label_smoothing))
    bfloat16 = uses_bfloat16(recipe.precision)
    patience = Patience()
    per_epoch = steps_per_epoch(recipe, dataset)
    total = recipe.epochs * per_epoch
    run = {"recipe": recipe.config, "start": variant.digest} if checkpoint else {}
    first = resume(checkpoint, run, module, optimizer) if checkpoint else 0
    threads_before = torch.get_num_threads()
    torch.set_num_threads(recipe.threads or current().threads)
    module.train()
    try:
        for epoch in range(first, recipe.epochs):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(recipe.seed * 1_000_003 + epoch)
                for index, (inputs, target) in enumerate(_batches(recipe, variant, train, epoch)):
                    step = epoch * per_epoch + index
                    _set_rate(optimizer, recipe.learning_rate, step, total)
                    with patience.shared():
                        with in_words(module, inputs):
                            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                                output = scored(module(*inputs))
                            value = criterion(output.float(), target, inputs)
                        if not torch.isfinite(value):
                            raise TechniqueError(
                                f"the loss became {value.item()} in epoch {epoch + 1}: "
                                f"try a smaller learning_rate than {recipe.learning_rate}"
                            )
                        optimizer.zero_grad(set_to_none=True)
                        value.backward()  # type: ignore[no-untyped-call]
                        nn.utils.clip_grad_norm_(module.parameters(), _LARGEST_GRADIENT_NORM)
                        optimizer.step()
                    if after_step:
                        after_step(module)
                    message = f"epoch {epoch + 1}/{recipe.epochs}, loss {value.item():.3f}"
                    progress((step + 1) / total, message)
            if checkpoint:
                keep(checkpoint, run, module, optimizer, epoch + 1)
    finally:
        torch.set_num_threads(threads_before)
    return module.eval()


def scored(output: Any) -> Tensor:
    """The output that the loss reads: the first, where a network has several, as in `labkit.measure`."""
    first: Tensor = output[0] if isinstance(output, tuple) else output
    return first


@contextlib.contextmanager
def in_words(module: nn.Module, inputs: tuple[Tensor, ...]) -> Iterator[None]:
    """Raise TechniqueError where PyTorch refuses to compute `module` or its loss on this batch, [N, …] each."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        todo = "give data that fits the model, or a smaller batch_size"
        if module.training and len(inputs[0]) == 1:
            todo = "batch norm has no variance of one sample: give batch_size and max_samples of 2 or more"
        shapes = ", ".join(str(list(each.shape)) for each in inputs)
        said = str(error)[:200]
        raise TechniqueError(f"PyTorch cannot compute a batch {shapes}: {said}: {todo}") from error


def steps_per_epoch(recipe: Trains, dataset: Dataset) -> int:
    """The updates that `fit` makes in one epoch; a last batch of one sample is none."""
    samples = len(dataset.split("train"))
    whole, rest = divmod(min(samples, recipe.max_samples or samples), recipe.batch_size)
    return whole + (rest > 0 if whole == 0 else rest > 1)


def _optimizer(recipe: Train, module: nn.Module) -> torch.optim.Optimizer:
    decay = [p for p in module.parameters() if p.ndim > 1]
    rest = [p for p in module.parameters() if p.ndim <= 1]  # biases and batch norms are not pulled to zero
    groups = [{"params": decay, "weight_decay": recipe.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(recipe.momentum, 0.99))
    return torch.optim.SGD(
        groups, lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=recipe.momentum > 0
    )


def uses_bfloat16(precision: str) -> bool:
    """Whether training at this precision (a knob of `Train`) computes in bfloat16 on this machine."""
    return current().has_bf16 if precision == "auto" else precision == "bfloat16"


def _set_rate(optimizer: torch.optim.Optimizer, highest: float, step: int, total: int) -> None:
    """Linear warm-up over the first twentieth, then half a cosine down to zero (Loshchilov and Hutter 2017)."""
    warm_up = max(1, total // 20)
    rate = (
        highest * (step + 1) / warm_up
        if step < warm_up
        else _cosine(highest, step - warm_up, total - warm_up)
    )
    for group in optimizer.param_groups:
        group["lr"] = rate


def _cosine(highest: float, step: int, total: int) -> float:
    return highest * 0.5 * (1 + math.cos(math.pi * step / max(1, total)))


def _batches(
    recipe: Train, variant: Variant, train: Split, epoch: int
) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
    """Shuffled, preprocessed, augmented batches of one epoch."""
    random = np.random.RandomState((recipe.seed * 7919 + epoch) % 2**32)
    order = random.permutation(len(train))
    for start in range(0, len(train), recipe.batch_size):
        batch = train.take(order[start : start + recipe.batch_size])
        if len(batch) == 1 < min(recipe.batch_size, len(train)):
            continue  # batch normalisation has no variance of one sample
        feeds = variant.feeds(batch.inputs)
        if recipe.augment != "none":
            feeds = {
                name: _augment(x, recipe.augment, random) if x.ndim == 4 else x for name, x in feeds.items()
            }
        yield tuple(_standard(feeds[spec.name]) for spec in variant.inputs), torch.from_numpy(batch.target)


def _standard(x: Array) -> Tensor:
    """A tensor in the standard memory layout, with strides to match.

    Grey images [N, 1, H, W] can pass for channels-last, and with that layout and two threads torch 2.13 crashes in
    the backward pass of narrow convolutions.
    """
    return torch.from_numpy(x).clone(memory_format=torch.contiguous_format)


def _augment(images: Array, kind: str, random: np.random.RandomState) -> Array:
    """Shift every image by up to 2 pixels each way, edges repeated; mirror half of them if asked. [N, C, H, W]."""
    count, _, height, width = images.shape
    padded = np.pad(images, ((0, 0), (0, 0), (2, 2), (2, 2)), mode="edge")
    rows = random.randint(0, 5, (count, 1)) + np.arange(height)
    columns = random.randint(0, 5, (count, 1)) + np.arange(width)
    if kind == "shift+flip":
        mirrored = random.rand(count) < 0.5
        columns[mirrored] = columns[mirrored, ::-1]
    moved = padded[np.arange(count)[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return np.ascontiguousarray(moved.transpose(0, 3, 1, 2))
