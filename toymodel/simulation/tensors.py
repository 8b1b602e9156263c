"""Gradient descent on all entries of all vectors: the independent check of the reduction.

The loss is written on the tensors themselves,

    L_m = w_m / 2 sum (x* x y* x ... - x x y x ...)^2,

and differentiated by JAX; nothing here knows of overlaps, except to report them. With `noise`, every gradient gets an
independent normal error; with `sample`, each step sees only so many randomly drawn entries of each tensor (stochastic
gradient descent). Both leave the plane of the reduction. Noise is right in the mean at every step. Sampled terms are
unbiased, and so is the gradient of a loss that is linear in each term, since every term has its own sample; where the
loss is nonlinear in one term (a power or a quotient), the mean of the sampled gradient is not the gradient.

Other rules than gradient descent turn a gradient into a step entry by entry, by optax: "sign" takes its sign, "adam"
divides its running mean by the root of the running mean of its square. They leave the plane, too: an entry moves by the
step size however small its part of the target is. They close on one number a vector where all entries of a target are
equal in size and the start lies along it (`derivations/adam.py`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jaxtyping import Array, Float, Int

from toymodel.checks import Count, LearningRate, NonNegative, Seed, Steps, checked
from toymodel.model import Form, Model
from toymodel.progress import progress_bar
from toymodel.settings import refuse_fork
from toymodel.simulation.observe import record
from toymodel.simulation.problem import Problem
from toymodel.start import check_vectors

Vectors = Mapping[str, Any]
PerRun = Float[Array, " run"]
Entries = Float[Array, "run entry"]
StepNumber = Int[Array, ""] | int
PIECE = 50_000_000  # entries of tensors between two looks at an interruption (about a second)
DRAWN = 500  # a randomly drawn entry takes as long as so many others
SMALL = 10_000  # a step takes at least as long as so many entries
NOISE, SAMPLE = 0, 1  # what the random numbers of a step are for
Optimiser = Literal["gradient", "sign", "adam"]
RULES: dict[str, optax.GradientTransformation] = {  # from a gradient to minus a step of size 1
    "gradient": optax.identity(),
    "sign": optax.scale_by_sign(),
    "adam": optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8),
}


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Full:
    """All entries of every vector and target; the last direction of its residual, which a residual of 0 does not show
    any more; what the optimiser remembers of its gradients; and for clamped heads a mask that is 0 where an entry is
    held."""

    values: dict[str, Float[Array, "run _"]]  # vectors differ in their numbers of entries
    targets: dict[str, Float[Array, "run _"]]
    across: dict[str, Float[Array, "run _"]]
    memory: dict[str, Any]
    masks: dict[str, Float[Array, " _"]] = field(default_factory=dict)
    fixed: frozenset[str] = field(default=frozenset(), metadata={"static": True})

    @classmethod
    def of(cls, values: dict[str, Entries], targets: dict[str, Entries], optimiser: Optimiser = "gradient") -> Full:
        """The state at a start."""
        across = {x: directions(value, targets[x])[1] for x, value in values.items()}
        return cls(values, targets, across, {x: jax.vmap(RULES[optimiser].init)(v) for x, v in values.items()})

    def norm(self, x: str) -> PerRun:
        return jnp.linalg.norm(self.targets[x], axis=-1)

    def placed(self, x: str, overlap: Any, residual: Any) -> Full:
        """The vector x put at these coordinates; raises ValueError where its residual never had a direction."""
        along, across = self.directions(x)
        overlap, residual = (jnp.asarray(value, along.dtype) for value in (overlap, residual))
        if bool(jnp.any((residual > 0) & jnp.all(across == 0, -1))):
            raise ValueError(f"Clamp({x!r}): its residual has no direction, for {x} has been along its target only")
        value = overlap[..., None] * along + residual[..., None] * across
        return replace(self.free(x), values={**self.values, x: value}, across={**self.across, x: across})

    def frozen(self, x: str) -> Full:
        return replace(self, fixed=self.fixed | {x})

    def head_clamped(self, x: str, k: int) -> Full:
        held = jnp.arange(self.values[x].shape[1]) < k
        value = jnp.where(held, self.targets[x], self.values[x])
        mask = jnp.where(held, 0.0, 1.0).astype(value.dtype)
        return replace(self.free(x), values={**self.values, x: value}, masks={**self.masks, x: mask})

    def free(self, x: str) -> Full:
        """The vector x free to move from where it is, in the plane that it then spans with its target."""
        state = replace(self, fixed=self.fixed - {x})
        if x not in self.masks:
            return state
        masks = {y: mask for y, mask in self.masks.items() if y != x}
        return replace(state, masks=masks, across={**self.across, x: self.directions(x)[1]})

    def directions(self, x: str) -> tuple[Entries, Entries]:
        """The unit vectors along the target of x and along its residual, or along the last one that it had."""
        along, across = directions(self.values[x], self.targets[x])
        return along, jnp.where(jnp.any(across != 0, -1, keepdims=True), across, self.across[x])


def directions(value: Entries, target: Entries) -> tuple[Entries, Entries]:
    """The unit vectors e along the target and w along the residual (0 where that is nothing but rounding)."""
    along = target / jnp.linalg.norm(target, axis=-1, keepdims=True)
    across = value - jnp.sum(value * along, -1, keepdims=True) * along
    norm = jnp.linalg.norm(across, axis=-1, keepdims=True)
    rounding = 32 * jnp.finfo(value.dtype).eps * jnp.linalg.norm(value, axis=-1, keepdims=True)
    there = norm > rounding
    return along, jnp.where(there, across, 0) / jnp.where(there, norm, 1)


def coordinates(value: Entries, target: Entries) -> tuple[PerRun, PerRun]:
    """Overlap and residual of every run."""
    norm = jnp.linalg.norm(target, axis=-1)
    overlap = jnp.sum(value * target, -1) / norm
    return overlap, jnp.linalg.norm(value - (overlap / norm)[:, None] * target, axis=-1)


def tensor_loss(
    form: Form, values: Vectors, targets: Vectors, weights: Mapping[str, Any], parameters: Mapping[str, Any]
) -> Any:
    """The loss of one run from its vectors and targets, written on the tensors."""
    return form.loss(**tensor_terms(form, lambda _term, x: values[x], targets, weights), **parameters)


def tensor_terms(form: Form, value: Any, targets: Vectors, weights: Mapping[str, Any]) -> dict[str, Any]:
    """Every mechanism and cost; `value(term, x)` is the vector x as the term sees it."""
    found = {}
    for term, letters in form.terms.items():
        made = outer([value(term, x) for x in letters])
        wanted = outer([targets[x] for x in letters]) if term in form.mechanisms else 0
        found[term] = weights[term] / 2 * jnp.sum((wanted - made) ** 2)
    return found


def outer(vectors: Sequence[Float[Array, " _"]]) -> Array:
    """The outer product of vectors, one axis for each."""
    return reduce(jnp.multiply.outer, vectors)


@checked
def descend_vectors(
    model: Model,
    vectors: xr.Dataset,
    steps: Steps,
    *,
    lr: LearningRate = 1.0,
    every: Steps = 1,
    optimiser: Optimiser = "gradient",
    noise: NonNegative = 0.0,
    sample: Count | None = None,
    noise_seed: Seed = 0,
    dtype: Literal["float32", "float64"] = "float64",
    interventions: Any = (),
    weights: Mapping[str, Any] | None = None,
    progress: bool | None = None,
    **parameters: Any,
) -> xr.Dataset:
    """Gradient descent on all entries of the vectors, x <- x - lr dL/dx: the check of the reduction.

    Arguments:
        model: the loss.
        vectors: values and targets, as `paper_vectors` or `random_vectors` make them.
        optimiser: "gradient" descent; "sign" descent, in which each entry moves by lr; or "adam" (beta 0.9 and 0.999,
            epsilon 1e-8, as in the paper's networks). A vector that is held keeps its moments until it moves again.
        noise: standard deviation of a normal error of each entry of each gradient.
        sample: how many entries of each tensor the gradient is estimated from (drawn with replacement, anew at each
            step); all by default.
        noise_seed: of these two.
        dtype: "float64" or "float32" (what the paper used).
        steps, lr, every, interventions, weights, progress, parameters: as in `toymodel.descend`.

    Returns:
        A record as that of `toymodel.descend`.

    Raises:
        ValueError for an argument out of range, RuntimeError in the child of a fork.

    Source: Singh et al. 2025, section 6; `derivations/reduction.py`.

    >>> import toymodel as tm
    >>> model = tm.coopetition()
    >>> vectors = tm.paper_vectors(model, 7)
    >>> runs = tm.descend_vectors(model, vectors, 10, every=10)
    >>> reduced = tm.descend(model, tm.from_vectors(model, vectors), 10, every=10)
    >>> bool(abs(runs.loss - reduced.loss).max() < 1e-12)
    True
    """
    steps, every, lr, noise, noise_seed = int(steps), int(every), float(lr), float(noise), int(noise_seed)
    sample = None if sample is None else int(sample)
    check_vectors(model, vectors)
    firsts = [vectors[f"{x}{end}"].isel({f"{x}_entry": 0}, drop=True) for x in model.vectors for end in ("", "_target")]
    problem = Problem.of(model, firsts, interventions, weights, parameters)
    problem.check_end(steps * lr, steps // every + 1)
    batch, seen = problem.batch, []
    sizes = [math.prod(model.dims[x] for x in letters) for letters in model.terms.values()]
    work = batch.runs * (sum(sizes) if sample is None else DRAWN * sample * len(sizes))
    span = max(1, PIECE // max(work, SMALL))
    refuse_fork()
    with jax.enable_x64(dtype == "float64"), progress_bar(steps * batch.runs, "descend_vectors", progress) as bar:

        def flat(value: Any) -> jax.Array:
            return jnp.asarray(batch.flat(value), dtype)

        values, targets = (
            {x: _entries(problem, vectors[f"{x}{end}"], f"{x}_entry", dtype) for x in model.vectors}
            for end in ("", "_target")
        )
        state = Full.of(values, targets, optimiser)
        keys = jax.random.split(jax.random.key(noise_seed), batch.runs)
        for stage, begin, end in problem.steps(steps, lr):
            state = problem.begin(stage, state)
            constants = [{t: flat(value) for t, value in of.items()} for of in (problem.weights, stage.parameters)]
            gates = {pair: flat(factor) for pair, factor in stage.gates.items()}
            pushes = {x: [flat(p) for p in both] for x, both in stage.pushes.items()}
            kernel = partial(_steps, stage.form, optimiser, noise, sample)
            stops = sorted({begin, end, *range(begin + -begin % every, end, every), *range(begin, end, span)})
            for at, after in itertools.pairwise(stops):
                if at % every == 0:
                    seen.append(_seen(model.form, stage.form, state, *constants))
                state = kernel(state, *constants, gates, pushes, jnp.asarray(lr, dtype), keys, at, after)
                jax.block_until_ready(state)
                bar.update((after - at) * batch.runs)
            if end == steps:
                seen.append(_seen(model.form, stage.form, state, *constants))
    found = {name: np.stack([one[name] for one in seen]) for name in seen[0]}
    if wrong := int((~np.isfinite(found["loss"][-1])).sum()):
        raise FloatingPointError(f"the loss of {wrong} runs diverges at lr={lr}; use a smaller lr")
    norms = {x: np.linalg.norm(target, axis=-1) for x, target in targets.items()}
    attrs = {"integrator": "descent of all entries", "steps": steps, "lr": lr, "every": every, "dtype": dtype}
    attrs |= vectors.attrs
    attrs |= {"optimiser": optimiser, "noise": noise, "sample": sample or "all", "noise_seed": noise_seed}
    marks = np.append(np.arange(0, steps, every), steps)
    return record(problem, marks * lr, marks, found, norms, attrs)


def _entries(problem: Problem, values: xr.DataArray, entry: str, dtype: str) -> jax.Array:
    """The entries of a vector for each run, shape (run, entry)."""
    rows = [problem.batch.flat(values.isel({entry: i}, drop=True)) for i in range(values.sizes[entry])]
    return jnp.asarray(np.stack(rows, -1), dtype)


@partial(jax.jit, static_argnames=("form", "optimiser", "noise", "sample"))
def _steps(
    form: Form,
    optimiser: Optimiser,
    noise: float,
    sample: int | None,
    state: Full,
    weights: Any,
    parameters: Any,
    gates: Any,
    pushes: Any,
    lr: Any,
    keys: Any,
    at: StepNumber,
    end: StepNumber,
) -> Full:
    """The steps from `at` to `end` of every run."""
    moving = {x: state.values[x] for x in form.vectors if x not in state.fixed}
    memory = {x: state.memory[x] for x in moving}
    added = {x: _added(state, x, *both) for x, both in pushes.items()}

    def one(moving, memory, values, targets, weights, parameters, gates, added, key):
        def loss(moving, key):
            def value(term: str, x: str):
                vector, factor = {**values, **moving}[x], gates.get((term, x), 1)
                return factor * vector + (1 - factor) * jax.lax.stop_gradient(vector) if (term, x) in gates else vector

            if sample is None:
                found = tensor_terms(form, value, targets, weights)
            else:
                found = _sampled_terms(form, value, targets, weights, sample, key)
            return form.loss(**found, **parameters)

        def step(n, before):
            moving, memory = before
            here = jax.random.fold_in(key, n)
            of_noise, of_sample = (jax.random.fold_in(here, purpose) for purpose in (NOISE, SAMPLE))
            slope = jax.grad(loss)(moving, of_sample)
            for i, x in enumerate(moving):
                error: Any = added.get(x, 0)
                if noise:
                    draw = jax.random.normal(jax.random.fold_in(of_noise, i), slope[x].shape, slope[x].dtype)
                    error = error + noise * draw
                change, remembered = RULES[optimiser].update(slope[x] + error, memory[x])
                moving = {**moving, x: moving[x] - lr * state.masks.get(x, 1) * change}
                memory = {**memory, x: remembered}
            return moving, memory

        return jax.lax.fori_loop(at, end, step, (moving, memory))

    runs = (moving, memory, state.values, state.targets, weights, parameters, gates, added, keys)
    moved, remembered = jax.vmap(one)(*runs)
    return replace(state, values={**state.values, **moved}, memory={**state.memory, **remembered})


def _added(state: Full, x: str, of_u: PerRun, of_v: PerRun) -> Entries:
    """What a push adds to the gradient of x: along its target, and along its residual at the start of the stage."""
    along, across = state.directions(x)
    return of_u[:, None] * along + of_v[:, None] * across


def _sampled_terms(form: Form, value: Any, targets: Vectors, weights: Any, sample: int, key: Any) -> dict[str, Any]:
    """Unbiased estimates of the terms from `sample` entries of each tensor."""
    found = {}
    for i, (term, letters) in enumerate(form.terms.items()):
        keys = jax.random.split(jax.random.fold_in(key, i), len(letters))
        sizes = [targets[x].shape[0] for x in letters]
        where = [jax.random.randint(k, (sample,), 0, n) for k, n in zip(keys, sizes, strict=True)]
        made = math.prod(value(term, x)[at] for x, at in zip(letters, where, strict=True))
        wanted = math.prod(targets[x][at] for x, at in zip(letters, where, strict=True))
        missing = (wanted if term in form.mechanisms else 0) - made
        found[term] = weights[term] / 2 * math.prod(sizes) * jnp.mean(missing**2)
    return found


@partial(jax.jit, static_argnames=("form", "followed"))
def _seen(form: Form, followed: Form, state: Full, weights: Any, parameters: Any) -> dict[str, Any]:
    """What a record has of every run, of the loss `followed`."""

    def losses(values, targets, weights, parameters):
        found = tensor_terms(form, lambda _term, x: values[x], targets, weights)
        return found, followed.loss(**found, **parameters)

    found, loss = jax.vmap(losses)(state.values, state.targets, weights, parameters)
    seen = {"loss": loss, **{(f"loss_{t}" if t in form.mechanisms else t): value for t, value in found.items()}}
    for x in form.vectors:
        seen[f"overlap_{x}"], seen[f"residual_{x}"] = coordinates(state.values[x], state.targets[x])
    return seen
