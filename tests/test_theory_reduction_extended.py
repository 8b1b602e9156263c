"""Momentum, decay and noise on two numbers a vector, against optax and descent on all entries."""

import jax
import numpy as np
import optax
import pytest
import reduction_extended as derivation
import sympy as sp
from conftest import closeness
from zoo import shaped

import toymodel as tm
import toymodel.reduction
from toymodel.simulation.tensors import tensor_loss
from toymodel.theory.extended import noisy_residual, noisy_residual_expression, sampled_variance


def test_the_derivation_holds():
    assert derivation.build().checks >= 12


def test_a_wrong_coefficient_is_found(monkeypatch):
    right = toymodel.reduction.mechanism_loss
    monkeypatch.setattr(
        toymodel.reduction,
        "mechanism_loss",
        lambda planes, weight: right(planes, weight) * (1 + sp.Rational(1, 10**12)),
    )
    with pytest.raises(AssertionError, match="differ"):
        derivation.two_ways(derivation.small().form, derivation.Optimiser(sp.Rational(1, 2), sp.Integer(0)), seed=1)


def test_a_wrong_drift_is_found(monkeypatch):
    n, s, v = sp.symbols("n s v", positive=True)
    monkeypatch.setattr(derivation, "residual_drift_expression", lambda: (n - 1) * s**2 / (2 * v))
    page = derivation.Page(derivation.__file__, "", [])
    with pytest.raises(AssertionError, match="Ito drift"):
        derivation.noise(page)


@pytest.mark.parametrize("shape", ["paper", "sum with weight decay"])
@pytest.mark.parametrize("momentum, decay", [(0.9, 0.0), (0.5, 0.1), (0.0, 0.2)])
def test_momentum_and_decay_against_optax_on_all_entries(shape, momentum, decay):
    model, lr, steps = shaped(shape), 0.02, 200
    vectors = tm.random_vectors(model, 1)
    few = tm.descend(model, tm.from_vectors(model, vectors), steps, lr=lr, momentum=momentum, weight_decay=decay)
    with jax.enable_x64(True):
        values, targets = (
            {x: jax.numpy.asarray(vectors[f"{x}{end}"].values) for x in model.vectors} for end in ("", "_target")
        )
        rule = optax.sgd(lr, momentum=momentum)
        state = rule.init(values)

        def loss(values):
            return tensor_loss(model.form, values, targets, model.weights, model.parameters)

        @jax.jit
        def step(values, state):
            update, state = rule.update(jax.grad(loss)(values), state)
            return {x: (1 - lr * decay) * values[x] + update[x] for x in model.vectors}, state

        for _ in range(steps):
            values, state = step(values, state)
        ended = float(loss(values))
        values, targets = jax.tree.map(np.asarray, (values, targets))
    assert closeness(float(few.loss[-1]), ended, 1e-9) <= 1
    for x in model.vectors:
        unit = targets[x] / np.linalg.norm(targets[x])
        assert closeness(float(few.overlap.sel(vector=x)[-1]), float(values[x] @ unit), 1e-9, 1e-12) <= 1


def test_without_anything_it_is_descent():
    model = tm.coopetition()
    start = tm.paper_start(model, range(3))
    one, other = tm.descend(model, start, 300, every=7), tm.descend(model, start, 300, every=7)
    assert one.step.equals(other.step)
    assert closeness(one.loss, other.loss, 1e-12) <= 1


