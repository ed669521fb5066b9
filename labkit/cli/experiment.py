"""Commands that measure and decide: doctor, measure, compare, choose, report, sweep."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from labkit.cli.options import DataOption, Json, Mean, Scale, Seed, Std, fitted, folder_option, prepared
from labkit.cli.terminal import print_json, progress_line, say

if TYPE_CHECKING:
    from labkit.measure import Comparison
    from labkit.variant import Variant

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
    def measure(
        variants: Annotated[
            list[str],
            typer.Argument(
                metavar="VARIANT...",
                help="Names in the zoo, saved variants' folders, coded weights (.lkz), or model files: .onnx, .xml "
                "(OpenVINO), .pt2, .keras, .tflite, a SavedModel's folder.",
            ),
        ],
        runtime: Annotated[
            list[str], typer.Option(help="Repeatable; all that fit and are installed by default.")
        ] = [],  # noqa: B006
        dataset: DataOption = "digits",
        batch_size: Annotated[int, typer.Option(help="Samples per run.")] = 1,
        threads: Annotated[int, typer.Option(help="Intra-op threads.")] = 1,
        split: Annotated[str, typer.Option(help="train, calibration, validation or test.")] = "validation",
        precision: Annotated[
            list[str], typer.Option(help="float32 or bfloat16, of what is not int8; repeatable.")
        ] = ["float32"],  # noqa: B006
        memory: Annotated[
            bool, typer.Option("--memory", help="Also each one's peak memory, in a process of its own.")
        ] = False,
        scale: Scale = None,
        mean: Mean = "",
        std: Std = "",
        seed: Seed = 0,
        out: Annotated[Path | None, folder_option("Add the records to this study.")] = None,
        json: Json = False,
    ) -> None:
        """Measure variants side by side; the first, on its first runtime, is the baseline."""
        from labkit.data import load_dataset
        from labkit.measure import compare
        from labkit.measure import measure as run
        from labkit.strategy import doubt, grid
        from labkit.study import Study

        data = load_dataset(dataset)
        names = _runtimes(runtime)
        how = prepared(scale, mean, std)
        models = [fitted(model, data, how) for model in _distinct_names(variants)]
        candidates = grid(models, names, [batch_size], [threads], _precisions(precision))
        if not candidates:
            _refuse_no_candidates(models, names)
        study = Study(out) if out else None
        records = run(
            candidates[1:],
            data,
            against=candidates[0],
            split=split,
            seed=seed,
            with_memory=memory,
            progress=progress_line(),
        )
        if study:
            study.append_run(records)
        if doubtful := doubt(records.measurements[0].accuracy, data):
            say(doubtful)
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

        decision = decide(_last_comparison(study, but_not_on="test"), load_requirement(requirement))
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
        out: Annotated[Path, folder_option("The folder for records.csv and index.html.")],
    ) -> None:
        """Write a study's records as a table in HTML and CSV."""
        from labkit.errors import ConfigError
        from labkit.files import write_atomically
        from labkit.study import Study

        records = Study.to_read(study)
        if out.resolve() == study.resolve():
            raise ConfigError(
                f"--out {out} is the study itself, whose index.html may be a report: choose another folder"
            )
        write_atomically(out / "records.csv", records.to_csv().encode())
        write_atomically(out / "index.html", records.to_html().encode())
        print(f"wrote {out / 'index.html'} and {out / 'records.csv'}")

    @app.command()
    def sweep(
        notebook: Annotated[Path, typer.Argument(help="A notebook with a `parameters` cell.")],
        grid: Annotated[Path, typer.Option(help="A TOML file: [parameters] name = [values…], or [[runs]].")],
        out: Annotated[Path, folder_option("The study's folder.")] = Path("results/sweep"),
        resume: Annotated[bool, typer.Option("--resume", help="Skip the runs that are finished.")] = False,
    ) -> None:
        """Run a notebook once for every combination of parameters, each in a fresh kernel."""
        from labkit.sweep import sweep as run

        result = run(notebook, grid, out, resume=resume, progress=progress_line())
        print(result)
        raise typer.Exit(result.exit_code)


def _distinct_names(sources: list[str]) -> list[Variant]:
    """The variants; two that share a name (one technique with two settings) are told apart by their folders."""
    import dataclasses

    from labkit.zoo import load_model

    models = [load_model(source) for source in sources]
    names = [model.name for model in models]
    return [
        model if names.count(model.name) == 1 else dataclasses.replace(model, name=f"{model.name} ({source})")
        for model, source in zip(models, sources, strict=True)
    ]


def _precisions(wanted: list[str]) -> list[str]:
    from labkit.errors import ConfigError, nearest
    from labkit.runtimes import PRECISIONS

    for name in wanted:
        if name not in PRECISIONS:
            raise ConfigError(f"unknown precision {name!r}; {nearest(name, PRECISIONS)}")
    return wanted


def _runtimes(wanted: list[str]) -> list[str]:
    from labkit.runtimes import RUNTIMES, get_runtime

    return [get_runtime(name).name for name in wanted] or [runtime.name for runtime in RUNTIMES]


def _refuse_no_candidates(models: list[Variant], runtimes: list[str]) -> None:
    from labkit.errors import ConfigError

    formats = ", ".join(f"{model.name} is {model.format}" for model in models)
    raise ConfigError(
        f"none of the runtimes {', '.join(runtimes)} is installed and takes these models ({formats})"
    )


def _last_comparison(folder: Path, but_not_on: str = "") -> Comparison:
    from labkit.measure import compare
    from labkit.study import Study

    return compare(Study.to_read(folder).last_run(but_not_on=but_not_on))
