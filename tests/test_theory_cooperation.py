"""Cooperation: the indices, the quadrature, the law of the speed-up and the region, against simulations."""

import cooperation as derivation
import coopetition_region
import jax
import numpy as np
import pytest
import sympy as sp
import xarray as xr
from scipy.integrate import quad
from theory_cooperation import Candidate, speed_up_error, with_claim

import toymodel as tm
from toymodel.theory import cooperation
from toymodel.theory import quadrature as escape

pytestmark = pytest.mark.slow

HELD = (tm.Clamp("d", overlap=0, residual=0),)


def emergence(runs):
    return tm.measure(runs).emergence.sel(mechanism="icl", drop=True)


@pytest.mark.parametrize(("acts", "name"), [((), "together"), (HELD, "alone")])
def test_growth_rates_are_those_of_runs(acts, name):
    model = tm.coopetition(alpha=0.0, dims=(20, 20, 20, 10))
    start = tm.aligned_start(model, overlap={"a": 1e-4, "b": 0.5, "c": 1e-4, "d": 0.0 if acts else 1e-4})
    rate = float(tm.theory.growth(model, start)[name])
    run = tm.descend(model, start, int(60 / rate), lr=0.1, every=10, interventions=acts)
    late = run.overlap.sel(vector="c", time=slice(4 / rate, 6 / rate))
    assert float(np.polyfit(late.time, np.log(late), 1)[0]) == pytest.approx(rate, rel=5e-3)


