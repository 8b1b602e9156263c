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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import qmc

Number = int | float
METHODS = ("sobol", "halton", "latin", "random")


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

    def points(self, name: str) -> np.ndarray:
        """The values as an array; those of dimensions (`dim_x`) are rounded to whole numbers, without repetitions."""
        if self.kind in ("values", "cases"):
            return np.asarray(self.values)
        if self.count is None:
            raise ValueError(
                f"{name}: {self.kind}({self.low:g}, {self.high:g}) is a range; give a number of values as third "
                "argument, or a design=samples(n)"
            )
        spaced = np.geomspace if self.kind == "log" else np.linspace
        return _whole(name, spaced(self.low, self.high, self.count), unique=True)

    def sampled(self, name: str, shares: np.ndarray) -> np.ndarray:
        """Values at shares in 0..1 of the range; explicit values are taken with equal probability."""
        if self.kind in ("values", "cases"):
            return np.asarray(self.values)[np.minimum((shares * len(self.values)).astype(int), len(self.values) - 1)]
        if self.kind == "log":
            return _whole(name, self.low * (self.high / self.low) ** shares)
        return _whole(name, self.low + (self.high - self.low) * shares)

    def __str__(self) -> str:
        if self.kind in ("values", "cases"):
            return str(dict(zip(self.values, self.texts, strict=True)) if self.texts else list(self.values))
        return f"{self.kind}({self.low!r}, {self.high!r}{'' if self.count is None else f', {self.count}'})"


def _whole(name: str, values: np.ndarray, unique: bool = False) -> np.ndarray:
    if not name.startswith("dim_"):
        return values
    rounded = np.round(values)
    return np.unique(rounded) if unique else rounded


def log(low: Number, high: Number, count: int | None = None) -> Axis:
    """Values equally spaced in the logarithm, from low to high; without a count, the range for a design.

    >>> log(0.01, 1, 3).points("alpha").round(3).tolist()
    [0.01, 0.1, 1.0]
    """
    if not 0 < low < high < np.inf:
        raise ValueError(f"log({low}, {high}) needs 0 < low < high")
    return Axis("log", float(low), float(high), _count("log", count))


def linear(low: Number, high: Number, count: int | None = None) -> Axis:
    """Equally spaced values from low to high; without a count, the range for a design."""
    if not -np.inf < low < high < np.inf:
        raise ValueError(f"linear({low}, {high}) needs low < high, both finite")
    return Axis("linear", float(low), float(high), _count("linear", count))


def _count(kind: str, count: Any) -> int | None:
    if count is not None and (not isinstance(count, (int, np.integer)) or count < 1):
        raise ValueError(f"{kind}: the number of values must be a whole number >= 1, got {count!r}")
    return None if count is None else int(count)


def axis_of(name: str, given: Any) -> Axis:
    """The axis that is meant by an Axis, a sequence, a mapping of cases, or text."""
    if isinstance(given, Axis):
        return given
    if isinstance(given, str):
        return _read(name, given)
    if isinstance(given, Mapping):
        if not given or not all(isinstance(v, str) for v in given.values()):
            raise ValueError(f"over: the cases of {name} must be label -> text, got {given!r}")
        return Axis("cases", values=tuple(map(str, given)), texts=tuple(given.values()))
    if np.ndim(given) != 1 or not isinstance(given, (Sequence, np.ndarray, range)):
        raise ValueError(f"over: {name} must be log(...), linear(...), a list or cases, got {given!r}")
    values = tuple(v if isinstance(v, str) else float(v) for v in given)
    if not values:
        raise ValueError(f"over: {name} has no values")
    if len(set(values)) < len(values):
        raise ValueError(f"over: {name} has a value twice, {sorted({v for v in values if values.count(v) > 1})[0]}")
    if len({type(v) for v in values}) > 1:
        raise ValueError(f"over: {name} mixes numbers and text")
    return Axis("values", values=values)


def _read(name: str, text: str) -> Axis:
    """An axis from text, `log(1e-3, 1, 64)`, `linear(...)`, `[...]` or `{...}`."""
    problem = f"over: {name} must be like 'log(1e-3, 1, 64)', 'linear(0, 1, 11)' or '[0.1, 0.2]', got {text!r}"
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        if isinstance(tree, ast.Call):
            made = {"log": log, "linear": linear}[getattr(tree.func, "id", "")]
            numbers = [ast.literal_eval(argument) for argument in tree.args]
        else:
            made, numbers = axis_of, [name, ast.literal_eval(tree)]
            if isinstance(numbers[1], str):
                raise SyntaxError(problem)
    except (SyntaxError, ValueError, KeyError):
        raise ValueError(problem) from None
    try:
        return made(*numbers)
    except TypeError:
        raise ValueError(problem) from None


@dataclass(frozen=True)
class Samples:
    """A random (or quasi-random) design instead of a product: `count` points, method and seed of the generator."""

    count: int
    method: str = "sobol"
    seed: int = 0

    def shares(self, dimensions: int) -> np.ndarray:
        """Points in the unit cube, shape (count, dimensions), from scipy.stats.qmc."""
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


def samples(count: int, method: str = "sobol", seed: int = 0) -> Samples:
    """A design of `count` points in the ranges of a sweep; method: "sobol", "halton", "latin" or "random"."""
    if not isinstance(count, (int, np.integer)) or count < 1:
        raise ValueError(f"samples: count must be a whole number >= 1, got {count!r}")
    if method not in METHODS:
        raise ValueError(f"samples: method must be one of {METHODS}, got {method!r}")
    return Samples(int(count), method, int(seed))


def design_of(given: Any) -> Samples | None:
    """The design that is meant by None, a Samples, or text such as "samples(1024, 'halton')"."""
    if given is None or isinstance(given, Samples):
        return given
    try:
        tree = ast.parse(str(given).strip(), mode="eval").body
        if not isinstance(tree, ast.Call) or getattr(tree.func, "id", "") != "samples":
            raise SyntaxError
        arguments = [ast.literal_eval(a) for a in tree.args]
        return samples(*arguments, **{str(k.arg): ast.literal_eval(k.value) for k in tree.keywords})
    except (SyntaxError, TypeError):
        raise ValueError(f"design must be like \"samples(1024, 'sobol')\", got {given!r}") from None


def seeds_of(given: Any) -> int | tuple[int, ...]:
    """Seeds from a number, a sequence, or text: "7", "0:4" (0, 1, 2, 3) or "1,5,9"."""
    try:
        if isinstance(given, str):
            if ":" in given:
                low, high = given.split(":")
                given = range(int(low), int(high))
            else:
                given = [int(part) for part in given.split(",")] if "," in given else int(given)
        seeds = int(given) if isinstance(given, (int, np.integer)) else tuple(int(s) for s in given)
    except (TypeError, ValueError):
        raise ValueError(f"seeds must be a whole number, a list of them, or text like '0:4', got {given!r}") from None
    listed = (seeds,) if isinstance(seeds, int) else seeds
    if not listed or min(listed) < 0 or len(set(listed)) < len(listed):
        raise ValueError(f"seeds must be different whole numbers >= 0, at least one, got {given!r}")
    return seeds
