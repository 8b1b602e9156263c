"""Plots of a sweep's measures: phase diagrams (heat maps with contours and theory lines), slices, seed distributions.

They take what `toymodel.sweep` returns (or any Dataset of measures along named dimensions) and matplotlib axes; `plot`
chooses among them for the command line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap, LogNorm
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from toymodel import plotting
from toymodel.model import Model
from toymodel.presets import coopetition
from toymodel.start import aligned_start
from toymodel.theory.transience import lifetime

PHASE_COLOURS = {
    "plateau": "#D9D9D9",
    "CIWL only": plotting.COLOURS["ciwl"],
    "transient ICL": plotting.COLOURS["light"],
    "persistent ICL": plotting.COLOURS["icl"],
    "both": plotting.COLOURS["shared"],
    "diverged": "#000000",
}
TIMES = ("emergence", "end", "lifetime", "minimum_time", "bump_time", "stopped")
KINDS = ("phase", "heat", "slice", "seeds")
NAMES = {
    "alpha": r"$\alpha$ (competition)",
    "mu_icl": r"$\mu_\mathrm{ICL}$",
    "mu_ciwl": r"$\mu_\mathrm{CIWL}$",
    "lr": "step size",
    "scale": "scale of the start",
    "target_scale": "scale of the targets",
}
OF_VECTOR = {
    "dim": "entries of {}",
    "scale": "scale of {} at the start",
    "norm": "norm of {} at the start",
    "target_scale": "scale of the target of {}",
    "target_norm": "norm of the target of {}",
    "overlap": "overlap of {} at the start",
    "residual": "residual of {} at the start",
}
Line = Callable[[np.ndarray], Any] | tuple[Any, Any]


def label(name: str) -> str:
    """The words for a swept name or a measure, with the unit of times."""
    if name in TIMES:
        return f"{name.replace('_', ' ')} (steps x step size)"
    prefix, _, letter = name.rpartition("_")
    return NAMES.get(name) or (OF_VECTOR[prefix].format(letter) if prefix in OF_VECTOR else name.replace("_", " "))


def phases(axes: Axes, runs: xr.Dataset, x: str, y: str, lines: Mapping[str, Line] | None = None) -> None:
    """The most frequent phase over all other dimensions at each point of the plane (x, y)."""
    names = list(PHASE_COLOURS)
    shares = phase_shares(runs, x, y)
    most = shares.argmax("phase").transpose(y, x)
    norm = BoundaryNorm(np.arange(len(names) + 1) - 0.5, len(names))
    mesh = axes.pcolormesh(
        runs[x], runs[y], most, cmap=ListedColormap(list(PHASE_COLOURS.values())), norm=norm, rasterized=True
    )
    present = [i for i in range(len(names)) if bool((most == i).any())]
    handles = [axes.scatter([], [], marker="s", color=mesh.cmap(norm(i)), label=names[i]) for i in present]
    drawn = _frame(axes, runs, x, y, lines)
    _legend(axes, [*handles, *drawn])


def phase_shares(runs: xr.Dataset, *kept: str) -> xr.DataArray:
    """The share of runs in each phase, over all dimensions that are not kept."""
    names = list(PHASE_COLOURS)
    over = [dim for dim in runs["phase"].dims if dim not in kept]
    same = xr.concat([runs["phase"] == name for name in names], xr.DataArray(names, dims="phase", name="phase"))
    return same.mean(over)


def heat(
    axes: Axes,
    values: xr.DataArray,
    x: str,
    y: str,
    logarithmic: bool = False,
    contours: Any = (),
    lines: Mapping[str, Line] | None = None,
    **style: Any,
) -> Any:
    """A heat map of the mean over all other dimensions, with contours; points without a value stay white."""
    plane = values.mean([dim for dim in values.dims if dim not in (x, y)]).transpose(y, x)
    norm = LogNorm(style.pop("vmin", None), style.pop("vmax", None)) if logarithmic else None
    mesh = axes.pcolormesh(plane[x], plane[y], plane, norm=norm, rasterized=True, **style)
    if len(contours):
        drawn = axes.contour(plane[x], plane[y], plane, levels=contours, colors="k", linewidths=0.7)
        axes.clabel(drawn, fontsize=6)
    axes.figure.colorbar(mesh, ax=axes, label=style.get("label", label(str(values.name or ""))))
    _legend(axes, _frame(axes, values, x, y, lines))
    return mesh


def slices(axes: Axes, values: xr.DataArray, x: str, **style: Any) -> None:
    """The median over all other dimensions against x, and the range of the middle half."""
    over = [dim for dim in values.dims if dim != x]
    middle = values.quantile([0.25, 0.5, 0.75], over) if over else xr.concat([values] * 3, "quantile")
    (line,) = axes.plot(values[x], middle[1], **style)
    axes.fill_between(values[x], middle[0], middle[2], alpha=0.25, color=line.get_color(), linewidth=0)
    axes.set_xlabel(label(x))
    axes.set_ylabel(label(str(values.name or "")))
    _scale(axes, values, x, "x")


def seeds(axes: Axes, values: xr.DataArray, x: str | None = None, **style: Any) -> None:
    """The distribution over all other dimensions: a point for each run at each x, or a histogram without an x."""
    if x is None:
        axes.hist(values.values[np.isfinite(values.values)], bins=40, **style)
        axes.set_xlabel(label(str(values.name or "")))
        axes.set_ylabel("runs")
        return
    flat = values.stack(run=[dim for dim in values.dims if dim != x])
    at = flat[x].broadcast_like(flat)
    axes.plot(at.values.ravel(), flat.values.ravel(), ".", **{"markersize": 2, **style})
    axes.set_xlabel(label(x))
    axes.set_ylabel(label(str(values.name or "")))
    _scale(axes, values, x, "x")


def plot(runs: xr.Dataset, path: str | Path, x: str, y: str | None, kind: str, measure: str, mechanism: str) -> Path:
    """One of the plots above, to a file. Raises ValueError for a name that the sweep does not have."""
    for what, name in (("x", x), ("y", y)):
        if name is not None and name not in runs.dims:
            raise ValueError(f"{what} must be a dimension of the sweep, {[str(d) for d in runs.dims]}, got {name!r}")
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {KINDS}, got {kind!r}")
    if kind != "phase" and measure not in runs:
        raise ValueError(f"measure must be one of {[str(name) for name in runs]}, got {measure!r}")
    if kind in ("phase", "heat") and y is None:
        raise ValueError(f"a plot of the kind {kind!r} needs y as well")
    if kind == "phase" and "phase" not in runs:
        raise ValueError("phases are of models with the mechanisms icl and ciwl; use kind='heat' with a measure")
    figure, axes = plotting.new(width=4.5, height=3.5)
    if kind == "phase":
        phases(axes, runs, x, str(y), theory_lines(runs, x, str(y)))
    else:
        values = runs[measure]
        if "mechanism" in values.dims:
            if mechanism not in runs["mechanism"]:
                raise ValueError(f"mechanism must be one of {runs['mechanism'].values.tolist()}, got {mechanism!r}")
            values = values.sel(mechanism=mechanism, drop=True).rename(f"{measure}")
        if values.dtype.kind in "US":
            raise ValueError(f"{measure} is a label, not a number; use kind='phase', or another measure")
        if not np.isfinite(values).any():
            raise ValueError(f"{measure} has no value in any of the {values.size} runs, so there is nothing to draw")
        if kind == "heat":
            logarithmic = measure in TIMES
            lines = theory_lines(runs, x, str(y)) if measure == "lifetime" else {}
            heat(axes, values, x, str(y), logarithmic, _levels(values, logarithmic), lines)
        else:
            (slices if kind == "slice" else seeds)(axes, values, x)
            if measure in TIMES:
                axes.set_yscale("log")
    return plotting.save(figure, Path(path))


def theory_lines(runs: xr.Dataset, x: str, y: str) -> dict[str, Line]:
    """What the theory has to say in a plane of a sweep, as curves by name: for the paper's model in the plane of alpha
    and mu_icl, the alpha inside of the plane at which `tm.theory.lifetime` is shortest, from a small aligned start."""
    model = Model.from_json(runs.attrs["model"])
    if model.form != coopetition().form or {x, y} != {"alpha", "mu_icl"}:
        return {}
    alpha = np.geomspace(float(runs["alpha"].min()), float(runs["alpha"].max()), 200)
    predicted = lifetime(model, aligned_start(model, overlap=0.1), alpha=alpha, mu_icl=runs["mu_icl"].values)
    soonest = predicted.lifetime.idxmin("alpha")
    inside = soonest.where((soonest > alpha[0]) & (soonest < alpha[-1]))
    at = {"mu_icl": inside["mu_icl"].values, "alpha": inside.values}
    return {"ICL ends soonest (theory)": (at[x], at[y])}


def _levels(values: xr.DataArray, logarithmic: bool) -> np.ndarray:
    """Round values for contours."""
    low, high = float(values.min()), float(values.max())
    ticks = LogLocator(subs=(1, 3)) if logarithmic else MaxNLocator(5)
    levels = np.asarray(ticks.tick_values(low, high))
    return levels[(levels > low) & (levels < high)]


def _frame(axes: Axes, runs: Any, x: str, y: str, lines: Mapping[str, Line] | None) -> list[Any]:
    """Scales, labels, and curves of theory, name -> function of x or (x, y) of the curve; returns these."""
    _scale(axes, runs, x, "x")
    _scale(axes, runs, y, "y")
    axes.set_xlabel(label(x))
    axes.set_ylabel(label(y))
    limits = axes.get_xlim(), axes.get_ylim()
    dashes = ("-", "--", ":", "-.")
    drawn = []
    for (name, line), dash in zip((lines or {}).items(), dashes, strict=False):
        at = line if isinstance(line, tuple) else (runs[x].values, line(runs[x].values))
        drawn += axes.plot(*at, color="k", linestyle=dash, linewidth=1.2, label=name)
    axes.set_xlim(limits[0])
    axes.set_ylim(limits[1])
    return drawn


def _legend(axes: Axes, handles: list[Any]) -> None:
    """A legend above the axes, if there is anything to name."""
    if handles:
        axes.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, columnspacing=1)


def _scale(axes: Axes, runs: Any, name: str, which: str) -> None:
    """A logarithmic axis where the values are equally spaced in the logarithm."""
    values = np.asarray(runs[name].values)
    if values.dtype.kind not in "fi" or len(values) < 3 or not (values > 0).all():
        return
    steps, ratios = np.diff(values), np.diff(np.log(values))
    if np.std(ratios) / np.mean(ratios) < np.std(steps) / np.mean(steps):
        getattr(axes, f"set_{which}scale")("log")
        if values.max() < 100 * values.min():  # few powers of ten: label 2 and 5 as well, without powers
            ticks = getattr(axes, f"{which}axis")
            ticks.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ticks.set_major_formatter(lambda value, _position: f"{value:g}")
            ticks.set_minor_formatter(NullFormatter())
