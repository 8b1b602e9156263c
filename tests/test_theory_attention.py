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
    SECOND_HALF,
    Training,
    grafted,
    landmarks,
    of_weights,
    predict,
    rule,
    start,
    states,
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
    order = states(training, 1000, 1000, begin)[1][1000]
    for name in "VWQUB":
        value = getattr(order, name)
        assert np.abs(value - np.trace(value) / 32 * eye).max() < 1e-9 * max(np.abs(value).max(), 1e-3), name


def test_without_codes_nothing_of_them_moves():
    training = Training(held=CODES)
    order = states(training, 500, 500, without_codes(start(training)))[1][500]
    assert all(np.all(getattr(order, name) == 0) for name in CODES)


def test_a_training_goes_on_from_a_kept_state():
    """Without sampling noise the second half of a training is the training of the state in its middle."""
    training = Training(held=("noise_V", "noise_W"))
    whole, kept = states(training, 600, 100, keep=(300, 600), tolerance=1e-6)
    again = predict(training, 300, 100, kept[300], tolerance=1e-6)
    assert sorted(kept) == [300, 600]
    for name in ("flip", "loss_ciwl", "g"):
        np.testing.assert_allclose(again[name].values, whole[name].values[3:], rtol=1e-4)


def test_the_second_half_of_a_graft_stays():
    given = start(Training(), 1)._replace(g=np.array(7.0))
    begin = grafted(start(Training()), given)
    _, kept = states(Training(kind="icl", held=SECOND_HALF), 200, 100, begin)
    assert all(np.array_equal(getattr(kept[200], name), getattr(given, name)) for name in SECOND_HALF)
    assert not np.array_equal(kept[200].V, begin.V)


def test_layer_1_moves_by_its_own_rate():
    """The rate of the logits is a factor of theirs alone, and with 0 they are held."""
    with jax.enable_x64(True):
        of = jax.jit(lambda numbers: velocity(jax.tree.map(jnp.asarray, start(Training())), numbers))
        rules = [rule(Training(logits=value)) for value in (1.0, 0.25, 0.0)]
        changes = [jax.tree.map(np.asarray, of(numbers)) for numbers in rules]
    for name in changes[0]._fields:
        share = (1.0, 0.25, 0.0) if name in ("first", "second") else (1.0, 1.0, 1.0)
        for change, factor in zip(changes, share, strict=True):
            np.testing.assert_allclose(getattr(change, name), factor * getattr(changes[0], name), rtol=1e-6, atol=1e-12)


def test_the_losses_of_evaluators_are_those_of_their_data():
    """On ICL-only data the loss is that of icl; where scores are near 0 that of ciwl is of one half each."""
    training = Training(kind="icl", held=SECOND_HALF)
    curves = predict(training, 200, 100)
    np.testing.assert_allclose(curves.loss_icl, curves.loss)
    half, others = np.exp(training.copy / 2), training.classes.classes - 2
    assert float(curves.loss_ciwl[0]) == pytest.approx(np.log(2 * half + others) - training.copy / 2, rel=1e-4)


def test_the_tolerance_of_the_integration_does_not_matter():
    rough, fine = (predict(Training(), 4000, 100, tolerance=t).flip.values for t in (1e-3, 1e-5))
    assert np.abs(rough - fine).max() < 0.01


def test_predictions_meet_trained_networks():
    """Emergence within 10 %, the peak within 0.05, the end within 20 %, R2 of flip at least 0.95, five seeds."""
    kept = reference.read()
    for case in (reference.Case(reference.BASE), reference.Case(replace(reference.BASE, noise=1.4))):
        of = case.setting
        flip = kept[case][:, :, reference.MEASURES.index("flip")].mean(0)
        training = Training(Classes(of.classes, of.features, of.noise, of.exemplars), of.barrier)
        predicted = predict(training, case.steps, case.every)
        ours, theirs = (landmarks(predicted.step.values, x) for x in (predicted.flip.values, flip))
        assert ours["emergence"] == pytest.approx(theirs["emergence"], rel=0.1)
        assert ours["peak"] == pytest.approx(theirs["peak"], abs=0.05)
        assert ours["end"] == pytest.approx(theirs["end"], rel=0.2)
        assert np.corrcoef(predicted.flip.values, flip)[0, 1] ** 2 > 0.95


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
        (lambda: Training(logits=-1.0), "logits"),
        (lambda: Training(held=("X",)), "held"),
        (lambda: Classes(classes=3), "classes"),
        (lambda: Classes(noise=0.0), "noise"),
        (lambda: predict(Training(), 100, 30), "steps"),
        (lambda: states(Training(), 100, 50, keep=(30,)), "keep"),
    ],
)
def test_bad_input_is_named(make, named):
    with pytest.raises(ValueError, match=named):
        make()
