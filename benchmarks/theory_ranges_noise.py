"""Is what the theory says of steps and of noise either NaN or right? By descent from random inputs of any size.

Inputs and what counts as off or in vain: `theory_inputs`. Steps are a tenth of the largest stable one of the state that
a function speaks about, where it does not ask for others.

    python benchmarks/theory_ranges_noise.py [inputs] [seed] [names ...]   (share of them that each gets: CASES)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from typing import Any

import numpy as np
import xarray as xr
from theory_inputs import Cases, Inputs, Score, table

import toymodel as tm

COPIES, MOST_STEPS = 8, 1_000_000
STEP = 0.03  # of the largest stable one


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


def _side(model: tm.Model, strategy: str) -> xr.Dataset:
    """One strategy learned by vectors of equal lengths, and a thousandth of that length in the other private vector."""
    side = float(np.cbrt(np.prod([model.target_norms[x] for x in model.mechanisms[strategy]])))
    return tm.aligned_start(
        model, overlap=dict.fromkeys("abcd", side) | {"d" if strategy == "icl" else "a": side / 1e3}
    )


def noisy(model: tm.Model, start: xr.Dataset, steps: float, lr: float, noise: float) -> xr.Dataset | None:
    """100 records of COPIES of a start under noise; None where descent diverges."""
    start, every = start.expand_dims(copy=range(COPIES)), max(int(steps) // 100, 1)
    try:
        return tm.descend(model, start, int(steps), lr=lr, noise=noise, every=every, progress=False)
    except FloatingPointError:
        return None


def threshold(inputs: Inputs) -> Score:
    """From CIWL: said is 1, and measured 1 (else 10) where ICL comes back at 1.5 times the noise, and not at a 1.5th.

    It is back where most copies have it in one of 10 windows: at the lower noise of 10 times the time in which the cost
    takes a, since p drifts, which decides in the end; at the higher one of 20 times that and that in which noise builds
    up CIWL's loss.
    """
    inputs.without_mu_ciwl()
    said, right = np.full(inputs.runs, np.nan), np.full(inputs.runs, np.nan)
    for i, model in enumerate(inputs.models()):
        start = _side(model, "ciwl")
        bent = tm.theory.curvature(model, start)
        lr, hold = STEP * float(bent.largest_step), float(bent.across.sel(vector="d"))
        noise = float(tm.theory.noise_threshold(model, lr))
        pull = model.parameters["alpha"] * model.weights["cost"] * float(start.overlap.sel(vector="d")) ** 2
        short, long = 10 / pull / lr, 20 * (1 / pull + 1 / hold) / lr
        if not np.isfinite(noise) or long > MOST_STEPS:
            continue
        low, high = noisy(model, start, short, lr, noise / 1.5), noisy(model, start, long, lr, noise * 1.5)
        said[i], right[i] = 1.0, 1.0 if _most_of_icl(low) < 0.5 < _most_of_icl(high) else 10.0
    return {"noise_threshold": (said, right)}


def _most_of_icl(run: xr.Dataset | None) -> float:
    """The largest share of copies that have ICL, over windows of a tenth of the run; NaN where it diverged."""
    if run is None:
        return np.nan
    there = (run.loss_icl < run.unlearned_icl / 2).mean("copy").isel(time=slice(1, None))
    return float(there.coarsen(time=there.sizes["time"] // 10, boundary="trim").mean().max())


def kept(model: tm.Model, share: float, product: Callable[[tm.Model, float, float], Any]) -> tuple[float, ...]:
    """Of noise that leaves that share of CIWL's loss: lr, noise, the p that `product` says, and the steps in which it
    is reached, 6 times."""
    lr = STEP * float(tm.theory.curvature(model, _side(model, "icl")).largest_step)
    icl, ciwl = (
        model.weights[m] * np.prod([model.target_norms[x] for x in model.mechanisms[m]]) ** 2 / 2
        for m in ("icl", "ciwl")
    )
    unit = float(tm.theory.loss_floor(model, "ciwl", 1.0, lr, icl / 2 + model.parameters["mu_icl"]))
    noise = float(np.sqrt(share * ciwl / unit))
    p, entries = float(product(model, noise, lr)), model.dims["a"] + model.dims["d"] - model.dims["b"]
    return lr, noise, p, 6 * p / (noise**2 * lr * max(entries, 1)) / lr


def lasting_p(model: tm.Model, lr: float, noise: float, steps: float) -> tuple[float, xr.Dataset | None]:
    """The mean p of copies under noise from ICL, and their runs, in the second half of those steps; infinite where
    descent diverges."""
    run = noisy(model, _side(model, "icl"), steps, lr, noise)
    if run is None:
        return np.inf, None
    half = run.isel(time=slice(50, None))
    squares = half.overlap**2 + half.residual**2
    return float(np.sqrt(squares.sel(vector="b") * squares.sel(vector="c")).mean()), half


def lasting(inputs: Inputs) -> Score:
    """p where both strategies last, with n_b = n_c and noise that leaves 1e-4..0.3 of CIWL's loss."""
    inputs.without_mu_ciwl()
    said, measured = np.full(inputs.runs, np.nan), np.full(inputs.runs, np.nan)
    shares = inputs.spread(1e-4, 0.3).values
    for i, model in enumerate(inputs.models()):
        model = replace(model, dims={**model.dims, "c": model.dims["b"]})
        lr, noise, p, steps = kept(model, shares[i], tm.theory.noise_lasting_product)
        if np.isfinite(p) and steps <= MOST_STEPS:
            said[i], (measured[i], _) = p, lasting_p(model, lr, noise, steps)
    return {"noise_lasting_product": (said, measured)}


