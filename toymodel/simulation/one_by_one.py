"""Gradient flow by scipy, one run after the other: LSODA or Radau on the slope that sympy derives, with events.

Both are implicit where the flow is stiff, and take the Jacobian as a function.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from numbers import Real
from typing import Any

import numpy as np
from scipy.integrate import solve_ivp

from toymodel.simulation.integration import Ended, Event, Integration


def one_by_one(work: Integration) -> Ended:
    """Carries all runs through a stage (`toymodel.simulation.integration`)."""
    system = work.system
    slope = system.function(system.slope)
    bent = system.function(system.jacobian)
    observed = system.function(list(system.observed.values()))
    names = list(system.observed)
    stops = np.unique([*work.when, work.end])
    ends, found = np.empty_like(work.y), {name: np.full(work.runs, np.nan) for name in work.events}
    located = [partial(_located, name, event, names, observed) for name, event in work.events.items()]
    for r in range(work.runs):
        with np.errstate(all="ignore"):
            solution = solve_ivp(
                _velocity(slope, work),
                (work.begin, work.end),
                work.y[:, r],
                method=work.method,
                t_eval=stops,
                rtol=work.rtol,
                atol=work.atol,
                jac=lambda _t, y, *constants: -np.array(bent(*y.tolist(), *constants), float),
                events=located or None,
                args=work.constants[:, r].tolist(),
            )
        if not solution.success:
            raise RuntimeError(f"scipy's {work.method} did not reach t={work.end:g} in run {r}: {solution.message}")
        ends[:, r] = solution.y[:, -1]
        for name, at in zip(work.events, solution.t_events or [], strict=False):
            found[name][r] = at[0] if len(at) else np.nan
        work.keep(slice(r, r + 1), solution.y.T[: len(work.when), :, None])
    return ends, found


def _velocity(slope: Callable[..., Any], work: Integration) -> Callable[..., Any]:
    """The right-hand side of a run, until it is called more often than `max_steps` steps would."""
    left = 20 * work.max_steps

    def velocity(_t: float, y: np.ndarray, *constants: float) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            most = f"max_steps={work.max_steps} steps"
            raise RuntimeError(f"scipy's {work.method} took more than about {most}; raise max_steps, or rtol")
        return [-part for part in slope(*y.tolist(), *constants)]

    return velocity


def _located(
    name: str, event: Event, names: list[str], observed: Callable[..., Any], _t: float, y: Any, *constants: float
) -> float:
    """The value of an event; scipy looks for its change of sign."""
    quantities = dict(zip(names, observed(*y.tolist(), *constants), strict=True))
    try:
        value = event(quantities)
    except KeyError as error:
        if error.args and error.args[0] in names:
            raise ValueError(f"events: {name!r} raised {error!r}") from error
        raise ValueError(f"events: {name!r} asks for {error}, which is no quantity; there are {names}") from None
    except Exception as error:
        raise ValueError(f"events: {name!r} raised {error!r}") from error
    if not isinstance(value, Real) or isinstance(value, bool) or math.isnan(value):
        raise ValueError(f"events: {name!r} must return a number that changes its sign, got {value!r}")
    return float(value)
