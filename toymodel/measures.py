"""Measures of runs: when a strategy emerges, how long it lasts, which one wins.

Everything follows from the losses alone. A mechanism m *is learned* at a time when its loss is below half of
`unlearned_<m>`, the loss of a mechanism that has learned nothing. What does not happen is NaN. Nothing is interpolated,
so a measure is as fine as the times at which the losses are looked at.

A measure is written once, in its running form: `follow` takes what is known of a mechanism (`BEGIN` before the first
time) one time further, and `finished` says what the measures are. Descent runs it at every step, without a record; on a
record or a flow it is run over the recorded times. To add a measure, add what it must know to `BEGIN` and `follow`, and
the measure to `finished` and `OF_MECHANISM`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import combinations
from typing import Any

import numpy as np
import xarray as xr

from toymodel import compiled
from toymodel.checks import check_values

LEARNED = 0.5  # of the unlearned loss
NEVER = 1e300  # a time that has not come; finite, so that comparisons are all there is to do with it
BEGIN = {
    "emergence": NEVER,
    "lowest": NEVER,
    "lowest_at": NEVER,
    "end": NEVER,
    "bump": 0.0,
    "bump_at": NEVER,
    "last": NEVER,
}
OF_MECHANISM = ("emergence", "minimum", "minimum_time", "end", "lifetime", "lasts", "bump", "bump_time", "final")
VARIABLES = (*OF_MECHANISM, "winner", "phase")  # what `measure` returns: no other name in a record may be one
PHASES = ("plateau", "transient ICL", "persistent ICL", "both", "CIWL only")
DIVERGED = "diverged"


def follow(n, loss, inside, emergence, lowest, lowest_at, end, bump, bump_at, last):
    """What is known of a mechanism after the time n, from what was known before; a loss of NaN changes nothing.

    inside: the loss below which it is learned. The other arguments are named as in `BEGIN`. Times grow from call
    to call. Numbers only, no branch: the kernels of descent are compiled together with it.
    """
    learned = loss < inside
    lower = loss < lowest
    rise = loss - lowest
    came = n if learned else NEVER
    emergence = emergence if emergence < came else came
    waits = emergence >= NEVER
    gone = n if (loss >= inside) & (not waits) else NEVER
    end = end if end < gone else gone
    higher = waits & (rise > bump)
    end = NEVER if lower else end
    lowest_at = n if lower else lowest_at
    lowest = loss if lower else lowest
    bump = rise if higher else bump
    bump_at = n if higher else bump_at
    last = loss if loss == loss else last
    return emergence, lowest, lowest_at, end, bump, bump_at, last


def finished(known: Mapping[str, np.ndarray], inside: Any, last: Any, unit: Any = 1.0) -> dict[str, np.ndarray]:
    """The measures of a mechanism from what is known of it at the end.

    inside: the loss below which it is learned. last: the last time that it was followed at. unit: what times are
    multiplied by.

    emergence                first time at which the mechanism is learned
    minimum, minimum_time    its lowest loss, and the first time at which that is reached
    end                      first time after the minimum at which it is no longer learned
    lifetime                 end - emergence; up to the last time where it is still learned then (see `lasts`)
    lasts                    whether it is learned at the last time
    bump, bump_time          before it is first learned, the largest rise of its loss above the lowest value it had so
                             far, max over t of L(t) - min over s <= t of L(s), and that t; 0 and NaN if the loss only
                             falls. Where ICL emerges and CIWL takes over this is the bump of CIWL; where ICL persists,
                             the loss of CIWL goes on rising long after
    final                    its loss at the last time
    """
    happens = known["emergence"] < NEVER
    lasts = known["last"] < inside
    emergence, end = _time(known["emergence"], unit), np.where(happens, _time(known["end"], unit), np.nan)
    return {
        "emergence": emergence,
        "minimum": known["lowest"],
        "minimum_time": _time(known["lowest_at"], unit),
        "end": end,
        "lifetime": np.where(happens, np.where(lasts, last * unit, end) - emergence, np.nan),
        "lasts": lasts,
        "bump": known["bump"],
        "bump_time": np.where(known["bump"] > 0, _time(known["bump_at"], unit), np.nan),
        "final": known["last"],
    }


def _time(of: np.ndarray, unit: Any) -> np.ndarray:
    return np.where(of < NEVER, of * unit, np.nan)


def running() -> str:
    """`follow` as text for generated code, with the constant that it takes."""
    return f"NEVER = {NEVER!r}\n\n{compiled.source(follow)}"


def begun(runs: int) -> dict[str, np.ndarray]:
    """What is known of a mechanism of so many runs before the first time."""
    return {name: np.full(runs, value) for name, value in BEGIN.items()}


def follow_all() -> Callable[..., None]:
    """`follow` for many runs and times, compiled: a function of times (time,), losses (time, run), the losses below
    which the mechanism is learned (run,), and the values of `begun`, which it changes in place."""
    known = ", ".join(f"{name}[i]" for name in BEGIN)
    text = f"""{compiled.HEAD}
{running()}

{compiled.FAST}
def follow_all(times, losses, insides, {", ".join(BEGIN)}):
    for t in range(losses.shape[0]):
        for i in range(losses.shape[1]):
            {known} = follow(times[t], losses[t, i], insides[i], {known})
