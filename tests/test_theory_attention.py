"""The theory of the disentangled network: its data, moments and equations of motion, against the network itself."""

import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from toymodel.network.data import GaussianClasses, Sequences, sample
from toymodel.network.disentangled import Disentangled
from toymodel.network.evaluators import loss_of, run_batch
from toymodel.theory import attention as theory
from toymodel.theory.attention_data import Classes, Tensor
from toymodel.theory.attention_flow import (
    CODES,
    Training,
    landmarks,
    of_weights,
    predict,
    rule,
    start,
    velocity,
    without_codes,
)

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import attention_networks as reference

pytestmark = pytest.mark.slow

DRAWN = GaussianClasses(classes=2000, exemplars=20, features=64, noise=1.2, norm=1.0)
CLASSES = Classes(classes=2000, exemplars=20, features=64, noise=1.2)


@pytest.fixture(scope="module")
def exemplars():
    return np.asarray(DRAWN.draw(jax.random.key(1)), np.float64)


@pytest.fixture(scope="module")
def weights():
    """A network half-way: V and W partly aligned, codes partly those of the means."""
    draw = np.random.default_rng(2)
    eye, size = np.eye(64), 64
    V = 0.25 * eye + 0.03 * draw.standard_normal((size, size))
    W = 0.9 * eye + 0.1 * draw.standard_normal((size, size))
    A = np.zeros((5, 5))
    A[1, :2], A[3, :4] = (0.3, 0.9), (0.1, -0.2, 0.6, 0.8)
    return {"V": V, "W": W, "A": A, "g": 15.0, "rest": 0.03 * draw.standard_normal((2000, size)), "Q": 0.15 * eye}


@pytest.fixture(scope="module")
def network(weights, exemplars):
    M = exemplars.mean(1) @ weights["Q"] + weights["rest"]
    arrays = {"V": weights["V"], "W": weights["W"], "A": weights["A"], "M": M, "t": np.zeros(2), "g": weights["g"]}
    return Disentangled(**{name: jnp.asarray(value, jnp.float32) for name, value in arrays.items()})


def order_of(network, exemplars):
    return of_weights({name: np.asarray(getattr(network, name)) for name in "VWMAg"}, exemplars)


def test_overlaps_are_those_of_drawn_exemplars(exemplars):
    data, mean = CLASSES.overlaps(), exemplars.mean(1)
    x, y = exemplars[:, 0], exemplars[:, 1]
    inner = {"same": (x * y).sum(1), "mean": (x * mean).sum(1), "norm": (mean**2).sum(1)}
    drawn = {
        "same": inner["same"],
        "square": inner["same"] ** 2,
        "mean": inner["mean"],
        "mean_square": inner["mean"] ** 2,
        "three": inner["same"] * inner["mean"],
        "fourth": inner["norm"] ** 2,
    }
    for name, values in drawn.items():
        error = values.std() / np.sqrt(len(values))
        assert abs(values.mean() - getattr(data, name)) < 4 * error, name


def test_tensor_gives_the_mean_of_two_bilinear_forms():
    draw = np.random.default_rng(0)
    shared = draw.standard_normal((200_000, 4))
    q, y, z = (shared + draw.standard_normal((200_000, 4)) for _ in range(3))
    left, right = draw.standard_normal((2, 4, 4))
    values = np.einsum("ni,ij,nj->n", q, left, y) * np.einsum("ni,ij,nj->n", q, right, z)
    tensor = Tensor.of(4, 4 * 4 * 2 * 1 + 2 * 4 * 1, 4 * 2 * 1 + (16 + 4) * 1)
    assert abs(values.mean() - float(tensor.apply(left, right))) < 4 * values.std() / np.sqrt(len(values))


@pytest.mark.parametrize("kind", theory.KINDS)
def test_loss_and_accuracy_are_the_networks(network, exemplars, kind):
    data, order = CLASSES.overlaps(), order_of(network, exemplars)
    batch = sample(jax.random.key(3), jnp.asarray(exemplars, jnp.float32), Sequences(kind=kind), 12_000)
    logits = jax.lax.map(
        lambda one: run_batch(network, jax.tree.map(lambda x: x[None], one))[0][0], batch, batch_size=500
    )
    in_context = jnp.take_along_axis(logits, batch.labels, axis=1)
    share = float((jnp.take_along_axis(batch.labels, in_context.argmax(1)[:, None], 1)[:, 0] == batch.target).mean())
    assert abs(share - float(theory.accuracy(order, data, kind, False))) < 0.015
    assert float(loss_of(logits, batch)) == pytest.approx(float(theory.loss(order, data, kind, False)[0]), rel=0.05)


