"""Emergence time of ICL, predicted from the start, against the full model: by five numbers on the plateau, integrated
(`toymodel.emergence_time`), and by the one-dimensional quadrature that leaves out all damping (`toymodel.escape`).

2,000 random parameters and starts: alpha log-uniform in 1e-3..0.3, mu_icl log-uniform in 1e-3..1, d of 5..200 entries,
a, b, c of 20, targets and initial values standard normal; then the same with all initial values scaled by a factor
log-uniform in 0.1..1. Writes the times to figures/data/theory_emergence.nc.
Run: python benchmarks/theory_emergence.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

import toymodel as tm
from toymodel.theory.escape import escape
from toymodel.theory.plateau import emergence_time

DATA = Path(__file__).parent.parent / "figures" / "data" / "theory_emergence.nc"
STEPS = 50_000


def random_runs(runs: int, seed: int, scaled: bool = False) -> tuple[xr.Dataset, dict, dict]:
    """Start, weights and parameters of random runs along `run`; a normal vector of n entries has a normal overlap and a
    residual whose square is chi-square of n - 1."""
    draw = np.random.default_rng(seed)
    entries = draw.integers(5, 201, runs)
    alpha, mu = 10 ** draw.uniform(-3, np.log10(0.3), runs), 10 ** draw.uniform(-3, 0, runs)
    scale = 10 ** draw.uniform(-1, 0, runs) if scaled else np.ones(runs)

    def labelled(values):
        return xr.DataArray(values, dims="run", coords={"run": np.arange(runs)})

    def each(make):
        return {x: labelled(make(entries if x == "d" else np.full(runs, 20))) for x in "abcd"}

    start = tm.aligned_start(
        tm.coopetition(),
        overlap=each(lambda n: scale * draw.standard_normal(runs)),
        residual=each(lambda n: scale * np.sqrt(draw.chisquare(n - 1))),
        target_norm=each(lambda n: np.sqrt(draw.chisquare(n))),
    )
    weights = {"ciwl": labelled(1 / (400 * entries)), "cost": labelled(1 / (20 * entries))}
    return start, weights, {"alpha": labelled(alpha), "mu_icl": labelled(mu)}


def measured(start, weights, parameters, steps: int = STEPS) -> xr.DataArray:
    """The time of emergence in gradient descent with step 1, to 10 steps."""
    runs = tm.descend(tm.coopetition(), start, steps, every=10, weights=weights, progress=False, **parameters)
    return tm.first_below(runs["loss_icl"] / runs["unlearned_icl"], 0.5)


def score(time, predicted) -> dict[str, float]:
    """R^2 of log time and relative errors over the runs that emerge and are predicted to, and both kinds of misses."""
    both = time.notnull() & predicted.notnull()
    x, y = np.log(time.values[both]), np.log(predicted.values[both])
    error = np.abs(np.exp(y - x) - 1)
    return {
        "runs": time.size,
        "emerge": int(time.notnull().sum()),
        "not predicted to": int((time.notnull() & predicted.isnull()).sum()),
        "predicted to in vain": int((time.isnull() & predicted.notnull()).sum()),
        "scored": int(both.sum()),
        "R2": 1 - np.sum((x - y) ** 2) / np.sum((x - x.mean()) ** 2),
        "median error": float(np.median(error)),
        "90th percentile": float(np.percentile(error, 90)),
    }


def main() -> None:
    model, times = tm.coopetition(), []
    for scaled in (False, True):
        start, weights, parameters = random_runs(2_000, seed=2, scaled=scaled)
        time = measured(start, weights, parameters)
        integrated = emergence_time(model, start, horizon=STEPS, weights=weights, **parameters)
        undamped = escape(model, start, weights=weights, **parameters)
        quadrature = undamped.emergence.where(undamped.emergence < STEPS)
        print("initial values", "scaled by 0.1..1" if scaled else "standard normal")
        for name, predicted in (("five numbers, integrated", integrated), ("quadrature without damping", quadrature)):
            print(f"    {name}")
            for what, value in score(time, predicted).items():
                print(f"        {what:22s} {value:.4g}")
        print(f"        {'damping < 0.1 in':22s} {int((undamped.damping < 0.1).sum())}")
        print(f"        {'median damping':22s} {float(undamped.damping.median()):.4g}", flush=True)
        found = {"measured": time, "predicted": integrated, "quadrature": quadrature, "damping": undamped.damping}
        times.append(xr.Dataset(found))
    DATA.parent.mkdir(exist_ok=True)
    xr.concat(times, xr.DataArray([False, True], dims="scaled", name="scaled")).to_netcdf(DATA, engine="h5netcdf")


if __name__ == "__main__":
    main()
