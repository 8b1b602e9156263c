"""The format of a store: its arrays, the files of their chunks with the checksums, and how they are read."""

from __future__ import annotations

import itertools
import json
import math
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from toymodel.sweeps.grid import Cut

NOT_RUN = "not run"
MARKS = "progress/checksum"


@dataclass(frozen=True)
class Array(Cut):
    """A variable of a store."""

    name: str
    dims: tuple[str, ...]
    dtype: np.dtype  # in the files
    labels: tuple[str, ...]

    @property
    def empty(self) -> float:
        return np.nan if self.dtype.kind == "f" else 0

    def file(self, number: int) -> str:
        """The file of a chunk."""
        return f"{self.name}/{'.'.join(map(str, self.corner(number))) or '0'}"

    @property
    def bytes(self) -> int:
        return math.prod(self.chunk) * self.dtype.itemsize


class Layout:
    """What the consolidated metadata of a store say: its arrays, and where the parts of a chunk are."""

    def __init__(self, metadata: dict[str, Any]):
        self.metadata = metadata["metadata"]
        self.attributes: dict[str, Any] = self.metadata[".zattrs"]
        self.coordinates: list[str] = self.attributes["coordinates"].split()
        names = [name.removesuffix("/.zarray") for name in self.metadata if name.endswith("/.zarray")]
        every = {name: self._array(name) for name in names}
        self.arrays = {name: every[name] for name in names if name not in self.coordinates and name != MARKS}
        self.of_coordinates = {name: every[name] for name in self.coordinates}
        self.count = every[MARKS].shape[0]
        self.sweep = self.attributes["sweep"].encode()

    def _array(self, name: str) -> Array:
        found = self.metadata[f"{name}/.zarray"]
        filters = found["filters"] or []
        labels = tuple(filters[0]["labels"]) if filters else ()
        dims = tuple(self.metadata[f"{name}/.zattrs"]["_ARRAY_DIMENSIONS"])
        kind = np.dtype("u1" if filters else found["dtype"])
        return Array(tuple(found["shape"]), tuple(found["chunks"]), name, dims, kind, labels)

    def coordinate(self, path: Path, name: str) -> xr.Variable:
        """The values of a coordinate; raises ValueError for a file without the checksum of the header."""
        array, content = self.of_coordinates[name], (path / name / "0").read_bytes()
        if zlib.crc32(content) != self.metadata[f"{name}/.zattrs"]["checksum"]:
            raise ValueError(f"{name}/0 does not have its checksum")
        return xr.Variable(array.dims, np.frombuffer(content, array.dtype).reshape(array.shape).copy())

    def mark(self, number: int) -> str:
        return f"{MARKS}/{number}.0"

    def checksums(self, number: int, contents: Iterable[bytes]) -> bytes:
        """The CRC-32 of each file of a chunk, begun with the sweep and the number."""
        begun = zlib.crc32(self.sweep + b" %d" % number)
        return np.array([zlib.crc32(content, begun) for content in contents], "<u4").tobytes()

    def fault(self, path: Path, number: int) -> str | None:
        """Why a chunk is damaged: "" where it is not, None where it was never finished."""
        try:
            mark = (path / self.mark(number)).read_bytes()
        except FileNotFoundError:
            return None
        if len(mark) != 4 * len(self.arrays):
            return f"{self.mark(number)} has {len(mark)} bytes, not {4 * len(self.arrays)}"
        contents = []
        for array in self.arrays.values():
            name = array.file(number)
            try:
                contents.append((path / name).read_bytes())
            except OSError as error:
                return f"{name} cannot be read: {error.strerror}"
            if len(contents[-1]) != array.bytes:
                return f"{name} has {len(contents[-1])} bytes, not {array.bytes}"
        same = np.frombuffer(self.checksums(number, contents), "<u4") == np.frombuffer(mark, "<u4")
        wrong = [array.file(number) for array, fits in zip(self.arrays.values(), same, strict=True) if not fits]
        return f"{', '.join(wrong)} without the right checksum" if wrong else ""


class Pieces(BackendArray):
    """A variable of a store, whose values are read when they are used, chunk by chunk."""

    def __init__(self, path: Path, array: Array, finished: frozenset[int]):
        self.path, self.array, self.finished = path, array, finished
        self.shape = array.shape
        self.texts = np.array([NOT_RUN, *array.labels])
        self.dtype = self.texts.dtype if array.labels else array.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> np.ndarray:
        """The entries at an outer product of indices, one number, slice or array for each dimension."""
        array = self.array
        at = [np.atleast_1d(np.arange(n)[part]) for n, part in zip(array.shape, key, strict=True)]
        found = np.full([len(part) for part in at], array.empty, array.dtype)
        touched = [np.unique(part // size) for part, size in zip(at, array.chunk, strict=True)]
        for corner in itertools.product(*touched):
            number = int(np.ravel_multi_index(corner, array.pieces)) if corner else 0
            if number not in self.finished:
                continue
            name = array.file(number)
            values = np.fromfile(self.path / name, array.dtype)
            if values.nbytes != array.bytes:
                raise ValueError(f"{self.path}: {name} of chunk {number} was damaged since the store was opened")
            here = [np.flatnonzero(part // size == i) for part, size, i in zip(at, array.chunk, corner, strict=True)]
            inside = [part[i] % size for part, i, size in zip(at, here, array.chunk, strict=True)]
            found[np.ix_(*here)] = values.reshape(array.chunk)[np.ix_(*inside)]
        kept = [n for n, part in zip(found.shape, key, strict=True) if isinstance(part, slice) or np.ndim(part)]
        found = found.reshape(kept)
        return self.texts[found] if array.labels else found


def checksum_of_header(metadata: dict[str, Any]) -> int:
    """CRC-32 of all metadata but itself."""
    group = {name: value for name, value in metadata[".zattrs"].items() if name != "header"}
    return zlib.crc32(json.dumps({**metadata, ".zattrs": group}, sort_keys=True).encode())
