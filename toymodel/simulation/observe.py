"""Records of runs: labelled, with what made them.

A record is an xarray.Dataset along the dimensions of the batch and `time` (= step x step size): `loss` (the one
descended at that time), `loss_<mechanism>`, every cost by its name, `overlap` and `residual` along `vector`; without
time, `target_norm` and `unlearned_<mechanism>`, the loss of a mechanism that has learned nothing.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import xarray as xr

from toymodel.batch import as_text
from toymodel.files import FORMAT, origin
from toymodel.model import Model
from toymodel.reduction import Plane, unlearned_loss
from toymodel.simulation.interventions import Intervention
from toymodel.simulation.problem import Problem


def record(
    problem: Problem,
    times: np.ndarray,
    steps: np.ndarray | None,
    losses: dict[str, np.ndarray],
    planes: dict[str, Any],
    attrs: dict[str, Any],
) -> xr.Dataset:
    """The dataset of a simulation.

    losses: name -> (time, run); planes: name of the quantity -> (time, run, vector) for overlap and residual and
    (run, vector) for target_norm.
    """
    batch, model = problem.batch, problem.model
    order = ["loss", *(f"loss_{m}" for m in model.mechanisms), *model.costs]
    variables = {name: batch.labelled(np.moveaxis(losses[name], 0, 1), "time") for name in order}
    for name in ("overlap", "residual"):
        variables[name] = batch.labelled(np.moveaxis(planes[name], 0, 1), "time", "vector")
    norms = planes["target_norm"]
    variables["target_norm"] = batch.labelled(norms, "vector")
    target = {x: Plane(0, 0, norms[:, i]) for i, x in enumerate(model.vectors)}
    for m, letters in model.mechanisms.items():
        level = unlearned_loss([target[x] for x in letters], batch.flat(problem.weights[m]))
        variables[f"unlearned_{m}"] = batch.labelled(level)
    runs = xr.Dataset(variables).assign_coords(time=times, vector=list(model.vectors))
    runs["time"].attrs["units"] = "steps x step size"
    if steps is not None:
        runs = runs.assign_coords(step=("time", steps))
    given = {**problem.parameters, **{f"weight_{t}": value for t, value in problem.weights.items()}}
    shown = {name for name, value in given.items() if isinstance(value, xr.DataArray)}
    shown |= {*given} & {*runs.coords}  # brought by a start that was taken from another run: what holds here wins
    runs = runs.assign_coords({name: given[name] for name in shown - {*runs.dims}})
    runs.attrs = {**attrs, **_origin(problem)}
    return runs


def _origin(problem: Problem) -> dict[str, Any]:
    def numbers(given: dict[str, Any]) -> str:
        return json.dumps({k: "swept" if isinstance(v, xr.DataArray) else float(v) for k, v in given.items()})

    return {
        "model": problem.model.to_json(),
        "parameters": numbers(problem.parameters),
        "weights": numbers(problem.weights),
        "interventions": "; ".join(_described(act, problem.model) for act in problem.interventions) or "none",
        "toymodel_format": FORMAT,
        **origin(),
    }


def _described(act: Intervention, model: Model) -> str:
    """One line for an intervention, with the numbers of labelled arguments where they are few (`labels.as_text`)."""
    parts = []
    for name, value in {**vars(act), **act.parameters()}.items():
        if isinstance(value, xr.Dataset):
            value = value[["overlap", "residual"]].sel(vector=list(act.vectors))  # type: ignore[attr-defined]
        text = str(act.changed(model).expression) if callable(value) else as_text(value)
        if text not in ("None", "inf", "") and not name.startswith("_"):
            parts.append(f"{name}={text}")
    return f"{type(act).__name__}({', '.join(parts)})"


def model_of(runs: xr.Dataset) -> Model:
    """The model of a record; raises ValueError for what is no record of a run."""
    if "model" not in getattr(runs, "attrs", {}):
        raise ValueError("this is no record of a run: it has no attribute 'model'")
    return Model.from_json(runs.attrs["model"])
