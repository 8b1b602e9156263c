"""Settings of numpy and JAX that hold inside of toymodel's calls only, whatever the user has set.

JAX is never used in the child of a fork: its threads do not outlive the fork, so a child that computes with the copy of
its parent's JAX waits for ever.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

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


@contextmanager
def own_jax() -> Iterator[None]:
    """JAX in float64 and with its own rules for what is computed inside, in this thread only.

    Raises RuntimeError in the child of a fork whose parent has used JAX.
    """
    refuse_fork()
    with ExitStack() as stack:
        for setting in (
            jax.enable_x64(True),
            jax.transfer_guard("allow"),
            jax.debug_nans(False),  # a step that fails is infinite, and is repeated
            jax.debug_infs(False),
            jax.numpy_rank_promotion("allow"),
            jax.numpy_dtype_promotion("standard"),
        ):
            stack.enter_context(setting)
        yield


_used_by: int | None = None  # the process in which the package first computed with JAX


def refuse_fork() -> None:
    """Raises RuntimeError in the child of a fork whose parent has used JAX; call it before JAX is used."""
    global _used_by
    _used_by = _used_by or os.getpid()
    if _used_by != os.getpid():
        raise RuntimeError(
            "JAX was used before this process was forked, and cannot be used in it: start processes with "
            "multiprocessing.get_context('spawn')"
        )


def _note_use_before_fork() -> None:
    """The user may have computed with JAX before the package did; its private module is the one place that knows."""
    global _used_by
    try:
        from jax._src.xla_bridge import backends_are_initialized

        if _used_by is None and backends_are_initialized():
            _used_by = os.getpid()
    except ImportError:
        pass


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_note_use_before_fork)
