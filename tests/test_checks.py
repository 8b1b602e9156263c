"""The check at the public boundary: what is taken, what is said, and what it costs."""

import inspect
import time
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import toymodel as tm
from toymodel.checks import Finite, NonNegative, PathLike, Positive, Seeds, Steps, Tolerance, checked, shown


@checked
def called(
    steps: Steps,
    *,
    lr: Positive = 1.0,
    name: str | None = None,
    kind: Literal["a", "b"] = "a",
    **parameters: NonNegative,
) -> int:
    """Something."""
    return int(steps)


@pytest.mark.parametrize("steps", [3, np.int16(3), np.uint64(3)])
@pytest.mark.parametrize("lr", [0.5, 1, np.float32(0.5), np.array(0.5), xr.DataArray(0.5), jnp.float32(0.5)])
def test_numbers_of_any_library_are_taken(steps, lr):
    assert called(steps, lr=lr, name="x", kind="b", alpha=lr) == 3


def test_numbers_that_jax_has_not_computed_yet_are_taken():
    assert float(jax.jit(jax.grad(lambda lr: called(3, lr=lr, alpha=lr) * lr))(2.0)) == 3.0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"steps": "x"}, "called: steps must be a whole number >= 1, got 'x'"),
        ({"steps": 0}, "called: steps must be a whole number >= 1, got 0"),
        ({"steps": True}, "called: steps must be a whole number >= 1, got True"),
        ({"steps": 2**63}, "called: steps must be a whole number within 1..1,000,000,000,000, got 9223372036854775808"),
        ({"steps": 1, "lr": 0}, "called: lr must be > 0 and finite, got 0"),
        ({"steps": 1, "lr": [1, 2]}, "called: lr must be a number > 0, got [1, 2]"),
        ({"steps": 1, "lr": np.ones(3)}, "called: lr must be a number > 0, got a ndarray of shape (3,)"),
        ({"steps": 1, "name": 3}, "called: name must be text or None, got 3"),
        ({"steps": 1, "kind": "c"}, "called: kind must be one of 'a', 'b', got 'c'"),
        ({"steps": 1, "alpha": -1}, "called: alpha must be >= 0 and finite, got -1"),
        ({"steps": 1, "alpha": None}, "called: alpha must be a number >= 0, got None"),
    ],
)
def test_the_argument_what_was_given_and_what_is_allowed(arguments, says):
    with pytest.raises(ValueError) as caught:
        called(**arguments)
    assert str(caught.value) == says


def test_a_violation_inside_is_that_of_the_function_inside():
    @checked
    def outer(t: Finite) -> int:
        return called(-1)

    with pytest.raises(ValueError, match="called: steps"):
        outer(1.0)


def test_a_check_costs_a_few_microseconds():
    """In processor time, the fastest of several: well below 0.1 ms, whatever else the machine does."""
    times = []
    for _ in range(5):
        began = time.process_time()
        for _ in range(1000):
            called(3, lr=0.5, name="x", alpha=1.0)
        times.append((time.process_time() - began) / 1000)
    assert min(times) < 50e-6


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.float32(0.5), "0.5"),
        (np.array(2.0), "a ndarray of 2.0"),
        (int, "the class int"),
        (called, "the function called"),
        (xr.Dataset(), "a Dataset"),
    ],
)
def test_values_are_shown_in_a_line(value, text):
    assert shown(value) == text
    assert shown(10**6000) == "a number of thousands of digits"
    assert len(shown("x" * 10**6)) < 200 and len(shown(list(range(10**6)))) < 200


def test_the_signature_stays():
    assert list(inspect.signature(called).parameters) == ["steps", "lr", "name", "kind", "parameters"]
    assert list(inspect.signature(tm.Model).parameters)[:3] == ["mechanisms", "loss", "dims"]
    assert called.__doc__ == "Something."


@pytest.mark.parametrize(
    ("hint", "good", "bad"),
    [
        (Tolerance, [1e-9, 0.5], [0, 1, "x", np.nan]),
        (Seeds, [0, [1, 2], range(3), np.arange(2)], [None, 1.5]),
        (PathLike, ["a.nc"], ["", 3, None, "a\0"]),
        (Finite, [-1, 0.0], [np.inf, "1", None, 10**400, 1j]),
    ],
)
def test_aliases(hint, good, bad):
    @checked
    def takes(x: hint):
        return None

    for value in good:
        takes(value)
    for value in bad:
        with pytest.raises(ValueError, match="takes: x must be"):
            takes(value)
