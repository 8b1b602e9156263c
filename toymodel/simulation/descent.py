"""Gradient descent on the reduced loss: exact, and tens of thousands of runs a second.

    u <- u - lr dL/du,    v <- v - lr dL/dv        for every vector that is free to move

is what gradient descent with the step size lr does to all entries of the vectors (`derivations/reduction.py`). So do
momentum and decoupled weight decay, with two velocities a vector; and with an independent normal error sigma xi of
every entry of every gradient the same holds in law,

    u <- u - lr (L_u + sigma xi_1),    v^2 <- (v - lr (L_v + sigma xi_2))^2 + (lr sigma)^2 chi^2_(n-2),

for a vector of n entries: the residual is the radius of a walk in n - 1 dimensions, and the n - 2 that are across it
push it out (`derivations/reduction_extended.py`).

There is one loop (`toymodel.simulation.kernel`), run on blocks of runs, on all cores; what it leaves behind is up to
the observer (`toymodel.simulation.observe`).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import xarray as xr

from toymodel import measures
from toymodel.batch import as_labelled
from toymodel.checks import (
    MOST_RATE,
    POSITIVE,
    NonNegative,
    Positive,
    Seed,
    Steps,
    check_values,
    checked,
    number,
)
from toymodel.model import Model
from toymodel.progress import progress_bar
from toymodel.simulation.kernel import LANES, Loop
from toymodel.simulation.observe import Measures, Record, measured, record, unlearned
from toymodel.simulation.problem import Problem, Stage, problem_of_start
from toymodel.simulation.state import Reduced
from toymodel.simulation.threads import threads
from toymodel.symbolic import System

SPAN = 2048  # steps between two looks at which runs have ended
TASK = 100_000_000  # run-steps of a call: less than half a second, so that an interruption is answered
CHUNK = 64  # steps whose errors are drawn at once


@dataclass(frozen=True)
class Rule:
    """How a step is made; see `descend`."""

    momentum: float = 0.0
    weight_decay: float = 0.0
    noise: float = 0.0
    noise_seed: int = 0
    drift_only: bool = False

    def __post_init__(self):
        if self.momentum >= 1:
            raise ValueError(f"momentum must be within 0..1, without 1, got {self.momentum}")
        if self.noise and self.momentum:
            raise ValueError("noise and momentum together do not close on the plane: set one of them to 0")

    @property
    def kind(self) -> str:
        return "noise" if self.noise else "inertia" if self.momentum or self.weight_decay else "plain"

    def check(self, state: Reduced) -> None:
        """Raises ValueError where the rule does not close on the plane of a clamped head."""
        if state.heads and self.kind != "plain":
            raise ValueError("momentum, weight_decay and noise do not go with Clamp(entries=...): simulate all entries")


@checked
def descend(
    model: Model,
    start: xr.Dataset,
    steps: Steps,
    *,
    lr: Any = 1.0,
    every: Steps = 1,
    first_below: Positive | None = None,
    observe: Record | Measures | None = None,
    momentum: NonNegative = 0.0,
    weight_decay: NonNegative = 0.0,
    noise: NonNegative = 0.0,
    noise_seed: Seed = 0,
    drift_only: bool = False,
    interventions: Any = (),
    weights: Mapping[str, Any] | None = None,
    progress: bool | None = None,
    **parameters: Any,
) -> xr.Dataset:
    """Gradient descent from a start, in float64.

    Arguments:
        model, start: the loss, and where runs begin (`tm.paper_start` and others).
        steps, lr: number of steps and step size; time = steps x lr.
        every: record each so many steps, and the last one.
        first_below: also find, at every step, the first time at which the loss is below this (variable `stopped`, NaN
            where it never is); all runs go on.
        observe: `Measures()` in place of a record: every run's measures, looked at in each step, and nothing else. Then
            lr may be a list (a new dimension `lr`) or a DataArray, too.
        momentum: within 0..1, without 1, from rest.
        weight_decay: every vector is multiplied by 1 - lr weight_decay at each step.
        noise: standard deviation of the normal error of each entry of each gradient. The runs are draws from the same
            law as those of `tm.descend_vectors(noise=...)`, with the numbers of entries in `model.dims`; noise_seed: of
            them, for each place in the batch; drift_only: keep of it what it adds to each v^2 in the mean,
            (n - 1)(lr noise)^2 a step.
        interventions: what is done to the runs, and when, as objects or text; times are multiples of lr.
        weights: term -> w where it differs from the model's.
        parameters: other values than the model's. Parameters and weights may be numbers, lists (a new dimension of the
            parameter's name) or DataArrays.
        progress: show it; by default where it takes more than two seconds.

    Returns:
        A record, or measures, along the dimensions of the batch (`toymodel.simulation.observe`). A residual that has
        decayed below 1e-140 is 0.

    Raises:
        ValueError for an argument out of range. FloatingPointError where the loss of a recorded run diverges (a smaller
        lr helps); measures of such a run are NaN.

    Source: Singh et al. 2025, section 6; `derivations/reduction.py`, `derivations/reduction_extended.py`.

    >>> import toymodel as tm
    >>> model = tm.coopetition()
    >>> runs = tm.descend(model, tm.paper_start(model, seeds=range(3)), 16_000)
    >>> tm.first_below(runs.loss, 1e-6).values.tolist()
    [8834.0, 14482.0, nan]
    """
    steps = int(steps)
    seen = Record(every, first_below) if observe is None else observe
    rule = Rule(momentum, weight_decay, noise, int(noise_seed), drift_only)
    lr = number("lr", lr, POSITIVE) if isinstance(seen, Record) else as_labelled("lr", lr)
    check_values("lr", lr, POSITIVE)
    unit = float(np.max(lr))
    if unit > MOST_RATE:
        raise ValueError(f"lr must be at most {MOST_RATE:,}, got {unit:g}")
    others = [lr] if isinstance(lr, xr.DataArray) else []
    problem = problem_of_start(model, start, interventions, weights, parameters, others)
    if np.min(lr) < unit and any(act.at > 0 or act.until < np.inf for act in problem.interventions):
        raise ValueError("lr must be one number where an intervention begins or ends: steps are counted with it")
    problem.check_end(steps * unit, steps // seen.every + 1 if isinstance(seen, Record) else 0)
    attrs: dict[str, Any] = {"integrator": "descent", "steps": steps, "lr": unit, **start.attrs}
    attrs |= {name: value for name, value in vars(rule).items() if value}
    run = _Run(problem, problem.reduced(start), problem.batch.flat(lr), rule, seen, steps)
    with progress_bar(problem.batch.runs * steps, "descend", progress) as bar:
        run.through(problem.steps(steps, unit), bar)
    return run.measures(seen, attrs) if isinstance(seen, Measures) else run.record(seen, unit, attrs)


class _Run:
    """A descent on its way: what all runs carry, shape (run,) each, and their record."""

    def __init__(
        self, problem: Problem, state: Reduced, lr: np.ndarray, rule: Rule, seen: Record | Measures, steps: int
    ):
        self.problem, self.state, self.lr, self.rule, self.steps = problem, state, lr, rule, steps
        self.norms, runs = state.target, problem.batch.runs
        self.velocity: dict[str, np.ndarray] = {}
        self.stopped = np.full(runs, measures.NEVER)
        self.heads: list[tuple[int, int, Reduced]] = []  # what is clamped in each stage
        self.learned: dict[str, np.ndarray] = {}
        self.every, self.out = 0, np.empty((0, 0, 0))
        if isinstance(seen, Measures):
            self.threshold, self.limit = seen.stop_below, "stop"
            self.learned = {m: measures.LEARNED * level for m, level in unlearned(problem, self.norms).items()}
        else:
            self.threshold, self.limit, self.every = seen.first_below, "first", seen.every
            quantities = len(problem.model.terms) + 1 + 2 * len(problem.model.vectors)
            self.out = np.empty((quantities, -(-steps // seen.every) + 1, runs))
        self.known = {m: measures.begun(runs) for m in self.learned}

    def through(self, stages: list[tuple[Stage, int, int]], bar: Any) -> None:
        """All stages, one after the other."""
        limit = "" if self.threshold is None else self.limit
        for stage, begin, end in stages:
            state = self.problem.begin(stage, self.state)
            self.rule.check(state)
            self.heads.append((begin, end, state))
            loop = Loop(stage.system(state), bool(self.known), bool(self.every), limit, self.rule.kind)
            rows = self.rows(loop, self.problem.constants(stage, state), state)
            rows = _Blocks(loop, rows, self).advance(begin, end, end == self.steps, bar)
            self.state = state.at(np.stack([rows[str(y)] for y in loop.system.coordinates]))
            self.keep(loop, rows)

    def rows(self, loop: Loop, constants: list[np.ndarray], state: Reduced) -> dict[str, np.ndarray]:
        """What a loop carries of all runs, by the names of its rows."""
        runs = self.problem.batch.runs
        rows: dict[str, Any] = dict(zip(map(str, loop.system.coordinates), state.coordinates(), strict=True))
        rows |= dict(zip(map(str, loop.system.constants), constants, strict=True))
        rows |= {"lr": self.lr, "still": 0.0, "stopped": self.stopped, "threshold": self.threshold or 0.0}
        rows |= {"keep": 1 - self.lr * self.rule.weight_decay, "momentum": self.rule.momentum}
        for m, known in self.known.items():
            rows |= {f"inside_{m}": self.learned[m], **{f"{q}_{m}": value for q, value in known.items()}}
        rows |= {f"p_{y}": self.velocity.get(f"p_{y}", 0.0) for y in loop.system.coordinates}
        return {name: np.broadcast_to(rows[name], runs).astype(float) for name in loop.rows}

    def keep(self, loop: Loop, rows: dict[str, np.ndarray]) -> None:
        """Takes back what a loop has carried; a vector that did not move is at rest."""
        self.stopped = rows.get("stopped", self.stopped)
        self.known = {m: {q: rows[f"{q}_{m}"] for q in known} for m, known in self.known.items()}
        moving = {f"p_{y}" for y, slope in zip(loop.system.coordinates, loop.system.slope, strict=True) if slope != 0}
        self.velocity = {name: row for name, row in rows.items() if name in moving}

    def measures(self, seen: Measures, attrs: dict[str, Any]) -> xr.Dataset:
        found = self.known, self.learned, self.stopped, self.steps
        return measured(self.problem, seen, self.state, *found, self.lr, attrs)

    def record(self, seen: Record, lr: float, attrs: dict[str, Any]) -> xr.Dataset:
        quantities = dict(zip(System(self.problem.model.form).observed, self.out, strict=True))
        if wrong := int((~np.isfinite(quantities["loss"][-1])).sum()):
            raise FloatingPointError(f"the loss of {wrong} runs diverges at lr={lr:g}; use a smaller lr")
        marks = np.append(np.arange(0, self.steps, seen.every), self.steps)
        for x in self.problem.model.vectors:
            u, v = quantities[f"overlap_{x}"], quantities[f"residual_{x}"]
            np.abs(v, out=v)
            for begin, end, state in self.heads:
                if x in state.heads:
                    here = (marks >= begin) & ((marks < end) | (end == self.steps))
                    plane = state.plane(x)._replace(u=u[here], v=v[here])
                    u[here], v[here] = plane.overlap, np.sqrt(plane.residual_square)
        attrs = {**attrs, "every": int(seen.every)}
        runs = record(self.problem, marks * lr, marks, quantities, self.norms, attrs)
        if self.threshold is not None:
            found = np.where(self.stopped < measures.NEVER, self.stopped * lr, np.nan)
            runs["stopped"] = self.problem.batch.labelled(found)
            runs["stopped"].attrs["threshold"] = float(self.threshold)
        return runs


class _Blocks:
    """The runs of a stage as blocks of lanes, which threads advance; runs that have ended are taken out.

    No measure but `last` changes where a loss repeats its value. So a run has its final measures once its record has
    ended, or once a step changes no bit of it (a fixed point of the arithmetic).
    """

    def __init__(self, loop: Loop, rows: dict[str, np.ndarray], run: _Run):
        self.loop, self.run, self.runs = loop, run, len(run.lr)
        self.found = np.stack(list(rows.values()))
        self.where = np.arange(self.runs)
        self.kernel = loop.kernel()

    def advance(self, begin: int, end: int, last: bool, bar: Any) -> dict[str, np.ndarray]:
        """The steps `begin` to `end` of all runs, and a look at the state after them where it is the last."""
        blocks = self.cut(self.found)
        ends = last and self.loop.followed and not self.loop.recorded and self.loop.rule == "plain"
        with threads() as (each, stop):
            for at, until in self.spans(begin, end, len(blocks)):
                final = last and until == end
                each(self.task, ((part, first, at, until, final, stop) for part, first in self.parts(blocks)))
                bar.update((until - at) * self.runs)
                if ends and not final:
                    blocks = self.without_ended(blocks)
                    if not len(self.where):
                        break
        self.put(blocks)
        return dict(zip(self.loop.rows, self.found, strict=True))

    def spans(self, begin: int, end: int, blocks: int) -> Iterator[tuple[int, int]]:
        """Stretches of steps between which an interruption is answered and runs are taken out."""
        most = max(1, TASK // (blocks * LANES))
        size = min(SPAN, most) if self.loop.followed else most
        while begin < end:
            until = min(begin + (CHUNK - begin % CHUNK if self.loop.rule == "noise" else size), end)
            yield begin, until
            begin = until

    def parts(self, blocks: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
        """Nearly equal parts of the blocks, a few for each core, and the number of their first block."""
        count = min(len(blocks), 4 * (os.cpu_count() or 1))
        cuts = np.linspace(0, len(blocks), count + 1).astype(int)
        for first, after in pairwise(cuts):
            yield blocks[first:after], int(first)

    def task(self, part: np.ndarray, first: int, at: int, until: int, final: bool, stop: threading.Event) -> None:
        if stop.is_set():
            return
        errors = self.errors(len(part), first, at, until)
        self.kernel(part, errors, self.run.out, first * LANES, at, until, self.run.every, final)

    def errors(self, blocks: int, first: int, at: int, until: int) -> np.ndarray:
        """The errors of noise, (step, error, block, lane), the same wherever a chunk of steps is cut."""
        rule, dims = self.run.rule, self.run.problem.model.dims
        if self.loop.rule != "noise":
            return np.zeros((1, 0, 1, 1))
        made = until - at
        found = np.zeros((made + 1, self.loop.errors, blocks, LANES))  # one more for the look at the last state
        for b in range(blocks):
            draws = np.random.Generator(np.random.Philox(key=[rule.noise_seed, (first + b) << 32 | at // CHUNK]))
            lr = self.run.lr[np.minimum(np.arange(LANES) + (first + b) * LANES, self.runs - 1)]
            scale = lr * rule.noise
            for i, n in enumerate(dims.values()):
                normal = draws.standard_normal((2, CHUNK, LANES))
                across = draws.chisquare(n - 2, (CHUNK, LANES)) if n > 2 else np.zeros((CHUNK, LANES))
                here = slice(at % CHUNK, at % CHUNK + made)
                if rule.drift_only:
                    found[:made, 3 * i + 2, b] = (n - 1) * scale**2
                    continue
                found[:made, 3 * i, b] = normal[0, here] * scale
                if n > 1:  # else there is no room for a residual
                    found[:made, 3 * i + 1, b] = normal[1, here] * scale
                    found[:made, 3 * i + 2, b] = across[here] * scale**2
        return found

    def cut(self, rows: np.ndarray) -> np.ndarray:
        """Rows (row, run) as blocks (block, row, lane), filled up with copies of the last run."""
        fill = -rows.shape[1] % LANES
        rows = np.concatenate([rows, np.repeat(rows[:, -1:], fill, axis=1)], axis=1)
        return np.ascontiguousarray(rows.reshape(len(rows), -1, LANES).swapaxes(0, 1))

    def joined(self, blocks: np.ndarray) -> np.ndarray:
        """Blocks as rows (row, run)."""
        return blocks.swapaxes(0, 1).reshape(blocks.shape[1], -1)[:, : len(self.where)]

    def put(self, blocks: np.ndarray) -> None:
        self.found[:, self.where] = self.joined(blocks)

    def without_ended(self, blocks: np.ndarray) -> np.ndarray:
        """The blocks without the runs that have ended, once they are enough to save a block, or all."""
        still = self.joined(blocks)[self.loop.rows["still"]] > 0
        goes = np.flatnonzero(~still)
        if len(goes) and -(-len(goes) // LANES) > 0.9 * len(blocks):
            return blocks
        self.put(blocks)
        self.where = self.where[goes]
        return self.cut(self.found[:, self.where]) if len(goes) else blocks[:0]
