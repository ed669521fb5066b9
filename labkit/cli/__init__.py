"""The command line: thin faces over the calls that a notebook makes.

`--json` prints one JSON document on stdout and nothing else; progress and words go to stderr. Exit status: 0 done,
1 a LabkitError (one line), 2 wrong usage, 130 after Ctrl-C. `--debug` shows the traceback.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

import labkit.cli.course as course
import labkit.cli.data as data
import labkit.cli.experiment as experiment
import labkit.cli.model as model
import labkit.cli.optimize as optimize
from labkit import __version__
from labkit.errors import LabkitError

app = typer.Typer(
    name="labkit",
    help="Find, prove and package the best way to run a trained model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
model.register(app)
optimize.register(app)
experiment.register(app)
course.register(app)
data.register(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"labkit {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Find, prove and package the best way to run a trained model."""


def main() -> None:
    """Run the command line and exit with an honest status."""
    # Argument errors are typer's and exit with 2; everything that labkit itself refuses exits with 1.
    try:
        app()
    except LabkitError as error:
        if "--debug" in sys.argv:
            raise
        print(f"labkit: {error}", file=sys.stderr)
        sys.exit(1)
    except (KeyboardInterrupt, SystemExit) as end:
        if isinstance(end, SystemExit) and end.code != 130:
            raise
        print("\nlabkit: stopped", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # The reader (`| head`) has gone; point stdout elsewhere so that the interpreter can close it quietly.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
