"""What the gradient of an event time costs, in runs: backward for all parameters, forward for one direction.

    .venv/bin/python benchmarks/gradients.py            (a minute, most of it to compile)

The run itself finds the event, too. Times are seconds of the processor, the best of several.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import toymodel as tm
from toymodel.simulation.gradients import differentiable, values_of

MODEL = tm.coopetition()
RUNS = 64


def timed(run: Callable[[], Any], times: int = 9) -> float:
    """The shortest of several times."""
    found = []
    for _ in range(times):
        processor = time.process_time()
        jax.block_until_ready(run())
        found.append(time.process_time() - processor)
    return min(found)


def main() -> None:
    with jax.enable_x64(True):
        flow = differentiable(MODEL)
        one = values_of(MODEL, tm.paper_start(MODEL, 7))
        alphas = jnp.geomspace(0.05, 0.2, RUNS)
        several = jax.tree.map(lambda value: jnp.full(RUNS, value), one)
        several["parameters"]["alpha"] = alphas

        def emergence(values: Any) -> Any:
            return flow.emergence(values, "icl")

        def along(values: Any) -> Any:
            return jax.jvp(emergence, (values,), (values,))

        ways = {"run": emergence, "backward": jax.value_and_grad(emergence), "forward": along}
        for name, values, wrap in (("one run", one, lambda f: f), (f"{RUNS} runs under vmap", several, jax.vmap)):
            print(f"{name:24}{'compile':>10}{'ms':>10}{'in runs':>10}")
            base = None
            for way, function in ways.items():
                compiled = jax.jit(wrap(function))
                compiling = timed(lambda c=compiled, v=values: c(v), 1)
                seconds = timed(lambda c=compiled, v=values: c(v))
                base = base or seconds
                print(f"  {way:22}{compiling:8.1f} s{1e3 * seconds:10.2f}{seconds / base:10.2f}")


if __name__ == "__main__":
    main()
