import numpy as np
import pytest
import xarray as xr

import toymodel as tm
from toymodel.simulation import descent
from toymodel.simulation.kernel import LANES

pytestmark = pytest.mark.slow

STEPS = 180
TIMES = ("emergence", "end", "lifetime", "minimum_time", "bump_time")


@pytest.fixture(scope="module")
def problem():
    """Runs in which everything happens within few steps: large steps, all sorts of starts and parameters."""
    rng = np.random.default_rng(3)
    runs = 16 * LANES

    def along(values):
        return xr.DataArray(values, dims="run")

    model = tm.coopetition(dims=(3, 3, 3, 6))
    start = tm.random_start(model, seeds=range(runs), scale=0.8).rename(seed="run").drop_vars("run")
    parameters = {"alpha": along(rng.uniform(0, 3, runs)), "mu_icl": along(10 ** rng.uniform(-3, 0, runs))}
    return model, start, parameters


def measured(problem, steps, stop_below=None):
    model, start, parameters = problem
    return tm.descend(model, start, steps, lr=0.3, observe=tm.Measures(stop_below), **parameters)


def plain_measures(times, losses, inside):
    """The measures of one mechanism of one run, from their definitions and not in their running form."""
    learned = losses < inside
    lowest = int(losses.argmin())
    found = dict.fromkeys(("emergence", "end", "bump_time"), np.nan)
    found |= {"minimum": losses[lowest], "minimum_time": times[lowest], "final": losses[-1], "lasts": learned[-1]}
    if learned.any():
        found["emergence"] = times[learned.argmax()]
        gone = ~learned & (times > times[lowest])
        found["end"] = times[gone.argmax()] if gone.any() else np.nan
    found["lifetime"] = (times[-1] if learned[-1] else found["end"]) - found["emergence"]
    before = losses[: learned.argmax()] if learned.any() else losses
    rises = before - np.minimum.accumulate(before) if len(before) else np.zeros(1)
    found["bump"] = max(rises.max(), 0.0)
    if found["bump"] > 0:
        found["bump_time"] = times[rises.argmax()]
    return found


def test_measures_of_a_descent_follow_from_their_definitions(problem):
    """Taken at every step without a record, against a plain transcription of the definitions on a whole record."""
    model, start, parameters = problem
    seen = measured(problem, STEPS)
    finite = np.flatnonzero(seen.winner != "diverged")
    assert len(finite) > 0.9 * seen.sizes["run"]
    seen, parameters = seen.isel(run=finite), {p: value.isel(run=finite) for p, value in parameters.items()}
    runs = tm.descend(model, start.isel(run=finite), STEPS, lr=0.3, **parameters)
    xr.testing.assert_identical(tm.measure(runs).drop_attrs(), seen[list(tm.measure(runs))].drop_attrs())
    for m in model.mechanisms:
        losses, inside = runs[f"loss_{m}"].values, 0.5 * runs[f"unlearned_{m}"].values
        expected = [plain_measures(runs.time.values, loss, level) for loss, level in zip(losses, inside, strict=True)]
        for name in expected[0]:
            values = np.array([one[name] for one in expected])
            np.testing.assert_array_equal(seen[name].sel(mechanism=m), values, err_msg=f"{name} of {m}")
    assert seen.emergence.isnull().any() and (seen.bump > 0).any() and seen.end.notnull().any()


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
    whole = measured(problem, 400, stop_below=0.02)
    monkeypatch.setattr(descent, "SPAN", 16)
    often = measured(problem, 400, stop_below=0.02)
    assert 0.05 < whole.stopped.notnull().mean() < 0.95
    xr.testing.assert_identical(whole, often)


def test_a_run_that_stands_still_is_taken_out(monkeypatch):
    """At the target the gradient vanishes: no step changes a bit, and the run costs one look."""
    model = tm.induction()
    calls = []
    monkeypatch.setattr(descent, "SPAN", 8)
    task = descent._Blocks.task
    monkeypatch.setattr(descent._Blocks, "task", lambda self, *others: calls.append(1) or task(self, *others))
    target = {"overlap_" + x: model.target_norms[x] for x in "abc"}
    swept = tm.sweep(model, {"residual_a": [0.0]}, start="aligned", steps=10_000, fixed=target)
    assert len(calls) == 1
    assert swept["minimum"].item() < 1e-30
    assert swept["lasts"].item()


def test_a_diverging_run_is_named_so_and_spoils_no_other():
    swept = tm.sweep(tm.coopetition(), {"lr": [1.0, 50.0]}, seeds=7, steps=600)
    alone = tm.sweep(tm.coopetition(), {"lr": [1.0]}, seeds=7, steps=600)
    assert swept["winner"].values.tolist()[1] == swept["phase"].values.tolist()[1] == "diverged"
    assert np.isnan(swept["minimum"].isel(lr=1)).all()
    xr.testing.assert_identical(swept.isel(lr=[0]).drop_attrs(), alone.drop_attrs())


def test_a_flow_is_measured_as_recorded():
    model = tm.coopetition()
    swept = tm.sweep(model, {"alpha": [0.1, 0.3]}, seeds=[3, 5], steps=2000, integrator="flow", rtol=1e-6)
    runs = tm.flow(model, tm.paper_start(model, [3, 5]), 2000.0, alpha=[0.1, 0.3], rtol=1e-9)
    expected = tm.measure(runs)
    np.testing.assert_allclose(
        swept["minimum"], expected["minimum"].transpose("alpha", "seed", "mechanism"), rtol=1e-3, atol=1e-9
    )
    assert (swept["phase"].values == expected["phase"].transpose("alpha", "seed").values).all()


def test_a_flow_ends_below_the_threshold_and_is_kept_thinned():
    model = tm.coopetition(alpha=0.1, mu_icl=0.1)
    swept = tm.sweep(
        model, {"alpha": [0.1]}, [3, 5, 2], 8000, integrator="flow", rtol=1e-9, stop_below=1e-4, every=500
    ).isel(alpha=0)
    start, when = tm.paper_start(model, [3, 5, 2]), np.arange(0, 8001, 500.0)
    record = tm.flow(model, start, 8000.0, times=when, method="LSODA")
    np.testing.assert_allclose(swept["loss"], record["loss"].transpose("seed", "time"), rtol=1e-5, atol=1e-9)
    fine = tm.flow(model, start, 8000.0, times=np.linspace(0, 8000, 8001), method="LSODA")["loss"]
    below = (fine < 1e-4).idxmax("time").where((fine < 1e-4).any("time"))
    assert np.isnan(swept["stopped"].values).tolist() == np.isnan(below.values).tolist() == [False, False, True]
    assert (abs(swept["stopped"] / below - 1).values[:2] < 0.03).all()  # the times of a flow lie 2.7 % apart
