"""How ICL fades from a start of any kind: four numbers that are left after its emergence (mu_ciwl = 0).

When ICL emerges the residuals of a, b and c are gone, and D = |b|^2 - |c|^2 is what it was at the start. So b and c are
p = u_b u_c alone: b^2 + c^2 = sqrt(D^2 + 4 p^2). In a = u_a, p, d = u_d and v = v_d gradient flow is

    da/dt = -L_a,       dp/dt = -sqrt(D^2 + 4 p^2) L_p,       dd/dt = -L_d,       dv/dt = -L_v,

exact for v_a = v_b = v_c = 0. It begins where ICL, alone, ends (`end_norms`) from the state at emergence, which is that
of the weighted sum of losses (`toymodel.theory.weighted_sum`); it is integrated until ICL is half lost. So this is no
closed form: eight numbers from the start to the emergence, without what is learned, and four from there on.
`derivations/lifetime.py` derives it. Numbers only, by scipy.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import sympy as sp
import xarray as xr
from scipy.integrate import solve_ivp

from toymodel.model import Form, Model
from toymodel.presets import coopetition
from toymodel.reduction import symbols, terms
from toymodel.simulation.problem import Problem
from toymodel.theory import compiled as of
from toymodel.theory.conserved import end_norms
from toymodel.theory.quadrature import SHARE
from toymodel.theory.units import groups
from toymodel.theory.weighted_sum import predicted

P = sp.Symbol("p", positive=True)
DIFFERENCE = sp.Symbol("D", real=True)
MOST_KAPPA = 1.0  # of the groups
MOST_PACE = 2.0  # of `toymodel.theory.weighted_sum.emergence`
AHEAD = 4.0  # times 1 / hold that pass at least until CIWL is learned: ICL is complete before
MOST_MADE = 1.5  # of abc / S_icl: near 1 + 1/sqrt(2) the loss of ICL is half of the unlearned one again
HORIZON = 1e12  # of the emergence
FOREVER = 1e15  # of the fading, in the unit of time of `toymodel.theory.groups`
MOST_CALLS = 200_000  # of the velocity, for one run
RTOL, ATOL = 1e-7, 1e-12
STAGES = ("drift", "relaxation", "coexistence", "decay")


class TooLongError(Exception):
    """The orbit took more than MOST_CALLS evaluations."""


def form() -> Form:
    """The form of the paper's model, in whose symbols the expressions are."""
    return coopetition().form


def coordinates() -> list[sp.Symbol]:
    """a, p, d and v: overlap of a, product of those of b and c, overlap and residual of d."""
    planes, _, _ = symbols(form())
    return [planes["a"].u, P, planes["d"].u, planes["d"].v]


def _left(expression: Any) -> sp.Expr:
    """An expression of the whole model in the four numbers: v_a = v_b = v_c = 0 = mu_ciwl, and u_c = p / u_b."""
    planes, _, parameters = symbols(form())
    gone = {planes[x].v: 0 for x in "abc"} | {parameters["mu_ciwl"]: 0}
    return sp.expand(sp.sympify(expression).subs(gone).subs(planes["c"].u, P / planes["b"].u))


@cache
def metric() -> tuple[sp.Expr, ...]:
    """By what each slope is multiplied: 1, and for p the b^2 + c^2 = sqrt(D^2 + 4 p^2)."""
    one = sp.Integer(1)
    return one, sp.sqrt(DIFFERENCE**2 + 4 * P**2), one, one


@cache
def velocity() -> tuple[sp.Expr, ...]:
    """d(a, p, d, v)/dt, in the symbols of `toymodel.reduction.symbols`, p and D."""
    loss = _left(of.loss(form()))
    return tuple(-factor * sp.diff(loss, x) for factor, x in zip(metric(), coordinates(), strict=True))


@cache
def rates() -> dict[str, sp.Expr]:
    """What stages begin and end by, in the same symbols.

    hold, at which ICL restores abc, and pull, at which the cost takes a; drive, at which CIWL is learned by d, and
    charge, at which the cost takes d; icl, what abc is above the share at which ICL is lost; room, what it is below
    MOST_MADE; ciwl, what the loss of CIWL is above that at which it is learned.
    """
    planes, weights, parameters = symbols(form())
    a, p, d, _ = coordinates()
    loss = {t: _left(value) for t, value in terms(form(), planes, weights).items()}
    made, alpha, mu = a * p, parameters["alpha"], parameters["mu_icl"]
    square = sp.Add(*(factor * sp.diff(made, x) ** 2 for factor, x in zip(metric(), coordinates(), strict=True)))
    whole = sp.prod([planes[x].target for x in "abc"])
    return {
        "hold": loss["ciwl"] * weights["icl"] * square,
        "pull": alpha * sp.cancel(sp.diff(loss["cost"], a) / a),
        "drive": (loss["icl"] + mu) * sp.diff(loss["ciwl"], d, 2),
        "charge": alpha * sp.cancel(sp.diff(loss["cost"], d) / d),
        "icl": made - SHARE * whole,
        "room": sp.Float(MOST_MADE) * whole - made,
        "ciwl": _left(of.margins(form())["ciwl"]),
    }


