"""The slow manifold after the emergence of ICL as a plane: p = bc and d, without residuals, b = c (mu_ciwl = 0).

On abc = S_icl the loss slides down within the manifold: with g the gradient of abc in (a, b, c, d),

    d(a, b, c, d)/dt = -dL/dx + g (g . dL/dx) / g^2        at a = S_icl/p, b = c = sqrt(p),

an autonomous flow of p and d. It holds while ICL keeps its product; where CIWL is learned too, the equilibria of a and
d for a given p fold (`toymodel.theory.lifetime.fold`) and ICL ends. Drawn by `figures/theory_portrait.py`.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import sympy as sp

from toymodel.model import Model
from toymodel.reduction import symbols
from toymodel.theory import compiled as of
from toymodel.theory.lifetime import MISSING, balance, fold, form, target


@cache
def velocity() -> tuple[sp.Expr, sp.Expr]:
    """d(bc)/dt and dd/dt on the manifold, in p and the symbols of `toymodel.reduction.symbols`."""
    planes, _, parameters = symbols(form())
    u, p = {x: planes[x].u for x in "abcd"}, MISSING[2]
    aligned = {planes[x].v: 0 for x in "abcd"} | {parameters["mu_ciwl"]: 0}
    made = u["a"] * u["b"] * u["c"]
    slope, across = (sp.Matrix([sp.diff(f, u[x]) for x in "abcd"]) for f in (of.loss(form()).subs(aligned), made))
    flow = across * across.dot(slope) / across.dot(across) - slope
    on = {u["a"]: target("abc") / p, u["b"]: sp.sqrt(p), u["c"]: sp.sqrt(p)}
    return sp.factor((2 * sp.sqrt(p) * flow[1]).subs(on)), sp.factor(flow[3].subs(on))


def slow_flow(model: Model, p: Any, d: Any, **parameters: float) -> tuple[np.ndarray, np.ndarray]:
    """`velocity` at p = bc and d (arrays of one shape), for a model like the paper's with mu_ciwl = 0."""
    values = _numbers(model, parameters)
    planes, _, _ = symbols(form())
    functions = (sp.lambdify((MISSING[2], planes["d"].u), v.subs(values), "numpy") for v in velocity())
    one, other = (np.asarray(f(np.asarray(p, float), np.asarray(d, float))) for f in functions)
    return one, other


def coexisting(model: Model, missing: Any, **parameters: float) -> np.ndarray:
    """The p at which a and d are in equilibrium with both learned, where the share `missing` of abc/S_icl is missing.

    Its maximum is the fold; with less missing the equilibrium is stable, with more unstable. To leading order in what
    is missing.
    """
    values = _numbers(model, parameters)
    share = np.asarray(missing, float)
    fourth = sp.lambdify(MISSING[0], balance()[0].subs(values), "numpy")
    return fourth(share * float(target("abc").subs(values))) ** 0.25


def end_of_coexistence(model: Model, **parameters: float) -> float:
    """The fold's p for a model like the paper's with mu_ciwl = 0."""
    return float(fold().subs(_numbers(model, parameters)))


def _numbers(model: Model, parameters: dict[str, float]) -> dict[Any, float]:
    if of.letters(model) != ("a", "d", "b", "c") or model.form.expression != form().expression:
        raise ValueError(f"the slow flow is derived for the loss of tm.coopetition, got {model.form.expression}")
    planes, weights, names = symbols(form())
    given = {**model.parameters, **parameters}
    if given["mu_ciwl"] != 0:
        raise ValueError(f"mu_ciwl must be 0 for the slow flow, got {given['mu_ciwl']:g}")
    values = {planes[x].target: norm for x, norm in model.target_norms.items()}
    values |= {weights[t]: weight for t, weight in model.weights.items()}
    return values | {names[name]: value for name, value in given.items()}
