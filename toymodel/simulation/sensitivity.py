"""Derivatives of the Rosenbrock method of `toymodel.simulation.rosenbrock`, for one run.

A run is y_(i+1) = Phi(y_i, p, h_i), with step sizes h_i that the error control chooses and that are then held. With
A_i = dPhi/dy, B_i = dPhi/dp at y_i, its derivatives are

    forward    dy_(i+1) = A_i dy_i + B_i dp
    backward   lambda_i = A_i^T lambda_(i+1) + dF/dy_i,     dF/dp = sum_i B_i^T lambda_(i+1)

which is a system of linear equations and its transpose: one pass over the steps solves either, whichever mode of JAX
asks. In a step, W U_i = r_i with W = 1/(gamma h) - J, so that

    forward    W dU_i = dr_i + dJ U_i
    backward   W s_i = dF/dU_i  (W is symmetric),     dF/dr_i = s_i,     dF/dJ = sum_i s_i U_i^T.

Only first derivatives are there; those of step sizes are of the size of the tolerance.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from toymodel.simulation.rosenbrock import GAMMA, A, C, Path, field_of, first_path, tried
from toymodel.symbolic import System

STAGES = 6
A_STAGES = np.pad(A, ((0, 0), (0, 1)))  # strictly lower triangular, as C
C_STAGES = np.pad(C, ((0, 0), (0, 1)))
LAST = np.append(A[5], 1.0)  # y_new = y + sum_j LAST_j U_j


class Steps(NamedTuple):
    """The steps of one run: times (step + 1,), coordinates (step + 1, coordinate), and how many there are."""

    t: Any
    y: Any
    count: Any


@cache
def field(system: System) -> Callable[[Any, Any], Any]:
    """f (coordinate,) of one run, of coordinates and constants; J is its derivative by JAX, whose program is shorter
    than J printed by sympy, and so compiled sooner."""
    return field_of(system)[0]


def chosen(system: System, most: int, y: Any, p: Any, end: Any, rtol: Any, atol: Any) -> Steps:
    """The steps that the error control takes, none where `most` do not suffice."""
    velocity, jacobian = field_of(system)
    wide = p[:, None]

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
def stepped(system: System, y: Any, p: Any, h: Any) -> Any:
    """Phi: the coordinates after a step of the length h; h is held."""
    return y + LAST @ _stages(system, y, p, h)[1]


@stepped.defjvp
def _stepped_jvp(system: System, primals: Any, tangents: Any) -> tuple[Any, Any]:
    return stepped(system, *primals), moved(system, *primals, *tangents[:2])


def moved(system: System, y: Any, p: Any, h: Any, dy: Any, dp: Any) -> Any:
    """A dy + B dp."""
    return dy + LAST @ stages_moved(system, y, p, h, dy[:, None], dp[:, None])[1][..., 0]


def pulled(system: System, y: Any, p: Any, h: Any, back: Any) -> tuple[Any, Any]:
    """A^T back and B^T back."""
    velocity = field(system)
    inverse, u = _stages(system, y, p, h)
    a, c = jnp.asarray(A_STAGES), jnp.asarray(C_STAGES)

    def stage(k: Any, carried: tuple[Any, ...]) -> tuple[Any, ...]:
        of_u, s, of_y, of_p = carried
        i = STAGES - 1 - k
        one = inverse.T @ of_u[i]
        by_y, by_p = jax.vjp(velocity, y + a[i] @ u, p)[1](one)
        of_u = of_u + jnp.outer(a[i], by_y) + jnp.outer(c[i], one / h)
        return of_u, s.at[i].set(one), of_y + by_y, of_p + by_p

    begin = (jnp.outer(LAST, back), jnp.zeros_like(u), back, jnp.zeros_like(p))
    _, s, of_y, of_p = jax.lax.fori_loop(0, STAGES, stage, begin)

    def bent(y: Any, p: Any) -> Any:
        """sum_i s_i J U_i."""
        return jnp.sum(s * jax.vmap(lambda u: jax.jvp(lambda y: velocity(y, p), (y,), (u,))[1])(u))

    by_y, by_p = jax.grad(bent, (0, 1))(y, p)
    return of_y + by_y, of_p + by_p


def _inverse(system: System, y: Any, p: Any, h: Any) -> Any:
    """1/W."""
    return jnp.linalg.inv(jnp.eye(len(y)) / (GAMMA * h) - jax.jacfwd(field(system))(y, p))


def _stages(system: System, y: Any, p: Any, h: Any) -> tuple[Any, Any]:
    """1/W, and U (stage, coordinate)."""
    velocity, inverse = field(system), _inverse(system, y, p, h)
    a, c = jnp.asarray(A_STAGES), jnp.asarray(C_STAGES)

    def stage(i: Any, u: Any) -> Any:
        return u.at[i].set(inverse @ (velocity(y + a[i] @ u, p) + c[i] @ u / h))

    return inverse, jax.lax.fori_loop(0, STAGES, stage, jnp.zeros((STAGES, len(y))))


def stages_moved(system: System, y: Any, p: Any, h: Any, dy: Any, dp: Any) -> tuple[Any, Any]:
    """U (stage, coordinate) and dU (stage, coordinate, direction).

    dU_i = 1/W (d(right side) + dJ U_i), and dJ U_i is the derivative of J U_i with U_i held.
    """
    velocity, inverse = field(system), _inverse(system, y, p, h)
    a, c = jnp.asarray(A_STAGES), jnp.asarray(C_STAGES)

    def both(at: Any, d_at: Any) -> tuple[Any, Any]:
        """The velocity, and its derivatives in all directions."""
        of = jax.vmap(lambda dy, dp: jax.jvp(velocity, (at, p), (dy, dp)), (1, 1), (None, -1))
        return of(d_at, dp)

    def bent(u: Any) -> Any:
        """d(J) u in all directions."""

        def along(y: Any, p: Any) -> Any:
            return jax.jvp(lambda y: velocity(y, p), (y,), (u,))[1]

        return jax.vmap(lambda dy, dp: jax.jvp(along, (y, p), (dy, dp))[1], (1, 1), -1)(dy, dp)

    def stage(i: Any, known: tuple[Any, Any]) -> tuple[Any, Any]:
        u, du = known
        f, df = both(y + a[i] @ u, dy + jnp.tensordot(a[i], du, 1))
        new = inverse @ (f + c[i] @ u / h)
        return u.at[i].set(new), du.at[i].set(inverse @ (df + jnp.tensordot(c[i], du, 1) / h + bent(new)))

    nothing = jnp.zeros((STAGES, len(y))), jnp.zeros((STAGES, *dy.shape))
    return jax.lax.fori_loop(0, STAGES, stage, nothing)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def followed(system: System, y: Any, p: Any, steps: Steps) -> Any:
    """The coordinates at the steps, as a function of where the run starts and of its constants."""
    return steps.y


@followed.defjvp
def _followed_jvp(system: System, primals: Any, tangents: Any) -> tuple[Any, Any]:
    """Solves dy_0 = d, dy_(i+1) - A_i dy_i - B_i dp = 0 for all steps, or the transposed equations."""
    begin, p = _once(primals[0]), _once(primals[1])
    t, y = primals[2].t, primals[2].y.at[0].set(begin)
    count = primals[2].count

    def parts(b: Any) -> tuple[Any, Any]:
        """dy of all steps and dp, which are one array, since JAX's rule for batches wants one."""
        return b[: y.size].reshape(y.shape), b[y.size :]

    def joined(dy: Any, dp: Any) -> Any:
        return jnp.concatenate([dy.reshape(-1), dp])

    def forward(_: Any, b: Any) -> Any:
        dy, dp = parts(b)

        def one(i: Any, dy: Any) -> Any:
            return dy.at[i + 1].add(moved(system, y[i], p, t[i + 1] - t[i], dy[i], dp))

        return joined(jax.lax.fori_loop(0, count, one, dy), dp)

    def backward(_: Any, b: Any) -> Any:
        of_steps, of_p = parts(b)

        def one(k: Any, carried: tuple[Any, Any]) -> tuple[Any, Any]:
            back, of_p = carried
            i = count - 1 - k
            of_y, by_p = pulled(system, y[i], p, t[i + 1] - t[i], back)
            return of_steps[i] + of_y, of_p + by_p

        back, of_p = jax.lax.fori_loop(0, count, one, (of_steps[count], of_p))
        return joined(jnp.zeros_like(y).at[0].set(back), of_p)

    def unused(x: Any) -> Any:
        return x  # the matrix itself: it is asked for by second derivatives only, which `_once` refuses

    b = joined(jnp.zeros_like(y).at[0].set(tangents[0]), tangents[1])
    return primals[2].y, parts(jax.lax.custom_linear_solve(unused, b, forward, backward))[0]


@jax.custom_jvp
def _once(value: Any) -> Any:
    """The value, of which no derivative may be asked."""
    return value


@_once.defjvp
def _refused(primals: Any, tangents: Any) -> Any:
    raise NotImplementedError("second derivatives of a flow are not there")
