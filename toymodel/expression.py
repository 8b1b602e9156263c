"""The loss as it was written: a small tree of names, numbers and + - * / **, bounded before anything computes with it.

A loss is a Python function or text. Both are recorded here first: the function is called with `Operand`s, which note
what is done to them, and the text is read into the same tree. What a tree may hold is limited by the size of what comes
out of it, not by single exponents: `((9**9)**9999)**9999` is as wrong as `9**9**9`. So whatever is done with a recorded
loss afterwards, by sympy or by a printer, ends soon.

    operations  at most 500              depth     at most 100 brackets inside each other
    numbers     within the range of float64                  exponents  numbers
    size        at most 100,000 bits: the bits of numbers add up in sums and products, an exponent multiplies them
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import sympy as sp

from toymodel.checks import shown

RULE = "loss must use the operators + - * / ** on its arguments and numbers, and nothing else"
MOST_OPERATIONS = 500
MOST_DEPTH = 100
MOST_BITS = 100_000
MOST_TEXT = 20_000  # characters of a loss that is given as text
_HUGEST = 1024  # bits of the largest float64, and of the numerator and denominator of an exact quotient


class Ratio(Fraction):
    """A quotient of whole numbers in a text, such as 1/3: exact for sympy, a float for everybody else."""


Part = Any  # an Operand, an int, a float or a Ratio


class Operand:
    """A name, or what an operator makes of operands and numbers; it can be computed with, not looked into.

    kind "name": the name. "sum", "product": a first part and pairs (operator, part), from the left. "power": base and
    exponent. "minus": what stands behind the sign.
    """

    kind: str
    parts: tuple[Any, ...]
    __slots__ = ("bits", "depth", "kind", "operations", "parts")
    __array_ufunc__ = None  # numpy leaves the operator to the operand
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, kind: str, parts: tuple[Any, ...], operands: tuple[Part, ...] = (), factor: float = 1.0):
        held = [part for part in operands if isinstance(part, Operand)]
        grown = kind in ("sum", "product") and len(parts) > 2  # a chain that is one part longer, in the same brackets
        self.kind, self.parts = kind, parts
        self.operations = sum(part.operations for part in held) + (kind != "name")
        self.depth = max((part.depth + (not (grown and part is operands[0])) for part in held), default=0)
        self.bits = factor * max(1.0, sum(part.bits if isinstance(part, Operand) else _bits(part) for part in operands))
        for what, size, most in (
            ("operations", self.operations, MOST_OPERATIONS),
            ("brackets inside each other", self.depth, MOST_DEPTH),
            ("bits in its numbers and exponents", self.bits, MOST_BITS),
        ):
            if size > most:
                raise ValueError(f"loss is too large: it may have at most {most:,} {what}")

    @classmethod
    def named(cls, name: str) -> Operand:
        return cls("name", (name,))

    @property
    def names(self) -> set[str]:
        """The names in the tree."""
        found: set[str] = set()
        waiting: list[Part] = [self]
        while waiting:
            part = waiting.pop()
            if isinstance(part, Operand):
                if part.kind == "name":
                    found.add(part.parts[0])
                else:
                    waiting += [part.parts[0], *(other for _, other in part.parts[1:])]
        return found

    def _chained(self, operator: str, other: Any, turned: bool = False) -> Operand:
        """A sum or a product; one more part of the chain that is there already, where it stands on the left."""
        kind = "sum" if operator in "+-" else "product"
        left, right = (_checked(other), self) if turned else (self, _checked(other))
        if operator == "/" and not isinstance(right, Operand) and right == 0:
            raise ValueError("loss must be finite: it divides by zero")
        if isinstance(left, Operand) and left.kind == kind:
            return Operand(kind, (*left.parts, (operator, right)), (left, right))
        return Operand(kind, (left, (operator, right)), (left, right))

    def __add__(self, other: Any) -> Operand:
        return self._chained("+", other)

    def __radd__(self, other: Any) -> Operand:
        begins_a_sum = isinstance(other, int) and other == 0  # as sum() does
        return self if begins_a_sum else self._chained("+", other, turned=True)

    def __sub__(self, other: Any) -> Operand:
        return self._chained("-", other)

    def __rsub__(self, other: Any) -> Operand:
        return self._chained("-", other, turned=True)

    def __mul__(self, other: Any) -> Operand:
        return self._chained("*", other)

    def __rmul__(self, other: Any) -> Operand:
        return self._chained("*", other, turned=True)

    def __truediv__(self, other: Any) -> Operand:
        return self._chained("/", other)

    def __rtruediv__(self, other: Any) -> Operand:
        return self._chained("/", other, turned=True)

    def __pow__(self, exponent: Any) -> Operand:
        if isinstance(exponent, Operand):
            raise ValueError(f"{RULE}: an exponent must be a number, got {exponent}")
        exponent = _checked(exponent)
        return Operand("power", (self, ("**", exponent)), (self,), factor=math.ceil(max(abs(exponent), 1)))

    def __rpow__(self, base: Any) -> Operand:
        raise ValueError(f"{RULE}: an exponent must be a number, got {self}")

    def __neg__(self) -> Operand:
        return Operand("minus", (self,), (self,))

    def __pos__(self) -> Operand:
        return self

    def _refused(self, what: str) -> Any:
        raise ValueError(f"{RULE}: got {what}")

    def __eq__(self, other: object) -> bool:
        return self._refused(f"the comparison of {self}")

    __lt__ = __le__ = __gt__ = __ge__ = __ne__ = __eq__

    def __bool__(self) -> bool:
        return self._refused(f"a condition on {self}")

    def __abs__(self) -> Any:
        return self._refused(f"abs of {self}")

    def __mod__(self, other: Any) -> Any:
        return self._refused(f"% of {self}")

    def __floordiv__(self, other: Any) -> Any:
        return self._refused(f"// of {self}")

    __rmod__, __rfloordiv__ = __mod__, __floordiv__

    def __str__(self) -> str:
        """The text that `read` makes the same tree from; no bracket is left out."""
        if self.kind == "name":
            return self.parts[0]
        if self.kind == "minus":
            return f"(-{_text(self.parts[0])})"
        first, *others = self.parts
        return f"({_text(first)}{''.join(f' {operator} {_text(part)}' for operator, part in others)})"

    def __repr__(self) -> str:
        return shown(str(self))

    def of(self, values: Mapping[str, Any]) -> Any:
        """What the tree makes of these values, operator by operator as they were written.

        Quotients of whole numbers stay exact where the values are sympy's or operands; arrays see floats, and whole
        numbers where 32 bits hold them.
        """
        exact = any(isinstance(value, (Operand, sp.Basic)) for value in values.values())
        return self._of(values, exact)

    def _of(self, values: Mapping[str, Any], exact: bool) -> Any:
        if self.kind == "name":
            return values[self.parts[0]]

        def value(part: Part) -> Any:
            if isinstance(part, Operand):
                return part._of(values, exact)
            return part if exact or (isinstance(part, int) and abs(part) < 2**31) else float(part)

        found = value(self.parts[0])
        if self.kind == "minus":
            return -found
        for operator, part in self.parts[1:]:
            found = _OPERATORS[operator](found, value(part))
        return found


_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "+": lambda left, right: left + right,
    "-": lambda left, right: left - right,
    "*": lambda left, right: left * right,
    "/": lambda left, right: left / right,
    "**": lambda left, right: left**right,
}


def record(loss: Callable[..., Any], names: Iterable[str]) -> Operand:
    """The tree of a loss; raises ValueError, naming the loss, for one that does anything else than compute.

    A function that computes with huge numbers of its own, without any operand in it (`lambda icl: icl * 9**9**9`), is
    Python's to compute and is not stopped; the same as text is.
    """
    operands = {name: Operand.named(name) for name in names}
    written = getattr(loss, "written", None)
    try:
        found = written.of(operands) if isinstance(written, Operand) else loss(**operands)
    except Exception as error:
        said = str(error) or type(error).__name__
        raise ValueError(said if said.startswith("loss ") else f"{RULE}: {said[:200]}") from None
    if not isinstance(found, Operand):
        raise ValueError(f"{RULE}: it gives {shown(found)}, which depends on none of them")
    if foreign := found.names - set(operands):
        raise ValueError(f"{RULE}: got {sorted(foreign)[0]!r}, an argument of another loss")
    return found


def read(text: str) -> Operand:
    """The tree of a text of names, numbers, brackets and + - * / **; raises ValueError for anything else in it."""
    if not isinstance(text, str):
        raise ValueError(f"loss must be a text such as 'icl + ciwl', got {shown(text)}")
    if len(text) > MOST_TEXT:
        raise ValueError(f"loss is too long: {len(text):,} characters, at most {MOST_TEXT:,}")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"loss is not an expression: {shown(text)} ({_reason(error)})") from None
    try:
        found = _part(tree, 0)
    except ValueError as error:
        raise ValueError(f"{error} in {shown(text)}") from None
    if not isinstance(found, Operand):
        raise ValueError(f"loss must depend on a mechanism or a cost, got {shown(text)}")
    return found


def _reason(error: BaseException) -> str:
    if isinstance(error, (RecursionError, MemoryError)):
        return "too many terms, or brackets inside each other"
    return shown(getattr(error, "msg", None) or str(error))


_SYMBOLS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Pow: "**"}


def _part(node: ast.expr, depth: int) -> Part:
    """A node of the text as a part; what stands on the left of operators is walked, not recursed into."""
    if depth > MOST_DEPTH:
        raise ValueError(f"loss is too large: it may have at most {MOST_DEPTH} brackets or signs inside each other")
    behind: list[tuple[str, ast.expr]] = []
    while isinstance(node, ast.BinOp) and type(node.op) in _SYMBOLS:
        behind.append((_SYMBOLS[type(node.op)], node.right))
        node = node.left
    if len(behind) > MOST_OPERATIONS:
        raise ValueError(f"loss is too large: it may have at most {MOST_OPERATIONS:,} operations")
    if isinstance(node, ast.Name):
        found: Part = Operand.named(node.id)
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
        found = _checked(node.value)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.UAdd, ast.USub)):
        inside = _part(node.operand, depth + 1)
        found = inside if isinstance(node.op, ast.UAdd) else -inside
        found = _checked(_exact(found))
    else:
        raise ValueError(f"loss may hold names, numbers and + - * / ** only, got {shown(_unparsed(node))}")
    for operator, right in reversed(behind):
        found = _applied(operator, found, _part(right, depth + 1))
    return found


def _unparsed(node: ast.expr) -> str:
    try:
        return ast.unparse(node)
    except RecursionError:
        return type(node).__name__


def _applied(operator: str, left: Part, right: Part) -> Part:
    if isinstance(left, Operand) or isinstance(right, Operand):
        return _OPERATORS[operator](left, right)
    return _of_numbers(operator, left, right)


def _of_numbers(operator: str, left: Any, right: Any) -> Any:
    """An operation on two numbers, once it is known that its result is small; quotients of whole numbers are exact."""
    if operator == "/" and right == 0:
        raise ValueError("loss must be finite: it divides by zero")
    if operator == "/" and not isinstance(left, float):
        left = Ratio(left)
    if operator != "**":
        return _checked(_exact(_OPERATORS[operator](left, right)))
    if left == 0 and right < 0:
        raise ValueError("loss must be finite: it divides by zero")
    if left < 0 and right != int(right):
        raise ValueError(f"loss must be real: {shown(left)} has no power {shown(right)}")
    if left != 0 and abs(right) * abs(_log2(left)) > _HUGEST:
        raise ValueError("loss must have numbers within the range of float64: one of its powers is not")
    whole = right == int(right)
    if whole and not isinstance(left, float):
        return _checked(_exact(Ratio(left) ** int(right)))
    return _checked(float(left) ** float(right))


def _exact(number: Any) -> Any:
    """What Python's arithmetic makes of Ratios, as int, float or Ratio."""
    if not isinstance(number, Fraction):
        return number
    return int(number) if number.denominator == 1 else Ratio(number)


