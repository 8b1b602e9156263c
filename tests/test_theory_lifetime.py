"""The lifetime of ICL: its stages against simulation, limits, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import sympy as sp
import xarray as xr
from page import assert_equal
from scipy.integrate import solve_ivp
from scipy.optimize import brentq
from theory_lifetime import DATA, GRIDS, MODEL, START, compared, errors, exponent, over
from theory_ranges import shortest

import toymodel as tm
from toymodel.reduction import symbols
from toymodel.theory import compiled, fading, slow_manifold, soonest
from toymodel.theory import transience as theory
from toymodel.theory.arrays import function

pytestmark = pytest.mark.slow

PLANES, WEIGHTS, PARAMETERS = symbols(MODEL.form)
S_ICL, S_CIWL = theory.target("abc"), theory.target("dbc")


@pytest.fixture(scope="module")
def grid():
    """25 points over the range of the law, predicted and measured."""
    return compared(np.geomspace(3e-3, 0.3, 5), np.geomspace(1e-4, 1, 5))


def test_predicted_lifetime_is_the_measured_one(grid):
    found = errors(grid)
    assert np.median(found) < 0.05 and np.quantile(found, 0.95) < 0.15


def test_there_is_no_coexistence_where_the_fold_leaves_no_room():
    """Far below the range: adding it would make these lifetimes 1.5 to 3 times too long."""
    for mu, alpha in ((1e-5, [2e-5, 4e-5]), (1e-4, [2e-4, 4e-4, 7e-4, 1.5e-3])):
        found = compared(alpha, [mu], points=2000)
        assert float(found.coexistence.max()) == 0
        assert errors(found).max() < 0.1
    assert tm.theory.lifetime(MODEL, START, alpha=1e-3, mu_icl=1e-5).coexistence > 0


def test_where_the_fold_is_near_the_least_one_the_orbit_is_followed():
    """There the stages with coexistence are 1.4 times too long, and those without it half as long as they should be."""
    for alpha in (8.5e-5, 1.2e-4):
        assert errors(compared([alpha], [1e-5], points=2000)).max() < 0.05


def test_least_fold():
    """By brute force, with the fraction written out; for S_icl > S_ciwl there is always room."""
    numbers = {f"T_{x}": norm for x, norm in MODEL.target_norms.items()} | {f"w_{t}": 1.0 for t in MODEL.terms}
    p = np.geomspace(48.3, 1e4, 200_001)  # 2 (64000 - 8000) = 48.2^3
    y = p**3
    share = (y - 112_000) ** 2 / ((y + 112_000) * (y + 144_000))
    assert theory.least_fold(numbers) == pytest.approx((p / share**0.25).min(), rel=1e-6)
    assert theory.least_fold({**numbers, "T_a": 160**0.5, "T_d": 20**0.5}) == 0


def test_what_remains_of_icl_with_mu_ciwl():
    """A run in which CIWL is learned and mu_ciwl holds a: its least share of the product is the predicted one."""
    model = tm.coopetition(mu_ciwl=2e-3)
    times = np.geomspace(300, 3e4, 1000)
    runs = tm.flow(model, tm.aligned_start(model, overlap=0.1), 3e4, times=times, method="LSODA", rtol=1e-8)
    share = runs.overlap.sel(vector=list("abc")).prod("vector") / np.prod([model.target_norms[x] for x in "abc"])
    least = share.where((share > 0.99).cumsum("time") > 0).argmin("time")
    p = float(runs.overlap.sel(vector=["b", "c"]).prod("vector")[least])
    numbers = {f"T_{x}": norm for x, norm in model.target_norms.items()} | {
        f"w_{t}": w for t, w in model.weights.items()
    }
    said = function(theory.remaining())(**numbers, **model.parameters, p=p)
    assert 0.3 < said < 0.6
    assert float(share[least]) == pytest.approx(said, rel=0.03)


def test_the_data_of_the_page_are_of_this_theory():
    """The predictions in figures/data/theory_lifetime.nc are those of today's code."""
    data = xr.load_dataset(DATA, engine="h5netcdf")
    for grid in GRIDS:
        stored = data[f"predicted_{grid}"].isel({f"alpha_{grid}": [0, 8], f"mu_icl_{grid}": [0, 3, 6]})
        alpha, mu = stored[f"alpha_{grid}"].values, stored[f"mu_icl_{grid}"].values
        now = tm.theory.lifetime(MODEL, START, alpha=list(alpha), mu_icl=list(mu)).lifetime
        np.testing.assert_allclose(now.transpose("alpha", "mu_icl"), stored.transpose(f"alpha_{grid}", ...), rtol=1e-3)