def test_cost_slows_the_growth_by_the_competition_index():
    matrix = np.array([[-0.02, 0, 1.0], [0, -0.05, 0.6], [1.0, 0.6, 0]])  # B = 1, k1 = 1, k2 = 0.6, g_a, g_d
    values = {"B": 1.0, "k1": 1.0, "k2": 0.6, "g_a": 0.02, "g_d": 0.05}
    found = {
        name: float(e.subs({s: values[s.name] for s in e.free_symbols}))
        for name, e in tm.theory.growth_expressions().items()
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
    expression = tm.theory.law_expressions(1)["with_ciwl"]
    assert float(expression.subs({s: values[s.name] for s in expression.free_symbols})) == pytest.approx(
        exact, rel=1e-7
    )


@pytest.mark.parametrize("private", [1, 2])
def test_speed_up_grows_with_the_power_of_the_depth(private):
    """speed_up sigma^n ln(2 d0 / sigma) tends to a constant."""
    expression = tm.theory.law_expressions(private)["speed_up"]
    of = sp.lambdify([s for s in sorted(expression.free_symbols, key=str)], expression)
    sigma = np.array([1e-8, 1e-9, 1e-10])
    names = sorted(s.name for s in expression.free_symbols)
    values = np.array([of(**{n: {"d0": 1.0, "k1": 1.0, "k2": 1.0, "sigma": s}[n] for n in names}) for s in sigma])
    slope = np.diff(np.log(values * np.log(2 / sigma))) / np.diff(np.log(sigma))
    assert slope == pytest.approx(-private, abs=3e-3)


def test_paper_lies_outside_and_the_preset_inside_of_the_region():
    scales, targets = tm.LONG_PATHWAY_START["scale"], tm.LONG_PATHWAY_START["target_scale"]
    assert not bool(tm.theory.region(tm.coopetition(), 1.0, 1.0))
    assert bool(tm.theory.region(tm.long_pathway(), scales["a"], scales["d"], target_scale=dict(targets)))
    assert float(tm.theory.law(tm.coopetition(), 0.01, 0.01).speed_up) == pytest.approx(1.2, abs=0.05)
    assert bool(tm.theory.law(tm.coopetition(), 1.0, 1.0).speed_up.isnull())  # 1.2 by the formula, and 0.7 by a flow


def test_the_skill_of_region_for_single_starts():
    """From the stored shares of starts, counted start by start: as the docstring of `region` says, above the base."""
    stored = xr.load_dataset(coopetition_region.DATA, engine="h5netcdf")
    for name, (skill, base) in {"published": (0.84, 0.79), "long_pathway": (0.85, 0.61)}.items():
        share = stored["all"].sel(model=name, drop=True)
        claim = coopetition_region.laws(coopetition_region.MODELS[name])[0].transpose(*share.dims)
        answers = [
            (round(20 * does), bool(says))
            for does, says in zip(share.values.ravel(), claim.values.ravel(), strict=True)
        ]
        right = sum(count if says else 20 - count for count, says in answers) / (20 * len(answers))
        most = max(sum(count for count, _ in answers), sum(20 - count for count, _ in answers)) / (20 * len(answers))
        assert coopetition_region.of_single_starts(share, claim) == pytest.approx((right, most))
        assert (round(right, 2), round(most, 2)) == (skill, base)
        assert f"{skill:.0%}".replace("%", " %") in tm.theory.region.__doc__


def test_first_changes_sides_with_the_target_of_d():
    """T_d^2 / 2 + mu_2 N_2 against (T_a^2 / 2 + mu_1 N_1) (1 + gamma), from the targets by hand."""
    answers = set()
    for alpha in (0.0, 0.1, 1.0):
        for entries in (10, 20, 25, 30, 40):
            model = tm.coopetition(alpha=alpha, mu_icl=0.1, dims=(20, 20, 20, entries))
            drive = (0.5 + 0.1) / (400 * entries) * 20 * entries**0.5
            gamma = alpha / (20 * entries) * entries * 0.1**2 / (2 * drive * 0.1)
            by_hand = 400 * entries / 2 > (400 * 20 / 2 + 0.1 * 8000) * (1 + gamma)
            assert bool(tm.theory.law(model, 0.01, 0.1)["first"]) == by_hand
            answers.add((entries, by_hand))
    assert {(25, True), (25, False)} <= answers  # alpha matters


def test_long_pathway_has_the_claim_and_the_published_model_has_not():
    """ICL first, transient, at least 10 times later or never with CIWL blocked; a short version of the benchmark."""
    scale = dict(tm.LONG_PATHWAY_START["scale"])
    preset = Candidate("preset", tm.long_pathway(), scale, 4.0, 0.25, horizon=10_000)
    assert with_claim(preset, range(60))["all"] >= 0.95
    published = Candidate("published", tm.coopetition(), {"a": 1.0}, horizon=10_000)
    assert with_claim(published, range(60))["all"] < 0.1


FACTOR = sp.Rational(10**12 + 1, 10**12)
K1, K2 = cooperation.K1, cooperation.K2


@pytest.mark.parametrize("section", [derivation.indices, derivation.the_law, derivation.coming_first])
def test_the_algebra_holds(section):
    page = derivation.Page(derivation.__file__, "", [])
    section(page)
    assert page.checks >= 5


@pytest.mark.parametrize("name", list(cooperation.growth_expressions()))
def test_a_wrong_growth_rate_is_found(monkeypatch, name):
    right = cooperation.growth_expressions()
    monkeypatch.setattr(derivation, "growth_expressions", lambda: {**right, name: right[name] * FACTOR})
    with pytest.raises(AssertionError, match="differ"):
        derivation.indices(derivation.Page(derivation.__file__, "", []))


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("name", ["alone", "with_ciwl", "speed_up"])
def test_a_wrong_time_is_found(monkeypatch, n, name):
    """One of them wrong, and, for the times, the speed-up made of it wrong as well."""
    right = cooperation.law_expressions

    def wrong(private):
        found = {**right(private)}
        if private == n:
            found[name] *= FACTOR
            found["speed_up"] = found["speed_up"] if name == "speed_up" else found["alone"] / found["with_ciwl"]
        return found

    monkeypatch.setattr(derivation, "law_expressions", wrong)
    with pytest.raises(AssertionError, match="differ"):
        derivation.the_law(derivation.Page(derivation.__file__, "", []))


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("swap", [{K2: K2**3 / K1**2}, {cooperation.D0: cooperation.D0**2 / cooperation.SCALE}])
def test_a_wrong_power_is_found(monkeypatch, n, swap):
    """Formulas that are right where all symbols are 1."""
    right = cooperation.law_expressions
    wrong = lambda m: {k: e.subs(swap) if m == n else e for k, e in right(m).items()}  # noqa: E731
    monkeypatch.setattr(derivation, "law_expressions", wrong)
    with pytest.raises(AssertionError, match="differ"):
        derivation.the_law(derivation.Page(derivation.__file__, "", []))


@pytest.mark.parametrize("section, n", [(derivation.damped_by_d, 1), (derivation.two_private_vectors, 2)])
@pytest.mark.parametrize("symbol", [K1, K2, cooperation.GAMMA])
def test_a_wrong_condition_is_found(monkeypatch, section, n, symbol):
    right = cooperation.first_expression
    assert symbol in right(n).free_symbols
    monkeypatch.setattr(derivation, "first_expression", lambda m: right(m).subs(symbol, symbol * FACTOR))
    with pytest.raises(AssertionError, match="differ"):
        section(derivation.Page(derivation.__file__, "", []))


def test_the_cost_takes_the_region_away():
    """With a strong cost d keeps a down, and ICL is not first: in the law, and in most of the runs."""
    scale = {"a": 0.01, "b": 0.01, "c": 0.01, "d": 1.0}
    shares, said, target = [], [], dict(zip("abcd", (1.0, 1.0, 1.0, 0.7), strict=True))
    for alpha in (0.01, 0.5):
        model = tm.coopetition(alpha=alpha)
        start = tm.random_start(model, range(40), scale=scale, target_scale=target)
        found = tm.measure(tm.descend(model, start, 8_000, every=20)).emergence
        icl, ciwl = (found.sel(mechanism=m, drop=True) for m in ("icl", "ciwl"))
        shares.append(float((icl.notnull() & ~(ciwl <= icl)).mean()))
        said.append(bool(tm.theory.law(model, 0.01, 1.0, target_scale=target)["first"]))
    assert said == [True, False] and shares[0] > 0.5 and shares[1] < 0.2


@pytest.mark.parametrize("n", [1, 2])
def test_expressions_take_jax_arrays(n):
    """sympy's printer for JAX, under jit, against numpy."""
    symbols = (cooperation.SCALE, cooperation.D0, K1, K2, cooperation.T1, cooperation.T2)
    symbols = (*symbols, cooperation.D_C, cooperation.GAMMA)
    values = [np.array(pair) for pair in ((0.1, 0.2), (1, 1.5), (2, 3), (0.7, 0.6), (5, 6), (7, 8), (3, 4), (0.5, 2))]
    modules = {"loggamma": jax.scipy.special.gammaln}
    for expression in (cooperation.first_expression(n), *cooperation.law_expressions(n).values()):
        by_numpy = sp.lambdify(symbols, expression, ["numpy", "scipy"])(*values)
        with jax.enable_x64(True):
            by_jax = jax.jit(sp.lambdify(symbols, expression, [modules, "jax"]))(*map(jax.numpy.asarray, values))
        np.testing.assert_allclose(by_jax, by_numpy, rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tm.theory.law(tm.long_pathway(), 1.0, 1.0), "0 < scale < scale_d"),
        (lambda: tm.theory.law(tm.coopetition(), 0.0, 1.0), "0 < scale < scale_d"),
        (
            lambda: tm.theory.growth(tm.long_pathway(), tm.aligned_start(tm.long_pathway())),
            "mechanisms of three vectors",
        ),
        (lambda: escape.escape(tm.coopetition(), tm.aligned_start(tm.coopetition()), without="icl"), "without must be"),
    ],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_overlap_of_d_when_ciwl_is_learned():
    """d_C (d_C^2 - d0^2) = r T2, by numpy's roots."""
    for d0, product in ((0.1, 3.0), (1.0, 250.0), (2.0, 0.5)):
        found = cooperation.learned_overlap(d0, product)
        roots = np.roots([1, 0, -(d0**2), -escape.LEARNED * product])
        expected = max(root.real for root in roots if abs(root.imag) < 1e-12)
        assert float(found) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("count", [1, 2])
