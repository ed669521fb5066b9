"""`labkit explain VARIANT`: where its time goes, and why it is not faster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from labkit.cli.options import Json, Model, data_of
from labkit.cli.terminal import print_json, progress_line, say

if TYPE_CHECKING:
    from labkit.data import Dataset
    from labkit.variant import Variant


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""

    @app.command()
    def explain(
        variant: Model,
        against: Annotated[
            str | None, typer.Option(help="The baseline that it should beat: a name, folder or file.")
        ] = None,
        runtime: Annotated[str, typer.Option(help="onnxruntime or openvino.")] = "onnxruntime",
        dataset: Annotated[
            str | None,
            typer.Option(
                help="Where samples come from; a model of the kit, or a folder made of one, knows. Else random."
            ),
        ] = None,
        batch_size: Annotated[int, typer.Option(help="Samples per run.")] = 1,
        threads: Annotated[int, typer.Option(help="Intra-op threads.")] = 1,
        against_precision: Annotated[
            str,
            typer.Option(help="Of the baseline: float32, bfloat16, or auto, what the engine takes itself."),
        ] = "float32",
        json: Json = False,
    ) -> None:
        """Say where a variant's time goes, operator by operator, and why it is not faster.

        Why it is less accurate is another question: labkit.microscope(baseline, variant, data) names the operator.
        """
        from labkit.data import load_dataset
        from labkit.explain import explain as run

        chosen = data_of(variant, dataset)
        data = load_dataset(chosen) if chosen else None
        found = run(
            _as_onnx(variant, data),
            data,
            against=_as_onnx(against, data) if against else None,
            runtime=runtime,
            batch_size=batch_size,
            threads=threads,
            against_precision=against_precision,
            progress=progress_line(),
        )
        print_json(found.to_json()) if json else print(found.table(), found.says, sep="\n\n")


def _as_onnx(source: str, data: Dataset | None) -> Variant:
    """The variant, exported first if it is a PyTorch one: its runtime has no operators to look at."""
    from labkit.convert import ExportOnnx
    from labkit.strategy import fit_to
    from labkit.zoo import load_model

    model = load_model(source) if data is None else fit_to(load_model(source), data)
    if model.format != "torch":
        return model
    say(f"{model.name} is a PyTorch variant: exporting it to ONNX first")
    return ExportOnnx()(model, data)
