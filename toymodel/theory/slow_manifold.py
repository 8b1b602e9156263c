"""The slow manifold after the emergence of ICL as a plane: p = bc and d, without residuals, b = c (mu_ciwl = 0).

On abc = S_icl the loss slides down within the manifold: with g the gradient of abc in (a, b, c, d),

    d(a, b, c, d)/dt = -dL/dx + g (g . dL/dx) / g^2        at a = S_icl/p, b = c = sqrt(p),

an autonomous flow of p and d. It holds while ICL keeps its product; where CIWL is learned too, the equilibria of a and
d for a given p fold (`toymodel.theory.transience.fold`) and ICL ends. Drawn by `figures/theory_portrait.py`.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import sympy as sp

from toymodel.checks import checked
from toymodel.model import Model
from toymodel.reduction import symbols
from toymodel.theory import compiled as of
from toymodel.theory.arrays import check, check_zero, function
from toymodel.theory.transience import MISSING, balance, fold, form, target


@cache
def velocity() -> tuple[sp.Expr, sp.Expr]:
    """d(bc)/dt and dd/dt on the manifold, in p and the symbols of `toymodel.reduction.symbols`."""
    planes, _, parameters = symbols(form())
    u, p = {x: planes[x].u for x in "abcd"}, MISSING[2]
    aligned = {planes[x].v: 0 for x in "abcd"} | {parameters["mu_ciwl"]: 0}
    made = u["a"] * u["b"] * u["c"]
    slope, across = (sp.Matrix([sp.diff(f, u[x]) for x in "abcd"]) for f in (of.loss(form()).subs(aligned), made))
    flow = across * across.dot(slope) / across.dot(across) - slope
    on = {u["a"]: target("abc") / p, u["b"]: sp.sqrt(p), u["c"]: sp.sqrt(p)}
    return sp.factor((2 * sp.sqrt(p) * flow[1]).subs(on)), sp.factor(flow[3].subs(on))


@checked
def slow_flow(model: Model, p: Any, d: Any, **parameters: Any) -> tuple[Any, Any]:
    """The velocity of p = bc and d on the plane on which ICL fades, for a model like the paper's with mu_ciwl = 0.

    Arguments:
        model: target norms and weights.
        p, d, parameters: numbers or arrays (numpy or JAX) that broadcast; p > 0.

    Returns:
        dp/dt and dd/dt. Range: abc = S_icl, that is as long as ICL restores it faster than the cost takes it.

    Raises:
        ValueError for another model.

    Source: `derivations/lifetime.py`.

    >>> import toymodel as tm
    >>> dp, dd = slow_flow(tm.coopetition(), 1.0, 0.0)
    >>> float(dp) == 0.0, float(dd) > 0.0  # without d nothing competes; mu_icl drives d
    (True, True)
    """
    planes, _, _ = symbols(form())
    values = {**_numbers(model, parameters), str(MISSING[2]): p, str(planes["d"].u): d}
    one, other = (function(v)(**values) for v in velocity())
    return one, other


@checked
def coexisting(model: Model, missing: Any, **parameters: Any) -> Any:
    """The p = bc at which a and d are in equilibrium with both strategies learned.

    Arguments:
        model: like the paper's, with mu_ciwl = 0.
        missing: the share of abc/S_icl that is missing, and the parameters: numbers or arrays (numpy or JAX) that
            broadcast.

    Returns:
        p. Its maximum over `missing` is the fold; with less missing the equilibrium is stable, with more unstable. To
        leading order in what is missing and in a^2/p, d^2/p.

    Raises:
        ValueError for another model.

    Source: `derivations/lifetime.py`.

    >>> import numpy as np, toymodel as tm
    >>> model = tm.coopetition()
    >>> p = coexisting(model, np.linspace(0.01, 0.99, 99))
    >>> bool(abs(p.max() / end_of_coexistence(model) - 1) < 0.01)
    True
    """
    values = _numbers(model, parameters)
    return function(balance()[0])(**values, e1=missing * function(target("abc"))(**values)) ** 0.25


@checked
def end_of_coexistence(model: Model, **parameters: Any) -> Any:
    """The largest p = bc at which ICL and CIWL can both be learned: the fold of `coexisting`.

    Arguments:
        model: like the paper's, with mu_ciwl = 0.
        parameters: numbers or arrays (numpy or JAX).

    Returns:
        p, to leading order in a^2/p and d^2/p. Coexistence needs more than `toymodel.theory.transience.least_fold`.

    Raises:
        ValueError for another model.

    Source: `derivations/lifetime.py`.

    >>> import toymodel as tm
    >>> model = tm.coopetition()
    >>> [bool(end_of_coexistence(model) > coexisting(model, missing)) for missing in (0.1, 0.9)]
    [True, True]
    """
    return function(fold())(**_numbers(model, parameters))


def _numbers(model: Model, parameters: dict[str, Any]) -> dict[str, Any]:
    """Target norms, weights and parameters under the names of their symbols."""
    if of.letters(model) != ("a", "d", "b", "c") or model.form.expression != form().expression:
        raise ValueError(f"the slow flow is derived for the loss of tm.coopetition, got {model.form.expression}")
    given = {**model.parameters, **parameters}
    if unknown := set(given) - set(model.parameters):
        raise ValueError(f"unknown parameter {sorted(unknown)[0]!r}; the model has {sorted(model.parameters)}")
    for name, value in given.items():
        check(name, value)
    check_zero("mu_ciwl", given["mu_ciwl"], "the slow flow")
    planes, weights, _ = symbols(form())
    values = {str(planes[x].target): norm for x, norm in model.target_norms.items()}
    values |= {str(weights[t]): weight for t, weight in model.weights.items()}
    return values | given
