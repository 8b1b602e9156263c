"""Files: the one way to write them.

written(path)       a temporary name beside the path, flushed to the disk, then renamed: whole or not at all
write_netcdf        any Dataset as a NetCDF file, by `written`
alone(path)         a lock that ends with its process
"""

from __future__ import annotations

import itertools
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import xarray as xr

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
    # In memory, since HDF5 may end the process on a full disk; a copy, which holds no buffer of an open file.
    content = bytes(data.to_netcdf(engine="h5netcdf", encoding=small if packed else None))
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
