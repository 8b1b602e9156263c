"""The networks against plain-numpy transcriptions of their equations, written with loops."""

import equinox as eqx
import jax
import numpy as np
import pytest

from toymodel.network import tap
from toymodel.network.disentangled import Disentangled
from toymodel.network.tap import ablate, clamp, graft
from toymodel.network.transformer import Transformer

pytestmark = pytest.mark.slow

CLASSES, FEATURES, PAIRS = 7, 8, 3
run = jax.jit(tap.run)  # compiled at once: quicker than operation by operation


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def disentangled_in_numpy(net, x, labels):
    A, V, M, W, t, g = (np.asarray(w, np.float64) for w in (net.A, net.V, net.M, net.W, net.t, net.g))
    tokens = []
    for i in range(len(labels)):
        tokens += [x[i] @ V, M[labels[i]]]
    score = np.zeros(len(labels))
    for i in range(len(labels)):
        place = 2 * i + 1
        p = softmax(A[place, : place + 1])
        key = sum(p[j] * tokens[j] for j in range(place + 1))
        score[i] = (x[-1] @ W) @ (key / np.linalg.norm(key)) + t[i]
    attention = softmax(score)
    logits = np.zeros(len(M))
    for i, label in enumerate(labels):
        logits[label] += g * attention[i]
    return logits


def layer_norm(x, gain):
    return gain * (x - x.mean()) / np.sqrt(x.var() + 1e-5)


def transformer_in_numpy(net, x, labels):
    get = lambda w: np.asarray(w, np.float64)  # noqa: E731
    stream = []
    for i in range(len(labels)):
        stream += [x[i], get(net.labels)[labels[i]]]
    stream = [token + place for token, place in zip([*stream, x[-1]], get(net.positions), strict=True)]
    for layer in (net.layer1, net.layer2):
        h = [layer_norm(token, get(layer.gain)) for token in stream]
        new = []
        for i in range(len(stream)):
            out = stream[i].copy()
            for Q, K, V, O in zip(get(layer.query), get(layer.key), get(layer.value), get(layer.output), strict=True):
                scores = np.array([(h[i] @ Q) @ (h[j] @ K) for j in range(i + 1)]) / np.sqrt(Q.shape[1])
                out += sum(p * (h[j] @ V) for j, p in enumerate(softmax(scores))) @ O
            new.append(out)
        stream = new
    return get(net.labels) @ layer_norm(stream[-1], get(net.gain))


@pytest.fixture(scope="module")
def sequence():
    x = np.random.default_rng(0).normal(size=(PAIRS + 1, FEATURES)).astype(np.float32)
    return x, np.array([4, 0, 6])


def networks(seed=0):
    return drawn(jax.random.key(seed))


@jax.jit
def drawn(key):
    small = Disentangled.draw(key, CLASSES, FEATURES, PAIRS, scale=1.0, copy=2.0)
    # trained networks have no weight at its special start
    noise = iter(jax.random.split(key, 99))
    shake = lambda net: jax.tree.map(lambda w: w + 0.5 * jax.random.normal(next(noise), w.shape), net)  # noqa: E731
    return [shake(small), shake(Transformer.draw(key, CLASSES, FEATURES, PAIRS, heads=2))]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_forward_pass_is_that_of_numpy(sequence, seed):
    for net, transcription in zip(networks(seed), (disentangled_in_numpy, transformer_in_numpy), strict=True):
        logits, _ = run(net, *map(jax.numpy.asarray, sequence))
        expected = transcription(net, *sequence)
        np.testing.assert_allclose(logits, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("which", [0, 1])
def test_recording_has_weights_and_intermediates(sequence, which):
    net = networks()[which]
    logits, seen = run(net, *map(jax.numpy.asarray, sequence))
    np.testing.assert_array_equal(seen["logits"], logits)
    attention = seen["layer2.attention"]
    np.testing.assert_allclose(attention.sum(-1), 1.0, rtol=1e-6)
    for path, weight in jax.tree_util.tree_leaves_with_path(net):
        np.testing.assert_array_equal(seen["weights" + jax.tree_util.keystr(path)], weight)


def test_ablating_a_head_removes_what_it_writes(sequence):
    net = networks()[1]
    x, labels = map(jax.numpy.asarray, sequence)
    edited, seen = run(net, x, labels, (ablate("layer1.heads", heads=(1,)),))
    without = eqx.tree_at(lambda n: n.layer1.output, net, net.layer1.output.at[1].set(0.0))
    np.testing.assert_allclose(edited, transformer_in_numpy(without, *sequence), rtol=1e-4, atol=1e-5)
    assert not np.any(seen["layer1.heads"][1])
    assert np.any(seen["layer1.heads"][0])


def test_clamped_attention_gives_the_output_of_that_attention(sequence):
    net = networks()[0]
    x, labels = map(jax.numpy.asarray, sequence)
    logits, _ = run(net, x, labels, (clamp("layer2.attention", np.array([0.0, 1.0, 0.0])),))
    expected = np.zeros(CLASSES)
    expected[labels[1]] = net.g
    np.testing.assert_allclose(logits, expected, rtol=1e-6)


@pytest.mark.parametrize("which", [0, 1])
def test_grafting_everything_makes_the_donor(sequence, which):
    net, donor = networks(0)[which], networks(1)[which]
    x, labels = map(jax.numpy.asarray, sequence)
    expected, seen = run(donor, x, labels)
    np.testing.assert_allclose(run(net, x, labels, (graft("weights.*", donor),))[0], expected, rtol=1e-6)
    assert np.any(np.abs(run(net, x, labels)[0] - expected) > 0.01)
    _, mixed = run(net, x, labels, (graft("layer1.attention", donor),))
    np.testing.assert_array_equal(mixed["layer1.attention"], seen["layer1.attention"])


def test_a_grafted_weight_has_gradient_zero(sequence):
    net, donor = networks(0)[0], networks(1)[0]
    x, labels = map(jax.numpy.asarray, sequence)
    gradient = jax.grad(lambda n: run(n, x, labels, (graft("weights.W", donor),))[0][4])(net)
    assert not np.any(gradient.W)
    assert np.any(gradient.V)


def test_an_edit_of_nothing_is_refused(sequence):
    with pytest.raises(ValueError, match=r"at must match a name of the network, got \['layer3"):
        run(networks()[1], *map(jax.numpy.asarray, sequence), (ablate("layer3.*"),))


def test_heads_and_values_that_do_not_fit_are_refused(sequence):
    net, inputs = networks()[1], [*map(jax.numpy.asarray, sequence)]
    for edit, message in [
        (ablate("layer1.heads", heads=(2,)), r"heads of layer1.heads must be some of 0..1, got \(2,\)"),
        (ablate("layer1.heads", heads=()), r"heads of layer1.heads must be some of 0..1, got \(\)"),
        (ablate("layer1.residual", heads=(0,)), "heads is for query.* of a layer, got 'layer1.residual'"),
        (clamp("layer1.residual", np.zeros(3)), r"layer1.residual has the shape \(7, 8\), got a value of \(3,\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            tap.run(net, *inputs, (edit,))


def test_heads_divide_the_width():
    with pytest.raises(ValueError, match="heads must divide the number of features 8, got 3"):
        Transformer.draw(jax.random.key(0), CLASSES, FEATURES, PAIRS, heads=3)
