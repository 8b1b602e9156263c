"""Landmarks of curves that were drawn by hand, and which sequences the measures of heads are taken on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from toymodel.network.curves import bump, landmarks
from toymodel.network.data import GaussianClasses, Sequences
from toymodel.network.disentangled import Disentangled
from toymodel.network.evaluators import EVALUATORS, evaluate


def record(flip, loss=None):
    flip = np.atleast_2d(flip)
    loss = np.ones_like(flip) if loss is None else np.atleast_2d(loss)
    evaluators = ["flip", "ciwl"]
    both = np.stack([flip, loss], -1)
    coordinates = {"step": 10 * np.arange(flip.shape[1]), "seed": np.arange(len(flip)), "evaluator": evaluators}
    values = xr.DataArray(both, dims=("seed", "step", "evaluator"), coords=coordinates)
    return xr.Dataset({"accuracy_in_context": values, "loss": values})


def test_landmarks_are_those_seen_by_eye():
    #           0    10   20   30   40   50   60   70
    rises = [0.5, 0.4, 0.6, 0.9, 0.8, 0.45, 0.6, 0.1]
    spike = [0.6, 0.4, 0.5, 0.7, 0.9, 0.8, 0.6, 0.52]  # above by chance before it is learned, and not gone at the end
    never = [0.5, 0.45, 0.5, 0.54, 0.5, 0.4, 0.3, 0.2]
    found = landmarks(record([rises, spike, never]))
    np.testing.assert_array_equal(found.emergence, [20, 30, np.nan])
    np.testing.assert_array_equal(found.gone, [50, np.nan, 50])
    np.testing.assert_array_equal(found.ratio, [2.5, np.nan, np.nan])
    np.testing.assert_array_equal(found.peak, [0.9, 0.9, 0.54])
    np.testing.assert_array_equal(found.end, [0.1, 0.52, 0.2])


def test_the_bump_is_of_the_mean_while_icl_is_there():
    flip = [[0.4, 0.9, 0.9, 0.9, 0.4, 0.1]] * 2
    loss = [[2.0, 0.9, 1.1, 1.5, 0.9, 3.0], [2.0, 1.1, 0.9, 0.9, 0.7, 3.0]]
    assert bump(record(flip, loss)) == pytest.approx(1.2)  # mean 2, 1, 1, 1.2, 0.8, and then ICL is gone
    noise = np.random.default_rng(0).normal(size=(400, 6))
    falling = np.linspace(2, 1, 6) * (1 + 0.1 * noise)
    assert bump(record(np.repeat(flip[:1], 400, 0), falling)) == pytest.approx(1.0, abs=0.01)


@pytest.mark.slow
def test_induction_is_measured_on_icl_sequences_and_lookup_on_those_of_ciwl():
    """A network that can only look up a label's own code, and one that can only look one token back."""
    classes = GaussianClasses(classes=6, exemplars=1, features=8, noise=0.0, norm=1.0)
    exemplars = classes.draw(jax.random.key(0))
    net = Disentangled.draw(jax.random.key(1), 6, 8, 2, copy=1.0, barrier=50.0)
    knows = {"M": exemplars[:, 0], "V": jnp.zeros((8, 8)), "W": 20 * jnp.eye(8)}
    looks = {"M": 0 * net.M, "V": jnp.eye(8), "W": 20 * jnp.eye(8), "A": 50 * jnp.eye(5, k=-1)}
    found = {}
    for name, weights in (("knows", knows), ("looks", looks)):
        fields = {w: getattr(net, w) for w in "AVMWtg"} | weights
        found[name] = evaluate(Disentangled(**fields), (), exemplars, Sequences(), jax.random.key(2), 200)
    at = {name: found[name]["accuracy_in_context"] for name in found}
    flip, icl, ciwl = (EVALUATORS.index(name) for name in ("flip", "icl", "ciwl"))
    assert float(at["knows"][ciwl]) > 0.99 and float(at["knows"][flip]) < 0.01
    assert float(at["looks"][icl]) > 0.99 and float(at["looks"][flip]) > 0.99
    assert float(found["knows"]["lookup"][0]) > 0.9 > 0.3 > float(found["knows"]["induction"][0])
    assert float(found["looks"]["induction"][0]) > 0.9 > 0.3 > float(found["looks"]["lookup"][0])
