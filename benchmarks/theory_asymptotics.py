"""The strategy that is learned in the end, predicted and measured: 10,000 random parameter sets and starts.

The ensemble: dimensions of a, b, c log-uniform in 5..50, of d in 5..200; target entries normal with a standard
deviation log-uniform in 0.5..2 for each vector, entries of the start in 0.2..1 for all; alpha log-uniform in
1e-3..0.3; mu_icl and mu_ciwl each zero with probability 1/2, else log-uniform in 1e-3..1. Measured by LSODA (scipy) on
the eight numbers until t = 1e9; what is neither learned by then counts as "none", which is never predicted.

Three quarters of the sets are decided by the signs of the two mu alone, and are right; what says something is the share
that is right where both are zero and the start decides. Writes the labels to figures/data/theory_asymptotics.nc, whose
numbers derivations/asymptotics.md states. 9 minutes on two processes: python benchmarks/theory_asymptotics.py [sets]
"""

from __future__ import annotations

import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import xarray as xr
from scipy.integrate import solve_ivp

import toymodel as tm
from toymodel.files import write_netcdf
from toymodel.theory import compiled
from toymodel.theory.asymptotics import asymptotic_strategy

HORIZON = 1e9
MODEL = tm.coopetition()
DATA = Path(__file__).parent.parent / "figures" / "data" / "theory_asymptotics.nc"
LABELS = np.array(["none", "icl", "ciwl", "icl+ciwl"])


def log_uniform(draw: np.random.Generator, low: float, high: float, n: int) -> np.ndarray:
    return np.exp(draw.uniform(np.log(low), np.log(high), n))


def ensemble(n: int, seed: int = 0) -> tuple[xr.Dataset, dict[str, xr.DataArray], dict[str, xr.DataArray]]:
    """Start, weights and parameters of n random sets, along `set`."""
    draw = np.random.default_rng(seed)
    sizes = {x: np.round(log_uniform(draw, 5, 200 if x == "d" else 50, n)) for x in "abcd"}
    scale = log_uniform(draw, 0.2, 1, n)
    spread = {x: log_uniform(draw, 0.5, 2, n) for x in "abcd"}

    def along(values) -> xr.DataArray:
        return xr.DataArray(np.asarray(values), dims="set", coords={"set": np.arange(n)})

    start = tm.aligned_start(
        MODEL,
        overlap={x: along(scale * draw.standard_normal(n)) for x in "abcd"},
        residual={x: along(scale * np.sqrt(draw.chisquare(sizes[x] - 1))) for x in "abcd"},
        target_norm={x: along(spread[x] * np.sqrt(draw.chisquare(sizes[x]))) for x in "abcd"},
    )
    weights = {t: along(1 / np.prod([sizes[x] for x in letters], 0)) for t, letters in MODEL.terms.items()}
    mus = {m: np.where(draw.random(n) < 0.5, 0, log_uniform(draw, 1e-3, 1, n)) for m in ("mu_icl", "mu_ciwl")}
    parameters = {"alpha": log_uniform(draw, 1e-3, 0.3, n), **mus}
    return start, weights, {p: along(values) for p, values in parameters.items()}


def end_of(run: tuple[np.ndarray, np.ndarray]) -> int:
    """What one run has learned at the horizon, an index of LABELS."""
    state, constants = run[0], tuple(map(float, run[1]))
    slope, curvature = compiled.slope(MODEL.form), compiled.hessian(MODEL.form)
    solution = solve_ivp(
        lambda _t, y: [-s for s in slope(*y, *constants)],
        (0, HORIZON),
        state,
        method="LSODA",
        jac=lambda _t, y: -np.array(curvature(*y, *constants)),
        t_eval=[HORIZON],
        rtol=1e-6,
        atol=1e-9,
    )
    if not solution.success:
        raise RuntimeError(solution.message)
    icl, ciwl = (compiled.margin(MODEL.form, m)(*solution.y[:, -1], *constants) < 0 for m in ("icl", "ciwl"))
    return int(icl) + 2 * int(ciwl)


def measured(start, weights, parameters, processes: int = 1) -> xr.DataArray:
    """What is learned at the horizon, for every set."""
    problem, states, constants = compiled.prepared(MODEL, start, weights, parameters)
    runs = list(zip(states, constants, strict=True))
    if processes == 1:
        return problem.batch.labelled(LABELS[[end_of(run) for run in runs]])
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        return problem.batch.labelled(LABELS[list(pool.map(end_of, runs, chunksize=100))])


def main(sets: int = 10_000) -> None:
    start, weights, parameters = ensemble(sets)
    predicted = asymptotic_strategy(MODEL, start, weights=weights, **parameters)
    found = measured(start, weights, parameters, processes=2)
    right = (predicted == found).values
    print(f"asymptotic strategy of {sets} random sets: {right.mean():.2%} right")
    signs = [(parameters[m] > 0).values for m in ("mu_icl", "mu_ciwl")]
    for one, two in ((True, False), (False, True), (True, True), (False, False)):
        these = (signs[0] == one) & (signs[1] == two)
        ends = dict(zip(*map(np.ndarray.tolist, np.unique(found.values[these], return_counts=True)), strict=True))
        print(f"  mu_icl {'> 0' if one else '= 0'}, mu_ciwl {'> 0' if two else '= 0'}:", end=" ")
        print(f"{right[these].mean():.2%} of {these.sum()} right; {ends}")
    table = xr.Dataset({"predicted": predicted, "measured": found, **{m: parameters[m] for m in ("mu_icl", "mu_ciwl")}})
    DATA.parent.mkdir(exist_ok=True)
    write_netcdf(table, DATA, packed=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
