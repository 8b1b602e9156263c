"""How well a fit determines what is free: intervals, and the combinations that the curves do not fix.

With residuals in units of their noise and their Jacobian J, F = J^T J is the Fisher matrix of x. Its eigenvectors are
combinations of x; that of the eigenvalue f is known to 1/sqrt(f). One that is known no better than to a factor of e
(or, on a linear scale, to the whole range) is *undetermined*, and a value that is known no better is not identified.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from toymodel.fitting.free import Free
from toymodel.fitting.least_squares import minimised
from toymodel.fitting.residuals import Curves

UNKNOWN = 1.0  # a standard error of x that says nothing
EXACT = 1e-9  # eigenvalues over the largest, below the error of derivatives
PART = 0.1  # of a direction, that is said in words
GRID = (0.5, 1.0, 1.5, 2.5, 4.0)  # of a profile, in half-widths of the linearised interval


@dataclass(frozen=True)
class Intervals:
    """low, high, error: (free,) in x. identified: which values are. undetermined: directions in words. covariance of x,
    without the directions `lost`, (free, direction), that change nothing at all."""

    low: np.ndarray
    high: np.ndarray
    error: np.ndarray
    identified: np.ndarray
    undetermined: tuple[str, ...]
    covariance: np.ndarray
    lost: np.ndarray


def quantile(freedom: int | None, level: float) -> float:
    """The half-width of an interval in standard errors; freedom: n - k where the noise was estimated."""
    share = (1 + level) / 2
    return float(stats.norm.ppf(share) if freedom is None else stats.t.ppf(share, max(freedom, 1)))


def linearised(curves: Curves, x: np.ndarray, jacobian: np.ndarray, freedom: int | None, level: float) -> Intervals:
    """Intervals from the Fisher matrix, cut at the bounds."""
    free = curves.layout.free
    low, high = curves.layout.bounds()
    values, vectors = np.linalg.eigh(jacobian.T @ jacobian)
    lost = values <= EXACT * values[-1]
    covariance = (vectors[:, ~lost] / values[~lost]) @ vectors[:, ~lost].T
    error = np.sqrt(np.diag(covariance))
    identified = ~(abs(vectors[:, lost]) > PART).any(1) & (error < UNKNOWN)
    weak = lost | (values <= UNKNOWN**-2)
    half = quantile(freedom, level) * error
    begin = np.where(identified, np.clip(x - half, low, high), low)
    end = np.where(identified, np.clip(x + half, low, high), high)
    said = tuple(in_words(free, vectors[:, i]) for i in np.flatnonzero(weak))
    return Intervals(begin, end, np.where(identified, error, np.inf), identified, said, covariance, vectors[:, lost])


def in_words(free: tuple[Free, ...], direction: np.ndarray) -> str:
    """A direction that the curves do not fix."""
    direction = direction / direction[np.argmax(abs(direction))]
    parts = []
    for one, share in zip(free, direction, strict=True):
        if abs(share) > PART:
            size = f"{abs(share):.2g} %" + ("" if one.log else " of its range")
            parts.append(f"{one.name} {'up' if share > 0 else 'down'} by {size}")
    return f"not determined: {', '.join(parts)} changes the curves by less than the noise"


def profiled(
    curves: Curves, x: np.ndarray, sizes: np.ndarray, near: Intervals, freedom: int | None, level: float, most: int
) -> Intervals:
    """Intervals where the profile likelihood falls: each value is held at some distances from its estimate, and all
    others are fitted again. The ends are where twice the rise of the cost, whose root is read from a line between two
    distances, is the square of the quantile; or the bounds."""
    low, high = curves.layout.bounds()
    wide = quantile(freedom, level)
    k = len(x)
    half = np.where(near.identified, wide * near.error, (high - low) / 4)
    sides = [(i, sign) for i in range(k) for sign in (-1, 1)]
    begins, held = [], []
    for i, sign in sides:
        for step in GRID:
            at = x.copy()
            at[i] = np.clip(x[i] + sign * step * half[i], low[i], high[i])
            begins.append(at)
            held.append(np.arange(k) == i)
    solved = minimised(lambda x: curves.residuals(x, sizes), np.array(begins), low, high, np.array(held), most, False)
    base = 0.5 * float(np.sum(curves.residuals(x[None], sizes)[0] ** 2))
    rise = np.sqrt(2 * np.maximum(solved.cost - base, 0)).reshape(len(sides), len(GRID))
    ends = {}
    for (i, sign), roots in zip(sides, rise, strict=True):
        places = np.array([x[i], *(np.clip(x[i] + sign * step * half[i], low[i], high[i]) for step in GRID)])
        roots = np.array([0.0, *roots])
        above = np.flatnonzero(roots >= wide)
        if not above.size:
            ends[i, sign] = low[i] if sign < 0 else high[i]
            continue
        j = int(above[0])
        share = (wide - roots[j - 1]) / (roots[j] - roots[j - 1]) if np.isfinite(roots[j]) else 0.0
        ends[i, sign] = places[j - 1] + share * (places[j] - places[j - 1])
    begin, end = (np.array([ends[i, sign] for i in range(k)]) for sign in (-1, 1))
    identified = (begin > low) | (end < high)
    return Intervals(begin, end, near.error, identified, near.undetermined, near.covariance, near.lost)
