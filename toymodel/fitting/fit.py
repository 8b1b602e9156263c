"""Fits a model to curves: `fit`, and what it finds, `Fit`.

With curves c_m(t) of terms m, observed with noise of the unknown size sigma_m, a fit minimises

    sum over runs, times and curves of (c_m(t; theta) - observed)^2 / sigma_m^2,

and takes sigma_m from what is left, in turn (maximum likelihood, with n - k in place of n).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from scipy.stats import qmc

from toymodel.checks import Seed, Steps, checked, mapping, number
from toymodel.fitting.data import Observed, observed
from toymodel.fitting.free import Free, layout
from toymodel.fitting.groups import groups_of
from toymodel.fitting.intervals import Intervals, linearised, profiled
from toymodel.fitting.least_squares import CONVERGED, FAILED, Solved, minimised
from toymodel.fitting.links import links_of
from toymodel.fitting.residuals import Curves
from toymodel.model import Model
from toymodel.simulation.interventions import built, interventions_of
from toymodel.start import aligned_start

CANDIDATES = 16  # random points for each start, of which the best are the starts
ROUNDS = 5  # of estimates of the noise
CORRELATED = 0.5  # residuals that follow each other more than this are no noise
CLOSE = 1e-3  # relative cost of starts that came to the same minimum


@dataclass(frozen=True)
class Fit:
    """A fitted model; print it for a table. `fit` makes it.

    Arguments:
        model, start: with the fitted values.
        time: model time in one unit of the data's time.
        estimates: along `parameter`: value, low, high (the interval), error (the standard error of x, see `Free`),
            bound (whether it ended at one) and identified.
        noise: along `curve`, its standard deviation on the scale of the fit.
        predicted, residuals: of the data's shape, (run, time, curve).
        converged, reason: whether the best start ended, and why.
        level: of the intervals.
        undetermined: the combinations that the curves do not fix, in words.
        groups: the four groups of the theory, for a loss that has them (`toymodel.fitting.groups`).
        curves: the data, and how they are linked to losses.
        x: the free coordinates of the best start (see `Free`).
        interventions: what was done in the experiment that was fitted.

    Raises:
        Nothing: `fit` checks what goes in.

    >>> import numpy as np, xarray as xr, toymodel as tm
    >>> model, days = tm.Model({"icl": "a"}, lambda icl: icl, {"a": 1}), np.linspace(0, 3, 30)
    >>> curve = xr.Dataset({"icl": ("time", np.exp(-1.4 * days) / 2)}, {"time": days})
    >>> found = tm.fit(model, curve, free=["time"], start=tm.aligned_start(model, overlap=0.0), starts=2)
    >>> found.converged, found.undetermined
    (True, ())
    """

    model: Model
    start: xr.Dataset
    time: float
    estimates: xr.Dataset
    noise: xr.DataArray
    predicted: xr.DataArray
    residuals: xr.DataArray
    converged: bool
    reason: str
    level: float
    undetermined: tuple[str, ...]
    groups: xr.Dataset | None
    curves: Curves
    x: np.ndarray
    interventions: tuple[Any, ...] = ()

    @property
    def seen(self) -> Observed:
        return self.curves.seen

    @property
    def error(self) -> float:
        """The root mean square of what is left, on the scale of the fit."""
        return float(np.sqrt((self.residuals**2).mean()))

    def __str__(self) -> str:
        of = self.estimates
        lines = [f"{self.reason}; root mean square of the residuals {self.error:.3g}"]
        lines.append(f"{'':20}{'estimate':>12}{f'{self.level:.0%} interval':>28}")
        for name in of.parameter.values:
            one = of.sel(parameter=name)
            interval = f"{float(one.low):.4g} to {float(one.high):.4g}" if one.identified else "not identified"
            end = "  (at its bound)" if one.bound else ""
            lines.append(f"{name:20}{float(one.value):12.5g}{interval:>28}{end}")
        lines += [
            f"noise of {name}: {float(value):.3g}" for name, value in zip(self.seen.names, self.noise, strict=True)
        ]
        if self.groups is not None:
            of = self.groups.sel(group=~self.groups.fixed.values)
            told = [f"{g} {float(of.value.sel(group=g)):.4g}{_within(of.sel(group=g))}" for g in of.group.values]
            lines.append("groups: " + ", ".join(told))
        if self.repeats > CORRELATED:
            lines.append(
                f"residuals follow each other (correlation {self.repeats:.2f}): the model misses more than noise, and "
                "the intervals are too narrow"
            )
        return "\n".join([*lines, *self.undetermined])

    @property
    def repeats(self) -> float:
        """The correlation of each residual with the next one in time, near 0 where the model leaves noise alone."""
        one = self.residuals.transpose(..., "time", "curve").values
        left, right = one[..., :-1, :], one[..., 1:, :]
        both = np.isfinite(left) & np.isfinite(right)
        size = np.sqrt(np.sum(left[both] ** 2) * np.sum(right[both] ** 2))
        return float(np.sum(left[both] * right[both]) / size) if size > 0 else 0.0

    def dataset(self) -> xr.Dataset:
        """All of it as labelled data, for `tm.save`."""
        parts = {f"estimate_{name}": of for name, of in self.estimates.data_vars.items()}
        if self.groups is not None:
            parts |= {f"group_{name}": of for name, of in self.groups.data_vars.items()}
        parts |= {"noise": self.noise, "predicted": self.predicted, "residual": self.residuals}
        parts |= {"observed": self.seen.dataset(self.seen.values)}
        parts |= {f"start_{name}": self.start[name] for name in ("overlap", "residual", "target_norm")}
        about = {"model": self.model.to_json(), "time_scale": self.time, "level": self.level, "reason": self.reason}
        about |= {"converged": int(self.converged), "undetermined": "; ".join(self.undetermined) or "nothing"}
        about |= {"interventions": "; ".join(map(str, self.interventions)) or "none", "fit": "toymodel"}
        return xr.Dataset(parts, attrs=about)

    def plot(self) -> Figure:
        """The curves over the data."""
        from toymodel import plotting
        from toymodel.fitting.plots import fitted

        figure, axes = plotting.new(width=4.5, height=3.0)
        fitted(axes, self.dataset())
        return figure


def _within(of: xr.Dataset) -> str:
    return f" ({float(of.low):.4g} to {float(of.high):.4g})" if of.identified else " (not identified)"


@checked
def fit(
    model: Model,
    data: Any,
    *,
    free: Any = None,
    start: xr.Dataset | None = None,
    columns: Mapping[str, str] | None = None,
    time: str | None = None,
    run: str | None = None,
    link: Any = None,
    scale: Literal["linear", "log"] = "linear",
    noise: Any = None,
    interventions: Any = (),
    starts: Steps = 16,
    seed: Seed = 0,
    level: Any = 0.9,
    intervals: Literal["linearised", "profile"] = "linearised",
    most: Steps = 200,
    progress: bool | None = None,
) -> Fit:
    """Fits free values of a model to curves by least squares, from many starts side by side.

    Arguments:
        model: the loss; what is not free has its values.
        data: a path (.csv, .parquet, .nc), a DataFrame, a Dataset or a DataArray (`toymodel.fitting.data`): a table of
            times and curves, a record of a simulation, or the curves of a network.
        free: names, or name -> (low, high) or None for the default bounds (`toymodel.fitting.free`): parameters,
            "weight.icl", "target_norm.a", "overlap.abc", "residual.d", "start", "time". By default time, start and all
            parameters of the loss that are not 0.
        start: where runs begin (`tm.aligned_start` and others), one or one for each run of the data; by default, every
            overlap is a tenth of the target's norm and no vector has a residual.
        columns: mechanism, cost or "loss" -> column. By default those that are called as the term, or loss_<term>, or
            accuracy_<term>.
        time, run: columns or dimensions of the time ("time" or "step") and of the runs (none).
        link: what the curves are of the loss: "loss", "relative_loss", "accuracy", "choice", a function of (loss,
            unlearned), or curve -> one of these. By default what the data say.
        scale: "linear", or "log" for relative errors of curves > 0.
        noise: standard deviation of the curves on that scale, a number or curve -> number; by default estimated.
        interventions: those that hold all the time (`tm.Change(loss=...)`, `tm.Clamp`, `tm.Freeze`, `tm.Block`).
        starts, seed: how many starts, and the seed of their draw within the bounds.
        level: of the intervals.
        intervals: "linearised", from the Fisher matrix; or "profile", where the likelihood falls (slower).
        most: iterations.
        progress: show it; by default where it takes more than two seconds.

    Returns:
        A `Fit`. Where it did not converge, `Fit.converged` is False and `Fit.reason` says why.

    Raises:
        ValueError for data, names, bounds or options that do not fit, and for more free values than data. RuntimeError
        where no start could be followed.

    Source: Marquardt 1963; `benchmarks/fit_recovery.py` for what it recovers.

    >>> import numpy as np, pandas as pd, toymodel as tm
    >>> model = tm.Model({"icl": "a"}, lambda icl: icl, {"a": 1})
    >>> start = tm.aligned_start(model, overlap=0.0)  # one vector: L = exp(-2 t) / 2
    >>> days = np.linspace(0, 3, 30)
    >>> curve = pd.DataFrame({"day": days, "L": np.exp(-1.4 * days) / 2})
    >>> found = tm.fit(model, curve, free=["time"], start=start, columns={"icl": "L"}, time="day", starts=2)
    >>> round(found.time, 4)  # of the model, in a day
    0.7
    """
    level = number("level", level)
    if not 0 < level < 1:
        raise ValueError(f"level must be within 0..1, without the ends, got {level:g}")
    seen = observed(model, data, columns, time, run)
    begin = _default_start(model) if start is None else start
    curves = _curves(model, seen, begin, free, interventions, link, scale)
    given = _given_noise(seen, noise)
    n, k = len(curves.curve_of()), len(curves.layout.free)
    if n < k + (given is None):
        raise ValueError(f"data: {n} finite values cannot determine {k} free values; fix some, or give more data")
    most = int(most)
    solved, sizes, count = _solved(curves, given, int(starts), int(seed), most, progress)
    best, x = solved.best, solved.x[solved.best]
    reason = f"{solved.reason[best]} ({count} of {starts} starts came to this minimum)"
    freedom = n - k if given is None else None
    found = linearised(curves, x, solved.jacobian[best], freedom, level)
    groups = groups_of(curves, x, found, freedom, level)
    if intervals == "profile":
        found = profiled(curves, x, sizes, found, freedom, level, most)
    return _result(
        curves, model, begin, x, sizes, found, groups, solved.reason[best] == CONVERGED, reason, level, interventions
    )


def _default_start(model: Model) -> xr.Dataset:
    return aligned_start(model, overlap={x: 0.1 * norm for x, norm in model.target_norms.items()})


def _curves(
    model: Model,
    seen: Observed,
    start: xr.Dataset,
    free: Any,
    acts: Any,
    link: Any,
    scale: str,
) -> Curves:
    placed = layout(model, start, free, acts)
    if len(placed.base) not in (1, len(seen.runs)):
        raise ValueError(f"start has {len(placed.base)} runs, the data have {len(seen.runs)}")
    curves = Curves(placed, seen, links_of(link, seen.names, seen.kind), scale == "log")
    if scale == "log" and (wrong := int((seen.values <= 0).sum())):
        raise ValueError(f"scale='log' needs curves > 0, and {wrong} values are not; use scale='linear'")
    return curves


def _given_noise(seen: Observed, noise: Any) -> np.ndarray | None:
    """(curve,), or None where it is to be estimated."""
    if noise is None:
        return None
    if not isinstance(noise, Mapping):
        noise = dict.fromkeys(seen.names, noise)
    given = mapping("noise", noise, seen.names)
    if missing := [name for name in seen.names if name not in given]:
        raise ValueError(f"noise has no {missing[0]!r}; give it for each of {list(seen.names)}")
    return np.array([number(f"noise of {name!r}", given[name], np.finfo(float).tiny) for name in seen.names])


def _solved(
    curves: Curves, given: np.ndarray | None, starts: int, seed: int, most: int, progress: bool | None
) -> tuple[Solved, np.ndarray, int]:
    """The minimum, the noise (curve,), and how many starts came to it."""
    low, high = curves.layout.bounds()
    which, k = curves.curve_of(), len(low)
    wanted = curves.scaled(curves.seen.values)
    spread = np.nanstd(wanted, (0, 1))
    sizes = np.where(spread > 0, spread, 1.0) if given is None else given
    x = _starts(curves, sizes, low, high, starts, seed)
    solved = minimised(lambda x: curves.residuals(x, sizes), x, low, high, None, most, progress)
    if not np.isfinite(solved.cost).any():
        raise RuntimeError(f"{FAILED} from any of {starts} starts: give narrower bounds, above all for time and start")
    close = solved.cost <= solved.cost.min() * (1 + CLOSE) + 1e-12 * len(which)
    for _ in range(ROUNDS if given is None else 0):
        r = solved.residuals[solved.best]
        share = len(which) / max(len(which) - k, 1)  # n - k in place of n, shared by the curves
        left = np.array([np.mean(r[which == c] ** 2) * share for c in range(len(sizes))])
        before, sizes = sizes, np.maximum(sizes * np.sqrt(left), 1e-12 * np.where(spread > 0, spread, 1.0))
        x = solved.x[solved.best][None]
        solved = minimised(lambda x, sizes=sizes: curves.residuals(x, sizes), x, low, high, None, most, progress)
        if np.allclose(before, sizes, rtol=1e-2):
            break
    return solved, sizes, int(close.sum())


def _starts(curves: Curves, sizes: np.ndarray, low: np.ndarray, high: np.ndarray, starts: int, seed: int) -> np.ndarray:
    """The model's own values, and the best of some that are spread within the bounds."""
    drawn = qmc.Sobol(len(low), rng=seed).random(2 ** int(np.ceil(np.log2(CANDIDATES * starts))))
    x = np.concatenate([curves.layout.first()[None], low + (high - low) * drawn])
    with np.errstate(all="ignore"):
        cost = np.sum(curves.residuals(x, sizes)[0] ** 2, -1)
    order = np.argsort(np.where(np.isfinite(cost[1:]), cost[1:], np.inf)) + 1
    return x[np.concatenate([[0], order[: starts - 1]])]


