"""Running experiments: resumed after a stop, cached by the hash of what made them, kept as one NetCDF file each.

    networks/NAME.nc                      the curves; `made_of` is the hash of the experiment and of those it needs
    build/networks/HASH/latest_SEEDS.eqx  everything that training needs to go on to the same numbers, and
    build/networks/HASH/latest_SEEDS.npz  the curves so far
    build/networks/HASH/SEED/STEP.eqx     the states at the steps that others start from

Every seed is trained on its own: on a CPU one after another, each on a core of its own, since then all of a seed stays
in the cache; on a GPU side by side, as one batch. A file of curves holds the seeds that are finished; the number of
seeds is no part of the hash, so that more of them may be added later.

Curves have the dimensions `seed`, `step` and `evaluator` (or `head`, or `weight` for the norms of the weights).
"""

import difflib
import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from toymodel.files import alone, write_netcdf, written
from toymodel.network.data import Classes
from toymodel.network.disentangled import Disentangled
from toymodel.network.evaluators import CUTS, EVALUATORS, MEASURES, OF_CUTS, evaluate_seeds, weight_names
from toymodel.network.experiments import SECOND_HALF, Experiment, Weights, all_experiments
from toymodel.network.tap import Edit, Network, ablate, forbid, graft
from toymodel.network.training import State, begin, load, save, train_seeds
from toymodel.network.transformer import Transformer
from toymodel.progress import progress_bar
from toymodel.provenance import hash_of, origin
from toymodel.settings import refuse_fork