def test_the_gain_is_the_change_of_the_square(count):
    """x(s)^2 - x(0)^2 from the path itself, and the path from its equations x' = k y, with one and two vectors."""
    draw = np.random.default_rng(3)
    k, s = draw.uniform(0.2, 2, 20), draw.uniform(-1, 1, 20)
    private = escape.Private(k, list(draw.standard_normal((count, 20))))
    moved = private.at(s).overlaps
    np.testing.assert_allclose(private.gain(s), moved[0] ** 2 - private.overlaps[0] ** 2, rtol=1e-9, atol=1e-12)
    slopes = [(private.at(np.full(20, 1e-6)).overlaps[i] - private.overlaps[i]) / 1e-6 for i in range(count)]
    others = [np.ones(20)] if count == 1 else private.overlaps[::-1]
    for slope, other in zip(slopes, others, strict=True):
        np.testing.assert_allclose(slope, k * other, rtol=1e-4, atol=1e-5)


def test_repeated_letters_are_refused():
    model = tm.shared_encoder()
    start = tm.aligned_start(model)
    calls = (
        lambda: tm.theory.law(model, 0.1, 1.0),
        lambda: tm.theory.region(model, 0.1, 1.0),
        lambda: escape.escape(model, start),
    )
    for call in calls:
        with pytest.raises(ValueError, match="holds a vector twice"):
            call()


def test_no_time_and_no_rate_outside_of_their_range():
    """Standard normal starts are damped long before they escape; small ones are not, and a long pathway is regrown."""
    large, small = (tm.random_start(tm.coopetition(), range(50), scale=scale) for scale in (1.0, 0.01))
    assert escape.escape(tm.coopetition(), large).emergence.isnull().all()
    assert tm.theory.speed_up(tm.coopetition(), small)["index"].notnull().mean() > 0.9
    model = tm.long_pathway()
    start = tm.random_start(model, range(50), **tm.LONG_PATHWAY_START)
    assert tm.theory.speed_up(model, start)["index"].notnull().mean() > 0.9
    found = tm.theory.growth(tm.coopetition(), large)
    assert found.net.isnull().any()
    assert bool((found.net.dropna("seed") > 0).all())
