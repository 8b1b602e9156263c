"""The slow manifold after the emergence of ICL as a plane: p = bc and d, without residuals, b = c (mu_ciwl = 0).

On abc = S_icl the loss slides down within the manifold: with g the gradient of abc in (a, b, c, d),

    d(a, b, c, d)/dt = -dL/dx + g (g . dL/dx) / g^2        at a = S_icl/p, b = c = sqrt(p),

an autonomous flow of p and d. It holds while ICL keeps its product, which is a question of the `strain`, the share of
abc that the rest of the loss pulls away against ICL's hold; where CIWL is learned too, the equilibria of a and d for a
given p fold (`toymodel.theory.transience.fold`) and ICL ends. Drawn by `figures/theory_portrait.py`.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import sympy as sp

from toymodel.checks import checked
from toymodel.model import Model
from toymodel.reduction import symbols
from toymodel.theory import compiled as of
from toymodel.theory.arrays import check, check_zero, function, within
from toymodel.theory.quadrature import SHARE
from toymodel.theory.transience import MISSING, balance, fold, form, hold, target

# The first two were chosen on the seed 61 of benchmarks/theory_ranges_states.py, the third on 201 and 203.
MOST_STRAIN, MOST_LAG, MOST_UNSURE = 0.05, 0.2, 0.2


@cache
def _slopes() -> tuple[sp.Matrix, sp.Matrix]:
    """dL/dx and d(abc)/dx for the overlaps of a, b, c, d on the manifold."""
    planes, _, parameters = symbols(form())
    u, p = {x: planes[x].u for x in "abcd"}, MISSING[2]
    aligned = {planes[x].v: 0 for x in "abcd"} | {parameters["mu_ciwl"]: 0}
    made = u["a"] * u["b"] * u["c"]
    on = {u["a"]: target("abc") / p, u["b"]: sp.sqrt(p), u["c"]: sp.sqrt(p)}
    slope, across = (
        sp.Matrix([sp.diff(f, u[x]) for x in "abcd"]).subs(on) for f in (of.loss(form()).subs(aligned), made)
    )
    return slope, across


@cache
def velocity() -> tuple[sp.Expr, sp.Expr]:
    """d(bc)/dt and dd/dt on the manifold, in p and the symbols of `toymodel.reduction.symbols`."""
    slope, across = _slopes()
    flow = across * across.dot(slope) / across.dot(across) - slope
    return sp.factor(2 * sp.sqrt(MISSING[2]) * flow[1]), sp.factor(flow[3])


@cache
def strain() -> tuple[sp.Expr, sp.Expr]:
    """The share of abc at which ICL's hold on it balances the rest of the loss, which pulls at it: above and below.

    `toymodel.theory.transience.hold` is the rate at which ICL restores abc; the rest moves abc at - g . dL/dx.
    """
    planes, _, _ = symbols(form())
    slope, across = _slopes()
    p = MISSING[2]
    on = {planes["a"].u: target("abc") / p, planes["b"].u: sp.sqrt(p), planes["c"].u: sp.sqrt(p)}
    return sp.factor(across.dot(slope)), sp.factor(hold().subs(on) * target("abc"))


@cache
def unsure() -> tuple[sp.Expr, sp.Expr]:
    """By how much dp/dt and dd/dt are off if abc misses a share of S_icl as large as the strain, above hold^2.

    ICL's loss there adds w_icl S_icl^2 / 2 times the square of that share to mu_icl, and a, whose square is in the
    cost, is that share shorter. hold is what stands below in `strain`.
    """
    _, weights, parameters = symbols(form())
    pulled, held = strain()
    own, mu = weights["icl"] * target("abc") ** 2 / 2, parameters["mu_icl"]
    of_mu = [sp.diff(speed, mu) for speed in velocity()]
    of_cost = [speed - mu * by for speed, by in zip(velocity(), of_mu, strict=True)]
    of_p, of_d = (
        sp.Abs(own * pulled**2 * by) + sp.Abs(2 * pulled * held * rest) for by, rest in zip(of_mu, of_cost, strict=True)
    )
    return of_p, of_d


@cache
def lag() -> tuple[sp.Expr, sp.Expr]:
    """What a change of the strain adds to dp/dt as a share of it, above and below: abc moves along its gradient, and p.

    At a share e less abc / S_icl, p is 2 e S_icl^2 / g^2 less. To that comes what makes p `unsure`.
    """
    planes, _, _ = symbols(form())
    pulled, held = strain()
    (rise, speed), (of_p, _) = velocity(), unsure()
    by_p, by_d = (sp.diff(pulled, x) * held - pulled * sp.diff(held, x) for x in (MISSING[2], planes["d"].u))
    change = sp.Abs(by_p * rise + by_d * speed)
    square = _slopes()[1].dot(_slopes()[1])
    return 2 * target("abc") ** 2 * change / square + of_p, rise * held**2


@cache
def where_held() -> tuple[sp.Expr, ...]:
    """`velocity` where it holds, NaN elsewhere."""
    limits = (MOST_STRAIN, strain()), (MOST_LAG, lag()), (MOST_UNSURE, (unsure()[1], velocity()[1] * strain()[1] ** 2))
    tight, slow, sure = (sp.Abs(a) <= most * sp.Abs(b) for most, (a, b) in limits)
    return within(velocity()[0], tight, slow), within(velocity()[1], tight, sure)


@cache
def where_learned() -> tuple[sp.Expr, sp.Expr]:
    """p of `coexisting` where less than SHARE is missing of both products, and the fold where that is so there.

    What is missing of dbc is Q / (1 + Q) of it, with Q that of the leading order.
    """
    _, weights, parameters = symbols(form())
    e1, _, p = MISSING
    fourth, other = balance()
    share = SHARE / (1 - SHARE)
    along = fourth ** sp.Rational(1, 4)
    both = e1 <= SHARE * target("abc"), other.subs(p, along) <= share * target("dbc")
    m_icl = 2 * parameters["mu_icl"] / (weights["icl"] * target("abc") ** 2)
    at = target("abc") * sp.sqrt(m_icl / 3)
    return within(along, *both), within(fold(), sp.simplify(other.subs({e1: at, p: fold()}) / target("dbc")) <= share)


@checked
def slow_flow(model: Model, p: Any, d: Any, **parameters: Any) -> tuple[Any, Any]:
    """The velocity of p = bc and d on the plane on which ICL fades, for a model like the paper's with mu_ciwl = 0.

    Arguments:
        model: target norms and weights.
        p, d, parameters: numbers or arrays (numpy or JAX) that broadcast; p > 0.

    Returns:
        dp/dt and dd/dt. NaN where the `strain` exceeds 0.05: the rest of the loss pulls abc away from S_icl; dp/dt also
        where the `lag` exceeds 0.2: d moves so fast that abc, which follows it, moves p more than the cost does; dd/dt
        also where the strain makes it `unsure` by more than 0.2 of itself.

    Raises:
        ValueError for another model.

    Source: `derivations/lifetime.py`.

    >>> import numpy as np, toymodel as tm
    >>> dp, dd = slow_flow(tm.coopetition(mu_icl=3e-3), 60.0, 1.0)
    >>> bool(dp > 0), bool(dd > 0)  # mu_icl drives d, and the cost takes a
    (True, True)
    >>> bool(np.isnan(slow_flow(tm.coopetition(), 30.0, 9.0)[0]))  # a long d pulls abc away from S_icl
    True
    """
    planes, _, _ = symbols(form())
    values = {**numbers(model, parameters), str(MISSING[2]): p, str(planes["d"].u): d}
    one, other = (function(v)(**values) for v in where_held())
    return one, other


@checked
def coexisting(model: Model, missing: Any, **parameters: Any) -> Any:
    """The p = bc at which a and d are in equilibrium with both strategies learned.

    Arguments:
        model: like the paper's, with mu_ciwl = 0.
        missing: the share of abc/S_icl that is missing, and the parameters: numbers or arrays (numpy or JAX) that
            broadcast.

    Returns:
        p. Its maximum over `missing` is the fold; with less missing the equilibrium is stable, with more unstable. To
        leading order in what is missing; NaN where one of the two is not learned: more than 1 - 1/sqrt(2) is missing.

    Raises:
        ValueError for another model.

    Source: `derivations/lifetime.py`.

    >>> import numpy as np, toymodel as tm
    >>> model = tm.coopetition()
    >>> p = coexisting(model, np.linspace(0.01, 0.29, 99), mu_icl=1e-3)
    >>> bool(abs(np.nanmax(p) / end_of_coexistence(model, mu_icl=1e-3) - 1) < 0.01)
    True
    """
    values = numbers(model, parameters)
    return function(where_learned()[0])(**values, e1=missing * function(target("abc"))(**values))


@checked
def end_of_coexistence(model: Model, **parameters: Any) -> Any:
    """The largest p = bc at which ICL and CIWL can both be learned: the fold of `coexisting`.

    Arguments:
        model: like the paper's, with mu_ciwl = 0.
        parameters: numbers or arrays (numpy or JAX).

    Returns:
        p, to leading order in sqrt(m_icl / 3), the share of abc that is missing there; NaN where CIWL is not learned
        there, which is so for m_icl above 0.03. Coexistence needs more than `toymodel.theory.transience.least_fold`.

    Raises:
        ValueError for another model.

    Source: `derivations/lifetime.py`.

    >>> import toymodel as tm
    >>> model = tm.coopetition()
    >>> given = {"mu_icl": 1e-3}
    >>> [bool(end_of_coexistence(model, **given) > coexisting(model, missing, **given)) for missing in (0.01, 0.1)]
    [True, True]
    """
    return function(where_learned()[1])(**numbers(model, parameters))


def numbers(model: Model, parameters: dict[str, Any], what: str = "the slow flow") -> dict[str, Any]:
    """Target norms, weights and parameters under the names of their symbols; raises ValueError where `what` is not
    derived for the model."""
    if of.letters(model) != ("a", "d", "b", "c") or model.form.expression != form().expression:
        raise ValueError(f"{what} is derived for the loss of tm.coopetition, got {model.form.expression}")
    given = {**model.parameters, **parameters}
    if unknown := set(given) - set(model.parameters):
        raise ValueError(f"unknown parameter {sorted(unknown)[0]!r}; the model has {sorted(model.parameters)}")
    for name, value in given.items():
        check(name, value)
    check_zero("mu_ciwl", given["mu_ciwl"], what)
    planes, weights, _ = symbols(form())
    values = {str(planes[x].target): norm for x, norm in model.target_norms.items()}
    values |= {str(weights[t]): weight for t, weight in model.weights.items()}
    return values | given
