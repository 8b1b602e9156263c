"""What a stopped training leaves can be kept and drawn, and does not pass for a finished one."""

import threading
from dataclasses import replace

import numpy as np
import pytest

from toymodel.network.curves import last
from toymodel.network.data import GaussianClasses, Sequences
from toymodel.network.experiments import Experiment
from toymodel.network.runs import Runs
from toymodel.network.training import Rule


def test_unfinished_curves_are_read_and_trained_on(tmp_path):
    whole = Experiment(
        "disentangled_small",
        "disentangled",
        GaussianClasses(30, 5, 8, 0.5, 1.0),
        Rule(Sequences(), batch=16, evaluation_batch=32),
        steps=40,
        every=10,
        seeds=2,
    )
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
