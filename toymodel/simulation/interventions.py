"""Interventions: what is done to a run from a time on, or between two times.

Each is a frozen dataclass with `at` and `until` in units of time (steps x step size); `at <= t < until` is when it
acts. A run is cut into stages at these times, and inside a stage nothing changes. The same object acts on reduced runs,
on runs of all entries, on descent and on flow; so does its text, and `interventions_of` takes either.

    Clamp("d", overlap=0, residual=0)            hold d at zero: the CIWL pathway is gone
    Clamp("c")                                   hold c at its target
    Clamp("bc", like=finished)                   hold b and c at the state of another run
    Clamp("c", entries=10)                       hold the first 10 entries of c at those of the target
    Freeze("bc", at=500)                         hold b and c where they are at t = 500
    Block("ciwl", "bc")                          the gradient of the term ciwl does not reach b and c
    Change(until=500, loss=lambda icl, ciwl, cost: ciwl)   train CIWL alone, then everything
    Change(at=500, alpha=0)                      another parameter from t = 500 on

A new kind is a new subclass of `Intervention` in this file: what it does to the state (`begin`), to the gradient
(`gates`, `pushes`), or to the model (`changed`, `parameters`).
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from numbers import Real
from typing import Any, TypeVar

import numpy as np
import xarray as xr

from toymodel.batch import Batch, as_labelled, as_text
from toymodel.checks import check_values, checked, number, shown, whole
from toymodel.expression import read
from toymodel.model import Model
from toymodel.simulation.state import State

S = TypeVar("S", bound=State)
ROUNDING = 1e-9  # a recorded residual that is below this may be 0
KINDS: dict[str, type[Intervention]] = {}  # all public subclasses, by name


@dataclass(frozen=True, kw_only=True, eq=False)
class Intervention:
    """Something that acts from the time `at` until just before the time `until`; this one does nothing.

    Two interventions are equal when their texts are.
    """

    at: float = 0.0
    until: float = math.inf

    def __init_subclass__(cls) -> None:
        if not cls.__name__.startswith("_"):
            KINDS[cls.__name__] = cls

    def __post_init__(self):
        at = number(f"{type(self).__name__}: at", self.at)
        if not isinstance(self.until, Real) or not self.until > at:
            raise ValueError(f"{type(self).__name__}: until must be later than at={at:g}, got {self.until!r}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Intervention) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __str__(self) -> str:
        """One line from which it can be made again, where its labelled values are few."""
        return self.text()

    def text(self, labelled: Callable[[Any], str] = as_text) -> str:
        """The line, with labelled values as the function writes them."""
        positional = {part.name for part in fields(self) if not part.kw_only}
        first, second = [], []
        for name, value in self.values().items():
            if value is None or value is math.inf or (isinstance(value, str) and not value):
                continue
            if name == "at" and value == 0:
                continue
            text = labelled(value) if isinstance(value, (xr.DataArray, xr.Dataset)) else _argument(value)
            first.append(text) if name in positional else second.append(f"{name}={text}")
        return f"{type(self).__name__}({', '.join([*first, *second])})"

    def values(self) -> dict[str, Any]:
        """Its arguments by name."""
        return {part.name: getattr(self, part.name) for part in fields(self)}

    def mapped(self, function: Callable[[Any], Any]) -> Intervention:
        """The same with every labelled argument replaced by what the function makes of it."""
        given = self.values()
        labelled = {k: function(v) for k, v in given.items() if isinstance(v, (xr.DataArray, xr.Dataset))}
        return type(self)(**{**given, **labelled})

    def check(self, model: Model) -> None:
        """Raises ValueError where the intervention does not fit the model."""

    def labelled(self) -> list[xr.DataArray]:
        """The values with dimensions of their own, which the batch of runs then has too."""
        return [value for value in self.values().values() if isinstance(value, xr.DataArray)]

    def begin(self, state: S, batch: Batch) -> S:
        """The state as it is while the intervention acts, from the state at the start of a stage."""
        return state

    def gates(self, model: Model) -> Mapping[tuple[str, str], Any]:
        """(term, vector) -> the factor of the gradient of this term that reaches this vector (1 where not given)."""
        return {}

    def pushes(self, model: Model) -> Mapping[str, tuple[Any, Any]]:
        """Vector -> what is added to its gradient, along its target and along its residual."""
        return {}

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


@checked
@dataclass(frozen=True, kw_only=True, eq=False)
class Clamp(_OfVectors):
    """Hold vectors at given values, by default at their targets.

    Arguments:
        vectors: letters.
        at, until: acts while at <= t < until, in units of time (steps x step size).
        overlap, residual: hold them at these coordinates, numbers or DataArrays.
        like: hold them as in this state, a Dataset with overlap and residual along `vector` (a start, or
            `tm.state_at`).
        entries: hold the first so many entries at those of the target, while the others learn.

    Raises:
        ValueError for more than one of these ways, or a value out of range.

    Source: Singh et al. 2025, section 6; for `entries` Singh et al. 2024 (arXiv 2404.07129).

    >>> print(Clamp("d", overlap=0, at=100))
    Clamp('d', at=100, overlap=0)
    """

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
        if self.like is not None:
            if not {"overlap", "residual", "vector"} <= set(self.like.variables) or "time" in self.like.dims:
                raise ValueError(
                    "Clamp: like must hold overlap and residual at one time; take one with tm.state_at(runs, time)"
                )
            check_values("Clamp: like: overlap", self.like["overlap"], -math.inf)
            check_values("Clamp: like: residual", self.like["residual"])

    def values(self) -> dict[str, Any]:
        found = super().values()
        if self.like is not None:
            known = [x for x in self.vectors if x in self.like["vector"].values]
            found["like"] = self.like[["overlap", "residual"]].sel(vector=known)
        return found

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

    def begin(self, state: S, batch: Batch) -> S:
        for x in self.vectors:
            if self.entries is not None:
                state = state.head_clamped(x, self.entries)
                continue
            overlap, residual = self._coordinates(x)
            along = state.norm(x) if overlap is None else batch.flat(overlap)
            state = state.placed(x, along, batch.flat(residual)).frozen(x)
        return state


@checked
@dataclass(frozen=True, kw_only=True, eq=False)
class Freeze(_OfVectors):
    """Hold vectors where they are.

    Arguments:
        vectors: letters.
        at, until: acts while at <= t < until, in units of time (steps x step size).

    Raises:
        ValueError for a time out of range.

    >>> print(Freeze("bc", at=500))
    Freeze('bc', at=500)
    """

    def begin(self, state: S, batch: Batch) -> S:
        for x in self.vectors:
            state = state.frozen(x)
        return state


@checked
@dataclass(frozen=True, kw_only=True, eq=False)
class Block(Intervention):
    """Cut the gradient of a mechanism or cost: it does not reach some vectors.

    The term still counts in the loss, and in the factors that it puts in front of the gradients of other terms.

    Arguments:
        term: its name.
        vectors: letters, by default all of its own.
        at, until: acts while at <= t < until, in units of time (steps x step size).

    Raises:
        ValueError for a time out of range.

    >>> print(Block("ciwl", "bc", until=500))
    Block('ciwl', 'bc', until=500)
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

    def gates(self, model: Model) -> Mapping[tuple[str, str], Any]:
        return {(self.term, x): 0.0 for x in self.vectors or model.terms[self.term]}


