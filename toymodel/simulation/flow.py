"""Gradient flow on the reduced loss, dx/dt = -dL/dx, with error control.

"rosenbrock": all runs at once (`toymodel.simulation.rosenbrock`). "LSODA", "Radau": scipy's, one run after the other,
with events (`toymodel.simulation.one_by_one`). "diffrax": the check of the others, whose gradient is derived by JAX
and not by sympy (`toymodel.simulation.kvaerno`). All are implicit, so that 1e7 units of time cost little more than 1e4.

An integrator gives coordinates at the recorded times; all that a run leaves behind is computed from these, here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import xarray as xr
from jaxtyping import Float

from toymodel import measures
from toymodel.checks import Duration, Steps, Tolerance, check_values, checked, mapping
from toymodel.model import Model
from toymodel.progress import progress_bar
from toymodel.simulation.integration import Ended, Event, Integration
from toymodel.simulation.observe import Measures, inside, measured, record
from toymodel.simulation.problem import Problem, problem_of_start
from toymodel.simulation.state import Reduced

CHUNK = 8192  # runs whose losses at all times are in memory together when only measures are wanted


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
    options: dict[str, Any] = {"rtol": float(rtol), "atol": float(atol), "method": method}
    options |= {"events": happening, "max_steps": int(max_steps)}
    problem = problem_of_start(model, start, interventions, weights, parameters)
    problem.check_end(t, 0 if observe else len(when))
    stages = len(list(problem.stages(t)))
    attrs = {"integrator": f"flow ({method})", "rtol": options["rtol"], "atol": options["atol"], **start.attrs}
    with progress_bar(problem.batch.runs * stages, f"flow ({method})", progress, "run") as bar:
        runs = [_Run(part, when, observe, {**options, "bar": bar}).through(start, t) for part in _chunks(problem)]
    if observe is not None:
        return _measured(problem, runs, when, t, observe, attrs)
    return _record(problem, runs, when, attrs)


def recorded_times(t: float) -> np.ndarray:
    """0 and 512 times equally spaced in the logarithm from t/1e6 to t."""
    return np.concatenate([[0.0], np.geomspace(t * 1e-6, t, 512)])


def _times(t: float, times: Any) -> Float[np.ndarray, " time"]:
    if times is None:
        return recorded_times(t)
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


def _chunks(problem: Problem) -> Iterator[Problem]:
    """The problem of some runs after the other."""
    for first in range(0, problem.batch.runs, CHUNK):
        yield replace(problem, batch=replace(problem.batch, block=slice(first, first + CHUNK)))


@dataclass
class _Run:
    """Some runs on their way, and what they leave behind.

    seen: quantity -> (time, run): all of a record, or only losses; happened: event -> (run,).
    """

    problem: Problem
    when: np.ndarray
    observe: Measures | None
    options: dict[str, Any]
    seen: dict[str, np.ndarray] = field(default_factory=dict)
    happened: dict[str, np.ndarray] = field(default_factory=dict)
    start: Reduced | None = None

    def through(self, start: xr.Dataset, t: float) -> _Run:
        """All stages, one after the other."""
        self.start = state = self.problem.reduced(start)
        for stage in self.problem.stages(t):
            state = self.problem.begin(stage, state)
            system = stage.system(state)
            constants = np.stack(self.problem.constants(stage, state))
            times = slice(*np.searchsorted(self.when, [stage.start, np.inf if stage.end == t else stage.end]))
            keep = self.keeper(system, constants, times)
            ends, happened = _integrate(
                Integration(
                    system,
                    state.coordinates(),
                    constants,
                    stage.start,
                    stage.end,
                    self.when[times],
                    keep,
                    **self.options,
                )
            )
            state = state.at(ends)
            for name, at in happened.items():
                self.happened[name] = np.fmin(self.happened.get(name, at), at)
        return self

    def keeper(self, system: Any, constants: np.ndarray, times: slice) -> Any:
        """Computes the quantities of some runs from their coordinates (time, coordinate, run), and keeps them."""
        wanted = {name: value for name, value in system.observed.items() if self.observe is None or name in self.losses}
        function = system.function(list(wanted.values()), "numpy")
        for name in wanted:
            self.seen.setdefault(name, np.full((len(self.when), constants.shape[1]), np.nan))

        def keep(runs: slice, track: np.ndarray) -> None:
            with np.errstate(all="ignore"):
                values = function(*np.moveaxis(track, 1, 0), *constants[:, runs])
            for name, value in zip(wanted, values, strict=True):
                self.seen[name][times, runs] = value

        return keep

    @property
    def losses(self) -> set[str]:
        """What measures are taken of."""
        total = {"loss"} if self.observe is not None and self.observe.stop_below is not None else set()
        return total | {f"loss_{m}" for m in self.problem.model.mechanisms}

    def known(self, stop_below: float | None) -> tuple[dict[str, Any], dict[str, np.ndarray], np.ndarray]:
        """What is known of each mechanism (`measures.BEGIN`), the loss below which it is learned, and when it ended."""
        assert self.start is not None
        learned = inside(self.problem, self.start)
        stopped = np.full(len(next(iter(learned.values()))), measures.NEVER)
        losses = {m: self.seen[f"loss_{m}"] for m in learned}
        if stop_below is not None:
            below = self.seen["loss"] < stop_below
            ends = below.any(0)
            stopped = np.where(ends, self.when[below.argmax(0)], measures.NEVER)
            losses = {m: np.where(self.when[:, None] <= stopped, value, np.nan) for m, value in losses.items()}
        return {m: measures.followed(self.when, losses[m], learned[m]) for m in learned}, learned, stopped


def _measured(
    problem: Problem, runs: list[_Run], when: np.ndarray, t: float, observe: Measures, attrs: dict[str, Any]
) -> xr.Dataset:
    found = [run.known(observe.stop_below) for run in runs]
    known, learned, stopped = (_joined([part[i] for part in found]) for i in range(3))
    last = np.where(stopped < measures.NEVER, stopped, when[-1])
    finite = np.ones(len(stopped), bool)
    ended = None if observe.stop_below is None else stopped
    return measured(problem, known, learned, last, 1.0, finite, ended, attrs)


def _joined(parts: list[Any]) -> Any:
    """Arrays of the chunks as arrays of all runs."""
    if isinstance(parts[0], dict):
        return {name: _joined([part[name] for part in parts]) for name in parts[0]}
    return np.concatenate(parts, -1)


def _record(problem: Problem, runs: list[_Run], when: np.ndarray, attrs: dict[str, Any]) -> xr.Dataset:
    vectors = problem.model.vectors
    seen, happened = _joined([run.seen for run in runs]), _joined([run.happened for run in runs])
    planes: dict[str, Any] = {
        name: np.stack([seen.pop(f"{name}_{x}") for x in vectors], -1) for name in ("overlap", "residual")
    }
    norms = _joined([run.start.target for run in runs if run.start is not None])
    planes["target_norm"] = np.stack([norms[x] for x in vectors], -1)
    made = record(problem, when, None, seen, planes, attrs)
    for name, at in happened.items():
        made[f"event_{name}"] = problem.batch.labelled(at)
    return made
