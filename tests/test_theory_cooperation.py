"""Cooperation: the indices, the quadrature, the law of the speed-up and the region, against simulations."""

import cooperation as derivation
import numpy as np
import pytest
import sympy as sp
import xarray as xr
from scipy.integrate import quad
from theory_cooperation import Candidate, speed_up_error, with_claim

import toymodel as tm
from toymodel.theory import cooperation, escape

HELD = (tm.Clamp("d", overlap=0, residual=0),)


def emergence(runs):
    return tm.measure(runs).emergence.sel(mechanism="icl", drop=True)


@pytest.mark.parametrize(("acts", "name"), [((), "together"), (HELD, "alone")])
def test_growth_rates_are_those_of_runs(acts, name):
    model = tm.coopetition(alpha=0.0, dims=(20, 20, 20, 10))
    start = tm.aligned_start(model, overlap={"a": 1e-4, "b": 0.5, "c": 1e-4, "d": 0.0 if acts else 1e-4})
    rate = float(tm.growth(model, start)[name])
    run = tm.descend(model, start, int(60 / rate), lr=0.1, every=10, interventions=acts)
    late = run.overlap.sel(vector="c", time=slice(4 / rate, 6 / rate))
    assert float(np.polyfit(late.time, np.log(late), 1)[0]) == pytest.approx(rate, rel=5e-3)


def test_cost_slows_the_growth_by_the_competition_index():
    matrix = np.array([[-0.02, 0, 1.0], [0, -0.05, 0.6], [1.0, 0.6, 0]])  # B = 1, k1 = 1, k2 = 0.6, g_a, g_d
    values = {"B": 1.0, "k1": 1.0, "k2": 0.6, "g_a": 0.02, "g_d": 0.05}
    found = {
        name: float(e.subs({s: values[s.name] for s in e.free_symbols})) for name, e in tm.growth_expressions().items()
    }
    assert found["net"] == pytest.approx(np.linalg.eigvalsh(matrix).max(), abs=3e-4)
    assert found["competition"] == pytest.approx(found["cooperation"] - found["net"], abs=1e-12)


@pytest.mark.parametrize(
    ("model", "strong", "lr"), [(tm.coopetition(0.0), 1.0, 1.0), (tm.long_pathway(0.0), 4.0, 0.25)]
)
@pytest.mark.parametrize("without", [None, "ciwl"])
def test_quadrature_predicts_small_starts(model, strong, lr, without):
    scales = xr.DataArray([0.03, 0.06, 0.1], dims="scale", coords={"scale": [0.03, 0.06, 0.1]})
    norms = {x: t * (strong if x == "d" else 1.0) for x, t in model.target_norms.items()}
    start = tm.aligned_start(model, overlap={x: 1.0 if x == "d" else scales for x in model.vectors}, target_norm=norms)
    predicted = escape.escape(model, start, without=without).emergence
    steps = int(1.2 * float(predicted.max()) / lr)
    runs = tm.descend(model, start, steps, lr=lr, every=10, interventions=HELD if without else ())
    assert float(np.abs(predicted / emergence(runs) - 1).max()) < 0.05


def test_quadrature_turns_where_an_overlap_starts_with_the_wrong_sign():
    model = tm.coopetition(0.0)
    start = tm.aligned_start(model, overlap={"a": 0.15, "b": -0.02, "c": 0.1, "d": 0.1})
    predicted = float(escape.escape(model, start).emergence)
    found = float(emergence(tm.descend(model, start, int(2 * predicted), every=5)))
    assert predicted == pytest.approx(found, rel=0.03)


def test_speed_up_in_its_range():
    """A short version of benchmarks/theory_cooperation.py."""
    found = speed_up_error(150, seed=5, time=25_000)
    assert found["runs"] > 60 and found["median error"] < 0.05


