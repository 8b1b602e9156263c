"""The reduced loss against the loss on all entries of the tensors, and their gradients."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sympy as sp
from hypothesis import given, settings
from zoo import SHAPES, cases, entries, shaped

import toymodel as tm
from toymodel.reduction import Plane, cost_loss, mechanism_loss, reduced_loss, symbols, terms
from toymodel.simulation.tensors import outer, tensor_loss


def tensors(model, values, targets, weights) -> dict[str, float]:
    """Mechanisms and costs by numpy alone, entry by entry of the outer products."""
    found = {}
    for term, letters in model.terms.items():
        made, wanted = np.ones(()), np.ones(())
        for x in letters:
            made, wanted = np.multiply.outer(made, values[x]), np.multiply.outer(wanted, targets[x])
        error = made - wanted if term in model.mechanisms else made
        found[term] = weights[term] / 2 * float((error**2).sum())
    return found


def planes_of(values, targets) -> dict[str, Plane]:
    found = {}
    for x, value in values.items():
        target = targets[x]
        overlap = value @ target / np.linalg.norm(target)
        residual = np.linalg.norm(value - overlap * target / np.linalg.norm(target))
        found[x] = Plane(overlap, residual, np.linalg.norm(target))
    return found


@given(case=cases())
def test_reduced_terms_are_those_of_the_tensors(case):
    values, targets = entries(case.vectors), entries(case.vectors, "_target")
    reduced = terms(case.model.form, planes_of(values, targets), case.weights)
    for term, value in tensors(case.model, values, targets, case.weights).items():
        np.testing.assert_allclose(reduced[term], value, rtol=1e-12, atol=1e-14)


@pytest.mark.slow
@settings(max_examples=60)
@given(case=cases())
def test_reduced_gradient_is_the_projected_gradient(case):
    """jax.grad of the reduced loss is the gradient on all entries, seen along the target and along the residual;
    nothing is left of it across these two directions."""
    form, weights, parameters = case.model.form, case.weights, case.parameters
    _, vectors = case.wide
    values, targets = entries(vectors), entries(vectors, "_target")
    planes = planes_of(values, targets)
    with jax.enable_x64(True):
        arrays = ({x: jnp.asarray(value) for x, value in part.items()} for part in (values, targets))
        full = jax.tree.map(np.asarray, gradient(form, *arrays, weights, parameters))
        reduced = jax.tree.map(np.asarray, reduced_gradient(form, planes, weights, parameters))
    for x, slope in full.items():
        along = targets[x] / np.linalg.norm(targets[x])
        across = values[x] - planes[x].u * along
        size = np.linalg.norm(slope) + 1e-9
        assert abs(slope @ along - reduced[x].u) < 1e-12 * size
        if planes[x].v > 1e-9:
            across = across / planes[x].v
            assert abs(slope @ across - reduced[x].v) < 1e-11 * size
            left = slope - (slope @ along) * along - (slope @ across) * across
            assert np.linalg.norm(left) < 1e-11 * size


@partial(jax.jit, static_argnums=0)
def gradient(form, values, targets, weights, parameters):
    return jax.grad(lambda values: tensor_loss(form, values, targets, weights, parameters))(values)


@partial(jax.jit, static_argnums=0)
def reduced_gradient(form, planes, weights, parameters):
    planes = {x: plane._replace(head=0.0, tail=1.0) for x, plane in planes.items()}
    return jax.grad(lambda planes: reduced_loss(form, planes, weights, parameters))(planes)


@pytest.mark.parametrize("seed", range(20))
def test_a_clamped_head_is_a_plane_too(seed):
    """With its first k entries at those of the target, a vector is overlap = c^2 T + s u and
    residual^2 = v^2 + c^2 (s T - u)^2 in the coordinates of its tail."""
    generator = np.random.default_rng(seed)
    n = int(generator.integers(2, 12))
    k = int(generator.integers(1, n))
    target, value = generator.standard_normal((2, n))
    value[:k] = target[:k]
    norm, head, tail = (np.linalg.norm(part) for part in (target, target[:k], target[k:]))
    u = value[k:] @ target[k:] / tail
    v = np.linalg.norm(value[k:] - u * target[k:] / tail)
    plane = Plane(u, v, norm, head / norm, tail / norm)
    overlap = value @ target / norm
    assert plane.overlap == pytest.approx(overlap, rel=1e-12, abs=1e-12)
    assert plane.residual_square == pytest.approx(np.sum((value - overlap * target / norm) ** 2), rel=1e-10, abs=1e-12)


def test_nothing_cancels_when_residuals_are_small():
    """Near a perfect solution the loss is that of exact rational arithmetic, to all digits."""
    small = sp.Rational(1, 10**9)
    exact = [Plane(2 - small, small, sp.Integer(2)), Plane(3 + small / 7, small / 3, sp.Integer(3))]
    floats = [Plane(2.0, 1e-9, 2.0), Plane(3.0, 1e-9 / 3, 3.0)]
    aligned = [plane._replace(u=plane.target) for plane in exact]
    assert mechanism_loss(floats, 0.5) == pytest.approx(float(mechanism_loss(aligned, sp.Rational(1, 2))), rel=1e-14)
    assert mechanism_loss(exact, 1) > 0


@pytest.mark.parametrize("name", SHAPES)
def test_symbols_and_arrays_give_the_same_loss(name):
    """The symbolic loss, evaluated to 30 digits, is the numeric one to float64."""
    model = shaped(name)
    planes, weights, parameters = symbols(model.form)
    symbolic = reduced_loss(model.form, planes, weights, parameters)
    generator = np.random.default_rng(5)
    point = {s: float(generator.uniform(0.2, 1.5)) for s in sorted(symbolic.free_symbols, key=str)}
    numeric = reduced_loss(
        model.form,
        {x: Plane(*(point[s] for s in plane[:2]), point.get(plane.target, 1.0)) for x, plane in planes.items()},
        {t: point[w] for t, w in weights.items()},
        {p: point[s] for p, s in parameters.items()},
    )
    assert numeric == pytest.approx(float(symbolic.evalf(30, subs=point)), rel=1e-13)


def test_terms_by_hand():
    """|x* y* - x y|^2 with x = (1, 2), x* = (2, 0), y = 3, y* = 1: (2 - 3)^2 + (0 - 6)^2 = 37; the cost is 9 x 5."""
    planes = [Plane(1.0, 2.0, 2.0), Plane(3.0, 0.0, 1.0)]
    assert mechanism_loss(planes, 1.0) == pytest.approx(37 / 2)
    assert cost_loss(planes, 2.0) == pytest.approx(45)


def test_outer_product_has_one_axis_for_each_vector():
    with jax.enable_x64(True):
        vectors = [jnp.arange(2.0), jnp.arange(3.0), jnp.arange(4.0)]
        np.testing.assert_array_equal(outer(vectors), np.einsum("i,j,k->ijk", *vectors))


def test_form_has_no_numbers():
    """Models that differ in numbers alone share what is compiled."""
    left, right = shaped("paper"), shaped("paper", (5, 6, 7, 8), parameters={"alpha": 0.7}, weights={"icl": 2})
    assert left != right and left.form == right.form and hash(left.form) == hash(right.form)
    assert tm.coopetition().form != left.form
