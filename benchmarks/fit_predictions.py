"""Models that were fitted to a network's full data, held against its other experiments, of which they saw nothing.

    .venv/bin/python benchmarks/fit_predictions.py [MODEL ...]   (three minutes a model)

Writes figures/data/fit_predictions_MODEL.nc.
The curves are accuracies among the labels in context, means over seeds. For each experiment there are four errors, each
a root mean square over times and curves:

    predicted    by the model that was fitted to full data
    alone        of the same model fitted to this experiment alone, all of it free again: what it could reach
    stretched    of the network's own curve on full data, stretched in time by the best factor: no model, but one number
                 that was fitted to this experiment
    constant     of the experiment's own mean: a curve that knows nothing of time

An experiment that was not trained yet is left out, and named. The model `attention`, which is derived from the
disentangled network, is compared with that network; nothing in it is fitted, not even to full data.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import toymodel as tm
from toymodel.network.runs import Runs
from toymodel.theory import attention_flow as derived

OUT = Path(__file__).parent.parent / "figures" / "data"
MODELS = {"coopetition": tm.coopetition(), "shared_encoder": tm.shared_encoder(), "long_pathway": tm.long_pathway()}
BOTH, ICL, CIWL = ("icl", "ciwl"), ("icl",), ("ciwl",)
EXPERIMENTS = {  # by network: the curves that the experiment is about
    "disentangled": {
        "matched": BOTH, "icl_only": ICL, "ciwl_only": CIWL, "ciwl_blocked": ICL, "icl_given_end": ICL,
        "icl_given_1600": ICL, "full_from_200": BOTH, "full_from_1600": BOTH,
    },
    "transformer": {
        "matched": BOTH, "icl_only": ICL, "ciwl_only": CIWL, "ciwl_blocked": ICL, "icl_given_end": ICL,
        "icl_given_24000": ICL, "full_from_12000": BOTH, "full_from_20000": BOTH,
    },
}  # fmt: skip
DRAWS = range(100, 103)  # of the start of the derived model
LINK, STARTS, POINTS = "choice", 6, 101
BOUNDS = {"time": (1e-4, 100.0), "alpha": (1e-4, 3.0), "mu_icl": (1e-4, 3.0), "target_norm.d": (1.0, 100.0)}


def there(network: str, experiment: str) -> xr.Dataset | None:
    """Accuracies by step, means over seeds that have them all; None where they are not there."""
    try:
        kept = Runs().read(f"{network}_{experiment}")
    except OSError:
        return None
    accuracy = kept.accuracy_in_context.sel(evaluator=list(BOTH)).mean("seed")
    return accuracy.to_dataset("evaluator")


def free_of(model: tm.Model, kind: str) -> dict[str, tuple[float, float]]:
    """What is fitted, as far as the experiment depends on it: the unit of time, alpha, mu_icl, the target of d, and the
    overlaps at the start of the vectors of ICL alone, of those that are shared, and of d."""
    own = "".join(x for x in model.vectors if x not in "bcd")
    free = {**BOUNDS, f"overlap.{own}": (1e-3, 10.0), "overlap.bc": (1e-3, 10.0), "overlap.d": (1e-3, 10.0)}
    without = {
        "icl_only": ("alpha", "mu_icl", "target_norm.d", "overlap.d"),
        "icl_given": ("alpha", "mu_icl", "target_norm.d", "overlap.d", "overlap.bc"),
        "ciwl_only": ("alpha", "mu_icl", f"overlap.{own}"),
        "ciwl_blocked": ("alpha", "mu_icl", "target_norm.d", "overlap.d"),
        "matched": ("mu_icl",),
    }
    return {name: ends for name, ends in free.items() if name not in without.get(kind, ())}


def setting(of_full: tm.Fit, experiment: str, last: float) -> dict[str, Any]:
    """The experiment in the words of the model: interventions, start and model, as `tm.predict` takes them.

    ICL-only data: CIWL stays at its unlearned loss, whatever is learned, and the cost is not there; CIWL-only data in
    the same way.
    """
    model = of_full.model
    norms = {x: float(of_full.start.target_norm.sel(vector=x)) for x in model.vectors}
    unlearned = {
        m: float(model.weights[m] / 2 * np.prod([norms[x] for x in letters]) ** 2)
        for m, letters in model.mechanisms.items()
    }
    icl_data = tm.Change(loss=f"{unlearned['ciwl'] + model.parameters['mu_ciwl']!r} * icl")
    ciwl_data = tm.Change(loss=f"{unlearned['icl'] + model.parameters['mu_icl']!r} * ciwl")
    kind, _, taken = experiment.rpartition("_")
    if experiment == "matched":
        return {"model": model.with_parameters(mu_icl=0.0)}
    if experiment == "icl_only":
        return {"interventions": [icl_data]}
    if experiment == "ciwl_only":
        return {"interventions": [ciwl_data]}
    if experiment == "ciwl_blocked":
        return {"interventions": [tm.Clamp("d", overlap=0, residual=0)]}
    if taken == "end":
        state = tm.state_at(tm.predict(of_full, times=[last]), last)
    else:
        state = tm.state_at(tm.predict(of_full, [ciwl_data], times=[float(taken)]), float(taken))
    if kind == "icl_given":
        return {"interventions": [icl_data, tm.Clamp("bc", like=state)]}
    return {"start": state}


def of_attention(experiment: str, seen: xr.Dataset, last: int, draw: int) -> xr.Dataset:
    """The derived model's curves at the steps of the network's; `last` is the end of full data."""
    full, steps = derived.Training(), seen.step.values
    begin, every = derived.start(full, draw), int(np.gcd.reduce(steps))
    kind, _, taken = experiment.rpartition("_")
    training, at = full, begin
    if experiment == "ciwl_blocked":
        training, at = replace(full, held=derived.CODES), derived.without_codes(begin)
    elif experiment == "matched":
        training = replace(full, matched=True)
    elif experiment in ("icl_only", "ciwl_only"):
        training = replace(full, kind=experiment.removesuffix("_only"))
    elif kind:
        source = full if taken == "end" else replace(full, kind="ciwl")
        step = last if taken == "end" else int(taken)
        state = derived.states(source, step, 50, begin, seed=draw)[1][step]
        half = replace(full, kind="icl", held=derived.SECOND_HALF)
        training, at = (full, state) if kind == "full_from" else (half, derived.grafted(begin, state))
    return derived.predict(training, int(steps[-1]), every, at, seed=draw).sel(step=steps)


def rows_of_attention(network: str = "disentangled") -> Iterator[xr.Dataset]:
    """The errors and the curves of the derived model for every experiment of its network, means over draws."""
    full = there(network, "full")
    assert full is not None
    for name, names in {"full": BOTH, **EXPERIMENTS[network]}.items():
        if (seen := there(network, name)) is None:
            continue
        drawn = [of_attention(name, seen, int(full.step[-1]), draw) for draw in DRAWS]
        predicted = np.mean([np.stack([of[n].values for n in names], -1) for of in drawn], 0)
        yield row(network, "attention", name, seen, names, predicted, np.nan, stretched(full, seen, names))


def error(left: np.ndarray, right: np.ndarray) -> float:
    return float(np.sqrt(np.nanmean((left - right) ** 2)))


def stretched(full: xr.Dataset, seen: xr.Dataset, names: tuple[str, ...]) -> np.ndarray:
    """The curves of full data with their times multiplied by the best factor, (time, curve)."""
    tried = [
        np.stack([np.interp(seen.step * c, full.step, full[name]) for name in names], -1)
        for c in np.geomspace(0.05, 20, 401)
    ]
    wanted = np.stack([seen[name] for name in names], -1)
    return min(tried, key=lambda curves: error(curves, wanted))


def rows(network: str, title: str) -> Iterator[xr.Dataset]:
    """The errors and the curves of a model for every experiment of a network."""
    full = there(network, "full")
    if full is None:
        print(f"{network}: full data are not trained, so that there is nothing to fit")
        return
    missing = [name for name in EXPERIMENTS[network] if there(network, name) is None]
    if missing:
        print(f"{network}: not trained: {', '.join(missing)}", flush=True)
    model = MODELS[title]
    start = tm.aligned_start(model, overlap=0.1)
    of_full = tm.fit(model, full, link=LINK, start=start, free=free_of(model, "full"), starts=16, progress=False)
    print(network, title, of_full, sep="\n", flush=True)
    yield row(network, title, "full", full, BOTH, of_full.predicted.values[0], of_full.error)
    for name, names in EXPERIMENTS[network].items():
        seen = there(network, name)
        if seen is None:
            continue
        acts = setting(of_full, name, float(full.step[-1]))
        predicted = tm.predict(of_full, **{"interventions": [], **acts}, times=seen.step.values)
        predicted = predicted.predicted.sel(curve=list(names)).values
        alone = alone_of(model, seen[list(names)], name, acts)
        other = stretched(full, seen, names)
        yield row(network, title, name, seen, names, predicted, alone, other)


def alone_of(model: tm.Model, seen: xr.Dataset, name: str, acts: dict[str, Any]) -> float:
    """The error of a fit to this experiment alone; NaN where no start could be followed."""
    kind = "icl_given" if name.startswith("icl_given") else name
    held = acts.get("interventions", [])
    start = tm.aligned_start(model, overlap=0.1)
    at = model.with_parameters(mu_icl=0.0) if name == "matched" else model
    try:
        options: dict[str, Any] = {"free": free_of(model, kind), "interventions": held, "starts": STARTS, "most": 60}
        return tm.fit(at, seen, link=LINK, start=start, progress=False, **options).error
    except RuntimeError:
        return np.nan


def row(
    network: str, model: str, name: str, seen: xr.Dataset, names: tuple[str, ...], predicted: np.ndarray, alone: float,
    other: np.ndarray | None = None,
) -> xr.Dataset:  # fmt: skip
    wanted = np.stack([seen[n] for n in names], -1)
    errors = {
        "predicted": error(predicted, wanted),
        "alone": alone,
        "stretched": np.nan if other is None else error(other, wanted),
        "constant": error(np.broadcast_to(np.nanmean(wanted, 0), wanted.shape), wanted),
    }
    print(f"{network} {model} {name}: " + ", ".join(f"{n} {v:.3f}" for n, v in errors.items()), flush=True)
    when = np.linspace(0, float(seen.step[-1]), POINTS)
    curves = np.full((2, POINTS, 2), np.nan)
    for k, n in enumerate(BOTH):
        if n in names:
            curves[0, :, k] = np.interp(when, seen.step, seen[n])
            curves[1, :, k] = np.interp(when, seen.step, predicted[:, names.index(n)])
    data = {n: v for n, v in errors.items()} | {"observed": (("point", "curve"), curves[0])}
    data |= {"curves": (("point", "curve"), curves[1]), "step": ("point", when)}
    return xr.Dataset(data, {"curve": list(BOTH), "case": f"{network} {model} {name}"})


def main() -> None:
    for title in sys.argv[1:] or [*MODELS, "attention"]:
        found = [one for network in EXPERIMENTS for one in rows(network, title)] if title in MODELS else []
        found += list(rows_of_attention()) if title == "attention" else []
        print(f"wrote {tm.save(xr.concat(found, 'case'), OUT / f'fit_predictions_{title}.nc').name}")


if __name__ == "__main__":
    main()
