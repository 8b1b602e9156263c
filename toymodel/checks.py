"""Checks of arguments: one ValueError that names the argument, what was given and what is allowed.

A public function is `@checked`: beartype compares each argument with its annotation, and what does not fit becomes

    descend: steps must be a whole number >= 1, got 'x'

The annotations that occur again and again stand here as aliases (`Steps`, `Positive`, `Seeds`, ...), each with its
plain words. A check costs a few microseconds. What stands inside an argument is checked by the functions at the end.
"""

from __future__ import annotations

import inspect
import math
import os
import reprlib
import types
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Sized
from functools import wraps
from itertools import islice
from numbers import Integral
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
from beartype import BeartypeConf, beartype
from beartype.door import is_bearable
from beartype.vale import Is

POSITIVE = float(np.nextafter(0, 1))  # as a lower bound: the value must be > 0
MOST_STEPS = 10**12
MOST_RATE = 10**12
MOST_TIME = 10**30
MOST_SEEDS = 10**6
MOST_SEED = 2**32 - 1  # JAX's generator takes 32 bits
MOST_ENTRIES = 10**9
MOST_VALUES = 10**6  # of one axis of a sweep
MOST_RUNS = 10**8

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


class _Violation(Exception):
    """An argument that its annotation does not allow, as beartype reports it."""


_CONF = BeartypeConf(violation_param_type=_Violation, is_pep484_tower=True)


def checked(function: Decorated) -> Decorated:
    """The function (or the dataclass) with its arguments checked against their annotations.

    Raises ValueError that names the function, the argument, what was given and what is allowed.
    """
    if inspect.isclass(function):
        kind: Any = function
        kind.__init__ = _checked(kind.__init__, kind.__name__)
        return kind
    return _checked(function, function.__name__)


def _checked(function: Any, name: str) -> Any:
    @wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    written = inspect.unwrap(function)  # without a check that tests have put on it already, and without its marks
    called.__dict__, called.__annotations__ = {"__wrapped__": written}, written.__annotations__
    guarded = beartype(conf=_CONF)(called)

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return guarded(*args, **kwargs)
        except _Violation as violation:
            raise ValueError(f"{name}: {_complaint(function, args, kwargs) or violation}") from None

    return call


def _complaint(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
    """Which argument is wrong, what it must be and what it is."""
    hints = get_type_hints(function, include_extras=True)
    signature = inspect.signature(function)
    given = signature.bind(*args, **kwargs).arguments
    for argument, value in given.items():
        kind = signature.parameters[argument].kind
        parts = {argument: value}
        if kind is inspect.Parameter.VAR_KEYWORD:
            parts = value
        elif kind is inspect.Parameter.VAR_POSITIONAL:
            parts = {f"{argument}[{i}]": part for i, part in enumerate(value)}
        for name, part in parts.items():
            if argument in hints and not is_bearable(part, hints[argument], conf=_CONF):
                return f"{name} must be {words(hints[argument], part)}, got {shown(part)}"
    return None


def shown(value: Any) -> str:
    """A value in at most a line: short ones as they are written, long ones cut, large ones by their kind."""
    if callable(value) and hasattr(value, "__name__"):
        return f"the {'class' if inspect.isclass(value) else 'function'} {value.__name__}"
    if value is None or isinstance(value, (int, float, complex, str, bytes, list, tuple, dict, set, np.generic)):
        try:
            return _SHORT.repr(value.item() if isinstance(value, np.generic) else value)
        except ValueError:
            return "a number of thousands of digits"
    kind = type(value).__name__
    kind = f"{'an' if kind[:1] in 'AEIOUaeiou' else 'a'} {kind}"
    shape = getattr(value, "shape", None)
    if shape == () and hasattr(value, "item") and not hasattr(value, "aval"):
        return f"{kind} of {_SHORT.repr(value.item())}"  # type: ignore[union-attr]
    return kind if shape is None else f"{kind} of shape {tuple(shape)}"


_SHORT = reprlib.Repr()
_SHORT.maxstring, _SHORT.maxother, _SHORT.maxlong, _SHORT.maxlist, _SHORT.maxdict = 120, 120, 60, 8, 8


# ---- what is allowed, in plain words: hint -> words, or value -> words


def words(hint: Any, value: Any = None) -> str:
    """What an annotation allows, in plain words; those of an alias may depend on what was given instead."""
    for known, said in _WORDS:
        if hint is known or hint == known:
            return said(value) if callable(said) else said
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(words(part, value) for part in parts))
    if origin is Literal:
        return "one of " + ", ".join(map(repr, parts))
    if origin is Annotated:
        return words(parts[0], value)
    for kind, said in _KINDS.items():
        if (origin or hint) is kind:
            return said
    name = getattr(origin or hint, "__name__", str(hint))
    return f"{'an' if name[:1] in 'AEIOU' else 'a'} {name}"


