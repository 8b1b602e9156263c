"""When ICL emerges from small starts, closed: the plateau of three factors is the three-wave system.

Mechanisms of one private vector x_m each share b and c, and drives k_m act on them (`toymodel.theory.plateau`). With
K^2 = sum_m k_m^2 and A = sum_m k_m x_m / K, the undamped plateau is A' = K b c, b' = K A c, c' = K A b: the three-wave
system, in which the squares of A, b and c differ by constants. The time until they diverge is Carlson's integral

    t = R_F(A^2, b^2, c^2) / K                                        for A b c > 0,
    t = (2 R_F(A^2 - m, b^2 - m, c^2 - m) - R_F(A^2, b^2, c^2)) / K   else, with m the least of the squares,

R_F(x, y, z) = 1/2 int_0^oo ds / sqrt((s + x)(s + y)(s + z)). A mechanism is learned where k_m / K A b c reaches its
share of the target, R_F / K before the divergence. What residuals damp at one rate g for A, b and c is a change of the
clock: t -> -ln(1 - g t) / g. The first mechanism to be learned is that of the largest k_m / T_m, T = prod |x*|.

Textbook: the integral of three waves is elliptic (Armstrong et al. 1962), R_F is Carlson's (DLMF 19.16). New: that the
plateau is it for any number of mechanisms, and the universal law of t s K. Derived in `derivations/plateau.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Float

from toymodel.checks import check_values, checked
from toymodel.model import Model
from toymodel.simulation.problem import problem_of_start
from toymodel.theory.plateau import numbers_of
from toymodel.theory.quadrature import LEARNED

PerRun = Float[np.ndarray, " run"]
MOST_CHARGE = 0.5  # of the drive of a private vector, that costs take as its mechanism emerges
MOST_DAMPING, MOST_OF_ONE = 0.2, 0.3  # the mean g t, and that of A, b or c, beyond which the closed form is NaN
MOST_UNEQUAL = 0.2  # of the time, that the damping of A, b or c beyond the mean changes
MOST_STARTED, CLEARLY = 0.1, 1.05  # of what is learned, at the start; what the first has over the second in k_m / T_m
DOUBLINGS = 28  # of Carlson's algorithm: each brings the arguments nearer to one another by a factor of 4
DRAWS = 400_000


@checked
def carlson(x: Any, y: Any, z: Any) -> Any:
    """Carlson's symmetric elliptic integral R_F(x, y, z).

    By the duplication theorem: R_F is the same at (x + l)/4, ..., l = sqrt(xy) + sqrt(yz) + sqrt(zx), where the
    arguments approach one another, and R_F(x, x, x) = 1/sqrt(x).

    Arguments:
        x, y, z: numpy or JAX arrays >= 0 that broadcast, of which at most one is zero.

    Returns:
        R_F, within 1e-13; with gradients in JAX.

    Source: DLMF 19.36.

    >>> float(round(carlson(1.0, 2.0, 3.0), 12))
    0.726945935469
    """
    np_ = _arrays(x, y, z)
    for _ in range(DOUBLINGS):
        roots = np_.sqrt(x), np_.sqrt(y), np_.sqrt(z)
        shift = roots[0] * roots[1] + roots[1] * roots[2] + roots[2] * roots[0]
        x, y, z = (x + shift) / 4, (y + shift) / 4, (z + shift) / 4
    return np_.sqrt(3 / (x + y + z))


@checked
def divergence_time(a: Any, b: Any, c: Any, rate: Any) -> Any:
    """The time at which a' = rate b c, b' = rate a c, c' = rate a b diverge.

    Arguments:
        a, b, c: at the start, numpy or JAX arrays of any sign, at most one of them zero.
        rate: > 0.

    Returns:
        The time. Closed, exact, with gradients in JAX.

    Source: `derivations/plateau.py`.

    >>> float(round(divergence_time(1.0, 1.0, 1.0, 2.0), 6))  # a' = 2 a^2
    0.5
    """
    np_ = _arrays(a, b, c, rate)
    a, b, c = np_.broadcast_arrays(np_.asarray(a), np_.asarray(b), np_.asarray(c))
    least, middle, most = np_.sort(np_.stack([a**2, b**2, c**2]), axis=0)
    direct = carlson(least, middle, most)
    with np.errstate(divide="ignore", invalid="ignore"):
        back = 2 * carlson(np_.zeros_like(least), middle - least, most - least) - direct
    return np_.where(a * b * c >= 0, direct, back) / rate


@checked
def small_start_time(
    model: Model,
    start: xr.Dataset,
    *,
    mechanism: str = "icl",
    weights: Mapping[str, Any] | None = None,
    **parameters: Any,
) -> xr.Dataset:
    """When a mechanism emerges from a small start, closed, and which one is first.

    Arguments:
        model: any number of mechanisms, each of one private vector and the same two shared ones; costs of any vectors.
        start, weights, parameters: as in `toymodel.flow`.
        mechanism: the name of one.

    Returns, for every run:
        emergence: the time at which its loss is half of the unlearned one; NaN where `damping` exceeds 0.2, where
            the fastest rate at which the start damps a vector, times t, exceeds 0.3, where a mechanism has more than
            a tenth of that at the start, and where it is not first by 5 % of k_m / T_m. Also where the three are
            damped unequally and that changes the time by a fifth, as where the smallest two meet on their way to zero,
            and where the `charge` exceeds 0.5.
        damping: g t, with g the mean over A, b and c of the rates at which the residuals of the start damp them.
        charge: the rate at which the costs take its private vector when it emerges, over that at which it is driven.
        first: the mechanism that is learned first, which has the largest k_m / T_m.

    Valid for starts that are small against the targets. At the paper's dimensions the median error is 0.2 % at scale
    0.01 and 1.3 % at 0.1 (benchmarks/theory_emergence.py).

    Raises:
        ValueError for another model.

    Source: `derivations/plateau.py`.

    >>> import toymodel as tm
    >>> model = tm.coopetition()
    >>> found = small_start_time(model, tm.aligned_start(model, overlap=0.01))
    >>> float(found.emergence.round(-2)), str(found["first"].item())
    (14900.0, 'icl')
    """
    private, shared = _shared_pair(model)
    if mechanism not in private:
        raise ValueError(f"mechanism must be one of {list(private)}, got {mechanism!r}")
    problem = problem_of_start(model, start, (), dict(weights or {}), parameters)
    drive, damping = numbers_of(problem, start)
    u, v, target = (
        {x: problem.batch.flat(start[name].sel(vector=x, drop=True)) for x in model.vectors}
        for name in ("overlap", "residual", "target_norm")
    )
    strength = np.sqrt(sum(drive[m] ** 2 for m in private))
    mixed = np.asarray(sum(drive[m] * u[x] for m, x in private.items())) / strength
    b, c = (u[x] for x in shared)
    goal = LEARNED * np.prod([target[x] for x in model.mechanisms[mechanism]], 0) * strength / drive[mechanism]
    end = _square_at(mixed, b, c, goal)
    undamped = divergence_time(mixed, b, c, strength)
    time = undamped - carlson(end, *(np.maximum(end + x**2 - mixed**2, 0) for x in (b, c))) / strength
    rates = {x: _rate(model, damping, {y: v[y] ** 2 for y in v}, x) for x in model.vectors}
    of_mixed = sum(drive[m] ** 2 * rates[x] for m, x in private.items()) / strength**2
    three = np.stack([np.broadcast_to(r, time.shape) for r in (of_mixed, rates[shared[0]], rates[shared[1]])])
    mean = three.mean(0)
    fastest = np.max([_rate(model, damping, {y: u[y] ** 2 + v[y] ** 2 for y in u}, x) for x in model.vectors], 0)
    slowed = mean * time
    with np.errstate(invalid="ignore", divide="ignore"):
        clock = np.where(slowed > 1e-9, -np.log1p(-slowed) / np.where(mean > 0, mean, 1), time)
        holds = (slowed < MOST_DAMPING) & (fastest * time < MOST_OF_ONE) & (time > 0)
    for x, rate in zip((mixed, b, c), three, strict=True):  # the clock is right for one rate
        kept = [np.where(y is x, np.exp(-np.clip((rate - mean) * time, -9, 9)), 1.0) * y for y in (mixed, b, c)]
        holds &= abs(divergence_time(kept[0], kept[1], kept[2], strength) / undamped - 1) < MOST_UNEQUAL
    taken = charge(model, mechanism, drive, damping, goal ** (2 / 3))
    holds &= taken < MOST_CHARGE
    shares = np.stack([drive[m] / np.prod([target[x] for x in model.mechanisms[m]], 0) for m in private])
    others = np.delete(shares, list(private).index(mechanism), 0).max(0)
    holds &= shares[list(private).index(mechanism)] > CLEARLY * others
    for xs in model.mechanisms.values():
        started = abs(np.prod([u[x] / target[x] for x in xs], 0))
        holds &= started < MOST_STARTED * LEARNED
    found = {
        "emergence": np.where(holds, clock, np.nan),
        "damping": slowed,
        "charge": taken,
        "first": np.array(list(private))[shares.argmax(0)],
    }
    return xr.Dataset({name: problem.batch.labelled(value) for name, value in found.items()})


@cache
def universal_quantiles(levels: Sequence[float] = (0.05, 0.25, 0.5, 0.75, 0.95)) -> np.ndarray:
    """Quantiles of t s K for small starts whose overlaps are independent normal numbers of one scale s.

    The law has no parameter: A, b and c are then three independent normal numbers of scale s, whatever the model's
    drives, and `divergence_time` is homogeneous.

    Arguments:
        levels: a tuple within 0..1.

    Returns:
        The quantiles, shape (levels), without a unit. By 400,000 draws: within 0.5 %.

    Source: `derivations/plateau.py`.

    >>> universal_quantiles((0.5,)).round(1)
    array([1.8])
    """
    check_values("levels", levels)
    a, b, c = np.random.default_rng(0).standard_normal((3, DRAWS))
    return np.quantile(divergence_time(a, b, c, 1.0), levels)


def charge(model: Model, mechanism: str, drive: Mapping[str, Any], damping: Mapping[str, Any], p: PerRun) -> PerRun:
    """The rate at which the costs take the private vector of a mechanism, over K sqrt(p), at which it is driven.

    Where b^2 = c^2 = A^2 = p, as where they diverge, and x_m = A k_m / K.
    """
    private, shared = _shared_pair(model)
    strength = np.sqrt(sum(drive[m] ** 2 for m in private))
    squares = {x: p * (drive[m] / strength) ** 2 for m, x in private.items()} | dict.fromkeys(shared, p)
    costs = {t: damping[t] if t in model.costs else 0.0 for t in model.terms}
    return _rate(model, costs, squares, private[mechanism]) / (strength * np.sqrt(p))


def _rate(model: Model, damping: Mapping[str, Any], squares: Mapping[str, Any], x: str) -> Any:
    """The rate at which vectors of these squared norms damp the vector x."""
    return sum(damping[t] * np.prod([squares[y] for y in xs if y != x], 0) for t, xs in model.terms.items() if x in xs)


def _square_at(mixed: np.ndarray, b: np.ndarray, c: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """The A^2 at which A b c has grown to the goal, by bisection in the least of the three squares."""
    squares = np.stack([mixed**2, b**2, c**2])
    above = squares - squares.min(0)
    low, high = np.zeros_like(goal), goal ** (2 / 3)
    for _ in range(60):
        middle = (low + high) / 2
        short = np.prod(middle + above, 0) < goal**2
        low, high = np.where(short, middle, low), np.where(short, high, middle)
    return high + above[0]


def _shared_pair(model: Model) -> tuple[dict[str, str], str]:
    """The private letter of each mechanism, and the two letters that all of them share."""
    shared = [x for x in model.vectors if all(letters.count(x) == 1 for letters in model.mechanisms.values())]
    private = {m: "".join(x for x in letters if x not in shared) for m, letters in model.mechanisms.items()}
    owned = list(private.values())
    if len(model.mechanisms) < 2 or len(shared) != 2 or set(map(len, owned)) != {1} or len(set(owned)) < len(owned):
        raise ValueError(
            "small starts need two or more mechanisms of one private vector each and two that all share, such as "
            f"icl = abc and ciwl = dbc, got {dict(model.mechanisms)}"
        )
    return private, "".join(shared)


def _arrays(*values: Any) -> Any:
    """The module of arrays that the values need."""
    return jnp if any(isinstance(x, jax.Array) for x in values) else np
