"""Gradient noise over long times: where the conserved combinations drift to, and which strategies last.

With noise s = sigma sqrt(lr) in each entry, |x|^2 gains n_x s^2 a unit of time and the slopes take nothing from

    delta = |b|^2 - |c|^2 :        E' = s^2 (n_b - n_c),                     Var' = 4 s^2 E(|b|^2 + |c|^2)
    beta  = |a|^2 + |d|^2 - |b|^2: E' = s^2 (n_a + n_d - n_b) - 8 alpha E C

exactly. For n_b = n_c, once CIWL is learned (d = S_ciwl / p, p = |b||c|), beta decides p, and p decides on ICL:

    ICL there     C -> C* = s^2 (n_a + n_d - n_b) / 8 alpha, a stationary state at p = p* that lasts,
    ICL gone      C = s^2 n_a / 4 alpha, beta' = s^2 (n_d - n_a - n_b): p falls for a long d, and the noise that would
                  bring ICL back (`noise_threshold`, as 1 / p^2) grows: it is gone for good. For n_d < n_a + n_b p
                  grows, and ICL comes back at any noise; when, is given to a factor of two only, and not here.

Nothing limits delta: it has no stationary law. The drives know p only, so that neither mean state depends on it
(`derivations/discrete.py`).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import sympy as sp

from toymodel.checks import POSITIVE, checked
from toymodel.model import Model
from toymodel.theory.arrays import check, function, within
from toymodel.theory.discrete import ciwl_floor_expression, drift_expression, noise_threshold_expression
from toymodel.theory.plateau import parts_of

# Two chosen on the seed 901 of theory_ranges_noise.py, and the first and the last on 3,000 inputs of 204.
MOST_NEEDED, MOST_FLOOR, LEAST_PRODUCT, MOST_UNHELD = 0.13, 0.1, 0.5, 0.1
MOST_AT_FIRST = 1.0  # of the square of the threshold at the first p, over that of the noise: below it ICL is lost


def long_noise_expressions() -> dict[str, sp.Expr]:
    """What drifts and what stays under gradient noise, in closed form.

    Returns:
        cost: the mean of C where ICL stays. product: p there, without what is missing of ICL and residuals of a and d.
        beta: the mean rate of |a|^2 + |d|^2 - |b|^2 where ICL is gone. In s, alpha, wc, S1, S2, n_a, n_b, n_d. Range:
        alpha > 0, n_b = n_c, CIWL learned; cost and product for n_a + n_d > n_b.

    Source: `derivations/discrete.py`.

    >>> long_noise_expressions()["beta"]
    s**2*(-n_a - n_b + n_d)
    """
    s, alpha, wc, s1, s2, n_a, n_b, n_d = sp.symbols("s alpha wc S1 S2 n_a n_b n_d", positive=True)
    cost = s**2 * (n_a + n_d - n_b) / (8 * alpha)
    return {
        "cost": cost,
        "product": (s1**2 * s2**2 * wc / (2 * cost)) ** sp.Rational(1, 4),
        "beta": drift_expression(),
    }


@cache
def _where_both_last() -> sp.Expr:
    """p where noise is above ICL's threshold there and at the first p, CIWL is learned, and p not far below that.

    The cost pulls at a and at d with alpha C. If mu_icl alone holds dbc against it, a share alpha C / (mu1 l2) of its
    target is missing.
    """
    s, s1, s2, p, alpha, mu1, l2 = sp.symbols("s S1 S2 p alpha mu1 l2", positive=True)
    cost, product = (long_noise_expressions()[name] for name in ("cost", "product"))
    needed = noise_threshold_expression().subs(p, product) / s**2
    first = (s1**2 + s2**2) ** sp.Rational(1, 3)
    kept = noise_threshold_expression().subs(p, first) <= MOST_AT_FIRST * s**2
    held = alpha * cost <= MOST_UNHELD * mu1 * l2
    floor, grown = ciwl_floor_expression() <= MOST_FLOOR, product >= LEAST_PRODUCT * first
    return within(product, needed <= MOST_NEEDED, kept, held, floor, grown)


@checked
def noise_product(model: Model, strategy: str) -> float:
    """p = |b||c| once CIWL is learned, from a state in which only one strategy is, with vectors of equal lengths.

    Arguments:
        model: target norms.
        strategy: "ciwl": S_ciwl^(2/3). "icl": d grows beside ICL, which stays, at |a|^2 + |d|^2 = |b|^2, so that p^3 =
            S_icl^2 + S_ciwl^2.

    Returns:
        p, to be given to `noise_threshold`. From "icl" the cost makes p grow on from there as long as ICL is learned,
        and the threshold falls as 1 / p^2: noise above that at p keeps ICL, and less may be enough.

    Raises:
        ValueError for another strategy or model.

    Source: `derivations/discrete.py`.

    >>> import toymodel as tm
    >>> round(noise_product(tm.coopetition(), "ciwl"), 6), round(noise_product(tm.coopetition(), "icl"), 1)
    (40.0, 41.6)
    """
    s1, s2 = _products(model)
    if strategy not in ("icl", "ciwl"):
        raise ValueError(f"strategy must be 'icl' or 'ciwl', got {strategy!r}")
    return float((s2**2 + (s1**2 if strategy == "icl" else 0.0)) ** (1 / 3))


@checked
def noise_lasting_product(model: Model, noise: Any, lr: Any = 1.0, *, alpha: Any = None) -> Any:
    """p = |b||c| at which ICL and CIWL last under noise (`long_noise_expressions`, product).

    Arguments:
        model: like the paper's, with n_b = n_c.
        noise, lr, alpha: > 0, numbers or arrays (numpy or JAX) that broadcast.

    Returns:
        p, of that shape, a mean state. What is missing of ICL and the residuals of a and d are left out, which makes it
        6 to 7 % too large at the paper's dimensions. It is reached within about p / (s^2 (n_a + n_d - n_b)) units of
        time. With few entries, chance can end ICL later (half of the runs within 40,000 steps for entries of 30, 15,
        15, 100). With p0 the `noise_product` of "icl", it is NaN

        - for n_d < n_b;
        - where s^2 is below 8 times the square of `noise_threshold` at p, which depends on the model alone;
        - where it is below that square at p0: ICL is lost there, and p falls for a long d;
        - where the cost takes more than a tenth of dbc if mu_icl alone holds it;
        - where noise leaves more than a tenth of CIWL's loss;
        - for p below half of p0, which is not approached.

    Raises:
        ValueError for another model.

    Source: `derivations/discrete.py`.

    >>> import toymodel as tm
    >>> round(float(noise_lasting_product(tm.coopetition(), 0.0086)), 1)
    48.2
    """
    numbers = _numbers(model, noise, lr, alpha)
    if numbers["n_d"] < numbers["n_b"]:
        return numbers["s"] * np.nan
    return function(_where_both_last())(**numbers)


def _products(model: Model) -> tuple[float, float]:
    a, d, shared, cost = parts_of(model)
    if cost is None or [len(a), len(d), len(shared)] != [1, 1, 2]:
        raise ValueError(f"the model must be one like tm.coopetition, got {dict(model.terms)}")
    norms = model.target_norms
    pair = norms[shared[0]] * norms[shared[1]]
    return norms[a] * pair, norms[d] * pair


def _numbers(model: Model, noise: Any, lr: Any, alpha: Any) -> dict[str, Any]:
    s1, s2 = _products(model)
    a, d, shared, cost = parts_of(model)
    if model.dims[shared[0]] != model.dims[shared[1]]:
        raise ValueError(f"{shared[0]} and {shared[1]} must have as many entries, got {dict(model.dims)}")
    values = {"noise": noise, "lr": lr, "alpha": model.parameters["alpha"] if alpha is None else alpha}
    for name, value in values.items():
        check(name, value, POSITIVE)
    sizes = {f"n_{name}": float(model.dims[x]) for name, x in (("a", a), ("d", d), ("b", shared[0]))}
    sizes["N2"] = sizes["n_d"] + 2 * sizes["n_b"]
    weights = {"w1": model.weights["icl"], "wc": model.weights[str(cost)]}
    losses = {"l1": weights["w1"] * s1**2 / 2, "l2": model.weights["ciwl"] * s2**2 / 2}
    numbers = {"s": noise * lr**0.5, "alpha": values["alpha"], "mu1": model.parameters["mu_icl"], "S1": s1, "S2": s2}
    return {**numbers, **weights, **losses, **sizes}
