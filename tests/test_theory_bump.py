"""The bump: its height against simulations, its limits, and the sign of the competition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sympy as sp
import xarray as xr

import toymodel as tm
from toymodel.theory import bumps as theory

pytestmark = pytest.mark.slow


def along(name, values):
    return xr.DataArray(values, dims=name, coords={name: values})


def measured(model, start, steps, lr=0.5, every=10, **parameters):
    runs = tm.descend(model, start, steps, lr=lr, every=every, **parameters)
    return (tm.measure(runs).bump / runs.unlearned_ciwl).sel(mechanism="ciwl", drop=True)


def by_flow(model, start):
    """The bump of runs that are as long as the cost needs."""
    alpha = model.parameters["alpha"]
    times = np.union1d(np.geomspace(1e2, 5e3 / alpha, 6_000), np.linspace(1e2, 2e4, 6_000))
    runs = tm.flow(model, start, 5e3 / alpha, times=times, method="LSODA", rtol=1e-9, progress=False)
    return (tm.measure(runs).bump / runs.unlearned_ciwl).sel(mechanism="ciwl", drop=True)


def start_of(model, u_d=0.05, v_d=0.0):
    small = dict.fromkeys("abc", 0.05)
    return tm.aligned_start(model, overlap={**small, "d": u_d}, residual={**dict.fromkeys("abc", 0.0), "d": v_d})


def test_rise_after_the_dip_of_a_cooperating_d():
    model = tm.coopetition(alpha=0.01, mu_icl=1e-5)
    start = start_of(model, along("u_d", [0.05, 0.5, 1.0, 1.5]), along("v_d", [0.0, 0.4, 0.8]))
    found, predicted = by_flow(model, start), tm.theory.bump(model, start).height
    assert float(found.min()) > 0.1 and bool(predicted.notnull().all())
    assert float(np.abs(predicted / found - 1).max()) < 0.03


def test_the_height_is_exact_for_small_alpha():
    """Unequal a, b, c, with and without a residual of d, mu_icl in proportion."""
    lengths = {"a": 0.1, "b": 0.2, "c": 0.05}
    start = tm.aligned_start(
        tm.coopetition(),
        overlap={**lengths, "d": along("u_d", [0.3, 1.0])},
        residual={**dict.fromkeys("abc", 0.0), "d": along("v_d", [0.0, 8.0, 12.0])},
    )
    alphas, errors = [1e-5, 1e-4], []
    for alpha in alphas:
        model = tm.coopetition(alpha=alpha, mu_icl=1e-2 * alpha)
        found = by_flow(model, start)
        said = tm.theory.bump(model, start).height
        errors.append(float(abs(said - found).max()))
        assert (
            bool(said.notnull().all()) and float(found.max()) > 2
        )  # with a large residual the loss rises to several times the unlearned one
    assert errors[0] < 1e-3  # the page derivations/bump.md measures the order


def test_no_bump_where_mu_icl_keeps_d():
    """x_0 > x: what drives CIWL after ICL is learned outweighs the cost, and the loss of CIWL only falls."""
    model = tm.coopetition()
    start = start_of(model)
    found = measured(model, start, 20_000, mu_icl=along("mu_icl", [1e-3, 3e-2, 1e-1]), alpha=0.1)
    predicted = tm.theory.bump(model, start, mu_icl=along("mu_icl", [1e-3, 3e-2, 1e-1]), alpha=0.1)
    assert list(predicted.height > 0) == [True, False, False] == list(found > 1e-3)


def test_the_law_of_small_starts_is_of_leading_order():
    """The relative error of the closed x falls with x, in larger d."""
    errors = []
    for entries in (160, 320, 640):
        model = tm.coopetition(alpha=0.1, mu_icl=1e-6, dims=(20, 20, 20, entries))
        start = start_of(model, u_d=0.01)
        runs = tm.descend(model, start, 24_000, lr=0.5, every=10)
        dip = 1 - np.sqrt(float((runs.loss_ciwl / runs.unlearned_ciwl).min()))
        values = {f"T_{x}": norm for x, norm in model.target_norms.items()} | {"u_0": 0.01}
        closed = tm.theory.bump_expressions()["x"]
        errors.append(abs(float(closed.subs({s: values[s.name] for s in closed.free_symbols})) / dip - 1))
    assert errors[0] < 0.1 and errors[2] < errors[0]


def test_coefficients_are_the_integrals_of_the_escape():
    """x and z from a numerical integration of the path on which a, b and c grow together."""
    a = np.linspace(0, 20**0.5, 20_001)
    t_icl, t_ciwl = 20**1.5, 20 * 160**0.5
    gain = np.trapezoid((t_icl - a**3) / t_ciwl, a)
    lost = np.trapezoid(a**2 * (t_icl - a**3) / t_ciwl**2, a)
    values = {"T_a": 20**0.5, "T_b": 20**0.5, "T_c": 20**0.5, "T_d": 160**0.5, "u_0": 0.7, "v_0": 2.0}
    found = {
        name: float(expression.subs({s: values[s.name] for s in expression.free_symbols}))
        for name, expression in tm.theory.bump_expressions().items()
        if name != "x_0"
    }
    assert found["x"] == pytest.approx((0.7 + gain) * 20 / t_ciwl, rel=1e-6)
    assert found["z"] == pytest.approx(2.0 * np.exp(-lost) * 20 / t_ciwl, rel=1e-6)


def test_height_is_the_largest_rise_on_the_path():
    draw = np.random.default_rng(4)
    p = np.linspace(0, 1, 4_001)
    for x, z, x_0 in draw.uniform([-0.3, 0, 0], [0.9, 1, 0.5], (50, 3)):
        levels = np.append((1 - p * x) ** 2 + (p * z) ** 2, (1 - x_0) ** 2)
        expected = np.max(levels - np.minimum.accumulate(levels))
        assert theory.height(x, z, x_0) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", ["escape_slopes", "slow_velocity"])
def test_a_wrong_coefficient_is_seen(monkeypatch, name):
    model = tm.coopetition(alpha=0.01, mu_icl=1e-5)
    start = start_of(model, 0.5, 1.0)
    found = float(by_flow(model, start))
    right = getattr(theory, name)()
    if name == "escape_slopes":
        wrong = {**right, "u": right["u"] * sp.Rational(4, 3)}
    else:
        wrong = (right[0], right[1] + sp.Rational(1, 1000), right[2])
    assert abs(float(theory.bump(model, start).height) / found - 1) < 0.03
    monkeypatch.setattr(theory, name, lambda: wrong)
    assert abs(float(theory.bump(model, start).height) / found - 1) > 0.2


def test_errors_name_what_is_missing():
    with pytest.raises(ValueError, match="mechanisms of three vectors that share two"):
        tm.theory.bump(tm.long_pathway(), tm.aligned_start(tm.long_pathway()))


def test_height_of_arrays():
    """As numbers, as arrays and compiled by JAX; nothing learned and nothing kept is no bump."""
    x, z, x_0 = np.array([[0.0, 0.3, 0.2, -0.1], [0.0, 0.0, 0.9, 0.5], [0.0, 0.1, 0.5, 0.0]])
    one_by_one = [float(theory.height(*numbers)) for numbers in zip(x, z, x_0, strict=True)]
    np.testing.assert_allclose(one_by_one, [0, 0.9**2 - 0.7**2, 0.64 + 0.81 - 0.81 / 0.85, 1.21 + 0.25 - 1], atol=1e-12)
    np.testing.assert_allclose(theory.height(x, z, x_0), one_by_one, rtol=1e-12)
    compiled = jax.jit(theory.height)(*map(jnp.asarray, (x, z, x_0)))
    assert isinstance(compiled, jax.Array)
    np.testing.assert_allclose(compiled, one_by_one, rtol=1e-5, atol=1e-6)


def test_outside_of_the_range_it_is_nan():
    """Standard normal starts, a strong cost on a large residual of d, much of CIWL learned, and CIWL driven on."""
    model = tm.coopetition(alpha=1e-2, mu_icl=1e-6)
    outside = [
        tm.random_start(model, range(5)),
        start_of(model, 0.5, 12.0),
        start_of(model, 5.0),
        start_of(model, -0.1),
    ]
    assert all(bool(tm.theory.bump(model, start).height.isnull().all()) for start in outside)
    assert bool(tm.theory.bump(model, start_of(model), mu_icl=1e-6).height > 0)
