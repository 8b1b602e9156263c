"""The weighted sum, its first order and the closed form of small starts, against descent, flow and scipy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.special import elliprf
from theory_emergence import measured, random_runs, score

import toymodel as tm
from toymodel.theory import three_waves
from toymodel.theory import weighted_sum as theory

pytestmark = pytest.mark.slow


def flowed(start, horizon, **parameters):
    """The time of emergence under gradient flow, located on 3,000 recorded times by interpolation."""
    times = np.concatenate([[0], np.geomspace(1, horizon, 3_000)])
    runs = tm.flow(tm.coopetition(), start, horizon, times=times, progress=False, **parameters)
    return tm.first_below(runs["loss_icl"] / runs["unlearned_icl"], 0.5)


@pytest.mark.parametrize(("kind", "least"), [("standard", 200), ("scaled", 200), ("large", 100), ("dims", 40)])
def test_emergence_is_predicted_from_random_starts(kind, least):
    start, weights, parameters = random_runs(300, seed=11, kind=kind)
    time, _ = measured(start, weights, parameters, steps=20_000, large=kind == "large")
    found = theory.emergence(tm.coopetition(), start, horizon=20_000, weights=weights, **parameters)
    first_order = score(time, found["emergence"])
    assert first_order["scored"] >= least
    assert first_order["R2"] > 0.998 and first_order["median error"] < 0.012
    assert first_order["worse than 50 %"] == 0 and first_order["predicted to in vain"] <= 2
    zeroth = score(time, found["frozen"].where(found["emergence"].notnull()))
    assert zeroth["R2"] > 0.99 and zeroth["median error"] > first_order["median error"]


def test_the_first_order_is_nearer_to_the_flow_than_the_zeroth():
    model = tm.coopetition()
    start = tm.random_start(model, range(40), scale=0.3)
    found = theory.emergence(model, start, horizon=20_000)
    time = flowed(start, 20_000)
    error = abs(found["emergence"] / time - 1).where(found["emergence"].notnull(), drop=True)
    zeroth = abs(found["frozen"] / time - 1).where(found["emergence"].notnull(), drop=True)
    assert float(error.median()) < 0.004 and float(zeroth.median()) > 2 * float(error.median())


@pytest.mark.parametrize("factor", [0.97, 1.03])
def test_a_wrong_drive_predicts_worse(factor):
    """A weight of ICL that is 3 % off shifts the median by as much: the score is not lax."""
    start, weights, parameters = random_runs(100, seed=11, kind="scaled")
    time, _ = measured(start, weights, parameters, steps=10_000)
    wrong = {**weights, "icl": factor * weights["icl"]}
    right = theory.emergence_time(tm.coopetition(), start, horizon=10_000, weights=weights, **parameters)
    off = theory.emergence_time(tm.coopetition(), start, horizon=10_000, weights=wrong, **parameters)
    shift = [float((guess / time).median()) for guess in (right, off)]
    assert abs(shift[0] - 1) < 0.006 and abs(shift[1] - 1) > 0.01


def test_the_zeroth_order_is_the_weighted_sum_of_the_losses():
    """Without residuals to speak of: the same time as a model whose loss is that sum, with its own slopes."""
    model = tm.coopetition()
    start = tm.aligned_start(model, overlap={"a": 0.2, "b": 0.1, "c": 0.15, "d": 0.1}, residual=0.05)
    n = {t: 0.5 for t in ("icl", "ciwl")}
    summed = tm.Model(
        model.mechanisms,
        lambda icl, ciwl, cost, *, one, two, alpha: one * icl + two * ciwl + alpha * cost,
        model.dims,
        model.costs,
        {"one": n["ciwl"], "two": n["icl"] + 0.1, "alpha": 0.1},
    )
    times = np.linspace(0, 3_000, 6_001)
    runs = tm.flow(summed, start, 3_000, times=times, progress=False)
    time = float(tm.first_below(runs["loss_icl"] / runs["unlearned_icl"], 0.5))
    found = theory.emergence(model, start)
    assert float(found["frozen"]) == pytest.approx(time, rel=2e-3)
    assert float(theory.emergence(summed, start)["shift"]) == pytest.approx(0, abs=1e-9)
    assert float(theory.emergence(summed, start)["emergence"]) == pytest.approx(time, abs=0.6)


def test_first_order_is_the_derivative_in_the_strength_of_learning():
    """d at emergence is the change of the path per unit of epsilon in slopes e + epsilon (progress), by finite
    differences of two flows; a product loss is that with epsilon = 1."""
    model = tm.coopetition()
    start = tm.aligned_start(model, overlap={"a": 0.2, "b": 0.3, "c": 0.15, "d": 0.4}, residual=0.3)
    form, free = model.form, (True,) * 8
    k = theory.Constants(
        {x: jnp.full(1, norm) for x, norm in model.target_norms.items()},
        {t: jnp.full(1, w) for t, w in model.weights.items()},
        {p: jnp.full(1, value) for p, value in model.parameters.items()},
    )
    with jax.enable_x64(True):
        k = jax.tree.map(lambda x: jnp.asarray(np.asarray(x), jnp.float64), k)
        y0 = np.concatenate([start["overlap"].values, start["residual"].values])

        @jax.jit
        def velocity(y, epsilon):
            zeroth, added = theory.field(form, free, y[:, None], k)
            return (zeroth + epsilon * added)[:, 0]

        def end(epsilon):
            def change(_, y):
                return np.asarray(velocity(jnp.asarray(y), epsilon))

            return solve_ivp(change, (0, 400), y0, rtol=1e-11, atol=1e-12).y[:, -1]

        difference = (end(1e-4) - end(-1e-4)) / 2e-4
        together = jax.jit(lambda z: theory._change(form, free, z[:, None], k)[:, 0])
        z = solve_ivp(
            lambda _, z: np.asarray(together(jnp.asarray(z))), (0, 400), [*y0, *np.zeros(8)], rtol=1e-11, atol=1e-12
        )
    np.testing.assert_allclose(z.y[8:, -1], difference, rtol=1e-4, atol=1e-8)


def test_the_unlearned_terms_are_those_of_turned_vectors():
    """The zeroth order's terms are those of the loss of all entries for vectors of the same norms, orthogonal to their
    targets; a cost does not change when they are turned."""
    model = tm.coopetition()
    vectors = tm.random_vectors(model, 3)
    start, turned = tm.from_vectors(model, vectors), vectors.copy()
    for x in model.vectors:
        own, target = vectors[x].values, vectors[f"{x}_target"].values
        across = own - own @ target / (target @ target) * target
        turned[x] = vectors[x].copy(data=across * np.linalg.norm(own) / np.linalg.norm(across))
    run = tm.descend_vectors(model, turned, 1)
    y = np.concatenate([start.overlap.values, start.residual.values])[:, None]
    k = theory.Constants(
        {x: np.full(1, float(start.target_norm.sel(vector=x))) for x in model.vectors},
        {t: np.full(1, w) for t, w in model.weights.items()},
        {p: np.full(1, value) for p, value in model.parameters.items()},
    )
    found = theory.unlearned(model.form, y, k)
    for name in ("icl", "ciwl", "cost"):
        recorded = run["cost" if name == "cost" else f"loss_{name}"]
        assert found[name].item() == pytest.approx(float(recorded[0]), rel=1e-9)


def test_blocked_runs_and_other_pathways_are_predicted_too():
    for model, scales in (
        (tm.coopetition(), {"scale": 0.3}),
        (tm.long_pathway(), {"scale": 0.5, "target_scale": {"d": 3.0} | dict.fromkeys("abce", 1.0)}),
    ):
        start = tm.random_start(model, range(60), **scales)
        held = [tm.Clamp("d", overlap=0, residual=0)]
        for without, acts in ((None, []), ("ciwl", held)):
            runs = tm.descend(model, start, 40_000, lr=0.5, every=20, interventions=acts, progress=False)
            time = tm.measure(runs).emergence.sel(mechanism="icl", drop=True)
            found = score(time, theory.emergence_time(model, start, horizon=20_000, without=without))
            assert found["scored"] >= 10 and found["median error"] < 0.02, (model.mechanisms, without, found)
            assert found["worse than 50 %"] <= 1 and found["predicted to in vain"] <= 2


def test_the_shared_encoder_is_outside():
    """CIWL is half learned when ICL emerges: nothing is predicted."""
    model = tm.shared_encoder()
    assert theory.emergence_time(model, tm.random_start(model, range(60), scale=0.3), horizon=20_000).isnull().all()


def test_a_run_that_cannot_emerge_is_nan():
    model = tm.coopetition()
    start = tm.aligned_start(model, overlap={"a": 0.1, "b": 0.0, "c": 0.0, "d": 0.1}, residual=1.0)
    assert theory.emergence_time(model, start, horizon=5_000).isnull()


def test_a_run_in_which_ciwl_is_learned_first_is_nan():
    """The target of d is short: CIWL is learned first, and the weights of the sum do not stay."""
    model = tm.coopetition(dims=(20, 20, 20, 10), mu_icl=0.5)
    start = tm.aligned_start(model, overlap={"a": 0.02, "b": 0.1, "c": 0.1, "d": 0.3})
    runs = tm.measure(tm.descend(model, start, 20_000, every=10, progress=False))
    assert runs.emergence.sel(mechanism="ciwl") < 20_000
    assert theory.emergence_time(model, start, horizon=20_000).isnull()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"horizon": -1.0}, "horizon"),
        ({"without": "icl"}, r"without must be None or one of \['ciwl'\], got 'icl'"),
        ({"mechanism": "iwl"}, r"mechanism must be one of \['icl', 'ciwl'\], got 'iwl'"),
    ],
)
def test_errors_name_the_argument(arguments, message):
    model = tm.coopetition()
    with pytest.raises(ValueError, match=message):
        theory.emergence_time(model, tm.aligned_start(model), **arguments)


def test_carlson_is_scipys():
    x, y, z = np.exp(np.random.default_rng(0).uniform(-20, 20, (3, 200)))
    np.testing.assert_allclose(three_waves.carlson(x, y, z), elliprf(x, y, z), rtol=1e-13)
    np.testing.assert_allclose(three_waves.carlson(0 * x, y, z), elliprf(0 * x, y, z), rtol=1e-13)
    with jax.enable_x64(True):
        np.testing.assert_allclose(three_waves.carlson(*map(jnp.asarray, (x, y, z))), elliprf(x, y, z), rtol=1e-13)


@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, 1), (1, -1, -1), (-1, -1, -1)])
def test_divergence_time_is_that_of_the_three_waves(signs):
    """scipy's integration until the least of the three is 1e4, plus what is left of the time there, 1 / 1e4 rate."""
    start, rate = np.array([0.3, 0.7, 0.4]) * signs, 2.5

    def change(_, y):
        return rate * np.array([y[1] * y[2], y[0] * y[2], y[0] * y[1]])

    def far(_, y):
        return np.abs(y).min() - 1e4

    far.terminal = True
    solved = solve_ivp(change, (0, 100), start, events=far, rtol=1e-12, atol=1e-12)
    expected = solved.t_events[0][0] + 1 / (1e4 * rate)
    assert float(three_waves.divergence_time(*start, rate)) == pytest.approx(expected, rel=1e-8)


