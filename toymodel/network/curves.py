"""What figures of networks share: smoothed curves, bands over seeds, and the landmarks of a curve."""

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from toymodel import plotting
from toymodel.network.runs import Runs

SMOOTH = {"disentangled": 2, "transformer": 10}  # evaluations (of 256 and 512 sequences) in a running mean


def curves(name: str, runs: Runs | None = None) -> xr.Dataset:
    """The kept curves of an experiment as running means; a missing file is named with the command that makes it."""
    plotting.uses(f"networks/{name}.nc")
    return (runs or Runs()).read(name).rolling(step=SMOOTH[name.split("_")[0]], center=True, min_periods=1).mean()


def band(axes: Axes, of: xr.DataArray, x: Any, colour: str, **style: Any) -> None:
    """The mean over seeds, and a band from the lowest to the highest seed; a colour by its name in `plotting`."""
    colour = plotting.COLOURS.get(colour, colour)
    axes.fill_between(x, of.min("seed"), of.max("seed"), color=colour, alpha=0.25, lw=0)
    axes.plot(x, of.mean("seed"), color=colour, **style)


def spread(values: xr.DataArray, digits: int = 2) -> str:
    """Mean, lowest and highest, as text."""
    return f"{float(values.mean()):.{digits}f} ({float(values.min()):.{digits}f} to {float(values.max()):.{digits}f})"


def landmarks(of: xr.Dataset) -> xr.Dataset:
    """By seed, from the evaluator flip.

    emergence  first step with flip > 0.55 that stays so until its highest value
    gone       first step after that highest value with flip < 0.5
    peak, end  highest and last flip                  ratio  gone / emergence, the lifetime ratio
    """
    flip = of.accuracy_in_context.sel(evaluator="flip", drop=True)
    top = flip.idxmax("step")
    before = flip.step.where((flip <= 0.55) & (flip.step < top)).max("step").fillna(-1)
    emergence = flip.step.where((flip > 0.55) & (flip.step > before)).min("step")
    gone = flip.step.where((flip < 0.5) & (flip.step > top)).min("step")
    found = {"emergence": emergence, "gone": gone, "ratio": gone / emergence}
    return xr.Dataset(found | {"peak": flip.max("step"), "end": flip.isel(step=-1, drop=True)})


def bump(of: xr.Dataset) -> float:
    """The highest loss of the evaluator ciwl while ICL is there, over the lowest before it, of the mean over seeds (by
    seed, the highest and the lowest of many noisy evaluations differ even where nothing rises)."""
    loss = of.loss.sel(evaluator="ciwl", drop=True).mean("seed")
    loss = loss.where(loss.step <= landmarks(of).gone.fillna(np.inf).median(), drop=True)
    rise = loss / np.minimum.accumulate(loss.values)
    return float(rise.max())
