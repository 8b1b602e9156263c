"""The slow flow of p = bc and d against the flow of all numbers, and what its nullclines and its fold must be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sympy as sp
from conftest import closeness
from page import assert_equal

import toymodel as tm
from toymodel.reduction import symbols
from toymodel.theory import slow_manifold
from toymodel.theory import transience as lifetime

pytestmark = pytest.mark.slow

MODEL = tm.coopetition(mu_ciwl=0.0)
MADE = np.prod([MODEL.target_norms[x] for x in "abc"])


@pytest.mark.parametrize(("p", "d", "mu"), [(25.0, 1.0, 1e-3), (40.0, 0.5, 3e-3), (30.0, 2.0, 1e-3)])
def test_velocity_is_that_of_the_whole_model(p, d, mu):
    """A run that starts on the manifold relaxes in a short time to the slow flow's speed."""
    start = tm.aligned_start(MODEL, overlap={"a": MADE / p, "b": p**0.5, "c": p**0.5, "d": d})
    times = np.linspace(140, 160, 5)
    runs = tm.flow(MODEL, start, 160, times=times, method="LSODA", rtol=1e-11, atol=1e-12, mu_icl=mu)
    shared = (runs.overlap.sel(vector="b") * runs.overlap.sel(vector="c")).values
    other = runs.overlap.sel(vector="d").values
    said = slow_manifold.slow_flow(MODEL, shared[2], other[2], mu_icl=mu)
    for values, speed in zip((shared, other), said, strict=True):
        found = (values[0] - 8 * values[1] + 8 * values[3] - values[4]) / (12 * (times[1] - times[0]))
        assert found == pytest.approx(float(speed), rel=0.02)
        assert found != pytest.approx(1.1 * float(speed), rel=0.02)


def test_nullcline_of_d_is_the_slaved_overlap():
    planes, _, parameters = symbols(lifetime.form())
    p = lifetime.MISSING[2]
    side = {planes["b"].u: sp.sqrt(p), planes["c"].u: sp.sqrt(p), parameters["mu_ciwl"]: 0}
    slaved = lifetime.slaved_overlap().subs(side)
    assert_equal(slow_manifold.velocity()[1].subs(planes["d"].u, slaved), sp.Integer(0))


def test_velocity_keeps_the_balance():
    """Within the manifold d/dt(a^2 + d^2 - b^2) is that of the cost alone."""
    planes, _, _ = symbols(lifetime.form())
    p, d, whole = lifetime.MISSING[2], planes["d"].u, lifetime.target("abc")
    of_p, of_d = slow_manifold.velocity()
    change = sp.diff((whole / p) ** 2 - p, p) * of_p + 2 * d * of_d
    assert_equal(change, lifetime.drift_rate().subs(planes["a"].u, whole / p))


def test_the_branch_of_equilibria_ends_at_the_fold():
    missing = np.geomspace(1e-4, 0.5, 5000)
    p = slow_manifold.coexisting(MODEL, missing, mu_icl=1e-3)
    assert np.nanmax(p) == pytest.approx(slow_manifold.end_of_coexistence(MODEL, mu_icl=1e-3), rel=1e-5)
    top = np.nanargmax(p)
    assert np.isfinite(p[top - 1 : top + 2]).all()
    assert np.isnan(p[missing > 0.3]).all() and np.isnan(p[0])  # ICL, and CIWL, is not learned there


@pytest.mark.parametrize(
    "call",
    [
        lambda x: slow_manifold.slow_flow(MODEL, 200 * x, 1.0)[0],
        lambda x: slow_manifold.slow_flow(MODEL, 25.0, 1.0, mu_icl=x / 20)[1],
        lambda x: slow_manifold.coexisting(MODEL, x, mu_icl=1e-3),
        lambda x: slow_manifold.end_of_coexistence(MODEL, mu_icl=0.03 * x),
        lambda x: slow_manifold.end_of_coexistence(MODEL, alpha=x, mu_icl=1e-3),
    ],
)
def test_arrays_of_numpy_and_of_jax(call):
    """One value after the other, as an array, and compiled by JAX."""
    values = np.array([0.1, 0.2])
    one_by_one = [float(call(x)) for x in values]
    assert one_by_one[0] != one_by_one[1]
    assert closeness(call(values), one_by_one, 1e-12) <= 1
    compiled = jax.jit(call)(jnp.asarray(values))
    assert isinstance(compiled, jax.Array) and closeness(compiled, one_by_one, 1e-4) <= 1


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: slow_manifold.slow_flow(MODEL, 20, 1, mu_ciwl=0.1), "mu_ciwl must be 0 for the slow flow, got 0.1"),
        (lambda: slow_manifold.end_of_coexistence(tm.induction()), "like tm.coopetition"),
        (lambda: slow_manifold.end_of_coexistence(MODEL, mu=0.1), "unknown parameter 'mu'"),
        (lambda: slow_manifold.coexisting(MODEL, 0.1, alpha=-1.0), "alpha must be"),
    ],
)
def test_outside_of_the_range(call, says):
    with pytest.raises(ValueError, match=says):
        call()
