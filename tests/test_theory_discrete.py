"""Spectra, stable steps, the modified flow and the effects of noise, against JAX and simulations."""

import discrete as derivation
import jax
import jax.flatten_util
import numpy as np
import pytest
import sympy as sp
import xarray as xr
from conftest import closeness
from scipy.integrate import solve_ivp
from zoo import SHAPES, shaped

import toymodel as tm
import toymodel.reduction
from toymodel.simulation.tensors import tensor_loss
from toymodel.theory import discrete
from toymodel.theory.conserved import balance_values, end_sharpness
from toymodel.theory.discrete import curvature, loss_floor, modified_flow, noise_drift, noise_threshold
from toymodel.theory.extended import noisy_residual, sampled_variance
from toymodel.theory.long_noise import long_noise_expressions, noise_lasting_product, noise_product

pytestmark = pytest.mark.slow

SECTIONS = (derivation.spectrum, derivation.stability, derivation.modified, derivation.noise, derivation.long_times)


@pytest.mark.parametrize("section", SECTIONS, ids=lambda s: s.__name__)
def test_the_derivation_holds(section):
    page = derivation.Page(derivation.__file__, "", [])
    section(page)
    assert page.checks >= 1


@pytest.mark.parametrize("section", [SECTIONS[0], SECTIONS[1]], ids=lambda s: s.__name__)
def test_a_wrong_coefficient_is_found(monkeypatch, section):
    right = toymodel.reduction.mechanism_loss
    factor = 1 + sp.Rational(1, 10**12)
    monkeypatch.setattr(toymodel.reduction, "mechanism_loss", lambda planes, weight: right(planes, weight) * factor)
    with pytest.raises(AssertionError, match="differ"):
        section(derivation.Page(derivation.__file__, "", []))


@pytest.mark.parametrize("name", ["loss_floor_expression", "noise_threshold_expression"])
def test_a_wrong_formula_is_found(monkeypatch, name):
    right = getattr(derivation, name)
    monkeypatch.setattr(derivation, name, lambda: right() * (1 + sp.Rational(1, 10**12)))
    with pytest.raises(AssertionError, match="differ"):
        derivation.noise(derivation.Page(derivation.__file__, "", []))


@pytest.mark.parametrize("name", ["cost", "product", "beta"])
def test_a_wrong_long_time_form_is_found(monkeypatch, name):
    right = derivation.long_noise_expressions()
    wrong = {**right, name: right[name] * (1 + sp.Rational(1, 10**12))}
    monkeypatch.setattr(derivation, "long_noise_expressions", lambda: wrong)
    with pytest.raises(AssertionError, match="differ"):
        derivation.long_times(derivation.Page(derivation.__file__, "", []))


def full_spectrum(model: tm.Model, vectors: xr.Dataset) -> np.ndarray:
    """Eigenvalues of jax.hessian of the loss on tensors."""
    form, weights, parameters = model.form, model.weights, model.parameters
    with jax.enable_x64(True):
        values, targets = (
            {x: jax.numpy.asarray(vectors[f"{x}{end}"].values) for x in model.vectors} for end in ("", "_target")
        )
        flat, back = jax.flatten_util.ravel_pytree(values)
        hessian = jax.jit(jax.hessian(lambda v: tensor_loss(form, back(v), targets, weights, parameters)))(flat)
        return np.linalg.eigvalsh(np.asarray(hessian))


@pytest.mark.parametrize("name, sizes", [(name, i) for i, name in enumerate(SHAPES)])
def test_the_spectrum_is_that_of_all_entries(name, sizes):
    """At a random state; vectors of one and two entries included."""
    model = shaped(name, ((2, 3, 4, 5, 3), (4, 1, 3, 2, 6))[sizes % 2])
    vectors = tm.random_vectors(model, 11, scale=0.8)
    found = curvature(model, tm.from_vectors(model, vectors))
    across = [[float(found.across.sel(vector=x))] * max(model.dims[x] - 2, 0) for x in model.vectors]
    mine, full = np.sort(np.concatenate([found.in_planes.values, *across])), full_spectrum(model, vectors)
    assert closeness(mine, full, 1e-9, 1e-12) <= 1
    assert closeness(found.largest_step, 2 / full[-1], 1e-9) <= 1