class Change(Intervention):
    """Another loss, or other values of parameters.

    Arguments:
        at, until: acts while at <= t < until, in units of time (steps x step size).
        loss: a function of the same mechanisms and costs, or its text.
        parameters: name -> value, numbers or DataArrays.

    Raises:
        ValueError where nothing is changed, or for a value out of range.

    >>> print(Change(until=500, loss="ciwl"))
    Change(until=500, loss='ciwl')
    """

    def __init__(
        self, *, at: float = 0.0, until: float = math.inf, loss: Callable[..., Any] | None = None, **parameters: Any
    ):
        if not (loss is None or isinstance(loss, (str, partial)) or inspect.isroutine(loss)):
            raise ValueError(f"Change: loss must be a function of the mechanisms and costs, or text, got {shown(loss)}")
        object.__setattr__(self, "loss", loss)
        object.__setattr__(self, "_values", {p: as_labelled(p, value) for p, value in parameters.items()})
        super().__init__(at=at, until=until)
        if loss is None and not parameters:
            raise ValueError("Change needs a loss, or a parameter as keyword")

    __repr__ = Intervention.__str__

    def values(self) -> dict[str, Any]:
        return {**super().values(), "loss": self.loss, **self.parameters()}  # type: ignore[attr-defined]

    def check(self, model: Model) -> None:
        changed = self.changed(model)
        for p, value in self.parameters().items():
            if p not in changed.parameters:
                raise ValueError(f"Change: unknown parameter {p!r}; the loss has {sorted(changed.parameters)}")
            check_values(p, value)

    def changed(self, model: Model) -> Model:
        loss = self.loss  # type: ignore[attr-defined]
        if loss is None:
            return model
        values = {**model.parameters, **{p: np.ravel(value)[0] for p, value in self.parameters().items()}}
        if isinstance(loss, str):
            loss = _loss_of(model, loss, values)
        names = inspect.signature(loss).parameters if callable(loss) else ()
        known = {p: value for p, value in values.items() if p in names}
        return Model(model.mechanisms, loss, model.dims, model.costs, known, model.weights, model.target_norms)

    def parameters(self) -> dict[str, Any]:
        return self._values  # type: ignore[attr-defined]


