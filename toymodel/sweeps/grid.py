"""The runs of a sweep: their dimensions and coordinates, how they are cut into chunks, and what each run starts from.

Runs are numbered along the dimensions in the order of `over`, then `seed`, the last one fastest; with a design, along
`sample`. A chunk is a block of consecutive runs that is also a box of the grid, so that it is one piece of every
array of a store.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import xarray as xr

from toymodel import start as starts
from toymodel.model import Model
from toymodel.sweeps.declare import LABELLED, Sweep

Box = tuple[slice, ...]


@dataclass(frozen=True)
class Cut:
    """A shape that is cut into chunks of one size, smaller at its edges; they are numbered as numbers in an array."""

    shape: tuple[int, ...]
    chunk: tuple[int, ...]

    @cached_property
    def pieces(self) -> tuple[int, ...]:
        """How many chunks there are along each dimension."""
        return tuple(-(-n // size) for n, size in zip(self.shape, self.chunk, strict=True))

    def corner(self, number: int) -> tuple[int, ...]:
        """Which chunk it is along each dimension."""
        return tuple(int(i) for i in np.unravel_index(number, self.pieces)) if self.pieces else ()

    def box(self, number: int) -> Box:
        """Where it lies in the shape."""
        parts = zip(self.corner(number), self.chunk, self.shape, strict=True)
        return tuple(slice(i * size, min((i + 1) * size, n)) for i, size, n in parts)

    def lengths(self, number: int) -> tuple[int, ...]:
        """Its own shape."""
        return tuple(part.stop - part.start for part in self.box(number))


@dataclass(frozen=True)
class Grid(Cut):
    """The runs of a sweep; coordinates: name -> (dimension, values)."""

    dims: tuple[str, ...]
    coordinates: dict[str, tuple[str, np.ndarray]]

    @classmethod
    @lru_cache(maxsize=8)
    def of(cls, sweep: Sweep) -> Grid:
        design: Any = sweep.design
        if design is None:
            coordinates = {name: (name, axis.points(name)) for name, axis in sweep.over.items()}
        else:
            shares = design.shares(len(sweep.over)).T
            coordinates = {"sample": ("sample", np.arange(design.count))}
            for (name, axis), share in zip(sweep.over.items(), shares, strict=True):
                coordinates[name] = ("sample", axis.sampled(name, share))
        for name, (dim, values) in coordinates.items():
            if name.startswith("dim_"):
                coordinates[name] = (dim, values.astype(np.int64))  # they were checked to be whole
        if not isinstance(sweep.seeds, int):
            coordinates["seed"] = ("seed", np.array(sweep.seeds))
        sizes = {dim: len(values) for dim, values in coordinates.values()}
        shape = tuple(sizes.values())
        return cls(shape, _box(shape, int(sweep.chunk or 1)), tuple(sizes), coordinates)

    @property
    def runs(self) -> int:
        return math.prod(self.shape)

    @property
    def chunks(self) -> range:
        """The numbers of all chunks, in the order of their runs."""
        return range(math.prod(self.pieces))

    def values(self, box: Box) -> dict[str, np.ndarray]:
        """The coordinates of the runs in a box, name -> (run,)."""
        places = dict(zip(self.dims, np.mgrid[box], strict=True))
        return {name: values[places[dim]].reshape(-1) for name, (dim, values) in self.coordinates.items()}


def _box(shape: tuple[int, ...], runs: int) -> tuple[int, ...]:
    """The last dimensions whole, as many as fit into `runs`, one cut, the first ones single."""
    box: list[int] = []
    left = runs
    for n in reversed(shape):
        size = max(1, min(n, left))
        box.append(size)
        left = left // size if size == n else 1
    return tuple(reversed(box))


@dataclass(frozen=True)
class Group:
    """Runs of a chunk that differ by numbers only: which they are, their values, and what they share."""

    where: np.ndarray
    values: dict[str, np.ndarray]
    shared: dict[str, Any]


def groups(sweep: Sweep, values: dict[str, np.ndarray], runs: int) -> Iterator[Group]:
    """Cuts runs where the integrator, the intervention, a value that an intervention uses, or, as times of
    interventions count in steps, the step size differs."""
    acts = bool(sweep.interventions) or "intervention" in values
    names = [name for name in values if name in LABELLED or name in sweep.free_names or (acts and name == "lr")]
    places: dict[tuple[Any, ...], list[int]] = {}
    for i, *key in zip(range(runs), *(values[name].tolist() for name in names), strict=True):
        places.setdefault(tuple(key), []).append(i)
    for key, where in places.items():
        shared = dict(zip(names, key, strict=True))
        yield Group(np.array(where), {name: value[where] for name, value in values.items()}, shared)


def value_of(sweep: Sweep, values: dict[str, np.ndarray], name: str, default: Any = None) -> Any:
    """What a run has under a name: varied (an array of runs), fixed, or the default."""
    return values.get(name, sweep.fixed.get(name, default))


def weights_of(sweep: Sweep, values: dict[str, np.ndarray]) -> dict[str, Any]:
    """The weight of each term; the default weight, 1 / (number of entries), follows the dimensions."""
    found = {}
    for t, letters in sweep.model.terms.items():
        sizes = [(sweep.model.dims[x], value_of(sweep, values, f"dim_{x}", sweep.model.dims[x])) for x in letters]
        ratio = math.prod(usual / here for usual, here in sizes)
        found[t] = labelled(value_of(sweep, values, f"weight_{t}", sweep.model.weights[t] * ratio))
    return found


def start_of(sweep: Sweep, values: dict[str, np.ndarray], runs: int) -> xr.Dataset:
    """The start of every run, along `run`: the draw of its seed and dimensions, then scaled and placed as asked."""
    parts = _draws(sweep, values, runs)
    for i, x in enumerate(sweep.model.vectors):
        u, v, norm = (parts[name][:, i] for name in ("overlap", "residual", "target_norm"))
        scale = _scale(sweep, values, "scale", x)
        if (size := value_of(sweep, values, f"norm_{x}")) is not None:
            length = np.hypot(u, v)
            if not (length > 0).all():
                raise ValueError(f"norm_{x} needs a start in which {x} is not 0")
            scale = size / length
        u, v, norm = u * scale, v * scale, norm * _scale(sweep, values, "target_scale", x)
        parts["overlap"][:, i] = value_of(sweep, values, f"overlap_{x}", u)
        parts["residual"][:, i] = value_of(sweep, values, f"residual_{x}", v)
        parts["target_norm"][:, i] = value_of(sweep, values, f"target_norm_{x}", norm)
    start = xr.Dataset({name: (("run", "vector"), value) for name, value in parts.items()})
    return start.assign_coords(vector=list(sweep.model.vectors))


def _scale(sweep: Sweep, values: dict[str, np.ndarray], name: str, x: str) -> Any:
    return value_of(sweep, values, name, 1.0) * value_of(sweep, values, f"{name}_{x}", 1.0)


def _draws(sweep: Sweep, values: dict[str, np.ndarray], runs: int) -> dict[str, np.ndarray]:
    """overlap, residual and target_norm, (run, vector); each combination of dimensions is drawn once for its seeds."""
    vectors = sweep.model.vectors
    dims = np.stack([np.broadcast_to(value_of(sweep, values, f"dim_{x}", sweep.model.dims[x]), runs) for x in vectors])
    seeds = np.broadcast_to(value_of(sweep, values, "seed", sweep.seeds), runs)
    parts = {name: np.empty((runs, len(vectors))) for name in ("overlap", "residual", "target_norm")}
    kinds, which = np.unique(dims, axis=1, return_inverse=True)
    for j, column in enumerate(kinds.T):
        here = np.flatnonzero(which.reshape(-1) == j)
        model = _resized(sweep.model, column)
        if isinstance(sweep.start, str):
            start = _drawn(sweep.start, model, tuple(np.unique(seeds[here]).tolist()))
        else:
            start = sweep.made_start(model).sel(vector=list(vectors))
        where = {**{name: value[here] for name, value in values.items()}, "seed": seeds[here]}
        at = {str(d): xr.DataArray(where[str(d)], dims="run") for d in start.dims if d != "vector"}
        for name, whole in parts.items():
            whole[here] = start[name].sel(at).transpose(..., "vector").values
    return parts


@lru_cache(maxsize=16)
def _drawn(start: str, model: Model, seeds: tuple[int, ...]) -> xr.Dataset:
    if start == "aligned":
        return starts.aligned_start(model)
    return {"paper": starts.paper_start, "random": starts.random_start}[start](model, seeds)


def _resized(model: Model, dims: np.ndarray) -> Model:
    new = {x: int(n) for x, n in zip(model.vectors, dims, strict=True)}
    if new == dict(model.dims):
        return model
    norms = {x: norm * math.sqrt(new[x] / model.dims[x]) for x, norm in model.target_norms.items()}
    return replace(model, dims=new, target_norms=norms)


def labelled(value: Any) -> Any:
    """An array of runs as a DataArray along `run`."""
    return xr.DataArray(value, dims="run") if np.ndim(value) else value


def parameters_of(sweep: Sweep, values: dict[str, np.ndarray]) -> dict[str, Any]:
    """The parameters of the loss that are varied or fixed."""
    given = {**values, **sweep.fixed}
    return {p: labelled(value) for p, value in given.items() if p in sweep.model.parameters}