def parts(
    model: Model,
    start: xr.Dataset,
    problem: Problem,
    weights: Mapping[str, Any] | None,
    parameters: Mapping[str, Any],
    wanted: np.ndarray,
) -> np.ndarray:
    """The four times of `STAGES` for the runs that are `wanted`, shape (runs, 4), NaN outside of the range.

    They are cuts of one orbit: drift, until the drive of d is stronger than the cost on it; relaxation, until CIWL is
    learned; coexistence, until the cost takes a faster than ICL restores abc; decay, until ICL is lost.
    """
    said, states = predicted(model, start, horizon=HORIZON, weights=weights, **parameters)
    measures = groups(model, start, weights=weights, **parameters)
    flat = problem.batch.flat
    inside = wanted & flat(said["emergence"].notnull() & (said["pace"] < MOST_PACE)).astype(bool)
    inside &= flat(measures["kappa"]) <= MOST_KAPPA
    begin, conserved = emerged(states, of.states_of(problem, start), flat(measures["length"]))
    constants = of.constants_of(problem, start)
    found = np.full((problem.batch.runs, len(STAGES)), np.nan)
    for i in np.flatnonzero(inside):
        row = (float(conserved[i]), *map(float, constants[i]))
        found[i] = _orbit(begin[i], row, float(flat(measures["time"])[i]), float(flat(measures["length"])[i]))
    return found


def emerged(states: np.ndarray, start: np.ndarray, length: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """a, p, d, v where ICL's own learning ends, shape (runs, 4), and D.

    Arguments:
        states: coordinates at the emergence, shape (8, runs); start: those of the start, shape (runs, 8); length:
            S_icl^(1/3).

    ICL conserves differences of squared norms, leaves d as it is and ends without residuals, at abc = S_icl.
    """
    u, v = states[:4], states[4:]
    squares = (u**2 + v**2)[:3].T
    whole = length**3
    a = end_norms(np.where(np.isfinite(squares), squares, 1.0), whole)[:, 0]
    first = start[:, :4] ** 2 + start[:, 4:] ** 2
    at = np.stack([a, whole / a, u[3] * np.sign(u[1] * u[2]), np.abs(v[3])], -1)
    return at, first[:, 1] - first[:, 2]


@cache
def _functions() -> tuple[Any, dict[str, Any]]:
    """Velocity and rates as functions of a, p, d, v, D and the constants."""
    arguments = [*coordinates(), DIFFERENCE, *of.constants(form())]

    def made(expressions: Any) -> Any:
        return sp.lambdify(arguments, expressions, "math", cse=True)

    return made(list(velocity())), {name: made(value) for name, value in rates().items()}


def _orbit(begin: np.ndarray, row: tuple[float, ...], time: float, length: float) -> tuple[float, ...]:
    """The four times of one run.

    NaN if the hold on a is weaker than the pull from the first, if CIWL is learned with ICL, if abc grows far beyond
    S_icl, or if nothing ends.
    """
    moving, rate = _functions()
    calls = 0

    def slopes(_t: float, y: Any) -> list[float]:
        nonlocal calls
        calls += 1
        if calls > MOST_CALLS:
            raise TooLongError
        return moving(*y, *row)

    def event(difference: Any, terminal: bool = False) -> Any:
        def crossing(_t: float, y: Any) -> float:
            return difference(*y, *row)

        crossing.terminal, crossing.direction = terminal, -1  # type: ignore[attr-defined]
        return crossing

    def kept(*y: float) -> float:
        return rate["hold"](*y) - rate["pull"](*y)

    def held_down(*y: float) -> float:
        return rate["charge"](*y) - rate["drive"](*y)

    if kept(*begin, *row) <= 0:
        return (np.nan,) * 4
    events = [event(held_down), event(rate["ciwl"]), event(kept), event(rate["icl"], terminal=True)]
    events.append(event(rate["room"], terminal=True))
    try:
        solution = solve_ivp(
            slopes, (0, FOREVER * time), begin, method="LSODA", rtol=RTOL, atol=ATOL * length, events=events
        )
    except TooLongError:
        return (np.nan,) * 4
    if not len(solution.t_events[3]):
        return (np.nan,) * 4
    end = float(solution.t[-1])
    begun = [held_down(*begin, *row) <= 0, rate["ciwl"](*begin, *row) <= 0, False]
    started, learned, lost = (
        0.0 if already else float(times[0]) if len(times) else end
        for already, times in zip(begun, solution.t_events[:3], strict=True)
    )
    if learned * rate["hold"](*begin, *row) < AHEAD:
        return (np.nan,) * 4
    relaxed = max(min(learned, lost), started)
    return tuple(np.diff([0.0, started, relaxed, max(lost, relaxed), end]).tolist())
