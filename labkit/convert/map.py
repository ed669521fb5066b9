"""The format graph as a person reads it: what converts into what, and what is missing here."""

from __future__ import annotations

from typing import Any

from labkit.convert.edges import CONVERTERS
from labkit.variant import FORMATS, get_format


def edges() -> list[dict[str, Any]]:
    """Every edge as plain data: from, to, converter, and whether it is available here, else why and what to type."""
    found = []
    for source in FORMATS:
        for converter in CONVERTERS:
            if source.name in converter.takes:
                available = converter.is_available()
                found.append(
                    {
                        "from": source.name,
                        "to": converter.target,
                        "converter": converter.name,
                        "available": available.ok,
                        "verified": converter.verified,
                        "reason": available.reason,
                        "install": "" if available.ok else available.install,
                    }
                )
    return found


def format_map() -> str:
    """The graph as text: each format with what it converts into, then what to install for the edges that are shut."""
    found = edges()
    lines = ["What converts into what (● here, ○ not here):", ""]
    for source in FORMATS:
        targets = [edge for edge in found if edge["from"] == source.name]
        for index, edge in enumerate(targets):
            start = f"  {source.name:<10} {source.title:<24}" if index == 0 else " " * 37
            branch = "─┬─" if len(targets) > 1 and index == 0 else "───" if len(targets) == 1 else " └─"
            branch = " ├─" if 0 < index < len(targets) - 1 else branch
            note = "" if edge["verified"] else "  (code, unverified)"
            mark = "●" if edge["available"] else "○"
            lines.append(f"{start} {branch}{mark} {edge['to']:<10} {get_format(edge['to']).title}{note}")
    shut: dict[tuple[str, str], list[str]] = {}
    for edge in found:
        if not edge["available"]:
            shut.setdefault((edge["install"], edge["reason"]), []).append(f"{edge['from']} → {edge['to']}")
    for (install, reason), names in shut.items():
        lines += ["", f"{', '.join(names)}: {reason}", f"  {install}"]
    return "\n".join(lines)
