"""Two knobs of the small network, and what the theory of the model predicts for theirs."""

import numpy as np
import xarray as xr

import toymodel as tm
from toymodel.network.curves import curves, landmarks

NOISE = (0.8, 1.0, 1.1, 1.2, 1.3, 1.4, 1.6)
CLASSES = (1000, 1500, 2000, 3000, 4500, 6000)
FULL = {1.2: "full", 3000: "full"}  # the values of the network of the other figures


def of_network(knob: str, values: tuple) -> tuple[xr.DataArray, xr.Dataset]:
    """Flip against step, the landmarks, and the share of its unlearned loss that ICL leaves; all by seed."""
    runs = [curves(f"disentangled_{FULL.get(v, f'{knob}_{v}')}").isel(seed=slice(0, 3)) for v in values]
    at = xr.DataArray(list(values), dims="knob", name="knob")
    flip = xr.concat([run.accuracy_in_context.sel(evaluator="flip", drop=True) for run in runs], at)
    left = [run.loss.sel(evaluator="icl", drop=True).min("step") / np.log(2) for run in runs]
    return flip, xr.concat([landmarks(run).assign(left=of) for run, of in zip(runs, left, strict=True)], at)


def of_model(model: tm.Model, **parameters: list[float]) -> xr.DataArray:
    """End of ICL over its emergence in the model, from a small start, as its theory predicts it."""
    start = tm.aligned_start(model, overlap=0.1)
    return 1 + tm.theory.lifetime(model, start, **parameters).lifetime / tm.theory.emergence_time(
        model, start, **parameters
    )


def power(x: xr.DataArray | np.ndarray, y: xr.DataArray | np.ndarray) -> float:
    """The slope of log y against log x, where y is known."""
    known = np.isfinite(np.asarray(y))
    return float(np.polyfit(np.log(np.asarray(x)[known]), np.log(np.asarray(y)[known]), 1)[0])
