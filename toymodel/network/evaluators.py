"""Evaluators: sequences that isolate a strategy, and what a network does on them.

    evaluator   sequences (see data.py)                  says
    train       those of training                        how well the network solves its task
    icl         labels drawn anew in each sequence       accuracy of in-context learning
    flip        labels of the context swapped            1 is ICL, 0 is CIWL, 1/2 is chance
    ciwl        right label in context, other exemplars  accuracy of context-constrained in-weights learning
    pure_iwl    right label not in context               accuracy of in-weights learning without context

For each, over the label that has the highest logit

    loss                  cross-entropy over all labels of the network
    accuracy              share of right answers where the maximum is taken over all labels of the network
    accuracy_in_context   the same where it is taken over the labels in context (for pure_iwl, whose right answer is
                          not among them, not defined). The paper's curves of icl, flip and ciwl are of this kind.
    accuracy_cut          of accuracy_in_context, where label tokens may not look at the exemplar before them in
                          layer 1 (cut=previous), or not at themselves (cut=own)

And of the parts, by head where nothing else is said:

    previous_token, own_token   attention of label tokens to the exemplar before them and to themselves, in layer 1
    induction, lookup           how much more the query looks at the right label than at the others, in the last layer,
                                on icl and on ciwl sequences
    match                       the same as induction, in the mean over heads, where in layer 1 all attention of label
                                tokens is on the exemplar before them: is it found, if it is there to be found?
    copy                        does attention to a label raise its own logit? (S_ii - mean_j S_ij) / deviation_j S_ij,
                                with S_ij the logit of label j that the last layer adds per attention to label i, in the
                                mean over labels i (the transformer only; see `Transformer.copied`)
    weight_norm                 the Euclidean norm of each weight, under no edits
"""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from toymodel.network.data import Batch, Sequences, sample
from toymodel.network.tap import FORBIDDEN, Edit, Network, forbid, run, weight_name

EVALUATORS = ("train", "icl", "flip", "ciwl", "pure_iwl")
MEASURES = ("loss", "accuracy", "accuracy_in_context")
CUTS = tuple(sorted(FORBIDDEN))  # own, previous
OF_CUTS = ("icl", "flip", "ciwl")  # the evaluators of accuracy_cut, which takes half of their sequences


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
    last = max(
        (name for name in seen if name.endswith(".attention")), key=lambda name: int(name[5 : -len(".attention")])
    )
    heads = {"induction": preference(seen[last][icl], drawn[icl]), "lookup": preference(seen[last][ciwl], drawn[ciwl])}
    if last != "layer1.attention":
        heads["previous_token"], heads["own_token"] = label_tokens(seen["layer1.attention"][icl])
        heads["match"] = matched(network, drawn[icl], edits, last)

        half = jax.tree.map(lambda each: each[: batch // 2 + 1], [drawn[EVALUATORS.index(name)] for name in OF_CUTS])
        some = jax.tree.map(lambda *each: jnp.stack(each), *half)

        def without(cut: str) -> Array:
            logits = jax.lax.map(lambda one: run_batch(network, one, (*edits, forbid("layer1.score", cut)))[0], some)
            return jax.vmap(measure)(logits, some)["accuracy_in_context"]

        heads["accuracy_cut"] = jnp.stack([without(cut) for cut in CUTS], axis=1)  # [evaluators of cuts, cuts]
    if hasattr(network, "copied"):
        heads["copy"] = copy_strength(network.copied(256))  # pyright: ignore
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


def matched(network: Network, batch: Batch, edits: tuple[Edit, ...], last: str) -> Float[Array, ""]:
    """The preference of the last layer for the right label, where the label tokens look one token back in layer 1."""
    tokens = run_batch(network, batch, edits)[1]["layer1.attention"].shape[-1]
    back = jnp.eye(tokens) - jnp.diag(jnp.arange(tokens) % 2) + jnp.diag(jnp.arange(1, tokens) % 2, k=-1)
    ideal = Edit("layer1.attention", back[None].astype(jnp.float32), None)
    return preference(run_batch(network, batch, (*edits, ideal))[1][last], batch).mean()


def copy_strength(added: Float[Array, "labels labels"]) -> Float[Array, ""]:
    """The diagonal of S against its rows, in deviations of these; see the module."""
    others = added.mean(1)
    return ((jnp.diagonal(added) - others) / (added.std(1) + 1e-30)).mean()
