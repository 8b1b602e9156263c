"""From labelled inputs to arrays: what every integrator does before its first step.

`Problem` holds a model, the batch of its runs, the initial state and the interventions, cut into `Stage`s in which
nothing is switched. An integrator only has to carry a state through one stage.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from toymodel.batch import Batch, as_labelled
from toymodel.checks import POSITIVE, check_values, mapping
from toymodel.model import Form, FrozenDict, Model
from toymodel.reduction import reduced_loss, terms
from toymodel.simulation.interventions import Intervention, segments
from toymodel.simulation.state import Gram, Reduced
from toymodel.start import check_start


@dataclass(frozen=True)
class Stage:
    """A stretch of time with everything that holds in it; parameters are as given."""

    start: float
    end: float
    form: Form
    parameters: dict[str, Any]
    blocked: frozenset[tuple[str, str]]
    active: tuple[Intervention, ...]


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
        interventions: Sequence[Intervention],
        weights: Mapping[str, Any] | None,
        parameters: Mapping[str, Any],
    ) -> Problem:
        """Checks the arguments against the model; `labelled` is what the start brings of dimensions."""
        for act in _listed(interventions):
            act.check(model)
        given = {p: as_labelled(p, value) for p, value in parameters.items()}
        of_loss = {p for act in interventions for p in act.changed(model).parameters}
        for p, value in given.items():
            if p not in model.parameters and p not in of_loss:
                raise ValueError(f"unknown parameter {p!r}; the loss has {sorted(model.parameters) or 'none'}")
            check_values(p, value)
        others = mapping("weights", weights, model.terms)
        weighed = {t: as_labelled(f"weight_{t}", value) for t, value in {**model.weights, **others}.items()}
        for t, value in weighed.items():
            check_values(f"weights[{t!r}]", value, POSITIVE)
        values = [*given.values(), *weighed.values(), *(v for act in interventions for v in act.labelled())]
        values = [value for value in values if isinstance(value, xr.DataArray)]
        batch = Batch.of([*labelled, *values])
        if taken := {"time", "step", "vector", "mechanism"} & set(batch.dims):
            raise ValueError(f"the dimension {min(taken)!r} belongs to the record; sweep along another name")
        parameters = {**model.parameters, **given}
        for p in {*parameters} & {*batch.dims}:
            if not any(p in value.dims for value in values):
                raise ValueError(
                    f"start has the dimension {p!r}, as a parameter is called: give {p}=start[{p!r}], or rename it"
                )
        return cls(model, batch, parameters, weighed, tuple(interventions))

    def check_end(self, end: float, records: int) -> None:
        """Raises ValueError where an intervention begins after the time `end`, or a record of so many times would
        not fit into memory."""
        for act in self.interventions:
            if act.at > end:
                raise ValueError(f"{type(act).__name__}: at={act.at:g} is after the end of the run, t={end:g}")
        quantities = 1 + len(self.model.terms) + 2 * len(self.model.vectors)
        size = 8 * quantities * self.batch.runs * records
        if size > os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"):
            raise ValueError(
                f"a record of {self.batch.runs} runs at {records:,} times has {size / 2**30:,.0f} GiB, more than the "
                "memory of this machine; record fewer times with every=... (or times=... of a flow)"
            )

    def block(self, runs: slice) -> Problem:
        """The same problem for some of its runs."""
        return replace(self, batch=replace(self.batch, block=runs))

    def stages(self, end: float) -> Iterator[Stage]:
        """The stages from time 0 to `end`, in order."""
        for segment in segments(self.interventions, end):
            model, values, blocked = self.model, dict(self.parameters), frozenset()
            for act in segment.active:
                model = act.changed(model)
                values |= act.parameters()
                blocked |= act.blocked(model)
            values = {p: values.get(p, default) for p, default in model.parameters.items()}
            yield Stage(segment.start, segment.end, model.form, values, blocked, segment.active)

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
        """The start as a state; call it where float64 is enabled."""

        def by_vector(name: str, vectors: Sequence[str]) -> dict[str, jax.Array]:
            return {x: jnp.asarray(self.batch.flat(start[name].sel(vector=x, drop=True))) for x in vectors}

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


def _listed(interventions: Any) -> Sequence[Intervention]:
    if isinstance(interventions, Intervention) or not isinstance(interventions, Sequence):
        raise ValueError(f"interventions must be a list, such as [tm.Clamp('d')], got {interventions!r}")
    for act in interventions:
        if not isinstance(act, Intervention):
            raise ValueError(f"interventions must be made of Clamp, Freeze, Block and Change, got {act!r}")
    return interventions


def problem_of_start(
    model: Model,
    start: xr.Dataset,
    interventions: Sequence[Intervention],
    weights: Mapping[str, Any] | None,
    parameters: Mapping[str, Any],
) -> Problem:
    """The problem of a reduced start."""
    check_start(model, start)
    labelled = [start[name].isel(vector=0, drop=True) for name in ("overlap", "residual", "target_norm")]
    return Problem.of(model, labelled, interventions, weights, parameters)


def loss_of(
    stage_form: Form, blocked: frozenset[tuple[str, str]], state: Reduced, weights: Any, parameters: Any
) -> Any:
    """The reduced loss of each run, shape (runs,); blocked pairs (term, vector) let no gradient through."""
    if not blocked:
        return reduced_loss(stage_form, {x: state.plane(x) for x in stage_form.vectors}, weights, parameters)

    def seen(term: str, x: str, plane: Any) -> Any:
        return jax.lax.stop_gradient(plane) if (term, x) in blocked else plane

    planes = {x: state.plane(x) for x in stage_form.vectors}
    return stage_form.loss(**terms(stage_form, planes, weights, seen), **parameters)


def loss_and_slope(
    stage_form: Form, blocked: frozenset[tuple[str, str]], state: Reduced, weights: Any, parameters: Any
) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The loss of each run and its gradient in u and in v for the vectors that are free to move."""
    moving = [x for x in stage_form.vectors if x not in state.fixed]

    def loss(u, v):
        return loss_of(stage_form, blocked, replace(state, u={**state.u, **u}, v={**state.v, **v}), weights, parameters)

    value, pull = jax.vjp(loss, {x: state.u[x] for x in moving}, {x: state.v[x] for x in moving})
    return value, *pull(jnp.ones_like(value))


def measured(
    form: Form, followed: Form, state: Reduced, track: Any, weights: Any, parameters: Any, count: int
) -> dict[str, np.ndarray]:
    """The quantities of a record from the first `count` entries of a track of coordinates, (time, coordinate, run).

    The loss is that of the form which is `followed`; losses are (time, run), overlap and residual (time, run, vector).
    """
    values = _measured(form, followed, state, track, weights, parameters)
    return {name: np.asarray(value)[:count] for name, value in values.items()}


@partial(jax.jit, static_argnames=("form", "followed"))
def _measured(form: Form, followed: Form, state: Reduced, track: Any, weights: Any, parameters: Any) -> dict[str, Any]:
    def at_one_time(coordinates):
        planes = {x: state.at(coordinates).plane(x) for x in form.vectors}
        values = terms(form, planes, weights)
        return {
            "loss": followed.loss(**values, **parameters),
            **{(f"loss_{t}" if t in form.mechanisms else t): value for t, value in values.items()},
            "overlap": jnp.stack([planes[x].overlap for x in form.vectors], -1),
            "residual": jnp.stack([jnp.sqrt(planes[x].residual_square) for x in form.vectors], -1),
        }

    return jax.vmap(at_one_time)(track)
