"""Interventions act alike on the reduced and on all entries, on descent and on flow."""

import numpy as np
import pytest
import xarray as xr
from conftest import closeness
from zoo import shaped

import toymodel as tm
from toymodel.simulation.problem import Problem

LR = 0.1
ONLY_CIWL = dict(loss=lambda icl, ciwl, cost, *, mu=0.1: ciwl * (1 + mu))
HEADS = {"c": 2, "d": 3}


@pytest.fixture(scope="module")
def model():
    return shaped("paper")


@pytest.fixture(scope="module")
def vectors(model):
    return tm.random_vectors(model, range(3), scale=0.6)


@pytest.fixture(scope="module")
def start(model, vectors):
    return tm.from_vectors(model, vectors, heads=HEADS)


@pytest.fixture(scope="module")
def other(model):
    """A state of other runs, of which the start has its seeds too."""
    return tm.state_at(tm.descend(model, tm.random_start(model, range(3)), 40, lr=LR), 4.0)


def listed(other) -> dict[str, list]:
    """Interventions at times that are no multiples of the recorded ones, by name."""
    return {
        "clamp at zero": [tm.Clamp("d", overlap=0)],
        "clamp at the target, later": [tm.Clamp("bc", at=1.3)],
        "clamp for a while": [tm.Clamp("b", overlap=0.3, residual=0.2, at=0.7, until=3.3)],
        "clamp at the target, then beside it": [tm.Clamp("b", until=1), tm.Clamp("b", overlap=0.5, residual=0.7, at=1)],
        "clamp beside the target after entries of it": [
            tm.Clamp("c", entries=2, until=0.9),
            tm.Clamp("c", at=0.9, until=2.1),
            tm.Clamp("c", overlap=0.5, residual=0.7, at=2.1, until=3.1),
            tm.Clamp("c", entries=2, at=3.1),
        ],
        "clamp like another run": [tm.Clamp("bc", like=other, at=0.9)],
        "clamp the first entries": [tm.Clamp("c", entries=2)],
        "clamp entries for a while, twice": [
            tm.Clamp("c", entries=2, at=0.9, until=2.3),
            tm.Clamp("c", entries=2, at=3.1),
            tm.Clamp("d", entries=3, at=1.7),
        ],
        "clamp entries through another switch": [tm.Clamp("c", entries=2), tm.Change(at=1.7, alpha=0.9)],
        "clamp entries of what was clamped": [tm.Clamp("c", until=1.1), tm.Clamp("c", entries=2, at=1.1)],
        "clamp entries, then freeze": [tm.Clamp("c", entries=2), tm.Freeze("c", at=1.1, until=2.1)],
        "freeze": [tm.Freeze("ab", at=0.3, until=2.9)],
        "freeze, but clamp some": [tm.Freeze("c"), tm.Clamp("c", entries=2, at=0.7)],
        "block a mechanism": [tm.Block("ciwl")],
        "block one vector of a mechanism": [tm.Block("ciwl", "b", at=0.7, until=3.9)],
        "block the cost of a clamped vector": [tm.Block("cost", "a"), tm.Clamp("d", entries=3)],
        "change parameters": [tm.Change(at=0.7, until=3.1, alpha=0.8, mu=0.3)],
        "change the loss": [tm.Change(until=2.7, **ONLY_CIWL)],
        "change the loss and a parameter of it": [tm.Change(at=0.7, mu=0.9, **ONLY_CIWL), tm.Block("icl")],
        "several at once": [tm.Change(until=1.7, **ONLY_CIWL), tm.Freeze("d", at=1.1), tm.Clamp("b", at=2.3)],
    }


NAMES = list(listed(xr.Dataset({"overlap": 0, "residual": 0}, {"vector": ["b"]})))


