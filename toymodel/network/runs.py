"""Running experiments: resumed after a stop, cached by the hash of what made them, kept as one NetCDF file each.

    networks/NAME.nc                   the curves; `made_of` is the hash of the experiment and of those it needs
    build/networks/HASH/latest.eqx     everything that training needs to go on to the same numbers
    build/networks/HASH/STEP.eqx       the weights of the steps that others start from

Curves have the dimensions `seed`, `step` and `evaluator` (or `head`, or `weight` for the norms of the weights).
"""

import difflib
import hashlib
import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from toymodel.files import origin
from toymodel.network.data import Classes
from toymodel.network.disentangled import Disentangled
from toymodel.network.evaluators import EVALUATORS, MEASURES, evaluate_seeds, weight_names
from toymodel.network.experiments import SECOND_HALF, Experiment, Weights, all_experiments
from toymodel.network.tap import Edit, Network, graft
from toymodel.network.training import State, begin, load, save, train_seeds
from toymodel.network.transformer import Transformer
from toymodel.progress import progress_bar

NETWORKS: dict[str, Any] = {"disentangled": Disentangled, "transformer": Transformer}
SAVE_SECONDS = 60.0  # between checkpoints
VERSION = 1  # raise it when a change of the code changes what an experiment computes


class Runs:
    """Runs experiments and reads what they left; `known` are those that others may need."""

    def __init__(
        self,
        known: dict[str, Experiment] | None = None,
        curves: Path = Path("networks"),
        checkpoints: Path = Path("build/networks"),
    ):
        self.known = all_experiments() if known is None else known
        self.folder, self.checkpoints = curves, checkpoints
        self.stop = threading.Event()  # when set, what runs writes a checkpoint and raises KeyboardInterrupt
        self.locks: dict[str, threading.RLock] = defaultdict(threading.RLock)  # several may need one source at once

    def named(self, name: str) -> Experiment:
        """The experiment of this name."""
        if name not in self.known:
            near = difflib.get_close_matches(name, self.known, n=4, cutoff=0.4) or list(self.known)[:4]
            raise ValueError(f"there is no experiment {name!r}, but {', '.join(near)}; `toymodel train` lists all")
        return self.known[name]

    def made_of(self, experiment: Experiment) -> str:
        """The hash of an experiment and of all that it needs."""
        parts = [str(VERSION), repr(experiment)] + [self.made_of(self.named(w.source)) for w in experiment.sources()]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    def finished(self, experiment: Experiment) -> bool:
        """Whether the curves of this very experiment are there."""
        path = self.folder / f"{experiment.name}.nc"
        if not path.exists():
            return False
        try:
            with xr.open_dataset(path, engine="h5netcdf") as kept:
                return kept.attrs.get("made_of") == self.made_of(experiment)
        except OSError:
            return False  # damaged

    def weights(self, source: Experiment, step: int) -> Network:
        """The weights that an experiment had at a step, which is run for it if they are not there."""
        if step not in source.keep:
            raise ValueError(f"step of {source.name} must be one of {source.keep}, got {step}")
        path = self.checkpoints / self.made_of(source) / f"{step}.eqx"
        with self.locks[self.made_of(source)]:
            if not path.exists():
                self.train(source)
        return load(path, drawn(source)[0].network)

    def edits(self, experiment: Experiment) -> tuple[Edit, ...]:
        """What is held throughout the training, with an axis of seeds."""
        zero = tuple(Edit(at, jnp.zeros(experiment.seeds), None) for at in experiment.ablated)
        return zero + self._grafts(experiment)

    def _grafts(self, experiment: Experiment) -> tuple[Edit, ...]:
        if experiment.held is None:
            return ()
        donor = self._given(experiment.held, experiment)
        return tuple(graft(at, donor) for at in experiment.held.at)

    def _given(self, weights: Weights, to: Experiment) -> Network:
        """The weights of a source, for the seeds of the experiment that they are given to."""
        source = self.named(weights.source)
        if source.seeds < to.seeds:
            raise ValueError(f"seeds of {to.name} must be at most {source.seeds}, those of {source.name}")
        for name in ("network", "classes", "options"):
            if getattr(source, name) != getattr(to, name):
                raise ValueError(f"{name} of {to.name} must be that of {source.name}, whose weights it is given")
        return jax.tree.map(lambda w: w[: to.seeds], self.weights(source, weights.step))

    def run(self, experiment: Experiment, again: bool = False, progress: bool | None = None) -> xr.Dataset:
        """The curves of an experiment: read where they are there, else trained, from where training stopped; with
        `again`, trained from the start in any case."""
        with self.locks[self.made_of(experiment)]:
            if not again and self.finished(experiment):
                return self.read(experiment.name)
            _writable(self.folder)
            curves = self.train(experiment, again, progress)
            path = self.folder / f"{experiment.name}.nc"
            packed = {name: {"zlib": True, "complevel": 9} for name in curves.data_vars}
            curves.to_netcdf(path.with_suffix(".partial"), engine="h5netcdf", encoding=packed)
            os.replace(path.with_suffix(".partial"), path)
            return curves

    def train(self, experiment: Experiment, again: bool = False, progress: bool | None = None) -> xr.Dataset:
        """The curves of a training that goes on from its last checkpoint, if all weights that it kept are still there
        and it is not to be done `again`."""
        folder = self.checkpoints / self.made_of(experiment)
        _writable(folder)
        states, exemplars, keys = drawn(experiment)
        edits = self.edits(experiment)
        if experiment.start is not None:
            given = self._given(experiment.start, experiment)
            states = jax.vmap(lambda network: begin(network, experiment.rule))(given)
        advance = partial(train_seeds, edits=edits, exemplars=exemplars, keys=keys, rule=experiment.rule)

        states, row = advance(states, steps=0)
        points = experiment.steps // experiment.every + 1
        rows = {name: np.full((points, *value.shape), np.nan, np.float32) for name, value in row.items()}
        kept = {"states": states, "rows": rows, "done": np.array(0)}
        latest = folder / "latest.eqx"
        if latest.exists() and not again:
            found = load(latest, kept)
            at = (int(found["done"]) - 1) * experiment.every
            if all((folder / f"{step}.eqx").exists() for step in experiment.keep if step <= at):
                kept = found
        states, rows, done = kept["states"], kept["rows"], int(kept["done"])
        written = time.monotonic()
        with progress_bar(experiment.steps, experiment.name, progress) as bar:
            bar.update(max(done - 1, 0) * experiment.every)
            for point in range(done, points):
                step = point * experiment.every
                if point:
                    states, row = advance(states, steps=experiment.every)
                    bar.update(experiment.every)
                for name, value in row.items():
                    rows[name][point] = value
                if step in experiment.keep:
                    save(folder / f"{step}.eqx", states.network)
                now = time.monotonic()
                if now - written > SAVE_SECONDS or point == points - 1 or self.stop.is_set():
                    save(latest, {"states": states, "rows": rows, "done": np.array(point + 1)})
                    written = now
                if self.stop.is_set():
                    raise KeyboardInterrupt
        curves = as_dataset(experiment, rows).assign_attrs(made_of=self.made_of(experiment), **origin())
        if len(experiment.keep) > 1:
            curves = curves.merge(self.swapped(experiment, exemplars, keys))
        return curves

    def run_many(
        self, experiments: Sequence[Experiment], jobs: int = 2, again: bool = False
    ) -> Iterator[tuple[Experiment, xr.Dataset]]:
        """Experiments with their curves as they end, so many at once; each waits for those that it needs.

        Threads are enough, since JAX computes without Python's lock. An error, or Ctrl-C, stops all of them at their
        next evaluation, with a checkpoint. Raises ValueError where one comes before another that it needs.
        """
        if jobs < 1:
            raise ValueError(f"jobs must be at least 1, got {jobs}")
        names = [experiment.name for experiment in experiments]
        for place, experiment in enumerate(experiments):
            if late := [w.source for w in experiment.sources() if w.source in names[place:]]:
                raise ValueError(f"experiments must come after those that they need: {experiment.name} before {late}")
        given: dict[str, Future[xr.Dataset]] = {}

        def one(experiment: Experiment) -> xr.Dataset:
            for source in experiment.sources():
                if source.source in given:
                    given[source.source].result()
            return self.run(experiment, again)

        with ThreadPoolExecutor(jobs) as pool:
            for experiment in experiments:
                given[experiment.name] = pool.submit(one, experiment)
            by_future = {given[experiment.name]: experiment for experiment in experiments}
            try:
                for future in as_completed(by_future):
                    yield by_future[future], future.result()
            except BaseException:
                self.stop.set()
                pool.shutdown(cancel_futures=True)
                raise

    def swapped(self, experiment: Experiment, exemplars: jax.Array, keys: jax.Array) -> xr.Dataset:
        """Evaluators of the first half at each kept step under the second half at the last of them."""
        end, rule = self.weights(experiment, experiment.keep[-1]), experiment.rule
        edits = tuple(graft(at, end) for at in SECOND_HALF[experiment.network])
        values = [
            evaluate_seeds(
                self.weights(experiment, step), edits, exemplars, keys, rule.sequences, rule.evaluation_batch
            )
            for step in experiment.keep
        ]
        dims = ("kept", "seed", "evaluator")
        variables = {f"swapped_{m}": (dims, np.stack([np.asarray(v[m]) for v in values])) for m in MEASURES}
        return xr.Dataset(variables, {"kept": list(experiment.keep)})

    def read(self, name: str) -> xr.Dataset:
        """The curves of this name; where they are missing or of another declaration, how to make them."""
        experiment, path = self.named(name), self.folder / f"{name}.nc"
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing; `toymodel train {name}` makes it")
        try:
            curves = xr.load_dataset(path, engine="h5netcdf")
        except OSError as error:
            raise ValueError(f"{path} is damaged ({error}); `toymodel train {name}` makes it anew") from None
        if curves.attrs.get("made_of") != self.made_of(experiment):
            raise ValueError(f"{path} was made by another declaration of {name}; `toymodel train {name}` makes it anew")
        return curves