def test_stages_add_up(grid):
    total = sum(grid[stage] for stage in theory.STAGES)
    xr.testing.assert_allclose(total, grid.lifetime)
    assert float(grid.drift.sel(alpha=0.3, mu_icl=1e-4) / grid.lifetime.sel(alpha=0.3, mu_icl=1e-4)) > 0.8
    assert float(grid.decay.sel(alpha=3e-3, mu_icl=1.0) / grid.lifetime.sel(alpha=3e-3, mu_icl=1.0)) > 0.9


def test_exponent_of_rare_starts_of_ciwl():
    """Where mu_icl is far below alpha the lifetime goes as mu_icl^-2, within 2 %."""
    found = compared([0.3], [1e-7, 1e-6], points=6000)
    assert exponent(found.measured, "mu_icl") == pytest.approx(-2, rel=0.02)
    assert exponent(found.lifetime, "mu_icl") == pytest.approx(exponent(found.measured, "mu_icl"), rel=0.02)


def test_exponent_of_decay():
    """Where mu_icl is far above alpha the lifetime goes as 1/alpha, within 2 %, and hardly depends on mu_icl."""
    found = compared([1e-4, 3e-4], [0.3, 0.6])
    for mu in found.mu_icl:
        assert exponent(found.measured.sel(mu_icl=mu), "alpha") == pytest.approx(-1, rel=0.02)
    assert abs(np.log(found.measured).diff("mu_icl")).max() < 0.1 * np.log(2)


def test_slaved_overlap_is_where_the_slope_vanishes():
    """dL/du_d = 0 on abc = S_icl, at random points; with another coefficient it is not."""
    from toymodel.theory.compiled import loss

    slope = sp.diff(loss(MODEL.form), PLANES["d"].u).subs({PLANES[x].v: 0 for x in "abcd"})
    on = {PLANES["a"].u: S_ICL / (PLANES["b"].u * PLANES["c"].u)}
    slaved = theory.slaved_overlap()
    assert_equal(slope.subs(on).subs(PLANES["d"].u, slaved), sp.Integer(0) * S_ICL)
    with pytest.raises(AssertionError):
        assert_equal(slope.subs(on).subs(PLANES["d"].u, 2 * slaved), sp.Integer(0) * S_ICL)


def test_the_fold_is_the_largest_p_in_balance():
    """Numerically, over e1: no larger p balances the pull of the cost, and half the fold's p does."""
    numbers = {PLANES[x].target: norm for x, norm in MODEL.target_norms.items()}
    numbers |= {WEIGHTS[t]: weight for t, weight in MODEL.weights.items()}
    numbers |= {PARAMETERS["alpha"]: 0.02, PARAMETERS["mu_icl"]: 1e-5}
    fourth = sp.lambdify(theory.MISSING[0], theory.balance()[0].subs(numbers), "numpy")
    best = fourth(np.geomspace(1e-6, 1e3, 20_001)).max() ** 0.25
    assert float(theory.fold().subs(numbers)) == pytest.approx(best, rel=1e-5)


