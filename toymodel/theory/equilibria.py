"""Fixed points of a model, their spectra and their stability.

An equilibrium is a zero of dL/dy, y = (u, v) of all vectors. Where combinations I_j = sum_x k_x |x|^2 are conserved
(`derivations/conserved.py`), equilibria come in families and d2L/dy2 is singular; what is solved is

    dL/dy + sum_j m_j dI_j/dy = 0,        I_j = given values,

whose multipliers m are zero at every solution and whose Jacobian is regular. Stability is that of the flow with these
values: the spectrum of the Hessian on their tangent space, which is real, since it is symmetric: no cycles, no chaos.
`toymodel.theory.branches` follows them in a parameter.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import sympy as sp
import xarray as xr
from scipy.integrate import solve_ivp
from scipy.linalg import null_space
from scipy.optimize import root

from toymodel import symbolic
from toymodel.batch import per_vector
from toymodel.checks import check_values, checked
from toymodel.model import Form, Model

ZERO = 1e-9  # eigenvalues below this, relative to the largest, count as zero
SAME = 1e-6  # points closer than this, relative to their norm, are one


@dataclass(frozen=True)
class Functions:
    """What a form of loss is compiled to: functions of the coordinates (u, then v) and the constants (target norms,
    weights, parameters), one number after the other."""

    slope: Callable[..., list[float]]
    hessian: Callable[..., list[list[float]]]
    losses: Callable[..., list[float]]  # the loss, then every term
    slope_by: dict[str, Callable[..., list[float]]]  # derivative of the slope by a parameter


@cache
def functions(form: Form) -> Functions:
    """Derived by sympy from the reduced loss."""
    system = symbolic.System(form)
    flat = [sp.diff(system.reduced_loss, y) for y in system.coordinates]
    by = {name: system.function([sp.diff(s, p) for s in flat]) for name, p in system.parameters.items()}
    losses = system.function([system.loss, *system.terms])
    # with S - U in one piece: near a learned point P u - R would lose digits that branches need
    return Functions(system.function(flat), system.function(system.jacobian), losses, by)


@dataclass(frozen=True)
class System:
    """The equations of the equilibria of one model: what the functions below solve.

    compiled: of the model's form. constants: target norms, weights, parameters. powers: k of each conserved combination
    for each coordinate. values: of these combinations.
    """

    model: Model
    compiled: Functions
    constants: np.ndarray
    powers: np.ndarray
    values: np.ndarray

    @classmethod
    def of(
        cls,
        model: Model,
        conserved: Any = 0.0,
        target_norms: Mapping[str, float] | None = None,
        weights: Mapping[str, float] | None = None,
        parameters: Mapping[str, float] | None = None,
    ) -> System:
        """Checks and gathers the numbers; arguments as in `fixed_points`."""
        norms = per_vector("target_norms", {**model.target_norms, **(target_norms or {})}, model.vectors)
        weighed = {**model.weights, **(weights or {})}
        if unknown := set(weighed) - set(model.terms):
            raise ValueError(f"weights has the unknown name {sorted(unknown)[0]!r}; allowed are {list(model.terms)}")
        given = {**model.parameters, **(parameters or {})}
        if unknown := set(given) - set(model.parameters):
            raise ValueError(f"unknown parameter {sorted(unknown)[0]!r}; the loss has {sorted(model.parameters)}")
        for name, values, least in (("target_norms", norms, 1e-300), ("weights", weighed, 1e-300), ("", given, 0.0)):
            for key, value in values.items():
                check_values(f"{name}[{key!r}]" if name else key, value, least)
        numbers = [*norms.values(), *(weighed[t] for t in model.terms), *(given[p] for p in model.form.parameters)]
        kept = [b.coefficients for b in model.conserved() if b.conserved]
        powers = np.array([[k.get(x, 0) for x in model.vectors] * 2 for k in kept], float)
        powers = powers.reshape(len(kept), 2 * len(model.vectors))
        check_values("conserved", conserved, -np.inf)
        if np.ndim(conserved) > 0 and np.shape(conserved) != (len(kept),):
            raise ValueError(
                f"conserved must be one number or {len(kept)}, one for each conserved combination, got {conserved}"
            )
        values = np.broadcast_to(np.asarray(conserved, float), len(kept))
        return cls(model, functions(model.form), np.array(numbers, float), powers, values)

    def at(self, parameter: str, value: float) -> System:
        """The same with another value of a parameter."""
        constants, parameters = self.constants.copy(), self.model.form.parameters
        constants[parameters.index(parameter) - len(parameters)] = value
        return replace(self, constants=constants)

    def slope(self, y: np.ndarray) -> np.ndarray:
        return np.array(self.compiled.slope(*y, *self.constants), float)

    def hessian(self, y: np.ndarray) -> np.ndarray:
        return np.array(self.compiled.hessian(*y, *self.constants), float)

    def parts(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Coordinates and multipliers, of z = (y, m)."""
        n = self.powers.shape[1]
        return z[:n], z[n:]

    def equations(self, z: np.ndarray) -> np.ndarray:
        y, m = self.parts(z)
        return np.concatenate([self.slope(y) + 2 * (m @ self.powers) * y, self.powers @ y**2 - self.values])

    def jacobian(self, z: np.ndarray) -> np.ndarray:
        y, m = self.parts(z)
        border = 2 * self.powers * y
        corner = np.zeros((len(m), len(m)))
        return np.block([[self.hessian(y) + 2 * np.diag(m @ self.powers), border.T], [border, corner]])

    def by(self, parameter: str, z: np.ndarray) -> np.ndarray:
        """Derivative of the equations by a parameter."""
        slope = self.compiled.slope_by[parameter](*self.parts(z)[0], *self.constants)
        return np.concatenate([np.array(slope, float), np.zeros(len(self.powers))])

    def spectrum(self, y: np.ndarray) -> np.ndarray:
        """Eigenvalues, increasing, of the Hessian on the directions that keep the conserved combinations.

        At a point where the gradient of a combination vanishes (a vector of length zero), it has one more of them; it
        is filled up with NaN to the same length otherwise.
        """
        hessian, border = self.hessian(y), self.powers * y
        directions = null_space(border, rcond=1e-9) if np.abs(border).max(initial=0) > 0 else np.eye(len(y))
        found = np.linalg.eigvalsh(directions.T @ hessian @ directions)
        return np.concatenate([found, np.full(len(y) - len(found), np.nan)])