def _writable(folder: Path) -> None:
    """Makes a folder; an OSError that names it where nothing can be written there, before hours of training."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError("no permission")
    except OSError as error:
        raise OSError(f"cannot write to the folder {folder}: {error.strerror or error}") from None


def drawn(experiment: Experiment) -> tuple[State, jax.Array, jax.Array]:
    """The states of all seeds at step 0, their exemplars and the keys of their training, each from its own draws."""
    pairs = experiment.rule.sequences.pairs
    given = experiment.network, experiment.classes, pairs, experiment.options, experiment.seeds
    networks, exemplars, keys = _draws(*given)
    return jax.vmap(lambda network: begin(network, experiment.rule))(networks), exemplars, keys


@partial(jax.jit, static_argnums=range(5))
def _draws(
    network: str, classes: Classes, pairs: int, options: tuple[tuple[str, float], ...], seeds: int
) -> tuple[Network, jax.Array, jax.Array]:
    def one(seed: jax.Array) -> tuple[Network, jax.Array, jax.Array]:
        classes_key, network_key, training_key = (jax.random.fold_in(jax.random.key(seed), i) for i in range(3))
        weights = NETWORKS[network].draw(network_key, classes.classes, classes.features, pairs, **dict(options))
        return weights, classes.draw(classes_key), training_key

    return jax.vmap(one)(jnp.arange(seeds))


def as_dataset(experiment: Experiment, rows: dict[str, np.ndarray]) -> xr.Dataset:
    """Rows [point, seed, ...] as a labelled record."""
    own = {name: "evaluator" for name in MEASURES} | {"weight_norm": "weight"}
    dims = {name: ("step", "seed", own.get(name, f"head_{name}")) for name in rows}
    cls = NETWORKS[experiment.network]
    small = jax.eval_shape(lambda key: cls.draw(key, 2, 8, 1), jax.random.key(0))
    coordinates = {
        "step": np.arange(len(rows["loss"])) * experiment.every,
        "seed": np.arange(experiment.seeds),
        "evaluator": list(EVALUATORS),
        "weight": weight_names(small),
    }
    record = xr.Dataset({name: (dims[name], value) for name, value in rows.items()}, coordinates)
    return record.assign_attrs(experiment=repr(experiment), name=experiment.name)