def assert_alike(left: xr.Dataset, right: xr.Dataset, relative: float, absolute: float) -> None:
    for name in ("loss", "loss_icl", "loss_ciwl", "cost", "overlap", "residual"):
        assert closeness(left[name], right[name], relative, absolute) <= 1, name


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_reduced_and_full_runs_alike(model, vectors, start, other, name):
    acts = listed(other)[name]
    options = dict(steps=50, lr=LR, every=4, interventions=acts)
    reduced = tm.descend(model, start, **options)
    assert_alike(reduced, tm.descend_vectors(model, vectors, **options), 1e-9, 1e-12)
    without = tm.descend(model, start, 50, lr=LR, every=4)
    assert float(abs(reduced.overlap - without.overlap).max()) > 1e-3, "the intervention does nothing"


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_flow_is_the_limit_of_small_steps(model, start, other, name):
    """Extrapolated from two step sizes, descent with an intervention is the flow with it."""
    acts = listed(other)[name]
    flow = tm.flow(model, start, 5.0, times=[2.0, 5.0], method="LSODA", rtol=1e-10, interventions=acts)
    coarse = tm.descend(model, start, 2000, lr=5 / 2000, every=800, interventions=acts)
    fine = tm.descend(model, start, 4000, lr=5 / 4000, every=1600, interventions=acts)
    for name in ("loss", "overlap", "residual"):
        left, right = (run[name].isel(time=[1, -1]).values for run in (coarse, fine))
        assert closeness(2 * right - left, flow[name], relative=1e-5, absolute=1e-5) <= 1, name


@pytest.mark.slow
@pytest.mark.parametrize("name", ["block the cost of a clamped vector", "clamp the first entries"])
def test_flow_alike_by_both_integrators(model, start, other, name):
    options = dict(t=5.0, times=[0.0, 2.0, 5.0], interventions=listed(other)[name])
    assert_alike(tm.flow(model, start, **options), tm.flow(model, start, method="Radau", **options), 1e-7, 1e-9)


def test_nothing_recorded_between_two_switches(model, start):
    """Stages without a recorded time in them are run all the same."""
    acts = [tm.Clamp("b", at=1.0, until=2.0), tm.Freeze("c", at=2.5)]
    descent = tm.descend(model, start, 50, lr=LR, every=50, interventions=acts)
    assert_alike(descent, tm.descend(model, start, 50, lr=LR, interventions=acts).isel(time=[0, 50]), 1e-13, 1e-15)
    sparse = tm.flow(model, start, 5.0, times=[5.0], method="LSODA", interventions=acts)
    dense = tm.flow(model, start, 5.0, times=np.linspace(0, 5, 11), method="LSODA", interventions=acts)
    assert_alike(sparse, dense.isel(time=[-1]), 1e-7, 1e-10)


def test_clamped_values_are_recorded_while_they_hold(model, start):
    """`at <= t < until`: the first record at `at` shows the clamped value, that at `until` what comes out of it."""
    runs = tm.descend(model, start, 50, lr=LR, interventions=[tm.Clamp("b", overlap=0.3, residual=0.2, at=1, until=2)])
    b = runs.sel(vector="b")
    held = (b.step >= 10) & (b.step < 20)
    assert (b.overlap.where(held, drop=True) == 0.3).all() and (b.residual.where(held, drop=True) == 0.2).all()
    assert (abs(b.overlap.sel(time=0.9) - 0.3) > 1e-3).all()
    np.testing.assert_allclose(b.overlap.isel(time=20), 0.3)
    assert (b.overlap.isel(time=21) != 0.3).all()


def test_a_clamped_vector_is_at_its_target(model, start):
    runs = tm.descend(model, start, 5, lr=LR, interventions=[tm.Clamp("c")])
    assert (runs.overlap.sel(vector="c") == runs.target_norm.sel(vector="c")).all()
    assert (runs.residual.sel(vector="c") == 0).all()


def test_like_takes_the_state_of_another_run(model, start, other):
    runs = tm.descend(model, start, 5, lr=LR, interventions=[tm.Clamp("bc", like=other)])
    for name in ("overlap", "residual"):
        held = runs[name].sel(vector=["b", "c"])
        assert (held == other[name].sel(vector=["b", "c"])).all()


def test_states_taken_at_many_times_make_a_dimension(model, start):
    """Grafting b and c from other runs at three times equals three single grafts."""
    alone = tm.descend(model, tm.random_start(model, range(3)), 40, lr=LR)
    times = [0.0, 1.0, 3.0]
    many = tm.descend(model, start, 20, lr=LR, interventions=[tm.Clamp("bc", like=tm.state_at(alone, times))])
    assert dict(many.sizes) == {"seed": 3, "taken": 3, "time": 21, "vector": 4}
    for time in times:
        one = tm.descend(model, start, 20, lr=LR, interventions=[tm.Clamp("bc", like=tm.state_at(alone, time))])
        assert_alike(many.sel(taken=time).transpose("seed", ...), one, 1e-12, 1e-15)


