"""The height of the bump, predicted and measured, for random starts, target norms, alpha and mu_icl.

The paper's weights; a, b, c from 0.003..0.5 without residuals, u_d in 0..2, v_d zero in half of the runs and in 0..13
in the rest, norms of targets 2..8 (d: 5..30), alpha in 1e-5..0.1, mu_icl / alpha in 1e-4..1. Measured by LSODA at its
own steps until CIWL is learned, or long after the cost has taken d. The limit of `taken` was chosen on seed 1.
Run: python benchmarks/theory_bump.py [points [seeds ...]]
"""

from __future__ import annotations

import sys

import numpy as np
import xarray as xr
from scipy.integrate import solve_ivp

import toymodel as tm
from toymodel.theory import compiled

MODEL = tm.coopetition()
SEEDS = (2, 3)
MOST_CALLS = 50_000  # of the slope; a run that takes more is not counted


def measured(state: np.ndarray, constants: tuple[float, ...], time: float) -> float:
    """The largest rise of the loss of CIWL above its lowest value so far, in units of the unlearned one."""
    slope, margin = compiled.slope(MODEL.form), compiled.margin(MODEL.form, "ciwl")
    calls = 0

    def velocity(_t, y):
        nonlocal calls
        calls += 1
        if calls > MOST_CALLS:
            raise TimeoutError
        return [-s for s in slope(*y, *constants)]

    def learned(_t, y):
        return margin(*y, *constants)

    learned.terminal, learned.direction = True, -1  # type: ignore[attr-defined]
    try:
        run = solve_ivp(velocity, (0, time), state, method="LSODA", rtol=1e-8, atol=1e-10, events=learned)
    except TimeoutError:
        return np.nan
    levels = np.array([margin(*y, *constants) for y in run.y.T])
    return float(np.max(levels - np.minimum.accumulate(levels)))


def compared(points: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Heights predicted and measured, where there is a prediction."""
    draw = np.random.default_rng(seed)

    def along(values):
        return xr.DataArray(values, dims="run", coords={"run": np.arange(points)})

    def drawn(low: float, high: float) -> xr.DataArray:
        return along(np.exp(draw.uniform(np.log(low), np.log(high), points)))

    alpha = drawn(1e-5, 0.1)
    parameters = {"alpha": alpha, "mu_icl": alpha * drawn(1e-4, 1)}
    overlap = {**{x: drawn(0.003, 0.5) for x in "abc"}, "d": along(draw.uniform(0, 2, points))}
    residual = {**dict.fromkeys("abc", 0.0), "d": along(draw.uniform(0, 13, points) * draw.integers(0, 2, points))}
    norms = {**{x: drawn(2, 8) for x in "abc"}, "d": drawn(5, 30)}
    start = tm.aligned_start(MODEL, overlap=overlap, residual=residual, target_norm=norms)
    said = tm.theory.bump(MODEL, start, **parameters).height.values
    _, states, constants = compiled.prepared(MODEL, start, None, parameters)
    inside = np.flatnonzero(np.isfinite(said))
    found = [measured(states[i], tuple(map(float, constants[i])), 1e6 + 1.6e4 / float(alpha[i])) for i in inside]
    return said[inside], np.array(found)


def main(points: int = 150, *seeds: int) -> None:
    for seed in seeds or SEEDS:
        said, found = compared(points, seed)
        error, high = np.abs(said - found), found > 0.05
        print(f"seed {seed}: {said.size} of {points} predicted, {int(np.isnan(found).sum())} not measured;", end=" ")
        print(f"error at most {np.nanmax(error):.4f}, median {np.nanmedian(error):.1e}; of heights above 0.05", end=" ")
        print(f"({int(high.sum())}) at most {(error / found)[high].max():.1%}", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
