"""Expressions as functions of arrays: numpy's by numpy, JAX's by JAX, so that they run under jit, grad and vmap."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import numpy as np
import sympy as sp
from jax.core import Tracer

from toymodel.checks import check_values


@cache
def function(expression: sp.Expr) -> Callable[..., Any]:
    """The expression as a function of keyword arguments, one for each symbol's name; it ignores others."""
    names = sorted(map(str, expression.free_symbols))
    symbols = {str(s): s for s in expression.free_symbols}
    by = {kind: sp.lambdify([symbols[n] for n in names], expression, kind) for kind in ("numpy", "jax")}

    def values(**numbers: Any) -> Any:
        given = [numbers[n] for n in names]
        return by["jax" if any(isinstance(x, jax.Array) for x in given) else "numpy"](*given)

    return values


def within(expression: sp.Expr, *conditions: sp.Expr) -> sp.Expr:
    """The expression where all conditions hold, else NaN: one after the other, since arrays of several shapes meet."""
    for condition in conditions:
        expression = sp.Piecewise((expression, condition), (sp.nan, True))
    return expression


def check(name: str, value: Any, least: float = 0.0) -> None:
    """`toymodel.checks.check_values`, but for a value that jax.jit has not computed yet."""
    if not isinstance(value, Tracer):
        check_values(name, value, least)


def check_zero(name: str, value: Any, what: str) -> None:
    """Raises ValueError unless the value is zero where `what` needs that; one that is not computed yet passes."""
    if not isinstance(value, Tracer) and np.any(np.asarray(value) != 0):
        raise ValueError(f"{name} must be 0 for {what}, got {value}")
