"""Interventions: what is done to a run from a time on, or between two times.

Each is a frozen dataclass with `at` and `until` in units of time (steps x step size); `at <= t < until` is when it
acts. A run is cut into segments at these times (`segments`), and inside a segment nothing changes. The same object
acts on reduced runs, on runs of all entries, on descent and on flow.

    Clamp("d", overlap=0, residual=0)            hold d at zero: the CIWL pathway is gone
    Clamp("c")                                   hold c at its target
    Clamp("bc", like=finished)                   hold b and c at the state of another run
    Clamp("c", entries=10)                       hold the first 10 entries of c at those of the target
    Freeze("bc", at=500)                         hold b and c where they are at t = 500
    Block("ciwl", "bc")                          the gradient of the term ciwl does not reach b and c
    Change(until=500, loss=lambda icl, ciwl, cost: ciwl)   train CIWL alone, then everything
    Change(at=500, alpha=0)                      another parameter from t = 500 on
"""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, ClassVar, TypeVar

import jax.numpy as jnp
import numpy as np
import xarray as xr

from toymodel.batch import Batch, as_labelled
from toymodel.checks import check_values, number, whole
from toymodel.model import Model
from toymodel.simulation.state import Full, Reduced

State = TypeVar("State", Reduced, Full)
ROUNDING = 1e-9  # a recorded residual that is below this may be 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Intervention:
    """Something that acts from the time `at` until just before the time `until`; this one does nothing."""

    at: float = 0.0
    until: float = math.inf

    def __post_init__(self):
        at = number(f"{type(self).__name__}: at", self.at)
        if not isinstance(self.until, Real) or not self.until > at:
            raise ValueError(f"{type(self).__name__}: until must be later than at={at:g}, got {self.until!r}")

    def check(self, model: Model) -> None:
        """Raises ValueError where the intervention does not fit the model."""

    def labelled(self) -> list[xr.DataArray]:
        """The values with dimensions of their own, which the batch of runs then has too."""
        return []

    def begin(self, state: State, batch: Batch) -> State:
        """The state as it is while the intervention acts, from the state at the start of a segment."""
        return state

    def blocked(self, model: Model) -> frozenset[tuple[str, str]]:
        """Pairs (term, vector) for which the gradient is cut."""
        return frozenset()

    def changed(self, model: Model) -> Model:
        """The model while the intervention acts."""
        return model

    def parameters(self) -> dict[str, Any]:
        """Parameters with other values while the intervention acts."""
        return {}


