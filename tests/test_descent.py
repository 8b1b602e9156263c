"""Descent: the reduction against all entries, recording, stopping, batches, sweeps, the limit of small steps."""

import os
import signal
import threading
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from conftest import closeness
from hypothesis import given, settings
from zoo import cases, entries, shaped

import toymodel as tm
from toymodel.simulation import descent, kernel, tensors
from toymodel.simulation.kernel import LANES
from toymodel.simulation.tensors import tensor_loss

# without the check of types that tests have and users have not: what a user's wrong argument meets
descend, descend_vectors = tm.descend, tm.descend_vectors
LOSSES = ("loss", "loss_icl", "loss_ciwl", "cost")


@pytest.fixture(scope="module")
def model():
    return shaped("paper")


@pytest.fixture(scope="module")
def start(model):
    return tm.random_start(model, range(5), scale=0.3)


@pytest.mark.slow
@settings(max_examples=100)
@given(case=cases())
def test_reduced_descent_is_the_descent_of_all_entries(case):
    """Within 1e-9 over 200 steps, for 100 random models (dimensions, parameters, weights, three mechanisms): losses
    relative to themselves, coordinates to |x|."""
    options = dict(steps=200, lr=case.lr, every=200, weights=case.weights, **case.parameters)
    full = tm.descend_vectors(*case.wide, **options)
    reduced = tm.descend(case.model, tm.from_vectors(case.model, case.vectors), **options)
    for name in full.data_vars:
        if name not in ("overlap", "residual"):
            assert closeness(reduced[name], full[name], relative=1e-9, absolute=1e-14) <= 1, name
    length = np.hypot(full.overlap, full.residual)
    for name in ("overlap", "residual"):
        assert (abs(reduced[name] - full[name]) <= 1e-9 * length).all(), name


@pytest.mark.slow
def test_float32_descent_of_the_paper_stays_close():
    model = tm.coopetition()
    vectors = tm.paper_vectors(model, 7)
    single = tm.descend_vectors(model, vectors, 300, every=100, dtype="float32")
    exact = tm.descend(model, tm.from_vectors(model, vectors), 300, every=100)
    for name in LOSSES:
        assert closeness(single[name], exact[name], relative=1e-4) <= 1, name
    assert single.loss.dtype == np.float32 and exact.loss.dtype == np.float64


@partial(jax.jit, static_argnums=0)
def slope_of(form, values, targets, weights, parameters):
    return jax.grad(lambda values: tensor_loss(form, values, targets, weights, parameters))(values)


def test_residual_direction_never_turns():
    """Entry by entry, what is left of a vector beside its target keeps its direction over 200 steps."""
    model = shaped("three mechanisms, one with a vector twice")
    vectors = tm.random_vectors(model, 4)
    targets = entries(vectors, "_target")
    units = {x: target / np.linalg.norm(target) for x, target in targets.items()}

    def across(values):
        rest = {x: values[x] - (values[x] @ unit) * unit for x, unit in units.items()}
        return {x: r / np.linalg.norm(r) for x, r in rest.items() if model.dims[x] > 1}

    values = entries(vectors)
    first = across(values)
    with jax.enable_x64(True):
        arrays = {x: jnp.asarray(target) for x, target in targets.items()}
        for _ in range(200):
            here = {x: jnp.asarray(value) for x, value in values.items()}
            slope = slope_of(model.form, here, arrays, dict(model.weights), dict(model.parameters))
            values = {x: values[x] - 0.05 * np.asarray(slope[x]) for x in values}
    for x, direction in across(values).items():
        assert direction @ first[x] == pytest.approx(1, abs=1e-12), x


