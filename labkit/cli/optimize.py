"""The main job: demo and optimize."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from labkit.cli.options import (
    NOT_SAID,
    DataOption,
    Json,
    Mean,
    Prepared,
    Scale,
    Seed,
    Std,
    fitted,
    folder_option,
    prepared,
)
from labkit.cli.terminal import print_json, progress_line, say

if TYPE_CHECKING:
    from labkit.strategy import Outcome, Requirement


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""

    @app.command()
    def demo(
        dataset: Annotated[str, typer.Option(help="digits or fashion-mnist.")] = "digits",
        out: Annotated[Path, folder_option("The folder to write the report and the package to.")] = Path(
            "results/demo"
        ),
        seed: Seed = 0,
        json: Json = False,
    ) -> None:
        """Watch a real model become smaller and faster on this machine, and read why one variant is chosen."""
        from labkit.errors import ConfigError
        from labkit.strategy import load_requirement
        from labkit.zoo import names

        name = f"resnet20@{dataset}"
        if name not in names():
            raise ConfigError(
                f"--dataset {dataset!r}: the demo knows digits and fashion-mnist; for your own data, "
                "labkit optimize MODEL --dataset DATA --requirement classroom --out FOLDER"
            )
        _optimize(name, dataset, load_requirement("classroom"), out, 90.0, seed, json)

    @app.command()
    def optimize(
        model: Annotated[
            str, typer.Argument(help="A name in the zoo, a saved variant's folder, or an .onnx file.")
        ],
        requirement: Annotated[str, typer.Option(help="A sheet's name (classroom, edge) or your own .toml.")],
        out: Annotated[Path, folder_option("The folder to write the report and the package to.")],
        dataset: DataOption = "digits",
        training_seconds: Annotated[
            float,
            typer.Option(
                help="Train here only what fits this time; else from the zoo, or not at all.", min=0
            ),
        ] = 90.0,
        scale: Scale = None,
        mean: Mean = "",
        std: Std = "",
        seed: Seed = 0,
        json: Json = False,
    ) -> None:
        """Find, prove and package the best way to run MODEL under a requirement."""
        from labkit.strategy import load_requirement

        how = prepared(scale, mean, std)
        _optimize(model, dataset, load_requirement(requirement), out, training_seconds, seed, json, how)


def _optimize(
    model: str,
    dataset: str,
    requirement: Requirement,
    out: Path,
    training_seconds: float,
    seed: int,
    json: bool,
    how: Prepared = NOT_SAID,
) -> None:
    from labkit.data import load_dataset
    from labkit.errors import LabkitError
    from labkit.workflow import optimize
    from labkit.zoo import load_model

    data = load_dataset(dataset)
    outcome = optimize(
        fitted(load_model(model), data, how),
        data,
        requirement,
        out,
        training_seconds=training_seconds,
        narrate=say,
        progress=progress_line(),
        seed=seed,
    )
    if json:
        print_json(outcome.to_json())
    else:
        _tell(outcome, out)
    if outcome.decision.chosen is None:
        raise LabkitError(f"{outcome.decision.advice}; the report is in {out / 'index.html'}")
    if outcome.confirmation is not None and outcome.confirmation.status == "broken":
        raise LabkitError(
            f"the choice is not confirmed, so it was not packaged: {outcome.confirmation.reason}; bring more "
            f"validation samples, or a stricter limit; the report is in {out / 'index.html'}"
        )


def _tell(outcome: Outcome, out: Path) -> None:
    """The table, the choice and its reasons, for a person."""
    from labkit.report import confirmation_in_words

    print(outcome.finals.table())
    decision = outcome.decision
    if decision.chosen is None:
        return
    print(f"\nRun {decision.chosen.key}; {decision.advice}.")
    if outcome.confirmation is not None:
        status, reason = outcome.confirmation.status.capitalize(), outcome.confirmation.reason
        print(f"{status}: {reason}; {confirmation_in_words(outcome.confirmation)}.")
    if outcome.pool is not None:
        low, high = outcome.pool.speedup_ci95
        print(f"Two workers give {outcome.pool.speedup:.2f}× [{low:.2f}, {high:.2f}] the throughput of one.")
    for rejection in decision.rejected[:8]:
        print(f"  not {rejection.key}: {rejection.reason}")
    if len(decision.rejected) > 8:
        print(f"  … and {len(decision.rejected) - 8} more, each with its reason, in the report")
    print(f"\nReport: {out / 'index.html'}")
    if outcome.package:
        python = Path(os.path.relpath(sys.executable))
        python = Path(sys.executable) if ".." in python.parts else python
        print(
            f"Package: {outcome.package} ({python} {outcome.package / 'run.py'} runs it, and labkit is not needed)"
        )
