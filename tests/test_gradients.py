"""Derivatives of flows and of their events: closed forms, central differences, both modes of JAX, batches, errors."""

import inspect
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import toymodel as tm
from toymodel.simulation.gradients import differentiable, values_of

pytestmark = pytest.mark.slow
MODEL = tm.coopetition()
TIMES = (300.0, 3000.0)


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def results(flow, values):
    """Every result of a run whose ICL emerges and ends, and whose CIWL is still falling at the horizon."""
    run = flow.run(values)
    losses = run.losses(jnp.array(TIMES))
    return {
        **{name: getattr(run, name)("icl") for name in ("emergence", "end", "minimum")},
        **{f"loss at {t:g}": losses["loss"][i] for i, t in enumerate(TIMES)},
    }


@pytest.fixture(scope="module")
def compiled():
    """Values, results, their derivatives backward and those of two of them forward along a direction, compiled once."""
    with jax.enable_x64(True):
        flow = differentiable(MODEL, 4e4, rtol=1e-9, atol=1e-12, max_steps=4096)
        values = values_of(MODEL, tm.paper_start(MODEL, 7), alpha=0.15)
        of = partial(results, flow)

        def two(values):
            found = flow.run(values)
            return {"end": found.end("icl"), f"loss at {TIMES[1]:g}": found.losses(jnp.array(TIMES[1:]))["loss"][0]}

        forward = jax.jit(lambda values, direction: jax.jvp(two, (values,), (direction,))[1])
        yield values, jax.jit(of), jax.jit(jax.jacrev(of))(values), forward


def test_results_are_those_of_a_recorded_flow(compiled):
    values, of, *_ = compiled
    found = of(values)
    times = np.unique([*TIMES, *np.linspace(1, 4e4, 40_001)])
    runs = tm.flow(MODEL, tm.paper_start(MODEL, 7), 4e4, times=times, method="LSODA", rtol=1e-10, alpha=0.15)
    measures = tm.measure(runs)
    for name in ("emergence", "end"):
        assert abs(float(found[name]) - float(measures[name].sel(mechanism="icl"))) <= 1.0, name
    assert float(found["minimum"]) == pytest.approx(float(measures.minimum.sel(mechanism="icl")), rel=1e-6)
    for t in TIMES:
        assert float(found[f"loss at {t:g}"]) == pytest.approx(float(runs.loss.sel(time=t)), rel=1e-6)


def test_derivatives_are_central_differences(compiled):
    """Of every result by every number that a run starts from, backward; relative to the largest elasticity."""
    values, of, backward, _ = compiled
    leaves, tree = jax.tree.flatten(values)
    size = {name: abs(float(value)) for name, value in of(values).items()}
    for i, leaf in enumerate(leaves):
        h = 2e-4 * abs(float(leaf)) or 1e-6
        up, high, low, down = (
            of(jax.tree.unflatten(tree, [*leaves[:i], leaf + s * h, *leaves[i + 1 :]])) for s in (1, 0.5, -0.5, -1)
        )
        for name, whole in backward.items():
            wide, narrow = float(up[name] - down[name]) / (2 * h), float(high[name] - low[name]) / h
            wanted = (4 * narrow - wide) / 3  # without the error of second order in h
            found = float(jax.tree.leaves(whole)[i])
            scale = max(abs(float(g) * float(x)) for g, x in zip(jax.tree.leaves(whole), leaves, strict=True))
            within = 1e-5 * abs(wanted) + 1e-5 * max(scale, size[name]) / max(abs(float(leaf)), 1e-3)
            assert abs(found - wanted) <= within, (name, i, found, wanted)


def test_both_modes_are_one(compiled):
    values, _, backward, forward = compiled
    draw = np.random.default_rng(0)
    direction = jax.tree.map(lambda value: value * draw.normal(), values)
    along = forward(values, direction)
    for name, whole in ((name, backward[name]) for name in along):
        parts = jax.tree.leaves(jax.tree.map(jnp.multiply, whole, direction))
        assert float(along[name]) == pytest.approx(float(sum(parts)), rel=1e-8, abs=1e-10 * float(sum(map(abs, parts))))


def test_emergence_of_one_vector():
    """L = w/2 |x* - x|^2 falls as exp(-2 w t): emergence at log(sqrt(2) (1 - u/|x*|)) / w, without a residual."""
    model = tm.Model({"icl": "a"}, lambda icl: icl, {"a": 4}, weights={"icl": 0.3})
    flow, values = differentiable(model, 50.0, rtol=1e-10, atol=1e-13), values_of(model, tm.aligned_start(model, 0.2))
    time, slope = jax.jit(jax.value_and_grad(lambda values: flow.emergence(values, "icl")))(values)

    def expected(values):
        u, norm, w = values["overlap"]["a"], values["target_norm"]["a"], values["weights"]["icl"]
        return jnp.log(jnp.sqrt(2.0) * (1 - u / norm)) / w

    wanted, by = jax.value_and_grad(expected)(values)
    assert float(time) == pytest.approx(float(wanted), rel=1e-9)
    for part in ("overlap", "target_norm", "weights"):
        for name, value in by[part].items():
            assert float(slope[part][name]) == pytest.approx(float(value), rel=1e-7), (part, name)
    assert float(slope["residual"]["a"]) == 0


