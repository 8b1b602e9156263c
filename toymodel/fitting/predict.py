"""What a fitted model says of other experiments."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from toymodel.checks import check_values, checked
from toymodel.fitting.fit import Fit
from toymodel.model import Model
from toymodel.simulation.flow import flow
from toymodel.simulation.interventions import Change, Intervention, built, interventions_of


@checked
def predict(
    fit: Fit,
    interventions: Any = None,
    *,
    times: Any = None,
    start: xr.Dataset | None = None,
    model: Model | None = None,
) -> xr.Dataset:
    """The curves of another experiment, from a model that was fitted to one.

    Arguments:
        fit: what `tm.fit` returned.
        interventions: what is done in that experiment, with `at` and `until` in the data's unit of time; by default
            what was done in the one that was fitted.
        times: where to predict, in the data's unit, increasing; by default the times of the data.
        start: another start, such as `tm.state_at` of a prediction; by default the fitted one.
        model: another model, such as `fit.model.with_parameters(mu_icl=0)`; by default the fitted one.

    Returns:
        The record of a flow (see `tm.flow`), with its times in the data's unit, and `predicted` along `time` and
        `curve`, which is what the data would be.

    Source: `benchmarks/fit_predictions.py` for how well that predicts networks.

    >>> import numpy as np, xarray as xr, toymodel as tm
    >>> model = tm.Model({"icl": "a"}, lambda icl: icl, {"a": 1})
    >>> days = np.linspace(0, 3, 30)
    >>> curve = xr.Dataset({"icl": ("time", np.exp(-1.4 * days) / 2)}, {"time": days})
    >>> found = tm.fit(model, curve, free=["time"], start=tm.aligned_start(model, overlap=0.0), starts=2)
    >>> other = tm.predict(found, [tm.Freeze("a", at=1.0)], times=[1.0, 2.0])  # learning stops after a day
    >>> other.predicted.values.ravel().round(4).tolist()
    [0.1233, 0.1233]
    """
    when = fit.seen.time if times is None else np.asarray(times, float)
    check_values("times", when)
    acts = fit.interventions if interventions is None else interventions_of(interventions)
    acts = tuple(stretched(built(act), fit.time) for act in acts)
    model = fit.model if model is None else model
    end = float(when[-1]) if when.ndim == 1 and when[-1] > 0 else 1.0
    begin = fit.start if start is None else start
    runs = flow(model, begin, end * fit.time, times=when * fit.time, interventions=acts, max_steps=100_000)
    parts = []
    for name, link in zip(fit.seen.names, fit.curves.links, strict=True):
        loss = runs[f"loss_{name}"] if name in model.mechanisms else runs[name]
        parts.append(
            link(loss, runs[f"unlearned_{name}"] if name in model.mechanisms else _unlearned(model, runs, name))
        )
    curves = xr.concat(parts, xr.DataArray(list(fit.seen.names), dims="curve", name="curve"), coords="minimal")
    runs = runs.assign(predicted=curves.transpose(..., "time", "curve"))
    return runs.assign_coords(time=when)


def stretched(act: Intervention, factor: float) -> Intervention:
    """The intervention with its times multiplied by a factor."""
    at, until = act.at * factor, act.until * factor
    if isinstance(act, Change):
        values = act.values()
        return Change(**{**values, "at": at, "until": until})
    return replace(act, at=at, until=until)


def _unlearned(model: Model, runs: xr.Dataset, name: str) -> xr.DataArray:
    """As `toymodel.fitting.residuals.unlearned_losses`, of a record."""
    nothing = {t: runs[f"unlearned_{t}"] if t in model.mechanisms else 0.0 * runs[t] for t in model.terms}
    if name in nothing:
        return nothing[name]
    return model.loss(**nothing, **model.parameters)
