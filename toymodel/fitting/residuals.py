"""What a model says of the curves, with derivatives by all that is free, for many starts side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from toymodel.fitting.data import Observed
from toymodel.fitting.forward import followed
from toymodel.fitting.free import Free, Layout, row
from toymodel.fitting.links import Link
from toymodel.reduction import Plane, unlearned_loss
from toymodel.settings import own_jax
from toymodel.simulation.sensitivity import field
from toymodel.simulation.threads import threads
from toymodel.symbolic import System
from toymodel.theory.arrays import function

LANES = 8  # starts in a call
RTOL, ATOL, TRIES = 1e-5, 1e-8, 2000  # derivatives are those of the steps themselves


@dataclass(frozen=True)
class Curves:
    """The curves of a layout beside those that were observed; LANES starts a call, and calls on all cores."""

    layout: Layout
    seen: Observed
    links: tuple[Link, ...]
    log: bool

    def predicted(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The curves (start, run, time, curve) of x (start, free), and their derivatives (..., free); of any number
        of starts. With one run in the layout and several observed, all of these are the same."""
        compiled = _compiled(self.layout.system, self.layout.free, self.seen.names, self.links)
        base, count = self.layout.base, -(-len(x) // LANES)
        parts: list[Any] = [None] * count

        def one(i: int) -> None:
            at = np.minimum(np.arange(i * LANES, (i + 1) * LANES), len(x) - 1)
            with own_jax():
                found = compiled(np.repeat(x[at], len(base), 0), np.tile(base, (LANES, 1)), self.seen.time)
                parts[i] = [np.asarray(part).reshape(LANES, len(base), *part.shape[1:]) for part in found]

        with threads() as (each, _):
            each(one, ((i,) for i in range(count)))
        values, slopes = (np.concatenate(part)[: len(x)] for part in zip(*parts, strict=True))
        return values, slopes

    def scaled(self, values: np.ndarray) -> np.ndarray:
        """Values of curves on the scale of the fit; what has no logarithm is NaN."""
        if not self.log:
            return values
        return np.log(np.where(values > 0, values, np.nan))

    def residuals(self, x: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(predicted - observed) / noise of what was observed, (start, n), and its Jacobian (start, n, free)."""
        values, slopes = self.predicted(x)
        if self.log:
            slopes = slopes / np.where(values > 0, values, np.nan)[..., None]
        wanted = self.scaled(self.seen.values)
        here = np.isfinite(wanted)
        far = (self.scaled(values) - wanted) / noise
        steep = np.broadcast_to(slopes / noise[:, None], (*far.shape, x.shape[1]))
        return far[:, here], steep[:, here]

    def curve_of(self) -> np.ndarray:
        """Which curve each residual is of, (n,)."""
        here = np.isfinite(self.scaled(self.seen.values))
        return np.broadcast_to(np.arange(len(self.seen.names)), here.shape)[here]


@lru_cache(maxsize=32)
def _compiled(
    system: System, free: tuple[Free, ...], names: tuple[str, ...], links: tuple[Link, ...]
) -> Callable[..., Any]:
    count, velocity, curves = len(system.coordinates), field(system), _curves(system, names, links)

    def one(x: Any, base: Any, times: Any) -> tuple[Any, Any]:
        numbers = row(free, x, base)
        moved = jax.jacfwd(lambda x: row(free, x, base))(x)
        y, p, scale = numbers[:count], numbers[count:-1], numbers[-1]
        dy, dp, stretched = moved[:count], moved[count:-1], moved[-1]
        track, tracks = followed(system, y, p, dy, dp, scale * times, RTOL, ATOL, TRIES)

        def at(y: Any, dy: Any, time: Any) -> tuple[Any, Any]:
            dy = dy + jnp.outer(velocity(y, p), time * stretched)
            along = jax.vmap(lambda dy, dp: jax.jvp(curves, (y, p), (dy, dp))[1], (1, 1), -1)
            return curves(y, p), along(dy, dp)

        return jax.vmap(at)(track, tracks, times)

    return jax.jit(jax.vmap(one, (0, 0, None)))


def _curves(system: System, names: tuple[str, ...], links: tuple[Link, ...]) -> Callable[[Any, Any], Any]:
    """The curves (curve,) as a function of coordinates and constants."""
    form = system.form
    losses = system.function([system.loss, *system.terms], "jax")

    def curves(y: Any, p: Any) -> Any:
        known = dict(zip(["loss", *form.terms], losses(*y, *p), strict=True))
        unlearned = unlearned_losses(system, p)
        return jnp.stack(
            [jnp.asarray(link(known[n], unlearned[n]), float) for n, link in zip(names, links, strict=True)]
        )

    return curves


def unlearned_losses(system: System, p: Any) -> dict[str, Any]:
    """The loss of each mechanism that has learned nothing, 0 for costs, and the total of these, from constants."""
    form = system.form
    norms = dict(zip(form.vectors, p, strict=False))
    others = p[len(form.vectors) :]
    weights = dict(zip(form.terms, others, strict=False))
    parameters = dict(zip(form.parameters, others[len(form.terms) :], strict=False))
    found = {
        t: unlearned_loss([Plane(0, 0, norms[x]) for x in letters], weights[t]) if t in form.mechanisms else 0 * p[0]
        for t, letters in form.terms.items()
    }
    return {"loss": function(form.expression)(**found, **parameters), **found}
