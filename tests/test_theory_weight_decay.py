"""The thresholds of weight decay: their derivation, and descent on both sides of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sympy as sp
import weight_decay as derivation
import xarray as xr
from conftest import closeness

import toymodel as tm
import toymodel.reduction
from toymodel.theory.weight_decay import (
    POSITIVE,
    ciwl_limit_expression,
    decay_thresholds,
    icl_threshold_expression,
    with_weight_decay,
)

pytestmark = pytest.mark.slow

SECTIONS = (derivation.isolated, derivation.learning, derivation.icl, derivation.ciwl)


@pytest.mark.parametrize("section", SECTIONS, ids=lambda s: s.__name__)
def test_the_derivation_holds(section):
    page = derivation.Page(derivation.__file__, "", [])
    section(page)
    assert page.checks >= 1


@pytest.mark.parametrize("section", SECTIONS[::2] + SECTIONS[3:], ids=lambda s: s.__name__)
def test_a_wrong_coefficient_in_the_loss_is_found(monkeypatch, section):
    right = toymodel.reduction.cost_loss
    factor = 1 + sp.Rational(1, 10**12)
    monkeypatch.setattr(toymodel.reduction, "cost_loss", lambda planes, weight: right(planes, weight) * factor)
    with pytest.raises(AssertionError):
        section(derivation.Page(derivation.__file__, "", []))


@pytest.mark.parametrize("name", ["learning_limit_expression", "icl_threshold_expression", "ciwl_limit_expression"])
def test_a_wrong_threshold_is_found(monkeypatch, name):
    right = getattr(derivation, name)
    monkeypatch.setattr(derivation, name, lambda *count: right(*count) * (1 + sp.Rational(1, 10**12)))
    with pytest.raises(AssertionError, match="differ"):
        for section in SECTIONS[1:]:
            section(derivation.Page(derivation.__file__, "", []))


def test_expressions_and_functions_agree():
    model = tm.coopetition(dims=(5, 6, 7, 30), mu_icl=0.004, alpha=0.3)
    numbers = [1 / 210, 1 / (30 * 42), 1 / 150, 210**0.5, (30 * 42) ** 0.5, 0.004, 0.3]
    values = dict(zip(sp.symbols(" ".join(POSITIVE), positive=True), numbers, strict=True))
    found = decay_thresholds(model)
    assert closeness(found["icl"], float(icl_threshold_expression().subs(values)), 1e-12) <= 1
    assert closeness(found["ciwl"], float(ciwl_limit_expression().subs(values)), 1e-12) <= 1
    several = decay_thresholds(model, mu_icl=np.array([0.002, 0.004]))
    assert closeness(several["icl"], found["icl"] * np.array([0.25, 1]), 1e-12) <= 1


def ends(mu: float, alpha: float, rates: dict[str, float], overlap: dict[str, float]) -> xr.Dataset:
    """Descent for 20 / (the smallest decay) from an aligned start, one run for each rate."""
    model = with_weight_decay(tm.coopetition(mu_icl=mu, alpha=alpha))
    decay = xr.DataArray(list(rates.values()), dims="rate", coords={"rate": list(rates)})
    start = tm.aligned_start(model, overlap=overlap)
    steps = int(20 / decay.min() / 4)
    return tm.descend(model, start, steps, lr=4.0, every=steps, decay=decay).isel(time=-1)


def test_icl_persists_above_its_threshold_only():
    """From ICL, at mu_icl / alpha = 0.01 where the formula is 6 % off."""
    limit = float(decay_thresholds(tm.coopetition(), mu_icl=1e-3, alpha=0.1)["icl"])
    rates = {"below": 0.8 * limit, "above": 1.1 * limit}
    runs = ends(1e-3, 0.1, rates, {"a": 4.2, "b": 4.6, "c": 4.6, "d": 0.05})
    share = runs.loss_ciwl / runs.unlearned_ciwl
    assert share.sel(rate="above") > 0.7 and share.sel(rate="below") < 0.5


def test_ciwl_survives_below_its_limit_only():
    limit = float(decay_thresholds(tm.coopetition(), mu_icl=1e-3, alpha=0.1)["ciwl"])
    runs = ends(1e-3, 0.1, {"below": 0.97 * limit, "above": 1.03 * limit}, {"a": 0.3, "b": 6.3, "c": 6.3, "d": 6.3})
    share = runs.loss_ciwl / runs.unlearned_ciwl
    assert share.sel(rate="below") < 0.05 and share.sel(rate="above") > 0.5


def test_refuses_other_models():
    with pytest.raises(ValueError, match="like tm"):
        decay_thresholds(tm.long_pathway())


def test_arrays_and_where_there_is_no_fold_of_icl():
    """NaN for icl above mu_icl / alpha = 0.02, at the paper's dimensions; the same numbers when compiled by JAX."""
    mu = np.array([1e-3, 1.9e-3, 2.1e-3, 0.1])
    found = decay_thresholds(tm.coopetition(), mu_icl=mu)
    assert np.isnan(found["icl"]).tolist() == [False, False, True, True]
    compiled = jax.jit(lambda mu: decay_thresholds(tm.coopetition(), mu_icl=mu))(jnp.asarray(mu))
    for name in ("icl", "ciwl", "learning"):
        assert isinstance(compiled[name], jax.Array)
        np.testing.assert_allclose(compiled[name], found[name], rtol=1e-5)


def test_the_limit_of_ciwl_is_nan_where_it_would_exceed_that_of_learning():
    mu = np.array([0.12, 0.13, 10.0])
    found = decay_thresholds(tm.coopetition(), mu_icl=mu)["ciwl"]
    assert np.isnan(found).tolist() == [False, True, True]
    assert np.isnan(decay_thresholds(tm.coopetition(), mu_icl=1e-3, alpha=100.0)["ciwl"])
