r"""The disentangled network in its order parameters: the mean loss as a function of a few matrices and numbers.

With one query x, the exemplars x_r (of its class), x_w (of another) and the codes M_r, M_w of the two labels, the
network of `toymodel.network.disentangled` decides by one number, the margin

    delta = sum_j (p_rj / n_r - p_wj / n_w) x W c_j,     c = (x_r V, M_r, x_w V, M_w),

and its loss is  l(delta) = -g s(delta) + log(e^{g s(delta)} + e^{g s(-delta)} + K - 2),  s(z) = 1 / (1 + e^-z).
In many dimensions delta is normal and the norms n of the keys are near their root mean square, so that the mean loss
needs two moments for each order of the pairs. The codes of the classes are what their learning makes of them,

    M_k = m_k Q  +  (m_k B m_k' - mean) u_k  +  (m_k U + w e_k W') S_k W  +  e_k,

m_k the mean of the exemplars of class k, u_k the direction of m_k W, S_k what the covariance of the exemplars of class
k has beyond its mean over classes, and e_k a random rest. Q is learned by all classes alike; B and the bracket are what
a class learns because *it* is (or one of its exemplars is) answered worse than others. Sampling noise of the gradient
adds random parts to V and W. So 3 K D weights and more become V, W, Q, B, U (D x D) and 12 numbers. Derived and checked
in `derivations/attention.py`; the equations of motion are in `toymodel.theory.attention_flow`.

The theory does not hold for pairs other than two, for labels with a bias, or for other classes than `GaussianClasses`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from toymodel.theory.attention_data import Overlaps, Tensor

KINDS = ("full", "icl", "flip", "ciwl")  # of sequences, as in toymodel.network.data
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(41)  # of the normal margin
WEIGHTS = WEIGHTS / WEIGHTS.sum()


class Order(NamedTuple):
    """The order parameters; their rates of change have the same shape."""

    V: Any  # D x D
    W: Any
    Q: Any  # linear part of the codes
    B: Any  # what each class learns beyond it, from how well it is answered
    U: Any  # and from how well each of its exemplars is, beyond m_k Q
    recall: Any  # the same, beyond the random rest: w above
    spread: Any  # variance an entry of the random rest, across m_k W
    along: Any  # its variance along m_k W
    noise_V: Any  # variance an entry of what sampling noise has added
    noise_W: Any
    first: Any  # logits of the first label token: on exemplar, label
    second: Any  # of the second label token: on exemplar, label, exemplar, label
    g: Any


class Contents(NamedTuple):
    """Moments of the contents c = (x_r V, M_r, x_w V, M_w) of a kind of sequence and of their raw scores x W c'."""

    mean: Array  # [4] of the scores
    second: Array  # [4, 4]
    gram: Array  # [4, 4] E c.c'


class Matrices(NamedTuple):
    """What all kinds of sequences share: norms, and the scores' moments for one class and for two."""

    query: Array  # E |x W|^2
    norms: tuple[Array, Array, Array]  # E |x V|^2, E (x V).M, E |M|^2 of one class
    means: tuple[Array, Array, Array]  # E x W (y V)' for another exemplar y and for y = x, E x W M'
    own: tuple[Array, Array, Array, Array, Array]  # second moments in one class: xx, xx repeated, xM, xM repeated, MM
    other: tuple[Array, Array, Array]  # with the contents of another class: xx, xM, MM


