"""Plots of fits: curves over data, from the dataset of a fit."""

from __future__ import annotations

import xarray as xr
from matplotlib.axes import Axes

from toymodel.plotting import COLOURS, NAMES


def fitted(axes: Axes, fit: xr.Dataset, **style: object) -> None:
    """Dots for what was observed, lines for the fitted model, a colour for each curve; several runs on each other.

    fit: `Fit.dataset()`, or what `tm.load` reads of it.
    """
    for name in fit.curve.values.tolist():
        colour = COLOURS.get(name, COLOURS["other"])
        seen, line = (fit[part].sel(curve=name).transpose("time", ...) for part in ("observed", "predicted"))
        axes.plot(fit.time, seen, ".", color=colour, ms=3, alpha=0.5)
        axes.plot(fit.time, line, color=colour, label=NAMES.get(name, name), **style)  # type: ignore[arg-type]
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))  # one for each curve
    axes.legend(handles.values(), handles.keys())
    axes.set_xlabel("time")
