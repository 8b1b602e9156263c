"""Fits: known values come back from noisy curves, derivatives are differences, and wrong input is named."""

import numpy as np
import pandas as pd
import pytest

import toymodel as tm

MODEL = tm.coopetition(alpha=0.13, mu_icl=0.07)
START = tm.paper_start(MODEL, 7)
TIMES = np.linspace(0, 16_000, 81)
NOISE = 0.01


@pytest.fixture(scope="module")
def table():
    """Losses of a run in a unit of time that is twice that of the model, with noise of 1 % of the unlearned loss."""
    runs = tm.flow(MODEL, START, TIMES[-1], times=TIMES)
    draw = np.random.default_rng(3)
    columns = {
        f"L_{m}": runs[f"loss_{m}"].values + NOISE * float(runs[f"unlearned_{m}"]) * draw.normal(size=81)
        for m in ("icl", "ciwl")
    }
    return pd.DataFrame({"epoch": TIMES / 2, **columns})


@pytest.fixture(scope="module")
def found(table):
    return tm.fit(
        tm.coopetition(),
        table,
        free={"alpha": (0.01, 1.0), "mu_icl": (0.01, 1.0), "time": (0.2, 20.0)},
        start=START,
        columns={"icl": "L_icl", "ciwl": "L_ciwl"},
        time="epoch",
        starts=6,
    )


def test_known_values_come_back(found):
    truth = {"alpha": 0.13, "mu_icl": 0.07, "time": 2.0}
    assert found.converged
    for name, value in truth.items():
        one = found.estimates.sel(parameter=name)
        assert one.low < value < one.high, name
        assert one.identified and not one.bound
    assert found.model.parameters["mu_icl"] == float(found.estimates.value.sel(parameter="mu_icl"))


def test_noise_is_estimated(found):
    for m in ("icl", "ciwl"):
        size = float(found.noise.sel(curve=m)) / (found.model.weights[m] / 2)
        norms = [float(START.target_norm.sel(vector=x)) for x in MODEL.mechanisms[m]]
        assert size / np.prod(norms) ** 2 == pytest.approx(NOISE, rel=0.25)