def stability(spectrum: np.ndarray) -> str:
    """ "stable": all eigenvalues positive; "saddle": one is negative; "marginal": none is, but some are zero."""
    found = spectrum[np.isfinite(spectrum)]
    level = ZERO * max(np.abs(found).max(initial=0), 1e-300)
    return "saddle" if (found < -level).any() else "stable" if (found > level).all() else "marginal"


@checked
def fixed_points(
    model: Model,
    starts: xr.Dataset | None = None,
    *,
    conserved: float | Sequence[float] = 0.0,
    target_norms: Mapping[str, float] | None = None,
    weights: Mapping[str, float] | None = None,
    flow_time: float = 1e4,
    tolerance: float = 1e-11,
    **parameters: float,
) -> xr.Dataset:
    """The equilibria that are found from many starts, along `point`, in increasing order of the loss.

    Arguments:
        model, target_norms, weights, parameters: the loss; target norms and weights are the model's by default.
        starts: coordinates to search from (target norms in it are not used); by default all combinations of 0, 0.3 and
            1 times the target norm. From each, scipy's hybrid method (MINPACK) looks for a zero, once from there and
            once from where gradient flow gets in `flow_time` (0: not at all).
        conserved: values of the conserved combinations, in the order of `model.conserved()`.
        tolerance: largest slope, relative to the largest eigenvalue times the norm.

    Returns:
        overlap, residual, loss and terms, `eigenvalue` along `mode` (NaN beyond the tangent space), `stability`
        ("stable", "saddle", "marginal": part of a family, or degenerate) and `slope`. What is found is right, but
        nothing warrants that all points are found.

    Raises:
        ValueError where none is found.

    Source: `derivations/conserved.py`.

    >>> import toymodel as tm
    >>> found = fixed_points(tm.induction((4, 4, 4)), flow_time=0.0)
    >>> float(found.loss[0]), str(found.stability[0].item())  # learned, with balanced vectors
    (0.0, 'stable')
    """
    system = System.of(model, conserved, target_norms, weights, parameters)
    norms = system.constants[: len(model.vectors)]
    if starts is None:
        guesses = np.array([[*(f * norms), *(0 * norms)] for f in itertools.product((0, 0.3, 1), repeat=len(norms))])
    else:
        parts = [
            starts[name].transpose(..., "vector").sel(vector=list(model.vectors)) for name in ("overlap", "residual")
        ]
        guesses = np.concatenate([p.values.reshape(-1, len(model.vectors)) for p in parts], -1)
    found: list[np.ndarray] = []
    for guess in guesses:
        for begin in (guess, *([_along_gradient(system, guess, flow_time)] if flow_time > 0 else [])):
            y = polished(system, begin, tolerance)
            if y is not None and all(np.linalg.norm(y - other) > SAME * (1 + np.linalg.norm(y)) for other in found):
                found.append(y)
    if not found:
        raise ValueError("no equilibrium was found from these starts; give others, or a longer flow_time")
    found.sort(key=lambda y: system.compiled.losses(*y, *system.constants)[0])
    return labelled([system] * len(found), found)


