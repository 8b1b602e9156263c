"""A two-layer, attention-only, causal, pre-norm transformer on sequences of exemplars and labels.

    x      = [exemplar, label, exemplar, label, ..., query] + positions
    x     += sum over heads of softmax(q k^T / sqrt(d_head)) v W_output,   with q, k, v from norm(x)    (layer 1)
    x      = the same again, at the query only, since nothing else is read out                         (layer 2)
    logits = labels . norm(x_query)

The label vectors serve as input and as read-out. Exemplars enter as they are: there is no trained encoder, no
multilayer perceptron, no bias.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from toymodel.network.tap import Network, Tap


class Attention(eqx.Module):
    """The weights of one attention layer."""

    gain: Float[Array, " model"]
    query: Float[Array, "heads model head"]
    key: Float[Array, "heads model head"]
    value: Float[Array, "heads model head"]
    output: Float[Array, "heads head model"]

    @classmethod
    def draw(cls, key: PRNGKeyArray, model: int, heads: int, output_scale: float) -> "Attention":
        """LeCun normal weights; the output projection times `output_scale`."""
        q, k, v, o = jax.random.split(key, 4)
        shape = (heads, model, model // heads)
        scale = model**-0.5  # the fan-in of every projection is the model's width
        return cls(
            gain=jnp.ones(model),
            query=scale * jax.random.normal(q, shape),
            key=scale * jax.random.normal(k, shape),
            value=scale * jax.random.normal(v, shape),
            output=output_scale * scale * jax.random.normal(o, (heads, model // heads, model)),
        )

    def __call__(self, x: Float[Array, "tokens model"], tap: Tap, name: str, last: int) -> Float[Array, "last model"]:
        """Attend, causally; return the residual stream of the last `last` tokens."""
        tokens = x.shape[0]
        h = norm(x, self.gain)  # [tokens, model]
        q = tap(f"{name}.query", jnp.einsum("tm,hmd->htd", h[-last:], self.query))
        k = tap(f"{name}.key", jnp.einsum("tm,hmd->htd", h, self.key))
        v = tap(f"{name}.value", jnp.einsum("tm,hmd->htd", h, self.value))
        score = jnp.einsum("hqd,hkd->hqk", q, k) / q.shape[-1] ** 0.5
        causal = jnp.tril(jnp.ones((tokens, tokens), bool))[-last:]
        attention = tap(f"{name}.attention", jax.nn.softmax(jnp.where(causal[None], score, -jnp.inf)))
        heads = tap(f"{name}.heads", jnp.einsum("hqk,hkd->hqd", attention, v))
        out = jnp.einsum("hqd,hdm->qm", heads, self.output)
        return tap(f"{name}.residual", x[-last:] + out)


class Transformer(Network):
    """The network; see the module's equations."""

    labels: Float[Array, "classes model"]
    positions: Float[Array, "tokens model"]
    layer1: Attention
    layer2: Attention
    gain: Float[Array, " model"]

    @classmethod
    def draw(
        cls,
        key: PRNGKeyArray,
        classes: int,
        features: int,
        pairs: int,
        heads: int = 8,
        output_scale: float = 0.3,
        final_gain: float = 0.5,
    ) -> "Transformer":
        """Standard normal label and position vectors, LeCun normal attention; the width is that of the exemplars."""
        if heads < 1 or features % heads:
            raise ValueError(f"heads must divide the number of features {features}, got {heads}")
        label_key, position_key, key1, key2 = jax.random.split(key, 4)
        return cls(
            labels=jax.random.normal(label_key, (classes, features)),
            positions=jax.random.normal(position_key, (2 * pairs + 1, features)),
            layer1=Attention.draw(key1, features, heads, output_scale),
            layer2=Attention.draw(key2, features, heads, output_scale),
            gain=jnp.full(features, final_gain, jnp.float32),
        )

    def __call__(
        self, exemplars: Float[Array, "exemplars model"], labels: Int[Array, " pairs"], tap: Tap
    ) -> Float[Array, " classes"]:
        pairs, model = labels.shape[0], exemplars.shape[1]
        context = jnp.stack([exemplars[:-1], self.labels[labels]], axis=1).reshape(2 * pairs, model)
        x = jnp.concatenate([context, exemplars[-1:]]) + self.positions  # [tokens, model]
        x = self.layer1(tap("embedding", x), tap, "layer1", last=2 * pairs + 1)
        x = self.layer2(x, tap, "layer2", last=1)  # [1, model]
        return tap("logits", self.labels @ norm(x, self.gain)[0])


def norm(x: Float[Array, "tokens model"], gain: Float[Array, " model"]) -> Float[Array, "tokens model"]:
    """Layer norm without bias: subtract the mean, divide by the standard deviation, multiply by the gain."""
    centred = x - x.mean(-1, keepdims=True)
    return gain[None] * centred * jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
