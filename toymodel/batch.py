"""Labelled inputs as flat arrays and back: whatever is swept, a simulation sees one axis of runs.

Starts, parameters and clamped values may each carry dimensions of their own (a seed, an alpha, a time at which a
state was taken). A `Batch` is their common shape; its runs are all combinations, flattened.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from toymodel.checks import MOST_RUNS, check_values, dimensions, mapping, shown

SHORT = 4000  # characters of a value that is written out in the attributes of a record


@dataclass(frozen=True)
class Batch:
    """The common dimensions of a set of runs; `shape` is an empty DataArray that has them with their coordinates."""

    shape: xr.DataArray

    @classmethod
    def of(cls, values: Iterable[xr.DataArray]) -> Batch:
        """The batch of all combinations; raises ValueError where two values disagree on a shared coordinate, and where
        there are more than MOST_RUNS combinations."""
        values = list(values)
        sizes = {d: n for value in values for d, n in value.sizes.items()}
        if math.prod(sizes.values()) > MOST_RUNS:
            most = f"at most {MOST_RUNS:,}"
            raise ValueError(f"{' x '.join(map(str, sizes.values()))} runs are too many, {most} are computed at once")
        blanks = [xr.zeros_like(value, dtype=np.int8) for value in values]
        try:
            aligned = xr.align(*blanks, join="exact", copy=False)
        except ValueError as error:
            raise ValueError(f"two inputs have the same dimension with other coordinates: {error}") from None
        return cls(sum(aligned, xr.DataArray(np.int8(0))))

    @property
    def runs(self) -> int:
        return int(self.shape.size)

    @property
    def dims(self) -> tuple[str, ...]:
        return tuple(str(d) for d in self.shape.dims)

    def flat(self, value: Any) -> np.ndarray:
        """The value of each run, shape (run,)."""
        if not isinstance(value, xr.DataArray):
            return np.full(self.runs, value, dtype=float)
        return (value.astype(float) + self.shape).transpose(*self.dims).values.reshape(self.runs)

    def labelled(self, array: np.ndarray, *dims: str) -> xr.DataArray:
        """An array of shape (runs, ...) as a DataArray with the batch's dimensions, then `dims`."""
        shape = (*self.shape.shape, *array.shape[1:])
        return xr.DataArray(array.reshape(shape), dims=(*self.dims, *dims), coords=self.shape.coords)


def as_labelled(name: str, value: Any) -> Any:
    """A sequence of values of `name` becomes a DataArray along a dimension of that name; numbers stay numbers."""
    if isinstance(value, xr.DataArray):
        return value
    if (count := dimensions(name, value)) == 0:
        return value
    if count > 1:
        raise ValueError(f"{name} must be a number, a list of numbers or an xarray.DataArray, got {shown(value)}")
    check_values(name, value)
    return xr.DataArray(np.asarray(value, dtype=float), dims=name, coords={name: np.asarray(value, dtype=float)})


def per_vector(name: str, value: Any, vectors: Sequence[str]) -> dict[str, Any]:
    """One value for each vector, in their order, from one for all or from a mapping letter -> value."""
    if not isinstance(value, Mapping):
        return dict.fromkeys(vectors, value)
    given = mapping(name, value, vectors)
    if missing := set(vectors) - set(given):
        raise ValueError(f"{name} has no entry for the vector {sorted(missing)[0]!r}")
    return {x: given[x] for x in vectors}


def as_text(value: Any) -> str:
    """A value as text to make it again from: numbers as they are, labelled values as JSON (`xarray`'s `to_dict`), and
    those that are long as their sizes and a digest."""
    if isinstance(value, Mapping) and not isinstance(value, xr.Dataset):
        return "{" + ", ".join(f"{key!r}: {as_text(part)}" for key, part in value.items()) + "}"
    if not isinstance(value, (xr.DataArray, xr.Dataset)):
        return str(value)
    text = json.dumps(value.to_dict(), default=str)
    if len(text) <= SHORT:
        return text
    sizes = ", ".join(f"{d}: {n}" for d, n in value.sizes.items())
    return f"<{sizes}; sha256 {hashlib.sha256(text.encode()).hexdigest()[:16]}>"
