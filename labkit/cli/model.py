"""Commands that make or change a model: train, quantize, prune, distill."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from labkit.cli.options import (
    DATASET,
    DataOption,
    Json,
    Mean,
    Model,
    Out,
    Scale,
    Settings,
    Std,
    folder_option,
    opened,
    prepared,
)
from labkit.cli.telling import save, tell
from labkit.cli.terminal import parse_settings, progress_line, say
from labkit.methods import METHODS

_HERE = ("quantize", "prune", "distill")
_MAKES = {"quantize": "onnx", "distill": "torch"}
"""Command → the format that comes out; what is not here gives back the format that it is given."""
_OUT = (
    "A folder for the variant with all that is known of it; for what is made in ONNX, a file.onnx alone; for what is "
    "made in PyTorch, a file.lkz of coded weights."
)
_BASELINE = (
    "With a teacher (alpha above 0): train on the labels alone too, and say what the teacher was worth."
)


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""

    @app.command()
    def train(
        architecture: Annotated[
            str,
            typer.Argument(
                metavar="MODEL",
                help="lenet300, lenet5, resnet8, resnet14, resnet16, resnet20, mobilenet, vit or mlp.",
            ),
        ],
        out: Out,
        dataset: DataOption = "digits",
        settings: Settings = [],  # noqa: B006 - typer reads the default
        checkpoint: Annotated[
            Path | None, folder_option("Keep each epoch here; a later call resumes.", "--checkpoint")
        ] = None,
        json: Json = False,
    ) -> None:
        """Train a network from scratch; --set epochs=10 learning_rate=0.05 … changes the recipe."""
        from labkit.convert import check_out
        from labkit.data import load_dataset
        from labkit.train import Train, fit, fresh_variant

        check_out("torch", out)
        data = load_dataset(dataset)
        recipe = _configured(Train, "train", settings)
        start = fresh_variant({"architecture": architecture}, data, recipe.seed)
        module = fit(recipe, start, data, progress_line(), checkpoint=checkpoint)
        made = start.derive(start.name, recipe.step(start), model=module)
        made, saved = save(made, out, data)
        tell(made, out, saved, data, json)

    for command in _HERE:
        _register_technique(app, command, METHODS[command])


def _register_technique(app: typer.Typer, command: str, methods: Mapping[str, str]) -> None:
    words = f"{command.capitalize()} a model into a new variant. Methods: {', '.join(methods)}."

    @app.command(command, help=words)
    def run(
        variant: Model,
        out: Annotated[Path, typer.Option(help=_OUT)],
        method: Annotated[str, typer.Option(help="One of the methods above; the first by default.")] = "",
        dataset: Annotated[str | None, typer.Option(help=DATASET)] = None,
        settings: Settings = [],  # noqa: B006 - typer reads the default
        with_baseline: Annotated[bool, typer.Option("--with-baseline", help=_BASELINE)] = False,
        scale: Scale = None,
        mean: Mean = "",
        std: Std = "",
        json: Json = False,
    ) -> None:
        from labkit.convert import convert
        from labkit.errors import ConfigError, nearest
        from labkit.pipeline import make_technique

        method = method or next(iter(methods))
        if method not in methods:
            raise ConfigError(f"unknown method {method!r} for {command}; {nearest(method, methods)}")
        technique = make_technique(methods[method], parse_settings(settings))
        needs = f"{command} --method {method}" if technique.needs_dataset else ""
        how = prepared(scale, mean, std)
        model, data = opened(variant, out, dataset, how, needs, lambda format_: _MAKES.get(command, format_))
        if technique.takes == ("onnx",) and model.format != "onnx":
            say(f"{model.name} is a {model.format} variant: converting it to ONNX first")
            model = convert(model, "onnx", data).variant
        made, alone = (
            _beside_baseline(technique, model, data)
            if with_baseline
            else (technique(model, data, progress_line()), None)
        )
        made, saved = save(made, out, data)
        tell(made, out, saved, data, json, before=model, alone=alone, technique=technique)


def _beside_baseline(technique: Any, model: Any, data: Any) -> tuple[Any, Any]:
    from labkit.distill import Taught, beside_baseline
    from labkit.errors import ConfigError

    if not isinstance(technique, Taught):
        raise ConfigError(
            f"--with-baseline: {technique.name} has no teacher that could be silent; leave it out"
        )
    return beside_baseline(technique, model, data, progress_line())


def _configured(cls: Any, name: str, settings: list[str]) -> Any:
    from labkit.pipeline import make_technique

    made = make_technique(name, parse_settings(settings))
    assert isinstance(made, cls)  # noqa: S101
    return made
