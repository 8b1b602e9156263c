"""Work on all cores, by threads: what is compiled by numba or JAX runs without Python's lock."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

Each = Callable[[Callable[..., None], Iterable[tuple]], None]


@contextmanager
def threads() -> Iterator[tuple[Each, threading.Event]]:
    """A function `each(work, calls)` that calls `work` with each of some tuples of arguments and waits for all of them;
    and an event that is set when one has failed or Ctrl-C was pressed, which work of more than a second looks at.
    """
    stop = threading.Event()
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:

        def each(work: Callable[..., None], calls: Iterable[tuple]) -> None:
            tasks = [pool.submit(work, *arguments) for arguments in calls]
            try:
                for task in tasks:
                    task.result()
            except BaseException:
                stop.set()
                pool.shutdown(cancel_futures=True)
                raise

        yield each, stop
