"""How fast sweeps are, against other ways to compute the same, and what bounds them.

    make benchmarks, or: .venv/bin/python benchmarks/sweep.py            (about two minutes on two free cores)
    .venv/bin/python benchmarks/sweep.py --full        with the diagram of 256 x 256 and a million runs

Every ratio is between two times of the same call of this script, each the best of several. Seconds of the clock and of
the processor (all cores) are both given: where other programs take part of the cores, only the latter are comparable.

The bound of descent is arithmetic. The script prints what a step costs with and without measures, how many operations
it has, and how many the processor does in registers.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numba
import numpy as np
import xarray as xr
from descent import tracking_loop

import toymodel as tm
from toymodel.simulation.kernel import LANES, LR, Loop
from toymodel.simulation.problem import problem_of_start
from toymodel.symbolic import System

MODEL = tm.coopetition()
STEPS, HORIZON, RTOL = 16_000, 1_000_000, 1e-6
LOW, HIGH = 1e-3, 1.0
START = partial(tm.paper_start, MODEL)


def timed(run: Callable[[], Any], times: int = 3) -> tuple[float, float]:
    """The shortest of several times, in seconds of the clock and of the processor."""
    found = []
    for _ in range(times):
        clock, processor = time.perf_counter(), time.process_time()
        run()
        found.append((time.perf_counter() - clock, time.process_time() - processor))
    return min(clock for clock, _ in found), min(processor for _, processor in found)


def plane(n: int) -> dict[str, Any]:
    return {"alpha": tm.log(LOW, HIGH, n), "mu_icl": tm.log(LOW, HIGH, n)}


def peak() -> float:
    """The largest memory that this process has had, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def diagram(n: int) -> None:
    """The phase diagram from nothing to a store: what a user waits for."""
    with tempfile.TemporaryDirectory() as folder:
        clock, processor = timed(
            lambda: tm.sweep(MODEL, plane(n), seeds=7, steps=STEPS, store=f"{folder}/a.zarr", progress=False), 1
        )
    print(f"{n} x {n} x {STEPS:,} steps, compilation and store included: {clock:.1f} s ({processor:.1f} s of the "
          f"processor), {n * n / clock:,.0f} runs/s, peak memory {peak():.2f} GiB")  # fmt: skip


def table(name: str, rows: list[tuple[str, float, float]]) -> None:
    """Rows of (what, clock, processor) for one run each; ratios against the last row."""
    print(f"\n{name:58}{'runs/s':>11}{'ratio':>13}{'per processor second':>22}{'ratio':>13}")
    for what, clock, processor in rows:
        of_clock, of_processor = rows[-1][1] / clock, rows[-1][2] / processor
        print(f"{what:58}{1 / clock:11,.2f}{of_clock:13,.1f}{1 / processor:22,.2f}{of_processor:13,.1f}")


def descents() -> None:
    n = 64
    sweep = timed(partial(tm.sweep, MODEL, plane(n), 7, STEPS, progress=False), 4)
    start = tm.paper_start(MODEL, seeds=7)
    axis = np.geomspace(LOW, HIGH, n)
    record = timed(lambda: tm.descend(MODEL, start, STEPS, every=80, progress=False, alpha=axis, mu_icl=axis), 2)
    tracking_loop(MODEL, 5)
    loop = timed(lambda: tracking_loop(MODEL, 100), 1)
    rows = [("sweep, all measures", *(t / n**2 for t in sweep))]
    rows.append(("descend, recorded at 201 times", *(t / n**2 for t in record)))
    rows.append(("tracking loop in Python (from 100 steps)", *(t * STEPS / 100 for t in loop)))
    table(f"descent, {STEPS:,} steps, {n} x {n}", rows)


