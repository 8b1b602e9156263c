"""What the paper's networks do, and what three models do: one row a finding, one column a model, every cell a number.

Models, at alpha = mu_icl = 0.1 and the paper's dimensions, random starts: the published one from standard normal
starts; `long_pathway` from LONG_PATHWAY_START (d starts 50 times larger, target of d 4 times longer); `shared_encoder`
from one scale for all vectors, 0.25. The networks' numbers are those of the paper's notebooks and figures.

Experiments, in units of each run's own emergence of ICL, t_E, where there is one:
    blocked      d held at zero; at least 10 times later, or not before 200,000
    ICL alone    the gradient of CIWL reaches no vector, d stays where it starts (data that only ICL can solve)
    half given   the same with b and c held at the end of the full run
    grafted      the same with b and c held at those of a CIWL-only run (a at zero) at 0.5, 2 and 20 times its emergence
    switched     everything trained from a CIWL-only run (a from its start) at 0.5 and 4 times its emergence
Writes figures/data/theory_findings.nc, which derivations/cooperation.md shows. Then the claim of `shared_encoder` over
three sets of 1,000 starts. Run: python benchmarks/theory_findings.py
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import toymodel as tm
from toymodel.files import write_netcdf

DATA = Path(__file__).parent.parent / "figures" / "data" / "theory_findings.nc"
BLOCKED = (tm.Clamp("d", overlap=0, residual=0),)
SCALE = 0.25  # of the starts of shared_encoder
PART = 100  # starts that are run together where every second step is recorded
FINER = 5  # how much smaller steps are where b and c are held, as large as they are in the end


@dataclass(frozen=True)
class Case:
    """A model with its starts, a step size, and the time that its runs are given."""

    name: str
    model: tm.Model
    start: dict[str, Any]
    lr: float
    horizon: float

    def starts(self, seeds: range) -> xr.Dataset:
        return tm.random_start(self.model, seeds, **self.start)

    def run(
        self, start: xr.Dataset, horizon: float, *acts: Any, records: int = 4_000, finer: int = 1, **others: Any
    ) -> xr.Dataset:
        lr = self.lr / finer
        steps = round(horizon / lr)
        given = {"lr": lr, "every": max(steps // records, 1), "interventions": acts, "progress": False}
        return tm.descend(self.model, start, steps, **given, **others)


CASES = (
    Case("published", tm.coopetition(), {}, 1.0, 20_000),
    Case("long_pathway", tm.long_pathway(), dict(tm.LONG_PATHWAY_START), 0.25, 10_000),
    Case("shared_encoder", tm.shared_encoder(), {"scale": SCALE}, 0.5, 60_000),
)
NETWORKS = {
    "emerges": 1.0,
    "ICL first, of all": 1.0,
    "transient, of all": 1.0,
    "end over emergence, median": 2.3,
    "bump of the loss of CIWL, median, in its unlearned loss": (4.79 - 4.74) / np.log(12_800),  # nats; 1.1 % of 4.74
    "matched exemplars (mu_icl = 0): ICL stays, of those with ICL": 1.0,
    "blocked: 10 times later or never, of all": np.nan,
    "first, transient and 10 times later when blocked, of all": np.nan,
    "ICL alone over full, median, at least": 20.0,
    "half given over full, median": 0.8,
    "grafted at 0.5: ICL within 10 t_E": 0.0,
    "grafted at 2: ICL within 10 t_E": 1.0,
    "grafted at 20: ICL within 10 t_E": 0.0,
    "switched at 0.5: lifetime over that of full, median": 3.2,
    "switched at 4: ICL emerges": 0.0,
}


def of(measures: xr.Dataset, name: str, mechanism: str = "icl") -> np.ndarray:
    return measures[name].sel(mechanism=mechanism, drop=True).values


def claim(case: Case, start: xr.Dataset, blocked: float = 200_000) -> dict[str, np.ndarray]:
    """For every start: emerges, first, transient, needs CIWL, all of it, and the two times of ICL.

    Both mechanisms can emerge within a few steps of each other, so that the runs are recorded finely, in parts.
    """
    parts = [_claim(case, start.isel(seed=slice(i, i + PART)), blocked) for i in range(0, start.sizes["seed"], PART)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _claim(case: Case, start: xr.Dataset, blocked: float) -> dict[str, np.ndarray]:
    measures = tm.measure(case.run(start, case.horizon, records=30_000))
    alone = of(tm.measure(case.run(start, blocked, *BLOCKED, records=2_000)), "emergence")
    icl, ciwl = of(measures, "emergence"), of(measures, "emergence", "ciwl")
    emerges = np.isfinite(icl)
    first = emerges & ~(ciwl <= icl)
    transient = np.isfinite(of(measures, "end"))
    needs = emerges & ~(alone < 10 * icl)
    return {
        "emerges": emerges,
        "first": first,
        "transient": transient,
        "needs": needs,
        "all": first & transient & needs,
    }


def state(runs: xr.Dataset, times: np.ndarray) -> xr.Dataset:
    """The state of every run at the recorded time that is nearest to its own time, as a start."""
    near = runs["time"].values[np.abs(runs["time"].values[:, None] - times).argmin(0)]
    found = tm.state_at(runs, xr.DataArray(near, dims="seed", coords={"seed": runs["seed"]}))
    return found.drop_vars([name for name in ("time", "step", "entries") if name in found.variables])


def findings(case: Case, seeds: range) -> dict[str, float]:
    """The rows of the table for one model."""
    start = case.starts(seeds)
    full = case.run(start, case.horizon)
    measures, said = tm.measure(full), claim(case, start)
    icl, end = of(measures, "emergence"), of(measures, "end")
    with_icl = np.isfinite(icl)
    matched = tm.measure(case.run(start, case.horizon, mu_icl=0.0))
    there = np.isfinite(of(matched, "emergence"))
    alone = tm.Block("ciwl", "".join(set(case.model.mechanisms["ciwl"])))

    def ratio(measures: xr.Dataset, horizon: float) -> float:
        late = np.where(np.isfinite(of(measures, "emergence")), of(measures, "emergence"), horizon)
        return float(np.median((late / icl)[with_icl]))

    def within_ten(like: xr.Dataset) -> float:
        """The share of runs whose ICL comes within 10 t_E, with b and c held."""
        held = case.run(start, case.horizon, alone, tm.Clamp("bc", like=like), finer=FINER)
        times = of(tm.measure(held), "emergence")
        return float((times < 10 * icl)[with_icl].mean())

    only = [x for x in case.model.mechanisms["icl"] if x not in case.model.mechanisms["ciwl"]]
    held = [tm.Clamp(x, overlap=0, residual=0) for x in dict.fromkeys(only)]
    ciwl_only = case.run(start, 4 * case.horizon, *held, records=16_000)
    taken = of(tm.measure(ciwl_only), "emergence", "ciwl")
    usual = np.where(np.isfinite(taken), taken, np.nanmedian(taken))
    grafts = {f: state(ciwl_only, np.minimum(f * usual, 4 * case.horizon)) for f in (0.5, 2, 4, 20)}

    def switched(f: float) -> xr.Dataset:
        here = grafts[f]
        again = start["vector"].isin(only)
        begun = start.assign(
            {
                name: start[name].where(again, here[name]).transpose(*start[name].dims)
                for name in ("overlap", "residual")
            }
        )
        return tm.measure(case.run(begun, case.horizon))

    lifetime = of(switched(0.5), "end") - of(switched(0.5), "emergence")
    late = of(switched(4), "emergence")
    half = tm.Clamp("bc", like=state(full, np.full(len(seeds), case.horizon)))
    longest = 200_000.0
    return {
        "emerges": float(with_icl.mean()),
        "ICL first, of all": float(said["first"].mean()),
        "transient, of all": float(said["transient"].mean()),
        "end over emergence, median": float(np.nanmedian(end / icl)),
        "bump of the loss of CIWL, median, in its unlearned loss": float(np.nanmedian(bump(full, icl))),
        "matched exemplars (mu_icl = 0): ICL stays, of those with ICL": float(
            (~np.isfinite(of(matched, "end")))[there].mean()
        ),
        "blocked: 10 times later or never, of all": float(said["needs"].mean()),
        "first, transient and 10 times later when blocked, of all": float(said["all"].mean()),
        "ICL alone over full, median, at least": ratio(
            tm.measure(case.run(start, longest, alone, records=2_000)), longest
        ),
        "half given over full, median": ratio(
            tm.measure(case.run(start, case.horizon, alone, half, finer=FINER)), case.horizon
        ),
        **{f"grafted at {f:g}: ICL within 10 t_E": within_ten(grafts[f]) for f in (0.5, 2, 20)},
        "switched at 0.5: lifetime over that of full, median": float(np.nanmedian(lifetime / (end - icl))),
        "switched at 4: ICL emerges": float(np.isfinite(late).mean()),
    }


def bump(runs: xr.Dataset, icl: np.ndarray) -> np.ndarray:
    """The largest rise of the loss of CIWL above its lowest value so far, until twice the emergence of ICL."""
    loss = (runs["loss_ciwl"] / runs["unlearned_ciwl"]).transpose("time", ...).values
    within = runs["time"].values[:, None] <= 2 * np.nan_to_num(icl)
    settled = runs["time"].values[:, None] >= 0.25 * np.nan_to_num(icl)  # the collapse of the residuals is over
    loss = np.where(within & settled, loss, np.nan)
    lowest = np.fmin.accumulate(loss)
    with np.errstate(invalid="ignore"):
        return np.nanmax(np.vstack([loss - lowest, np.full_like(icl, -np.inf)[None]]), 0)


def main(runs: int = 60, claims: int = 1_000) -> None:
    columns = {"networks": NETWORKS} | {case.name: findings(case, range(runs)) for case in CASES}
    for row in NETWORKS:
        cells = [f"{name} {column[row]:.3g}" for name, column in columns.items()]
        print(f"{row:65s}", "  ".join(cells), flush=True)
    table = xr.DataArray(
        [[column[row] for row in NETWORKS] for column in columns.values()],
        dims=("model", "finding"),
        coords={"model": list(columns), "finding": list(NETWORKS)},
        name="finding_value",
    )
    shares = []
    for seeds in (range(10_000, 10_000 + claims), range(20_000, 20_000 + claims), range(30_000, 30_000 + claims)):
        said = claim(CASES[2], CASES[2].starts(seeds))
        shares.append([float(said[name].mean()) for name in ("first", "transient", "needs", "all")])
        print(f"shared_encoder, {claims} starts from seed {seeds[0]}: first, transient, needs CIWL, all", shares[-1])
    of_sets = xr.DataArray(
        shares, dims=("set", "share"), coords={"share": ["first", "transient", "needs", "all"]}, name="claim"
    )
    DATA.parent.mkdir(exist_ok=True)
    write_netcdf(xr.Dataset({"value": table, "claim": of_sets}, attrs={"starts": runs, "claims": claims}), DATA)


if __name__ == "__main__":
    main()
