"""Branches of equilibria in one parameter, followed in the length of the curve so that they turn around folds.

With z the unknowns of `toymodel.theory.equilibria.System` and p the parameter, the solutions of F(z, p) = 0 are a curve
with the unit tangent t, [F_z F_p] t = 0. A step goes along t and comes back to the curve at a right angle to t, by
Newton's method (pseudo-arclength continuation: Keller 1977). A fold is where t has no component along p.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from scipy.optimize import brentq

from toymodel.checks import check_values, checked
from toymodel.model import Model
from toymodel.theory.equilibria import System, labelled, polished


@checked
def branch(
    model: Model,
    point: xr.Dataset,
    parameter: str,
    within: tuple[float, float],
    *,
    log: bool = False,
    conserved: float | Sequence[float] = 0.0,
    target_norms: Mapping[str, float] | None = None,
    weights: Mapping[str, float] | None = None,
    step: float = 0.02,
    most: int = 2_000,
    **parameters: float,
) -> xr.Dataset:
    """The branch of equilibria through a point, in one parameter, in both directions.

    Arguments:
        model, target_norms, weights, parameters: the loss; target norms and weights are the model's by default.
        point: overlap and residual of an equilibrium at the given value of `parameter`, such as one of `fixed_points`.
        parameter, within: its name, and the values (low, high) between which the branch is followed.
        log: follow it in the logarithm of the parameter.
        conserved: values of the conserved combinations, in the order of `model.conserved()`.
        step: largest length of a step, relative to the norm of the point and the width of `within`.
        most: points in each direction.

    Returns:
        Along `point`, what `fixed_points` returns, with the parameter as a coordinate, and `kind`: "fold" (located to
        rounding: the branch turns around), "end" (where `within` ends), "closed" (back at the first point: the branch
        is a loop, and its first point is its last), "cut" (after `most` points, with a warning), "crossing" (the first
        point after which another branch crosses this one) or "".

    Raises:
        ValueError for a point that is no equilibrium, or a singular Jacobian (a family of equilibria: fix what is
        conserved, or add weight decay). By numpy: not for jax.jit.

    Source: pseudo-arclength continuation; `derivations/weight_decay.py` has folds in closed form.

    >>> import toymodel as tm
    >>> model = tm.theory.with_weight_decay(tm.induction((4, 4, 4)), 0.01)
    >>> learned = tm.theory.fixed_points(model, tm.aligned_start(model, overlap=2.0), flow_time=0.0).isel(point=0)
    >>> found = branch(model, learned, "decay", (1e-3, 0.2))
    >>> fold = float(found.decay[found.kind == "fold"].max())
    >>> bool(abs(fold / tm.theory.learning_limit(3, model.weights["icl"], 8.0) - 1) < 1e-6)
    True
    """
    system = System.of(model, conserved, target_norms, weights, parameters)
    if parameter not in model.form.parameters:
        raise ValueError(f"parameter must be one of {list(model.form.parameters)}, got {parameter!r}")
    low, high = map(float, within)
    if not (0 <= low < high and (low > 0 or not log)):
        raise ValueError(f"within must be two increasing numbers >= 0 (> 0 with log), got {within}")
    check_values("step", step, np.nextafter(0, 1))
    begin = {**model.parameters, **parameters}[parameter]
    if not low <= begin <= high:
        raise ValueError(f"{parameter}={begin:g}, the value of the point, is not within {low:g}..{high:g}")
    y = np.concatenate([point[n].sel(vector=list(model.vectors)).values for n in ("overlap", "residual")])
    if y.shape != (2 * len(model.vectors),):
        raise ValueError("point must be a single point: choose one with .isel(point=...)")
    solved = polished(system, y, 1e-9)
    if solved is None or np.linalg.norm(solved - y) > 1e-3 * (1 + np.linalg.norm(y)):
        raise ValueError(f"point is no equilibrium at {parameter}={begin:g}: the slope is {system.slope(y)}")
    curve = Curve(system, parameter, (low, high), log, max(float(np.linalg.norm(solved)), 1e-6))
    x = curve.packed(np.concatenate([solved, np.zeros(len(system.powers))]), begin)
    if np.linalg.cond(curve.jacobian(x)[:, :-1]) > 1e13:
        raise ValueError(
            "the Jacobian is singular at this point: it is one of a family of equilibria. Fix what is conserved or "
            "balanced, or add weight decay (a cost of one vector)"
        )
    points = curve.followed(x, 1, step, most)
    if points[-1][1] != "closed":
        points = [*curve.followed(x, -1, step, most)[:0:-1], *points]
    values = np.array([curve.unpacked(x)[1] for x, _ in points])
    systems = [system.at(parameter, value) for value in values]
    found = labelled(systems, [curve.unpacked(x)[0][: len(y)] for x, _ in points])
    return found.assign_coords({parameter: ("point", values)}).assign(kind=("point", [kind for _, kind in points]))


@dataclass(frozen=True)
class Curve:
    """The curve of solutions x = (z / size, parameter on 0..1) of a system."""

    system: System
    parameter: str
    within: tuple[float, float]
    log: bool
    size: float

    def packed(self, z: np.ndarray, value: float) -> np.ndarray:
        low, high = np.log(self.within) if self.log else self.within
        return np.append(z / self.size, ((np.log(value) if self.log else value) - low) / (high - low))

    def unpacked(self, x: np.ndarray) -> tuple[np.ndarray, float]:
        low, high = np.log(self.within) if self.log else self.within
        value = low + x[-1] * (high - low)
        return x[:-1] * self.size, float(np.exp(value) if self.log else value)

    def equations(self, x: np.ndarray) -> np.ndarray:
        z, value = self.unpacked(x)
        return self.system.at(self.parameter, value).equations(z)

    def jacobian(self, x: np.ndarray) -> np.ndarray:
        z, value = self.unpacked(x)
        system, (low, high) = self.system.at(self.parameter, value), self.within
        width = value * np.log(high / low) if self.log else high - low
        return np.hstack([system.jacobian(z) * self.size, system.by(self.parameter, z)[:, None] * width])

    def tangent(self, x: np.ndarray, like: np.ndarray) -> np.ndarray:
        """The unit tangent that points as `like` does."""
        rows = np.linalg.svd(self.jacobian(x))[2]
        return rows[-1] * np.sign(rows[-1] @ like)

    def corrected(self, guess: np.ndarray, row: np.ndarray) -> np.ndarray | None:
        """Newton's method on the plane through the guess that is orthogonal to `row`; None where it fails."""
        x, change = guess.copy(), np.ones(len(guess))
        for _ in range(12):
            matrix = np.vstack([self.jacobian(x), row])
            try:
                change = np.linalg.solve(matrix, -np.append(self.equations(x), row @ (x - guess)))
            except np.linalg.LinAlgError:
                return None
            x = x + change
            if not np.isfinite(x).all() or np.linalg.norm(x - guess) > 1:
                return None
            if np.linalg.norm(change) < 1e-13 * (1 + np.linalg.norm(x)):
                return x
        return x if np.linalg.norm(change) < 1e-10 else None

    def followed(self, x: np.ndarray, direction: int, step: float, most: int) -> list[tuple[np.ndarray, str]]:
        """The points from x on, with folds and the end located."""
        along = np.zeros(len(x))
        along[-1] = direction
        tangent, size, points = self.tangent(x, along), step / 4, [(x, "")]
        if tangent[-1] * direction < 0:
            tangent = -tangent
        first = x, tangent
        while len(points) < most:
            new = self.corrected(x + size * tangent, tangent)
            turned = None if new is None else self.tangent(new, tangent)
            if new is None or turned is None or turned @ tangent < 0.98:
                size /= 2
                if size < 1e-9:
                    raise RuntimeError(f"the branch cannot be followed beyond {self.parameter}={self.unpacked(x)[1]:g}")
                continue
            crossing = self._crosses(x, tangent, new, turned)
            if turned[-1] * tangent[-1] < 0 and not crossing:  # with one, the turn is that of a pitchfork
                points.append((self._fold(x, tangent, size), "fold"))
            if not 0 <= new[-1] <= 1:
                end = self._end(x, new, float(new[-1] > 1))
                return [*points, (end, "end")] if end is not None else points
            if len(points) > 2 and passes(first, x, tangent, new):
                return [*points, (first[0], "closed")]
            points.append((new, "crossing" if crossing else ""))
            x, tangent, size = new, turned, min(1.5 * size, step)
        warnings.warn(
            f"the branch was cut after {most} points, at {self.parameter}={self.unpacked(x)[1]:g}; raise most or step",
            RuntimeWarning,
            stacklevel=3,
        )
        return [*points[:-1], (points[-1][0], "cut")]

    def _fold(self, x: np.ndarray, tangent: np.ndarray, size: float) -> np.ndarray:
        """The point between x and x + size tangent at which the tangent has no component along the parameter."""

        def point(length: float) -> np.ndarray:
            found = self.corrected(x + length * tangent, tangent)
            if found is None:
                raise RuntimeError(f"the fold near {self.parameter}={self.unpacked(x)[1]:g} could not be located")
            return found

        length = brentq(lambda length: self.tangent(point(length), tangent)[-1], 0, size, xtol=1e-14)
        return point(float(length))  # type: ignore[arg-type]

    def _end(self, x: np.ndarray, new: np.ndarray, at: float) -> np.ndarray | None:
        """The point where the parameter meets the end of its range."""
        share = (at - x[-1]) / (new[-1] - x[-1])
        guess = x + share * (new - x)
        guess[-1] = at
        return self.corrected(guess, np.eye(len(x))[-1])

    def _crosses(self, x: np.ndarray, tangent: np.ndarray, new: np.ndarray, turned: np.ndarray) -> bool:
        """Whether the determinant of the bordered Jacobian changes its sign between two points."""
        signs = [np.linalg.slogdet(np.vstack([self.jacobian(at), t]))[0] for at, t in ((x, tangent), (new, turned))]
        return bool(signs[0] * signs[1] < 0)


def passes(first: tuple[np.ndarray, np.ndarray], x: np.ndarray, tangent: np.ndarray, new: np.ndarray) -> bool:
    """Whether the curve from x to new goes through the first point in the direction that it had there."""
    place, direction = first
    ahead, length = float((place - x) @ tangent), float((new - x) @ tangent)
    aside = np.linalg.norm(place - x - ahead * tangent)
    return 0 < ahead <= length and bool(aside < 0.2 * length) and bool(direction @ tangent > 0.9)
