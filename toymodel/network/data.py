"""Classes of exemplars, and the sequences `[exemplar, label, exemplar, label, query]` that are drawn from them.

An exemplar is a class mean of unit norm plus within-class variation,

    x = m_k + noise * z / sqrt(D) renormalised to a given norm,  + mean * c,     z and c standard normal,

with one vector c that all exemplars of all classes share (as features of images do, which are not negative), and
a class has a fixed number of exemplars; or classes come from a file of features (`FileClasses`). The label of
class k is the integer k. One function draws every kind of sequence, for training and for evaluation alike:

    kind       exemplars in context      labels in context                right answer
    full       classes of the context    their own                        the query's own label
    icl        classes of the context    drawn anew in each sequence      the label beside the query's class
    flip       classes of the context    moved on to the next class       the label beside the query's class
    ciwl       other classes             the query's own, and others      the query's own label
    pure_iwl   other classes             those of the exemplars           the query's own label, not in context

Training on `icl` is ICL-only data, training on `ciwl` is CIWL-only data. Images and their encoders are not here:
features are read that somebody else has computed.
"""

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import h5py
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

KINDS = ("full", "icl", "flip", "ciwl", "pure_iwl")


@dataclass(frozen=True)
class GaussianClasses:
    """Classes with Gaussian means and Gaussian variation within each class, as in the module's first equation."""

    classes: int = 1024
    exemplars: int = 20  # fixed exemplars a class
    features: int = 64
    noise: float = 1.5  # within-class variation against a mean of unit norm
    norm: float = 8.0  # of every exemplar, the shared vector apart
    mean: float = 0.0  # standard deviation of the entries of the vector that all exemplars share
    spectrum: float = 0.0  # feature i has a standard deviation proportional to 1 / i^spectrum

    def __post_init__(self) -> None:
        for name in ("classes", "exemplars", "features"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("noise", "mean", "spectrum"):
            if not 0 <= getattr(self, name) < np.inf:
                raise ValueError(f"{name} must be >= 0 and finite, got {getattr(self, name)}")
        if not 0 < self.norm < np.inf:
            raise ValueError(f"norm must be > 0 and finite, got {self.norm}")

    def draw(self, key: PRNGKeyArray) -> Float[Array, "classes exemplars features"]:
        """Draw the exemplars of all classes."""
        mean_key, noise_key = jax.random.split(key)
        deviation = jnp.arange(1, self.features + 1, dtype=jnp.float32) ** -self.spectrum
        deviation = (deviation / jnp.sqrt((deviation**2).mean()))[None, None]  # 1 for each feature where spectrum = 0
        mean = normalise(deviation * jax.random.normal(mean_key, (self.classes, 1, self.features)), 1.0)
        shape = (self.classes, self.exemplars, self.features)
        variation = deviation * jax.random.normal(noise_key, shape) / np.sqrt(self.features)
        drawn = normalise(mean + self.noise * variation, self.norm)
        shared = jax.random.normal(jax.random.fold_in(key, 2), (1, 1, self.features))
        return drawn + self.mean * shared


def normalise(x: Float[Array, "... features"], norm: float) -> Float[Array, "... features"]:
    """Scale the vectors along the last axis to the given Euclidean norm."""
    return norm * x / jnp.linalg.norm(x, axis=-1, keepdims=True)


@dataclass(frozen=True)
class FileClasses:
    """Classes from an array `classes x exemplars x features` in an npz or HDF5 file, such as the authors' features.

    `name` says which array of the file (in HDF5 also one in groups, "resnet18/features"); it may be left out where the
    file holds one only. Features of another number than the network's are projected by one random matrix for each seed.
    """

    path: str
    name: str | None = None
    features: int = 64
    norm: float = 8.0
    digest: str = ""  # of the file: another content is another experiment

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", hashlib.sha256(Path(self.path).read_bytes()).hexdigest()[:16])

    @property
    def classes(self) -> int:
        """How many there are."""
        return read_classes(self.path, self.name).shape[0]

    def draw(self, key: PRNGKeyArray) -> Float[Array, "classes exemplars features"]:
        """The exemplars of all classes; `key` draws the projection, where one is needed."""
        x = jnp.asarray(read_classes(self.path, self.name), jnp.float32)
        if x.shape[-1] != self.features:
            x = x @ jax.random.normal(key, (x.shape[-1], self.features))
        return normalise(x, self.norm)


Classes = GaussianClasses | FileClasses


def read_classes(path: str | Path, name: str | None = None) -> np.ndarray:
    """The array `classes x exemplars x features` of a file; ValueError where it is not one, finite and not zero."""
    path = Path(path)
    held: dict[str, np.ndarray] = {}
    if path.suffix == ".npz":
        try:
            with np.load(path) as file:
                held = {k: file[k] for k in sorted(file.files)}
        except (ValueError, EOFError, zipfile.BadZipFile):
            raise ValueError(f"{path} is damaged or no npz file") from None
    elif path.suffix in (".h5", ".hdf5"):
        with h5py.File(path, "r") as file:

            def visit(at: str, item: object) -> None:
                if isinstance(item, h5py.Dataset):
                    held[at] = item[()] if name in (None, at) else np.empty(0)

            file.visititems(visit)
    else:
        raise ValueError(f"path must end in .npz, .h5 or .hdf5, got {str(path)!r}")
    wanted = [array for at, array in held.items() if name in (None, at)]
    if len(wanted) != 1:
        raise ValueError(f"name must be one array of {path.name}, got {name!r}; it holds {sorted(held)}")
    array = np.asarray(wanted[0])
    if array.ndim != 3 or not array.size:
        raise ValueError(f"{path.name} must hold an array classes x exemplars x features, got shape {array.shape}")
    if not (np.isfinite(array).all() and np.any(array, axis=-1).all()):
        raise ValueError(f"{path.name} must hold finite vectors of features other than zero")
    return array


@dataclass(frozen=True)
class Sequences:
    """What one sequence is: its kind, how long its context is, and how its classes are chosen."""

    kind: str = "full"
    pairs: int = 2  # exemplar-label pairs in context
    burstiness: int = 1  # context pairs of one class
    matched: bool = False  # the query is the very exemplar that stands in context
    zipf: float = 0.0  # class k is drawn with weight 1 / (k + 1)^zipf

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {KINDS}, got {self.kind!r}")
        if self.burstiness < 1 or self.pairs < 1 or self.pairs % self.burstiness:
            raise ValueError(f"pairs must be a multiple of burstiness, got {self.pairs} and {self.burstiness}")
        if not 0 <= self.zipf < np.inf:
            raise ValueError(f"zipf must be >= 0 and finite, got {self.zipf}")
        if self.kind == "flip" and self.pairs == self.burstiness:
            raise ValueError("flip needs two classes in context: pairs must be larger than burstiness")


class Batch(NamedTuple):
    """Sequences; the last exemplar is the query."""

    exemplars: Float[Array, "batch exemplars features"]
    labels: Int[Array, "batch pairs"]
    target: Int[Array, " batch"]


def sample(
    key: PRNGKeyArray, exemplars: Float[Array, "classes exemplars features"], sequences: Sequences, batch: int
) -> Batch:
    """Draw a batch of sequences."""
    n_classes, n_exemplars, _ = exemplars.shape
    groups = sequences.pairs // sequences.burstiness  # classes in context
    class_key, label_key, order_key, exemplar_key = jax.random.split(key, 4)

    chosen = distinct(class_key, n_classes, batch, 2 * groups, sequences.zipf)  # [batch, 2 groups]
    query, shown, named = chosen[:, 0], chosen[:, :groups], chosen[:, :groups]
    if sequences.kind == "icl":
        named = distinct(label_key, n_classes, batch, groups, 0.0)
    elif sequences.kind == "flip":
        named = jnp.roll(named, -1, axis=1)
    elif sequences.kind == "ciwl":
        shown = chosen[:, groups:]
    elif sequences.kind == "pure_iwl":
        shown = named = chosen[:, groups:]
    own = sequences.kind in ("full", "ciwl", "pure_iwl")
    target = query if own else named[:, 0]

    # group g stands at `burstiness` places of the context, in random order
    order = jnp.argsort(jax.random.uniform(order_key, (batch, sequences.pairs)), axis=1)
    group = order // sequences.burstiness  # [batch, pairs]; group 0 is the query's
    context = jnp.take_along_axis(shown, group, axis=1)
    labels = jnp.take_along_axis(named, group, axis=1)
    which = jax.random.randint(exemplar_key, (batch, sequences.pairs + 1), 0, n_exemplars)
    if sequences.matched:
        same = jnp.take_along_axis(which, jnp.argmax(group == 0, axis=1)[:, None], axis=1)[:, 0]
        which = which.at[:, -1].set(same)
    classes = jnp.concatenate([context, query[:, None]], axis=1)
    return Batch(exemplars[classes, which], labels, target)


def distinct(key: PRNGKeyArray, classes: int, batch: int, count: int, zipf: float) -> Int[Array, "batch count"]:
    """Draw `count` different classes a sequence.

    A class that is drawn twice is replaced by the next free one, which shifts probabilities by the order of
    count / classes.
    """
    if count > classes:
        raise ValueError(f"a sequence needs {count} different classes, got {classes}")
    if zipf:
        weight = np.cumsum(1.0 / np.arange(1, classes + 1) ** zipf)
        place = jax.random.uniform(key, (batch, count))
        drawn = jnp.searchsorted(jnp.asarray(weight / weight[-1], jnp.float32), place)
        drawn = jnp.minimum(drawn, classes - 1)
    else:
        drawn = jax.random.randint(key, (batch, count), 0, classes)
    columns: list[Array] = []
    for i in range(count):
        column = drawn[:, i]
        for _ in range(i):  # at most i steps past the i classes that are taken
            taken = jnp.any(jnp.stack([column == other for other in columns]), axis=0)
            column = jnp.where(taken, (column + 1) % classes, column)
        columns.append(column)
    return jnp.stack(columns, axis=1)
