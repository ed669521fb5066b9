"""The command line: thin faces over the calls that a notebook makes.

`--json` prints one JSON document on stdout and nothing else; progress and words go to stderr. Exit status: 0 done,
1 a LabkitError or too little memory (one line), 2 wrong usage, 130 after Ctrl-C, 143 and 129 after SIGTERM and SIGHUP,
which end the command in the same order. `--debug` shows the traceback.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from typing import Annotated, NoReturn

import typer

import labkit.cli.convert as convert
import labkit.cli.course as course
import labkit.cli.data as data
import labkit.cli.encode as encode
import labkit.cli.experiment as experiment
import labkit.cli.explain as explain
import labkit.cli.inspect as inspect
import labkit.cli.methods as methods
import labkit.cli.model as model
import labkit.cli.optimize as optimize
from labkit import __version__
from labkit.errors import LabkitError
from labkit.files import why

_ENDS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]

app = typer.Typer(
    name="labkit",
    help="Find, prove and package the best way to run a trained model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
model.register(app)
convert.register(app)
encode.register(app)
methods.register(app)
inspect.register(app)
optimize.register(app)
experiment.register(app)
explain.register(app)
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
    _prepare_streams()
    for number in _ENDS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup means it
            signal.signal(number, _end)
    try:
        try:
            app()
        finally:
            sys.stdout.flush()  # here, where a full disk can still be told
    except LabkitError as error:
        if "--debug" in sys.argv:
            raise
        print(f"labkit: {error}", file=sys.stderr)
        sys.exit(1)
    except (MemoryError, RuntimeError) as error:  # RuntimeError: PyTorch's
        if "--debug" in sys.argv or not (isinstance(error, MemoryError) or "allocate memory" in str(error)):
            raise
        print(
            "labkit: there is not enough memory: try a smaller batch_size, or a smaller model",
            file=sys.stderr,
        )
        sys.exit(1)
    except (KeyboardInterrupt, SystemExit) as end:
        status = end.code if isinstance(end, SystemExit) else 130
        if status not in (130, *(128 + number for number in _ENDS)):
            raise
        kept = "; the same command goes on with what it kept" if "--checkpoint" in sys.argv else ""
        print(f"\nlabkit: stopped{kept}", file=sys.stderr)
        sys.exit(status)
    except OSError as error:
        if "--debug" in sys.argv:
            raise
        # Point stdout elsewhere, so that the interpreter can close it quietly.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):  # the reader (`| head`) has gone
            sys.exit(0)
        print(f"labkit: {why(error)}", file=sys.stderr)
        sys.exit(1)


def _prepare_streams() -> None:
    """Give a closed stream a place to go, and let every terminal show what it can."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 - it lives as long as we do
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _end(number: int, frame: object) -> NoReturn:
    """End as Ctrl-C does: whoever started a child or a file puts it away on the way out."""
    for each in _ENDS:  # `timeout` sends it twice
        signal.signal(each, signal.SIG_IGN)
    raise SystemExit(128 + number)
