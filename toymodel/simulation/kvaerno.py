"""Gradient flow by diffrax, with the gradient from JAX: the check of what sympy derives, and the ground of gradients.

Kvaerno's implicit Runge-Kutta pair of order 5 (Kvaerno 2004), run by run under vmap; steps end on the recorded times.
The slope is jax.grad of the loss as it is written with `toymodel.reduction.terms`, and shares no code with
`toymodel.symbolic`. A gate f of a term and a vector x is what the term sees of x,

    f x + (1 - f) stop_gradient(x),

and a push is added to the gradient.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np

from toymodel.reduction import Plane, terms
from toymodel.settings import own_jax
from toymodel.simulation.integration import Ended, Integration
from toymodel.symbolic import System

WIDTH = 32  # runs in a call


def kvaerno(work: Integration) -> Ended:
    """Carries all runs through a stage (`toymodel.simulation.integration`)."""
    ends = np.empty_like(work.y)
    stops = np.unique([*work.when, work.end])
    with own_jax():
        solve = _compiled(work.system, work.max_steps)
        for first in range(0, work.runs, WIDTH):
            runs = slice(first, min(first + WIDTH, work.runs))
            wide = np.minimum(np.arange(first, first + WIDTH), runs.stop - 1)
            track, fine = solve(work.y.T[wide], work.constants.T[wide], work.begin, stops, work.rtol, work.atol)
            count = runs.stop - runs.start
            track, wrong = np.moveaxis(np.asarray(track)[:count], 0, -1), int((~np.asarray(fine)[:count]).sum())
            if wrong:
                raise RuntimeError(
                    f"the flow of {wrong} runs did not reach t={work.end:g}: raise max_steps={work.max_steps}, or "
                    f"rtol={work.rtol:g}"
                )
            ends[:, runs] = track[-1]
            work.keep(runs, track[: len(work.when)])
    return ends, {}


@cache
def _compiled(system: System, max_steps: int) -> Callable[..., Any]:
    """The coordinates of runs at increasing times, the end of the stage last, and whether that was reached."""
    velocity = velocity_of(system)

    def one(y: Any, constants: Any, begin: Any, stops: Any, rtol: Any, atol: Any) -> tuple[Any, Any]:
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda _t, y, constants: velocity(y, constants)),
            diffrax.Kvaerno5(root_finder=diffrax.VeryChord(rtol=rtol, atol=atol)),
            begin,
            stops[-1],
            None,
            y,
            constants,
            saveat=diffrax.SaveAt(ts=stops),
            stepsize_controller=diffrax.ClipStepSizeController(
                diffrax.PIDController(rtol=rtol, atol=atol), step_ts=stops
            ),
            max_steps=max_steps,
            throw=False,
        )
        return solution.ys, solution.result == diffrax.RESULTS.successful

    return jax.jit(jax.vmap(one, in_axes=(0, 0, None, None, None, None)))


def velocity_of(system: System) -> Callable[[Any, Any], Any]:
    """dy/dt of one run as a function of its coordinates and constants, in the order of `System`."""
    form = system.form
    count = len(form.vectors)
    still = jnp.array([x in system.fixed for x in form.vectors] * 2)
    unused = {name: 0.0 for name in inspect.signature(form.loss).parameters if name not in form.terms}

    def parts(constants: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any], dict[Any, Any], Any]:
        numbers = iter(constants)
        targets = {
            x: (next(numbers), *((next(numbers), next(numbers)) if x in system.heads else ())) for x in form.vectors
        }
        weights = {t: next(numbers) for t in form.terms}
        parameters = {p: next(numbers) for p in form.parameters}
        gates = {pair: next(numbers) for pair in sorted(system.gates)}
        pushes = {x: (next(numbers), next(numbers)) for x in sorted(system.pushed)}
        zero = constants[0] * 0
        push = jnp.stack([pushes.get(x, (zero, zero))[of_v] for of_v in (0, 1) for x in form.vectors])
        return targets, weights, parameters, gates, push

    def velocity(y: Any, constants: Any) -> Any:
        targets, weights, parameters, gates, push = parts(constants)

        def loss(y: Any) -> Any:
            planes = {x: Plane(y[i], y[count + i], *targets[x]) for i, x in enumerate(form.vectors)}

            def seen(term: str, x: str, plane: Plane) -> Plane:
                if (term, x) not in gates:
                    return plane
                f = gates[term, x]
                u, v = (f * part + (1 - f) * jax.lax.stop_gradient(part) for part in plane[:2])
                return plane._replace(u=u, v=v)

            return form.loss(**terms(form, planes, weights, seen), **{**unused, **parameters})

        return jnp.where(still, 0.0, -(jax.grad(loss)(y) + push))

    return velocity
