"""The cooperation index against the measured speed-up, and which change of the model makes ICL need CIWL.

Blocked means: d held at zero, so that the loss of CIWL stays at its unlearned value. A run has the claim if ICL
emerges before CIWL, ends, and emerges at least 10 times later, or not at all, once CIWL is blocked. Writes the table of
changes to figures/data/theory_cooperation.nc, which the page derivations/cooperation.md shows.
Run: python benchmarks/theory_cooperation.py
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from theory_emergence import random_runs

import toymodel as tm
from toymodel.theory.cooperation import speed_up

DATA = Path(__file__).parent.parent / "figures" / "data" / "theory_cooperation.nc"
BLOCKED = (tm.Clamp("d", overlap=0, residual=0),)


def emergence(model: tm.Model, start: xr.Dataset, time: float, lr: float, every: float, **others: Any) -> xr.Dataset:
    """Measures of the runs, recorded each `every` units of time."""
    steps, every_steps = round(time / lr), max(round(every / lr), 1)
    return tm.measure(tm.descend(model, start, steps, lr=lr, every=every_steps, progress=False, **others))


def of_icl(measures: xr.Dataset, name: str = "emergence") -> xr.DataArray:
    return measures[name].sel(mechanism="icl", drop=True)


def speed_up_error(runs: int, seed: int, time: float = 60_000) -> dict[str, float]:
    """The published model: random parameters and starts of 0.02..0.2, in the range damping < 0.1 of the law."""
    start, weights, parameters = random_runs(runs, seed, scaled=True)
    start = start.assign(overlap=0.2 * start["overlap"], residual=0.2 * start["residual"])
    predicted = speed_up(tm.coopetition(), start, weights=weights, **parameters)
    both = [
        of_icl(emergence(tm.coopetition(), start, time, 1, 20, weights=weights, interventions=acts, **parameters))
        for acts in ((), BLOCKED)
    ]
    return index_error(predicted, both[0], both[1], predicted.damping < 0.1)


def index_error(predicted: xr.Dataset, together: xr.DataArray, alone: xr.DataArray, inside: Any) -> dict[str, float]:
    """Relative errors of the index over the runs that emerge with and without CIWL."""
    use = inside & together.notnull() & alone.notnull()
    measured = (alone / together).values[use]
    error = np.abs(predicted["index"].values[use] / measured - 1)
    quantile = np.percentile(error, [50, 95])
    return {
        "runs": int(use.sum()),
        "measured 5 %": float(np.percentile(measured, 5)),
        "measured median": float(np.median(measured)),
        "measured 95 %": float(np.percentile(measured, 95)),
        "median error": float(quantile[0]),
        "95th percentile": float(quantile[1]),
    }


@dataclass(frozen=True)
class Candidate:
    """A change of the published model, and the start that goes with it."""

    name: str
    model: tm.Model
    scale: dict[str, float]
    target_of_d: float = 1.0
    lr: float = 1.0
    shift_of_a: float = 0.0

    def start(self, seeds: range) -> xr.Dataset:
        scale = {x: self.scale.get(x, self.scale["a"]) for x in self.model.vectors}
        targets = {x: self.target_of_d if x in "df" else 1.0 for x in self.model.vectors}
        start = tm.random_start(self.model, seeds, scale=scale, target_scale=targets)
        moved = start["overlap"] + self.shift_of_a * (start["vector"] == "a")
        return start.assign(overlap=moved)


def with_claim(candidate: Candidate, seeds: range, time: float, blocked_time: float) -> dict[str, float]:
    """Shares of the starts: emerges, first, transient, needs CIWL, all of it; median time, speed-up (lower bound)."""
    start = candidate.start(seeds)
    measures = emergence(candidate.model, start, time, candidate.lr, 10)
    held = tuple(tm.Clamp(x, overlap=0, residual=0) for x in candidate.model.vectors if x in "df")
    alone = of_icl(emergence(candidate.model, start, blocked_time, candidate.lr, 100, interventions=held))
    icl = of_icl(measures)
    others = [measures.emergence.sel(mechanism=m, drop=True) for m in measures["mechanism"].values if m != "icl"]
    first = icl.notnull() & ~(xr.concat(others, "other").min("other") <= icl)
    transient = of_icl(measures, "end").notnull()
    slow = icl.notnull() & ~(alone < 10 * icl)
    return {
        "emerges": float(icl.notnull().mean()),
        "first": float(first.mean()),
        "transient": float(transient.mean()),
        "needs CIWL": float(slow.mean()),
        "all": float((first & transient & slow).mean()),
        "median time": float(icl.median()),
        "speed-up >=": float((alone.fillna(blocked_time) / icl).median()),
    }


def changed(loss: Callable[..., Any], **parts: Any) -> tm.Model:
    """The published model with another loss or other terms."""
    base = tm.coopetition()
    given = {
        "mechanisms": base.mechanisms,
        "costs": base.costs,
        "dims": base.dims,
        "parameters": {"alpha": 0.1, "mu": 0.1},
    }
    return tm.Model(loss=loss, **{**given, **parts})


def sum_of_losses(icl, ciwl, cost, *, alpha, mu):
    return icl + ciwl + alpha * cost


def two_strengths(icl, ciwl, weak, cost, *, alpha, mu):
    return (icl + mu) * (ciwl + weak) + alpha * cost


def threshold(icl, ciwl, cost, leak, *, alpha, mu, rate):
    return (icl + mu) * ciwl + alpha * cost + rate * leak


def candidates() -> list[Candidate]:
    paper, small = tm.coopetition(), {"a": 0.02}
    large_d = {"a": 0.02, "d": 1.0}
    strengths = changed(
        two_strengths,
        mechanisms={"icl": "abc", "ciwl": "dbc", "weak": "fbc"},
        dims={**paper.dims, "f": 160},
        weights={"weak": 1 / 640_000},
    )
    leaking = changed(
        threshold,
        costs={**paper.costs, "leak": "a"},
        parameters={"alpha": 0.1, "mu": 0.1, "rate": 0.02},
    )
    return [
        Candidate("published", paper, {"a": 1.0}),
        Candidate("published, all small", paper, small),
        Candidate("published, d large", paper, large_d),
        Candidate("published, d large, others 1e-4, d* x 3", paper, {"a": 1e-4, "d": 1.0}, 3.0, 0.5),
        Candidate("d has 20 entries, d large", tm.coopetition(dims=(20, 20, 20, 20)), large_d),
        Candidate("barrier: a starts at -1", paper, large_d, shift_of_a=-1.0),
        Candidate("threshold: a leaks", leaking, large_d),
        Candidate("two target strengths", strengths, large_d),
        Candidate("sum in place of product", changed(sum_of_losses), large_d),
        Candidate("longer pathway, all 0.25, d* x 3", tm.long_pathway(), {"a": 0.25}, 3.0, 0.25),
        Candidate("longer pathway, all 0.02, d* x 4", tm.long_pathway(), small, 4.0, 0.25),
        Candidate("longer pathway, d large, d* x 3", tm.long_pathway(), large_d, 3.0, 0.25),
        Candidate("long_pathway: d large, d* x 4", tm.long_pathway(), large_d, 4.0, 0.25),
    ]


def main() -> None:
    print("speed-up by CIWL, published model, damping < 0.1:")
    for name, value in speed_up_error(2_000, seed=3).items():
        print(f"    {name:18s} {value:.4g}")
    model = tm.long_pathway()
    start = tm.random_start(model, range(1_000), **tm.LONG_PATHWAY_START)
    together = of_icl(emergence(model, start, 20_000, 0.25, 5))
    alone = of_icl(emergence(model, start, 200_000, 0.25, 100, interventions=BLOCKED))
    predicted = speed_up(model, start)
    print("speed-up by CIWL, long_pathway, runs that emerge without CIWL before 200,000:")
    for name, value in index_error(predicted, together, alone, np.isfinite(predicted["index"])).items():
        print(f"    {name:18s} {value:.4g}")
    print("changes of the model, share of 300 random starts (1,000 in the last row), horizon 20,000 (200,000 blocked):")
    every, table = candidates(), []
    for candidate in every:
        seeds = range(1_000 if candidate is every[-1] else 300)
        shares = with_claim(candidate, seeds, 20_000, 200_000)
        table.append(xr.Dataset(shares))
        print(f"    {candidate.name:40s}", "  ".join(f"{k} {v:.4g}" for k, v in shares.items()), flush=True)
    DATA.parent.mkdir(exist_ok=True)
    names = xr.DataArray([candidate.name for candidate in every], dims="change", name="change")
    xr.concat(table, names).to_netcdf(DATA, engine="h5netcdf")


if __name__ == "__main__":
    main()
