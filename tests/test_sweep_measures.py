"""The measures that a sweep computes as it runs are those of `tm.measure` on a whole record."""

import jax
import numpy as np
import pytest
import xarray as xr

import toymodel as tm
from toymodel.simulation.problem import problem_of_start
from toymodel.sweeps import kernel

pytestmark = pytest.mark.slow

STEPS = 180
TIMES = ("emergence", "end", "lifetime", "minimum_time", "bump_time")


@pytest.fixture(scope="module")
def problem():
    """Runs in which everything happens within few steps: large steps, all sorts of starts and parameters."""
    rng = np.random.default_rng(3)
    runs = kernel.WIDTH

    def along(values):
        return xr.DataArray(values, dims="run")

    model = tm.coopetition(dims=(3, 3, 3, 6))
    start = tm.random_start(model, seeds=range(runs), scale=0.8).rename(seed="run").drop_vars("run")
    parameters = {"alpha": along(rng.uniform(0, 3, runs)), "mu_icl": along(10 ** rng.uniform(-3, 0, runs))}
    with jax.enable_x64(True):
        return problem_of_start(model, start, (), None, parameters), start


def carried(problem, steps, lr=0.3, **others):
    whole, start = problem
    with jax.enable_x64(True):
        return kernel.descend_measured(whole, whole.reduced(start), steps, np.full(kernel.WIDTH, lr), **others)


def recorded(problem, steps):
    """The kernel's own losses at every step, from runs of 1, 2, ... steps, as a record."""
    lasts = [carried(problem, 1, lr=0.0), *(carried(problem, n) for n in range(1, steps + 1))]
    variables = {}
    for m in ("icl", "ciwl"):
        variables[f"loss_{m}"] = (("run", "time"), np.stack([last[f"last_{m}"] for last in lasts], 1))
        variables[f"unlearned_{m}"] = ("run", 2 * lasts[0][f"inside_{m}"])
    return xr.Dataset(variables, coords={"time": np.arange(steps + 1.0)})


def test_wide_and_narrow_calls_give_the_same_bits(monkeypatch):
    over = dict(alpha=tm.log(1e-2, 1, 40), mu_icl=tm.log(1e-3, 1, 40))
    cuts = []
    pieces = kernel._pieces
    monkeypatch.setattr(kernel, "_pieces", lambda lanes: cuts.append(pieces(lanes)) or pieces(lanes))
    narrow = tm.sweep(tm.coopetition(), over, seeds=7, steps=60)
    monkeypatch.setattr(kernel, "WIDE", 1024)
    wide = tm.sweep(tm.coopetition(), over, seeds=7, steps=60)
    assert narrow.identical(wide)
    lanes = {
        name: [len(range(2048)[piece]) for piece in cut] for name, cut in (("narrow", cuts[0]), ("wide", cuts[-1]))
    }
    assert lanes == {"narrow": [512] * 4, "wide": [1024] * 2}


def test_measures_carried_in_the_loop_are_those_of_the_record(problem):
    record = recorded(problem, STEPS)
    expected = tm.measure(record)
    found = carried(problem, STEPS)
    finite = found["finite"] > 0
    assert finite.mean() > 0.9
    happened = {name: 0 for name in ("emergence", "end", "bump")}
    for m in ("icl", "ciwl"):
        of = expected.sel(mechanism=m)
        quantities = {"emergence": "emergence", "minimum": "lowest", "minimum_time": "when", "bump": "bump"}
        for name, key in quantities.items():
            mine = np.where(np.isinf(found[f"{key}_{m}"]), np.nan, found[f"{key}_{m}"])
            np.testing.assert_array_equal(mine[finite], of[name].values[finite], err_msg=f"{name} of {m}")
        learned = np.isfinite(found[f"emergence_{m}"]) & finite
        mine = np.where(np.isinf(found[f"end_{m}"]), np.nan, found[f"end_{m}"])
        np.testing.assert_array_equal(mine[learned], of.end.values[learned])
        rises = finite & (found[f"bump_{m}"] > 0)
        np.testing.assert_array_equal(found[f"bump_at_{m}"][rises], of.bump_time.values[rises])
        happened["emergence"] += learned.sum()
        happened["end"] += np.isfinite(mine[learned]).sum()
        happened["bump"] += rises.sum()
    assert min(happened.values()) > 10, happened


def test_a_sweep_has_the_measures_of_recorded_runs():
    """Descent with a record is compiled in another way, so losses may differ in the last bits, and with them the step
    at which a loss that only fluctuates in its last bits is lowest."""
    model = tm.coopetition()
    over = {"alpha": [0.01, 0.1, 0.5], "mu_icl": [0.01, 0.1, 0.5]}
    swept = tm.sweep(model, over, seeds=range(4), steps=4000)
    runs = tm.descend(model, tm.paper_start(model, range(4)), 4000, **over)
    expected = tm.measure(runs).transpose(*swept.dims, missing_dims="ignore")
    for name in ("emergence", "end", "lifetime"):
        np.testing.assert_array_equal(swept[name], expected[name].transpose(*swept[name].dims), err_msg=name)
    for name in ("lasts", "winner", "phase"):
        assert (swept[name].values == expected[name].transpose(*swept[name].dims).values).all(), name
    np.testing.assert_allclose(swept["minimum"], expected["minimum"].transpose(*swept["minimum"].dims), rtol=1e-6)
    np.testing.assert_allclose(swept["bump"], expected["bump"].transpose(*swept["bump"].dims), rtol=1e-9, atol=1e-14)
    assert set(np.unique(swept["phase"])) >= {"plateau", "persistent ICL"}


