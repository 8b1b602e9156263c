"""One run of gradient flow at given times, together with its derivatives by what it starts from.

The method is that of `toymodel.simulation.rosenbrock`. A fit needs derivatives in a few directions at a few times, so
they are carried along from step to step, and no step is kept. With the step y -> Phi(y, p, h) and h held, directions
(dy, dp) become

    dy -> dPhi/dy dy + dPhi/dp dp:      W dU_i = d(right side) + dJ U_i,      W = 1/(gamma h) - J,

and the recorded times inside a step are read from its dense output, in the same way. It is not the
differentiable flow of `toymodel.simulation.gradients`, which also goes backward and finds events, and takes longer to
compile.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from toymodel.simulation.rosenbrock import D, Path, first_path
from toymodel.simulation.sensitivity import LAST, field, stages_moved
from toymodel.symbolic import System

BENT = np.pad(D, ((0, 0), (0, 1)))


class Moving(NamedTuple):
    """Where a run is, and how far the record is filled: leaves of one run."""

    y: Any  # (coordinate,)
    dy: Any  # (coordinate, direction)
    t: Any
    h: Any  # of the next step
    tries: Any
    record: Any  # (time, coordinate)
    moved: Any  # (time, coordinate, direction)


def followed(
    system: System, y: Any, p: Any, dy: Any, dp: Any, times: Any, rtol: Any, atol: Any, most: int
) -> tuple[Any, Any]:
    """The coordinates at increasing times, (time, coordinate), and their derivatives, (time, coordinate, direction).

    Arguments:
        y, p: coordinates (coordinate,) at time 0 and constants (constant,), in the order of `System`.
        dy, dp: their derivatives in each direction, (coordinate, direction) and (constant, direction).
        times: >= 0, in increasing order, (time,); they are held.
        rtol, atol: tolerances of one step. most: steps that may be tried; where they do not suffice, all is NaN.
    """
    end = times[-1]
    path: Path = first_path(field(system)(y[:, None], p[:, None]), y[:, None], 0.0, end, rtol, atol)
    blank = jnp.where(times[:, None] <= 0, y, jnp.nan)
    begin = Moving(y, dy, path.t[0], path.h[0], 0, blank, jnp.broadcast_to(dy, (len(times), *dy.shape)))

    def goes_on(at: Moving) -> Any:
        return (at.t < end) & (at.tries < most)

    def one_step(at: Moving) -> Moving:
        final = at.t + at.h >= end
        h = jnp.minimum(at.h, end - at.t)
        h = jnp.where(h > 0, h, 1.0)
        u, du = stages_moved(system, at.y, p, h, at.dy, dp)
        new = at.y + LAST @ u
        size = jnp.sqrt(jnp.mean((u[-1] / (atol + rtol * jnp.maximum(abs(at.y), abs(new)))) ** 2))
        size = jnp.where(jnp.isfinite(size), size, jnp.inf)
        taken = size <= 1
        later = jnp.where(final, end, at.t + h)
        share = (times - at.t) / h
        inside = taken & (times > at.t) & (times <= later)
        record = jnp.where(inside[:, None], _dense(at.y, u, share), at.record)
        moved = jnp.where(inside[:, None, None], _dense(at.dy, du, share), at.moved)
        return Moving(
            jnp.where(taken, new, at.y),
            jnp.where(taken, at.dy + jnp.tensordot(LAST, du, 1), at.dy),
            jnp.where(taken, later, at.t),
            h * jnp.clip(0.9 * jnp.maximum(size, 1e-12) ** -0.25, 0.2, 6.0),
            at.tries + 1,
            record,
            moved,
        )

    found = jax.lax.while_loop(goes_on, one_step, begin)
    fine = found.t >= end
    return jnp.where(fine, found.record, jnp.nan), jnp.where(fine, found.moved, jnp.nan)


def _dense(y: Any, u: Any, share: Any) -> Any:
    """The dense output of a step at shares of it, (time, ...); it is linear in (y, U)."""
    s = share.reshape((-1,) + (1,) * y.ndim)
    new, (k1, k2) = y + jnp.tensordot(LAST, u, 1), jnp.tensordot(BENT, u, 1)
    return (1 - s) * y + s * (new + (1 - s) * (k1 + s * k2))
