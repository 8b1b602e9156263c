"""Do the order parameters close in the transformer? Rates of change from the coordinates alone, on held-out runs.

    python benchmarks/transformer_closure.py     reads networks/, prints all numbers, writes
                                                 figures/data/transformer_closure.nc (a minute)

Four coordinates are read off each network along its training: attention to the previous token (of the best head),
match, copy and lookup; in the disentangled network match is |W| and copy is g. If they close, their change is a
function of them, the same for all runs on the same data. This function is learned by kernel ridge regression from other
runs (width and ridge by leaving out some of them), then followed from the coordinates that a held-out run has at one
time; a second regression reads flip off the coordinates.

    seeds      a seed of full data, from four others; from about 0.8, 1.2 and 1.6 of the median emergence
    switched   full data from a CIWL-only state, from all other runs on full data: another way through the same space
    other      matched and ICL-only data by the map of full data, which need not hold there

Against two predictions that know nothing of coordinates: the mean of the other seeds at the same step (`mean`), and the
same with time in units of each run's emergence, which is told to it (`stretched`). Curves are running means, so that
the first three points after the start are not scored.

Last, what Adam does to a weight whose gradient comes once in so many steps, as that of a class's label does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr

from toymodel.files import write_netcdf
from toymodel.network.curves import curves, landmarks
from toymodel.network.experiments import TRANSFORMER

DATA = Path(__file__).parent.parent / "figures" / "data" / "transformer_closure.nc"
STARTS = (0.8, 1.2, 1.6)  # of the median emergence
WIDTHS, RIDGES, FOLDS = (1.0, 2.0, 4.0), (1e-2, 1e-1, 1.0), 4  # of the kernel, in deviations; of the regression
UNSCORED = 3
SWITCHED = {"disentangled": (100, 200, 400, 800, 1600, 8000), "transformer": (12_000, 20_000)}
FIRST = {"disentangled": 1, "transformer": 5}  # a sixteenth of the training, in which attention is spread
NAMES = ("closed", "read", "mean", "stretched", "deviation", "coordinates")
OTHER = ("matched", "icl_only")
Regression = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Run:
    """One training: coordinates [point, 4] and flip [point], with the step of its emergence (NaN: none)."""

    state: np.ndarray
    flip: np.ndarray
    every: int
    emergence: float


def runs(name: str) -> list[Run]:
    """The seeds of a kept experiment."""
    kept = curves(name)
    marks, every = landmarks(kept).emergence, int(kept.step[1] - kept.step[0])
    previous = kept.previous_token.max("head_previous_token")
    if "copy" in kept:
        match, copy = kept.match, kept["copy"]
    else:
        match, copy = (kept.weight_norm.sel(weight=f"weights.{name}", drop=True) for name in "Wg")
    four = [previous, match, copy, kept.lookup.mean("head_lookup")]
    each = xr.concat(four, "of", coords="minimal", compat="override")
    flip = kept.accuracy_in_context.sel(evaluator="flip", drop=True)
    return [
        Run(each.sel(seed=s).transpose("step", "of").values.astype(float), flip.sel(seed=s).values.astype(float),
            every, float(marks.where(marks > 0).sel(seed=s)))
        for s in kept.seed
    ]  # fmt: skip


def ridge(x: np.ndarray, y: np.ndarray, width: float, penalty: float) -> Regression:
    """Kernel ridge regression of y on x, both standardised; `width` in deviations of x."""
    middle, scale = x.mean(0), x.std(0) + 1e-12
    target, spread = y.mean(0), y.std(0) + 1e-12

    def kernel(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        square = ((left[:, None] - right[None]) ** 2).sum(-1)
        return np.exp(-square / (2 * width**2)) + 1.0

    seen = (x - middle) / scale
    weights = np.linalg.solve(kernel(seen, seen) + penalty * np.eye(len(seen)), (y - target) / spread)
    return lambda new: target + spread * (kernel((new - middle) / scale, seen) @ weights)


def learned(pairs: list[tuple[np.ndarray, np.ndarray]]) -> Regression:
    """The regression over all runs, with the width and the ridge that predict left-out runs best."""

    scale = np.concatenate([y for _, y in pairs]).std(0) + 1e-12

    def error(width: float, penalty: float) -> float:
        total = 0.0
        for i in range(FOLDS):
            kept = [pair for j, pair in enumerate(pairs) if j % FOLDS != i]
            fitted = ridge(*map(np.concatenate, zip(*kept, strict=True)), width, penalty)
            for x, y in pairs[i::FOLDS]:
                total += float(np.mean(((fitted(x) - y) / scale) ** 2))
        return total

    best = min(product(WIDTHS, RIDGES), key=lambda at: error(*at))
    return ridge(*map(np.concatenate, zip(*pairs, strict=True)), *best)


@dataclass(frozen=True)
class Law:
    """The change of the coordinates from one point to the next, and flip, as functions of the coordinates."""

    change: Regression
    flip: Regression
    low: np.ndarray  # of the coordinates that were seen
    high: np.ndarray

    def follow(self, state: np.ndarray, points: int) -> np.ndarray:
        """The coordinates at so many points from a state on, kept within what was seen."""
        found = [state]
        for _ in range(points - 1):
            found.append(np.clip(found[-1] + self.change(found[-1][None])[0], self.low, self.high))
        return np.array(found)


def law(of: list[Run], first: int) -> Law:
    """What the runs teach, from their point `first` on."""
    states = [run.state[first:] for run in of]
    change = learned([(s[:-1], np.diff(s, axis=0)) for s in states])
    flip = learned([(s, run.flip[first:, None]) for s, run in zip(states, of, strict=True)])
    whole = np.concatenate(states)
    return Law(change, flip, whole.min(0), whole.max(0))


def mean(of: list[Run], target: Run) -> np.ndarray:
    """Flip of the mean of other runs at the same step."""
    points = len(target.flip)
    padded = [np.pad(run.flip[:points], (0, max(points - len(run.flip), 0)), mode="edge") for run in of]
    return np.mean(padded, 0)


def stretched(of: list[Run], target: Run) -> np.ndarray:
    """The same, with the time of each run in units of its emergence."""
    step = np.arange(len(target.flip)) * target.every / target.emergence
    known = [run for run in of if np.isfinite(run.emergence)]
    return np.mean([np.interp(step, np.arange(len(r.flip)) * r.every / r.emergence, r.flip) for r in known], 0)


def rms(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.sqrt(np.mean((one - other) ** 2)))


def score(target: Run, at: int, of: Law, others: list[Run]) -> dict[str, float]:
    """Errors of flip after the point `at` (root mean square): by the coordinates that were followed (`closed`), by the
    true ones (`read`), by the two that know none; the deviation of flip itself; and the error of the coordinates, in
    their deviations."""
    there = of.follow(target.state[at], len(target.flip) - at)
    later = slice(at + UNSCORED, None)
    predicted = {
        "closed": np.concatenate([target.flip[:at], of.flip(there)[:, 0]]),
        "read": of.flip(target.state)[:, 0],
        "mean": mean(others, target),
    }
    if np.isfinite(target.emergence):
        predicted["stretched"] = stretched(others, target)
    found = {name: rms(flip[later], target.flip[later]) for name, flip in predicted.items()}
    found["deviation"] = float(np.std(target.flip[later]))
    spread = np.concatenate([run.state for run in others]).std(0)
    found["coordinates"] = rms(there[UNSCORED:] / spread, target.state[later] / spread)
    return found


def increments(of: list[Run], first: int, ahead: int) -> dict[str, float]:
    """R2 of the change of the coordinates over `ahead` points on a left-out seed: by the coordinates, by the time, by
    the time over emergence, and by coordinates and time."""

    def inputs(run: Run) -> dict[str, np.ndarray]:
        state = run.state[first:-ahead]
        step = np.arange(first, len(run.state) - ahead)[:, None] * run.every
        since = step / run.emergence
        return {"state": state, "time": step, "stretched": since, "state and time": np.hstack([state, step])}

    given = [inputs(run) for run in of]
    change = [run.state[first + ahead :] - run.state[first:-ahead] for run in of]
    found = {}
    for name in given[0]:
        wrong, total = 0.0, 0.0
        for i, y in enumerate(change):
            rest = [(given[j][name].astype(float), change[j]) for j in range(len(of)) if j != i]
            scale = np.concatenate(change).std(0)
            wrong += float(np.sum(((learned(rest)(given[i][name].astype(float)) - y) / scale) ** 2))
            total += float(np.sum(((y - np.concatenate([c for _, c in rest]).mean(0)) / scale) ** 2))
        found[name] = 1 - wrong / total
    return found


def of_network(network: str) -> tuple[list[dict[str, float | str]], dict[str, float]]:
    """All scores of a network, one row a run, and R2 of the increments of its first five seeds."""
    full = runs(f"{network}_full")
    every, usual = full[0].every, float(np.nanmedian([run.emergence for run in full]))
    points, first = [round(f * usual / every) for f in STARTS], FIRST[network]
    rows: list[dict[str, float | str]] = []
    for i, target in enumerate(full):
        others = [full[(i + k) % len(full)] for k in range(1, 5)]
        of = law(others, first)
        for f, at in zip(STARTS, points, strict=True):
            rows.append({"test": f"seed from {f:g}"} | score(target, at, of, others))
    taken = {t: runs(f"{network}_full_from_{t}") for t in SWITCHED[network]}
    some = full[:5]
    for t, targets in taken.items():
        of = law(some + [run for other, each in taken.items() if other != t for run in each], 1)
        rows += [{"test": f"switched at {t}"} | score(target, 1, of, some) for target in targets]
    of = law(some, first)
    for name in OTHER:
        rows += [{"test": name} | score(run, first, of, some) for run in runs(f"{network}_{name}")]
    return rows, increments(some, first, 4)


def moved(every: int, steps: int = 40_000) -> float:
    """How far Adam moves a weight a step, in its rate, whose gradient is 1 once in so many steps at random, else 0."""
    adam = optax.adam(1.0)

    def step(state: tuple, gradient: jax.Array) -> tuple:
        update, memory = adam.update(gradient, state[1])
        return (state[0] + update, memory), None

    gradients = jax.random.bernoulli(jax.random.key(0), 1 / every, (steps,)).astype(jnp.float32)
    (end, _), _ = jax.lax.scan(step, (jnp.zeros(()), adam.init(jnp.zeros(()))), gradients)
    return float(-end / steps)


def rare() -> dict[str, float]:
    """How often the label of a class has a gradient in the transformer's training, and how far Adam then moves it."""
    rule, classes = TRANSFORMER.rule, TRANSFORMER.classes.classes
    every = round(classes / (rule.batch * 2))  # two labels in each context
    return {"once in": every, "adam": moved(every), "sgd": 1 / every}


