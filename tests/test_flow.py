"""Gradient flow: closed forms, all entries, all integrators, what it conserves, events, long horizons, errors."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from conftest import closeness
from scipy.integrate import solve_ivp
from zoo import entries, shaped

import toymodel as tm
from toymodel.simulation.interventions import Intervention
from toymodel.simulation.kvaerno import velocity_of
from toymodel.simulation.problem import problem_of_start
from toymodel.simulation.tensors import tensor_loss

pytestmark = pytest.mark.slow

flow = tm.flow
METHODS = ("rosenbrock", "diffrax", "LSODA", "Radau")
LOSSES = ("loss", "loss_icl", "loss_ciwl", "cost")


@pytest.fixture(scope="module")
def ensemble():
    """The paper's model at random parameters, from random starts, to t = 1e5, by both integrators with the same
    tolerances."""
    model, runs = tm.coopetition(), 24
    draw = np.random.default_rng(5)
    start = tm.random_start(model, range(runs), scale={"a": 1.0, "b": 0.7, "c": 1.2, "d": 0.8})
    ranges = {"alpha": (1e-3, 0.5), "mu_icl": (1e-3, 1.0), "mu_ciwl": (1e-4, 0.1)}
    parameters = {
        p: xr.DataArray(np.exp(draw.uniform(*np.log(ends), runs)), dims="seed", coords={"seed": range(runs)})
        for p, ends in ranges.items()
    }
    options = dict(t=1e5, times=[0.0, *np.geomspace(1, 1e5, 26)], rtol=1e-11, atol=1e-15, **parameters)
    return {method: tm.flow(model, start, method=method, **options) for method in ("rosenbrock", "diffrax", "LSODA")}


def test_one_vector_relaxes_exponentially():
    """L = w/2 |x* - x|^2: u - |x*| and v decay as exp(-w t)."""
    model = tm.Model({"icl": "a"}, lambda icl: icl, {"a": 4}, weights={"icl": 0.3})
    start = tm.aligned_start(model, overlap={"a": 0.2}, residual={"a": 0.7})
    norm = float(start.target_norm[0])
    for method in METHODS:
        runs = tm.flow(model, start, 20.0, times=np.linspace(0, 20, 11), method=method)
        left = np.exp(-0.3 * runs.time)
        assert closeness(runs.overlap.sel(vector="a"), norm + (0.2 - norm) * left, 1e-7) <= 1, method
        assert closeness(runs.residual.sel(vector="a"), 0.7 * left, 1e-6, 1e-9) <= 1, method


def test_flow_of_the_reduction_is_the_flow_of_all_entries():
    """An explicit Runge-Kutta of order 8 on every entry, with the gradient of the tensor loss."""
    model = shaped("three mechanisms, one with a vector twice")
    vectors = tm.random_vectors(model, 2)
    targets, begin = entries(vectors, "_target"), entries(vectors)
    ends = np.cumsum([len(begin[x]) for x in begin])[:-1]

    @jax.jit
    def loss(y):
        parts = dict(zip(begin, jnp.split(y, ends), strict=True))
        wanted = {x: jnp.asarray(target) for x, target in targets.items()}
        return tensor_loss(model.form, parts, wanted, dict(model.weights), dict(model.parameters))

    with jax.enable_x64(True):
        slope = jax.jit(jax.grad(loss))
        y0 = np.concatenate(list(begin.values()))
        times = np.linspace(0, 10, 6)
        full = solve_ivp(
            lambda _t, y: -np.asarray(slope(jnp.asarray(y))), (0, 10), y0, "DOP853", times, rtol=1e-11, atol=1e-13
        )
        expected = [float(loss(jnp.asarray(y))) for y in full.y.T]
    runs = tm.flow(model, tm.from_vectors(model, vectors), 10.0, times=times, method="LSODA", rtol=1e-10)
    assert closeness(runs.loss, expected, relative=1e-7) <= 1
    for x, part in zip(begin, np.split(full.y, ends), strict=True):
        unit = targets[x] / np.linalg.norm(targets[x])
        np.testing.assert_allclose(runs.overlap.sel(vector=x), unit @ part, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("method", ["rosenbrock", "diffrax"])
def test_integrators_agree_with_scipy(ensemble, method):
    """Every loss within 1e-5 of itself, down to losses of 1e-13; overlaps within 1e-5 of the length of the vector."""
    found, by_scipy = ensemble[method], ensemble["LSODA"]
    for name in LOSSES:
        assert closeness(found[name], by_scipy[name], relative=1e-5) <= 1, name
    assert float(by_scipy.loss_ciwl.min()) < 1e-12
    length = np.hypot(by_scipy.overlap, by_scipy.residual)
    assert (abs(found.overlap - by_scipy.overlap) <= 1e-5 * length).all()


def test_conserved_quantities_drift_less_than_1e_7(ensemble):
    """|b|^2 - |c|^2 along the flow, against |b|^2 + |c|^2 at the start."""
    for runs in ensemble.values():
        squares = runs.overlap**2 + runs.residual**2
        for balance in tm.model_of(runs).conserved():
            if balance.conserved:
                value = sum(k * squares.sel(vector=x) for x, k in balance.coefficients.items())
                size = sum(abs(k) * squares.sel(vector=x) for x, k in balance.coefficients.items())
                drift = abs(value - value.isel(time=0)) / size.isel(time=0)
                assert float(drift.max()) < 1e-7


def test_a_balance_changes_at_its_rate():
    """d/dt(|a|^2 + |d|^2 - |b|^2) = -8 alpha C, integrated along a run by Simpson's rule."""
    from scipy.integrate import simpson

    model = tm.coopetition(alpha=0.3)
    start = tm.random_start(model, range(3), scale=0.5)
    runs = tm.flow(model, start, 400.0, times=np.linspace(0, 400, 4001), method="LSODA", rtol=1e-11)
    squares = runs.overlap**2 + runs.residual**2
    (balance,) = [b for b in model.conserved() if not b.conserved]
    value = sum(k * squares.sel(vector=x) for x, k in balance.coefficients.items())
    expected = simpson(-8 * 0.3 * runs.cost.values, x=runs.time.values)
    np.testing.assert_allclose(value[:, -1] - value[:, 0], expected, rtol=1e-6)


