"""Evaluators: sequences that isolate a strategy, and what a network does on them.

    evaluator   sequences (see data.py)                  says
    train       those of training                        how well the network solves its task
    icl         labels drawn anew in each sequence       accuracy of in-context learning
    flip        labels of the context swapped            1 is ICL, 0 is CIWL, 1/2 is chance
    ciwl        right label in context, other exemplars  accuracy of context-constrained in-weights learning
    pure_iwl    right label not in context               accuracy of in-weights learning without context

For each: the loss, the accuracy among all labels, and the accuracy among the labels in context (for pure_iwl, whose
right answer is not among them, not defined). And of each head: how much label tokens look at the exemplar before them
(`previous_token`) and at themselves (`own_token`), in layer 1; how much more the query looks at the right label than
at the others, on icl sequences (`induction`) and on ciwl sequences (`lookup`), in layer 2. And the Euclidean norm of
each weight, under no edits (`weight_norm`).
"""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from toymodel.network.data import Batch, Sequences, sample
from toymodel.network.tap import Edit, Network, run, weight_name

EVALUATORS = ("train", "icl", "flip", "ciwl", "pure_iwl")
MEASURES = ("loss", "accuracy", "accuracy_in_context")


def evaluate(
    network: Network,
    edits: tuple[Edit, ...],
    exemplars: Float[Array, "classes exemplars features"],
    sequences: Sequences,
    key: PRNGKeyArray,
    batch: int,
) -> dict[str, Array]:
    """All evaluators on fresh sequences: MEASURES with axis `evaluator`, the heads' measures with axis `head`.

    `sequences` are those of training; the evaluators take their context's length and burstiness from them.
    """
    keys = dict(zip(EVALUATORS, jax.random.split(key, len(EVALUATORS)), strict=True))
    kinds = {name: sequences if name == "train" else replace(sequences, kind=name) for name in EVALUATORS}
    drawn = [sample(keys[name], exemplars, kinds[name], batch) for name in EVALUATORS]
    stacked = jax.tree.map(lambda *each: jnp.stack(each), *drawn)
    logits, seen = jax.lax.map(lambda one: run_batch(network, one, edits), stacked)  # compiled once for all
    measured = jax.vmap(measure)(logits, stacked)
    icl, ciwl = EVALUATORS.index("icl"), EVALUATORS.index("ciwl")
    heads = {
        "induction": preference(seen["layer2.attention"][icl], drawn[icl]),
        "lookup": preference(seen["layer2.attention"][ciwl], drawn[ciwl]),
    }
    heads["previous_token"], heads["own_token"] = label_tokens(seen["layer1.attention"][icl])
    norms = jnp.stack([jnp.linalg.norm(weight.ravel()) for weight in jax.tree.leaves(network)])
    return measured | heads | {"weight_norm": norms}


@partial(jax.jit, static_argnames=("sequences", "batch"))
def evaluate_seeds(
    networks: Network, edits: tuple[Edit, ...], exemplars: Array, keys: Array, sequences: Sequences, batch: int
) -> dict[str, Array]:
    """`evaluate` for all seeds: every array in the arguments has an axis of seeds in front."""

    def one(network: Network, edits: tuple[Edit, ...], exemplars: Array, key: PRNGKeyArray) -> dict[str, Array]:
        return evaluate(network, edits, exemplars, sequences, key, batch)

    return jax.vmap(one)(networks, edits, exemplars, keys)


def weight_names(network: Network) -> list[str]:
    """The names of the weights in the order of `weight_norm`."""
    return [weight_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(network)]


def run_batch(network: Network, batch: Batch, edits: tuple[Edit, ...] = ()) -> tuple[Array, dict[str, Array]]:
    """Run a network on a batch: logits [batch, classes] and the recording, each entry with axis `batch` in front."""
    return jax.vmap(lambda x, labels: run(network, x, labels, edits))(batch.exemplars, batch.labels)


def loss_of(logits: Float[Array, "batch classes"], batch: Batch) -> Float[Array, ""]:
    """Mean cross-entropy over all labels."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch.target).mean()


def measure(logits: Float[Array, "batch classes"], batch: Batch) -> dict[str, Array]:
    """Loss and accuracies of one batch."""
    in_context = jnp.take_along_axis(logits, batch.labels, axis=1)
    named = jnp.take_along_axis(batch.labels, in_context.argmax(1)[:, None], axis=1)[:, 0]
    possible = jnp.any(batch.labels == batch.target[:, None])
    return {
        "loss": loss_of(logits, batch),
        "accuracy": (logits.argmax(1) == batch.target).mean(),
        "accuracy_in_context": jnp.where(possible, (named == batch.target).mean(), jnp.nan),
    }


def label_tokens(attention: Float[Array, "batch heads tokens keys"]) -> tuple[Array, Array]:
    """Mean attention of the label tokens to the exemplar before them and to themselves, by head."""
    labels = jnp.arange(1, attention.shape[-2], 2)
    return attention[..., labels, labels - 1].mean((0, -1)), attention[..., labels, labels].mean((0, -1))


def preference(attention: Float[Array, "batch heads one keys"], batch: Batch) -> Float[Array, " heads"]:
    """Mean attention of the query to the label tokens that are right, less that to the others, by head."""
    pairs = batch.labels.shape[1]
    on_labels = attention[:, :, -1, :] if attention.shape[-1] == pairs else attention[:, :, -1, 1 : 2 * pairs : 2]
    right = (batch.labels == batch.target[:, None])[:, None]
    return (on_labels * jnp.where(right, 1.0, -1.0)).sum(-1).mean(0)
