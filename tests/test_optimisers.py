"""Sign descent and Adam on all entries, against a transcription in numpy."""

import itertools

import numpy as np
import pytest

import toymodel as tm

pytestmark = pytest.mark.slow


def transcribed(vectors, steps: int, lr: float, optimiser: str, mu_icl: float, alpha: float):
    """Sign descent and Adam on the published loss in numpy: gradients by hand, moments as in Adam's paper."""
    x = {name: vectors[name].values.copy() for name in "abcd"}
    target = {name: vectors[f"{name}_target"].values for name in "abcd"}
    first, second = ({name: np.zeros_like(x[name]) for name in "abcd"} for _ in range(2))
    outer = "i,j,k->ijk"
    for t in range(1, steps + 1):
        wrong = {
            m: np.einsum(outer, *(x[y] for y in m)) - np.einsum(outer, *(target[y] for y in m)) for m in ("abc", "dbc")
        }
        both = np.outer(x["a"], x["d"])
        loss = {m: (e**2).mean() / 2 for m, e in wrong.items()}
        along = {"abc": loss["dbc"], "dbc": loss["abc"] + mu_icl}
        slope = {name: np.zeros_like(x[name]) for name in "abcd"}
        for m, e in wrong.items():
            p, q, r = (x[y] for y in m)
            for y, g in zip(m, ("ijk,j,k->i", "ijk,i,k->j", "ijk,i,j->k"), strict=True):
                others = [v for v, name in zip((p, q, r), m, strict=True) if name != y]
                slope[y] += along[m] * np.einsum(g, e, *others) / e.size
        slope["a"] += alpha * both @ x["d"] / both.size
        slope["d"] += alpha * x["a"] @ both / both.size
        for y, g in slope.items():
            if optimiser == "sign":
                x[y] = x[y] - lr * np.sign(g)
                continue
            first[y] = 0.9 * first[y] + 0.1 * g
            second[y] = 0.999 * second[y] + 0.001 * g**2
            x[y] = x[y] - lr * (first[y] / (1 - 0.9**t)) / (np.sqrt(second[y] / (1 - 0.999**t)) + 1e-8)
    return x


@pytest.mark.parametrize("optimiser", ["sign", "adam"])
def test_other_optimisers_are_their_transcriptions(optimiser):
    model = tm.coopetition(dims=(5, 4, 6, 9))
    vectors = tm.random_vectors(model, 3)
    run = tm.descend_vectors(model, vectors, 200, every=50, lr=3e-3, optimiser=optimiser, mu_icl=0.2, alpha=0.3)
    found = transcribed(vectors, 200, 3e-3, optimiser, mu_icl=0.2, alpha=0.3)
    overlaps = [found[x] @ vectors[f"{x}_target"].values / np.linalg.norm(vectors[f"{x}_target"]) for x in "abcd"]
    np.testing.assert_allclose(run.overlap[-1], overlaps, rtol=1e-9, atol=1e-12)
    size = [np.linalg.norm(found[x]) for x in "abcd"]
    np.testing.assert_allclose(np.hypot(run.overlap[-1], run.residual[-1]), size, rtol=1e-9)


def test_a_held_vector_keeps_its_moments():
    """Adam counts the steps of each vector: one that is held at first then begins as at its own first step."""
    model = tm.coopetition(dims=(5, 4, 6, 9))
    vectors, lr = tm.random_vectors(model, 3), 1e-3
    held = tm.Freeze("b", until=50 * lr)
    run = tm.descend_vectors(model, vectors, 51, lr=lr, optimiser="adam", interventions=[held])
    assert (run.overlap.sel(vector="b")[:51] == run.overlap.sel(vector="b")[0]).all()
    along = vectors.b_target / np.linalg.norm(vectors.b_target)
    moved = float(run.overlap.sel(vector="b")[-1] - run.overlap.sel(vector="b")[0])
    signs = [float((along * s).sum()) for s in itertools.product((-1, 1), repeat=4)]
    assert min(abs(moved / lr - s) for s in signs) < 1e-4, "the first step of Adam is the step size, in each entry"
