"""Four groups: two systems that share them are one system in two units, and no fifth number is hidden."""

import numpy as np
import pytest
import sympy as sp
import units as derivation

import toymodel as tm
from toymodel.theory.units import GROUPS, group_expressions, groups


@pytest.mark.parametrize(
    ("model", "scale"), [(tm.coopetition(mu_ciwl=0.01), 1.0), (tm.shared_encoder(mu_ciwl=0.01), 2.0)]
)
def test_systems_with_equal_groups_are_equal_in_their_units(model, scale):
    assert derivation.agreement(model, 3_000.0, scale) < 1e-9


@pytest.mark.parametrize("name", ["alpha", "mu_icl", "mu_ciwl"])
def test_a_group_that_differs_shows(monkeypatch, name):
    """The agreement is not for want of dynamics: one parameter 1 % off is seen."""
    right = derivation.twin

    def wrong(*arguments):
        model, parameters = right(*arguments)
        return model.with_parameters(**{name: 1.01 * parameters[name]}), parameters

    monkeypatch.setattr(derivation, "twin", wrong)
    monkeypatch.setattr(derivation, "GROUPS", ())
    assert derivation.agreement(tm.coopetition(mu_ciwl=0.01), 3_000.0) > 1e-6


@pytest.mark.parametrize("name", ["length", "time", "r", "m_icl", "m_ciwl", "kappa"])
def test_a_wrong_unit_or_group_is_found(monkeypatch, name):
    right = derivation.group_expressions
    monkeypatch.setattr(
        derivation, "group_expressions", lambda form: {**right(form), name: right(form)[name] * sp.Rational(1001, 1000)}
    )
    with pytest.raises(AssertionError, match="differ"):
        for one, other in zip(*derivation.in_units(tm.coopetition()), strict=True):
            derivation.page_check(one, other)


@pytest.mark.parametrize("model", [tm.coopetition(), tm.long_pathway(), tm.shared_encoder()], ids=lambda m: len(m.dims))
def test_every_velocity_in_units_is_that_of_the_bare_system(model):
    for one, other in zip(*derivation.in_units(model), strict=True):
        derivation.page_check(one, other)


def test_groups_of_the_paper_by_hand():
    """S1 = 20^(3/2), S2 = 20 sqrt(160), weights of a mean: every norm and weight cancels but for r and mu / (1/2)."""
    found = groups(tm.coopetition(alpha=0.3, mu_icl=0.1, mu_ciwl=0.05))
    expected = {"r": 8**0.5, "m_icl": 0.2, "m_ciwl": 0.1, "kappa": 0.3, "length": 20**0.5, "time": 64000 * 8000 / 20**5}
    for name, value in expected.items():
        assert float(found[name]) == pytest.approx(value, rel=1e-12), name


def test_groups_follow_the_targets_of_a_start():
    model = tm.coopetition()
    start = tm.random_start(model, range(4))
    found = groups(model, start, alpha=[0.1, 0.2])
    norms = start["target_norm"]
    assert found.sizes == {"seed": 4, "alpha": 2}
    np.testing.assert_allclose(found.r.isel(alpha=0), norms.sel(vector="d") / norms.sel(vector="a"))
    np.testing.assert_allclose(found.kappa.isel(alpha=1), 2 * found.kappa.isel(alpha=0))


def test_another_loss_is_refused():
    with pytest.raises(ValueError, match="the groups are those of the loss"):
        groups(tm.induction())
    assert set(GROUPS) < set(group_expressions(tm.long_pathway().form))
