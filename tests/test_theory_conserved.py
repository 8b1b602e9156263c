"""Conserved combinations along the flow of every model, against scipy and against closed forms."""

import conserved as derivation
import jax
import jax.flatten_util
import numpy as np
import pytest
import sympy as sp
from conftest import closeness
from zoo import SHAPES, shaped

import toymodel as tm
import toymodel.reduction
from toymodel.model import Balance
from toymodel.simulation.tensors import tensor_loss
from toymodel.theory.conserved import (
    balance_values,
    end_norms,
    end_norms_equation,
    end_sharpness,
    end_sharpness_expression,
    label,
)

pytestmark = pytest.mark.slow


def test_the_derivation_holds():
    assert derivation.build().checks >= 12


def test_a_wrong_coefficient_is_found(monkeypatch):
    right = toymodel.reduction.cost_loss
    monkeypatch.setattr(
        toymodel.reduction, "cost_loss", lambda planes, weight: right(planes, weight) * (1 + sp.Rational(1, 10**12))
    )
    with pytest.raises(AssertionError, match="differ"):
        derivation.symmetry(derivation.Page(derivation.__file__, "", []))


def test_a_wrong_balance_is_found(monkeypatch):
    right = derivation.coopetition().conserved()
    wrong = [Balance(b.coefficients, b.rate * (1 + sp.Rational(1, 10**12))) for b in right]
    monkeypatch.setattr(tm.Model, "conserved", lambda model: wrong)
    monkeypatch.setattr(derivation, "zoo", lambda: [derivation.coopetition()])
    with pytest.raises(AssertionError, match="differ"):
        derivation.symmetry(derivation.Page(derivation.__file__, "", []))


@pytest.mark.parametrize("name", [name for name in SHAPES if shaped(name).conserved()])
def test_rates_along_the_gradient_of_all_entries(name):
    """d/dt sum k |x|^2 = -2 sum k x . dL/dx, with JAX's gradient of the loss on tensors, against Model.conserved."""
    model = shaped(name)
    vectors = tm.random_vectors(model, 4, scale=0.7)
    with jax.enable_x64(True):
        values, targets = (
            {x: jax.numpy.asarray(vectors[f"{x}{end}"].values) for x in model.vectors} for end in ("", "_target")
        )
        slope = jax.grad(lambda v: tensor_loss(model.form, v, targets, model.weights, model.parameters))(values)
        start = tm.descend(model, tm.from_vectors(model, vectors), 1, lr=1e-12).isel(time=0)
        terms = {t: float(start[f"loss_{t}" if t in model.mechanisms else t]) for t in model.terms}
        numbers = {sp.Symbol(k, nonnegative=True): v for k, v in {**terms, **model.parameters}.items()}
        for balance in model.conserved():
            measured = -2 * sum(float(values[x] @ slope[x]) * k for x, k in balance.coefficients.items())
            assert closeness(measured, float(balance.rate.subs(numbers)), 1e-9, 1e-12) <= 1


def test_values_along_a_run():
    model = tm.coopetition()
    vectors = tm.random_vectors(model, range(3))
    start = tm.from_vectors(model, vectors)
    square = {x: (vectors[x] ** 2).sum(f"{x}_entry") for x in "abcd"}
    values = balance_values(model, start)
    assert values.balance.values.tolist() == ["|b|^2 - |c|^2", "|a|^2 - |b|^2 + |d|^2"]
    assert closeness(values[:, 0], square["b"] - square["c"], 1e-12) <= 1
    runs = tm.flow(model, start, t=300.0, times=[0.0, 100.0, 300.0], method="LSODA")
    along = balance_values(model, runs)
    assert along.dims == ("seed", "time", "balance")
    assert closeness(along[..., 0], values.values[:, :1] * np.ones(3), 1e-6) <= 1
    assert (along[..., 1].diff("time") < 0).all()


def test_the_label_of_a_balance():
    model = tm.Model({"one": "aab"}, lambda one: one, dict(a=3, b=3))
    (balance,) = model.conserved()
    assert label(balance) == "|a|^2 - 2|b|^2"


@pytest.mark.parametrize("letters", ["ab", "abc", "abcd"])
def test_ends_of_learning(letters):
    """The flow of one mechanism ends at the norms that were known at its start."""
    model = tm.Model({"icl": letters}, lambda icl: icl, dict.fromkeys(letters, 3))
    start = tm.random_start(model, range(20))
    squares = (start.overlap**2 + start.residual**2).values
    product = start.target_norm.prod("vector").values
    runs = tm.descend(model, start, 200_000, lr=0.02, every=200_000).isel(time=-1)
    learned = (runs.loss < 1e-12).values
    assert learned.sum() >= 10
    predicted = end_norms(squares, product)
    assert closeness(predicted.prod(-1), product, 1e-9) <= 1
    assert closeness(abs(runs.overlap.values[learned]), predicted[learned], 0.02) <= 1
    equation = end_norms_equation(len(letters))
    names = ["rho", "S", *(f"D{i}" for i in range(1, len(letters)))]
    equation = sp.lambdify(names, equation.subs({x: sp.Symbol(x.name) for x in equation.free_symbols}))
    for square, norms, goal in zip(squares, predicted, product, strict=True):
        rest = np.delete(square, square.argmin()) - square.min()
        assert abs(equation(norms.min() ** 2, goal, *rest)) < 1e-8 * goal**2


def test_the_sharpness_of_an_end():
    model = tm.Model({"icl": "abc"}, lambda icl: icl, dict(a=2, b=3, c=4))
    norms, weight = np.array([0.5, 2.0, 3.0]), model.weights["icl"]
    targets = {x: np.ones(n) * np.sqrt(s**2 / n) for (x, n), s in zip(model.dims.items(), norms, strict=True)}
    with jax.enable_x64(True):
        there = {x: jax.numpy.asarray(v) for x, v in targets.items()}
        flat, back = jax.flatten_util.ravel_pytree(there)
        hessian = jax.hessian(lambda v: tensor_loss(model.form, back(v), there, model.weights, {}))(flat)
        largest = float(np.linalg.eigvalsh(np.asarray(hessian))[-1])
    assert closeness(end_sharpness(norms, norms.prod(), weight), largest, 1e-9) <= 1
    symbols = {f"u_{x}": s for x, s in zip("abc", norms, strict=True)} | {"S": norms.prod(), "w": weight}
    value = end_sharpness_expression("abc").subs({sp.Symbol(k, positive=True): v for k, v in symbols.items()})
    assert closeness(float(value), largest, 1e-9) <= 1


def test_refuses():
    with pytest.raises(ValueError, match="squares must be >= 0"):
        end_norms([[1.0, -1.0]], [1.0])
    with pytest.raises(ValueError, match="product must be > 0"):
        end_norms([[1.0, 1.0]], [0.0])
    lonely = tm.Model({"one": "a"}, lambda one: one, dict(a=3))
    with pytest.raises(ValueError, match="no conserved"):
        balance_values(lonely, tm.aligned_start(lonely))
