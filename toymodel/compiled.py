"""What numba compiles: modules of generated text, kept in a cache.

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
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from toymodel import measures

HEAD = f"""import math

import numba
import numpy as np

NEVER = {measures.NEVER!r}
"""


def follow_lines() -> list[str]:
    """The lines of `measures.follow`, for generated code that has its arguments as variables m_n, m_loss, ..."""
    function: Any = ast.parse(inspect.getsource(measures.follow)).body[0]
    *body, last = [line for line in function.body if not isinstance(line, ast.Expr)]
    if [name.id for name in last.value.elts] != list(measures.BEGIN):
        raise TypeError("measures.follow must return what BEGIN names, in that order")
    for line in body:
        for node in ast.walk(line):
            if isinstance(node, ast.Name) and node.id != "NEVER":
                node.id = f"m_{node.id}"
    return [ast.unparse(line) for line in body]


@cache
def follow_all() -> Callable[..., None]:
    """A function of (times, losses, inside, known) that takes `known`, shape (quantity, run), through all times."""
    names = ", ".join(f"m_{name}" for name in measures.BEGIN)
    known = ", ".join(f"known[{q}, i]" for q in range(len(measures.BEGIN)))
    lines = "\n            ".join(follow_lines())
    text = f"""{HEAD}
@numba.njit(cache=True, error_model="numpy", nogil=True)
def follow_all(times, losses, insides, known):
    for t in range(losses.shape[0]):
        m_n = times[t]
        for i in range(losses.shape[1]):
            m_loss, m_inside = losses[t, i], insides[i]
            {names} = {known}
            {lines}
            {known} = {names}
"""
    return module(text).follow_all


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
                whole = folder / f".{name}.{os.getpid()}.partial"
                whole.write_text(text)
                os.replace(whole, path)
            return path
        except OSError:
            continue
    raise OSError("no folder for generated code can be written; set XDG_CACHE_HOME to one that can")


def _folders() -> Iterable[Path]:
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    yield Path(home) / "toymodel"
    yield Path(tempfile.gettempdir()) / f"toymodel-{os.getuid() if hasattr(os, 'getuid') else 'cache'}"
