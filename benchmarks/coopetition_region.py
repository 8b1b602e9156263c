"""Where ICL comes first, ends, and needs CIWL: 20 random starts in each cell of initial scale by strength of d*.

For the published model and `long_pathway`, alpha = mu_icl = 0.1, d starting at scale 1, the other vectors at `scale`.
Needs CIWL: with d held at zero ICL comes at least 10 times later or not within 10 times the horizon. Prints how often
the law (`toymodel.theory.cooperation.region`) says what most starts of a cell do, and writes
figures/data/coopetition_region.nc. Run: python benchmarks/coopetition_region.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr
from theory_cooperation import BLOCKED, emergence, of_icl

import toymodel as tm

DATA = Path(__file__).parent.parent / "figures" / "data" / "coopetition_region.nc"
SCALES, STRENGTHS = np.geomspace(1e-3, 0.9, 12), np.geomspace(0.5, 8, 9)
SEEDS, HORIZON = range(20), 10_000
MODELS = {"published": tm.coopetition(), "long_pathway": tm.long_pathway()}


def shares(model: tm.Model, strength: float, lr: float) -> xr.Dataset:
    """Shares of the starts of the cells of one strength, and the median speed-up (lower bound), along `scale`."""
    targets = {x: strength if x == "d" else 1.0 for x in model.vectors}
    starts = [
        tm.random_start(
            model, SEEDS, scale={x: 1.0 if x == "d" else scale for x in model.vectors}, target_scale=targets
        )
        for scale in SCALES
    ]
    start = xr.concat(starts, xr.DataArray(SCALES, dims="scale", name="scale"))
    measures = emergence(model, start, HORIZON, lr, 20)
    icl, ciwl = of_icl(measures), measures.emergence.sel(mechanism="ciwl", drop=True)
    alone = of_icl(emergence(model, start, 10 * HORIZON, lr, 200, interventions=BLOCKED))
    first = icl.notnull() & ~(ciwl <= icl)
    needs = icl.notnull() & ~(alone < 10 * icl)
    transient = of_icl(measures, "end").notnull()
    return xr.Dataset(
        {
            "first": first.mean("seed"),
            "transient": transient.mean("seed"),
            "needs": needs.mean("seed"),
            "all": (first & needs & transient).mean("seed"),
            "speed_up": (alone.fillna(10 * HORIZON) / icl).median("seed"),
        }
    )


def main() -> None:
    found = []
    for name, model in MODELS.items():
        rows, law = [], []
        for strength in STRENGTHS:
            lr = 0.5 * min(1.0, 9 / strength**2)
            rows.append(shares(model, strength, lr))
            law.append(tm.region(model, rows[-1]["scale"], 1.0, target_scale={"d": strength}))
        found.append(xr.concat(rows, xr.DataArray(STRENGTHS, dims="strength", name="strength")))
        claim, inside = found[-1]["all"], xr.concat(law, found[-1]["strength"])
        print(f"{name}: the law is right in {float(((claim > 0.5) == inside).mean()):.0%} of the cells;", end=" ")
        print(f"share with the claim inside {float(claim.where(inside).mean()):.2f}, outside", end=" ")
        print(f"{float(claim.where(~inside).mean()):.2f}, largest {float(claim.max()):.2f}", flush=True)
    DATA.parent.mkdir(exist_ok=True)
    xr.concat(found, xr.DataArray(list(MODELS), dims="model", name="model")).to_netcdf(DATA, engine="h5netcdf")


if __name__ == "__main__":
    main()
