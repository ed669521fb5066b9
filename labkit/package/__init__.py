"""A package: the chosen model with its card, its preprocessing and a short script that runs it without labkit."""

from __future__ import annotations

from labkit.package.folder import check_replaceable, write_package

__all__ = ["check_replaceable", "write_package"]