def test_a_state_at_one_time_for_each_run(model, start):
    runs = tm.descend(model, start, 20, lr=LR)
    when = xr.DataArray([0.0, 1.0, 2.0], dims="seed", coords={"seed": range(3)})
    state = tm.state_at(runs, when)
    assert state.overlap.dims == ("seed", "vector")
    for seed in range(3):
        expected = runs.overlap.sel(seed=seed).isel(time=10 * seed)
        np.testing.assert_array_equal(state.overlap.sel(seed=seed), expected)


def test_a_residual_needs_a_direction(model):
    """A vector of one entry has no residual; one along its target has one in reduced coordinates only."""
    small = shaped("paper", (2, 1, 4, 5))
    acts = [tm.Clamp("b", overlap=0.5, residual=0.7)]
    for run, start in ((tm.descend, tm.random_start(small, 0)), (tm.descend_vectors, tm.random_vectors(small, 0))):
        with pytest.raises(ValueError, match=r"Clamp\('b'\): residual must be 0, since a vector of one entry has none"):
            run(small, start, 5, interventions=acts)
    vectors = tm.random_vectors(model, 0)
    vectors["b"] = 2 * vectors["b_target"]
    with pytest.raises(ValueError, match=r"Clamp\('b'\): its residual has no direction"):
        tm.descend_vectors(model, vectors, 5, interventions=acts)


def test_swept_clamps_and_changes(model, start):
    """Values with a dimension of their own make runs of all combinations."""
    overlap = xr.DataArray([0.0, 0.5], dims="held", coords={"held": [0.0, 0.5]})
    acts = [tm.Clamp("d", overlap=overlap, at=1), tm.Change(at=0.5, alpha=[0.1, 0.9])]
    runs = tm.descend(model, start, 30, lr=LR, interventions=acts)
    assert dict(runs.sizes) == {"seed": 3, "held": 2, "alpha": 2, "time": 31, "vector": 4}
    single = [tm.Clamp("d", overlap=0.5, at=1), tm.Change(at=0.5, alpha=0.9)]
    one = tm.descend(model, start, 30, lr=LR, interventions=single)
    assert_alike(runs.sel(held=0.5, alpha=0.9), one, 1e-12, 1e-15)


def test_a_blocked_mechanism_still_counts_in_the_loss(model, start):
    runs = tm.descend(model, start, 50, lr=LR, interventions=[tm.Block("ciwl")])
    d = runs.sel(vector="d")
    mu, alpha = model.parameters["mu"], model.parameters["alpha"]
    expected = (runs.loss_icl + mu) * runs.loss_ciwl + alpha * runs.cost
    np.testing.assert_allclose(runs.loss, expected, rtol=1e-12)
    assert (d.residual.diff("time") < 0).all(), "the cost alone shrinks d"


def test_the_loss_that_is_followed_is_recorded(model, start):
    runs = tm.descend(model, start, 50, lr=LR, interventions=[tm.Change(until=2, **ONLY_CIWL)])
    np.testing.assert_allclose(runs.loss[:, :20], 1.1 * runs.loss_ciwl[:, :20], rtol=1e-12)
    whole = (runs.loss_icl + 0.1) * runs.loss_ciwl + 0.1 * runs.cost
    np.testing.assert_allclose(runs.loss[:, 20:], whole[:, 20:], rtol=1e-12)


def test_a_changed_loss_takes_its_parameters_from_the_model(start):
    """A parameter without a default in the new loss keeps the value of the model, or takes that of the change."""
    model = tm.coopetition(alpha=0.4, dims=(2, 3, 4, 5))
    new = dict(loss=lambda icl, ciwl, cost, *, alpha: icl + alpha * cost)
    for more, alpha in (({}, 0.4), ({"alpha": 0.7}, 0.7)):
        runs = tm.descend(model, start, 3, lr=LR, interventions=[tm.Change(**new, **more)])
        np.testing.assert_allclose(runs.loss, runs.loss_icl + alpha * runs.cost, rtol=1e-12)


