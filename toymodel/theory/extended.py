"""The reduction beyond plain descent: momentum, weight decay and gradient noise on two numbers a vector.

    p <- momentum p - lr dL/dx,    x <- (1 - lr decay) x + p

stays in the plane of x and its target, so that the same lines hold for u and v, with two velocities a vector. With an
independent normal error sigma xi of every entry of every gradient,

    u <- u - lr (L_u + sigma xi_1),    v^2 <- (v - lr (L_v + sigma xi_2))^2 + (lr sigma)^2 chi^2_(n-2),

closes in law for a vector of n entries: the residual is the radius of a walk in n - 1 dimensions, and the n - 2 that
are across it push it out. Sampled entries of the tensors close in the mean only; `sampled_variance` is their spread.
Derived in `derivations/reduction_extended.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import sympy as sp
import xarray as xr

from toymodel.batch import check_values
from toymodel.model import Form, FrozenDict, Model
from toymodel.simulation.observe import record
from toymodel.simulation.problem import loss_and_slope, measured, problem_of_start
from toymodel.simulation.state import Reduced
from toymodel.theory.arrays import function


def descend_extended(
    model: Model,
    start: xr.Dataset,
    steps: int,
    *,
    lr: float = 1.0,
    every: int = 1,
    momentum: float = 0.0,
    decay: float = 0.0,
    noise: float = 0.0,
    noise_seed: int = 0,
    drift_only: bool = False,
    weights: Mapping[str, Any] | None = None,
    **parameters: Any,
) -> xr.Dataset:
    """Descent on the reduced loss with momentum (from rest), decoupled weight decay, or gradient noise.

    momentum: within 0..1, without 1. decay: every vector is multiplied by 1 - lr decay at each step. noise: standard
    deviation of the error of each entry of each gradient; the runs are then draws from the same law as those of
    `toymodel.descend_vectors(noise=...)`, with the numbers of entries in `model.dims`. drift_only: of the noise keep
    only what it adds to each v^2 in the mean, (n - 1) (lr noise)^2 a step. The rest as in `toymodel.descend`, and so is
    the record.

    Exact for any step size. Raises ValueError for noise together with momentum: the velocity then leaves the plane.
    """
    for name, value in (("steps", steps), ("every", every)):
        if not isinstance(value, (int, np.integer)) or value < 1:
            raise ValueError(f"{name} must be a whole number >= 1, got {value!r}")
    for name, value in (("lr", lr), ("momentum", momentum), ("decay", decay), ("noise", noise)):
        check_values(name, value, np.nextafter(0, 1) if name == "lr" else 0.0)
    if momentum >= 1:
        raise ValueError(f"momentum must be within 0..1, without 1, got {momentum}")
    if noise and momentum:
        raise ValueError("noise and momentum together do not close on the plane: set one of them to 0")
    problem = problem_of_start(model, start, (), dict(weights or {}), parameters)
    form = model.form
    with jax.enable_x64(True):
        state = problem.reduced(start)
        weighed, given = (
            {name: problem.batch.thin(value) for name, value in part.items()}
            for part in (problem.weights, problem.parameters)
        )
        velocity = tuple({x: jnp.zeros_like(state.u[x]) for x in form.vectors} for _ in range(2))
        key, dims = jax.random.key(noise_seed), model.dims
        marks, seen = [*range(0, steps, every), steps], []
        numbers = tuple(map(float, (lr, momentum, decay, noise)))
        kind = "none" if not noise else "drift" if drift_only else "all"
        for at, after in zip(marks, [*marks[1:], steps], strict=True):
            buffer = state.coordinates()[None]
            seen.append(measured(form, form, state, buffer, weighed, given, 1))
            if after > at:
                state, velocity = _steps(form, dims, kind, state, velocity, (weighed, given), numbers, key, at, after)
        norms = np.stack([state.target[x] for x in model.vectors], -1)
    found = {name: np.concatenate([one[name] for one in seen]) for name in seen[0]}
    planes = {name: found.pop(name) for name in ("overlap", "residual")} | {"target_norm": norms}
    attrs = {"integrator": "extended descent", "steps": steps, "lr": lr, "every": every, **start.attrs}
    attrs |= {"momentum": momentum, "decay": decay, "noise": noise, "noise_seed": noise_seed}
    if wrong := int((~np.isfinite(found["loss"][-1])).sum()):
        raise FloatingPointError(f"the loss of {wrong} runs diverges at lr={lr}; use a smaller lr")
    return record(problem, np.array(marks) * lr, np.array(marks), found, planes, attrs)


@partial(jax.jit, static_argnames=("form", "dims", "kind"))
def _steps(
    form: Form,
    dims: FrozenDict[int],
    kind: str,
    state: Reduced,
    velocity: Any,
    constants: tuple[dict[str, Any], dict[str, Any]],
    numbers: tuple[float, ...],
    key: Any,
    at: int,
    after: int,
) -> tuple[Reduced, Any]:
    """The steps from `at` to `after`."""
    lr, momentum, decay, noise = numbers

    def step(n, carry):
        state, velocity = carry
        _, *slopes = loss_and_slope(form, frozenset(), state, *constants)
        velocity = tuple(
            {x: momentum * p[x] - lr * slope[x] for x in form.vectors}
            for p, slope in zip(velocity, slopes, strict=True)
        )
        u, v = (
            {x: (1 - lr * decay) * part[x] + p[x] for x in form.vectors}
            for part, p in zip((state.u, state.v), velocity, strict=True)
        )
        if kind == "drift":
            v = {x: jnp.sqrt(value**2 + (dims[x] - 1) * (lr * noise) ** 2) for x, value in v.items()}
        if kind == "all":
            keys = jax.random.split(jax.random.fold_in(key, n), 3 * len(form.vectors))
            for i, x in enumerate(form.vectors):
                along, across, rest = keys[3 * i : 3 * i + 3]
                u[x] = u[x] - lr * noise * jax.random.normal(along, u[x].shape)
                if dims[x] == 1:  # no room for a residual
                    continue
                square = (v[x] - lr * noise * jax.random.normal(across, u[x].shape)) ** 2
                if dims[x] > 2:
                    square = square + (lr * noise) ** 2 * jax.random.chisquare(rest, dims[x] - 2.0, shape=u[x].shape)
                v[x] = jnp.sqrt(square)
        return replace(state, u=u, v=v), velocity

    return jax.lax.fori_loop(at, after, step, (state, velocity))


def noisy_residual_expression() -> sp.Expr:
    """E v^2 after `steps` from v^2 = q0, in the symbols q0, A, n, sigma, lr, steps: dL/dv = A v with a constant A.

    Range: 0 < lr A < 2, n >= 1. For many steps it tends to (n - 1) lr sigma^2 / (A (2 - lr A)).
    """
    q0, damping, n, sigma, lr, steps = sp.symbols("q0 A n sigma lr steps", positive=True)
    kept = (1 - lr * damping) ** 2
    return q0 * kept**steps + (n - 1) * (lr * sigma) ** 2 * (1 - kept**steps) / (1 - kept)


def noisy_residual(q0: Any, damping: Any, n: Any, noise: Any, lr: Any, steps: Any) -> Any:
    """Mean square of a residual under gradient noise (`noisy_residual_expression`), for numpy or JAX arrays.

    For 0 < lr damping < 2, while the damping A = (dL/dv) / v is constant: on the plateau, or near a fixed point.
    """
    numbers = {"q0": q0, "A": damping, "n": n, "sigma": noise, "lr": lr, "steps": steps}
    return function(noisy_residual_expression())(**numbers)


def residual_drift_expression() -> sp.Expr:
    """What noise adds to dv/dt in the flow limit, in the symbols n, s, v, with s = sigma sqrt(lr).

    Range: n >= 2, v > 0 (it repels from 0 for n > 2), steps for which lr |L_v| and s sqrt(lr) are well below v.
    """
    n, s, v = sp.symbols("n s v", positive=True)
    return (n - 2) * s**2 / (2 * v)


def sampled_variance(
    values: Mapping[str, Any], targets: Mapping[str, Any], letters: str, vector: str, weight: Any, sample: int
) -> Any:
    """Variance of each entry of the gradient of one mechanism's loss, estimated from `sample` entries of its tensor.

        [ N w^2 ( x_i^2 prod sum y^4 - 2 x_i x*_i prod sum y^3 y* + x*_i^2 prod sum y^2 y*^2 ) - (dL/dx_i)^2 ] / sample

    with N the number of entries and the products over the other vectors y. values, targets: letter -> array of
    entries, numpy or JAX; letters: those of the mechanism, each once. The covariance of two entries is
    -(dL/dx_i)(dL/dx_j) / sample. Exact. It needs the entries themselves, so there is no expression for it in (u, v).
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