def _log2(number: Any) -> float:
    if isinstance(number, Fraction):
        return math.log2(abs(number.numerator)) - math.log2(number.denominator)
    return math.log2(abs(number))


def _checked(number: Any) -> Any:
    """The number as int, float or Ratio; raises ValueError for what is none, or is outside the range of float64."""
    found = number
    if isinstance(number, np.float64) or (_kind(number) in "iuf" and np.ndim(number) == 0):
        found = int(number) if _kind(number) in "iu" else float(number)
    elif isinstance(number, bool) or not isinstance(number, (Operand, int, float, Ratio)):
        raise ValueError(f"{RULE}: got {shown(number)}")
    if isinstance(found, Operand):
        return found
    if isinstance(found, float):
        if not math.isfinite(found):
            raise ValueError(f"loss must be finite, got {found}")
    elif max(found.numerator.bit_length(), found.denominator.bit_length()) > _HUGEST:
        if isinstance(found, Ratio) and abs(_log2(found)) < _HUGEST:
            return float(found)
        raise ValueError("loss must have numbers within the range of float64")
    return found


def _kind(number: Any) -> str:
    """The kind of numpy's type of something without dimensions; "?" where it has none."""
    return getattr(getattr(number, "dtype", None), "kind", "?")


def _bits(number: Any) -> float:
    if isinstance(number, float):
        return 1.0
    return float(number.numerator.bit_length() + number.denominator.bit_length())


def _text(part: Part) -> str:
    if isinstance(part, Operand):
        return str(part)
    text = f"{part.numerator}/{part.denominator}" if isinstance(part, Fraction) else repr(part)
    return text if isinstance(part, (int, float)) and part >= 0 else f"({text})"
