"""What figures of networks share: smoothed curves, bands over seeds, and the landmarks of a curve.

The landmarks are computed in the same way for our curves and for those of the paper.
"""

from contextlib import suppress
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from toymodel import plotting
from toymodel.network.paper import FOLDER
from toymodel.network.runs import Runs

SMOOTH = {"disentangled": 2, "transformer": 5}  # evaluations (of 256 sequences) in a running mean
CLEAR = 0.55  # a flip that never passes this is chance


def curves(name: str, runs: Runs | None = None) -> xr.Dataset:
    """The kept curves of an experiment as running means; a missing file is named with the command that makes it."""
    kept = (runs or Runs()).read(name)
    plotting.uses(f"networks/{name}.nc")
    rolled = [of for of, values in kept.data_vars.items() if "step" in values.dims]
    smooth = kept[rolled].rolling(step=SMOOTH[name.split("_")[0]], center=True, min_periods=1).mean()
    return kept.assign(smooth.data_vars)


def curves_there(*names: str) -> dict[str, xr.Dataset]:
    """The curves of those experiments that are there; FileNotFoundError where none of them is."""
    runs, found = Runs(), {}
    for name in names:
        with suppress(FileNotFoundError):
            found[name] = curves(name, runs)
    if not found:
        raise FileNotFoundError(
            f"no curves of {', '.join(names)} are there; `toymodel train {names[0]}` makes the first"
        )
    return found


def uses_paper() -> None:
    """Note the paper's data as what the figure was made from."""
    for name in ("curves.csv", "numbers.csv"):
        plotting.uses(FOLDER / name)


def band(axes: Axes, of: xr.DataArray, x: Any, colour: str, **style: Any) -> None:
    """The mean over seeds, and a band from the lowest to the highest seed; a colour by its name in `plotting`."""
    colour = plotting.COLOURS.get(colour, colour)
    axes.fill_between(x, of.min("seed"), of.max("seed"), color=colour, alpha=0.25, lw=0)
    axes.plot(x, of.mean("seed"), color=colour, **style)


def spread(values: xr.DataArray, digits: int = 2) -> str:
    """Mean, lowest and highest over seeds, as text; of one seed its value."""
    if values.size == 1:
        return f"{values.item():.{digits}f}"
    return f"{float(values.mean()):.{digits}f} ({float(values.min()):.{digits}f} to {float(values.max()):.{digits}f})"


def seeds_of(of: xr.Dataset) -> str:
    """How many seeds there are, in words."""
    return f"{of.seed.size} seeds" if of.seed.size > 1 else "one seed"


def crossing(values: xr.DataArray, level: float, rising: bool = True) -> xr.DataArray:
    """The first step at which a curve passes a level upwards (or downwards), between evaluations by a line; NaN where
    it never does. A curve that begins beyond the level has not passed it."""
    sign = 1 if rising else -1
    above = sign * (values - level) >= 0
    passes = above & ~above.shift(step=1, fill_value=True)
    step, before = values.step, values.shift(step=1)
    share = (level - before) / (values - before)
    width = (step - step.shift(step=1)).fillna(0)
    return (step - (1 - share) * width).where(passes).min("step")


def last(values: xr.DataArray) -> xr.DataArray:
    """The last known value of each curve."""
    at = values.step.where(values.notnull()).max("step")
    return values.sel(step=at).drop_vars("step")


def landmarks(of: xr.Dataset) -> xr.Dataset:
    """By seed, from the evaluator flip, where its highest value is above CLEAR (else NaN):

    emergence  the last step before the highest value at which flip passes 1/2 upwards
    gone       the first step after it at which flip passes 1/2 downwards
    ratio      gone / emergence (NaN where flip was above 1/2 from the start)
    peak, end  highest and last flip (of every seed)
    peak_at    step of the highest
    """
    flip = of.accuracy_in_context.sel(evaluator="flip", drop=True)
    top = flip.idxmax("step")
    below = flip.step.where((flip < 0.5) & (flip.step < top)).max("step").fillna(-np.inf)
    emergence = crossing(flip.where(flip.step >= below), 0.5).fillna(flip.step[0]).where(flip.max("step") > CLEAR)
    after = flip.where(flip.step >= top)
    gone = crossing(after, 0.5, rising=False).where(flip.max("step") > CLEAR)
    found = {"emergence": emergence, "gone": gone, "ratio": (gone / emergence).where(emergence > 0), "peak_at": top}
    return xr.Dataset(found | {"peak": flip.max("step"), "end": last(flip)})


def learned_at(of: xr.Dataset, evaluator: str = "icl", level: float = 0.75) -> xr.DataArray:
    """The first step at which the accuracy among the labels in context passes a level."""
    return crossing(of.accuracy_in_context.sel(evaluator=evaluator, drop=True), level)


def bump(of: xr.Dataset) -> float:
    """The highest loss of the evaluator ciwl while ICL is there, over the lowest before it, of the mean over seeds (by
    seed, the highest and the lowest of many noisy evaluations differ even where nothing rises)."""
    loss = of.loss.sel(evaluator="ciwl", drop=True).mean("seed")
    loss = loss.where(loss.step <= landmarks(of).gone.fillna(np.inf).median(), drop=True)
    rise = loss / np.minimum.accumulate(loss.values)
    return float(rise.max())