NETWORKS: dict[str, Any] = {"disentangled": Disentangled, "transformer": Transformer}
SAVE_SECONDS = 60.0  # between checkpoints
PATIENCE = 60.0  # seconds that one process waits for another to write to the same file of curves
VERSION = 2  # raise it when a change of the code changes what an experiment computes


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
        """The hash of an experiment and of all that it needs: the same for more seeds, more steps and more kept ones,
        so that a training may be continued."""
        parts = [str(VERSION), repr(replace(experiment, seeds=1, steps=experiment.every, keep=()))]
        parts += [self.made_of(self.named(w.source)) for w in experiment.sources()]
        return hash_of(parts)

    def there(self, experiment: Experiment) -> tuple[int, ...]:
        """The seeds whose curves of this very experiment are there, to its last step."""
        try:
            kept = self.read(experiment.name)
        except (OSError, ValueError):
            return ()  # missing, damaged, or of another declaration
        if kept.attrs.get("made_of") != self.made_of(experiment) or kept.step[-1] < experiment.steps:
            return ()
        whole = kept.loss.sel(step=experiment.steps).notnull().any("evaluator")
        return tuple(kept.seed.values[whole.values].tolist())

    def begun(self, experiment: Experiment) -> tuple[int, ...]:
        """The seeds of which there are curves, finished or not."""
        try:
            return tuple(self.read(experiment.name).seed.values.tolist())
        except (OSError, ValueError):
            return ()

    def finished(self, experiment: Experiment) -> bool:
        """Whether the curves of all its seeds are there."""
        return set(range(experiment.seeds)) <= set(self.there(experiment))

    def states(self, source: Experiment, step: int, seeds: tuple[int, ...]) -> State:
        """The states that an experiment had at a step, which is run for it if they are not there."""
        if step not in source.keep:
            raise ValueError(f"step of {source.name} must be one of {source.keep}, got {step}")
        folder = self.checkpoints / self.made_of(source)
        for seed in seeds:
            with self.locks[f"{self.made_of(source)} {seed}"]:
                if not (folder / str(seed) / f"{step}.eqx").exists():
                    self.train(source, (seed,))
        like = jax.eval_shape(lambda: jax.tree.map(lambda x: x[0], drawn(source, seeds[:1])[0]))
        each = [load(folder / str(seed) / f"{step}.eqx", like) for seed in seeds]
        return jax.tree.map(lambda *of: jnp.stack(of), *each)

    def weights(self, source: Experiment, step: int, seeds: tuple[int, ...] | None = None) -> Network:
        """The weights of `states`, by default of all seeds."""
        return self.states(source, step, seeds or tuple(range(source.seeds))).network

    def edits(self, experiment: Experiment, seeds: tuple[int, ...] | None = None) -> tuple[Edit, ...]:
        """What is held throughout the training, with an axis of seeds."""
        seeds = seeds or tuple(range(experiment.seeds))
        edits = [ablate(at, heads) for at, heads in experiment.ablations()]
        edits += [forbid("layer1.score", to) for to in experiment.forbidden]
        edits = [replace(each, value=jnp.broadcast_to(jnp.asarray(each.value), len(seeds))) for each in edits]
        if experiment.held is not None:
            donor = self._given(experiment.held, experiment, seeds).network
            edits += [graft(at, donor) for at in experiment.held.at]
        return tuple(edits)

    def _given(self, weights: Weights, to: Experiment, seeds: tuple[int, ...]) -> State:
        """The states of a source, for the seeds of the experiment that they are given to."""
        source = self.named(weights.source)
        if source.seeds < to.seeds:
            raise ValueError(f"seeds of {to.name} must be at most {source.seeds}, those of {source.name}")
        for name in ("network", "classes", "options"):
            if getattr(source, name) != getattr(to, name):
                raise ValueError(f"{name} of {to.name} must be that of {source.name}, whose weights it is given")
        return self.states(source, weights.step, seeds)

    def run(self, experiment: Experiment, again: bool = False, progress: bool | None = None) -> xr.Dataset:
        """The curves of an experiment: read where they are there, else trained, from where training stopped; with
        `again`, trained from the start in any case."""
        there = () if again else self.there(experiment)
        missing = tuple(seed for seed in range(experiment.seeds) if seed not in there)
        for seeds in groups(missing):
            self.run_seeds(experiment, seeds, again, progress)
        return self.read(experiment.name)

    def run_seeds(
        self, experiment: Experiment, seeds: tuple[int, ...], again: bool = False, progress: bool | None = None
    ) -> None:
        """Train some seeds of an experiment, and put them into its file."""
        _writable(self.folder)
        with ExitStack() as held:
            for seed in seeds:
                held.enter_context(self.locks[f"{self.made_of(experiment)} {seed}"])
            curves = self.train(experiment, seeds, again, progress)
        self._keep(experiment, curves)

    def _keep(self, experiment: Experiment, curves: xr.Dataset) -> None:
        """Write curves to the file of their experiment, beside those of the other seeds that it holds."""
        path = self.folder / f"{experiment.name}.nc"
        with self.locks[experiment.name], alone(path, patience=PATIENCE):
            try:
                before = self.read(experiment.name)
            except (OSError, ValueError):
                before = curves.isel(seed=slice(0, 0))
            others = before.sel(seed=[seed for seed in before.seed.values if seed not in curves.seed.values])
            if others.seed.size:
                both = xr.concat([others, curves], "seed", combine_attrs="drop_conflicts", join="outer")
                curves = both.sortby("seed").assign_attrs(curves.attrs)
            write_netcdf(curves, path, packed=True)

    def so_far(self, experiment: Experiment) -> tuple[int, ...]:
        """Put what trainings that are not finished have left into the file; the seeds of which there is something."""
        found = []
        for path in sorted((self.checkpoints / self.made_of(experiment)).glob("latest_*.npz")):
            seeds = tuple(map(int, path.stem.split("_")[1:]))
            if set(seeds) & set(self.there(experiment)):
                continue
            with np.load(path) as file:
                rows = {name: file[name] for name in file.files}
            done = int(np.isfinite(rows["loss"]).all((1, 2)).sum())
            rows = {name: values[:done] for name, values in rows.items()}
            curves = as_dataset(experiment, seeds, rows).assign_attrs(made_of=self.made_of(experiment), **origin())
            self._keep(experiment, curves)
            found += seeds
        return tuple(found)

    def train(
        self, experiment: Experiment, seeds: tuple[int, ...], again: bool = False, progress: bool | None = None
    ) -> xr.Dataset:
        """The curves of a training that goes on from its last checkpoint, if all states that it kept are still there
        and it is not to be done `again`."""
        refuse_fork()
        folder = self.checkpoints / self.made_of(experiment)
        _writable(folder)
        latest = folder / f"latest_{'_'.join(map(str, seeds))}.eqx"
        with alone(latest):  # two processes would train the same seeds, and write to the same checkpoints
            return self._trained(experiment, seeds, latest, again, progress)

    def _trained(
        self, experiment: Experiment, seeds: tuple[int, ...], latest: Path, again: bool, progress: bool | None
    ) -> xr.Dataset:
        folder, done = latest.parent, 0
        states, exemplars, keys = drawn(experiment, seeds)
        edits = self.edits(experiment, seeds)
        if experiment.start is not None:
            given = self._given(experiment.start, experiment, seeds)
            states = jax.vmap(lambda network: begin(network, experiment.rule))(given.network)
            if experiment.start.memory:  # the optimiser goes on as if nothing had happened
                states = eqx.tree_at(lambda s: s.memory, states, given.memory)
        advance = partial(train_seeds, edits=edits, exemplars=exemplars, keys=keys, rule=experiment.rule)

        made_by = origin()  # the code that begins, if it is edited meanwhile
        states, row = advance(states, steps=0)
        points = experiment.steps // experiment.every + 1
        rows = {name: np.full((points, *value.shape), np.nan, np.float32) for name, value in row.items()}
        if latest.exists() and not again:
            found, before = load(latest, (states, np.array(0)))
            at = (int(before) - 1) * experiment.every
            needed = [folder / str(seed) / f"{step}.eqx" for seed in seeds for step in experiment.keep if step <= at]
            if all(path.exists() for path in needed):
                states, done = found, min(int(before), points)
                with np.load(latest.with_suffix(".npz")) as file:
                    for name, row_of in rows.items():
                        row_of[:done] = file[name][:done]
        saved = time.monotonic()
        with progress_bar(experiment.steps, f"{experiment.name} {seeds}", progress) as bar:
            bar.update(max(done - 1, 0) * experiment.every)
            for point in range(done, points):
                step = point * experiment.every
                if point:
                    states, row = advance(states, steps=experiment.every)
                    bar.update(experiment.every)
                for name, value in row.items():
                    rows[name][point] = value
                if step in experiment.keep:
                    for place, seed in enumerate(seeds):
                        save(folder / str(seed) / f"{step}.eqx", jax.tree.map(itemgetter(place), states))
                now = time.monotonic()
                if now - saved > SAVE_SECONDS or point == points - 1 or self.stop.is_set():
                    keep_rows(latest.with_suffix(".npz"), rows)  # before the states, which say how many of them count
                    save(latest, (states, np.array(point + 1)))
                    saved = now
                if self.stop.is_set():
                    raise KeyboardInterrupt
        curves = as_dataset(experiment, seeds, rows).assign_attrs(made_of=self.made_of(experiment), **made_by)
        if len(experiment.keep) > 1:
            curves = curves.merge(self.swapped(experiment, seeds, exemplars, keys))
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
        given: dict[tuple[str, int], Future[None]] = {}

        def one(experiment: Experiment, seeds: tuple[int, ...]) -> None:
            for source in experiment.sources():
                for seed in seeds:
                    if (source.source, seed) in given:
                        given[source.source, seed].result()
            self.run_seeds(experiment, seeds, again)

        with ThreadPoolExecutor(jobs) as pool:
            left: dict[str, set[Future[None]]] = {}
            for experiment in experiments:
                there = () if again else self.there(experiment)
                missing = tuple(seed for seed in range(experiment.seeds) if seed not in there)
                left[experiment.name] = set()
                for seeds in groups(missing):
                    future = pool.submit(one, experiment, seeds)
                    left[experiment.name].add(future)
                    given |= {(experiment.name, seed): future for seed in seeds}
            of = {experiment.name: experiment for experiment in experiments}
            try:
                for name in [name for name in left if not left[name]]:
                    yield of[name], self.read(name)
                for future in as_completed(set().union(*left.values())):
                    future.result()
                    for name in [name for name, futures in left.items() if future in futures]:
                        left[name].remove(future)
                        if not left[name]:
                            yield of[name], self.read(name)
            except BaseException:
                self.stop.set()
                pool.shutdown(cancel_futures=True)
                raise

    def swapped(
        self, experiment: Experiment, seeds: tuple[int, ...], exemplars: jax.Array, keys: jax.Array
    ) -> xr.Dataset:
        """Evaluators of the first half at each kept step under the second half at the last of them."""
        end, rule = self.weights(experiment, experiment.keep[-1], seeds), experiment.rule
        edits = tuple(graft(at, end) for at in SECOND_HALF[experiment.network])
        values = [
            evaluate_seeds(
                self.weights(experiment, step, seeds), edits, exemplars, keys, rule.sequences, rule.evaluation_batch
            )
            for step in experiment.keep
        ]
        dims = ("kept", "seed", "evaluator")
        variables = {f"swapped_{m}": (dims, np.stack([np.asarray(v[m]) for v in values])) for m in MEASURES}
        return xr.Dataset(variables, {"kept": list(experiment.keep)})

    def read(self, name: str) -> xr.Dataset:
        """The curves of this name, of a training that is not finished so far as it went; where they are missing or of
        another declaration, how to make them."""
        experiment, path = self.named(name), self.folder / f"{name}.nc"
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing; `toymodel train {name}` makes it")
        try:
            curves = xr.load_dataset(path, engine="h5netcdf")
        except OSError as error:
            raise ValueError(f"{path} is damaged ({error}); `toymodel train {name}` makes it anew") from None
        if curves.attrs.get("made_of") != self.made_of(experiment):
            raise ValueError(f"{path} was made by another declaration of {name}; `toymodel train {name}` makes it anew")
        return curves.sel(step=slice(0, experiment.steps))


