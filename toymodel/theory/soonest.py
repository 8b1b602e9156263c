"""The competition that ends ICL soonest: the alpha at which the lifetime of `toymodel.theory.transience` is least.

Drift takes longer the stronger the competition is, decay takes shorter. So does relaxation: CIWL is learned until what
it has left, e = S_ciwl - dbc, holds ICL no better than the cost pulls at it. The hold goes as e^2, and e falls as
exp(-mu_icl t / 2K). So the three parts together are, up to what does not depend on alpha,

    A alpha / mu_icl^2  +  K ln(1/alpha) / mu_icl  +  C / alpha,

and least at an alpha in proportion to mu_icl, whose factor depends on r alone in units (`derivations/lifetime.py`).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import sympy as sp

from toymodel.checks import POSITIVE, check_values, checked
from toymodel.model import Model
from toymodel.reduction import symbols
from toymodel.theory.arrays import function
from toymodel.theory.slow_manifold import numbers, velocity
from toymodel.theory.transience import (
    MISSING,
    both_learned,
    decay_prefactor,
    drift_prefactor,
    fold,
    form,
    least_fold,
    target,
)
from toymodel.theory.units import group_expressions

# Chosen on 150 points of the groups, and on the seed 301 of benchmarks/theory_ranges.py:
LEAST_R, MOST_R, MOST_KAPPA = 2.0, 6.0, 0.7
MOST_ROOM = 0.8  # of the fold, over the least that leaves room for coexistence


@cache
def relaxation_prefactor() -> sp.Expr:
    """K in K ln(1/alpha) / mu_icl, for a small start.

    Near the end of relaxation e = S_ciwl - dp decays at a rate that is mu_icl times a number, here 1 / 2K.
    """
    planes, _, parameters = symbols(form())
    p, d, mu = MISSING[2], planes["d"].u, parameters["mu_icl"]
    of_p, of_d = (rate.subs(parameters["alpha"], 0) for rate in velocity())
    left = target("dbc") - d * p
    rate = sp.cancel((of_p * d + p * of_d) / left).subs(d, target("dbc") / p)
    return sp.simplify((mu / (2 * rate)).subs(p, both_learned()))


@cache
def prefactor_expressions() -> dict[str, sp.Expr]:
    """A (`drift`), K (`relaxation`) and C (`decay`) for a small start, where the drift begins at a^3 = S_icl."""
    drift = drift_prefactor().subs(sp.Symbol("a0", positive=True), target("abc") ** sp.Rational(1, 3))
    return {"drift": drift, "relaxation": relaxation_prefactor(), "decay": decay_prefactor()}


@cache
def best_alpha_expression() -> sp.Expr:
    """The alpha at which drift, relaxation and decay together are shortest."""
    alpha, mu = (symbols(form())[2][name] for name in ("alpha", "mu_icl"))
    a, k, c = sp.symbols("A K C", positive=True)
    parts = a * alpha / mu**2 - k * sp.log(alpha) / mu + c / alpha
    (best,) = [x for x in sp.solve(sp.diff(parts, alpha), alpha) if x.subs({a: 1, k: 1, c: 1, mu: 1}) > 0]
    return best.subs(dict(zip((a, k, c), prefactor_expressions().values(), strict=True)))


def prefactors(model: Model) -> dict[str, float]:
    """`prefactor_expressions` for the numbers of a model like the paper's."""
    values = numbers(model, {"mu_ciwl": 0.0}, "the lifetime")
    return {name: float(function(part)(**values)) for name, part in prefactor_expressions().items()}


@checked
def best_alpha(model: Model, mu_icl: Any = None) -> Any:
    """The alpha that ends ICL soonest, for a small start.

    Arguments:
        model: like the paper's, with mu_ciwl = 0; its target norms and weights.
        mu_icl: numbers or arrays > 0, by default the model's.

    Returns:
        alpha, in proportion to mu_icl. NaN outside of its range: r = S_ciwl / S_icl (`tm.theory.groups`) within 2..6,
        kappa at this alpha at most 0.7, and no coexistence, which makes ICL last longer: the fold is at most 0.8 of the
        least that leaves room for it. Over random inputs of any size (benchmarks/theory_ranges.py 100000 302 soonest)
        1,380 of 10,000 have a value, 26 % off in the median and 44 % at most. The minimum is flat: there
        ICL lasts 1.3 % longer in the median than at the best alpha, and at most 7 %.

    Raises:
        ValueError for another model, mu_ciwl > 0 or mu_icl that is not > 0.

    Source: `derivations/lifetime.py`.

    >>> import toymodel as tm
    >>> best_alpha(tm.coopetition(), [1e-3, 2e-3]).round(4).tolist()
    [0.0069, 0.0138]
    """
    values = numbers(model, {} if mu_icl is None else {"mu_icl": mu_icl}, "the alpha that ends ICL")
    check_values("mu_icl", values["mu_icl"], POSITIVE)
    values["mu_icl"] = np.asarray(values["mu_icl"], float)
    best = values["alpha"] = function(best_alpha_expression())(**values)
    r, kappa = (function(group_expressions(form())[name])(**values) for name in ("r", "kappa"))
    alone = function(fold())(**values) <= MOST_ROOM * least_fold(values)
    return np.where((r >= LEAST_R) & (r <= MOST_R) & (kappa <= MOST_KAPPA) & alone, best, np.nan)
