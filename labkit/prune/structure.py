"""One model, its couplings, and what it looks like without some of its channels: for PyTorch and for ONNX alike.

The graph that the couplings were read from is there in both cases. So whatever only needs to know *what would be*
(counting multiply-adds, timing, scoring) looks at the narrow graph; the model itself is cut once, in the end.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from labkit.data import Dataset
from labkit.errors import ModelFileError, TechniqueError, TensorError
from labkit.measure.lock import Patience
from labkit.models import build, refit
from labkit.onnx_graph import open_graph
from labkit.onnx_graph.as_torch import as_torch
from labkit.onnx_graph.macs import in_control_flow
from labkit.prune.coupling import Coupling, Group, find_coupling
from labkit.prune.coupling.axis import Numbers
from labkit.prune.coupling.coupling import EVERYWHERE
from labkit.prune.coupling.modules import fitting, masked_module, narrow_module, trace
from labkit.runtimes import reference_runtime
from labkit.technique import probe
from labkit.train import in_words, scored
from labkit.variant import Array, Variant

_TOLERANCE = 1e-3
_MOST_REASONS = 3
_MISREAD = "a rule of labkit's misreads this graph; please report it"
_NO_CODE = (
    "its code may need widths to agree that no longer do; pruning_ratio=0.5 often leaves such, or export it to ONNX "
    "(labkit.ExportOnnx()) and prune that, which no code reads"
)


class Differs(TechniqueError):
    """A model without some channels is not what it is with them, though it was to be."""


class Misread(TechniqueError):
    """A graph without some channels is not what it is with them at zero: some rule does not hold in it."""


@dataclass(frozen=True, eq=False)
class Structure:
    """A variant and the couplings of its graph."""

    variant: Variant
    coupling: Coupling

    def summary(self) -> str:
        """What can shrink, and what is kept whole because of what, in one line."""
        kept = "; ".join(f"{name} because {why}" for name, why in self.coupling.whole.items())
        return f"groups of channels that can shrink: {len(self.coupling.groups)}. Kept whole: {kept or 'nothing'}"

    def values(self, name: str) -> Array:
        """The numbers of an initializer of the graph; a module's parameters have their own names in it."""
        tensor = next(each for each in self.coupling.model.graph.initializer if each.name == name)
        return numpy_helper.to_array(tensor)

    def graph(self, removed: Sequence[Numbers]) -> Variant:
        """The graph without these units, as an ONNX variant."""
        return _as_onnx(self.variant, self.coupling.remove(removed))

    def narrow(self, removed: Sequence[Numbers], exactly: bool = False) -> Any:
        """The model without these units, in its own format: an ONNX file's bytes, or a module.

        A module of one of labkit's architectures stays one, with other widths in its `config`; where the config
        cannot tell these widths, and for any other module, it is a module without a `config`, which runs and exports.
        Raises TechniqueError if the result does not compute what the model does with these channels at zero; or,
        with `exactly`, Differs if it does not compute what the model does as it is.
        """
        if self.variant.format == "onnx":
            narrow = self.graph(removed)
            masked = _as_onnx(self.variant, self.coupling.masked(removed, EVERYWHERE))
            try:
                self._check(narrow, self.variant if exactly else masked, exactly)
            except (ModelFileError, TensorError) as error:
                raise Misread(
                    f"{self.variant.name!r} cannot do without the chosen channels ({error}): {_MISREAD}"
                ) from None
            return narrow.model
        module = narrow_module(self.variant.model, self.coupling, removed)
        zeroed = masked_module(self.variant.model, self.coupling, removed, EVERYWHERE)
        expected = self.variant if exactly else dataclasses.replace(self.variant, model=zeroed)
        try:
            self._check(dataclasses.replace(self.variant, model=module), expected, exactly)
        except TensorError as error:
            raise TechniqueError(
                f"{self.variant.name!r} cannot do without the chosen channels ({error}): {_NO_CODE}"
            ) from None
        return _rebuilt(module)

    def fitting(self) -> Structure:
        """The same with those groups alone of which a trial shows that some units can go; the others stay whole.

        For a graph in which the rules have turned out not to hold; a module's groups were tried when it was read.
        Raises TechniqueError if none is left.
        """
        fit: list[Group] = []
        reasons: dict[Group, str] = {}
        for group in self.coupling.groups:
            try:
                self.narrow([each.half() for each in (*fit, group)])
                fit.append(group)
            except Misread:
                reasons[group] = (
                    "without some of its channels the outputs are not what they are with them at zero"
                )
        coupling = self.coupling.without(reasons)
        _refuse_without_groups(self.variant, coupling)
        return dataclasses.replace(self, coupling=coupling)

    def products(
        self, dataset: Dataset, batches: int, batch_size: int, seed: int
    ) -> Iterator[dict[str, Array]]:
        """For each batch of training samples, every weight times its gradient of the loss: g·w, under its name."""
        if self.variant.format == "onnx":
            module: Any = as_torch(self.coupling.model)
            stored = {each.name: module.constant(each.name) for each in self.coupling.model.graph.initializer}
            weights = {name: each for name, each in stored.items() if each.requires_grad}
        else:
            module = copy.deepcopy(self.variant.model).eval()
            parameters = {name: each for name, each in module.named_parameters() if each.is_floating_point()}
            weights = {name: each.requires_grad_() for name, each in parameters.items()}  # frozen ones too
        train, patience = dataset.split("train"), Patience()
        order = np.random.default_rng(seed).permutation(len(train))[: batches * batch_size]
        for start in range(0, len(order), batch_size):
            batch = train.take(order[start : start + batch_size])
            feeds = self.variant.feeds(batch.inputs)
            with patience.shared():
                inputs = tuple(torch.from_numpy(feeds[spec.name]) for spec in self.variant.inputs)
                with in_words(module, inputs):
                    loss = dataset.task.loss(scored(module(*inputs)), torch.from_numpy(batch.target))
                gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
            yield {
                name: (gradient * weight).detach().numpy()
                for (name, weight), gradient in zip(weights.items(), gradients, strict=True)
                if gradient is not None
            }

    def _check(self, narrow: Variant, whole: Variant, exactly: bool) -> None:
        found, expected = (_answers(variant) for variant in (narrow, whole))
        for name, array in expected.items():
            if np.allclose(found[name], array, _TOLERANCE, _TOLERANCE * float(np.abs(array).max())):
                continue
            if exactly:
                raise Differs(
                    f"a unit of {self.variant.name!r} that was to count for nothing counts: the output {name!r} is "
                    "another without it"
                )
            is_file = whole.format == "onnx"
            raise (Misread if is_file else TechniqueError)(
                f"{self.variant.name!r} without the chosen channels does not compute what it does with them at "
                f"zero: its output {name!r} differs: {_MISREAD if is_file else _NO_CODE}"
            )


