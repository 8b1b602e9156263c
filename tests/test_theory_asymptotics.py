"""Which strategy is learned in the end: equilibria, their spectra, and the prediction against long flows."""

import asymptotics as derivation
import numpy as np
import pytest
import sympy as sp
import xarray as xr
from theory_asymptotics import MODEL, ensemble, measured

import toymodel as tm
from toymodel.reduction import symbols
from toymodel.theory import asymptotics as theory
from toymodel.theory import compiled

pytestmark = pytest.mark.slow

PLANES, WEIGHTS, PARAMETERS = symbols(MODEL.form)


def numbers(model) -> dict:
    values = {PLANES[x].target: norm for x, norm in model.target_norms.items()}
    values |= {WEIGHTS[t]: weight for t, weight in model.weights.items()}
    return values | {PARAMETERS[p]: value for p, value in model.parameters.items()}


def test_prediction_of_random_sets():
    start, weights, parameters = ensemble(240, seed=5)
    predicted = tm.theory.asymptotic_strategy(MODEL, start, weights=weights, **parameters)
    found = measured(start, weights, parameters)
    right, decided = (predicted == found).values, ((parameters["mu_icl"] > 0) | (parameters["mu_ciwl"] > 0)).values
    longer = (start.target_norm.sel(vector="d") > start.target_norm.sel(vector="a")).values
    late = (found == "none").values  # still on the plateau at the horizon
    assert (right | late)[decided].all() and late.sum() <= 2
    driven = (np.where(longer, "icl", "ciwl") == found.values)[~decided]
    assert right[~decided].mean() > max(driven.mean(), 0.9)


def test_the_measured_ends_are_those_of_lsoda():
    start, weights, parameters = ensemble(12, seed=6)
    found = measured(start, weights, parameters)
    run = tm.flow(MODEL, start, 1e9, times=[1e9], weights=weights, method="LSODA", **parameters).isel(time=0)
    for m in ("icl", "ciwl"):
        assert ((run[f"loss_{m}"] / run[f"unlearned_{m}"] < 0.5).values == [m in end for end in split(found)]).all()


def split(found) -> list[list[str]]:
    return [end.split("+") for end in found.values.tolist()]


@pytest.mark.parametrize(("a0", "sign"), [(0.1, 1), (1.0, 1), (0.5, -1)])
@pytest.mark.parametrize("ratio", [0.8, 1.25])
def test_the_start_decides_at_the_boundary(ratio, a0, sign):
    """Flows 25 % on either side of the first-order boundary, in the overlap that the other strategy has to have."""
    model, norm = tm.coopetition(dims=(20, 20, 20, 20), mu_icl=0.0, alpha=1e-4), 20**0.5
    own, other = ("a", "d") if ratio > 1 else ("d", "a")
    x = xr.DataArray(np.linspace(0, 4, 401), dims="x")
    start = tm.aligned_start(
        model,
        overlap={own: sign * a0, "b": sign * 0.2, "c": 0.2, other: sign * x},
        target_norm={"a": norm / ratio**0.5, "b": norm, "c": norm, "d": norm * ratio**0.5},
    )
    side = theory.side_of_boundary(start)
    edge = int(abs(side).argmin("x"))
    near = start.isel(x=[round(0.75 * edge), round(1.25 * edge)])
    found = tm.measure(tm.flow(model, near, 1e9, times=np.geomspace(1, 1e9, 60), progress=False)).winner.values
    first, second = ("icl", "ciwl") if ratio > 1 else ("ciwl", "icl")
    assert found.tolist() == [first, second]
    assert np.sign(side[[0, -1]]).values.tolist() == ([1, -1] if ratio > 1 else [-1, 1])


def test_the_scale_of_the_boundary_is_where_a_simulated_run_has_learned():
    """With equal targets and starts of a and d a run stays on the boundary, and both are learned at the same scale."""
    model = tm.coopetition(alpha=0.0, mu_icl=0.0)
    norms = {"a": 5.0, "b": 4.0, "c": 3.0, "d": 5.0}
    start = tm.aligned_start(model, overlap={"a": 0.7, "b": 1.5, "c": 2.5, "d": 0.7}, target_norm=norms)
    end = tm.flow(model, start, 1e10, times=[1e10], rtol=1e-11).isel(time=-1)
    overlap = {x: float(end.overlap.sel(vector=x)) for x in "abcd"}
    planes, theta = theory._planes(), sp.Symbol("theta", positive=True)
    given = {planes[x].u: float(start.overlap.sel(vector=x)) for x in "abcd"}
    given |= {planes[x].target: norms[x] for x in "abcd"}
    root = sp.nsolve(theory.boundary()[1].subs(given), theta, overlap["a"] / norms["a"])
    assert float(root) == pytest.approx(overlap["a"] / norms["a"], rel=1e-4)
    assert overlap["a"] == pytest.approx(overlap["d"], rel=1e-9)


@pytest.mark.parametrize("alpha", [1e-2, 0.1])
@pytest.mark.parametrize(
    ("mu_icl", "mu_ciwl", "winner"), [(0.1, 0.0, "ciwl"), (0.0, 0.1, "icl"), (0.1, 0.1, "icl+ciwl"), (0.0, 0.0, None)]
)
def test_the_signs_of_mu_decide(alpha, mu_icl, mu_ciwl, winner):
    """Against the implicit Runge-Kutta flow and the measures, from a small aligned start."""
    model = tm.coopetition(alpha=alpha, mu_icl=mu_icl, mu_ciwl=mu_ciwl)
    runs = tm.flow(model, tm.aligned_start(model, overlap=0.1), 1e8, times=np.geomspace(1, 1e8, 200), method="LSODA")
    found = tm.measure(runs)
    first = str(found.mechanism.values[found.emergence.argmin("mechanism").item()])
    assert found.winner.item() == (winner or first)
    assert tm.theory.asymptotic_strategy(model, tm.aligned_start(model, overlap=0.1)).item() == found.winner.item()


