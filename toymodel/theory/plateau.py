"""The plateau and the escape from it: rates, and the emergence time predicted from the start.

On the plateau nothing is learned, and the slope of the loss in each term t is that at the unlearned losses, e_t. What
moves the coordinates then has constant coefficients (`derivations/plateau.py`),

    u_x' = sum_m k_m prod_{y in m, y != x} u_y - g_x u_x,    v_x' = - g_x v_x,
    g_x = sum_t h_t prod_{y in t, y != x} |y|^2,

the drive k_m = e_m w_m prod |x*| and the damping h_t = e_t w_t. `coefficients` derives them from the loss of a model,
`rates` are their numbers. For two mechanisms of three vectors (private a or d, shared b and c), `emergence_time`
follows five numbers in a background known in closed form: it knows nothing of what happens once something is learned.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import sympy as sp
import xarray as xr
from jaxtyping import Array, Float

from toymodel.batch import check_values
from toymodel.model import Form, FrozenDict, Model
from toymodel.reduction import cost_loss, mechanism_loss, symbols, unlearned_loss
from toymodel.simulation.problem import Problem, problem_of_start

PerRun = Float[Array, " run"]
ACCURACY = 0.2  # step of the integrator in units of the fastest rate
MOST_STEPS = 10_000  # a run that needs more is one in which d grows without bound and ICL does not emerge


@cache
def coefficients(form: Form) -> tuple[FrozenDict[sp.Expr], FrozenDict[sp.Expr]]:
    """Drive k_m of each mechanism and damping h_t of each term, in the symbols of `toymodel.reduction.symbols`."""
    planes, weights, _ = symbols(form)
    parts = {t: [planes[x] for x in letters] for t, letters in form.terms.items()}
    unlearned = {t: unlearned_loss(parts[t], weights[t]) if t in form.mechanisms else 0 for t in form.terms}
    names = {t: sp.Symbol(t, nonnegative=True) for t in form.terms}
    drive, damping = {}, {}
    for t in form.terms:
        slope = sp.diff(form.expression, names[t]).subs({names[s]: value for s, value in unlearned.items()})
        loss = (mechanism_loss if t in form.mechanisms else cost_loss)(parts[t], weights[t])
        us, vs = [p.u for p in parts[t]], [p.v for p in parts[t]]
        polynomial = sp.Poly(loss, *us, *vs)
        damping[t] = sp.factor(2 * slope * polynomial.coeff_monomial(sp.prod(v**2 for v in vs)))
        if t in form.mechanisms:
            drive[t] = sp.factor(-slope * polynomial.coeff_monomial(sp.prod(us)))
    return FrozenDict(drive), FrozenDict(damping)


def rates(
    model: Model, start: xr.Dataset, *, weights: Mapping[str, Any] | None = None, **parameters: Any
) -> xr.Dataset:
    """The coefficients of `coefficients` for every run: `drive` along `mechanism`, `damping` along `term`.

    Arguments as in `toymodel.descend`. Exact: they are definitions; what they predict holds on the plateau.
    """
    problem = problem_of_start(model, start, (), dict(weights or {}), parameters)
    drive, damping = numbers_of(problem, start)

    def stacked(values: Mapping[str, np.ndarray], dim: str) -> xr.DataArray:
        index = xr.DataArray(list(values), dims=dim, name=dim)
        return xr.concat([problem.batch.labelled(v) for v in values.values()], index).transpose(..., dim)

    return xr.Dataset({"drive": stacked(drive, "mechanism"), "damping": stacked(damping, "term")})


def emergence_time(
    model: Model,
    start: xr.Dataset,
    *,
    horizon: float = 1e5,
    without: str | None = None,
    weights: Mapping[str, Any] | None = None,
    **parameters: Any,
) -> xr.DataArray:
    """The time at which the loss of the mechanism `icl` first falls below half of its unlearned value, from the start.

    For models with the mechanisms icl = (a, b, c) and ciwl = (d, b, c), any letters, and a cost of the two private
    vectors (or none). NaN where it does not happen before `horizon`. without="ciwl" predicts runs in which the
    private vector of CIWL is held at zero.

    Not a closed form: with b the longer one of the two shared vectors and a prime for d/dt, it integrates

        u_a' = k_icl u_b u_c - g_a u_a,      u_d' = k_ciwl u_b u_c - g_d u_d,
        u_b' = F u_c - G |c|^2 u_b,          u_c' = F u_b - G |b|^2 u_c,       v_c' = - G |b|^2 v_c,
        F = k_icl u_a + k_ciwl u_d,          G = h_icl |a|^2 + h_ciwl |d|^2,   |b|^2 - |c|^2 = constant,

    five numbers of the model's eight, in the background (see `background`) that the cost and the first collapse of the
    residuals make. Valid while both mechanisms are unlearned: it is blind to CIWL being learned first, which slows
    ICL down or prevents it (such runs are predicted to emerge). Measured accuracy: benchmarks/theory_emergence.py.
    """
    check_values("horizon", horizon, np.nextafter(0, 1))
    private_icl, private_ciwl, shared, cost = parts_of(model)
    if any(len(x) != n for x, n in ((private_icl, 1), (private_ciwl, 1), (shared, 2))):
        raise ValueError(
            "emergence_time needs mechanisms of three vectors that share two, such as icl = abc and ciwl = dbc, got "
            f"{dict(model.mechanisms)}"
        )
    if without not in (None, "ciwl"):
        raise ValueError(f"without must be None or 'ciwl', got {without!r}")
    problem = problem_of_start(model, start, (), dict(weights or {}), parameters)
    drive, damping = numbers_of(problem, start)
    a, d, (b, c) = private_icl, private_ciwl, shared
    flat = {
        name: {x: problem.batch.flat(start[name].sel(vector=x, drop=True)) for x in (a, b, c, d)}
        for name in ("overlap", "residual", "target_norm")
    }
    there = 0.0 if without else 1.0
    constants = {
        "k1": drive["icl"],
        "k2": there * drive["ciwl"],
        "h1": damping["icl"],
        "h2": there * damping["ciwl"],
        "hc": damping[cost] if cost else np.zeros(problem.batch.runs),
        "goal": flat["target_norm"][a] * flat["target_norm"][b] * flat["target_norm"][c],
    }
    u, v = ([flat[name][x] * (there if x == d else 1) for x in (a, b, c, d)] for name in ("overlap", "residual"))
    with jax.enable_x64(True):
        time = _escape(*jax.tree.map(jnp.asarray, (u, v, constants)), float(horizon))
        return problem.batch.labelled(np.asarray(time)).rename("emergence")


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


def decay_expression() -> sp.Expr:
    """r(t) with r' = -2 h r (r + delta), r(0) = r0, in the symbols r0, delta, h, t (all positive)."""
    r0, delta, h, t = sp.symbols("r0 delta h t", positive=True)
    return delta / ((1 + delta / r0) * sp.exp(2 * h * delta * t) - 1)


