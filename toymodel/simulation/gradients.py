"""Derivatives of a flow: of its losses at any time, and of the times of its events, by all that it starts from.

The derivatives of the coordinates at the steps are those of `toymodel.simulation.sensitivity`, in both modes of JAX. An
event is a time t* at which some g(y(t), p) passes 0, and by the implicit function theorem

    dt*/dp = -(dg/dp) / (dg/dt)        at t*, dg/dp with t* held.

Only first derivatives are meant: those of event times and step sizes again are not there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import xarray as xr
from jaxtyping import Array, Float

from toymodel.checks import POSITIVE, number, whole
from toymodel.measures import LEARNED
from toymodel.model import Model
from toymodel.reduction import Plane, unlearned_loss
from toymodel.simulation.problem import problem_of_start
from toymodel.simulation.sensitivity import Steps, chosen, field, followed, stepped
from toymodel.symbolic import System

Values = Mapping[str, Mapping[str, Any]]
SECANTS = 30  # in the step in which an event is


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
    >>> from toymodel.simulation.gradients import differentiable, values_of
    >>> model = tm.Model({"icl": "a"}, lambda icl: icl, {"a": 1}, weights={"icl": 2.0})
    >>> with jax.enable_x64(True):
    ...     flow = differentiable(model, 10.0)
    ...     values = values_of(model, tm.aligned_start(model, overlap=0.0))
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
    model's. An event that does not happen until the horizon is NaN, with derivatives 0; so are the derivatives of the
    time of one that is at time 0 or at the horizon.
    """

    model: Model
    horizon: float
    rtol: float
    atol: float
    max_steps: int

    def losses(self, values: Values, times: Float[Array, " time"]) -> dict[str, Float[Array, " time"]]:
        """The loss as "loss", and every mechanism and cost by its name, at times >= 0 in any order."""
        return self.run(values, jnp.max(jnp.asarray(times, float))).losses(times)

    def emergence(self, values: Values, mechanism: str) -> Float[Array, ""]:
        """The first time at which the loss of the mechanism is below half of its unlearned loss."""
        return self.run(values).emergence(mechanism)

    def end(self, values: Values, mechanism: str) -> Float[Array, ""]:
        """The first time after its minimum at which a mechanism that had emerged is no longer learned."""
        return self.run(values).end(mechanism)

    def minimum_time(self, values: Values, mechanism: str) -> Float[Array, ""]:
        """The time of the lowest loss of the mechanism."""
        return self.run(values).minimum_time(mechanism)

    def minimum(self, values: Values, mechanism: str) -> Float[Array, ""]:
        """The lowest loss of the mechanism."""
        return self.run(values).minimum(mechanism)

    def run(self, values: Values, horizon: Any = None) -> DifferentiableRun:
        """The run itself, whose methods are those above: for several results of one run."""
        needed = {"overlap", "residual", "target_norm"}
        if not isinstance(values, Mapping) or not needed <= set(values) <= needed | {"weights", "parameters"}:
            raise ValueError(f"values must be as tm.values_of makes them, got {values!r:.200}")
        if not jax.config.read("jax_enable_x64"):
            raise ValueError("a differentiable flow needs 64 bits: call it inside `with jax.enable_x64(True)`")
        form = self.model.form
        weights = {**self.model.weights, **values.get("weights", {})}
        parameters = {**self.model.parameters, **values.get("parameters", {})}
        begin = [values[name][x] for name in ("overlap", "residual") for x in form.vectors]
        others = [values["target_norm"][x] for x in form.vectors]
        others += [weights[t] for t in form.terms] + [parameters[p] for p in form.parameters]
        y, p = (jnp.stack([jnp.asarray(one, float) for one in parts]) for parts in (begin, others))
        end = jnp.asarray(self.horizon if horizon is None else horizon, float)
        system = System(form)
        steps = chosen(system, self.max_steps, *jax.lax.stop_gradient((y, p, end)), self.rtol, self.atol)
        return DifferentiableRun(self.model, system, p, steps._replace(y=followed(system, y, p, steps)))


