"""Units of the product loss: what is left of its constants are four numbers.

For L = (L_1 + mu_1)(L_2 + mu_2) + alpha C with mechanisms of n_1 and n_2 vectors and a cost of n_c (letters count as
often as they occur), S_i = prod |x*| over the vectors of mechanism i, w the weights and l_i = w_i S_i^2 / 2,

    length = S_1^(1/n_1),        time = 1 / (w_1 w_2 length^(2 n_1 + 2 n_2 - 2)),
    r = S_2 / length^n_2,        m_i = mu_i / l_i,        kappa = alpha w_c length^(2 n_c - 2 n_1 - 2 n_2) / (w_1 w_2),

and gradient flow of x / length in t / time depends on r, m_1, m_2, kappa alone. For the paper's model, n_1 = n_2 = 3
and n_c = 2: length S_1^(1/3), time 1 / (w_1 w_2 S_1^(10/3)), r = S_2 / S_1, kappa = alpha w_c / (w_1 w_2 S_1^(8/3)).
Dimensional analysis is textbook (Buckingham 1914); which groups are left is new. Derived in `derivations/units.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import sympy as sp
import xarray as xr

from toymodel.checks import checked
from toymodel.model import Form, Model
from toymodel.presets import coopetition
from toymodel.reduction import symbols
from toymodel.simulation.problem import problem_of_start
from toymodel.start import aligned_start
from toymodel.theory.arrays import function

GROUPS = ("r", "m_icl", "m_ciwl", "kappa")


def group_expressions(form: Form) -> dict[str, sp.Expr]:
    """length, time and the four groups, in the symbols of `toymodel.symbols`.

    Arguments:
        form: that of a model with the mechanisms icl and ciwl, one cost and the loss of `toymodel.coopetition`.

    Returns:
        name -> expression, for length, time, r, m_icl, m_ciwl and kappa.

    Raises:
        ValueError for another model.

    Source: `derivations/units.py`.

    >>> from toymodel.presets import coopetition
    >>> group_expressions(coopetition().form)["r"]
    T_d/T_a
    """
    if set(form.mechanisms) != {"icl", "ciwl"} or form.expression != coopetition().form.expression:
        raise ValueError(f"the groups are those of the loss of tm.coopetition, got {form.expression}")
    planes, weights, parameters = symbols(form)
    products = {m: sp.prod([planes[x].target for x in letters]) for m, letters in form.mechanisms.items()}
    n1, n2, nc = (sp.Integer(len(form.terms[t])) for t in ("icl", "ciwl", *form.costs))
    length = products["icl"] ** (1 / n1)
    both = weights["icl"] * weights["ciwl"]
    cost = next(iter(form.costs))
    found = {
        "length": length,
        "time": 1 / (both * length ** (2 * n1 + 2 * n2 - 2)),
        "r": products["ciwl"] / length**n2,
        **{f"m_{m}": 2 * parameters[f"mu_{m}"] / (weights[m] * products[m] ** 2) for m in ("icl", "ciwl")},
        "kappa": parameters["alpha"] * weights[cost] * length ** (2 * nc - 2 * n1 - 2 * n2) / both,
    }
    return {name: sp.powsimp(value) for name, value in found.items()}


@checked
def groups(
    model: Model, start: xr.Dataset | None = None, *, weights: Mapping[str, Any] | None = None, **parameters: Any
) -> xr.Dataset:
    """The four groups r, m_icl, m_ciwl and kappa, and the units length and time, of every run.

    Arguments:
        model: one with the loss of `toymodel.coopetition`, letters of any number.
        start: its target norms are used; by default those of the model.
        weights, parameters: as in `toymodel.flow`.

    Returns:
        `length` (of vectors), `time` (of the flow), and the groups, which have no unit. Two systems with equal groups,
        starts in proportion to `length` and times in proportion to `time` are equal (tests: to 1e-9).

    Raises:
        ValueError for another loss.

    Source: `derivations/units.py`.

    >>> import toymodel as tm
    >>> found = groups(tm.coopetition())
    >>> {name: round(float(found[name]), 3) for name in ("r", "m_icl", "m_ciwl", "kappa")}
    {'r': 2.828, 'm_icl': 0.2, 'm_ciwl': 0.0, 'kappa': 0.1}
    """
    expressions = group_expressions(model.form)
    start = aligned_start(model, overlap=0.0) if start is None else start
    problem = problem_of_start(model, start, (), dict(weights or {}), parameters)
    flat = problem.batch.flat
    planes, symbols_of_weights, _ = symbols(model.form)
    values = {str(planes[x].target): flat(start["target_norm"].sel(vector=x, drop=True)) for x in model.vectors}
    values |= {str(symbols_of_weights[t]): flat(problem.weights[t]) for t in model.terms}
    values |= {p: flat(problem.parameters[p]) for p in model.form.parameters}
    blank = np.zeros(problem.batch.runs)
    return xr.Dataset(
        {name: problem.batch.labelled(function(value)(**values) + blank) for name, value in expressions.items()}
    )
