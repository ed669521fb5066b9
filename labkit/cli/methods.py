"""The command that shows what the others can do: their methods, and the fields that --set changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from labkit.cli.options import Json
from labkit.cli.terminal import print_json
from labkit.methods import METHODS

if TYPE_CHECKING:
    from labkit.technique import Technique

_COMMAND = "quantize, prune, distill, encode or train; all of them by default."
_ANY = {str: "any text", bool: "true or false"}
_METHOD = "Show the fields of this method: what --set changes, by default, within which bounds."


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""

    @app.command()
    def methods(
        command: Annotated[str, typer.Argument(help=_COMMAND)] = "",
        method: Annotated[str, typer.Argument(help=_METHOD)] = "",
        json: Json = False,
    ) -> None:
        """Show the methods of quantize, prune, distill and encode, and the fields that --set changes."""
        from labkit.errors import ConfigError, nearest
        from labkit.pipeline import make_technique

        known = {**METHODS, "train": {"": "train"}}
        if (command or method) and command not in known:
            raise ConfigError(f"{command!r} has no methods; {nearest(command, known)}")
        if method and command == "train":
            raise ConfigError(
                f"train has no methods, and {method!r} is given: labkit methods train shows its fields"
            )
        if method and method not in known[command]:
            raise ConfigError(f"unknown method {method!r} for {command}; {nearest(method, known[command])}")
        if method or command == "train":
            _show_fields(make_technique(known[command][method], {}), json)
        else:
            _show_methods({command: METHODS[command]} if command else METHODS, json)


def _show_methods(methods: Any, json: bool) -> None:
    from labkit.pipeline import make_technique

    rows = [
        {"command": command, "method": method, "technique": name, "title": make_technique(name, {}).title}
        for command, names in methods.items()
        for method, name in names.items()
    ]
    if json:
        print_json({"methods": rows})
        return
    for row in rows:
        first = " (the default)" if row["method"] == next(iter(METHODS[row["command"]])) else ""
        optional = "" if row["command"] == "encode" else first  # encode needs none
        print(f"{row['command']:<9} --method {row['method']:<13} {row['title']}{optional}")
    print(
        f"\nThe fields of one, which --set changes: labkit methods {rows[0]['command']} {rows[0]['method']}"
    )


def _show_fields(technique: Technique, json: bool) -> None:
    from labkit.technique import knobs, range_of

    rows = []
    for each in knobs(technique):
        allowed = ", ".join(map(str, each.metadata["choices"])) or _ANY.get(type(each.default), "")
        allowed = allowed or range_of(each.name, each.metadata)
        rows.append(
            {"field": each.name, "default": each.default, "allowed": allowed, "help": each.metadata["help"]}
        )
    if json:
        print_json({"technique": technique.name, "title": technique.title, "fields": rows})
        return
    print(f"{technique.title}: {technique.name} in a recipe\n")
    for row in rows:
        name = f"{row['field']}={row['default']}"
        print(f"  {name:<28} {row['help']}\n{'':<31}{row['allowed']}".rstrip())
