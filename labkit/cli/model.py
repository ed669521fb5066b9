"""Commands that make or change a model: train, quantize, prune, distill."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from labkit.cli.options import DataOption, Json, Model, Out, Settings, folder_option
from labkit.cli.terminal import parse_settings, print_json, progress_line, say

_METHODS = {
    "quantize": {"int8": "quantize_int8"},
    "prune": {"magnitude": "prune_magnitude", "channels": "prune_channels"},
    "distill": {"soft_targets": "distill"},
}


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""

    @app.command()
    def train(
        architecture: Annotated[
            str, typer.Argument(metavar="MODEL", help="lenet5, resnet8, resnet20, mobilenet or vit.")
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
        from labkit.data import load_dataset
        from labkit.train import Train, fit, fresh_variant

        data = load_dataset(dataset)
        recipe = _configured(Train, "train", settings)
        start = fresh_variant({"architecture": architecture}, data, recipe.seed)
        module = fit(recipe, start, data, progress_line(), checkpoint=checkpoint)
        _finish(start.derive(start.name, recipe.step(start), model=module), out, data, json)

    for command, methods in _METHODS.items():
        _register_technique(app, command, methods)


def _register_technique(app: typer.Typer, command: str, methods: dict[str, str]) -> None:
    words = f"{command.capitalize()} a model into a new variant; --method is one of: {', '.join(methods)}."

    @app.command(command, help=words)
    def run(
        variant: Model,
        out: Out,
        method: Annotated[str, typer.Option(help="The method; the first one by default.")] = "",
        dataset: DataOption = "digits",
        settings: Settings = [],  # noqa: B006 - typer reads the default
        json: Json = False,
    ) -> None:
        from labkit.convert import ExportOnnx
        from labkit.data import load_dataset
        from labkit.errors import ConfigError, nearest
        from labkit.pipeline import make_technique
        from labkit.strategy import fit_to
        from labkit.zoo import load_model

        if method and method not in methods:
            raise ConfigError(f"unknown method {method!r} for {command}; {nearest(method, methods)}")
        technique = make_technique(methods[method or next(iter(methods))], parse_settings(settings))
        data = load_dataset(dataset)
        model = fit_to(load_model(variant), data)
        if technique.takes == ("onnx",) and model.format == "torch":
            say(f"{model.name} is a PyTorch variant: exporting it to ONNX first")
            model = ExportOnnx()(model, data)
        _finish(technique(model, data, progress_line()), out, data, json)


def _configured(cls: Any, name: str, settings: list[str]) -> Any:
    from labkit.pipeline import make_technique

    made = make_technique(name, parse_settings(settings))
    assert isinstance(made, cls)  # noqa: S101
    return made


def _finish(variant: Any, out: Path, data: Any, json: bool) -> None:
    """Save the variant and say how good it is on the validation split."""
    from labkit.measure.quality import evaluate

    scores = evaluate(variant, data, "validation")
    variant.save(out)
    low, high = data.task.interval(scores)
    if json:
        print_json(
            {
                "name": variant.name,
                "folder": str(out),
                "format": variant.format,
                "size_bytes": variant.size_bytes,
                "digest": variant.digest,
                "metric": data.task.metric,
                "quality": data.task.quality(scores),
                "quality_ci95": [low, high],
                "n_samples": len(scores),
            }
        )
        return
    print(
        f"{variant.name}: {variant.size_bytes:,} bytes, {data.task.metric} {data.task.quality(scores):.4f} "
        f"[{low:.4f}, {high:.4f}] on {len(scores)} validation samples; saved in {out}"
    )
