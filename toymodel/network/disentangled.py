"""Disentangled attention: a network whose parts are the toy model's vectors, one by one.

    layer 1    p_ij = softmax_j(A_ij), j <= i               where token i looks, by position only
               k_i  = sum_j p_ij (V x_j or M[label_j])      a key at each label token i, then divided by its norm
    layer 2    s_i  = x_query W k_i + t_i                   the query against the keys of the label tokens
    output     logit of label_i = g softmax_i(s_i)          all other labels have logit 0

ICL is A looking one token back, so that k_i holds the exemplar beside the label (a in the toy model); CIWL is M, a code
for each label, learned one row at a time (d); W and g are shared by both (b and c). There is no pure in-weights path.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from toymodel.network.tap import Network, Tap


class Disentangled(Network):
    """The network; the names are those of the module's equations."""

    A: Float[Array, "tokens tokens"]
    V: Float[Array, "features features"]
    M: Float[Array, "classes features"]
    W: Float[Array, "features features"]
    t: Float[Array, " pairs"]
    g: Float[Array, ""]

    @classmethod
    def draw(
        cls,
        key: PRNGKeyArray,
        classes: int,
        features: int,
        pairs: int,
        scale: float = 0.03,
        copy: float = 0.1,
        barrier: float = 2.0,
    ) -> "Disentangled":
        """Normal V, M, W of the given scale; A = barrier * identity: every token first looks at itself."""
        v, m, w = jax.random.split(key, 3)
        return cls(
            A=barrier * jnp.eye(2 * pairs + 1),
            V=scale * jax.random.normal(v, (features, features)),
            M=scale * jax.random.normal(m, (classes, features)),
            W=scale * jax.random.normal(w, (features, features)),
            t=jnp.zeros(pairs),
            g=jnp.array(copy, jnp.float32),
        )

    def __call__(
        self, exemplars: Float[Array, "exemplars features"], labels: Int[Array, " pairs"], tap: Tap
    ) -> Float[Array, " classes"]:
        pairs, features = labels.shape[0], exemplars.shape[1]
        tokens = 2 * pairs  # the query needs no key
        causal = jnp.tril(jnp.ones((tokens, tokens), bool))
        score = tap("layer1.score", self.A[None, :tokens, :tokens])[0]  # one head
        p = tap("layer1.attention", jax.nn.softmax(jnp.where(causal, score, -jnp.inf))[None])[0]
        content = jnp.stack([exemplars[:-1] @ self.V, self.M[labels]], axis=1).reshape(tokens, features)
        k = p[1::2] @ content  # [pairs, features]
        k = tap("key", k * jax.lax.rsqrt((k**2).sum(-1, keepdims=True) + 1e-12))
        attention = jax.nn.softmax(k @ (exemplars[-1] @ self.W) + self.t)  # [pairs]
        attention = tap("layer2.attention", attention[None, None])[0, 0]
        logits = jnp.zeros(self.M.shape[0]).at[labels].add(self.g * attention)
        return tap("logits", logits)
