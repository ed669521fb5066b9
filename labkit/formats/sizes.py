"""Sizes that an exported program writes as texts: "Mul(Integer(2), Symbol('s0', positive=True))".

PyTorch hands each to SymPy, which evaluates it as Python. So we parse it first, and let through arithmetic of
numbers and symbols only, without a power that would take for ever.
"""

from __future__ import annotations

import ast
import re

_LONGEST = 10_000
_HIGHEST_POWER, _MOST_POWERS = 16, 4
_SYMBOL = re.compile(r"[a-z]+\d+")
_NAMES = """
Symbol Integer Float Rational Add Mul Pow Max Min Mod PythonMod FloorDiv CeilDiv CleanDiv IntTrueDiv FloatTrueDiv
Where Equality Unequality GreaterThan LessThan StrictGreaterThan StrictLessThan Eq Ne Ge Gt Le Lt And Or Not
ceiling floor
"""
_FUNCTIONS = set(_NAMES.split())
_ASSUMPTIONS = {"positive", "integer", "nonnegative", "negative", "nonzero", "zero", "real"}
_OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.USub, ast.UAdd)
_COMPARISONS = (ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq)


def is_a_size(text: str) -> bool:
    """Whether a text that SymPy would evaluate is arithmetic of sizes, and not a program."""
    if len(text) > _LONGEST:
        return False
    try:
        root = ast.parse(text.strip(), mode="eval").body
        powers = sum(_is_power(node) for node in ast.walk(root))
        return powers <= _MOST_POWERS and _is_allowed(root)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False


def _is_allowed(node: ast.AST) -> bool:
    if isinstance(node, ast.Constant):
        return isinstance(node.value, (int, float)) or _is_symbol(node.value)
    if isinstance(node, ast.Name):
        return node.id in ("oo", "int_oo") or _is_symbol(node.id)
    if isinstance(node, ast.Call):
        keywords = all(word.arg in _ASSUMPTIONS and _is_allowed(word.value) for word in node.keywords)
        known = isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS
        small = not _is_power(node) or _is_small(node.args[-1:])
        return known and keywords and small and all(map(_is_allowed, node.args))
    if isinstance(node, ast.BinOp):
        small = isinstance(node.op, _OPERATORS) or (_is_power(node) and _is_small([node.right]))
        return small and _is_allowed(node.left) and _is_allowed(node.right)
    if isinstance(node, ast.UnaryOp):
        return isinstance(node.op, _OPERATORS) and _is_allowed(node.operand)
    if isinstance(node, ast.Compare):
        compared = all(isinstance(each, _COMPARISONS) for each in node.ops)
        return compared and _is_allowed(node.left) and all(map(_is_allowed, node.comparators))
    return False


def _is_power(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "Pow"
    return isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow)


def _is_small(exponents: list[ast.expr]) -> bool:
    """Whether there is one exponent, and it is a number that is not large."""
    parts = [each for node in exponents for each in ast.walk(node)]
    plain = not any(isinstance(each, ast.BinOp) or _is_power(each) for each in parts)
    numbers = [each.value for each in parts if isinstance(each, ast.Constant)]
    return (
        plain
        and bool(numbers)
        and all(isinstance(each, (int, float)) and abs(each) <= _HIGHEST_POWER for each in numbers)
    )


def _is_symbol(value: object) -> bool:
    return isinstance(value, str) and bool(_SYMBOL.fullmatch(value))