def test_coexistence_takes_as_long_as_on_the_slow_manifold():
    """From a state in which both are learned, the flow carries p = bc towards the fold in the predicted time."""
    model = tm.coopetition(alpha=1e-2, mu_icl=1e-7)
    numbers = {f"T_{x}": norm for x, norm in model.target_norms.items()}
    numbers |= {f"w_{t}": w for t, w in model.weights.items()} | dict(model.parameters)
    s1, s2 = (np.prod([model.target_norms[x] for x in letters]) for letters in ("abc", "dbc"))
    fold = float(function(theory.fold())(**numbers))
    p0, p1 = 0.6 * fold, 0.8 * fold
    fourth, rest = (function(f) for f in theory.balance())
    e1 = brentq(lambda e: fourth(**numbers, e1=e) - p0**4, 0, (2 * 1e-7 / 3 / numbers["w_icl"]) ** 0.5)
    e2 = float(rest(**numbers, e1=e1, p=p0))
    expected = float(function(theory.coexistence())(**numbers, p0=p0, p=p1))
    start = tm.aligned_start(model, overlap={"a": (s1 - e1) / p0, "b": p0**0.5, "c": p0**0.5, "d": (s2 - e2) / p0})
    runs = tm.flow(model, start, 2 * expected, times=np.linspace(0, 2 * expected, 401), method="LSODA")
    product = runs.overlap.sel(vector="b") * runs.overlap.sel(vector="c")
    assert float(tm.first_true(product > p1)) == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize(("dims", "mu"), [((20, 20, 20, 160), 1e-3), ((10, 40, 20, 120), 2e-2)])
def test_the_alpha_that_ends_icl_soonest(dims, mu):
    """By flow at 25 of them; the formula is low, since the exact decay is longer than that of small mu_icl."""
    model = tm.coopetition(dims=dims, mu_icl=mu, mu_ciwl=0.0)
    said = np.atleast_1d(tm.theory.best_alpha(model))
    measured, there, least = shortest([model], np.array([0.02]), said)[:, 0]
    assert 0.6 < said[0] / measured < 1.05
    assert there < 1.03 * least


def test_relaxation_is_shorter_by_the_logarithm_of_alpha():
    """K by the integrated orbit of alpha = 0, cut where the cost takes over."""
    for alpha in (0.01, 0.02):
        first, second = (theory.lifetime(MODEL, START, alpha=a, mu_icl=1e-3).relaxation for a in (alpha, 2 * alpha))
        slope = float(first - second) * 1e-3 / np.log(2)
        assert slope == pytest.approx(soonest.prefactors(MODEL)["relaxation"], rel=0.05)