def main() -> None:
    tables = []
    for network in SWITCHED:
        rows, r2 = of_network(network)
        print(network, {name: round(value, 3) for name, value in r2.items()})
        tests = list(dict.fromkeys(str(row["test"]) for row in rows))
        values = {}
        for test in tests:
            some = [row for row in rows if row["test"] == test]
            values[test] = [float(np.median([float(row.get(n, np.nan)) for row in some])) for n in NAMES]
            told = [row for row in some if "stretched" in row]
            values[test] += [len(some), sum(float(row["closed"]) < float(row["stretched"]) for row in told)]
            print(
                f"    {test:20s}", dict(zip((*NAMES, "runs", "wins"), np.round(values[test], 3).tolist(), strict=True))
            )
        one = xr.DataArray([values[test] for test in tests], dims=("test", "number"))
        one = one.assign_coords(test=[f"{network}: {test}" for test in tests], number=[*NAMES, "runs", "wins"])
        tables.append(one)
        attrs = {f"{network}_{name}": value for name, value in r2.items()}
        tables[-1].attrs = attrs
    attrs = {name: value for table in tables for name, value in table.attrs.items()} | rare()
    print({name: round(value, 4) for name, value in attrs.items()})
    write_netcdf(xr.Dataset({"error": xr.concat(tables, "test", combine_attrs="drop")}, attrs=attrs), DATA)


if __name__ == "__main__":
    main()
