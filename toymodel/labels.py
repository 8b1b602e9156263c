"""Labelled inputs as flat arrays and back: whatever is swept, a simulation sees one axis of runs.

Starts, parameters and clamped values may each carry dimensions of their own (a seed, an alpha, a time at which a
state was taken). A `Batch` is their common shape; its runs are all combinations, flattened.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr


@dataclass(frozen=True)
class Batch:
    """The common dimensions of a set of runs; `shape` is an empty DataArray that has them with their coordinates.

    `block` restricts what `flat` and `thin` return to some of the runs.
    """

    shape: xr.DataArray
    block: slice = field(default_factory=lambda: slice(None))

    @classmethod
    def of(cls, values: Iterable[xr.DataArray]) -> Batch:
        """The batch of all combinations; raises ValueError where two values disagree on a shared coordinate."""
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
        """The value of each run of the block, shape (runs of the block,)."""
        if not isinstance(value, xr.DataArray):
            return np.full(self.runs, value, dtype=float)[self.block]
        return (value.astype(float) + self.shape).transpose(*self.dims).values.reshape(self.runs)[self.block]

    def thin(self, value: Any) -> np.ndarray:
        """As `flat`, but a value that is the same for all runs has shape ()."""
        if isinstance(value, xr.DataArray) and value.ndim:
            return self.flat(value)
        return np.asarray(value, dtype=float)

    def labelled(self, array: np.ndarray, *dims: str) -> xr.DataArray:
        """An array of shape (runs, ...) as a DataArray with the batch's dimensions, then `dims`."""
        shape = (*self.shape.shape, *array.shape[1:])
        return xr.DataArray(array.reshape(shape), dims=(*self.dims, *dims), coords=self.shape.coords)


def as_labelled(name: str, value: Any) -> Any:
    """A sequence of values of `name` becomes a DataArray along a dimension of that name; numbers stay numbers."""
    if isinstance(value, xr.DataArray) or np.ndim(value) == 0:
        return value
    if np.ndim(value) > 1:
        raise ValueError(
            f"{name} must be a number, a list of numbers or an xarray.DataArray, got {np.ndim(value)} dimensions"
        )
    return xr.DataArray(np.asarray(value, dtype=float), dims=name, coords={name: np.asarray(value, dtype=float)})


def check_values(name: str, value: Any, least: float = 0.0) -> None:
    """Raises ValueError unless every entry of the value is a finite number >= least."""
    array = np.asarray(value)
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{name} must be a number >= {least:g}, got {value!r}")
    wrong = ~(np.isfinite(array) & (array >= least))
    if wrong.any():
        raise ValueError(f"{name} must be >= {least:g} and finite, got {array[wrong].flat[0]}")


def per_vector(name: str, value: Any, vectors: Sequence[str]) -> dict[str, Any]:
    """One value for each vector, from one for all or from a mapping letter -> value."""
    if not isinstance(value, Mapping):
        return dict.fromkeys(vectors, value)
    if unknown := set(value) - set(vectors):
        raise ValueError(f"{name} names the unknown vector {sorted(unknown)[0]!r}; the model has {list(vectors)}")
    if missing := set(vectors) - set(value):
        raise ValueError(f"{name} has no entry for the vector {sorted(missing)[0]!r}")
    return dict(value)