def test_a_run_that_falls_below_the_threshold_ends_there():
    """As in the paper: its measures are those of the record up to that step, and its length is the paper's count."""
    model = tm.coopetition(alpha=0.1, mu_icl=0.1)
    swept = tm.sweep(model, {"alpha": [0.1]}, seeds=[3, 5, 2], steps=8000, stop_below=1e-6).isel(alpha=0)
    assert swept["stopped"].values.tolist()[:2] == [6138.0, 5104.0]
    assert np.isnan(swept["stopped"].values[2])
    runs = tm.descend(model, tm.paper_start(model, [3, 5]), 6138)
    for i, stopped in enumerate((6138, 5104)):
        expected = tm.measure(runs.isel(seed=i).sel(time=slice(0, stopped)))
        for name in TIMES:
            np.testing.assert_array_equal(swept[name].isel(seed=i), expected[name])
        np.testing.assert_allclose(
            swept["final"].isel(seed=i, mechanism=1), runs["loss_ciwl"].isel(seed=i, time=stopped)
        )


def test_runs_that_have_ended_leave_the_batch_and_change_no_other(monkeypatch, problem):
    whole = carried(problem, 400, stop_below=0.02)
    monkeypatch.setattr(kernel, "SPAN", 16)
    often = carried(problem, 400, stop_below=0.02)
    assert 0.05 < np.isfinite(whole["stopped"]).mean() < 0.95
    for name, values in whole.items():
        np.testing.assert_array_equal(values, often[name], err_msg=name)


def test_a_run_that_stands_still_is_taken_out(monkeypatch):
    """At the target the gradient vanishes: no step changes a bit, and the run costs two looks."""
    model = tm.induction()
    spans = []
    monkeypatch.setattr(kernel, "SPAN", 8)
    each = kernel.Lanes.each
    monkeypatch.setattr(kernel.Lanes, "each", lambda self, *others: spans.append(1) or each(self, *others))
    target = {"overlap_" + x: model.target_norms[x] for x in "abc"}
    swept = tm.sweep(model, {"residual_a": [0.0]}, start="aligned", steps=10_000, fixed=target)
    assert len(spans) <= 6
    assert swept["minimum"].item() < 1e-30
    assert swept["lasts"].item()


def test_a_diverging_run_is_named_so_and_spoils_no_other():
    swept = tm.sweep(tm.coopetition(), {"lr": [1.0, 50.0]}, seeds=7, steps=600)
    alone = tm.sweep(tm.coopetition(), {"lr": [1.0]}, seeds=7, steps=600)
    assert swept["winner"].values.tolist()[1] == swept["phase"].values.tolist()[1] == "diverged"
    assert np.isnan(swept["minimum"].isel(lr=1)).all()
    xr.testing.assert_identical(swept.isel(lr=[0]).drop_attrs(), alone.drop_attrs())


def test_float32_gives_the_same_phases():
    over = {"alpha": tm.log(1e-2, 1, 6), "mu_icl": tm.log(1e-2, 1, 6)}
    double, single = (tm.sweep(tm.coopetition(), over, range(3), 3000, precision=p) for p in ("float64", "float32"))
    assert (double["phase"] == single["phase"]).mean() > 0.99
    np.testing.assert_allclose(single["emergence"], double["emergence"], rtol=0.01)


def test_a_flow_is_measured_as_recorded():
    model = tm.coopetition()
    swept = tm.sweep(model, {"alpha": [0.1, 0.3]}, seeds=[3, 5], steps=2000, integrator="flow", rtol=1e-6)
    runs = tm.flow(model, tm.paper_start(model, [3, 5]), 2000.0, alpha=[0.1, 0.3], rtol=1e-9)
    expected = tm.measure(runs)
    np.testing.assert_allclose(
        swept["minimum"], expected["minimum"].transpose("alpha", "seed", "mechanism"), rtol=1e-3, atol=1e-9
    )
    assert (swept["phase"].values == expected["phase"].transpose("alpha", "seed").values).all()


def test_a_wrong_number_of_lanes_is_refused(problem):
    part = problem[0].block(slice(0, 10))
    small = problem[1].isel(run=slice(0, 10))
    with jax.enable_x64(True), pytest.raises(ValueError, match="multiple of"):
        whole = problem_of_start(part.model, small, (), None, {})
        kernel.descend_measured(whole, whole.reduced(small), 10, np.ones(10))
