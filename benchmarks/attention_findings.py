"""The findings of the paper in the model derived from attention: its columns beside those of theory_findings.py.

    python benchmarks/attention_findings.py [COLUMN...]     prints the rows, writes figures/data/attention_findings.nc

The rows are those of theory_findings.py. Nothing is fitted; the theory is deterministic but for the draws of its start
and of sampling noise, of which there are three. ICL is learned where the evaluator icl passes 3/4 (at t_E on full
data), CIWL where its own does; emergence, peak and end are those of flip (`landmarks`). Times are in units of t_E.

    derived           the disentangled network of the figures
    derived_barrier   with a higher barrier in layer 1 and slow codes, as networks/disentangled_barrier
    derived_best      the setting that meets most of the findings in attention_scan.py; here on other draws

    blocked      all codes held at zero; `frozen`: held at their random start
    ICL alone    labels drawn anew in each sequence
    half given   the same with W and g held at those of the end of full data
    grafted      the same with W and g held at those of a CIWL-only run at so many times its own emergence
    switched     full data from the whole state of the CIWL-only run at so many times its emergence
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import xarray as xr
from attention_scan import best, bump, learned, rounded, training

from toymodel.files import write_netcdf
from toymodel.theory.attention_flow import (
    CODES,
    SECOND_HALF,
    Training,
    grafted,
    landmarks,
    predict,
    start,
    states,
    without_codes,
)

DATA = Path(__file__).parent.parent / "figures" / "data" / "attention_findings.nc"
SEEDS = range(100, 103)  # of the start; the scan has seed 0
STATES = (0.25, 0.5, 1.0, 2.0, 4.0, 20.0)  # of a CIWL-only run, in units of its emergence
LATER = 10  # times t_E: what comes later counts as never


@dataclass(frozen=True)
class Case:
    """A training of the theory on full data, and how long it is followed."""

    name: str
    training: Training
    horizon: int
    every: int


CASES = (
    Case("derived", Training(), 12_000, 50),
    Case("derived_barrier", Training(barrier=4.0, factor=0.04), 24_000, 100),
    Case("derived_best", training(best()), 80_000, 200),
)


def of_seed(case: Case, seed: int) -> tuple[dict[str, float | bool], dict[str, list[float]]]:
    """The rows for one draw, and what comes of each of STATES."""
    full, every, horizon = case.training, case.every, case.horizon
    begin = start(full, seed)
    curves, ends = states(full, horizon, every, begin, seed=seed)
    marks, when = landmarks(curves.step.values, curves.flip.values), learned(curves)
    life = marks["end"] - marks["emergence"]
    if not np.isfinite(when):
        return {"emerges": False}, {}
    longest = rounded(LATER * when, every)

    matched = predict(replace(full, matched=True), horizon, every, begin, seed=seed)
    blocked = predict(replace(full, held=CODES), longest, every, without_codes(begin), seed=seed)
    frozen = predict(replace(full, held=CODES), longest, every, begin, seed=seed)
    alone = replace(full, kind="icl")
    icl_only = predict(alone, longest, every, begin, seed=seed)
    held = replace(alone, held=SECOND_HALF)
    fine = max(every // 5, 1)
    given = predict(held, rounded(when, fine), fine, grafted(begin, ends[horizon]), seed=seed)

    ciwl = replace(full, kind="ciwl")
    taken = learned(predict(ciwl, horizon, every, begin, seed=seed), "ciwl")
    at = [rounded(f * taken, fine) for f in STATES]
    _, kept = states(ciwl, max(at), fine, begin, tuple(at), seed=seed)
    grafts = [predict(held, longest, every, grafted(begin, kept[t]), seed=seed) for t in at]
    switched = [predict(full, horizon, every, kept[t], seed=seed) for t in at]
    found = [landmarks(run.step.values, run.flip.values) for run in switched]
    by_state = {
        "grafted": [learned(run) / when for run in grafts],
        "switched peak": [of["peak"] for of in found],
        "switched lifetime": [(of["end"] - of["emergence"]) / life for of in found],
    }
    window, peak, prolonged = (dict(zip(STATES, row, strict=True)) for row in by_state.values())
    needs = learned(blocked) >= LATER * when
    transient, first = bool(np.isfinite(marks["end"])), when < learned(curves, "ciwl")
    rows: dict[str, float | bool] = {
        "emerges": True,
        "ICL first, of all": first,
        "transient, of all": transient,
        "end over emergence, median": marks["end"] / marks["emergence"],
        "bump of the loss of CIWL, median, in its unlearned loss": bump(
            curves, 2 * when, float(np.log(full.classes.classes))
        ),
        "matched exemplars (mu_icl = 0): ICL stays, of those with ICL": bool(matched.flip[-1] > 0.5),
        "blocked: 10 times later or never, of all": needs,
        "first, transient and 10 times later when blocked, of all": first and transient and needs,
        "ICL alone over full, median, at least": min(learned(icl_only), longest) / when,
        "half given over full, median": learned(given) / when,
        **{f"grafted at {f:g}: ICL within 10 t_E": window[f] < LATER for f in (0.5, 2, 20)},
        "switched at 0.5: lifetime over that of full, median": prolonged[0.5],
        "switched at 4: ICL emerges": peak[4] > 0.55,
        "blocked over full": learned(blocked) / when,
        "codes frozen at random over full": learned(frozen) / when,
        "CIWL alone over full": taken / when,
        "highest flip": marks["peak"],
    }
    return rows, by_state


def middle(values: list[float | bool]) -> float:
    """The share of what is true or false, the median of what is a number (NaN where no draw has one)."""
    known = np.array([value for value in values if not np.isnan(value)], float)
    if not known.size:
        return np.nan
    return float(known.mean() if isinstance(values[0], bool | np.bool_) else np.median(known))


def findings(case: Case) -> tuple[dict[str, float], dict[str, list[float]]]:
    """The rows over all draws, and medians by state."""
    found = [of_seed(case, seed) for seed in SEEDS]
    emerged = [each for each in found if each[1]]
    if not emerged:
        return {"emerges": 0.0}, {}
    rows = {name: middle([row[name] for row, _ in emerged]) for name in emerged[0][0]}
    states = {name: [middle([by[name][i] for _, by in emerged]) for i in range(len(STATES))] for name in emerged[0][1]}
    return rows | {"emerges": len(emerged) / len(found)}, states


def dataset(found: dict[str, tuple[dict[str, float], dict[str, list[float]]]]) -> xr.Dataset:
    """The rows by model and finding, and by model, measure and state."""
    names, measures = (list(part) for part in next(iter(found.values())))
    value = [[rows.get(name, np.nan) for name in names] for rows, _ in found.values()]
    by = [[by_state[name] for name in measures] for _, by_state in found.values()]
    data = {"value": (("model", "finding"), value), "by_state": (("model", "measure", "state"), by)}
    coords = {"model": list(found), "finding": names, "measure": measures, "state": list(STATES)}
    return xr.Dataset(data, coords, {"draws": len(SEEDS), "later": LATER})


def main(*wanted: str) -> None:
    """Compute the cases that are named (all, if none is) and keep the others."""
    parts = {}
    if wanted and DATA.exists():
        kept = xr.load_dataset(DATA, engine="h5netcdf")
        parts = {name: kept.sel(model=[name]) for name in kept.model.values.tolist()}
    for case in CASES:
        if wanted and case.name not in wanted:
            continue
        rows, by_state = findings(case)
        parts[case.name] = dataset({case.name: (rows, by_state)})
        for name, value in rows.items():
            print(f"{case.name:16s} {name:65s} {value:.3g}", flush=True)
        for name, values in by_state.items():
            print(
                f"{case.name:16s} {name:20s}", dict(zip(STATES, np.round(values, 2).tolist(), strict=True)), flush=True
            )
        order = [parts[each.name] for each in CASES if each.name in parts]
        write_netcdf(xr.concat(order, "model", combine_attrs="override"), DATA)


if __name__ == "__main__":
    main(*sys.argv[1:])
