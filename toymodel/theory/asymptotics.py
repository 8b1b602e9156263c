"""Which strategy is learned in the end, for alpha > 0 and without weight decay (`derivations/asymptotics.py`).

Nothing balances d/dt (|a|^2 + |d|^2 - |b|^2) = -8 alpha C, so at an equilibrium C = 0: a or d is zero. If bc is not,

    d = 0 needs L_icl = mu_icl = 0        and        a = 0 needs L_ciwl = mu_ciwl = 0.

So the signs of the two mu decide, and neither their sizes nor alpha: the only equilibria beside the plateau are CIWL
for mu_icl > 0 = mu_ciwl, ICL for mu_icl = 0 < mu_ciwl, both families for mu_icl = mu_ciwl = 0 (what is learned first
stays), and none for mu_icl, mu_ciwl > 0: bc grows without bound as t^(1/5), and C falls with both learned.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import sympy as sp
import xarray as xr

from toymodel.checks import checked
from toymodel.model import Model
from toymodel.presets import coopetition
from toymodel.reduction import symbols
from toymodel.simulation.problem import problem_of_start
from toymodel.theory import compiled as of
from toymodel.theory.weighted_sum import emergence

BOTH = "icl+ciwl"


@cache
def forces() -> dict[str, sp.Expr]:
    """What moves u_d where ICL is learned and d = 0 ("icl"), and u_a where CIWL is learned and a = 0 ("ciwl").

    No equilibrium, unless mu_icl (mu_ciwl) is zero. In the symbols of `toymodel.reduction.symbols`.
    """
    found = {}
    for strategy, own, other in (("icl", "a", "d"), ("ciwl", "d", "a")):
        found[strategy] = sp.factor(-sp.diff(of.loss(coopetition().form), _planes()[other].u).subs(learned(own, other)))
    return found


@cache
def spectrum(strategy: str) -> dict[sp.Expr, int]:
    """Eigenvalues (with multiplicities) of the flow at u_b = u_c = s where one strategy is learned, both mu = 0.

    All are real. Two are zero, along the family of equilibria (b and c), and six negative: the family attracts.
    """
    own, other = ("a", "d") if strategy == "icl" else ("d", "a")
    planes = _planes()
    s = sp.Symbol("s", positive=True)
    _, _, parameters = symbols(coopetition().form)
    ys = of.coordinates(coopetition().form)
    at = {**learned(own, other), parameters["mu_icl"]: 0, parameters["mu_ciwl"]: 0}
    rows = sp.hessian(of.loss(coopetition().form), ys).subs(at).subs({planes[x].u: s for x in "bc"})
    return {sp.factor(-value): count for value, count in rows.applyfunc(sp.factor).eigenvals().items()}


def learned(own: str, other: str) -> dict[Any, Any]:
    """The points at which the mechanism of `own` is learned, the vector `other` is zero and there are no residuals."""
    planes = _planes()
    whole = sp.prod([planes[x].target for x in (own, "b", "c")])
    residuals = {planes[x].v: 0 for x in "abcd"}
    return {**residuals, planes[other].u: 0, planes[own].u: whole / (planes["b"].u * planes["c"].u)}


@cache
def growth_of_shared() -> sp.Expr:
    """d(p^5)/dt, p = bc, where both are learned and p is large (mu_icl, mu_ciwl > 0): a constant.

    There |a|^2 + |d|^2 is small, so that |b|^2 = p falls short of nothing but the drift 8 alpha C, with C = w/2 S_icl^2
    S_ciwl^2 / p^4.
    """
    planes, weights, parameters = symbols(coopetition().form)
    p = sp.Symbol("p", positive=True)
    (balance,) = [b for b in coopetition().conserved() if not b.conserved]
    pair = [sp.prod([planes[x].target for x in letters]) / p for letters in ("abc", "dbc")]
    cost = weights["cost"] / 2 * pair[0] ** 2 * pair[1] ** 2
    rate = -balance.rate.subs({sp.Symbol("cost", nonnegative=True): cost, sp.Symbol("alpha"): parameters["alpha"]})
    return sp.factor(5 * p**4 * rate)


@checked
def asymptotic_strategy(
    model: Model, start: xr.Dataset, *, weights: Mapping[str, Any] | None = None, **parameters: Any
) -> xr.DataArray:
    """What is learned as t goes to infinity: the one equilibrium that attracts almost every run.

    Arguments:
        model, start, weights, parameters: as in `toymodel.flow`, for a model like the paper's with alpha > 0.

    Returns:
        "icl", "ciwl" or "icl+ciwl" for every run, as `toymodel.measure` says it. Exact for a generic start (one that
        does not lie on the stable set of the plateau, which has no volume), but for mu_icl = mu_ciwl = 0. There the
        strategy that escapes from the plateau first is taken (`tm.theory.emergence` for either), which is right in 93
        to 95 % of random sets (benchmarks/theory_asymptotics.py). How long it takes is another matter: see `lifetime`.

    Raises:
        ValueError for another model. Labelled numbers only: not for jax.jit.

    Source: `derivations/asymptotics.py`.

    >>> import toymodel as tm
    >>> model = tm.coopetition()  # mu_icl > 0 = mu_ciwl
    >>> asymptotic_strategy(model, tm.aligned_start(model, overlap=0.1)).item()
    'ciwl'
    """
    if of.letters(model) != ("a", "d", "b", "c") or model.form.expression != coopetition().form.expression:
        raise ValueError(f"the strategy is derived for the loss of tm.coopetition, got {model.form.expression}")
    problem = problem_of_start(model, start, (), dict(weights or {}), parameters)
    alpha, mu_icl, mu_ciwl = (problem.batch.flat(problem.parameters[p]) for p in ("alpha", "mu_icl", "mu_ciwl"))
    if (alpha <= 0).any():
        raise ValueError(f"alpha must be > 0, got {alpha.min():g}")
    label = np.select(
        [(mu_icl > 0) & (mu_ciwl > 0), mu_icl > 0, mu_ciwl > 0], [BOTH, "ciwl", "icl"], default="start decides"
    )
    if (label == "start decides").any():
        label = np.where(label == "start decides", _first(problem, model, start, parameters), label)
    return problem.batch.labelled(label)


def _first(problem: Any, model: Model, start: xr.Dataset, parameters: Mapping[str, Any]) -> np.ndarray:
    """The strategy whose plateau ends first, by the weighted sum of the losses; where that says no time for either, the
    one of the larger k_m / T_m, which is ICL if the target of d is longer than that of a."""
    weights = {t: problem.weights[t] for t in model.form.terms}
    nothing = {**parameters, "mu_icl": 0.0, "mu_ciwl": 0.0}
    icl, ciwl = (
        np.nan_to_num(
            problem.batch.flat(emergence(model, start, mechanism=m, weights=weights, **nothing)["frozen"]), nan=np.inf
        )
        for m in ("icl", "ciwl")
    )
    a, d = (problem.batch.flat(start["target_norm"].sel(vector=x, drop=True)) for x in "ad")
    return np.where((icl < ciwl) | ((icl == ciwl) & (d > a)), "icl", "ciwl")


def _planes() -> dict[str, Any]:
    return symbols(coopetition().form)[0]
