"""Sign descent and Adam on all 220 entries of the published model, for `derivations/adam.py`.

Times are in step size x steps. Rows of the first table: the rule, its rate, the scale of the start, alpha, how many
times larger the target of d is, entries of d; median times of ICL and CIWL the share of runs in which ICL comes
first, of those in which it comes, and the share of these. The second
table has the time of ICL under Adam with CIWL's gradient blocked over that with both, by rate and by noise of the
gradient. Writes figures/data/theory_adam.nc, in about five minutes of one core.
Run: python benchmarks/theory_adam.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

import toymodel as tm
from toymodel.files import written

DATA = Path(__file__).parent.parent / "figures" / "data" / "theory_adam.nc"
SEEDS = range(24)
CASES = (  # rule, rate, scale of the start, alpha, times that the target of d is larger, entries of d
    ("sign", 2e-3, 0.01, 0.0, 1.0, 160),
    ("sign", 2e-3, 0.01, 0.1, 1.0, 160),
    ("sign", 2e-3, 1.0, 0.1, 1.0, 160),
    ("sign", 2e-3, 1.0, 0.1, 2.0, 160),
    ("adam", 2e-3, 1.0, 0.1, 1.0, 160),
    ("adam", 2e-3, 1.0, 0.1, 2.0, 160),
    ("adam", 1e-2, 0.01, 0.0, 1.0, 20),
    ("adam", 2e-3, 0.01, 0.0, 1.0, 20),
    ("adam", 5e-4, 0.01, 0.0, 1.0, 20),
    ("adam", 1e-4, 0.01, 0.0, 1.0, 20),
    ("adam", 3e-5, 0.01, 0.0, 1.0, 20),
)
NOISES, RATES = (0.0, 1e-3, 1e-2), (1e-2, 3e-3, 1e-3, 3e-4)


def run(optimiser: str, lr: float, scale: float, alpha: float, larger: float, entries: int, end: float) -> xr.Dataset:
    """The published model until step size x steps = end."""
    model = tm.coopetition(dims=(20, 20, 20, entries))
    vectors = tm.random_vectors(model, SEEDS, scale=scale)
    vectors["d_target"] = larger * vectors["d_target"]
    steps = round(end / lr)
    given = {"lr": lr, "every": max(1, steps // 400), "optimiser": optimiser, "alpha": alpha}
    return tm.descend_vectors(model, vectors, steps, **given)


def first(emergence: xr.DataArray) -> np.ndarray:
    """Whether ICL comes first, for each run in which it comes."""
    icl, ciwl = (emergence.sel(mechanism=m).fillna(np.inf).values for m in ("icl", "ciwl"))
    return (icl < ciwl)[np.isfinite(icl)]


def courses() -> xr.Dataset:
    """The first table, and the overlaps of four runs of its first row."""
    found, kept = [], None
    for case in CASES:
        seen = run(*case, end=1.5 if case[2] < 1 else 4.0)
        emergence = tm.measure(seen).emergence
        medians = [float(emergence.sel(mechanism=m).median("seed")) for m in ("icl", "ciwl")]
        found.append([*medians, first(emergence).mean(), first(emergence).size / len(SEEDS)])
        print(*case, np.round(found[-1], 3), flush=True)
        if kept is None:
            kept = (abs(seen.overlap) / seen.target_norm).isel(seed=slice(4))
    columns = [("rule", 0), ("rate", 1), ("scale", 2), ("alpha_of", 3), ("larger", 4), ("entries", 5)]
    rows = {name: ("case", [case[i] for case in CASES]) for name, i in columns}
    rows |= {name: ("case", [row[i] for row in found]) for i, name in enumerate(("icl", "ciwl", "icl_first", "emerge"))}
    assert kept is not None
    course = kept.transpose("time", "seed", "vector").values.astype(np.float32)
    return xr.Dataset(rows | {"course": (("time", "seed", "vector"), course)}, {"time": kept.time.values})


def plateau() -> xr.DataArray:
    """The second table: dims (10, 10, 10, 40), standard normal starts, medians of 16."""
    model = tm.coopetition(dims=(10, 10, 10, 40))
    vectors = tm.random_vectors(model, range(16))
    found = xr.DataArray(np.zeros((len(NOISES), len(RATES))), [("noise", list(NOISES)), ("lr", list(RATES))])
    for noise in NOISES:
        for lr in RATES:
            steps = round(8 / lr)
            given = {"lr": lr, "every": steps // 400, "optimiser": "adam", "noise": noise}
            alone, both = (
                tm.measure(tm.descend_vectors(model, vectors, steps, interventions=acts, **given))
                for acts in ([tm.Block("ciwl", "dbc")], [])
            )
            times = [m.emergence.sel(mechanism="icl").fillna(np.inf).median("seed") for m in (alone, both)]
            found.loc[{"noise": noise, "lr": lr}] = float(times[0] / times[1])
            print("noise", noise, "rate", lr, found.sel(noise=noise, lr=lr).item(), flush=True)
    return found


def by_gradient() -> float:
    """By gradient descent: the share of the runs with ICL in which it comes first."""
    model = tm.coopetition()
    measures = tm.descend(model, tm.random_start(model, range(200)), 16_000, observe=tm.Measures())
    return float(first(measures.emergence).mean())


def main() -> None:
    found = courses().assign(plateau=plateau()).assign_attrs(first_by_gradient=by_gradient(), seeds=len(SEEDS))
    with written(DATA) as whole:
        found.to_netcdf(whole, engine="h5netcdf")


if __name__ == "__main__":
    main()
