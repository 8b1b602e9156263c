"""Shared pieces of the tests."""

import gc
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import settings

import toymodel as tm

gc.set_threshold(200_000, 20, 20)  # the symbols of sympy and the traces of JAX are many, and few of them are garbage
jax.config.update("jax_numpy_rank_promotion", "raise")
settings.register_profile("toymodel", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("toymodel")


@pytest.fixture(scope="module", autouse=True)
def no_mixed_types(request):
    """In simulations no array is promoted to another type unasked; sweeps and networks count, and mix types for it."""
    strict = request.path.stem in ("test_reduction", "test_descent", "test_interventions", "test_flow")
    jax.config.update("jax_numpy_dtype_promotion", "strict" if strict else "standard")
    yield
    jax.config.update("jax_numpy_dtype_promotion", "standard")


@pytest.fixture(scope="module", autouse=True)
def quickly_compiled(request):
    """Some tests compile without XLA's optimisations: the same programs, which take longer to compile than to run."""
    quickly = request.path.stem.startswith(("test_network", "test_gradients", "test_theory_attention"))
    jax.config.update("jax_disable_most_optimizations", quickly)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="session")
def data() -> Path:
    return Path(__file__).parent / "data"


@pytest.fixture(scope="session")
def paper_runs():
    """The paper's 12 seeds at its parameters, every step recorded."""
    model = tm.coopetition(alpha=0.1, mu_icl=0.1)
    return tm.descend(model, tm.paper_start(model, seeds=range(12)), steps=16_000)


def closeness(left, right, relative: float, absolute: float = 0.0) -> float:
    """The largest difference in units of the tolerance: <= 1 passes."""
    left, right = np.asarray(left), np.asarray(right)
    return float(np.max(np.abs(left - right) / (absolute + relative * np.abs(right))))
