"""Initial conditions, and the paper's draws against a transcription of threefry in numpy."""

import jax
import numpy as np
import pytest
import xarray as xr
from scipy.special import erfinv

import toymodel as tm


def rotated(x: np.ndarray, by: int) -> np.ndarray:
    return (x << np.uint32(by)) | (x >> np.uint32(32 - by))


def threefry(key: tuple[int, int], counts: np.ndarray) -> np.ndarray:
    """Threefry-2x32, 20 rounds (Salmon et al. 2011), on counts split into two halves, as JAX originally did."""
    odd = counts.size % 2
    counts = np.append(counts, np.zeros(odd, np.uint32)).astype(np.uint32)
    x0, x1 = np.split(counts, 2)
    k = [np.uint32(key[0]), np.uint32(key[1])]
    k.append(k[0] ^ k[1] ^ np.uint32(0x1BD11BDA))
    x0, x1 = x0 + k[0], x1 + k[1]
    for i in range(5):
        for by in ((13, 15, 26, 6), (17, 29, 16, 24))[i % 2]:
            x0 = x0 + x1
            x1 = rotated(x1, by) ^ x0
        x0 = x0 + k[(i + 1) % 3]
        x1 = x1 + k[(i + 2) % 3] + np.uint32(i + 1)
    out = np.concatenate([x0, x1])
    return out[:-1] if odd else out


def split(key):
    """The original `split`: four words from the counts 0..3."""
    words = threefry(key, np.arange(4, dtype=np.uint32))
    return (words[0], words[1]), (words[2], words[3])


def normal(key, n: int) -> np.ndarray:
    """Standard normal draws: the top 23 bits make a uniform number in (-1, 1), then the inverse error function."""
    bits = threefry(key, np.arange(n, dtype=np.uint32))
    unit = ((bits >> np.uint32(9)) | np.uint32(0x3F800000)).view(np.float32) - np.float32(1)
    low = np.nextafter(np.float32(-1), np.float32(0))
    uniform = np.maximum(low, unit * (np.float32(1) - low) + low)
    return np.sqrt(2) * erfinv(uniform.astype(float))


def test_threefry_known_answer():
    """The published test vector of Random123 for threefry2x32-20 with zero key and counter."""
    with np.errstate(over="ignore"):
        assert [hex(w) for w in threefry((0, 0), np.zeros(2, np.uint32))] == ["0x6b200159", "0x99ba4efe"]


@pytest.mark.parametrize("seed", [0, 7, 123])
def test_paper_draws(seed):
    """The drawn vectors are those of the original threefry, computed here without JAX."""
    model = tm.coopetition()
    vectors = tm.paper_vectors(model, seed)
    key = (0, seed)
    with np.errstate(over="ignore"):
        for x, n in model.dims.items():
            key, of_vector = split(key)
            for name, k in zip((f"{x}_target", x), split(of_vector), strict=True):
                np.testing.assert_allclose(vectors[name], normal(k, n), rtol=2e-5, atol=2e-6)


def test_paper_draws_leave_jax_alone():
    before = jax.random.normal(jax.random.key(3), (4,))
    tm.paper_start(tm.coopetition(), range(2))
    with jax.enable_x64(True), jax.threefry_partitionable(True):
        inside = tm.paper_start(tm.coopetition(), range(2))
    np.testing.assert_array_equal(before, jax.random.normal(jax.random.key(3), (4,)))
    assert inside.identical(tm.paper_start(tm.coopetition(), range(2)))
    assert not jax.config.jax_enable_x64


def test_reduced_coordinates_by_hand():
    model = tm.Model({"m": "xy"}, lambda m: m, {"x": 2, "y": 3})
    vectors = xr.Dataset(
        {
            "x": ("x_entry", [1.0, 2.0]),
            "x_target": ("x_entry", [3.0, 4.0]),
            "y": ("y_entry", [1.0, 0.0, 2.0]),
            "y_target": ("y_entry", [0.0, 0.0, 5.0]),
        }
    )
    start = tm.from_vectors(model, vectors)
    np.testing.assert_allclose(start.overlap, [11 / 5, 2])
    np.testing.assert_allclose(start.residual, [np.sqrt(5 - (11 / 5) ** 2), 1])
    np.testing.assert_allclose(start.target_norm, [5, 5])


def test_random_start_scales():
    """Overlap and residual of many draws have the moments of normal vectors."""
    model = tm.coopetition()
    start = tm.random_start(model, range(4000), scale={"a": 0.5, "b": 1, "c": 1, "d": 2}, target_scale=3)
    spread = start.overlap.std("seed")
    np.testing.assert_allclose(spread, [0.5, 1, 1, 2], rtol=0.05)
    np.testing.assert_allclose((start.residual**2).mean("seed"), [0.25 * 19, 19, 19, 4 * 159], rtol=0.05)
    np.testing.assert_allclose((start.target_norm**2).mean("seed"), 9 * np.array([20, 20, 20, 160]), rtol=0.05)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda m: tm.random_start(m, range(2), scale=-1), r"scale\['a'\] must be >= 0"),
        (lambda m: tm.random_start(m, range(2), target_scale=0), r"target_scale\['a'\] must be > 0 and finite, got 0"),
        (lambda m: tm.random_start(m, range(2), scale={"z": 1}), "scale has the unknown name 'z'; allowed are"),
        (lambda m: tm.random_start(m, range(2), scale={"a": 1}), "no entry for the vector 'b'"),
        (lambda m: tm.paper_start(m, []), "seeds is empty"),
        (lambda m: tm.paper_start(m, [-1]), "seeds must be a whole number >= 0, got -1"),
        (lambda m: tm.aligned_start(m, overlap=float("nan")), "overlap must be finite, got nan"),
        (lambda m: tm.aligned_start(m, residual=-0.5), "residual must be >= 0 and finite, got -0.5"),
        (lambda m: tm.from_vectors(m, tm.random_vectors(tm.coopetition(dims=(20, 20, 20, 5)), 0)), "must have 160"),
        (lambda m: tm.paper_start(m, 1.0), "seeds must be a whole number or a list of them, such as .*, got 1.0"),
        (lambda m: tm.paper_start(m, 0, heads={"q": 3}), "heads has the unknown name 'q'; allowed are"),
        (lambda m: tm.paper_start(m, 0, heads={"c": 40}), r"heads\['c'\] must be a whole number within 0..20, got 40"),
        (lambda m: tm.paper_start(m, 0, heads={"c": -1}), r"heads\['c'\] must be a whole number within 0..20, got -1"),
        (lambda m: tm.state_at(tm.paper_start(m, 0), 1), "runs must be a record with overlap and residual along time"),
    ],
)
def test_wrong_starts(call, says):
    with pytest.raises(ValueError, match=says):
        call(tm.coopetition())


