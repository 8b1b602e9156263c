"""What figures of networks share: smoothed curves, bands over seeds, and the landmarks of a curve."""

from typing import Any

import xarray as xr
from matplotlib.axes import Axes

from toymodel import plotting
from toymodel.network.runs import Runs

SMOOTH = {"disentangled": 2, "transformer": 10}  # evaluations (of 256 and 512 sequences) in a running mean


def curves(name: str) -> xr.Dataset:
    """The kept curves of an experiment as running means; a missing file is named with the command that makes it."""
    plotting.uses(f"networks/{name}.nc")
    return Runs().read(name).rolling(step=SMOOTH[name.split("_")[0]], center=True, min_periods=1).mean()


def band(axes: Axes, of: xr.DataArray, x: Any, colour: str, **style: Any) -> None:
    """The mean over seeds, and a band from the lowest to the highest seed."""
    axes.fill_between(x, of.min("seed"), of.max("seed"), color=plotting.COLOURS[colour], alpha=0.25, lw=0)
    axes.plot(x, of.mean("seed"), color=plotting.COLOURS[colour], **style)


def spread(values: xr.DataArray, digits: int = 2) -> str:
    """Mean, lowest and highest, as text."""
    return f"{float(values.mean()):.{digits}f} ({float(values.min()):.{digits}f} to {float(values.max()):.{digits}f})"


def landmarks(of: xr.Dataset) -> xr.Dataset:
    """By seed, from the evaluator flip and the loss of the evaluator ciwl.

    emergence  first step with flip > 0.55            gone   first step after the peak with flip < 0.5
    peak, end  highest and last flip                  ratio  gone / emergence, the lifetime ratio
    bump       highest loss of CIWL while ICL is there, over its lowest before
    """
    flip = of.accuracy_in_context.sel(evaluator="flip", drop=True)
    loss = of.loss.sel(evaluator="ciwl", drop=True)
    emergence = flip.step.where(flip > 0.55).min("step")
    gone = flip.step.where((flip < 0.5) & (flip.step > flip.idxmax("step"))).min("step")
    late = loss.where((loss.step >= emergence) & (loss.step < gone))
    early = loss.where(loss.step <= late.fillna(0.0).idxmax("step")).min("step")
    found = {"emergence": emergence, "gone": gone, "ratio": gone / emergence, "bump": late.max("step") / early}
    return xr.Dataset(found | {"peak": flip.max("step"), "end": flip.isel(step=-1, drop=True)})
