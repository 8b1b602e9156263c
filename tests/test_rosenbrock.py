"""The Rosenbrock method against exact solutions, and measures of flows against those of scipy's records."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from zoo import shaped

import toymodel as tm
from toymodel.simulation import rosenbrock
from toymodel.simulation.observe import Measures

pytestmark = pytest.mark.slow

LOW = 0.2


@jax.jit
def stepped(y, h):
    """x' = x (1 - x), y' = -50 (y - x)."""

    def velocity(y):
        return jnp.stack([y[0] * (1 - y[0]), -50 * (y[1] - y[0])])

    return rosenbrock.step(velocity, [[1 - 2 * y[0], 0.0], [50.0, -50.0]], y, h)


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
    found = np.stack(rosenbrock._solved(rosenbrock._factored([list(row) for row in matrix]), list(right)))
    expected = np.linalg.solve(matrix.transpose(2, 0, 1), right.T[:, :, None])[..., 0].T
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_dense_output_is_read_at_every_time_once():
    """Of a cubic path in each step of two runs with other steps, some of them repeated."""

    def cubic(t):
        return np.stack([1 + t - t**2 + 0.3 * t**3, t**3])

    ends = np.array([[0.5, 0.2], [0.5, 0.9], [1.1, 0.9], [2.0, 2.0]])
    begins = np.vstack([np.zeros((1, 2)), ends[:-1]])
    y = np.stack([cubic(t) for t in ends])
    with np.errstate(all="ignore"):
        bend = np.full((4, 2, 2, 2), np.nan)
    for i, (t0, t1) in enumerate(zip(begins, ends, strict=True)):
        thirds = [cubic(t0 + s * (t1 - t0)) for s in (1 / 3, 2 / 3)]
        curved = [
            (p - (1 - s) * cubic(t0) - s * cubic(t1)) / (s * (1 - s))
            for s, p in zip((1 / 3, 2 / 3), thirds, strict=True)
        ]
        bend[i, 1] = 3 * (curved[1] - curved[0])
        bend[i, 0] = curved[0] - bend[i, 1] / 3
    when, track = np.array([0.0, 0.2, 0.3, 1.0, 2.0]), np.full((5, 2, 2), np.nan)
    at, now = np.zeros(2, np.int64), np.zeros(2)
    rosenbrock._read(track, when, at, now, cubic(np.zeros(2)), ends, y, bend, 4)
    np.testing.assert_allclose(track, cubic(when[:, None] * np.ones(2)).transpose(1, 0, 2), atol=1e-12)
    assert at.tolist() == [5, 5] and now.tolist() == [2.0, 2.0]


@pytest.mark.parametrize(
    "acts",
    [
        (),
        ('Clamp("d", overlap=0, residual=0, until=1000)', 'Block("ciwl", "bc", at=1000)'),
        ('Freeze("c", until=300)', "Change(until=300, alpha=0)"),
    ],
    ids=["plain", "clamped, then blocked", "frozen and changed at first"],
)
def test_flows_have_the_measures_of_what_scipy_records(acts):
    """Emergence and end are among the recorded times, a ratio of 1.027 apart; losses agree to the tolerance."""
    model, over = tm.coopetition(), {"alpha": [0.02, 0.3], "mu_icl": [0.02, 0.3]}
    options = dict(t=4000.0, interventions=acts, **over)
    start = tm.paper_start(model, [3, 5])
    found = tm.flow(model, start, rtol=1e-7, atol=1e-10, observe=Measures(), **options)
    expected = tm.measure(tm.flow(model, start, method="LSODA", rtol=1e-9, **options))
    assert np.isfinite(expected["emergence"]).any()
    for name, tolerance in (("emergence", 0.028), ("end", 0.028), ("minimum", 1e-3), ("bump", 1e-3)):
        np.testing.assert_allclose(found[name], expected[name], rtol=tolerance, atol=1e-6, err_msg=name)
    for name in ("phase", "winner", "lasts"):
        assert (found[name].values == expected[name].values).all(), name


def test_measures_are_those_of_the_record():
    """To the bit, for more runs than one call has, with the record of a run that ends below a threshold cut there."""
    model = tm.coopetition()
    options = dict(start=tm.paper_start(model, range(20)), t=2e4, alpha=tm_log(20), rtol=1e-6, atol=1e-9)
    record = tm.flow(model, **options)
    assert record.loss.isel(time=0).size > rosenbrock.WIDTH
    whole = tm.flow(model, observe=Measures(), **options)
    expected = tm.measure(record)
    for name in expected.data_vars:
        np.testing.assert_array_equal(whole[name], expected[name], err_msg=str(name))
    ended = tm.flow(model, observe=Measures(stop_below=1e-2), **options)
    np.testing.assert_array_equal(ended.stopped, tm.first_below(record.loss, 1e-2))
    assert ended.stopped.notnull().any() and ended.stopped.isnull().any()
    cut = record.where(record.time <= ended.stopped.fillna(np.inf))
    for name in ("final", "minimum"):
        for m in ("icl", "ciwl"):
            loss = cut[f"loss_{m}"]
            at_end = cut.time == ended.stopped.fillna(2e4)
            wanted = loss.where(at_end).max("time") if name == "final" else loss.min("time")
            np.testing.assert_array_equal(ended[name].sel(mechanism=m), wanted)


def tm_log(n):
    return xr.DataArray(np.geomspace(1e-2, 1, n), dims="alpha", coords={"alpha": np.geomspace(1e-2, 1, n)})


def test_neighbours_change_no_bit():
    model = tm.coopetition()
    options = dict(t=1000.0, rtol=1e-6, atol=1e-9, times=[0.0, 10.0, 1000.0])
    start = tm.paper_start(model, range(20))
    whole = tm.flow(model, start, alpha=tm_log(20), **options)
    for seeds, alphas in ((slice(7), slice(13)), (slice(7, 20), slice(4, 5))):
        part = tm.flow(model, start.isel(seed=seeds), alpha=tm_log(20).isel(alpha=alphas), **options)
        for name in whole.data_vars:
            wanted = whole[name]
            for d, where in (("seed", seeds), ("alpha", alphas)):
                wanted = wanted.isel({d: where}) if d in wanted.dims else wanted
            np.testing.assert_array_equal(part[name].transpose(*wanted.dims), wanted, err_msg=str(name))


def test_a_flow_that_takes_too_many_steps_is_refused():
    model = shaped("paper")
    with pytest.raises(RuntimeError, match="the flow of 2 runs did not reach t=200: raise max_steps=5, or rtol=1e-09"):
        tm.flow(model, tm.random_start(model, range(2)), 200.0, max_steps=5)
