"""What the conserved combinations of squared norms say: their values, their drift, and where learning must end.

A mechanism does not change when its vectors are rescaled by factors with the product 1. So for powers k_x with
sum_x n_mx k_x = 0 for every mechanism m (n_mx: how often it holds x)

    d/dt sum_x k_x |x|^2 = -4 sum_c (sum_x n_cx k_x) (dL/dC_c) C_c        under gradient flow,
    sum_x k_x |x|^2 changes by lr^2 sum_x k_x |dL/dx|^2 more              at a step of descent.

`Model.conserved` lists the combinations; this module evaluates them. Derived in `derivations/conserved.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import sympy as sp
import xarray as xr

from toymodel.checks import checked
from toymodel.model import Balance, Model
from toymodel.theory.arrays import check, function


@checked
def balance_values(model: Model, runs: xr.Dataset) -> xr.DataArray:
    """sum_x k_x |x|^2 of every balance of the model, where the powers k_x leave each mechanism unchanged.

    Arguments:
        model: gives the balances (`model.conserved()`).
        runs: a start, or a record, with overlap and residual along `vector`.

    Returns:
        The combinations along `balance`, whose labels are their text, at each time and for each run. Exact.

    Raises:
        ValueError for a model without balances.

    Source: `derivations/conserved.py`.

    >>> import toymodel as tm
    >>> model = tm.coopetition()
    >>> values = balance_values(model, tm.aligned_start(model, overlap={"a": 1.0, "b": 2.0, "c": 2.0, "d": 3.0}))
    >>> dict(zip(values.balance.values.tolist(), values.values.tolist()))
    {'|b|^2 - |c|^2': 0.0, '|a|^2 - |b|^2 + |d|^2': 6.0}
    """
    balances = model.conserved()
    if not balances:
        raise ValueError(f"the model has no conserved or balanced combination of squared norms: {dict(model.terms)}")
    squares = runs["overlap"] ** 2 + runs["residual"] ** 2
    zero = xr.DataArray(0.0)
    values = [sum((k * squares.sel(vector=x, drop=True) for x, k in b.coefficients.items()), zero) for b in balances]
    index = xr.DataArray([label(b) for b in balances], dims="balance", name="balance")
    return xr.concat(values, index).transpose(..., "balance").rename("value")


def label(balance: Balance) -> str:
    """The combination as text, such as |a|^2 - |b|^2 + |d|^2."""
    parts = []
    for x, k in sorted(balance.coefficients.items()):
        parts += ["-" if k < 0 else "+", f"{abs(k) if abs(k) != 1 else ''}|{x}|^2"]
    return " ".join(parts).removeprefix("+ ")


@checked
def end_norms_equation(count: int) -> sp.Expr:
    """rho prod_i (rho + D_i) - S^2 for one mechanism: zero at the end of its learning.

    Arguments:
        count: number of its vectors, which it holds once each.

    Returns:
        The polynomial in rho, the square of the shortest vector at the end, with D_i >= 0 what the other squares are
        longer by (they are conserved), and S the product of the target norms.

    Source: `derivations/conserved.py`.

    >>> end_norms_equation(2)
    -S**2 + rho*(D1 + rho)
    """
    rho, product = sp.symbols("rho S", positive=True)
    return rho * sp.prod(rho + d for d in sp.symbols(f"D1:{count}", nonnegative=True)) - product**2


@checked
def end_norms(squares: Any, product: Any) -> np.ndarray:
    """Norms with which one mechanism alone, of vectors that it holds once, is learned by gradient flow.

    Arguments:
        squares: |x|^2 of its vectors at the start, shape (..., vectors), >= 0.
        product: S = prod |x*|, shape (...), > 0.

    Returns:
        |x| at the end, shape (..., vectors), numpy: the squares differ as those of the start, and the product is S.
        There is one such point; the flow ends at it whenever it learns the mechanism (all starts but a set of measure
        zero).

    Raises:
        ValueError for squares < 0 or product <= 0.

    Source: `derivations/conserved.py`.

    >>> end_norms([1.0, 1.0, 1.0], 8.0)
    array([2., 2., 2.])
    """
    check("squares", squares)
    squares, product = np.asarray(squares, float), np.asarray(product, float)
    if not (np.isfinite(squares).all() and (squares >= 0).all()):
        raise ValueError(f"squares must be >= 0 and finite, got {squares.min()}")
    if not (np.isfinite(product).all() and (product > 0).all()):
        raise ValueError(f"product must be > 0 and finite, got {product.min()}")
    differences = squares - squares.min(-1, keepdims=True)
    power = 2 / squares.shape[-1]
    high = np.broadcast_to(product, squares.shape[:-1]) ** power
    log_low, log_high = np.log(high) - 60 - np.log1p(differences.max(-1)) * squares.shape[-1], np.log(high)
    for _ in range(100):  # bisection in log(rho): the product grows with rho
        middle = (log_low + log_high) / 2
        above = np.log(np.exp(middle)[..., None] + differences).sum(-1) > 2 * np.log(product)
        log_low, log_high = np.where(above, log_low, middle), np.where(above, middle, log_high)
    return np.sqrt(np.exp(log_high)[..., None] + differences)


def end_sharpness_expression(letters: Sequence[str]) -> sp.Expr:
    """Largest eigenvalue of the Hessian of one mechanism where it is learned: w S^2 sum_x 1 / |x|^2.

    Arguments:
        letters: of its vectors, each once.

    Returns:
        The expression in w, S and u_x for each letter. Exact where prod u_x = S and no residual is left.

    Source: `derivations/discrete.py`.

    >>> end_sharpness_expression("a")
    S**2*w/u_a**2
    """
    weight, product = sp.symbols("w S", positive=True)
    return weight * product**2 * sp.Add(*(1 / sp.Symbol(f"u_{x}", positive=True) ** 2 for x in letters))


@checked
def end_sharpness(norms: Any, product: Any, weight: Any) -> Any:
    """`end_sharpness_expression` for numbers: exact where one mechanism is learned.

    Arguments:
        norms: |x| of its vectors, shape (..., vectors), numpy or JAX.
        product, weight: S and w of the mechanism.

    Returns:
        The largest eigenvalue, shape (...). Descent ends there only if the step is below 2 / this. It is least for
        vectors of equal norms.

    Source: `derivations/discrete.py`.

    >>> import numpy as np
    >>> float(end_sharpness(np.array([2.0, 2.0, 2.0]), 8.0, 0.5))
    24.0
    """
    along = {f"u_{i}": norms[..., i] for i in range(norms.shape[-1])}
    expression = end_sharpness_expression([str(i) for i in range(norms.shape[-1])])
    return function(expression)(w=weight, S=product, **along)