def _result(
    curves: Curves, model: Model, start: xr.Dataset, x: np.ndarray, sizes: np.ndarray, found: Intervals,
    groups: xr.Dataset | None, converged: bool, reason: str, level: float, acts: Any,
) -> Fit:  # fmt: skip
    free, seen = curves.layout.free, curves.seen
    low, high = curves.layout.bounds()
    parts = {
        "value": [float(one.value(at)) for one, at in zip(free, x, strict=True)],
        "low": [float(one.value(at)) for one, at in zip(free, found.low, strict=True)],
        "high": [float(one.value(at)) for one, at in zip(free, found.high, strict=True)],
        "error": found.error,
        "bound": (x <= low) | (x >= high),
        "identified": found.identified,
    }
    estimates = xr.Dataset({name: ("parameter", np.asarray(part)) for name, part in parts.items()})
    estimates = estimates.assign_coords(parameter=[one.name for one in free])
    predicted = np.broadcast_to(curves.predicted(x[None])[0][0], seen.values.shape)
    values = {one.name: float(one.value(at)) for one, at in zip(free, x, strict=True)}
    fitted, begin = fitted_model(model, values), fitted_start(start, free, values)
    return Fit(
        fitted, begin, values.get("time", 1.0), estimates, xr.DataArray(sizes, {"curve": list(seen.names)}, "curve"),
        seen.dataset(predicted), seen.dataset(curves.scaled(predicted) - curves.scaled(seen.values)), converged, reason,
        level, found.undetermined, groups, curves, x,
        tuple(built(act) for act in interventions_of(acts)),
    )  # fmt: skip


def fitted_model(model: Model, values: Mapping[str, float]) -> Model:
    """The model with the fitted parameters, weights and target norms."""
    weights, norms = dict(model.weights), dict(model.target_norms)
    for name, value in values.items():
        kind, _, of = name.partition(".")
        if kind == "weight":
            weights[of] = value
        if kind == "target_norm":
            norms |= dict.fromkeys(of, value)
    parameters = {p: values.get(p, value) for p, value in model.parameters.items()}
    return replace(model, parameters=parameters, weights=weights, target_norms=norms)


def fitted_start(start: xr.Dataset, free: tuple[Free, ...], values: Mapping[str, float]) -> xr.Dataset:
    """The start with the fitted overlaps, residuals and target norms."""
    found = start.copy(deep=True)
    for name, value in sorted(values.items(), key=lambda pair: pair[0] == "start"):
        kind, _, of = name.partition(".")
        if kind in ("overlap", "residual", "target_norm"):
            found[kind] = found[kind].where(~found.vector.isin(list(of)), value)
        if name == "start":
            for part in ("overlap", "residual"):
                found[part] = found[part] * value
    return found.assign_attrs(start="fitted")
