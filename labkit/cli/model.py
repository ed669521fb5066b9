"""Commands that make or change a model: train, quantize, prune, distill."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from labkit.cli.options import DataOption, Json, Model, Out, Settings, data_of, folder_option
from labkit.cli.terminal import parse_settings, print_json, progress_line, say
from labkit.methods import METHODS

_HERE = ("quantize", "prune", "distill")
_MAKES = {"quantize": "onnx", "distill": "torch"}
"""Command → the format that comes out; what is not here gives back the format that it is given."""
_OUT = (
    "A folder for the variant with all that is known of it; or, for what is made in ONNX, a file.onnx alone."
)
_BASELINE = "Train it a second time, on the labels alone, and say what the teacher was worth."
_DATASET = "digits, fashion-mnist, mnist, an .npz, or a folder; a model of the kit knows its own."


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
        from labkit.data import load_dataset
        from labkit.train import Train, fit, fresh_variant

        data = load_dataset(dataset)
        recipe = _configured(Train, "train", settings)
        start = fresh_variant({"architecture": architecture}, data, recipe.seed)
        module = fit(recipe, start, data, progress_line(), checkpoint=checkpoint)
        made = start.derive(start.name, recipe.step(start), model=module)
        made.save(out)
        tell(made, out, data, json)

    for command in _HERE:
        _register_technique(app, command, METHODS[command])


def _register_technique(app: typer.Typer, command: str, methods: Mapping[str, str]) -> None:
    words = f"{command.capitalize()} a model into a new variant; --method is one of: {', '.join(methods)}."

    @app.command(command, help=words)
    def run(
        variant: Model,
        out: Annotated[Path, typer.Option(help=_OUT)],
        method: Annotated[str, typer.Option(help="The method; the first one by default.")] = "",
        dataset: Annotated[str | None, typer.Option(help=_DATASET)] = None,
        settings: Settings = [],  # noqa: B006 - typer reads the default
        with_baseline: Annotated[bool, typer.Option("--with-baseline", help=_BASELINE)] = False,
        json: Json = False,
    ) -> None:
        from labkit.convert import check_out, save_as
        from labkit.convert import convert as change_format
        from labkit.data import load_dataset
        from labkit.errors import ConfigError, nearest
        from labkit.pipeline import make_technique
        from labkit.strategy import fit_to
        from labkit.zoo import load_model

        method = method or next(iter(methods))
        if method not in methods:
            raise ConfigError(f"unknown method {method!r} for {command}; {nearest(method, methods)}")
        technique = make_technique(methods[method], parse_settings(settings))
        if command in _MAKES:
            check_out(_MAKES[command], out)
        model = load_model(variant)
        if command not in _MAKES:
            check_out(model.format, out)
        dataset = data_of(variant, dataset)
        if dataset is None and technique.needs_dataset:
            raise ConfigError(
                f"{command} --method {method} needs samples, and {variant} does not say of which data: pass "
                "--dataset digits, fashion-mnist, mnist, an .npz, or a folder"
            )
        data = load_dataset(dataset) if dataset else None
        if data is not None:
            model = fit_to(model, data)
        if technique.takes == ("onnx",) and model.format != "onnx":
            say(f"{model.name} is a {model.format} variant: converting it to ONNX first")
            model = change_format(model, "onnx", data).variant
        made, alone = (
            _beside_baseline(technique, model, data)
            if with_baseline
            else (technique(model, data, progress_line()), None)
        )
        made = savable(made, out, data)
        save_as(made, out)
        tell(made, out, data, json, alone)


def savable(made: Any, out: Path, data: Any) -> Any:
    """The variant; in ONNX where a folder could not rebuild it: no config of labkit's architectures has its widths."""
    from labkit.convert import convert

    if made.format != "torch" or hasattr(made.model, "config") or out.suffix.lower() == ".lkz":
        return made
    say(f"no config of labkit's architectures has the widths of {made.name}: keeping it as ONNX")
    return convert(made, "onnx", data).variant


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


def tell(variant: Any, out: Path, data: Any, json: bool, alone: Any = None) -> None:
    """Say what was made, and how good it is on the validation split, if there is one; and its baseline, likewise."""
    facts = {
        "name": variant.name,
        "out": str(out),
        "format": variant.format,
        "size_bytes": variant.size_bytes,
        "digest": variant.digest,
        "metric": None,
        "quality": None,
        "quality_ci95": None,
        "n_samples": 0,
    }
    words = "quality not measured: no --dataset"
    if data is not None:
        from labkit.measure.quality import evaluate

        scores = evaluate(variant, data, "validation")
        measured, words = quality_of(data.task, scores)
        facts |= measured | {"n_samples": len(scores)}
        words += f" on {len(scores)} validation samples"
        if alone is not None:
            baseline = evaluate(alone, data, "validation")
            paired = data.task.compare(baseline, scores)
            facts["baseline"], told = quality_of(data.task, baseline)
            facts["difference"], *facts["difference_ci95"] = map(
                _json_number, (paired.difference, *paired.ci95)
            )
            words += (
                f"; on the labels alone it has {told}, difference {paired.difference:+.4f} "
                f"[{paired.ci95[0]:+.4f}, {paired.ci95[1]:+.4f}]: {paired.verdict}"
            )
    if json:
        print_json(facts)
    else:
        print(f"{variant.name}: {variant.size_bytes:,} bytes, {words}; saved in {out}")


def quality_of(task: Any, scores: Any) -> tuple[dict[str, Any], str]:
    """The quality with its interval, as facts for JSON and in words."""
    (low, high), quality = task.interval(scores), task.quality(scores)
    quality_json, *ci95 = map(_json_number, (quality, low, high))
    facts = {"metric": task.metric, "quality": quality_json, "quality_ci95": ci95}
    return facts, f"{task.metric} {quality:.4f} [{low:.4f}, {high:.4f}]"


def _json_number(value: float) -> float | None:
    """The number, or None where JSON has none such: an interval of few samples is infinite."""
    return value if math.isfinite(value) else None