def test_law_of_one_private_vector_is_the_integral():
    values = {"sigma": 0.05, "d0": 0.8, "k1": 0.3, "k2": 0.2}
    slope = values["sigma"] * values["k1"] + values["d0"] * values["k2"]
    square = values["k1"] ** 2 + values["k2"] ** 2
    exact = quad(lambda s: 1 / (values["sigma"] ** 2 + 2 * slope * s + square * s**2), 0, np.inf)[0]
    expression = tm.law_expressions(1)["with_ciwl"]
    assert float(expression.subs({s: values[s.name] for s in expression.free_symbols})) == pytest.approx(
        exact, rel=1e-7
    )


@pytest.mark.parametrize("private", [1, 2])
def test_speed_up_grows_with_the_power_of_the_depth(private):
    """speed_up sigma^n ln(2 d0 / sigma) tends to a constant."""
    expression = tm.law_expressions(private)["speed_up"]
    of = sp.lambdify([s for s in sorted(expression.free_symbols, key=str)], expression)
    sigma = np.array([1e-8, 1e-9, 1e-10])
    names = sorted(s.name for s in expression.free_symbols)
    values = np.array([of(**{n: {"d0": 1.0, "k1": 1.0, "k2": 1.0, "sigma": s}[n] for n in names}) for s in sigma])
    slope = np.diff(np.log(values * np.log(2 / sigma))) / np.diff(np.log(sigma))
    assert slope == pytest.approx(-private, abs=3e-3)


def test_paper_lies_outside_and_the_preset_inside_of_the_region():
    scales, targets = tm.LONG_PATHWAY_START["scale"], tm.LONG_PATHWAY_START["target_scale"]
    assert not bool(tm.region(tm.coopetition(), 1.0, 1.0))
    assert bool(tm.region(tm.long_pathway(), scales["a"], scales["d"], target_scale=dict(targets)))
    assert float(tm.law(tm.coopetition(), 1.0, 1.0).speed_up) == pytest.approx(1.2, abs=0.05)


def test_first_changes_sides_with_the_target_of_d():
    """T_d^2 / 2 + mu_2 N_2 against T_a^2 / 2 + mu_1 N_1, from the targets by hand."""
    for entries in (10, 20, 25, 40):
        model = tm.coopetition(mu_icl=0.1, dims=(20, 20, 20, entries))
        by_hand = 400 * entries / 2 > 400 * 20 / 2 + 0.1 * 8000
        assert bool(tm.law(model, 0.01, 0.1)["first"]) == by_hand


def test_long_pathway_has_the_claim_and_the_published_model_has_not():
    """ICL first, transient, at least 10 times later or never with CIWL blocked; a short version of the benchmark."""
    scale = dict(tm.LONG_PATHWAY_START["scale"])
    preset = with_claim(Candidate("preset", tm.long_pathway(), scale, 4.0, 0.25), range(60), 15_000, 60_000)
    assert preset["all"] >= 0.95
    assert with_claim(Candidate("published", tm.coopetition(), {"a": 1.0}), range(60), 15_000, 60_000)["all"] < 0.1


def test_a_wrong_drive_or_law_does_not_pass_the_derivation(monkeypatch):
    right = cooperation.law_expressions
    monkeypatch.setattr(
        derivation, "law_expressions", lambda n: {k: e * sp.Rational(10**12 + 1, 10**12) for k, e in right(n).items()}
    )
    page = derivation.Page(derivation.__file__, "", [])
    with pytest.raises(AssertionError, match="differ"):
        derivation.the_law(page)
    wrong = {**cooperation.growth_expressions(), "net": cooperation.B * cooperation.K1}
    monkeypatch.setattr(derivation, "growth_expressions", lambda: wrong)
    with pytest.raises(AssertionError, match="differ"):
        derivation.indices(page)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tm.law(tm.long_pathway(), 1.0, 1.0), "0 < scale < scale_d"),
        (lambda: tm.law(tm.coopetition(), 0.0, 1.0), "0 < scale < scale_d"),
        (lambda: tm.growth(tm.long_pathway(), tm.aligned_start(tm.long_pathway())), "mechanisms of three vectors"),
        (lambda: escape.escape(tm.coopetition(), tm.aligned_start(tm.coopetition()), without="icl"), "without must be"),
    ],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()
