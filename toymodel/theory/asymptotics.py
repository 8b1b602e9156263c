"""Which strategy is learned in the end, for alpha > 0 and without weight decay (`derivations/asymptotics.py`).

Nothing balances d/dt (|a|^2 + |d|^2 - |b|^2) = -8 alpha C, so at an equilibrium C = 0: a or d is zero. If bc is not,

    d = 0 needs L_icl = mu_icl = 0        and        a = 0 needs L_ciwl = mu_ciwl = 0.

So the signs of the two mu decide, and neither their sizes nor alpha: the only equilibria beside the plateau are CIWL
for mu_icl > 0 = mu_ciwl, ICL for mu_icl = 0 < mu_ciwl, both families for mu_icl = mu_ciwl = 0 (what is learned first
stays), and none for mu_icl, mu_ciwl > 0: bc grows without bound as t^(1/5), and C falls with both learned.

Where the start decides, the boundary between the two ends is to first order (`boundary`, small alpha, no residuals)

    |a*| a - |d*| d + (|d*|^2 - |a*|^2) theta = 0,      theta: scale at which both are learned, a = theta |a*|.
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
from toymodel.theory.ahead import ahead
from toymodel.theory.weighted_sum import Constants

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


@cache
def boundary() -> tuple[sp.Expr, sp.Expr]:
    """The boundary of the two ends for mu_icl = mu_ciwl = 0, in u_x, |x*| and theta, to first order.

    Returns:
        Positive on the side of ICL (for bc > 0; otherwise a and d count with the other sign); and what theta makes
        zero: the scale a = theta |a*|, d = theta |d*| at which both are learned, as the balances of the start reach it.
        Range: alpha -> 0, no residuals, and a start at which abc and dbc are much smaller than their targets.
    """
    planes, theta = _planes(), sp.Symbol("theta", positive=True)
    u, t = ({x: getattr(planes[x], part) for x in "abcd"} for part in ("u", "target"))
    side = t["a"] * u["a"] - t["d"] * u["d"] + (t["d"] ** 2 - t["a"] ** 2) * theta
    gained = theta**2 * (t["a"] ** 2 + t["d"] ** 2) - u["a"] ** 2 - u["d"] ** 2
    meets = (u["b"] ** 2 + gained) * (u["c"] ** 2 + gained) * theta**2 - (t["b"] * t["c"]) ** 2
    return side, meets


def side_of_boundary(start: xr.Dataset) -> xr.DataArray:
    """`boundary` at a start: positive on the side of ICL; the overlaps only, whatever the residuals."""
    u, t = ({x: start[n].sel(vector=x, drop=True) for x in "abcd"} for n in ("overlap", "target_norm"))
    sign = xr.where(u["b"] * u["c"] < 0, -1.0, 1.0)
    arrays = xr.broadcast(sign * u["a"], u["b"], u["c"], sign * u["d"], *(t[x] for x in "abcd"))
    values = [a.values for a in arrays]
    planes = _planes()
    symbols_ = [planes[x].u for x in "abcd"] + [planes[x].target for x in "abcd"]
    side, meets = (sp.lambdify([*symbols_, sp.Symbol("theta", positive=True)], e) for e in boundary())
    a, b, c, d, ta, _, _, td = values
    least = np.sqrt(np.maximum(a**2 + d**2 - np.minimum(b**2, c**2), 0) / (ta**2 + td**2))
    low, high = least, least + 1.0
    for _ in range(60):
        high = np.where(meets(*values, high) < 0, 2 * high, high)
    for _ in range(60):
        middle = (low + high) / 2
        below = meets(*values, middle) < 0
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return arrays[0].copy(data=side(*values, low))


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
        strategy that is ahead when the plateau ends is taken (`toymodel.theory.ahead`): an estimate. It is right in
        95.8 % of 2,508 random sets (benchmarks/theory_asymptotics.py), where |d*| > |a*| alone is right in 91 %. How
        long it takes is another matter: see `lifetime`.

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
    open_ = label == "start decides"
    if open_.any():
        label[open_] = _ahead(problem, start, open_)
    return problem.batch.labelled(label)


def _ahead(problem: Any, start: xr.Dataset, runs: np.ndarray) -> np.ndarray:
    """What is ahead when the plateau ends; where that is not known, the one that is driven more (`derivations/`
    `asymptotics.md`): ICL if the target of d is longer than that of a."""
    form = problem.model.form
    n, t, numbers = len(form.vectors), len(form.terms), of.constants_of(problem, start)[runs].T
    norms = dict(zip(form.vectors, numbers[:n], strict=True))
    weights = dict(zip(form.terms, numbers[n : n + t], strict=True))
    parameters = dict(zip(form.parameters, numbers[n + t :], strict=True))
    place = ahead(form, of.states_of(problem, start)[runs].T, Constants(norms, weights, parameters))
    driven = np.where(norms["d"] > norms["a"], "icl", "ciwl")
    return np.where(place < 0, driven, np.array(list(form.mechanisms))[place])


def _planes() -> dict[str, Any]:
    return symbols(coopetition().form)[0]
