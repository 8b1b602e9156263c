"""The cooperation index against the measured speed-up, and which change of the model makes ICL need CIWL.

Blocked means: d held at zero, so that the loss of CIWL stays at its unlearned value. A run has the claim if ICL
emerges before CIWL, ends, and emerges at least 10 times later, or not at all, once CIWL is blocked. Writes both tables
to figures/data/theory_cooperation.nc, which the page derivations/cooperation.md shows.
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
from toymodel.files import write_netcdf
from toymodel.theory.cooperation import speed_up
from toymodel.theory.weighted_sum import emergence_time

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
    return index_error(predicted["index"], both[0], both[1], predicted["index"].notnull())


def of_standard_starts(runs: int, time: float = 60_000) -> dict[str, dict[str, float]]:
    """The published model at the paper's values from standard normal starts, where the residuals damp: the index by
    `speed_up`, which is NaN there, and by the ratio of two `emergence_time`s."""
    model = tm.coopetition()
    start = tm.random_start(model, range(runs))
    together, alone = (of_icl(emergence(model, start, time, 1, 10, interventions=acts)) for acts in ((), BLOCKED))
    quadratures = speed_up(model, start)
    integrated = [emergence_time(model, start, horizon=time, without=part) for part in ("ciwl", None)]
    index = integrated[0] / integrated[1]
    found = {"ratio of emergence_time": index_error(index, together, alone, index.notnull())}
    for numbers in found.values():
        numbers["in range"] = int((quadratures.damping < 0.1).sum())
    return found


def index_error(predicted: xr.DataArray, together: xr.DataArray, alone: xr.DataArray, inside: Any) -> dict[str, float]:
    """Relative errors of the index over the runs that emerge with and without CIWL."""
    use = inside & together.notnull() & alone.notnull()
    measured = (alone / together).values[use]
    error = np.abs(predicted.values[use] / measured - 1)
    quantile = np.percentile(error, [50, 95])
    return {
        "of": use.size,
        "in range": int(inside.sum()),
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
    horizon: float = 20_000

    def start(self, seeds: range) -> xr.Dataset:
        scale = {x: self.scale.get(x, self.scale["a"]) for x in self.model.vectors}
        targets = {x: self.target_of_d if x in "df" else 1.0 for x in self.model.vectors}
        start = tm.random_start(self.model, seeds, scale=scale, target_scale=targets)
        moved = start["overlap"] + self.shift_of_a * (start["vector"] == "a")
        return start.assign(overlap=moved)


def with_claim(candidate: Candidate, seeds: range) -> dict[str, float]:
    """Shares of the starts: emerges, first, transient, needs CIWL, all of it; median time, speed-up (lower bound)."""
    start, time, blocked_time = candidate.start(seeds), candidate.horizon, 10 * candidate.horizon
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
        "horizon": time,
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
    spread = {"a": 1e-4, "d": 1.0}
    return [
        Candidate("published", paper, {"a": 1.0}),
        Candidate("published, all small", paper, small),
        Candidate("published, d large", paper, large_d),
        Candidate("published, d large, others 1e-4, d* x 3", paper, spread, 3.0, 0.5),
        Candidate("the same, twice the time", paper, spread, 3.0, 0.5, horizon=40_000),
        Candidate("the same, alpha 0.05", tm.coopetition(alpha=0.05), spread, 3.0, 0.5),
        Candidate("the same, alpha 0.03, d* x 4", tm.coopetition(alpha=0.03), spread, 4.0, 0.3),
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


def errors_of_the_index() -> dict[str, dict[str, float]]:
    """The first table: where the index was measured, and how well it was predicted."""
    model = tm.long_pathway()
    start = tm.random_start(model, range(1_000), **tm.LONG_PATHWAY_START)
    together = of_icl(emergence(model, start, 20_000, 0.25, 5))
    alone = of_icl(emergence(model, start, 200_000, 0.25, 100, interventions=BLOCKED))
    index = speed_up(model, start)["index"]
    return {
        "published, starts of 0.02..0.2, damping < 0.1": speed_up_error(2_000, seed=3),
        "long_pathway, all starts": index_error(index, together, alone, np.isfinite(index)),
        **{f"published, standard starts, {name}": found for name, found in of_standard_starts(400).items()},
    }


def table(rows: dict[str, dict[str, float]], dim: str) -> xr.Dataset:
    """One number for each row and column, along `dim`."""
    return xr.concat([xr.Dataset(row) for row in rows.values()], xr.DataArray(list(rows), dims=dim, name=dim))


def main() -> None:
    print("speed-up by CIWL (blocked: until 60,000, long_pathway 200,000):")
    errors = errors_of_the_index()
    for name, row in errors.items():
        print(f"    {name:55s}", "  ".join(f"{k} {v:.4g}" for k, v in row.items()), flush=True)
    print("changes of the model, share of 300 random starts (1,000 in the last row), blocked: 10 times the horizon:")
    every, shares = candidates(), {}
    for candidate in every:
        row = with_claim(candidate, range(1_000 if candidate is every[-1] else 300))
        shares[candidate.name] = row
        print(f"    {candidate.name:40s}", "  ".join(f"{k} {v:.4g}" for k, v in row.items()), flush=True)
    DATA.parent.mkdir(exist_ok=True)
    write_netcdf(xr.merge([table(errors, "measured"), table(shares, "change")]), DATA)


if __name__ == "__main__":
    main()
