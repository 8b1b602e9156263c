"""Is what the theory returns for random inputs of any size either NaN or right? Errors of each function by simulation.

Inputs: every vector of 2..200 entries, target entries normal with a standard deviation of 0.5..2, entries of the start
of 0.003..3 for all times 0.3..3 for each vector, alpha and mu_icl within 1e-4..1, mu_ciwl zero for half and within
1e-4..1 for the rest; all log-uniform. What asks for more (no residuals, mu_ciwl = 0, one long shared vector) gets that
and otherwise the same inputs. A finite value is off if it is wrong by more than 50 %, and in vain if what it predicts
does not come within twice the time. Simulated by gradient flow, recorded at 1.2 % steps of time until 1e6 (1e7 for
lifetimes), or by descent with noise.

    python benchmarks/theory_ranges.py [inputs] [seed] [names ...]        (share of the inputs that each gets: CASES)
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr
from scipy.special import elliprf

import toymodel as tm

MODEL = tm.coopetition()
HORIZON, BLOCK, SEED = 1e6, 500, 40
Score = dict[str, tuple[np.ndarray, np.ndarray]]  # name -> what is said, and what is measured (NaN: never)


class Inputs:
    """Random starts, weights and parameters along `run`."""

    def __init__(self, runs: int, seed: int):
        self.draw, self.runs = np.random.default_rng(seed), runs
        draw = self.draw
        self.sizes = {x: np.round(self.spread(2, 200).values) for x in "abcd"}
        scale = self.spread(3e-3, 3)
        own = {x: scale * self.spread(0.3, 3) for x in "abcd"}
        self.start = tm.aligned_start(
            MODEL,
            overlap={x: own[x] * draw.standard_normal(runs) for x in "abcd"},
            residual={x: own[x] * np.sqrt(draw.chisquare(self.sizes[x] - 1)) for x in "abcd"},
            target_norm={x: self.spread(0.5, 2) * np.sqrt(draw.chisquare(self.sizes[x])) for x in "abcd"},
        )
        self.weights = {
            t: self.along(1 / np.prod([self.sizes[x] for x in letters], 0)) for t, letters in MODEL.terms.items()
        }
        self.parameters = {p: self.spread(1e-4, 1) for p in ("alpha", "mu_icl", "mu_ciwl")}
        self.parameters["mu_ciwl"] = self.parameters["mu_ciwl"] * (draw.random(runs) < 0.5)

    def along(self, values: Any) -> xr.DataArray:
        return xr.DataArray(values, dims="run", coords={"run": np.arange(self.runs)})

    def spread(self, low: float, high: float) -> xr.DataArray:
        return self.along(np.exp(self.draw.uniform(np.log(low), np.log(high), self.runs)))

    def norm(self, x: str) -> xr.DataArray:
        return self.start.target_norm.sel(vector=x, drop=True)

    def given(self) -> dict[str, Any]:
        return {"weights": self.weights, **self.parameters}


def emergence_measured(inputs: Inputs, start: xr.Dataset, *acts: Any, horizon: float = HORIZON) -> xr.Dataset:
    """Emergence and end of ICL, and the bump of CIWL, under gradient flow."""
    times = np.concatenate([[0], np.geomspace(1e-2, horizon, 1_550)])
    run = tm.flow(MODEL, start, horizon, times=times, interventions=acts, progress=False, **inputs.given())
    found = tm.measure(run)
    unlearned = run.unlearned_ciwl
    return xr.Dataset(
        {
            "emergence": tm.first_below(run.loss_icl / run.unlearned_icl, 0.5),
            "end": found.end.sel(mechanism="icl", drop=True),
            "lasts": found.lasts.sel(mechanism="icl", drop=True),
            "bump": found.bump.sel(mechanism="ciwl", drop=True) / unlearned,
            "first": found.emergence.fillna(np.inf).argmin("mechanism") == 0,
        }
    )


def again(inputs: Inputs, measured: np.ndarray, *said: np.ndarray) -> np.ndarray:
    """The times once more, on 6,000 records around a prediction that seems early: ICL may come and go at once."""
    measured = measured.copy()
    with np.errstate(invalid="ignore"):
        early = np.any([np.isnan(measured) | (s < measured / 1.4) for s in said], 0)
    for i in np.flatnonzero(early):
        for guess in (s[i] for s in said if s[i] < HORIZON / 2):
            when = np.concatenate([[0], guess * np.linspace(0.7, 1.5, 6_000)])
            own = {p: float(v[i]) for p, v in inputs.parameters.items()}
            weights = {t: float(w[i]) for t, w in inputs.weights.items()}
            run = tm.flow(MODEL, inputs.start.isel(run=i), when[-1], times=when, weights=weights, progress=False, **own)
            measured[i] = np.fmin(measured[i], float(tm.first_below(run.loss_icl / run.unlearned_icl, 0.5)))
    return measured


def times(inputs: Inputs) -> Score:
    """Emergence by all three predictions, and the height of the bump."""
    theory, given = tm.theory, inputs.given()
    found = emergence_measured(inputs, inputs.start)
    blocked = emergence_measured(inputs, inputs.start, tm.Clamp("d", overlap=0, residual=0)).emergence
    said = {
        "emergence_time": theory.emergence_time(MODEL, inputs.start, horizon=HORIZON, **given),
        "small_start_time": theory.small_start_time(MODEL, inputs.start, **given).emergence,
        "escape": theory.escape(MODEL, inputs.start, **given).emergence,
    }
    measured = again(inputs, found.emergence.values, said["emergence_time"].values, said["escape"].values)
    score = {name: (value.values, measured) for name, value in said.items()}
    index = theory.speed_up(MODEL, inputs.start, **given)
    score["speed_up"] = (
        index["index"].where(index.without_ciwl < HORIZON / 2).values,
        blocked.values / measured,
    )
    height = theory.bump(MODEL, inputs.start, **given).height
    height = height.where(height > 0.01)  # a relative error of nothing says nothing
    score["bump"] = (height.values, found.bump.where(found.emergence.notnull()).values)
    return score


def lifetime(inputs: Inputs) -> Score:
    """No residuals, b and c of one length, mu_ciwl = 0."""
    inputs.parameters["mu_ciwl"] = 0 * inputs.parameters["mu_ciwl"]
    u = {x: abs(inputs.start.overlap.sel(vector=x, drop=True)) for x in "abcd"}
    norms = {x: inputs.norm(x) for x in "abcd"} | {"c": inputs.norm("b")}
    start = tm.aligned_start(MODEL, overlap=u | {"c": u["b"]}, target_norm=norms)
    found = emergence_measured(inputs, start, horizon=1e7)
    said, raised = np.full(inputs.runs, np.nan), 0
    for i in range(inputs.runs):  # one by one: it raises for some
        own = {p: float(v[i]) for p, v in inputs.parameters.items()}
        weights = {t: float(w[i]) for t, w in inputs.weights.items()}
        try:
            said[i] = float(tm.theory.lifetime(MODEL, start.isel(run=i), weights=weights, **own).lifetime)
        except ValueError:
            raised += 1
    if raised:
        print(f"lifetime raised ValueError for {raised} of {inputs.runs}")
    said[said + found.emergence.fillna(0).values > 5e6] = np.nan
    return {"lifetime": (said, (found.end - found.emergence).values)}


def growth(inputs: Inputs) -> Score:
    """The net rate: b long, the others 1e-7 of it, no residuals; from the growth of c, d, a between e^6 and e^12."""
    b = inputs.norm("b") * inputs.spread(0.01, 0.5)
    rest = {x: 1e-7 * b * inputs.along(inputs.draw.uniform(0.3, 1, inputs.runs)) for x in "acd"}
    norms = {x: inputs.norm(x) for x in "abcd"}
    start = tm.aligned_start(MODEL, overlap={"b": b, **rest}, target_norm=norms)
    said = tm.theory.growth(MODEL, start, **inputs.given())
    when = np.concatenate([[0], np.geomspace(1e-6, 1e6, 4_000) * float((14 / said.together).median())])
    run = tm.flow(MODEL, start, when[-1], times=when, progress=False, **inputs.given())
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
    product = start.target_norm.prod("vector").values
    norms = tm.theory.end_norms(squares, product)
    measured = np.sqrt(run.overlap**2 + run.residual**2).transpose("run", "vector").values
    sharp = tm.theory.end_sharpness(norms, product, weight["icl"].values)
    largest = tm.theory.curvature(model, run, weights=weight).largest.values
    return {
        "end_norms": (norms[learned].ravel(), measured[learned].ravel()),
        "end_sharpness": (np.asarray(sharp)[learned], largest[learned]),
    }


def waves(inputs: Inputs) -> Score:
    """R_F by scipy; the divergence by that of equal signs and, for mixed ones, the sum of the two halves."""
    x, y, z = np.exp(inputs.draw.uniform(-20, 20, (3, inputs.runs)))
    return {"carlson": (tm.theory.carlson(x, y, z), elliprf(x, y, z))}


def decay(inputs: Inputs) -> Score:
    """Each threshold from both sides, from the strategy alone: said is 1, and measured 1 (else 10) where it stays alone
    on the one side at 1.5 times and not on the other: at once, or as a mixture of both."""
    inputs.parameters["mu_ciwl"] = 0 * inputs.parameters["mu_ciwl"]
    found: dict[str, list[float]] = {"icl": [], "ciwl": [], "learning": []}
    for i in range(inputs.runs):
        own = {p: float(v[i]) for p, v in inputs.parameters.items()}
        model = tm.coopetition(dims=tuple(int(inputs.sizes[x][i]) for x in "abcd"), **own)
        for name, rate in tm.theory.decay_thresholds(model).items():
            found[name].append(float(rate))
    norms = {x: inputs.along(np.sqrt(inputs.sizes[x])) for x in "abcd"}
    product = {m: np.prod([norms[x] for x in letters], 0) for m, letters in MODEL.mechanisms.items()}
    decaying = tm.theory.with_weight_decay(MODEL)
    score: Score = {}
    for name, lasting in (("icl", "above"), ("ciwl", "below"), ("learning", "below")):
        own, other, mechanism = ("d", "a", "ciwl") if name == "ciwl" else ("a", "d", "icl")
        side = inputs.along(np.cbrt(product[mechanism]))
        rest = 0.0 if name == "learning" else 0.01 * side
        start = tm.aligned_start(
            MODEL,
            overlap={own: side, "b": side, "c": side, other: inputs.along(0 * side.values) + rest},
            target_norm=norms,
        )
        rate = inputs.along(np.array(found[name]))
        fate = {}
        for where, factor in (("below", 1 / 1.5), ("above", 1.5)):
            at = (rate * factor).fillna(1.0)
            scale = 60 / at
            horizon = float(scale.max())
            when = np.unique(np.concatenate([[0], scale.values, [horizon]]))
            acts = [tm.Clamp("d", overlap=0, residual=0)] if name == "learning" else []
            run = tm.flow(
                decaying, start, horizon, times=when, decay=at, interventions=acts, progress=False, **inputs.given()
            )
            half = {m: (run[f"loss_{m}"] / run[f"unlearned_{m}"]).sel(time=scale) < 0.5 for m in ("icl", "ciwl")}
            alone = half[mechanism] & (~half["icl" if mechanism == "ciwl" else "ciwl"])
            fate[where] = alone.values
        right = fate[lasting] & ~fate["above" if lasting == "below" else "below"]
        score[f"decay_thresholds ({name})"] = (np.where(np.isnan(rate), np.nan, 1.0), np.where(right, 1.0, 10.0))
    return score


def floor(inputs: Inputs) -> Score:
    """The mean loss of one learned mechanism under noise that leaves it learned, 8 copies, steps of a tenth."""
    said, measured = np.full(inputs.runs, np.nan), np.full(inputs.runs, np.nan)
    for i in range(inputs.runs):
        sizes = tuple(int(inputs.sizes[x][i]) for x in "abc")
        model = tm.induction(sizes)
        lr = 0.1 * float(tm.theory.curvature(model, _learned(model)).largest_step)
        unlearned = model.weights["icl"] * np.prod(list(model.target_norms.values())) ** 2 / 2
        noise = float(np.sqrt(inputs.draw.uniform(1e-4, 1e-2) * unlearned * 4 / (sum(sizes) - 2) / lr))
        run = tm.descend(model, _learned(model).expand_dims(copy=range(8)), 3_000, lr=lr, noise=noise, every=50)
        said[i] = float(tm.theory.loss_floor(model, "icl", noise, lr, 1.0))
        measured[i] = float(run.loss_icl.isel(time=slice(20, None)).mean())
    return {"loss_floor": (said, measured)}


def _learned(model: tm.Model) -> xr.Dataset:
    side = float(np.cbrt(np.prod(list(model.target_norms.values()))))
    return tm.aligned_start(model, overlap=side)


CASES: dict[str, tuple[Callable[[Inputs], Score], float, str]] = {  # the share of the inputs that each gets
    "times": (times, 1.0, "emergence_time, small_start_time, escape, speed_up, bump"),
    "lifetime": (lifetime, 1.0, "lifetime"),
    "growth": (growth, 0.1, "growth"),
    "ends": (ends, 1.0, "end_norms, end_sharpness"),
    "waves": (waves, 1.0, "carlson"),
    "decay": (decay, 0.03, "decay_thresholds"),
    "floor": (floor, 0.01, "loss_floor"),
}


def scored(name: str, inputs: int, seed: int) -> Score:
    """All blocks of a case."""
    case, share, _ = CASES[name]
    total = max(round(share * inputs), 1)
    parts = [case(Inputs(min(BLOCK, total - first), seed * 100 + first // BLOCK)) for first in range(0, total, BLOCK)]
    return {key: tuple(np.concatenate([p[key][i] for p in parts]) for i in (0, 1)) for key in parts[0]}  # type: ignore


def row(said: np.ndarray, measured: np.ndarray) -> dict[str, float]:
    """What a function's finite values are worth."""
    finite = np.isfinite(said)
    both = finite & np.isfinite(measured)
    error = np.abs(said[both] / np.maximum(measured[both], 1e-300) - 1)
    return {
        "inputs": said.size,
        "finite": int(finite.sum()),
        "in vain": int((finite & ~np.isfinite(measured) & (said < HORIZON / 2)).sum()),
        "off by > 50 %": int((error > 0.5).sum()),
        "median": float(np.median(error)) if error.size else np.nan,
        "95 %": float(np.quantile(error, 0.95)) if error.size else np.nan,
        "worst": float(error.max()) if error.size else np.nan,
    }


def main(inputs: int = 10_000, seed: int = SEED, *names: str) -> None:
    for name in names or CASES:
        for function, (said, measured) in scored(name, inputs, seed).items():
            found = ", ".join(f"{key} {value:.3g}" for key, value in row(said, measured).items())
            print(f"{function}: {found}", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]), *sys.argv[3:])
