"""Fixed points, spectra and branches against closed forms and against the loss on all entries."""

import jax
import jax.flatten_util
import numpy as np
import pytest
import xarray as xr
from conftest import closeness

import toymodel as tm
from toymodel.simulation.tensors import tensor_loss
from toymodel.theory.branches import branch
from toymodel.theory.equilibria import fixed_points, stability
from toymodel.theory.weight_decay import decay_thresholds, learning_limit, learning_limit_expression, with_weight_decay

pytestmark = pytest.mark.slow


def chain(letters: str, decay: float, product: float = 1.0, weight: float = 1.0, dims: int = 1) -> tm.Model:
    """w/2 (S - prod u)^2 + decay/2 sum |x|^2."""
    plain = tm.Model(
        {"icl": letters},
        lambda icl: icl,
        dict.fromkeys(letters, dims),
        weights={"icl": weight},
        target_norms=dict.fromkeys(letters, product ** (1 / len(letters))),
    )
    return with_weight_decay(plain, decay)


def positive(points: xr.Dataset) -> xr.Dataset:
    return points.isel(point=np.flatnonzero((points.overlap >= 0).all("vector")))


@pytest.mark.parametrize("product, weight, decay", [(1.0, 1.0, 0.1), (2.0, 0.5, 0.2), (9.0, 0.01, 0.03)])
def test_two_vectors_with_decay(product, weight, decay):
    """u^2 = S - lambda / w and zero, a saddle; eigenvalues 2 w u^2 and 2 lambda of the block [[a, b], [b, a]]."""
    points = positive(fixed_points(chain("ab", decay, product, weight)))
    assert points.sizes["point"] == 2
    square = product - decay / weight
    learned, nothing = points.isel(point=0), points.isel(point=1)
    assert closeness(learned.overlap**2, [square, square], 1e-12) <= 1
    assert (str(learned.stability.values), str(nothing.stability.values)) == ("stable", "saddle")
    across = decay + weight * square
    expected = sorted([2 * decay, 2 * weight * square, across, across])
    assert closeness(learned.eigenvalue, expected, 1e-9) <= 1
    assert closeness(nothing.eigenvalue, [decay - weight * product, decay, decay, decay + weight * product], 1e-9) <= 1


def test_three_vectors_with_decay():
    """The roots of w (S - u^3) u = lambda, by numpy; the middle one is a saddle."""
    product, weight, decay = 2.0, 0.5, 0.3
    points = positive(fixed_points(chain("abc", decay, product, weight)))
    roots = np.roots([-weight, 0, 0, weight * product, -decay])
    roots = sorted(r.real for r in roots if abs(r.imag) < 1e-12 and r.real > 0)
    balanced = sorted(points.overlap.sel(vector="a").values)
    assert closeness(balanced, [0, *roots], 1e-10, 1e-12) <= 1
    kinds = points.stability.values[np.argsort(points.overlap.sel(vector="a").values)].tolist()
    assert kinds == ["stable", "saddle", "stable"]


@pytest.mark.parametrize("letters", ["abc", "abcd", "abcde"])
@pytest.mark.parametrize("log", [False, True])
def test_the_fold_of_one_mechanism(letters, log):
    """Located to 1e-6 of its closed form, which is the maximum of w (S - u^n) u^(n - 2)."""
    product, weight, n = 3.0, 0.2, len(letters)
    model = chain(letters, 0.01, product, weight)
    start = tm.aligned_start(model, overlap=product ** (1 / n))
    (learned,) = [p for _, p in fixed_points(model, start, flow_time=0).groupby("point")]
    curve = branch(model, learned.squeeze("point"), "decay", (1e-3, 10.0), log=log)
    fold = float(curve.decay[curve.kind == "fold"].item())
    limit = learning_limit(n, weight, product)
    assert closeness(fold, limit, 1e-9) <= 1
    u = np.linspace(0, product ** (1 / n), 200_001)
    assert closeness(limit, (weight * (product - u**n) * u ** (n - 2)).max(), 1e-8) <= 1
    w, s = learning_limit_expression(n).free_symbols
    w, s = sorted([w, s], key=str, reverse=True)
    assert closeness(float(learning_limit_expression(n).subs({w: weight, s: product})), limit, 1e-12) <= 1
    at_ends = curve.decay[curve.kind == "end"].values
    assert closeness(at_ends, [1e-3, 1e-3], 1e-9) <= 1
    stable = curve.stability.values == "stable"
    at = int(np.flatnonzero(curve.kind == "fold")[0])
    assert stable[:at].all() != stable[at + 1 :].all()
    assert float(curve.slope.max()) < 1e-10


