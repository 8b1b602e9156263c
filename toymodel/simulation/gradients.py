"""Derivatives of a flow: of its losses at any time, and of the times of its events, by all that it starts from.

The flow is integrated by the Rosenbrock method y_(i+1) = Phi(y_i, p, h_i) of `toymodel.simulation.rosenbrock`, with step
sizes h_i that the error control chooses and that are then held. Its derivatives are those of these steps,

    forward    dy_(i+1) = A_i dy_i + B_i dp,                                   A_i = dPhi/dy, B_i = dPhi/dp
    backward   lambda_i = A_i^T lambda_(i+1) + dF/dy_i,     dF/dp = sum_i B_i^T lambda_(i+1),

a system of linear equations and its transpose, so that both modes of JAX, jit and vmap go through it. Each solves it in
one pass over the steps. An event is a time t* at which some g(y(t), p) passes 0, and by the implicit function theorem

    dt*/dp = -(dg/dp) / (dg/dt)        at t*, dg/dp with t* held.

Only first derivatives are meant: those of event times and step sizes again are not there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float

from toymodel.checks import POSITIVE, number, whole
from toymodel.measures import LEARNED
from toymodel.model import Model
from toymodel.reduction import Plane, unlearned_loss
from toymodel.simulation.problem import problem_of_start
from toymodel.simulation.rosenbrock import Path, field_of, first_path, step, tried
from toymodel.symbolic import System

Values = Mapping[str, Mapping[str, Any]]
HALVINGS = 30  # of the step in which an event is; each also takes the secant


class Steps(NamedTuple):
    """The steps of one run: times (step + 1,), coordinates (step + 1, coordinate), and how many there are."""

    t: Any
    y: Any
    count: Any


def values_of(
    model: Model, start: xr.Dataset, weights: Mapping[str, Any] | None = None, **parameters: Any
) -> dict[str, dict[str, Array]]:
    """What a differentiable flow starts from: {"overlap", "residual", "target_norm": letter -> number, "weights":
    term -> w, "parameters": name -> value}.

    Arguments are those of `flow`. With dimensions, every number is an array of shape (run,), for `jax.vmap`.
    """
    problem = problem_of_start(model, start, (), weights, parameters)
    state = problem.reduced(start)
    values: dict[str, dict[str, Any]] = {
        "overlap": state.u,
        "residual": state.v,
        "target_norm": state.target,
        "weights": {t: problem.batch.flat(w) for t, w in problem.weights.items()},
        "parameters": {p: problem.batch.flat(value) for p, value in problem.parameters.items()},
    }
    single = not problem.batch.dims
    return jax.tree.map(lambda value: jnp.asarray(value[0] if single else value), values)


def differentiable(
    model: Model, horizon: float = 1e5, *, rtol: float = 1e-7, atol: float = 1e-10, max_steps: int = 1024
) -> DifferentiableFlow:
    """The flow of one run as functions of JAX numbers, for `jax.grad`, `jax.jvp`, `jax.vmap` and `jax.jit`.

    Arguments:
        model: the loss; its numbers are those in `values`, see `values_of`.
        horizon: the time at which events are looked for no more.
        rtol, atol: tolerances of one step.
        max_steps: of a run; where they do not suffice, all results are NaN. Memory grows with them.

    Call it, and what it returns, where JAX has 64 bits: `with jax.enable_x64(True)`.

    >>> import jax, toymodel as tm
    >>> model = tm.Model({"icl": "a"}, lambda icl: icl, {"a": 1}, weights={"icl": 2.0})
    >>> with jax.enable_x64(True):
    ...     flow = tm.differentiable(model, 10.0)
    ...     values = tm.values_of(model, tm.aligned_start(model, overlap=0.0))
    ...     slope = jax.grad(flow.emergence)(values, "icl")
    >>> round(float(slope["weights"]["icl"]), 4)  # emergence = log(2) / (2 w)
    -0.0866

    Source: `derivations/reduction.py` for the flow; Hairer and Wanner, Solving Ordinary Differential Equations II.
    """
    tolerances = number("rtol", rtol, POSITIVE), number("atol", atol, POSITIVE)
    return DifferentiableFlow(model, number("horizon", horizon, POSITIVE), *tolerances, whole("max_steps", max_steps))


@dataclass(frozen=True)
class DifferentiableFlow:
    """Losses and event times of one run; see `differentiable`.

    `values` is as `values_of` makes it; leaves may be left out of `weights` and `parameters`, which are then the
    model's. Times are in the units of `flow`. An event that does not happen until the horizon is NaN, with derivatives
    0; so are the derivatives of one that is at time 0 or at the horizon.
    """

    model: Model
    horizon: float
    rtol: float
    atol: float
    max_steps: int

    def losses(self, values: Values, times: Float[Array, " time"]) -> dict[str, Float[Array, " time"]]:
        """"loss", and every mechanism and cost by its name, at times >= 0 in any order."""
        y, constants = self._begin(values)
        times = jnp.asarray(times, float)
        steps = self._steps(y, constants, jnp.max(times))
        at = jnp.clip(jnp.searchsorted(steps.t, times, side="right") - 1, 0, steps.count - 1)
        here = jax.vmap(self._inside, (None, None, 0, 0))(steps, constants, at, times - steps.t[at])
        found = jax.vmap(self._observed, (0, None))(here, constants)
        return {name: jnp.where(steps.count > 0, value, jnp.nan) for name, value in found.items()}

    def emergence(self, values: Values, mechanism: str) -> Float[Array, ""]:
        """The first time at which the loss of the mechanism is below half of its unlearned loss."""
        y, constants = self._begin(values)
        steps = self._steps(y, constants, self.horizon)
        margin = self._margin(values, mechanism)
        over = self._along(steps, partial(margin, constants))
        below = (over < 0) & self._there(steps)
        i = jnp.argmax(below)
        time = self._crossing(steps, constants, margin, i - 1)
        return jnp.where(below.any(), jnp.where(i > 0, time, 0.0), jnp.nan)

    def end(self, values: Values, mechanism: str) -> Float[Array, ""]:
        """The first time after its minimum at which a mechanism that had emerged is no longer learned."""
        y, constants = self._begin(values)
        steps = self._steps(y, constants, self.horizon)
        margin = self._margin(values, mechanism)
        over = self._along(steps, partial(margin, constants))
        there = self._there(steps)
        lowest = jnp.argmin(jnp.where(there, over, jnp.inf))
        above = (over >= 0) & there & (jnp.arange(len(over)) > lowest)
        time = self._crossing(steps, constants, margin, jnp.argmax(above) - 1)
        return jnp.where(above.any() & (over[lowest] < 0), time, jnp.nan)

    def minimum_time(self, values: Values, mechanism: str) -> Float[Array, ""]:
        """The time of the lowest loss of the mechanism."""
        return self._minimum(values, mechanism)[0]

    def minimum(self, values: Values, mechanism: str) -> Float[Array, ""]:
        """The lowest loss of the mechanism."""
        return self._minimum(values, mechanism)[1]

    def _minimum(self, values: Values, mechanism: str) -> tuple[Any, Any]:
        y, constants = self._begin(values)
        steps = self._steps(y, constants, self.horizon)
        loss, there = self._term(mechanism), self._there(steps)
        velocity, _ = _field(self.system)

        def rise(constants: Any, y: Any) -> Any:
            """dL_m/dt."""
            return jax.jvp(partial(loss, constants), (y,), (velocity(y, constants),))[1]

        along = self._along(steps, partial(loss, constants))
        i = jnp.argmin(jnp.where(there, along, jnp.inf))
        falls = rise(constants, steps.y[i]) < 0
        first = jnp.where(falls, i, i - 1)  # the step with the minimum in it
        inside = (first >= 0) & (first < steps.count)
        time = jnp.where(inside, self._crossing(steps, constants, rise, first), steps.t[i])
        s = jnp.where(inside, jax.lax.stop_gradient(time) - steps.t[jnp.clip(first, 0)], 0.0)
        lowest = loss(constants, self._inside(steps, constants, jnp.where(inside, first, i), s))
        fine = steps.count > 0
        return jnp.where(fine, time, jnp.nan), jnp.where(fine, lowest, jnp.nan)

    @cached_property
    def system(self) -> System:
        return System(self.model.form)

    def _begin(self, values: Values) -> tuple[Any, Any]:
        """Coordinates and constants of the run, in the order of `System`."""
        unknown = set(values) - {"overlap", "residual", "target_norm", "weights", "parameters"}
        if unknown or not {"overlap", "residual", "target_norm"} <= set(values):
            raise ValueError(f"values must be as tm.values_of makes them, got a mapping of {sorted(values)}")
        if not jax.config.read("jax_enable_x64"):
            raise ValueError("a differentiable flow needs 64 bits: call it inside `with jax.enable_x64(True)`")
        form = self.model.form
        weights = {**self.model.weights, **values.get("weights", {})}
        parameters = {**self.model.parameters, **values.get("parameters", {})}
        numbers = [*(values[name][x] for name in ("overlap", "residual") for x in form.vectors)]
        fixed = [values["target_norm"][x] for x in form.vectors]
        fixed += [weights[t] for t in form.terms] + [parameters[p] for p in form.parameters]
        return tuple(jnp.stack([jnp.asarray(one, float) for one in parts]) for parts in (numbers, fixed))

    def _steps(self, y: Any, constants: Any, end: Any) -> Steps:
        """The steps of the run; without any where max_steps do not suffice."""
        held = jax.lax.stop_gradient((y, constants, jnp.asarray(end, float)))
        steps = _chosen(self.system, self.max_steps, *held, self.rtol, self.atol)
        return steps._replace(y=_followed(self.system, y, constants, steps))

    def _there(self, steps: Steps) -> Any:
        return (jnp.arange(self.max_steps + 1) <= steps.count) & (steps.count > 0)

    def _along(self, steps: Steps, of: Callable[[Any], Any]) -> Any:
        return jax.lax.stop_gradient(jax.vmap(of)(steps.y))

    def _inside(self, steps: Steps, constants: Any, i: Any, s: Any) -> Any:
        """The coordinates at the time s after the beginning of the step i."""
        moves = s > 0
        return jnp.where(moves, _step(self.system, steps.y[i], constants, jnp.where(moves, s, 1.0)), steps.y[i])

    def _crossing(self, steps: Steps, constants: Any, of: Callable[[Any, Any], Any], i: Any) -> Any:
        """The time in the step i at which `of(constants, y)` passes 0, by the secant within a bracket, and its
        derivative by the implicit function theorem."""
        i = jnp.clip(i, 0, self.max_steps - 1)
        velocity, _ = _field(self.system)
        held, fixed = jax.lax.stop_gradient((steps, constants))

        def at(s: Any) -> Any:
            return of(fixed, self._inside(held, fixed, i, s))

        def narrowed(_: Any, bracket: tuple[Any, ...]) -> tuple[Any, ...]:
            left, right, at_left, at_right, side = bracket
            s = (left * at_right - right * at_left) / jnp.where(at_right == at_left, 1.0, at_right - at_left)
            s = jnp.where((s > left) & (s < right), s, (left + right) / 2)
            value = at(s)
            goes_left = jnp.sign(value) == jnp.sign(at_right)  # the root is left of s
            twice = jnp.where(goes_left, side == 1, side == -1)  # the same end stays again: halve its value (Illinois)
            return (
                jnp.where(goes_left, left, s),
                jnp.where(goes_left, s, right),
                jnp.where(goes_left, jnp.where(twice, at_left / 2, at_left), value),
                jnp.where(goes_left, value, jnp.where(twice, at_right / 2, at_right)),
                jnp.where(goes_left, 1, -1),
            )

        h = held.t[i + 1] - held.t[i]
        bracket = (h * 0, h, at(h * 0), at(h), jnp.asarray(0))
        left, right, at_left, at_right, _ = jax.lax.fori_loop(0, HALVINGS, narrowed, bracket)
        s = jax.lax.stop_gradient(jnp.where(abs(at_left) < abs(at_right), left, right))
        here = self._inside(steps, constants, i, s)
        value = of(constants, here)
        y = jax.lax.stop_gradient(here)
        speed = jax.jvp(partial(of, fixed), (y,), (velocity(y, fixed),))[1]
        speed = jax.lax.stop_gradient(jnp.where(jnp.isfinite(speed) & (speed != 0), speed, jnp.inf))
        return held.t[i] + s - (value - jax.lax.stop_gradient(value)) / speed

    def _term(self, mechanism: str) -> Callable[[Any, Any], Any]:
        if mechanism not in self.model.mechanisms:
            raise ValueError(f"mechanism must be one of {list(self.model.mechanisms)}, got {mechanism!r}")
        return lambda constants, y: self._observed(y, constants)[mechanism]

    def _margin(self, values: Values, mechanism: str) -> Callable[[Any, Any], Any]:
        """The loss of a mechanism minus that below which it is learned."""
        loss, form = self._term(mechanism), self.model.form
        letters = form.mechanisms[mechanism]

        def margin(constants: Any, y: Any) -> Any:
            norms = dict(zip(form.vectors, constants, strict=False))
            weight = constants[len(form.vectors) + list(form.terms).index(mechanism)]
            return loss(constants, y) - LEARNED * unlearned_loss([Plane(0, 0, norms[x]) for x in letters], weight)

        return margin

    def _observed(self, y: Any, constants: Any) -> dict[str, Any]:
        names = ["loss", *self.model.terms]
        return dict(zip(names, _observed(self.system)(*y, *constants), strict=True))


@cache
def _observed(system: System) -> Callable[..., Any]:
    return system.function([system.loss, *system.terms], "jax")


@cache
def _field(system: System) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """f and J of one run."""
    velocity, jacobian = field_of(system)
    return velocity, jacobian


def _step(system: System, y: Any, constants: Any, h: Any) -> Any:
    """One run after a step of the length h: y (coordinate,), constants (constant,)."""
    velocity, jacobian = _field(system)
    y, constants = y[:, None], constants[:, None]
    return step(lambda y: velocity(y, constants), jacobian(y, constants), y, jnp.reshape(h, (1,)))[0][:, 0]


def _chosen(system: System, most: int, y: Any, constants: Any, end: Any, rtol: Any, atol: Any) -> Steps:
    """The steps that the error control takes, none where `most` do not suffice."""
    velocity, jacobian = _field(system)
    wide = constants[:, None]

    def goes_on(carried: tuple[Path, Steps]) -> Any:
        path, steps = carried
        return (path.t[0] < end) & (steps.count < most) & (path.tries[0] < 4 * most)

    def one_step(carried: tuple[Path, Steps]) -> tuple[Path, Steps]:
        path, steps = carried
        after, _ = tried(lambda y: velocity(y, wide), jacobian(path.y, wide), path, end, rtol, atol, 4 * most)
        count = steps.count + (after.t[0] > path.t[0])
        return after, Steps(steps.t.at[count].set(after.t[0]), steps.y.at[count].set(after.y[:, 0]), count)

    path = first_path(velocity(y[:, None], wide), y[:, None], 0.0, end, rtol, atol)
    nothing = Steps(jnp.full(most + 1, jnp.inf).at[0].set(0.0), jnp.tile(y, (most + 1, 1)), jnp.asarray(0))
    path, steps = jax.lax.while_loop(goes_on, one_step, (path, nothing))
    return steps._replace(count=jnp.where(path.t[0] >= end, steps.count, 0))


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _followed(system: System, y: Any, constants: Any, steps: Steps) -> Any:
    """The coordinates at the steps, as a function of where the run starts and of its constants."""
    return steps.y


@_followed.defjvp
def _followed_jvp(system: System, primals: Any, tangents: Any) -> tuple[Any, Any]:
    """Solves dy_0 = d, dy_(i+1) - A_i dy_i - B_i dp = 0 for all steps, or the transposed system."""
    _, constants, steps = primals
    sizes = jnp.diff(steps.t)
    sizes = jnp.where(jnp.isfinite(sizes), sizes, 1.0)

    def stepped(i: Any) -> Callable[[Any, Any], Any]:
        return lambda y, constants: _step(system, y, constants, sizes[i])

    def moved(i: Any, dy: Any, dp: Any) -> Any:
        return jax.jvp(stepped(i), (steps.y[i], constants), (dy, dp))[1]

    def matrix(x: tuple[Any, Any]) -> tuple[Any, Any]:
        dy, dp = x
        there = (jnp.arange(len(sizes)) < steps.count)[:, None]
        by_step = jax.vmap(moved, (0, 0, None))(jnp.arange(len(sizes)), dy[:-1], dp)
        return dy.at[1:].add(-jnp.where(there, by_step, 0.0)), dp

    def forward(_: Any, b: tuple[Any, Any]) -> tuple[Any, Any]:
        dy, dp = b
        return jax.lax.fori_loop(0, steps.count, lambda i, dy: dy.at[i + 1].add(moved(i, dy[i], dp)), dy), dp

    def backward(_: Any, b: tuple[Any, Any]) -> tuple[Any, Any]:
        def one(k: Any, carried: tuple[Any, Any]) -> tuple[Any, Any]:
            i = steps.count - 1 - k
            back, along = carried
            of_y, of_p = jax.vjp(stepped(i), steps.y[i], constants)[1](back[i + 1])
            return back.at[i].add(of_y), along + of_p

        return jax.lax.fori_loop(0, steps.count, one, b)

    b = jnp.zeros_like(steps.y).at[0].set(tangents[0]), tangents[1]
    dy, _ = jax.lax.custom_linear_solve(matrix, b, forward, backward)
    return steps.y, dy