@pytest.mark.slow
def test_noise_turns_the_residual_and_sampling_is_unbiased(model):
    """With sampled entries a step is right in the mean: over 4,000 runs, within four standard errors."""
    vectors = tm.random_vectors(model, 3)
    many = vectors.expand_dims(copy=range(4000))
    exact = tm.descend_vectors(model, vectors, 1, lr=0.1).overlap[-1]
    sampled = tm.descend_vectors(model, many, 1, lr=0.1, sample=5).overlap.isel(time=-1)
    error = sampled.std("copy") / np.sqrt(4000)
    assert (abs(sampled.mean("copy") - exact) < 4 * error).all() and (error > 0).all()
    noisy = tm.descend_vectors(model, many, 1, lr=0.1, noise=0.5).overlap.isel(time=-1)
    np.testing.assert_allclose(noisy.std("copy"), 0.1 * 0.5, rtol=0.05)
    assert (abs(noisy.mean("copy") - exact) < 4 * 0.05 / np.sqrt(4000)).all()


@pytest.mark.parametrize("every", [7, 50, 1000])
def test_every_thins_the_record_and_nothing_else(model, start, every):
    whole = tm.descend(model, start, 120, lr=0.1)
    thin = tm.descend(model, start, 120, lr=0.1, every=every)
    marks = [*range(0, 120, every), 120]
    np.testing.assert_array_equal(thin.step, marks)
    np.testing.assert_allclose(thin.time, 0.1 * np.array(marks))
    xr.testing.assert_allclose(thin, whole.isel(time=marks), rtol=1e-13)


@pytest.mark.slow
def test_residuals_that_count_as_zero_change_no_loss(monkeypatch):
    model = tm.coopetition()
    start = tm.random_start(model, seeds=range(64))
    run = tm.descend(model, start, 16_000, every=500)
    monkeypatch.setattr(kernel, "SMALL", 0.0)
    kernel._text.cache_clear()
    exact = tm.descend(model, start, 16_000, every=500)
    kernel._text.cache_clear()
    assert 0 < exact.residual.min() < 1e-300 and (run.residual == 0).any()
    assert (run.residual.values[run.residual > 0] > 1e-150).all()
    for name in ("loss", "loss_icl", "loss_ciwl", "cost", "overlap"):
        np.testing.assert_array_equal(run[name], exact[name])
    np.testing.assert_array_equal(run.residual, exact.residual.where(run.residual > 0, 0))


@pytest.mark.slow
def test_long_runs_are_recorded_in_pieces(model, start, monkeypatch):
    """The pieces between which a run can be interrupted change nothing, of whatever length they are."""
    noisy = partial(tm.descend_vectors, noise=0.1, sample=3)
    for run, begin in ((tm.descend, start), (noisy, tm.random_vectors(model, [0, 1]))):
        for every in (3, 40):
            whole = run(model, begin, 40, lr=0.1, every=every)
            with monkeypatch.context() as cut:
                cut.setattr(descent, "TASK", 7 * LANES)
                cut.setattr(tensors, "PIECE", 7 * tensors.SMALL)
                xr.testing.assert_allclose(run(model, begin, 40, lr=0.1, every=every), whole, rtol=1e-13)


@pytest.mark.parametrize("kind", ["many threads", "all entries"])
def test_an_interruption_is_prompt(model, kind):
    """Ctrl-C ends a run of minutes after the pieces that are under way, and leaves no thread behind."""
    many = tm.random_start(model, range(3 * LANES)), tm.random_vectors(model, 0)
    threads = threading.active_count()
    alarm = threading.Timer(1.0, os.kill, [os.getpid(), signal.SIGINT])
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    alarm.start()
    began = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            if kind == "many threads":
                tm.descend(model, many[0], 10**9, lr=1e-9, every=10**9)
            else:
                tm.descend_vectors(model, many[1], 10**9, lr=1e-9, every=10**9)
        assert time.monotonic() - began < 20
    finally:
        alarm.join()
        signal.signal(signal.SIGINT, before)
    assert threading.active_count() == threads


def test_first_below_is_first_below_of_every_step(model, start):
    """Found at every step, whatever is recorded; NaN for a run that never is below."""
    whole = tm.descend(model, start, 120, lr=0.2)
    threshold = float(whole.loss.isel(time=-1).median())
    thin = tm.descend(model, start, 120, lr=0.2, every=50, first_below=threshold)
    expected = tm.first_below(whole.loss, threshold)
    np.testing.assert_allclose(thin.stopped, expected)
    assert expected.isnull().any() and expected.notnull().any()
    assert thin.stopped.attrs["threshold"] == threshold


