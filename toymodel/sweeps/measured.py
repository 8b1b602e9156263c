"""The measures of one chunk of a sweep, as plain arrays: what a worker computes.

Every run gets the measures of `toymodel.measures`, in units of time, and `stopped`, the time at which its record ended
because the total loss fell below `stop_below`; NaN where it did not. A run whose loss diverges has NaN throughout, and
"diverged" as its winner and phase. Labels are stored as numbers, their position in `measures.labels_of`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from toymodel import measures
from toymodel.model import Model
from toymodel.simulation.descent import descend
from toymodel.simulation.interventions import Intervention, at_runs, built
from toymodel.simulation.observe import Measures
from toymodel.sweeps.declare import LABELLED, Sweep
from toymodel.sweeps.grid import Grid, Group, groups, labelled, parameters_of, start_of, weights_of


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
    model, start = sweep.model, start_of(sweep, group.values, len(group.where))
    given: dict[str, Any] = dict(interventions=_acts(sweep, group), weights=weights_of(sweep, group.values))
    given |= dict(progress=False, **parameters_of(sweep, group.values))
    run: Callable[..., xr.Dataset]
    if group.shared.get("integrator", sweep.integrator) == "flow":
        from toymodel.simulation.flow import flow  # JAX and diffrax are imported for a flow only

        run = partial(flow, model, start, sweep.steps * sweep.lr, rtol=sweep.rtol, atol=1e-3 * sweep.rtol, **given)
        thinned: dict[str, Any] = {"times": times_of(sweep)}
    else:
        lr = labelled(group.values.get("lr", sweep.lr))
        run = partial(descend, model, start, int(sweep.steps), lr=lr, **given)
        thinned = {"every": int(sweep.every or 1)}
    found = _plain(sweep, run(observe=Measures(sweep.stop_below)))
    if sweep.every is not None:
        record = run(**thinned)
        found |= {name: record[name].transpose("run", "time", ...).values for name in trajectories(model)}
    return found


def _acts(sweep: Sweep, group: Group) -> list[Intervention]:
    """The interventions of the runs of a group, those that begin after their end left out."""
    known = {**sweep.fixed, **{name: value for name, value in group.shared.items() if name not in LABELLED}}
    acts = [*sweep.interventions, *sweep.cases.get(group.shared.get("intervention", ""), ())]
    made = [at_runs(built(act, known), group.values) for act in acts]
    end = sweep.steps * group.shared.get("lr", sweep.lr)
    return [act for act in made if act.at <= end]


def _plain(sweep: Sweep, runs: xr.Dataset) -> dict[str, np.ndarray]:
    """Measures as arrays along the runs, with labels as numbers."""
    found = {name: runs[name].transpose("run", ...).values for name in measures.OF_MECHANISM}
    for name, labels in measures.labels_of(sweep.model.mechanisms).items():
        order = np.argsort(labels)
        found[name] = order[np.searchsorted(labels, runs[name].values, sorter=order)].astype(np.uint8)
    stopped = runs["stopped"].values if "stopped" in runs else np.full(runs.sizes["run"], np.nan)
    return {**found, "stopped": stopped}
