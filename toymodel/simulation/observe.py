"""Observers: what a run leaves behind, a record of all of it at some times, or the measures of it at every step.

A record is an xarray.Dataset along the dimensions of the batch and `time` (= step x step size): `loss` (the one
descended at that time), `loss_<mechanism>`, every cost by its name, `overlap` and `residual` along `vector`; without
time, `target_norm` and `unlearned_<mechanism>`, the loss of a mechanism that has learned nothing. Measures are those of
`toymodel.measures`, along `mechanism`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from toymodel import measures
from toymodel.checks import Positive, Steps, checked
from toymodel.model import Model
from toymodel.provenance import origin
from toymodel.records import FORMAT
from toymodel.reduction import Plane, unlearned_loss
from toymodel.simulation.problem import Problem
from toymodel.simulation.state import Reduced


@checked
@dataclass(frozen=True)
class Record:
    """Everything of a run, each `every` steps and at the end.

    Arguments:
        every: a whole number >= 1.
        first_below: also find the first step at which the loss is below this (> 0), in the variable `stopped`.

    Raises:
        ValueError for an argument out of range.

    >>> import toymodel as tm
    >>> model = tm.induction()
    >>> tm.descend(model, tm.aligned_start(model), 10, observe=tm.Record(every=5)).time.values.tolist()
    [0.0, 5.0, 10.0]
    """

    every: Steps = 1
    first_below: Positive | None = None


@checked
@dataclass(frozen=True)
class Measures:
    """The measures of every run, looked at in each step, and nothing else.

    Arguments:
        stop_below: a run ends where its loss is below this (> 0); by default none does.

    Raises:
        ValueError for an argument out of range.

    >>> import toymodel as tm
    >>> model = tm.induction()
    >>> found = tm.descend(model, tm.aligned_start(model, overlap=1.0), 1_000, observe=tm.Measures())
    >>> bool(found.emergence.sel(mechanism="icl") < 1_000)
    True
    """

    stop_below: Positive | None = None


def unlearned(problem: Problem, norms: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The loss of each mechanism of each run that has learned nothing, from the norms of the targets."""
    return {
        m: unlearned_loss([Plane(0, 0, norms[x]) for x in letters], problem.batch.flat(problem.weights[m]))
        for m, letters in problem.model.mechanisms.items()
    }


def measured(
    problem: Problem,
    observe: Measures,
    state: Reduced,
    known: Mapping[str, Mapping[str, np.ndarray]],
    learned: Mapping[str, np.ndarray],
    stopped: np.ndarray,
    end: float,
    unit: Any,
    attrs: dict[str, Any],
) -> xr.Dataset:
    """The measures as a dataset, from the last state of the runs and what is known of each mechanism
    (`measures.begun`); of a run that has diverged nothing is said.

    stopped: when the loss of each run was below `stop_below`, or NEVER; end: the last time; unit: of these times.
    """
    batch, names = problem.batch, list(problem.model.mechanisms)
    finite = np.isfinite(state.coordinates().sum(0))
    last = np.where(stopped < measures.NEVER, stopped, end)
    found = {m: measures.finished(known[m], learned[m], last, unit) for m in names}
    variables = {}
    for name in measures.OF_MECHANISM:
        value = np.stack([found[m][name] for m in names], -1)
        value = value & finite[:, None] if value.dtype == bool else np.where(finite[:, None], value, np.nan)
        variables[name] = batch.labelled(value, "mechanism")
    runs = measures.labelled(xr.Dataset(variables).assign_coords(mechanism=names))
    for name in ("winner", "phase"):
        if name in runs:
            runs[name] = runs[name].where(batch.labelled(finite), measures.DIVERGED)
    if observe.stop_below is not None:
        runs["stopped"] = batch.labelled(np.where(finite & (stopped < measures.NEVER), stopped * unit, np.nan))
    return runs.assign_coords(_shown(problem, runs)).assign_attrs({**attrs, **_origin(problem)})


def record(
    problem: Problem,
    times: np.ndarray,
    steps: np.ndarray | None,
    seen: Mapping[str, np.ndarray],
    norms: Mapping[str, np.ndarray],
    attrs: dict[str, Any],
) -> xr.Dataset:
    """The dataset of a simulation, from the quantities of `System.observed`, (time, run) each, and the norm of the
    target of each vector, (run,)."""
    batch, model = problem.batch, problem.model
    order = ["loss", *(f"loss_{m}" for m in model.mechanisms), *model.costs]
    variables = {name: batch.labelled(seen[name].T, "time") for name in order}
    for name in ("overlap", "residual"):
        planes = np.stack([seen[f"{name}_{x}"] for x in model.vectors])
        variables[name] = batch.labelled(planes.T, "time", "vector")
    variables["target_norm"] = batch.labelled(np.stack([norms[x] for x in model.vectors], -1), "vector")
    for m, level in unlearned(problem, norms).items():
        variables[f"unlearned_{m}"] = batch.labelled(level)
    runs = xr.Dataset(variables).assign_coords(time=times, vector=list(model.vectors))
    runs["time"].attrs["units"] = "steps x step size"
    if steps is not None:
        runs = runs.assign_coords(step=("time", steps))
    return runs.assign_coords(_shown(problem, runs)).assign_attrs({**attrs, **_origin(problem)})


def _shown(problem: Problem, runs: xr.Dataset) -> dict[str, Any]:
    """Parameters and weights that were given with dimensions, and those that a start brought from another run, as what
    holds here wins."""
    given = {**problem.parameters, **{f"weight_{t}": value for t, value in problem.weights.items()}}
    names = {name for name, value in given.items() if isinstance(value, xr.DataArray)} | ({*given} & {*runs.coords})
    return {name: given[name] for name in names - {*runs.dims}}


def _origin(problem: Problem) -> dict[str, Any]:
    def numbers(given: dict[str, Any]) -> str:
        return json.dumps({k: "swept" if isinstance(v, xr.DataArray) else float(v) for k, v in given.items()})

    return {
        "model": problem.model.to_json(),
        "parameters": numbers(problem.parameters),
        "weights": numbers(problem.weights),
        "interventions": "; ".join(map(str, problem.interventions)) or "none",
        "toymodel_format": FORMAT,
        **origin(),
    }


def model_of(runs: xr.Dataset) -> Model:
    """The model of a record.

    Arguments:
        runs: what `descend`, `flow`, `sweep`, `load` or `open_sweep` returned.

    Returns:
        The `Model`, with the values of parameters that it was made with.

    Raises:
        ValueError for what is no record of a run.

    Source: the attribute `model` of a record, in JSON.

    >>> import toymodel as tm
    >>> model = tm.induction()
    >>> tm.model_of(tm.descend(model, tm.aligned_start(model), 1)) == model
    True
    """
    if "model" not in getattr(runs, "attrs", {}):
        raise ValueError("this is no record of a run: it has no attribute 'model'")
    try:
        return Model.from_json(runs.attrs["model"])
    except ValueError as error:
        raise ValueError(f"{runs.encoding.get('source', 'runs')}: {error}") from None
