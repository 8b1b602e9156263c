"""Measures against values computed by hand on short records."""

import numpy as np
import pytest
import xarray as xr

import toymodel as tm

TIMES = [0.0, 1.0, 2.0, 4.0, 8.0, 16.0]


def made(icl, ciwl, unlearned=(1.0, 1.0)) -> xr.Dataset:
    """A record with these losses along TIMES; both mechanisms are learned below 0.5."""
    icl, ciwl = (xr.DataArray(np.atleast_2d(x), dims=("seed", "time")) for x in (icl, ciwl))
    levels = {f"unlearned_{m}": level for m, level in zip(("icl", "ciwl"), unlearned, strict=True)}
    return xr.Dataset({"loss_icl": icl, "loss_ciwl": ciwl, **levels}, {"time": TIMES})


def only(measures, mechanism, name):
    return float(measures[name].sel(mechanism=mechanism).squeeze())


def test_transient_icl_by_hand():
    """ICL is learned from t = 1 to 8, lowest at 2; CIWL rises by 0.15 up to t = 4, before it is learned at 8."""
    m = tm.measure(made([0.9, 0.4, 0.1, 0.3, 0.7, 0.8], [0.95, 0.9, 0.8, 0.95, 0.3, 0.01]))
    assert only(m, "icl", "emergence") == 1
    assert only(m, "icl", "minimum") == 0.1 and only(m, "icl", "minimum_time") == 2
    assert only(m, "icl", "end") == 8 and only(m, "icl", "lifetime") == 7
    assert only(m, "ciwl", "emergence") == 8 and only(m, "ciwl", "lifetime") == 8
    assert np.isnan(only(m, "ciwl", "end"))
    assert only(m, "ciwl", "bump") == pytest.approx(0.15) and only(m, "ciwl", "bump_time") == 4
    assert only(m, "icl", "bump") == 0 and np.isnan(only(m, "icl", "bump_time"))
    assert m.winner.item() == "ciwl" and m.phase.item() == "transient ICL"


@pytest.mark.parametrize(
    ("icl", "ciwl", "phase", "winner"),
    [
        (0.9, 0.9, "plateau", "none"),
        (0.1, 0.9, "persistent ICL", "icl"),
        (0.9, 0.1, "CIWL only", "ciwl"),
        (0.1, 0.1, "both", "icl+ciwl"),
    ],
)
def test_phases_of_runs_that_end_at(icl, ciwl, phase, winner):
    m = tm.measure(made(np.linspace(1, icl, 6), np.linspace(1, ciwl, 6)))
    assert m.phase.item() == phase and m.winner.item() == winner


def test_a_mechanism_that_ends_before_its_minimum_has_not_ended():
    """`end` counts from the minimum on; a dip before it is no end."""
    m = tm.measure(made([0.9, 0.4, 0.6, 0.2, 0.3, 0.6], [1.0] * 6))
    assert only(m, "icl", "emergence") == 1 and only(m, "icl", "end") == 16


def test_a_rise_after_a_mechanism_is_learned_is_no_bump():
    m = tm.measure(made([1.0] * 6, [0.9, 0.4, 0.9, 0.95, 0.3, 0.2]))
    assert only(m, "ciwl", "bump") == 0


def test_half_is_of_the_unlearned_loss():
    m = tm.measure(made([0.9, 0.4, 0.1, 0.1, 0.1, 0.1], [1.0] * 6, unlearned=(0.2, 1.0)))
    assert np.isnan(only(m, "icl", "emergence"))


def test_each_run_is_measured_alone():
    courses = np.array([[0.9, 0.4, 0.1, 0.3, 0.7, 0.8], [0.9, 0.8, 0.7, 0.6, 0.4, 0.2]])
    ciwl = np.array([[0.9] * 6, np.linspace(1, 0.1, 6)])
    both = tm.measure(made(courses, ciwl))
    for seed in range(2):
        alone = tm.measure(made(courses[seed], ciwl[seed]))
        xr.testing.assert_equal(both.isel(seed=seed).drop_attrs(), alone.isel(seed=0).drop_attrs())


def test_first_below_and_first_true():
    values = xr.DataArray([[3.0, 2.0, 1.0], [3.0, 3.0, 3.0]], dims=("seed", "time"), coords={"time": [0.0, 5.0, 9.0]})
    np.testing.assert_array_equal(tm.first_below(values, 2.0), [9.0, np.nan])
    np.testing.assert_array_equal(tm.first_below(values, 2.5), [5.0, np.nan])
    np.testing.assert_array_equal(tm.first_true(values == 3), [0.0, 0.0])


def test_seed_7_of_the_paper(paper_runs):
    """In the paper's main figure ICL comes first, is lost, and CIWL takes over."""
    seven = tm.measure(paper_runs.sel(seed=7))
    assert seven.phase.item() == "transient ICL" and seven.winner.item() == "ciwl"
    emergence = seven.emergence
    assert float(emergence.sel(mechanism="icl")) < float(emergence.sel(mechanism="ciwl"))


@pytest.mark.parametrize("wrong", [xr.Dataset(), made([1.0] * 6, [1.0] * 6).isel(time=0)])
def test_what_is_no_record_is_refused(wrong):
    with pytest.raises(ValueError, match="runs must be a record with loss_<mechanism> along time"):
        tm.measure(wrong)
