"""Is a time or a rate that the theory returns either NaN or right? By gradient flow from random inputs of any size.

Inputs and what counts as off or in vain: `theory_inputs`. What asks for more (no residuals, mu_ciwl = 0, one long
shared vector) gets that and otherwise the same inputs. Flow is recorded at 1.2 % steps of time until 1e6 (1e7 for
lifetimes). Equilibria and their neighbourhood are in `theory_ranges_states`, noise in `theory_ranges_noise`.

    python benchmarks/theory_ranges.py [inputs] [seed] [names ...]   (share of them that each gets: CASES)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from scipy.integrate import solve_ivp
from scipy.special import elliprf
from theory_inputs import HORIZON, MODEL, Cases, Inputs, Score, table

import toymodel as tm
from toymodel.theory.soonest import prefactors


def emergence_measured(
    inputs: Inputs, start: xr.Dataset, wanted: np.ndarray, *acts: Any, horizon: float = HORIZON
) -> xr.Dataset:
    """Emergence and end of ICL, and the bump of CIWL, under gradient flow: of the wanted runs, NaN for the others.

    ICL may come and go between two records, at once before CIWL is learned: there the emergence is looked for again.
    """
    times = np.concatenate([[0], np.geomspace(1e-2, horizon, 1_550)])
    wanted = wanted if wanted.any() else np.arange(len(wanted)) == 0  # a flow needs a run
    some, at = inputs.only(wanted), np.flatnonzero(wanted)
    run = tm.flow(MODEL, start.isel(run=at), horizon, times=times, interventions=acts, progress=False, **some.given())
    found = tm.measure(run)
    first = tm.first_below(run.loss_icl / run.unlearned_icl, 0.5)
    other = tm.first_below(run.loss_ciwl / run.unlearned_ciwl, 0.5)
    for i in np.flatnonzero(other.notnull() & ~(first < other)):
        when = np.concatenate([[0], float(other[i]) * np.linspace(0.97, 1, 4_000)])
        one = start.isel(run=at[i])
        fine = tm.flow(MODEL, one, when[-1], times=when, interventions=acts, progress=False, **inputs.one(int(at[i])))
        first[i] = np.fmin(first[i], tm.first_below(fine.loss_icl / fine.unlearned_icl, 0.5))
    said = {
        "emergence": first,
        "end": found.end.sel(mechanism="icl", drop=True),
        "bump": found.bump.sel(mechanism="ciwl", drop=True) / run.unlearned_ciwl,
    }
    return xr.Dataset(said).reindex(run=start.run)


def times(inputs: Inputs) -> Score:
    """Emergence by all three predictions, and the speed-up."""
    theory, given = tm.theory, inputs.given()
    index = theory.speed_up(MODEL, inputs.start, **given)
    said = {
        "emergence_time": theory.emergence_time(MODEL, inputs.start, horizon=HORIZON, **given).values,
        "small_start_time": theory.small_start_time(MODEL, inputs.start, **given).emergence.values,
        "escape": theory.escape(MODEL, inputs.start, **given).emergence.values,
    }
    ratio = index["index"].where(index.without_ciwl < HORIZON / 2).values
    wanted = np.any([np.isfinite(s) for s in said.values()], 0)
    measured = emergence_measured(inputs, inputs.start, wanted).emergence.values
    blocked = emergence_measured(inputs, inputs.start, np.isfinite(ratio), tm.Clamp("d", overlap=0, residual=0))
    score = {name: (value, measured) for name, value in said.items()}
    return {**score, "speed_up": (ratio, blocked.emergence.values / measured)}


def rise(inputs: Inputs) -> Score:
    """The height of the bump, where it is above a hundredth: a relative error of nothing says nothing.

    On 20,000 records from 0.9 to 1.5 times the emergence, and those of the whole flow: it may come and go at once.
    """
    residual = inputs.start.residual.sel(vector=list("abc")).max("vector") / np.cbrt(inputs.product("abc"))
    some = np.flatnonzero(residual < 0.2)  # beyond, there is none: each takes a tenth of a second
    height = tm.theory.bump(MODEL, inputs.start.isel(run=some), **inputs.only(residual.values < 0.2).given()).height
    said = np.full(inputs.runs, np.nan)
    said[some] = height.where(height > 0.01).values
    found = emergence_measured(inputs, inputs.start, np.isfinite(said))
    measured = found.bump.where(found.emergence.notnull()).values
    for i in np.flatnonzero(np.isfinite(said) & np.isfinite(measured)):
        when = np.concatenate([[0], float(found.emergence[i]) * np.linspace(0.9, 1.5, 20_000)])
        run = tm.flow(MODEL, inputs.start.isel(run=i), when[-1], times=when, progress=False, **inputs.one(int(i)))
        finer = tm.measure(run).bump.sel(mechanism="ciwl") / run.unlearned_ciwl
        measured[i] = max(measured[i], float(finer))
    return {"bump": (said, measured)}


def lifetime(inputs: Inputs) -> Score:
    """No residuals, b and c of one length, mu_ciwl = 0."""
    inputs.without_mu_ciwl()
    u = {x: abs(inputs.start.overlap.sel(vector=x, drop=True)) for x in "abcd"}
    norms = {x: inputs.norm(x) for x in "abcd"} | {"c": inputs.norm("b")}
    start = tm.aligned_start(MODEL, overlap=u | {"c": u["b"]}, target_norm=norms)
    said, raised = np.full(inputs.runs, np.nan), 0
    for i in range(inputs.runs):  # one by one: it raises for some
        try:
            said[i] = float(tm.theory.lifetime(MODEL, start.isel(run=i), **inputs.one(i)).lifetime)
        except ValueError:
            raised += 1
    if raised:
        print(f"lifetime raised ValueError for {raised} of {inputs.runs}")
    found = emergence_measured(inputs, start, np.isfinite(said), horizon=1e7)
    begin, end = found.emergence.values, found.end.values
    said[said + np.nan_to_num(begin) > 5e6] = np.nan
    for i in np.flatnonzero(np.isfinite(said) & (end - begin < 0.3 * begin)):  # short against the steps of the records
        when = np.concatenate([[0], np.linspace(0.97 * begin[i], 1.03 * end[i], 6_000)])
        run = tm.flow(MODEL, start.isel(run=i), when[-1], times=when, progress=False, **inputs.one(int(i)))
        finer = tm.measure(run).sel(mechanism="icl")
        begin[i], end[i] = float(finer.emergence), float(finer.end)
    return {"lifetime": (said, end - begin)}


def growth(inputs: Inputs) -> Score:
    """The net rate: b long, the others 1e-7 of it, no residuals; from the growth of c, d, a between e^6 and e^12."""
    b = inputs.norm("b") * inputs.spread(0.01, 0.5)
    rest = {x: 1e-7 * b * inputs.along(inputs.draw.uniform(0.3, 1, inputs.runs)) for x in "acd"}
    norms = {x: inputs.norm(x) for x in "abcd"}
    start = tm.aligned_start(MODEL, overlap={"b": b, **rest}, target_norm=norms)
    said = tm.theory.growth(MODEL, start, **inputs.given())
    when = np.concatenate([[0], np.geomspace(1e-6, 1e6, 4_000) * float((14 / said.together).median())])
    run = tm.flow(MODEL, start, when[-1], times=when, progress=False, max_steps=10_000_000, **inputs.given())
    shared = abs(run.overlap.sel(vector="c", drop=True))
    size = np.log(shared / shared.isel(time=0))
    low, high = (tm.first_true(size > level) for level in (6.0, 12.0))
    grown = size.sel(time=high.fillna(0)) - size.sel(time=low.fillna(0))
    rate = (grown / (high - low)).where(high.notnull())
    return {"growth (together)": (said.together.values, rate.values), "growth (net)": (said.net.values, rate.values)}


def ends(inputs: Inputs) -> Score:
    """Norms and sharpness of one mechanism alone at the end of its flow."""
    model = tm.induction()
    start = inputs.start.sel(vector=list("abc"))
    weight = {"icl": inputs.weights["icl"]}
    run = tm.flow(model, start, 1e9, times=[1e9], weights=weight, progress=False).isel(time=0)
    learned = (run.loss_icl < 1e-6 * run.unlearned_icl).values
    squares = (start.overlap**2 + start.residual**2).transpose("run", "vector").values
    product = inputs.product("abc")
    norms = tm.theory.end_norms(squares, product)
    measured = np.sqrt(run.overlap**2 + run.residual**2).transpose("run", "vector").values
    sharp = tm.theory.end_sharpness(norms, product, weight["icl"].values)
    largest = tm.theory.curvature(model, run, weights=weight).largest.values
    return {
        "end_norms": (norms[learned].ravel(), measured[learned].ravel()),
        "end_sharpness": (np.asarray(sharp)[learned], largest[learned]),
    }


def waves(inputs: Inputs) -> Score:
    """R_F by scipy, and the divergence of the three waves by integration until one of them is 1e4 times the largest."""
    x, y, z = np.exp(inputs.draw.uniform(-20, 20, (3, inputs.runs)))
    score: Score = {"carlson": (tm.theory.carlson(x, y, z), elliprf(x, y, z))}
    few = max(inputs.runs // 10, 1)
    begin, rate = np.exp(inputs.draw.uniform(-3, 3, (3, few))), inputs.spread(0.01, 100).values[:few]
    begin *= np.where(inputs.draw.random(begin.shape) < 0.5, -1, 1)
    measured = []
    for start, k in zip(begin.T, rate, strict=True):
        high = 1e4 * np.abs(start).max()

        def event(_t: float, y: np.ndarray, high: float = high) -> float:
            return np.abs(y).max() - high

        event.terminal = True  # type: ignore[attr-defined]
        end = solve_ivp(
            lambda _, y, k=k: k * np.array([y[1] * y[2], y[0] * y[2], y[0] * y[1]]),
            (0, 1e6 / k / np.abs(start).min()), start, "DOP853", rtol=1e-10, atol=1e-14, events=event,
        )  # fmt: skip
        measured.append(end.t[-1] + 1 / (k * high) if end.status == 1 else np.nan)
    score["divergence_time"] = (
        np.asarray(tm.theory.divergence_time(begin[0], begin[1], begin[2], rate)),
        np.array(measured),
    )
    return score


def typical(inputs: Inputs) -> Score:
    """The law of typical starts, from one: overlaps of 1e-4..0.3 lengths S^(1/3), and d of 1..300 times that, with
    the residual that its entries have; the ratio of the times of emergence with d held at zero and with d."""
    length = np.cbrt(inputs.product("abc"))
    scale, more = length * inputs.spread(1e-4, 0.3), inputs.spread(1, 300)
    overlap = dict.fromkeys("abc", scale) | {"d": scale * more}
    residual = {x: (x == "d") * scale * more * np.sqrt(inputs.sizes[x] - 1) for x in "abcd"}
    start = tm.aligned_start(MODEL, overlap=overlap, residual=residual, target_norm={x: inputs.norm(x) for x in "abcd"})
    found = [tm.theory.law(m, float(s), float(s * f)) for m, s, f in zip(inputs.models(), scale, more, strict=True)]
    said = np.array([float(one.speed_up) for one in found])
    together, alone = (
        emergence_measured(inputs, start, np.isfinite(said), *act).emergence.values
        for act in ((), (tm.Clamp("d", overlap=0, residual=0),))
    )
    return {"law (speed_up)": (np.where(np.isnan(alone), np.nan, said), alone / together)}


def soonest(inputs: Inputs) -> Score:
    """The alpha of the shortest lifetime, and the lifetime at the predicted one; starts of 0.003..0.1 lengths."""
    models, small = list(inputs.without_mu_ciwl().models()), inputs.spread(0.003, 0.1).values
    said = np.array([float(tm.theory.best_alpha(model)) for model in models])
    found = np.full((3, inputs.runs), np.nan)
    if (some := np.flatnonzero(np.isfinite(said))).size:
        found[:, some] = shortest([models[i] for i in some], small[some], said[some])
    return {"best_alpha": (said, found[0]), "best_alpha (lifetime)": (found[1], found[2])}


def shortest(models: Sequence[tm.Model], small: Any, alpha: Any) -> np.ndarray:
    """The alpha within a factor of 4 at which ICL ends soonest, its lifetime at the alpha given, and the least one.

    By flow from overlaps of `small` lengths S_icl^(1/3), at 25 alphas; the least is that of a parabola. Rows of the
    result are these, columns the models, each of which is integrated to the time 1 in a unit of its own.
    """
    share, at = np.linspace(-2, 2, 25), {"run": np.arange(len(models))}  # of the logarithm to the base 2

    def along(values: Any) -> xr.DataArray:
        return xr.DataArray(values, dims="run", coords=at)

    parts, units = [prefactors(model) for model in models], [tm.theory.groups(model) for model in models]
    drift, relaxation, decay = (np.array([one[name] for one in parts]) for name in ("drift", "relaxation", "decay"))
    mu = np.array([model.parameters["mu_icl"] for model in models])
    longest = 4 * alpha * drift / mu**2 + 1000 * relaxation / mu + 4 * decay / alpha
    unit = 200 * np.array([float(one.time) for one in units]) / small + 5 * longest
    start = tm.aligned_start(
        models[0],
        overlap=along(small * np.array([float(one.length) for one in units])),
        target_norm={x: along([model.target_norms[x] for model in models]) for x in "abcd"},
    )
    weights = {t: along([model.weights[t] for model in models]) for t in models[0].terms}
    weights["icl"], weights["cost"] = weights["icl"] * along(unit), weights["cost"] * along(unit)
    runs = tm.flow(
        models[0], start, 1.0, times=np.concatenate([[0], np.geomspace(1e-9, 1, 8000)]), observe=tm.Measures(),
        weights=weights, mu_icl=along(mu * unit), progress=False, max_steps=10_000_000,
        alpha=along(alpha) * xr.DataArray(2.0**share, dims="alpha", coords={"alpha": share}),
    )  # fmt: skip
    icl = runs.sel(mechanism="icl").transpose("run", "alpha")
    lasted = np.where(icl.end.notnull(), icl.lifetime, np.nan) * unit[:, None]
    found = np.full((3, len(models)), np.nan)
    for i, row in enumerate(lasted):
        if np.isnan(row).sum() > len(row) // 4:
            continue
        least = int(np.nanargmin(row))
        near = np.isfinite(row) & (abs(share - share[least]) < 0.7)
        bent, slope, _ = np.polyfit(share[near], row[near], 2)
        there = -slope / (2 * bent) if bent > 0 and 0 < least < len(share) - 1 else share[least]
        found[:, i] = alpha[i] * 2.0 ** np.clip(there, -2, 2), row[len(share) // 2], row[least]
    return found


CASES: Cases = {
    "times": (times, 1.0, "emergence_time, emergence, small_start_time, escape, speed_up"),
    "rise": (rise, 1.0, "bump"),
    "lifetime": (lifetime, 1.0, "lifetime"),
    "soonest": (soonest, 0.1, "best_alpha"),
    "growth": (growth, 0.1, "growth"),
    "ends": (ends, 1.0, "end_norms, end_sharpness"),
    "waves": (waves, 1.0, "carlson, divergence_time"),
    "typical": (typical, 0.3, "law"),
}

if __name__ == "__main__":
    table(CASES)