def matrices(order: Order, data: Overlaps) -> Matrices:
    """The moments from the order parameters, by traces of products of matrices."""
    size, number = order.V.shape[0], data.number
    V, W, Q, B, U = order.V, order.W, order.Q, order.B, order.U
    eye = jnp.eye(size)
    gram_W = W.T @ W + size * order.noise_W * eye
    gram_V = V.T @ V + size * order.noise_V * eye
    gram_Q, gram_VQ = Q.T @ Q, V.T @ Q
    query = jnp.trace(gram_W) / size
    look = data.mean * query  # E |m W|^2
    P, R = W @ V.T, W @ Q.T

    memory = ((1 - data.mean) / size) ** 2 / number  # E[S A S] = memory (A' + tr A) for random A
    heard = jnp.sum(U * U) * data.mean / size + order.recall**2 * order.spread * size * query
    remembered = memory * size * query * heard  # E |(m U + w e W') S W|^2
    between = _between(B, B, size, data)
    extra = between / look + order.along  # E (M.u)^2 beyond m Q
    code = jnp.trace(gram_Q) * data.mean / size + (size - 1) * order.spread + extra + remembered

    different, repeated = Tensor.of(size, 1.0, data.square), Tensor.of(size, 1.0, 1.0)
    with_mean = Tensor.of(size, data.mean, data.three), Tensor.of(size, data.mean, data.mean)
    codes = Tensor.of(size, data.mean, data.mean_square)
    noise = {name: jnp.sum(gram_W * gram) for name, gram in (("VV", gram_V), ("VQ", gram_VQ), ("QQ", gram_Q))}
    noise = {name: noise[name] - jnp.sum(a * b) for name, a, b in (("VV", P, P), ("VQ", P, R), ("QQ", R, R))}
    rest = (1 - data.mean) * query * ((size - 1) * order.spread + order.along) / size + order.along * look
    rest += between + 2 * _between(B, R, size, data)
    rest += 2 * memory * size * query * (jnp.sum(R * U) * data.mean / size + order.recall * order.spread * size * query)
    rest += memory * (1 - data.mean) / size * (1 + size / number) * jnp.sum(gram_W * gram_W) * heard
    learned = memory * size * query * jnp.sum(P * U) * data.mean / size
    repeated_cov = _with_exemplar(P, B, size, data)
    different_cov = (number * _between(P, B, size, data) - repeated_cov) / (number - 1)
    own = (
        different.apply(P, P) + different.equal * noise["VV"],
        repeated.apply(P, P) + repeated.equal * noise["VV"],
        with_mean[0].apply(P, R) + with_mean[0].equal * noise["VQ"] + different_cov + learned,
        with_mean[1].apply(P, R) + with_mean[1].equal * noise["VQ"] + repeated_cov + learned,
        codes.apply(R, R) + codes.equal * noise["QQ"] + rest,
    )
    other = (
        jnp.sum(gram_W * gram_V) / size**2,
        jnp.sum(gram_W * gram_VQ) / size**2 * data.mean,
        jnp.sum(gram_W * gram_Q) / size**2 * data.mean
        + query * ((size - 1) * order.spread + extra + remembered) / size,
    )
    norms = (jnp.trace(gram_V) / size, data.mean * jnp.trace(gram_VQ) / size, code)
    means = (data.same * jnp.trace(P) / size, jnp.trace(P) / size, data.mean * jnp.trace(R) / size)
    return Matrices(query, norms, means, own, other)


def _between(left: Array, right: Array, size: int, data: Overlaps) -> Array:
    """Covariance over classes of m S m' and m T m'."""
    traces = jnp.trace(left) * jnp.trace(right)
    products = jnp.sum(left * right) + jnp.sum(left * right.T)
    return data.fourth / (size * size + 2 * size) * (traces + products) - data.mean**2 * traces / size**2


def _with_exemplar(left: Array, right: Array, size: int, data: Overlaps) -> Array:
    """Covariance of x S x' (x an exemplar) and m T m' (m the mean of its class)."""
    tensor = Tensor.of(size, data.mean, data.mean_square)
    traces = jnp.trace(left) * jnp.trace(right)
    products = jnp.sum(left * right) + jnp.sum(left * right.T)
    return (tensor.equal - data.mean / size**2) * traces + tensor.mixed * products


def contents(of: Matrices, kind: str, repeated: bool) -> Contents:
    """The moments for a kind of sequence; `repeated`: the query is the exemplar that stands in context."""
    xx, xx_repeated, xm, xm_repeated, mm = of.own
    xx, xm = (xx_repeated, xm_repeated) if repeated else (xx, xm)
    far_xx, far_xm, far_mm = of.other
    x, m = of.means[1 if repeated else 0], of.means[2]
    square, product, code = of.norms
    zero = jnp.zeros_like(x)
    # which class the label to the right (place 1) and to the wrong exemplar (place 3) has
    own_label, other_label = {"full": (1, 3), "flip": (3, 1), "icl": (None, None), "ciwl": (1, None)}[kind]
    mean, second = [zero] * 4, [[zero] * 4 for _ in range(4)]
    gram = [[zero] * 4 for _ in range(4)]
    for place, near in ((0, kind != "ciwl"), (2, False)):
        mean[place] = x if near else zero
        second[place][place] = xx if near else far_xx
        gram[place][place] = square
    for place in (1, 3):
        mean[place] = m if place == own_label else zero
        second[place][place] = mm if place == own_label else far_mm
        gram[place][place] = code
    tied = [(0, own_label, xm), (2, other_label, far_xm)] if kind in ("full", "flip") else []
    for place, label, value in tied:
        second[place][label] = second[label][place] = value
        gram[place][label] = gram[label][place] = product
    return Contents(jnp.stack(mean), jnp.stack([jnp.stack(r) for r in second]), jnp.stack([jnp.stack(r) for r in gram]))


class Margin(NamedTuple):
    """The margin of the right pair: its mean and variance, and the attention of both keys over their norms."""

    mean: Array
    variance: Array
    right: Array  # [4] p_rj / n_r
    wrong: Array