def test_a_start_of_another_model_is_refused():
    """Also as a state of a run; a start that was made by hand, without numbers of entries, fits any model."""
    model, other = tm.coopetition(dims=(2, 3, 4, 5)), tm.coopetition(dims=(2, 3, 4, 6))
    start = tm.random_start(other, range(2))
    state = tm.state_at(tm.descend(other, start, 5), 5)
    for wrong in (start, state, start.sel(seed=1)):
        with pytest.raises(ValueError, match="start was made for 6 entries of 'd', the model has 5"):
            tm.descend(model, wrong, 5)
    longer = tm.long_pathway(dims=(2, 3, 4, 5, 6))
    for begin, seeds in ((tm.random_start, 0), (tm.random_start, [0, 1])):
        with pytest.raises(ValueError, match="start has a vector 'e'; the model has"):
            tm.descend(model, begin(longer, seeds), 5)
    with pytest.raises(ValueError, match="vectors has a vector 'e'; the model has"):
        tm.descend_vectors(model, tm.random_vectors(longer, 0), 5)
    by_hand = start.drop_vars("entries")
    assert tm.descend(model, by_hand, 5).loss.sizes["seed"] == 2
    assert tm.descend(model, tm.aligned_start(other), 5).loss.ndim == 1


def test_the_order_of_a_mapping_does_not_matter():
    """Neither that of the values of a start, nor that of the numbers of entries of a model."""
    values = {"d": 4.0, "b": 2.0, "a": 1.0, "c": 3.0}
    for dims in ({x: 5 for x in "abcd"}, {"d": 7, "b": 3, "a": 2, "c": 5}):
        model = tm.Model(tm.coopetition().terms, lambda icl, ciwl, cost: icl * ciwl + cost, dims)
        start = tm.aligned_start(model, overlap=values, residual=values, target_norm=values)
        for name in start:
            assert {x: float(start[name].sel(vector=x)) for x in "abcd"} == values
        norms = tm.aligned_start(model).target_norm
        assert {x: float(norms.sel(vector=x)) for x in "abcd"} == model.target_norms


def test_a_time_that_is_not_recorded_is_refused():
    model = tm.coopetition(dims=(2, 3, 4, 5))
    runs = tm.descend(model, tm.random_start(model, 0), 900, lr=0.1, every=300)
    np.testing.assert_array_equal(tm.state_at(runs, [30, 3 * 10 + 1e-12]).overlap.sel(taken=30), runs.overlap[1])
    for time, near in ((14.9, "0 and 30"), ([0, 45.1], "30 and 60"), (90.1, "90")):
        with pytest.raises(ValueError, match=rf"is not recorded; the nearest recorded are {near} \(0..90\)"):
            tm.state_at(runs, time)


def test_a_start_says_how_it_was_made():
    """Numbers are written out, labelled values too where they are few."""
    import json

    model = tm.coopetition()
    assert tm.aligned_start(model, overlap={**dict.fromkeys("abc", 0.2), "d": 0.5}, residual=1).attrs["start"] == (
        "aligned_start(overlap={'a': 0.2, 'b': 0.2, 'c': 0.2, 'd': 0.5}, residual={'a': 1, 'b': 1, 'c': 1, 'd': 1}, "
        f"target_norm={dict(model.target_norms)})"
    )
    values = xr.DataArray([0.1, 1 / 3], dims="begin")
    said = tm.aligned_start(model, overlap=values).attrs["start"]
    data = json.loads(said.split("'a': ")[1].split(", 'b'")[0])
    assert xr.DataArray.from_dict(data).equals(values)
    many = xr.DataArray(np.linspace(0, 1, 1000), dims="begin")
    assert "<begin: 1000; sha256 " in tm.aligned_start(model, overlap=many).attrs["start"]


def test_settings_of_the_user_do_not_matter():
    """Someone who debugs has errors for an underflow and for a number that goes to the device."""
    model = tm.coopetition(dims=(3, 3, 3, 4))
    expected = [
        tm.paper_start(model, range(2)),
        tm.random_start(model, 1, scale=1e-170),
        tm.aligned_start(model, 1e-200),
    ]
    with np.errstate(all="raise"), jax.transfer_guard("disallow"):
        found = [
            tm.paper_start(model, range(2)),
            tm.random_start(model, 1, scale=1e-170),
            tm.aligned_start(model, 1e-200),
        ]
        with pytest.raises(FloatingPointError):
            np.float64(1e-300) * np.float64(1e-300)
    for left, right in zip(found, expected, strict=True):
        xr.testing.assert_identical(left, right)
