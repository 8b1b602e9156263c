"""Files: the one way to write, name, fingerprint and check them.

    written(path)       a temporary name beside the path, flushed to the disk, then renamed: whole or not at all
    fingerprint(...)    a hash of code without its comments and docstrings, and of the bytes of data
    stamp, is_stale     the last line of a page (of a figure, of a derivation): what it was made from, and whether that
                        has changed since
    alone(path)         a lock that ends with its process
    write_netcdf        any Dataset as a NetCDF file, by `written`
    save, load          records as NetCDF files with a checksum

`python -m toymodel.files stale PAGE ...` prints those pages that have to be made again; make calls it.
"""

from __future__ import annotations

import ast
import hashlib
import itertools
import json
import os
import re
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, lru_cache
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import xarray as xr

from toymodel.checks import PathLike, checked, shown

FORMAT = 1
PACKAGE = Path(__file__).resolve().parent.name
ROOT = Path(__file__).resolve().parent.parent  # of the project; of site-packages where the package is installed
CHECKSUM = "toymodel_checksum"
SILENT = ("toymodel/files.py", "toymodel/progress.py")  # change no number and no drawing: nothing is made from them


# What made a file


def origin() -> dict[str, str]:
    """Versions of toymodel, JAX and numpy, and the commit ("unknown" outside of a working tree)."""
    return {
        "toymodel_version": version("toymodel"),
        "toymodel_commit": commit(),
        "jax_version": version("jax"),
        "numpy_version": version("numpy"),
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


# Writing


_numbers = itertools.count()


@contextmanager
def written(path: str | os.PathLike[str], durable: bool = True) -> Iterator[Path]:
    """A temporary path beside `path`, with its ending, to write to; renamed to `path` when the block ends.

    Where the block raises, `path` stays as it was and nothing is left beside it. durable: flush to the disk before the
    rename (1 to 2 ms), so that a power cut leaves the old file or the new one.

    Raises OSError that names `path` where it cannot be written (no folder, no permission, a full disk).
    """
    path = Path(path)
    whole = path.with_name(f".{path.stem}.{os.getpid()}-{next(_numbers)}.partial{path.suffix}")
    try:
        yield whole
        if durable:
            with open(whole, "rb+") as file:
                os.fsync(file.fileno())
        os.replace(whole, path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with suppress(OSError):  # it is not there, or its folder is not: the reason is already given
            whole.unlink()


def cannot_write(path: str | os.PathLike[str], error: OSError, more: str = "") -> OSError:
    """The same kind of error, with a text that names the path."""
    reason = os.strerror(error.errno) if error.errno else error
    kind = type(error) if type(error).__module__ == "builtins" else OSError
    found = kind(f"cannot write {path}: {reason}{more}")
    found.errno = error.errno
    return found


def leftovers(folder: Path, name: str = "*") -> Iterator[Path]:
    """What `written` would have renamed in a folder, had its process not been killed."""
    yield from folder.glob(f".{name}.*.partial*")


def write_netcdf(data: xr.Dataset, path: str | os.PathLike[str], packed: bool = False) -> Path:
    """Writes a Dataset to a NetCDF file, whole or not at all; packed: compressed, for data that the project keeps.

    Raises OSError that names `path` where it cannot be written.
    """
    text = {name: {"dtype": "S1"} for name, of in data.data_vars.items() if of.dtype.kind == "U"}
    small = {name: {"zlib": True, "complevel": 9, **text.get(name, {})} for name in data.data_vars}
    content = data.to_netcdf(
        engine="h5netcdf", encoding=small if packed else None
    )  # in memory: HDF5 may end the process on a full disk
    with written(path) as whole:
        whole.write_bytes(content)
    return Path(path)


@contextmanager
def alone(path: str | os.PathLike[str], patience: float = 0.0) -> Iterator[None]:
    """Lets one user at a time work at `path`, by a lock on the file `.NAME.lock` beside it.

    The system gives the lock back when its process ends, also when it is killed. File systems without locks are not
    guarded. patience: how many seconds to wait for another one that is at work.

    Raises BlockingIOError that names the process which is at work, and OSError where the lock cannot be written.
    """
    path = Path(path)
    lock = path.with_name(f".{path.name}.lock")
    try:
        file = _locked(lock, time.monotonic() + patience)
    except BlockingIOError:
        who = lock.read_text().strip() if lock.exists() else "which has just ended"
        raise BlockingIOError(f"{path}: another process is at work on it ({who})") from None
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        os.ftruncate(file, 0)
        os.write(file, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield
    finally:
        with suppress(OSError):
            lock.unlink()  # while it is held, so that nobody else's file is removed
        os.close(file)


def _locked(lock: Path, deadline: float) -> int:
    """An open and locked file; a lock file that its owner removed in between is made again."""
    try:
        import fcntl
    except ImportError:  # Windows
        return os.open(lock, os.O_RDWR | os.O_CREAT)
    while True:
        file = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
            continue
        except OSError:  # this file system has no locks
            return file
        with suppress(FileNotFoundError):
            if os.stat(lock).st_ino == os.fstat(file).st_ino:
                return file
        os.close(file)


# Fingerprints


def fingerprint(*of: ModuleType | str | os.PathLike[str]) -> str:
    """A hash of code and data: 16 hexadecimal digits. The order does not matter, names do.

    of: modules, or paths of files. Python counts as what is computed, without comments, docstrings and layout; other
    files count byte for byte.
    """
    paths = {Path(str(item.__file__ if isinstance(item, ModuleType) else item)).resolve() for item in of}
    return hash_of(sorted(f"{_short(path)} {_of_file(path)}" for path in paths))


def hash_of(lines: Iterable[str]) -> str:
    """The hash of some lines of text: 16 hexadecimal digits."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def imports(*modules: ModuleType) -> list[Path]:
    """The files of these modules and of all modules of the project that they import, directly or through others, read
    from the code: the same whatever else a process has imported."""
    found: set[Path] = set()
    waiting = [Path(str(module.__file__)).resolve() for module in modules]
    silent = {ROOT / name for name in SILENT}
    while waiting:
        path = waiting.pop()
        if path not in found | silent:
            found.add(path)
            waiting += _imported(path)
    return sorted(found)


def made_from(script: str | os.PathLike[str], *others: str | os.PathLike[str]) -> list[Path]:
    """The files that a running script depends on: itself, each module of its project that is imported now, the data
    that went through `uses`, and others."""
    script = Path(script).resolve()
    root = script.parent.parent
    modules = {Path(name) for m in list(sys.modules.values()) if (name := getattr(m, "__file__", None))}
    code = {path.resolve() for path in modules if path.suffix == ".py"}
    code = {path for path in code if path.is_relative_to(root) and not path.relative_to(root).parts[0].startswith(".")}
    code -= {root / name for name in SILENT}
    return sorted({script, *code, *_used, *(Path(path).resolve() for path in others)})


_used: set[Path] = set()


def uses(path: str | os.PathLike[str]) -> Path:
    """The path of a data file, noted as something that the running script depends on."""
    _used.add(Path(path).resolve())
    return Path(path)


def stamp(page: Path, root: Path, sources: Iterable[Path], products: Iterable[str] = ()) -> str:
    """The last line of a page, hidden in Markdown: the files that were made with it, what from, and the fingerprint.

    Sources are named from the root of the project, products from the folder of the page.
    """
    names = sorted(os.path.relpath(path, root) for path in sources)
    made = ", ".join([page.name, *products])
    return f"<!-- made: {made}; from: {', '.join(names)}; fingerprint: {_of_names(root, names)} -->"


STAMP = re.compile(r"<!-- made: (?P<made>.*); from: (?P<sources>.*); fingerprint: (?P<fingerprint>\w+) -->\s*$")


def is_stale(page: str | os.PathLike[str], root: Path) -> bool:
    """Whether a page has to be made again: it, one of its products or sources is not there, or a source has changed."""
    page = Path(page)
    if not page.exists() or (found := STAMP.search(page.read_text())) is None:
        return True
    if not all((page.parent / name).exists() for name in found["made"].split(", ")):
        return True
    names = found["sources"].split(", ")
    if not all((root / name).exists() for name in names):
        return True
    return _of_names(root, names) != found["fingerprint"]


def _of_names(root: Path, names: Iterable[str]) -> str:
    return hash_of(f"{name} {_of_file((root / name).resolve())}" for name in names)


def _short(path: Path) -> str:
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name


def _of_file(path: Path) -> str:
    state = path.stat()
    return _of_content(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=4096)
def _of_content(path: Path, _changed: int, _size: int) -> str:
    content = path.read_bytes()
    if path.suffix == ".py":
        with suppress(SyntaxError):
            content = _plain(ast.parse(content)).encode()
    return hashlib.sha256(content).hexdigest()


SAYS_NOTHING = {"ctx", "kind", "type_comment", "type_ignores"}  # fields of the syntax tree


def _plain(node: Any) -> str:
    """A syntax tree as text that is the same in each version of Python: without docstrings and empty fields."""
    if isinstance(node, list):
        return f"[{','.join(map(_plain, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    parts = []
    for name, value in ast.iter_fields(node):
        if name == "body" and isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            value = value[1:]
        if value is not None and value != [] and name not in SAYS_NOTHING:
            parts.append(f"{name}={_plain(value)}")
    return f"{type(node).__name__}({','.join(parts)})"


DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def _imported(path: Path) -> set[Path]:
    """The files of the project that a module names in its import statements, their packages among them."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                place = path.relative_to(ROOT).parts[: -node.level]
                base = ".".join([*place, *([node.module] if node.module else [])])
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    found: set[Path] = set()
    for parts in (name.split(".") for name in names):
        for end in range(1, len(parts) + 1) if parts[0] == PACKAGE else ():
            place = ROOT.joinpath(*parts[:end])
            found |= {p for p in (place.with_suffix(".py"), place / "__init__.py") if p.exists()}
    return found


# Records


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
        content = runs.to_netcdf(engine="h5netcdf", invalid_netcdf=False)
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


if __name__ == "__main__":
    if sys.argv[1:2] != ["stale"]:
        sys.exit("usage: python -m toymodel.files stale PAGE ...")
    for page in sys.argv[2:]:
        if is_stale(page, Path.cwd()):
            print(page)