def keys(order: Order) -> tuple[Array, Array]:
    """Attention of the right and of the wrong label token to (x_r, label_r, x_w, label_w), each [2, 4]: with the right
    pair first and second in context."""
    first = jnp.concatenate([jax.nn.softmax(order.first), jnp.zeros(2)])
    second = jax.nn.softmax(order.second)
    swap = jnp.array([2, 3, 0, 1])
    return jnp.stack([first, second[swap]]), jnp.stack([second, first[swap]])


def margin(right: Array, wrong: Array, of: Contents) -> Margin:
    """Mean and variance of the margin for the attention [4] of both keys."""
    right, wrong = (p / jnp.sqrt(p @ of.gram @ p) for p in (right, wrong))
    weights = right - wrong
    mean = weights @ of.mean
    return Margin(mean, weights @ of.second @ weights - mean**2, right, wrong)


def cross_entropy(delta: Any, g: Any, classes: Any) -> Any:
    """Loss of one sequence from its margin."""
    right = jax.nn.sigmoid(delta)
    return -g * right + jnp.logaddexp(jnp.logaddexp(g * right, g * (1 - right)), jnp.log(classes - 2.0))


def over_cases(each: Any, order: Order, data: Overlaps, kind: str, matched: bool) -> Any:
    """The mean of `each(Margin, Contents, Matrices)` over the order of the pairs and over repeated exemplars: without
    `matched`, the query is the exemplar in context by chance, once in `number` draws."""
    shared = matrices(order, data)
    chance = jnp.asarray(1.0 if matched else 1 / data.number) if kind != "ciwl" else jnp.zeros(())
    inside = [contents(shared, kind, repeated) for repeated in (False, True)]
    stacked = jax.tree.map(lambda *both: jnp.stack(both), *inside)
    right, wrong = keys(order)

    def of_case(p: Array, q: Array, of: Contents) -> Any:
        return each(margin(p, q, of), of, shared)

    found = jax.vmap(jax.vmap(of_case, (0, 0, None)), (None, None, 0))(right, wrong, stacked)
    weight = jnp.stack([1 - chance, chance])
    return jax.tree.map(lambda value: weight @ value.mean(1), found)


def loss(order: Order, data: Overlaps, kind: str, matched: bool) -> tuple[Array, Noise]:
    """The mean loss, and what the sampling of sequences adds to the weights (see `Noise`)."""
    slope = jax.vmap(jax.grad(cross_entropy), (0, None, None))

    def each(at: Margin, of: Contents, shared: Matrices) -> tuple[Array, Noise]:
        delta = at.mean + jnp.sqrt(at.variance) * NODES
        noise = _noise(at, of, shared, delta, slope(delta, order.g, data.classes), kind, order.V.shape[0], data)
        return WEIGHTS @ cross_entropy(delta, order.g, data.classes), noise

    return over_cases(each, order, data, kind, matched)


class Noise(NamedTuple):
    """Second moments of one sequence's gradient: summed over the entries of V, of W, of all codes, and along m_k W."""

    V: Array
    W: Array
    codes: Array
    along: Array


def _noise(
    at: Margin, of: Contents, shared: Matrices, delta: Array, slope: Array, kind: str, size: int, data: Overlaps
) -> Noise:
    """With y = x W the gradient of the margin is y - (y.k) k for each unit key k, times p / n, for each content."""
    weight = WEIGHTS * slope**2
    whole = jnp.sum(weight)
    covariance = of.second - jnp.outer(of.mean, of.mean)
    both = at.right - at.wrong

    def score_moment(left: Array, right: Array) -> Array:
        """E l'(delta)^2 s t for two scores, which are normal with delta."""
        on_left, on_right = (side @ covariance @ both / at.variance for side in (left, right))
        rest = left @ covariance @ right - on_left * on_right * at.variance
        away = delta - at.mean
        return jnp.sum(weight * ((left @ of.mean + on_left * away) * (right @ of.mean + on_right * away) + rest))

    rr, ww, rw = (score_moment(a, b) for a, b in ((at.right, at.right), (at.wrong, at.wrong), (at.right, at.wrong)))
    query, overlap = shared.query, at.right @ of.gram @ at.wrong
    square = whole * query
    each = at.right**2 * (square - rr) + at.wrong**2 * (square - ww)
    each = each - 2 * at.right * at.wrong * (square - rr - ww + rw * overlap)
    look = data.mean * query
    own = (look + (query - look) / size) * (1 - rr / square) ** 2 if kind in ("full", "ciwl") else query / size
    along = whole * (both[1] ** 2 * own + both[3] ** 2 * query / size)
    return Noise(each[0] + each[2], whole * (2 - 2 * overlap), each[1] + each[3], along)


def accuracy(order: Order, data: Overlaps, kind: str, matched: bool) -> Array:
    """Share of sequences of a kind with the right answer among the labels in context."""

    def each(at: Margin, _of: Contents, _shared: Matrices) -> Array:
        return jax.scipy.stats.norm.cdf(at.mean / jnp.sqrt(at.variance))

    return over_cases(each, order, data, kind, matched)
