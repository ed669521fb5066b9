"""Options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from labkit.cli.terminal import say
from labkit.files import check_writable

if TYPE_CHECKING:
    from labkit.data import Dataset
    from labkit.variant import Variant


def folder_option(help: str, name: str = "--out") -> Any:
    """A folder to write to, refused at once if nothing could be written there at the end."""

    def check(folder: Path | None) -> Path | None:
        if folder is not None:
            check_writable(folder)
        return folder

    return typer.Option(name, help=help, callback=check)


DATASET = (
    "digits, fashion-mnist, mnist, an .npz, or a folder; a model of the kit knows its own, and so does a folder with "
    "what was made of one."
)
Model = Annotated[
    str,
    typer.Argument(help="A name in the zoo, a saved variant's folder, or a model's file (.onnx, .pt2, …)."),
]
Settings = Annotated[
    list[str], typer.Option("--set", help="A field, FIELD=VALUE; repeatable. `labkit methods` lists them.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else.")]
DataOption = Annotated[
    str, typer.Option("--dataset", help="digits, fashion-mnist, mnist, an .npz, or a folder.")
]
Scale = Annotated[float | None, typer.Option(help="Stored samples are multiplied by it; bytes by 1/255.")]
Mean = Annotated[
    str, typer.Option(help="Subtracted then: one number, or one per channel, as 0.49,0.48,0.45.")
]
Std = Annotated[str, typer.Option(help="Divided by then: one number, or one per channel.")]
Seed = Annotated[int, typer.Option(help="All randomness follows from it.", min=0, max=2**31 - 1)]
Out = Annotated[Path, folder_option("The folder to write the variant to.")]
Prepared = tuple[float | None, tuple[float, ...], tuple[float, ...]]
"""Scale, mean and std, as a person gave them."""
NOT_SAID: Prepared = (None, (), ())


def data_of(model: str, dataset: str | None) -> str | None:
    """The dataset to use: what was asked for, else that of a model of the kit or of what it became, else None."""
    from labkit.zoo import trained_on

    return dataset or trained_on(model)


def check_source_stays(model: str, out: Path) -> None:
    """Raise ConfigError if the result would be written over the model that it is made of: it may be the only copy."""
    from labkit.errors import ConfigError

    if os.path.exists(model) and os.path.exists(out) and os.path.samefile(model, out):
        raise ConfigError(f"{out} is the model itself, and would be lost: give another name")


def opened(
    name: str, out: Path, dataset: str | None, how: Prepared, needs: str, makes: Callable[[str], str]
) -> tuple[Variant, Dataset | None]:
    """The model and the data of a command that changes it, as they fit together.

    What can be refused is refused now: a place that cannot be written, or is the model's own; a dataset that is
    lacking, where `needs` names what cannot do without; an ending that is not of the format that `makes` says comes
    of the model's.
    """
    from labkit.convert import check_out
    from labkit.data import load_dataset
    from labkit.errors import ConfigError
    from labkit.zoo import load_model

    check_source_stays(name, out)
    dataset = data_of(name, dataset)
    if dataset is None and needs:
        raise ConfigError(
            f"{needs} needs samples, and {name} does not say of which data: pass --dataset digits, fashion-mnist, "
            "mnist, an .npz, or a folder"
        )
    model = load_model(name)
    check_out(makes(model.format), out)
    data = load_dataset(dataset) if dataset else None
    return fitted(model, data, how), data


def prepared(scale: float | None, mean: str, std: str) -> Prepared:
    """What `--scale 0.1 --mean 0.49,0.48,0.45 --std 0.2` say; ConfigError for what are no numbers."""
    return scale, _numbers("--mean", mean), _numbers("--std", std)


def fitted(model: Variant, data: Dataset | None, how: Prepared) -> Variant:
    """The model as it is shown this data (`labkit.strategy.fit_to`); what had to be assumed is said.

    Without data it stays as it is; then ConfigError for a preprocessing that was given.
    """
    from labkit.errors import ConfigError
    from labkit.strategy import assumed, fit_to

    if data is None:
        if how != NOT_SAID:
            raise ConfigError(
                "--scale, --mean and --std say how samples are prepared: give them with --dataset"
            )
        return model
    found = fit_to(model, data, *how)
    if how == NOT_SAID and (assumption := assumed(model, found, data)):
        say(assumption)
    if len(found.outputs) > 1:
        judged, *others = (repr(spec.name) for spec in found.outputs)
        say(
            f"{found.name} has several outputs: {judged}, the first, is judged and trained, and nobody watches "
            f"{', '.join(others)}"
        )
    return found


def _numbers(option: str, text: str) -> tuple[float, ...]:
    """The numbers of `--mean 0.49,0.48,0.45`; ConfigError for anything else."""
    from labkit.errors import ConfigError

    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise ConfigError(
            f"{option} {text!r}: give numbers with commas between them, such as 0.49,0.48,0.45"
        ) from None
