"""Models of many shapes, and random numbers for them: what the tests of several modules are run on.

The losses are few, since each is compiled; dimensions, parameters, weights and starts are drawn. An array of another
size is compiled anew, too. So a case also comes `wide`: its vectors filled up with entries that are 0 in the value and
in the target, which stay 0 and add nothing to any term (the weights, which count entries, are given).
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import xarray as xr
from hypothesis import strategies as st

import toymodel as tm
from toymodel.reduction import Plane, terms

# name -> mechanisms, costs, loss, letters in the order of dims
SHAPES = {
    "paper": (
        {"icl": "abc", "ciwl": "dbc"},
        {"cost": "ad"},
        lambda icl, ciwl, cost, *, mu=0.1, nu=0.0, alpha=0.1: (icl + mu) * (ciwl + nu) + alpha * cost,
        "abcd",
    ),
    "sum with weight decay": (
        {"icl": "ab", "ciwl": "cb"},
        {"clash": "ac", "decay": "b"},
        lambda icl, ciwl, clash, decay, *, mu=0.1, nu=0.2, alpha=0.1: (
            icl + mu * ciwl + nu * decay + alpha * clash * (1 + decay)
        ),
        "cba",
    ),
    "three mechanisms, one with a vector twice": (
        {"one": "abc", "two": "dbc", "three": "ecc"},
        {"clash": "ade"},
        lambda one, two, three, clash, *, mu=0.1, nu=0.2, alpha=0.1: (
            (one + mu) * (two + nu) + three / 3 + alpha * clash
        ),
        "edcba",
    ),
    "two shared vectors and a quotient": (
        {"icl": "ab", "ciwl": "db"},
        {},
        lambda icl, ciwl, *, mu=0.1, nu=0.2, alpha=0.1: (
            (icl + nu) * ciwl / (icl + ciwl + mu + 0.05) + alpha * ciwl**1.5
        ),
        "bda",
    ),
}
SIZES = (2, 3, 4, 5, 3)
WIDEST = 6


@dataclass(frozen=True)
class Case:
    """A random model, vectors to start from, a step size, and other parameters and weights for the call.

    shares: of the default weight for each term; stride: the step size in units of 1 / steepness.
    """

    shape: str
    sizes: tuple[int, ...]
    seed: int
    scale: float
    target_scale: float
    parameters: dict[str, float]
    shares: dict[str, float]
    stride: float

    @cached_property
    def model(self) -> tm.Model:
        return shaped(self.shape, self.sizes)

    @cached_property
    def vectors(self) -> xr.Dataset:
        return tm.random_vectors(self.model, self.seed, self.scale, self.target_scale)

    @property
    def weights(self) -> dict[str, float]:
        return {term: w * self.shares[term] for term, w in self.model.weights.items()}

    @property
    def lr(self) -> float:
        return self.stride / steepness(self.model, self.vectors, self.parameters, self.weights)

    @property
    def wide(self) -> tuple[tm.Model, xr.Dataset]:
        """The model and its vectors with entries of 0 up to the widest ones."""
        model = replace(self.model, dims=dict.fromkeys(self.model.vectors, WIDEST), weights={}, target_norms={})
        missing = {f"{x}_entry": (0, WIDEST - n) for x, n in self.model.dims.items()}
        return model, self.vectors.pad(missing, constant_values=0.0)


def shaped(name: str, sizes=SIZES, **numbers) -> tm.Model:
    mechanisms, costs, loss, letters = SHAPES[name]
    return tm.Model(mechanisms, loss, dict(zip(letters, sizes, strict=False)), costs, **numbers)


@st.composite
def cases(draw, shapes=tuple(SHAPES)) -> Case:
    """Starts of about the size of the targets, and steps that are stable and so large that 200 of them learn."""
    shape = draw(st.sampled_from(shapes))
    mechanisms, costs, _, letters = SHAPES[shape]
    return Case(
        shape,
        draw(st.tuples(*[st.integers(1, WIDEST)] * len(letters))),
        draw(st.integers(0, 2**20)),
        scale=draw(st.floats(0.05, 1)),
        target_scale=draw(st.floats(0.3, 1)),
        parameters={p: draw(st.floats(0, 1)) for p in ("mu", "nu", "alpha")},
        shares={term: draw(st.floats(0.2, 1)) for term in (*mechanisms, *costs)},
        stride=draw(st.floats(0.05, 0.3)),
    )


def steepness(model: tm.Model, vectors: xr.Dataset, parameters: dict, weights: dict) -> float:
    """About the largest curvature of the loss: of each term w |y|^2 |z|^2 ... for each of its vectors x, where every
    vector is as long as its value or its target, whichever is longer, times the slope of the loss in that term."""
    values, targets = entries(vectors), entries(vectors, "_target")
    square = {x: max(value @ value, targets[x] @ targets[x]) for x, value in values.items()}
    planes = {x: Plane(0.0, np.linalg.norm(value), np.linalg.norm(targets[x])) for x, value in values.items()}
    at = {**terms(model.form, planes, weights), **parameters}
    total = 0.0
    for term, letters in model.terms.items():
        slope = (model.loss(**{**at, term: at[term] + 1e-6}) - model.loss(**at)) / 1e-6
        product = np.prod([square[x] for x in letters])
        total += abs(slope) * weights[term] * sum(product / square[x] for x in letters)
    return total


def entries(vectors: xr.Dataset, end: str = "") -> dict[str, np.ndarray]:
    """The vectors (or, with end="_target", the targets) by letter, in float64."""
    letters = [str(name) for name in vectors.data_vars if not str(name).endswith("_target")]
    return {x: vectors[f"{x}{end}"].values.astype(float) for x in letters}
