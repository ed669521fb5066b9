"""`labkit inspect FILE`: what a model file holds and costs, without running it; a shipped network is found by name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from labkit.cli.options import Json
from labkit.cli.terminal import print_json


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""

    @app.command()
    def inspect(
        file: Annotated[
            str,
            typer.Argument(
                help=".onnx, .pt2, .tflite, .xml (OpenVINO), .keras, .safetensors, .lkz, a model's folder, "
                "or a name in the zoo."
            ),
        ],
        every: Annotated[
            bool, typer.Option("--all", help="Show every layer, not the 40 most expensive.")
        ] = False,
        sizes: Annotated[
            list[str], typer.Option("--size", help="Bind a dynamic dimension, NAME=N; repeatable.")
        ] = [],  # noqa: B006 - typer reads the default
        verify_data: Annotated[
            bool, typer.Option("--verify-data", help="Verify the checksums of external files of any size.")
        ] = False,
        draw: Annotated[Path | None, typer.Option(help="Draw the graph into this SVG file.")] = None,
        json: Json = False,
    ) -> None:
        """Say what a model file holds: operators, shapes, parameters and multiply-adds of each layer.

        Of coded weights (.lkz): where every byte went, and its bound.
        """
        path = _place(file)
        if path.lower().endswith(".lkz"):
            from labkit.encode import anatomy
            from labkit.errors import ConfigError

            if every or sizes or verify_data or draw is not None:
                raise ConfigError(
                    f"{file} holds coded weights and no graph: leave out all options but --json"
                )
            parts = anatomy(path)
            print_json(parts.to_json()) if json else print(parts.table())
            return
        from labkit.inspection import inspect_file, layer_table, summary
        from labkit.inspection.table import MOST_LAYERS

        found = inspect_file(path, _sizes(sizes), verify_data)
        if draw is not None:
            from labkit.files import write_atomically
            from labkit.inspection import draw_graph

            write_atomically(draw, draw_graph(found).encode())
        if json:
            print_json(found.to_json())
            return
        print(summary(found), layer_table(found, None if every else MOST_LAYERS), sep="\n\n")


def _place(file: str) -> str:
    """The path itself where something lies there; else that of the shipped network of this name.

    ConfigError for what can only be a name, and is none that is known; any other path stays, for its reader to refuse.
    """
    if os.path.exists(file):  # unlike Path's, it takes any text
        return file
    from labkit.errors import ConfigError, nearest
    from labkit.zoo import CODED, FOLDER, names

    if file in names():
        coded = FOLDER / file / CODED
        return str(coded if coded.exists() else FOLDER / file)
    if not file or Path(file).name != file or Path(file).suffix:
        return file
    raise ConfigError(
        f"unknown model {file!r}; {nearest(file, names())}; or give a saved variant or a model's file"
    )


def _sizes(settings: list[str]) -> dict[str, int]:
    """`["time=128"]` → {"time": 128}; ConfigError for anything else."""
    from labkit.errors import ConfigError

    sizes = {}
    for setting in settings:
        name, _, text = setting.rpartition("=")
        if not name or not text.isdecimal():
            raise ConfigError(f"--size {setting!r} must have the form NAME=N, such as --size time=128")
        sizes[name] = int(text)
    return sizes