def test_a_horizon_of_1e7_costs_little():
    """Both stiff integrators of scipy reach 1e7 within 2,000 steps, the others within 20,000, and all agree: within
    1e-5, or below 1e-10, which is nothing (the losses end at 1e-35)."""
    model = tm.coopetition(alpha=0.01, mu_icl=0.01)
    start = tm.aligned_start(model, overlap=0.3)
    options = dict(t=1e7, times=[1e3, 1e5, 1e7], rtol=1e-9)
    one, other = (tm.flow(model, start, method=method, max_steps=2000, **options) for method in ("LSODA", "Radau"))
    others = {method: tm.flow(model, start, method=method, max_steps=20_000, **options) for method in METHODS[:2]}
    for name in LOSSES:
        for found in (one, *others.values()):
            assert closeness(found[name], other[name], relative=1e-5, absolute=1e-10) <= 1, name


def test_events_are_crossings_of_the_record():
    """An emergence that scipy locates lies between the recorded times beside it; what never happens is NaN."""
    model = tm.coopetition()
    start = tm.aligned_start(model, overlap=0.3)
    half = float(tm.descend(model, start, 1).unlearned_icl) / 2
    runs = tm.flow(
        model,
        start,
        3000.0,
        times=np.linspace(0, 3000, 301),
        method="LSODA",
        events={"emergence": lambda q: q["loss_icl"] - half, "never": lambda q: q["loss_icl"] + 1},
    )
    first = float(tm.first_below(runs.loss_icl, half))
    assert first - 10 <= float(runs.event_emergence) <= first
    assert np.isnan(float(runs.event_never))


