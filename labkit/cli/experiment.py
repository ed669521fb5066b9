"""Commands that measure and decide: doctor, demo, optimize, measure, compare, choose, report, sweep."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from labkit.cli.terminal import print_json, progress_line, say

if TYPE_CHECKING:
    from labkit.data import Dataset
    from labkit.strategy import Outcome, Requirement
    from labkit.variant import Variant

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else.")]
DataOption = Annotated[
    str, typer.Option("--dataset", help="digits, fashion-mnist, mnist, an .npz, or a folder.")
]
StudyFolder = Annotated[Path, typer.Argument(metavar="STUDY", help="A folder with records.jsonl.")]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""

    @app.command()
    def doctor(json: Json = False) -> None:
        """Say what this machine has, what is missing, and the line that installs it."""
        from labkit.doctor import diagnose

        diagnosis = diagnose()
        print_json(diagnosis.to_json()) if json else print(diagnosis.text())
        if not diagnosis.ok:
            raise typer.Exit(1)

    @app.command()
    def demo(
        dataset: DataOption = "digits",
        out: Annotated[Path, typer.Option(help="The folder to write the report and the package to.")] = Path(
            "results/demo"
        ),
        seed: Annotated[int, typer.Option(help="All randomness follows from it.")] = 0,
        json: Json = False,
    ) -> None:
        """Watch a real model become smaller and faster on this machine, and read why one variant is chosen."""
        from labkit.strategy import load_requirement

        name = f"resnet20@{Path(dataset).stem}"
        _optimize(name, dataset, load_requirement("classroom"), out, 90.0, seed, json)

    @app.command()
    def optimize(
        model: Annotated[
            str, typer.Argument(help="A name in the zoo, a saved variant's folder, or an .onnx file.")
        ],
        requirement: Annotated[str, typer.Option(help="A sheet's name (classroom, edge) or your own .toml.")],
        out: Annotated[Path, typer.Option(help="The folder to write the report and the package to.")],
        dataset: DataOption = "digits",
        training_seconds: Annotated[
            float,
            typer.Option(
                help="Train here only what fits this time; else from the zoo, or not at all.", min=0
            ),
        ] = 90.0,
        seed: Annotated[int, typer.Option(help="All randomness follows from it.")] = 0,
        json: Json = False,
    ) -> None:
        """Find, prove and package the best way to run MODEL under a requirement."""
        from labkit.strategy import load_requirement

        _optimize(model, dataset, load_requirement(requirement), out, training_seconds, seed, json)

    @app.command()
    def measure(
        variants: Annotated[
            list[str], typer.Argument(metavar="VARIANT...", help="Zoo names, folders, .onnx files.")
        ],
        runtime: Annotated[
            list[str], typer.Option(help="Repeatable; all that fit and are installed by default.")
        ] = [],  # noqa: B006
        dataset: DataOption = "digits",
        batch_size: Annotated[int, typer.Option(help="Samples per run.")] = 1,
        threads: Annotated[int, typer.Option(help="Intra-op threads.")] = 1,
        split: Annotated[str, typer.Option(help="train, calibration, validation or test.")] = "validation",
        out: Annotated[Path | None, typer.Option(help="Add the records to this study.")] = None,
        json: Json = False,
    ) -> None:
        """Measure variants side by side; the first, on its first runtime, is the baseline."""
        from labkit.data import load_dataset
        from labkit.measure import compare
        from labkit.measure import measure as run
        from labkit.strategy import grid
        from labkit.study import Study
        from labkit.workflow import fit_to
        from labkit.zoo import load_model

        data = load_dataset(dataset)
        names = _runtimes(runtime)
        models = [fit_to(load_model(variant), data) for variant in variants]
        candidates = grid(models, names, [batch_size], [threads])
        if not candidates:
            _refuse_no_candidates(models, names)
        study = Study(out) if out else None
        records = run(candidates[1:], data, against=candidates[0], split=split, progress=progress_line())
        if study:
            study.append_run(records)
        print_json([record.to_json() for record in records.measurements]) if json else print(
            compare(records).table()
        )

    @app.command()
    def compare(study: StudyFolder, json: Json = False) -> None:
        """Compare the records of a study's last run: ratios, paired drops, verdicts."""
        comparison = _last_comparison(study)
        print_json(comparison.to_rows()) if json else print(comparison.table())

    @app.command()
    def choose(
        requirement: Annotated[str, typer.Option(help="A sheet's name (classroom, edge) or your own .toml.")],
        study: Annotated[Path, typer.Option(help="A folder with records.jsonl.")],
        json: Json = False,
    ) -> None:
        """Choose among a study's measured candidates, with a reason for every rejection."""
        from labkit.errors import LabkitError
        from labkit.strategy import choose as decide
        from labkit.strategy import load_requirement

        decision = decide(_last_comparison(study), load_requirement(requirement))
        if json:
            print_json(decision.to_json())
        if decision.chosen is None:
            raise LabkitError(decision.advice)
        if not json:
            print(f"run {decision.chosen.key}: {decision.advice}")
            for rejection in decision.rejected:
                print(f"  not {rejection.key}: {rejection.reason}")

    @app.command()
    def report(
        study: StudyFolder,
        out: Annotated[Path, typer.Option(help="The folder for records.csv and index.html.")],
    ) -> None:
        """Write a study's records as a table in HTML and CSV."""
        from labkit.files import write_atomically
        from labkit.study import Study

        records = Study(study)
        write_atomically(out / "records.csv", records.to_csv().encode())
        write_atomically(out / "index.html", records.to_html().encode())
        print(f"wrote {out / 'index.html'} and {out / 'records.csv'}")

    @app.command()
    def sweep(
        notebook: Annotated[Path, typer.Argument(help="A notebook with a `parameters` cell.")],
        grid: Annotated[Path, typer.Option(help="A TOML file: [parameters] name = [values…], or [[runs]].")],
        out: Annotated[Path, typer.Option(help="The study's folder.")] = Path("results/sweep"),
        resume: Annotated[bool, typer.Option("--resume", help="Skip the runs that are finished.")] = False,
    ) -> None:
        """Run a notebook once for every combination of parameters, each in a fresh kernel."""
        from labkit.sweep import sweep as run

        result = run(notebook, grid, out, resume=resume, progress=progress_line())
        print(result)
        raise typer.Exit(result.exit_code)