def test_a_pitchfork_is_a_crossing_and_no_fold():
    model = chain("ab", 0.1)
    curve = branch(model, fixed_points(model).isel(point=0), "decay", (1e-2, 2.0))
    assert "fold" not in curve.kind.values
    assert closeness(curve.decay[curve.kind == "crossing"], [1.0], 1e-2) <= 1
    assert float(curve.overlap.min()) < -0.9


@pytest.fixture(scope="module")
def loop():
    """A state with both mechanisms learned whose branch comes back to it, by way of its mirror image."""
    model = with_weight_decay(tm.long_pathway(mu_icl=0.01), 1e-3)
    start = tm.aligned_start(model, overlap=dict(a=4.385, b=4.451, c=4.451, d=0.515, e=4.403))
    return model, fixed_points(model, start, flow_time=0).isel(point=0)


def test_a_closed_branch_ends_where_it_began(loop):
    curve = branch(*loop, "decay", (1e-5, 0.1), log=True, step=0.06)
    assert (curve.kind.values == "closed").sum() == 1 and curve.kind.values[-1] == "closed"
    assert closeness(curve.overlap[-1], curve.overlap[0], 1e-12) <= 1
    folds = curve.overlap.values[curve.kind.values == "fold"]
    assert len(folds) == 4  # two, and their mirror images in a and e
    assert closeness(folds[0] * [-1, 1, 1, 1, -1], folds[1], 1e-6) <= 1
    assert closeness(folds[2] * [-1, 1, 1, 1, -1], folds[3], 1e-6) <= 1


def test_a_branch_that_is_cut_says_so(loop):
    with pytest.warns(RuntimeWarning, match="cut after 6 points, at decay=.*raise most") as warned:
        curve = branch(*loop, "decay", (1e-5, 0.1), log=True, most=6)
    assert len(warned) == 2
    assert curve.kind.values[[0, -1]].tolist() == ["cut", "cut"] and "closed" not in curve.kind.values


def test_spectra_are_those_of_all_entries():
    """The Hessian of the loss on tensors, by JAX: the same numbers, with the multiplicities of dims."""
    model = with_weight_decay(tm.coopetition(dims=(3, 2, 4, 5), mu_icl=0.05, alpha=0.5), 0.01)
    point = positive(fixed_points(model)).isel(point=0)
    assert (point.residual == 0).all() and float(abs(point.eigenvalue).min()) > 0
    with jax.enable_x64(True):
        unit = {x: np.ones(n) / np.sqrt(n) for x, n in model.dims.items()}
        values = {x: jax.numpy.asarray(unit[x] * float(point.overlap.sel(vector=x))) for x in model.vectors}
        targets = {x: jax.numpy.asarray(unit[x] * model.target_norms[x]) for x in model.vectors}
        flat, back = jax.flatten_util.ravel_pytree(values)
        hessian = jax.hessian(lambda v: tensor_loss(model.form, back(v), targets, model.weights, model.parameters))(
            flat
        )
        full = np.linalg.eigvalsh(np.asarray(hessian))
    distances = np.abs(full[:, None] - point.eigenvalue.values)
    assert distances.min(1).max() < 1e-10 and distances.min(0).max() < 1e-10


def test_conserved_combinations_are_fixed():
    """Without decay the learned states are a family; given |b|^2 - |a|^2 and so on, one point of it is left."""
    model = tm.induction(dims=(2, 2, 2))
    values = [1.5, -0.7]
    start = tm.aligned_start(model, overlap={"a": 1.8, "b": 1.3, "c": 1.4})
    point = fixed_points(model, start, conserved=values).isel(point=0)
    squares = point.overlap.to_series() ** 2
    for value, balance in zip(values, model.conserved(), strict=True):
        assert closeness(sum(k * squares[x] for x, k in balance.coefficients.items()), value, 1e-9) <= 1
    assert closeness(np.prod(point.overlap), 2**1.5, 1e-9) <= 1
    assert str(point.stability.values) == "stable"
    assert np.isnan(point.eigenvalue).sum() == 2


