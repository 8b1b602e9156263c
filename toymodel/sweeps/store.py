"""Where the measures of a sweep are kept: a Zarr store that is written chunk by chunk, or the memory.

A store is a Zarr group (format 2, which every version of xarray reads) with the identity of its sweep in its
attributes. The array `progress/finished` has one entry for each chunk, written after the chunk's own arrays, so that
a chunk counts only once it is whole; each entry and each piece of an array is a file that is renamed into place.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr
import zarr

from toymodel.sweeps.declare import Sweep
from toymodel.sweeps.grid import Grid
from toymodel.sweeps.measured import OF_MECHANISM, labels_of, times_of, trajectories

FORMAT = 1
VERSIONS = ("toymodel_format", "toymodel_version", "jax_version")


def attributes(sweep: Sweep) -> dict[str, Any]:
    """What is written with the result: the sweep and the versions that made it."""
    return {
        "sweep": json.dumps(sweep.identity),
        "model": sweep.model.to_json(),
        "toymodel_format": FORMAT,
        "toymodel_version": metadata.version("toymodel"),
        "jax_version": jax.__version__,
    }


def variables(sweep: Sweep) -> dict[str, tuple[tuple[str, ...], str]]:
    """name -> (dimensions after those of the grid, kind of number)."""
    found: dict[str, tuple[tuple[str, ...], str]] = {name: (("mechanism",), "f8") for name in OF_MECHANISM}
    found |= {"lasts": (("mechanism",), "i1"), "stopped": ((), "f8")}
    found |= {name: ((), "i1") for name in labels_of(sweep.model)}
    if sweep.every is not None:
        found |= {name: (("time",), "f8") for name in trajectories(sweep.model)}
        found |= {name: (("time", "vector"), "f8") for name in ("overlap", "residual")}
    return found


def coordinates(sweep: Sweep) -> dict[str, tuple[str, np.ndarray]]:
    """name -> (dimension, values)."""
    found = {**Grid.of(sweep).coordinates, "mechanism": ("mechanism", np.array(list(sweep.model.mechanisms)))}
    if sweep.every is not None:
        found |= {"time": ("time", times_of(sweep)), "vector": ("vector", np.array(sweep.model.vectors))}
    return found


class Memory:
    """Results that are kept as arrays."""

    def __init__(self, sweep: Sweep):
        self.sweep, self.grid = sweep, Grid.of(sweep)
        self.boxes = self.grid.chunks()
        sizes = {name: len(values) for name, (dim, values) in coordinates(sweep).items() if name == dim}
        self.arrays = {
            name: np.zeros((*self.grid.shape, *(sizes[dim] for dim in dims)), kind)
            for name, (dims, kind) in variables(sweep).items()
        }

    def pending(self) -> list[int]:
        return list(range(len(self.boxes)))

    def write(self, number: int, values: dict[str, np.ndarray]) -> None:
        for name, array in self.arrays.items():
            place = array[self.boxes[number]]
            place[...] = values[name].reshape(place.shape)

    def dataset(self) -> xr.Dataset:
        parts = {
            name: ((*self.grid.dims, *dims), self.arrays[name]) for name, (dims, _) in variables(self.sweep).items()
        }
        runs = xr.Dataset(parts, coords=coordinates(self.sweep), attrs=attributes(self.sweep))
        return _labelled(runs, labels_of(self.sweep.model))


class Store:
    """Results in a Zarr store on disk; an existing one is continued if it was made by the same sweep."""

    def __init__(self, sweep: Sweep, path: str | os.PathLike[str]):
        self.sweep, self.grid, self.path = sweep, Grid.of(sweep), Path(path)
        self.boxes = self.grid.chunks()
        try:
            if self.path.exists():
                self._compare()
                _tidy(self.path)
            else:
                self._create()
            self.group = zarr.open_group(str(self.path), mode="r+", zarr_format=2)
        except OSError as error:
            raise self.failure(error) from error

    def _create(self) -> None:
        """All arrays without their pieces, under a temporary name first."""
        parent = self.path.absolute().parent
        if not parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, f"there is no folder {parent}")
        for left in parent.glob(f".{self.path.name}.*.partial"):
            shutil.rmtree(left, ignore_errors=True)
        whole = parent / f".{self.path.name}.{os.getpid()}.partial"
        try:
            group = zarr.open_group(str(whole), mode="w-", zarr_format=2)
            group.attrs.update(attributes(self.sweep))  # apart, so that no file is being written if this one fails
            sizes = {}
            for name, (dim, values) in coordinates(self.sweep).items():
                array = group.create_array(
                    name, data=values, chunks=values.shape, fill_value=None, attributes={"_ARRAY_DIMENSIONS": [dim]}
                )
                sizes[array.name.strip("/")] = len(values)
            for name, (dims, kind) in variables(self.sweep).items():
                labels = labels_of(self.sweep.model).get(name)
                flags = {"flag_values": list(range(len(labels))), "flag_meanings": list(labels)} if labels else {}
                group.create_array(
                    name,
                    shape=(*self.grid.shape, *(sizes[dim] for dim in dims)),
                    chunks=(*self.grid.box, *(sizes[dim] for dim in dims)),
                    dtype=kind,
                    fill_value=np.nan if kind == "f8" else -1,
                    attributes={"_ARRAY_DIMENSIONS": [*self.grid.dims, *dims], **flags},
                )
            group.create_group("progress").create_array(
                "finished", shape=(len(self.boxes),), chunks=(1,), dtype="i1", fill_value=0
            )
            os.rename(whole, self.path)
        finally:
            shutil.rmtree(whole, ignore_errors=True)

    def _compare(self) -> None:
        """Raises ValueError, saying what differs, unless the store was made by this sweep and these versions."""
        found, wanted = _attributes(self.path), attributes(self.sweep)
        for name in VERSIONS:
            if found.get(name) != wanted[name]:
                raise ValueError(
                    f"{self.path} was made with {name} {found.get(name)}, this is {wanted[name]}; "
                    "finish it with that version, or give another store"
                )
        have = json.loads(found["sweep"])
        lines = [
            f"{name}: {have.get(name)} in the store, {value} in this call"
            for name, value in self.sweep.identity.items()
            if have.get(name) != json.loads(json.dumps(value))
        ]
        if lines:
            raise ValueError(
                f"{self.path} was made by another sweep; give another store, or remove it\n  " + "\n  ".join(lines)
            )

    def pending(self) -> list[int]:
        finished = self.group["progress/finished"][:]  # type: ignore[index]
        return np.flatnonzero(np.asarray(finished) == 0).tolist()

    def write(self, number: int, values: dict[str, np.ndarray]) -> None:
        try:
            for name in variables(self.sweep):
                array: Any = self.group[name]
                box = self.boxes[number]
                lengths = [len(range(*part.indices(n))) for part, n in zip(box, self.grid.shape, strict=True)]
                array[box] = values[name].reshape(*lengths, *values[name].shape[1:])
            self.group["progress/finished"][number] = 1  # type: ignore[index]
        except OSError as error:
            raise self.failure(error) from error

    def failure(self, error: OSError) -> OSError:
        """One clear error for whatever keeps the store from being written."""
        done = ""
        if self.path.exists() and hasattr(self, "group"):
            done = f"; {len(self.boxes) - len(self.pending())} of {len(self.boxes)} chunks are finished and kept"
        reason = error.strerror or str(error)
        return OSError(error.errno or errno.EIO, f"cannot write {self.path}: {reason}{done}")

    def dataset(self) -> xr.Dataset:
        return open_sweep(self.path)


def open_sweep(path: str | os.PathLike[str]) -> xr.Dataset:
    """The measures in a store, read when they are used; labels as text. Chunks that are not there yet are NaN.

    Raises FileNotFoundError, and ValueError for a folder that holds no sweep.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"no such store: {path}")
    _attributes(Path(path))
    runs = xr.open_zarr(str(path), consolidated=False, chunks=None, mask_and_scale=False)
    for variable in runs.variables.values():
        variable.attrs.pop("_FillValue", None)
    return _labelled(runs, {n: v.attrs["flag_meanings"] for n, v in runs.items() if "flag_meanings" in v.attrs})


def _attributes(path: Path) -> dict[str, Any]:
    try:
        found = dict(zarr.open_group(str(path), mode="r", zarr_format=2).attrs)
    except Exception as error:  # zarr has many kinds of error for what is no store
        raise ValueError(f"{path} is not a store of a sweep: {error}") from None
    if "sweep" not in found:
        raise ValueError(f"{path} is not a store of a sweep (it has no attribute `sweep`)")
    return found


def _labelled(runs: xr.Dataset, labels: Any) -> xr.Dataset:
    """Numbers of labels as text, 0 and 1 as False and True."""
    for name, names in labels.items():
        texts = np.array([*names, "not run"])
        runs[name] = runs[name].copy(data=texts[runs[name].values])
        runs[name].attrs = {}
    runs["lasts"] = runs["lasts"].copy(data=runs["lasts"].values == 1)
    return runs


def _tidy(path: Path) -> None:
    """Removes what a killed process left: files that were not yet renamed into place."""
    for left in path.rglob("*.partial"):
        left.unlink(missing_ok=True)