def modified(inputs: Inputs) -> Score:
    """How far descent has gone by the time at which its loss has halved (at most 2,000 steps); what is said has in
    addition the distance between the two ends."""
    said, measured = np.full(inputs.runs, np.nan), np.full(inputs.runs, np.nan)
    for i, model in enumerate(inputs.models()):
        start = inputs.start.isel(run=i)
        lr = inputs.draw.uniform(0.02, 0.3) * float(tm.theory.curvature(model, start).largest_step)
        if not np.isfinite(lr):
            continue
        try:
            run = tm.descend(model, start, 2_000, lr=lr, progress=False)
        except FloatingPointError:  # then the whole way may be said to be anything but finite
            end = tm.theory.modified_flow(model, start, [0.0, 2_000 * lr], lr).overlap.isel(time=-1)
            said[i], measured[i] = float(end.sum(skipna=False)), np.inf
            continue
        halved = (run.loss < run.loss.isel(time=0) / 2).values
        at = max(int(halved.argmax()), 1) if halved.any() else 2_000
        end = run.isel(time=at)
        other = tm.theory.modified_flow(model, start, [0.0, float(end.time)], lr).isel(time=-1)
        gone, apart = (
            float(np.sqrt(sum(((end[n] - x[n]) ** 2).sum(skipna=False) for n in ("overlap", "residual"))))
            for x in (start, other)
        )
        said[i], measured[i] = gone + apart, gone
    return {"modified_flow": (said, measured)}


def residual(inputs: Inputs) -> Score:
    """The mean square of 2,000 walks of as many entries as the residual has directions; lr damping of 0.01..1.9."""
    said, measured = np.full(inputs.runs, np.nan), np.full(inputs.runs, np.nan)
    noise, rate = inputs.spread(1e-3, 1).values, inputs.spread(0.01, 1.9).values
    lr, q0 = inputs.spread(1e-2, 10).values, inputs.spread(1e-3, 10).values
    for i in range(inputs.runs):
        n, steps = int(inputs.sizes["a"][i]), int(inputs.draw.integers(1, 200))
        walk = np.zeros((2_000, n - 1))
        walk[:, 0] = np.sqrt(q0[i])
        for _ in range(steps):
            walk = (1 - rate[i]) * walk + lr[i] * noise[i] * inputs.draw.standard_normal(walk.shape)
        said[i] = tm.theory.noisy_residual(q0[i], rate[i] / lr[i], n, noise[i], lr[i], steps)
        measured[i] = (walk**2).sum(1).mean()
    return {"noisy_residual": (said, measured)}


def sampled(inputs: Inputs) -> Score:
    """The variance over all entries of a tensor of at most 20 entries a vector, counted one by one."""
    said, measured = [], []
    for i in range(inputs.runs):
        sizes = [int(min(inputs.sizes[x][i], 20)) for x in "abc"]
        values, targets = ({x: inputs.draw.standard_normal(n) for x, n in zip("abc", sizes, strict=True)} for _ in "12")
        weight, sample = float(inputs.weights["icl"][i]), int(inputs.draw.integers(1, 50))
        missing, others = (
            reduce(np.multiply.outer, [x[y] for y in "abc"]) for x in (values, {**values, "a": np.ones(sizes[0])})
        )
        missing = missing - reduce(np.multiply.outer, [targets[y] for y in "abc"])
        entry = weight * missing.size * missing * others  # of the slope of a row, from one entry of the tensor
        for row in range(sizes[0]):
            mine = np.zeros_like(entry)
            mine[row] = entry[row]
            measured.append(mine.var() / sample)
        said.append(tm.theory.sampled_variance(values, targets, "abc", "a", weight, sample))
    return {"sampled_variance": (np.concatenate(said), np.array(measured))}


CASES: Cases = {
    "floor": (floor, 0.01, "loss_floor"),
    "threshold": (threshold, 0.02, "noise_threshold"),
    "lasting": (lasting, 0.02, "noise_lasting_product"),
    "modified": (modified, 0.05, "modified_flow"),
    "residual": (residual, 0.05, "noisy_residual"),
    "sampled": (sampled, 0.1, "sampled_variance"),
}

if __name__ == "__main__":
    table(CASES)