def test_descent_is_stable_below_the_largest_step_only():
    """Near the end of learning of one mechanism, from a start that is a little off it."""
    model = tm.induction(dims=(4, 4, 4))
    start = tm.aligned_start(model, overlap={"a": 1.0, "b": 2.0, "c": 4.0}, residual=1e-4)
    limit = float(curvature(model, start).largest_step)
    near = start.assign(overlap=start.overlap * (1 + 1e-6))
    below, above = (tm.descend(model, near, 200, lr=f * limit).loss for f in (0.98, 1.02))
    assert float(below[-1]) < float(below[0]) and float(above[:120].max()) > 2 * float(above[0])


def test_curvature_along_a_batch():
    model = tm.coopetition()
    runs = tm.descend(model, tm.paper_start(model, range(2)), 20, every=10, mu_icl=[0.0, 0.1, 0.5])
    found = curvature(model, runs, mu_icl=runs.mu_icl)
    assert set(found.largest.dims) == {"seed", "mu_icl", "time"}
    one = curvature(model, runs.isel(seed=1, time=2, mu_icl=1), mu_icl=0.1)
    assert closeness(found.largest.isel(seed=1, time=2, mu_icl=1), one.largest, 1e-12) <= 1


def test_the_orders_of_the_flow_and_of_the_modified_flow():
    model = tm.induction()
    start, lrs, times = tm.random_start(model, 3, scale=0.5), np.array([0.5, 1.0, 2.0]), np.array([0.0, 20.0, 40.0])
    for order, modify in ((1, 0.0), (2, 1.0)):
        errors = []
        for lr in lrs.tolist():
            run = tm.descend(model, start, round(40 / lr), lr=lr, every=round(20 / lr))
            other = modified_flow(model, start, times, modify * lr)
            errors.append(float(abs(run.overlap.values - other.overlap.values).max()))
        assert abs(np.polyfit(np.log(lrs), np.log(errors), 1)[0] - order) < 0.2


def test_the_next_order_of_the_modified_flow():
    """By which `modified_flow` measures its error: the distance to descent is of third order."""
    model = tm.induction()
    start, lrs = tm.random_start(model, 3, scale=0.5), np.array([1.0, 2.0, 4.0])
    y0 = np.concatenate([start.overlap.values, start.residual.values])
    constants = [*start.target_norm.values.tolist(), *model.weights.values()]
    errors = []
    for lr in lrs.tolist():
        velocity = discrete.followed(model.form, constants, lr, 2)
        y = solve_ivp(velocity, (0, 40), y0, "DOP853", rtol=1e-11, atol=1e-12).y[:, -1]
        end = tm.descend(model, start, round(40 / lr), lr=lr).isel(time=-1)
        errors.append(np.abs(y - np.concatenate([end.overlap.values, end.residual.values])).max())
    assert abs(np.polyfit(np.log(lrs), np.log(errors), 1)[0] - 3) < 0.2


def test_noise_drifts_balances():
    """One step of descent of all entries, many times: the mean change of |b|^2 - |a|^2 by noise alone."""
    model = tm.Model({"icl": "ab"}, lambda icl: icl, dict(a=2, b=9))
    vectors, copies, lr, noise = tm.random_vectors(model, 1), 10_000, 0.1, 5.0
    many = vectors.expand_dims(copy=range(copies))
    runs = tm.descend_vectors(model, many, 1, lr=lr, noise=noise)
    calm = balance_values(model, tm.descend_vectors(model, vectors, 1, lr=lr))
    values = balance_values(model, runs)
    ((name, rate),) = noise_drift(model, noise, lr).items()
    change = values.sel(balance=name).isel(time=1) - calm.sel(balance=name).isel(time=1)
    error = float(change.std()) / np.sqrt(copies)
    assert abs(float(change.mean()) - lr * rate) < 4 * error < 0.1 * abs(lr * rate)


