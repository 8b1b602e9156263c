"""Files: what made them, and how they are written, named and read."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

import jax
import numpy as np
import xarray as xr

FORMAT = 1


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


def save(runs: xr.Dataset, path: str | os.PathLike[str]) -> Path:
    """Writes a record or a start to a NetCDF file (`.nc`), under a temporary name first: it is there whole or not at
    all.

    Raises ValueError for another ending, OSError where it cannot be written.
    """
    path = _netcdf(path)
    whole = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        runs.assign_attrs(toymodel_format=FORMAT).to_netcdf(whole, engine="h5netcdf", invalid_netcdf=False)
        os.replace(whole, path)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error
        raise OSError(f"cannot write {path}: {reason}") from error
    finally:
        whole.unlink(missing_ok=True)
    return path


def load(path: str | os.PathLike[str]) -> xr.Dataset:
    """Reads what `save` wrote.

    Raises FileNotFoundError, and ValueError for a file that is truncated, is no record, or has another format version.
    """
    path = _netcdf(path)
    if not path.exists():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        with xr.open_dataset(path, engine="h5netcdf") as file:
            runs = file.load()
    except Exception as error:
        raise ValueError(f"{path} is damaged or no NetCDF file: {error}") from None
    found = runs.attrs.get("toymodel_format")
    if found is None:
        raise ValueError(f"{path} is not a record of toymodel (it has no toymodel_format)")
    if found != FORMAT:
        raise ValueError(f"{path} has format {found}, this version of toymodel reads format {FORMAT}")
    return runs


def _netcdf(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    if path.suffix != ".nc":
        raise ValueError(f"a record is saved as NetCDF, with a name that ends in .nc, got {path.name!r}")
    return path
