"""What a file was made from, and whether that has changed since.

    fingerprint(...)    a hash of code without its comments and docstrings, and of the bytes of data
    stamp, is_stale     the last line of a page (of a figure, of a derivation): what it was made from
    origin()            versions and the commit

`python -m toymodel.provenance stale PAGE ...` prints those pages that have to be made again; make calls it.
"""

from __future__ import annotations

import ast
import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from functools import cache, lru_cache
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

PACKAGE = Path(__file__).resolve().parent.name
ROOT = Path(__file__).resolve().parent.parent  # of the project; of site-packages where the package is installed
SILENT = tuple(  # change no number and no drawing: nothing is made from them
    f"toymodel/{name}.py" for name in ("files", "progress", "provenance", "records")
)


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


if __name__ == "__main__":
    if sys.argv[1:2] != ["stale"]:
        sys.exit("usage: python -m toymodel.provenance stale PAGE ...")
    for page in sys.argv[2:]:
        if is_stale(page, Path.cwd()):
            print(page)