@pytest.mark.parametrize("simulate", [tm.descend_vectors, tm.descend], ids=["all entries", "coordinates"])
def test_the_floor_of_a_learned_loss(simulate):
    model, noise, lr, copies = tm.induction(dims=(3, 4, 5)), 0.003, 0.5, 150
    vectors = tm.random_vectors(model, 0)
    vectors = vectors.assign({x: vectors[f"{x}_target"] for x in "abc"}).expand_dims(copy=range(copies))
    start = vectors if simulate is tm.descend_vectors else tm.from_vectors(model, vectors)
    runs = simulate(model, start, 400, lr=lr, noise=noise, every=50)
    assert closeness(runs.loss[:, 4:].mean(), loss_floor(model, "icl", noise, lr, 1.0), 0.1) <= 1


def test_noise_above_the_threshold_keeps_icl():
    model = tm.coopetition(dims=(10, 10, 10, 40))
    limit, side = noise_threshold(model), (40**0.5 * 10) ** (1 / 3)
    start = tm.aligned_start(model, overlap={"a": 0.05, "b": side, "c": side, "d": side}).expand_dims(copy=range(8))
    share = {}
    for factor in (0.5, 2.0):
        runs = tm.descend(model, start, 1_500, noise=factor * limit, every=50)
        share[factor] = float((runs.loss_icl / runs.unlearned_icl).isel(time=slice(-5, None)).mean())
    assert share[0.5] > 0.7 and share[2.0] < 0.3


def side(model: tm.Model, strategy: str, copies: int) -> xr.Dataset:
    """One strategy learned by vectors of equal lengths, and little of the other."""
    length = np.prod([model.target_norms[x] for x in model.mechanisms[strategy]]) ** (1 / 3)
    own, other = ("a", "d") if strategy == "icl" else ("d", "a")
    overlap = {own: length, "b": length, "c": length, other: 0.05}
    return tm.aligned_start(model, overlap=overlap).expand_dims(copy=range(copies))


def test_noise_makes_two_states_last():
    """Dimensions and parameters that the page does not have: which noise keeps ICL, and which brings it back."""
    model = tm.coopetition(dims=(18, 18, 18, 120), alpha=0.06, mu_icl=0.06)
    back, keeps = (float(noise_threshold(model, product=noise_product(model, m))) for m in ("ciwl", "icl"))
    assert keeps < back
    for strategy, noise, low, high in (
        ("icl", keeps, 0.9, 1.0),
        ("icl", 0.5 * keeps, 0.0, 0.1),
        ("ciwl", 0.8 * back, 0.0, 0.1),
        ("ciwl", 1.35 * back, 0.7, 1.0),
    ):
        run = tm.descend(model, side(model, strategy, 16), 40_000, noise=noise, every=1_000)
        share = float((run.loss_icl < run.unlearned_icl / 2).isel(time=-1).mean())
        assert low <= share <= high, (strategy, noise, share)


