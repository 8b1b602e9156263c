"""The plateau: coefficients, decay and the predicted time of emergence, against the full model and scipy."""

import jax
import jax.numpy as jnp
import numpy as np
import plateau as derivation
import pytest
import sympy as sp
from scipy.integrate import solve_ivp
from theory_emergence import measured, random_runs, score

import toymodel as tm
from toymodel.reduction import Plane, reduced_loss
from toymodel.theory import plateau

pytestmark = pytest.mark.slow


def test_coefficients_are_those_of_the_gradient_near_the_plateau():
    model = tm.coopetition(alpha=0.3, mu_icl=0.2, mu_ciwl=0.1)
    start = tm.aligned_start(model, overlap={"a": 2e-3, "b": -1e-3, "c": 3e-3, "d": 4e-3}, residual=0.0)
    rates = plateau.rates(model, start)
    with jax.enable_x64(True):
        norms = {x: float(t) for x, t in model.target_norms.items()}
        u = {x: jnp.asarray(float(start.overlap.sel(vector=x))) for x in "abcd"}

        def loss(u):
            planes = {x: Plane(u[x], jnp.asarray(0.0), norms[x]) for x in "abcd"}
            return reduced_loss(model.form, planes, dict(model.weights), dict(model.parameters))

        slope = {x: float(g) for x, g in jax.grad(loss)(u).items()}
    k1, k2 = (float(rates.drive.sel(mechanism=m)) for m in ("icl", "ciwl"))
    cost = float(rates.damping.sel(term="cost"))
    u = {x: float(value) for x, value in u.items()}
    expected = {
        "a": k1 * u["b"] * u["c"] - cost * u["d"] ** 2 * u["a"],
        "b": (k1 * u["a"] + k2 * u["d"]) * u["c"],
        "d": k2 * u["b"] * u["c"] - cost * u["a"] ** 2 * u["d"],
    }
    for x, value in expected.items():
        assert -slope[x] == pytest.approx(value, rel=1e-4)


def test_coefficients_of_the_published_model_by_hand():
    drive, damping = plateau.coefficients(tm.coopetition().form)
    t = {x: sp.Symbol(f"T_{x}", positive=True) for x in "abcd"}
    w1, w2, w3 = (sp.Symbol(f"w_{name}", positive=True) for name in ("icl", "ciwl", "cost"))
    mu2, alpha = sp.symbols("mu_ciwl alpha", nonnegative=True)
    slope = w2 / 2 * (t["d"] * t["b"] * t["c"]) ** 2 + mu2
    assert sp.expand(drive["icl"] - slope * w1 * t["a"] * t["b"] * t["c"]) == 0
    assert sp.expand(damping["icl"] - slope * w1) == 0
    assert sp.expand(damping["cost"] - alpha * w3) == 0


@pytest.mark.parametrize(("r0", "delta", "h"), [(3.0, 0.0, 0.2), (3.0, 2.0, 0.2), (1e-3, 5.0, 0.01), (4.0, 1e-9, 0.3)])
def test_decay_solves_its_equation(r0, delta, h):
    times = np.array([0.0, 0.5, 3.0, 20.0])
    exact = solve_ivp(
        lambda t, r: -2 * h * r * (r + delta), (0, 20), [r0], t_eval=times, rtol=1e-11, atol=1e-14, method="LSODA"
    ).y[0]
    with jax.enable_x64(True):
        found = plateau.decay(np.full(4, r0), np.full(4, delta), np.full(4, h), times)
    np.testing.assert_allclose(found, exact, rtol=1e-7, atol=1e-12)


def test_decay_is_its_expression():
    expression = plateau.decay_expression()
    values = {"r0": 2.0, "delta": 0.7, "h": 0.3, "t": 1.9}
    with jax.enable_x64(True):
        found = float(plateau.decay(**{name: jnp.asarray([value]) for name, value in values.items()})[0])
    symbols = {s.name: s for s in expression.free_symbols}
    assert found == pytest.approx(float(expression.subs({symbols[k]: v for k, v in values.items()})), rel=1e-12)


