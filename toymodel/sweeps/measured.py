"""The measures of one chunk of a sweep, as plain arrays: what a worker computes.

Every run gets the measures of `toymodel.measures`, in units of time, and `stopped`, the time at which its record ended
because the total loss fell below `stop_below`; NaN where it did not. A run whose loss diverges has NaN throughout, and
"diverged" as its winner and phase. Labels are stored as numbers, their position in `labels_of`.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from toymodel import measures
from toymodel.model import Model
from toymodel.simulation.descent import descend
from toymodel.simulation.interventions import at_runs, built
from toymodel.simulation.observe import Measures
from toymodel.sweeps.declare import LABELLED, Sweep
from toymodel.sweeps.grid import Grid, Group, groups, parameters_of, start_of, value_of, weights_of

FLAGS = ("lasts",)
OF_MECHANISM = tuple(name for name in measures.OF_MECHANISM if name not in FLAGS)


def labels_of(model: Model) -> dict[str, tuple[str, ...]]:
    """The labels of each variable that is stored as a number."""
    return measures.labels_of(model.mechanisms)


def times_of(sweep: Sweep) -> np.ndarray:
    """The times of thinned trajectories: every `every` steps and the last (at the step size of the sweep)."""
    steps = np.append(np.arange(0, int(sweep.steps), int(sweep.every or 1)), int(sweep.steps))
    return steps * sweep.lr


def trajectories(model: Model) -> tuple[str, ...]:
    """The names of what is kept of each run along `time` when thinned trajectories are asked for."""
    return ("loss", *(f"loss_{m}" for m in model.mechanisms), *model.costs, "overlap", "residual")


def measured_chunk(sweep: Sweep, number: int) -> dict[str, np.ndarray]:
    """The measures of the runs of a chunk: name -> (run,), (run, mechanism) or (run, time) for trajectories."""
    grid = Grid.of(sweep)
    runs = math.prod(grid.lengths(number))
    whole: dict[str, np.ndarray] = {}
    for group in groups(sweep, grid.values(grid.box(number)), runs):
        for name, part in _measured(sweep, group).items():
            whole.setdefault(name, np.empty((runs, *part.shape[1:]), part.dtype))[group.where] = part
    return whole


def _measured(sweep: Sweep, group: Group) -> dict[str, np.ndarray]:
    """The measures, and thinned trajectories, of runs that can be simulated together."""
    start = start_of(sweep, group.values, len(group.where))
    acts, weights, parameters = _arguments(sweep, group)
    given: dict[str, Any] = dict(interventions=acts, weights=weights, progress=False, **parameters)
    if group.shared.get("integrator", sweep.integrator) == "flow":
        from toymodel.simulation.flow import flow  # JAX and diffrax are imported for a flow only

        tolerances = dict(rtol=sweep.rtol, atol=1e-3 * sweep.rtol)
        run = partial(flow, sweep.model, start, sweep.steps * sweep.lr, **tolerances, **given)
        found = _plain(sweep, run(observe=Measures(sweep.stop_below)))
        return found if sweep.every is None else found | _recorded(sweep, run(times=times_of(sweep)))
    lr = value_of(sweep, group.values, "lr", sweep.lr)
    steps = xr.DataArray(lr, dims="run") if np.ndim(lr) else lr
    runs = descend(sweep.model, start, int(sweep.steps), lr=steps, observe=Measures(sweep.stop_below), **given)
    found = _plain(sweep, runs)
    if sweep.every is not None:
        record = descend(sweep.model, start, int(sweep.steps), lr=float(np.max(lr)), every=int(sweep.every), **given)
        found |= _recorded(sweep, record)
    return found


def _recorded(sweep: Sweep, record: xr.Dataset) -> dict[str, np.ndarray]:
    """What is kept of a record."""
    return {name: record[name].transpose("run", "time", ...).values for name in trajectories(sweep.model)}


def _arguments(sweep: Sweep, group: Group) -> tuple[Any, Any, Any]:
    """Interventions, weights and parameters of the runs of a group."""
    known = {**sweep.fixed, **{name: value for name, value in group.shared.items() if name not in LABELLED}}
    case = sweep.case(group.shared["intervention"]) if "intervention" in group.shared else ()
    acts = [at_runs(built(act, known), group.values) for act in (*sweep.interventions, *case)]
    end = sweep.steps * group.shared.get("lr", sweep.lr)
    acts = [act for act in acts if act.at <= end]  # a varied time may lie after the end
    return acts, weights_of(sweep, group.values), parameters_of(sweep, group.values)


def _plain(sweep: Sweep, runs: xr.Dataset) -> dict[str, np.ndarray]:
    """Measures as arrays along the runs, with labels as numbers."""
    runs = runs if "run" in runs.dims else runs.expand_dims("run")
    found = {name: runs[name].transpose("run", ...).values for name in (*OF_MECHANISM, *FLAGS)}
    for name, labels in labels_of(sweep.model).items():
        order = np.argsort(labels)
        found[name] = order[np.searchsorted(labels, runs[name].values, sorter=order)].astype(np.uint8)
    stopped = runs["stopped"].values if "stopped" in runs else np.full(runs.sizes["run"], np.nan)
    return {**found, "stopped": stopped}
