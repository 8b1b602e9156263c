"""What a fit says of the four groups of `toymodel.theory.units`, which alone decide what a run does.

The logarithm of a group g has the derivatives G = dlog g/dx, and the variance G C G^T, where C is the covariance of x.
A group that changes along a direction that the curves do not fix is not identified.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from toymodel.fitting.free import row
from toymodel.fitting.intervals import PART, UNKNOWN, Intervals, quantile
from toymodel.fitting.residuals import Curves
from toymodel.settings import own_jax
from toymodel.theory.arrays import function
from toymodel.theory.units import group_expressions

NAMES = ("r", "m_icl", "m_ciwl", "kappa", "time")


def groups_of(curves: Curves, x: np.ndarray, found: Intervals, freedom: int | None, level: float) -> xr.Dataset | None:
    """value, low, high, error (of the logarithm), identified along `group`, and `information`, the inverse of the
    covariance of the logarithms of those that are identified and not fixed (Fisher's matrix, marginal over the rest).

    `time` is the unit of time, in that of the data. None for a loss that has no such groups. With several starts, those
    of the first run.
    """
    form = curves.layout.system.form
    try:
        expressions = group_expressions(form)
    except ValueError:
        return None
    count, free, base = curves.layout.coordinates, curves.layout.free, curves.layout.base[0]
    names = [f"T_{v}" for v in form.vectors] + [f"w_{t}" for t in form.terms] + list(form.parameters)

    def groups(x: jax.Array) -> jax.Array:
        numbers = row(free, x, jnp.asarray(base))
        known = dict(zip(names, numbers[count:-1], strict=False))
        values = {name: function(expressions[name])(**known) for name in NAMES}
        return jnp.stack([values[name] / (numbers[-1] if name == "time" else 1.0) for name in NAMES])

    with own_jax():
        value, slope = np.asarray(groups(jnp.asarray(x))), np.asarray(jax.jacfwd(groups)(jnp.asarray(x)))
    slope = slope / np.where(value > 0, value, 1.0)[:, None]
    variance = np.einsum("gi,ij,gj->g", slope, found.covariance, slope)
    size = np.sqrt((slope**2).sum(1))
    lost = (abs(slope @ found.lost) > PART * size[:, None]).any(1) if found.lost.size else np.zeros(len(NAMES), bool)
    error = np.sqrt(np.maximum(variance, 0))
    half = quantile(freedom, level) * error
    lost |= error > UNKNOWN
    known = ~lost & (size > 0)
    information = np.full((len(NAMES), len(NAMES)), np.nan)
    at = np.flatnonzero(known)
    information[np.ix_(at, at)] = np.linalg.pinv(slope[at] @ found.covariance @ slope[at].T)
    parts = {"value": value, "low": value * np.exp(-half), "high": value * np.exp(half), "error": error}
    parts |= {"identified": ~lost, "fixed": size == 0}
    dataset = xr.Dataset({name: ("group", np.where(lost, np.nan, part)) for name, part in parts.items()})
    dataset = dataset.assign(identified=("group", ~lost), fixed=("group", size == 0), value=("group", value))
    dataset["information"] = (("group", "other"), information)
    return dataset.assign_coords(group=list(NAMES), other=list(NAMES))
