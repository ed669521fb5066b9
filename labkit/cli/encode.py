"""Commands that end in a file to weigh: encode, and apply, which runs a recipe of several steps."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from labkit.cli.options import (
    DATASET,
    Json,
    Mean,
    Model,
    Prepared,
    Scale,
    Settings,
    Std,
    folder_option,
    opened,
    prepared,
)
from labkit.cli.telling import Account, save, tell
from labkit.cli.terminal import parse_settings, print_json, progress_line
from labkit.methods import METHODS

if TYPE_CHECKING:
    from labkit.technique import Technique

_OUT = "A file.lkz of coded weights; or a folder for the variant with all that is known of it."
_ENCODE = (
    "Write a model as a file of coded weights. It is smallest for one that was pruned and clustered. Methods, to be "
    f"applied first: {', '.join(METHODS['encode'])}."
)


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""

    @app.command(help=_ENCODE)
    def encode(
        variant: Model,
        out: Annotated[Path, typer.Option(help=_OUT)],
        method: Annotated[str, typer.Option(help="What to apply first; nothing by default.")] = "",
        dataset: Annotated[str | None, typer.Option(help=DATASET)] = None,
        settings: Settings = [],  # noqa: B006 - typer reads the default
        show: Annotated[
            bool, typer.Option("--show", help="Show where every byte went, and what other compressors take.")
        ] = False,
        scale: Scale = None,
        mean: Mean = "",
        std: Std = "",
        json: Json = False,
    ) -> None:
        from labkit.errors import ConfigError, nearest
        from labkit.pipeline import make_technique

        if method and method not in METHODS["encode"]:
            raise ConfigError(f"unknown method {method!r} for encode; {nearest(method, METHODS['encode'])}")
        if not method and (settings or out.suffix.lower() != ".lkz"):
            raise ConfigError(
                f"without --method, encode only writes coded weights: end {out} in .lkz, and leave out --set"
            )
        technique = make_technique(METHODS["encode"][method], parse_settings(settings)) if method else None
        _run(variant, technique, out, dataset, show, json, prepared(scale, mean, std))

    @app.command()
    def apply(
        variant: Model,
        recipe: Annotated[
            Path, typer.Option(help="A TOML file: for each step [[step]], technique = …, its fields.")
        ],
        out: Annotated[Path, typer.Option(help="A folder, a file.lkz, or a file of the last step's format.")],
        dataset: Annotated[str | None, typer.Option(help=DATASET)] = None,
        checkpoint: Annotated[
            Path | None,
            folder_option("Keep what each step made here; a later call goes on behind it.", "--checkpoint"),
        ] = None,
        scale: Scale = None,
        mean: Mean = "",
        std: Std = "",
        json: Json = False,
    ) -> None:
        """Run a recipe of several steps, such as prune, fine-tune, cluster: one file, one command."""
        from labkit.pipeline import Pipeline

        pipeline = dataclasses.replace(Pipeline.load(recipe), checkpoint=checkpoint)
        _run(variant, pipeline, out, dataset, False, json, prepared(scale, mean, std))


def _run(
    name: str,
    technique: Technique | None,
    out: Path,
    dataset: str | None,
    show: bool,
    json: bool,
    how: Prepared,
) -> None:
    from labkit.pipeline import Pipeline

    recipe = technique if isinstance(technique, Pipeline) else None
    asking = "the recipe" if recipe else technique.name if technique else ""
    needs = asking if technique and technique.needs_dataset else ""
    model, data = opened(name, out, dataset, how, needs, recipe.makes if recipe else str)
    made = model if technique is None else technique(model, data, progress_line())
    before = model if made is not model else None
    made, saved = save(made, out, data)
    if out.suffix.lower() != ".lkz":
        tell(made, out, saved, data, json, before)
        return
    _tell_coded(made, out, saved, Account.of(made, out.stat().st_size, data, before), show, json)


def _tell_coded(made: Any, out: Path, saved: str, account: Account, show: bool, json: bool) -> None:
    """Say how small it became and, if asked, why."""
    from labkit.encode import anatomy
    from labkit.encode.baselines import baselines

    found = anatomy(out)
    others = baselines(made) if show or json else ()
    facts: dict[str, Any] = {"name": made.name, "out": str(out), **found.to_json()}
    facts["baselines"] = {each.name: each.bytes for each in others}
    if json:
        print_json({**facts, **account.facts})
        return
    print(
        f"{made.name}: {found.size_bytes:,} bytes, {found.ratio:.1f}× smaller than the {found.decoded_bytes:,} "
        f"bytes of weights that it decodes to; {account.quality}; {saved}"
    )
    account.print_lines()
    if show:
        print(f"\n{found.table()}\n\nThe same weights in other hands, in bytes and beside ours:")
        for each in others:
            size = (
                f"{each.bytes:>11,} {each.bytes / found.size_bytes:>8.2f}×"
                if each.bytes
                else f"{'':>11} {each.note}"
            )
            print(f"{each.name:<20} {size}")