def test_a_branch_with_conserved_values():
    """A cost of the whole product: U = S / (1 + beta) at every value of what is conserved."""
    model = tm.Model(
        {"icl": "abc"}, lambda icl, cost, *, beta=0.2: icl + beta * cost, dict(a=2, b=3, c=1), {"cost": "abc"}
    )
    values = [0.3, -0.8]
    point = fixed_points(model, tm.aligned_start(model, overlap=1.2), conserved=values).isel(point=0)
    curve = branch(model, point, "beta", (0.0, 3.0), conserved=values)
    assert closeness(curve.beta[[0, -1]], [0.0, 3.0], 1e-9, 1e-9) <= 1
    assert closeness(curve.overlap.prod("vector"), np.sqrt(6) / (1 + curve.beta), 1e-9) <= 1
    for value, balance in zip(values, model.conserved(), strict=True):
        kept = sum(k * curve.overlap.sel(vector=x) ** 2 for x, k in balance.coefficients.items())
        assert closeness(kept, value, 1e-8) <= 1
    assert (curve.stability == "stable").all()


def test_stable_points_attract_descent():
    model = with_weight_decay(tm.coopetition(mu_icl=0.01), 3e-4)
    points = positive(fixed_points(model))
    stable = points.isel(point=np.flatnonzero(points.stability == "stable"))
    draw = np.random.default_rng(0)
    overlap, residual = (xr.DataArray(draw.uniform(0, 5, (30, 4)), dims=("run", "vector")) for _ in range(2))
    start = tm.aligned_start(model).drop_vars(["overlap", "residual"]).assign(overlap=overlap, residual=residual)
    ends = tm.descend(model, start, 60_000, lr=4.0, every=60_000).isel(time=-1)
    distance = abs(abs(ends.overlap) - stable.overlap).max("vector").min("point") + ends.residual.max("vector")
    assert float(distance.max()) < 1e-3
    assert stable.sizes["point"] >= 3


@pytest.mark.parametrize("spectrum, kind", [([1, 2.0], "stable"), ([-1, 2.0], "saddle"), ([1e-12, 2.0], "marginal")])
def test_stability(spectrum, kind):
    assert stability(np.array([*spectrum, np.nan])) == kind


def test_decay_is_added_to_any_model():
    model = with_weight_decay(tm.long_pathway(), 0.2)
    start = tm.random_start(model, 0)
    plain = tm.descend(tm.long_pathway(), start, 1).loss[0]
    squares = float((start.overlap**2 + start.residual**2).sum())
    assert closeness(tm.descend(model, start, 1).loss[0], plain + 0.1 * squares, 1e-12) <= 1
    with pytest.raises(ValueError, match="has 'decay' already"):
        with_weight_decay(model)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda m, p: fixed_points(m, speed=1.0), "unknown parameter 'speed'"),
        (lambda m, p: fixed_points(m, weights={"x": 1.0}), "unknown name 'x'"),
        (lambda m, p: fixed_points(m, decay=-1.0), "decay must be >= 0"),
        (lambda m, p: fixed_points(m, conserved=[1.0]), "one for each conserved combination"),
        (lambda m, p: branch(m, p, "speed", (0, 1)), "parameter must be one of"),
        (lambda m, p: branch(m, p, "decay", (1, 0)), "increasing numbers"),
        (lambda m, p: branch(m, p, "decay", (0, 1), log=True), "> 0 with log"),
        (lambda m, p: branch(m, p, "decay", (0.5, 1)), "not within"),
        (lambda m, p: branch(m, p.assign(overlap=p.overlap + 0.3), "decay", (0.01, 1)), "no equilibrium"),
        (lambda m, p: learning_limit(1, 1.0, 1.0), "count must be"),
        (lambda m, p: decay_thresholds(tm.coopetition(), mu_ciwl=0.1), "mu_ciwl must be 0 for the thresholds, got 0.1"),
        (lambda m, p: decay_thresholds(tm.coopetition(), alpha=0.0), "alpha must be"),
        (lambda m, p: decay_thresholds(tm.coopetition(), beta=0.0), "unknown parameter 'beta'"),
    ],
)
def test_refuses(call, message):
    model = chain("abc", 0.1)
    with pytest.raises(ValueError, match=message):
        call(model, fixed_points(model, flow_time=0).isel(point=0))


def test_a_family_is_refused():
    model = tm.coopetition(dims=(2, 2, 2, 2))
    points = fixed_points(model, tm.aligned_start(model, overlap={"a": 0.0, "b": 1.5, "c": 1.5, "d": 1.3}))
    with pytest.raises(ValueError, match="singular"):
        branch(model, points.isel(point=0), "alpha", (0.01, 1.0))
