"""The escape from the plateau as a one-dimensional quadrature, for starts so small that nothing is damped.

With constant drives k_m and without damping (see `toymodel.theory.plateau`) the plateau is integrable. In the clock
s with ds = u_b u_c dt, b and c the shared vectors, the private vectors of a mechanism move by themselves,

    one:  x(s) = x0 + k s,        two:  x(s) = x0 cosh(k s) + y0 sinh(k s),   y(s) = y0 cosh(k s) + x0 sinh(k s),

and u_b^2 = b0^2 + Y(s), u_c^2 = c0^2 + Y(s), Y(s) = sum_m (x_m(s)^2 - x_m0^2) with x_m the first private vector of m.
So time is the integral of |ds| / sqrt((b0^2 + Y)(c0^2 + Y)). Where the smaller of b0 and c0 has the wrong sign the
clock first runs to the point at which it passes zero, and turns there. `derivations/cooperation.py` derives this.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy as sp
import xarray as xr
from jaxtyping import Float

from toymodel.checks import checked
from toymodel.simulation.problem import problem_of_start
from toymodel.theory.plateau import numbers_of, parts_of

PerRun = Float[np.ndarray, " run"]
SHARE = 1 - 1 / sp.sqrt(2)  # (1 - x)^2 = 1/2: share of the target at which the loss of a mechanism has halved
LEARNED = float(SHARE)
MOST_DAMPING = 0.1  # beyond which the time is NaN
MOST_CHARGE = 0.5  # of the drive of ICL's one private vector, that the cost takes as ICL emerges
MOST_AT_START = 0.1  # of its target, that a mechanism has at the start
NODES, DECADES = 8, 8  # Gauss-Legendre nodes in each panel; decades over which the panels shrink to the turning point


@checked
def escape(
    model, start: xr.Dataset, *, without: str | None = None, weights: Mapping[str, Any] | None = None, **parameters: Any
) -> xr.Dataset:
    """When ICL emerges from a small start, by a one-dimensional quadrature.

    Arguments:
        model, start, weights, parameters: as in `toymodel.flow`, for models with the mechanisms icl and ciwl that share
            two vectors, with one or two private ones each.
        without: "ciwl" holds the private part of CIWL at zero (`first` is then true).

    Returns, for every run:
        emergence: the time (steps x step size) at which ICL has learned a share 1 - 1/sqrt(2) of its target: its loss
            has halved. NaN where damping exceeds 0.1, where CIWL is first, where a mechanism has more than a tenth
            of its target at the start, and where the cost then takes from ICL's one private vector more than half of
            what drives it; else it is within about 10 %. Where ICL has two private vectors, the cost on the
            one is left out: the other makes it grow again, and what it had at the start does not matter.
        first: whether CIWL has not by then.
        damping: the time times the fastest rate at which a vector is damped at the start, the check of validity.
            Standard normal starts are far outside of the range, where only `emergence_time` holds
            (benchmarks/theory_emergence.py).

    Raises:
        ValueError for another model.

    Source: `derivations/cooperation.py`.

    >>> import toymodel as tm
    >>> model = tm.coopetition()
    >>> start = tm.aligned_start(model, overlap=0.01)
    >>> closed = tm.theory.small_start_time(model, start)
    >>> bool(abs(escape(model, start).emergence / closed.emergence - 1) < 1e-3)
    True
    """
    icl, ciwl, shared, cost = parts_of(model)
    if len(shared) != 2 or not (1 <= len(icl) <= 2 and 1 <= len(ciwl) <= 2):
        raise ValueError(
            f"escape needs two shared vectors and one or two private ones each, got {dict(model.mechanisms)}"
        )
    if without not in (None, "ciwl"):
        raise ValueError(f"without must be None or 'ciwl', got {without!r}")
    problem = problem_of_start(model, start, (), dict(weights or {}), parameters)
    drive, damping = numbers_of(problem, start)
    there = {x: 0.0 if without and x in ciwl else 1.0 for x in model.vectors}
    u, v, target = (
        {x: problem.batch.flat(start[name].sel(vector=x, drop=True)) for x in model.vectors}
        for name in ("overlap", "residual", "target_norm")
    )
    u = {x: there[x] * value for x, value in u.items()}
    private = {
        "icl": Private(drive["icl"], [u[x] for x in icl]),
        "ciwl": Private((0.0 if without else 1.0) * drive["ciwl"], [u[x] for x in ciwl]),
    }
    goal = {m: LEARNED * np.prod([target[x] for x in letters], 0) for m, letters in model.mechanisms.items()}
    path = Path(u[shared[0]], u[shared[1]], private)
    end = path.reaches("icl", goal["icl"])
    squares = {x: there[x] * (u[x] ** 2 + v[x] ** 2) for x in model.vectors}
    regrown = icl if len(icl) == 2 else ""
    rates = [
        sum(
            damping[t] * np.prod([squares[y] for y in xs if y != x], 0)
            for t, xs in model.terms.items()
            if x in xs and not (x in regrown and t in model.costs)
        )
        for x in model.vectors
        if there[x]
    ]
    time = path.time(end)
    damped, first = time * np.max(rates, 0), path.learned("ciwl", end) < goal["ciwl"]
    small = np.all(
        [abs(np.prod([u[x] for x in xs], 0)) < MOST_AT_START * goal[m] / LEARNED for m, xs in model.mechanisms.items()],
        0,
    )
    if len(icl) == 1 and cost:
        at = {m: p.at(end).overlaps for m, p in private.items()}
        other = at["ciwl"][next(i for i, x in enumerate(ciwl) if x in model.costs[cost])]
        taken = damping[cost] * other**2 * at["icl"][0] ** 2 / (drive["icl"] * goal["icl"])
        small &= (taken < MOST_CHARGE) | bool(without)
    values = {
        "emergence": np.where((damped <= MOST_DAMPING) & small & first, time, np.nan),
        "first": first,
        "damping": damped,
    }
    return xr.Dataset({name: problem.batch.labelled(value) for name, value in values.items()})


@dataclass(frozen=True)
class Private:
    """The private overlaps of one mechanism as functions of the clock s; k is its drive."""

    k: PerRun
    overlaps: list[PerRun]

    def at(self, s: PerRun) -> Private:
        """The same with the clock at s for its origin."""
        x, *rest = self.overlaps
        if not rest:
            return Private(self.k, [x + self.k * s])
        cosh, sinh = np.cosh(self.k * s), np.sinh(self.k * s)
        return Private(self.k, [x * cosh + rest[0] * sinh, rest[0] * cosh + x * sinh])

    def product(self, s: PerRun) -> PerRun:
        """The product of the private overlaps at s."""
        return np.prod(self.at(s).overlaps, 0)

    def gain(self, s: PerRun) -> PerRun:
        """x(s)^2 - x(0)^2, without cancellation."""
        x, *rest = self.overlaps
        if not rest:
            return self.k * s * (2 * x + self.k * s)
        return (x**2 + rest[0] ** 2) * np.sinh(self.k * s) ** 2 + x * rest[0] * np.sinh(2 * self.k * s)


@dataclass(frozen=True)
class Path:
    """The way of every run on the clock: from 0 to the point nearest to where b or c passes zero, and on to the end."""

    b: PerRun
    c: PerRun
    private: dict[str, Private]

    def gain(self, s: PerRun) -> PerRun:
        """Y(s), convex."""
        return self.private["icl"].gain(s) + self.private["ciwl"].gain(s)

    def force(self, s: PerRun) -> PerRun:
        """Y'(s) / 2 = sum_m k_m prod of private overlaps, which never decreases."""
        return sum((p.k * p.product(s) for p in self.private.values()), np.zeros_like(self.b))

    @property
    def direction(self) -> PerRun:
        """The sign of u_b u_c at the start: where the clock runs first."""
        return np.where(self.b * self.c >= 0, 1.0, -1.0)

    def narrow(self) -> tuple[PerRun, np.ndarray]:
        """The point of the way at which the smaller of u_b^2 and u_c^2 is least, and whether it passes zero there."""
        sign, least = self.direction, np.minimum(self.b**2, self.c**2)
        lowest = _bisect(lambda s: sign * self.force(sign * s) >= 0, self.scale)
        lowest = np.where(sign * self.force(np.zeros_like(sign)) >= 0, 0.0, lowest)
        turns = least + self.gain(sign * lowest) < 0
        turning = _bisect(lambda s: least + self.gain(sign * np.minimum(s, lowest)) < 0, self.scale)
        return sign * np.where(turns, np.minimum(turning, lowest), lowest), turns

    @property
    def scale(self) -> PerRun:
        """A first guess of the length of the way."""
        p = self.private
        return 1e-3 / (p["icl"].k + p["ciwl"].k)

    def learned(self, mechanism: str, s: PerRun) -> PerRun:
        """The product of all overlaps of the mechanism at s on the last part of the way."""
        outward = np.where(self.narrow()[1], -1.0, 1.0) * self.direction
        squares = np.maximum(self.b**2 + self.gain(s), 0) * np.maximum(self.c**2 + self.gain(s), 0)
        return outward * self.private[mechanism].product(s) * np.sqrt(squares)

    def reaches(self, mechanism: str, goal: PerRun) -> PerRun:
        """The s at which the mechanism has reached the goal."""
        narrow, turns = self.narrow()
        outward = np.where(turns, -1.0, 1.0) * self.direction
        there = _bisect(lambda s: self.learned(mechanism, narrow + outward * s) >= goal, self.scale)
        return narrow + outward * there

    def time(self, end: PerRun) -> PerRun:
        """The time from start to end: the integral of |ds| / sqrt((b^2 + Y)(c^2 + Y)) over both parts of the way.

        Everything is counted from the narrow point, where Y is least, so that nothing cancels.
        """
        narrow, turns = self.narrow()
        least, most = (f(self.b**2, self.c**2) for f in (np.minimum, np.maximum))
        below = self.gain(narrow)
        squares = np.where(turns, 0.0, np.maximum(least + below, 0.0)), most + below
        private = [p.at(narrow) for p in self.private.values()]
        return sum((_integral(squares, private, far - narrow) for far in (np.zeros_like(end), end)), np.zeros_like(end))