def test_default_times_are_logarithmic():
    model = shaped("paper")
    times = tm.flow(model, tm.aligned_start(model, overlap=0.3), 100.0, method="LSODA").time.values
    assert times[0] == 0 and times[1] == pytest.approx(1e-4) and times[-1] == pytest.approx(100) and len(times) == 513


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (dict(t=[1, 2]), r"t must be a number > 0, got \[1, 2\]"),
        (dict(t="1"), "t must be a number > 0, got '1'"),
        (dict(times=[float("nan")]), "times must be >= 0 and finite, got nan"),
        (dict(times=["a"]), "times must be a number >= 0"),
        (dict(max_steps=-3), "max_steps must be a whole number >= 1, got -3"),
        (dict(max_steps=10.5), "max_steps must be a whole number >= 1, got 10.5"),
        (
            dict(method="LSODA", events={"x": lambda q: q["nothing"]}),
            "events: 'x' asks for 'nothing', which is no quantity; there",
        ),
        (dict(method="LSODA", events={"x": lambda q: q["loss"] / 0}), r"events: 'x' raised ZeroDivisionError"),
        (dict(method="LSODA", events={"x": lambda q: {}[q["loss"]]}), r"events: 'x' asks for"),
        (dict(method="LSODA", events={"x": lambda q: None}), "events: 'x' must return a number .*, got None"),
        (dict(method="Radau", events={"x": lambda q: "1"}), "events: 'x' must return a number .*, got '1'"),
        (dict(method="LSODA", events={"x": lambda q: q["loss"] < 0}), "events: 'x' must return a number .*, got False"),
        (dict(method="LSODA", events={"x": 3}), "events: 'x' must be a function of the quantities of a run, got 3"),
        (dict(method="LSODA", events=[len]), "events must be a mapping"),
        (dict(observe="measures"), r"observe must be a Measures or None, got 'measures'"),
        (dict(t=0), "t must be > 0 and at most .*, got 0"),
        (dict(t=float("inf")), "t must be > 0 and at most .*, got inf"),
        (dict(method="euler"), "method must be one of 'rosenbrock', 'diffrax', 'LSODA', 'Radau', got 'euler'"),
        (dict(events={"x": len}), "events are located by scipy: use method='LSODA' or 'Radau'"),
        (dict(rtol=0), "rtol must be within 0..1, without the ends, got 0"),
        (dict(atol=2), "atol must be within 0..1, without the ends, got 2"),
        (dict(times=[1.0, 0.5]), "times must be an increasing list within 0..t=5"),
        (dict(times=[6.0]), "times must be an increasing list within 0..t=5"),
        (dict(times=[]), "times is empty; give at least one number"),
        (dict(alpha=-1), "alpha must be >= 0 and finite, got -1"),
    ],
)
def test_wrong_arguments(wrong, says):
    model = shaped("paper")
    with pytest.raises(ValueError, match=says):
        flow(model, tm.aligned_start(model, overlap=0.3), **{"t": 5.0, **wrong})


@pytest.mark.parametrize("method", METHODS[:3])
def test_an_integrator_that_gives_up_says_what_to_raise(method):
    model = tm.Model({"icl": "ab"}, lambda icl: icl, {"a": 4, "b": 4})
    start = tm.aligned_start(model, overlap=0.3)
    with pytest.raises(RuntimeError, match="max_steps=2"):
        tm.flow(model, start, 1e4, times=[1e4], method=method, max_steps=2)


