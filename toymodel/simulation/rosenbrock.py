"""Gradient flow of many runs at once by the Rosenbrock method RODAS of order 4.

One step of length h from y, with f = -dL/dy and its Jacobian J (Hairer and Wanner, Solving Ordinary Differential
Equations II, section IV.7):

    (1/(gamma h) - J) U_i = f(y + sum_j a_ij U_j) + sum_j c_ij U_j / h,    i = 1..6
    y_new = y + sum_j a_6j U_j + U_6,      error = U_6

    between them, at the share s:  (1 - s) y + s (y_new + (1 - s) (K_1 + s K_2)),      K_i = sum_j d_ij U_j

The method is linearly implicit: no iteration, the same operations for every run, and a step as long as the accuracy
allows however stiff the flow is. Each run has its own step size. Runs go WIDTH at a time, filled up with copies of the
last one, so that the neighbours of a run change no bit of it; a call makes STRIDE steps and returns their dense output,
which is then read at the recorded times inside them. The matrix is factored without pivoting: it is the Hessian plus a
multiple of one, positive definite wherever the step resolves the growth, and where a pivot vanishes the step is
repeated, shorter.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from toymodel.settings import own_jax
from toymodel.simulation.integration import Ended, Integration
from toymodel.simulation.threads import threads
from toymodel.symbolic import System

WIDTH = 256  # runs in a call
STRIDE = 64  # steps in a call
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
    """Where every run of a call is; leaves have the shape (run,), coordinates (coordinate, run)."""

    y: Any
    t: Any
    h: Any  # the next step to try
    tries: Any


class Steps(NamedTuple):
    """The dense output of the steps of a call; a run that has ended or repeats a step stays at its time."""

    t: Any  # at the end of the step, shape (step, run)
    y: Any  # at that time, shape (step, coordinate, run)
    bend: Any  # K_1, K_2, shape (step, 2, coordinate, run)


def rosenbrock(work: Integration) -> Ended:
    """Carries all runs through a stage, on all cores (`toymodel.simulation.integration`)."""
    ends = np.empty_like(work.y)
    with own_jax():
        _compiled(work.system)  # once, and not by several threads
    with threads() as (each, stop):

        def one(first: int) -> None:
            runs = slice(first, min(first + WIDTH, work.runs))
            with own_jax(), np.errstate(all="ignore"):
                _through(work, runs, ends, stop)

        each(one, ((first,) for first in range(0, work.runs, WIDTH)))
    return ends, {}


def _through(work: Integration, runs: slice, ends: np.ndarray, stop: threading.Event) -> None:
    """One call after the other until these runs have come to the end of the stage."""
    begins, advances = _compiled(work.system)
    wide = np.minimum(np.arange(runs.start, runs.start + WIDTH), runs.stop - 1)
    y, constants = np.ascontiguousarray(work.y[:, wide]), np.ascontiguousarray(work.constants[:, wide])
    limits = [np.float64(value) for value in (work.end, work.rtol, work.atol)]
    path = begins(y, constants, np.float64(work.begin), *limits)
    track = np.empty((len(work.when), len(y), WIDTH))
    at, t = np.zeros(WIDTH, np.int64), np.full(WIDTH, float(work.begin))
    if not work.begin < work.end:
        raise ValueError(f"a stage must have a length, got {work.begin}..{work.end}")
    while True:
        if stop.is_set():
            return
        path, steps, made = advances(path, constants, *limits, np.int64(work.max_steps))
        _reader()(track, work.when, at, t, y, *map(np.asarray, steps), int(made))
        y, t = np.asarray(path.y), np.asarray(path.t).copy()
        if (t >= work.end).all():
            break
        if wrong := int(((t < work.end) & (np.asarray(path.tries) >= work.max_steps))[: runs.stop - runs.start].sum()):
            raise RuntimeError(
                f"the flow of {wrong} runs did not reach t={work.end:g}: raise max_steps={work.max_steps}, or "
                f"rtol={work.rtol:g}"
            )
    ends[:, runs] = y[:, : runs.stop - runs.start]
    work.keep(runs, track[:, :, : runs.stop - runs.start])


@cache
def _compiled(system: System) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Compiled: the first step sizes, and STRIDE steps, of WIDTH runs."""
    velocity, bent = field_of(system)
    count = len(system.coordinates)

    def begins(y: Any, constants: Any, begin: Any, end: Any, rtol: Any, atol: Any) -> Path:
        return first_path(velocity(y, constants), y, begin, end, rtol, atol)

    def advances(path: Path, constants: Any, end: Any, rtol: Any, atol: Any, most: Any) -> tuple[Path, Steps, Any]:
        def one_step(carried: tuple[Any, Path, Steps]) -> tuple[Any, Path, Steps]:
            i, path, steps = carried
            path, bend = tried(lambda y: velocity(y, constants), bent(path.y, constants), path, end, rtol, atol, most)
            kept = zip(steps, (path.t, path.y, bend), strict=True)
            return i + 1, path, Steps(*(jax.lax.dynamic_update_index_in_dim(all_, one, i, 0) for all_, one in kept))

        def goes_on(carried: tuple[Any, Path, Steps]) -> Any:
            i, path, _ = carried
            return (i < STRIDE) & jnp.any((path.t < end) & (path.tries < most))

        nothing = Steps(*(jnp.zeros((STRIDE, *shape)) for shape in ((WIDTH,), (count, WIDTH), (2, count, WIDTH))))
        made, path, steps = jax.lax.while_loop(goes_on, one_step, (jnp.int64(0), path, nothing))
        return path, steps, made

    number, row = jax.ShapeDtypeStruct((), jnp.float64), jax.ShapeDtypeStruct((WIDTH,), jnp.float64)
    y, constants = (jax.ShapeDtypeStruct((n, WIDTH), jnp.float64) for n in (count, len(system.constants)))
    path = Path(y, row, row, jax.ShapeDtypeStruct((WIDTH,), jnp.int64))
    whole = jax.ShapeDtypeStruct((), jnp.int64)
    first = jax.jit(begins).lower(y, constants, *[number] * 4).compile()
    return first, jax.jit(advances).lower(path, constants, *[number] * 3, whole).compile()