def decay(r0: Any, delta: Any, h: Any, t: Any) -> Any:
    """The closed form of `decay_expression` as a function of arrays, for all r0, delta, h, t >= 0.

    Squared norms of a pair whose difference delta is conserved decay so, the smaller one from r0: b and c under the
    damping of their mechanisms, a and d under the cost.
    """
    x = jnp.minimum(2 * h * delta * t, 600.0)
    relative = jnp.where(x > 1e-6, jnp.expm1(x) / jnp.where(x > 1e-6, x, 1), 1 + x / 2)
    return jnp.where(r0 > 0, 1 / (2 * h * t * relative + jnp.exp(x) / jnp.where(r0 > 0, r0, 1)), 0.0)


def background(t: PerRun, squares: list[PerRun], k: Mapping[str, PerRun]) -> tuple[PerRun, PerRun, PerRun]:
    """What a and d have lost of |a|^2 and |d|^2 at time t (factors), and the product |b|^2 |c|^2 of the collapse.

    squares: |a|^2, |b|^2, |c|^2, |d|^2 at the start. The cost takes the pair (a, d) down as `decay` with h_c; the
    damping by the mechanisms acts as long as b and c have not collapsed, and these decay with G at the start.
    """
    ra, rb, rc, rd = squares
    small, difference = jnp.minimum(ra, rd), jnp.abs(ra - rd)
    under_cost = decay(small, difference, k["hc"], t)
    fa, fd = ((under_cost + jnp.maximum(r - other, 0)) / jnp.where(r > 0, r, 1) for r, other in ((ra, rd), (rd, ra)))
    strength = k["h1"] * ra + k["h2"] * rd
    least, delta = jnp.minimum(rb, rc), jnp.abs(rb - rc)
    left = decay(least, delta, strength, t)
    passed = (least - left) / (2 * strength)  # integral of |b|^2 |c|^2
    return fa * jnp.exp(-2 * k["h1"] * passed), fd * jnp.exp(-2 * k["h2"] * passed), left * (left + delta)


