"""The strategy that is learned in the end, predicted and measured, for random parameter sets and starts.

The ensemble: dimensions of a, b, c log-uniform in 5..50, of d in 5..200; target entries normal with a standard
deviation log-uniform in 0.5..2 for each vector, entries of the start in 0.2..1 for all; alpha log-uniform in
1e-3..0.3; mu_icl and mu_ciwl each zero with probability 1/2, else log-uniform in 1e-3..1. Measured by gradient flow
until t = 1e9; what is neither learned by then counts as "none", which is never predicted.

Three quarters of the sets are decided by the signs of the two mu alone. Where both are zero the start decides, and
three simpler rules stand beside the prediction: one answer for all, ICL where |d*| > |a*|, and the first-order boundary
at the start. Writes the labels to figures/data/theory_asymptotics.nc, whose numbers derivations/asymptotics.md states.
Run: python benchmarks/theory_asymptotics.py [sets] [seed]. With a seed other than that of the page it writes nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import xarray as xr

import toymodel as tm
from toymodel.files import write_netcdf
from toymodel.theory.asymptotics import asymptotic_strategy, side_of_boundary

HORIZON, BLOCK, SEED = 1e9, 1_000, 2
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


def measured(start, weights, parameters) -> xr.DataArray:
    """What is learned at the horizon, for every set."""
    end = tm.flow(MODEL, start, HORIZON, times=[HORIZON], weights=weights, progress=False, **parameters).isel(time=0)
    icl, ciwl = (end[f"loss_{m}"] < end[f"unlearned_{m}"] / 2 for m in ("icl", "ciwl"))
    return xr.DataArray(LABELS[(icl + 2 * ciwl).values.astype(int)], icl.coords, icl.dims)


def scored(sets: int, seed: int) -> xr.Dataset:
    """Prediction, measurement and the simpler rules for one block of sets."""
    start, weights, parameters = ensemble(sets, seed)
    longer = start.target_norm.sel(vector="d", drop=True) > start.target_norm.sel(vector="a", drop=True)
    return xr.Dataset(
        {
            "predicted": asymptotic_strategy(MODEL, start, weights=weights, **parameters),
            "measured": measured(start, weights, parameters),
            "longer": xr.where(longer, "icl", "ciwl"),
            "boundary": xr.where(side_of_boundary(start) > 0, "icl", "ciwl"),
            **{m: parameters[m] for m in ("mu_icl", "mu_ciwl")},
        }
    )


def summary(table: xr.Dataset) -> None:
    """Prints the share right for each pair of signs, and that of the simpler rules where the start decides."""
    right = table.predicted == table.measured
    for one, two in ((True, False), (False, True), (True, True), (False, False)):
        these = ((table.mu_icl > 0) == one) & ((table.mu_ciwl > 0) == two)
        labels, counts = np.unique(table.measured.values[these], return_counts=True)
        signs = f"mu_icl {'> 0' if one else '= 0'}, mu_ciwl {'> 0' if two else '= 0'}"
        ends = ", ".join(f"{label} {count}" for label, count in zip(labels, counts, strict=True))
        print(f"  {signs}: {float(right[these].mean()):.2%} of {int(these.sum())} right; ends: {ends}")
    start_decides = table.isel(set=((table.mu_icl == 0) & (table.mu_ciwl == 0)).values)
    for name in ("longer", "boundary"):
        print(f"  rule {name!r}: {float((start_decides[name] == start_decides.measured).mean()):.2%}", end="")
    print(f"  always ICL: {float((start_decides.measured == 'icl').mean()):.2%}", flush=True)


def main(sets: int = 10_000, seed: int = SEED) -> None:
    parts: list[xr.Dataset] = []
    for first in range(0, sets, BLOCK):
        parts.append(scored(min(BLOCK, sets - first), 1_000 * seed + first // BLOCK))
        print(f"{min(first + BLOCK, sets):,} of {sets:,} sets", flush=True)
        summary(xr.concat(parts, "set"))
    if seed == SEED:
        table = xr.concat(parts, "set").assign_coords(set=np.arange(sets))
        DATA.parent.mkdir(exist_ok=True)
        write_netcdf(table, DATA, packed=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
