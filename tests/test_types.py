"""Shapes are checked while tests run; a hook that is misspelt would check nothing, silently."""

import jax.numpy as jnp
import pytest
from jaxtyping import TypeCheckError

from toymodel.state import coordinates


def test_a_wrong_shape_is_an_error():
    with pytest.raises(TypeCheckError):
        coordinates(jnp.zeros((2, 3)), jnp.zeros((2, 4)))