def test_the_lasting_state_of_both_strategies():
    """The mean of C is that at which beta stops to drift, and p is as said within 12 %; b and c spread freely."""
    model, noise, copies = tm.coopetition(dims=(18, 18, 18, 120), alpha=0.06, mu_icl=0.06), 0.01, 200
    run = tm.descend(model, side(model, "icl", copies), 60_000, noise=noise, every=250)
    squares = run.overlap**2 + run.residual**2
    b, c = (squares.sel(vector=x) for x in "bc")
    late = run.cost.isel(time=slice(120, None)).mean()
    numbers = {str(x): x for x in long_noise_expressions()["cost"].free_symbols}
    said = long_noise_expressions()["cost"].subs(
        {numbers["s"]: noise, numbers["alpha"]: 0.06, numbers["n_a"]: 18, numbers["n_b"]: 18, numbers["n_d"]: 120}
    )
    assert closeness(late, float(said), 0.05) <= 1
    p = float(((b * c) ** 0.5).isel(time=slice(120, None)).mean())
    assert closeness(p, noise_lasting_product(model, noise), 0.12) <= 1
    variance = float((b - c).isel(time=80).var())
    expected = float(4 * noise**2 * (b + c).isel(time=slice(0, 81)).mean("copy").integrate("time"))
    assert closeness(variance, expected, 4 * (2 / copies) ** 0.5) <= 1
    assert np.isnan(noise_lasting_product(tm.coopetition(dims=(5, 20, 20, 10)), noise))


def test_functions_take_jax_arrays():
    """Under jit, and the same as for numpy arrays."""
    model, x, y = tm.coopetition(), np.array([0.5, 1.0]), np.array([0.1, 0.2])
    calls = (
        lambda x, y: loss_floor(model, "ciwl", x, y, 0.1 + y),
        lambda x, y: noise_threshold(model, x, alpha=y, mu_icl=y / 2),
        lambda x, y: noise_lasting_product(model, 0.07 * y, x, alpha=y),
        lambda x, y: noisy_residual(x, y, 20, 0.1, 0.5, 10 * x),
        lambda x, y: end_sharpness(x[:, None] * y[None, :], x, y),
        lambda x, y: sampled_variance({"a": x, "b": y}, {"a": y, "b": x + 1}, "ab", "a", 0.1, 2),
    )
    for call in calls:
        with jax.enable_x64(True):
            found = jax.jit(call)(jax.numpy.asarray(x), jax.numpy.asarray(y))
        assert closeness(found, call(x, y), 1e-12) <= 1


def test_the_threshold_along_arrays():
    """One number for each, as for models of their own; it grows as the root of alpha and of 1 / lr."""
    lrs, alphas = np.array([0.5, 2.0]), np.array([0.01, 0.1])
    together = noise_threshold(tm.coopetition(), lrs, alpha=alphas, mu_icl=0.15)
    alone = [noise_threshold(tm.coopetition(alpha=a, mu_icl=0.15), lr) for lr, a in zip(lrs, alphas, strict=True)]
    assert closeness(together, alone, 1e-12) <= 1
    assert closeness(together[1] / together[0], np.sqrt(10 / 4), 1e-12) <= 1


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda m, s: curvature(m, s, beta=1.0), "unknown parameter 'beta'"),
        (lambda m, s: modified_flow(m, s, [0, 1], -1.0), "lr must be >= 0"),
        (lambda m, s: modified_flow(m, s.expand_dims(copy=[0, 1]), [0, 1], 0.1), "must make one run"),
        (lambda m, s: loss_floor(m, "iwl", 0.1, 1.0, 1.0), "mechanism must be one of"),
        (lambda m, s: noise_threshold(tm.long_pathway()), "like tm"),
        (lambda m, s: noise_threshold(tm.coopetition(mu_ciwl=0.1)), "mu_ciwl = 0"),
        (lambda m, s: noise_threshold(m, alpha=0.0), "alpha must be"),
        (lambda m, s: noise_drift(m, -1.0), "noise must be >= 0"),
        (lambda m, s: noise_threshold(m, product=0.0), "product must be"),
        (lambda m, s: noise_product(m, "both"), "strategy must be 'icl' or 'ciwl'"),
        (lambda m, s: noise_product(tm.long_pathway(), "icl"), "like tm"),
        (lambda m, s: noise_lasting_product(tm.coopetition(dims=(5, 6, 7, 8)), 0.1), "as many entries"),
    ],
)
def test_refuses(call, message):
    model = tm.coopetition()
    with pytest.raises(ValueError, match=message):
        call(model, tm.aligned_start(model))
