"""Code that is generated and compiled by numba: modules of text, kept in a cache.

A module is written once, under a name that is a digest of its text, to a folder where numba keeps the machine code
beside it; another process finds both there and compiles nothing. `error_model="numpy"` makes a division by zero
infinite, as in numpy; there is no fastmath, so that no operation is reordered, fused or widened.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import os
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from toymodel.files import written

HEAD = "import math\n\nimport numba\nimport numpy as np\n"
FAST = '@numba.njit(cache=True, error_model="numpy", nogil=True)'


def lines_of(function: Callable[..., Any], prefix: str, kept: Collection[str] = ()) -> list[str]:
    """The lines of a function without its last one (what it returns), for generated code that has its arguments and
    variables under names that begin with `prefix`; those in `kept` stay as they are."""
    written: Any = ast.parse(inspect.getsource(function)).body[0]
    body = [line for line in written.body[:-1] if not isinstance(line, ast.Expr)]
    for line in body:
        for node in ast.walk(line):
            if isinstance(node, ast.Name) and node.id not in kept:
                node.id = f"{prefix}{node.id}"
    return [ast.unparse(line) for line in body]


@cache
def module(text: str) -> ModuleType:
    """The module with this text."""
    name = f"toymodel_{hashlib.sha256(text.encode()).hexdigest()[:24]}"
    path = _kept(f"{name}.py", text)
    spec: Any = importlib.util.spec_from_file_location(name, path)
    made = importlib.util.module_from_spec(spec)
    sys.modules[name] = made
    spec.loader.exec_module(made)
    return made


def _kept(name: str, text: str) -> Path:
    """The path of a file with this text in the first folder that can hold it; it is written once and never again."""
    for folder in _folders():
        path = folder / name
        try:
            if not path.exists():
                folder.mkdir(parents=True, exist_ok=True)
                with written(path, durable=False) as whole:
                    whole.write_text(text)
            return path
        except OSError:
            continue
    raise OSError("no folder for generated code can be written; set XDG_CACHE_HOME to one that can")


def _folders() -> Iterable[Path]:
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    yield Path(home) / "toymodel"
    yield Path(tempfile.gettempdir()) / f"toymodel-{os.getuid() if hasattr(os, 'getuid') else 'cache'}"
