"""Fits known models: how far the estimates of the four groups are from the truth, and how often an interval holds it.

    .venv/bin/python benchmarks/fit_recovery.py [SETS]     (200 sets: three minutes of the processor)

Each set draws the groups of the paper's loss and a unit of time, each uniformly in the logarithm of a range, follows
the run to twice the end of ICL, and adds noise with a standard deviation of 1 % of the unlearned loss to 150 values of
either loss. The four values are then fitted from eight starts, within a factor of four of the middle of the range.

m_ciwl is 0, as in the paper: such curves hardly determine it (varied within 0.02..0.1, its median error is 12 %).
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace

import numpy as np
import xarray as xr

import toymodel as tm

RANGES = {"r": (2.0, 4.0), "m_icl": (0.1, 0.5), "kappa": (0.05, 0.2), "time": (0.5, 2.0)}
NOISE, POINTS, STARTS, WITHIN = 0.01, 150, 8, 4.0
LEVEL = 0.9
MODEL = tm.coopetition()
UNLEARNED = 0.5  # of ICL: a mean over entries whose targets have a mean square of 1


def values(groups: dict[str, float]) -> dict[str, float]:
    """Free values of the model with these groups, with target norms of a, b, c as they are."""
    norm = groups["r"] * MODEL.target_norms["a"]
    mu = groups["m_icl"] * UNLEARNED
    return {"alpha": groups["kappa"], "mu_icl": mu, "target_norm.d": norm, "time": groups["time"]}


def start(norm: float) -> xr.Dataset:
    model = replace(MODEL, target_norms={**MODEL.target_norms, "d": norm})
    return tm.aligned_start(model, overlap=0.5, residual=1.0)


def curves(groups: dict[str, float], draw: np.random.Generator) -> xr.Dataset:
    """Noisy losses of a run to twice the end of ICL."""
    known = values(groups)
    model = MODEL.with_parameters(**{p: known[p] for p in ("alpha", "mu_icl")})
    begin = start(known["target_norm.d"])
    measures = tm.flow(model, begin, 1e5, observe=tm.Measures())
    end = float(measures["end"].sel(mechanism="icl").fillna(5e3))
    when = np.linspace(0, 2 * end, POINTS)
    runs = tm.flow(model, begin, when[-1], times=when)
    sizes = {m: NOISE * float(runs[f"unlearned_{m}"]) for m in MODEL.mechanisms}
    noisy = {m: ("time", runs[f"loss_{m}"].values + size * draw.normal(size=POINTS)) for m, size in sizes.items()}
    return xr.Dataset(noisy, {"time": when / groups["time"]})


def recovered(sets: int, seed: int = 0) -> xr.Dataset:
    """Relative error and coverage along `set` and `group`, and seconds of the processor."""
    draw = np.random.default_rng(seed)
    middle = values({g: float(np.sqrt(low * high)) for g, (low, high) in RANGES.items()})
    free = {name: (value / WITHIN, value * WITHIN) for name, value in middle.items()}
    rows = []
    for i in range(sets):
        truth = {g: float(np.exp(draw.uniform(*np.log(ends)))) for g, ends in RANGES.items()}
        table = curves(truth, draw)
        begin = time.process_time()
        found = tm.fit(
            MODEL, table, free=free, start=start(middle["target_norm.d"]), starts=STARTS, level=LEVEL, progress=False
        )
        seconds = time.process_time() - begin
        unit = float(tm.theory.groups(MODEL).time)
        groups = found.groups.sel(group=list(RANGES)) if found.groups is not None else xr.Dataset()
        wanted = xr.DataArray([*list(truth.values())[:-1], unit / truth["time"]], dims="group")
        inside = (groups.low <= wanted) & (wanted <= groups.high)
        error = abs(groups.value / wanted - 1)
        row = xr.Dataset({"error": error, "inside": inside, "seconds": seconds, "converged": found.converged})
        rows.append(row.assign(other=bool((error > 0.5).any())))
        if sys.stderr.isatty() or (i + 1) % 20 == 0:
            print(
                f"{i + 1} of {sets}: median error {100 * float(xr.concat(rows, 'set').error.median()):.2f} %",
                flush=True,
            )
    return xr.concat(rows, "set")


def main() -> None:
    found = recovered(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
    print(f"{'group':10}{'median error':>14}{'90 % of errors':>16}{'in the interval':>17}")
    for g in found.group.values:
        one = found.sel(group=g)
        median, high = (100 * float(one.error.quantile(q)) for q in (0.5, 0.9))
        print(f"{g:10}{median:12.2f} %{high:14.2f} %{100 * float(one.inside.mean()):15.1f} %")
    print(
        f"all: median error {100 * float(found.error.median()):.2f} %, {100 * float(found.inside.mean()):.1f} % inside"
    )
    print(
        f"converged {int(found.converged.sum())} of {found.sizes['set']}; far off (over 50 %): {int(found.other.sum())}"
    )
    first, others = float(found.seconds[0]), float(found.seconds[1:].median())
    print(f"seconds of the processor: first {first:.1f} (compiles), median of the others {others:.2f}")


if __name__ == "__main__":
    main()