def test_the_three_waves_reach_a_product_where_it_is_said():
    """A b c along scipy's integration: at the time at which it is the goal, A^2 is what `_square_at` says."""
    start, goals = np.array([0.3, 0.7, 0.4]), np.array([0.2, 5.0, 300.0])
    for goal in goals.tolist():

        def reached(_, y, goal=goal):
            return y.prod() - goal

        reached.terminal = True
        solved = solve_ivp(lambda _, y: y.prod() / y, (0, 100), start, events=reached, rtol=1e-12, atol=1e-12)
        found = three_waves._square_at(*(np.full(1, x) for x in start), np.full(1, goal))
        assert found.item() == pytest.approx(solved.y_events[0][0][0] ** 2, rel=1e-7)


@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, 1)])
def test_divergence_time_has_gradients(signs):
    point = np.array([0.3, 0.7, 0.4]) * signs
    with jax.enable_x64(True):
        slopes = jax.grad(lambda y: three_waves.divergence_time(y[0], y[1], y[2], 1.3))(jnp.asarray(point))
    for i in range(3):
        ahead, behind = (three_waves.divergence_time(*(point + s * np.eye(3)[i]), 1.3) for s in (1e-6, -1e-6))
        assert float(slopes[i]) == pytest.approx((ahead - behind) / 2e-6, rel=1e-6)


