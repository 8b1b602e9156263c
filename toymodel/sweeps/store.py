"""Where the measures of a sweep are kept: a Zarr store that is written chunk by chunk, or the memory.

A store is a folder in the format Zarr 2, written here file by file, so that making and opening one takes milliseconds
and anyone reads it with `xarray.open_zarr`:

    .zattrs, .zmetadata, NAME/.zarray    the sweep, the versions that made it, and what its arrays are
    alpha/0, mechanism/0, ...            coordinates
    lifetime/0.3, phase/0.3, ...         one file for each variable and chunk, uncompressed; labels as one byte
    progress/checksum/N.0                written after the files of chunk N: the CRC-32 of each of them

A chunk counts only with its checksums. They start from the sweep and the number of the chunk, so a file that was cut
off, changed, or taken from another place or store is found; the same sweep then computes this chunk again, to the same
bytes. A lock keeps a second process away.
"""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import zlib
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from xarray.core import indexing

from toymodel import files, provenance
from toymodel.checks import PathLike, checked
from toymodel.measures import OF_MECHANISM, labels_of
from toymodel.sweeps import measured
from toymodel.sweeps.declare import Sweep
from toymodel.sweeps.grid import Grid
from toymodel.sweeps.layout import MARKS, Layout, Pieces, checksum_of_header
from toymodel.sweeps.measured import times_of, trajectories

FORMAT = 2
VERSIONS = ("toymodel_format", "toymodel_version", "jax_version", "toymodel_code")
SAID = 5  # damaged chunks that an error lists


@cache
def _code() -> str:
    """The fingerprint of the code that computes a chunk."""
    return provenance.fingerprint(*provenance.imports(measured))


def attributes(sweep: Sweep) -> dict[str, Any]:
    """What is written with the result: the sweep and the versions that made it."""
    return {
        "sweep": json.dumps(sweep.identity),
        "model": sweep.model.to_json(),
        "toymodel_format": FORMAT,
        "toymodel_version": provenance.version("toymodel"),
        "jax_version": provenance.version("jax"),
        "toymodel_code": _code(),
    }


def variables(sweep: Sweep) -> dict[str, tuple[tuple[str, ...], str]]:
    """name -> (dimensions after those of the grid, kind of number); labels are their positions in `labels_of`."""
    kinds = {name: "?" if name == "lasts" else "f8" for name in OF_MECHANISM}
    found: dict[str, tuple[tuple[str, ...], str]] = {name: (("mechanism",), kind) for name, kind in kinds.items()}
    found |= {"stopped": ((), "f8"), **dict.fromkeys(labels_of(sweep.model.mechanisms), ((), "u1"))}
    if sweep.every is not None:
        found |= {name: (("time",), "f8") for name in trajectories(sweep.model)}
        found |= {name: (("time", "vector"), "f8") for name in ("overlap", "residual")}
    return found


def coordinates(sweep: Sweep) -> dict[str, tuple[str, np.ndarray]]:
    """name -> (dimension, values)."""
    found = {**Grid.of(sweep).coordinates, "mechanism": ("mechanism", np.array(list(sweep.model.mechanisms)))}
    if sweep.every is not None:
        found |= {"time": ("time", times_of(sweep)), "vector": ("vector", np.array(sweep.model.vectors))}
    return found


class Memory:
    """Results that are kept as arrays."""

    def __init__(self, sweep: Sweep):
        self.sweep, self.grid = sweep, Grid.of(sweep)
        sizes = {name: len(values) for name, (dim, values) in coordinates(sweep).items() if name == dim}
        self.arrays = {
            name: np.zeros((*self.grid.shape, *(sizes[dim] for dim in dims)), kind)
            for name, (dims, kind) in variables(sweep).items()
        }

    def pending(self) -> list[int]:
        return list(self.grid.chunks)

    def write(self, number: int, values: dict[str, np.ndarray]) -> None:
        box = self.grid.box(number)
        for name, array in self.arrays.items():
            array[box] = values[name].reshape(array[box].shape)

    def dataset(self) -> xr.Dataset:
        labels = labels_of(self.sweep.model.mechanisms)
        found = {name: np.array(labels[name])[of] if name in labels else of for name, of in self.arrays.items()}
        parts = {name: ((*self.grid.dims, *dims), found[name]) for name, (dims, _) in variables(self.sweep).items()}
        return xr.Dataset(parts, coords=coordinates(self.sweep), attrs=attributes(self.sweep))


