"""Code that is generated and compiled by numba: modules of text, kept in a cache.

A module is written once, under a name that is a digest of its text, to a folder where numba keeps the machine code
beside it; another process finds both there and compiles nothing. `error_model="numpy"` makes a division by zero
infinite, as in numpy; there is no fastmath, so that no operation is reordered, fused or widened.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import os
import sys
import tempfile
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from toymodel.files import written

HEAD = "import math\n\nimport numba\nimport numpy as np\n"
FAST = '@numba.njit(cache=True, error_model="numpy", nogil=True)'


def source(function: Callable[..., Any]) -> str:
    """A function as text for a module: compiled, and woven into those that call it."""
    return f'@numba.njit(error_model="numpy")\n{inspect.getsource(function)}'


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
