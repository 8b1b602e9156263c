"""One mechanism for every intervention: each weight and each intermediate passes through a tap, by its name.

A network's forward pass says `x = tap("layer1.attention", x)` wherever something may be looked at; its weights pass
through the tap as `weights.layer1.query` and so on before they are used. An `Edit` replaces what passes:

    ablate(at)          by zero
    clamp(at, value)    by a given value
    graft(at, donor)    by what another network has there on the same sequence (for a weight: its weight)
    forbid(at, to)      in scores of attention, those of label tokens to the exemplar before them (to="previous") or to
                        themselves (to="own"), by a score so low that its attention is 0

and `run` returns all that passed, which is the recording. `at` is a pattern as for file names (`weights.layer2.*`),
`heads` restricts the edit to some heads of a layer (first axis). A replaced weight has gradient zero, so an edit that
is held during training *is* the clamping of a part of the network.
"""

from abc import abstractmethod
from fnmatch import fnmatchcase

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int


class Network(eqx.Module):
    """What a network is here: its arrays are its weights, and it maps one sequence to the logits of all labels."""

    @abstractmethod
    def __call__(
        self, exemplars: Float[Array, "exemplars features"], labels: Int[Array, " pairs"], tap: "Tap"
    ) -> Float[Array, " classes"]:
        """The logits of one sequence; the last exemplar is the query."""


OF_HEADS = ("query", "key", "value", "output", "score", "attention", "heads")  # what a layer has for each of its heads


class Edit(eqx.Module):
    """A replacement of what passes at the names that match `at`."""

    at: str = eqx.field(static=True)
    value: Array | None
    donor: Network | None
    heads: tuple[int, ...] | None = eqx.field(static=True, default=None)
    to: str | None = eqx.field(static=True, default=None)  # replace only scores of label tokens to such tokens


def ablate(at: str, heads: tuple[int, ...] | None = None) -> Edit:
    """Replace by zero."""
    return Edit(at, jnp.zeros(()), None, heads)


def clamp(at: str, value: ArrayLike, heads: tuple[int, ...] | None = None) -> Edit:
    """Replace by a given value, which is broadcast to what passes."""
    return Edit(at, jnp.asarray(value), None, heads)


def graft(at: str, donor: Network, heads: tuple[int, ...] | None = None) -> Edit:
    """Replace by what passes at the same place of the donor on the same sequence."""
    return Edit(at, None, donor, heads)


FORBIDDEN = {"previous": 1, "own": 0}  # how far before a label token the forbidden token stands


def forbid(at: str, to: str, heads: tuple[int, ...] | None = None) -> Edit:
    """Forbid label tokens to look at the exemplar before them or at themselves."""
    if to not in FORBIDDEN:
        raise ValueError(f"to must be one of {sorted(FORBIDDEN)}, got {to!r}")
    return Edit(at, jnp.array(-1e9, jnp.float32), None, heads, to)


def of_labels(score: Float[Array, "heads tokens keys"], to: str) -> Bool[Array, "tokens keys"]:
    """Where the scores of label tokens, which are the odd ones, to such tokens stand."""
    token, key = jnp.arange(score.shape[1])[:, None], jnp.arange(score.shape[2])[None]
    return (token % 2 == 1) & (key == token - FORBIDDEN[to])


class Tap:
    """Applies edits and keeps what passed. It lives for one forward pass."""

    def __init__(self, edits: tuple[Edit, ...] = (), donated: tuple[dict[str, Array] | None, ...] = ()):
        self.edits, self.donated = edits, donated
        self.seen: dict[str, Array] = {}

    def __call__(self, name: str, passing: Array) -> Array:
        for edit, donated in zip(self.edits, self.donated, strict=True):
            if not fnmatchcase(name, edit.at):
                continue
            source = jnp.asarray(donated[name] if donated is not None else edit.value, passing.dtype)
            if edit.heads is not None:
                _check_heads(name, passing, edit.heads)
            try:
                new = jnp.broadcast_to(source, passing.shape)
            except ValueError:
                raise ValueError(f"{name} has the shape {passing.shape}, got a value of {source.shape}") from None
            if edit.to is not None:
                if not name.endswith(".score") or passing.shape[1] < 2:
                    raise ValueError(f"to is for scores of layers that the label tokens have, got {name!r}")
                new = jnp.where(of_labels(passing, edit.to)[None], new, passing)
            heads = edit.heads
            passing = new if heads is None else passing.at[jnp.array(heads)].set(new[jnp.array(heads)])
        self.seen[name] = passing
        return passing


def _check_heads(name: str, passing: Array, heads: tuple[int, ...]) -> None:
    """Raises ValueError where what passes has no heads, or not these."""
    *layer, last = name.split(".")
    if last not in OF_HEADS or not any(part.startswith("layer") for part in layer):
        raise ValueError(f"heads is for {', '.join(OF_HEADS)} of a layer, got {name!r}")
    if not heads or not all(0 <= head < passing.shape[0] for head in heads):
        raise ValueError(f"heads of {name} must be some of 0..{passing.shape[0] - 1}, got {heads}")


def run(
    network: Network,
    exemplars: Float[Array, "exemplars features"],
    labels: Int[Array, " pairs"],
    edits: tuple[Edit, ...] = (),
) -> tuple[Float[Array, " classes"], dict[str, Array]]:
    """Run a network on one sequence, under edits: its logits, and everything that passed the tap."""
    donated = tuple(None if e.donor is None else run(e.donor, exemplars, labels)[1] for e in edits)
    tap = Tap(edits, donated)
    network = jax.tree_util.tree_map_with_path(lambda path, w: tap(weight_name(path), w), network)
    logits = network(exemplars, labels, tap)
    unmatched = [e.at for e in edits if not any(fnmatchcase(name, e.at) for name in tap.seen)]
    if unmatched:
        raise ValueError(f"at must match a name of the network, got {unmatched}; names are {sorted(tap.seen)}")
    return logits, tap.seen


def weight_name(path: tuple) -> str:
    """The name of a weight from its place in the module, e.g. `weights.layer1.query`.

    In a dictionary of parts (`layers`) the key says enough: `weights.layer1`, not `weights.layers.layer1`.
    """
    parts: list[str] = []
    for entry in path:
        if isinstance(entry, jax.tree_util.DictKey):
            parts[-1:] = [str(entry.key)]
        else:
            parts.append(jax.tree_util.keystr((entry,)).strip(".[]'"))
    return ".".join(["weights", *parts])