@pytest.mark.parametrize(("strategy", "mu"), [("icl", "mu_icl"), ("ciwl", "mu_ciwl")])
def test_a_strategy_with_mu_above_zero_is_no_equilibrium(strategy, mu):
    force = theory.forces()[strategy]
    assert force.subs(PARAMETERS[mu], 0) == 0
    assert float(force.subs(numbers(tm.coopetition(0.1, 0.1, 0.1)) | {PLANES["b"].u: 1.5, PLANES["c"].u: 2.0})) > 0


@pytest.mark.parametrize(("strategy", "own", "other"), [("icl", "a", "d"), ("ciwl", "d", "a")])
def test_spectrum_is_that_of_the_hessian(strategy, own, other):
    """Symbolic eigenvalues against numpy's of the compiled Hessian, at another scale of b and c."""
    model = tm.coopetition(mu_icl=0.0)
    s = 1.7
    at = {sp.Symbol("s", positive=True): s, **numbers(model)}
    symbolic = sorted(float(v.subs(at)) for v, n in theory.spectrum(strategy).items() for _ in range(n))
    norms = model.target_norms
    u = {"b": s, "c": s, own: norms[own] * norms["b"] * norms["c"] / s**2, other: 0.0}
    constants = [float(numbers(model)[c]) for c in compiled.constants(model.form)]
    state = [u[x] for x in model.form.vectors] + [0.0] * 4
    rows = -np.array(compiled.hessian(model.form)(*state, *constants))
    np.testing.assert_allclose(np.linalg.eigvalsh(rows), symbolic, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(compiled.slope(model.form)(*state, *constants), 0, atol=1e-12)
    assert sum(v == 0 for v in symbolic) == 2 and max(symbolic) == 0


def test_shared_part_grows_as_the_fifth_root_of_time():
    model = tm.coopetition(alpha=0.1, mu_icl=0.1, mu_ciwl=0.1)
    times = np.geomspace(1e11, 1e13, 3)
    runs = tm.flow(model, tm.aligned_start(model), 1e13, times=times, method="LSODA", rtol=1e-8)
    p = (runs.overlap.sel(vector="b") * runs.overlap.sel(vector="c")).values
    rate = float(theory.growth_of_shared().subs(numbers(model)))
    assert (p[2] ** 5 - p[1] ** 5) / (times[2] - times[1]) == pytest.approx(rate, rel=0.02)
    assert (p[2] ** 5 - p[1] ** 5) / (times[2] - times[1]) != pytest.approx(1.1 * rate, rel=0.02)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: tm.theory.asymptotic_strategy(MODEL, tm.aligned_start(MODEL), alpha=0.0), "alpha must be > 0, got 0"),
        (
            lambda: tm.theory.asymptotic_strategy(tm.induction(), tm.aligned_start(tm.induction())),
            "like tm.coopetition",
        ),
    ],
)
def test_outside_of_the_range(call, says):
    with pytest.raises(ValueError, match=says):
        call()


@pytest.mark.parametrize("section", ["balance", "drives", "plateau", "spectra", "growth", "boundary"])
def test_the_derivation_holds(section):
    page = derivation.Page(derivation.__file__, "", [])
    getattr(derivation, section)(page)
    assert page.checks >= 2


@pytest.mark.parametrize(
    ("section", "term"),
    [("balance", "w_cost"), ("drives", "w_icl"), ("spectra", "w_icl"), ("spectra", "w_cost"), ("growth", "w_cost")],
)
def test_a_perturbed_loss_does_not_pass_the_derivation(section, term, monkeypatch):
    weight = sp.Symbol(term, positive=True)
    assert weight in derivation.LOSS.free_symbols
    monkeypatch.setattr(derivation, "LOSS", derivation.LOSS.subs(weight, weight * sp.Rational(10**12 + 1, 10**12)))
    with pytest.raises(AssertionError, match="differ"):
        getattr(derivation, section)(derivation.Page(derivation.__file__, "", []))


@pytest.mark.parametrize(("name", "section"), [("forces", "drives"), ("spectrum", "spectra")])
def test_a_perturbed_closed_form_does_not_pass_the_derivation(name, section, monkeypatch):
    right, off = getattr(theory, name), sp.Rational(10**12 + 1, 10**12)
    wrong = {
        "forces": lambda: {k: off * force for k, force in right().items()},
        "spectrum": lambda strategy: {off * value: count for value, count in right(strategy).items()},
    }
    monkeypatch.setattr(theory, name, wrong[name])
    with pytest.raises(AssertionError, match="differ"):
        getattr(derivation, section)(derivation.Page(derivation.__file__, "", []))


def test_a_perturbed_growth_does_not_pass_the_derivation(monkeypatch):
    wrong = theory.growth_of_shared() * sp.Rational(10**12 + 1, 10**12)
    monkeypatch.setattr(theory, "growth_of_shared", lambda: wrong)
    with pytest.raises(AssertionError, match="differ"):
        derivation.growth(derivation.Page(derivation.__file__, "", []))