def test_no_alpha_is_said_to_end_icl_soonest_where_more_than_its_three_parts_count():
    assert np.isnan(tm.theory.best_alpha(MODEL, [1e-6, 0.2])).all()  # both coexist; the cost hinders the emergence
    for entries, inside in ((60, False), (160, True), (800, False)):
        model = tm.coopetition(dims=(20, 20, 20, entries), mu_icl=0.01, mu_ciwl=0.0)
        assert np.isfinite(tm.theory.best_alpha(model)) == inside
    model = replace(MODEL, parameters={**MODEL.parameters, "mu_icl": 1e-6})
    formula = function(soonest.best_alpha_expression())(**slow_manifold.numbers(model, {}))
    _, there, least = shortest([model], np.array([0.02]), np.atleast_1d(formula))[:, 0]
    assert there > 1.5 * least


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: tm.theory.lifetime(MODEL, START, alpha=0.0), "alpha must be > 0, got 0"),
        (lambda: tm.theory.lifetime(MODEL, START, mu_icl=0.0), "mu_icl must be > 0, got 0"),
        (lambda: tm.theory.lifetime(MODEL, START, mu_ciwl=0.1), "mu_ciwl must be 0, got 0.1"),
        (lambda: tm.theory.lifetime(tm.induction(), START), "the model must be one like tm.coopetition"),
        (lambda: tm.theory.best_alpha(MODEL, 0.0), "mu_icl must be"),
        (lambda: tm.theory.best_alpha(tm.coopetition(mu_ciwl=0.1)), "mu_ciwl must be 0 for the alpha"),
        (lambda: tm.theory.best_alpha(tm.long_pathway()), "the model must be one like tm.coopetition"),
    ],
)
def test_outside_of_the_range(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_the_lifetime_is_nan_where_ciwl_is_too_weak_or_too_strong():
    for entries, inside in ((20, False), (160, True), (800, False)):
        model = tm.coopetition(dims=(20, 20, 20, entries))
        found = tm.theory.lifetime(model, tm.aligned_start(model, overlap=0.1)).lifetime
        assert bool(found.notnull()) == inside


@pytest.mark.parametrize("kind", ["normal", "unequal"])
def test_other_starts_against_simulation(kind):
    """A short version of the benchmark on seeds of its own: the target figures, and nothing predicted in vain."""
    found = over(kind, 40, {"normal": 70_000, "unequal": 12}[kind])
    error = abs(found.lifetime / found.measured - 1).dropna("run")
    assert error.size >= (30 if kind == "normal" else 6)
    assert float(error.median()) < 0.05 and float(error.quantile(0.95)) < 0.25
    assert not bool((found.lifetime.notnull() & found.measured.isnull()).any())
    xr.testing.assert_allclose(sum(found[stage] for stage in theory.STAGES), found.lifetime)


def test_the_four_numbers_are_the_whole_flow_once_residuals_are_gone():
    """dp/dt and the rest against the slope of the eight-number model at random states, and D against its change."""
    slope = compiled.slope(MODEL.form)
    _, _, constants = compiled.prepared(MODEL, START, None, {})
    row = tuple(map(float, constants[0]))
    moving, _ = fading._functions()
    draw = np.random.default_rng(5)
    for _ in range(5):
        a, d, b, c, v = draw.uniform(0.5, 6, 5)
        fall = [-s for s in slope(a, b, c, d, 0.0, 0.0, 0.0, v, *row)]
        expected = [fall[0], c * fall[1] + b * fall[2], fall[3], fall[7]]
        np.testing.assert_allclose(moving(a, b * c, d, v, b**2 - c**2, *row), expected, rtol=1e-10)
        assert b * fall[1] == pytest.approx(c * fall[2], rel=1e-10)


def test_a_lifetime_that_ends_by_overshooting_has_no_prediction():
    """abc passes 1.7 S_icl, where the loss of ICL is half again: the first end is not that of fading."""
    one = dict.fromkeys("abc", 1.0)
    overlap = {"a": 0.985, "b": 0.103, "c": 0.0519, "d": 0.1485}
    start = tm.aligned_start(MODEL, overlap=overlap, target_norm={**one, "d": 2.334})
    weights = dict.fromkeys(MODEL.terms, 1.0)
    found = tm.theory.lifetime(MODEL, start, weights=weights, alpha=0.0203, mu_icl=0.438)
    assert bool(found.lifetime.isnull())


def test_both_ways_agree_where_they_meet():
    """A residual of nearly nothing takes the other way, to the same lifetime within the errors of both."""
    near = tm.aligned_start(MODEL, overlap=0.1, residual=1e-6)
    for alpha, mu in ((0.1, 0.1), (0.1, 1e-3), (0.01, 0.03)):
        one, other = (tm.theory.lifetime(MODEL, s, alpha=alpha, mu_icl=mu).lifetime for s in (START, near))
        assert float(other) == pytest.approx(float(one), rel=0.15)


def test_decay_of_a_short_circuit_is_that_of_the_cost():
    """S_ciwl, p and what is conserved are small, so that the end of |a|^2 lies beyond their sum; by the cost's slope,
    d ln a / dt = -alpha w d^2, with d = S_ciwl / p."""
    k = {"T_a": 0.2272, "T_b": 0.1269, "T_c": 2.7676, "T_d": 0.4583, "alpha": 0.1, "w_cost": 1.0}
    held, wanted = k["T_d"] * k["T_b"] * k["T_c"], k["T_a"] * k["T_b"] * k["T_c"]
    a, d = 0.9605, 1.0807
    conserved = a**2 - d**2 + held / d

    def shared(log):
        return brentq(lambda p: conserved - p + (held / p) ** 2 - np.exp(2 * log), 1e-6, 10.0)

    def lost(_, y):
        return np.exp(y[0]) * shared(y[0]) - float(theory.LEFT) * wanted

    def slope(_, y):
        return [-k["alpha"] * (held / shared(y[0])) ** 2]

    lost.terminal = True
    found = solve_ivp(slope, (0, 1e4), [np.log(a)], rtol=1e-9, events=lost)
    assert found.status == 1 and theory._decay(a, d, k) == pytest.approx(found.t[-1], rel=1e-3)
