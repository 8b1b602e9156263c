"""Records of runs as NetCDF files with a checksum: `save` and `load`."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from toymodel.checks import PathLike, checked, shown
from toymodel.files import written

FORMAT = 1
CHECKSUM = "toymodel_checksum"


@checked
def save(runs: xr.Dataset, path: PathLike) -> Path:
    """Writes a record or a start to a NetCDF file with a checksum, whole or not at all.

    Arguments:
        runs: a Dataset whose attributes are text, numbers or lists of them.
        path: a name that ends in .nc.

    Returns:
        The path.

    Raises:
        ValueError for another ending and for what a NetCDF file cannot hold, OSError where it cannot be written.

    >>> import tempfile, toymodel as tm
    >>> model = tm.induction()
    >>> start = tm.aligned_start(model)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     tm.load(tm.save(start, f"{folder}/start.nc")).equals(start)
    True
    """
    path = _netcdf(path)
    check_attributes(runs)
    runs = runs.assign_attrs(toymodel_format=FORMAT)
    try:  # in memory first: HDF5 may end the process where a disk is full
        runs = runs.assign_attrs({CHECKSUM: checksum(runs)})
        content = bytes(runs.to_netcdf(engine="h5netcdf", invalid_netcdf=False))
    except Exception as error:  # of xarray, h5netcdf, h5py: each has kinds of its own
        raise ValueError(f"runs cannot be written to a NetCDF file: {error}") from None
    with written(path) as whole:
        whole.write_bytes(content)
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

    Arguments:
        path: a name that ends in .nc.

    Returns:
        The Dataset, in memory.

    Raises:
        FileNotFoundError, and ValueError, naming the file, for one that is damaged, is no record, has another format
        version or holds nothing.

    >>> import toymodel as tm
    >>> tm.load("gone.nc")
    Traceback (most recent call last):
        ...
    FileNotFoundError: no such file: gone.nc
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
    wanted = runs.attrs.pop(CHECKSUM, None)
    if wanted is not None and wanted != checksum(runs):
        raise ValueError(f"{path} is damaged: its content does not have the checksum that it was saved with")
    if "model" in runs.attrs and not _is_table(runs.attrs["model"]):
        raise ValueError(f"{path} is damaged: its attribute 'model' is no table in JSON")
    return runs


def _is_table(text: object) -> bool:
    try:
        return isinstance(json.loads(text), dict)  # type: ignore[arg-type]
    except (TypeError, ValueError, RecursionError):
        return False


def checksum(runs: xr.Dataset) -> str:
    """CRC-32 of all that a file keeps of a dataset: names, dimensions, values and attributes, as 8 hexadecimal
    digits."""
    found = 0
    for name in sorted(map(str, runs.variables)):
        variable = runs.variables[name]
        value = np.ascontiguousarray(variable.values)
        texts = value.dtype.kind in "OUST"
        plain = repr(value.astype(str).tolist()).encode() if texts else value.astype(value.dtype.newbyteorder("<"))
        found = zlib.crc32(repr((name, variable.dims, value.shape, _said(variable.attrs))).encode(), found)
        found = zlib.crc32(plain if isinstance(plain, bytes) else plain.tobytes(), found)
    return f"{zlib.crc32(_said(runs.attrs).encode(), found):08x}"


def _said(attributes: Any) -> str:
    """Attributes as text that is the same before and after a file."""
    plain = {str(n): np.asarray(v).tolist() for n, v in attributes.items() if n != CHECKSUM}
    return repr(sorted((n, v[0] if isinstance(v, list) and len(v) == 1 else v) for n, v in plain.items()))


def _netcdf(path: PathLike) -> Path:
    path = Path(path)
    if path.suffix != ".nc":
        raise ValueError(f"a record is saved as NetCDF, with a name that ends in .nc, got {path.name!r}")
    return path
