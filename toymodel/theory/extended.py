"""Gradient noise on two numbers a vector, in closed form.

With an independent normal error sigma xi of every entry of every gradient (`tm.descend(noise=sigma)`) the residual of a
vector of n entries is the radius of a walk in n - 1 dimensions: what noise adds to it, where it comes to rest, and how
large the error of a sampled gradient is. Derived in `derivations/reduction_extended.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import sympy as sp

from toymodel.batch import check_values
from toymodel.checks import checked
from toymodel.theory.arrays import function


def noisy_residual_expression() -> sp.Expr:
    """E v^2 after `steps` from v^2 = q0 under gradient noise, where dL/dv = A v with a constant A.

    Returns:
        The expression in q0, A, n, sigma, lr and steps. Range: 0 < lr A < 2, n >= 1. For many steps it tends to
        (n - 1) lr sigma^2 / (A (2 - lr A)).

    Source: `derivations/reduction_extended.py`.

    >>> import sympy
    >>> {str(symbol) for symbol in noisy_residual_expression().free_symbols} == {"q0", "A", "n", "sigma", "lr", "steps"}
    True
    """
    q0, damping, n, sigma, lr, steps = sp.symbols("q0 A n sigma lr steps", positive=True)
    kept = (1 - lr * damping) ** 2
    return q0 * kept**steps + (n - 1) * (lr * sigma) ** 2 * (1 - kept**steps) / (1 - kept)


@checked
def noisy_residual(q0: Any, damping: Any, n: Any, noise: Any, lr: Any, steps: Any) -> Any:
    """Mean square of a residual under gradient noise (`noisy_residual_expression`).

    Arguments:
        q0: square of the residual at the start.
        damping: A = (dL/dv) / v while it is constant: on the plateau, or near a fixed point; 0 < lr damping < 2.
        n: number of entries of the vector.
        noise, lr, steps: standard deviation of the error of each entry of the gradient, step size, number of steps.

    Returns:
        E v^2, for numpy or JAX arrays of shapes that broadcast.

    Source: `derivations/reduction_extended.py`.

    >>> round(float(noisy_residual(1.0, 0.1, n=20, noise=0.0, lr=1.0, steps=1)), 12)  # (1 - 0.1)^2
    0.81
    """
    numbers = {"q0": q0, "A": damping, "n": n, "sigma": noise, "lr": lr, "steps": steps}
    return function(noisy_residual_expression())(**numbers)


def residual_drift_expression() -> sp.Expr:
    """What noise adds to dv/dt in the flow limit, in the symbols n, s, v, with s = sigma sqrt(lr).

    Range: n >= 2, v > 0 (it repels from 0 for n > 2), steps for which lr |L_v| and s sqrt(lr) are well below v.
    """
    n, s, v = sp.symbols("n s v", positive=True)
    return (n - 2) * s**2 / (2 * v)


@checked
def sampled_variance(
    values: Mapping[str, Any], targets: Mapping[str, Any], letters: str, vector: str, weight: Any, sample: int
) -> Any:
    """Variance of each entry of the gradient of one mechanism's loss, estimated from `sample` entries of its tensor.

        [ N w^2 ( x_i^2 prod sum y^4 - 2 x_i x*_i prod sum y^3 y* + x*_i^2 prod sum y^2 y*^2 ) - (dL/dx_i)^2 ] / sample

    with N the number of entries and the products over the other vectors y. The covariance of two entries is
    -(dL/dx_i)(dL/dx_j) / sample.

    Arguments:
        values, targets: letter -> array of entries, numpy or JAX.
        letters, vector: the letters of the mechanism, each once, and the one whose gradient it is.
        weight: w of the mechanism.
        sample: number of entries that are drawn.

    Returns:
        The variance, shape (entries of the vector). Exact. It needs the entries themselves, so there is no expression
        for it in (u, v).

    Source: `derivations/reduction_extended.py`.

    >>> import numpy as np
    >>> values = {"a": np.array([1.0]), "b": np.array([2.0])}  # a tensor of one entry: nothing is left to chance
    >>> sampled_variance(values, {"a": np.array([3.0]), "b": np.array([1.0])}, "ab", "a", 1.0, sample=1)
    array([0.])
    """
    if len(set(letters)) < len(letters) or vector not in letters:
        raise ValueError(f"letters must hold {vector!r} and each vector once, got {letters!r}")
    check_values("sample", sample, 1)
    x, wanted = values[vector], targets[vector]
    entries = math.prod(values[y].shape[-1] for y in letters)
    powers = {
        (i, j): math.prod((values[y] ** i * targets[y] ** j).sum(-1, keepdims=True) for y in letters if y != vector)
        for i, j in ((4, 0), (3, 1), (2, 2), (2, 0), (1, 1))
    }
    second = entries * weight**2 * (x**2 * powers[4, 0] - 2 * x * wanted * powers[3, 1] + wanted**2 * powers[2, 2])
    slope = weight * (x * powers[2, 0] - wanted * powers[1, 1])
    return (second - slope**2) / sample
