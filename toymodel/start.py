"""Initial conditions: what a run starts from, as labelled data.

A start is an xarray.Dataset with `overlap`, `residual` (>= 0) and `target_norm` (> 0) along `vector` and any
dimensions of a batch. If it has `entries` along `vector` too, it fits models with these numbers of entries only. The
vectors behind a start, needed only to simulate all entries, are a Dataset with, for each letter x, the variables `x`
and `x_target` along `x_entry`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from toymodel.batch import as_text, per_vector
from toymodel.checks import (
    POSITIVE,
    Seeds,
    check_memory,
    check_values,
    checked,
    dimensions,
    mapping,
    number,
    seeds_in,
    shown,
    whole,
)
from toymodel.model import Model
from toymodel.names import check_dimension
from toymodel.settings import own_settings, refuse_fork


@checked
@own_settings()
def from_vectors(model: Model, vectors: xr.Dataset, heads: Mapping[str, Any] | None = None) -> xr.Dataset:
    """The start in reduced coordinates of given vectors: u = x . x* / |x*|, v = |x - u x* / |x*||, in float64.

    Arguments:
        model: names the vectors.
        vectors: for each letter x, `x` and `x_target` along `x_entry`, and any dimensions of a batch.
        heads: letter -> k for the vectors whose first k entries a run will clamp (`Clamp(x, entries=k)`); the start
            then also holds the inner products over these entries that such a run needs.

    Returns:
        `overlap`, `residual`, `target_norm` and `entries` along `vector` and the batch.

    Raises:
        ValueError for vectors that do not fit the model, or a target of 0.

    Source: `derivations/reduction.py`.

    >>> import toymodel as tm, xarray as xr
    >>> model = tm.Model({"icl": "a"}, lambda icl: icl, {"a": 2})
    >>> start = from_vectors(model, xr.Dataset({"a": ("a_entry", [3.0, 4.0]), "a_target": ("a_entry", [2.0, 0.0])}))
    >>> [float(start[name][0]) for name in ("overlap", "residual", "target_norm")]
    [3.0, 4.0, 2.0]
    """
    given = mapping("heads", heads, model.vectors)
    heads = {x: whole(f"heads[{x!r}]", k, 0, model.dims[x]) for x, k in given.items()}
    check_vectors(model, vectors)
    parts = []
    for x in model.vectors:
        value, target = vectors[x].astype(float), vectors[f"{x}_target"].astype(float)
        entry = f"{x}_entry"
        norm = (target**2).sum(entry) ** 0.5
        check_values(f"vectors: the target_norm of {x!r}", norm, POSITIVE)  # squares may overflow, or be 0
        along = target / norm
        overlap = (value * along).sum(entry)
        across = value - overlap * along
        residual = (across**2).sum(entry) ** 0.5
        part = {"overlap": overlap, "residual": residual, "target_norm": norm}
        for name in ("overlap", "residual"):
            check_values(f"vectors: the {name} of {x!r}", part[name], -np.inf)
        if heads:
            head = {entry: slice(0, heads.get(x, 0))}
            unit = across / residual.where(residual > 0, 1)
            for name, left, right in (("head_ee", along, along), ("head_ew", along, unit), ("head_ww", unit, unit)):
                part[name] = (left * right).isel(head).sum(entry)
        parts.append(xr.Dataset(part))
    start = xr.concat(
        parts, xr.DataArray(list(model.vectors), dims="vector", name="vector"), coords="minimal", join="exact"
    )
    start = start.transpose(..., "vector")
    start["entries"] = ("vector", list(model.dims.values()))
    if heads:
        start["head_entries"] = ("vector", np.array([heads.get(x, 0) for x in model.vectors]))
    start.attrs = {"start": vectors.attrs.get("start", "from_vectors")}
    return start


@checked
def paper_start(model: Model, seeds: Seeds, heads: Mapping[str, Any] | None = None) -> xr.Dataset:
    """The paper's draws in reduced coordinates.

    Arguments:
        model, seeds, heads: as in `paper_vectors` and `from_vectors`.

    Returns:
        A start; along `seed` where several are given.

    Raises:
        ValueError for an argument out of range, RuntimeError in the child of a fork.

    Source: Singh et al. 2025, section 6, and its authors' code.

    >>> import toymodel as tm
    >>> dict(tm.paper_start(tm.coopetition(), range(3)).sizes)
    {'seed': 3, 'vector': 4}
    """
    return from_vectors(model, paper_vectors(model, seeds), heads)


@checked
@own_settings()
def paper_vectors(model: Model, seeds: Seeds) -> xr.Dataset:
    """Targets and initial values as the paper's authors draw them: standard normal, float32, JAX's original threefry.

    For seed s: key = PRNGKey(s); for each vector in the order of `dims`: key, k = split(key); k1, k2 = split(k); the
    target comes from k1 and the initial value from k2. No setting of JAX outside of this call is changed.

    Arguments:
        model: names the vectors and gives their numbers of entries.
        seeds: a whole number >= 0, or several.

    Returns:
        For each letter x, `x` and `x_target` along `x_entry`; along `seed` where several are given.

    Raises:
        ValueError for an argument out of range, RuntimeError in the child of a fork.

    Source: Singh et al. 2025, section 6, and its authors' code.

    >>> import toymodel as tm
    >>> dict(tm.paper_vectors(tm.coopetition(), 7).sizes)
    {'a_entry': 20, 'b_entry': 20, 'c_entry': 20, 'd_entry': 160}
    """
    refuse_fork()
    with jax.threefry_partitionable(False):
        return _stacked(model, seeds, _paper_draw, "paper_start")


@checked
def random_start(
    model: Model, seeds: Seeds, scale: Any = 1.0, target_scale: Any = 1.0, heads: Mapping[str, Any] | None = None
) -> xr.Dataset:
    """Normal draws in reduced coordinates.

    Arguments:
        model, seeds, scale, target_scale, heads: as in `random_vectors` and `from_vectors`.

    Returns:
        A start; along `seed` where several are given.

    Raises:
        ValueError for an argument out of range.

    Source: numpy's generator PCG64; no result of the paper uses it.

    >>> import toymodel as tm
    >>> model = tm.coopetition()
    >>> one, ten = (tm.random_start(model, 0, scale=s) for s in (1.0, 10.0))
    >>> bool((abs(ten.overlap / one.overlap - 10) < 1e-12).all())
    True
    """
    return from_vectors(model, random_vectors(model, seeds, scale, target_scale), heads)


@checked
@own_settings()
def random_vectors(model: Model, seeds: Seeds, scale: Any = 1.0, target_scale: Any = 1.0) -> xr.Dataset:
    """Targets and initial values with normal entries, float64, from numpy's default generator seeded with s.

    Arguments:
        model: names the vectors and gives their numbers of entries.
        seeds: a whole number >= 0, or several.
        scale, target_scale: standard deviation of the entries of initial values (>= 0) and of targets (> 0), one number
            or letter -> number.

    Returns:
        For each letter x, `x` and `x_target` along `x_entry`; along `seed` where several are given.

    Raises:
        ValueError for an argument out of range.

    Source: numpy's generator PCG64; no result of the paper uses it.

    >>> import toymodel as tm
    >>> float(abs(tm.random_vectors(tm.induction(), 0, scale=0.0)["a"]).max())
    0.0
    """
    scales, target_scales = (
        per_vector(name, value, model.vectors) for name, value in (("scale", scale), ("target_scale", target_scale))
    )
    for x in model.vectors:
        scales[x] = number(f"scale[{x!r}]", scales[x])
        target_scales[x] = number(f"target_scale[{x!r}]", target_scales[x], POSITIVE)

    def draw(model: Model, seed: int) -> dict[str, np.ndarray]:
        generator = np.random.default_rng(seed)
        drawn = {}
        for x, n in model.dims.items():
            drawn[f"{x}_target"] = target_scales[x] * generator.standard_normal(n)
            drawn[x] = scales[x] * generator.standard_normal(n)
        return drawn

    return _stacked(model, seeds, draw, f"random_start(scale={scale}, target_scale={target_scale})")


@checked
@own_settings()
def aligned_start(model: Model, overlap: Any = 0.1, residual: Any = 0.0, target_norm: Any = None) -> xr.Dataset:
    """A start without randomness: given overlaps and residuals, targets of the model's norms.

    Arguments:
        model: names the vectors, and gives the target norms where none are given.
        overlap, residual, target_norm: a number, a DataArray of any dimensions, or letter -> one of these; residual >=
            0, target_norm > 0.

    Returns:
        A start, along the dimensions that the arguments have.

    Raises:
        ValueError for an argument out of range.

    Source: the coordinates of `derivations/reduction.py`.

    >>> import toymodel as tm
    >>> tm.aligned_start(tm.induction(), overlap={"a": 1.0, "b": 0.5, "c": 0.5}).overlap.values.tolist()
    [1.0, 0.5, 0.5]
    """
    given = {
        "overlap": per_vector("overlap", overlap, model.vectors),
        "residual": per_vector("residual", residual, model.vectors),
        "target_norm": dict(model.target_norms)
        if target_norm is None
        else per_vector("target_norm", target_norm, model.vectors),
    }
    for name, values in given.items():
        for x, value in values.items():
            if dimensions(f"{name}[{x!r}]", value) and not isinstance(value, xr.DataArray):
                raise ValueError(f"{name}[{x!r}] must be a number or an xarray.DataArray, got {shown(value)}")
            check_values(name, value, {"overlap": -np.inf, "residual": 0.0}.get(name, POSITIVE))
    index = xr.DataArray(list(model.vectors), dims="vector", name="vector")
    variables = {
        name: xr.concat(xr.broadcast(*map(xr.DataArray, values.values())), index).astype(float).transpose(..., "vector")
        for name, values in given.items()
    }
    numbers = ", ".join(f"{name}={as_text(value)}" for name, value in given.items())
    start = xr.Dataset(variables, attrs={"start": f"aligned_start({numbers})"})
    check_start(model, start)
    return start


@checked
@own_settings()
def state_at(runs: xr.Dataset, time: Any, dim: str = "taken") -> xr.Dataset:
    """The state of runs at a recorded time, or at several, as a start: of other runs, or in `Clamp("bc", like=...)`.

    Arguments:
        runs: a record.
        time: a number, several (along the dimension `dim`), or a DataArray, which keeps its dimensions: along `seed`,
            it is one time for each of the runs.
        dim: name of the new dimension.

    Returns:
        A start.

    Raises:
        ValueError for a time that was not recorded.

    Source: a look-up.

    >>> import toymodel as tm
    >>> model = tm.induction()
    >>> runs = tm.descend(model, tm.aligned_start(model), 10)
    >>> again = tm.descend(model, tm.state_at(runs, 4), 6)
    >>> bool((again.loss.values == runs.loss.sel(time=slice(4, None)).values).all())
    True
    """
    needed = {"overlap", "residual", "target_norm"}
    if not runs.sizes.get("time") or not needed <= set(runs) or not {"vector", "time"} <= set(runs.coords):
        raise ValueError("runs must be a record with overlap and residual along time, as descend returns it")
    check_values("time", time)
    if dimensions("time", time) > 1 and not isinstance(time, xr.DataArray):
        raise ValueError(f"time must be a number, a list of numbers or an xarray.DataArray, got {shown(time)}")
    check_dimension("dim", dim)
    if np.ndim(time) > 0 and not isinstance(time, xr.DataArray):
        times = np.asarray(time, dtype=float)
        time = xr.DataArray(times, dims=dim, coords={dim: times})
    _check_recorded(runs["time"].values, np.ravel(time))
    state = (
        runs[["overlap", "residual", "target_norm"]]
        .sel(time=time, method="nearest")
        .drop_vars(["time", "step"], errors="ignore")
    )
    if "model" in runs.attrs:
        dims = Model.from_json(runs.attrs["model"]).dims
        if unknown := [x for x in state["vector"].values.tolist() if x not in dims]:
            raise ValueError(f"runs has the vector {unknown[0]!r}, which its model does not have")
        state["entries"] = ("vector", [dims[x] for x in state["vector"].values.tolist()])
    state.attrs = {"start": f"state of a run ({runs.attrs.get('start', 'unknown start')})"}
    return state.transpose(..., "vector")


def _check_recorded(have: np.ndarray, wanted: np.ndarray) -> None:
    """Raises ValueError where a time is not, up to rounding, among those that a record has."""
    off = abs(have - wanted[:, None]).min(axis=1) > 1e-9 * have[-1]
    if off.any():
        missing = wanted[off][0]
        beside = [*have[have < missing][-1:], *have[have > missing][:1]]
        near = " and ".join(f"{t:g}" for t in beside)
        raise ValueError(f"time={missing:g} is not recorded; the nearest recorded are {near} (0..{have[-1]:g})")


def check_vectors(model: Model, vectors: xr.Dataset) -> None:
    """Raises ValueError unless the dataset holds values and targets of all vectors of this model, and of no other."""
    if not isinstance(vectors, xr.Dataset):
        raise ValueError(f"vectors must be a Dataset, as paper_vectors makes it, got {type(vectors).__name__}")
    for x in model.vectors:
        entry = f"{x}_entry"
        if not all(name in vectors and entry in vectors[name].dims for name in (x, f"{x}_target")):
            raise ValueError(f"vectors has no variables {x!r} and {x + '_target'!r}, along {entry!r}")
        if vectors.sizes[entry] != model.dims[x]:
            raise ValueError(f"vectors[{x!r}] must have {model.dims[x]} entries as in dims, got {vectors.sizes[entry]}")
        for name in (x, f"{x}_target"):
            check_values(f"vectors[{name!r}]", vectors[name], -np.inf)
        if not (vectors[f"{x}_target"] != 0).any(f"{x}_entry").all():
            raise ValueError(f"vectors[{x + '_target'!r}] must not be 0: a mechanism needs a target")
    _check_surplus("vectors", [str(d).removesuffix("_entry") for d in vectors.dims if str(d).endswith("_entry")], model)


def check_start(model: Model, start: xr.Dataset) -> None:
    """Raises ValueError unless the dataset is a start for this model."""
    if not isinstance(start, xr.Dataset) or not {"overlap", "residual", "target_norm"} <= set(start):
        raise ValueError("start must be a Dataset with overlap, residual and target_norm, as paper_start makes it")
    if "time" in start.dims:
        raise ValueError("start has a dimension time; take one state of a run with tm.state_at(runs, time)")
    have = start["vector"].values.tolist() if "vector" in start.coords else []
    if missing := set(model.vectors) - set(have):
        raise ValueError(f"start has no vector {sorted(missing)[0]!r}; it has {sorted(have)}")
    if len(set(have)) < len(have):
        raise ValueError(f"start has a vector twice; it has {have}")
    _check_surplus("start", have, model)
    if "entries" in start:
        for x in model.vectors:
            made_for = start["entries"].sel(vector=x)
            if (made_for != model.dims[x]).any():
                raise ValueError(
                    f"start was made for {made_for.values.flat[0]} entries of {x!r}, the model has {model.dims[x]}"
                )
    check_values("start: overlap", start["overlap"], -np.inf)
    check_values("start: residual", start["residual"])
    check_values("start: target_norm", start["target_norm"], POSITIVE)


def _check_surplus(name: str, have: Iterable[str], model: Model) -> None:
    if surplus := set(have) - set(model.vectors):
        raise ValueError(f"{name} has a vector {sorted(surplus)[0]!r}; the model has {list(model.vectors)}")


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
    single = not isinstance(seeds, Iterable) or getattr(seeds, "ndim", 1) == 0
    numbers = seeds_in([seeds] if single else seeds)  # type: ignore[arg-type]
    if not numbers:
        raise ValueError("seeds is empty; give at least one, such as range(12)")
    entries = sum(model.dims.values())
    size = 16 * entries * len(numbers)
    check_memory(f"vectors of {entries:,} entries for {len(numbers):,} seeds", size, "reduce dims or seeds")
    draws = [draw(model, seed) for seed in numbers]
    variables = {name: (("seed", f"{name[0]}_entry"), np.stack([drawn[name] for drawn in draws])) for name in draws[0]}
    vectors = xr.Dataset(variables, coords={"seed": np.array(numbers)}, attrs={"start": made})
    return vectors.isel(seed=0) if single else vectors
