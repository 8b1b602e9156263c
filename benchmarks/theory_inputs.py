"""Random inputs of any size for the theory, and what its finite answers are worth: for the `theory_ranges*` benchmarks.

Inputs: every vector of 2..200 entries, target entries normal with a standard deviation of 0.5..2, entries of the start
of 0.003..3 for all times 0.3..3 for each vector, alpha and mu_icl within 1e-4..1, mu_ciwl zero for half and within
1e-4..1 for the rest; all log-uniform. A finite value is off if it is wrong by more than 50 %, and in vain if what it
predicts does not come within twice the time.

Public names of `tm.theory` without a case are exact, and in tests: balance_values (test_values_along_a_run), groups
(test_systems_with_equal_groups_are_equal_in_their_units), coefficients and rates (in test_theory_plateau, first test),
noise_drift (test_noise_drifts_balances), universal_quantiles (test_the_universal_law_by_quadrature_of_its_draws),
with_weight_decay (test_decay_is_added_to_any_model), and expressions, of which functions are made. region, and what
comes first by law, are yes or no for most of the starts: `coopetition_region`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

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

    def product(self, letters: str) -> np.ndarray:
        """S, the product of the target norms."""
        return np.prod([self.norm(x) for x in letters], 0)

    def given(self) -> dict[str, Any]:
        return {"weights": self.weights, **self.parameters}

    def one(self, i: int) -> dict[str, Any]:
        """Weights and parameters of one run."""
        weights = {t: float(w[i]) for t, w in self.weights.items()}
        return {"weights": weights, **{p: float(v[i]) for p, v in self.parameters.items()}}

    def without_mu_ciwl(self) -> Inputs:
        self.parameters["mu_ciwl"] = 0 * self.parameters["mu_ciwl"]
        return self

    def only(self, which: np.ndarray) -> Inputs:
        """Those runs alone, of which flow is asked: where something finite is said."""
        found, at = copy(self), np.flatnonzero(which)
        found.runs = len(at)
        found.sizes = {x: sizes[at] for x, sizes in self.sizes.items()}
        found.start = self.start.isel(run=at)
        found.weights = {t: w[at] for t, w in self.weights.items()}
        found.parameters = {p: v[at] for p, v in self.parameters.items()}
        return found

    def models(self) -> Iterator[tm.Model]:
        """The model of each run, for functions that take its numbers from there."""
        for i in range(self.runs):
            given = self.one(i)
            dims = {x: int(self.sizes[x][i]) for x in "abcd"}
            norms = {x: float(self.norm(x)[i]) for x in "abcd"}
            yield replace(MODEL, dims=dims, target_norms=norms, weights=given.pop("weights"), parameters=given)


Cases = Mapping[str, tuple[Callable[[Inputs], Score], float, str]]  # a case, its share of the inputs, its functions


def scored(cases: Cases, name: str, inputs: int, seed: int) -> Score:
    """All blocks of a case."""
    case, share, _ = cases[name]
    total = max(round(share * inputs), 1)
    parts = [case(Inputs(min(BLOCK, total - first), seed * 100 + first // BLOCK)) for first in range(0, total, BLOCK)]
    return {key: tuple(np.concatenate([p[key][i] for p in parts]) for i in (0, 1)) for key in parts[0]}  # type: ignore


def row(said: np.ndarray, measured: np.ndarray) -> dict[str, float]:
    """What a function's finite values are worth."""
    finite = np.isfinite(said)
    both = finite & np.isfinite(measured)
    error = np.abs(said[both] - measured[both]) / np.maximum(np.abs(measured[both]), 1e-300)
    return {
        "inputs": said.size,
        "finite": int(finite.sum()),
        "in vain": int((finite & ~np.isfinite(measured) & (said < HORIZON / 2)).sum()),
        "off by > 50 %": int((error > 0.5).sum()),
        "median": float(np.median(error)) if error.size else np.nan,
        "95 %": float(np.quantile(error, 0.95)) if error.size else np.nan,
        "worst": float(error.max()) if error.size else np.nan,
    }


def table(cases: Cases) -> None:
    """Prints a line for each function: of [inputs] [seed] [names ...] on the command line."""
    inputs, seed = (int(given) for given in (*sys.argv[1:3], *("10000", str(SEED))[len(sys.argv[1:3]) :]))
    for name in sys.argv[3:] or cases:
        for function, (said, measured) in scored(cases, name, inputs, seed).items():
            found = ", ".join(f"{key} {value:.3g}" for key, value in row(said, measured).items())
            print(f"{function}: {found}", flush=True)