def _integral(squares: tuple[PerRun, PerRun], private: list[Private], length: PerRun) -> PerRun:
    """One part of the way; panels shrink towards its beginning, where a root of the denominator may lie, and the
    variable is the root of the way."""
    x, w = np.polynomial.legendre.leggauss(NODES)
    edges = np.concatenate([[0.0], 10.0 ** np.linspace(-DECADES, 0, 2 * DECADES + 1)])
    total = np.zeros_like(length)
    for low, high in itertools.pairwise(edges):
        for node, weight in zip((low + high) / 2 + (high - low) / 2 * x, (high - low) / 2 * w, strict=True):
            gain = sum((p.gain(length * node**2) for p in private), np.zeros_like(length))
            rate = (squares[0] + gain) * (squares[1] + gain)
            total += weight * 2 * node * np.abs(length) / np.sqrt(np.where(length == 0, 1.0, rate))
    return total


def _bisect(reached: Callable[[PerRun], np.ndarray], scale: PerRun) -> PerRun:
    """The s > 0 from which on a monotone condition holds (2^60 times the scale where it never does)."""
    high = np.array(scale, dtype=float)
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(60):
            high = np.where(reached(high), high, 2 * high)
        low = np.zeros_like(high)
        for _ in range(100):
            middle = (low + high) / 2
            there = reached(middle)
            low, high = np.where(there, low, middle), np.where(there, middle, high)
    return (low + high) / 2