@pytest.mark.parametrize(("scale", "most", "within"), [(0.01, 0.005, 0.5), (0.1, 0.02, 0.5)])
def test_small_starts_are_closed(scale, most, within):
    model = tm.coopetition()
    start = tm.random_start(model, range(300), scale=scale)
    found = three_waves.small_start_time(model, start)
    exact = theory.emergence_time(model, start, horizon=1e6)
    error = abs(found["emergence"] / exact - 1).values
    error = error[np.isfinite(error)]
    assert len(error) > 200 and np.median(error) < most and error.max() < within


def test_more_mechanisms():
    """Three mechanisms, K^2 = sum k_m^2; the first to be learned is that of the largest k_m / T_m."""
    model = tm.Model(
        {"icl": "abc", "ciwl": "dbc", "third": "ebc"},
        lambda icl, ciwl, third: (icl + 0.1) * (ciwl + 0.2) * (third + 0.3),
        dict.fromkeys("abcde", 20) | {"d": 60, "e": 40},
    )
    start = tm.random_start(model, range(60), scale=0.01)
    runs = tm.measure(tm.descend(model, start, 60_000, lr=4.0, every=5, progress=False))
    emergence = runs.emergence
    order = emergence.fillna(np.inf)
    first = order["mechanism"].values[order.argmin("mechanism").values]
    for mechanism in model.mechanisms:
        found = three_waves.small_start_time(model, start, mechanism=mechanism)
        error = abs(found["emergence"] / emergence.sel(mechanism=mechanism, drop=True) - 1)
        mine = (found["first"] == mechanism).values & (first == mechanism)
        if mine.sum() > 5:
            assert float(error[mine].median()) < 0.01
    said = three_waves.small_start_time(model, start)["first"].values
    emerged = np.isfinite(order.min("mechanism").values)
    assert (said == first)[emerged].mean() > 0.95


def test_the_universal_law_by_quadrature_of_its_draws():
    """Other draws, scipy's R_F: quantiles within 1 %."""
    a, b, c = np.random.default_rng(77).standard_normal((3, 100_000))
    squares = np.stack([a**2, b**2, c**2])
    least = squares.min(0)
    direct = elliprf(*squares)
    time = np.where(a * b * c > 0, direct, 2 * elliprf(*(squares - least)) - direct)
    levels = (0.05, 0.25, 0.5, 0.75, 0.95)
    np.testing.assert_allclose(three_waves.universal_quantiles(levels), np.quantile(time, levels), rtol=0.015)


def test_what_is_outside_of_the_closed_form():
    model = tm.coopetition()
    found = three_waves.small_start_time(model, tm.random_start(model, range(50)))
    assert found["emergence"].isnull().mean() > 0.9
    with pytest.raises(ValueError, match="one private vector each and two that all share"):
        three_waves.small_start_time(tm.long_pathway(), tm.aligned_start(tm.long_pathway()))
    with pytest.raises(ValueError, match="mechanism must be one of"):
        three_waves.small_start_time(model, tm.aligned_start(model), mechanism="cost")
