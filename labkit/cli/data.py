"""`labkit data list | fetch | verify`: which datasets are here, and whether they are what they should be."""

from __future__ import annotations

from typing import Annotated

import typer

from labkit.cli.options import Json
from labkit.cli.terminal import print_json

Name = Annotated[str, typer.Argument(help="digits, fashion-mnist or mnist.")]


def register(app: typer.Typer) -> None:
    """Add the `data` group to `app`."""
    group = typer.Typer(
        help="The datasets: list, fetch, verify.", no_args_is_help=True, rich_markup_mode=None
    )
    app.add_typer(group, name="data")

    @group.command("list")
    def list_(json: Json = False) -> None:
        """Name each dataset, its licence, and where it would be read from."""
        from labkit.data import DATASETS, location, registry

        rows = [
            {"name": name, "licence": registry()[name]["licence"], "found_in": location(name)}
            for name in DATASETS
        ]
        if json:
            print_json(rows)
            return
        for row in rows:
            where = row["found_in"] or f"not here; labkit data fetch {row['name']}"
            print(f"{row['name']:<15} {row['licence']:<14} {where}")

    @group.command()
    def fetch(name: Name) -> None:
        """Find or download a dataset into the cache and verify it."""
        _load_and_say(name)

    @group.command()
    def verify(name: Name) -> None:
        """Read a dataset and compare its checksums with the registry's."""
        _load_and_say(name)


def _load_and_say(name: str) -> None:
    from labkit.data import location
    from labkit.data.named import load_named

    dataset = load_named(name)
    counts = ", ".join(f"{len(split):,} {key}" for key, split in dataset.splits.items())
    print(f"{name}: verified, {counts}; from {location(name)}")
