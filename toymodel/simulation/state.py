"""What a simulation carries from step to step, reduced (two numbers a vector) or with all entries.

Both kinds answer to the same three requests, so that an intervention is written once: place a vector at an overlap
and a residual, clamp its first entries to the target, freeze it. All arrays have one leading axis of runs.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from toymodel.model import FrozenDict
from toymodel.reduction import Plane

Number = Float[Array, ""] | float
Count = Int[Array, ""] | int
PerRun = Float[Array, " run"]
Coordinate = Float[Array, "..."]  # (run,), and () inside of vmap
Entries = Float[Array, "run entry"]
NOTHING: FrozenDict[int] = FrozenDict()


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Gram:
    """Inner products over the first k entries of the two directions e and w of a plane."""

    ee: Coordinate
    ew: Coordinate
    ww: Coordinate


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Reduced:
    """Coordinates of every vector in its plane.

    grams and heads are there for vectors whose first `entries[x]` entries can be (grams) or are (heads) clamped: heads
    holds the shares (c, s) of the target, see `toymodel.reduction`.
    """

    u: dict[str, Coordinate]
    v: dict[str, Coordinate]
    target: dict[str, Coordinate]
    grams: dict[str, Gram] = field(default_factory=dict)
    heads: dict[str, tuple[Coordinate, Coordinate]] = field(default_factory=dict)
    entries: FrozenDict[int] = field(default=NOTHING, metadata={"static": True})
    fixed: frozenset[str] = field(default=frozenset(), metadata={"static": True})

    def plane(self, x: str) -> Plane:
        return Plane(self.u[x], self.v[x], self.target[x], *self.heads.get(x, ()))

    @property
    def order(self) -> list[str]:
        """The letters in the order of their coordinates: sorted, as JAX sorts the keys of a dictionary."""
        return sorted(self.u)

    def coordinates(self) -> jax.Array:
        """u of all vectors, then v of all vectors, shape (coordinate, run)."""
        return jnp.stack([part[x] for part in (self.u, self.v) for x in self.order])

    def at(self, coordinates: jax.Array) -> Reduced:
        """The state with other coordinates, of shape (coordinate, run)."""
        u, v = coordinates[: len(self.u)], coordinates[len(self.u) :]
        return replace(self, u=dict(zip(self.order, u, strict=True)), v=dict(zip(self.order, v, strict=True)))

    def placed(self, x: str, overlap: PerRun, residual: PerRun) -> Reduced:
        """The vector x put at these coordinates; the direction of its residual stays, and the side of 0 it is on."""
        state = self.free(x)
        return replace(state, u={**state.u, x: overlap}, v={**state.v, x: jnp.copysign(residual, state.v[x])})

    def frozen(self, x: str) -> Reduced:
        return replace(self, fixed=self.fixed | {x})

    def head_clamped(self, x: str, k: int) -> Reduced:
        """The first k entries of x put at those of the target; u and v become the coordinates of the tail."""
        state = self.free(x)
        if self.entries.get(x) != k:
            raise ValueError(
                f"Clamp({x!r}, entries={k}) needs to know these entries: make the start with heads={{{x!r}: {k}}}"
            )
        gram, u, v = state.grams[x], state.u[x], state.v[x]
        head, tail = jnp.sqrt(gram.ee), jnp.sqrt(jnp.maximum(1 - gram.ee, 0))
        along = u * (1 - gram.ee) - v * gram.ew  # x_tail . e_tail
        square = u**2 * (1 - gram.ee) - 2 * u * v * gram.ew + v**2 * (1 - gram.ww)  # |x_tail|^2
        new_u = jnp.where(tail > 0, along / jnp.where(tail > 0, tail, 1), 0.0)
        new_v = jnp.sqrt(jnp.maximum(square - new_u**2, 0))
        return replace(
            state,
            u={**state.u, x: new_u},
            v={**state.v, x: new_v},
            heads={**state.heads, x: (head, tail)},
        )

    def free(self, x: str) -> Reduced:
        """The vector x free to move from where it is, in the plane that it then spans with its target."""
        state = replace(self, fixed=self.fixed - {x})
        if x not in self.heads:
            return state
        plane, gram = self.plane(x), self.grams[x]
        u, v = plane.overlap, jnp.sqrt(plane.residual_square)
        stretch = jnp.where(v > 0, (plane.target - u) / jnp.where(v > 0, v, 1), 0.0)  # w_head = stretch e_head
        gram = Gram(gram.ee, stretch * gram.ee, stretch**2 * gram.ee)
        heads = {y: shares for y, shares in self.heads.items() if y != x}
        return replace(state, u={**self.u, x: u}, v={**self.v, x: v}, heads=heads, grams={**self.grams, x: gram})


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Full:
    """All entries of every vector and target; the last direction of its residual, which a residual of 0 does not show
    any more; and for clamped heads a mask that is 0 where an entry is held."""

    values: dict[str, Float[Array, "run _"]]  # vectors differ in their numbers of entries
    targets: dict[str, Float[Array, "run _"]]
    across: dict[str, Float[Array, "run _"]]
    masks: dict[str, Float[Array, " _"]] = field(default_factory=dict)
    fixed: frozenset[str] = field(default=frozenset(), metadata={"static": True})

    @classmethod
    def of(cls, values: dict[str, Entries], targets: dict[str, Entries]) -> Full:
        """The state at a start."""
        return cls(values, targets, {x: directions(value, targets[x])[1] for x, value in values.items()})

    def placed(self, x: str, overlap: PerRun, residual: PerRun) -> Full:
        """The vector x put at these coordinates; raises ValueError where its residual never had a direction."""
        along, across = self.directions(x)
        if bool(jnp.any((residual > 0) & jnp.all(across == 0, -1))):
            raise ValueError(f"Clamp({x!r}): its residual has no direction, for {x} has been along its target only")
        value = overlap[:, None] * along + residual[:, None] * across
        return replace(self.free(x), values={**self.values, x: value}, across={**self.across, x: across})

    def frozen(self, x: str) -> Full:
        return replace(self, fixed=self.fixed | {x})

    def head_clamped(self, x: str, k: int) -> Full:
        held = jnp.arange(self.values[x].shape[1]) < k
        value = jnp.where(held, self.targets[x], self.values[x])
        mask = jnp.where(held, 0.0, 1.0).astype(value.dtype)
        return replace(self.free(x), values={**self.values, x: value}, masks={**self.masks, x: mask})

    def free(self, x: str) -> Full:
        """The vector x free to move from where it is, in the plane that it then spans with its target."""
        state = replace(self, fixed=self.fixed - {x})
        if x not in self.masks:
            return state
        masks = {y: mask for y, mask in self.masks.items() if y != x}
        return replace(state, masks=masks, across={**self.across, x: self.directions(x)[1]})

    def directions(self, x: str) -> tuple[Entries, Entries]:
        """The unit vectors along the target of x and along its residual, or along the last one that it had."""
        along, across = directions(self.values[x], self.targets[x])
        return along, jnp.where(jnp.any(across != 0, -1, keepdims=True), across, self.across[x])


def directions(value: Entries, target: Entries) -> tuple[Entries, Entries]:
    """The unit vectors e along the target and w along the residual (0 where that is nothing but rounding)."""
    along = target / jnp.linalg.norm(target, axis=-1, keepdims=True)
    across = value - jnp.sum(value * along, -1, keepdims=True) * along
    norm = jnp.linalg.norm(across, axis=-1, keepdims=True)
    rounding = 32 * jnp.finfo(value.dtype).eps * jnp.linalg.norm(value, axis=-1, keepdims=True)
    there = norm > rounding
    return along, jnp.where(there, across, 0) / jnp.where(there, norm, 1)


def coordinates(value: Entries, target: Entries) -> tuple[PerRun, PerRun]:
    """Overlap and residual of every run."""
    norm = jnp.linalg.norm(target, axis=-1)
    overlap = jnp.sum(value * target, -1) / norm
    return overlap, jnp.linalg.norm(value - (overlap / norm)[:, None] * target, axis=-1)