@dataclass(frozen=True)
class DifferentiableRun:
    """One run of a `DifferentiableFlow`: its constants p and its steps, none where max_steps did not suffice."""

    model: Model
    system: System
    p: Any
    steps: Steps

    def losses(self, times: Float[Array, " time"]) -> dict[str, Float[Array, " time"]]:
        """As `DifferentiableFlow.losses`; NaN after the horizon."""
        times, steps = jnp.asarray(times, float), self.steps
        at = jnp.clip(jnp.searchsorted(steps.t, times, side="right") - 1, 0, jnp.maximum(steps.count - 1, 0))
        here = jax.vmap(self._inside)(at, times - steps.t[at])
        there = (times <= steps.t[steps.count]) & (steps.count > 0)
        found = jax.vmap(self._observed, (None, 0))(self.p, here)
        return {name: jnp.where(there, value, jnp.nan) for name, value in found.items()}

    def emergence(self, mechanism: str) -> Float[Array, ""]:
        """As `DifferentiableFlow.emergence`."""
        margin = self._margin(mechanism)
        below = (self._along(margin) < 0) & self._there
        i = jnp.argmax(below)
        return jnp.where(below.any(), jnp.where(i > 0, self._crossing(margin, i - 1), 0.0), jnp.nan)

    def end(self, mechanism: str) -> Float[Array, ""]:
        """As `DifferentiableFlow.end`."""
        margin = self._margin(mechanism)
        over = self._along(margin)
        lowest = jnp.argmin(jnp.where(self._there, over, jnp.inf))
        above = (over >= 0) & self._there & (jnp.arange(len(over)) > lowest)
        time = self._crossing(margin, jnp.argmax(above) - 1)
        return jnp.where(above.any() & (over[lowest] < 0), time, jnp.nan)

    def minimum_time(self, mechanism: str) -> Float[Array, ""]:
        """As `DifferentiableFlow.minimum_time`."""
        return self._minimum(mechanism)[0]

    def minimum(self, mechanism: str) -> Float[Array, ""]:
        """As `DifferentiableFlow.minimum`."""
        return self._minimum(mechanism)[1]

    def _minimum(self, mechanism: str) -> tuple[Any, Any]:
        """Where dL_m/dt passes 0 beside the lowest step, or that step, where it is the first or the last."""
        loss, steps = self._loss(mechanism), self.steps

        def rise(p: Any, y: Any) -> Any:
            return jax.jvp(partial(loss, p), (y,), (field(self.system)(y, p),))[1]

        i = jnp.argmin(jnp.where(self._there, self._along(loss), jnp.inf))
        first = jnp.where(jax.lax.stop_gradient(rise(self.p, steps.y[i])) < 0, i, i - 1)
        inside = (first >= 0) & (first < steps.count)
        time = jnp.where(inside, self._crossing(rise, first), steps.t[i])
        s = jax.lax.stop_gradient(jnp.where(inside, time - steps.t[jnp.clip(first, 0)], 0.0))
        lowest = loss(self.p, self._inside(jnp.where(inside, first, i), s))
        fine = steps.count > 0
        return jnp.where(fine, time, jnp.nan), jnp.where(fine, lowest, jnp.nan)

    @property
    def _there(self) -> Any:
        """Which rows of `steps` are steps."""
        return (jnp.arange(len(self.steps.t)) <= self.steps.count) & (self.steps.count > 0)

    def _along(self, of: Callable[[Any, Any], Any]) -> Any:
        """A quantity at all steps, without derivatives."""
        return jax.lax.stop_gradient(jax.vmap(partial(of, self.p))(self.steps.y))

    def _inside(self, i: Any, s: Any) -> Any:
        """The coordinates at the time s after the beginning of the step i."""
        y = self.steps.y[i]
        return jnp.where(s > 0, stepped(self.system, y, self.p, jnp.where(s > 0, s, 1.0)), y)

    def _crossing(self, of: Callable[[Any, Any], Any], i: Any) -> Any:
        """The time in the step i at which `of(p, y)` passes 0, by the secant within a bracket (Illinois), and its
        derivative by the implicit function theorem."""
        i = jnp.clip(i, 0, len(self.steps.t) - 2)
        steps, fixed = jax.lax.stop_gradient((self.steps, self.p))
        held = replace(self, steps=steps, p=fixed)

        def narrowed(_: Any, bracket: tuple[Any, ...]) -> tuple[Any, ...]:
            left, right, at_left, at_right, side = bracket
            s = (left * at_right - right * at_left) / jnp.where(at_right == at_left, 1.0, at_right - at_left)
            s = jnp.where((s > left) & (s < right), s, (left + right) / 2)
            value = of(fixed, held._inside(i, s))
            before = jnp.sign(value) == jnp.sign(at_right)  # the root is before s
            twice = side == jnp.where(before, 1, -1)  # the same end stays again: halve its value
            return (
                jnp.where(before, left, s),
                jnp.where(before, s, right),
                jnp.where(before, jnp.where(twice, at_left / 2, at_left), value),
                jnp.where(before, value, jnp.where(twice, at_right / 2, at_right)),
                jnp.where(before, 1, -1),
            )

        h = steps.t[i + 1] - steps.t[i]
        bracket = (h * 0, h, of(fixed, steps.y[i]), of(fixed, steps.y[i + 1]), jnp.asarray(0))
        left, right, at_left, at_right, _ = jax.lax.fori_loop(0, SECANTS, narrowed, bracket)
        s = jnp.where(abs(at_left) < abs(at_right), left, right)
        here = self._inside(i, s)
        value, y = of(self.p, here), jax.lax.stop_gradient(here)
        speed = jax.jvp(partial(of, fixed), (y,), (field(self.system)(y, fixed),))[1]
        speed = jnp.where(jnp.isfinite(speed) & (speed != 0), speed, jnp.inf)
        return steps.t[i] + s - (value - jax.lax.stop_gradient(value)) / speed

    def _loss(self, mechanism: str) -> Callable[[Any, Any], Any]:
        """The loss of a mechanism from p and coordinates."""
        if mechanism not in self.model.mechanisms:
            raise ValueError(f"mechanism must be one of {list(self.model.mechanisms)}, got {mechanism!r}")
        return lambda p, y: self._observed(p, y)[mechanism]

    def _margin(self, mechanism: str) -> Callable[[Any, Any], Any]:
        """The loss of a mechanism minus that below which it is learned."""
        loss, form = self._loss(mechanism), self.model.form
        letters = form.mechanisms[mechanism]

        def margin(p: Any, y: Any) -> Any:
            norms = dict(zip(form.vectors, p, strict=False))
            weight = p[len(form.vectors) + list(form.terms).index(mechanism)]
            return loss(p, y) - LEARNED * unlearned_loss([Plane(0, 0, norms[x]) for x in letters], weight)

        return margin

    def _observed(self, p: Any, y: Any) -> dict[str, Any]:
        return dict(zip(["loss", *self.model.terms], _observed(self.system)(*y, *p), strict=True))


@cache
def _observed(system: System) -> Callable[..., Any]:
    return system.function([system.loss, *system.terms], "jax")
