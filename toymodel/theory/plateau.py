"""The plateau: what moves while nothing is learned, and at which rates.

On the plateau nothing is learned, and the slope of the loss in each term t is that at the unlearned losses, e_t. What
moves the coordinates then has constant coefficients (`derivations/plateau.py`),

    u_x' = sum_m k_m prod_{y in m, y != x} u_y - g_x u_x,    v_x' = - g_x v_x,
    g_x = sum_t h_t prod_{y in t, y != x} |y|^2,

the drive k_m = e_m w_m prod |x*| and the damping h_t = e_t w_t. `coefficients` derives them from the loss of a model,
`rates` are their numbers. When the plateau ends is in `toymodel.theory.weighted_sum`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import sympy as sp
import xarray as xr

from toymodel.checks import checked
from toymodel.model import Form, FrozenDict, Model
from toymodel.reduction import cost_loss, mechanism_loss, symbols, unlearned_loss
from toymodel.simulation.problem import Problem, problem_of_start


@cache
def coefficients(form: Form) -> tuple[FrozenDict[sp.Expr], FrozenDict[sp.Expr]]:
    """Drive k_m of each mechanism and damping h_t of each term while nothing is learned.

    Arguments:
        form: of a model (`model.form`).

    Returns:
        Two mappings, mechanism -> k_m = e_m w_m S_m and term -> h_t = e_t w_t, in the symbols of
        `toymodel.symbols`, with e_t the slope of the loss in the term at the unlearned losses.

    Source: `derivations/plateau.py`.

    >>> import toymodel as tm
    >>> drive, damping = coefficients(tm.induction().form)
    >>> drive["icl"], damping["icl"]
    (T_a*T_b*T_c*w_icl, w_icl)
    """
    planes, weights, _ = symbols(form)
    parts = {t: [planes[x] for x in letters] for t, letters in form.terms.items()}
    unlearned = {t: unlearned_loss(parts[t], weights[t]) if t in form.mechanisms else 0 for t in form.terms}
    names = {t: sp.Symbol(t, nonnegative=True) for t in form.terms}
    drive, damping = {}, {}
    for t in form.terms:
        slope = sp.diff(form.expression, names[t]).subs({names[s]: value for s, value in unlearned.items()})
        loss = (mechanism_loss if t in form.mechanisms else cost_loss)(parts[t], weights[t])
        us, vs = [p.u for p in parts[t]], [p.v for p in parts[t]]
        polynomial = sp.Poly(loss, *dict.fromkeys([*us, *vs]))  # a vector may stand twice in a term
        damping[t] = sp.factor(2 * slope * polynomial.coeff_monomial(sp.prod(v**2 for v in vs)))
        if t in form.mechanisms:
            drive[t] = sp.factor(-slope * polynomial.coeff_monomial(sp.prod(us)))
    return FrozenDict(drive), FrozenDict(damping)


@checked
def rates(
    model: Model, start: xr.Dataset, *, weights: Mapping[str, Any] | None = None, **parameters: Any
) -> xr.Dataset:
    """The coefficients of `coefficients` for every run.

    Arguments:
        model, start, weights, parameters: as in `toymodel.descend`.

    Returns:
        `drive` along `mechanism` and `damping` along `term`, per unit of time. Exact: they are definitions; what they
        predict holds on the plateau.

    Raises:
        ValueError for a start that does not fit the model.

    Source: `derivations/plateau.py`.

    >>> import toymodel as tm
    >>> model = tm.induction((4, 4, 4))  # w = 1/64, S = 8
    >>> float(rates(model, tm.aligned_start(model, overlap=0.1)).drive.sel(mechanism="icl"))
    0.125
    """
    problem = problem_of_start(model, start, (), dict(weights or {}), parameters)
    drive, damping = numbers_of(problem, start)

    def stacked(values: Mapping[str, np.ndarray], dim: str) -> xr.DataArray:
        index = xr.DataArray(list(values), dims=dim, name=dim)
        return xr.concat([problem.batch.labelled(v) for v in values.values()], index).transpose(..., dim)

    return xr.Dataset({"drive": stacked(drive, "mechanism"), "damping": stacked(damping, "term")})


def parts_of(model: Model) -> tuple[str, str, str, str | None]:
    """Private letters of icl and of ciwl, the shared letters, and the name of the cost of a private pair."""
    if set(model.mechanisms) != {"icl", "ciwl"}:
        raise ValueError(f"the model must have the mechanisms icl and ciwl, got {list(model.mechanisms)}")
    icl, ciwl = model.mechanisms["icl"], model.mechanisms["ciwl"]
    shared = "".join(x for x in icl if x in ciwl)
    privates = ["".join(x for x in letters if x not in shared) for letters in (icl, ciwl)]
    if len(set(icl)) < len(icl) or len(set(ciwl)) < len(ciwl):
        raise ValueError(f"a mechanism holds a vector twice, which the theory does not cover: {dict(model.mechanisms)}")
    for letters in model.costs.values():
        if (
            len(model.costs) > 1
            or sorted(x in privates[0] for x in letters) != [False, True]
            or set(letters) & set(shared)
        ):
            raise ValueError(
                f"costs must be one pair of a private vector of icl and one of ciwl, got {dict(model.costs)}"
            )
    return privates[0], privates[1], shared, next(iter(model.costs), None)


def numbers_of(problem: Problem, start: xr.Dataset) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Drive and damping of every run, shape (runs,)."""
    form = problem.model.form
    planes, weights, parameters = symbols(form)
    given = {
        **{planes[x].target: start["target_norm"].sel(vector=x, drop=True) for x in form.vectors},
        **{weights[t]: problem.weights[t] for t in form.terms},
        **{parameters[p]: problem.parameters[p] for p in form.parameters},
    }
    values = [problem.batch.flat(value) for value in given.values()]
    blank = np.zeros(problem.batch.runs)
    return tuple(  # type: ignore[return-value]
        {name: sp.lambdify(list(given), expression, "numpy")(*values) + blank for name, expression in part.items()}
        for part in coefficients(form)
    )