def flows() -> None:
    n, few, sample = 64, 16, 6
    swept = partial(tm.sweep, MODEL, plane(n), 7, HORIZON, integrator="flow", rtol=RTOL, progress=False)
    first, again = timed(swept, 1), timed(swept, 3)
    start = tm.paper_start(MODEL, seeds=7)

    def flow(method: str, count: int) -> xr.Dataset:
        axis = np.geomspace(LOW, HIGH, n)[:: n // count]
        runs = tm.flow(MODEL, start, HORIZON, rtol=RTOL, atol=1e-3 * RTOL, method=method, alpha=axis, mu_icl=axis,
                       progress=False)  # fmt: skip
        return tm.measure(runs)

    flow("diffrax", few)
    vmap = timed(lambda: flow("diffrax", few), 1)
    loop = timed(lambda: flow("LSODA", sample), 2)
    count = len(np.geomspace(LOW, HIGH, n)[:: n // sample])
    rows = [
        (f"sweep, all measures, {n} x {n}, compilation included", *(t / n**2 for t in first)),
        (f"sweep, all measures, {n} x {n}", *(t / n**2 for t in again)),
        (f"diffrax's Kvaerno5 under vmap, {few} x {few}", *(t / few**2 for t in vmap)),
        (f"scipy's LSODA in a loop, {count} x {count} of them", *(t / count**2 for t in loop)),
    ]
    table(f"gradient flow to t = {HORIZON:,}, rtol {RTOL:g}", rows)


def growth(full: bool) -> None:
    """Cost of one run against the size of a sweep, its steps and its mechanisms; the same law of runs at every size."""
    ranges = {"alpha": tm.log(LOW, HIGH), "mu_icl": tm.log(LOW, HIGH)}

    def cost(what: str, count: int, model: tm.Model = MODEL, steps: int = 4000, over: Any = ranges) -> None:
        with tempfile.TemporaryDirectory() as folder:
            sizes = iter(range(100))
            run = partial(tm.sweep, model, over, 7, steps, design=tm.samples(count), start="random", progress=False)
            times = 5 if count <= 10_000 else 2 if count <= 100_000 else 1
            clock, processor = timed(lambda: run(store=f"{folder}/{next(sizes)}.zarr"), times)
        print(f"{what:34}{clock:9.2f} s{1e6 * clock / count:10.1f} us/run{1e9 * clock / count / steps:8.2f} ns/step"
              f"{1e6 * processor / count:10.1f} us/run of the processor{peak():7.2f} GiB")  # fmt: skip

    print("\ncost with a store, 4,000 steps unless stated")
    cost("(compiles)", 1024)
    for count in (1_000, 10_000, 100_000, *([1_000_000] if full else [])):
        cost(f"{count:,} runs", count)
    for steps in (1_000, 16_000, *([64_000] if full else [])):
        cost(f"8,192 runs, {steps:,} steps", 8192, steps=steps)
    letters = {"icl": "abc", "ciwl": "dbc", "iwl": "ebc"}
    for number in (1, 2, 3):
        names = list(letters)[:number]
        model = tm.Model.from_expression(
            "*".join(f"({name} + mu)" for name in names), mechanisms={name: letters[name] for name in names},
            dims=dict.fromkeys("abcde"[: 2 + max(2, number) - (number == 1)], 20), parameters={"mu": 0.1},
        )  # fmt: skip
        over = {"mu": tm.log(0.01, 1)}
        cost("(compiles)", 1024, model, over=over)
        cost(f"8,192 runs, {number} mechanism(s)", 8192, model, over=over)


def bound() -> None:
    """What a step costs for each run on one core: the loop with and without measures, and arithmetic alone."""
    system = System(MODEL.form)
    for what, followed in (("steps alone", False), ("steps and measures", True)):
        loop = Loop(system, followed=followed, recorded=False)
        given = (loop.kernel(), blocks_of(loop, 64), np.zeros((1, 0, 1, 1)), np.empty((0, 0, 0)))

        def call(given: Any = given) -> None:
            kernel, blocks, errors, out = given
            kernel(blocks.copy(), errors, out, 0, 0, 4096, 0, False)

        call()
        seconds = timed(call, 5)[1] / 4096 / (64 * LANES)
        rate = f"{1 / seconds / STEPS:12,.0f} runs/s a core of {STEPS:,} steps"
        print(f"{what:22}{1e9 * seconds:8.2f} ns/step of a run{rate}")
    before, after = system.staged([*system.terms, *system.slope], LR)
    count = sum(operations(value) for value in [*(v for _, v in before), *after]) + 2 * len(system.coordinates)
    print(f"{count} operations a step as written; additions and multiplications in registers: {registers():.0f} per ns")


def blocks_of(loop: Loop, count: int) -> np.ndarray:
    """Blocks of the paper's starts, as the loop takes them."""
    problem = problem_of_start(MODEL, START(range(count * LANES)))
    stage, state = next(iter(problem.stages(1.0))), problem.reduced(START(range(count * LANES)))
    rows: dict[str, Any] = dict.fromkeys(loop.rows, 1e300)
    rows |= dict(zip(map(str, loop.system.coordinates), state.coordinates(), strict=True))
    rows |= dict(zip(map(str, loop.system.constants), problem.constants(stage, state), strict=True)) | {"lr": 1.0}
    whole = np.stack([np.broadcast_to(rows[name], count * LANES) for name in loop.rows]).astype(float)
    return np.ascontiguousarray(whole.reshape(len(whole), count, LANES).swapaxes(0, 1))


def operations(value: Any) -> int:
    """Additions and multiplications of an expression as it is written."""
    count = max(len(value.args) - 1, 0) if value.is_Add or value.is_Mul else int(value.is_Pow)
    return count + sum(map(operations, value.args))


def registers() -> float:
    """Operations per ns of a loop that does nothing but arithmetic on numbers that stay in registers."""

    @numba.njit
    def arithmetic(x: Any, times: int) -> Any:
        for i in range(x.shape[1]):
            a, b, c, d, e, f = x[0, i], x[1, i], x[2, i], x[3, i], x[4, i], x[5, i]
            for _ in range(times):
                a, b, c, d, e, f = a * 0.999, b * 0.998, c * 0.997, d + 0.5, e + 0.25, f + 0.125
            x[0, i], x[1, i], x[2, i], x[3, i], x[4, i], x[5, i] = a, b, c, d, e, f
        return x

    x = np.ones((6, 4096))
    arithmetic(x, 1)
    return 6 * 4096 * 2000 / timed(lambda: arithmetic(x, 2000), 5)[1] / 1e9


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--diagram", type=int)
    parser.add_argument("--only", choices=("descents", "flows", "growth", "bound"))
    given = parser.parse_args()
    if given.diagram:
        diagram(given.diagram)
        return
    if given.only is None:
        subprocess.run([sys.executable, __file__, "--diagram", "256" if given.full else "128"], check=True)
    parts = {"descents": descents, "flows": flows, "growth": partial(growth, given.full), "bound": bound}
    for name, part in parts.items():
        if given.only in (None, name):
            part()


if __name__ == "__main__":
    main()
