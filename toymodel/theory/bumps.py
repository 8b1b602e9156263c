"""The bump: the loss of CIWL rises as ICL emerges, or after it has fallen with it.

ICL's escape is fast, and it carries the shared vectors from about 0 to P = u_b u_c = T_a T_b T_c / r, r = |a| after it.
The loss of CIWL is a function of what d is meanwhile, e [(1 - p x)^2 + (p z)^2] with p from 0 to 1 as b and c grow,

    x = u_d P / T,      z = v_d P / T,      T = |d*| |b*| |c*|,      e = w T^2 / 2 the unlearned loss.

It falls by what d has learned and rises by the residual of d that b and c amplify. Then the drive on d is down to
mu_icl, and the cost takes d to its equilibrium, x_0. `derivations/bump.py` derives x, z, x_0 for small starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import sympy as sp
import xarray as xr

from toymodel.checks import checked
from toymodel.model import Model
from toymodel.simulation.problem import Problem, problem_of_start
from toymodel.theory.arrays import function
from toymodel.theory.plateau import parts_of

TA, TB, TC, TD = sp.symbols("T_a T_b T_c T_d", positive=True)
TINY = sp.Rational(1, 10**18)  # keeps 0 / 0 out where d has neither learned nor kept anything
U0, V0 = sp.symbols("u_0 v_0", real=True)
SMALL, MOST_X, MOST_EARLY = 0.2, 0.3, 0.003  # of r, of the share, and of what the cost does before ICL
MU, ALPHA, W2, WC = sp.symbols("mu alpha w_ciwl w_cost", positive=True)


def bump_expressions() -> dict[str, sp.Expr]:
    """What a bump is made of, for small a, b, c and d = (u_0, v_0) at the start, to leading order in mu and in x.

    Returns:
        r, the norm of a, b and c after the escape, and x, z and x_0. a, b and c grow together, and d meanwhile gains
        3/4 (T_a / T_d) r.

    Source: `derivations/bump.py`.

    >>> bump_expressions()["r"]
    T_a**(1/3)*T_b**(1/3)*T_c**(1/3)
    """
    r = sp.cbrt(TA * TB * TC)
    gain, damping = sp.Rational(3, 4) * TA / TD * r, (TA / TD) ** 2 / 6
    share = r**2 / (TB * TC * TD)
    return {
        "r": r,
        "x": (U0 + gain) * share,
        "z": V0 * sp.exp(-damping) * share,
        "x_0": MU * W2 * r**2 / (MU * W2 * r**2 + ALPHA * WC),
    }


@cache
def height_expression() -> sp.Expr:
    """`height` in the symbols x, z, x_0."""
    x, z, x_0 = sp.symbols("x z x_0", real=True)
    square, learned = x**2 + z**2, sp.Max(x, 0)
    p = learned / sp.Max(learned, square, TINY)  # where (1 - p x)^2 + (p z)^2 is least on 0..1
    low = (1 - p * x) ** 2 + (p * z) ** 2
    return sp.Max((1 - x) ** 2 + z**2, (1 - x_0) ** 2) - low


def height(x: Any, z: Any, x_0: Any) -> Any:
    """The rise of the loss of CIWL above the lowest value so far, in units of its unlearned loss.

    max((1 - x)^2 + z^2, (1 - x_0)^2) - low, with low the least of (1 - p x)^2 + (p z)^2 over 0 <= p <= 1: the lowest
    level on the way, against the level at the end of the escape or after the cost has acted, whichever is higher. For
    z = 0 it is (1 - x_0)^2 - (1 - x)^2 where x > x_0, else 0. Numbers or arrays (numpy or JAX) that broadcast, x < 1.
    """
    return function(height_expression())(x=x, z=z, x_0=x_0)


@checked
def bump(model: Model, start: xr.Dataset, *, weights: Mapping[str, Any] | None = None, **parameters: Any) -> xr.Dataset:
    """How high the loss of CIWL rises as ICL emerges.

    Arguments:
        model, start, weights, parameters: as in `toymodel.flow`, for mechanisms of three vectors that share two, with a
            cost.

    Returns:
        `height` for every run, in units of the unlearned loss of CIWL, and the x, z and x_0 that it is made of
        (`bump_expressions`). To leading order. The height is NaN where a, b or c start longer than a fifth of r, u_d is
        negative, x is 0.3 or more (the loss must not fall below half, where `toymodel.measure` stops looking for a
        bump), x_0 is within x/2..x (CIWL is driven on before the cost has acted), or z alpha w_cost v_d^2 / (k_icl r)
        exceeds 0.003 (the cost holds a down before ICL emerges). Inside, it is within 11 % after ICL has emerged and
        within 9 to 33 % with ICL as alpha -> 0, about 40 % too low at the edge; ICL has to come first. The paper's own
        starts and values are far outside.

    Raises:
        ValueError for another model. Labelled numbers only; under jax.jit use `height` and the `bump_expressions`.

    Source: `derivations/bump.py`.

    >>> import toymodel as tm
    >>> model = tm.coopetition()  # at these values CIWL is driven on (x_0 > x), so that no bump is left
    >>> found = bump(model, tm.aligned_start(model, overlap=0.1))
    >>> bool(found.x_0 > found.x), float(found.height)
    (True, 0.0)
    """
    icl, ciwl, shared, cost = parts_of(model)
    if (len(icl), len(ciwl), len(shared)) != (1, 1, 2) or cost is None:
        raise ValueError(
            "bump needs mechanisms of three vectors that share two, and a cost of the others, got "
            f"{dict(model.mechanisms)} and {dict(model.costs)}"
        )
    names = set(model.form.parameters)
    if not {"mu_icl", "alpha"} <= names:
        raise ValueError(f"bump needs the parameters mu_icl and alpha, got {sorted(names)}")
    problem = problem_of_start(model, start, (), dict(weights or {}), parameters)
    norms = {
        t: start["target_norm"].sel(vector=x, drop=True)
        for t, x in zip((TA, TB, TC, TD), icl + shared + ciwl, strict=True)
    }
    values = {
        **norms,
        U0: start["overlap"].sel(vector=ciwl, drop=True),
        V0: start["residual"].sel(vector=ciwl, drop=True),
        MU: problem.parameters["mu_icl"],
        ALPHA: problem.parameters["alpha"],
        W2: problem.weights["ciwl"],
        WC: problem.weights[cost],
    }
    numbers = {str(symbol): problem.batch.flat(value) for symbol, value in values.items()}
    found = {name: function(expression)(**numbers) for name, expression in bump_expressions().items() if name != "r"}
    found["height"] = np.where(
        _holds(found, numbers, flat_norms(problem, start, icl + shared), problem.batch.flat(problem.weights["icl"])),
        height(found["x"], found["z"], found["x_0"]),
        np.nan,
    )
    return xr.Dataset({name: problem.batch.labelled(value) for name, value in found.items()})


def flat_norms(problem: Problem, start: xr.Dataset, letters: str) -> np.ndarray:
    """The longest of some vectors at the start, for every run."""
    squares = [sum(start[n].sel(vector=x, drop=True) ** 2 for n in ("overlap", "residual")) for x in letters]
    return np.max([np.sqrt(problem.batch.flat(square)) for square in squares], 0)


def _holds(found: Mapping[str, Any], k: Mapping[str, Any], longest: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Where the leading order is near enough: small starts, little learned, and a cost that acts after ICL only."""
    product = k["T_a"] * k["T_b"] * k["T_c"]
    r = product ** (1 / 3)
    drive = k["w_ciwl"] / 2 * (k["T_b"] * k["T_c"] * k["T_d"]) ** 2 * weight * product
    early = found["z"] * k["alpha"] * k["w_cost"] * k["v_0"] ** 2 / (drive * r)
    between = (found["x_0"] > found["x"] / 2) & (found["x_0"] < found["x"])
    small = (longest < SMALL * r) & (k["u_0"] >= 0) & (found["x"] < MOST_X)
    return small & (early < MOST_EARLY) & ~between