def _optimize(
    model: str,
    dataset: str,
    requirement: Requirement,
    out: Path,
    training_seconds: float,
    seed: int,
    json: bool,
) -> None:
    from labkit.data import load_dataset
    from labkit.errors import LabkitError
    from labkit.workflow import optimize
    from labkit.zoo import load_model

    variant: Variant = load_model(model)
    data: Dataset = load_dataset(dataset)
    outcome = optimize(
        variant,
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


def _tell(outcome: Outcome, out: Path) -> None:
    """The table, the choice and its reasons, for a person."""
    from labkit.report import pair_in_words

    print(outcome.finals.table())
    decision = outcome.decision
    if decision.chosen is None:
        return
    print(f"\nRun {decision.chosen.key}; {decision.advice}.")
    if outcome.confirmation is not None and outcome.confirmation.pairs:
        confirmed = outcome.confirmation.measurements[-1]
        print(
            f"Confirmed once on {confirmed.n_samples:,} test samples: {pair_in_words(outcome.confirmation.pairs[0])}."
        )
    if outcome.pool is not None:
        low, high = outcome.pool.speedup_ci95
        print(f"Two workers give {outcome.pool.speedup:.2f}× [{low:.2f}, {high:.2f}] the throughput of one.")
    for rejection in decision.rejected[:8]:
        print(f"  not {rejection.key}: {rejection.reason}")
    if len(decision.rejected) > 8:
        print(f"  … and {len(decision.rejected) - 8} more, each with its reason, in the report")
    print(f"\nReport: {out / 'index.html'}")
    if outcome.package:
        print(f"Package: {outcome.package} (python {outcome.package / 'run.py'} runs it without labkit)")


def _runtimes(wanted: list[str]) -> list[str]:
    from labkit.runtimes import RUNTIMES, get_runtime

    return [get_runtime(name).name for name in wanted] or [runtime.name for runtime in RUNTIMES]


def _refuse_no_candidates(models: list[Variant], runtimes: list[str]) -> None:
    from labkit.errors import ConfigError

    formats = ", ".join(f"{model.name} is {model.format}" for model in models)
    raise ConfigError(
        f"none of the runtimes {', '.join(runtimes)} is installed and takes these models ({formats})"
    )


def _last_comparison(folder: Path):  # type: ignore[no-untyped-def]
    from labkit.measure import compare
    from labkit.study import Study

    return compare(Study(folder).last_run())
