"""Training: one compiled loop between evaluations, with the seeds as a batch, and checkpoints that resume exactly.

A step is   w <- w - f(w) * update(gradient of the mean cross-entropy),   update: SGD or Adam, f: a factor for each
weight by its name (1 where none is given). The sequences of step n come from fold_in(key of the seed, n), so that a
run that resumes at step n sees what the uninterrupted run sees.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from toymodel.files import written
from toymodel.network.data import Sequences, sample
from toymodel.network.evaluators import evaluate, loss_of, run_batch, weight_names
from toymodel.network.tap import Edit, Network, weight_name

OPTIMISERS: dict[str, Callable[..., optax.GradientTransformation]] = {"sgd": optax.sgd, "adam": optax.adam}


@dataclass(frozen=True)
class Rule:
    """How weights are changed, and on what."""

    sequences: Sequences
    optimiser: str = "adam"
    rate: float = 1e-3
    factors: tuple[tuple[str, float], ...] = ()  # (pattern of weight names, factor of their updates)
    batch: int = 64
    evaluation_batch: int = 512

    def __post_init__(self) -> None:
        if self.optimiser not in OPTIMISERS:
            raise ValueError(f"optimiser must be one of {sorted(OPTIMISERS)}, got {self.optimiser!r}")
        if not 0 < self.rate < np.inf:
            raise ValueError(f"rate must be > 0 and finite, got {self.rate}")
        for name in ("batch", "evaluation_batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    def transformation(self) -> optax.GradientTransformation:
        """The rule for the step of the weights as optax has it."""

        def slow(updates: Any, _weights: Any) -> Any:
            return jax.tree_util.tree_map_with_path(self.scaled, updates)

        factors = optax.stateless(slow)
        return optax.chain(OPTIMISERS[self.optimiser](self.rate), factors)

    def scaled(self, path: tuple, update: Array) -> Array:
        """An update times the factor of its weight."""
        for pattern, factor in self.factors:
            if fnmatchcase(weight_name(path), pattern):
                update = factor * update
        return update


class State(eqx.Module):
    """All that changes in training; with several seeds, every array has an axis of seeds in front."""

    network: Network
    memory: Any  # of the optimiser
    step: Int[Array, "*seeds"]


def begin(network: Network, rule: Rule) -> State:
    """The state at step 0 of one seed."""
    names = weight_names(network)
    for pattern, _ in rule.factors:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(f"factors: {pattern!r} matches no weight; there are {names}")
    return State(network, rule.transformation().init(network), jnp.array(0, jnp.int32))  # pyright: ignore


def train(
    state: State,
    edits: tuple[Edit, ...],
    exemplars: Float[Array, "classes exemplars features"],
    key: PRNGKeyArray,
    rule: Rule,
    steps: int | Int[Array, ""],
) -> tuple[State, dict[str, Array]]:
    """Train one seed by so many steps in one compiled loop, then evaluate; `edits` hold throughout."""
    transformation = rule.transformation()

    def loss(network: Network, batch: Any) -> Array:
        return loss_of(run_batch(network, batch, edits)[0], batch)

    def step(_: Any, state: State) -> State:
        batch = sample(jax.random.fold_in(key, state.step), exemplars, rule.sequences, rule.batch)
        gradient = jax.grad(loss)(state.network, batch)
        updates, memory = transformation.update(gradient, state.memory)
        return State(optax.apply_updates(state.network, updates), memory, state.step + 1)  # pyright: ignore

    state = jax.lax.fori_loop(0, steps, step, state)
    at = jax.random.fold_in(jax.random.fold_in(key, 2**31 - 1), state.step)  # apart from the keys of all steps
    return state, evaluate(state.network, edits, exemplars, rule.sequences, at, rule.evaluation_batch)


@partial(jax.jit, static_argnames=("rule", "side_by_side"), donate_argnames="states")
def train_seeds(
    states: State,
    edits: tuple[Edit, ...],
    exemplars: Array,
    keys: Array,
    rule: Rule,
    steps: int | Int[Array, ""],
    side_by_side: bool | None = None,
) -> tuple[State, dict[str, Array]]:
    """`train` for some seeds: every array in the arguments has an axis of seeds in front.

    side_by_side: as one batch, which is quicker on a GPU, or one after another; by default what suits the device.
    """
    given = (states, edits, exemplars, keys)
    if side_by_side or (side_by_side is None and jax.default_backend() != "cpu"):
        return jax.vmap(lambda *seed: train(*seed, rule=rule, steps=steps))(*given)
    return jax.lax.map(lambda seed: train(*seed, rule=rule, steps=steps), given)


def save(path: Path, tree: Any) -> None:
    """Write the arrays of a tree, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with written(path) as whole:
        eqx.tree_serialise_leaves(whole, tree)


def load(path: Path, like: Any) -> Any:
    """Read what `save` wrote, into a tree of the same structure."""
    return eqx.tree_deserialise_leaves(path, like)