@partial(jax.jit, static_argnames="horizon")
def _escape(u: list[PerRun], v: list[PerRun], k: dict[str, PerRun], horizon: float) -> PerRun:
    """The emergence time of every run: Runge-Kutta of fourth order, with a step of its own for each run."""
    squares = [x**2 + y**2 for x, y in zip(u, v, strict=True)]

    def slopes(t, s):
        ua, ub, uc, ud, vb, vc = s
        fa, fd, collapse = background(t, squares, k)
        ra, rd = ua**2 + fa * v[0] ** 2, ud**2 + fd * v[3] ** 2
        rb, rc = ub**2 + vb**2, uc**2 + vc**2
        force, strength = k["k1"] * ua + k["k2"] * ud, k["h1"] * ra + k["h2"] * rd
        ga = k["h1"] * collapse + k["hc"] * fd * squares[3]
        gd = k["h2"] * collapse + k["hc"] * fa * squares[0]
        change = (
            k["k1"] * ub * uc - ga * ua,
            force * uc - strength * rc * ub,
            force * ub - strength * rb * uc,
            k["k2"] * ub * uc - gd * ud,
            -strength * rc * vb,
            -strength * rb * vc,
        )
        fastest = jnp.abs(force) + strength * (rb + rc) + ga + gd + (k["k1"] + k["k2"]) * (jnp.abs(ub) + jnp.abs(uc))
        margin = ua * ub * uc * k["goal"] - ra * rb * rc / 2 - k["goal"] ** 2 / 4  # > 0 once learned
        return change, fastest, margin

    def moved(s, h, change):
        return tuple(x + h * dx for x, dx in zip(s, change, strict=True))

    def step(carry):
        t, s, time, last, size, steps = carry
        first, fastest, margin = slopes(t, s)
        crossed = jnp.isnan(time) & (margin > 0)
        fraction = jnp.where(crossed & (last < 0), margin / jnp.where(crossed, margin - last, 1), 0.0)
        time = jnp.where(crossed, t - fraction * size, time)
        h = jnp.where(jnp.isnan(time) & (t < horizon), ACCURACY / fastest, 0.0)
        second = slopes(t + h / 2, moved(s, h / 2, first))[0]
        third = slopes(t + h / 2, moved(s, h / 2, second))[0]
        fourth = slopes(t + h, moved(s, h, third))[0]
        mean = [(p + 2 * q + 2 * r + w) / 6 for p, q, r, w in zip(first, second, third, fourth, strict=True)]
        return t + h, moved(s, h, mean), time, margin, h, steps + 1

    def going(carry):
        return jnp.any(jnp.isnan(carry[2]) & (carry[0] < horizon)) & (carry[5] < MOST_STEPS)

    begin = (jnp.zeros_like(u[0]), (*u, v[1], v[2]), jnp.full_like(u[0], jnp.nan), -jnp.ones_like(u[0]))
    time = jax.lax.while_loop(going, step, (*begin, jnp.zeros_like(u[0]), 0))[2]
    return jnp.where(time <= horizon, time, jnp.nan)


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