def test_batches_of_two_vectors_follow_the_logistic_law():
    """L = w/2 (T - u^2)^2 for two equal vectors: u^2 = T / (1 + (T/u0^2 - 1) exp(-2 w T t)); what has not emerged at
    the horizon is NaN with derivatives 0. All under jit, vmap and grad."""
    model = tm.Model({"icl": "ab"}, lambda icl: icl, {"a": 4, "b": 4}, weights={"icl": 0.5})
    flow = differentiable(model, 6.0, rtol=1e-10, atol=1e-13)
    starts = np.array([0.05, 0.3, 1e-6, 1.9])
    one = values_of(model, tm.aligned_start(model, 0.1))
    batch = jax.tree.map(lambda value: jnp.full(4, value), one)
    batch["overlap"] = dict.fromkeys("ab", jnp.asarray(starts))
    time, slope = jax.jit(jax.vmap(jax.value_and_grad(lambda values: flow.emergence(values, "icl"))))(batch)
    left = 1 / (1 - 1 / np.sqrt(2)) - 1  # of T/z - 1 at emergence
    wanted = np.log((4 / starts**2 - 1) / left) / (2 * 0.5 * 4)
    np.testing.assert_allclose(time[:2], wanted[:2], rtol=1e-8)
    by_start = -2 / (starts * (1 - starts**2 / 4)) / 4  # d/du0 of log(4/u0^2 - 1) / 4
    np.testing.assert_allclose((slope["overlap"]["a"] + slope["overlap"]["b"])[:2], by_start[:2], rtol=1e-6)
    assert np.isnan(time[2]) and time[3] == 0 and wanted[2] > 6
    assert all((leaf[2:] == 0).all() for leaf in jax.tree.leaves(slope))


def test_least_squares_find_parameters():
    """Gauss and Newton's method in forward mode, from a third off, finds alpha and mu_icl from curves of losses."""
    flow, values = differentiable(MODEL, rtol=1e-8), values_of(MODEL, tm.paper_start(MODEL, 7))
    times = jnp.geomspace(10.0, 6000.0, 30)

    def curves(logs):
        given = {**values, "parameters": dict(zip(("alpha", "mu_icl"), jnp.exp(logs), strict=True))}
        found = flow.losses(given, times)
        return jnp.concatenate([found["icl"], found["ciwl"]])

    both = jax.jit(lambda logs: (curves(logs), jax.jacfwd(curves)(logs)))
    truth = jnp.log(jnp.array([0.1, 0.1]))
    data, at = both(truth)[0], truth + jnp.array([0.3, -0.3])
    for _ in range(12):
        found, slope = both(at)
        at = at - jnp.clip(jnp.linalg.lstsq(slope, found - data)[0], -0.3, 0.3)
    np.testing.assert_allclose(at, truth, atol=1e-6)


def test_too_few_steps_give_nothing():
    model = tm.Model({"icl": "ab"}, lambda icl: icl, {"a": 4, "b": 4})
    flow, values = differentiable(model, 1e5, max_steps=5), values_of(model, tm.aligned_start(model, 0.1))

    @jax.jit
    def found(values):
        run = flow.run(values)
        return run.emergence("icl"), run.minimum("icl"), run.losses(jnp.array([1.0]))["loss"][0]

    assert np.isnan(found(values)).all()


def test_wrong_arguments():
    plain = inspect.unwrap(differentiable)
    flow, values = plain(MODEL), values_of(MODEL, tm.paper_start(MODEL, 7))
    with pytest.raises(ValueError, match=r"mechanism must be one of \['icl', 'ciwl'\], got 'cost'"):
        flow.emergence(values, "cost")
    with pytest.raises(ValueError, match=r"values must be as tm.values_of makes them, got \{\}"):
        flow.emergence({}, "icl")
    with pytest.raises(ValueError, match="max_steps must be a whole number >= 1, got 0"):
        plain(MODEL, max_steps=0)
    with pytest.raises(ValueError, match="horizon must be > 0"):
        plain(MODEL, 0.0)
    with jax.enable_x64(False), pytest.raises(ValueError, match="needs 64 bits"):
        flow.emergence(values, "icl")


def test_second_derivatives_are_refused():
    model = tm.Model({"icl": "a"}, lambda icl: icl, {"a": 4})
    flow, values = differentiable(model, 50.0), values_of(model, tm.aligned_start(model, 0.2))
    with pytest.raises(NotImplementedError, match="second derivatives"):
        jax.jacfwd(jax.grad(lambda u: flow.emergence({**values, "overlap": {"a": u}}, "icl")))(0.2)
