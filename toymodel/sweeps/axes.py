"""What a sweep varies: axes of values, and random designs over ranges.

    log(1e-3, 1, 64)       64 values from 1e-3 to 1, equally spaced in the logarithm
    linear(0, 1, 11)       11 values from 0 to 1, equally spaced
    [0.1, 0.2, 0.5]        these values (numbers or labels)
    {"full": "", "blocked": 'Clamp("d", overlap=0, residual=0)'}      named cases (for `intervention`)
    log(1e-3, 1)           a range, from which a `samples` design draws

The same text is read from Python, TOML files and the command line (`axis_of`).
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from toymodel.checks import MOST_VALUES, Finite, Seed, ValueCount, checked, number, seeds_in, shown

Method = Literal["sobol", "halton", "latin", "random"]
MOST_TEXT = 100_000  # characters of an axis that is given as text


@dataclass(frozen=True)
class Axis:
    """The values along one dimension of a sweep.

    kind: "log" or "linear" (from low to high; count values, or a range to sample from where count is None), "values"
    (as given), or "cases" (labels in `values`, what they stand for in `texts`).
    """

    kind: str
    low: float = 0.0
    high: float = 0.0
    count: int | None = None
    values: tuple[Any, ...] = ()
    texts: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """How many values there are (at most: those of dimensions lose repetitions)."""
        return len(self.values) or self.count or 0

    def points(self, name: str) -> np.ndarray:
        """The values as an array, with at most 15 digits where that is within an ulp, so that 0.3 is found.

        Those of dimensions (`dim_x`) are rounded to whole numbers, without repetitions.
        """
        if self.values:
            return np.asarray(self.values)
        if self.count is None:
            raise ValueError(
                f"{name}: {self.kind}({self.low:g}, {self.high:g}) is a range; give a number of values as third "
                "argument, or a design=samples(n)"
            )
        spaced = (np.geomspace if self.kind == "log" else np.linspace)(self.low, self.high, self.count)
        inner = spaced[1:-1]  # the ends are those that were given
        short = np.array([float(f"{x:.15g}") for x in inner.tolist()])
        spaced[1:-1] = np.where(abs(short - inner) <= np.spacing(abs(inner)), short, inner)
        return np.unique(np.round(spaced)) if name.startswith("dim_") else spaced

    def sampled(self, name: str, shares: np.ndarray) -> np.ndarray:
        """Values at shares in 0..1 of the range; explicit values are taken with equal probability."""
        if self.values:
            return np.asarray(self.values)[np.minimum((shares * self.size).astype(int), self.size - 1)]
        low, high = self.low, self.high
        found = low * (high / low) ** shares if self.kind == "log" else low + (high - low) * shares
        return np.round(found) if name.startswith("dim_") else found

    def __str__(self) -> str:
        if self.values:
            return str(dict(zip(self.values, self.texts, strict=True)) if self.texts else list(self.values))
        return f"{self.kind}({self.low!r}, {self.high!r}{'' if self.count is None else f', {self.count}'})"


@checked
def log(low: Finite, high: Finite, count: ValueCount | None = None) -> Axis:
    """Values equally spaced in the logarithm.

    Arguments:
        low, high: the first and the last, 0 < low < high.
        count: how many; without it, the range for a design (`samples`). Of a dimension (`dim_x`) the values are rounded
            to whole numbers, and equal ones are taken once, with a warning.

    Returns:
        An axis for `over`.

    Raises:
        ValueError for arguments out of range.

    >>> log(0.01, 1, 3).points("alpha").tolist()
    [0.01, 0.1, 1.0]
    """
    if not 0 < low < high:
        raise ValueError(f"log({low}, {high}) needs 0 < low < high")
    return Axis("log", float(low), float(high), None if count is None else int(count))


@checked
def linear(low: Finite, high: Finite, count: ValueCount | None = None) -> Axis:
    """Equally spaced values.

    Arguments:
        low, high: the first and the last, low < high.
        count: how many; without it, the range for a design (`samples`). Those of a dimension are rounded as in `log`.

    Returns:
        An axis for `over`.

    Raises:
        ValueError for arguments out of range.

    >>> linear(0.1, 0.5, 5).points("alpha").tolist()
    [0.1, 0.2, 0.3, 0.4, 0.5]
    """
    if not (low < high and np.isfinite(float(high) - float(low))):
        raise ValueError(f"linear({low}, {high}) needs low < high, both finite")
    return Axis("linear", float(low), float(high), None if count is None else int(count))


def axis_of(name: str, given: Any) -> Axis:
    """The axis that is meant by an Axis, a sequence, a mapping of cases, or text."""
    if isinstance(given, Axis):
        return given
    if isinstance(given, str):
        return _read(name, given)
    if isinstance(given, Mapping):
        labels = {str(label) for label in given}
        if not given or not all(isinstance(v, str) for v in given.values()) or len(labels) < len(given):
            raise ValueError(f"over: the cases of {name} must be label -> text, got {shown(dict(given))}")
        return Axis("cases", values=tuple(map(str, given)), texts=tuple(given.values()))
    one_dimension = isinstance(given, (Sequence, range)) or (isinstance(given, np.ndarray) and given.ndim == 1)
    if not one_dimension or isinstance(given, bytes):
        raise ValueError(f"over: {name} must be log(...), linear(...), a list or cases, got {shown(given)}")
    if len(given) > MOST_VALUES:
        raise ValueError(f"over: {name} must have at most {MOST_VALUES:,} values, got {len(given):,}")
    values = tuple(str(v) if isinstance(v, str) else number(f"over: {name}", v, -np.inf) for v in given)
    if not values:
        raise ValueError(f"over: {name} has no values")
    if len({type(v) for v in values}) > 1:
        raise ValueError(f"over: {name} mixes numbers and text")
    value, times = Counter(values).most_common(1)[0]
    if times > 1:
        raise ValueError(f"over: {name} has a value twice, {value}")
    return Axis("values", values=values)


def _read(name: str, text: str) -> Axis:
    """An axis from text, `log(1e-3, 1, 64)`, `linear(...)`, `[...]` or `{...}`."""
    likes = "'log(1e-3, 1, 64)', 'linear(0, 1, 11)' or '[0.1, 0.2]'"
    problem = f"over: {name} must be like {likes}, got {shown(text)}"
    called, arguments, keywords = _call(text, problem)
    if called is None and not isinstance(arguments[0], str):
        return axis_of(name, arguments[0])
    made = {"log": log, "linear": linear}.get(called or "")
    if made is None:
        raise ValueError(problem)
    try:
        return made(*arguments, **keywords)
    except TypeError:
        raise ValueError(problem) from None
    except ValueError as error:
        raise ValueError(f"over: {name}: {error}") from None


def _call(text: str, problem: str) -> tuple[str | None, list[Any], dict[str, Any]]:
    """The name, arguments and keywords of a call in a text, all of them literal; or None and the literal itself."""
    if len(text) > MOST_TEXT:
        raise ValueError(problem)
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        if not isinstance(tree, ast.Call):
            return None, [ast.literal_eval(tree)], {}
        arguments = [ast.literal_eval(argument) for argument in tree.args]
        keywords = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in tree.keywords}
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        raise ValueError(problem) from None
    return getattr(tree.func, "id", ""), arguments, keywords


@dataclass(frozen=True)
class Samples:
    """A random (or quasi-random) design instead of a product: `count` points, method and seed of the generator."""

    count: int
    method: str = "sobol"
    seed: int = 0

    def shares(self, dimensions: int) -> np.ndarray:
        """Points in the unit cube, shape (count, dimensions), from scipy.stats.qmc."""
        from scipy.stats import qmc  # half a second, which a grid does not need

        generator = np.random.default_rng(self.seed)
        if self.method == "random":
            return generator.random((self.count, dimensions))
        if self.method == "sobol":
            whole = qmc.Sobol(dimensions, rng=generator).random_base2(max(self.count - 1, 0).bit_length())
            return whole[: self.count]
        kind = qmc.Halton if self.method == "halton" else qmc.LatinHypercube
        return kind(dimensions, rng=generator).random(self.count)

    def __str__(self) -> str:
        return f"samples({self.count}, {self.method!r}, {self.seed})"


@checked
def samples(count: ValueCount, method: Method = "sobol", seed: Seed = 0) -> Samples:
    """A design of random points in the ranges of a sweep, in place of all combinations.

    Arguments:
        count: number of points, along the dimension `sample`.
        method: "sobol", "halton", "latin" (all of scipy.stats.qmc) or "random".
        seed: of the generator.

    Returns:
        A design for `design`.

    Raises:
        ValueError for arguments out of range.

    >>> samples(4, "latin").shares(2).shape
    (4, 2)
    """
    return Samples(int(count), method, int(seed))


def design_of(given: Any) -> Samples | None:
    """The design that is meant by None, a Samples, or text such as "samples(1024, 'halton')"."""
    if given is None or isinstance(given, Samples):
        return given
    problem = f"design must be like \"samples(1024, 'sobol')\", got {shown(given)}"
    called, arguments, keywords = _call(given, problem) if isinstance(given, str) else (None, [], {})
    if called != "samples":
        raise ValueError(problem)
    try:
        return samples(*arguments, **keywords)
    except TypeError:
        raise ValueError(problem) from None


def seeds_of(given: Any) -> int | tuple[int, ...]:
    """Seeds from a number, a sequence, or text: "7", "0:4" (0, 1, 2, 3) or "1,5,9"."""
    problem = f"seeds must be a whole number, a list of them, or text like '0:4', got {shown(given)}"
    if isinstance(given, str):
        try:
            if ":" in given:
                low, high = map(int, given.split(":"))
                given = range(low, high)
            else:
                given = [int(part) for part in given.split(",")] if "," in given else int(given)
        except ValueError:
            raise ValueError(problem) from None
    if isinstance(given, (int, np.integer)) and not isinstance(given, bool):
        return seeds_in([given])[0]
    if not isinstance(given, Iterable) or getattr(given, "ndim", 1) != 1:
        raise ValueError(problem)
    seeds = tuple(seeds_in(given))
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds must be different whole numbers >= 0, at least one, got {shown(given)}")
    return seeds
