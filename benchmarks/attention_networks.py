"""Networks for the theory of `toymodel.theory.attention`: the disentangled network over 33 settings, and six trainings.

    python benchmarks/attention_networks.py           trains what is missing in figures/data/attention_networks.nc
    python benchmarks/attention_networks.py --again   trains all (about 20 minutes of one core)

The forward pass is that of `toymodel.network.disentangled`, from the same draws and the same sequences, but only the
logits of the two labels in context are computed, since all others are zero: 0.2 ms a step instead of 1.7 (a test holds
it against the network's own gradient).
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from toymodel.files import write_netcdf
from toymodel.network.data import Batch, GaussianClasses, Sequences, sample
from toymodel.network.experiments import DISENTANGLED
from toymodel.network.runs import drawn

DATA = Path(__file__).parent.parent / "figures" / "data" / "attention_networks.nc"
MEASURES = ("icl", "flip", "ciwl", "previous", "g", "norm_W", "norm_V", "norm_M")
EVALUATION = 1024  # sequences of each evaluator
RATE, BATCH = DISENTANGLED.rule.rate, DISENTANGLED.rule.batch


@dataclass(frozen=True)
class Setting:
    """What is varied; the default is the network of the other figures."""

    classes: int = 3000
    noise: float = 1.2
    features: int = 32
    exemplars: int = 20
    barrier: float = 2.0
    factor: float = 1.0  # of the rate of the codes M


@dataclass(frozen=True)
class Case:
    """One training of one setting."""

    setting: Setting
    training: str = "full"
    steps: int = 8000
    every: int = 50
    seeds: int = 5


BASE = Setting()
ONE_BY_ONE: dict[str, tuple] = {
    "noise": (0.8, 1.0, 1.1, 1.3, 1.4, 1.6),
    "classes": (1000, 1500, 2000, 4500, 6000),
    "features": (16, 24, 48, 64),
    "exemplars": (5, 10, 40),
    "barrier": (0.0, 1.0, 3.0, 4.0),
}
TOGETHER = (  # classes, noise, features, exemplars, barrier
    (1500, 1.0, 32, 20, 2.0),
    (2000, 1.4, 32, 10, 2.0),
    (4500, 1.0, 24, 20, 3.0),
    (6000, 1.4, 48, 20, 2.0),
    (2000, 1.2, 64, 5, 1.0),
    (4500, 1.6, 64, 20, 2.0),
    (1500, 1.1, 48, 40, 3.0),
    (6000, 1.3, 32, 5, 3.0),
)
SETTINGS = [
    BASE,
    *(replace(BASE, **{name: value}) for name, values in ONE_BY_ONE.items() for value in values),
    *(Setting(*values) for values in TOGETHER),
]
TRAININGS: dict[str, dict[str, Any]] = {  # of the settings below; "grafted" is given W and g of the end of "full"
    "icl_only": dict(kind="icl"),
    "ciwl_only": dict(kind="ciwl"),
    "matched": dict(matched=True),
    "blocked": dict(without_codes=True),
    "grafted": dict(kind="icl", given=True),
}
OTHER_DATA = (
    BASE,
    replace(BASE, noise=1.4),
    replace(BASE, classes=1500),
    replace(BASE, features=64),
    replace(BASE, barrier=4.0),
    replace(BASE, barrier=4.0, factor=0.04),
    replace(BASE, exemplars=5),
    replace(BASE, classes=6000),
)


def cases() -> Iterator[Case]:
    """All trainings: the settings on full data, dimensions up to 256, then the other data."""
    for setting in SETTINGS:
        yield Case(setting)
    yield Case(replace(BASE, features=128), seeds=2)
    yield Case(replace(BASE, features=256), seeds=1, steps=4000)
    for setting in OTHER_DATA:
        slow = setting.barrier > 3
        if setting.factor != 1:
            yield Case(setting, steps=12_000, seeds=3)
        lengths = {"icl_only": (6000 if slow else 2000, 25), "ciwl_only": (2500, 25), "matched": (1500, 25)}
        lengths |= {"blocked": (4000 if slow else 1500, 25), "grafted": (1000 if slow else 400, 10)}
        for name, (steps, every) in lengths.items():
            yield Case(setting, name, steps, every, seeds=3)


def scores(weights: dict[str, Any], exemplars: Any, rows: Any) -> Any:
    """Attention scores of the query on both labels, [batch, 2]; `rows` are the codes M of the labels."""
    x = exemplars
    content = jnp.stack([x[:, 0] @ weights["V"], rows[:, 0], x[:, 1] @ weights["V"], rows[:, 1]], 1)
    first, second = jax.nn.softmax(weights["A"][1, :2]), jax.nn.softmax(weights["A"][3, :4])
    key = jnp.stack([first[0] * content[:, 0] + first[1] * content[:, 1], jnp.einsum("j,bjd->bd", second, content)], 1)
    key = key * jax.lax.rsqrt((key**2).sum(-1, keepdims=True) + 1e-12)
    return jnp.einsum("bid,bd->bi", key, x[:, 2] @ weights["W"])


def loss(weights: dict[str, Any], rows: Any, batch: Batch, classes: int) -> Any:
    """Mean cross-entropy; the labels that are not in context have logit zero."""
    logits = jax.nn.softmax(scores(weights, batch.exemplars, rows), -1) * weights["g"]
    right = batch.labels == batch.target[:, None]
    whole = jnp.logaddexp(jax.nn.logsumexp(logits, -1), jnp.log(classes - 2.0))
    return (whole - (logits * right).sum(-1)).mean()


@partial(jax.jit, static_argnames=("sequences", "held", "blocked"))
def advance(
    weights: dict[str, Any],
    codes: Any,
    exemplars: Any,
    key: Any,
    start: int,
    steps: int,
    factor: float,
    sequences: Sequences,
    held: tuple[str, ...],
    blocked: bool,
) -> tuple[dict[str, Any], Any]:
    """So many steps of gradient descent; only the codes of the labels in the batch change."""
    classes = codes.shape[0]

    def step(at: Any, state: tuple[dict[str, Any], Any]) -> tuple[dict[str, Any], Any]:
        weights, codes = state
        batch = sample(jax.random.fold_in(key, at), exemplars, sequences, BATCH)
        slope, of_rows = jax.grad(loss, (0, 1))(weights, codes[batch.labels], batch, classes)
        weights = {name: w if name in held else w - RATE * slope[name] for name, w in weights.items()}
        if not blocked:
            codes = codes.at[batch.labels].add(-RATE * factor * of_rows)
        return weights, codes

    return jax.lax.fori_loop(start, start + steps, step, (weights, codes))


@partial(jax.jit, static_argnames="sequences")
def evaluate(weights: dict[str, Any], codes: Any, exemplars: Any, key: Any, sequences: Sequences) -> Any:
    """MEASURES: accuracy in context of the evaluators, attention to the exemplar before, and norms."""
    found = []
    for i, kind in enumerate(MEASURES[:3]):
        batch = sample(jax.random.fold_in(key, i), exemplars, replace(sequences, kind=kind), EVALUATION)
        each, right = scores(weights, batch.exemplars, codes[batch.labels]), batch.labels == batch.target[:, None]
        found.append((jnp.where(right, each, 0).sum(-1) > jnp.where(right, 0, each).sum(-1)).mean())
    before = jax.nn.softmax(weights["A"][1, :2])[0], jax.nn.softmax(weights["A"][3, :4])[2]
    norms = [jnp.linalg.norm(x) for x in (weights["W"], weights["V"], codes)]
    return jnp.stack([*found, sum(before) / 2, weights["g"], *norms])


def train(case: Case, given: list[dict[str, Any]] | None = None) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """The measures [seed, point, measure] of a training, and what `grafted` is given of its end."""
    of, options = case.setting, dict(TRAININGS.get(case.training, {}))
    classes = GaussianClasses(of.classes, of.exemplars, of.features, of.noise, norm=1.0)
    experiment = replace(DISENTANGLED, classes=classes, seeds=case.seeds, options=(("barrier", of.barrier),))
    states, all_exemplars, keys = drawn(experiment)
    sequences = Sequences(kind=options.get("kind", "full"), matched=options.get("matched", False))
    blocked, rows, ends = options.get("without_codes", False), [], []
    for seed in range(case.seeds):
        weights = {name: getattr(states.network, name)[seed] for name in "AVWg"}
        codes = states.network.M[seed] * (0.0 if blocked else 1.0)
        if given is not None:
            weights |= given[seed]
        held = () if given is None else tuple(given[seed])
        exemplars, key = all_exemplars[seed], keys[seed]
        row = []
        for at in range(0, case.steps + 1, case.every):
            if at:
                now = at - case.every, case.every, of.factor
                weights, codes = advance(weights, codes, exemplars, key, *now, sequences, held, blocked)
            apart = jax.random.fold_in(jax.random.fold_in(key, 2**31 - 1), at)
            row.append(evaluate(weights, codes, exemplars, apart, sequences))
        rows.append(np.asarray(jnp.stack(row)))
        ends.append({name: weights[name] for name in "Wg"})
    return np.stack(rows), ends


def dataset(found: dict[Case, np.ndarray]) -> xr.Dataset:
    """All curves: MEASURES by (case, seed, point), NaN where a case has fewer seeds or points."""
    every = list(found)
    shape = len(every), max(c.seeds for c in every), max(c.steps // c.every + 1 for c in every)
    values = {name: np.full(shape, np.nan, np.float32) for name in MEASURES}
    step = np.full((shape[0], shape[2]), -1)
    for i, (case, rows) in enumerate(found.items()):
        points = case.steps // case.every + 1
        step[i, :points] = np.arange(points) * case.every
        for j, name in enumerate(MEASURES):
            values[name][i, : case.seeds, :points] = rows[:, :, j]
    columns = {name: ("case", [getattr(c.setting, name) for c in every]) for name in BASE.__dataclass_fields__}
    columns |= {name: ("case", [getattr(c, name) for c in every]) for name in ("training", "steps", "every", "seeds")}
    data = {name: (("case", "seed", "point"), value) for name, value in values.items()}
    return xr.Dataset(data | {"step": (("case", "point"), step)}, columns)


def read(path: Path = DATA) -> dict[Case, np.ndarray]:
    """What `dataset` holds, by case."""
    with xr.open_dataset(path, engine="h5netcdf") as kept:
        kept = kept.load()
    found = {}
    for i in range(kept.sizes["case"]):
        one = kept.isel(case=i)
        setting = Setting(**{n: one[n].item() for n in BASE.__dataclass_fields__})
        case = Case(setting, str(one.training.item()), *(int(one[n]) for n in ("steps", "every", "seeds")))
        rows = np.stack([one[name].values for name in MEASURES], -1)
        found[case] = rows[: case.seeds, : case.steps // case.every + 1]
    return found


def write(found: dict[Case, np.ndarray], path: Path = DATA) -> None:
    """Whole or not at all."""
    write_netcdf(dataset(found), path, packed=True)


def main() -> None:
    found = {} if "--again" in sys.argv or not DATA.exists() else read()
    wanted, ends = list(cases()), {}
    for case in wanted:
        grafted = case.training == "grafted"
        if case in found and not (case.training == "full" and _needed(case, wanted, found)):
            continue
        rows, end = train(case, ends.get(case.setting) if grafted else None)
        if case.training == "full":
            ends[case.setting] = end
        found[case] = rows
        write({c: found[c] for c in wanted if c in found})
        print(case, "flip", rows[:, :: max(rows.shape[1] // 8, 1), 1].mean(0).round(2), flush=True)


def _needed(full: Case, wanted: list[Case], found: dict[Case, np.ndarray]) -> bool:
    """Whether the end of a full training is wanted by one that is not there."""
    return any(c.setting == full.setting and c.training == "grafted" and c not in found for c in wanted)


if __name__ == "__main__":
    main()
