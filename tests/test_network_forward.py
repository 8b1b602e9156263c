"""The networks against plain-numpy transcriptions of their equations, written with loops."""

from functools import partial

import equinox as eqx
import jax
import numpy as np
import pytest

from toymodel.network import tap
from toymodel.network.disentangled import Disentangled
from toymodel.network.evaluators import copy_strength, weight_names
from toymodel.network.tap import ablate, clamp, forbid, graft
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


def layer_norm(x, norm):
    gain, bias = np.asarray(norm.gain, np.float64), np.asarray(norm.bias, np.float64)
    return gain * (x - x.mean()) / np.sqrt(x.var() + 1e-5) + bias


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def turned(x, place):
    """Rotary positions, by a matrix of rotation for each pair of entries."""
    out, half = x.copy(), len(x) // 2
    for i in range(half):
        angle = place / 10_000 ** (2 * i / len(x))
        matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        out[i], out[half + i] = matrix @ [x[i], x[half + i]]
    return out


def transformer_in_numpy(net, x, labels):
    get = lambda w: np.asarray(w, np.float64)  # noqa: E731
    stream = []
    for i in range(len(labels)):
        stream += [x[i] @ get(net.embedding) + get(net.embedding_bias), get(net.labels)[labels[i]]]
    stream.append(x[-1] @ get(net.embedding) + get(net.embedding_bias))
    for place in range(len(stream)):
        if net.kind == "learned":
            stream[place] = stream[place] + get(net.positions)[place]
        elif net.kind == "sinusoidal":
            model = len(stream[place])
            angle = np.array([place / 10_000 ** (2 * i / model) for i in range(model // 2)])
            stream[place] = stream[place] + np.concatenate([np.sin(angle), np.cos(angle)])
    for number in range(1, len(net.layers) + 1):
        layer = net.layers[f"layer{number}"]
        h = [layer_norm(token, layer.norm) for token in stream]
        new = []
        for i in range(len(stream)):
            out = stream[i].copy()
            for Q, K, V, O in zip(get(layer.query), get(layer.key), get(layer.value), get(layer.output), strict=True):
                place = turned if net.kind == "rotary" else lambda vector, _place: vector
                scores = np.array([place(h[i] @ Q, i) @ place(h[j] @ K, j) for j in range(i + 1)])
                p = softmax(scores / np.sqrt(Q.shape[1]))
                out += sum(p[j] * (h[j] @ V) for j in range(i + 1)) @ O
            if layer.mlp is not None:
                mlp = layer.mlp
                hidden = gelu(layer_norm(out, mlp.norm) @ get(mlp.inner) + get(mlp.inner_bias))
                out = out + hidden @ get(mlp.outer) + get(mlp.outer_bias)
            new.append(out)
        stream = new
    return layer_norm(stream[-1], net.final) @ get(net.read_out) + get(net.read_out_bias)


@pytest.fixture(scope="module")
def sequence():
    x = np.random.default_rng(0).normal(size=(PAIRS + 1, FEATURES)).astype(np.float32)
    return x, np.array([4, 0, 6])


OPTIONS = [{}, {"layers": 1}, {"layers": 3, "mlp": 2, "positions": "sinusoidal"}, {"positions": "rotary", "mlp": 4}]


def networks(seed=0):
    return drawn(jax.random.key(seed), 0)


@partial(jax.jit, static_argnums=1)
def drawn(key, which):
    small = Disentangled.draw(key, CLASSES, FEATURES, PAIRS, scale=1.0, copy=2.0)
    large = Transformer.draw(key, CLASSES, FEATURES, PAIRS, heads=2, model=12, **OPTIONS[which])
    # trained networks have no weight at its special start
    noise = iter(jax.random.split(key, 99))
    shake = lambda net: jax.tree.map(lambda w: w + 0.5 * jax.random.normal(next(noise), w.shape), net)  # noqa: E731
    return [shake(small), shake(large)]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_forward_pass_is_that_of_numpy(sequence, seed):
    for net, transcription in zip(networks(seed), (disentangled_in_numpy, transformer_in_numpy), strict=True):
        logits, _ = run(net, *map(jax.numpy.asarray, sequence))
        expected = transcription(net, *sequence)
        np.testing.assert_allclose(logits, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("which", range(1, len(OPTIONS)))
def test_every_kind_of_transformer_is_that_of_numpy(sequence, which):
    net = drawn(jax.random.key(3), which)[1]
    expected = transformer_in_numpy(net, *sequence)
    logits, _ = run(net, *map(jax.numpy.asarray, sequence))
    np.testing.assert_allclose(logits, expected, atol=1e-5 * np.abs(expected).max())


def test_the_start_is_that_of_the_paper():
    net = Transformer.draw(jax.random.key(0), 1000, 64, 2, mlp=4)
    assert net.positions is not None and net.layers["layer2"].mlp is not None
    layer, limit = net.layers["layer1"], 32**-0.5
    for weight in (net.embedding, layer.query, layer.key, layer.value, layer.output, net.read_out):
        assert float(weight.std()) == pytest.approx(64**-0.5, rel=0.05)  # LeCun: the fan-in of all is 64
    assert float(net.layers["layer2"].mlp.outer.std()) == pytest.approx(256**-0.5, rel=0.05)
    cut = 0.02 * 0.8796  # a normal of 0.02 cut at twice that
    assert float(net.labels.std()) == pytest.approx(cut, rel=0.01) and np.abs(net.labels).max() <= 0.04
    assert 0.9 * limit < float(np.abs(net.positions).max()) <= limit
    assert not np.any(net.read_out_bias) and not np.any(net.embedding_bias) and np.all(net.final.gain == 1)


@pytest.mark.parametrize("to, back", [("previous", 1), ("own", 0)])
def test_what_is_forbidden_gets_no_attention_and_the_rest_is_shared(sequence, to, back):
    net = networks()[1]
    x, labels = map(jax.numpy.asarray, sequence)
    _, seen = run(net, x, labels, (forbid("layer1.score", to),))
    plain = run(net, x, labels)[1]["layer1.attention"]
    for token in range(2 * PAIRS + 1):
        expected = np.array(plain[:, token])
        if token % 2:
            expected[:, token - back] = 0
            expected /= expected.sum(1, keepdims=True)
        np.testing.assert_allclose(seen["layer1.attention"][:, token], expected, atol=1e-6)


def test_forbidding_needs_scores_of_label_tokens(sequence):
    net, inputs = networks()[1], [*map(jax.numpy.asarray, sequence)]
    with pytest.raises(ValueError, match=r"to must be one of \['own', 'previous'\], got 'query'"):
        forbid("layer1.score", "query")
    for at in ("layer2.score", "layer1.attention"):
        with pytest.raises(ValueError, match="to is for scores of layers that the label tokens have, got '" + at):
            tap.run(net, *inputs, (forbid(at, "own"),))


@pytest.mark.parametrize("which", [0, 1])
def test_recording_has_weights_and_intermediates(sequence, which):
    net = networks()[which]
    logits, seen = run(net, *map(jax.numpy.asarray, sequence))
    np.testing.assert_array_equal(seen["logits"], logits)
    attention = seen["layer2.attention"]
    np.testing.assert_allclose(attention.sum(-1), 1.0, rtol=1e-6)
    for name, weight in zip(weight_names(net), jax.tree.leaves(net), strict=True):
        np.testing.assert_array_equal(seen[name], weight)
    part = {0: "weights.W", 1: "weights.layer2.query"}[which]
    np.testing.assert_array_equal(seen[part], net.W if which == 0 else net.layers["layer2"].query)


def test_ablating_a_head_removes_what_it_writes(sequence):
    net = networks()[1]
    x, labels = map(jax.numpy.asarray, sequence)
    edited, seen = run(net, x, labels, (ablate("layer1.heads", heads=(1,)),))
    without = eqx.tree_at(lambda n: n.layers["layer1"].output, net, net.layers["layer1"].output.at[1].set(0.0))
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
        (clamp("layer1.residual", np.zeros(3)), r"layer1.residual has the shape \(7, 12\), got a value of \(3,\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            tap.run(net, *inputs, (edit,))


def test_options_that_do_not_fit_are_refused():
    for options, message in [
        ({"heads": 3}, "model must be a multiple of 2 x heads, got 64 and 3 heads"),
        ({"layers": 0}, "layers must be at least 1, got 0"),
        ({"positions": "none"}, r"positions must be one of \('learned', 'sinusoidal', 'rotary'\), got 'none'"),
    ]:
        with pytest.raises(ValueError, match=message):
            Transformer.draw(jax.random.key(0), CLASSES, FEATURES, PAIRS, **options)


def test_copying_is_measured_where_labels_write_themselves():
    """A last layer whose values and outputs are the identity, with a read-out that is the transposed embedding."""
    net = Transformer.draw(jax.random.key(0), 50, 64, 2, heads=1)
    eye = np.eye(64, dtype=np.float32)[None]
    copies = eqx.tree_at(
        lambda n: (n.layers["layer2"].value, n.layers["layer2"].output, n.read_out), net, (eye, eye, net.labels.T)
    )
    assert float(copy_strength(copies.copied(256))) > 5 > 1 > abs(float(copy_strength(net.copied(256))))