def test_first_below_counts_the_last_state(model, start):
    whole = tm.descend(model, start.sel(seed=[0]), 30, lr=0.2)
    between = float(whole.loss[0, -2:].mean())
    stopped = tm.descend(model, start.sel(seed=[0]), 30, lr=0.2, first_below=between).stopped
    assert float(stopped[0]) == pytest.approx(30 * 0.2)


@pytest.mark.parametrize("runs", [1, LANES, LANES + 1, 9 * LANES + 5])
def test_blocks_of_runs_equal_single_runs(model, runs):
    """Bit for bit, wherever in a block, and on whichever thread, a run is."""
    many = tm.random_start(model, range(runs), scale=0.3)
    batch = tm.descend(model, many, 60, lr=0.02, every=20, first_below=1e-9)
    measured = tm.descend(model, many, 60, lr=0.02, observe=tm.Measures())
    for seed in {0, runs // 2, runs - 1}:
        alone = tm.descend(model, many.sel(seed=seed), 60, lr=0.02, every=20, first_below=1e-9)
        xr.testing.assert_identical(batch.sel(seed=seed), alone)
        xr.testing.assert_identical(
            measured.sel(seed=seed), tm.descend(model, many.sel(seed=seed), 60, lr=0.02, observe=tm.Measures())
        )


def test_descent_tends_to_the_flow_with_slope_one(model, start):
    """The error at t = 8 is proportional to the step size."""
    flow = tm.flow(model, start, 8.0, times=[8.0], method="LSODA", rtol=1e-11, atol=1e-13)
    sizes = 8 / np.array([40, 80, 160, 320])
    errors = []
    for lr in sizes:
        end = tm.descend(model, start, round(8 / lr), lr=lr, every=1000).isel(time=-1)
        errors.append(float(abs(end.overlap - flow.overlap.isel(time=-1)).max()))
    slope = np.polyfit(np.log(sizes), np.log(errors), 1)[0]
    assert slope == pytest.approx(1, abs=0.03)


def test_swept_values_equal_single_runs(model, start):
    """A list makes a dimension of its name; a DataArray has its own, or goes with the runs."""
    one = partial(tm.descend, model, steps=30, lr=0.1, every=10)
    alphas = [0.0, 0.2, 0.7]
    by_list = one(start=start, alpha=alphas)
    assert by_list.loss.dims == ("seed", "alpha", "time")
    mu = xr.DataArray(np.linspace(0.1, 0.5, 5), dims="seed", coords={"seed": range(5)})
    weight = xr.DataArray([0.01, 0.02], dims="size", coords={"size": [10, 20]})
    paired = one(start=start, mu=mu, weights={"ciwl": weight})
    assert paired.loss.dims == ("seed", "size", "time")
    np.testing.assert_array_equal(paired["mu"], mu)
    np.testing.assert_array_equal(paired["weight_ciwl"], weight)
    for seed in (0, 4):
        here = start.sel(seed=[seed])
        for alpha in alphas:
            single = one(start=here, alpha=alpha)
            for name in LOSSES:
                left = by_list[name].sel(seed=[seed], alpha=alpha)
                assert closeness(left, single[name], relative=1e-12) <= 1
        for size in (10, 20):
            single = one(start=here, mu=float(mu[seed]), weights={"ciwl": float(weight.sel(size=size))})
            for name in (*LOSSES, "unlearned_ciwl", "unlearned_icl"):
                left = paired[name].sel(seed=[seed], size=size)
                assert closeness(left, single[name], relative=1e-12) <= 1


def test_swept_weights_by_list(model, start):
    runs = tm.descend(model, start, 10, lr=0.1, weights={"cost": [0.1, 0.2]})
    assert runs.loss.dims == ("seed", "weight_cost", "time")


def test_a_start_with_swept_overlaps(model):
    overlap = xr.DataArray([0.1, 0.5], dims="begin", coords={"begin": [0.1, 0.5]})
    runs = tm.descend(model, tm.aligned_start(model, overlap={**dict.fromkeys("bcd", 0.2), "a": overlap}), 10, lr=0.1)
    single = tm.descend(model, tm.aligned_start(model, overlap={**dict.fromkeys("bcd", 0.2), "a": 0.5}), 10, lr=0.1)
    assert runs.loss.dims == ("begin", "time") and single.loss.dims == ("time",)
    assert closeness(runs.loss.sel(begin=0.5), single.loss, relative=1e-12) <= 1


def test_any_order_of_vectors(start):
    """The order of `dims`, and of the vectors in a start, does not matter."""
    ordered = shaped("paper")
    other = tm.Model(
        ordered.mechanisms, ordered.loss, {x: ordered.dims[x] for x in reversed(ordered.vectors)}, ordered.costs
    )
    left = tm.descend(ordered, start, 20, lr=0.1)
    right = tm.descend(other, start, 20, lr=0.1)
    assert right.vector.values.tolist() == list("dcba")
    xr.testing.assert_allclose(left, right.sel(vector=list("abcd")), rtol=1e-13)


def test_a_run_leaves_jax_settings_alone(model, start):
    tm.descend(model, start, 2, lr=0.1)
    assert not jax.config.jax_enable_x64
    assert jnp.ones(1).dtype == jnp.float32


@pytest.mark.parametrize("kind", ["reduced", "all entries"])
def test_a_diverging_run_is_an_error(model, start, kind):
    with pytest.raises(FloatingPointError, match=r"the loss of \d runs diverges at lr=.*; use a smaller lr"):
        if kind == "reduced":
            tm.descend(model, start, 200, lr=500.0, every=200)
        else:
            tm.descend_vectors(model, tm.random_vectors(model, [0, 1]), 200, lr=500.0, every=200)


WRONG = [
    (dict(steps=0), "steps must be a whole number >= 1, got 0"),
    (dict(steps=2.5), "steps must be a whole number >= 1, got 2.5"),
    (dict(every=0), "every must be a whole number >= 1, got 0"),
    (dict(lr=0), "lr must be > 0 and .*, got 0"),
    (dict(lr=float("nan")), "lr must be > 0 and .*, got nan"),
    (dict(beta=1), r"unknown parameter 'beta'; the loss has \['alpha', 'mu', 'nu'\]"),
    (dict(alpha=-1), "alpha must be >= 0 and finite, got -1"),
    (dict(alpha=[0.1, float("inf")]), "alpha must be >= 0 and finite, got inf"),
    (dict(lr=[0.1, 0.2]), r"lr must be .*number.*, got \[0.1, 0.2\]"),
    (dict(lr="1"), "lr must be a number > 0, got '1'"),
    (dict(alpha=[]), "alpha is empty; give at least one number"),
    (dict(weights={"icl": -1}), r"weights\['icl'\] must be > 0 and finite, got -1"),
    (dict(weights=[1]), r"weights must be a mapping, name -> value or None, got \[1\]"),
    (
        dict(interventions=tm.Clamp("d")),
        r"interventions must be a list, such as \[tm.Clamp\('d'\)\], or text, got Clamp",
    ),
    (
        dict(steps=10**12),
        "a record of 1 runs at 1,000,000,000,001 times has .* GiB, .*; record fewer times with every=",
    ),
    (dict(alpha="big"), "alpha must be a number >= 0, got 'big'"),
    (dict(alpha=[[1.0]]), "alpha must be a number, a list of numbers or an xarray.DataArray, got"),
    (dict(alpha=xr.DataArray([1.0], dims="time")), "the dimension 'time' belongs to the record"),
    (dict(weights={"other": 1}), r"weights has the unknown name 'other'; allowed are \['icl', 'ciwl', 'cost'\]"),
    (dict(weights={"icl": 0}), r"weights\['icl'\] must be > 0 and finite, got 0"),
    (dict(interventions=["clamp"]), "an intervention must be like .*got 'clamp'"),
]


@pytest.mark.parametrize(("wrong", "says"), WRONG)
@pytest.mark.parametrize("kind", ["reduced", "all entries"])
def test_wrong_arguments(model, start, kind, wrong, says):
    options = {"steps": 10, **wrong}
    with pytest.raises(ValueError, match=says):
        if kind == "reduced":
            descend(model, start.isel(seed=0), **options)
        else:
            descend_vectors(model, tm.random_vectors(model, 0), **options)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: s.drop_vars("residual"), "start must be a Dataset with overlap, residual and target_norm"),
        (lambda s: s.overlap, "start must be a Dataset"),
        (lambda s: s.sel(vector=list("abc")), r"start has no vector 'd'; it has \['a', 'b', 'c'\]"),
        (lambda s: s.assign(residual=-s.residual), "start: residual must be >= 0 and finite"),
        (lambda s: s.assign(overlap=s.overlap / 0), "start: overlap must be finite"),
        (lambda s: s.expand_dims(time=[0.0]), "take one state of a run with tm.state_at"),
    ],
)
def test_wrong_starts(model, start, change, says):
    with np.errstate(divide="ignore"), pytest.raises(ValueError, match=says):
        descend(model, change(start), 10)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (
            lambda m, v: tm.descend(m, tm.from_vectors(m, v), 5, first_below=0),
            "first_below must be > 0 and finite",
        ),
        (lambda m, v: tm.descend_vectors(m, v, 5, noise=-1), "noise must be >= 0 and finite, got -1"),
        (lambda m, v: descend_vectors(m, v, 5, noise="a"), "noise must be a number >= 0, got 'a'"),
        (lambda m, v: tm.descend_vectors(m, v * np.nan, 5), r"vectors\['a'\] must be finite, got nan"),
        (lambda m, v: tm.descend_vectors(m, v.assign(b_target=0 * v.b), 5), r"vectors\['b_target'\] must not be 0"),
        (lambda m, v: tm.descend(m, tm.aligned_start(m).isel(vector=[]), 5), "start has no vector 'a'"),
        (lambda m, v: tm.descend_vectors(m, v, 5, sample=0), "sample must be a whole number >= 1"),
        (lambda m, v: tm.descend_vectors(m, v, 5, dtype="float16"), "dtype must be one of 'float32', 'float64'"),
        (lambda m, v: tm.descend_vectors(m, v.drop_vars("d"), 5), "no variables 'd' and 'd_target'"),
        (lambda m, v: tm.descend_vectors(m, v.isel(c_entry=[0]), 5), r"vectors\['c'\] must have 4 entries"),
        (
            lambda m, v: tm.descend(m, tm.random_start(m, [0, 1]), 5, mu=xr.DataArray([0.1], dims="seed")),
            "two inputs have the same dimension",
        ),
    ],
)
def test_other_wrong_arguments(model, call, says):
    with pytest.raises(ValueError, match=says):
        call(model, tm.random_vectors(model, 0))


def test_each_run_may_have_its_own_step_size():
    """Measures along a list of step sizes are those of each alone; what begins at a time needs one number."""
    model = tm.coopetition()
    start, rates = tm.paper_start(model, seeds=range(2)), [0.5, 1.0]
    many = tm.descend(model, start, 400, lr=rates, observe=tm.Measures())
    for lr in rates:
        one = tm.descend(model, start, 400, lr=lr, observe=tm.Measures())
        np.testing.assert_array_equal(many.final.sel(lr=lr).transpose(*one.final.dims), one.final)
    with pytest.raises(ValueError, match="lr must be one number where an intervention begins"):
        tm.descend(model, start, 400, lr=rates, observe=tm.Measures(), interventions="Freeze('b', at=100)")
    with pytest.raises(ValueError, match="lr must be"):
        tm.descend(model, start, 400, lr=rates)