def test_stages_by_hand(model):
    freeze, clamp = tm.Freeze("a", at=2, until=5), tm.Clamp("b", at=3)
    found = [(s.start, s.end, s.active) for s in Problem.of(model, [], [freeze, clamp]).stages(10.0)]
    assert found == [(0, 2, ()), (2, 3, (freeze,)), (3, 5, (freeze, clamp)), (5, 10, (clamp,))]


def test_interventions_that_differ_are_not_equal():
    assert tm.Clamp("d", overlap=0) != tm.Clamp("d", overlap=1)
    assert tm.Change(alpha=1) != tm.Change(alpha=2)
    assert tm.Freeze("a", at=1) == tm.Freeze("a", at=1) != tm.Freeze("a")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda s: tm.Clamp("b", at=-1), "Clamp: at must be >= 0 and finite, got -1"),
        (lambda s: tm.Freeze("b", at=3, until=3), "Freeze: until must be later than at=3, got 3"),
        (lambda s: tm.Freeze("bz"), r"Freeze\('bz'\): the vectors of the model are \['a', 'b', 'c', 'd'\]"),
        (lambda s: tm.Freeze(""), "the vectors of the model are"),
        (lambda s: tm.Clamp("b", overlap=0, entries=2), "takes one of overlap and residual, like, or entries"),
        (lambda s: tm.Clamp("b", overlap=float("nan")), "Clamp: overlap must be finite, got nan"),
        (lambda s: tm.Clamp("b", overlap=[0, 1]), "Clamp: overlap must be a number or an xarray.DataArray"),
        (lambda s: tm.Clamp("b", residual=-1), "Clamp: residual must be >= 0 and finite, got -1"),
        (lambda s: tm.Clamp("b", entries=0), r"Clamp\('b'\): entries must be a whole number within 1..3, got 0"),
        (lambda s: tm.Clamp("b", entries=4), r"Clamp\('b'\): entries must be a whole number within 1..3, got 4"),
        (lambda s: tm.Clamp("b", entries="2"), "Clamp: entries must be a whole number or None, got '2'"),
        (lambda s: tm.Clamp("b", at="1"), "Clamp: at must be a number, got '1'"),
        (lambda s: tm.Clamp("b", until="2"), "Clamp: until must be a number, got '2'"),
        (lambda s: tm.Clamp("b", at=2.1), "Clamp: at=2.1 is after the end of the run, t=2"),
        (lambda s: tm.Clamp("b", like=s.assign(residual=-s.residual)), "Clamp: like: residual must be >= 0 and finite"),
        (lambda s: tm.Clamp("b", like=s * np.nan), "Clamp: like: overlap must be finite, got nan"),
        (lambda s: tm.Clamp("b", entries=2), r"make the start with heads=\{'b': 2\}"),
        (lambda s: tm.Clamp("c", entries=3), r"make the start with heads=\{'c': 3\}"),
        (lambda s: tm.Clamp("b", like=s.expand_dims(time=[0.0])), "take one with tm.state_at"),
        (lambda s: tm.Clamp("b", like=s.overlap), "Clamp: like must be a Dataset or None"),
        (lambda s: tm.Clamp("b", like=s.sel(vector=["a"])), "Clamp: like has no vector 'b'"),
        (lambda s: tm.Clamp("b", like=s.isel(seed=[0])), "two inputs have the same dimension"),
        (lambda s: tm.Block("other"), r"Block: unknown term 'other'; the model has \['icl', 'ciwl', 'cost'\]"),
        (lambda s: tm.Block("icl", "d"), r"Block: icl has no vector 'd'; it is made of \['a', 'b', 'c'\]"),
        (lambda s: tm.Change(), "Change needs a loss, or a parameter"),
        (lambda s: tm.Change(beta=1), "Change: unknown parameter 'beta'"),
        (lambda s: tm.Change(alpha=-1), "alpha must be >= 0 and finite, got -1"),
        (lambda s: tm.Change(loss=lambda icl: icl), "one argument for each mechanism and cost"),
        (lambda s: tm.Freeze("b", at=0.25), r"times of interventions must be multiples of lr=0.1, got \(0.0, 0.25\)"),
    ],
)
def test_wrong_interventions(model, start, make, says):
    with pytest.raises(ValueError, match=says):
        tm.descend(model, start, 20, lr=LR, interventions=[make(start)])
