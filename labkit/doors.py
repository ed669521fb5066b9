"""Public doors: what a caller passes is held against the annotations that stand there anyway.

    @door
    def load_model(name_or_path: str | Path) -> Variant: ...

    load_model(None)    ConfigError: load_model: name_or_path must be a str or a Path, not None

Only what a person calls is a door; inside the house nobody is asked twice. What lies in a mapping or an array
is for whoever reads it to judge.
"""

from __future__ import annotations

import collections.abc
import functools
import inspect
import types
import typing
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from labkit.errors import ConfigError

P = ParamSpec("P")
R = TypeVar("R")


def door(function: Callable[P, R]) -> Callable[P, R]:
    """Call `function` only with what its annotations allow, and raise ConfigError naming what they want.

    True is no number; a whole number may stand for a float; a text is no sequence of texts.
    """
    signature = inspect.signature(function)

    @functools.cache
    def wanted() -> dict[str, Any]:  # when first called: annotations may name what comes later in the file
        return typing.get_type_hints(function)

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        for name, value in signature.bind(*args, **kwargs).arguments.items():
            kind = wanted().get(name, Any)
            if not _fits(value, kind):
                where = function.__qualname__.removesuffix(".__init__").removesuffix(".__call__")
                how = f": make one with {kind.MADE_BY}" if hasattr(kind, "MADE_BY") else ""
                raise ConfigError(f"{where}: {name} must be {_words(kind)}, not {_shown(value)}{how}")
        return function(*args, **kwargs)

    return checked


def _fits(value: object, kind: Any) -> bool:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, each) for each in inner)
    if kind in (int, float):
        return isinstance(value, (int, kind)) and not isinstance(value, bool)
    if origin is collections.abc.Sequence and isinstance(value, collections.abc.Sequence):
        return not isinstance(value, (str, bytes)) and all(_fits(each, inner[0]) for each in value)
    plain = origin or kind
    return plain is Any or not isinstance(plain, type) or isinstance(value, plain)


def _words(kind: Any) -> str:
    """`str | Path` → "a str or a Path", `Sequence[Candidate]` → "a sequence, each a Candidate"."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_words, inner))
    if origin is collections.abc.Sequence:
        return f"a sequence, each {_words(inner[0])}"
    if kind is type(None):
        return "None"
    name = (
        "function" if origin is collections.abc.Callable else getattr(origin or kind, "__name__", str(kind))
    )
    return f"a{'n' * (name[0].lower() in 'aeio')} {name}"


def _shown(value: object) -> str:
    """A short value as it is written, a large one by its type."""
    if value is None or isinstance(value, (str, bytes, bool, float)):
        return repr(value)[:80]
    if isinstance(value, (list, tuple)) and value:
        return f"a {type(value).__name__} that begins with {_shown(value[0])}"
    return _words(type(value))
