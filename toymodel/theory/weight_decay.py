"""Weight decay: which strategies survive it, and between which rates.

With lambda/2 sum_x |x|^2 added to the loss all equilibria are isolated, without residuals and balanced (|b| = |c|). For
a model like `tm.coopetition`, P = |b||c|, mu2 = 0 (`derivations/weight_decay.py`):

    learning ends       above   lambda_max  = 3/4 l2 w1 S1 (S1/4)^(1/3)                   (ICL; a fold)
    ICL persists        above   lambda_icl  = 8 (mu1 w2 S2)^2 / (alpha w_c)               (a fold, where P^3 = 2 S1^2)
    CIWL survives       below   lambda_ciwl = (1 + sqrt(1 + 4 K A)) / 2 K                 (a fold, where abc = S1/4)

with A = alpha w_c S2^(2/3), K = 3 S2^(2/3) w1 / (2 w2 l1^2 (9/16 + mu1/l1)^2), S the products of target norms, w the
weights and l = w S^2/2 the unlearned losses. Between lambda_icl and lambda_ciwl both are stable. lambda_icl is there
for mu1 w2 S1^(2/3) < 0.05 alpha w_c only (mu1 < 0.05 alpha at the paper's dimensions): above that ICL passes into a
mixture of both without a fold.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np
import sympy as sp

from toymodel.checks import check_values, checked
from toymodel.model import Model
from toymodel.theory.arrays import check, check_zero, function, within
from toymodel.theory.plateau import parts_of

POSITIVE = ("w1", "w2", "wc", "S1", "S2", "mu1", "alpha")
MOST_DRIVE = 0.05  # the largest `drive_expression` at which ICL has a fold, at the paper's dimensions
FAR_DRIVE = 0.02  # the largest at which the threshold is returned: it is 17 % off there
MOST_MU, MOST_OF_LEARNING = sp.Rational(1, 4), sp.Rational(1, 4)  # of l1, and of lambda_max, for lambda_ciwl


@checked
def with_weight_decay(model: Model, decay: float = 0.0) -> Model:
    """The model with decay/2 sum |x|^2 added to its loss: a cost decay_x of weight 1 for each vector x.

    Arguments:
        model: any.
        decay: rate lambda >= 0, per unit of time; it becomes the parameter `decay` of the loss.

    Returns:
        A model.

    Raises:
        ValueError if the model has such names already.

    Source: `derivations/weight_decay.py`.

    >>> import toymodel as tm
    >>> print(with_weight_decay(tm.induction(), 0.01).expression)
    decay*(decay_a + decay_b + decay_c) + icl
    """
    parts = json.loads(model.to_json())
    costs = {f"decay_{x}": x for x in model.vectors}
    if taken := (set(costs) | {"decay"}) & ({*model.terms, *model.parameters}):
        raise ValueError(f"the model has {min(taken)!r} already; with_weight_decay adds decay, {', '.join(costs)}")
    check_values("decay", decay)
    parts["loss"] = f"{parts['loss']} + decay * ({' + '.join(costs)})"
    parts["costs"] = {**parts["costs"], **costs}
    parts["weights"] = {**parts["weights"], **dict.fromkeys(costs, 1.0)}
    parts["parameters"] = {**parts["parameters"], "decay": decay}
    return Model.from_expression(**parts)


@cache
def learning_limit_expression(count: int) -> sp.Expr:
    """The largest rate of decay at which w/2 (S - prod u)^2 of `count` vectors is still learned.

    Arguments:
        count: number of vectors, >= 2.

    Returns:
        The rate in w and S. For three and more vectors a fold, at prod u = S (n - 2) / (2n - 2); for two, where the
        learned state reaches zero.

    Source: `derivations/weight_decay.py`.

    >>> learning_limit_expression(2)
    S*w
    """
    w, s = sp.symbols("w S", positive=True)
    n = sp.Integer(count)
    at = s * (n - 2) / (2 * n - 2)
    return w * s if count == 2 else w * (s - at) * at ** ((n - 2) / n)


@checked
def learning_limit(count: int, weight: Any, product: Any) -> Any:
    """`learning_limit_expression` for arrays: exact for one mechanism alone.

    Arguments:
        count: number of its vectors, >= 2.
        weight, product: w and S, numbers or arrays. In a product (L1 + mu1)(L2 + mu2) the weight is that of L1 times
            l2 + mu2, as long as CIWL is hardly learned.

    Returns:
        The rate, per unit of time.

    Source: `derivations/weight_decay.py`.

    >>> float(learning_limit(2, weight=0.5, product=3.0))
    1.5
    """
    if not isinstance(count, int) or count < 2:
        raise ValueError(f"count must be a whole number >= 2, got {count!r}")
    return function(learning_limit_expression(count))(w=weight, S=product)


@cache
def icl_threshold_expression() -> sp.Expr:
    """The rate of decay above which ICL persists.

    Returns:
        The rate in mu1, alpha, w2, wc and S2. Range: leading order in `drive_expression`, which must be below 0.05; 6 %
        too large where it is 0.01.

    Source: `derivations/weight_decay.py`.

    >>> icl_threshold_expression()
    8*S2**2*mu1**2*w2**2/(alpha*wc)
    """
    _, w2, wc, _, s2, mu1, alpha = sp.symbols(" ".join(POSITIVE), positive=True)
    return 8 * (mu1 * w2 * s2) ** 2 / (alpha * wc)


@cache
def drive_expression() -> sp.Expr:
    """The drive of d by mu1 against the pull of the cost on it, where abc = S1 with a^3 = S1.

    mu1 w2 S1^(2/3) / (alpha w_c): mu1 / alpha at the paper's dimensions.
    """
    _, w2, wc, s1, _, mu1, alpha = sp.symbols(" ".join(POSITIVE), positive=True)
    return mu1 * w2 * s1 ** sp.Rational(2, 3) / (alpha * wc)


@cache
def ciwl_limit_expression() -> sp.Expr:
    """The rate of decay above which CIWL is lost.

    Returns:
        The rate in S1, S2, w1, w2, wc, mu1 and alpha. Range: mu1 below a tenth of l1, and a rate that is small against
        those of learning (6 % at the paper's dimensions).

    Source: `derivations/weight_decay.py`.

    >>> sorted(map(str, ciwl_limit_expression().free_symbols))
    ['S1', 'S2', 'alpha', 'mu1', 'w1', 'w2', 'wc']
    """
    w1, w2, wc, s1, s2, mu1, alpha = sp.symbols(" ".join(POSITIVE), positive=True)
    l1, square = w1 * s1**2 / 2, s2 ** sp.Rational(2, 3)
    cost = alpha * wc * square
    gain = 3 * square * w1 / (2 * w2 * l1**2 * (sp.Rational(9, 16) + mu1 / l1) ** 2)
    return (1 + sp.sqrt(1 + 4 * gain * cost)) / (2 * gain)


@checked
def decay_thresholds(model: Model, **parameters: Any) -> dict[str, Any]:
    """The rates of weight decay at which the strategies that survive change: lambda_icl, lambda_ciwl, lambda_max.

    Arguments:
        model: like `tm.coopetition`; target norms and weights are the model's.
        parameters: mu_icl, mu_ciwl, alpha as numbers or arrays (numpy or JAX), by default those of the model.

    Returns:
        The rates, per unit of time, under the keys icl, ciwl and learning. Range: mu_ciwl = 0, alpha > 0. `icl` is to
        leading order in mu_icl / alpha: 2 % off at mu_icl / alpha = 0.003, 7 % at 0.01, 17 % at 0.02 for the paper's
        dimensions. It is NaN where `drive_expression`, at the paper's dimensions mu_icl / alpha, exceeds 0.02, since at
        other dimensions it can be more than 50 % off above 0.024. Above 0.05 ICL has no fold: as the decay falls it
        passes into a mixture of both without a jump. `ciwl` is for rates that are small against those of learning
        (6 %), and NaN for mu_icl above a quarter of l_icl or rates above a quarter of lambda_max.
        `learning` is while CIWL is hardly learned (2 %).

    Raises:
        ValueError for another model.

    Source: `derivations/weight_decay.py`.

    >>> import toymodel as tm
    >>> found = decay_thresholds(tm.coopetition(), mu_icl=1e-3)
    >>> {name: f"{float(value):.2g}" for name, value in found.items()}
    {'icl': '4e-06', 'ciwl': '0.00055', 'learning': '0.012'}
    """
    a, d, shared, cost = parts_of(model)
    if cost is None or [len(a), len(d), len(shared)] != [1, 1, 2]:
        raise ValueError(f"the model must be one like tm.coopetition, got {dict(model.terms)}")
    given = {**model.parameters, **parameters}
    if unknown := set(parameters) - set(model.parameters):
        raise ValueError(f"unknown parameter {sorted(unknown)[0]!r}; the model has {sorted(model.parameters)}")
    for name, value in given.items():
        check(name, value, np.nextafter(0, 1) if name == "alpha" else 0)
    check_zero("mu_ciwl", given.get("mu_ciwl", 0.0), "the thresholds")
    norms = model.target_norms
    product = norms[shared[0]] * norms[shared[1]]
    numbers = {
        "w1": model.weights["icl"],
        "w2": model.weights["ciwl"],
        "wc": model.weights[cost],
        "S1": norms[a] * product,
        "S2": norms[d] * product,
        "mu1": given["mu_icl"],
        "alpha": given["alpha"],
    }
    unlearned = numbers["w2"] * numbers["S2"] ** 2 / 2
    return {
        "icl": function(_where_icl_holds())(**numbers),
        "ciwl": function(_where_ciwl_holds())(**numbers),
        "learning": learning_limit(3, unlearned * numbers["w1"], numbers["S1"]),
    }


@cache
def _where_icl_holds() -> sp.Expr:
    return within(icl_threshold_expression(), drive_expression() <= FAR_DRIVE)


@cache
def _where_ciwl_holds() -> sp.Expr:
    w1, w2, _, s1, s2, mu1, _ = sp.symbols(" ".join(POSITIVE), positive=True)
    w, s = sp.symbols("w S", positive=True)
    learning = learning_limit_expression(3).subs({w: w1 * w2 * s2**2 / 2, s: s1}, simultaneous=True)
    limit = ciwl_limit_expression()
    return within(limit, limit <= MOST_OF_LEARNING * learning, mu1 <= MOST_MU * w1 * s1**2 / 2)
