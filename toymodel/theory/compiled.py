"""A model and its start as plain numbers: what the numerical parts of the theory are made of.

The coordinates of a state are y = (u_x, ..., v_x, ...) in the order of the model's vectors; the constants of a run are
its target norms, weights and parameters. Slope, Hessian and any other expression come from `toymodel.symbolic`,
compiled once for each form of loss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import sympy as sp
import xarray as xr

from toymodel.model import Form, Model
from toymodel.simulation.problem import Problem, problem_of_start
from toymodel.symbolic import System

Compiled = Callable[..., Any]


def coordinates(form: Form) -> list[sp.Symbol]:
    """u_x of all vectors, then v_x."""
    return System(form).coordinates


def constants(form: Form) -> list[sp.Symbol]:
    """Target norms, weights and parameters, in the order of `constants_of`."""
    return System(form).constants


@cache
def loss(form: Form) -> sp.Expr:
    """The reduced loss in symbols."""
    return System(form).reduced_loss


@cache
def margins(form: Form) -> dict[str, sp.Expr]:
    """For each mechanism its loss in units of the unlearned one, minus one half: negative once it is learned."""
    return System(form).margins


def compiled(form: Form, expressions: Any) -> Compiled:
    """A function of coordinates and constants (numbers, one after the other) that computes the expressions."""
    return System(form).function(expressions)


def slope(form: Form) -> Compiled:
    """dL/dy."""
    return compiled(form, System(form).slope)


def hessian(form: Form) -> Compiled:
    """d2L/dy2, a list of rows."""
    return compiled(form, System(form).jacobian)


def margin(form: Form, mechanism: str) -> Compiled:
    """The margin of one mechanism (see `margins`)."""
    return compiled(form, margins(form)[mechanism])


def constants_of(problem: Problem, start: xr.Dataset) -> np.ndarray:
    """The constants of every run, shape (runs, constants)."""
    form, flat = problem.model.form, problem.batch.flat
    norms = [flat(start["target_norm"].sel(vector=x, drop=True)) for x in form.vectors]
    weights = [flat(problem.weights[t]) for t in form.terms]
    return np.stack([*norms, *weights, *(flat(problem.parameters[p]) for p in form.parameters)], -1)


def states_of(problem: Problem, start: xr.Dataset) -> np.ndarray:
    """The coordinates of every run, shape (runs, coordinates)."""
    names = ("overlap", "residual")
    vectors = problem.model.form.vectors
    return np.stack([problem.batch.flat(start[name].sel(vector=x, drop=True)) for name in names for x in vectors], -1)


def prepared(
    model: Model, start: xr.Dataset, weights: Mapping[str, Any] | None, parameters: Mapping[str, Any]
) -> tuple[Problem, np.ndarray, np.ndarray]:
    """The problem of a start with its states and constants."""
    problem = problem_of_start(model, start, (), dict(weights or {}), parameters)
    return problem, states_of(problem, start), constants_of(problem, start)


def letters(model: Model) -> tuple[str, str, str, str]:
    """The letters a, d, b, c of a model like the paper's: icl = a b c, ciwl = d b c, and a cost of a and d."""
    icl, ciwl = (model.mechanisms.get(m, "") for m in ("icl", "ciwl"))
    shared = [x for x in icl if x in ciwl]
    private: Sequence[str] = [x for x in icl + ciwl if x not in shared]
    pairs = [sorted(x) for x in model.costs.values()]
    if len(model.mechanisms) != 2 or len(set(icl)) != 3 or len(shared) != 2 or pairs != [sorted(private)]:
        raise ValueError(
            "the model must be one like tm.coopetition: mechanisms icl = abc and ciwl = dbc and one cost ad, got "
            f"{dict(model.terms)}"
        )
    return private[0], private[1], shared[0], shared[1]
