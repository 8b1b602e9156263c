"""The measures of one chunk of a sweep, as plain arrays: what a worker computes.

Every run gets the measures of `toymodel.measures` (times x step size), and

    final     the loss of each mechanism at the end of its record
    stopped   the time at which the record ended because the total loss fell below `stop_below`; NaN where it did not

A run whose loss diverges has NaN throughout, and "diverged" as its winner and phase. Labels are stored as numbers, the
position in `winners` and `PHASES`.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import jax
import numpy as np
import xarray as xr

from toymodel import measures
from toymodel.model import Model
from toymodel.simulation.descent import descend
from toymodel.simulation.flow import recorded_times
from toymodel.simulation.problem import problem_of_start
from toymodel.sweeps import stiff
from toymodel.sweeps.acts import at_runs, built
from toymodel.sweeps.declare import LABELLED, Sweep
from toymodel.sweeps.grid import Grid, Group, groups, parameters_of, start_of, value_of, weights_of
from toymodel.sweeps.kernel import WIDTH, descend_measured

PHASES = ("plateau", "transient ICL", "persistent ICL", "both", "CIWL only", "diverged")
OF_MECHANISM = ("emergence", "minimum", "minimum_time", "end", "lifetime", "bump", "bump_time", "final")


def winners(model: Model) -> tuple[str, ...]:
    """All labels that `winner` can have."""
    names = list(model.mechanisms)
    several = ["+".join(some) for n in range(1, len(names) + 1) for some in combinations(names, n)]
    return ("none", *several, "diverged")


def times_of(sweep: Sweep) -> np.ndarray:
    """The times of thinned trajectories: every `every` steps and the last (at the step size of the sweep)."""
    steps = np.unique([*range(0, sweep.steps, sweep.every or 1), sweep.steps])
    return steps * sweep.lr


def measured_chunk(sweep: Sweep, number: int) -> dict[str, np.ndarray]:
    """The measures of the runs of a chunk: name -> (run,), (run, mechanism) or (run, time) for trajectories."""
    grid = Grid.of(sweep)
    values = grid.values(grid.chunk(number))
    runs = len(next(iter(values.values()))) if values else 1
    whole: dict[str, np.ndarray] = {}
    for group in groups(sweep, values):
        for name, part in _measured(sweep, group).items():
            whole.setdefault(name, np.empty((runs, *part.shape[1:]), part.dtype))[group.where] = part
    return whole


def _measured(sweep: Sweep, group: Group) -> dict[str, np.ndarray]:
    """The measures of runs that can be simulated together."""
    integrator = group.shared.get("integrator", sweep.integrator)
    return (_by_flow if integrator == "flow" else _by_descent)(sweep, group)


def _by_descent(sweep: Sweep, group: Group) -> dict[str, np.ndarray]:
    """The kernel on runs padded with copies of the last one."""
    values, runs, padded = _padded(group, WIDTH)
    start = start_of(sweep, values, padded)
    lr = np.broadcast_to(value_of(sweep, values, "lr", sweep.lr), padded)
    acts, weights, parameters = _arguments(sweep, group, values)
    with jax.enable_x64(True):
        problem = problem_of_start(sweep.model, start, acts, weights, parameters)
        carried = descend_measured(
            problem, problem.reduced(start), sweep.steps, lr, float(lr[0]), sweep.stop_below, sweep.precision
        )
    found = _of_carried(sweep, {name: value[:runs] for name, value in carried.items()}, lr[:runs], sweep.steps)
    if sweep.every is not None:
        run = start.isel(run=slice(runs))
        acts, weights, parameters = _arguments(sweep, group, group.values)
        acts = [act for act in acts if act.at <= sweep.steps * sweep.lr]  # a varied time may lie after the end
        step = value_of(sweep, group.values, "lr", sweep.lr)
        record = descend(
            sweep.model, run, sweep.steps, lr=float(np.max(step)), every=sweep.every, interventions=acts,
            weights=weights, progress=False, **parameters,
        )  # fmt: skip
        found |= {name: record[name].transpose("run", "time", ...).values for name in trajectories(sweep.model)}
    return found


def _by_flow(sweep: Sweep, group: Group) -> dict[str, np.ndarray]:
    """The flow, visited at the times that `tm.flow` records: 0 and 512 equally spaced in the logarithm."""
    values, runs, padded = _padded(group, stiff.WIDTH)
    start = start_of(sweep, values, padded)
    acts, weights, parameters = _arguments(sweep, group, values)
    end = sweep.steps * sweep.lr
    with jax.enable_x64(True):
        problem = problem_of_start(sweep.model, start, acts, weights, parameters)
        carried = stiff.flow_measured(
            problem, problem.reduced(start), end, recorded_times(end), sweep.rtol, 1e-3 * sweep.rtol
        )
    return _of_carried(sweep, {name: value[:runs] for name, value in carried.items()}, np.ones(runs), end)


def _padded(group: Group, width: int) -> tuple[dict[str, np.ndarray], int, int]:
    """The values of a group with the last run repeated to a multiple of `width`, and the numbers of runs."""
    runs, padding = len(group.where), -len(group.where) % width
    values = {name: np.concatenate([value, np.repeat(value[-1:], padding)]) for name, value in group.values.items()}
    return values, runs, runs + padding


def trajectories(model: Model) -> tuple[str, ...]:
    """The names of what is kept of each run along `time` when thinned trajectories are asked for."""
    return ("loss", *(f"loss_{m}" for m in model.mechanisms), *model.costs, "overlap", "residual")


def _arguments(sweep: Sweep, group: Group, values: dict[str, np.ndarray]) -> tuple[Any, Any, Any]:
    """Interventions, weights and parameters of the runs with these values."""
    known = {**sweep.fixed, **{name: value for name, value in group.shared.items() if name not in LABELLED}}
    case = sweep.case(group.shared["intervention"]) if "intervention" in group.shared else ()
    acts = [at_runs(built(act, known, sweep.model), values) for act in (*sweep.interventions, *case)]
    return acts, weights_of(sweep, values), parameters_of(sweep, values)


def _of_carried(sweep: Sweep, carried: dict[str, np.ndarray], lr: np.ndarray, steps: float) -> dict[str, np.ndarray]:
    """The measures from what a kernel carried, with the definitions of `toymodel.measures.measure`."""
    names = list(sweep.model.mechanisms)
    by = {
        name: np.stack([carried[f"{name}_{m}"] for m in names], -1)
        for name in ("emergence", "lowest", "when", "end", "bump", "bump_at", "last", "inside")
    }
    step = lr[:, None]

    def time(steps: np.ndarray) -> np.ndarray:
        return np.where(np.isfinite(steps), steps, np.nan) * step

    happens = np.isfinite(by["emergence"])
    lasts = by["last"] < by["inside"]
    last = np.where(np.isfinite(carried["stopped"]), carried["stopped"], steps)[:, None] * step
    emergence, end = time(by["emergence"]), np.where(happens, time(by["end"]), np.nan)
    found = {
        "emergence": emergence,
        "minimum": by["lowest"],
        "minimum_time": time(by["when"]),
        "end": end,
        "lifetime": np.where(happens, np.where(lasts, last, end) - emergence, np.nan),
        "lasts": lasts,
        "bump": by["bump"],
        "bump_time": np.where(by["bump"] > 0, time(by["bump_at"]), np.nan),
        "final": by["last"],
    }
    measured = xr.Dataset({name: (("run", "mechanism"), value) for name, value in found.items()})
    measured = measured.assign_coords(mechanism=names)
    measured["winner"] = measures.winner(measured)
    if "phase" in labels_of(sweep.model):
        measured["phase"] = measures.phase(measured)
    measured["stopped"] = ("run", time(carried["stopped"][:, None])[:, 0])
    return _plain(sweep, measured, carried["finite"] > 0)


def _plain(sweep: Sweep, measured: xr.Dataset, finite: np.ndarray) -> dict[str, np.ndarray]:
    """Arrays with labels as numbers, and nothing said of runs that diverged."""
    found = {}
    for name in (*OF_MECHANISM, "lasts", "stopped"):
        value = measured[name].transpose("run", ...).values
        here = finite.reshape(-1, *[1] * (value.ndim - 1))
        found[name] = (value & here).astype(np.int8) if name == "lasts" else np.where(here, value, np.nan)
    for name, labels in labels_of(sweep.model).items():
        number = {label: i for i, label in enumerate(labels)}
        numbers = [number[label] for label in measured[name].values.tolist()]
        found[name] = np.where(finite, numbers, number["diverged"]).astype(np.int8)
    return found


def labels_of(model: Model) -> dict[str, tuple[str, ...]]:
    """The labels of each variable that is stored as a number."""
    return {"winner": winners(model), **({"phase": PHASES} if {"icl", "ciwl"} <= set(model.mechanisms) else {})}