def test_velocity_is_the_networks_gradient(network, exemplars):
    """V, W, Q, the logits and g move as the gradient of the network's own loss on 20,000 sequences says."""
    drawn = jnp.asarray(exemplars, jnp.float32)
    batch = sample(jax.random.key(4), drawn, Sequences(), 20_000)
    weights = {name: getattr(network, name) for name in "AVWg"}
    slope, rows = jax.jit(jax.grad(reference.loss, (0, 1)), static_argnums=3)(
        weights, network.M[batch.labels], batch, 2000
    )
    change = velocity(order_of(network, exemplars), rule(Training(CLASSES, batch=10**9)))
    codes = np.zeros((2000, 64))
    np.add.at(codes, np.asarray(batch.labels).ravel(), np.asarray(rows).reshape(-1, 64))
    mean = exemplars.mean(1)
    wanted = {
        "V": slope["V"],
        "W": slope["W"],
        "g": slope["g"],
        "first": slope["A"][1, :2],
        "second": slope["A"][3, :4],
    }
    wanted["Q"] = np.linalg.solve(mean.T @ mean, mean.T @ codes)
    for name, value in wanted.items():
        ours, theirs = np.asarray(getattr(change, name)), -0.1 * np.asarray(value)
        along = np.sum(ours * theirs) / np.sum(ours**2)
        assert abs(along - 1) < 0.08, (name, along)


def test_the_benchmarks_loss_is_the_networks(network, exemplars):
    """The reference networks are trained by a shorter forward pass: its gradient is that of the network."""
    batch = sample(jax.random.key(5), jnp.asarray(exemplars, jnp.float32), Sequences(), 64)
    slope = jax.grad(lambda n: loss_of(run_batch(n, batch)[0], batch))(network)
    weights = {name: getattr(network, name) for name in "AVWg"}
    ours, rows = jax.grad(reference.loss, (0, 1))(weights, network.M[batch.labels], batch, 2000)
    codes = jnp.zeros_like(network.M).at[batch.labels].add(rows)
    for name in "AVWg":
        np.testing.assert_allclose(ours[name], getattr(slope, name), rtol=2e-3, atol=1e-6)
    np.testing.assert_allclose(codes, slope.M, rtol=2e-3, atol=1e-6)


def test_aligned_matrices_stay_aligned():
    """From V, W, Q that are multiples of the identity, and without sampling noise, the equations are those of three
    numbers: nothing else grows."""
    training = Training(held=("noise_V", "noise_W"))
    eye = np.eye(32)
    begin = start(training)._replace(V=0.17 * eye, W=0.17 * eye, Q=0.02 * eye)
    _, order = predict(training, 1000, 1000, begin, last=True)  # pyright: ignore
    for name in "VWQUB":
        value = getattr(order, name)
        assert np.abs(value - np.trace(value) / 32 * eye).max() < 1e-9 * max(np.abs(value).max(), 1e-3), name


def test_without_codes_nothing_of_them_moves():
    training = Training(held=CODES)
    _, order = predict(training, 500, 500, without_codes(start(training)), last=True)  # pyright: ignore
    assert all(np.all(getattr(order, name) == 0) for name in CODES)


def test_the_tolerance_of_the_integration_does_not_matter():
    rough, fine = (predict(Training(), 4000, 100, tolerance=t).flip.values for t in (1e-3, 1e-5))  # pyright: ignore
    assert np.abs(rough - fine).max() < 0.01


def test_predictions_meet_trained_networks():
    """Emergence within 10 %, the peak within 0.05, the end within 20 %, R2 of flip at least 0.95, five seeds."""
    kept = reference.read()
    for case in (reference.Case(reference.BASE), reference.Case(replace(reference.BASE, noise=1.4))):
        of = case.setting
        flip = kept[case][:, :, reference.MEASURES.index("flip")].mean(0)
        training = Training(Classes(of.classes, of.features, of.noise, of.exemplars), of.barrier)
        predicted = predict(training, case.steps, case.every)
        ours, theirs = (landmarks(predicted.step.values, x) for x in (predicted.flip.values, flip))  # pyright: ignore
        assert ours["emergence"] == pytest.approx(theirs["emergence"], rel=0.1)
        assert ours["peak"] == pytest.approx(theirs["peak"], abs=0.05)
        assert ours["end"] == pytest.approx(theirs["end"], rel=0.2)
        assert np.corrcoef(predicted.flip.values, flip)[0, 1] ** 2 > 0.95  # pyright: ignore


def test_reference_files_hold_what_was_written(tmp_path):
    case = reference.Case(reference.BASE, steps=100, every=50, seeds=2)
    rows = np.random.default_rng(0).random((2, 3, len(reference.MEASURES))).astype(np.float32)
    reference.write({case: rows}, tmp_path / "some.nc")
    (found, values), *_ = reference.read(tmp_path / "some.nc").items()
    assert found == case
    np.testing.assert_array_equal(values, rows)


def test_landmarks_of_a_straight_rise_and_fall():
    step = np.arange(5) * 10
    found = landmarks(step, np.array([0.4, 0.5, 0.9, 0.6, 0.4]))
    assert found == pytest.approx({"emergence": 10 + 10 * 0.05 / 0.4, "peak": 0.9, "end": 35.0})
    never = landmarks(step, np.full(5, 0.5))
    assert np.isnan(never["emergence"]) and np.isnan(never["end"])


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Training(kind="flip"), "kind"),
        (lambda: Training(rate=0.0), "rate"),
        (lambda: Training(factor=-1.0), "factor"),
        (lambda: Training(held=("X",)), "held"),
        (lambda: Classes(classes=3), "classes"),
        (lambda: Classes(noise=0.0), "noise"),
        (lambda: predict(Training(), 100, 30), "steps"),
    ],
)
def test_bad_input_is_named(make, named):
    with pytest.raises(ValueError, match=named):
        make()