@pytest.mark.parametrize("scaled", [False, True])
def test_emergence_is_predicted_from_random_starts(scaled):
    start, weights, parameters = random_runs(300, seed=11, scaled=scaled)
    time = measured(start, weights, parameters, steps=20_000)
    predicted = plateau.emergence_time(tm.coopetition(), start, horizon=20_000, weights=weights, **parameters)
    found = score(time, predicted)
    assert found["emerge"] > 250 and found["not predicted to"] < 5
    assert found["R2"] >= 0.95 and found["median error"] < 0.1
    assert found["emerge"] - found["not predicted to"] == found["scored"]


def test_a_wrong_drive_predicts_worse(monkeypatch):
    """The score is not so lax that a drive of 80 % would pass."""
    start, weights, parameters = random_runs(100, seed=11)
    time = measured(start, weights, parameters, steps=10_000)
    right = plateau.numbers_of

    def wrong(*arguments):
        drive, damping = right(*arguments)
        return {m: 0.8 * k for m, k in drive.items()}, damping

    monkeypatch.setattr(plateau, "numbers_of", wrong)
    predicted = plateau.emergence_time(tm.coopetition(), start, horizon=10_000, weights=weights, **parameters)
    assert score(time, predicted)["median error"] > 0.1


def test_blocked_runs_are_predicted_too():
    model = tm.coopetition()
    start = tm.random_start(model, range(60), scale=0.3)
    runs = tm.descend(model, start, 20_000, every=10, interventions=[tm.Clamp("d", overlap=0, residual=0)])
    time = tm.measure(runs).emergence.sel(mechanism="icl")
    predicted = plateau.emergence_time(model, start, horizon=20_000, without="ciwl")
    found = score(time, predicted)
    assert found["R2"] > 0.99 and found["median error"] < 0.05


def test_a_run_that_cannot_emerge_is_nan():
    model = tm.coopetition()
    start = tm.aligned_start(model, overlap={"a": 0.1, "b": 0.0, "c": 0.0, "d": 0.1}, residual=1.0)
    assert plateau.emergence_time(model, start, horizon=5_000).isnull()


FACTOR = sp.Rational(10**12 + 1, 10**12)


@pytest.mark.parametrize("section", [derivation.constant_coefficients, derivation.growth, derivation.decays])
def test_the_algebra_holds(section):
    page = derivation.Page(derivation.__file__, "", [])
    section(page)
    assert page.checks >= 2


@pytest.mark.parametrize("kind, name", [(0, "icl"), (0, "ciwl"), (1, "icl"), (1, "ciwl"), (1, "cost")])
def test_a_wrong_coefficient_is_found(monkeypatch, kind, name):
    """Drives (0) and dampings (1)."""
    right = plateau.coefficients

    def wrong(form):
        found = [dict(part) for part in right(form)]
        found[kind][name] *= FACTOR
        return found

    monkeypatch.setattr(derivation, "coefficients", wrong)
    with pytest.raises(AssertionError, match="differ"):
        derivation.constant_coefficients(derivation.Page(derivation.__file__, "", []))


@pytest.mark.parametrize("name", ["together", "alone", "net"])
def test_a_wrong_rate_is_found(monkeypatch, name):
    right = derivation.growth_expressions()
    monkeypatch.setattr(derivation, "growth_expressions", lambda: {**right, name: right[name] * FACTOR})
    with pytest.raises(AssertionError, match="differ"):
        derivation.growth(derivation.Page(derivation.__file__, "", []))


def test_a_wrong_decay_is_found(monkeypatch):
    monkeypatch.setattr(derivation, "decay_expression", lambda: plateau.decay_expression() * FACTOR)
    with pytest.raises(AssertionError, match="differ"):
        derivation.decays(derivation.Page(derivation.__file__, "", []))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"horizon": -1.0}, "horizon"),
        ({"without": "icl"}, "without must be None or 'ciwl', got 'icl'"),
        ({"model": tm.long_pathway()}, "mechanisms of three vectors"),
        ({"model": tm.induction()}, "must have the mechanisms icl and ciwl"),
    ],
)
def test_errors_name_the_argument(arguments, message):
    model = arguments.pop("model", tm.coopetition())
    with pytest.raises(ValueError, match=message):
        plateau.emergence_time(model, tm.aligned_start(model), **arguments)
