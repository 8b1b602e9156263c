"""Gradient descent on the reduced loss: exact, and thousands of runs at a time.

    u <- u - lr dL/du,    v <- v - lr dL/dv        for every vector that is free to move

is what gradient descent with the step size lr does to all entries of the vectors (`derivations/reduction.py`). Runs are
laid out as a structure of arrays (one array of runs for each coordinate), stepped by one compiled loop, in blocks
of runs that fit into the cache, one thread for each core.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float
from tqdm import tqdm

from toymodel.checks import POSITIVE, number, whole
from toymodel.model import Form, Model
from toymodel.progress import progress_bar
from toymodel.simulation.interventions import Intervention
from toymodel.simulation.observe import record
from toymodel.simulation.problem import Problem, Stage, loss_and_slope, measured, problem_of_start
from toymodel.simulation.state import Count, Number, PerRun, Reduced

RUNS_AT_ONCE = 1024  # coordinates, gradients and constants of so many runs stay in the second-level cache
PIECE = 20_000_000  # run-steps between two looks at an interruption (less than a second)
NARROW = 64  # a step of fewer runs takes as long as one of so many


def descend(
    model: Model,
    start: xr.Dataset,
    steps: int,
    *,
    lr: float = 1.0,
    every: int = 1,
    stop_below: float | None = None,
    interventions: Sequence[Intervention] = (),
    weights: dict[str, Any] | None = None,
    progress: bool | None = None,
    **parameters: Any,
) -> xr.Dataset:
    """Gradient descent from a start, in float64.

    steps, lr: number of steps and step size; time = steps x lr. every: record each so many steps (and the last one).
    stop_below: also find, at every step, the first time at which the loss is below this (variable `stopped`, NaN where
    it never is); a batch goes on for all of its runs. interventions: what is done to the runs, and when; their times
    must be multiples of lr. weights: term -> w where it differs from the model's. parameters: other values than the
    model's. Parameters and weights may be numbers, lists (a new dimension of the parameter's name) or DataArrays.

    Returns a record (`toymodel.simulation.observe`). Raises ValueError for an argument out of range,
    FloatingPointError where the loss of a run diverges (a smaller lr helps).
    """
    steps, every, lr = whole("steps", steps), whole("every", every), number("lr", lr, POSITIVE)
    if stop_below is not None:
        stop_below = number("stop_below", stop_below, POSITIVE)
    problem = problem_of_start(model, start, interventions, weights, parameters)
    problem.check_end(steps * lr, steps // every + 1)
    with jax.enable_x64(True):
        run = _run(problem, start, steps, lr, every, stop_below, progress)
    attrs = {"integrator": "descent", "steps": steps, "lr": lr, "every": every, **start.attrs}
    runs = record(problem, run.steps * lr, run.steps, run.losses, run.planes, attrs)
    if stop_below is not None:
        runs["stopped"] = problem.batch.labelled(run.stopped * lr)
        runs["stopped"].attrs["threshold"] = stop_below
    if not np.isfinite(runs["loss"].values[..., -1]).all():
        raise FloatingPointError(
            f"the loss of {int((~np.isfinite(runs['loss'][..., -1])).sum())} runs diverges at lr={lr}; use a smaller lr"
        )
    return runs


@dataclass(frozen=True)
class _Recorded:
    steps: np.ndarray
    losses: dict[str, np.ndarray]  # name -> (time, run)
    planes: dict[str, np.ndarray]  # overlap, residual -> (time, run, vector), target_norm -> (run, vector)
    stopped: np.ndarray  # (run,)


def _run(
    problem: Problem,
    start: xr.Dataset,
    steps: int,
    lr: float,
    every: int,
    stop_below: float | None,
    progress: bool | None,
) -> _Recorded:
    """All stages for all blocks of runs; an interruption ends all threads after the piece that they are in."""
    stages = problem.steps(steps, lr)
    runs, chunk = problem.batch.runs, _chunk(problem.batch.runs)
    blocks = [slice(i, min(i + chunk, runs)) for i in range(0, runs, chunk)]
    stop = threading.Event()
    with progress_bar(runs * steps, "descend", progress) as bar:

        def one(runs: slice) -> _Recorded:
            with jax.enable_x64(True):
                return _run_block(problem.block(runs), start, stages, lr, every, stop_below, bar, stop)

        if len(blocks) == 1:
            return one(blocks[0])
        with ThreadPoolExecutor(min(len(blocks), os.cpu_count() or 1)) as pool:
            waiting = [pool.submit(one, block) for block in blocks]
            try:
                done = [block.result() for block in waiting]
            except BaseException:
                stop.set()
                pool.shutdown(cancel_futures=True)
                raise
    return _Recorded(
        done[0].steps,
        {name: np.concatenate([part.losses[name] for part in done], -1) for name in done[0].losses},
        {name: np.concatenate([part.planes[name] for part in done], -2) for name in done[0].planes},
        np.concatenate([part.stopped for part in done]),
    )


def _chunk(runs: int) -> int:
    """Runs in a block: all cores busy, blocks of nearly equal size."""
    cores = os.cpu_count() or 1
    if runs <= 128 * cores:
        return runs
    blocks = cores * -(-runs // (RUNS_AT_ONCE * cores))
    return -(-runs // blocks)


def _run_block(
    problem: Problem,
    start: xr.Dataset,
    stages: list[tuple[Stage, int, int]],
    lr: float,
    every: int,
    stop_below: float | None,
    bar: tqdm,
    stop: threading.Event,
) -> _Recorded:
    """All stages for one block of runs, in pieces that show how far it is and can be interrupted between."""
    state, last = problem.reduced(start), stages[-1][2]
    runs = len(problem.batch.flat(0))
    weights = {t: problem.batch.thin(w) for t, w in problem.weights.items()}
    stopped = jnp.full(runs, jnp.nan)
    steps: list[np.ndarray] = []
    seen: list[dict[str, np.ndarray]] = []
    for stage, begin, end in stages:
        state = problem.begin(stage, state)
        parameters = {p: problem.batch.thin(value) for p, value in stage.parameters.items()}
        span = min(end - begin, max(1, PIECE // max(runs, NARROW)))
        size = -(-span // every)  # of the buffer: the most records in a piece
        for at in range(begin, end, span):
            after, before = min(at + span, end), state
            marks = np.arange(at + -at % every, after, every)
            lead, tail = (marks[0] - at, after - marks[-1]) if len(marks) else (after - at, 0)
            loop = (at, int(lead), len(marks), every, int(tail))
            state, stopped, buffer = _advance(
                stage.form, stage.blocked, state, weights, parameters, lr, stop_below, stopped, *loop, size=size
            )
            jax.block_until_ready(state)
            if len(marks):
                steps.append(marks)
                seen.append(measured(problem.model.form, stage.form, before, buffer, weights, parameters, len(marks)))
            bar.update((after - at) * runs)
            if stop.is_set():
                raise KeyboardInterrupt
        if end == last:
            buffer = state.coordinates()[None]
            steps.append(np.array([end]))
            seen.append(measured(problem.model.form, stage.form, state, buffer, weights, parameters, 1))
    record = {name: np.concatenate([part[name] for part in seen]) for name in seen[0]}
    stopped = np.asarray(stopped)
    if stop_below is not None:
        stopped = np.where(np.isnan(stopped) & (record["loss"][-1] < stop_below), last, stopped)
    planes = {name: record.pop(name) for name in ("overlap", "residual")}
    planes["target_norm"] = np.stack([state.target[x] for x in problem.model.vectors], -1)
    return _Recorded(np.concatenate(steps), record, planes, stopped)


@partial(jax.jit, static_argnames=("form", "blocked", "threshold", "size"))
def _advance(
    form: Form,
    blocked: frozenset[tuple[str, str]],
    state: Reduced,
    weights: dict[str, Any],
    parameters: dict[str, Any],
    lr: Number,
    threshold: float | None,
    stopped: PerRun,
    at: Count,
    lead: Count,
    count: Count,
    every: Count,
    tail: Count,
    size: int,
) -> tuple[Reduced, PerRun, Float[Array, "record coordinate run"]]:
    """`lead` steps, then `count` times: record and make `every` steps (`tail` after the last record)."""

    def step(n, carry):
        state, stopped = carry
        loss, slope_u, slope_v = loss_and_slope(form, blocked, state, weights, parameters)
        if threshold is not None:
            stopped = jnp.where(jnp.isnan(stopped) & (loss < threshold), n, stopped)
        u = state.u | {x: state.u[x] - lr * slope for x, slope in slope_u.items()}
        v = state.v | {x: state.v[x] - lr * slope for x, slope in slope_v.items()}
        return replace(state, u=u, v=v), stopped

    def recorded(i, carry):
        state, stopped, at, buffer = carry
        buffer = buffer.at[i].set(state.coordinates())
        n = jnp.where(i + 1 < count, every, tail)
        return *jax.lax.fori_loop(at, at + n, step, (state, stopped)), at + n, buffer

    state, stopped = jax.lax.fori_loop(at, at + lead, step, (state, stopped))
    buffer = jnp.zeros((size, *state.coordinates().shape))
    state, stopped, _, buffer = jax.lax.fori_loop(0, count, recorded, (state, stopped, at + lead, buffer))
    return state, stopped, buffer
