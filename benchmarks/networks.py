"""How long the networks train: one seed of each on full data, where a step's time goes, and all experiments.

    make benchmarks, or: .venv/bin/python benchmarks/networks.py

Times are those of the processor on one core once the training is compiled; an experiment of `make networks` counts its
seeds x steps, at the rate of the network on full data.
"""

import os

os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false " + os.environ.get("XLA_FLAGS", "")  # one core

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax

from toymodel.network.experiments import DISENTANGLED, TRANSFORMER, Experiment, all_experiments
from toymodel.network.runs import Runs, drawn
from toymodel.network.training import train_seeds

FEW = 16  # classes of a network whose read-out and embeddings cost nothing


def seconds_a_step(full: Experiment, evaluations: int = 3) -> float:
    """Of one seed, evaluations included."""
    short = replace(full, name="short", steps=evaluations * full.every, keep=(), seeds=1)
    found = []
    for _ in range(2):  # the first one compiles
        with tempfile.TemporaryDirectory() as folder:
            runs = Runs({short.name: short}, Path(folder), Path(folder))
            begin = time.process_time()
            runs.train(short, (0,), progress=False)
            found.append(time.process_time() - begin)
    return found[-1] / short.steps


def parts_of_a_step(full: Experiment, steps: int = 200) -> dict[str, float]:
    """Seconds of a step without evaluation, of one with few classes, of the optimiser alone, and of an evaluation."""

    def trained(experiment: Experiment) -> tuple[float, float]:
        states, exemplars, keys = drawn(experiment, (0,))

        def run(count: int) -> float:
            nonlocal states
            begin = time.process_time()
            states, row = train_seeds(states, (), exemplars, keys, experiment.rule, count)
            jax.block_until_ready(row)
            return time.process_time() - begin

        run(1)
        evaluation = min(run(0) for _ in range(3))
        return (min(run(steps) for _ in range(3)) - evaluation) / steps, evaluation

    whole, evaluation = trained(full)
    few, _ = trained(replace(full, classes=replace(full.classes, classes=FEW)))
    states, _, _ = drawn(full, (0,))
    weights, rule = jax.tree.map(lambda w: w[0], states.network), full.rule.transformation()

    @jax.jit
    def updated(weights: object, memory: object) -> object:
        return jax.lax.fori_loop(0, steps, lambda _, of: (of[0], rule.update(of[0], of[1])[1]), (weights, memory))

    adam = timed(lambda: updated(weights, rule.init(weights))) / steps  # pyright: ignore
    return {"step": whole, "... of few classes": few, "Adam's moments of all weights": adam, "evaluation": evaluation}


def timed(what: Callable[[], object]) -> float:
    """Processor time of the second call."""
    jax.block_until_ready(what())
    begin = time.process_time()
    jax.block_until_ready(what())
    return time.process_time() - begin


def main() -> None:
    whole = 0.0
    for full in (DISENTANGLED, TRANSFORMER):
        rate = seconds_a_step(full)
        of_network = [e for e in all_experiments().values() if e.network == full.network]
        seconds = rate * sum(e.steps * e.seeds for e in of_network)
        whole += seconds
        print(
            f"{full.network:13}{1e3 * rate:7.2f} ms a step, {rate * full.steps:4.0f} s for one seed of {full.steps:,}, "
            f"{seconds / 60:4.0f} min for {len(of_network)} experiments"
        )
    print(f"make networks, two experiments at once on two cores: {whole / 120:.0f} min")
    for name, seconds in parts_of_a_step(TRANSFORMER).items():
        print(f"transformer, {name:32}{1e3 * seconds:8.2f} ms")


if __name__ == "__main__":
    main()
