"""What is free in a fit: names, bounds, and the way from numbers x, which a fit moves, to a run.

    alpha, mu_icl, ...         a parameter of the loss
    weight.icl                 the weight of a term
    target_norm.a              |x*| of a vector; several letters (target_norm.abc) are vectors that have it in common
    overlap.a, residual.a      where a vector starts
    start                      a factor of all overlaps and residuals of the start
    time                       model time in one unit of the data's time

A value with bounds > 0 is moved on a logarithmic scale, x = log value, any other one in units of its range.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
import xarray as xr

from toymodel.checks import check_values, number, shown
from toymodel.model import Model
from toymodel.simulation.interventions import Clamp
from toymodel.simulation.problem import problem_of_start
from toymodel.symbolic import System

KINDS = ("weight", "target_norm", "overlap", "residual")
FACTORS = ("time", "start")


@dataclass(frozen=True)
class Free:
    """One free value: its name, its bounds, and where it enters (positions in `Layout.base`)."""

    name: str
    low: float
    high: float
    places: tuple[int, ...]

    @property
    def factor(self) -> bool:
        return self.name == "start"

    @property
    def log(self) -> bool:
        return self.low > 0

    @property
    def unit(self) -> float:
        return 1.0 if self.log else self.high - self.low

    def moved(self, value: Any) -> Any:
        """x of a value."""
        return np.log(value) if self.log else np.asarray(value) / self.unit

    def value(self, x: Any) -> Any:
        """The value of x; numpy or JAX."""
        xp = np if isinstance(x, (np.ndarray, float)) else jnp
        return xp.exp(x) if self.log else x * self.unit


@dataclass(frozen=True)
class Layout:
    """How a run is written as one row of numbers: coordinates, constants (both in the order of `System`), and time.

    base: (run, number), the values of what is not free.
    """

    system: System
    base: np.ndarray
    free: tuple[Free, ...]

    @property
    def coordinates(self) -> int:
        return len(self.system.coordinates)

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """The bounds of x."""
        return tuple(np.array([one.moved(getattr(one, end)) for one in self.free]) for end in ("low", "high"))  # type: ignore[return-value]

    def first(self) -> np.ndarray:
        """x of the values that the model and the start have, within the bounds."""
        values = [1.0 if one.factor else float(np.mean(self.base[:, one.places])) for one in self.free]
        inside = [float(np.clip(value, one.low, one.high)) for one, value in zip(self.free, values, strict=True)]
        return np.array([one.moved(value) for one, value in zip(self.free, inside, strict=True)])


def row(free: tuple[Free, ...], x: Any, base: Any) -> Any:
    """The numbers of one run, in JAX, from x (free,) and its row of `Layout.base`; factors come last."""
    for one, at in sorted(zip(free, x, strict=True), key=lambda pair: pair[0].factor):
        places = jnp.array(one.places)
        base = base.at[places].multiply(one.value(at)) if one.factor else base.at[places].set(one.value(at))
    return base


def layout(model: Model, start: xr.Dataset, free: Any, interventions: Any = ()) -> Layout:
    """The layout of runs from a start, checked.

    Raises ValueError for an unknown name, bounds that are no pair low < high or leave what is allowed, what is free
    twice, interventions that begin or end during the run, and what `problem_of_start` raises.
    """
    problem = problem_of_start(model, start, interventions)
    for act in problem.interventions:
        if act.at > 0 or act.until < np.inf:
            raise ValueError(f"interventions: a fit takes those that always hold, got {act}; tm.predict takes any")
    if len(problem.batch.dims) > 1:
        raise ValueError(f"start must have one dimension of runs at most, got {list(problem.batch.dims)}")
    stage = next(iter(problem.stages(1.0)))
    state = problem.begin(stage, problem.reduced(start))
    if state.heads:
        raise ValueError("interventions: a clamp of first entries cannot be fitted")
    system = stage.system(state)
    numbers = [*state.coordinates(), *problem.constants(stage, state), np.ones(problem.batch.runs)]
    base = np.stack([np.broadcast_to(np.asarray(part, float), (problem.batch.runs,)) for part in numbers], -1)
    held = {x for act in problem.interventions if isinstance(act, Clamp) for x in act.vectors}
    return Layout(system, base, _free(system, base, free, held))


def _free(system: System, base: np.ndarray, free: Any, held: set[str]) -> tuple[Free, ...]:
    if free is None:
        free = ["time", "start", *(p for p in system.form.parameters if base[:, _places(system, p)].min() > 0)]
    if isinstance(free, str):
        free = [free]
    bounds = dict(free) if isinstance(free, Mapping) else dict.fromkeys(free)
    if not bounds:
        raise ValueError("free is empty: name what is to be fitted, such as ['time', 'alpha']")
    found: list[Free] = []
    for name, pair in bounds.items():
        places = _places(system, name)
        values = np.ones((1, 1)) if name == "start" else base[:, places]
        low, high = _default(system, name, values) if pair is None else _pair(name, pair)
        if taken := [one.name for one in found if not (one.factor or name == "start") and {*places} & {*one.places}]:
            raise ValueError(f"free: {name!r} and {taken[0]!r} are the same value")
        kind, _, letters = name.partition(".")
        if kind in KINDS[1:] and {*letters} & held:
            raise ValueError(f"free: {name!r} is held by an intervention")
        if low < 0 and kind != "overlap":
            raise ValueError(f"free: the bounds of {name!r} must be >= 0, got {low:g}")
        if low == 0 and name not in system.form.parameters and kind not in ("overlap", "residual"):
            raise ValueError(f"free: the bounds of {name!r} must be > 0, got {low:g}")
        found.append(Free(name, low, high, places))
    return tuple(found)


def _places(system: System, name: str) -> tuple[int, ...]:
    """Where a free value stands in a row; raises ValueError for a name that is none."""
    form = system.form
    vectors, count = form.vectors, len(form.vectors)
    constants = 2 * count + count
    kind, _, of = str(name).partition(".")
    if name == "time":
        return (2 * count + len(system.constants),)
    if name == "start":
        return tuple(i for i in range(2 * count) if vectors[i % count] not in system.fixed)
    if name in form.parameters:
        return (constants + len(form.terms) + list(form.parameters).index(name),)
    if kind == "weight" and of in form.terms:
        return (constants + list(form.terms).index(of),)
    if kind in KINDS[1:] and of and {*of} <= {*vectors} and len({*of}) == len(of):
        begin = {"overlap": 0, "residual": count, "target_norm": 2 * count}[kind]
        return tuple(begin + vectors.index(x) for x in of)
    allowed = [*FACTORS, *form.parameters, *(f"weight.{t}" for t in form.terms)]
    allowed += [f"{kind}.{{{','.join(vectors)}}}" for kind in KINDS[1:]]
    raise ValueError(f"free has the unknown name {shown(name)}; allowed are {', '.join(allowed)}")


def _default(system: System, name: str, values: np.ndarray) -> tuple[float, float]:
    """Bounds where none are given: a factor of 1,000 in time, 10 for norms and factors, 1e-4 to 10 for parameters."""
    kind, value = name.partition(".")[0], float(np.max(np.abs(values)))
    if name in system.form.parameters:
        return 1e-4, 10.0
    if kind == "overlap":
        return (1e-4, 10.0) if value == 0 else (1e-2 * value, 1e2 * value)
    if kind == "residual" and value == 0:
        return 1e-4, 10.0
    factor = {"time": 1e3, "weight": 1e2}.get(kind, 10.0)
    return value / factor, value * factor


def _pair(name: str, pair: Any) -> tuple[float, float]:
    if isinstance(pair, (str, bytes)) or np.shape(pair) != (2,):
        raise ValueError(f"free: the bounds of {name!r} must be a pair, low and high, got {shown(pair)}")
    check_values(f"free: the bounds of {name!r}", np.asarray(pair, float), -np.inf)
    low, high = (number(f"free: the bounds of {name!r}", end, -np.inf) for end in pair)
    if not low < high:
        raise ValueError(f"free: the bounds of {name!r} must be low < high, got {low:g} and {high:g}")
    return low, high
