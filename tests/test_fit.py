"""Fits: known values come back from noisy curves, derivatives are differences, and wrong input is named."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from typer.testing import CliRunner

import toymodel as tm
from toymodel.fitting.data import observed
from toymodel.fitting.forward import followed
from toymodel.fitting.least_squares import CONVERGED, minimised
from toymodel.network.paper import paper_curve
from toymodel.settings import own_jax
from toymodel.symbolic import System

pytestmark = pytest.mark.slow

MODEL = tm.coopetition(alpha=0.13, mu_icl=0.07)
START = tm.paper_start(MODEL, 7)
TIMES = np.linspace(0, 16_000, 81)
NOISE = 0.01


@pytest.fixture(scope="module")
def table():
    """Losses of a run in a unit of time that is twice that of the model, with noise of 1 % of the unlearned loss."""
    runs = tm.flow(MODEL, START, TIMES[-1], times=TIMES)
    draw = np.random.default_rng(3)
    columns = {
        f"L_{m}": runs[f"loss_{m}"].values + NOISE * float(runs[f"unlearned_{m}"]) * draw.normal(size=81)
        for m in ("icl", "ciwl")
    }
    return pd.DataFrame({"epoch": TIMES / 2, **columns})


@pytest.fixture(scope="module")
def found(table):
    return tm.fit(
        tm.coopetition(),
        table,
        free={"alpha": (0.01, 1.0), "mu_icl": (0.01, 1.0), "time": (0.2, 20.0)},
        start=START,
        columns={"icl": "L_icl", "ciwl": "L_ciwl"},
        time="epoch",
        starts=6,
    )


def test_known_values_come_back(found):
    truth = {"alpha": 0.13, "mu_icl": 0.07, "time": 2.0}
    assert found.converged
    for name, value in truth.items():
        one = found.estimates.sel(parameter=name)
        assert one.low < value < one.high, name
        assert one.identified and not one.bound
    assert found.model.parameters["mu_icl"] == float(found.estimates.value.sel(parameter="mu_icl"))


def test_noise_is_estimated(found):
    for m in ("icl", "ciwl"):
        size = float(found.noise.sel(curve=m)) / (found.model.weights[m] / 2)
        norms = [float(START.target_norm.sel(vector=x)) for x in MODEL.mechanisms[m]]
        assert size / np.prod(norms) ** 2 == pytest.approx(NOISE, rel=0.25)


def test_intervals_by_the_fisher_matrix_hold_the_groups(found):
    """r and m_icl from the definitions at these targets; r is fixed by the start, and not by the curves."""
    norms = {x: float(START.target_norm.sel(vector=x)) for x in "abcd"}
    product = norms["a"] * norms["b"] * norms["c"]
    groups = found.groups
    assert bool(groups.fixed.sel(group="r"))
    assert float(groups.value.sel(group="r")) == pytest.approx(norms["d"] / norms["a"])
    one = groups.sel(group="m_icl")
    assert one.low < 2 * 0.07 / (MODEL.weights["icl"] * product**2) < one.high


def test_a_fit_is_saved_drawn_and_shown(found, tmp_path):
    path = tm.save(found.dataset(), tmp_path / "fit.nc")
    again = tm.load(path)
    xr.testing.assert_allclose(again, found.dataset())
    axes = found.plot().axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["ICL", "CIWL"]
    assert "alpha" in str(found) and "90% interval" in str(found)


def test_a_prediction_is_the_flow_of_the_experiment(found):
    """At half the time in the data's unit, with the fitted numbers put in by hand."""
    act = tm.Clamp("d", overlap=0, residual=0, at=500.0)
    predicted = tm.predict(found, [act], times=[1000.0, 4000.0]).predicted
    later = tm.Clamp("d", overlap=0, residual=0, at=500.0 * found.time)
    when = np.array([1000.0, 4000.0]) * found.time
    runs = tm.flow(found.model, found.start, when[-1], times=when, interventions=[later])
    for m in ("icl", "ciwl"):
        np.testing.assert_allclose(predicted.sel(curve=m), runs[f"loss_{m}"], rtol=1e-9)


