"""Gradient flow of many runs at once that measures as it goes, by the Rosenbrock method RODAS of order 4.

One step of length h from y, with f = -dL/dy and its Jacobian J (Hairer and Wanner, Solving Ordinary Differential
Equations II, section IV.7):

    (1/(gamma h) - J) U_i = f(y + sum_j a_ij U_j) + sum_j c_ij U_j / h,    i = 1..6
    y_new = y + sum_j a_6j U_j + U_6,      error = U_6

    between them, at the share s:  (1 - s) y + s (y_new + (1 - s) (K_1 + s K_2)),      K_i = sum_j d_ij U_j

The method is linearly implicit: no iteration, the same operations for every run, and a step as long as the accuracy
allows however stiff the flow is. Each run has its own step size; after a step it visits the recorded times inside it,
READS at once, and waits with its next step until it has visited all. f and J come from the symbolic loss, with
common subexpressions shared. The matrix is factored without pivoting: it is the Hessian plus a multiple of one,
positive definite wherever the step resolves the growth, and where a pivot vanishes the step is repeated, shorter.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import sympy as sp

from toymodel.measures import LEARNED
from toymodel.model import Form
from toymodel.reduction import terms, unlearned_loss
from toymodel.simulation.flow import symbolic_slope
from toymodel.simulation.problem import Problem
from toymodel.simulation.state import Reduced
from toymodel.sweeps.kernel import nothing_yet, tracked

WIDTH = 256  # runs in a call
READS = 4  # recorded times that a run visits between two steps
MOST = 100_000  # steps of one run between two switches
GAMMA = 0.25
A = np.array(
    [
        [0, 0, 0, 0, 0],
        [1.544, 0, 0, 0, 0],
        [0.9466785280815826, 0.2557011698983284, 0, 0, 0],
        [3.314825187068521, 2.896124015972201, 0.9986419139977817, 0, 0],
        [1.221224509226641, 6.019134481288629, 12.53708332932087, -0.6878860361058950, 0],
        [1.221224509226641, 6.019134481288629, 12.53708332932087, -0.6878860361058950, 1],
    ]
)
C = np.array(
    [
        [0, 0, 0, 0, 0],
        [-5.6688, 0, 0, 0, 0],
        [-2.430093356833875, -0.2063599157091915, 0, 0, 0],
        [-0.1073529058151375, -9.594562251023355, -20.47028614809616, 0, 0],
        [7.496443313967647, -10.24680431464352, -33.99990352819905, 11.70890893206160, 0],
        [8.083246795921522, -7.981132988064893, -31.52159432874371, 16.31930543123136, -6.058818238834054],
    ]
)
D = np.array(
    [
        [10.12623508344586, -7.487995877610167, -34.80091861555747, -7.992771707568823, 1.025137723295662],
        [-0.6762803392801253, 6.087714651680015, 16.43084320892478, 24.76722511418386, -6.594389125716872],
    ]
)


class Path(NamedTuple):
    """Where every run is; leaves have shape (run,), coordinates (coordinate, run)."""

    before: Any  # coordinates at the time t0, where the last step began
    y: Any  # coordinates at the time t1, where it ended
    bend: Any  # K_1, K_2 of the last step
    t0: Any
    t1: Any
    h: Any  # the next step to try
    at: Any  # the number of the recorded time to visit next
    tries: Any
    tracker: dict[str, dict[str, Any]]


def flow_measured(
    problem: Problem, state: Reduced, t: float, when: np.ndarray, rtol: float, atol: float
) -> dict[str, np.ndarray]:
    """Flows all runs of a problem (a multiple of WIDTH) until the time t, and measures them at the times `when`.

    Returns the same as `descend_measured`, with times in place of steps. Call it where float64 is enabled. Raises
    RuntimeError for runs that do not reach t in MOST steps.
    """
    form, runs = problem.model.form, problem.batch.runs
    if runs % WIDTH:
        raise ValueError(f"the number of runs must be a multiple of {WIDTH}, got {runs}")
    weights = {name: problem.batch.flat(w) for name, w in problem.weights.items()}
    inside = {
        m: LEARNED * unlearned_loss([state.plane(x) for x in letters], weights[m])
        for m, letters in form.mechanisms.items()
    }
    tracker = {m: nothing_yet(runs) for m in form.mechanisms}
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for stage in problem.stages(float(t)):
            state = problem.begin(stage, state)
            values = {p: problem.batch.flat(value) for p, value in stage.parameters.items()}
            first = np.searchsorted(when, stage.start)
            until = len(when) if stage.end == t else np.searchsorted(when, stage.end)
            work = jax.tree.map(jnp.asarray, (state, tracker, weights, values, inside))
            numbers = (when, stage.start, stage.end, first, until, rtol, atol)

            def one(begin: int, work: Any = work, numbers: Any = numbers, stage: Any = stage) -> Any:
                with jax.enable_x64(True):
                    part = jax.tree.map(lambda leaf: leaf[begin : begin + WIDTH], work)
                    return jax.tree.map(np.asarray, _to_end(form, stage.form, stage.blocked, *part, *numbers))

            done = list(pool.map(one, range(0, runs, WIDTH)))
            y, tracker, reached = jax.tree.map(lambda *parts: np.concatenate(parts, -1), *done)
            if not reached.all():
                raise RuntimeError(f"a flow did not reach t={stage.end:g} in {MOST} steps; raise rtol={rtol:g}")
            state = state.at(jnp.asarray(y))
    found = {f"{name}_{m}": value for m, of in tracker.items() for name, value in of.items()}
    found |= {f"inside_{m}": np.asarray(value) for m, value in inside.items()}
    return {**found, "stopped": np.full(runs, np.inf), "finite": np.ones(runs)}


@partial(jax.jit, static_argnums=(0, 1, 2))
def _to_end(
    form: Form,
    descended: Form,
    blocked: frozenset[tuple[str, str]],
    state: Reduced,
    tracker: Any,
    weights: dict[str, Any],
    parameters: dict[str, Any],
    inside: dict[str, Any],
    when: Any,
    begin: Any,
    end: Any,
    first: Any,
    until: Any,
    rtol: Any,
    atol: Any,
) -> tuple[Any, Any, Any]:
    """Coordinates, trackers, and whether the end was reached, after a stage; `first` to `until` of `when` are in it."""
    slope, jacobian = _functions(descended, blocked, frozenset(state.heads), state.fixed)
    constants = [
        *(number for x in state.order for number in (state.target[x], *state.heads.get(x, ()))),
        *(weights[name] for name in descended.terms),
        *(parameters[p] for p in descended.parameters),
    ]
    y = state.coordinates()

    def velocity(y: Any) -> Any:
        return jnp.stack([jnp.broadcast_to(part, y.shape[1:]) for part in slope(*y, *constants)])

    def norm(value: Any, *scales: Any) -> Any:
        scale = atol + rtol * jnp.max(jnp.abs(jnp.stack(scales)), 0)
        return jnp.sqrt(jnp.mean((value / scale) ** 2, 0))

    def one_read(_: Any, path: Path) -> Path:
        time = when[jnp.minimum(path.at, len(when) - 1)]
        counts = (path.at < until) & (time <= path.t1)
        s = jnp.where(path.t1 > path.t0, (time - path.t0) / (path.t1 - path.t0), 1.0)[None]
        here = state.at((1 - s) * path.before + s * (path.y + (1 - s) * (path.bend[0] + s * path.bend[1])))
        losses = terms(form, {x: here.plane(x) for x in form.vectors}, weights)
        seen = {m: jnp.where(counts, losses[m], jnp.nan) for m in path.tracker}
        tracker = {m: tracked(was, time, seen[m], inside[m]) for m, was in path.tracker.items()}
        return path._replace(at=path.at + counts, tracker=tracker)

    def one_step(path: Path) -> Path:
        visited = (path.at >= until) | (when[jnp.minimum(path.at, len(when) - 1)] > path.t1)
        goes, final = visited & (path.t1 < end), path.t1 + path.h >= end
        h = jnp.where(goes, jnp.minimum(path.h, end - path.t1), 1.0)
        new, error, bend = _step(velocity, jacobian(*path.y, *constants), path.y, h)
        size = norm(error, path.y, new)
        size = jnp.where(jnp.isfinite(size), size, jnp.inf)
        taken = goes & (size <= 1)
        stretch = jnp.clip(0.9 * jnp.maximum(size, 1e-12) ** -0.25, 0.2, 6.0)
        path = path._replace(
            before=jnp.where(taken[None], path.y, path.before),
            y=jnp.where(taken[None], new, path.y),
            bend=jnp.where(taken[None, None], bend, path.bend),
            t0=jnp.where(taken, path.t1, path.t0),
            t1=jnp.where(taken, jnp.where(final, end, path.t1 + h), path.t1),
            h=jnp.where(goes, h * stretch, path.h),
            tries=path.tries + goes.astype(path.tries.dtype),
        )
        return jax.lax.fori_loop(0, READS, one_read, path)

    def goes_on(path: Path) -> Any:
        ready = (path.t1 >= end) & (path.at >= until)
        return ~jnp.all(ready | (path.tries >= MOST)) & jnp.all(path.tries < MOST)

    still, speed = jnp.zeros_like(y[0]), norm(velocity(y), y)
    guess = jnp.where(speed > 0, 0.01 * norm(y, y) / jnp.where(speed > 0, speed, 1), end - begin)
    guess = jnp.clip(guess, 1e-9 * (end - begin), end - begin)
    path = Path(
        y, y, jnp.zeros((2, *y.shape)), still + begin, still + begin, guess,
        jnp.zeros(y.shape[1:], int) + first, jnp.zeros(y.shape[1:], int), tracker,
    )  # fmt: skip
    path = jax.lax.while_loop(goes_on, one_step, path)
    return path.y, path.tracker, (path.t1 >= end) & (path.at >= until)


def _step(velocity: Any, jacobian: Any, y: Any, h: Any) -> tuple[Any, Any, Any]:
    """The coordinates after a step, its error, and K_1, K_2; the stages are a loop, which compiles six times faster."""
    count = len(y)
    matrix = [[(1 / (GAMMA * h) if i == j else 0.0) - jacobian[i][j] for j in range(count)] for i in range(count)]
    factors, a, c = _factored(matrix), jnp.asarray(A), jnp.asarray(C)

    def stage(i: Any, u: Any) -> Any:
        at = y + sum(a[i, j] * u[j] for j in range(5))
        right = velocity(at) + sum(c[i, j] * u[j] for j in range(5)) / h[None]
        return jax.lax.dynamic_update_index_in_dim(u, jnp.stack(_solved(factors, list(right))), i, 0)

    u = jax.lax.fori_loop(0, 6, stage, jnp.zeros((6, *y.shape)))
    new = y + sum(A[5, j] * u[j] for j in range(5)) + u[5]
    return new, u[5], jnp.stack([jnp.asarray(sum(row[j] * u[j] for j in range(5))) for row in D])


def _factored(matrix: list[list[Any]]) -> list[list[Any]]:
    """L and U of a matrix of arrays without pivoting; in place of the pivots their inverses."""
    rows = [list(row) for row in matrix]
    for k in range(len(rows)):
        rows[k][k] = 1 / rows[k][k]
        for i in range(k + 1, len(rows)):
            rows[i][k] = rows[i][k] * rows[k][k]
            for j in range(k + 1, len(rows)):
                rows[i][j] = rows[i][j] - rows[i][k] * rows[k][j]
    return rows


def _solved(rows: list[list[Any]], right: list[Any]) -> list[Any]:
    x = list(right)
    for i in range(len(x)):
        for j in range(i):
            x[i] = x[i] - rows[i][j] * x[j]
    for i in reversed(range(len(x))):
        for j in range(i + 1, len(x)):
            x[i] = x[i] - rows[i][j] * x[j]
        x[i] = x[i] * rows[i][i]
    return x


@lru_cache
def _functions(form: Form, blocked: frozenset[tuple[str, str]], heads: frozenset[str], fixed: frozenset[str]) -> Any:
    """f and J as functions of arrays."""
    arguments, slope, jacobian, _ = symbolic_slope(form, blocked, heads, fixed)
    return tuple(sp.lambdify(arguments, value, "jax", cse=True) for value in (slope, jacobian))
