"""How long the networks train: one seed of each on full data, and all experiments, from a few evaluations.

    make benchmarks, or: .venv/bin/python benchmarks/networks.py

Times are on one core once the training is compiled; an experiment of `make networks` counts its seeds x steps, at the
rate of the network on full data.
"""

import tempfile
import time
from dataclasses import replace
from pathlib import Path

from toymodel.network.experiments import DISENTANGLED, TRANSFORMER, Experiment, all_experiments
from toymodel.network.runs import Runs


def seconds_a_step(full: Experiment, evaluations: int = 4) -> float:
    """Of one seed, evaluations included."""
    short = replace(full, name="short", steps=evaluations * full.every, keep=(), seeds=1)
    found = []
    for _ in range(2):  # the first one compiles
        with tempfile.TemporaryDirectory() as folder:
            runs = Runs({short.name: short}, Path(folder), Path(folder))
            begin = time.perf_counter()
            runs.train(short, progress=False)
            found.append(time.perf_counter() - begin)
    return found[-1] / short.steps


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


if __name__ == "__main__":
    main()