def test_derivatives_are_central_differences():
    """Of coordinates at times inside of steps, by a start and a parameter, in a run that goes through emergence."""
    system = System(MODEL.form)
    planes = [float(START[part].sel(vector=x)) for part in ("overlap", "residual", "target_norm") for x in "abcd"]
    numbers = [*planes, *MODEL.weights.values(), *(MODEL.parameters[p] for p in MODEL.form.parameters)]
    direction = np.random.default_rng(0).normal(size=len(numbers)) * np.abs(numbers)
    times = np.array([50.0, 777.0, 2500.0])

    def run(numbers, direction):
        y, p = numbers[:8], numbers[8:]
        return followed(system, y, p, direction[:8, None], direction[8:, None], times, 1e-9, 1e-12, 20_000)

    with own_jax():
        run = jax.jit(run)
        at, along = jnp.array(numbers), jnp.array(direction)
        moved = np.asarray(run(at, along)[1][:, :, 0])
        ends = [np.asarray(run(at + s * 1e-4 * along, along)[0]) for s in (1, 0.5, -0.5, -1)]
    wide, narrow = (ends[0] - ends[3]) / 2e-4, (ends[1] - ends[2]) / 1e-4
    np.testing.assert_allclose(moved, (4 * narrow - wide) / 3, atol=1e-4 * np.abs(moved).max())


def test_least_squares_finds_the_bound_and_the_minimum():
    """Residuals A x - b: the minimum within a box is where the slope vanishes or a bound stops it."""
    draw = np.random.default_rng(1)
    matrix, wanted = draw.normal(size=(12, 3)), draw.normal(size=12)
    low, high = np.full(3, -0.05), np.full(3, 10.0)
    begins = np.array([[1.0, 1.0, 1.0], [5.0, 0.0, 2.0]])
    solved = minimised(lambda x: (x @ matrix.T - wanted, np.stack([matrix] * len(x))), begins, low, high)
    assert set(solved.reason) == {CONVERGED}
    for x in solved.x:
        slope = matrix.T @ (matrix @ x - wanted)
        free = (x > low + 1e-9) & (x < high - 1e-9)
        assert abs(slope[free]).max(initial=0) < 1e-6
        assert (slope[x <= low + 1e-9] > 0).all()


def test_what_the_curves_do_not_fix_is_named():
    """The loss of one vector from an overlap of 0 is w T^2 / 2 exp(-2 w t): of w and T^2 only that of the unit of time
    is known twice."""
    model = tm.Model({"icl": "ab"}, lambda icl: icl, {"a": 1, "b": 1})
    when = np.linspace(0, 6, 40)
    start = tm.aligned_start(model, overlap=0.3)
    runs = tm.flow(model, start, 6.0, times=when)
    data = xr.Dataset({"icl": ("time", runs.loss_icl.values)}, {"time": when})
    free = {"time": (0.1, 10), "weight.icl": (0.1, 10)}
    found = tm.fit(model, data, free=free, start=start, link="relative_loss", noise=0.01, starts=3)
    assert not found.estimates.identified.any()  # only their product is in the curve
    assert len(found.undetermined) == 1
    assert "time" in found.undetermined[0] and "weight.icl" in found.undetermined[0]


def test_networks_and_the_paper_are_read_as_they_stand():
    curve = paper_curve("main", "accuracy_icl")
    seen = observed(tm.coopetition(), curve, {"icl": "accuracy_icl"})
    assert seen.kind == "accuracy" and seen.names == ("icl",)
    np.testing.assert_array_equal(seen.values[0, :, 0], curve)
    step, evaluator = [0, 10, 20], ["train", "icl", "ciwl"]
    values = np.arange(18.0).reshape(2, 3, 3)
    network = xr.Dataset(
        {"accuracy_in_context": (("seed", "step", "evaluator"), values)},
        {"seed": [3, 4], "step": step, "evaluator": evaluator},
    )
    seen = observed(tm.coopetition(), network)
    assert (seen.runs, seen.names, seen.kind) == ((3, 4), ("icl", "ciwl"), "accuracy")
    np.testing.assert_array_equal(seen.values, values[:, :, 1:])


def test_many_runs_of_a_table():
    table = pd.DataFrame({"t": [0, 1, 0, 2], "run": ["x", "x", "y", "y"], "L": [1.0, 2.0, 3.0, 4.0]})
    seen = observed(tm.induction(), table, {"icl": "L"}, "t", "run")
    np.testing.assert_array_equal(seen.values[..., 0], [[1, 2, np.nan], [3, np.nan, 4]])


