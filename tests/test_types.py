"""Shapes are checked while tests run; a hook that is misspelt would check nothing, silently."""

import subprocess
import sys

import jax.numpy as jnp
import pytest
from jaxtyping import TypeCheckError

from toymodel.simulation.tensors import coordinates


def test_a_wrong_shape_is_an_error():
    with pytest.raises(TypeCheckError):
        coordinates(jnp.zeros((2, 3)), jnp.zeros((2, 4)))


@pytest.mark.slow
def test_flow_is_the_function_whatever_was_imported_first():
    """The module has the name of the function in it; importing the module must not put it in the function's place."""
    code = "import toymodel as tm, toymodel.simulation.flow; assert callable(tm.flow), tm.flow"
    subprocess.run([sys.executable, "-c", code], check=True)
