"""Models of many shapes, and random numbers for them: what the tests of several modules are run on.

The losses are few, since each is compiled; dimensions, parameters, weights and starts are drawn.
"""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from hypothesis import strategies as st

import toymodel as tm

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
SIZES = ((2, 3, 4, 5, 3), (4, 1, 3, 2, 6))


@dataclass(frozen=True)
class Case:
    """A model, vectors to start from, a step size, and other parameters and weights for the call."""

    model: tm.Model
    vectors: xr.Dataset
    lr: float
    parameters: dict[str, float]
    weights: dict[str, float]


def shaped(name: str, sizes=SIZES[0], **numbers) -> tm.Model:
    mechanisms, costs, loss, letters = SHAPES[name]
    return tm.Model(mechanisms, loss, dict(zip(letters, sizes, strict=False)), costs, **numbers)


@st.composite
def cases(draw, shapes=tuple(SHAPES), sizes=SIZES) -> Case:
    """Starts of about the size of the targets, and steps so small that descent is stable."""
    model = shaped(draw(st.sampled_from(shapes)), draw(st.sampled_from(sizes)))
    number = st.floats(0, 1)
    scale, target_scale = draw(st.floats(0.05, 1)), draw(st.floats(0.3, 1))
    vectors = tm.random_vectors(model, draw(st.integers(0, 2**20)), scale, target_scale)
    parameters = {p: draw(number) for p in model.parameters}
    weights = {t: w * draw(st.floats(0.2, 1)) for t, w in model.weights.items()}
    return Case(model, vectors, draw(st.floats(0.001, 0.02)), parameters, weights)


def entries(vectors: xr.Dataset, end: str = "") -> dict[str, np.ndarray]:
    """The vectors (or, with end="_target", the targets) by letter, in float64."""
    letters = [str(name) for name in vectors.data_vars if not str(name).endswith("_target")]
    return {x: vectors[f"{x}{end}"].values.astype(float) for x in letters}