@dataclass(frozen=True, kw_only=True, eq=False)
class _OfVectors(Intervention):
    vectors: str = field(kw_only=False)

    def check(self, model: Model) -> None:
        known = isinstance(self.vectors, str) and self.vectors and set(self.vectors) <= set(model.vectors)
        if not known:
            raise ValueError(
                f"{type(self).__name__}({self.vectors!r}): the vectors of the model are {list(model.vectors)}"
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class Clamp(_OfVectors):
    """Hold vectors at given values: the target by default; an `overlap` and a `residual` (numbers or DataArrays); the
    state `like` (a Dataset with overlap and residual along `vector`, such as a start or one time of a run); or, with
    `entries=k`, the first k entries at those of the target while the others learn (arXiv 2404.07129)."""

    overlap: Any = None
    residual: Any = None
    like: xr.Dataset | None = None
    entries: int | None = None

    def __post_init__(self):
        super().__post_init__()
        ways = [self.overlap is not None or self.residual is not None, self.like is not None, self.entries is not None]
        if sum(ways) > 1:
            raise ValueError("Clamp takes one of overlap and residual, like, or entries")
        for name, value, least in (("overlap", self.overlap, -math.inf), ("residual", self.residual, 0.0)):
            if value is not None:
                check_values(f"Clamp: {name}", value, least)
                if np.ndim(value) and not isinstance(value, xr.DataArray):
                    raise ValueError(f"Clamp: {name} must be a number or an xarray.DataArray, got {value!r}")
        if self.like is not None and not (
            isinstance(self.like, xr.Dataset)
            and {"overlap", "residual", "vector"} <= set(self.like.variables)
            and "time" not in self.like.dims
        ):
            raise ValueError(
                "Clamp: like must hold overlap and residual at one time; take one with tm.state_at(runs, time)"
            )
        if self.like is not None:
            check_values("Clamp: like: overlap", self.like["overlap"], -math.inf)
            check_values("Clamp: like: residual", self.like["residual"])

    def check(self, model: Model) -> None:
        super().check(model)
        if self.like is not None and (missing := set(self.vectors) - set(self.like["vector"].values.tolist())):
            raise ValueError(f"Clamp: like has no vector {sorted(missing)[0]!r}; take a state of a run that has it")
        for x in self.vectors:
            if self.entries is not None:
                whole(f"Clamp({x!r}): entries", self.entries, 1, model.dims[x])
            if model.dims[x] == 1 and np.any(np.asarray(self._coordinates(x)[1]) > ROUNDING):
                raise ValueError(f"Clamp({x!r}): residual must be 0, since a vector of one entry has none")

    def _coordinates(self, x: str) -> tuple[Any, Any]:
        if self.like is not None:
            here = self.like.sel(vector=x, drop=True)
            return here["overlap"], here["residual"]
        return self.overlap, 0.0 if self.residual is None else self.residual

    def labelled(self) -> list[xr.DataArray]:
        values = [value for x in self.vectors for value in self._coordinates(x)]
        return [value for value in values if isinstance(value, xr.DataArray)]

    def begin(self, state: State, batch: Batch) -> State:
        for x in self.vectors:
            if self.entries is not None:
                state = state.head_clamped(x, self.entries)
                continue
            overlap, residual = self._coordinates(x)
            norm = state.target[x] if isinstance(state, Reduced) else jnp.linalg.norm(state.targets[x], axis=-1)
            overlap = norm if overlap is None else jnp.asarray(batch.flat(overlap), norm.dtype)
            state = state.placed(x, overlap, jnp.asarray(batch.flat(residual), norm.dtype)).frozen(x)
        return state


@dataclass(frozen=True, kw_only=True)
class Freeze(_OfVectors):
    """Hold vectors where they are."""

    def begin(self, state: State, batch: Batch) -> State:
        for x in self.vectors:
            state = state.frozen(x)
        return state


@dataclass(frozen=True, kw_only=True)
class Block(Intervention):
    """Cut the gradient of a mechanism or cost: it does not reach the given vectors (by default, all of its own).

    The term still counts in the loss, and in the factors that it puts in front of the gradients of other terms.
    """

    term: str = field(kw_only=False)
    vectors: str = field(default="", kw_only=False)

    def check(self, model: Model) -> None:
        if self.term not in model.terms:
            raise ValueError(f"Block: unknown term {self.term!r}; the model has {list(model.terms)}")
        if wrong := [x for x in self.vectors if x not in model.terms[self.term]]:
            raise ValueError(
                f"Block: {self.term} has no vector {wrong[0]!r}; it is made of {list(model.terms[self.term])}"
            )

    def blocked(self, model: Model) -> frozenset[tuple[str, str]]:
        return frozenset((self.term, x) for x in self.vectors or model.terms[self.term])


class Change(Intervention):
    """Another loss (a function of the same mechanisms and costs), or other values of parameters."""

    _own: ClassVar[set[str]] = {"at", "until", "loss"}

    def __init__(
        self, *, at: float = 0.0, until: float = math.inf, loss: Callable[..., Any] | None = None, **parameters: Any
    ):
        object.__setattr__(self, "loss", loss)
        object.__setattr__(self, "_values", {p: as_labelled(p, value) for p, value in parameters.items()})
        super().__init__(at=at, until=until)
        if loss is None and not parameters:
            raise ValueError("Change needs a loss, or a parameter as keyword")

    def __repr__(self) -> str:
        loss = "" if self.loss is None else ", loss=..."  # type: ignore[attr-defined]
        values = "".join(f", {p}={value}" for p, value in self.parameters().items())
        return f"Change(at={self.at}, until={self.until}{loss}{values})"

    def check(self, model: Model) -> None:
        changed = self.changed(model)
        for p, value in self.parameters().items():
            if p not in changed.parameters:
                raise ValueError(f"Change: unknown parameter {p!r}; the loss has {sorted(changed.parameters)}")
            check_values(p, value)

    def labelled(self) -> list[xr.DataArray]:
        return [value for value in self.parameters().values() if isinstance(value, xr.DataArray)]

    def changed(self, model: Model) -> Model:
        loss = self.loss  # type: ignore[attr-defined]
        if loss is None:
            return model
        values = {**model.parameters, **{p: np.ravel(value)[0] for p, value in self.parameters().items()}}
        names = inspect.signature(loss).parameters if callable(loss) else ()
        known = {p: value for p, value in values.items() if p in names}
        return Model(model.mechanisms, loss, model.dims, model.costs, known, model.weights, model.target_norms)

    def parameters(self) -> dict[str, Any]:
        return self._values  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Segment:
    """A stretch of a run in which nothing is switched: the times, and the interventions that act."""

    start: float
    end: float
    active: tuple[Intervention, ...]


def segments(interventions: Iterable[Intervention], end: float) -> list[Segment]:
    """The stretches from 0 to `end` between which an intervention begins or ends."""
    acts = tuple(interventions)
    cuts = sorted({0.0, end} | {t for act in acts for t in (act.at, act.until) if 0 < t < end})
    return [
        Segment(t0, t1, tuple(act for act in acts if act.at <= t0 < act.until)) for t0, t1 in itertools.pairwise(cuts)
    ]