class Store(ExitStack):
    """Results in a store on disk; an existing one is continued if it was made by the same sweep.

    It is locked until it is closed (`with Store(...) as store`). Raises ValueError for a name that does not end in
    .zarr, for another sweep and for a folder that is no store, BlockingIOError where another process is at work, and
    OSError where it cannot be written.
    """

    def __init__(self, sweep: Sweep, path: str | os.PathLike[str]):
        super().__init__()
        self.sweep, self.grid, self.path = sweep, Grid.of(sweep), Path(path)
        if self.path.suffix != ".zarr":
            raise ValueError(f"store must be a name that ends in .zarr, got {self.path.name!r}")
        self.header = _header(sweep)
        self.layout = Layout(json.loads(self.header[".zmetadata"]))
        self.unfinished = set(self.grid.chunks)
        try:
            parent = self.path.absolute().parent
            if not parent.is_dir():
                raise files.cannot_write(path, FileNotFoundError(f"there is no folder {parent}"))
            self.enter_context(files.alone(self.path))
            self._continue() if self.path.exists() else self._create()
        except BaseException:
            self.close()
            raise

    def _create(self) -> None:
        """The header without chunks, under a temporary name first."""
        for left in files.leftovers(self.path.parent, self.path.name):
            shutil.rmtree(left, ignore_errors=True)
        whole = self.path.with_name(f".{self.path.name}.{os.getpid()}.partial")
        try:
            folders = {str(Path(name).parent) for name in (*self.header, *(f"{a}/0" for a in self.layout.arrays))}
            for folder in sorted({*folders, MARKS}):
                (whole / folder).mkdir(parents=True, exist_ok=True)
            for name, content in self.header.items():
                (whole / name).write_bytes(content)
            os.rename(whole, self.path)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):  # where locks do not work
                raise BlockingIOError(f"{self.path}: another process has just made it") from None
            raise files.cannot_write(self.path, error) from error
        finally:
            shutil.rmtree(whole, ignore_errors=True)

    def _continue(self) -> None:
        """Compares, removes what a killed process left, mends the header, and finds the chunks that are not there."""
        self._compare()
        try:
            for left in self.path.rglob(".*.partial*"):
                left.unlink(missing_ok=True)
            for name, content in self.header.items():
                path = self.path / name
                if not path.exists() or path.read_bytes() != content:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    self._put(path, content)
        except OSError as error:
            raise files.cannot_write(self.path, error) from error
        self.unfinished = {n for n in self.unfinished if self.layout.fault(self.path, n) != ""}

    def _compare(self) -> None:
        """Raises ValueError, saying what differs, unless the store was made by this sweep and these versions."""
        found, wanted = _attributes(self.path), attributes(self.sweep)
        for name in VERSIONS:
            if found.get(name) != wanted[name]:
                raise ValueError(
                    f"{self.path} was made with {name} {found.get(name)}, this is {wanted[name]}; "
                    "finish it with that version, or give another store"
                )
        have, want = json.loads(found["sweep"]), json.loads(wanted["sweep"])
        if other := [name for name in want if have.get(name) != want[name]]:
            lines = [f"\n  {name}: {have.get(name)} in the store, {want[name]} in this call" for name in other]
            raise ValueError(f"{self.path} was made by another sweep; give another store, or remove it{''.join(lines)}")

    def pending(self) -> list[int]:
        """The chunks that are still to be computed, damaged ones among them."""
        return sorted(self.unfinished)

    def write(self, number: int, values: dict[str, np.ndarray]) -> None:
        """Writes the files of a chunk, then its checksums.

        Raises ValueError for values that are not those of a whole chunk, OSError where they cannot be written.
        """
        contents = self._contents(number, values)
        mark = self.path / self.layout.mark(number)
        try:
            mark.unlink(missing_ok=True)
            for name, content in contents.items():
                self._put(self.path / name, content)
            self._put(mark, self.layout.checksums(number, contents.values()))
        except OSError as error:
            count = len(self.grid.chunks)
            more = f"; {count - len(self.unfinished)} of {count} chunks are finished and kept"
            raise files.cannot_write(self.path, error, more) from error
        self.unfinished.discard(number)

    def _contents(self, number: int, values: dict[str, np.ndarray]) -> dict[str, bytes]:
        """The files of a chunk, name -> content: at the edge of the grid a chunk of Zarr is filled up."""
        found = {}
        for array in self.layout.arrays.values():
            lengths, value = array.lengths(number), np.asarray(values[array.name])
            runs = math.prod(lengths[: len(self.grid.dims)])
            if value.shape != (runs, *lengths[len(self.grid.dims) :]):
                raise ValueError(
                    f"{self.path}: {array.name} of chunk {number} must be of {runs} runs, got the shape {value.shape}"
                )
            if array.labels:
                wrong = value[(value < 0) | (value >= len(array.labels))]
                if wrong.size:
                    raise ValueError(f"{self.path}: {array.name} of chunk {number} has no label {wrong[0]}")
                value = value + 1
            whole = np.full(array.chunk, array.empty, array.dtype)
            whole[tuple(slice(n) for n in lengths)] = value.reshape(lengths)
            found[array.file(number)] = whole.tobytes()
        return found

    def _put(self, path: Path, content: bytes) -> None:
        """Not flushed to the disk: what a power cut spoils, checksums find."""
        with files.written(path, durable=False) as whole:
            whole.write_bytes(content)

    def dataset(self) -> xr.Dataset:
        return open_sweep(self.path)


