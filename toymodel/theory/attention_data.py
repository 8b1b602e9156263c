"""What the theory of the disentangled network needs of its data: a few moments of overlaps between exemplars.

Exemplars are isotropic: no direction is preferred once the classes are averaged over. Then a product of two bilinear
forms has a mean that needs two numbers of the data only (`Tensor`), and all numbers follow from the first two moments
of the cosine between an exemplar and the mean of its class (`overlaps`). Derived in `derivations/attention.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from scipy.special import roots_genlaguerre


class Tensor(NamedTuple):
    """E[q_i q_k y_j z_l] = equal d_ik d_jl + mixed (d_ij d_kl + d_il d_jk) for jointly isotropic vectors q, y, z."""

    equal: float
    mixed: float

    @classmethod
    def of(cls, size: int, squares: Any, products: Any) -> Tensor:
        """From E[|q|^2 y.z] = D^2 equal + 2 D mixed and E[(q.y)(q.z)] = D equal + (D^2 + D) mixed."""
        mixed = (products - squares / size) / (size * size + size - 2)
        return cls((squares - 2 * size * mixed) / size**2, mixed)

    def apply(self, left: Array, right: Array) -> Array:
        """E[(q S y')(q T z')] for matrices S and T."""
        return self.equal * jnp.sum(left * right) + self.mixed * (
            jnp.trace(left) * jnp.trace(right) + jnp.sum(left * right.T)
        )


@dataclass(frozen=True)
class Classes:
    """Overlaps of exemplars of unit norm, x = normalise(mean + noise z / sqrt(D)): all that the theory needs of data.

    With c the cosine of an exemplar with its class mean, first = E c and second = E c^2 (a Gauss quadrature over one
    normal and one chi-square number), everything else is algebra.
    """

    classes: int = 3000
    features: int = 32
    noise: float = 1.2
    exemplars: int = 20

    def __post_init__(self) -> None:
        for name, least in (("classes", 4), ("features", 3), ("exemplars", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if not 0 < self.noise < np.inf:
            raise ValueError(f"noise must be > 0 and finite, got {self.noise}")

    def cosine(self) -> tuple[float, float]:
        """The first two moments of the cosine of an exemplar with the mean of its class."""
        z, at_z = np.polynomial.hermite_e.hermegauss(60)
        rest, at_rest = roots_genlaguerre(60, (self.features - 1) / 2 - 1)
        along = 1 + self.noise * z[:, None] / np.sqrt(self.features)
        cosine = along / np.sqrt(along**2 + 2 * self.noise**2 * rest / self.features)
        weight = at_z[:, None] * at_rest / at_z.sum() / at_rest.sum()
        return float((weight * cosine).sum()), float((weight * cosine**2).sum())

    def overlaps(self) -> Overlaps:
        """Means and second moments of overlaps between exemplars x, y of a class, and with their mean m."""
        first, second = self.cosine()
        return overlaps(first, second, self.features, self.exemplars, self.classes)


class Overlaps(NamedTuple):
    """Moments of exemplars x, y of one class and of their mean m, and the tensors that follow."""

    same: Any  # E x.y
    square: Any  # E (x.y)^2
    mean: Any  # E x.m = E |m|^2
    mean_square: Any  # E (x.m)^2
    three: Any  # E (x.y)(x.m)
    fourth: Any  # E |m|^4
    classes: Any  # how many there are
    number: Any  # of exemplars in each


def overlaps(first: Any, second: Any, size: Any, number: Any, classes: Any) -> Overlaps:
    """The overlaps from the two moments of the cosine, for `number` exemplars a class. Also for sympy's symbols."""
    same, square = first**2, second**2 + (1 - second) ** 2 / (size - 1)
    apart = first**2 * second  # E (x.y)(x.z) for three exemplars
    mean = (1 + (number - 1) * same) / number
    mean_square = (
        1 + 2 * (number - 1) * same + (number - 1) * square + (number - 1) * (number - 2) * apart
    ) / number**2
    three = (same + square + (number - 2) * apart) / number
    pairs = number * (number - 1)
    fourth = number**2 + 2 * number * pairs * same + 2 * pairs * square
    fourth += pairs * (number - 2) * (4 * apart + (number - 3) * first**4)
    return Overlaps(same, square, mean, mean_square, three, fourth / number**4, classes, number)