def polished(system: System, y: np.ndarray, tolerance: float) -> np.ndarray | None:
    """The zero that the hybrid method finds from y, None where it finds none."""
    z = np.concatenate([y, np.zeros(len(system.powers))])
    try:
        found = root(system.equations, z, jac=system.jacobian, method="hybr", options={"xtol": 1e-14}).x
    except (OverflowError, ZeroDivisionError, np.linalg.LinAlgError):
        return None
    y = found[: len(y)]
    y = np.where(np.abs(y) < 1e-13 * max(np.abs(y).max(), 1), 0, y)
    if not np.isfinite(y).all():
        return None
    scale = max(np.abs(system.hessian(y)).max(), 1e-300) * max(float(np.linalg.norm(y)), 1)
    missed = np.abs(system.powers @ y**2 - system.values).max(initial=0)
    return y if np.abs(system.slope(y)).max() < tolerance * scale and missed < 1e-9 else None


def _along_gradient(system: System, y: np.ndarray, time: float) -> np.ndarray:
    """Where gradient flow gets from y, a little off it."""
    begin = y + 1e-3 * np.concatenate([system.constants[: len(y) // 2], np.zeros(len(y) // 2)])
    solved = solve_ivp(
        lambda _, x: -system.slope(x),
        (0, time),
        begin,
        "LSODA",
        jac=lambda _, x: -system.hessian(x),
        rtol=1e-6,
        atol=1e-9,
    )
    return solved.y[:, -1]


def labelled(systems: Sequence[System], points: Sequence[np.ndarray]) -> xr.Dataset:
    """Points as a dataset along `point`."""
    model = systems[0].model
    n = len(model.vectors)
    ys = np.array(points)
    values = np.array([s.compiled.losses(*y, *s.constants) for s, y in zip(systems, ys, strict=True)], float)
    spectra = np.array([s.spectrum(y) for s, y in zip(systems, ys, strict=True)])
    names = ["loss", *(f"loss_{t}" if t in model.mechanisms else t for t in model.terms)]
    return xr.Dataset(
        {
            "overlap": (("point", "vector"), ys[:, :n]),
            "residual": (("point", "vector"), ys[:, n:]),
            **{name: ("point", values[:, i]) for i, name in enumerate(names)},
            "eigenvalue": (("point", "mode"), spectra),
            "stability": ("point", [stability(spectrum) for spectrum in spectra]),
            "slope": ("point", [np.abs(s.slope(y)).max() for s, y in zip(systems, ys, strict=True)]),
        },
        coords={"vector": list(model.vectors)},
        attrs={"model": model.to_json()},
    )
