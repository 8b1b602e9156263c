"""Gradient flow on the reduced loss, dx/dt = -dL/dx, with error control.

"rosenbrock": all runs at once (`toymodel.simulation.rosenbrock`). "LSODA", "Radau": scipy's, one run after the other,
with events (`toymodel.simulation.one_by_one`). "diffrax": the check of the others, whose gradient is derived by JAX
and not by sympy (`toymodel.simulation.kvaerno`). All are implicit, so that 1e7 units of time cost little more than 1e4.

An integrator gives coordinates at the recorded times; all that a run leaves behind is computed from these, here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import numpy as np
import xarray as xr
from jaxtyping import Float

from toymodel import measures
from toymodel.checks import Duration, Steps, Tolerance, check_values, checked, mapping
from toymodel.model import Model
from toymodel.progress import progress_bar
from toymodel.simulation.integration import Ended, Event, Integration
from toymodel.simulation.observe import Measures, measured, record, unlearned
from toymodel.simulation.problem import Problem, Stage, problem_of_start
from toymodel.simulation.state import Reduced
from toymodel.symbolic import System


@checked
def flow(
    model: Model,
    start: xr.Dataset,
    t: Duration,
    *,
    times: Any = None,
    rtol: Tolerance = 1e-9,
    atol: Tolerance = 1e-12,
    method: Literal["rosenbrock", "diffrax", "LSODA", "Radau"] = "rosenbrock",
    events: Mapping[str, Any] | None = None,
    max_steps: Steps = 100_000,
    observe: Measures | None = None,
    interventions: Any = (),
    weights: Mapping[str, Any] | None = None,
    progress: bool | None = None,
    **parameters: Any,
) -> xr.Dataset:
    """Gradient flow from a start until the time t, in float64.

    Arguments:
        model, start: the loss, and where runs begin (`tm.paper_start` and others).
        times: when to record, increasing within 0..t; by default 0 and 512 times equally spaced in log(time) from t/1e6
            to t.
        rtol, atol: tolerances of one step, relative and absolute.
        method: "rosenbrock", "diffrax", "LSODA" or "Radau" (the last two from scipy).
        events: of scipy's methods; name -> function of the quantities of a run (a mapping with loss, loss_<mechanism>,
            costs, overlap_<x>, residual_<x>) whose first change of sign is located. Its time is the variable
            `event_<name>` (NaN if it does not happen; a jump where an intervention begins or ends is no event).
        max_steps: of the integrator, for one run between two switches.
        observe: `Measures()` in place of a record: the measures of every run, looked at at the recorded times.
        interventions, weights, progress, parameters: as in `descend`.

    Returns:
        A record, or measures, along the dimensions of the batch (`toymodel.simulation.observe`).

    Raises:
        ValueError for an argument out of range or an event that is no function of the quantities. RuntimeError where
        the integrator gives up, or in the child of a fork.

    Source: `derivations/reduction.py`; the methods are named at the top of this module.

    >>> import toymodel as tm
    >>> model = tm.Model({"icl": "a"}, lambda icl: icl, {"a": 4}, weights={"icl": 1.0})
    >>> runs = tm.flow(model, tm.aligned_start(model, overlap=0.0, residual=1.0), t=2.0, times=[0, 1, 2])
    >>> runs.residual.values.ravel().round(6).tolist()  # exp(-t)
    [1.0, 0.367879, 0.135335]
    """
    t, when = float(t), _times(float(t), times)
    happening = _happening(method, events)
    tolerances = {"rtol": float(rtol), "atol": float(atol)}
    options = {**tolerances, "method": method, "events": happening, "max_steps": int(max_steps)}
    problem = problem_of_start(model, start, interventions, weights, parameters)
    problem.check_end(t, 0 if observe else len(when))
    stages = list(problem.stages(t))
    attrs = {"integrator": f"flow ({method})", **tolerances, **start.attrs}
    run = _Run(problem, problem.reduced(start), when, observe)
    with progress_bar(problem.batch.runs * len(stages), f"flow ({method})", progress, "run") as bar:
        run.through(stages, options, bar)
    return run.record(attrs) if observe is None else run.measures(observe, attrs)


def _times(t: float, times: Any) -> Float[np.ndarray, " time"]:
    if times is None:
        return np.concatenate([[0.0], np.geomspace(t * 1e-6, t, 512)])
    check_values("times", times)
    when = np.asarray(times, dtype=float)
    if when.ndim != 1 or (np.diff(when) <= 0).any() or when[-1] > t:
        raise ValueError(f"times must be an increasing list within 0..t={t:g}")
    return when


def _happening(method: str, events: Any) -> dict[str, Event]:
    """The events, once they are functions, and the method locates them."""
    happening = mapping("events", events)
    if happening and method not in ("LSODA", "Radau"):
        raise ValueError("events are located by scipy: use method='LSODA' or 'Radau'")
    for name, event in happening.items():
        if not callable(event):
            raise ValueError(f"events: {name!r} must be a function of the quantities of a run, got {event!r}")
    return happening


def _integrate(work: Integration) -> Ended:
    """By the method that was asked for; each is imported when it is first used."""
    if work.method == "rosenbrock":
        from toymodel.simulation.rosenbrock import rosenbrock

        return rosenbrock(work)
    if work.method == "diffrax":
        from toymodel.simulation.kvaerno import kvaerno

        return kvaerno(work)
    from toymodel.simulation.one_by_one import one_by_one

    return one_by_one(work)


class _Run:
    """All runs on their way, and what they leave behind: a record, or what is known of each mechanism."""

    def __init__(self, problem: Problem, state: Reduced, when: np.ndarray, observe: Measures | None):
        self.problem, self.state, self.when, self.observe = problem, state, when, observe
        self.norms, runs = state.target, problem.batch.runs
        self.seen: dict[str, np.ndarray] = {}  # quantity -> (time, run)
        self.happened: dict[str, np.ndarray] = {}  # event -> (run,)
        self.learned = {m: measures.LEARNED * level for m, level in unlearned(problem, self.norms).items()}
        self.known = {m: measures.begun(runs) for m in self.learned}
        self.stopped = np.full(runs, measures.NEVER)

    def through(self, stages: list[Stage], options: dict[str, Any], bar: Any) -> None:
        """All stages, one after the other."""
        for stage in stages:
            state = self.problem.begin(stage, self.state)
            system, constants = stage.system(state), np.stack(self.problem.constants(stage, state))
            until = np.inf if stage is stages[-1] else stage.end
            times = slice(*np.searchsorted(self.when, [stage.start, until]))
            keep = self.keeper(system, constants, times, bar)
            span = stage.start, stage.end, self.when[times]
            ends, happened = _integrate(Integration(system, state.coordinates(), constants, *span, keep, **options))
            self.state = state.at(ends)
            for name, at in happened.items():
                self.happened[name] = np.fmin(self.happened.get(name, at), at)

    def keeper(self, system: System, constants: np.ndarray, times: slice, bar: Any) -> Callable[..., None]:
        """Takes the coordinates (time, coordinate, run) of some runs at these times, and keeps what is wanted."""
        wanted = system.observed
        if self.observe is None:
            for name in wanted:
                self.seen.setdefault(name, np.full((len(self.when), constants.shape[1]), np.nan))
            take = self.fill
        else:
            wanted = {name: wanted[name] for name in ("loss", *(f"loss_{m}" for m in self.known))}
            least = -np.inf if self.observe.stop_below is None else self.observe.stop_below
            take = partial(self.follow, least, measures.follow_all())
        function = system.function(list(wanted.values()), "numpy")

        def keep(runs: slice, track: np.ndarray) -> None:
            with np.errstate(all="ignore"):
                values = function(*np.moveaxis(track, 1, 0), *constants[:, runs])
            take(times, runs, dict(zip(wanted, values, strict=True)))
            bar.update(runs.stop - runs.start)

        return keep

    def fill(self, times: slice, runs: slice, values: dict[str, Any]) -> None:
        """Puts quantities into the record."""
        for name, value in values.items():
            self.seen[name][times, runs] = value

    def follow(
        self, least: float, follow_all: Callable[..., None], times: slice, runs: slice, values: dict[str, Any]
    ) -> None:
        """Takes the measures of some runs through these times, until their loss is below the least."""
        when = self.when[times, None]
        below = np.where(values["loss"] < least, when, measures.NEVER)
        self.stopped[runs] = np.minimum(self.stopped[runs], below.min(0, initial=measures.NEVER))
        for m, known in self.known.items():
            losses = np.where(when <= self.stopped[runs], values[f"loss_{m}"], np.nan)
            of_runs = (known[name][runs] for name in known)
            follow_all(when[:, 0], losses, self.learned[m][runs], *of_runs)

    def measures(self, observe: Measures, attrs: dict[str, Any]) -> xr.Dataset:
        found = self.known, self.learned, self.stopped, self.when[-1]
        return measured(self.problem, observe, self.state, *found, 1.0, attrs)

    def record(self, attrs: dict[str, Any]) -> xr.Dataset:
        made = record(self.problem, self.when, None, self.seen, self.norms, attrs)
        for name, at in self.happened.items():
            made[f"event_{name}"] = self.problem.batch.labelled(at)
        return made
