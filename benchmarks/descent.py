"""How fast a simulation is: the reduced kernel, all entries, and a Python loop that tracks its measures at each step.

    make benchmarks, or: .venv/bin/python benchmarks/descent.py

The last one is the kind that the paper's toy figures were made with: a Python loop around a gradient, with each measure
evaluated after every step; here its gradient is compiled, which the authors' was not. Times are the best of three
after compilation.
"""

import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

import toymodel as tm
from toymodel.simulation.tensors import tensor_loss, tensor_terms


def best(run: Callable[[], object], times: int = 3) -> float:
    """The shortest of several times in seconds, after one call that compiles."""
    run()
    seconds = []
    for _ in range(times):
        begin = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def tracking_loop(model: tm.Model, steps: int) -> None:
    """Gradient descent on all entries in float32: one compiled step, then every measure, operation by operation."""
    vectors = tm.paper_vectors(model, 7)
    values = {x: jnp.asarray(vectors[x].values) for x in model.vectors}
    targets = {x: jnp.asarray(vectors[f"{x}_target"].values) for x in model.vectors}

    def loss(values):
        return tensor_loss(model.form, values, targets, model.weights, model.parameters)

    @jax.jit
    def step(values):
        slope = jax.grad(loss)(values)
        return {x: values[x] - slope[x] for x in values}

    def terms(values):
        return tensor_terms(model.form, lambda _term, x: values[x], targets, model.weights)

    history = []
    for _ in range(steps):
        history.append([float(loss(values)), *(float(value) for value in terms(values).values())])
        values = step(values)


def main() -> None:
    model = tm.coopetition(alpha=0.1, mu_icl=0.1)
    paper = tm.paper_start(model, seeds=range(12))
    many = tm.random_start(model, seeds=range(4096))

    def measured():
        return tm.measure(tm.descend(model, paper, 16_000))

    twelve = best(measured)
    batch = best(lambda: tm.descend(model, many, 16_000, every=80, progress=False))
    one = best(lambda: tm.descend_vectors(model, tm.paper_vectors(model, 7), 1600, every=10), times=1) * 10
    loop = best(lambda: tracking_loop(model, 200), times=1) * 80
    print(f"{'12 seeds x 16,000 steps, every step recorded, all measures':64}{twelve:10.2f} s")
    print(f"{'4,096 runs x 16,000 steps, recorded at 201 times':64}{batch:10.2f} s = {4096 / batch:,.0f} runs/s")
    print(f"{'1 run x 16,000 steps of all entries (from 1,600)':64}{one:10.2f} s")
    print(f"{'1 run x 16,000 steps in a tracking loop in Python (from 200)':64}{loop:10.2f} s")
    print(f"{'the loop against the reduced kernel, for each run':64}{loop / (twelve / 12):10,.0f} x")


if __name__ == "__main__":
    main()
