"""Sequences and evaluators, checked by looking at every sequence: exemplars here say which class they are of."""

from dataclasses import replace

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from toymodel.network.data import KINDS, Batch, FileClasses, GaussianClasses, Sequences, distinct, read_classes, sample
from toymodel.network.evaluators import label_tokens, measure, preference

pytestmark = pytest.mark.slow

CLASSES, EXEMPLARS, BATCH = 12, 3, 4000
TABLE = jnp.stack(jnp.broadcast_arrays(jnp.arange(CLASSES)[:, None], jnp.arange(EXEMPLARS)[None]), -1).astype(float)


def drawn(**of):
    batch = sample(jax.random.key(1), TABLE, Sequences(**of), BATCH)
    of_class, number = np.asarray(batch.exemplars, int).transpose(2, 0, 1)
    return of_class[:, :-1], of_class[:, -1], number, np.asarray(batch.labels), np.asarray(batch.target)


def all_different(rows):
    return all(len(set(row)) == len(row) for row in rows.tolist())


@pytest.mark.slow
@pytest.mark.parametrize("pairs", [2, 4])
def test_full_has_the_query_once_in_context_under_its_own_label(pairs):
    context, query, _, labels, target = drawn(kind="full", pairs=pairs)
    np.testing.assert_array_equal(context, labels)
    np.testing.assert_array_equal(query, target)
    np.testing.assert_array_equal((context == query[:, None]).sum(1), 1)
    assert all_different(context)


def test_flip_swaps_the_two_labels_and_asks_for_the_one_in_context():
    context, query, _, labels, target = drawn(kind="flip")
    np.testing.assert_array_equal(context, labels[:, ::-1])
    np.testing.assert_array_equal((context == query[:, None]).sum(1), 1)
    np.testing.assert_array_equal(target, labels[context == query[:, None]])
    assert np.all(target != query)


def test_icl_draws_labels_anew():
    context, query, _, labels, target = drawn(kind="icl")
    np.testing.assert_array_equal(target, labels[context == query[:, None]])
    assert all_different(labels)
    assert abs((labels == context).mean() - 1 / CLASSES) < 0.02  # only by chance their own


def test_ciwl_shows_exemplars_of_other_classes_beside_the_right_label():
    context, query, _, labels, target = drawn(kind="ciwl")
    np.testing.assert_array_equal(query, target)
    np.testing.assert_array_equal((labels == target[:, None]).sum(1), 1)
    assert all_different(np.concatenate([context, labels], 1))


def test_pure_iwl_has_neither_class_nor_label_of_the_query_in_context():
    context, query, _, labels, target = drawn(kind="pure_iwl")
    np.testing.assert_array_equal(query, target)
    np.testing.assert_array_equal(context, labels)
    assert not np.any(labels == target[:, None])


@pytest.mark.parametrize("kind", KINDS)
def test_the_query_stands_at_every_place_equally_often(kind):
    _, query, _, labels, target = drawn(kind=kind)
    if kind != "pure_iwl":
        assert abs((labels[:, 0] == target).mean() - 0.5) < 0.03
    counts = np.bincount(query, minlength=CLASSES) / BATCH
    assert np.all(np.abs(counts - 1 / CLASSES) < 0.025)


def test_matched_queries_are_the_exemplar_in_context():
    context, query, number, _, _ = drawn(matched=True)
    np.testing.assert_array_equal(number[:, :-1][context == query[:, None]], number[:, -1])
    context, query, number, _, _ = drawn()
    same = number[:, :-1][context == query[:, None]] == number[:, -1]
    assert abs(same.mean() - 1 / EXEMPLARS) < 0.03


@pytest.mark.slow
def test_bursts_repeat_each_class():
    context, query, _, labels, _ = drawn(pairs=6, burstiness=3)
    np.testing.assert_array_equal((context == query[:, None]).sum(1), 3)
    np.testing.assert_array_equal(context, labels)


def test_zipfian_classes_come_by_their_weight():
    first = np.asarray(distinct(jax.random.key(0), 50, 20_000, 1, 1.0))[:, 0]
    weight = 1 / np.arange(1, 51)
    np.testing.assert_allclose(np.bincount(first, minlength=50) / 20_000, weight / weight.sum(), atol=0.01)


@pytest.mark.slow
def test_classes_have_the_stated_norm_and_variation():
    exemplars = np.asarray(GaussianClasses(classes=40, exemplars=500, features=64, noise=0.0).draw(jax.random.key(0)))
    np.testing.assert_allclose(np.linalg.norm(exemplars, axis=-1), 8.0, rtol=1e-5)
    assert np.ptp(exemplars, axis=1).max() < 1e-5
    noisy = np.asarray(
        GaussianClasses(classes=40, exemplars=500, features=64, noise=1.5, norm=1.0).draw(jax.random.key(0))
    )
    cosine = np.einsum("kef,kgf->keg", noisy[:, :20], noisy[:, 20:40]).mean()
    assert abs(cosine - 1 / (1 + 1.5**2)) < 0.01  # of two exemplars of a class


def test_all_exemplars_share_a_vector_and_features_have_a_spectrum():
    plain = GaussianClasses(classes=400, exemplars=5, features=16, noise=0.5)
    shifted = replace(plain, mean=1.5)
    key = jax.random.key(0)
    shared = np.asarray(shifted.draw(key) - plain.draw(key))
    assert np.ptp(shared, axis=(0, 1)).max() < 1e-5 and 1.0 < shared[0, 0].std() < 2.0
    steep = np.asarray(replace(plain, spectrum=1.0, noise=0.0, classes=20_000).draw(key))[:, 0]
    np.testing.assert_allclose(np.linalg.norm(steep, axis=-1), 8.0, rtol=1e-5)
    deviation = steep[:, 4:].std(0)  # the first features also set the norm
    np.testing.assert_allclose(np.diff(np.log(deviation)), np.diff(-np.log(np.arange(5, 17))), atol=0.03)


