"""Who takes part in the race: the variant, its baseline, and the variant with one suspect taken away."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from labkit.data import Dataset
from labkit.environment import Environment
from labkit.explain.causes_machine import TINY_MS
from labkit.explain.evidence import (
    ALIGNED_CHAIN,
    ALLOWED_THREADS,
    BASELINE_FLOAT32,
    FILLED,
    LARGER_BATCH,
    MANY_ZEROS,
    ONE_THREAD,
    OWN_CHAIN,
    UNSIGNED,
    YARDSTICK,
    YARDSTICK_BATCH,
    block,
    unaligned,
    yardstick,
)
from labkit.explain.executed import LAYER
from labkit.explain.layers import ModelFile
from labkit.explain.profile import Profile
from labkit.explain.rewrite import Chain, unsigned, without_zeros
from labkit.explain.trials import AGAINST, AsItPleases, Entrant
from labkit.runtimes import RunOptions, get_runtime
from labkit.technique import probe
from labkit.variant import Array, Variant

AUTO = "auto"
_LARGE_BATCH = 32
_WORTH_TRYING = 0.1  # of the time


@dataclass(frozen=True, eq=False)
class Request:
    """How everything is run: on which samples, by whom, how many at a time."""

    dataset: Dataset | None
    runtime: str
    batch_size: int
    threads: int

    def entrant(
        self, variant: Variant, precision: str = "float32", batch_size: int = 0, threads: int = 0
    ) -> Entrant:
        """The variant, run as the others are or with another batch or number of threads."""
        runtime = (
            AsItPleases() if (self.runtime, precision) == ("openvino", AUTO) else get_runtime(self.runtime)
        )
        options = RunOptions(
            threads=threads or self.threads, precision="float32" if precision == AUTO else precision
        )
        size = variant.fixed_batch or batch_size or self.batch_size
        return Entrant(variant, self._samples(variant, size), runtime, options)

    def _samples(self, variant: Variant, batch_size: int) -> Mapping[str, Array]:
        """From the train split, round and round if it is small; random numbers without a dataset."""
        if self.dataset is None:
            return probe(variant, batch_size)
        train = self.dataset.split("train")
        return variant.feeds(train.take(np.arange(batch_size) % len(train)).inputs)


def baselines(request: Request, against: Variant, precision: str) -> dict[str, Entrant]:
    """The baseline as it is run, and in float32 if it is not."""
    found = {AGAINST: request.entrant(against, precision)}
    if precision != "float32":
        found[BASELINE_FLOAT32] = request.entrant(against)
    return found


def suspects(
    request: Request, itself: Entrant, file: ModelFile | None, own: Profile, machine: Environment
) -> dict[str, Entrant]:
    """The variant with other grids, fewer threads, a larger batch or no zeros, where there is reason to ask."""
    variant, found = itself.variant, {}
    layers = file.layers if file else ()
    lifted = unsigned(variant) if any(layer.signed for layer in layers) else None
    if lifted is not None:
        found[UNSIGNED] = Entrant(lifted, itself.feeds, itself.runtime, itself.options)
    if request.threads > machine.threads > 1:
        found[ALLOWED_THREADS] = request.entrant(variant, threads=machine.threads)
    if request.threads > 1:
        found[ONE_THREAD] = request.entrant(variant, threads=1)
    if variant.fixed_batch is None and itself.batch_size < _LARGE_BATCH:
        found[LARGER_BATCH] = request.entrant(variant, batch_size=_LARGE_BATCH)
    sparse = {layer.source for layer in layers if layer.zeros >= MANY_ZEROS and not layer.weight_grid}
    if sparse:
        filled = without_zeros(variant, sparse)
        found[FILLED] = Entrant(filled, itself.feeds, itself.runtime, itself.options)
    return found


def dearest_unaligned(own: Profile, file: ModelFile | None, machine: Environment) -> Chain | None:
    """The convolution of the layer that takes most of the time among those with odd numbers of channels.

    None if all of these together take too little to matter.
    """
    by_name = {layer.name: layer for layer in (file.layers if file else ())}
    found = [each for each in own.operators if each.layer and unaligned(by_name[each.layer], block(machine))]
    if sum(each.share for each in found) < _WORTH_TRYING:
        return None
    dearest = max(found, key=lambda each: each.ms)
    layer = by_name[dearest.layer]
    if layer.channels is None or layer.size is None or layer.weight is None:
        return None
    rows, columns = layer.weight.shape[2:]
    return Chain(*layer.channels[:2], (rows, columns), layer.size, dearest.precision == "int8")


def chains(request: Request, own: Profile, chain: Chain | None, machine: Environment) -> dict[str, Entrant]:
    """That convolution alone, as it is and with aligned channels; a yardstick, where layers are tiny or slow."""
    found = {}
    layers = [each for each in own.operators if each.work == LAYER]
    if any(each.ms < TINY_MS or each.kind == "ConvInteger" for each in layers):
        is_int8 = any(each.precision == "int8" for each in layers)
        found[YARDSTICK] = _alone(request, yardstick(is_int8), YARDSTICK_BATCH)
    if chain is not None:
        found[OWN_CHAIN] = _alone(request, chain, own.batch_size)
        found[ALIGNED_CHAIN] = _alone(request, chain.aligned(block(machine)), own.batch_size)
    return found


def _alone(request: Request, chain: Chain, batch_size: int) -> Entrant:
    variant = chain.variant()
    return Entrant(
        variant,
        probe(variant, batch_size),
        get_runtime(request.runtime),
        RunOptions(threads=request.threads),
    )
