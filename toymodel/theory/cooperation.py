"""Cooperation and competition as numbers, and the region in which ICL comes first and yet needs CIWL.

While one shared overlap has the value B and the rest is small, a and d drive the other shared factor together. The
rate of that growth, alone and together, and to first order with what the cost takes from it, is

    B k1,      B sqrt(k1^2 + k2^2),      B K - (g_a k1^2 + g_d k2^2) / (2 K^2),    K^2 = k1^2 + k2^2,

k1, k2 the drives of ICL and CIWL, g_a and g_d the damping of a and d by the cost. Away from that corner, for small
starts, the speed-up is a ratio of two quadratures (`speed_up`), and its law in the initial scale and in the length of
the ICL pathway is closed (`law`). All of it is derived in `derivations/cooperation.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import sympy as sp
import xarray as xr

from toymodel.checks import checked
from toymodel.model import Model
from toymodel.simulation.problem import problem_of_start
from toymodel.start import aligned_start
from toymodel.theory.arrays import check
from toymodel.theory.plateau import numbers_of, parts_of
from toymodel.theory.quadrature import LEARNED, SHARE, escape

B, K1, K2, GA, GD = sp.symbols("B k1 k2 g_a g_d", positive=True)
SCALE, D0 = sp.symbols("sigma d0", positive=True)
MOST_LOST = 0.2  # of the growth rate, by the cost, to first order
MOST_DAMPED, MOST_LONG, MOST_SCALE = 0.3, 0.5, 0.3  # of `law`, chosen on the seed 901 of theory_ranges.py
MOST_WRONG = 0.3  # of `left_out`, on the same seed
NEARLY, TINY = 1 - 1e-9, 1e-9
T1, T2, D_C, GAMMA, CHARGE = sp.symbols("T1 T2 d_C gamma h_C", positive=True)


def growth_expressions() -> dict[str, sp.Expr]:
    """Rates of the linearised plateau, on which one shared overlap has the value B, and the two indices made of them.

    Returns:
        together, alone and net (rates of growth of the other shared overlap), cooperation = together / alone >= 1, and
        competition = what the cost takes / alone >= 0, in B, k1, k2, g_a and g_d. First order in g / (B K).

    Source: `derivations/cooperation.py`.

    >>> growth_expressions()["cooperation"]
    sqrt(k1**2 + k2**2)/k1
    """
    together, alone = B * sp.sqrt(K1**2 + K2**2), B * K1
    lost = (GA * K1**2 + GD * K2**2) / (2 * (K1**2 + K2**2))
    return {
        "together": together,
        "alone": alone,
        "net": together - lost,
        "cooperation": together / alone,
        "competition": lost / alone,
    }


@checked
def growth(
    model: Model, start: xr.Dataset, *, weights: Mapping[str, Any] | None = None, **parameters: Any
) -> xr.Dataset:
    """The numbers of `growth_expressions` for every run, with B the larger of the two shared overlaps at the start.

    Arguments:
        model, start, weights, parameters: as in `toymodel.flow`, for mechanisms of three vectors that share two.

    Returns:
        together, alone and net (per unit of time), and the ratios cooperation and competition. They describe the linear
        stage of the escape: one shared overlap much larger than all others, residuals of b and c gone, g much below
        B K: net and competition, which are of first order in g / (B K), are NaN where the cost takes more than a fifth
        of the rate.

    Raises:
        ValueError for another model.

    Source: `derivations/cooperation.py`.

    >>> import toymodel as tm
    >>> model = tm.coopetition()
    >>> found = growth(model, tm.aligned_start(model, overlap=0.1))
    >>> bool(found.cooperation == found.together / found.alone)
    True
    """
    icl, ciwl, shared, cost = parts_of(model)
    if any(len(x) != n for x, n in ((icl, 1), (ciwl, 1), (shared, 2))):
        raise ValueError(f"growth needs mechanisms of three vectors that share two, got {dict(model.mechanisms)}")
    problem = problem_of_start(model, start, (), dict(weights or {}), parameters)
    drive, damping = numbers_of(problem, start)

    def of(name: str, x: str) -> np.ndarray:
        return problem.batch.flat(start[name].sel(vector=x, drop=True))

    square = {x: of("overlap", x) ** 2 + of("residual", x) ** 2 for x in (icl, ciwl)}
    charge = damping[cost] if cost else np.zeros(problem.batch.runs)
    factor = np.max([np.abs(of("overlap", x)) for x in shared], 0)
    values = (factor, drive["icl"], drive["ciwl"], charge * square[ciwl], charge * square[icl])
    found = {
        name: sp.lambdify((B, K1, K2, GA, GD), expression, "numpy")(*values)
        for name, expression in growth_expressions().items()
    }
    linear = found["together"] - found["net"] <= MOST_LOST * found["together"]
    found |= {name: np.where(linear, found[name], np.nan) for name in ("net", "competition")}
    return xr.Dataset({name: problem.batch.labelled(value) for name, value in found.items()})


@checked
def speed_up(
    model: Model, start: xr.Dataset, *, weights: Mapping[str, Any] | None = None, **parameters: Any
) -> xr.Dataset:
    """The cooperation index: the time at which ICL emerges with the private part of CIWL held at zero, over that
    with CIWL.

    Arguments:
        model, start, weights, parameters: as in `escape`.

    Returns:
        `index`; `with_ciwl` and `without_ciwl`, the two times (steps x step size); `first` and `damping` as in
        `escape`. A ratio of one-dimensional quadratures, NaN where `damping` of either exceeds 0.1. No standard normal
        start of the published model is in that range: take the ratio of two `emergence_time` there, which is coarser.
        Measured errors: benchmarks/theory_cooperation.py.

    Raises:
        ValueError for another model.

    Source: `derivations/cooperation.py`.

    >>> import toymodel as tm
    >>> model = tm.coopetition()
    >>> found = speed_up(model, tm.aligned_start(model, overlap=0.01))
    >>> bool(found.index == found.without_ciwl / found.with_ciwl), bool(found.index > 1)
    (True, True)
    """
    together = escape(model, start, weights=weights, **parameters)
    alone = escape(model, start, without="ciwl", weights=weights, **parameters)
    return xr.Dataset(
        {
            "index": alone.emergence / together.emergence,
            "with_ciwl": together.emergence,
            "without_ciwl": alone.emergence,
            "first": together["first"],
            "damping": together.damping,
        }
    )


def law_expressions(private: int) -> dict[str, sp.Expr]:
    """Times to the escape of typical small starts, all overlaps sigma but that of d, which is d0 >= sigma, closed.

    Arguments:
        private: number n of private vectors of ICL (1 in the published model).

    Returns:
        alone = 1/(n k1 sigma^n); with_ciwl, which is exact on the plateau for n = 1 (for more it is the time in which d
        alone drives b and c until they diverge, which is the same with k1 = 0), and for d0 >> sigma tends to
        ln(2 d0 k2 / (sigma K)) / (k2 d0); speed_up = alone / with_ciwl.

    Source: `derivations/cooperation.py`.

    >>> law_expressions(1)["alone"]
    1/(k1*sigma)
    """
    k1 = K1 if private == 1 else sp.Integer(0)
    pull, square = SCALE * k1 + D0 * K2, k1**2 + K2**2
    root = sp.sqrt(pull**2 - square * SCALE**2)
    alone = 1 / (private * K1 * SCALE**private)
    together = sp.log((pull + root) ** 2 / (square * SCALE**2)) / (2 * root)
    return {"alone": alone, "with_ciwl": together, "speed_up": alone / together}


def first_expression(private: int) -> sp.Expr:
    """Positive where ICL comes first for typical small starts: in k1, k2, T1, T2, gamma; and sigma, d0, d_C for n = 2.

    gamma = alpha w_cost |d|^2 / (2 k2 d0) is the rate at which d damps a, over that at which d makes u_b u_c grow. In
    the clock of `escape` the private overlaps of ICL follow x' = k1 prod of the others, and a loses a gamma / s: so

        one:  a = k1 s / (1 + gamma),        two:  a e -> sigma^2 Gamma((1 + gamma)/2)^2 / (4 pi) (2/(k1 s))^gamma
                                                          e^(2 k1 s),   what a had at the start being lost.

    One: the share of T1 that is learned against that of T2. Two: k1 s against what it must be when CIWL is learned, at
    u_d = d_C, d_C (d_C^2 - d0^2) = r T2, r = 1 - 1/sqrt 2, s = (d_C - d0) / k2, u_b u_c = d_C^2 - d0^2. Range: sigma
    much smaller than d0, |d|^2 constant until then, gamma of order 1.
    """
    if private == 1:
        return K1 / (T1 * (1 + GAMMA)) - K2 / T2
    reached = K1 * (D_C - D0) / K2
    missing = SHARE * T1 / (SCALE**2 * (D_C**2 - D0**2))
    return reached - (sp.log(4 * sp.pi * missing) / 2 - sp.loggamma((1 + GAMMA) / 2) + GAMMA * sp.log(reached / 2) / 2)


def lead_expression() -> sp.Expr:
    """Positive where ICL, with one private vector, surely comes first: in k1, k2, T1, T2, gamma, d0, d_C, h_C.

    h_C = alpha w_cost. In the clock of `escape`, which is s = (d_C - d0) / k2 when CIWL is learned, d takes of a

        a' = k1 - (gamma / s + h_C) a      at most, so      a >= k1 s / (1 + gamma) (1 - e^(-h_C s)) / (h_C s),

    and this share of T1 is compared with that of T2 which d has, d0 included.

    Source: `derivations/cooperation.py`.

    >>> sp.limit(lead_expression(), CHARGE, 0).subs({K1: 3, K2: 1, T1: 1, T2: 1, GAMMA: 0, D0: 1, D_C: 2})
    1
    """
    clock = (D_C - D0) / K2
    lost = (1 - sp.exp(-CHARGE * clock)) / (CHARGE * clock)
    return K1 * clock / (1 + GAMMA) * lost / T1 - D_C / T2


@checked
def law(model: Model, scale: Any, scale_d: Any, *, target_scale: Mapping[str, float] | None = None) -> xr.Dataset:
    """How much sooner ICL comes because CIWL is learned, and whether it comes first, for typical random starts.

    Arguments:
        model: its alpha and both mu are used, all >= 0.
        scale, scale_d: initial scale of the entries of all vectors but d, and of d, as in `toymodel.random_start`: the
            typical overlap, with |d|^2 = n_d scale_d^2 (numbers or DataArrays, scale < scale_d, or equal with one
            private vector).
        target_scale: letter -> scale of the entries of its target.

    Returns:
        `speed_up` of `law_expressions`, and `first`, whether ICL comes first (`first_expression`). Leading order; the
        residuals of all vectors but d are left out. speed_up is NaN where ICL is not first (with one private vector:
        not surely, `lead_expression`), where the start is not small (scale above 0.3 S_icl^(1/n), scale_d above half of
        the d at which CIWL is learned), where d damps b and c by more than 0.3 in that time, and, with one private
        vector, where gamma exceeds it, and where what is left out changes its logarithm by more than 0.3 (`left_out`):
        so at scales of 1 at the paper's dimensions, where it would be 1.2, and a flow has 0.7. With two it is not
        measured on random inputs. With one, of 10,000 (benchmarks/theory_ranges.py 33334 96 typical) 2,360 have a
        value. The worst is 44 % off, and ICL comes in all.

    Raises:
        ValueError for another model. For arrays of drives, or under jax.jit, use sympy.lambdify of the expressions.

    Source: `derivations/cooperation.py`.

    >>> import toymodel as tm
    >>> found = law(tm.coopetition(), 0.01, 1.0)
    >>> bool(found.speed_up > 1), bool(found["first"])
    (True, True)
    """
    found = _law(model, scale, scale_d, target_scale)
    return xr.Dataset({"speed_up": found["speed_up"].where(found["holds"]), "first": found["first"]})


def _law(model: Model, scale: Any, scale_d: Any, target_scale: Mapping[str, float] | None) -> xr.Dataset:
    """What `law` returns, with `holds`, whether the speed-up does."""
    icl, ciwl, shared, cost = parts_of(model)
    if len(icl) > 2 or len(ciwl) != 1 or len(shared) != 2:
        raise ValueError(f"law needs one or two private vectors of icl and one of ciwl, got {dict(model.mechanisms)}")
    norms = {x: norm * (target_scale or {}).get(x, 1.0) for x, norm in model.target_norms.items()}
    start = aligned_start(model, overlap=0.0, target_norm=norms)
    drive, damping = numbers_of(problem_of_start(model, start, (), {}, {}), start)
    k1, k2 = float(drive["icl"][0]), float(drive["ciwl"][0])
    whole1, whole2 = (np.prod([norms[x] for x in model.mechanisms[m]]) for m in ("icl", "ciwl"))
    check("scale", scale)
    check("scale_d", scale_d)
    labelled, other = xr.broadcast(xr.DataArray(scale), xr.DataArray(scale_d))
    sigma, d0 = labelled.values, other.values
    if not ((sigma > 0) & ((sigma <= d0) if len(icl) == 1 else (sigma < d0))).all():
        raise ValueError("scale and scale_d must satisfy 0 < scale < scale_d (or be equal with one private vector)")
    learned = learned_overlap(d0, whole2)
    charge = float(damping[cost][0]) if cost else 0.0
    gamma = charge * model.dims[ciwl] * d0 / (2 * k2)
    numbers = sigma, d0, k1, k2, whole1, whole2, learned, gamma, np.maximum(charge, TINY * k2 / learned)
    time, index, ahead, lead = (function(*numbers) for function in _functions(len(icl)))
    of_d = model.dims[ciwl] * d0**2  # |d|^2
    damped, taken = float(damping["ciwl"][0]) * of_d * sigma**2 * time, charge * of_d * time
    holds = (ahead > 0) & (damped <= MOST_DAMPED) & (d0 <= MOST_LONG * learned)
    holds &= sigma <= MOST_SCALE * whole1 ** (1 / len(model.mechanisms["icl"]))
    if len(icl) == 1:
        late = float(damping["ciwl"][0]) * of_d / k2
        wrong = left_out(sigma, d0, k1, k2, whole1, time, damped, taken, late)
        holds &= (lead > 0) & (gamma <= index) & (wrong <= MOST_WRONG)
    found = {"speed_up": index, "first": ahead > 0, "holds": holds}
    return xr.Dataset({name: labelled.copy(data=values) for name, values in found.items()})


@cache
def _functions(private: int) -> list[Callable[..., Any]]:
    """The time with CIWL, the speed-up, and what is positive where ICL comes first and where it surely does."""
    symbols = (SCALE, D0, K1, K2, T1, T2, D_C, GAMMA, CHARGE)
    times = law_expressions(private)
    expressions = times["with_ciwl"], times["speed_up"], first_expression(private), lead_expression()
    return [sp.lambdify(symbols, expression, ["numpy", "scipy"]) for expression in expressions]


def left_out(
    scale: Any, d0: Any, k1: float, k2: float, product: Any, time: Any, damped: Any, taken: Any, late: Any
) -> Any:
    """What `law` leaves out with one private vector, to first order, in the logarithm of the speed-up: a sum >= 0.

        |ln((1 - x) / (1 - y))|     ICL emerges before its divergence, by shares x (alone) and y (with CIWL) of the time
        damped                      d damps b and c from the first
        f (1 - (1 - e^-g) / g)      the cost takes a, of which f is the share in what drives b and c
        y l (d1^2 - d0^2) / d1      d damps b and c as ICL emerges, where u_b u_c = d1^2 - d0^2, in the last y

    Arguments, numbers or arrays >= 0:
        scale, d0, k1, k2, product: sigma, overlap of d, drives, T1.
        time: that to the divergence, with CIWL; damped: the rate at which d damps b and c at the start, times it;
            taken: g, the rate at which the cost takes a, times it.
        late: l = w_ciwl |d|^2 / k2.

    >>> float(left_out(1e-9, 1e-9, 1.0, 1.0, 1.0, 1e9, 0.1, 0.0, 0.0).round(6))
    0.1
    """
    both, grown = np.hypot(k1, k2), LEARNED * product
    alone = np.minimum(scale / grown ** (1 / 3), NEARLY)
    end = np.minimum(1 / (both * (grown * both / k1) ** (1 / 3) * time), NEARLY)
    rate, share = np.maximum(taken, TINY), k1 * scale / (k1 * scale + k2 * d0)
    d1 = emerged_overlap(d0, product * k2 / k1)
    cut = np.abs(np.log((1 - alone) / (1 - end)))
    return cut + damped + share * (1 + np.expm1(-rate) / rate) + end * late * (d1**2 - d0**2) / d1


def emerged_overlap(d0: Any, product: Any) -> Any:
    """The overlap of d at which ICL emerges: (d - d0) (d^2 - d0^2) = r T1 k2 / k1, as a = (k1 / k2) (d - d0) then.

    Arguments: d0, overlap of d at the start, >= 0; product, T1 k2 / k1 > 0. One private vector, a small, no cost.

    >>> found = emerged_overlap(1.0, 100.0)
    >>> round((found - 1) * (found**2 - 1), 4) == round(100 * LEARNED, 4)
    True
    """
    found = d0 + (LEARNED * product) ** (1 / 3)
    for _ in range(60):  # Newton from above: convex there
        cubic = (found - d0) ** 2 * (found + d0) - LEARNED * product
        found = found - cubic / ((found - d0) * (3 * found + d0))
    return found


def learned_overlap(d0: Any, product: Any) -> Any:
    """d_C, the overlap of d at which CIWL is learned: d_C (d_C^2 - d0^2) = r T2, r = 1 - 1/sqrt 2. Numbers or arrays.

    Arguments: d0, overlap of d at the start, >= 0; product, T2 > 0. Derived in `derivations/cooperation.py`.

    >>> round(learned_overlap(1.0, 100.0), 4)
    3.1906
    """
    learned = d0 + (LEARNED * product) ** (1 / 3)
    for _ in range(60):  # Newton from above: the cubic is convex there
        cubic = learned * (learned**2 - d0**2) - LEARNED * product
        learned = learned - cubic / (3 * learned**2 - d0**2)
    return learned


@checked
def region(
    model: Model, scale: Any, scale_d: Any, *, factor: float = 10.0, target_scale: Mapping[str, float] | None = None
) -> xr.DataArray:
    """Whether the model is in coopetition by `law`: ICL comes first, and `factor` times later with CIWL blocked.

    With one private vector of ICL, in dimensions n, target norms, mu, alpha and scales (T = prod |x*|, N = number of
    entries, e = T^2 / 2N), for random starts with entries of scale_d in d and of scale in the rest,

        T_2^2 / 2 + mu_2 N_2 > (T_1^2 / 2 + mu_1 N_1) (1 + gamma),      gamma = alpha w_cost n_d scale_d / (2 k2),
        q > factor ln(2 q / sqrt(1 + (k2 / k1)^2)),                     q = (k2 / k1) (scale_d / scale),
        k2 / k1 = (|a*| / |d*|) (1 + mu_1 / e_1) / (1 + mu_2 / e_2),

    the second for scale_d much larger than scale. Symbols: `first_expression`, `law_expressions`.

    Arguments:
        model, scale, scale_d, target_scale: as in `law`.
        factor: > 0.

    Returns:
        True or False along the dimensions of the scales. It is a statement on most of the starts. Of single starts it
        is right for 84 % in the published model, where one answer for all is right for 79 %, and for 85 % in
        `long_pathway`, where that is 61 %; of most starts of a cell for 94 and 91 % (84 and 66 %), scales of 1e-3..0.9
        and target_scale of d of 0.5..8 at alpha = 0.1 (benchmarks/coopetition_region.py stored).

    Raises:
        ValueError for another model.

    Source: `derivations/cooperation.py`.

    >>> import toymodel as tm
    >>> [bool(region(tm.coopetition(), 0.01, 1.0, factor=f)) for f in (2.0, 1000.0)]
    [True, False]
    """
    found = _law(model, scale, scale_d, target_scale)
    return (found["first"] & (found["speed_up"] >= factor)).rename("region")
