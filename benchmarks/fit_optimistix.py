"""Levenberg and Marquardt's method of `tm.fit` beside that of optimistix: the same residuals, derivatives and starts.

One curve pair of the disentangled network on full data, the published model, 16 starts. optimistix knows no bounds, so
a coordinate is clipped to them inside of the residuals; its runs go side by side under vmap, so that each waits for the
longest. Prints seconds with compilation and without, and the lowest costs |r|^2 / 2, relative to the best of both.
Run: python benchmarks/fit_optimistix.py
"""

from __future__ import annotations

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optimistix
from fit_predictions import LINK, free_of, there

import toymodel as tm
from toymodel.fitting.data import observed
from toymodel.fitting.fit import _curves, _starts
from toymodel.fitting.least_squares import minimised
from toymodel.fitting.residuals import Curves, _compiled
from toymodel.settings import own_jax

STARTS, MOST = 16, 60


def problem() -> tuple[Curves, np.ndarray, np.ndarray]:
    """The curves, the scale of each, and where the fits start."""
    model = tm.coopetition()
    seen = observed(model, there("disentangled", "full"), None, None, None)
    start = tm.aligned_start(model, overlap=0.1)
    curves = _curves(model, seen, start, free_of(model, "full"), (), LINK, "linear")
    sizes = np.nanstd(curves.scaled(seen.values), (0, 1))
    return curves, sizes, _starts(curves, sizes, *curves.layout.bounds(), STARTS, 0)


def by_optimistix(curves: Curves, sizes: np.ndarray, starts: np.ndarray) -> Any:
    """A compiled function of the starts: the cost of each where its iterations end."""
    low, high = map(jnp.asarray, curves.layout.bounds())
    compiled = _compiled(curves.layout.system, curves.layout.free, curves.seen.names, curves.links)
    wanted, base = jnp.asarray(curves.scaled(curves.seen.values))[0], jnp.asarray(curves.layout.base)

    def both(x: Any) -> tuple[Any, Any]:
        values, slopes = compiled(x[None], base[:1], curves.seen.time)
        return ((values[0] - wanted) / sizes).ravel(), (slopes[0] / sizes[:, None]).reshape(-1, len(x))

    @jax.custom_jvp
    def residuals(x: Any) -> Any:
        return both(x)[0]

    @residuals.defjvp
    def _(primals: Any, tangents: Any) -> tuple[Any, Any]:
        value, slope = both(*primals)
        return value, slope @ tangents[0]

    solver = optimistix.LevenbergMarquardt(rtol=1e-6, atol=1e-6)

    def one(x: Any) -> Any:
        found = optimistix.least_squares(
            lambda x, _: residuals(jnp.clip(x, low, high)), solver, x, max_steps=MOST, throw=False,
            options={"jac": "fwd"},
        )  # fmt: skip
        return 0.5 * jnp.sum(residuals(jnp.clip(found.value, low, high)) ** 2)

    return jax.jit(jax.vmap(one))


def main() -> None:
    curves, sizes, starts = problem()
    low, high = curves.layout.bounds()

    def own() -> np.ndarray:
        return minimised(lambda x: curves.residuals(x, sizes), starts, low, high, None, MOST, False).cost

    with own_jax():
        other = by_optimistix(curves, sizes, starts)
        ways = {"tm.fit": own, "optimistix": lambda: np.asarray(other(jnp.asarray(starts)))}
        costs = {}
        for name, way in ways.items():
            seconds = []
            for _ in range(2):
                begun = time.perf_counter()
                costs[name] = way()
                seconds.append(time.perf_counter() - begun)
            print(f"{name}: {seconds[0]:.1f} s at first, {seconds[1]:.1f} s compiled", flush=True)
    best = min(np.nanmin(cost) for cost in costs.values())
    for name, cost in costs.items():
        ratio = np.sort(np.where(np.isfinite(cost), cost, np.inf)) / best
        near = int((ratio < 1.01).sum())
        print(f"{name}: lowest costs {np.round(ratio[:5], 4).tolist()}, within 1 %: {near} of {STARTS}")


if __name__ == "__main__":
    main()