ACTS = {
    "gates": ['Block("icl", "b", until=40)', 'Block("cost", at=10, until=50)'],
    "clamped and frozen": ['Clamp("d", overlap=0.1, residual=0.2, until=20)', 'Freeze("c", at=30, until=60)'],
    "another loss": ['Change(until=30, loss="ciwl + alpha * cost")', "Change(at=50, alpha=0.02)"],
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Halved(Intervention):
    """A factor that is neither 0 nor 1, and a push."""

    def gates(self, model):
        return {("icl", "a"): xr.DataArray([0.3, 0.6, 1.5], dims="seed", coords={"seed": range(3)}), ("ciwl", "b"): 0.5}

    def pushes(self, model):
        return {"d": (-0.002, 0.001)}


def assert_slopes_agree(model, start, acts):
    """Of every stage of a flow to t = 100, where it begins: by sympy, and by jax.grad of the reduction."""
    problem = problem_of_start(model, start, acts)
    state = problem.reduced(start)
    for stage in problem.stages(100.0):
        state = problem.begin(stage, state)
        system, y = stage.system(state), state.coordinates()
        constants = np.stack(problem.constants(stage, state))
        by_sympy = np.stack(np.broadcast_arrays(*system.function(system.slope, "numpy")(*y, *constants), y[0])[:-1])
        with jax.enable_x64(True):
            by_jax = -jax.vmap(velocity_of(system))(jnp.asarray(y.T), jnp.asarray(constants.T)).T
        np.testing.assert_allclose(by_jax, by_sympy, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("name", [*ACTS, "factors and pushes"])
def test_interventions_are_the_same_by_all_methods(name):
    """What sympy derives, integrated in three ways, and what JAX derives of it: the slope with gates and pushes."""
    model = tm.coopetition()
    acts = ACTS.get(name) or [Halved(at=5.0, until=70.0)]
    start = tm.random_start(model, range(3), scale=0.6)
    options = dict(t=100.0, times=[5.0, 25.0, 100.0], rtol=1e-10, atol=1e-12, interventions=acts)
    runs = {method: tm.flow(model, start, method=method, **options) for method in ("rosenbrock", "LSODA", "Radau")}
    plain = tm.flow(model, start, **{**options, "interventions": ()})
    assert float(abs(plain.loss - runs["LSODA"].loss).max()) > 1e-4
    assert_slopes_agree(model, start, acts)
    for method in ("rosenbrock", "Radau"):
        for quantity in (*LOSSES, "overlap", "residual"):
            assert closeness(runs[method][quantity], runs["LSODA"][quantity], 1e-6, 1e-8) <= 1, (method, quantity)


def test_a_clamped_head_is_the_same_by_all_methods():
    model = shaped("paper")
    start = tm.from_vectors(model, tm.random_vectors(model, range(3), 0.5), heads={"c": 2})
    options = dict(
        t=60.0, times=[10.0, 40.0, 60.0], rtol=1e-10, interventions=[tm.Clamp("c", entries=2, at=5, until=50)]
    )
    runs = {method: tm.flow(model, start, method=method, **options) for method in ("rosenbrock", "LSODA", "Radau")}
    assert_slopes_agree(model, start, options["interventions"])
    for method in ("rosenbrock", "Radau"):
        for quantity in (*LOSSES, "overlap", "residual"):
            assert closeness(runs[method][quantity], runs["LSODA"][quantity], 1e-6, 1e-8) <= 1, (method, quantity)


def test_settings_of_the_user_are_respected():
    """Neither a ban on transfers, nor errors for every rounding, nor NaN traps, nor float32 stop a flow or change."""
    model = shaped("paper")
    start = tm.random_start(model, range(2))
    expected = tm.flow(model, start, 10.0)
    with np.errstate(all="raise"), jax.transfer_guard("disallow"), jax.debug_nans(True):
        for method in ("rosenbrock", "LSODA"):
            runs = tm.flow(model, start, 10.0, method=method, times=expected.time.values)
            assert closeness(runs.loss, expected.loss, 1e-6) <= 1, method
    assert jnp.zeros(1).dtype == jnp.float32


def test_a_run_is_interrupted_between_calls():
    """Well before its end, and nothing goes on afterwards."""
    model = tm.coopetition()
    start = tm.random_start(model, range(4000))
    tm.flow(model, start.isel(seed=slice(2)), 1.0, times=[1.0])
    before = set(threading.enumerate())  # other tests of this process may have left some
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    began = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        tm.flow(model, start, 1e7, rtol=1e-12, times=[1e7])
    assert time.perf_counter() - began < 20
    begun = set(threading.enumerate()) - before
    assert not [thread for thread in begun if "ThreadPool" in thread.name and thread.is_alive()]


def test_a_forked_child_is_told_to_spawn_where_it_would_wait_for_ever():
    """Whatever computes with JAX refuses; descent, whose threads end with each call, goes on to the same numbers."""
    code = """
import os, tempfile, warnings, toymodel as tm
from pathlib import Path
warnings.simplefilter("ignore")
model = tm.coopetition()
start = tm.aligned_start(model, overlap=0.3)
vectors = tm.paper_vectors(model, 0)
before = tm.descend(model, start, 10)
from toymodel.network.runs import Runs
from toymodel.theory.attention_flow import Training, predict
runs = Runs(curves=Path(tempfile.mkdtemp()), checkpoints=Path(tempfile.mkdtemp()))
tm.flow(model, start, 1.0, times=[1.0])
if os.fork() == 0:
    found = 0
    for call in (
        lambda: tm.flow(model, start, 1.0, times=[1.0]),
        lambda: tm.paper_start(model, 7),
        lambda: tm.descend_vectors(model, vectors, 10),
        lambda: tm.theory.emergence(model, start),
        lambda: runs.run(runs.named("disentangled_full")),
        lambda: tm.theory.asymptotic_strategy(model, start, mu_icl=0.0),
        lambda: predict(Training(), 50),
    ):
        try:
            call()
        except RuntimeError as error:
            found += "spawn" in str(error)
    found += tm.descend(model, start, 10).identical(before)
    os._exit(0 if found == 8 else 10 + found)
raise SystemExit(os.waitstatus_to_exitcode(os.wait()[1]))
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0
