"""The lifetime of ICL, predicted and measured: errors over a grid, exponents, the alpha that ends ICL soonest.

Measured with gradient flow from overlaps of 0.1 and no residuals, the paper's dimensions, mu_ciwl = 0.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

import toymodel as tm
from toymodel.theory.lifetime import lifetime

MODEL = tm.coopetition(mu_ciwl=0.0)
START = tm.aligned_start(MODEL, overlap=0.1)


def axis(name: str, values) -> xr.DataArray:
    return xr.DataArray(np.asarray(values, dtype=float), dims=name, coords={name: np.asarray(values, dtype=float)})


def compared(alpha, mu_icl, points: int = 4000) -> xr.Dataset:
    """Predicted and measured lifetime on the grid of the two lists; the flow records `points` times from 300 on."""
    grid = {"alpha": axis("alpha", alpha), "mu_icl": axis("mu_icl", mu_icl)}
    predicted = lifetime(MODEL, START, **grid)
    horizon = 5e3 + 3 * float(predicted.lifetime.max())
    times = np.geomspace(300.0, horizon, points)
    runs = tm.flow(MODEL, START, horizon, times=times, method="LSODA", rtol=1e-8, **grid)
    predicted["measured"] = tm.measure(runs).lifetime.sel(mechanism="icl", drop=True)
    return predicted


def errors(found: xr.Dataset) -> np.ndarray:
    """Relative errors of all runs."""
    return np.abs(found.lifetime / found.measured - 1).values.ravel()


def exponent(found: xr.DataArray, name: str) -> float:
    """The slope of log lifetime in the log of a parameter, by regression."""
    return float(np.polyfit(np.log(found[name]), np.log(found.squeeze()), 1)[0])


def exponents() -> list[tuple[str, float, float, float]]:
    """Regime, exponent of the leading term, and the local exponents that are measured and predicted there."""
    rare = compared([0.3], np.geomspace(1e-7, 1e-6, 5), points=12000)
    slow = compared([0.03, 0.1, 0.3], [1e-7], points=12000)
    common = compared(np.geomspace(3e-5, 3e-4, 5), [0.3])
    regimes = (
        ("mu_icl << alpha, in mu_icl", -2.0, rare, "mu_icl"),
        ("mu_icl << alpha, in alpha", 1.0, slow, "alpha"),
        ("mu_icl >> alpha, in alpha", -1.0, common, "alpha"),
    )
    return [(name, lead, *(exponent(f[v], x) for v in ("measured", "lifetime"))) for name, lead, f, x in regimes]


def main() -> None:
    found = compared(np.geomspace(3e-3, 0.3, 15), np.geomspace(1e-4, 1, 17))
    error = errors(found)
    print(f"lifetime of ICL, {error.size} points, mu_icl 1e-4..1, alpha 3e-3..0.3")
    shares = [np.median(error), np.quantile(error, 0.95), error.max()]
    print("  median error {:.1%}, 95th percentile {:.1%}, largest {:.1%}".format(*shares))
    for name, lead, measured, predicted in exponents():
        print(f"exponent, {name}: measured {measured:.3f}, predicted {predicted:.3f}, leading term {lead:g}")
    fine = compared(np.geomspace(1e-3, 0.05, 24), [1e-3])
    best = [float(fine.alpha[int(fine[name].squeeze().argmin("alpha"))]) for name in ("measured", "lifetime")]
    print("alpha that ends ICL soonest at mu_icl = 1e-3: measured {:.4f}, predicted {:.4f}".format(*best))


if __name__ == "__main__":
    main()