_KINDS: dict[Any, str] = {
    str: "text",
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    type(None): "None",
    Mapping: "a mapping, name -> value",
    dict: "a mapping, name -> value",
    Sequence: "a list",
    list: "a list",
    Iterable: "a list",
    Callable: "a function",
    os.PathLike: "a path",
}


def _is_whole(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _is_real(value: Any) -> bool:
    """One number: Python's, numpy's, or an array without dimensions (JAX's and xarray's too)."""
    if isinstance(value, (int, float)):
        return not isinstance(value, bool)
    return getattr(getattr(value, "dtype", None), "kind", "?") in "iuf" and np.ndim(value) == 0


def _real_within(least: float, most: float = math.inf) -> Callable[[Any], bool]:
    """Whether a value is one finite number, least <= x <= most; one that JAX has not computed yet is taken."""

    def holds(value: Any) -> bool:
        if not _is_real(value):
            return False
        try:
            number = float(value)
        except OverflowError:
            return False
        except TypeError:
            return hasattr(value, "aval")
        return math.isfinite(number) and least <= number <= most

    return holds


def _whole_within(least: int, most: int) -> Callable[[Any], bool]:
    return lambda value: _is_whole(value) and least <= value <= most


def _said(bound: str, most: float = math.inf) -> Callable[[Any], str]:
    """`> 0 and finite` where a number was given, `a number > 0` where something else was."""

    def said(value: Any) -> str:
        if not _is_real(value):
            return f"a number {bound}".rstrip()
        limit = "finite" if most == math.inf else f"at most {most:,}"
        return f"{bound} and {limit}" if bound else limit

    return said


def _whole_said(least: int, most: int) -> Callable[[Any], str]:
    def said(value: Any) -> str:
        above = _is_whole(value) and int(value) > most
        return f"a whole number within {least}..{most:,}" if above else f"a whole number >= {least}"

    return said


Steps = Annotated[int | np.integer, Is[_whole_within(1, MOST_STEPS)]]
Count = Annotated[int | np.integer, Is[_whole_within(1, MOST_ENTRIES)]]
ValueCount = Annotated[int | np.integer, Is[_whole_within(1, MOST_VALUES)]]
Seed = Annotated[int | np.integer, Is[_whole_within(0, MOST_SEED)]]
Finite = Annotated[Any, Is[_real_within(-math.inf)]]
NonNegative = Annotated[Any, Is[_real_within(0.0)]]
Positive = Annotated[Any, Is[_real_within(POSITIVE)]]
LearningRate = Annotated[Any, Is[_real_within(POSITIVE, MOST_RATE)]]
Duration = Annotated[Any, Is[_real_within(POSITIVE, MOST_TIME)]]
Tolerance = Annotated[Any, Is[_real_within(POSITIVE, float(np.nextafter(1, 0)))]]
Loss = Annotated[Callable[..., Any], Is[lambda loss: callable(loss)]]
Seeds = int | np.integer | Iterable[Any]  # what is in it is checked one by one, by `seeds_in`
PathLike = Annotated[str | os.PathLike[str], Is[lambda path: bool(os.fspath(path)) and "\0" not in str(path)]]

_WORDS: list[tuple[Any, str | Callable[[Any], str]]] = [
    (Steps, _whole_said(1, MOST_STEPS)),
    (Count, _whole_said(1, MOST_ENTRIES)),
    (ValueCount, _whole_said(1, MOST_VALUES)),
    (Seed, _whole_said(0, MOST_SEED)),
    (Finite, _said("")),
    (NonNegative, _said(">= 0")),
    (Positive, _said("> 0")),
    (LearningRate, _said("> 0", MOST_RATE)),
    (Duration, _said("> 0", MOST_TIME)),
    (Tolerance, "within 0..1, without the ends"),
    (Seeds, "a whole number or a list of them, such as range(12)"),
    (Loss, "a function of the mechanisms and costs (for text use Model.from_expression)"),
    (PathLike, "the path of a file"),
]


# ---- checks of what stands inside an argument


def check_values(name: str, value: Any, least: float = 0.0) -> None:
    """Raises ValueError unless the value has at least one entry and every entry is a finite number >= least."""
    bound = "" if least == -np.inf else "> 0" if least == POSITIVE else f">= {least:g}"
    dimensions(name, value)
    try:
        array = np.asarray(value)
    except ValueError:  # lists of different lengths
        array = np.asarray(None)
    if array.dtype.kind == "O" and all(_is_real(part) for part in array.flat):
        raise ValueError(f"{name} must be within the range of float64, got {shown(value)}")  # a huge whole number
    if not array.size:
        raise ValueError(f"{name} is empty; give at least one number")
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{name} must be a number {bound}".rstrip() + f", got {shown(value)}")
    with np.errstate(all="ignore"):
        wrong = ~(np.isfinite(array) & (array >= least))
    if wrong.any():
        raise ValueError(f"{name} must be {bound + ' and finite' if bound else 'finite'}, got {array[wrong].flat[0]}")


def dimensions(name: str, value: Any) -> int:
    """How many dimensions a value has as an array (2 for lists of different lengths), before an array is made of it."""
    if hasattr(value, "ndim"):
        return value.ndim
    if isinstance(value, Sized) and len(value) > MOST_RUNS:
        raise ValueError(f"{name} must have at most {MOST_RUNS:,} values, got {len(value):,}")
    try:
        return np.asarray(value).ndim
    except ValueError:
        return 2


def number(name: str, value: Any, least: float = 0.0) -> float:
    """The value as a float, if it is one finite number >= least."""
    if isinstance(value, (list, tuple, dict, set)) or dimensions(name, value):
        raise ValueError(f"{name} must be one number, got {shown(value)}")
    check_values(name, value, least)
    return float(value)


def whole(name: str, value: Any, least: int = 1, most: int | None = None) -> int:
    """The value as an int, if it is a whole number within least..most."""
    top = np.inf if most is None else most
    if isinstance(value, Integral) and not isinstance(value, (bool, np.bool)) and least <= int(value) <= top:
        return int(value)
    allowed = f">= {least}" if most is None else f"within {least}..{most}"
    raise ValueError(f"{name} must be a whole number {allowed}, got {shown(value)}")


def seeds_in(seeds: Iterable[Any]) -> list[int]:
    """Seeds as whole numbers, once there are not too many of them."""
    if isinstance(seeds, Sized) and len(seeds) > MOST_SEEDS:
        raise ValueError(f"seeds must be at most {MOST_SEEDS:,} numbers, got {len(seeds):,}")
    listed = list(islice(seeds, MOST_SEEDS + 1))
    if len(listed) > MOST_SEEDS:
        raise ValueError(f"seeds must be at most {MOST_SEEDS:,} numbers, got more")
    return [whole("seeds", whole("seeds", seed, 0), 0, MOST_SEED) for seed in listed]


def mapping(name: str, value: Any, allowed: Collection[str] | None = None) -> dict[str, Any]:
    """The value as a dictionary, if it is a mapping whose keys are among the names that are allowed."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} must be a mapping, name -> value, got {shown(value)}")
    if allowed is not None and (unknown := [key for key in value if key not in allowed]):
        raise ValueError(f"{name} has the unknown name {shown(unknown[0])}; allowed are {list(allowed)}")
    return dict(value)


def check_memory(what: str, size: float, instead: str) -> None:
    """Raises ValueError where something of so many bytes does not fit into the memory of this machine.

    instead: what else can be done, such as "record fewer times with every=...".
    """
    if size > os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"):
        raise ValueError(f"{what} has {size / 2**30:,.0f} GiB, more than the memory of this machine; {instead}")
