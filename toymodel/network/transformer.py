"""The paper's transformer: causal, pre-norm, on sequences of exemplars and labels.

    x      = [E exemplar + b, label, E exemplar + b, label, ..., E query + b] (+ positions)
    x     += sum over heads of softmax(q k^T / sqrt(d_head)) v W_output,   with q, k, v from norm(x)    (each layer)
    x     += W_2 gelu(W_1 norm(x) + b_1) + b_2                                    (each layer, where `mlp` is not 0)
    logits = R^T norm(x_query) + r

The label embeddings at the input and the read-out R are weights of their own. The last layer is computed at the query
only, since nothing else is read out. Positions are learned vectors, fixed sinusoids, or rotations of queries and keys:

    sinusoidal   p_t = (sin(t f_i), cos(t f_i)),  f_i = 10000^(-2i / d_model)                    (added to the tokens)
    rotary       the pair i of q and of k at token t is turned by the angle t f_i,  f_i = 10000^(-2i / d_head)

Starts are those of the paper: LeCun normal weights, label embeddings truncated normal of 0.02, learned positions
uniform within 1 / sqrt(32), biases 0, gains 1.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.nn.initializers import lecun_normal, truncated_normal
from jaxtyping import Array, Float, Int, PRNGKeyArray

from toymodel.network.tap import Network, Tap

POSITIONS = ("learned", "sinusoidal", "rotary")


class Norm(eqx.Module):
    """Layer norm: subtract the mean, divide by the standard deviation, multiply by the gain, add the bias."""

    gain: Float[Array, " model"]
    bias: Float[Array, " model"]

    @classmethod
    def draw(cls, model: int) -> "Norm":
        """Gain 1 and bias 0."""
        return cls(jnp.ones(model), jnp.zeros(model))

    def __call__(self, x: Float[Array, "tokens model"]) -> Float[Array, "tokens model"]:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred * jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        return self.gain[None] * scaled + self.bias[None]


class Perceptron(eqx.Module):
    """The multilayer perceptron of a layer."""

    norm: Norm
    inner: Float[Array, "model hidden"]
    inner_bias: Float[Array, " hidden"]
    outer: Float[Array, "hidden model"]
    outer_bias: Float[Array, " model"]

    @classmethod
    def draw(cls, key: PRNGKeyArray, model: int, ratio: float) -> "Perceptron":
        """LeCun normal weights of a hidden layer `ratio` times as wide as the model."""
        inner, outer = jax.random.split(key)
        hidden = round(ratio * model)
        draw = lecun_normal()
        return cls(
            norm=Norm.draw(model),
            inner=draw(inner, (model, hidden)),
            inner_bias=jnp.zeros(hidden),
            outer=draw(outer, (hidden, model)),
            outer_bias=jnp.zeros(model),
        )

    def __call__(self, x: Float[Array, "tokens model"], tap: Tap, name: str) -> Float[Array, "tokens model"]:
        hidden = tap(f"{name}.hidden", jax.nn.gelu(self.norm(x) @ self.inner + self.inner_bias[None]))
        return x + hidden @ self.outer + self.outer_bias[None]


class Layer(eqx.Module):
    """Attention of several heads, and the perceptron that may follow."""

    norm: Norm
    query: Float[Array, "heads model head"]
    key: Float[Array, "heads model head"]
    value: Float[Array, "heads model head"]
    output: Float[Array, "heads head model"]
    mlp: Perceptron | None

    @classmethod
    def draw(cls, key: PRNGKeyArray, model: int, heads: int, mlp: float) -> "Layer":
        """LeCun normal weights: the fan-in of every projection is the model's width."""
        q, k, v, o, m = jax.random.split(key, 5)
        into, out = lecun_normal(1, 2, batch_axis=0), lecun_normal((0, 1), 2)
        shape = (heads, model, model // heads)
        return cls(
            norm=Norm.draw(model),
            query=into(q, shape),
            key=into(k, shape),
            value=into(v, shape),
            output=out(o, (heads, model // heads, model)),
            mlp=Perceptron.draw(m, model, mlp) if mlp else None,
        )

    def __call__(
        self, x: Float[Array, "tokens model"], tap: Tap, name: str, last: int, rotary: bool
    ) -> Float[Array, "last model"]:
        """Attend, causally; return the residual stream of the last `last` tokens."""
        tokens = x.shape[0]
        h = self.norm(x)  # [tokens, model]
        q, k = jnp.einsum("tm,hmd->htd", h[-last:], self.query), jnp.einsum("tm,hmd->htd", h, self.key)
        if rotary:
            q, k = rotated(q, tokens - last), rotated(k, 0)
        q, k = tap(f"{name}.query", q), tap(f"{name}.key", k)
        v = tap(f"{name}.value", jnp.einsum("tm,hmd->htd", h, self.value))
        score = tap(f"{name}.score", jnp.einsum("hqd,hkd->hqk", q, k) / q.shape[-1] ** 0.5)
        causal = jnp.tril(jnp.ones((tokens, tokens), bool))[-last:]
        attention = tap(f"{name}.attention", jax.nn.softmax(jnp.where(causal[None], score, -jnp.inf)))
        heads = tap(f"{name}.heads", jnp.einsum("hqk,hkd->hqd", attention, v))
        x = tap(f"{name}.residual", x[-last:] + jnp.einsum("hqd,hdm->qm", heads, self.output))
        return x if self.mlp is None else tap(f"{name}.perceptron", self.mlp(x, tap, name))


class Transformer(Network):
    """The network; see the module's equations."""

    embedding: Float[Array, "features model"]
    embedding_bias: Float[Array, " model"]
    labels: Float[Array, "classes model"]
    positions: Float[Array, "tokens model"] | None
    layers: dict[str, Layer]  # layer1, layer2, ...
    final: Norm
    read_out: Float[Array, "model classes"]  # this way round a step is 10 % quicker than with classes first
    read_out_bias: Float[Array, " classes"]
    kind: str = eqx.field(static=True)  # of positions

    @classmethod
    def draw(
        cls,
        key: PRNGKeyArray,
        classes: int,
        features: int,
        pairs: int,
        layers: int = 2,
        heads: int = 8,
        model: int = 64,
        mlp: float = 0,
        positions: str = "learned",
    ) -> "Transformer":
        """The paper's start; `mlp` is the width of the perceptrons over that of the model, 0 for none."""
        if positions not in POSITIONS:
            raise ValueError(f"positions must be one of {POSITIONS}, got {positions!r}")
        if layers < 1:
            raise ValueError(f"layers must be at least 1, got {layers}")
        if heads < 1 or model % (2 * heads):
            raise ValueError(f"model must be a multiple of 2 x heads, got {model} and {heads} heads")
        embedding_key, label_key, position_key, read_out_key, *keys = jax.random.split(key, 4 + layers)
        tokens = 2 * pairs + 1
        limit = 32**-0.5
        learned = jax.random.uniform(position_key, (tokens, model), minval=-limit, maxval=limit)
        return cls(
            embedding=lecun_normal()(embedding_key, (features, model)),
            embedding_bias=jnp.zeros(model),
            labels=truncated_normal(0.02)(label_key, (classes, model)),
            positions=learned if positions == "learned" else None,
            layers={f"layer{i}": Layer.draw(keys[i - 1], model, heads, mlp) for i in range(1, layers + 1)},
            final=Norm.draw(model),
            read_out=lecun_normal()(read_out_key, (model, classes)),
            read_out_bias=jnp.zeros(classes),
            kind=positions,
        )

    def __call__(
        self, exemplars: Float[Array, "exemplars features"], labels: Int[Array, " pairs"], tap: Tap
    ) -> Float[Array, " classes"]:
        pairs, model = labels.shape[0], self.labels.shape[1]
        embedded = exemplars @ self.embedding + self.embedding_bias[None]  # [pairs + 1, model]
        context = jnp.stack([embedded[:-1], self.labels[labels]], axis=1).reshape(2 * pairs, model)
        x = jnp.concatenate([context, embedded[-1:]])  # [tokens, model]
        if self.positions is not None:
            x = x + self.positions
        elif self.kind == "sinusoidal":
            x = x + sinusoids(2 * pairs + 1, model)
        x = tap("embedding", x)
        for number in range(1, len(self.layers) + 1):
            last = 1 if number == len(self.layers) else 2 * pairs + 1
            x = self.layers[f"layer{number}"](x, tap, f"layer{number}", last, self.kind == "rotary")
        return tap("logits", self.final(x)[0] @ self.read_out + self.read_out_bias)

    def copied(self, labels: int) -> Float[Array, "labels labels"]:
        """S_ij: the logit of label j, before the final norm, that all heads of the last layer together add per
        attention to a token that holds the embedding of label i alone; for the first so many labels."""
        layer, chosen = self.layers[f"layer{len(self.layers)}"], min(labels, len(self.labels))
        value = jnp.einsum("im,hmd->ihd", layer.norm(self.labels[:chosen]), layer.value)
        written = jnp.einsum("ihd,hdm->im", value, layer.output)  # [labels, model]
        centred = written - written.mean(1, keepdims=True)
        return (self.final.gain[None] * centred) @ self.read_out[:, :chosen]


def angles(tokens: int, width: int) -> Float[Array, "tokens pairs"]:
    """The angle t f_i of each token t and pair i of entries."""
    frequency = 10_000.0 ** (-jnp.arange(0, width, 2) / width)
    return jnp.arange(tokens)[:, None] * frequency[None]


def sinusoids(tokens: int, model: int) -> Float[Array, "tokens model"]:
    """Fixed positions: sines in the first half of the entries, cosines in the second."""
    at = angles(tokens, model)
    return jnp.concatenate([jnp.sin(at), jnp.cos(at)], axis=1)


def rotated(x: Float[Array, "heads tokens head"], first: int) -> Float[Array, "heads tokens head"]:
    """Queries or keys turned by the angles of their tokens, the first of which stands at place `first`."""
    at = angles(first + x.shape[1], x.shape[2])[None, first:]
    left, right = jnp.split(x, 2, axis=-1)
    return jnp.concatenate(
        [left * jnp.cos(at) - right * jnp.sin(at), left * jnp.sin(at) + right * jnp.cos(at)], axis=-1
    )
