"""Descent with a step of finite size, and with noise: how large a step is stable, and what noise leaves of a loss.

The Hessian of the loss of all entries has, at any state of the model, the eigenvalues of the Hessian of the reduced
loss in (u, v), and for each vector A_x = (dL/dv_x) / v_x, n_x - 2 times (`derivations/discrete.py`). So

    the largest stable step        2 / lambda_max                          closes on the coordinates,
    what descent follows           x' = -g - lr/2 H g                       to second order in the step lr,
    a learned mechanism's loss     s^2 (sum_x (n_x - 1) + 1) / (4 dL/dL_m)  with gradient noise s = sigma sqrt(lr).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import sympy as sp
import xarray as xr
from scipy.integrate import solve_ivp

from toymodel.checks import POSITIVE, check_values, checked
from toymodel.model import Form, Model
from toymodel.reduction import reduced_loss, symbols
from toymodel.simulation.problem import problem_of_start
from toymodel.theory.arrays import check, function, within
from toymodel.theory.conserved import label
from toymodel.theory.equilibria import functions
from toymodel.theory.plateau import parts_of
from toymodel.theory.quadrature import SHARE

# On the way of the modified flow: of the largest stable step, and of the way gone, by which the next order changes it.
MOST_OF_LIMIT, MOST_OF_WAY = 0.2, 0.1
# Of `noise_range_expressions`, chosen on the seeds 901, 216, 218 and 220 of theory_ranges_noise.py.
MOST_BY_NOISE = {"unlearned": 0.02, "residual": 0.1, "drift_b": 0.018, "drift_c": 0.018}


@cache
def across(form: Form) -> dict[str, sp.Expr]:
    """A_x = (dL/dv_x) / v_x: the curvature in every direction that is orthogonal to a vector's plane."""
    planes, weights, parameters = symbols(form)
    loss = sp.sympify(reduced_loss(form, planes, weights, parameters))
    square = sp.Symbol("square", nonnegative=True)
    found = {}
    for x in form.vectors:  # the loss knows v_x through its square only
        in_square = loss.subs(planes[x].v, sp.sqrt(square))
        slope = sp.diff(in_square, square).subs(square, planes[x].v ** 2)
        found[x] = 2 * slope  # type: ignore[operator]
    return found


@cache
def _curvatures(form: Form) -> Any:
    """The Hessian of the reduced loss, row after row, and then A_x of each vector, for arrays."""
    planes, weights, parameters = symbols(form)
    loss = sp.sympify(reduced_loss(form, planes, weights, parameters))
    ys = [planes[x].u for x in form.vectors] + [planes[x].v for x in form.vectors]
    entries = [sp.diff(loss, y, z) for y in ys for z in ys]
    arguments = [*ys, *(planes[x].target for x in form.vectors), *weights.values(), *parameters.values()]
    return sp.lambdify(arguments, [*entries, *across(form).values()], "numpy", cse=True)


