"""What a simulation carries from step to step, reduced: two numbers a vector, and what interventions need beside.

`State` is what an intervention asks of it; `toymodel.simulation.tensors` has the same for all entries. Arrays have the
shape (run,).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float

from toymodel.model import FrozenDict
from toymodel.reduction import Plane

PerRun = Float[np.ndarray, " run"]
NOTHING: FrozenDict[int] = FrozenDict()


class State(Protocol):
    """What an intervention can do to a state; each returns a new one."""

    def norm(self, x: str) -> Any:
        """The norm of the target of x in each run, in the arrays of this state."""
        ...

    def placed(self, x: str, overlap: Any, residual: Any) -> Any:
        """The vector x put at these coordinates."""
        ...

    def frozen(self, x: str) -> Any:
        """The vector x held where it is."""
        ...

    def head_clamped(self, x: str, k: int) -> Any:
        """The first k entries of x put at those of the target, and held there."""
        ...

    def free(self, x: str) -> Any:
        """The vector x free to move from where it is, in the plane that it then spans with its target."""
        ...


@dataclass(frozen=True)
class Gram:
    """Inner products over the first k entries of the two directions e and w of a plane."""

    ee: PerRun
    ew: PerRun
    ww: PerRun


@dataclass(frozen=True)
class Reduced:
    """Coordinates of every vector in its plane, in the order of the model's vectors.

    grams and heads are there for vectors whose first `entries[x]` entries can be (grams) or are (heads) clamped: heads
    holds the shares (c, s) of the target, see `toymodel.reduction`.
    """

    u: dict[str, PerRun]
    v: dict[str, PerRun]
    target: dict[str, PerRun]
    grams: dict[str, Gram] = field(default_factory=dict)
    heads: dict[str, tuple[PerRun, PerRun]] = field(default_factory=dict)
    entries: FrozenDict[int] = NOTHING
    fixed: frozenset[str] = frozenset()

    def plane(self, x: str) -> Plane:
        return Plane(self.u[x], self.v[x], self.target[x], *self.heads.get(x, ()))

    def norm(self, x: str) -> PerRun:
        return self.target[x]

    def coordinates(self) -> Float[np.ndarray, "coordinate run"]:
        """u of all vectors, then v of all vectors."""
        return np.stack([*self.u.values(), *self.v.values()])

    def at(self, coordinates: Float[np.ndarray, "coordinate run"]) -> Reduced:
        """The state with other coordinates."""
        u, v = coordinates[: len(self.u)], coordinates[len(self.u) :]
        return replace(self, u=dict(zip(self.u, u, strict=True)), v=dict(zip(self.v, v, strict=True)))

    def placed(self, x: str, overlap: Any, residual: Any) -> Reduced:
        """The direction of the residual stays, and the side of 0 it is on."""
        state, like = self.free(x), self.u[x]
        u, v = np.broadcast_to(overlap, like.shape), np.copysign(np.broadcast_to(residual, like.shape), state.v[x])
        return replace(state, u={**state.u, x: u.astype(float)}, v={**state.v, x: v})

    def frozen(self, x: str) -> Reduced:
        return replace(self, fixed=self.fixed | {x})

    def head_clamped(self, x: str, k: int) -> Reduced:
        """u and v become the coordinates of the tail."""
        state = self.free(x)
        if self.entries.get(x) != k:
            raise ValueError(
                f"Clamp({x!r}, entries={k}) needs to know these entries: make the start with heads={{{x!r}: {k}}}"
            )
        gram, u, v = state.grams[x], state.u[x], state.v[x]
        head, tail = np.sqrt(gram.ee), np.sqrt(np.maximum(1 - gram.ee, 0))
        along = u * (1 - gram.ee) - v * gram.ew  # x_tail . e_tail
        square = u**2 * (1 - gram.ee) - 2 * u * v * gram.ew + v**2 * (1 - gram.ww)  # |x_tail|^2
        new_u = np.where(tail > 0, along / np.where(tail > 0, tail, 1), 0.0)
        new_v = np.sqrt(np.maximum(square - new_u**2, 0))
        return replace(state, u={**state.u, x: new_u}, v={**state.v, x: new_v}, heads={**state.heads, x: (head, tail)})

    def free(self, x: str) -> Reduced:
        state = replace(self, fixed=self.fixed - {x})
        if x not in self.heads:
            return state
        plane, gram = self.plane(x), self.grams[x]
        u, v = plane.overlap, np.sqrt(plane.residual_square)
        stretch = np.where(v > 0, (plane.target - u) / np.where(v > 0, v, 1), 0.0)  # w_head = stretch e_head
        gram = Gram(gram.ee, stretch * gram.ee, stretch**2 * gram.ee)
        heads = {y: shares for y, shares in self.heads.items() if y != x}
        return replace(state, u={**self.u, x: u}, v={**self.v, x: v}, heads=heads, grams={**self.grams, x: gram})
