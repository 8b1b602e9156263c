"""What made a file: versions and the commit of the working tree, as attributes of every record."""

from __future__ import annotations

import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

import jax
import numpy as np


def origin() -> dict[str, str]:
    """Versions of toymodel, JAX and numpy, and the commit ("unknown" outside of a working tree)."""
    return {
        "toymodel_version": version("toymodel"),
        "toymodel_commit": commit(),
        "jax_version": jax.__version__,
        "numpy_version": np.__version__,
    }


@cache
def version(package: str) -> str:
    """The version of an installed package."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


@cache
def commit() -> str:
    """The commit of the working tree that this module lies in, with "-dirty" where a tracked file differs from it;
    "unknown" outside of one."""
    here = str(Path(__file__).resolve().parent)
    describe = ["git", "-C", here, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        found = subprocess.run(describe, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return found.stdout.strip() or "unknown"
