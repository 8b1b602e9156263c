"""Gradient flow on the reduced loss, dx/dt = -dL/dx, with error control, by two integrators that share no code.

"diffrax": all runs at once, Kvaerno's implicit Runge-Kutta pair of order 5 (Kvaerno 2004) with the gradient from JAX;
each run has its own step size, and steps end on the recorded times. "scipy": one run after the other, LSODA or Radau,
with the gradient and its Jacobian derived by sympy, and events. Both are implicit, so that 1e7 units of time cost
little more than 1e4.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import sympy as sp
import xarray as xr
from jaxtyping import Array, Float
from scipy.integrate import solve_ivp

from toymodel.checks import POSITIVE, check_values, mapping, number, whole
from toymodel.model import Form, Model
from toymodel.progress import progress_bar, shown
from toymodel.reduction import symbols, terms
from toymodel.simulation.interventions import Intervention
from toymodel.simulation.observe import record
from toymodel.simulation.problem import Stage, loss_and_slope, measured, problem_of_start
from toymodel.simulation.state import Number, Reduced

SCIPY_METHODS = ("LSODA", "Radau")
Event = Callable[[Mapping[str, float]], float]


def flow(
    model: Model,
    start: xr.Dataset,
    t: float,
    *,
    times: Any = None,
    rtol: float = 1e-9,
    atol: float = 1e-12,
    method: str = "diffrax",
    events: Mapping[str, Event] | None = None,
    max_steps: int = 100_000,
    interventions: Sequence[Intervention] = (),
    weights: dict[str, Any] | None = None,
    progress: bool | None = None,
    **parameters: Any,
) -> xr.Dataset:
    """Gradient flow from a start until the time t, in float64.

    times: when to record, increasing within 0..t; by default 0 and 512 times equally spaced in log(time) from t/1e6
    to t. rtol, atol: tolerances of one step, relative and absolute. method: "diffrax", "LSODA" or "Radau" (the last
    two from scipy). events (scipy only): name -> function of the quantities of a run (a mapping with loss,
    loss_<mechanism>, costs, overlap_<x>, residual_<x>) whose first change of sign is located; its time is the
    variable `event_<name>` (NaN if it does not happen; a jump where an intervention begins or ends is no event).
    max_steps: of the integrator, for one run between two switches. The rest is as in `descend`.

    Returns a record (`toymodel.simulation.observe`). Raises ValueError for an argument out of range,
    and RuntimeError where the integrator gives up.
    """
    t, max_steps = number("t", t, POSITIVE), whole("max_steps", max_steps)
    if method not in ("diffrax", *SCIPY_METHODS):
        raise ValueError(f"method must be 'diffrax', 'LSODA' or 'Radau', got {method!r}")
    if events and method == "diffrax":
        raise ValueError("events are located by scipy: use method='LSODA' or 'Radau'")
    for name, value in (("rtol", rtol), ("atol", atol)):
        if number(name, value, POSITIVE) >= 1:
            raise ValueError(f"{name} must be within 0..1, got {value}")
    when = recorded_times(t)
    if times is not None:
        check_values("times", times)
        when = np.asarray(times, dtype=float)
    if when.ndim != 1 or (np.diff(when) <= 0).any() or when[-1] > t:
        raise ValueError(f"times must be an increasing list within 0..t={t:g}")
    happening = mapping("events", events)
    problem = problem_of_start(model, start, interventions, weights, parameters)
    problem.check_end(t, len(when))
    solve = partial(_scipy, method=method, events=happening) if method != "diffrax" else _diffrax
    solve = partial(solve, rtol=rtol, atol=atol, max_steps=max_steps, progress=progress)
    attrs = {"integrator": f"flow ({method})", "rtol": rtol, "atol": atol, **start.attrs}
    found: dict[str, np.ndarray] = {}
    seen: list[dict[str, np.ndarray]] = []
    with jax.enable_x64(True):
        state = problem.reduced(start)
        weights = {x: problem.batch.flat(w) for x, w in problem.weights.items()}
        for stage in problem.stages(float(t)):
            state = problem.begin(stage, state)
            last = stage.end == t
            inside = when[(when >= stage.start) & ((when <= t) if last else (when < stage.end))]
            values = {p: problem.batch.flat(value) for p, value in stage.parameters.items()}
            track, state, happened = solve(stage, state, weights, values, inside)
            seen.append(measured(model.form, stage.form, state, jnp.asarray(track), weights, values, len(inside)))
            for name, at in happened.items():
                found[name] = np.fmin(found.get(name, at), at)
        norms = np.stack([state.target[x] for x in model.vectors], -1)
    losses = {name: np.concatenate([part[name] for part in seen]) for name in seen[0]}
    planes = {name: losses.pop(name) for name in ("overlap", "residual")} | {"target_norm": norms}
    runs = record(problem, when, None, losses, planes, attrs)
    for name, at in found.items():
        runs[f"event_{name}"] = problem.batch.labelled(at)
    return runs


def recorded_times(t: float) -> np.ndarray:
    """0 and 512 times equally spaced in the logarithm from t/1e6 to t."""
    return np.concatenate([[0.0], np.geomspace(t * 1e-6, t, 512)])


def _diffrax(
    stage: Stage,
    state: Reduced,
    weights: Any,
    values: Any,
    when: np.ndarray,
    *,
    rtol: float,
    atol: float,
    max_steps: int,
    progress: bool | None,
) -> tuple[Any, Reduced, dict[str, np.ndarray]]:
    """One stage of all runs: the coordinates at the times `when`, and the state at its end."""
    ends = np.unique([*when, stage.end])
    spans = (stage.start, jnp.asarray(ends), rtol, atol)
    track, fine = _kvaerno(stage.form, stage.blocked, state, weights, values, *spans, max_steps, shown(progress))
    if not bool(np.all(fine)):
        raise RuntimeError(
            f"the flow of {int(np.sum(~np.asarray(fine)))} runs did not reach t={stage.end:g}: "
            f"raise max_steps={max_steps}, or rtol={rtol:g}"
        )
    return track[: len(when)], state.at(track[-1]), {}


@partial(jax.jit, static_argnames=("form", "blocked", "max_steps", "progress"))
def _kvaerno(
    form: Form,
    blocked: frozenset[tuple[str, str]],
    state: Reduced,
    weights: dict[str, Any],
    values: dict[str, Any],
    begin: Number,
    when: Float[Array, " time"],
    rtol: Any,
    atol: Any,
    max_steps: int,
    progress: bool,
) -> tuple[Float[Array, "time coordinate run"], Any]:
    def one(state, weights, values):
        def slope(_t, y, _args):
            _, slope_u, slope_v = loss_and_slope(form, blocked, state.at(y), weights, values)
            still = jnp.zeros(())
            return -jnp.stack([slope.get(x, still) for slope in (slope_u, slope_v) for x in state.order])

        solver = diffrax.Kvaerno5(root_finder=diffrax.VeryChord(rtol=rtol, atol=atol))
        control = diffrax.ClipStepSizeController(diffrax.PIDController(rtol=rtol, atol=atol), step_ts=when)
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(slope),
            solver,
            begin,
            when[-1],
            None,
            state.coordinates(),
            saveat=diffrax.SaveAt(ts=when),
            stepsize_controller=control,
            max_steps=max_steps,
            throw=False,
            progress_meter=diffrax.TqdmProgressMeter() if progress else diffrax.NoProgressMeter(),
        )
        return solution.ys, solution.result == diffrax.RESULTS.successful

    track, fine = jax.vmap(one)(state, weights, values)
    return jnp.moveaxis(jnp.asarray(track), 0, -1), fine


def _scipy(
    stage: Stage,
    state: Reduced,
    weights: Any,
    values: Any,
    when: np.ndarray,
    *,
    rtol: float,
    atol: float,
    max_steps: int,
    progress: bool | None,
    method: str,
    events: dict[str, Event],
) -> tuple[Any, Reduced, dict[str, np.ndarray]]:
    """One stage, run by run."""
    slope, jacobian, observed = _symbolic(stage.form, stage.blocked, frozenset(state.heads), state.fixed)
    ends = np.unique([*when, stage.end])
    runs = len(state.u[stage.form.vectors[0]])
    tracks = np.empty((len(ends), 2 * len(state.u), runs))
    found = {name: np.full(runs, np.nan) for name in events}
    bar = progress_bar(runs, f"flow ({method})", progress, "run")
    for r in range(runs):
        bar.update()
        one = jax.tree.map(lambda leaf, r=r: leaf[r], state)
        constants = [
            *(float(number) for x in one.order for number in (one.target[x], *one.heads.get(x, ()))),
            *(weights[t][r] for t in stage.form.terms),
            *(values[p][r] for p in stage.form.parameters),
        ]
        solution = solve_ivp(
            _counting(slope, max_steps, method),
            (stage.start, stage.end),
            np.asarray(one.coordinates()),
            method=method,
            t_eval=ends,
            rtol=rtol,
            atol=atol,
            jac=lambda _t, y, *constants: np.array(jacobian(*y, *constants)),
            events=[partial(_located, observed=observed, event=event) for event in events.values()] or None,
            args=constants,
        )
        if not solution.success:
            raise RuntimeError(f"scipy's {method} did not reach t={stage.end:g} in run {r}: {solution.message}")
        tracks[:, :, r] = solution.y.T
        for name, at in zip(events, solution.t_events or [], strict=False):
            found[name][r] = at[0] if len(at) else np.nan
    bar.close()
    return tracks[: len(when)], state.at(jnp.asarray(tracks[-1])), found


def _located(_t: float, y: Any, *constants: float, observed: Observed, event: Event) -> float:
    """The value of an event; scipy looks for its change of sign."""
    quantities = dict(zip(observed.names, observed.function(*y, *constants), strict=True))
    try:
        return event(quantities)
    except KeyError as error:
        raise ValueError(f"events: there is no quantity {error}; there are {observed.names}") from None


class Observed(NamedTuple):
    """Names of the quantities that an event may ask for, and the function that computes them."""

    names: list[str]
    function: Callable[..., Any]


@lru_cache
def _symbolic(
    form: Form, blocked: frozenset[tuple[str, str]], heads: frozenset[str], fixed: frozenset[str]
) -> tuple[Callable[..., Any], Callable[..., Any], Observed]:
    """The right-hand side, its Jacobian and the observable quantities as functions of numbers."""
    arguments, slope, jacobian, seen = symbolic_slope(form, blocked, heads, fixed)
    compiled = [sp.lambdify(arguments, value, "math", cse=True) for value in (slope, jacobian, list(seen.values()))]
    return compiled[0], compiled[1], Observed(list(seen), compiled[2])


def symbolic_slope(
    form: Form, blocked: frozenset[tuple[str, str]], heads: frozenset[str], fixed: frozenset[str]
) -> tuple[list[Any], list[Any], list[list[Any]], dict[str, Any]]:
    """-dL/dy, its Jacobian and the observable quantities from the symbolic loss, after the symbols that they use:
    coordinates, target norms and shares of heads, weights, parameters."""
    planes, weights, parameters = symbols(form, heads)
    values = terms(form, planes, weights)
    inside: Any = {sp.Symbol(t, nonnegative=True): value for t, value in values.items()}
    order = sorted(form.vectors)
    free = [planes[x].u for x in order] + [planes[x].v for x in order]
    expression = sp.sympify(form.loss(**{str(t): t for t in inside}, **parameters))
    slope = [
        sp.Integer(0)
        if x in fixed
        else -sp.Add(
            *(
                sp.diff(expression, t).subs(inside) * sp.diff(value, y)
                for t, value in inside.items()
                if (str(t), x) not in blocked
            )
        )
        for x, y in zip([*order, *order], free, strict=True)
    ]
    jacobian = [[sp.diff(row, y) for y in free] for row in slope]
    seen = {
        "loss": expression.subs(inside),
        **{(f"loss_{t}" if t in form.mechanisms else t): value for t, value in values.items()},
        **{f"overlap_{x}": planes[x].overlap for x in form.vectors},
        **{f"residual_{x}": sp.sqrt(planes[x].residual_square) for x in form.vectors},
    }
    constants = [c for x in order for c in planes[x][2:] if isinstance(c, sp.Symbol)]
    arguments = [*free, *constants, *weights.values(), *parameters.values()]
    return arguments, slope, jacobian, seen


def _counting(slope: Callable[..., Any], most: int, method: str) -> Callable[..., Any]:
    """The right-hand side for scipy, until it was called more often than `most` steps of an integrator would."""
    calls = 0

    def counted(_t: float, y: Any, *constants: float) -> Any:
        nonlocal calls
        calls += 1
        if calls > 20 * most:
            raise RuntimeError(
                f"scipy's {method} took more than about max_steps={most} steps; raise max_steps, or rtol"
            )
        return slope(*y, *constants)

    return counted
