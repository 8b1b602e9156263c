"""How fast sweeps are, against other ways to compute the same, and what bounds them.

    make benchmarks, or: .venv/bin/python benchmarks/sweep.py            (about two minutes on two free cores)
    .venv/bin/python benchmarks/sweep.py --full        with the diagram of 256 x 256 and a million runs

Every ratio is between two times of the same call of this script, each the best of several. Seconds of the clock and of
the processor (all cores) are both given: where other programs take part of the cores, only the latter are comparable.

The bound of descent, measured by this script on two cores of two machines (AVX-512, 1 and 2 MiB of second-level
cache): a step of a call and its measures takes 1.7 to 1.9 us, whatever the number of runs, and 13 to 15 ns for each
run. The former, the dispatch of 22 compiled operations, is 20 % of the time for 512 runs and 5 % for 2,048, which a
large sweep puts into a call; a small one would then leave a core idle. The latter is arithmetic: 231 operations as
written, about 400 as compiled, because the compiler computes what two coordinates share anew for each; 15 to 30 of them
per ns. Memory is not the bound: the arrays of a call stay in the second-level cache, and the time for each run does not
grow up to 4,096 runs.

A sweep costs 0.15 s beside its steps, most of it to make and to open the store. So the cost of a run of 4,000 steps is
the same within 5 % for 100,000 and for a million runs, but 1.4 times that for 10,000 and 5 times for 1,000.

float32 gains 25 % and is not the default: phases agree in more than 99 % of runs, but times of emergence only to 1 %,
and a fixed point of the arithmetic, which ends a run early, is one of float32.
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

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from descent import tracking_loop

import toymodel as tm
from toymodel.simulation.problem import problem_of_start
from toymodel.sweeps import kernel

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
    print(f"\n{name:58}{'runs/s':>10}{'ratio':>9}{'per processor second':>22}{'ratio':>9}")
    for what, clock, processor in rows:
        of_clock, of_processor = rows[-1][1] / clock, rows[-1][2] / processor
        print(f"{what:58}{1 / clock:10,.2f}{of_clock:9,.1f}{1 / processor:22,.2f}{of_processor:9,.1f}")


def descents() -> None:
    n = 64
    sweep = {p: timed(partial(tm.sweep, MODEL, plane(n), 7, STEPS, precision=p, progress=False), 4) for p in (
        "float64", "float32")}  # fmt: skip
    start = tm.paper_start(MODEL, seeds=7)
    axis = np.geomspace(LOW, HIGH, n)
    record = timed(lambda: tm.descend(MODEL, start, STEPS, every=80, progress=False, alpha=axis, mu_icl=axis), 2)
    tracking_loop(MODEL, 5)
    loop = timed(lambda: tracking_loop(MODEL, 100), 1)
    rows = [(f"sweep, {p}, all measures", *(t / n**2 for t in both)) for p, both in sweep.items()]
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
    """What a step costs for each run and for each call, and the former against a loop of nothing but arithmetic."""

    @partial(jax.jit, compiler_options=kernel.OPTIONS)
    def pure(values: Any) -> Any:
        def body(_: Any, several: Any) -> Any:
            for _ in range(16):
                several = [value * 0.999 + 0.0005 for value in several]
            return several

        return jax.lax.fori_loop(0, 2000, body, values)

    with jax.enable_x64(True):
        several = [jnp.linspace(i, i + 1, kernel.WIDTH) for i in range(1, 7)]
        jax.block_until_ready(pure(several))
        _, seconds = timed(lambda: jax.block_until_ready(pure(several)), 9)
        most = 2 * 16 * 2000 * 6 * kernel.WIDTH / seconds / 1e9
        widths = (kernel.WIDTH // 4, kernel.WIDTH, kernel.WIDTH * 8)
        seconds, count = [step_seconds(width) for width in widths], step_operations()
    each, fixed = np.polyfit(widths, [1e9 * one for one in seconds], 1)
    print(f"\nbound, one core: a step takes {fixed / 1e3:.1f} us and {each:.1f} ns for each run in it")
    print(f"dispatch, the former, is {100 * fixed / (fixed + each * kernel.WIDTH):.0f} % at {kernel.WIDTH} runs")
    print(
        f"arithmetic, the latter: {count} operations as written, {count / each:.0f} per ns; pure fused multiplications"
    )
    print(f"and additions in registers: {most:.0f} per ns")


def work_of(width: int) -> kernel.Work:
    problem = problem_of_start(MODEL, START(range(width)), (), None, {})
    inside = dict.fromkeys(MODEL.mechanisms, jnp.full(width, 0.1))
    tracker = {m: kernel.nothing_yet(width) for m in MODEL.mechanisms}
    zeros, state = np.zeros(width), problem.reduced(START(range(width)))
    fixed = dict(MODEL.weights), dict(MODEL.parameters)
    return kernel.Work(state, tracker, zeros + np.inf, zeros, *fixed, inside, zeros + 1.0)


def step_seconds(width: int, steps: int = 1024) -> float:
    """Seconds of the processor for one step of `width` runs, measures included."""
    lanes = kernel.Lanes.of(work_of(width), "float64")

    def call() -> None:
        arguments = (MODEL.form, MODEL.form, frozenset(), None, 0, steps, 0, lanes.tree, lanes.leaves)
        jax.block_until_ready(kernel._advance(*arguments))

    call()
    return timed(call, 9)[1] / steps


def step_operations() -> int:
    """Operations of one step and its measures as written, each done once."""
    work = work_of(8)
    stage = kernel._Stage(MODEL.form, MODEL.form, frozenset(), work)

    def one(u: Any, v: Any, tracker: Any) -> Any:
        values, pull = jax.vjp(stage.terms, u, v)
        u, v = stage.step(u, v, values, pull, True)
        return u, v, {m: kernel.tracked(tracker[m], 1.0, values[m], work.inside[m]) for m in tracker}

    return operations(jax.make_jaxpr(one)(stage.u, stage.v, work.tracker).jaxpr)


def operations(jaxpr: Any) -> int:
    """Arithmetic operations and comparisons on arrays of runs in a program."""
    kinds = {"add", "sub", "mul", "div", "neg", "integer_pow", "min", "max", "lt", "gt", "ge", "eq", "select_n", "and",
             "square", "add_any"}  # fmt: skip
    found = 0
    for equation in jaxpr.eqns:
        inner = [value.jaxpr for value in equation.params.values() if hasattr(value, "jaxpr")]
        found += sum(map(operations, inner)) if inner else equation.primitive.name in kinds
    return found


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
