"""Commands for lessons: lab, course build, course grade."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from labkit.cli.options import Json
from labkit.cli.terminal import print_json, say


def register(app: typer.Typer) -> None:
    """Add `lab` and the `course` group to `app`."""
    group = typer.Typer(help="The lessons: build, grade.", no_args_is_help=True, rich_markup_mode=None)
    app.add_typer(group, name="course")

    @app.command()
    def lab(
        folder: Annotated[Path, typer.Argument(help="Where the notebooks are.")] = Path("notebooks"),
        port: Annotated[int, typer.Option(help="The port to serve on.", min=1, max=65535)] = 8888,
        browser: Annotated[bool, typer.Option(help="Open a browser.")] = True,
    ) -> None:
        """Open JupyterLab on the lessons."""
        import os
        import subprocess
        import sys

        from labkit.errors import ConfigError

        if not os.path.isdir(folder):
            raise ConfigError(
                f"there is no folder {folder}: run this in labkit's checkout, or name your own folder"
            )
        command = [sys.executable, "-m", "jupyterlab", f"--notebook-dir={folder}", f"--port={port}"]
        raise typer.Exit(subprocess.call(command + ([] if browser else ["--no-browser"])))

    @group.command()
    def build(
        source: Annotated[Path, typer.Option(help="The folder with the sources (percent format).")] = Path(
            "notebooks/src"
        ),
        out: Annotated[Path, typer.Option(help="The folder for the notebooks.")] = Path("notebooks"),
        execute: Annotated[bool, typer.Option(help="Run each lesson and keep its outputs.")] = True,
        check: Annotated[bool, typer.Option(help="Write nothing; fail if anything is out of date.")] = False,
    ) -> None:
        """Generate lessons, exercises and solutions from their sources."""
        from labkit.teach import build as run

        for path in run(source, out, execute=execute, check=check):
            say(f"wrote {path}")

    @group.command()
    def grade(
        submission: Annotated[Path, typer.Argument(help="A student's notebook.")],
        pristine: Annotated[Path, typer.Option(help="The solution or exercise notebook that it came from.")],
        json: Json = False,
    ) -> None:
        """Put a student's answers into a pristine notebook, run it in a fresh process, and count."""
        from labkit.teach import grade as run

        result = run(submission, pristine)
        if json:
            checks = {name: dataclasses.asdict(each) for name, each in result.results.items()}
            print_json({"score_pct": result.score_pct, "checks": checks, "note": result.note})
        else:
            print(
                f"{submission.name}: {result.score_pct:.0f} %" + (f" ({result.note})" if result.note else "")
            )
