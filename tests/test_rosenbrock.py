"""The Rosenbrock method of sweeps against exact solutions, and against scipy's integrators on the model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import toymodel as tm
from toymodel.sweeps import stiff

LOW = 0.2


@jax.jit
def stepped(y, h):
    """x' = x (1 - x), y' = -50 (y - x)."""

    def velocity(y):
        return jnp.stack([y[0] * (1 - y[0]), -50 * (y[1] - y[0])])

    return stiff._step(velocity, [[1 - 2 * y[0], 0.0], [50.0, -50.0]], y, h)


def logistic(h, dense=None):
    """Coordinates and error from x = y = LOW to the time 2 in steps of h, or at a share of the last step."""
    with jax.enable_x64(True):
        y = before = jnp.array([[LOW], [LOW]])
        for _ in range(round(2 / h)):
            before, (y, error, bend) = y, stepped(y, jnp.array([h]))
        at = before if dense is None else (1 - dense) * before + dense * (y + (1 - dense) * (bend[0] + dense * bend[1]))
        return np.asarray(y if dense is None else at)[:, 0], np.abs(np.asarray(error)).max()


def exact(t):
    return LOW / (LOW + (1 - LOW) * np.exp(-t))


def test_the_method_is_of_order_four():
    steps = np.array([0.4, 0.2, 0.1, 0.05])
    errors = [abs(logistic(h)[0][0] - exact(2.0)) for h in steps]
    assert np.polyfit(np.log(steps), np.log(errors), 1)[0] > 3.7
    estimates = [logistic(h)[1] for h in steps]
    assert 2.7 < np.polyfit(np.log(steps), np.log(estimates), 1)[0] < 4.6


@pytest.mark.parametrize("share", [0.25, 0.5, 0.8])
def test_between_steps_the_order_is_three_or_more(share):
    steps = np.array([0.4, 0.2, 0.1, 0.05])
    errors = [abs(logistic(h, share)[0][0] - exact(2.0 - (1 - share) * h)) for h in steps]
    assert np.polyfit(np.log(steps), np.log(errors), 1)[0] > 3.0


def test_a_stiff_direction_needs_no_short_steps():
    """With steps of ten times its time constant the fast coordinate follows the slow one."""
    (x, y), _ = logistic(0.2)
    assert abs(y - x) < 0.02
    assert abs(x - exact(2.0)) < 1e-5


def test_factors_solve_what_numpy_solves():
    rng = np.random.default_rng(0)
    matrix, right = rng.normal(size=(5, 5, 7)) + 4 * np.eye(5)[:, :, None], rng.normal(size=(5, 7))
    found = np.stack(stiff._solved(stiff._factored([list(row) for row in matrix]), list(right)))
    expected = np.linalg.solve(matrix.transpose(2, 0, 1), right.T[:, :, None])[..., 0].T
    np.testing.assert_allclose(found, expected, rtol=1e-10)


@pytest.mark.parametrize(
    "acts",
    [
        (),
        ('Clamp("d", overlap=0, residual=0, until=1000)', 'Block("ciwl", "bc", at=1000)'),
        ('Freeze("c", until=300)', "Change(until=300, alpha=0)"),
    ],
    ids=["plain", "clamped, then blocked", "frozen and changed at first"],
)
def test_flows_have_the_measures_that_scipy_finds(acts):
    """Emergence and end are among the recorded times, a ratio of 1.027 apart; losses agree to the tolerance."""
    model, over = tm.coopetition(), {"alpha": [0.02, 0.3], "mu_icl": [0.02, 0.3]}
    swept = tm.sweep(model, over, seeds=[3, 5], steps=4000, integrator="flow", rtol=1e-7, interventions=acts)
    declared = tm.Sweep(model, over, interventions=acts)
    runs = tm.flow(
        model, tm.paper_start(model, [3, 5]), 4000.0, method="LSODA", rtol=1e-9, interventions=declared.interventions,
        **over,
    )  # fmt: skip
    expected = tm.measure(runs)
    assert np.isfinite(expected["emergence"]).any()
    for name, tolerance in (("emergence", 0.028), ("end", 0.028), ("minimum", 1e-3), ("bump", 1e-3)):
        wanted = expected[name].transpose(*swept[name].dims)
        np.testing.assert_allclose(swept[name], wanted, rtol=tolerance, atol=1e-6, err_msg=name)
    for name in ("phase", "winner", "lasts"):
        assert (swept[name].values == expected[name].transpose(*swept[name].dims).values).all(), name


def test_neighbours_change_no_bit():
    over = {"alpha": tm.log(1e-2, 1, 20)}
    whole = tm.sweep(tm.coopetition(), over, seeds=range(20), steps=1000, integrator="flow")
    parts = tm.sweep(tm.coopetition(), over, seeds=range(20), steps=1000, integrator="flow", chunk=33)
    for name in whole:
        np.testing.assert_array_equal(whole[name], parts[name], err_msg=str(name))


def test_a_flow_that_takes_too_many_steps_is_refused(monkeypatch):
    monkeypatch.setattr(stiff, "MOST", 5)
    jax.clear_caches()
    with pytest.raises(RuntimeError, match="a flow did not reach t=200 in 5 steps; raise rtol=1e-06"):
        tm.sweep(tm.coopetition(), {"alpha": [0.1, 0.3]}, steps=200, integrator="flow", chunk=2)
    jax.clear_caches()
