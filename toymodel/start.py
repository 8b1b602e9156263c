"""Initial conditions: what a run starts from, as labelled data.

A start is an xarray.Dataset with `overlap`, `residual` (>= 0) and `target_norm` (> 0) along `vector` and any
dimensions of a batch. The vectors behind a start, needed only to simulate all entries, are a Dataset with, for each
letter x, the variables `x` and `x_target` along `x_entry`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from toymodel.labels import check_values, per_vector
from toymodel.model import Model

Seeds = int | Iterable[int]


def from_vectors(model: Model, vectors: xr.Dataset, heads: Mapping[str, int] | None = None) -> xr.Dataset:
    """The start in reduced coordinates of given vectors and targets, in float64.

    heads: letter -> k for the vectors whose first k entries a run will clamp (`Clamp(x, entries=k)`); the start then
    also holds the inner products over these entries that such a run needs.
    """
    heads = dict(heads or {})
    check_vectors(model, vectors)
    parts = []
    for x in model.vectors:
        value, target = vectors[x].astype(float), vectors[f"{x}_target"].astype(float)
        entry = f"{x}_entry"
        norm = (target**2).sum(entry) ** 0.5
        along = target / norm
        overlap = (value * along).sum(entry)
        across = value - overlap * along
        residual = (across**2).sum(entry) ** 0.5
        part = {"overlap": overlap, "residual": residual, "target_norm": norm}
        if heads:
            head = {entry: slice(0, heads.get(x, 0))}
            unit = across / residual.where(residual > 0, 1)
            for name, left, right in (("head_ee", along, along), ("head_ew", along, unit), ("head_ww", unit, unit)):
                part[name] = (left * right).isel(head).sum(entry)
        parts.append(xr.Dataset(part))
    if unknown := set(heads) - set(model.vectors):
        raise ValueError(f"heads names the unknown vector {sorted(unknown)[0]!r}; the model has {list(model.vectors)}")
    start = xr.concat(
        parts, xr.DataArray(list(model.vectors), dims="vector", name="vector"), coords="minimal", join="exact"
    )
    start = start.transpose(..., "vector")
    if heads:
        start["head_entries"] = ("vector", np.array([heads.get(x, 0) for x in model.vectors]))
    start.attrs = {"start": vectors.attrs.get("start", "from_vectors")}
    return start


def paper_start(model: Model, seeds: Seeds, heads: Mapping[str, int] | None = None) -> xr.Dataset:
    """The paper's draws in reduced coordinates; see `paper_vectors`."""
    return from_vectors(model, paper_vectors(model, seeds), heads)


def paper_vectors(model: Model, seeds: Seeds) -> xr.Dataset:
    """Targets and initial values as the paper's authors draw them: standard normal, float32, JAX's original threefry.

    For seed s: key = PRNGKey(s); for each vector in the order of `dims`: key, k = split(key); k1, k2 = split(k); the
    target comes from k1 and the initial value from k2. No setting of JAX outside of this call is changed.
    """
    with jax.threefry_partitionable(False):
        return _stacked(model, seeds, _paper_draw, "paper_start")


def random_start(
    model: Model, seeds: Seeds, scale: Any = 1.0, target_scale: Any = 1.0, heads: Mapping[str, int] | None = None
) -> xr.Dataset:
    """Normal draws in reduced coordinates; see `random_vectors`."""
    return from_vectors(model, random_vectors(model, seeds, scale, target_scale), heads)


def random_vectors(model: Model, seeds: Seeds, scale: Any = 1.0, target_scale: Any = 1.0) -> xr.Dataset:
    """Targets and initial values with normal entries, float64, from numpy's default generator seeded with s.

    scale, target_scale: standard deviation of the entries of initial values and of targets, one number or letter ->
    number.
    """
    scales, target_scales = (
        per_vector(name, value, model.vectors) for name, value in (("scale", scale), ("target_scale", target_scale))
    )
    for x in model.vectors:
        check_values(f"scale[{x!r}]", scales[x])
        check_values(f"target_scale[{x!r}]", target_scales[x], np.nextafter(0, 1))

    def draw(model: Model, seed: int) -> dict[str, np.ndarray]:
        generator = np.random.default_rng(seed)
        drawn = {}
        for x, n in model.dims.items():
            drawn[f"{x}_target"] = target_scales[x] * generator.standard_normal(n)
            drawn[x] = scales[x] * generator.standard_normal(n)
        return drawn

    return _stacked(model, seeds, draw, f"random_start(scale={scale}, target_scale={target_scale})")


