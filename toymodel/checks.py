"""Checks of arguments: each raises one ValueError that names the argument, what was given and what is allowed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from numbers import Integral
from typing import Any

import numpy as np

POSITIVE = float(np.nextafter(0, 1))  # as a lower bound: the value must be > 0


def check_values(name: str, value: Any, least: float = 0.0) -> None:
    """Raises ValueError unless the value has at least one entry and every entry is a finite number >= least."""
    bound = "" if least == -np.inf else "> 0" if least == POSITIVE else f">= {least:g}"
    array = np.asarray(value)
    if not array.size:
        raise ValueError(f"{name} is empty; give at least one number")
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{name} must be a number {bound}".rstrip() + f", got {value!r}")
    wrong = ~(np.isfinite(array) & (array >= least))
    if wrong.any():
        raise ValueError(f"{name} must be {bound + ' and finite' if bound else 'finite'}, got {array[wrong].flat[0]}")


def number(name: str, value: Any, least: float = 0.0) -> float:
    """The value as a float, if it is one finite number >= least."""
    if np.ndim(value):
        raise ValueError(f"{name} must be one number, got {value!r}")
    check_values(name, value, least)
    return float(value)


def whole(name: str, value: Any, least: int = 1, most: int | None = None) -> int:
    """The value as an int, if it is a whole number within least..most."""
    top = np.inf if most is None else most
    if isinstance(value, Integral) and not isinstance(value, bool) and least <= int(value) <= top:
        return int(value)
    allowed = f">= {least}" if most is None else f"within {least}..{most}"
    raise ValueError(f"{name} must be a whole number {allowed}, got {value!r}")


def mapping(name: str, value: Any, allowed: Collection[str] | None = None) -> dict[str, Any]:
    """The value as a dictionary, if it is a mapping whose keys are among the names that are allowed."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} must be a mapping, name -> value, got {value!r}")
    if allowed is not None and (unknown := [key for key in value if key not in allowed]):
        raise ValueError(f"{name} has the unknown name {unknown[0]!r}; allowed are {list(allowed)}")
    return dict(value)
