"""The closure test of benchmarks/transformer_closure.py, on systems of which it is known whether they close."""

import numpy as np
import pytest
import transformer_closure as closure

pytestmark = pytest.mark.slow
TURN = np.array([[-0.03, 0.1, 0, 0], [-0.1, -0.03, 0, 0], [0, 0, -0.05, 0.02], [0.02, 0, 0, -0.04]])


def run(seed, hidden, steps=60):
    """Four linear coordinates from a random start; `hidden` is the scale of a fifth that they do not show."""
    draw = np.random.default_rng(seed)
    state, drift = [draw.standard_normal(4)], hidden * draw.standard_normal(4)
    for _ in range(steps):
        state.append(state[-1] + TURN @ state[-1] + drift)
    state = np.array(state)
    return closure.Run(state, state[:, 0], 1, 10.0)


def error(hidden):
    runs = [run(seed, hidden) for seed in range(9)]
    law = closure.law(runs[:-1], 0)
    found = closure.score(runs[-1], 5, law, runs[:-1])
    return found["closed"] / found["deviation"]


def test_what_closes_is_followed_and_what_hides_is_not():
    assert error(0.0) < 0.2
    assert error(0.1) > 3 * error(0.0)


def test_increments_know_the_state_from_the_time():
    """Starts differ, so that the time alone says little; with few starts the coordinates say less, too."""
    found = closure.increments([run(seed, 0.0, 24) for seed in range(10)], 0, 4)
    assert found["state"] > 0.9 > found["time"]


def test_a_regression_goes_through_smooth_data():
    x = np.linspace(0, 3, 40)[:, None]
    fitted = closure.ridge(x, np.sin(x), 1.0, 1e-3)
    assert np.abs(fitted(x) - np.sin(x)).max() < 0.02


@pytest.mark.parametrize("every", [50, 200])
def test_adam_moves_rare_weights_by_the_root(every):
    """A gradient that comes once in T steps, T far below the memory of its square: 1 / sqrt(T) a step, not 1 / T."""
    assert closure.moved(every) == pytest.approx(every**-0.5, rel=0.15)
