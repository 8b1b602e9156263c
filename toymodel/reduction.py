"""The exact reduction: every vector is two numbers.

Seen from its target, a vector is x = u e + v w, with e = x*/|x*| and w the unit vector of what is left of it at the
start. The plane (e, w) is invariant under gradient flow and gradient descent of any loss of the model
(`derivations/reduction.py`), and u (the overlap) and v (the residual) are Cartesian coordinates in it. So the
dynamics of all entries is that of (u, v) under the gradient of the reduced loss

    L_m = w_m / 2 [ (T - U)^2 + Q - U^2 ],    T = prod |x*|,   U = prod u,   Q = prod (u^2 + v^2).

A vector whose first k entries are clamped to the target stays in such a plane too: with c = |x*_head| / |x*| and
s = |x*_tail| / |x*|, c^2 + s^2 = 1, and (u, v) the coordinates of its free tail,

    overlap = c^2 |x*| + s u,        residual^2 = v^2 + c^2 (s |x*| - u)^2.

The functions here use operators only: they take numbers, numpy and JAX arrays, and sympy symbols.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import sympy as sp

from toymodel.model import Form


class Plane(NamedTuple):
    """One vector in its invariant plane.

    u, v: coordinates of its free part along the target and along the residual; target: |x*|; head, tail: shares c and
    s of |x*| in the clamped and in the free entries.
    """

    u: Any
    v: Any
    target: Any
    head: Any = 0
    tail: Any = 1

    @property
    def overlap(self) -> Any:
        """x . x* / |x*|."""
        if _nothing_clamped(self):
            return self.u
        return self.head**2 * self.target + self.tail * self.u

    @property
    def residual_square(self) -> Any:
        """|x - overlap x*/|x*||^2."""
        if _nothing_clamped(self):
            return self.v**2
        return self.v**2 + self.head**2 * (self.tail * self.target - self.u) ** 2


def _nothing_clamped(plane: Plane) -> bool:
    return isinstance(plane.head, int) and plane.head == 0


def mechanism_loss(planes: list[Plane], weight: Any) -> Any:
    """w/2 [(T - U)^2 + Q - U^2], with Q - U^2 summed so that nothing cancels when the residuals are small."""
    *others, last = planes
    shared, rest = last.overlap, last.residual_square
    for plane in reversed(others):  # mechanisms differ in their first vectors, so that what they share comes first
        rest = rest * (plane.overlap**2 + plane.residual_square) + shared**2 * plane.residual_square
        shared = shared * plane.overlap
    return weight / 2 * ((math.prod(plane.target for plane in planes) - shared) ** 2 + rest)


def cost_loss(planes: list[Plane], weight: Any) -> Any:
    """w/2 Q."""
    return weight / 2 * math.prod(plane.overlap**2 + plane.residual_square for plane in planes)


def unlearned_loss(planes: list[Plane], weight: Any) -> Any:
    """w/2 T^2, the loss of a mechanism that has learned nothing."""
    return weight / 2 * math.prod(plane.target for plane in planes) ** 2


def terms(
    form: Form,
    planes: Mapping[str, Plane],
    weights: Mapping[str, Any],
    seen: Callable[[str, str, Plane], Plane] = lambda term, vector, plane: plane,
) -> dict[str, Any]:
    """Every mechanism and cost of the model, by name; `seen` may replace what a term sees of a vector."""
    return {
        term: (mechanism_loss if term in form.mechanisms else cost_loss)(
            [seen(term, x, planes[x]) for x in letters], weights[term]
        )
        for term, letters in form.terms.items()
    }


def reduced_loss(
    form: Form, planes: Mapping[str, Plane], weights: Mapping[str, Any], parameters: Mapping[str, Any]
) -> Any:
    """The loss of the whole model as a function of the coordinates of all vectors.

    Arguments:
        form: of a model (`model.form`).
        planes, weights, parameters: by name, as `symbols` gives them; numbers and arrays too.

    Returns:
        The loss, of the kind of its arguments.

    Source: `derivations/reduction.py`.

    >>> from toymodel.model import Model
    >>> form = Model({"icl": "a"}, lambda icl: icl, {"a": 4}).form
    >>> print(reduced_loss(form, *symbols(form)))
    w_icl*(v_a**2 + (T_a - u_a)**2)/2
    """
    return form.loss(**terms(form, planes, weights), **parameters)


def symbols(form: Form, clamped: Collection[str] = ()) -> tuple[dict[str, Plane], dict[str, Any], dict[str, Any]]:
    """Sympy symbols for the planes, weights and parameters of a model: the arguments of `reduced_loss`.

    Arguments:
        form: of a model (`model.form`).
        clamped: letters of vectors whose first entries are clamped; they have the shares c_x and s_x too.

    Returns:
        letter -> `Plane` of u_x, v_x and T_x = |x*|; term -> w_t; and parameter -> its symbol.

    Source: `derivations/notation.md`.

    >>> from toymodel.presets import coopetition
    >>> planes, weights, parameters = symbols(coopetition().form)
    >>> planes["a"].u, planes["a"].target, weights["cost"], parameters["alpha"]
    (u_a, T_a, w_cost, alpha)
    """
    planes = {
        x: Plane(
            sp.Symbol(f"u_{x}", real=True),
            sp.Symbol(f"v_{x}", real=True),
            sp.Symbol(f"T_{x}", positive=True),
            *((sp.Symbol(f"c_{x}", positive=True), sp.Symbol(f"s_{x}", positive=True)) if x in clamped else ()),
        )
        for x in form.vectors
    }
    weights = {t: sp.Symbol(f"w_{t}", positive=True) for t in form.terms}
    return planes, weights, {p: sp.Symbol(p, nonnegative=True) for p in form.parameters}