@pytest.mark.parametrize("suffix", [".npz", ".h5"])
def test_files_of_features_are_read(tmp_path, suffix):
    path = tmp_path / f"features{suffix}"
    x = np.random.default_rng(0).normal(size=(5, 4, 16)).astype(np.float32)
    if suffix == ".npz":
        np.savez(path, images=x, other=np.zeros(3))
    else:
        with h5py.File(path, "w") as file:
            file["images"], file["other"] = x, np.zeros(3)
    key = jax.random.key(0)
    read = FileClasses(str(path), "images", 16, 1.0)
    assert read.classes == 5 and read.digest != ""
    np.testing.assert_allclose(read.draw(key), x / np.linalg.norm(x, axis=-1, keepdims=True), rtol=1e-5)
    wide = FileClasses(str(path), "images", 64, 8.0).draw(key)
    np.testing.assert_allclose(jnp.linalg.norm(wide, axis=-1), np.full((5, 4), 8.0), rtol=1e-5)
    with pytest.raises(
        ValueError, match=r"name must be one array of features.*got None; it holds \['images', 'other'\]"
    ):
        read_classes(path)
    with pytest.raises(ValueError, match=r"must hold an array classes x exemplars x features, got shape \(3,\)"):
        read_classes(path, "other")


def test_arrays_in_groups_of_a_file_are_found(tmp_path):
    path, x = tmp_path / "nested.h5", np.ones((5, 4, 16))
    with h5py.File(path, "w") as file:
        file["resnet18/features"] = x
    np.testing.assert_array_equal(read_classes(path), x)
    np.testing.assert_array_equal(read_classes(path, "resnet18/features"), x)
    with pytest.raises(ValueError, match=r"got 'resnet18'; it holds \['resnet18/features'\]"):
        read_classes(path, "resnet18")
    with h5py.File(path, "w") as file:
        file["x"] = 0 * x
    with pytest.raises(ValueError, match="finite vectors of features other than zero"):
        read_classes(path)
    damaged = tmp_path / "damaged.npz"
    damaged.write_bytes(b"no zip")
    with pytest.raises(ValueError, match="damaged or no npz file"):
        read_classes(damaged)


def test_wrong_inputs_are_named():
    key = jax.random.key(0)
    with pytest.raises(ValueError, match=r"path must end in .npz, .h5 or .hdf5, got 'a.txt'"):
        read_classes("a.txt")
    with pytest.raises(ValueError, match=r"kind must be one of .* got 'iwl'"):
        Sequences(kind="iwl")
    with pytest.raises(ValueError, match="pairs must be a multiple of burstiness, got 3 and 2"):
        Sequences(pairs=3, burstiness=2)
    for zipf in (-1.0, np.nan):
        with pytest.raises(ValueError, match=f"zipf must be >= 0 and finite, got {zipf}"):
            Sequences(zipf=zipf)
    with pytest.raises(ValueError, match="flip needs two classes in context"):
        Sequences("flip", pairs=2, burstiness=2)
    with pytest.raises(ValueError, match="classes must be at least 1, got 0"):
        GaussianClasses(classes=0)
    with pytest.raises(ValueError, match=r"noise must be >= 0 and finite, got -0.1"):
        GaussianClasses(noise=-0.1)
    for name in ("mean", "spectrum"):
        with pytest.raises(ValueError, match=f"{name} must be >= 0 and finite, got nan"):
            GaussianClasses(**{name: np.nan})
    with pytest.raises(ValueError, match=r"norm must be > 0 and finite, got 0"):
        GaussianClasses(norm=0.0)
    with pytest.raises(ValueError, match="a sequence needs 4 different classes, got 3"):
        sample(key, TABLE[:3], Sequences(), 5)


@pytest.mark.slow
def test_measures_count():
    batch = Batch(jnp.zeros((3, 3, 2)), jnp.array([[1, 2], [1, 2], [3, 0]]), jnp.array([1, 2, 3]))
    logits = jnp.array([[9.0, 2.0, 1.0, 0.0], [0.0, 5.0, 1.0, 0.0], [0.0, 0.0, 0.0, 7.0]])
    measured = measure(logits, batch)
    assert float(measured["accuracy"]) == pytest.approx(1 / 3)  # the third
    assert float(measured["accuracy_in_context"]) == pytest.approx(2 / 3)  # the first and the third
    expected = -np.mean([row[t] - np.log(np.exp(row).sum()) for row, t in zip(logits, batch.target, strict=True)])
    assert float(measured["loss"]) == pytest.approx(float(expected), rel=1e-5)
    absent = Batch(jnp.zeros((1, 3, 2)), jnp.array([[1, 2]]), jnp.array([3]))
    assert np.isnan(measure(logits[:1], absent)["accuracy_in_context"])


def test_attention_measures_look_at_the_right_tokens():
    first = jnp.zeros((1, 1, 5, 5)).at[0, 0, 1, 0].set(0.8).at[0, 0, 3, 2].set(0.4).at[0, 0, 3, 3].set(0.5)
    previous, own = label_tokens(first)
    assert (float(previous[0]), float(own[0])) == pytest.approx((0.6, 0.25))
    batch = Batch(jnp.zeros((1, 3, 2)), jnp.array([[4, 7]]), jnp.array([7]))
    second = jnp.array([0.1, 0.2, 0.0, 0.6, 0.1])[None, None, None]  # label tokens are the second and the fourth
    assert float(preference(second, batch)[0]) == pytest.approx(0.4)
    assert float(preference(jnp.array([0.3, 0.7])[None, None, None], batch)[0]) == pytest.approx(0.4)
