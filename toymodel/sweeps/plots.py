"""Plots of a sweep's measures: phase diagrams (heat maps with contours and theory lines), slices, seed distributions.

They take what `toymodel.sweep` returns (or any Dataset of measures along named dimensions) and matplotlib axes; `plot`
chooses among them for the command line.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap, LogNorm
from matplotlib.patches import Patch
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
POOLED = ("seed", "sample")  # dimensions over which a plot takes medians
LASTS = "not ended in most runs"
FAR = 1e300  # for medians: larger than any time
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


def phases(
    axes: Axes,
    runs: xr.Dataset,
    x: str,
    y: str,
    lines: Mapping[str, Line] | None = None,
    colors: Mapping[str, Any] | None = None,
) -> None:
    """The most frequent phase over all other dimensions at each point of the plane (x, y); colors: phase -> colour."""
    names, chosen = list(PHASE_COLOURS), {**PHASE_COLOURS, **(colors or {})}
    if unknown := set(chosen) - set(names):
        raise ValueError(f"colors must be of phases, {names}, got {sorted(unknown)[0]!r}")
    shares = phase_shares(runs, x, y)
    most = shares.argmax("phase").transpose(y, x)
    norm = BoundaryNorm(np.arange(len(names) + 1) - 0.5, len(names))
    mesh = axes.pcolormesh(
        runs[x], runs[y], most, cmap=ListedColormap(list(chosen.values())), norm=norm, rasterized=True
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
    """A heat map of the mean over all other dimensions, with contours; points without a value stay white.

    What is infinite, as `typical` has it where a lifetime has not ended, is hatched.
    """
    plane = values.mean([dim for dim in values.dims if dim not in (x, y)]).transpose(y, x)
    lasting, plane = np.isposinf(plane), plane.where(np.isfinite(plane))
    norm = LogNorm(style.pop("vmin", None), style.pop("vmax", None)) if logarithmic else None
    mesh = axes.pcolormesh(plane[x], plane[y], plane, norm=norm, rasterized=True, **style)
    drawn = _frame(axes, values, x, y, lines)  # scales first: the labels of contours are placed on the screen
    if len(contours):
        _label(axes, axes.contour(plane[x], plane[y], plane, levels=contours, colors="k", linewidths=0.7))
    axes.figure.colorbar(mesh, ax=axes, label=style.get("label", label(str(values.name or ""))))
    if lasting.any():
        here = np.ma.masked_where(~np.asarray(lasting), np.ones(lasting.shape))
        clear = ListedColormap([(0.0, 0.0, 0.0, 0.0)])
        axes.pcolor(plane[x], plane[y], here, cmap=clear, hatch="////", edgecolor="0.6", lw=0, shading="nearest")
        drawn.append(Patch(facecolor="none", edgecolor="0.6", hatch="////", label=LASTS))
    _legend(axes, drawn)
    return mesh


def _label(axes: Axes, drawn: Any) -> None:
    """Numbers on contours, but on none that is shorter than its number."""
    shortest, levels = 30.0, []  # points of the screen
    for level, path in zip(drawn.levels, drawn.get_paths(), strict=True):
        on_screen = axes.transData.transform_path(path).to_polygons(closed_only=False)
        if any(np.hypot(*np.diff(line, axis=0).T).sum() > shortest for line in on_screen):
            levels.append(level)
    if levels:
        axes.clabel(drawn, levels, fontsize=6)


def typical(values: xr.DataArray, kept: Collection[str], share: float = 0.5) -> xr.DataArray:
    """The median (or another share) over all dimensions that are not kept, of runs that have the value.

    Infinite values count: the median of lifetimes is infinite where most of them have not ended.
    """
    over = [dim for dim in values.dims if dim not in kept]
    if not over:
        return values
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of points where no run has the value
        found = values.where(~np.isposinf(values), FAR).quantile(share, over).drop_vars("quantile")
    return found.where(~(found > FAR / 1e6), np.inf).rename(values.name)


def ended(runs: xr.Dataset, measure: str) -> xr.DataArray:
    """A measure; lifetimes of what is still learned at the end of its run are infinite, since they have not ended."""
    values = runs[measure]
    return values.where(~runs["lasts"], np.inf) if measure == "lifetime" and "lasts" in runs else values


def slices(axes: Axes, values: xr.DataArray, x: str, **style: Any) -> None:
    """The median over all other dimensions against x, and the range of the middle half; gaps where it is infinite."""
    low, median, high = (typical(values, [x], share) for share in (0.25, 0.5, 0.75))
    middle = [part.where(np.isfinite(part)) for part in (low, median, high)]
    (line,) = axes.plot(values[x], middle[1], **style)
    axes.fill_between(values[x], middle[0], middle[2], alpha=0.25, color=line.get_color(), linewidth=0)
    axes.set_ylabel(label(str(values.name or "")))
    _along(axes, values, x, "x")


def seeds(axes: Axes, values: xr.DataArray, x: str | None = None, **style: Any) -> None:
    """The distribution over all other dimensions: a point for each run at each x, or a histogram without an x."""
    if x is None:
        axes.hist(values.values[np.isfinite(values.values)], bins=40, **style)
        axes.set_xlabel(label(str(values.name or "")))
        axes.set_ylabel("runs")
        return
    flat = values.stack(run=[dim for dim in values.dims if dim != x])
    at = flat[x].broadcast_like(flat)
    axes.plot(at.values.ravel(), flat.where(np.isfinite(flat)).values.ravel(), ".", **{"markersize": 2, **style})
    axes.set_ylabel(label(str(values.name or "")))
    _along(axes, values, x, "x")


def plot(
    runs: xr.Dataset,
    path: str | Path,
    x: str,
    y: str | None,
    kind: str,
    measure: str,
    mechanism: str,
    at: Mapping[str, float] | None = None,
    theory: bool = False,
    figsize: tuple[float, float] = (4.5, 3.5),
    **style: Any,
) -> Path:
    """One of the plots above, to a file.

    at: dimension -> the value (the nearest one that there is) at which the others are drawn. Only seeds and samples are
    pooled. theory: draw `theory_lines`. style: title, xlim, ylim; cmap, vmin, vmax of a heat map.

    Raises ValueError for a name that the sweep does not have, and for a dimension that would be pooled.
    """
    runs, said = _selected(runs, at or {})
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
    values = runs["phase"] if kind == "phase" else _numbers(runs, measure, mechanism)
    pooled = [str(dim) for dim in values.dims if dim not in (x, y)]
    if more := [dim for dim in pooled if dim not in POOLED]:
        raise ValueError(f"the sweep also varies {more[0]}: give y={more[0]}, or a value, at {more[0]}=VALUE")
    of = style.pop("title", said)
    limits = {name: style.pop(name) for name in ("xlim", "ylim") if name in style}
    figure, axes = plotting.new(width=figsize[0], height=figsize[1])
    lines = theory_lines(runs, x, str(y)) if theory else {}
    name = label(measure) if not pooled else f"{label(measure)}, median over {' and '.join(pooled)}s"
    logarithmic = measure in TIMES
    if kind == "phase":
        phases(axes, runs, x, str(y), lines)
    elif kind == "heat":
        plane = typical(values, [x, str(y)])
        heat(axes, plane, x, str(y), logarithmic, _levels(plane, logarithmic), lines, label=name, **style)
    else:
        draw = slices if kind == "slice" else seeds
        each = [None] if y is None else list(values[y].values)
        named = [each[i] for i in np.unique(np.linspace(0, len(each) - 1, 6).astype(int))]  # the legend stays short
        for value, colour in zip(each, plotting.shades(len(each)), strict=True):
            own: dict[str, Any] = {} if y is None else {"color": colour}
            if y is not None and value in named:
                own["label"] = f"{label(y)} = {_short(value)}"
            draw(axes, values if y is None else values.sel({y: value}), x, **own)
        axes.set_ylabel(name if kind == "slice" else label(measure))
        _legend(axes, axes.get_legend_handles_labels()[0])
        if np.isposinf(values).any():
            axes.set_ylabel(f"{axes.get_ylabel()}\n(without runs in which it has not ended)")
        if logarithmic:
            axes.set_yscale("log")
    axes.set(**limits)
    if of:
        figure.suptitle(of, fontsize="medium")
    return plotting.save(figure, Path(path))


def _selected(runs: xr.Dataset, at: Mapping[str, float]) -> tuple[xr.Dataset, str]:
    """The runs at some values of dimensions, and the values that were found, in words."""
    said = []
    for name, value in at.items():
        if name not in runs.dims or runs[name].dtype.kind not in "iuf":
            numeric = [str(d) for d in runs.dims if runs[d].dtype.kind in "iuf"]
            raise ValueError(f"at takes dimensions with numbers, {numeric}, got {name!r}")
        low, high = float(runs[name].min()), float(runs[name].max())
        if not low <= value <= high:
            raise ValueError(f"at {name}={value:g} is outside of the sweep, which has {low:g}..{high:g}")
        runs = runs.sel({name: value}, method="nearest")
        said.append(f"{label(name)} = {_short(runs[name].item())}")
    return runs, ", ".join(said)


def _numbers(runs: xr.Dataset, measure: str, mechanism: str) -> xr.DataArray:
    """A measure that can be drawn; raises ValueError where there is none."""
    if runs[measure].dtype.kind in "USO":
        raise ValueError(f"{measure} is a label, not a number; use kind='phase', or another measure")
    values = ended(runs, measure)
    if "mechanism" in values.dims:
        if mechanism not in runs["mechanism"]:
            raise ValueError(f"mechanism must be one of {runs['mechanism'].values.tolist()}, got {mechanism!r}")
        values = values.sel(mechanism=mechanism, drop=True).rename(measure)
    if values.isnull().all():
        raise ValueError(f"{measure} has no value in any of the {values.size} runs, so there is nothing to draw")
    if not np.isfinite(values).any():
        raise ValueError(f"{measure} has not ended in any of the {values.size} runs, so there is nothing to draw")
    return values


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, (int, float, np.number)) else str(value)


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
    values = values.where(np.isfinite(values))
    low, high = float(values.min()), float(values.max())
    if not low < high:
        return np.array([])
    ticks = LogLocator(subs=(1, 3)) if logarithmic else MaxNLocator(5)
    levels = np.asarray(ticks.tick_values(low, high))
    return levels[(levels > low) & (levels < high)]


def _frame(axes: Axes, runs: Any, x: str, y: str, lines: Mapping[str, Line] | None) -> list[Any]:
    """Scales, labels, and curves of theory, name -> function of x or (x, y) of the curve; returns these."""
    _along(axes, runs, x, "x")
    _along(axes, runs, y, "y")
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


def _along(axes: Axes, runs: Any, name: str, which: str) -> None:
    """The label of an axis; it is logarithmic where the values are equally spaced in the logarithm."""
    axes.set(**{f"{which}label": label(name)})
    values = np.asarray(runs[name].values)
    if values.dtype.kind not in "fi" or len(values) < 3 or not (values > 0).all():
        return
    steps, ratios = np.diff(values), np.diff(np.log(values))
    if np.std(ratios) / np.mean(ratios) < np.std(steps) / np.mean(steps):
        axes.set(**{f"{which}scale": "log"})
        if values.max() < 100 * values.min():  # few powers of ten: label 2 and 5 as well, without powers
            ticks = getattr(axes, f"{which}axis")
            ticks.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ticks.set_major_formatter(lambda value, _position: f"{value:g}")
            ticks.set_minor_formatter(NullFormatter())
