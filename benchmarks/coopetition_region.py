"""Where ICL comes first, ends, and needs CIWL: 20 random starts in each cell of initial scale by strength of d*.

For the published model and `long_pathway`, mu_icl = 0.1, d starting at scale 1, the other vectors at `scale`. Needs
CIWL: with d held at zero ICL comes at least 10 times later or not within 10 times the horizon. First the planes of
scale and strength at alpha = 0.1, then, for ICL coming first alone, those of alpha and strength at scale 0.01. Prints
how often the law (`toymodel.theory.cooperation.region`, `law`) says what most starts of a cell do, and what a single
start does, beside the base rates (that of the more frequent answer), and writes figures/data/coopetition_region.nc.
Run: python benchmarks/coopetition_region.py [stored]     (stored: only prints what the file says)
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import xarray as xr
from theory_cooperation import BLOCKED, emergence, of_icl

import toymodel as tm
from toymodel.files import write_netcdf

DATA = Path(__file__).parent.parent / "figures" / "data" / "coopetition_region.nc"
SCALES, STRENGTHS = np.geomspace(1e-3, 0.9, 12), np.geomspace(0.5, 8, 9)
SEEDS, HORIZON = range(20), 10_000
MODELS = {"published": tm.coopetition, "long_pathway": tm.long_pathway}
ALPHAS, SCALE = np.geomspace(0.003, 1, 8), 0.01


def starts(model: tm.Model, scale: float, strength: float) -> xr.Dataset:
    """Random starts of one cell."""
    others = [x for x in model.vectors if x != "d"]
    scales, targets = {"d": 1.0, **dict.fromkeys(others, scale)}, {"d": strength, **dict.fromkeys(others, 1.0)}
    return tm.random_start(model, SEEDS, scale=scales, target_scale=targets)


def labelled(name: str, values: np.ndarray) -> xr.DataArray:
    """An axis of the planes."""
    return xr.DataArray(values, dims=name, name=name)


def step(strength: float) -> float:
    """A step size below the largest stable one."""
    return 0.5 * min(1.0, 9 / strength**2)


def shares(model: tm.Model, strength: float, lr: float) -> xr.Dataset:
    """Shares of the starts of the cells of one strength, and the median speed-up (lower bound), along `scale`."""
    start = xr.concat([starts(model, scale, strength) for scale in SCALES], labelled("scale", SCALES))
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


def first_at(model: tm.Model, strength: float, lr: float) -> xr.DataArray:
    """Share of the starts in which ICL comes first, along `alpha`, at one scale and strength."""
    alpha = labelled("alpha", ALPHAS).assign_coords(alpha=ALPHAS)
    measures = emergence(model, starts(model, SCALE, strength), HORIZON, lr, 20, alpha=alpha)
    icl, ciwl = (measures.emergence.sel(mechanism=m, drop=True) for m in ("icl", "ciwl"))
    return (icl.notnull() & ~(ciwl <= icl)).mean("seed")


def of_single_starts(share: xr.DataArray, inside: xr.DataArray) -> tuple[float, float]:
    """Share of all starts that do what the law says of their cell, and what one answer for all of them reaches."""
    whole = float(share.mean())
    return float(share.where(inside, 1 - share).mean()), max(whole, 1 - whole)


def compared(name: str, share: xr.DataArray, inside: xr.DataArray) -> None:
    """Prints how the law and most starts of a cell agree."""
    yes = share > 0.5
    print(f"{name}: right in {float((yes == inside).mean()):.0%} of {yes.size} cells, base rate", end=" ")
    print(
        f"{float(max(yes.mean(), (~yes).mean())):.0%}; {int((yes & inside).sum())} of {int(yes.sum())} cells found,",
        end=" ",
    )
    print(f"{int((~yes & inside).sum())} of {int(inside.sum())} false; mean share inside", end=" ")
    print(f"{float(share.where(inside).mean()):.2f}, outside {float(share.where(~inside).mean()):.2f}")
    right, base = of_single_starts(share, inside)
    print(f"    of single starts: right for {right:.1%}, one answer for all for {base:.1%}", flush=True)


def laws(preset) -> tuple[xr.DataArray, xr.DataArray]:
    """What `region` says along scale and strength, and `law` of ICL coming first along alpha and strength."""
    alpha, along = labelled("alpha", ALPHAS), labelled("strength", STRENGTHS)
    scale = labelled("scale", SCALES)
    claims, firsts = [], []
    for strength in STRENGTHS:
        target = {"d": float(strength)}
        claims.append(tm.theory.region(preset(), scale, 1.0, target_scale=target))
        said = [tm.theory.law(preset(alpha=float(a)), SCALE, 1.0, target_scale=target)["first"] for a in ALPHAS]
        firsts.append(xr.concat(said, alpha))
    return xr.concat(claims, along), xr.concat(firsts, along)


def main() -> None:
    stored = xr.load_dataset(DATA, engine="h5netcdf") if sys.argv[1:] == ["stored"] else None
    along, found = labelled("strength", STRENGTHS), []
    for name, preset in MODELS.items():
        if stored is None:
            planes = xr.concat([shares(preset(), s, step(s)) for s in STRENGTHS], along)
            firsts = [first_at(preset(), s, step(s)) for s in STRENGTHS]
            planes = planes.assign(first_by_alpha=xr.concat(firsts, along))
        else:
            planes = stored.sel(model=name, drop=True)
        claim, first = laws(preset)
        compared(f"{name}, the claim", planes["all"], claim)
        compared(f"{name}, ICL first, alpha", planes["first_by_alpha"], first)
        found.append(planes)
    if stored is not None:
        return
    DATA.parent.mkdir(exist_ok=True)
    planes = xr.concat(found, labelled("model", np.array(list(MODELS)))).assign_attrs(scale_of_alpha=SCALE)
    write_netcdf(planes, DATA)


if __name__ == "__main__":
    main()
