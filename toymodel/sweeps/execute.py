"""Runs a sweep: chunk after chunk here, or on the workers of a Dask client; the results are written here in both cases.

A chunk is computed by the same function from the same declaration wherever it runs, so a store has the same bytes
whether one process wrote it, many, or several after one another.
"""

from __future__ import annotations

import math
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from itertools import islice, takewhile
from typing import Any

import numpy as np
import xarray as xr
from tqdm import tqdm

from toymodel.checks import LearningRate, PathLike, Positive, Steps, Tolerance, checked, shown
from toymodel.model import Model
from toymodel.progress import progress_bar
from toymodel.sweeps.axes import Samples
from toymodel.sweeps.declare import Sweep
from toymodel.sweeps.measured import measured_chunk
from toymodel.sweeps.store import Memory, Store

LONG = 4e7  # run-steps (about two seconds) from which a progress bar is shown on a terminal


@checked
def sweep(
    model: Model,
    over: Mapping[str, Any],
    seeds: Any = 0,
    steps: Steps = 16_000,
    *,
    store: PathLike | None = None,
    start: Any = "paper",
    lr: LearningRate = 1.0,
    integrator: Any = "descent",
    interventions: Sequence[Any] | str = (),
    fixed: Mapping[str, Any] | None = None,
    design: Samples | str | None = None,
    stop_below: Positive | None = None,
    every: Steps | None = None,
    rtol: Tolerance = 1e-6,
    chunk: Steps | None = None,
    client: Any = None,
    progress: bool | None = None,
) -> xr.Dataset:
    """The measures of a run for every combination of the values in `over` and the seeds.

    Arguments:
        model: the loss.
        over: name -> log(...), linear(...), a list, or cases; `toymodel.sweeps.declare` lists what can be varied.
        seeds: of the start, a number or several (dimension `seed`).
        start: "paper", "random" or "aligned", as `paper_start`, `random_start`, `aligned_start`; or a Dataset as
            `descend` takes it, whose dimensions are among those of the sweep; or a function of the model that makes
            one.
        fixed: what can be varied, with one value for all runs.
        steps, lr, interventions: as in `descend`. Interventions may be text in which varied names stand, such as
            "Change(until=t_switch, alpha=0)".
        integrator: "descent", or "flow" until t = steps x lr with the tolerance rtol.
        stop_below: a run whose loss falls below this ends there, as in the paper, and its measures are those of the
            record until then; a flow is looked at at 512 times (`toymodel.flow`).
        design: `samples(n)` draws n points in the ranges of `over` instead of all combinations.
        every: also keep losses and coordinates each so many steps.
        store: a folder NAME.zarr, written chunk by chunk; the same call continues it after an interruption.
        chunk: runs that are computed and written together; by default about half a second of them, at least 256.
        client: a Dask client, or the address of a scheduler, whose workers compute.
        progress: show it (by default where it takes more than about two seconds).

    Returns:
        The measures of `toymodel.measure`, `final` and `stopped` along the dimensions of `over`, `seed` and
        `mechanism`; read from the store when they are used. Times are in units of steps x step size.

    Raises:
        ValueError for a wrong argument or a store of another sweep, OSError where the store cannot be written.

    >>> import toymodel as tm
    >>> runs = tm.sweep(tm.coopetition(), {"alpha": tm.log(0.01, 1, 3)}, seeds=range(2), steps=10)
    >>> dict(runs.emergence.sizes)
    {'alpha': 3, 'seed': 2, 'mechanism': 2}
    """
    declared = Sweep(
        model, over, seeds, steps, start, lr, integrator, interventions, fixed or {}, design, stop_below, every,
        rtol, chunk,
    )  # fmt: skip
    return execute(declared, store, client, progress)


def execute(
    declared: Sweep, store: str | os.PathLike[str] | None = None, client: Any = None, progress: bool | None = None
) -> xr.Dataset:
    """Runs what is not finished yet of a declared sweep and returns its measures."""
    results = Memory(declared) if store is None else Store(declared, store)
    runs, sizes = results.grid.runs, [math.prod(results.grid.lengths(number)) for number in results.grid.chunks]
    pending = results.pending()
    wanted = False if progress is None and runs * declared.steps <= LONG else progress
    done = runs - sum(sizes[number] for number in pending)
    with (
        results if isinstance(results, Store) else nullcontext(),
        progress_bar(runs, "sweep", wanted, "run", initial=done) as bar,
        _interruptible() as interrupted,
        _connected(client) as connected,
    ):
        waiting = takewhile(lambda _: not interrupted(), pending)
        here = map(partial(_numbered, declared), waiting)
        for number, values in here if connected is None else _on_workers(connected, declared, waiting):
            results.write(number, values)
            bar.update(sizes[number])
    if interrupted() and (left := len(results.pending())):
        kept = "nothing is kept without a store" if store is None else f"give the same command again to go on ({store})"
        raise KeyboardInterrupt(f"stopped with {left} of {len(sizes)} chunks left; {kept}")
    return results.dataset()


Chunk = tuple[int, dict[str, np.ndarray]]


def _numbered(declared: Sweep, number: int) -> Chunk:
    return number, measured_chunk(declared, number)


def _on_workers(client: Any, declared: Sweep, waiting: Iterator[int]) -> Iterator[Chunk]:
    """Chunks from the workers as they come; a few wait in the queue of each worker, so that memory stays bounded."""
    from distributed import as_completed

    shared = client.scatter(declared, broadcast=True)

    def next_ones(count: int) -> list[Any]:
        return [client.submit(_numbered, shared, number, pure=False) for number in islice(waiting, count)]

    queue = as_completed(next_ones(3 * max(len(client.scheduler_info()["workers"]), 1)))
    for future in queue:
        yield future.result()
        future.release()
        for more in next_ones(1):
            queue.add(more)


def _connected(client: Any) -> AbstractContextManager[Any]:
    """The client itself, or one for the address of a scheduler, which is closed afterwards."""
    if not isinstance(client, str):
        if client is not None and not hasattr(client, "scatter"):
            raise ValueError(f"client must be a Dask client or the address of a scheduler, got {shown(client)}")
        return nullcontext(client)
    from distributed import Client

    try:
        return Client(client, timeout=20)
    except (OSError, ValueError) as error:
        raise OSError(f"no Dask scheduler answers at {client}: {error}") from None


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Turns the first Ctrl-C into a note that is looked at between chunks; the second one stops at once."""
    noted: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.getsignal(signal.SIGINT)

    def note(number: int, _frame: Any) -> None:
        noted.append(number)
        signal.signal(signal.SIGINT, before)
        tqdm.write("finishing this chunk; Ctrl-C again stops at once")

    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(noted)
    finally:
        signal.signal(signal.SIGINT, before)