TABLE = pd.DataFrame({"time": [0.0, 1.0, 2.0], "icl": [1.0, 0.5, 0.2], "text": ["a", "b", "c"]})
HOSTILE = {
    "nan times": (dict(data=TABLE.assign(time=[0, np.nan, 2])), "times are not finite"),
    "unsorted times": (dict(data=TABLE.assign(time=[0, 2, 1])), "must increase, got 2 before 1"),
    "negative times": (dict(data=TABLE.assign(time=[-1, 0, 1])), "times must be >= 0"),
    "no times": (dict(data=TABLE.iloc[:0]), "there are no times"),
    "no finite data": (dict(data=TABLE.assign(icl=np.nan)), "'icl' has no finite value"),
    "infinite data": (dict(data=TABLE.assign(icl=[1, np.inf, 0])), "infinite"),
    "unknown column": (dict(columns={"icl": "val"}), "no column 'val'; there are"),
    "unknown curve": (dict(columns={"copy": "icl"}), "columns has the unknown name 'copy'"),
    "column of text": (dict(columns={"icl": "text"}), "'text' must hold numbers"),
    "no such time": (dict(time="epoch"), "no column 'epoch'"),
    "no curve": (dict(data=TABLE.rename(columns={"icl": "L"})), "name them with columns="),
    "unknown free": (dict(free=["beta"]), "unknown name 'beta'; allowed are time, start, alpha"),
    "free twice": (dict(free=["overlap.ab", "overlap.b"]), "are the same value"),
    "nothing free": (dict(free=[]), "free is empty"),
    "bounds reversed": (dict(free={"alpha": (1, 0.1)}), "must be low < high, got 1 and 0.1"),
    "bounds nan": (dict(free={"alpha": (np.nan, 1)}), "must be finite"),
    "bounds text": (dict(free={"alpha": "wide"}), "must be a pair"),
    "bounds below 0": (dict(free={"target_norm.d": (-1, 1)}), "must be >= 0"),
    "more free than data": (dict(free=["alpha", "mu_icl", "time", "overlap.a"]), "3 finite values cannot determine 4"),
    "held": (dict(free=["overlap.d"], interventions="Clamp('d', overlap=0)"), "is held by an intervention"),
    "not always": (dict(interventions="Freeze('d', at=3)"), "a fit takes those that always hold"),
    "log of 0": (dict(data=TABLE.assign(icl=[1, 0, 0.1]), scale="log", free=["time"]), "needs curves > 0"),
    "unknown link": (dict(link="error", free=["time"]), "link of 'icl' must be one of"),
    "noise": (dict(noise=-1, free=["time"]), "noise of 'icl'"),
    "level": (dict(level=1.5), "level must be within 0..1"),
    "no file": (dict(data="missing.csv"), "no such file"),
    "ending": (dict(data="curves.xlsx"), "must be a file that ends in"),
    "no data": (dict(data=None), "data must be a path"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_input_is_named(case):
    changed, message = HOSTILE[case]
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        tm.fit(tm.coopetition(), **{"data": TABLE, **changed})


def test_the_command_fits_a_file(tmp_path):
    from toymodel.cli import app

    when = np.linspace(0, 12, 40)
    model = tm.induction((1, 1, 1))
    runs = tm.flow(model, tm.aligned_start(model), 12.0, times=when)
    file, out, plot = (tmp_path / name for name in ("curve.csv", "fit.nc", "fit.png"))
    pd.DataFrame({"day": when / 3, "L": runs.loss_icl}).to_csv(file, index=False)
    options = ["--preset", "induction", "--time", "day", "--column", "icl=L", "--free", "time=0.1,100", "--starts", "3"]
    said = CliRunner().invoke(app, ["fit", str(file), *options, "--out", str(out), "--plot", str(plot)])
    assert said.exit_code == 0, said.output
    assert plot.exists() and "time" in said.output
    assert tm.load(out).attrs["converged"] == 1


@pytest.mark.slow
def test_the_example_of_the_page_runs(capsys):
    page = (Path(__file__).parent.parent / "docs" / "fit.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    known = {}
    exec(code, known)
    assert known["found"].converged and "alpha" in capsys.readouterr().out
