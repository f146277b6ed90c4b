"""Arithmetic on text that nobody vouches for: parsed, never run, and bounded in length and size. Pure."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable

from .steps import ToolError

__all__ = ["MAX_LENGTH", "calculate"]

MAX_LENGTH = 500
MAX_BITS = 4_096

Number = int | float

_CHARACTERS = frozenset("0123456789.eE_+-*/%() \t\n")
_ALLOWED = "numbers, + - * / // % ** and parentheses"
_TOO_LARGE = f"a result is too large (more than {MAX_BITS} bits)"


def calculate(expression: str) -> str:
    """The value as text: an integer exactly, anything else to 15 digits. Raises `ToolError`."""
    if len(expression) > MAX_LENGTH:
        raise ToolError(f"the expression is longer than {MAX_LENGTH} characters")
    if strange := sorted(set(expression) - _CHARACTERS):
        raise ToolError(f"only {_ALLOWED} are understood, not {strange[0]!r}")
    try:
        value = _value(ast.parse(expression.strip(), mode="eval").body)
    except ZeroDivisionError:
        raise ToolError("division by zero") from None
    except OverflowError:
        raise ToolError(_TOO_LARGE) from None
    except (SyntaxError, ValueError):
        raise ToolError("this is not an expression") from None
    except (RecursionError, MemoryError):
        raise ToolError("the expression is nested too deeply") from None
    return _text(value)


def _value(node: ast.expr) -> Number:
    match node:
        case ast.Constant(value=int() | float() as value):
            return _bounded(value)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _value(operand)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _bounded(_OPERATORS[type(op)](_value(left), _value(right)))
        case _:
            raise ToolError(f"only {_ALLOWED} are understood")


def _quotient(left: Number, right: Number) -> Number:
    return left / right


def _whole_quotient(left: Number, right: Number) -> Number:
    return left // right


def _power(base: Number, exponent: Number) -> Number:
    """Refuses before computing: 9**9**9 would hold the interpreter for hours."""
    if isinstance(base, int) and abs(base) > 1 and exponent * math.log2(abs(base)) > MAX_BITS:
        raise OverflowError
    if base < 0 and not float(exponent).is_integer():
        raise ToolError("a negative number to a broken power is not a real number")
    return base**exponent


_OPERATORS: dict[type[ast.operator], Callable[[Number, Number], Number]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: _quotient,
    ast.FloorDiv: _whole_quotient,
    ast.Mod: operator.mod,
    ast.Pow: _power,
}


def _bounded(value: Number) -> Number:
    fits = value.bit_length() <= MAX_BITS if isinstance(value, int) else math.isfinite(value)
    if not fits:
        raise OverflowError
    return value


def _text(value: Number) -> str:
    return str(value) if isinstance(value, int) else f"{value:.15g}"
