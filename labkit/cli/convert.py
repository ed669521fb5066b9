"""Commands about formats: convert, formats."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from labkit.cli.options import Json, Mean, Model, Scale, Settings, Std, check_source_stays, fitted, prepared
from labkit.cli.terminal import parse_settings, print_json, progress_line

_TO = "onnx, pt2, openvino, tensorflow, tflite or tensorrt; `labkit formats` shows the paths."
_OUT = "A file with the format's own ending (model.tflite), or a folder for the variant with all that is known of it."


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""

    @app.command()
    def convert(
        source: Model,
        to: Annotated[str, typer.Option(help=_TO)],
        out: Annotated[Path, typer.Option(help=_OUT)],
        dataset: Annotated[
            str | None,
            typer.Option(help="Where the proof takes its samples; the zoo model's own, else random numbers."),
        ] = None,
        settings: Settings = [],  # noqa: B006 - typer reads the default
        patience: Annotated[
            float, typer.Option(help="Multiplies the time and memory for opening a file that you trust.")
        ] = 1.0,
        scale: Scale = None,
        mean: Mean = "",
        std: Std = "",
        json: Json = False,
    ) -> None:
        """Convert a model to another format, and prove after every hop that it is still the same model."""
        from labkit.convert import check_out
        from labkit.convert import convert as run
        from labkit.data import load_dataset
        from labkit.zoo import load_model, names

        check_source_stays(source, out)
        check_out(to, out)
        how, variant = prepared(scale, mean, std), load_model(source, patience)
        dataset = dataset or (source.partition("@")[2].partition("+")[0] if source in names() else None)
        data = load_dataset(dataset) if dataset else None
        done = run(
            fitted(variant, data, how),
            to,
            data,
            progress=progress_line(),
            **parse_settings(settings),
        )
        files = done.save(out)
        if json:
            print_json(
                {
                    "name": done.variant.name,
                    "format": done.variant.format,
                    "path": done.path,
                    "samples": data.name if data else "random",
                    "out": str(out),
                    "files": [str(path) for path in files],
                    "size_bytes": done.variant.size_bytes,
                    "digest": done.variant.digest,
                    "hops": [hop.to_json() for hop in done.hops],
                }
            )
            return
        print(f"{done.variant.name}: {done.path}, compared on {data.name if data else 'random'} samples")
        print(done.table())
        print("\n".join(f"wrote {path}" for path in files))

    @app.command()
    def formats(json: Json = False) -> None:
        """Show the formats, what converts into what here, and the line that installs the rest."""
        from labkit.convert.map import edges, format_map

        if json:
            print_json({"edges": edges()})
            return
        print(format_map())