def _argument(value: Any) -> str:
    """An argument as text: a loss by its expression."""
    if callable(value):
        names = inspect.signature(value).parameters
        import sympy as sp

        return repr(str(value(**{name: sp.Symbol(name, nonnegative=True) for name in names})))
    if isinstance(value, Real) and not isinstance(value, bool):
        return repr(float(value)).removesuffix(".0")
    return repr(value)


def _loss_of(model: Model, text: str, values: Mapping[str, Any]) -> Callable[..., Any]:
    """The loss that a text stands for, with the values of its parameters as defaults."""
    names = set(read(text).names) - set(model.terms)
    if missing := names - set(values):
        raise ValueError(f"Change: loss={text!r} has the unknown name {sorted(missing)[0]!r}; give it a value")
    own = {p: float(values[p]) for p in names}
    other = Model.from_expression(text, model.mechanisms, model.dims, costs=model.costs, parameters=own)
    return partial(other.loss, **own)


def interventions_of(given: Any) -> tuple[Intervention | str, ...]:
    """Interventions from objects, texts, or one text with `;` between them; a text that uses names, which stand for
    values of a sweep, stays text, in a standard spelling. Raises ValueError for anything else."""
    if isinstance(given, str):
        given = [part for part in given.split(";") if part.strip()]
    if isinstance(given, Intervention) or not isinstance(given, Sequence):
        raise ValueError(f"interventions must be a list, such as [tm.Clamp('d')], or text, got {given!r}")
    found: list[Intervention | str] = []
    for part in given:
        if isinstance(part, Intervention):
            found.append(part)
        elif isinstance(part, str):
            call = _call(part)
            found.append(ast.unparse(call) if _names(call) else _built(call, {}))
        else:
            raise ValueError(f"interventions must be made of {', '.join(KINDS)} or their text, got {part!r}")
    return tuple(found)


def names_in(acts: Sequence[Intervention | str]) -> set[str]:
    """The names of swept values that the texts among the interventions use."""
    return {name for act in acts if isinstance(act, str) for name in _names(_call(act))}


def built(act: Intervention | str, values: Mapping[str, float] | None = None) -> Intervention:
    """The intervention with these values in place of names."""
    return _built(_call(act), values or {}) if isinstance(act, str) else act


def at_runs(act: Intervention, coordinates: Mapping[str, np.ndarray]) -> Intervention:
    """The intervention with every labelled value looked up at the coordinates of each run."""

    def looked_up(value: Any) -> Any:
        if unknown := {str(d) for d in value.dims} - set(coordinates) - {"vector"}:
            raise ValueError(
                f"{type(act).__name__}: a value has the dimension {sorted(unknown)[0]!r}, not of this sweep"
            )
        where = {str(d): xr.DataArray(coordinates[str(d)], dims="run") for d in value.dims if d != "vector"}
        return value.sel(where).drop_vars([str(name) for name in where])

    return act.mapped(looked_up)


def digest(act: Intervention | str) -> str:
    """One line that is the same for the same intervention; labelled values enter with a digest."""

    def short(value: Any) -> str:
        return hashlib.sha256(json.dumps(value.to_dict(), default=str).encode()).hexdigest()[:16]

    return act if isinstance(act, str) else act.text(short)


def _call(text: str) -> ast.Call:
    try:
        call = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        call = None
    if not isinstance(call, ast.Call) or getattr(call.func, "id", None) not in KINDS:
        raise ValueError(
            f"an intervention must be like 'Clamp(\"d\", overlap=0)', one of {list(KINDS)}, got {shown(text)}"
        )
    return call


def _names(call: ast.Call) -> set[str]:
    arguments = [*call.args, *(keyword.value for keyword in call.keywords)]
    return {node.id for argument in arguments for node in ast.walk(argument) if isinstance(node, ast.Name)}


def _built(call: ast.Call, values: Mapping[str, float]) -> Intervention:
    def value(node: ast.expr) -> Any:
        if isinstance(node, ast.Name):
            if node.id not in values:
                hint = f"; in quotes if it is text: {node.id!r}" if node.id.isalpha() else ""
                raise ValueError(f"{ast.unparse(call)}: {node.id!r} is no varied value{hint}")
            return float(values[node.id])
        try:
            return ast.literal_eval(node)
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            raise ValueError(f"{ast.unparse(call)}: {ast.unparse(node)!r} is no number, text or name") from None

    name = call.func.id  # type: ignore[attr-defined]
    keywords = {str(keyword.arg): value(keyword.value) for keyword in call.keywords}
    if isinstance(keywords.get("entries"), float):
        keywords["entries"] = int(keywords["entries"])
    kind = KINDS[name]
    try:
        return kind(*[value(argument) for argument in call.args], **keywords)
    except TypeError:
        taken = [p for p in inspect.signature(kind).parameters if p != "parameters"]
        raise ValueError(f"{ast.unparse(call)}: {name} takes {', '.join(taken)}") from None
