"""The bump: the loss of CIWL rises as ICL emerges, or after it has fallen with it.

ICL's escape is fast, and it carries p = u_b u_c from about 0 to where u_a p = S_icl. With the cost and mu_icl off, time
and weights drop out of it: d follows a (S = S_icl, T = S_ciwl, u = u_d, v = v_d)

    du/da = (S - a p)(T - u p) / ((T - u p)^2 + (v p)^2),      dv/da = - (S - a p) v p / ((T - u p)^2 + (v p)^2),
    p^2 = b^2 c^2,      b^2 = a^2 + u^2 + v^2 - K,      c^2 = b^2 - D,

K and D conserved (`escape_slopes`). The loss of CIWL is e [(1 - x)^2 + z^2] with x = u p / T, z = v p / T, and e the
unlearned one: it falls by what d has learned and rises by the residual of d that b and c amplify. Then, on a p = S, the
cost takes d and a and makes p grow, against mu_icl (`slow_velocity`); alpha sets the pace alone. `derivations/bump.py`
derives all this.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import sympy as sp
import xarray as xr
from scipy.integrate import solve_ivp

from toymodel.checks import checked
from toymodel.model import Model
from toymodel.reduction import symbols
from toymodel.simulation.problem import problem_of_start
from toymodel.theory import fading
from toymodel.theory.arrays import function
from toymodel.theory.plateau import parts_of
from toymodel.theory.quadrature import LEARNED

TA, TB, TC, TD = sp.symbols("T_a T_b T_c T_d", positive=True)
TINY = sp.Rational(1, 10**18)  # keeps 0 / 0 out where d has neither learned nor kept anything
U0, V0 = sp.symbols("u_0 v_0", real=True)
MU, ALPHA, W2, WC = sp.symbols("mu alpha w_ciwl w_cost", positive=True)
SMALL = 0.05  # residuals of a, b and c over r, and mu_ciwl over l_ciwl
LEAST_LEVEL = 0.5  # the loss of CIWL, in units of the unlearned one: below, CIWL is learned
MOST_TAKEN = 0.01  # of a, by the cost, before ICL emerges
LEAST_RISE = 10.0  # times what is taken, by which a height is wrong, about: chosen on the seed 93 of theory_ranges.py
FARTHEST = 100.0  # of a, over r, at which the escape is given up
MOST_CALLS = 20_000  # of the slopes, for one run; beyond, the height is NaN
LONG = 100.0  # times in which the cost takes d, for which the loss is followed
NAMES = ("T_a", "T_b", "T_c", "T_d", "w_icl", "w_ciwl", "w_cost", "alpha", "mu_icl")
FINER = 10  # times that are looked at in each step of what follows
POINTS = 400  # of the way at which the loss is looked at
OUT = ("x", "z", "x_0", "taken", "height")


@cache
def escape_slopes() -> dict[str, sp.Expr]:
    """du_d/da and dv_d/da on the escape (alpha = mu = 0), and d(taken)/da, in a, p, u_d, v_d.

    taken is the integral of the rate at which the cost takes a, over time: what is left out, to first order in alpha.
    """
    _, _, parameters = symbols(fading.form())
    off = {parameters["alpha"]: 0, parameters["mu_icl"]: 0}
    factored: list[Any] = [sp.factor(rate.subs(off)) for rate in fading.velocity()]
    ahead, _, of_u, of_v = factored
    pull: Any = fading.rates()["pull"]
    return {"u": sp.cancel(of_u / ahead), "v": sp.cancel(of_v / ahead), "taken": sp.cancel(pull / ahead)}


@cache
def slow_velocity() -> tuple[sp.Expr, ...]:
    """d(p, u_d, v_d)/dt after the escape, on a p = S_icl, which ICL keeps; in p, u_d, v_d and D."""
    planes, _, _ = symbols(fading.form())
    a: Any = sp.prod([planes[x].target for x in "abc"]) / fading.P
    free: list[Any] = [rate.subs(planes["a"].u, a) for rate in fading.velocity()]
    along, square = fading.P, fading.metric()[1]
    off = (along * free[0] + a * free[1]) / (along**2 + a**2 * square)
    return free[1] - a * square * off, free[2], free[3]


def bump_expressions() -> dict[str, sp.Expr]:
    """What a bump is made of for small a = b = c and d = (u_0, v_0) at the start, to leading order in mu, u_d and v_d.

    Returns:
        r, the norm of a, b and c after the escape, and x, z and x_0. a, b and c grow together, and d meanwhile gains
        3/4 (T_a / T_d) r. Closed, but a guide only: `bump` integrates.

    Source: `derivations/bump.py`.

    >>> bump_expressions()["r"]
    T_a**(1/3)*T_b**(1/3)*T_c**(1/3)
    """
    r = sp.cbrt(TA * TB * TC)
    gain, damping = sp.Rational(3, 4) * TA / TD * r, (TA / TD) ** 2 / 6
    share = r**2 / (TB * TC * TD)
    return {
        "r": r,
        "x": (U0 + gain) * share,
        "z": V0 * sp.exp(-damping) * share,
        "x_0": MU * W2 * r**2 / (MU * W2 * r**2 + ALPHA * WC),
    }


@cache
def height_expression() -> sp.Expr:
    """`height` in the symbols x, z, x_0."""
    x, z, x_0 = sp.symbols("x z x_0", real=True)
    square, learned = x**2 + z**2, sp.Max(x, 0)
    p = learned / sp.Max(learned, square, TINY)  # where (1 - p x)^2 + (p z)^2 is least on 0..1
    low = (1 - p * x) ** 2 + (p * z) ** 2
    return sp.Max((1 - x) ** 2 + z**2, (1 - x_0) ** 2) - low


def height(x: Any, z: Any, x_0: Any) -> Any:
    """The rise of the loss of CIWL above the lowest value so far, in units of its unlearned loss.

    max((1 - x)^2 + z^2, (1 - x_0)^2) - low, with low the least of (1 - p x)^2 + (p z)^2 over 0 <= p <= 1: the lowest
    level on the way, against the level at the end of the escape or after the cost has acted, whichever is higher. For
    z = 0 it is (1 - x_0)^2 - (1 - x)^2 where x > x_0, else 0. Numbers or arrays (numpy or JAX) that broadcast, x < 1.
    """
    return function(height_expression())(x=x, z=z, x_0=x_0)


@checked
def bump(model: Model, start: xr.Dataset, *, weights: Mapping[str, Any] | None = None, **parameters: Any) -> xr.Dataset:
    """How high the loss of CIWL rises as ICL emerges.

    Arguments:
        model, start, weights, parameters: as in `toymodel.flow`, for the loss of `toymodel.coopetition`.

    Returns, for every run:
        height, in units of the unlearned loss of CIWL; x, z and x_0 at the end of the escape, that it is made of; and
        taken, the share of a that the cost takes before ICL emerges, to first order in alpha. The escape is integrated
        along a, two numbers, without time (`escape_slopes`), what follows in three (`slow_velocity`): exact as alpha
        and mu_icl go to zero for starts whose a, b and c have no residuals. The height is NaN where taken exceeds 0.01
        or a tenth of a height that is not 0, a residual of a, b or c is above a 20th of S_icl^(1/3), mu_ciwl is above
        a 20th of l_ciwl, the loss of CIWL halves as ICL emerges, u_d or the product of the overlaps of a, b and c is
        negative, or the escape does not end. Inside, it is within 0.006, and heights above 0.05 within 3.2 % (127 of
        300 random draws without residuals of a, b, c were inside: benchmarks/theory_bump.py); the error is of first
        order in alpha. Over random inputs of any size (benchmarks/theory_ranges.py 10000 97 rise) 16 of 10,000 have a
        height above 0.01, by 2.3 % off in the median and by at most 15 %. The bump of a residual lasts 1 / alpha: a
        run has to be as long. The paper's own starts and values are far outside.

    Raises:
        ValueError for another model. Labelled numbers only, and not under jax.jit, where there is no more than the
        leading order (`height` of the `bump_expressions`).

    Source: `derivations/bump.py`.

    >>> import toymodel as tm
    >>> model = tm.coopetition()  # at these values CIWL is driven on (x_0 > x), so that no bump is left
    >>> found = bump(model, tm.aligned_start(model, overlap=0.1))
    >>> bool(found.x_0 > found.x)
    True
    """
    icl, ciwl, shared, cost = parts_of(model)
    if (len(icl), len(ciwl), len(shared)) != (1, 1, 2) or cost is None:
        raise ValueError(
            "bump needs mechanisms of three vectors that share two, and a cost of the others, got "
            f"{dict(model.mechanisms)} and {dict(model.costs)}"
        )
    names = set(model.form.parameters)
    if not {"mu_icl", "alpha"} <= names:
        raise ValueError(f"bump needs the parameters mu_icl and alpha, got {sorted(names)}")
    problem = problem_of_start(model, start, (), dict(weights or {}), parameters)
    flat, letters = problem.batch.flat, icl + shared + ciwl
    u, v, norm = (
        np.stack([flat(start[name].sel(vector=x, drop=True)) for x in letters])
        for name in ("overlap", "residual", "target_norm")
    )
    numbers = {f"T_{x}": row for x, row in zip("abcd", norm, strict=True)}
    numbers |= {f"w_{t}": flat(problem.weights[m]) for t, m in (("icl", "icl"), ("ciwl", "ciwl"), ("cost", cost))}
    numbers |= {name: flat(problem.parameters[name]) for name in ("alpha", "mu_icl")}
    free = problem.parameters["mu_ciwl"] if "mu_ciwl" in names else 0.0
    numbers["m_ciwl"] = 2 * flat(free) / (numbers["w_ciwl"] * (norm[1] * norm[2] * norm[3]) ** 2)
    found = np.array([_of(u[:, i], v[:, i], {n: float(x[i]) for n, x in numbers.items()}) for i in range(u.shape[1])])
    return xr.Dataset({name: problem.batch.labelled(found[:, i]) for i, name in enumerate(OUT)})


def _of(u: np.ndarray, v: np.ndarray, k: dict[str, float]) -> tuple[float, ...]:
    """What `bump` returns for one run, in the order of OUT; vectors in the order a, b, c, d."""
    whole, other = (k[first] * k["T_b"] * k["T_c"] for first in ("T_a", "T_d"))
    r = whole ** (1 / 3)
    if u[:3].prod() < 0:
        return (np.nan,) * 5
    side = 1.0 if u[0] >= 0 else -1.0
    way = _escape(np.abs(u[:3]), side * u[3], abs(v[3]), k)
    if way is None:
        return (np.nan,) * 5
    a, p, x, z = way["a"], way["p"], way["p"] * way["u"] / other, way["p"] * way["v"] / other
    level = (1 - x) ** 2 + z**2
    drive, pull = k["mu_icl"] * k["w_ciwl"] * p[-1] ** 2, k["alpha"] * k["w_cost"] * a[-1] ** 2
    x_0 = drive / (drive + pull) if drive + pull > 0 else np.nan
    taken = float(np.interp(LEARNED * whole, a * p, way["taken"]))
    inside = np.abs(v[:3]).max() < SMALL * r and k["m_ciwl"] < SMALL and u[3] * side >= 0
    inside &= level.min() > LEAST_LEVEL and taken < MOST_TAKEN
    if inside:
        slow = _slowly(p[-1], way["u"][-1], way["v"][-1], u[1] ** 2 - u[2] ** 2, pull, other, k)
        level = np.append(level, slow)
    rise = float(np.max(level - np.minimum.accumulate(level)))
    inside &= rise == 0 or rise >= LEAST_RISE * taken
    return float(x[-1]), float(z[-1]), x_0, taken, rise if inside else np.nan


def _slowly(
    p: float, u: float, v: float, difference: float, pull: float, other: float, k: dict[str, float]
) -> np.ndarray:
    """The loss of CIWL, in units of the unlearned one, after the escape: until it has halved, or d is gone."""
    if pull == 0:
        return np.array([])
    velocity = _compiled(slow_velocity())
    row = (difference, *(k[name] for name in NAMES))

    def half(_t: float, y: Any) -> float:
        return float((1 - y[1] * y[0] / other) ** 2 + (y[2] * y[0] / other) ** 2 - LEAST_LEVEL)

    half.terminal = True  # type: ignore[attr-defined]
    calls = itertools.count()

    def slopes(_t: float, y: Any) -> list[float]:
        if next(calls) > MOST_CALLS:
            raise fading.TooLongError
        return velocity(*y, *row)

    try:
        way = solve_ivp(slopes, (0, LONG / pull), [p, u, v], "LSODA", rtol=1e-8, events=half, dense_output=True)
    except fading.TooLongError:
        return np.array([np.nan])
    if way.status < 0:
        return np.array([np.nan])
    between = np.interp(np.arange(0, len(way.t) - 1, 1 / FINER), np.arange(len(way.t)), way.t)
    p, u, v = way.sol(np.append(between, way.t[-1]))
    return np.asarray((1 - u * p / other) ** 2 + (v * p / other) ** 2)


@cache
def _compiled(expressions: tuple[sp.Expr, ...]) -> Any:
    """The expressions as a function of p, u_d, v_d, D and the numbers of NAMES."""
    planes, weights, parameters = symbols(fading.form())
    known = [*(planes[x].target for x in "abcd"), *weights.values(), *parameters.values()]
    by_name = {str(symbol): symbol for symbol in known}
    arguments = [fading.P, planes["d"].u, planes["d"].v, fading.DIFFERENCE, *(by_name[name] for name in NAMES)]
    return sp.lambdify(arguments, list(expressions), "math", cse=True)


def _escape(u: np.ndarray, d: float, v: float, k: dict[str, float]) -> dict[str, np.ndarray] | None:
    """The way from a, b, c, and d at the start to a p = S_icl; None where it does not get there."""
    a, b, c = u
    conserved, difference = a**2 + d**2 + v**2 - b**2, b**2 - c**2
    whole = k["T_a"] * k["T_b"] * k["T_c"]
    r, numbers = whole ** (1 / 3), {name: k[name] for name in sorted(k)}
    slopes = {name: function(expression) for name, expression in escape_slopes().items()}

    def shared(a: Any, d: Any, v: Any) -> Any:
        square = a**2 + d**2 + v**2 - conserved
        return np.sqrt(np.maximum(square, 0) * np.maximum(square - difference, 0))

    calls = itertools.count()

    def velocity(a: float, y: Any) -> list[float]:
        if next(calls) > MOST_CALLS:
            raise fading.TooLongError
        p = max(float(shared(a, y[0], y[1])), 1e-300)
        here = {"u_a": a, "p": p, "u_d": y[0], "v_d": y[1]}
        return [float(slopes[name](**here, **numbers)) for name in ("u", "v", "taken")]

    def learned(a: float, y: Any) -> float:
        return a * float(shared(a, y[0], y[1])) / whole - 1 + 1e-9

    learned.terminal = True  # type: ignore[attr-defined]
    try:
        way = solve_ivp(
            velocity,
            (a, FARTHEST * r),
            [d, v, 0.0],
            method="LSODA",
            rtol=1e-8,
            atol=1e-12 * r,
            events=learned,
            dense_output=True,
        )
    except fading.TooLongError:
        return None
    if way.status != 1:
        return None
    at = a + (way.t[-1] - a) * np.linspace(0, 1, POINTS)
    values = way.sol(at)
    return {"a": at, "p": shared(at, *values[:2]), "u": values[0], "v": values[1], "taken": values[2]}
