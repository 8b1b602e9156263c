"""What a stopped training leaves can be kept and drawn, and does not pass for a finished one."""

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from toymodel.files import alone
from toymodel.network.curves import last
from toymodel.network.data import GaussianClasses, Sequences
from toymodel.network.experiments import Experiment
from toymodel.network.runs import Runs
from toymodel.network.training import Rule

pytestmark = pytest.mark.slow

SMALL = Experiment(
    "disentangled_small",
    "disentangled",
    GaussianClasses(30, 5, 8, 0.5, 1.0),
    Rule(Sequences(), batch=16, evaluation_batch=32),
    steps=40,
    every=10,
    seeds=2,
)


def test_unfinished_curves_are_read_and_trained_on(tmp_path):
    whole = SMALL
    runs = Runs({whole.name: whole}, tmp_path / "curves", tmp_path / "checkpoints")
    runs.run_seeds(whole, (1,))
    runs.stop = threading.Event()
    runs.stop.set()  # the next one stops at its first evaluation
    with pytest.raises(KeyboardInterrupt):
        runs.run_seeds(whole, (0,))
    assert runs.there(whole) == (1,) and runs.begun(whole) == (1,)
    assert runs.so_far(whole) == (0,)
    assert runs.there(whole) == (1,) and runs.begun(whole) == (0, 1) and not runs.finished(whole)
    kept = runs.read(whole.name).loss.sel(evaluator="train")
    np.testing.assert_array_equal(kept.notnull().sum("step"), [1, 5])
    np.testing.assert_array_equal(last(kept), [kept.sel(seed=0, step=0), kept.sel(seed=1, step=40)])
    runs.stop.clear()
    finished = runs.run(whole)
    other = Runs({whole.name: whole}, tmp_path / "other", tmp_path / "others")
    assert runs.finished(whole) and finished.loss.identical(other.run(whole).loss)
    shorter = replace(whole, steps=20)
    assert Runs({whole.name: shorter}, tmp_path / "curves").read(whole.name).step[-1] == 20


def test_one_process_at_a_time_trains_a_seed(tmp_path):
    """Two would write to the same checkpoints."""
    runs = Runs({SMALL.name: SMALL}, tmp_path / "curves", tmp_path / "checkpoints")
    folder = tmp_path / "checkpoints" / runs.made_of(SMALL)
    folder.mkdir(parents=True)
    with alone(folder / "latest_1.eqx"), pytest.raises(BlockingIOError, match="another process is at work"):
        runs.run_seeds(SMALL, (1,))
    assert not list((tmp_path / "curves").iterdir())


def test_the_curves_in_the_repository_are_of_the_experiments_of_today():
    """A change of a declaration, or of how its hash is made, must not ask for hours of training unseen."""
    runs = Runs(curves=Path(__file__).parent.parent / "networks")
    files = {path.stem for path in runs.folder.glob("*.nc")}
    assert files and all(runs.begun(runs.named(name)) for name in files)
