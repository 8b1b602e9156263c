"""JavaScript from the expressions of a model: terms, slope, Jacobian, measures. No equation is typed a second time.

A *kernel* is one form of loss as a JavaScript object. Its functions take the coordinates y (u of all vectors, then v)
and the constants c, in the order of `toymodel.symbolic.System`, and write their results into `out`:

    plain(y, c, h, out)       terms, loss, and h times the slope
    gated(y, c, h, out)       the same, where c has a factor for each term and vector, which the slope is gated with
    jacobian(y, c, out)       the derivatives of that slope, row by row
    unlearned(c, out)         the loss of each mechanism that has learned nothing
"""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sympy as sp
from sympy.printing.jscode import JavascriptCodePrinter

from toymodel import measures
from toymodel.model import Form
from toymodel.reduction import unlearned_loss
from toymodel.symbolic import System

STEP = sp.Symbol("h", positive=True)
MOST_FACTORS = 4  # powers up to this one are printed as products, as they are computed in Python


class Printer(JavascriptCodePrinter):
    """Small whole powers as products, numbers with all their digits."""

    def _print_Pow(self, expr: sp.Pow) -> str:
        base, exponent = expr.as_base_exp()
        if exponent.is_Integer and 2 <= int(exponent) <= MOST_FACTORS and base.is_Symbol:
            return "(" + "*".join([self._print(base)] * int(exponent)) + ")"
        if exponent == 2:
            return f"square({self._print(base)})"  # of web/engine.js
        return super()._print_Pow(expr)

    def _print_Float(self, expr: sp.Float) -> str:
        return repr(float(expr))

    def _print_NaN(self, expr: sp.Expr) -> str:
        return "NaN"


def function(
    arguments: Mapping[str, Sequence[sp.Symbol]],
    wanted: Sequence[Any],
    scale: Any = None,
    stages: Callable[[Sequence[Any]], tuple[Any, Any]] = sp.cse,
) -> str:
    """A JavaScript function that writes expressions into its last argument, `out`.

    arguments: name of an array -> the symbols that are its entries. scale: a symbol that is an argument of its own.
    stages: what cuts the expressions into assignments and what is left of them; symbols of a user become s0, s1, ...,
    so that no name of theirs gets into the text.

    >>> x, y = sp.symbols("x y")
    >>> print(function({"p": [x, y]}, [x**2 + y, sp.sqrt(x)]))
    function (p, out) {
    const s0 = p[0], s1 = p[1];
    out[0] = (s0*s0) + s1;
    out[1] = Math.sqrt(s0);
    }
    """
    assignments, left = stages([sp.sympify(value) for value in wanted])
    used: set[Any] = set().union(*(value.free_symbols for value in [*(v for _, v in assignments), *left]))
    places = {s: f"{name}[{i}]" for name, symbols in arguments.items() for i, s in enumerate(symbols) if s in used}
    names = {s: sp.Symbol(f"s{i}") for i, s in enumerate([*places, *(s for s, _ in assignments)])}
    if scale is not None:
        names[scale] = sp.Symbol("h")
    if unknown := used - set(names):
        raise ValueError(f"the expressions have {min(map(str, unknown))!r}, which is no argument")
    doprint = Printer().doprint

    def printed(value: Any) -> str:
        return str(doprint(value.xreplace(names)))

    taken = [", ".join(f"{names[s]} = {place}" for s, place in places.items())]
    lines = [f"const {line};" for line in taken if line]
    lines += [f"const {names[s]} = {printed(value)};" for s, value in assignments]
    lines += [f"out[{i}] = {printed(value)};" for i, value in enumerate(left)]
    signature = ", ".join([*arguments, *(["h"] if scale is not None else []), "out"])
    return "\n".join([f"function ({signature}) {{", *lines, "}"])


def kernel(form: Form, more: Mapping[str, str] | None = None) -> str:
    """The JavaScript object of one form of loss, with more of its entries."""
    system = System(form)
    gated = System(form, frozenset((t, x) for t, letters in form.terms.items() for x in letters))
    shared = {"y": system.coordinates, "c": gated.constants}
    wanted = [*system.terms, system.loss, *system.slope]

    def steps(of: System) -> str:
        return function(shared, wanted, STEP, lambda values: of.staged(values, STEP))

    flat = [entry for row in gated.jacobian for entry in row]
    planes = system.planes
    bare = [
        unlearned_loss([planes[x] for x in letters], sp.Symbol(f"w_{m}", positive=True))
        for m, letters in form.mechanisms.items()
    ]
    parts = {
        "vectors": json.dumps(list(form.vectors)),
        "terms": json.dumps(list(form.terms)),
        "letters": json.dumps(form.terms),
        "mechanisms": json.dumps(list(form.mechanisms)),
        "parameters": json.dumps(form.parameters),
        "gates": json.dumps(sorted(gated.gates)),
        "plain": steps(system),
        "gated": steps(gated),
        "jacobian": function(shared, flat, stages=gated.staged),
        "unlearned": function({"c": gated.constants}, bare),
        **(more or {}),
    }
    return "{" + ",\n".join(f"{name}: {value}" for name, value in parts.items()) + "}"


def follow() -> str:
    """`toymodel.measures.follow` in JavaScript, on what is known in an array K from the place o on."""
    known = list(measures.BEGIN)
    written: Any = ast.parse(inspect.getsource(measures.follow)).body[0]
    lines = [_statement(line) for line in written.body if isinstance(line, ast.Assign)]
    given = {argument.arg for argument in written.args.args}
    local = [line for line in lines if line.split(" = ")[0] not in given]
    if not set(known) < given or len(local) + sum(line.split(" = ")[0] in known for line in lines) != len(lines):
        raise ValueError("measures.follow assigns what is neither known nor its own")
    body = [line if line not in local else f"const {line}" for line in lines]
    return "\n".join(
        [
            f"const NEVER = {measures.NEVER!r}, LEARNED = {measures.LEARNED!r};",
            f"const KNOWN = {json.dumps(known)}, BEGIN = {json.dumps(list(measures.BEGIN.values()))};",
            "function follow(n, loss, inside, K, o) {",
            "let " + ", ".join(f"{name} = K[o + {i}]" for i, name in enumerate(known)) + ";",
            *(f"{line};" for line in body),
            *(f"K[o + {i}] = {name};" for i, name in enumerate(known)),
            "}",
        ]
    )


def _statement(line: ast.Assign) -> str:
    target: Any = line.targets[0]
    return f"{target.id} = {_value(line.value)}"


def _value(node: Any) -> str:
    """The few kinds of expressions that `follow` is made of; raises ValueError for any other."""
    signs = {ast.Lt: "<", ast.Gt: ">", ast.GtE: ">=", ast.LtE: "<=", ast.Eq: "===", ast.BitAnd: "&&", ast.Sub: "-"}
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.IfExp):
        return f"({_value(node.test)} ? {_value(node.body)} : {_value(node.orelse)})"
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in signs:
        return f"({_value(node.left)} {signs[type(node.ops[0])]} {_value(node.comparators[0])})"
    if isinstance(node, ast.BinOp) and type(node.op) in signs:
        return f"({_value(node.left)} {signs[type(node.op)]} {_value(node.right)})"
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return f"(!{_value(node.operand)})"
    raise ValueError(f"cannot print {ast.unparse(node)!r} as JavaScript")