def field_of(system: System) -> tuple[Callable[[Any, Any], Any], Callable[[Any, Any], list[list[Any]]]]:
    """f and J as functions of coordinates (coordinate, run) and constants (constant, run), in JAX."""
    slope, jacobian = system.function(system.slope, "jax"), system.function(system.jacobian, "jax")

    def velocity(y: Any, constants: Any) -> Any:
        return -jnp.stack([jnp.broadcast_to(jnp.asarray(part, y.dtype), y.shape[1:]) for part in slope(*y, *constants)])

    def bent(y: Any, constants: Any) -> list[list[Any]]:
        return [[-part for part in row] for row in jacobian(*y, *constants)]

    return velocity, bent


def first_path(speed: Any, y: Any, begin: Any, end: Any, rtol: Any, atol: Any) -> Path:
    """Where runs are before their first step, from dy/dt there."""
    speed = _norm(speed, rtol, atol, y)
    guess = jnp.where(speed > 0, 0.01 * _norm(y, rtol, atol, y) / jnp.where(speed > 0, speed, 1), end - begin)
    guess = jnp.clip(guess, 1e-9 * (end - begin), end - begin)
    return Path(y, jnp.zeros_like(guess) + begin, guess, jnp.zeros(guess.shape, jnp.int64))


def tried(
    velocity: Callable[[Any], Any], jacobian: Any, path: Path, end: Any, rtol: Any, atol: Any, most: Any
) -> tuple[Path, Any]:
    """Where runs are after one more step has been tried, and its K_1, K_2; J is that at the start of the step."""
    goes, final = (path.t < end) & (path.tries < most), path.t + path.h >= end
    h = jnp.where(goes, jnp.minimum(path.h, end - path.t), 1.0)
    new, error, bend = step(velocity, jacobian, path.y, h)
    size = _norm(error, rtol, atol, path.y, new)
    size = jnp.where(jnp.isfinite(size), size, jnp.inf)
    taken = goes & (size <= 1)
    stretch = jnp.clip(0.9 * jnp.maximum(size, 1e-12) ** -0.25, 0.2, 6.0)
    after = Path(
        jnp.where(taken[None], new, path.y),
        jnp.where(taken, jnp.where(final, end, path.t + h), path.t),
        jnp.where(goes, h * stretch, path.h),
        path.tries + goes.astype(path.tries.dtype),
    )
    return after, bend


def _norm(value: Any, rtol: Any, atol: Any, *scales: Any) -> Any:
    """Root mean square of a value in units of the tolerance, over the coordinates."""
    scale = atol + rtol * jnp.max(jnp.abs(jnp.stack(scales)), 0)
    return jnp.sqrt(jnp.mean((value / scale) ** 2, 0))


def step(velocity: Callable[[Any], Any], jacobian: Any, y: Any, h: Any) -> tuple[Any, Any, Any]:
    """The coordinates after a step, its error, and K_1, K_2."""
    u = _stages(velocity, jacobian, y, h)
    new = y + sum(A[5, j] * u[j] for j in range(5)) + u[5]
    return new, u[5], jnp.stack([jnp.asarray(sum(row[j] * u[j] for j in range(5))) for row in D])


def _stages(velocity: Callable[[Any], Any], jacobian: Any, y: Any, h: Any) -> Any:
    """U, shape (6, coordinate, run); the stages are a loop, which compiles six times faster."""
    count = len(y)
    matrix = [[(1 / (GAMMA * h) if i == j else 0.0) - jacobian[i][j] for j in range(count)] for i in range(count)]
    factors, a, c = _factored(matrix), jnp.asarray(A), jnp.asarray(C)

    def stage(i: Any, u: Any) -> Any:
        at = y + sum(a[i, j] * u[j] for j in range(5))
        right = velocity(at) + sum(c[i, j] * u[j] for j in range(5)) / h[None]
        return jax.lax.dynamic_update_index_in_dim(u, jnp.stack(_solved(factors, list(right))), i, 0)

    return jax.lax.fori_loop(0, 6, stage, jnp.zeros((6, *y.shape)))


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


@cache
def _reader() -> Callable[..., None]:
    import numba  # takes half a second

    return numba.njit(cache=True, nogil=True, error_model="numpy")(inspect.unwrap(_read))  # without checks of types


def _read(track, when, at, t0, first, t, y, bend, made):
    """The coordinates at the recorded times inside the steps of a call, from its dense output.

    track (time, coordinate, run) is filled; at (run,) is the number of the next time of each run, and t0 (run,) its
    time before the step; both are carried on. first: the coordinates before the first step.
    """
    for i in range(made):
        before = y[i - 1] if i > 0 else first
        for r in range(t.shape[1]):
            if not t[i, r] > t0[r]:
                continue
            while at[r] < len(when) and when[at[r]] <= t[i, r]:
                s = (when[at[r]] - t0[r]) / (t[i, r] - t0[r])
                for k in range(y.shape[1]):
                    curved = (1 - s) * (bend[i, 0, k, r] + s * bend[i, 1, k, r])
                    track[at[r], k, r] = (1 - s) * before[k, r] + s * (y[i, k, r] + curved)
                at[r] += 1
            t0[r] = t[i, r]
