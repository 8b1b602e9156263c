"""What the figures of networks share beside the curves: the systems, an evaluator's accuracy, one run of the model."""

import numpy as np
import xarray as xr

import toymodel as tm
from toymodel import plotting
from toymodel.network.curves import landmarks

SYSTEMS = {"disentangled": ("disentangled network", "other"), "transformer": ("transformer", "icl")}


def at(of: xr.Dataset, name: str) -> xr.DataArray:
    """The accuracy among the labels in context on an evaluator."""
    return of.accuracy_in_context.sel(evaluator=name, drop=True)


def of_toy(name: str, seed: int = 7) -> tuple[xr.DataArray, xr.DataArray]:
    """A loss of the model over its unlearned value, and time over the emergence of ICL."""
    model = tm.coopetition(alpha=0.1, mu_icl=0.1)
    run = tm.descend(model, tm.paper_start(model, seeds=seed), 16_000, every=5)
    later = run.isel(time=slice(1, None))
    emergence = float(tm.measure(run).emergence.sel(mechanism="icl"))
    return later.time / emergence, later[f"loss_{name}"] / later[f"unlearned_{name}"]


def searched(path: str = "networks/search.csv") -> xr.Dataset:
    """Landmarks of the runs that were made in search of a setting, from their log, with what was set in each."""
    log = np.genfromtxt(plotting.uses(path), delimiter=",", names=True, dtype=None, encoding="utf-8")
    found = []
    for run in np.unique(log["run"]):
        own = log[log["run"] == run]
        if own["data"][0] != "full":
            continue
        both = xr.DataArray([[own["flip"]]], dims=("seed", "evaluator", "step"))
        curves = both.assign_coords(seed=[0], evaluator=["flip"], step=own["step"].astype(float))
        smooth = curves.rolling(step=5, center=True, min_periods=1).mean().to_dataset(name="accuracy_in_context")
        marks = landmarks(smooth).isel(seed=0, drop=True)
        setting = {name: float(own[name][0]) for name in ("noise", "mean", "spectrum", "rate")}
        found.append(marks.drop_vars("step", errors="ignore").assign(setting).expand_dims(run=[str(run)]))
    return xr.concat(found, "run")


def best_previous(of: xr.Dataset) -> xr.DataArray:
    """Attention of label tokens to the exemplar before them, in the head where it is highest; without the first
    sixteenth of the training, in which attention is spread over the few tokens that there are, and so high."""
    later = of.previous_token.where(of.step > of.step[-1] / 16)
    best = later.max("step").argmax("head_previous_token")
    return later.isel(head_previous_token=best)