def _writable(folder: Path) -> None:
    """Makes a folder; an OSError that names it where nothing can be written there, before hours of training."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError("no permission")
    except OSError as error:
        raise OSError(f"cannot write to the folder {folder}: {error.strerror or error}") from None


def keep_rows(path: Path, rows: dict[str, np.ndarray]) -> None:
    """Write the curves so far, whole or not at all."""
    with written(path) as whole:
        np.savez(whole, **rows)  # pyright: ignore


def groups(seeds: tuple[int, ...]) -> list[tuple[int, ...]]:
    """What is trained as one batch: on a CPU each seed alone, on a GPU all of them."""
    return [(seed,) for seed in seeds] if jax.default_backend() == "cpu" else [seeds] if seeds else []


def drawn(experiment: Experiment, seeds: tuple[int, ...] | None = None) -> tuple[State, jax.Array, jax.Array]:
    """The states of seeds (by default of all) at step 0, their exemplars and the keys of their training, each from its
    own draws."""
    pairs = experiment.rule.sequences.pairs
    chosen = jnp.arange(experiment.seeds) if seeds is None else jnp.array(seeds)
    networks, exemplars, keys = _draws(experiment.network, experiment.classes, pairs, experiment.options, chosen)
    return jax.vmap(lambda network: begin(network, experiment.rule))(networks), exemplars, keys


@partial(jax.jit, static_argnums=range(4))
def _draws(
    network: str, classes: Classes, pairs: int, options: tuple[tuple[str, float | str], ...], seeds: jax.Array
) -> tuple[Network, jax.Array, jax.Array]:
    def one(seed: jax.Array) -> tuple[Network, jax.Array, jax.Array]:
        classes_key, network_key, training_key = (jax.random.fold_in(jax.random.key(seed), i) for i in range(3))
        weights = NETWORKS[network].draw(network_key, classes.classes, classes.features, pairs, **dict(options))
        return weights, classes.draw(classes_key), training_key

    return jax.vmap(one)(seeds)


def as_dataset(experiment: Experiment, seeds: tuple[int, ...], rows: dict[str, np.ndarray]) -> xr.Dataset:
    """Rows [point, seed, ...] as a labelled record."""
    own = {name: ("evaluator",) for name in MEASURES} | {"weight_norm": ("weight",), "match": (), "copy": ()}
    own |= {"accuracy_cut": ("of_cut", "cut")}
    dims = {name: ("step", "seed", *own.get(name, (f"head_{name}",))) for name in rows}
    coordinates = {
        "step": np.arange(len(rows["loss"])) * experiment.every,
        "seed": list(seeds),
        "evaluator": list(EVALUATORS),
        "of_cut": list(OF_CUTS),
        "cut": list(CUTS),
        "weight": weight_names(jax.eval_shape(lambda: drawn(experiment, seeds[:1])[0].network)),
    }
    record = xr.Dataset({name: (dims[name], value) for name, value in rows.items()}, coordinates)
    labels = {"accuracy": "all", "accuracy_in_context": "in context", "accuracy_cut": "in context"}
    for name in labels.keys() & record.keys():
        record[name].attrs["maximum"] = (
            f"over the labels {labels[name]}" if labels[name] != "all" else "over all labels"
        )
    return record.assign_attrs(experiment=repr(replace(experiment, seeds=1)), name=experiment.name)