@checked
def curvature(
    model: Model, states: xr.Dataset, *, weights: Mapping[str, Any] | None = None, **parameters: Any
) -> xr.Dataset:
    """The spectrum of the Hessian of the loss of all entries, at each state of a start or a record.

    Arguments:
        model, weights, parameters: the loss, as in `toymodel.descend`.
        states: overlap and residual along `vector`.

    Returns:
        `in_planes` along `mode` (2 numbers a vector, increasing), `across` along `vector` (n_x - 2 times; for n_x = 1
        there is no such direction, nor a residual), `largest` of all, and `largest_step` = 2 / largest, the largest
        step at which descent is stable there (infinite where no eigenvalue is positive). Exact for any state, flow or
        descent.

    Raises:
        ValueError for states that do not fit the model.

    Source: `derivations/discrete.py`.

    >>> import toymodel as tm
    >>> model = tm.induction((4, 4, 4))  # target norms of 2
    >>> learned = tm.aligned_start(model, overlap=2.0)
    >>> round(float(curvature(model, learned).largest), 9)  # w S^2 sum_x 1 / |x|^2 = 1/64 64 3/4
    0.75
    """
    form = model.form
    given = {**model.parameters, **parameters}
    if unknown := set(parameters) - set(model.parameters):
        raise ValueError(f"unknown parameter {sorted(unknown)[0]!r}; the loss has {sorted(model.parameters) or 'none'}")
    weighed = {**model.weights, **(weights or {})}
    columns = [states[name].sel(vector=x, drop=True) for name in ("overlap", "residual") for x in form.vectors]
    columns += [states["target_norm"].sel(vector=x, drop=True) for x in form.vectors]
    columns += [weighed[t] for t in form.terms] + [given[p] for p in form.parameters]
    arrays = xr.broadcast(*(xr.DataArray(c) for c in columns))
    shape = arrays[0].shape
    found = [np.broadcast_to(np.asarray(e, float), shape) for e in _curvatures(form)(*(a.values for a in arrays))]
    n = 2 * len(form.vectors)
    used = [i for i in range(n) if i < n // 2 or model.dims[form.vectors[i - n // 2]] > 1]
    matrix = np.stack(found[: n * n], -1).reshape(*shape, n, n)[..., used, :][..., used]
    inside, outside = np.linalg.eigvalsh(matrix), np.stack(found[n * n :], -1)
    wide = [i for i, x in enumerate(form.vectors) if model.dims[x] > 2]
    largest = np.concatenate([inside, outside[..., wide]], -1).max(-1)
    dims = arrays[0].dims
    return xr.Dataset(
        {
            "in_planes": ((*dims, "mode"), inside),
            "across": ((*dims, "vector"), outside),
            "largest": (dims, largest),
            "largest_step": (dims, np.where(largest > 0, 2 / np.where(largest > 0, largest, 1), np.inf)),
        },
        coords={**arrays[0].coords, "vector": list(form.vectors)},
    )


def followed(form: Form, constants: list[float], lr: float, order: int) -> Callable[[float, np.ndarray], np.ndarray]:
    """The velocity of the flow that descent follows, with the corrections up to lr^order; order: 1 or 2.

    Of time (not used) and coordinates (u, then v); constants: target norms, weights, parameters. Third derivatives are
    differences of the Hessian. Source: `derivations/discrete.py`.
    """
    made = functions(form)

    def hessian(y: np.ndarray) -> np.ndarray:
        return np.array(made.hessian(*y, *constants))

    def velocity(_: float, y: np.ndarray) -> np.ndarray:
        slope, here = np.array(made.slope(*y, *constants)), hessian(y)
        found = -slope - lr / 2 * here @ slope
        if order == 1:
            return found
        small = 1e-4 * np.linalg.norm(y) / max(np.linalg.norm(slope), 1e-300)
        bent = (hessian(y + small * slope) - hessian(y - small * slope)) @ slope / (2 * small)
        return found - lr**2 * (here @ here @ slope / 3 + bent / 12)

    return velocity


@checked
def modified_flow(
    model: Model,
    start: xr.Dataset,
    times: Any,
    lr: float,
    *,
    weights: Mapping[str, Any] | None = None,
    **parameters: Any,
) -> xr.Dataset:
    """What descent with the step lr follows to second order: the flow of L + lr/4 |dL/dx|^2.

    Arguments:
        model, weights, parameters: the loss, as in `toymodel.descend`.
        start: one run, without other dimensions than `vector`.
        times: increasing, in units of time (steps x step size).
        lr: >= 0; 0 is the plain flow.

    Returns:
        overlap and residual along `time` and `vector`. The error is of second order in lr, that of the plain flow of
        first order. NaN from where lr exceeds 0.2 of the largest stable step on the way, or where the next order would
        change it by more than 0.1 of the way gone: on a long plateau a small error becomes a late emergence.

    Raises:
        ValueError for a batch of runs.

    Source: `derivations/discrete.py`.

    >>> import toymodel as tm
    >>> model = tm.Model({"icl": "a"}, lambda icl: icl, {"a": 4}, weights={"icl": 1.0})
    >>> start = tm.aligned_start(model, overlap=1.0)
    >>> found = modified_flow(model, start, [0.0, 1.0], 0.01)  # descent: 2 - 0.99**100, flow: 2 - exp(-1)
    >>> bool(abs(found.overlap[-1, 0] - (2 - 0.99**100)) < 1e-4)
    True
    """
    check_values("lr", lr)
    problem = problem_of_start(model, start, (), dict(weights or {}), parameters)
    if problem.batch.runs != 1:
        raise ValueError(f"start and parameters must make one run, got {problem.batch.runs}; choose one with .isel")
    form, flat = model.form, problem.batch.flat
    columns = [start[name].sel(vector=x, drop=True) for name in ("overlap", "residual") for x in form.vectors]
    begin = np.array([flat(c).item() for c in columns])
    constants = [flat(start["target_norm"].sel(vector=x, drop=True)).item() for x in form.vectors]
    constants += [flat(problem.weights[t]).item() for t in form.terms]
    constants += [flat(problem.parameters[p]).item() for p in form.parameters]
    first, second = (followed(form, constants, lr, order) for order in (1, 2))

    def solved(velocity: Any, end: float, rtol: float) -> Any:
        return solve_ivp(velocity, (0, end), begin, "LSODA", dense_output=True, rtol=rtol, atol=rtol / 100)

    def states(when: np.ndarray, ys: np.ndarray) -> xr.Dataset:
        parts = {
            name: (("time", "vector"), y.T) for name, y in zip(("overlap", "residual"), np.split(ys, 2), strict=True)
        }
        return xr.Dataset(parts, coords={"time": when, "vector": list(form.vectors)})

    times = np.asarray(times, float)
    way = solved(first, times[-1], 1e-10)
    if not way.success:
        raise RuntimeError(f"the modified flow could not be integrated at lr={lr:g}: {way.message}")
    on_way = states(way.t, way.y).assign(target_norm=start["target_norm"])
    limit = curvature(model, on_way, weights=weights, **parameters).largest_step.values
    until = min(way.t[lr > MOST_OF_LIMIT * limit], default=np.inf)
    if lr > 0 and until > 0:
        end = min(until, times[-1])
        when, y = way.t[way.t <= end], way.y[:, way.t <= end]
        further = solved(second, end, 1e-7)
        changed, gone, length = (np.linalg.norm(x, axis=0) for x in (further.sol(when) - y, y - begin[:, None], y))
        sure = (changed <= MOST_OF_WAY * gone + 1e-5 * length) & (when <= further.t[-1])
        until = min(when[~sure], default=until)
    found = states(times, way.sol(times))
    return found.where(found.time < until)


def loss_floor_expression() -> sp.Expr:
    """Mean loss of a learned mechanism of k vectors under gradient noise.

    Returns:
        The expression in s = sigma sqrt(lr), F = dL/dL_m, k, and N = sum_x n_x. Range: F > 0, settled, steps well below
        the largest stable one.

    Source: `derivations/discrete.py`.

    >>> loss_floor_expression()
    s**2*(N - k + 1)/(4*F)
    """
    s, slope, size, count = sp.symbols("s F N k", positive=True)
    return s**2 * (size - count + 1) / (4 * slope)


@checked
def loss_floor(model: Model, mechanism: str, noise: Any, lr: Any, slope: Any) -> Any:
    """`loss_floor_expression` for a mechanism of the model, with s = noise sqrt(lr).

    Arguments:
        model, mechanism: which give k and N.
        noise, lr: standard deviation of the error of each entry of the gradient, and step size.
        slope: dL/dL_m, such as L_icl + mu_icl for CIWL.

    Returns:
        The mean loss, for numpy or JAX arrays. Range: near a state where the mechanism is learned, after it has
        settled, for steps well below the largest stable one, and as long as costs damp its vectors little.

    Raises:
        ValueError for a mechanism that the model does not have.

    Source: `derivations/discrete.py`.

    >>> import toymodel as tm
    >>> model = tm.coopetition()  # CIWL has 3 vectors of 200 entries: 0.01 * 198 / 0.4
    >>> round(float(loss_floor(model, "ciwl", noise=0.1, lr=1.0, slope=0.1)), 6)
    4.95
    """
    if mechanism not in model.mechanisms:
        raise ValueError(f"mechanism must be one of {list(model.mechanisms)}, got {mechanism!r}")
    letters = model.mechanisms[mechanism]
    if len(set(letters)) < len(letters):
        raise ValueError(f"{mechanism} holds a vector twice ({letters!r}), which the formula does not cover")
    size, count = sum(model.dims[x] for x in letters), len(letters)
    check("noise", noise)
    return function(loss_floor_expression())(s=noise * lr**0.5, F=slope, N=size, k=count)


def noise_threshold_expression() -> sp.Expr:
    """The square of s = sigma sqrt(lr) at which ICL stays learned beside CIWL, with |b||c| = p.

    Returns:
        The expression in w1, wc, S2, l1, mu1, alpha, N2 and p. Range: mu_2 = 0, alpha > 0, mu_1 >= 0, N2 > 2, CIWL
        learned with |d| = S2 / p.

    Source: `derivations/discrete.py`.

    >>> sorted(map(str, noise_threshold_expression().free_symbols))
    ['N2', 'S2', 'alpha', 'l1', 'mu1', 'p', 'w1', 'wc']
    """
    w1, wc, s2, l1, mu1, alpha, size, p = sp.symbols("w1 wc S2 l1 mu1 alpha N2 p", positive=True)
    return SHARE / (1 - SHARE) * (l1 / 2 + mu1) * 4 * alpha * wc * s2**2 / (w1 * p**4 * (size - 2))


def drift_expression() -> sp.Expr:
    """The rate at which noise of the size s changes |a|^2 + |d|^2 - |b|^2, in the mean, where ICL is gone."""
    s, n_a, n_b, n_d = sp.symbols("s n_a n_b n_d", positive=True)
    return s**2 * (n_d - n_a - n_b)


def ciwl_floor_expression() -> sp.Expr:
    """The floor of CIWL's loss under noise of the size s where ICL is gone, over its unlearned one."""
    l1, l2, mu1, size = sp.symbols("l1 l2 mu1 N2", positive=True)
    slope, entries, count = sp.symbols("F N k", positive=True)
    return loss_floor_expression().subs({slope: l1 / 2 + mu1, entries: size, count: 3}) / l2


@cache
def noise_range_expressions() -> dict[str, sp.Expr]:
    """What `noise_threshold` takes to be small, at the noise that it returns.

    Returns:
        unlearned: the floor of CIWL's loss over its unlearned one, l2. residual: the loss of ICL by the noise in a,
        which the cost damps at alpha wc |d|^2, over l1. drift_b, drift_c: the share by which noise changes p then:
        |d|^2 - |b|^2 and |d|^2 - |c|^2 drift once ICL is gone (`toymodel.theory.long_noise`); three times it where p
        grows, since ICL comes back then at less noise.
    """
    w1, wc, s2, l1, alpha, p = sp.symbols("w1 wc S2 l1 alpha p", positive=True)
    n_a, b, n_c = sp.symbols("n_a n_b n_c", positive=True)
    noise, pull, s = noise_threshold_expression(), alpha * wc * (s2 / p) ** 2, sp.Symbol("s", positive=True)
    rates = {f"drift_{x}": drift_expression().subs(b, n) for x, n in (("b", b), ("c", n_c))}
    drift = {name: 2 * sp.Abs(rate) - rate for name, rate in rates.items()}  # three times the size where p grows
    return {
        "unlearned": ciwl_floor_expression().subs(s, sp.sqrt(noise)),
        "residual": w1 * p**2 / 2 * n_a * noise / (2 * pull) / l1,
        **{name: rate.subs(s, sp.sqrt(noise)) / (p + 2 * s2**2 / p**2) / pull for name, rate in drift.items()},
    }


@cache
def _where_noise_decides() -> sp.Expr:
    small = (value <= MOST_BY_NOISE[name] for name, value in noise_range_expressions().items())
    return within(noise_threshold_expression(), *small)


@checked
def noise_threshold(model: Model, lr: Any = 1.0, *, alpha: Any = None, mu_icl: Any = None, product: Any = None) -> Any:
    """The gradient noise sigma above which ICL is not displaced (`noise_threshold_expression`), for the paper's model.

    Arguments:
        model: target norms, weights and dimensions.
        lr, alpha, mu_icl: numbers, numpy or JAX arrays of shapes that broadcast (the last two default to the model's).
        product: p = |b||c| once CIWL is learned, S_ciwl^(2/3) by default: from CIWL with vectors of equal lengths.

    Returns:
        sigma, of that shape. Noise keeps CIWL's loss at its floor, and that leaves ICL a slope: this is the threshold
        of the mean state at that p. By default it is the one from CIWL, above which ICL comes back: at the paper's
        dimensions, within 60,000 steps, in a fifth of the runs at this noise, in most at 1.15 times and in none at 0.85
        times it. At `tm.theory.noise_product(model, "icl")` noise above it keeps ICL that is there; half of the runs
        keep it down to 0.75 times. In between what was there first stays. Later p drifts, which can decide otherwise:
        see `toymodel.theory.long_noise`. Range: mu_ciwl = 0, target norms of the model; NaN where CIWL is not learned
        under that noise, where the noise in a alone is a loss of ICL, and where p drifts away before ICL has come back
        (`noise_range_expressions`).

    Raises:
        ValueError for another model.

    Source: `derivations/discrete.py`.

    >>> import toymodel as tm
    >>> model = tm.coopetition()
    >>> bool(abs(noise_threshold(model, 0.25) / noise_threshold(model, 1.0) - 2) < 1e-12)  # sigma sqrt(lr) counts
    True
    """
    a, d, shared, cost = parts_of(model)
    if cost is None or [len(a), len(d), len(shared)] != [1, 1, 2]:
        raise ValueError(f"the model must be one like tm.coopetition, got {dict(model.terms)}")
    norms, p = model.target_norms, model.parameters
    if p.get("mu_ciwl", 0):
        raise ValueError(f"the threshold is for mu_ciwl = 0, got {p['mu_ciwl']}")
    pair = norms[shared[0]] * norms[shared[1]]
    values = {"lr": lr, "mu_icl": p["mu_icl"] if mu_icl is None else mu_icl}
    values["alpha"] = p["alpha"] if alpha is None else alpha
    values["product"] = (norms[d] * pair) ** (2 / 3) if product is None else product
    for name, value in values.items():
        check(name, value, 0.0 if name == "mu_icl" else POSITIVE)
    numbers = {
        "w1": model.weights["icl"],
        "wc": model.weights[cost],
        "S2": norms[d] * pair,
        "l1": model.weights["icl"] * (norms[a] * pair) ** 2 / 2,
        "mu1": values["mu_icl"],
        "alpha": values["alpha"],
        "N2": sum(model.dims[x] for x in d + shared),
        "p": values["product"],
        "l2": model.weights["ciwl"] * (norms[d] * pair) ** 2 / 2,
        **{f"n_{name}": float(model.dims[x]) for name, x in zip("abcd", (a, *shared, d), strict=True)},
    }
    square = function(_where_noise_decides())(**numbers)
    return (square / lr) ** 0.5


@checked
def noise_drift(model: Model, noise: float, lr: float = 1.0) -> dict[str, float]:
    """What gradient noise adds to the mean rate of each conserved or balanced combination: lr noise^2 sum_x k_x n_x.

    Arguments:
        model: gives the combinations and the numbers of entries n_x.
        noise, lr: standard deviation of the error of each entry of the gradient, and step size.

    Returns:
        Text of the combination, as in `balance_values`, -> rate per unit of time. Exact, at each step.

    Source: `derivations/discrete.py`.

    >>> import toymodel as tm
    >>> {text: round(rate, 9) for text, rate in noise_drift(tm.coopetition(), 0.1).items()}  # 0.01 (20 - 20 + 160)
    {'|b|^2 - |c|^2': 0.0, '|a|^2 - |b|^2 + |d|^2': 1.6}
    """
    check_values("noise", noise)
    check_values("lr", lr, POSITIVE)
    return {
        label(b): lr * noise**2 * sum(k * model.dims[x] for x, k in b.coefficients.items()) for b in model.conserved()
    }
