"""Least squares from many starts side by side: Levenberg and Marquardt's method within bounds.

In each iteration every start solves (J^T J + lambda diag(J^T J)) dx = -J^T r, without the coordinates that are held or
that a bound stops; lambda falls where the step lowers the cost |r|^2 / 2, and rises where it does not (Marquardt 1963).
The residuals and their Jacobian are computed for all starts in one call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from toymodel.progress import progress_bar

CONVERGED = "the cost falls no more"
STOPPED = "the most iterations were made"
BEATEN = "another start had come to a lower cost"
FAILED = "the flow did not reach the last time"
SLOW = 1e-9  # a relative fall of the cost, as predicted, that counts no more
LONGEST = 1.0  # step of a coordinate
STUCK = 1e12  # a lambda at which no step helps
PATIENCE = 20  # iterations that the other starts have once the best one has ended


@dataclass(frozen=True)
class Solved:
    """Where each start came to: x (start, free), residuals, their Jacobian, cost |r|^2 / 2, and why it ended."""

    x: np.ndarray
    residuals: np.ndarray
    jacobian: np.ndarray
    cost: np.ndarray
    reason: tuple[str, ...]
    iterations: int

    @property
    def best(self) -> int:
        return int(np.argmin(self.cost))


def minimised(
    evaluate: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    x: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    held: np.ndarray | None = None,
    most: int = 200,
    progress: bool | None = None,
) -> Solved:
    """The least squares from each start.

    Arguments:
        evaluate: x (start, free) -> residuals (start, n) and Jacobian (start, n, free), NaN where they are not there.
        x: where to start, within low..high, both (free,).
        held: (start, free), True for coordinates that do not move.
        most: iterations; the other starts have PATIENCE of them once the best one has ended.
        progress: show it; by default where it takes more than two seconds.

    Returns:
        `Solved`.
    """
    held = np.zeros(x.shape, bool) if held is None else held
    residuals, jacobian = evaluate(x)
    cost = _cost(residuals)
    damping = np.full(len(x), 1e-3)
    running = np.isfinite(cost)
    reason = np.where(running, STOPPED, FAILED).astype(object)
    made, patience = 0, PATIENCE
    with progress_bar(most, "fit", progress, "iteration") as bar:
        while running.any() and made < most:
            step = _steps(residuals, jacobian, damping, x, low, high, held)
            new = np.where(running[:, None], np.clip(x + step, low, high), x)
            others, slopes = evaluate(new)
            after = _cost(others)
            better = running & (after < cost)
            moved = residuals + np.einsum("snk,sk->sn", jacobian, new - x)
            predicted = (cost - _cost(moved)) / np.maximum(cost, 1e-300)
            fell = (cost - np.where(better, after, cost)) / np.maximum(cost, 1e-300)
            small = (predicted < SLOW) | (abs(new - x).max(1) < 1e-10)
            ended = running & (small | (better & (fell < SLOW)) | (damping > STUCK))
            x = np.where(better[:, None], new, x)
            residuals = np.where(better[:, None], others, residuals)
            jacobian = np.where(better[:, None, None], slopes, jacobian)
            cost = np.where(better, after, cost)
            damping = np.clip(np.where(better, damping / 5, damping * 4), 1e-12, 1e13)
            reason[ended] = CONVERGED
            running &= ~ended
            patience = PATIENCE if running[np.argmin(cost)] else patience - 1
            if not patience:
                reason[running] = BEATEN
                running[:] = False
            made += 1
            bar.update()
    return Solved(x, residuals, jacobian, cost, tuple(reason), made)


def _cost(residuals: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        cost = 0.5 * np.sum(residuals**2, -1)
    return np.where(np.isfinite(cost), cost, np.inf)


def _steps(
    residuals: Any, jacobian: Any, damping: Any, x: np.ndarray, low: np.ndarray, high: np.ndarray, held: np.ndarray
) -> np.ndarray:
    """dx of each start, 0 where it has no numbers."""
    found = np.zeros_like(x)
    for i in range(len(x)):
        if not (np.isfinite(residuals[i]).all() and np.isfinite(jacobian[i]).all()):
            continue
        slope, square = jacobian[i].T @ residuals[i], jacobian[i].T @ jacobian[i]
        stopped = held[i] | ((x[i] <= low) & (slope > 0)) | ((x[i] >= high) & (slope < 0))
        at = np.flatnonzero(~stopped)
        if not at.size:
            continue
        inner = square[np.ix_(at, at)]
        size = np.diag(inner)
        inner = inner + damping[i] * np.diag(size + 1e-9 * size.max() + 1e-300)
        step = np.linalg.lstsq(inner, -slope[at], rcond=None)[0]
        found[i, at] = step * min(1.0, LONGEST / max(abs(step).max(), 1e-300))
    return found
