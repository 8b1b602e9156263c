"""From labelled inputs to arrays: what every integrator does before its first step.

`Problem` holds a model, the batch of its runs, the initial state and the interventions, cut into `Stage`s in which
nothing is switched. An integrator only has to carry a state through one stage after the other.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from toymodel.batch import Batch, as_labelled
from toymodel.checks import POSITIVE, check_memory, check_values, mapping
from toymodel.model import Form, FrozenDict, Model
from toymodel.names import check_dimension
from toymodel.simulation.interventions import Intervention, built, interventions_of
from toymodel.simulation.state import Gram, Reduced
from toymodel.start import check_start
from toymodel.symbolic import System


@dataclass(frozen=True)
class Stage:
    """A stretch of time with everything that holds in it; parameters, gates and pushes are as given."""

    start: float
    end: float
    form: Form
    parameters: dict[str, Any]
    gates: dict[tuple[str, str], Any]
    pushes: dict[str, tuple[Any, Any]]
    active: tuple[Intervention, ...]

    def system(self, state: Reduced) -> System:
        """The slope of this stage in symbols, for a state of it."""
        return System(self.form, frozenset(self.gates), frozenset(self.pushes), frozenset(state.heads), state.fixed)


@dataclass(frozen=True)
class Problem:
    """Labelled inputs of a simulation, checked and brought to one axis of runs."""

    model: Model
    batch: Batch
    parameters: dict[str, Any]
    weights: dict[str, Any]
    interventions: tuple[Intervention, ...]

    @classmethod
    def of(
        cls,
        model: Model,
        labelled: Sequence[xr.DataArray],
        interventions: Any = (),
        weights: Mapping[str, Any] | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> Problem:
        """Checks the arguments against the model; `labelled` is what the start brings of dimensions."""
        acts = tuple(built(act) for act in interventions_of(interventions))
        for act in acts:
            act.check(model)
        given = {p: as_labelled(p, value) for p, value in (parameters or {}).items()}
        of_loss = {p for act in acts for p in act.changed(model).parameters}
        for p, value in given.items():
            if p not in model.parameters and p not in of_loss:
                raise ValueError(f"unknown parameter {p!r}; the loss has {sorted(model.parameters) or 'none'}")
            check_values(p, value)
        others = mapping("weights", weights, model.terms)
        weighed = {t: as_labelled(f"weight_{t}", value) for t, value in {**model.weights, **others}.items()}
        for t, value in weighed.items():
            check_values(f"weights[{t!r}]", value, POSITIVE)
        values = [*given.values(), *weighed.values(), *(v for act in acts for v in act.labelled())]
        values = [value for value in values if isinstance(value, xr.DataArray)]
        batch = Batch.of([*labelled, *values])
        for dim in batch.dims:
            check_dimension("the dimension", dim, model.terms)
        parameters = {**model.parameters, **given}
        for p in {*parameters} & {*batch.dims}:
            own = [given.get(p), *(act.parameters().get(p) for act in acts)]
            if not any(p in value.dims for value in own if isinstance(value, xr.DataArray)):
                raise ValueError(
                    f"start has the dimension {p!r}, as a parameter is called: give {p}=start[{p!r}], or rename it"
                )
        return cls(model, batch, parameters, weighed, acts)

    def check_end(self, end: float, records: int) -> None:
        """Raises ValueError where an intervention begins after the time `end`, or a record of so many times would
        not fit into memory."""
        for act in self.interventions:
            if act.at > end:
                raise ValueError(f"{type(act).__name__}: at={act.at:g} is after the end of the run, t={end:g}")
        quantities = 1 + len(self.model.terms) + 2 * len(self.model.vectors)
        check_memory(
            f"a record of {self.batch.runs} runs at {records:,} times",
            8 * quantities * self.batch.runs * records,
            "record fewer times with every=... (or times=... of a flow)",
        )

    def stages(self, end: float) -> Iterator[Stage]:
        """The stages from time 0 to `end`, in order."""
        acts = self.interventions
        cuts = sorted({0.0, end} | {t for act in acts for t in (act.at, act.until) if 0 < t < end})
        for begin, until in itertools.pairwise(cuts):
            active = tuple(act for act in acts if act.at <= begin < act.until)
            model, values = self.model, dict(self.parameters)
            gates: dict[tuple[str, str], Any] = {}
            pushes: dict[str, tuple[Any, Any]] = {}
            for act in active:
                model = act.changed(model)
                values |= act.parameters()
                for pair, factor in act.gates(model).items():
                    gates[pair] = factor * gates.get(pair, 1.0)
                for x, push in act.pushes(model).items():
                    pushes[x] = tuple(a + b for a, b in zip(push, pushes.get(x, (0.0, 0.0)), strict=True))
            values = {p: values.get(p, default) for p, default in model.parameters.items()}
            yield Stage(begin, until, model.form, values, gates, pushes, active)

    def steps(self, steps: int, lr: float) -> list[tuple[Stage, int, int]]:
        """The stages of a descent with the numbers of the steps at which they begin and end."""
        found = []
        for stage in self.stages(steps * lr):
            times = (stage.start, stage.end)
            begin, end = (round(t / lr) for t in times)
            if any(abs(n * lr - t) > 1e-9 * max(t, 1) for n, t in zip((begin, end), times, strict=True)):
                raise ValueError(f"the times of interventions must be multiples of lr={lr:g}, got {times}")
            found.append((stage, begin, end))
        return found

    def begin(self, stage: Stage, state: Any) -> Any:
        """The state with which a stage starts, from that at the end of the one before."""
        for x in self.model.vectors:
            state = state.free(x)
        for act in stage.active:
            state = act.begin(state, self.batch)
        return state

    def reduced(self, start: xr.Dataset) -> Reduced:
        """The start as a state."""

        def by_vector(name: str, vectors: Sequence[str]) -> dict[str, np.ndarray]:
            return {x: self.batch.flat(start[name].sel(vector=x, drop=True)) for x in vectors}

        entries: dict[str, int] = {}
        if "head_entries" in start:
            entries = {x: int(start["head_entries"].sel(vector=x)) for x in self.model.vectors}
            entries = {x: k for x, k in entries.items() if k > 0}
        inner = [by_vector(name, list(entries)) for name in ("head_ee", "head_ew", "head_ww")] if entries else []
        return Reduced(
            *(by_vector(name, self.model.vectors) for name in ("overlap", "residual", "target_norm")),
            grams={x: Gram(*(part[x] for part in inner)) for x in entries},
            entries=FrozenDict(entries),
        )

    def constants(self, stage: Stage, state: Reduced) -> list[np.ndarray]:
        """The constants of `System.constants` for every run, each of shape (run,)."""
        of_vectors = [c for x in self.model.vectors for c in (state.target[x], *state.heads.get(x, ()))]
        others = [
            *(self.weights[t] for t in self.model.terms),
            *(stage.parameters[p] for p in stage.form.parameters),
            *(stage.gates[pair] for pair in sorted(stage.gates)),
            *(part for x in sorted(stage.pushes) for part in stage.pushes[x]),
        ]
        return [*of_vectors, *(self.batch.flat(value) for value in others)]


def problem_of_start(
    model: Model,
    start: xr.Dataset,
    interventions: Any = (),
    weights: Mapping[str, Any] | None = None,
    parameters: Mapping[str, Any] | None = None,
    others: Sequence[xr.DataArray] = (),
) -> Problem:
    """The problem of a reduced start; others: what else brings dimensions."""
    check_start(model, start)
    labelled = [start[name].isel(vector=0, drop=True) for name in ("overlap", "residual", "target_norm")]
    return Problem.of(model, [*labelled, *others], interventions, weights, parameters)
