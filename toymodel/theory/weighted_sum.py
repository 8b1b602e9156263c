"""When ICL emerges, from the start: until something is learned, a product of losses is a weighted sum of them.

A mechanism with the overlaps u and the squared norms q = u^2 + v^2 has the loss l - w S P + w Q / 2, with P = prod u,
Q = prod q, S the product of the target norms and l = w S^2 / 2. Nothing is learned while P is much smaller than S.
Then the slope of the loss in each term t is that at P = 0,

    e_t = dL/dL_t at L_m = l_m + w_m Q_m / 2,          x' = - sum_t e_t dL_t/dx                     (zeroth order),

which knows no learning; once the residuals have collapsed, Q is of second order in P and each e_t is a constant: the
weighted sum. What learning changes is the first order in p_m = - w_m S_m P_m, along the path x of the zeroth,

    d' = J(x) d - sum_t (sum_m L_tm p_m) dL_t/dx,          emergence where g(x + d) = 0,  g = L_icl / l_icl - 1/2,

with J the derivative of the zeroth field and L_tm the second derivatives of the loss. How much d changes the time is
the measure of what is left out, so that the prediction knows where it does not hold (`derivations/plateau.py`). What is
new here is the theorem for any loss of losses, its first order and that check; weights of mechanisms that are constant
until something is learned are how deep linear networks are treated (Saxe et al. 2014, arXiv 1312.6120).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float

from toymodel.batch import check_values
from toymodel.checks import checked
from toymodel.model import Form, Model
from toymodel.reduction import Plane, cost_loss, terms, unlearned_loss
from toymodel.settings import refuse_fork
from toymodel.simulation.problem import problem_of_start

PerRun = Float[Array, " run"]
LARGEST_SHIFT = 0.2  # of the time, by the first order; beyond it the prediction is NaN
LEAST_DRIVE = 0.5  # of the slope in the mechanism, to first order, at the time of emergence
PACE = (0.4, 3.0)  # of the fall of the loss at that time, to first order, over that of the zeroth
TOO_FAR = -0.4  # g of the zeroth order at which the first order is no longer waited for
BLOCK = 256  # runs computed together
STEPS_A_CALL, MOST_STEPS = 25, 4_000
RTOL, ATOL = 1e-5, 1e-8


class Constants(NamedTuple):
    """Target norms, weights and parameters of a set of runs, by name."""

    norms: dict[str, Any]
    weights: dict[str, Any]
    parameters: dict[str, Any]


@checked
def emergence_time(model: Model, start: xr.Dataset, **options: Any) -> xr.DataArray:
    """The time at which a mechanism emerges: its loss is half of the unlearned one. Predicted from the start.

    Arguments:
        model, start: the loss, and where runs begin.
        options: further arguments of `emergence`, such as mechanism, horizon and values of parameters.

    Returns:
        `emergence` of what `emergence` returns, in units of time (steps x step size), for every run. NaN where the
        mechanism does not emerge before the horizon, and where the prediction does not hold.

    Raises:
        ValueError for an argument out of range.

    Source: `derivations/plateau.py`.

    >>> import toymodel as tm
    >>> model = tm.coopetition()
    >>> float(emergence_time(model, tm.aligned_start(model, overlap=0.1)).round(-1))
    1460.0
    """
    return emergence(model, start, **options)["emergence"]


@checked
def emergence(
    model: Model,
    start: xr.Dataset,
    *,
    mechanism: str = "icl",
    horizon: float = 1e5,
    without: str | None = None,
    weights: Mapping[str, Any] | None = None,
    **parameters: Any,
) -> xr.Dataset:
    """The emergence of a mechanism, predicted to first order in what is learned.

    Arguments:
        model, start, weights, parameters: as in `toymodel.flow`, any model with any letters.
        mechanism: its name. The time is that at which its loss first falls below half of the unlearned one.
        horizon: > 0, in units of the flow's time (steps x lr).
        without: a mechanism whose private vectors (those that no other one has) are held at zero.

    Returns, for every run:
        emergence: the time, to first order; NaN where it does not hold, which is outside of the ranges below,
            and where the overlaps of a mechanism start with a product beyond that of its targets.
        frozen: the time of the zeroth order, the weighted sum of the losses.
        shift: what the first order changes, as a share of the time; within -0.2..0.2.
        drive: the slope of the loss in the mechanism at that time over that of the unlearned mechanisms; above 0.5.
            Below, another mechanism is learned before or with this one.
        pace: how fast the loss of the mechanism falls then, over the same in the zeroth order; within 0.4..3.

    An integration of 2 x 2 numbers a vector by the Runge-Kutta pair of Dormand and Prince, not a closed form. Measured:
    benchmarks/theory_emergence.py.

    Raises:
        ValueError for an argument out of range, RuntimeError in the child of a fork.

    Source: `derivations/plateau.py`.

    >>> import toymodel as tm
    >>> model = tm.coopetition()
    >>> found = emergence(model, tm.aligned_start(model, overlap=0.1))
    >>> bool(abs(found["shift"]) < 0.2), bool(found.drive > 0.4)
    (True, True)
    """
    return predicted(
        model, start, mechanism=mechanism, horizon=horizon, without=without, weights=weights, **parameters
    )[0]


def predicted(
    model: Model,
    start: xr.Dataset,
    *,
    mechanism: str = "icl",
    horizon: float = 1e5,
    without: str | None = None,
    weights: Mapping[str, Any] | None = None,
    **parameters: Any,
) -> tuple[xr.Dataset, Float[np.ndarray, "coordinate run"]]:
    """What `emergence` returns, and the coordinates of the zeroth order at that time.

    The zeroth order conserves what gradient flow conserves; with the first order added it does not.
    """
    check_values("horizon", horizon, np.nextafter(0, 1))
    names = list(model.mechanisms)
    if mechanism not in names:
        raise ValueError(f"mechanism must be one of {names}, got {mechanism!r}")
    others = [m for m in names if m != mechanism]
    if without is not None and without not in others:
        raise ValueError(f"without must be None or one of {others}, got {without!r}")
    form = model.form
    kept = set("".join(letters for m, letters in form.mechanisms.items() if m != without))
    problem = problem_of_start(model, start, (), dict(weights or {}), parameters)
    flat = problem.batch.flat

    def of(name: str, x: str) -> np.ndarray:
        return flat(start[name].sel(vector=x, drop=True))

    state = np.stack([of(name, x) * (x in kept) for name in ("overlap", "residual") for x in form.vectors])
    constants = Constants(
        {x: of("target_norm", x) for x in form.vectors},
        {t: flat(problem.weights[t]) for t in form.terms},
        {p: flat(problem.parameters[p]) for p in form.parameters},
    )
    free = tuple(x in kept for x in form.vectors) * 2
    refuse_fork()
    with jax.enable_x64(True):
        found = _blocks(form, mechanism, free, state, constants, float(horizon))
    time, shift, drive, pace = (problem.batch.labelled(x) for x in found[:4])
    holds = (abs(shift) < LARGEST_SHIFT) & (drive > LEAST_DRIVE) & (pace > PACE[0]) & (pace < PACE[1])
    for letters in form.mechanisms.values():  # nothing is learned at the start
        holds &= problem.batch.labelled(abs(np.prod([of("overlap", x) / of("target_norm", x) for x in letters], 0)) < 1)
    said = {
        "emergence": time.where(holds & (time <= horizon)),
        "frozen": time * (1 - shift),
        "shift": shift,
        "drive": drive,
        "pace": pace,
    }
    return xr.Dataset(said), found[4:]


def losses(form: Form, y: Any, k: Constants) -> dict[str, Any]:
    """The terms of the loss at the coordinates y, shape (2 x vectors, run)."""
    return terms(form, _planes(form, y, k), k.weights)


def unlearned(form: Form, y: Any, k: Constants) -> dict[str, Any]:
    """The terms of the loss if every product of overlaps were zero: l + w Q / 2 of a mechanism, a cost as it is."""
    planes = _planes(form, y, k)
    found = {}
    for t, letters in form.terms.items():
        parts = [planes[x] for x in letters]
        rest = unlearned_loss(parts, k.weights[t]) if t in form.mechanisms else 0.0
        found[t] = rest + cost_loss(parts, k.weights[t])
    return found


def field(form: Form, free: tuple[bool, ...], y: Any, k: Constants) -> tuple[Any, Any]:
    """The velocity of the zeroth order, and what the first order adds to it at the same place."""
    values, pull = jax.vjp(lambda x: losses(form, x, k), y)
    reference = unlearned(form, y, k)
    progress = {t: values[t] - reference[t] for t in values}
    slopes, change = jax.jvp(lambda x: slope(form, x, k), (reference,), (progress,))
    moving = jnp.array(free)[:, None]
    return tuple(jnp.where(moving, -pull(part)[0], 0.0) for part in (slopes, change))  # type: ignore[return-value]


def slope(form: Form, values: dict[str, Any], k: Constants) -> dict[str, Any]:
    """dL/dL_t for each term t."""
    return jax.grad(lambda x: jnp.sum(form.loss(**x, **k.parameters)))(values)


def _planes(form: Form, y: Any, k: Constants) -> dict[str, Plane]:
    n = len(form.vectors)
    return {x: Plane(y[i], y[n + i], k.norms[x]) for i, x in enumerate(form.vectors)}


# The Runge-Kutta pair of Dormand and Prince (1980): stages, fifth order (its last row), fifth minus fourth order.
STAGES = (
    (1 / 5, 0, 0, 0, 0, 0, 0),
    (3 / 40, 9 / 40, 0, 0, 0, 0, 0),
    (44 / 45, -56 / 15, 32 / 9, 0, 0, 0, 0),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729, 0, 0, 0),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656, 0, 0),
    (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0),
)
MISSED = (71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)


class Lanes(NamedTuple):
    """The state of the runs that are computed together: coordinates and their first order, with the next step."""

    t: PerRun
    z: Float[Array, "coordinate run"]
    velocity: Float[Array, "coordinate run"]
    h: PerRun
    steps: PerRun
    over: PerRun  # 0: goes on, 1: the next step crosses g(x + d) = 0, 2: it never does


def _blocks(
    form: Form, mechanism: str, free: tuple[bool, ...], state: np.ndarray, constants: Constants, horizon: float
) -> np.ndarray:
    """Time, shift, drive, pace and the coordinates of every run, shape (4 + coordinates, run).

    Where half of a block is over, new runs take over.
    """
    runs = state.shape[1]
    found = np.full((4 + len(state), runs), np.nan)
    lane = np.arange(BLOCK) % runs  # the run of each lane
    waiting = list(range(min(BLOCK, runs), runs))[::-1]
    own = np.arange(BLOCK) < runs  # lanes whose result is still wanted
    what = (form, mechanism, free)
    k = jax.tree.map(lambda x: x[lane], constants)
    lanes = _begin(*what, jnp.asarray(state[:, lane]), k)
    while own.any():
        lanes = _advance(*what, lanes, k, horizon)
        over = np.asarray(lanes.over) > 0
        if not (own & ~over).any() or (waiting and over.mean() > 0.5):
            done = own & over
            found[:, lane[done]] = np.stack(_found(*what, lanes, k))[:, done]
            own &= ~over
            new = [i for i in np.flatnonzero(~own) if waiting]
            for i in new[: len(waiting)]:
                lane[i], own[i] = waiting.pop(), True
            if new:
                k = jax.tree.map(lambda x: x[lane], constants)
                fresh = np.zeros(BLOCK, bool)
                fresh[new] = True
                begun = _begin(*what, jnp.asarray(state[:, lane]), k)
                lanes = jax.tree.map(
                    lambda a, b, new=fresh: jnp.where(new if a.ndim == 1 else new[None], a, b), begun, lanes
                )
    return found


@partial(jax.jit, static_argnames=("form", "mechanism", "free"))
def _begin(form: Form, mechanism: str, free: tuple[bool, ...], state: Any, k: Constants) -> Lanes:
    z = jnp.concatenate([state, jnp.zeros_like(state)])
    velocity = _change(form, free, z, k)
    h = 1e-3 * _size(state) / (_size(velocity[: len(state)]) + 1e-300)
    learned = _margin(form, mechanism, state, k) < 0
    zero = jnp.zeros_like(h)
    return Lanes(zero, z, velocity, h, zero, jnp.where(learned, 2.0, 0.0))


@partial(jax.jit, static_argnames=("form", "mechanism", "free"))
def _advance(form: Form, mechanism: str, free: tuple[bool, ...], lanes: Lanes, k: Constants, horizon: float) -> Lanes:
    """At most STEPS_A_CALL steps of every run, each with the size that its error allows."""

    change = partial(_change, form, free, k=k)

    def step(_: int, lanes: Lanes) -> Lanes:
        n = len(lanes.z) // 2
        z, velocity, missed = pair_step(change, lanes.z, lanes.velocity, lanes.h)
        error = error_of(lanes.z[:n], z[:n], missed[:n])
        taken = (error <= 1) & (lanes.over == 0)
        crossed = taken & (_margin(form, mechanism, z[:n] + z[n:], k) < 0)
        too_far = taken & ~crossed & (_margin(form, mechanism, z[:n], k) < TOO_FAR)
        grown = resized(lanes.h, error, 5.0)
        moved, steps = taken & ~crossed, lanes.steps + 1
        t = jnp.where(moved, lanes.t + lanes.h, lanes.t)
        late = (t > 2 * horizon) | (steps > MOST_STEPS) | too_far
        over = jnp.where(crossed, 1.0, jnp.where((lanes.over == 0) & late, 2.0, lanes.over))
        return Lanes(
            t,
            jnp.where(moved[None], z, lanes.z),
            jnp.where(moved[None], velocity, lanes.velocity),
            jnp.where((lanes.over == 0) & ~crossed, grown, lanes.h),
            steps,
            over,
        )

    return jax.lax.fori_loop(0, STEPS_A_CALL, step, lanes)


@partial(jax.jit, static_argnames=("form", "mechanism", "free"))
def _found(form: Form, mechanism: str, free: tuple[bool, ...], lanes: Lanes, k: Constants) -> tuple[PerRun, ...]:
    """Time, shift, drive, pace and coordinates where the next step crosses g(x + d) = 0.

    It is halved eight times, then on a line.
    """
    n = len(lanes.z) // 2
    change = partial(_change, form, free, k=k)

    def value(h: PerRun) -> PerRun:
        z = pair_step(change, lanes.z, lanes.velocity, h)[0]
        return _margin(form, mechanism, z[:n] + z[n:], k)

    def halve(_: int, ends: tuple[PerRun, PerRun]) -> tuple[PerRun, PerRun]:
        middle = (ends[0] + ends[1]) / 2
        below = value(middle) < 0
        return jnp.where(below, ends[0], middle), jnp.where(below, middle, ends[1])

    low, high = jax.lax.fori_loop(0, 8, halve, (jnp.zeros_like(lanes.h), lanes.h))
    above, below = value(low), value(high)
    h = low + (high - low) * above / (above - below)
    z, velocity, _ = pair_step(change, lanes.z, lanes.velocity, h)
    y, moved = z[:n], z[n:]
    margin = partial(_margin, form, mechanism, k=k)

    def added(x: Any, d: Any) -> PerRun:
        return jax.jvp(margin, (x,), (d,))[1]

    ahead = added(y, velocity[:n])
    shift = -added(y, moved) / ahead / (lanes.t + h)
    pace = 1 + jax.jvp(added, (y, moved), (velocity[:n], velocity[n:]))[1] / ahead
    at, progress = jax.jvp(lambda x: losses(form, x, k), (y,), (moved,))
    there = {t: at[t] + progress[t] for t in at}
    drive = slope(form, there, k)[mechanism] / slope(form, bare(form, y, k), k)[mechanism]
    crossed = lanes.over == 1
    return tuple(jnp.where(crossed, x, jnp.nan) for x in (lanes.t + h, shift, drive, pace, *y))


def pair_step(change: Callable[[Any], Any], z: Any, velocity: Any, h: Any) -> tuple[Any, Any, Any]:
    """z, shape (coordinate, run), and its velocity after a step of the pair, and the estimate of the error."""

    def stage(i: Any, carry: tuple[Any, Any]) -> tuple[Any, Any]:
        slopes, _ = carry
        there = z + h[None] * jnp.tensordot(jnp.asarray(STAGES)[i], slopes, 1)
        return slopes.at[i + 1].set(change(there)), there

    slopes = jnp.zeros((7, *z.shape)).at[0].set(velocity)
    slopes, there = jax.lax.fori_loop(0, 6, stage, (slopes, z))
    return there, slopes[6], h[None] * jnp.tensordot(jnp.asarray(MISSED), slopes, 1)


def error_of(before: Any, after: Any, missed: Any) -> PerRun:
    """The error of a step of the pair in units of what is allowed."""
    scale = ATOL * _size(before)[None] + RTOL * jnp.maximum(abs(before), abs(after))
    error = jnp.max(abs(missed) / (scale + 1e-300), axis=0)
    return jnp.where(jnp.isfinite(error), error, 1e10)


def resized(h: PerRun, error: PerRun, most: float) -> PerRun:
    """The next step to try, at most so many times the last."""
    return h * jnp.clip(0.9 * jnp.maximum(error, 1e-10) ** -0.2, 0.2, most)


def _change(form: Form, free: tuple[bool, ...], z: Any, k: Constants) -> Any:
    """The velocity of the coordinates and of their first order together."""
    n = len(z) // 2
    zeroth, along, added = jax.jvp(lambda y: field(form, free, y, k), (z[:n],), (z[n:],), has_aux=True)
    return jnp.concatenate([zeroth, along + added])


def _margin(form: Form, mechanism: str, y: Any, k: Constants) -> PerRun:
    """g: the loss of the mechanism in units of the unlearned one, minus one half."""
    return losses(form, y, k)[mechanism] / bare(form, y, k)[mechanism] - 0.5


def bare(form: Form, y: Any, k: Constants) -> dict[str, Any]:
    """The terms of the loss where all vectors are zero."""
    return unlearned(form, jnp.zeros_like(y), k)


def _size(y: Any) -> PerRun:
    return jnp.sqrt((y**2).sum(0))
