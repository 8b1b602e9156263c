"""Landmarks of curves that were drawn by hand, and which sequences the measures of heads are taken on."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from toymodel.network.curves import bump, crossing, curves_there, landmarks
from toymodel.network.data import GaussianClasses, Sequences
from toymodel.network.disentangled import Disentangled
from toymodel.network.evaluators import CUTS, EVALUATORS, OF_CUTS, evaluate
from toymodel.network.paper import BATCH, SEEDS, paper_curve, paper_curves, paper_number


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    monkeypatch.chdir(Path(__file__).parent.parent)


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
    rises = [0.5, 0.4, 0.6, 0.9, 0.8, 0.4, 0.6, 0.1]
    spike = [0.6, 0.4, 0.5, 0.7, 0.9, 0.8, 0.6, 0.52]  # above by chance before it is learned, and not gone at the end
    never = [0.5, 0.45, 0.5, 0.54, 0.5, 0.4, 0.3, 0.2]
    there = [0.6, 0.7, 0.9, 0.9, 0.9, 0.9, 0.9, np.nan]  # from the start, and the last evaluation is missing
    found = landmarks(record([rises, spike, never, there]))
    np.testing.assert_allclose(found.emergence, [15, 20, np.nan, 0])  # 0.5 lies half way between 0.4 and 0.6
    np.testing.assert_allclose(found.gone, [47.5, np.nan, np.nan, np.nan])
    np.testing.assert_allclose(found.ratio, [47.5 / 15, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(found.peak, [0.9, 0.9, 0.54, 0.9])
    np.testing.assert_array_equal(found.peak_at, [30, 40, 30, 20])
    np.testing.assert_array_equal(found.end, [0.1, 0.52, 0.2, 0.9])


def test_crossings_are_between_evaluations():
    step = [0.0, 10.0, 30.0]
    line = xr.DataArray([[0.0, 0.5, 1.0], [1.0, 0.9, 0.2]], {"seed": [0, 1], "step": step}, ("seed", "step"))
    np.testing.assert_allclose(crossing(line, 0.75), [20, np.nan])  # one that begins above has not passed it
    np.testing.assert_allclose(crossing(line, 0.55, rising=False), [np.nan, 20])


def test_the_papers_landmarks_are_those_it_reports():
    """Read off by eye in the paper's figures, to a few percent, against the same function that measures our curves."""
    main = landmarks(paper_curves("main")).isel(seed=0)
    unit = 1e6 / BATCH
    assert float(main.emergence) == pytest.approx(3.26 * unit, rel=0.02)
    assert float(main.peak) == pytest.approx(0.714, abs=0.005)
    assert float(main.peak_at) == pytest.approx(4.28 * unit, rel=0.03)
    assert float(main.gone) == pytest.approx(6.28 * unit, rel=0.02)
    six = landmarks(paper_curves(*SEEDS))
    np.testing.assert_allclose(six.peak, [0.70, 0.67, 0.68, 0.78, 0.75, 0.84], atol=0.006)
    assert float(six.ratio.median()) == pytest.approx(2.3, abs=0.1)
    strongest = six.isel(seed=5)  # read off: 0.484 at 2.76 M, 0.535 at 3.13 M, 0.523 at 10.49 M, 0.482 at 10.86 M
    assert 2.76 < float(strongest.emergence) / unit < 3.13 and 10.49 < float(strongest.gone) / unit < 10.86
    for finding, value in (("flip up through 0.5", main.emergence), ("flip down through 0.5", main.gone)):
        assert paper_number(finding) * unit == pytest.approx(float(value), rel=0.02)
    assert np.isnan(paper_number("ICL-only data: ICL at", "second half of CIWL-only at 8 M"))


def test_what_the_paper_does_not_have_is_named():
    with pytest.raises(ValueError, match=r"there is no curve 'accuracy_icl' of 'matched exemplars'; there are.*flip"):
        paper_curve("matched exemplars", "accuracy_icl")
    with pytest.raises(ValueError, match=r"there is no number 'flip sits' of 'main'; findings are"):
        paper_number("flip sits")
    with pytest.raises(FileNotFoundError, match="it comes with the repository"):
        paper_curve("main", "accuracy_icl", Path("elsewhere"))


def test_curves_that_are_there_are_drawn_and_none_is_said_to_be_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="`toymodel train transformer_mlp` makes the first"):
        curves_there("transformer_mlp", "transformer_rotary")


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
    previous = CUTS.index("previous")
    cut = found["looks"]["accuracy_cut"][OF_CUTS.index("icl")]
    assert float(found["looks"]["match"]) > 0.9 and float(cut[previous]) < 0.7 < 0.99 < float(cut[1 - previous])
    assert float(found["knows"]["accuracy_cut"][OF_CUTS.index("ciwl"), previous]) > 0.99
