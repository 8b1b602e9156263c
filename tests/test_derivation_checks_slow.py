"""A closed form that is off by one part in 10^12 does not pass the derivation that it comes from."""

from types import ModuleType
from typing import Any

import bump
import lifetime
import pytest
import sympy as sp
import weight_decay
from page import Page

from toymodel.theory import soonest
from toymodel.theory import transience as theory_of_lifetime

pytestmark = pytest.mark.slow

OFF = 1 + sp.Rational(1, 10**12)
LIFETIME = {  # the closed forms, and the section of the derivation that must refuse each when it is wrong
    "slaved_overlap": lifetime.drift,
    "drift_rate": lifetime.drift,
    "drift_prefactor": lifetime.drift,
    "balance": lifetime.coexistence,
    "fold": lifetime.coexistence,
    "coexistence": lifetime.coexistence,
    "forces": lifetime.room,
    "crowding": lifetime.room,
    "hold": lifetime.decay,
    "pull": lifetime.decay,
    "decay_prefactor": lifetime.decay,
    "remaining": lifetime.other_mu,
}
WEIGHT_DECAY = {
    "learning_limit_expression": weight_decay.learning,
    "icl_threshold_expression": weight_decay.icl,
    "drive_expression": weight_decay.icl,
    "ciwl_limit_expression": weight_decay.ciwl,
}
BUMP = {"x": bump.during, "z": bump.during, "x_0": bump.after}


@pytest.fixture(autouse=True, scope="module")
def right_forms_are_known():
    """They are cached: none may be computed while another one is wrong."""
    for name in LIFETIME:
        getattr(theory_of_lifetime, name)()


def refuses(section: Any) -> None:
    with pytest.raises(AssertionError, match="differ"):
        section(Page(__file__, "", []))


def replaced(monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str, part: int | None = None) -> None:
    """Makes the form (one part of it, where it has several) wrong."""
    right = getattr(module, name)

    def wrong(*arguments: Any) -> Any:
        value = right(*arguments)
        return value * OFF if part is None else tuple(v * (OFF if i == part else 1) for i, v in enumerate(value))

    monkeypatch.setattr(module, name, wrong)


@pytest.mark.parametrize("name", [name for name in LIFETIME if name not in ("balance", "forces")])
def test_a_wrong_form_of_the_lifetime(monkeypatch, name):
    replaced(monkeypatch, theory_of_lifetime, name)
    refuses(LIFETIME[name])


@pytest.mark.parametrize("name", ["balance", "forces"])
@pytest.mark.parametrize("part", [0, 1])
def test_a_wrong_part_of_a_pair(monkeypatch, name, part):
    replaced(monkeypatch, theory_of_lifetime, name, part)
    refuses(LIFETIME[name])


@pytest.mark.parametrize("name", ["relaxation_prefactor", "best_alpha_expression"])
def test_a_wrong_form_of_the_soonest_end(monkeypatch, name):
    replaced(monkeypatch, soonest, name)
    refuses(lifetime.soonest)


@pytest.mark.parametrize("section", [lifetime.drift, lifetime.relaxation, lifetime.coexistence, lifetime.room])
def test_the_right_forms_of_the_lifetime(section):
    page = Page(__file__, "", [])
    section(page)
    assert page.checks >= 1


@pytest.mark.parametrize("name", WEIGHT_DECAY)
def test_a_wrong_threshold_of_weight_decay(monkeypatch, name):
    replaced(monkeypatch, weight_decay, name)
    refuses(WEIGHT_DECAY[name])


@pytest.mark.parametrize("name", BUMP)
def test_a_wrong_form_of_the_bump(monkeypatch, name):
    right = bump.bump_expressions()
    monkeypatch.setattr(bump, "bump_expressions", lambda: {**right, name: right[name] * OFF})
    refuses(BUMP[name])


def test_a_wrong_height_of_the_bump(monkeypatch):
    replaced(monkeypatch, bump, "height_expression")
    refuses(bump.statement_of_height)


@pytest.mark.parametrize("section", [bump.during, bump.after, bump.statement_of_height])
def test_the_right_forms_of_the_bump(section):
    page = Page(__file__, "", [])
    section(page)
    assert page.checks >= 1
