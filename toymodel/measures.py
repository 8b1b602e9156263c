"""Measures of recorded runs: when a strategy emerges, how long it lasts, which one wins.

Everything follows from the recorded losses alone. A mechanism m *is learned* at a time when its loss is below half of
`unlearned_<m>`, the loss of a mechanism that has learned nothing. All times are recorded times; what does not happen is
NaN. Nothing is interpolated, so a measure is as fine as the record.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from toymodel.checks import check_values

LEARNED = 0.5
VARIABLES = (  # what `measure` returns: names that nothing else in a record may have
    *("emergence", "minimum", "minimum_time", "end", "lifetime", "lasts", "bump", "bump_time", "winner", "phase"),
)


def measure(runs: xr.Dataset) -> xr.Dataset:
    """The measures of each run, along `mechanism` and the dimensions of the batch.

    emergence
        first time at which the mechanism is learned
    minimum, minimum_time
        lowest loss of the mechanism, and the first time at which it is reached
    end
        first time after the minimum at which it is no longer learned
    lifetime
        end - emergence; up to the end of the record where it is still learned then (see `lasts`)
    lasts
        whether the mechanism is learned at the end of the record
    bump, bump_time
        before the mechanism is first learned, the largest rise of its loss above the lowest value it had so far,
        max over t of L(t) - min over s <= t of L(s), and that t; 0 and NaN if the loss only falls. Where ICL emerges
        and CIWL takes over this is the bump of CIWL; where ICL persists, the loss of CIWL goes on rising long after
    winner
        what is learned at the end of the record, one label for each run: a mechanism, "none", or several joined by "+"
    phase
        for a model with `icl` and `ciwl`, one label for each run: see `phase`
    """
    mechanisms = mechanisms_of(runs)
    runs = runs.drop_vars("mechanism", errors="ignore")  # a label that a start made from other measures may carry
    index = xr.DataArray(mechanisms, dims="mechanism", name="mechanism")
    losses = xr.concat([runs[f"loss_{m}"] for m in mechanisms], index)
    learned = losses < LEARNED * xr.concat([runs[f"unlearned_{m}"] for m in mechanisms], index)
    times = runs["time"]
    lowest = losses.argmin("time")
    emergence = first_true(learned)
    happens = emergence.notnull()
    minimum_time = _at(times, lowest)
    end = first_true(~learned & (times > minimum_time)).where(happens)
    lasts = learned.isel(time=-1, drop=True)
    lifetime = (end.where(~lasts, float(times[-1])) - emergence).where(happens)
    axis = losses.get_axis_num("time")
    rise = losses - losses.copy(data=np.minimum.accumulate(losses.values, axis))
    rise = rise.where(~losses.copy(data=np.logical_or.accumulate(learned.values, axis)), 0.0)
    highest = rise.argmax("time")
    bump = rise.max("time")
    measures = xr.Dataset(
        {
            "emergence": emergence,
            "minimum": losses.min("time"),
            "minimum_time": minimum_time,
            "end": end,
            "lifetime": lifetime,
            "lasts": lasts,
            "bump": bump,
            "bump_time": _at(times, highest).where(bump > 0),
        }
    )
    measures["winner"] = winner(measures)
    if {"icl", "ciwl"} <= set(mechanisms):
        measures["phase"] = phase(measures)
    measures.attrs = {k: v for k, v in runs.attrs.items() if k.startswith(("model", "toymodel"))}
    return measures.transpose(..., "mechanism")


def mechanisms_of(runs: xr.Dataset) -> list[str]:
    """The mechanisms of a record; raises ValueError for what is none, and for one without numbers to measure."""
    names = [str(name) for name in runs.data_vars] if isinstance(runs, xr.Dataset) else []
    mechanisms = [name.removeprefix("loss_") for name in names if name.startswith("loss_")]
    if not mechanisms or "time" not in runs.dims:
        raise ValueError("runs must be a record with loss_<mechanism> along time, as descend and flow return it")
    if empty := [str(d) for d, n in runs.sizes.items() if not n]:
        raise ValueError(f"runs is empty: there is nothing along {empty[0]!r}")
    for m in mechanisms:
        if f"unlearned_{m}" not in names:
            raise ValueError(f"runs has no unlearned_{m}, the loss of a mechanism that has learned nothing")
        losses = runs[f"loss_{m}"]
        if losses.dtype.kind not in "iuf" or "time" not in losses.dims:
            raise ValueError(f"runs: loss_{m} must be numbers along time")
        if without := int(losses.isnull().all("time").sum()):
            raise ValueError(f"runs: loss_{m} is NaN at every time in {without} of {losses.isel(time=0).size} runs")
    return mechanisms


def check_along_time(name: str, values: xr.DataArray) -> None:
    """Raises ValueError unless the values are labelled, along at least one time."""
    if not isinstance(values, xr.DataArray) or "time" not in values.coords or not values.sizes.get("time"):
        raise ValueError(f"{name} must be a DataArray along time with at least one time, such as runs.loss")


def phase(measures: xr.Dataset) -> xr.DataArray:
    """The course of each run in two words, from its measures.

    "plateau"          neither ICL nor CIWL is ever learned
    "transient ICL"    ICL emerges and is gone at the end
    "persistent ICL"   ICL is learned at the end and CIWL is not
    "both"             both are learned at the end
    "CIWL only"        CIWL emerges and ICL never does
    """
    icl, ciwl = (measures.sel(mechanism=m, drop=True) for m in ("icl", "ciwl"))
    emerged = icl.emergence.notnull()
    label = xr.where(ciwl.emergence.notnull(), "CIWL only", "plateau")
    label = label.where(~emerged, "transient ICL")
    label = label.where(~icl.lasts, "persistent ICL")
    return label.where(~(icl.lasts & ciwl.lasts), "both")


def winner(measures: xr.Dataset) -> xr.DataArray:
    """What is learned at the end of each run: the names of the mechanisms, joined by "+", or "none"."""
    names = measures["mechanism"].values
    lasts = measures.lasts.transpose(..., "mechanism")
    labels = ["+".join(map(str, names[row])) or "none" for row in lasts.values.reshape(-1, len(names))]
    return lasts.isel(mechanism=0, drop=True).copy(data=np.array(labels).reshape(lasts.shape[:-1]))


def first_below(values: xr.DataArray, threshold: float) -> xr.DataArray:
    """The first recorded time at which the values are below the threshold; NaN for a run that never is."""
    check_along_time("values", values)
    check_values("threshold", threshold, -np.inf)
    return first_true(values < threshold)


def first_true(condition: xr.DataArray) -> xr.DataArray:
    """The first recorded time at which the condition holds; NaN where it never does."""
    check_along_time("condition", condition)
    return _at(condition["time"], condition.argmax("time")).where(condition.any("time"))


def _at(times: xr.DataArray, index: xr.DataArray) -> xr.DataArray:
    return times.drop_vars("step", errors="ignore")[index].drop_vars("time", errors="ignore")
