"""The lifetime of ICL: how long it stays learned before competition ends it (mu_ciwl = 0).

After its emergence ICL sits on a slow manifold, abc = S_icl, on which only the cost alpha C makes |a|^2 + |d|^2 - |b|^2
drift, at -8 alpha C. Four stages follow one another (`derivations/lifetime.py`), and their times add up:

    lifetime = A alpha / mu_icl^2  +  relaxation  +  B alpha^(1/4) / mu_icl^(15/8)  +  C / alpha

`drift`: d is held near zero by the cost, and a falls until CIWL can start; `relaxation`: CIWL is learned, on the orbit
of alpha = 0; `coexistence`: both are learned, and the manifold is followed to its fold, beyond which no state balances
the pull of the cost; it is left out where that fold leaves no room for it (`least_fold`); `decay`: the cost takes a
down. The first and the third vanish for large mu_icl, the last for small. C is that of small mu_icl, to leading order:
at the paper's dimensions the exact stage is 1.1 C there, and up to 1.7 C for mu_icl of 0.1 to 1.
Range: overlaps that are small and positive at the start, b and c of equal length, residuals zero, alpha small
against the rates of learning. Any other start is followed in four numbers (`toymodel.theory.fading`). Errors:
`lifetime`. Numbers only, by scipy: nothing here runs under jax.jit.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import sympy as sp
import xarray as xr
from scipy.integrate import solve_ivp
from scipy.optimize import brentq

from toymodel.checks import checked
from toymodel.model import Model
from toymodel.presets import coopetition
from toymodel.reduction import cost_loss, symbols, terms
from toymodel.theory import compiled as of
from toymodel.theory import fading
from toymodel.theory.arrays import function
from toymodel.theory.fading import STAGES, form
from toymodel.theory.quadrature import SHARE
from toymodel.theory.units import groups

LEFT = SHARE  # of abc/S_icl at which ICL is no longer learned
MISSING = sp.symbols("e1 e2 p", positive=True)  # what is missing of abc and of dbc, and p = bc
TINY = 1e-300
LEAST_R, MOST_R = 2.0, 5.0  # of r = S_ciwl / S_icl, outside of which the lifetime is NaN
MOST_KAPPA, MOST_M = 0.3, 2.0  # of the groups kappa and m_icl, to which the stages were measured
# Chosen on the seed 901 of theory_ranges.py:
MOST_BEGUN = 0.5  # overlap of a start, over S_icl^(1/3): the stages are those of small starts
NO_ROOM, ROOM = 0.9, 1.25  # fold / least_fold, between which the stages cannot tell
FOUND = 0.999  # the share of abc/S_icl at which the emergence counts as complete


@cache
def slaved_overlap() -> sp.Expr:
    """u_d on the slow manifold abc = S_icl without residuals, from dL/du_d = 0."""
    planes, _, _ = symbols(form())
    slope = sp.diff(of.loss(form()), planes["d"].u).subs({planes[x].v: 0 for x in "abcd"})
    on_manifold = {planes["a"].u: target("abc") / (planes["b"].u * planes["c"].u)}
    return _factor(sp.solve(sp.expand(slope.subs(on_manifold)), planes["d"].u)[0])


@cache
def drift_rate() -> sp.Expr:
    """d/dt (|a|^2 + |d|^2 - |b|^2) by the cost alone, in the coordinates, without residuals."""
    planes, weights, _ = symbols(form())
    (balance,) = [b for b in coopetition().conserved() if not b.conserved]
    cost = cost_loss([planes["a"], planes["d"]], weights["cost"]).subs({planes[x].v: 0 for x in "ad"})
    return sp.expand(balance.rate.subs(sp.Symbol("cost", nonnegative=True), cost))


@cache
def drift_prefactor() -> sp.Expr:
    """A in A alpha / mu_icl^2: the time of drift to leading order in mu_icl / alpha, with u_b = u_c.

    It depends on `a0`, the overlap of a where the drift begins; a0^3 = S_icl if d is zero there.
    """
    planes, _, parameters = symbols(form())
    a, a0 = planes["a"].u, sp.Symbol("a0", positive=True)
    side = sp.sqrt(target("abc") / a)
    manifold = {planes["b"].u: side, planes["c"].u: side}
    mu, alpha = parameters["mu_icl"], parameters["alpha"]
    leading = sp.limit(slaved_overlap().subs(manifold) / mu, mu, 0) * mu
    per_a = sp.diff(a**2 - side**2, a) / -drift_rate().subs({planes["d"].u: leading})
    return _factor(sp.integrate(sp.expand(sp.simplify(per_a * mu**2 / alpha)), (a, 0, a0)))


@cache
def balance() -> tuple[sp.Expr, sp.Expr]:
    """Where both mechanisms are learned: p^4 as a function of e1, and e2 as a function of e1 and p, in equilibrium.

    e1 = S_icl - abc and e2 = S_ciwl - dbc are what is missing, and p = bc. The cost is balanced by the mechanisms in
    the slopes of d and of a, to leading order in e1 and e2; p itself drifts.
    """
    planes, _, parameters = symbols(form())
    e1, e2, p = MISSING
    slopes = {}
    for x in "ad":
        whole = sp.diff(of.loss(form()), planes[x].u).subs(
            {planes[y].v: 0 for y in "abcd"} | {parameters["mu_ciwl"]: 0}
        )
        held = whole.subs(parameters["alpha"], 0)
        near = {planes["c"].u: p / planes["b"].u, planes["a"].u: (target("abc") - e1) / p}
        near |= {planes["d"].u: (target("dbc") - e2) / p}
        learned = {planes["c"].u: p / planes["b"].u, planes["a"].u: target("abc") / p, planes["d"].u: target("dbc") / p}
        slopes[x] = _factor(held.subs(near)) + _factor((whole - held).subs(learned))
    missing = sp.solve(slopes["d"], e2)[0]
    fourth = sp.solve(sp.numer(sp.together(slopes["a"].subs(e2, missing))), p**4)
    return _factor(fourth[0]), _factor(missing)


@cache
def forces() -> tuple[sp.Expr, sp.Expr]:
    """What holds abc and dbc where both are learned: f and g in f grad(abc) + g grad(dbc) - alpha grad(C), b = c.

    They keep both products against the cost. Each also moves b and c, and so the other product.
    """
    planes, weights, parameters = symbols(form())
    p, u = MISSING[2], [planes[x].u for x in "abcd"]
    cost = parameters["alpha"] * terms(form(), planes, weights)["cost"]
    across = [sp.Matrix([sp.diff(y, x) for x in u]) for y in (u[0] * u[1] * u[2], u[3] * u[1] * u[2])]
    pull = sp.Matrix([sp.diff(cost, x) for x in u])
    gram = sp.Matrix(2, 2, lambda i, j: across[i].dot(across[j]))
    on = {planes["a"].u: target("abc") / p, planes["d"].u: target("dbc") / p, planes["b"].u: sp.sqrt(p)}
    on |= {planes["c"].u: sp.sqrt(p)} | {planes[x].v: 0 for x in "abcd"}
    found = gram.subs(on).LUsolve(sp.Matrix([g.dot(pull) for g in across]).subs(on))
    return _factor(found[0]), _factor(found[1])


@cache
def crowding() -> sp.Expr:
    """What p^4 of `balance` is multiplied by if a^2 and d^2 are not neglected against p: 1 for large p.

    `balance` asks for g^2 / f = 2 w_ciwl (mu_icl + w_icl e1^2 / 2)^2 / (w_icl e1), and p^4 is where f and g are those
    of large p. For S_ciwl > S_icl it falls to zero at p^3 = 2 (S_ciwl^2 - S_icl^2), where ICL's hold on b and c does
    for d all that the cost takes: below that nothing balances CIWL.
    """
    p = MISSING[2]
    ratio = forces()[1] ** 2 / forces()[0]
    return _factor(ratio * p**4 / sp.limit(ratio * p**4, p, sp.oo))


def least_fold(numbers: Mapping[str, float]) -> float:
    """The smallest `fold` that leaves room for coexistence, the least p / crowding^(1/4) over all p with f, g > 0.

    numbers: values of the symbols, by name. At the paper's dimensions 99.7; 0 for S_icl >= S_ciwl, where e1 can be as
    small as is needed.
    """
    if numbers["T_a"] >= numbers["T_d"]:
        return 0.0
    size = (numbers["T_b"] * numbers["T_c"]) ** 2 * (numbers["T_a"] ** 2 + numbers["T_d"] ** 2)
    p = np.geomspace(0.01, 100, 20_001) * size ** (1 / 3)
    held = np.all([function(f)(**{**numbers, "alpha": 1.0, "p": p}) > 0 for f in forces()], axis=0)
    ratio = np.where(held, function(crowding())(**{**numbers, "p": p}), TINY)
    return float((p / ratio**0.25).min())


@cache
def hold() -> sp.Expr:
    """The rate at which ICL restores abc, L_ciwl w_icl |grad(abc)|^2, without residuals."""
    planes, weights, _ = symbols(form())
    made = sp.prod([planes[x].u for x in "abc"])
    square = sp.Add(*(sp.diff(made, planes[x].u) ** 2 for x in "abc"))
    loss = sp.sympify(terms(form(), planes, weights)["ciwl"]).subs({planes[x].v: 0 for x in "abcd"})
    return loss * weights["icl"] * square


@cache
def pull() -> sp.Expr:
    """The rate at which the cost takes a down, in u_d, without residuals."""
    planes, weights, parameters = symbols(form())
    cost = sp.sympify(terms(form(), planes, weights)["cost"]).subs({planes[x].v: 0 for x in "ad"})
    return parameters["alpha"] * sp.cancel(sp.diff(cost, planes["a"].u) / planes["a"].u)


@cache
def remaining() -> sp.Expr:
    """abc/S_icl at rest where CIWL is learned and mu_ciwl > 0 holds ICL: R / (1 + R), R = mu_ciwl w_icl p^2 / pull.

    ICL counts as learned for R > sqrt(2) - 1. Range: p moves slowly, alpha as for the lifetime.
    """
    planes, _, _ = symbols(form())
    p = MISSING[2]
    learned = {planes["c"].u: p / planes["b"].u, planes["d"].u: target("dbc") / p}
    slope = sp.diff(of.loss(form()), planes["a"].u).subs({planes[x].v: 0 for x in "abcd"}).subs(learned)
    (rest,) = sp.solve(sp.expand(slope), planes["a"].u)
    return _factor(rest * p / target("abc"))


@cache
def fold() -> sp.Expr:
    """The p = bc at which the slow manifold of both mechanisms folds: the largest p at which the cost is balanced.

    Below it a has an equilibrium against the pull of the cost; p grows on the manifold until it meets the fold. To
    leading order in a^2/p and d^2/p.
    """
    e1 = MISSING[0]
    fourth, _ = balance()
    (turn,) = sp.solve(sp.numer(sp.together(sp.diff(fourth, e1))), e1)
    return sp.powdenest(sp.simplify(fourth.subs(e1, turn)), force=True) ** sp.Rational(1, 4)


@cache
def coexistence() -> sp.Expr:
    """The time on the manifold of both mechanisms, from p0 to p, in the symbols p0 and p."""
    planes, _, _ = symbols(form())
    p, start = MISSING[2], sp.Symbol("p0", positive=True)
    a, d = target("abc") / p, target("dbc") / p
    per_p = sp.diff(a**2 + d**2 - p, p) / drift_rate().subs({planes["a"].u: a, planes["d"].u: d})
    return _factor(sp.integrate(sp.expand(per_p), (p, start, p)))


@cache
def both_learned() -> sp.Expr:
    """p = bc where both mechanisms are learned, from a small start.

    There the conserved |a|^2 + |d|^2 - |b|^2 is zero; with S_icl / p for a and S_ciwl / p for d this is
    (S_icl^2 + S_ciwl^2)^(1/3).
    """
    return (target("abc") ** 2 + target("dbc") ** 2) ** sp.Rational(1, 3)


@cache
def decay_prefactor() -> sp.Expr:
    """C in C / alpha for small mu_icl, with d held by CIWL at its value when both mechanisms are learned.

    The logarithm is that of the share of abc that is lost when ICL ends.
    """
    planes, _, parameters = symbols(form())
    per_time = pull().subs(planes["d"].u, target("dbc") / both_learned())
    return sp.simplify(-sp.log(LEFT) * parameters["alpha"] / per_time)


def target(letters: str) -> sp.Expr:
    """S, the product of the target norms."""
    planes, _, _ = symbols(form())
    return sp.sympify(sp.prod(planes[x].target for x in letters))


@checked
def lifetime(
    model: Model, start: xr.Dataset, *, weights: Mapping[str, Any] | None = None, **parameters: Any
) -> xr.Dataset:
    """How long ICL stays learned before competition ends it, for every run: the sum of four parts.

    Arguments:
        model, start, weights, parameters: as in `toymodel.descend`, for a model like the paper's with mu_ciwl = 0,
            mu_icl > 0 and alpha > 0.

    Returns:
        `lifetime` and its parts `drift`, `relaxation`, `coexistence` and `decay`, in units of time (steps x step size).

    Starts without residuals, with b and c of one length and all overlaps > 0: the parts are the laws above. NaN where
    ICL does not emerge on the orbit of alpha = 0, and where r = S_ciwl / S_icl (`tm.theory.groups`) is below 2 or above
    5: at r = 1 both are learned for long with much missing of each, and the error is a factor of 2.7 in the median; it
    is 21 % for r of 1.4 to 1.7, and up to 60 %. Measured over the groups (benchmarks/theory_lifetime.py groups): r
    2..5, m_icl 2e-4..2, kappa 3e-3..0.3, overlaps of 0.003..0.1 lengths: by seed a median error of 4.5 or 4.9 %,
    in 95 % of points below 12 or 15 %, at most 20 %. At the paper's dimensions, from overlaps of 0.1: for mu_icl
    1e-4..1 and alpha 3e-3..0.3 a median error of 3 %, in 95 % of points below 10 %, at most 20 %; below, down to
    1e-5, 1 %, 3.5 % and 14 %.

    Any other start, standard normal ones among them, those at which a mechanism is learned or an overlap is above half
    of S_icl^(1/3), kappa above 0.3 or m_icl above 2, and where the fold is within 0.9..1.25 of the least that leaves
    room for coexistence (near alpha / mu_icl^(3/2) = 2,700 at the paper's dimensions, where the stages are wrong by up
    to 48 %): the parts are cuts of one orbit of four numbers, which is integrated (`toymodel.theory.fading`). NaN where
    `tm.theory.emergence` has no time or its pace is above 2, kappa is above 1, the cost takes a faster than ICL
    restores it from the first, CIWL is learned before ICL is complete, or abc grows beyond 1.5 S_icl, where ICL may be
    lost for passing its target. Scored on seeds on which nothing was chosen (benchmarks/theory_lifetime.py normal,
    spread, unequal): standard normal starts at the paper's values, 278 of the 295 with a transient ICL have a
    prediction, median error 1.8 %, in 95 % below 5.9 %, at most 7.6 %, where one lifetime for all is wrong by 9 % and
    30 %. With alpha and mu_icl of 0.01..1, 221 of 266: 0.8 %, 5.9 % and 8.1 %. Without residuals, overlaps of 0.003..1
    lengths each, over the groups with r 0.5..5, 82 of 253: 0.4 %, 4.4 % and 13 %. Over random inputs of any size
    (benchmarks/theory_ranges.py 10000 93 lifetime) 1,090 of 10,000 have a value, in 95 % below 11 % off, at most 18 %.

    Raises:
        ValueError for another model, mu_ciwl > 0, and mu_icl or alpha that are not > 0.

    Source: `derivations/lifetime.py`.

    >>> import toymodel as tm
    >>> model = tm.coopetition()
    >>> found = lifetime(model, tm.aligned_start(model, overlap=0.1))
    >>> parts = found.drift + found.relaxation + found.coexistence + found.decay
    >>> bool(abs(found.lifetime / parts - 1) < 1e-9)
    True
    """
    if of.letters(model) != ("a", "d", "b", "c") or model.form.expression != form().expression:
        raise ValueError(f"the lifetime is derived for the loss of tm.coopetition, got {model.form.expression}")
    problem, states, constants = of.prepared(model, start, weights, parameters)
    names = [str(c) for c in of.constants(model.form)]
    runs = [dict(zip(names, map(float, row), strict=True)) for row in constants]
    u, v = states[:, :4], states[:, 4:]
    balanced = (v == 0).all(1) & (u > 0).all(1) & np.isclose(u[:, 1], u[:, 2])
    for name, wrong in (("mu_icl", "> 0"), ("alpha", "> 0"), ("mu_ciwl", "0")):
        column = constants[:, names.index(name)]
        if (column != 0 if wrong == "0" else column <= 0).any():
            raise ValueError(f"{name} must be {wrong}, got {column.min():g} to {column.max():g}")
    measures = groups(model, start, weights=weights, **parameters)
    kappa, m = (problem.batch.flat(measures[name]) * (1 - 1e-9) for name in ("kappa", "m_icl"))  # the ends belong to it
    far = (kappa > MOST_KAPPA) | (m > MOST_M)
    far |= u.max(1) > MOST_BEGUN * problem.batch.flat(measures["length"])
    whole = np.array([[k[f"T_{x}"] * k["T_b"] * k["T_c"] for x in "ad"] for k in runs])
    begun = (u[:, [0, 3]] * u[:, 1:2] * u[:, 2:3] > float(LEFT) * whole).any(1)  # one is learned at the start
    closed = balanced & ~far & ~begun
    parts = np.full((len(runs), len(STAGES)), np.nan)
    r = np.array([k["T_d"] / k["T_a"] for k in runs])
    outside = balanced & ((r < LEAST_R) | (r > MOST_R))
    for i in np.flatnonzero(closed & ~outside):
        if (found := _parts(u[i], runs[i], constants[i])) is None:
            closed[i] = False
        else:
            parts[i] = found
    if not (closed | outside).all():
        others = fading.parts(model, start, problem, weights, parameters, ~(closed | outside))
        parts = np.where((closed | outside)[:, None], parts, others)
    stages = {name: problem.batch.labelled(parts[:, i]) for i, name in enumerate(STAGES)}
    return xr.Dataset({"lifetime": sum(stages.values()), **stages})


def _parts(u: np.ndarray, k: dict[str, float], row: np.ndarray) -> tuple[float, float, float, float] | None:
    """The four times of one run; None where the fold is too near to the least one to tell whether both coexist."""
    alpha, wanted = k["alpha"], k["T_a"] * k["T_b"] * k["T_c"]
    early = _orbit(tuple(u), _without(row, alpha=0.0, mu_icl=1e-9), 1e-3)
    a, _, _, d = early[1][:, np.argmax(early[1][0] * early[1][1] ** 2 > FOUND * wanted)]
    a0 = brentq(lambda x: x**2 - wanted / x - (a**2 - wanted / a - d**2), 1e-9, a)
    drift = function(drift_prefactor())(**k, a0=a0) * alpha / k["mu_icl"] ** 2
    t, y = _orbit(tuple(u), _without(row, alpha=0.0), min(k["mu_icl"], 1e-2))
    a, b, c, d = y
    missing, released = wanted - a * b * c, k["T_d"] * k["T_b"] * k["T_c"] - d * b * c
    here = {**k, "u_a": a, "u_b": b, "u_c": c, "u_d": d}
    held, pulled = function(hold())(**here), function(pull())(**here)
    still = (1 - float(LEFT)) * wanted  # what may be missing of abc while ICL is learned
    learned = missing < still
    if not learned.any():
        return np.nan, np.nan, np.nan, np.nan
    begin = int(np.argmax(learned))
    emerged = _first(t, missing - still, 0)[0]
    free, (a2, _, _, d2) = _first(t, np.log(np.maximum(held / pulled, TINY)), begin, y)
    at_fold, all_ciwl = float(function(fold())(**k)), k["T_d"] * k["T_b"] * k["T_c"]
    balanced = np.minimum(function(balance()[1])(**k, e1=0.0, p=b * c), (1 - float(LEFT)) * all_ciwl)
    settled, (_, b1, c1, _) = _first(t, np.log(np.maximum(released / balanced, TINY)), begin, y)
    along = settled + float(function(coexistence())(**k, p0=b1 * c1, p=at_fold))
    if b1 * c1 < at_fold and along > free and at_fold > NO_ROOM * (least := least_fold(k)):
        if at_fold < ROOM * least:
            return None
        return drift, settled - emerged, along - settled, _decay(wanted / at_fold, all_ciwl / at_fold, k)
    return drift, free - emerged, 0.0, _decay(a2, d2, k)


def _first(
    t: np.ndarray, falling: np.ndarray, begin: int, states: np.ndarray | None = None
) -> tuple[float, list[float]]:
    """The time from t[begin] on at which the values fall below zero, and the state there."""
    i = max(begin + int(np.argmax((falling < 0)[begin:])), 1)
    two = slice(i - 1, i + 1)
    at = float(np.interp(0, -falling[two], t[two])) if falling[i] < 0 <= falling[i - 1] else float(t[i])
    return at, [float(np.interp(at, t[two], x[two])) for x in (() if states is None else states)]


def _decay(a: float, d: float, k: dict[str, float]) -> float:
    """The time in which the cost takes abc down, with d b c = S_ciwl and |a|^2 - |d|^2 + |b|^2 conserved."""
    wanted, held = k["T_a"] * k["T_b"] * k["T_c"], k["T_d"] * k["T_b"] * k["T_c"]
    p = held / d
    conserved = a**2 - d**2 + p

    def square(p):
        return conserved - p + (held / p) ** 2

    def over(p):
        return np.sqrt(np.maximum(square(p), 0)) * p - float(LEFT) * wanted

    if over(p) <= 0:
        return 0.0
    most: Any = brentq(square, p, p + conserved + held + 1)
    end: Any = brentq(over, p, most)
    ps = np.linspace(p, end, 400)
    return float(-np.trapezoid(ps**2 / (k["alpha"] * k["w_cost"] * held**2), np.log(square(ps)) / 2))


def _without(row: np.ndarray, **others: float) -> tuple[float, ...]:
    """The constants of a run with other values of some parameters."""
    names = [str(c) for c in of.constants(form())]
    return tuple(others.get(name, value) for name, value in zip(names, map(float, row), strict=True))


@cache
def _orbit(u: tuple[float, ...], constants: tuple[float, ...], slowest: float) -> tuple[np.ndarray, np.ndarray]:
    """Times and overlaps of the flow without residuals; it ends long after the slowest rate has acted."""
    slope = of.slope(form())

    def velocity(_t, y):
        return [-s for s in slope(*y, 0.0, 0.0, 0.0, 0.0, *constants)[:4]]

    k = dict(zip(map(str, of.constants(form())), constants, strict=True))
    rate = k["w_icl"] * k["w_ciwl"] * (k["T_a"] * k["T_b"] * k["T_c"] * k["T_d"]) ** 2 / 2
    span = 1e3 / min(rate, slowest * k["w_ciwl"] * (k["T_a"] * k["T_b"] * k["T_c"]) ** (4 / 3))
    solution = solve_ivp(velocity, (0, span), list(u), method="LSODA", rtol=1e-8, atol=1e-12)
    return solution.t, solution.y


def _factor(expression: Any) -> sp.Expr:
    factored: Any = sp.factor(expression)
    return factored
