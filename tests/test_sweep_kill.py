"""A sweep that is killed, at any moment and any number of times, ends in the bytes of one that was not."""

import contextlib
import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

import toymodel as tm
from toymodel.sweeps.execute import execute
from toymodel.sweeps.layout import MARKS

pytestmark = pytest.mark.slow

KILLS = 20
CHUNKS = 120


def declared():
    return tm.Sweep(
        tm.induction(),
        over={"overlap_a": tm.linear(0.01, 0.5, CHUNKS), "scale": tm.linear(0.5, 1.5, 50)},
        steps=6000,
        start="aligned",
        chunk=50,
    )


def child(path: str) -> None:
    os.setsid()
    execute(declared(), path)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def finished(folder: Path) -> int:
    done = folder / MARKS
    return sum(not path.name.startswith(".") for path in done.iterdir()) if done.exists() else 0


@pytest.fixture(scope="module")
def server():
    """Processes that are forked from one that has imported everything and computed nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["toymodel.sweeps.execute", "toymodel.simulation.flow", "zarr", "test_sweep_kill"])
    return context


def test_killed_twenty_times_and_resumed_gives_the_same_bytes(server, tmp_path):
    execute(declared(), tmp_path / "undisturbed.zarr")
    rng = np.random.default_rng(1)
    path, seen, killed = tmp_path / "killed.zarr", [0], 0
    marks = np.sort(rng.integers(0, CHUNKS - 30, KILLS))
    for mark in marks:
        process = server.Process(target=child, args=(str(path),))
        process.start()
        while finished(path) < mark and process.is_alive():
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.02))
        if process.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
                killed += 1
        process.join()
        seen.append(finished(path))
    assert killed == KILLS
    assert 0 < seen[-1] < CHUNKS and len(set(seen)) > KILLS // 2
    execute(declared(), path)
    assert finished(path) == CHUNKS
    assert contents(path) == contents(tmp_path / "undisturbed.zarr")
    assert sorted(os.listdir(tmp_path)) == ["killed.zarr", "undisturbed.zarr"]
