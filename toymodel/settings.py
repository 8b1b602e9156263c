"""Settings of numpy and JAX that hold inside of toymodel's calls only, whatever the user has set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import jax
import numpy as np


@contextmanager
def own_settings() -> Iterator[None]:
    """numpy's own reaction to floating-point errors, and JAX's own transfers; as a `with` block or as a decorator.

    A user who debugs may have set `np.errstate(all="raise")` or `jax_transfer_guard="disallow"`. Neither is meant for
    an underflow, or for a number that goes to the device, in here.
    """
    with np.errstate(divide="warn", over="warn", under="ignore", invalid="warn"), jax.transfer_guard("allow"):
        yield