def test_noise_has_the_law_of_all_entries():
    """Mean and spread of every coordinate of 600 runs, in standard errors; one vector has one entry, one has two."""
    model = tm.Model({"icl": "ab", "ciwl": "db"}, lambda icl, ciwl: (icl + 0.1) * ciwl, dict(a=2, b=5, d=1))
    vectors, copies = tm.random_vectors(model, 2), 600
    settings = {"lr": 0.1, "noise": 0.5, "every": 50}
    full = tm.descend_vectors(model, vectors.expand_dims(copy=range(copies)), 100, **settings)
    few = tm.descend(
        model, tm.from_vectors(model, vectors).expand_dims(copy=range(copies)), 100, noise_seed=9, **settings
    )
    assert float(few.residual.sel(vector="d").max()) < 1e-12
    for name in ("overlap", "residual"):
        one, other = (runs[name].isel(time=[1, 2]) for runs in (few, full))
        error = np.hypot(one.std("copy"), other.std("copy")) / np.sqrt(copies) + 1e-12
        assert float((abs(one.mean("copy") - other.mean("copy")) / error).max()) < 4
        ratio = (one.std("copy") + 1e-9) / (other.std("copy") + 1e-9)
        assert float(abs(ratio - 1).max()) < 4 / np.sqrt(2 * copies) * 1.5


def test_the_floor_of_a_residual():
    """A cost of one vector damps it at a constant rate."""
    model = tm.Model(
        {"icl": "b"}, lambda icl, decay: icl + decay, dict(a=30, b=2), costs={"decay": "a"}, weights={"decay": 0.3}
    )
    start = tm.aligned_start(model, overlap=0.0, residual=2.0).expand_dims(copy=range(2_000))
    runs = tm.descend(model, start, 40, lr=0.5, noise=0.4, every=4)
    measured = (runs.residual.sel(vector="a") ** 2).mean("copy").values
    assert closeness(measured, noisy_residual(4.0, 0.3, 30, 0.4, 0.5, runs.step.values), 0.03) <= 1


def test_expression_and_function_agree():
    numbers = dict(q0=2.0, A=0.3, n=12.0, sigma=0.2, lr=0.7, steps=15.0)
    value = noisy_residual_expression().subs({sp.Symbol(k, positive=True): v for k, v in numbers.items()})
    assert closeness(noisy_residual(*numbers.values()), float(value), 1e-12) <= 1


def test_the_spread_of_sampled_steps():
    """The variance of an overlap after one step of descent from samples."""
    model = tm.Model({"icl": "abc"}, lambda icl: icl, dict(a=3, b=4, c=2))
    vectors, copies = tm.random_vectors(model, 5), 20_000
    after = tm.descend_vectors(model, vectors.expand_dims(copy=range(copies)), 1, sample=3).overlap[:, -1]
    values, targets = ({x: vectors[f"{x}{end}"].values for x in "abc"} for end in ("", "_target"))
    with jax.enable_x64(True):
        there, wanted = jax.tree.map(jax.numpy.asarray, (values, targets))
        slope = jax.grad(lambda v: tensor_loss(model.form, v, wanted, model.weights, {}))(there)
    for x in "abc":
        unit, g = targets[x] / np.linalg.norm(targets[x]), np.asarray(slope[x])
        spread = np.diag(sampled_variance(values, targets, "abc", x, model.weights["icl"], 3) + g**2 / 3)
        predicted = unit @ (spread - np.outer(g, g) / 3) @ unit
        assert closeness(float(after.sel(vector=x).var()), predicted, 0.1) <= 1
        assert abs(float(after.sel(vector=x).mean()) - (values[x] - g) @ unit) < 4 * np.sqrt(predicted / copies)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"momentum": 1.0}, "momentum must be within 0..1"),
        ({"momentum": 0.5, "noise": 0.1}, "do not close"),
        ({"noise": -1.0}, "noise must be >= 0"),
        ({"lr": 0.0}, "lr must be"),
        ({"every": 0}, "every must be"),
    ],
)
def test_refuses(arguments, message):
    model = tm.induction()
    with pytest.raises(ValueError, match=message):
        tm.descend(model, tm.aligned_start(model), 10, **arguments)


def test_divergence_is_an_error():
    model = tm.induction()
    with pytest.raises(FloatingPointError, match="diverge"):
        tm.descend(model, tm.aligned_start(model, overlap=3.0), 1_000, lr=1e4)
    with pytest.raises(ValueError, match="each vector once"):
        sampled_variance({}, {}, "aa", "a", 1.0, 1)
