"""Gradient descent that measures as it goes: the measures of `toymodel.measures` without a record.

For every mechanism the loop carries what its measures need, and updates it with the loss L_n of step n (T: half of the
unlearned loss):

    emergence      <- n      where L_n < T for the first time
    lowest, when   <- L_n, n where L_n < lowest
    end            <- none   there, and else n where L_n >= T, after the emergence, and there is no end yet
    bump, bump_at  <- L_n - lowest (before this step), n     where larger, and before emergence
    last           <- L_n

None of these but `last` changes where L repeats a value. So a run whose record has ended (its loss fell below a
threshold), or that has come to a fixed point of the arithmetic (a step changes no bit), has its final measures, and is
taken out of the batch.

Layout: WIDE runs side by side (WIDTH where there are few), one array for each coordinate; STRIDE steps write the terms
of the loss to a small buffer, and one pass updates the measures from it. The compiler fuses elementwise operations but
computes a fused value anew for each result that needs it; the buffer, read back at an index that the compiler does not
know, makes each term once.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from toymodel.measures import LEARNED
from toymodel.model import Form
from toymodel.reduction import terms, unlearned_loss
from toymodel.simulation.problem import Problem
from toymodel.simulation.state import Reduced

WIDTH = 512  # runs in a call, of which there are enough for several cores in a small sweep
WIDE = 2048  # runs in a call of a large one: less dispatch for each run, and still in the second-level cache
STRIDE = 8  # steps between two updates of the measures
SPAN = 2048  # steps between two looks at which runs have ended
ENDED = 2  # looks in a row that a run stood still
OPTIONS: dict[str, Any] = {"xla_cpu_prefer_vector_width": 512}


class Work(NamedTuple):
    """What a call carries and reads; every leaf has shape (run,), or () where it is the same for all runs."""

    state: Reduced
    tracker: dict[str, dict[str, Any]]  # mechanism -> quantity of the docstring -> step or loss
    stopped: Any  # the step at which the record of a run ends, inf while it goes on
    ended: Any  # ENDED or more where nothing will change any more
    weights: dict[str, Any]
    parameters: dict[str, Any]
    inside: dict[str, Any]  # mechanism -> the loss below which it is learned
    lr: Any


Compiled = Callable[[Any, list[Any]], list[Any]]  # the tree of a Work and its leaves -> new leaves


@dataclass(frozen=True)
class Lanes:
    """A Work as numpy arrays, to cut and join."""

    leaves: list[np.ndarray]
    tree: Any

    @classmethod
    def of(cls, work: Work, precision: str) -> Lanes:
        leaves, tree = jax.tree.flatten(work)
        return cls([np.asarray(leaf, precision) for leaf in leaves], tree)

    def take(self, runs: Any) -> Lanes:
        return replace(self, leaves=[leaf[runs] if leaf.ndim else leaf for leaf in self.leaves])

    def work(self) -> Work:
        return jax.tree.unflatten(self.tree, [jnp.asarray(leaf) for leaf in self.leaves])

    def each(self, pool: ThreadPoolExecutor, function: Compiled) -> Lanes:
        """All lanes through a compiled function, piece by piece, on all cores."""

        def one(piece: slice) -> list[np.ndarray]:
            with jax.enable_x64(True):
                return [np.asarray(leaf) for leaf in function(self.tree, self.take(piece).leaves)]

        done = list(pool.map(one, _pieces(max(leaf.size for leaf in self.leaves))))
        joined = [np.concatenate(parts) if leaf.ndim else leaf for leaf, *parts in zip(self.leaves, *done, strict=True)]
        return replace(self, leaves=joined)


def _pieces(lanes: int) -> list[slice]:
    """WIDE lanes each where there are enough for two pieces, and what is left WIDTH each."""
    wide = lanes // WIDE * WIDE if lanes >= 2 * WIDE else 0
    cuts = [*range(0, wide, WIDE), *range(wide, lanes, WIDTH), lanes]
    return [slice(*ends) for ends in pairwise(cuts)]


def descend_measured(
    problem: Problem,
    state: Reduced,
    steps: int,
    lr: Any,
    stage_lr: float = 1.0,
    stop_below: float | None = None,
    precision: str = "float64",
) -> dict[str, np.ndarray]:
    """Descends all runs of a problem (a multiple of WIDTH) for `steps` steps of size lr, a number for each run.

    The times of interventions are in units of `stage_lr`. Returns <quantity>_<mechanism> of the docstring (and
    `inside`, the T there), `stopped`, and `finite` (0 for a run that diverged), each of shape (run,), times in steps,
    inf for what does not happen. Call it where float64 is enabled.
    """
    form, runs = problem.model.form, problem.batch.runs
    if runs % WIDTH:
        raise ValueError(f"the number of runs must be a multiple of {WIDTH}, got {runs}")
    weights = {t: problem.batch.thin(w) for t, w in problem.weights.items()}
    inside = {
        m: LEARNED * unlearned_loss([state.plane(x) for x in letters], weights[m])
        for m, letters in form.mechanisms.items()
    }
    stopped, ended = np.full(runs, np.inf), np.zeros(runs)
    tracker = {m: nothing_yet(runs) for m in form.mechanisms}
    where, found = np.arange(runs), {}
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for stage, begin, end in problem.steps(steps, stage_lr):
            state = problem.begin(stage, state)
            values = {p: problem.batch.thin(value) for p, value in stage.parameters.items()}
            work = Work(state, tracker, stopped, ended, weights, values, inside, np.asarray(lr))
            lanes, what = Lanes.of(work, precision), (form, stage.form, stage.blocked, stop_below)
            for at in range(begin, end, SPAN):
                until = min(at + SPAN, end)
                lanes = lanes.each(pool, partial(_advance, *what, at, until, 0))
                if end < steps:  # an intervention is still to come: keep every run
                    continue
                lanes = _looked_at(lanes, lanes.each(pool, partial(_advance, *what, until, until + 1, 0)))
                kept = _kept(lanes.work().ended, until == steps)
                if not kept.all():
                    _collect(found, runs, lanes.take(~kept).work(), where[~kept])
                    lanes, where = lanes.take(kept), where[kept]
                if not len(where):
                    return found
            state, tracker, stopped = lanes.work()[:3]
    raise AssertionError("the last look collects all runs")


def _looked_at(lanes: Lanes, ahead: Lanes) -> Lanes:
    """The lanes in the state that they are in, with that state measured, from themselves one step ahead.

    Measuring a state twice changes nothing. A lane has ended where its record has, or where the step changed no bit
    here and at the last look (so that the state that it stays in was measured).
    """
    now, next_ = lanes.work(), ahead.work()
    before, after = (jax.tree.leaves((work.state.u, work.state.v)) for work in (now, next_))
    still = np.all([np.asarray(p == q) for p, q in zip(before, after, strict=True)], 0)
    stopped, looks = np.isfinite(next_.stopped), np.where(still, np.asarray(now.ended) + 1, 0)
    return Lanes.of(next_._replace(state=now.state, ended=np.where(stopped, ENDED, looks)), str(now.stopped.dtype))


def _kept(ended: Any, last: bool) -> np.ndarray:
    """Which lanes go on: those that have not ended, and others until they fill a multiple of WIDTH."""
    kept = np.asarray(ended) < ENDED
    if last:
        return np.zeros_like(kept)
    kept[np.flatnonzero(~kept)[: -kept.sum() % WIDTH]] = True
    return kept


def _collect(found: dict[str, np.ndarray], runs: int, work: Work, where: np.ndarray) -> None:
    """Writes what these lanes carry to the runs that they are."""
    finite = np.isfinite(sum([*work.state.u.values(), *work.state.v.values()]))
    parts = {f"{name}_{m}": value for m, tracked in work.tracker.items() for name, value in tracked.items()}
    parts |= {f"inside_{m}": value for m, value in work.inside.items()}
    for name, value in {**parts, "stopped": work.stopped, "finite": finite}.items():
        found.setdefault(name, np.empty(runs))[where] = value


def nothing_yet(runs: int) -> dict[str, np.ndarray]:
    never, names = np.full(runs, np.inf), ("emergence", "lowest", "when", "end", "bump_at", "last")
    return {**dict.fromkeys(names, never), "bump": np.zeros(runs)}


def tracked(was: dict[str, Any], n: Any, loss: Any, inside: Any) -> dict[str, Any]:
    """The tracker of a mechanism after the step n; a loss that is NaN (the record has ended) changes nothing."""
    lower, rise = loss < was["lowest"], loss - was["lowest"]
    emergence = jnp.where(loss < inside, jnp.minimum(was["emergence"], n), was["emergence"])
    higher = (emergence == jnp.inf) & (rise > was["bump"])
    gone = (loss >= inside) & (emergence < jnp.inf)
    return {
        "emergence": emergence,
        "lowest": jnp.where(lower, loss, was["lowest"]),
        "when": jnp.where(lower, n, was["when"]),
        "end": jnp.where(lower, jnp.inf, jnp.where(gone, jnp.minimum(was["end"], n), was["end"])),
        "bump": jnp.where(higher, rise, was["bump"]),
        "bump_at": jnp.where(higher, n, was["bump_at"]),
        "last": jnp.where(jnp.isnan(loss), was["last"], loss),
    }


class _Stage:
    """What a step is made of, in one stage."""

    def __init__(self, form: Form, descended: Form, blocked: frozenset[tuple[str, str]], work: Work):
        self.form, self.descended, self.blocked, self.work = form, descended, blocked, work
        moving = [x for x in form.vectors if x not in work.state.fixed]
        self.u, self.v = ({x: part[x] for x in moving} for part in (work.state.u, work.state.v))

    def state(self, u: Any, v: Any) -> Reduced:
        return replace(self.work.state, u={**self.work.state.u, **u}, v={**self.work.state.v, **v})

    def terms(self, u: Any, v: Any) -> dict[str, Any]:
        def seen(term: str, x: str, plane: Any) -> Any:
            return jax.lax.stop_gradient(plane) if (term, x) in self.blocked else plane

        state = self.state(u, v)
        return terms(self.form, {x: state.plane(x) for x in self.form.vectors}, self.work.weights, seen)

    def loss(self, of_terms: dict[str, Any]) -> Any:
        return self.descended.loss(**of_terms, **self.work.parameters)

    def step(self, u: Any, v: Any, of_terms: Any, pull: Any, counts: Any) -> tuple[Any, Any]:
        """One step where it counts: `pull` brings slopes in the terms to slopes in u and v."""
        slopes = pull(jax.grad(lambda x: jnp.sum(self.loss(x)))(of_terms))
        parts = zip((u, v), slopes, strict=True)
        return tuple({x: jnp.where(counts, q[x] - self.work.lr * slope[x], q[x]) for x in q} for q, slope in parts)  # type: ignore[return-value]


@partial(jax.jit, static_argnums=(0, 1, 2, 3, 7), compiler_options=OPTIONS)
def _advance(
    form: Form,
    descended: Form,
    blocked: frozenset[tuple[str, str]],
    threshold: float | None,
    at: int,
    until: int,
    zero: int,
    tree: Any,
    leaves: list[Any],
) -> list[Any]:
    """The steps `at` to `until` - 1; `zero` is 0, which the compiler must not know."""
    work: Work = jax.tree.unflatten(tree, leaves)
    stage, kind = _Stage(form, descended, blocked, work), work.stopped.dtype

    def step(k: Any, carry: Any) -> Any:
        u, v, stopped, buffer, first = carry
        of_terms, pull = jax.vjp(stage.terms, u, v)
        counts = (first + k < until) & (stopped == jnp.inf)
        noted = {t: jnp.where(counts, value, jnp.nan) for t, value in of_terms.items()}
        buffer = {t: jax.lax.dynamic_update_index_in_dim(buffer[t], noted[t], k, 0) for t in buffer}
        of_terms = {t: jax.lax.dynamic_index_in_dim(buffer[t], k + zero, 0, keepdims=False) for t in buffer}
        if threshold is not None:
            below = stage.loss(of_terms) < threshold
            stopped = jnp.where(below, (first + k).astype(kind), stopped)
            counts = counts & ~below
        return *stage.step(u, v, of_terms, pull, counts), stopped, buffer, first

    def stride(i: Any, carry: Any) -> Any:
        u, v, stopped, buffer, tracker = carry
        first = at + i * STRIDE
        u, v, stopped, buffer, _ = jax.lax.fori_loop(0, STRIDE, step, (u, v, stopped, buffer, first))
        for k in range(STRIDE):
            n = (first + k).astype(kind)
            tracker = {m: tracked(tracker[m], n, buffer[m][k], work.inside[m]) for m in tracker}
        return u, v, stopped, buffer, tracker

    buffer = {t: jnp.zeros((STRIDE, *work.stopped.shape), kind) for t in form.terms}
    start = (stage.u, stage.v, work.stopped, buffer, work.tracker)
    u, v, stopped, _, tracker = jax.lax.fori_loop(0, (until - at + STRIDE - 1) // STRIDE, stride, start)
    return jax.tree.leaves(work._replace(state=stage.state(u, v), tracker=tracker, stopped=stopped))
