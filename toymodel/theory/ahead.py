"""Which mechanism is ahead when the plateau ends, by the weighted sum of the losses (`toymodel.theory.weighted_sum`).

Along the flow of the zeroth order, which knows no learning, the plateau ends when the first mechanism has lost the
share ENDS of its unlearned loss l_m. Ahead is the one with the smallest L_m / l_m there.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from toymodel.model import Form
from toymodel.settings import refuse_fork
from toymodel.theory.weighted_sum import Constants, bare, error_of, field, losses, pair_step, resized

ENDS = 0.2  # chosen on ensembles with the seeds 101 and 7001 of benchmarks/theory_asymptotics.py
MOST_STEPS = 6_000


class Paths(NamedTuple):
    """All runs on their way: coordinates, velocity and the next step."""

    y: Float[Array, "coordinate run"]
    velocity: Float[Array, "coordinate run"]
    h: Float[Array, " run"]
    over: Float[Array, " run"]
    steps: Int[Array, ""]


def ahead(form: Form, state: np.ndarray, constants: Constants) -> np.ndarray:
    """The place, in the order of `form.mechanisms`, of the mechanism that is ahead when the plateau ends.

    Arguments:
        form: the loss.
        state: coordinates (u_x, ..., v_x, ...) of every run, shape (2 x vectors, run).
        constants: of every run.

    Returns:
        Whole numbers, shape (run,); -1 where the plateau does not end within MOST_STEPS steps.
    """
    refuse_fork()
    with jax.enable_x64(True):
        return np.asarray(_ahead(form, jnp.asarray(state), constants))


@partial(jax.jit, static_argnames=("form",))
def _ahead(form: Form, state: Any, k: Constants) -> Any:
    def change(y: Any) -> Any:
        return field(form, (True,) * len(state), y, k)[0]

    def shares(y: Any) -> Any:
        whole = bare(form, y, k)
        return jnp.stack([losses(form, y, k)[m] / whole[m] for m in form.mechanisms])

    def step(paths: Paths) -> Paths:
        y, velocity, missed = pair_step(change, paths.y, paths.velocity, paths.h)
        error = error_of(paths.y, y, missed)
        taken = (error <= 1) & (paths.over == 0)
        y = jnp.where(taken[None], y, paths.y)
        return Paths(
            y,
            jnp.where(taken[None], velocity, paths.velocity),
            resized(paths.h, error, 2.0),
            jnp.where(shares(y).min(0) < 1 - ENDS, 1.0, paths.over),
            paths.steps + 1,
        )

    velocity = change(state)
    first = 1e-3 * jnp.sqrt((state**2).sum(0)) / (jnp.sqrt((velocity**2).sum(0)) + 1e-300)
    begin = Paths(state, velocity, first, jnp.where(shares(state).min(0) < 1 - ENDS, 1.0, 0.0), jnp.array(0))
    end = jax.lax.while_loop(lambda p: (p.steps < MOST_STEPS) & (p.over == 0).any(), step, begin)
    return jnp.where(end.over == 1, shares(end.y).argmin(0), -1)
