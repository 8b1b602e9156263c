"""Plots of a sweep: what is pooled, what has not ended, where the labels of contours stand."""

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

import toymodel as tm
from toymodel.sweeps import plots


@pytest.fixture
def runs():
    """Measures by hand: lifetime = alpha x (1 + seed), but for mu_icl = 1 it has not ended in two of three runs."""
    alpha, mu, seed = np.geomspace(0.01, 1, 9), np.array([0.1, 1.0]), np.arange(3)
    life = alpha[:, None, None] * (1 + seed) * np.ones((1, 2, 1))
    lasts = np.zeros(life.shape, bool)
    lasts[:, 1, 1:] = True
    dims = ("alpha", "mu_icl", "seed", "mechanism")
    found = xr.Dataset(
        {"lifetime": (dims, life[..., None]), "lasts": (dims, lasts[..., None])},
        {"alpha": alpha, "mu_icl": mu, "seed": seed, "mechanism": ["icl"]},
        {"model": tm.coopetition().to_json()},
    )
    return found


def test_a_median_of_lifetimes_knows_those_that_have_not_ended(runs):
    life = plots.ended(runs, "lifetime").sel(mechanism="icl", drop=True)
    median = plots.typical(life, ["alpha", "mu_icl"])
    np.testing.assert_allclose(median.sel(mu_icl=0.1), 2 * runs.alpha)
    assert np.isposinf(median.sel(mu_icl=1.0)).all()
    first = plots.typical(life, ["alpha", "mu_icl"], 0.0)
    np.testing.assert_allclose(first.sel(mu_icl=1.0), runs.alpha)
    never = plots.typical(life.where(life.seed > 2), ["alpha"])
    assert never.isnull().all()


def test_what_has_not_ended_is_hatched_and_named(runs):
    axes = Figure().subplots()
    life = plots.typical(plots.ended(runs, "lifetime").sel(mechanism="icl"), ["alpha", "mu_icl"])
    life[0, 1] = 5.0  # this one has ended
    plots.heat(axes, life, "alpha", "mu_icl", logarithmic=True)
    assert axes.collections[1].get_array().count() == 8
    assert plots.LASTS in [text.get_text() for text in axes.get_legend().get_texts()]


def test_contours_are_labelled_on_the_axes_that_they_are_drawn_on():
    """The labels sit on their lines after the axes have become logarithmic, and short lines have none."""
    x = np.geomspace(1e-3, 1, 40)
    values = xr.DataArray(np.log10(x)[:, None] + 0 * x, {"alpha": x, "mu_icl": x}, ("alpha", "mu_icl"))
    figure = Figure(dpi=100)
    axes = figure.subplots()
    plots.heat(axes, values, "alpha", "mu_icl", contours=[-2.0, -1.0])
    assert axes.get_xscale() == axes.get_yscale() == "log"
    labels = [text for text in axes.texts if text.get_text()]
    assert len(labels) == 2
    for text in labels:
        at = float(text.get_text().replace("\u2212", "-"))
        assert abs(np.log10(text.get_position()[0]) - at) < 0.05


def test_only_seeds_are_pooled(runs, tmp_path):
    given = (runs, tmp_path / "a.png", "alpha")
    with pytest.raises(ValueError, match=r"the sweep also varies mu_icl: give y=mu_icl, or a value, at mu_icl=VALUE"):
        plots.plot(*given, None, "slice", "lifetime", "icl")
    for more in ({"y": "mu_icl"}, {"y": None, "at": {"mu_icl": 0.12}}):
        assert plots.plot(*given, kind="slice", measure="lifetime", mechanism="icl", **more).exists()
    with pytest.raises(ValueError, match=r"at mu_icl=2 is outside of the sweep, which has 0.1..1"):
        plots.plot(*given, None, "slice", "lifetime", "icl", {"mu_icl": 2.0})
    with pytest.raises(ValueError, match="at takes dimensions with numbers"):
        plots.plot(*given, None, "slice", "lifetime", "icl", {"mechanism": 2.0})


def test_a_slice_has_a_line_for_each_value_of_y_and_says_what_it_takes(runs, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(plots.plotting, "save", lambda figure, path: drawn.append(figure) or path)
    plots.plot(runs, tmp_path / "a.png", "alpha", "mu_icl", "slice", "lifetime", "icl", title="mine", xlim=(0.01, 0.5))
    axes = drawn[0].axes[0]
    lines = [line for line in axes.lines if len(line.get_xdata()) == 9]
    np.testing.assert_allclose(lines[0].get_ydata(), 2 * runs.alpha)
    assert np.isnan(lines[1].get_ydata()).all()
    assert "median over seeds" in axes.get_ylabel() and "not ended" in axes.get_ylabel()
    assert axes.get_xlim() == (0.01, 0.5) and drawn[0].get_suptitle() == "mine"
    plots.plot(runs, tmp_path / "a.png", "alpha", "mu_icl", "heat", "lifetime", "icl", cmap="magma")
    bar = drawn[1].axes[1]
    assert "lifetime (steps x step size), median over seeds" in bar.get_ylabel()


def test_phases_take_colours_of_phases(runs):
    whole = runs.assign(phase=(("alpha", "mu_icl"), np.full((9, 2), "both")))
    axes = Figure().subplots()
    plots.phases(axes, whole, "alpha", "mu_icl", colors={"both": "#123456"})
    assert axes.collections[0].cmap.colors[4] == "#123456"
    with pytest.raises(ValueError, match="colors must be of phases"):
        plots.phases(axes, whole, "alpha", "mu_icl", colors={"all": "k"})


def test_overlaps_and_portraits_draw_what_was_recorded():
    model = tm.coopetition(dims=(4, 4, 4, 4))
    runs = tm.descend(model, tm.paper_start(model, range(3)), 20, every=10)
    left, right = Figure().subplots(1, 2)
    tm.plotting.overlaps(left, runs.isel(seed=1))
    b = left.lines[1].get_ydata()
    np.testing.assert_allclose(b, (runs.overlap / runs.target_norm).sel(seed=1, vector="b"))
    tm.plotting.portrait(right, runs, "a", "d")
    np.testing.assert_array_equal(right.lines[2].get_xdata(), runs.overlap.sel(seed=2, vector="a"))
    with pytest.raises(ValueError, match="overlaps draws one run, got a batch along"):
        tm.plotting.overlaps(left, runs)
    with pytest.raises(ValueError, match="unknown vector 'z'"):
        tm.plotting.portrait(left, runs, "a", "z")