def aligned_start(model: Model, overlap: Any = 0.1, residual: Any = 0.0, target_norm: Any = None) -> xr.Dataset:
    """A start without randomness: given overlaps and residuals, targets of the model's norms.

    Each argument is a number, a DataArray of any dimensions, or letter -> one of these.
    """
    given = {
        "overlap": per_vector("overlap", overlap, model.vectors),
        "residual": per_vector("residual", residual, model.vectors),
        "target_norm": dict(model.target_norms)
        if target_norm is None
        else per_vector("target_norm", target_norm, model.vectors),
    }
    index = xr.DataArray(list(model.vectors), dims="vector", name="vector")
    variables = {
        name: xr.concat(xr.broadcast(*map(xr.DataArray, values.values())), index).astype(float).transpose(..., "vector")
        for name, values in given.items()
    }
    start = xr.Dataset(variables, attrs={"start": "aligned_start"})
    check_start(model, start)
    return start


def state_at(runs: xr.Dataset, time: Any, dim: str = "taken") -> xr.Dataset:
    """The state of runs at a time (the nearest recorded), or at several along the dimension `dim`, as a start.

    A DataArray of times keeps its dimensions: along `seed`, it is one time for each of the runs.
    It serves as the start of other runs, and in `Clamp("bc", like=...)`.
    """
    end = float(runs["time"][-1])
    check_values("time", time)
    if np.max(time) > end:
        raise ValueError(f"time must be within the run, 0..{end:g}, got {np.max(time)}")
    if np.ndim(time) > 0 and not isinstance(time, xr.DataArray):
        times = np.asarray(time, dtype=float)
        time = xr.DataArray(times, dims=dim, coords={dim: times})
    state = (
        runs[["overlap", "residual", "target_norm"]]
        .sel(time=time, method="nearest")
        .drop_vars(["time", "step"], errors="ignore")
    )
    state.attrs = {"start": f"state of a run ({runs.attrs.get('start', 'unknown start')})"}
    return state.transpose(..., "vector")


def check_vectors(model: Model, vectors: xr.Dataset) -> None:
    """Raises ValueError unless the dataset holds values and targets of all vectors of this model."""
    for x in model.vectors:
        entry = f"{x}_entry"
        if not all(name in vectors and entry in vectors[name].dims for name in (x, f"{x}_target")):
            raise ValueError(f"vectors has no variables {x!r} and {x + '_target'!r}, along {entry!r}")
        if vectors.sizes[entry] != model.dims[x]:
            raise ValueError(f"vectors[{x!r}] must have {model.dims[x]} entries as in dims, got {vectors.sizes[entry]}")


def check_start(model: Model, start: xr.Dataset) -> None:
    """Raises ValueError unless the dataset is a start for this model."""
    if not isinstance(start, xr.Dataset) or not {"overlap", "residual", "target_norm"} <= set(start):
        raise ValueError("start must be a Dataset with overlap, residual and target_norm, as paper_start makes it")
    if "time" in start.dims:
        raise ValueError("start has a dimension time; take one state of a run with tm.state_at(runs, time)")
    have = set(start["vector"].values.tolist()) if "vector" in start.coords else set()
    if missing := set(model.vectors) - have:
        raise ValueError(f"start has no vector {sorted(missing)[0]!r}; it has {sorted(have)}")
    check_values("start: overlap", start["overlap"], -np.inf)
    check_values("start: residual", start["residual"])
    check_values("start: target_norm", start["target_norm"], np.nextafter(0, 1))


def _paper_draw(model: Model, seed: int) -> dict[str, np.ndarray]:
    key = jax.random.PRNGKey(seed, impl="threefry2x32")
    drawn = {}
    for x, n in model.dims.items():
        key, of_vector = jax.random.split(key)
        for name, k in zip((f"{x}_target", x), jax.random.split(of_vector), strict=True):
            drawn[name] = np.asarray(jax.random.normal(k, (n,), jnp.float32))
    return drawn


def _stacked(model: Model, seeds: Seeds, draw: Any, made: str) -> xr.Dataset:
    """One draw for each seed, stacked along `seed`; a single seed makes no dimension."""
    single = isinstance(seeds, (int, np.integer))
    numbers = [seeds] if single else list(seeds)
    for seed in numbers:
        if not isinstance(seed, (int, np.integer)) or seed < 0:
            raise ValueError(f"seeds must be whole numbers >= 0, got {seed!r}")
    if not numbers:
        raise ValueError("seeds is empty; give at least one, such as range(12)")
    draws = [draw(model, int(seed)) for seed in numbers]
    variables = {name: (("seed", f"{name[0]}_entry"), np.stack([drawn[name] for drawn in draws])) for name in draws[0]}
    vectors = xr.Dataset(variables, coords={"seed": np.array(numbers)}, attrs={"start": made})
    return vectors.isel(seed=0) if single else vectors
