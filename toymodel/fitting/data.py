"""Curves to be fitted: from tables, labelled arrays, records and curves of networks to one array.

A table has a column for the time, one for each curve, and, where it holds several runs, one that names the run. The
curves of our networks and of the paper have `accuracy_in_context` along `step` and `evaluator`; a record has
`loss_<mechanism>` along `time`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float

from toymodel.checks import mapping, shown
from toymodel.model import Model

ENDINGS = (".csv", ".parquet", ".nc")


@dataclass(frozen=True)
class Observed:
    """Curves of some terms of a model; NaN is what was not measured.

    time: increasing, >= 0, in the user's unit. values: (run, time, curve). names: what each curve is of: a mechanism, a
    cost, or "loss". kind: "loss" or "accuracy", as far as the data say. runs: labels, and what they are called.
    """

    time: Float[np.ndarray, " time"]
    values: Float[np.ndarray, "run time curve"]
    names: tuple[str, ...]
    kind: str = "loss"
    runs: tuple[Any, ...] = (0,)
    run: str = "run"

    def dataset(self, values: Any) -> xr.DataArray:
        """Values of the shape of these, with labels."""
        coords = {self.run: list(self.runs), "time": self.time, "curve": list(self.names)}
        return xr.DataArray(values, coords, (self.run, "time", "curve"))


def observed(
    model: Model, data: Any, columns: Mapping[str, str] | None = None, time: str | None = None, run: str | None = None
) -> Observed:
    """The curves in the data, checked; see `toymodel.fit` for the arguments and `Observed` for what comes back.

    Raises ValueError for data without times or curves, times that are NaN, negative or not increasing, unknown names,
    and curves without one finite number; FileNotFoundError for a file that is not there.
    """
    names = mapping("columns", columns, ("loss", *model.terms))
    if isinstance(data, (str, os.PathLike)):
        data = _read(Path(data))
    if isinstance(data, pd.DataFrame):
        found = _of_table(model, data, names, time, run)
    elif isinstance(data, (xr.Dataset, xr.DataArray)):
        found = _of_labelled(model, data, names, time, run)
    else:
        raise ValueError(f"data must be a path, a DataFrame, a Dataset or a DataArray, got {shown(data)}")
    if np.isinf(found.values).any():
        raise ValueError("data has infinite values; leave them out or make them NaN")
    for k, name in enumerate(found.names):
        if not np.isfinite(found.values[..., k]).any():
            raise ValueError(f"data: the curve of {name!r} has no finite value")
    return found


def _read(path: Path) -> Any:
    if path.suffix not in ENDINGS:
        raise ValueError(f"data must be a file that ends in {', '.join(ENDINGS)}, got {path.name!r}")
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        if path.suffix == ".nc":
            with xr.open_dataset(path, engine="h5netcdf") as file:
                return file.load()
        return pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
    except ImportError:
        raise ValueError(f"{path.name}: to read Parquet pandas needs pyarrow, which is not installed") from None
    except Exception as error:  # of pandas and xarray: each has kinds of its own
        raise ValueError(f"{path} cannot be read: {error}") from None


def _curves_in(model: Model, there: list[str], names: dict[str, str]) -> tuple[dict[str, str], str]:
    """Curve -> column, as it was given or by the names that records and networks use; and of what kind they are."""
    if missing := [column for column in names.values() if column not in there]:
        raise ValueError(f"data has no column {missing[0]!r}; there are {there}")
    if names:
        return names, "accuracy" if all(str(c).startswith("acc") for c in names.values()) else "loss"
    for kind, pattern in (("loss", "{}"), ("loss", "loss_{}"), ("accuracy", "accuracy_{}")):
        if found := {t: pattern.format(t) for t in model.terms if pattern.format(t) in there}:
            return found, kind
    raise ValueError(
        f"data has no column of {' or '.join(model.terms)}: name them with columns=..., such as "
        f"{{{next(iter(model.terms))!r}: COLUMN}}; there are {there}"
    )


def _of_table(model: Model, data: pd.DataFrame, names: dict[str, str], time: str | None, run: str | None) -> Observed:
    there = [str(column) for column in data.columns]
    time = time or next((name for name in ("time", "step") if name in there), "time")
    for argument, column in (("time", time), ("run", run)):
        if column is not None and column not in there:
            raise ValueError(f"{argument}: data has no column {column!r}; there are {there}")
    curves, kind = _curves_in(model, [name for name in there if name not in (time, run)], names)
    for column in (time, *curves.values()):
        if data[column].dtype.kind not in "iuf":
            raise ValueError(f"data: the column {column!r} must hold numbers, got {data[column].dtype}")
    parts = {0: data} if run is None else dict(tuple(data.groupby(run)))
    for label, part in parts.items():
        _check_times(part[time].to_numpy(float), "" if run is None else f" of the run {label!r}")
    when = np.unique(data[time].to_numpy(float))
    values = np.full((len(parts), len(when), len(curves)), np.nan)
    for i, part in enumerate(parts.values()):
        at = np.searchsorted(when, part[time].to_numpy(float))
        values[i, at] = part[list(curves.values())].to_numpy(float)
    return Observed(when, values, tuple(curves), kind, tuple(parts), run or "run")


def _of_labelled(model: Model, data: Any, names: dict[str, str], time: str | None, run: str | None) -> Observed:
    kind = None
    if isinstance(data, xr.Dataset) and {"step", "evaluator"} <= set(data.dims):
        if "accuracy_in_context" not in data:
            raise ValueError("data of evaluators must have accuracy_in_context; pass another variable by itself")
        data, kind = data["accuracy_in_context"], "accuracy"
    if isinstance(data, xr.DataArray):
        along = next((d for d in ("evaluator", "curve", "mechanism") if d in data.dims), None)
        if along is not None:
            kind = kind or ("accuracy" if str(data.name).startswith("acc") else None)
            data = data.drop_vars([n for n, c in data.coords.items() if along in c.dims and n != along])
            data = data.to_dataset(along)
        else:
            data = data.to_dataset(name=data.name or next(iter(names.values()), next(iter(model.terms))))
    time = time or next((name for name in ("time", "step") if name in data.dims), "time")
    if time not in data.dims or time not in data.coords:
        raise ValueError(f"time: data has no times along {time!r}; its dimensions are {list(data.sizes)}")
    there = [str(name) for name, of in data.data_vars.items() if time in of.dims and of.dtype.kind in "iuf"]
    curves, found = _curves_in(model, there, names)
    parts = xr.broadcast(*(data[column].reset_coords(drop=True) for column in curves.values()))
    others = [d for d in parts[0].dims if d != time]
    if len(others) > 1 or (run is not None and others != [run]):
        raise ValueError(f"data must have the dimension {time!r} and one of runs at most, got {list(parts[0].sizes)}")
    when = data[time].to_numpy().astype(float)
    _check_times(when)
    values = np.stack([np.asarray(part.transpose(*others, time), float) for part in parts], -1)
    runs = tuple(parts[0][others[0]].values.tolist()) if others else (0,)
    values = values if others else values[None]
    return Observed(when, values, tuple(curves), kind or found, runs, str(others[0]) if others else "run")


def _check_times(when: np.ndarray, of: str = "") -> None:
    if not len(when):
        raise ValueError("data is empty: there are no times")
    if not np.isfinite(when).all():
        raise ValueError(f"data: {int((~np.isfinite(when)).sum())} of {len(when)} times{of} are not finite")
    if (np.diff(when) <= 0).any():
        i = int(np.argmax(np.diff(when) <= 0))
        raise ValueError(f"data: the times{of} must increase, got {when[i]:g} before {when[i + 1]:g}; sort the data")
    if when[0] < 0 or when[-1] <= 0:
        raise ValueError(f"data: the times{of} must be >= 0 and not all 0, got {when[0]:g}..{when[-1]:g}")
