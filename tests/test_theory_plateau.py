"""The plateau: its coefficients and growth rates against the gradient of the full model."""

import jax
import jax.numpy as jnp
import plateau as derivation
import pytest
import sympy as sp

import toymodel as tm
from toymodel.reduction import Plane, reduced_loss
from toymodel.theory import plateau


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


FACTOR = sp.Rational(10**12 + 1, 10**12)


@pytest.mark.parametrize(
    "section", [derivation.constant_coefficients, derivation.growth, derivation.weighted_sum, derivation.three_waves]
)
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