def read_structure(variant: Variant) -> Structure:
    """Find what hangs together in a PyTorch or ONNX variant.

    Raises TechniqueError if it cannot be traced or run, answers with no numbers, or no channel of it can go: then it
    says why not.
    """
    is_file = variant.format == "onnx"
    coupling = find_coupling(open_graph(variant.payload) if is_file else trace(variant))
    for name, array in _answers(variant).items():
        if not np.isfinite(array).all():  # nothing that is compared with it would ever be the same
            raise TechniqueError(
                f"the output {name!r} of {variant.name!r} holds NaN or infinity: train it again"
            )
    coupling = coupling if is_file else fitting(variant, coupling)
    _refuse_without_groups(variant, coupling)
    return Structure(variant, coupling)


def _refuse_without_groups(variant: Variant, coupling: Coupling) -> None:
    if coupling.groups:
        return
    reasons = "; ".join(f"{name} because {why}" for name, why in list(coupling.whole.items())[:_MOST_REASONS])
    reasons = reasons or in_control_flow(coupling.model.graph)
    raise TechniqueError(
        f"no channel of {variant.name!r} can be removed: "
        + (f"kept whole are {reasons}" if reasons else "it has no layer with stored weights")
    )


def _as_onnx(variant: Variant, model: onnx.ModelProto) -> Variant:
    return dataclasses.replace(variant, format="onnx", model=model.SerializeToString())


def _answers(variant: Variant) -> Mapping[str, Array]:
    with reference_runtime(variant).load(variant) as session:
        return session.run(probe(variant))


def _rebuilt(module: torch.nn.Module) -> torch.nn.Module:
    """The module as its architecture builds it with these widths, if it can."""
    config = getattr(module, "config", None)
    if config is None:
        return module
    shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    fitted = refit(build, config, shapes)
    if fitted is None:
        del module.config
        return module
    rebuilt = build(fitted)
    rebuilt.load_state_dict(module.state_dict())
    return rebuilt.eval()