@checked
def open_sweep(path: PathLike) -> xr.Dataset:
    """The measures in a store, read when they are used; labels as text.

    All checksums are tested first, which reads each file once (about 1 GB/s).

    Arguments:
        path: a folder that `sweep(store=...)` or `toymodel sweep` wrote, also an unfinished one.

    Returns:
        What `sweep` returns. Runs of chunks that are not there yet are NaN, their labels "not run".

    Raises:
        FileNotFoundError, and ValueError for a folder that holds no sweep or for damaged chunks, which it names.

    >>> import tempfile, toymodel as tm
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     made = tm.sweep(tm.induction(), {"lr": [0.5, 1.0]}, steps=10, store=f"{folder}/a.zarr").load()
    ...     open_sweep(f"{folder}/a.zarr").load().identical(made)
    True
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no such store: {path}")
    if (made := _attributes(path).get("toymodel_format")) != FORMAT:
        raise ValueError(f"{path} has format {made}, this version of toymodel reads format {FORMAT}")
    try:
        layout = Layout(json.loads((path / ".zmetadata").read_bytes()))
        if layout.attributes["header"] != checksum_of_header(layout.metadata):
            raise ValueError(".zmetadata does not have its checksum")
        coords = {name: layout.coordinate(path, name) for name in layout.coordinates}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged, the same sweep mends it: {error!r}") from None
    faults = {number: layout.fault(path, number) for number in range(layout.count)}
    if bad := {number: fault for number, fault in faults.items() if fault}:
        said = [f"chunk {number} (of 0 to {layout.count - 1}): {fault}" for number, fault in bad.items()]
        more = [f"and {len(said) - SAID} other chunks"] if len(said) > SAID else []
        raise ValueError(
            f"{path} is damaged; the same sweep computes these chunks again\n  " + "\n  ".join(said[:SAID] + more)
        )
    finished = frozenset(number for number, fault in faults.items() if fault == "")
    parts = {
        name: xr.Variable(array.dims, indexing.LazilyIndexedArray(Pieces(path, array, finished)))
        for name, array in layout.arrays.items()
    }
    kept = {name: value for name, value in layout.attributes.items() if name not in NOT_KEPT}
    return xr.Dataset(parts, coords=coords, attrs=kept)


def _attributes(path: Path) -> dict[str, Any]:
    """The attributes of a store; raises ValueError for what is none."""
    reasons = []
    for name in (".zattrs", ".zmetadata"):  # the second holds the first once more
        try:
            found = json.loads((path / name).read_bytes())
            found = found if name == ".zattrs" else found["metadata"][".zattrs"]
            if "sweep" in found:
                json.loads(found["sweep"])
                return found
            reasons.append("it has no attribute `sweep`")
        except (OSError, ValueError, KeyError, TypeError) as error:
            reasons.append(str(error))
    raise ValueError(f"{path} is not a store of a sweep: {reasons[0]}")


# The format


NOT_KEPT = ("coordinates", "header")  # attributes that are about the files


def _header(sweep: Sweep) -> dict[str, bytes]:
    """The files of a store that are there before its chunks: name -> content."""
    grid, labels = Grid.of(sweep), labels_of(sweep.model.mechanisms)
    coords = {n: (dim, v.astype(v.dtype.newbyteorder("<"))) for n, (dim, v) in coordinates(sweep).items()}
    sizes = {dim: len(values) for dim, values in coords.values()}
    group: dict[str, Any] = {**attributes(sweep), "coordinates": " ".join(coords)}
    found: dict[str, Any] = {".zgroup": {"zarr_format": 2}, ".zattrs": group}

    def put(name: str, dims: tuple[str, ...], chunks: tuple[int, ...], dtype: str, fill: Any, **others: Any) -> None:
        shape = [sizes[dim] for dim in dims]
        array = {"shape": shape, "chunks": list(chunks), "dtype": dtype, "fill_value": fill, "filters": None, **others}
        found[f"{name}/.zarray"] = {"zarr_format": 2, "order": "C", "compressor": None, **array}
        found[f"{name}/.zattrs"] = {"_ARRAY_DIMENSIONS": list(dims)}

    for name, (dim, values) in coords.items():
        put(name, (dim,), values.shape, values.dtype.str, None)
        found[f"{name}/.zattrs"]["checksum"] = zlib.crc32(values.tobytes())
    for name, (dims, kind) in variables(sweep).items():
        whole, chunks = (*grid.dims, *dims), (*grid.chunk, *(sizes[dim] for dim in dims))
        if name in labels:
            text = np.array(labels[name]).dtype.str
            filters = [{"id": "categorize", "labels": labels[name], "dtype": text, "astype": "|u1"}]
            put(name, whole, chunks, text, None, filters=filters)
        else:
            put(name, whole, chunks, np.dtype(kind).newbyteorder("<").str, "NaN" if kind == "f8" else None)
    found["progress/.zgroup"] = {"zarr_format": 2}
    sizes |= {"chunk": len(grid.chunks), "variable": len(variables(sweep))}
    put(MARKS, ("chunk", "variable"), (1, sizes["variable"]), "<u4", 0)
    group["header"] = checksum_of_header(found)
    written = {name: json.dumps(value, indent=1).encode() for name, value in found.items()}
    written[".zmetadata"] = json.dumps({"zarr_consolidated_format": 1, "metadata": found}).encode()
    return written | {f"{name}/0": values.tobytes() for name, (_, values) in coords.items()}