"""
    return compiled.module(text).follow_all


def measure(runs: xr.Dataset) -> xr.Dataset:
    """The measures of each run of a record: when each mechanism emerges, how long it lasts, which one wins.

    Arguments:
        runs: a record of `descend` or `flow`; or curves of your own: `loss_<m>` along `time` for each mechanism m, with
            `unlearned_<m>`, its loss when nothing is learned.

    Returns:
        Along `mechanism` and the dimensions of the batch, the measures of `toymodel.measures.finished`, in units of
        time (steps x step size); and one label for each run: `winner` (what is learned at the end of the record: a
        mechanism, "none", or several joined by "+") and, for a model with `icl` and `ciwl`, `phase`. What does not
        happen is NaN.

    Raises:
        ValueError for what is no record.

    Source: definitions, at the top of `toymodel/measures.py`.

    >>> import xarray as xr
    >>> time = {"time": [0.0, 1.0, 2.0, 3.0]}
    >>> curves = xr.Dataset({"loss_icl": ("time", [1.0, 0.4, 0.1, 0.9]), "unlearned_icl": 1.0}, coords=time)
    >>> found = measure(curves).sel(mechanism="icl")
    >>> float(found.emergence), float(found.end), float(found.lifetime), found.winner.item()
    (1.0, 3.0, 2.0, 'none')
    """
    mechanisms = mechanisms_of(runs)
    runs = runs.drop_vars("mechanism", errors="ignore")  # a label that a start made from other measures may carry
    dims = [d for d in runs[f"loss_{mechanisms[0]}"].dims if d != "time"]
    sizes = [runs.sizes[d] for d in dims]
    times = runs["time"].values.astype(float)
    found = {}
    for m in mechanisms:
        losses = runs[f"loss_{m}"].transpose("time", *dims).values.reshape(len(times), -1).astype(float, order="C")
        unlearned = runs[f"unlearned_{m}"].broadcast_like(runs[f"loss_{m}"].isel(time=0, drop=True))
        inside = LEARNED * unlearned.transpose(*dims).values.reshape(-1)
        known = begun(losses.shape[1])
        follow_all()(times, losses, inside, *known.values())
        found[m] = finished(known, inside, times[-1])
    names = {name: np.stack([found[m][name].reshape(sizes) for m in mechanisms], -1) for name in OF_MECHANISM}
    coords = {name: c for name, c in runs.coords.items() if set(c.dims) <= set(dims) and name != "mechanism"}
    measures = xr.Dataset({name: ((*dims, "mechanism"), value) for name, value in names.items()}, coords)
    attrs = {k: v for k, v in runs.attrs.items() if k.startswith(("model", "toymodel"))}
    return labelled(measures.assign_coords(mechanism=mechanisms)).assign_attrs(attrs)


def labelled(measures: xr.Dataset) -> xr.Dataset:
    """The measures with the labels that follow from them."""
    measures["winner"] = winner(measures)
    if {"icl", "ciwl"} <= set(measures["mechanism"].values.tolist()):
        measures["phase"] = phase(measures)
    return measures


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
    lasts = measures.lasts.transpose(..., "mechanism")
    names = [str(name) for name in measures["mechanism"].values]
    which = lasts.values @ (1 << np.arange(len(names)))
    texts = {k: "+".join(name for i, name in enumerate(names) if k >> i & 1) or "none" for k in np.unique(which)}
    labels = np.array(list(texts.values()))[np.searchsorted(list(texts), which)]
    return lasts.isel(mechanism=0, drop=True).copy(data=labels)


def labels_of(mechanisms: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """All labels that each variable of labels can have, for a sweep that stores them as numbers."""
    names = list(mechanisms)
    several = ["+".join(some) for n in range(1, len(names) + 1) for some in combinations(names, n)]
    found = {"winner": ("none", *several, DIVERGED)}
    return found | ({"phase": (*PHASES, DIVERGED)} if {"icl", "ciwl"} <= set(names) else {})


def first_below(values: xr.DataArray, threshold: float) -> xr.DataArray:
    """The first recorded time at which the values are below the threshold.

    Arguments:
        values: along `time`, such as a loss of a record.
        threshold: a number.

    Returns:
        Times (steps x step size) along the other dimensions; NaN for a run that never is.

    Source: the paper's criterion, loss < 1e-6 (Singh et al. 2025, section 6).

    >>> import xarray as xr
    >>> losses = xr.DataArray([[1.0, 0.1], [1.0, 1.0]], dims=("seed", "time"), coords={"time": [0.0, 5.0]})
    >>> first_below(losses, 0.5).values.tolist()
    [5.0, nan]
    """
    check_along_time("values", values)
    check_values("threshold", threshold, -np.inf)
    return first_true(values < threshold)


def first_true(condition: xr.DataArray) -> xr.DataArray:
    """The first recorded time at which the condition holds.

    Arguments:
        condition: True or False along `time`.

    Returns:
        Times (steps x step size) along the other dimensions; NaN where it never does.

    Source: a definition; see `first_below`.

    >>> import xarray as xr
    >>> float(first_true(xr.DataArray([False, True, False], dims="time", coords={"time": [0.0, 5.0, 6.0]})))
    5.0
    """
    check_along_time("condition", condition)
    at = condition.argmax("time")
    times = condition["time"].drop_vars("step", errors="ignore")[at].drop_vars("time", errors="ignore")
    return times.where(condition.any("time"))
