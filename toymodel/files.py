"""Files: what made them, and how they are written, named and read."""

from __future__ import annotations

import json
import os
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

import jax
import numpy as np
import xarray as xr

from toymodel.checks import PathLike, checked, shown

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


@checked
def save(runs: xr.Dataset, path: PathLike) -> Path:
    """Writes a record or a start to a NetCDF file (`.nc`), under a temporary name first: it is there whole or not at
    all.

    Raises ValueError for another ending and for what a NetCDF file cannot hold, OSError where it cannot be written.
    """
    path = _netcdf(path)
    check_attributes(runs)
    whole = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        runs.assign_attrs(toymodel_format=FORMAT).to_netcdf(whole, engine="h5netcdf", invalid_netcdf=False)
        os.replace(whole, path)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise ValueError(f"runs cannot be written to a NetCDF file: {error}") from None
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error
        raise OSError(f"cannot write {path}: {reason}") from error
    finally:
        whole.unlink(missing_ok=True)
    return path


def check_attributes(runs: xr.Dataset) -> None:
    """Raises ValueError for an attribute that would not come back from a file as it went in."""
    if not runs.variables:
        raise ValueError("runs has no variables; there is nothing to save")
    of_variables = ((f"runs[{name!r}]", variable.attrs) for name, variable in runs.variables.items())
    for where, attributes in (("runs", runs.attrs), *of_variables):
        for name, value in attributes.items():
            if not (isinstance(name, str) and name and _is_kept(value)):
                raise ValueError(
                    f"{where}: the attribute {name!r} must be text, a number or a list of them, got {shown(value)}; "
                    "write others as text, such as json.dumps(...)"
                )


def _is_kept(value: object) -> bool:
    """Text, a number of 64 bits, or a list of one of these."""
    try:
        array = np.asarray(value)
    except ValueError:
        return False
    if isinstance(value, str):
        return "\0" not in value
    if isinstance(value, (list, tuple)) and array.dtype.kind == "U":
        return array.ndim == 1 and all(isinstance(part, str) and "\0" not in part for part in value)
    return array.dtype.kind in "iuf" and array.ndim <= 1


@checked
def load(path: PathLike) -> xr.Dataset:
    """Reads what `save` wrote.

    Raises FileNotFoundError, and ValueError, naming the file, for one that is truncated, is no record, has another
    format version or holds nothing.
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
    if not np.array_equal(found, FORMAT):
        raise ValueError(f"{path} has format {found}, this version of toymodel reads format {FORMAT}")
    if not runs.variables:
        raise ValueError(f"{path} is damaged: it has no variables")
    if "model" in runs.attrs and not _is_table(runs.attrs["model"]):
        raise ValueError(f"{path} is damaged: its attribute 'model' is no table in JSON")
    return runs


def _is_table(text: object) -> bool:
    try:
        return isinstance(json.loads(text), dict)  # type: ignore[arg-type]
    except (TypeError, ValueError, RecursionError):
        return False


def _netcdf(path: PathLike) -> Path:
    path = Path(path)
    if path.suffix != ".nc":
        raise ValueError(f"a record is saved as NetCDF, with a name that ends in .nc, got {path.name!r}")
    return path
