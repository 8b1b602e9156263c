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
    """sum_x k_x |x|^2 of every balance of the model, along `balance`; for a start or a record, at each time of it.

    The coordinate `balance` holds the combinations as text. Exact. Raises ValueError for a model without balances.
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
    """rho prod_i (rho + D_i) - S^2 for a mechanism of so many vectors: zero at the end of its learning.

    rho is the square of the shortest vector there and D_i >= 0 what the others' squares are longer by.
    """
    rho, product = sp.symbols("rho S", positive=True)
    return rho * sp.prod(rho + d for d in sp.symbols(f"D1:{count}", nonnegative=True)) - product**2


@checked
def end_norms(squares: Any, product: Any) -> np.ndarray:
    """Norms with which one mechanism alone, of vectors that it holds once, is learned by gradient flow.

    squares: |x|^2 of its vectors at the start, shape (..., vectors); product: S = prod |x*|, shape (...). Returns |x|
    at the end, shape (..., vectors), numpy: the squares that differ as those of the start, with product S^2. There
    is one such point; the flow ends at it whenever it learns the mechanism (all starts but a set of measure zero).
    Raises ValueError for squares < 0 or product <= 0.
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

    In w, S and u_x for each letter. Exact where prod u_x = S and no residual is left, for vectors that it holds once.
    """
    weight, product = sp.symbols("w S", positive=True)
    return weight * product**2 * sp.Add(*(1 / sp.Symbol(f"u_{x}", positive=True) ** 2 for x in letters))


@checked
def end_sharpness(norms: Any, product: Any, weight: Any) -> Any:
    """`end_sharpness_expression` for norms of shape (..., vectors), numpy or JAX: exact where one mechanism is learned.

    Descent ends there only if the step is below 2 / this. It is least for vectors of equal norms.
    """
    along = {f"u_{i}": norms[..., i] for i in range(norms.shape[-1])}
    expression = end_sharpness_expression([str(i) for i in range(norms.shape[-1])])
    return function(expression)(w=weight, S=product, **along)
