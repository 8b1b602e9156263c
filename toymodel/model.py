"""A model: mechanisms and costs made of shared vectors, and the loss that they enter.

A mechanism m made of the vectors x, y, ... learns a rank-one target tensor (* marks targets, x is the outer product),

    L_m = w_m / 2 |x* x y* x ... - x x y x ...|^2,        w_m = 1 / (number of entries), the `mean` of the paper;

a cost c made of the vectors x, y, ... is C_c = w_c / 2 |x x y x ...|^2. The loss of the model is any function of the
L_m, the C_c and named parameters that is written with the operators + - * / ** alone. That function is the one place
where the loss stands: fed with JAX arrays it is simulated, fed with sympy symbols it is derived from.

This module knows no dynamics; models with a name are in `toymodel.presets`.
"""

from __future__ import annotations

import inspect
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from sys import float_info
from typing import Any, TypeVar

import sympy as sp
from sympy.printing.str import StrPrinter

from toymodel.checks import MOST_ENTRIES, POSITIVE, Loss, checked, mapping, number, shown, whole
from toymodel.expression import Operand, read, record
from toymodel.names import check_name

Value = TypeVar("Value")
MOST_LETTERS = 64  # vectors of one term


class FrozenDict(Mapping[str, Value]):
    """A mapping with a hash; equal to another one that has the same items, in whatever order."""

    def __init__(self, items: Mapping[str, Value] | None = None):
        self._items = dict(items or {})

    def __getitem__(self, key: str) -> Value:
        return self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(frozenset(self._items.items()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mapping) and self._items == dict(other)

    def __repr__(self) -> str:
        return repr(self._items)


@dataclass(frozen=True)
class Balance:
    """A combination of squared norms, sum_x k_x |x|^2, and the rate at which gradient flow changes it (0:
    conserved)."""

    coefficients: FrozenDict[int]
    rate: sp.Expr

    @property
    def quantity(self) -> sp.Expr:
        """The combination as a sympy expression of the norms |x|, |y|, ..."""
        return sp.Add(*(k * sp.Symbol(f"|{x}|") ** 2 for x, k in self.coefficients.items()))

    @property
    def conserved(self) -> bool:
        return self.rate == 0

    def __str__(self) -> str:
        return f"d/dt({self.quantity}) = {self.rate}"

    def latex(self) -> str:
        """The balance as LaTeX.

        >>> from toymodel.presets import coopetition
        >>> print(coopetition().conserved()[1].latex())
        \\frac{d}{dt} \\left( |a|^{2} - |b|^{2} + |d|^{2} \\right) = - 8 \\alpha \\mathrm{cost}
        """
        powers = [f"{k} |{x}|^{{2}}" for x, k in self.coefficients.items()]
        text = " + ".join(powers).replace("+ -", "- ").replace(" 1 |", " |").removeprefix("1 ")
        words = [s for s in self.rate.free_symbols if len(str(s)) > 1 and sp.latex(s) == str(s)]
        names = {word: rf"\mathrm{{{word}}}" for word in words}
        return rf"\frac{{d}}{{dt}} \left( {text} \right) = {sp.latex(self.rate, symbol_names=names)}"

    def _repr_latex_(self) -> str:
        return f"${self.latex()}$"


@checked
@dataclass(frozen=True, eq=False)
class Model:
    """Mechanisms and costs of shared vectors, and a loss of them.

    A mechanism of the vectors x, y, ... has the loss w/2 sum (x* y* ... - x y ...)^2 over all entries of their outer
    product, with targets x*, y*, ...; a cost has w/2 sum (x y ...)^2.

    Arguments:
        mechanisms, costs: name -> the letters of its vectors, such as {"icl": "abc", "ciwl": "dbc"} and {"cost": "ad"}.
        loss: a function with one argument for each mechanism and cost (by name) and keyword-only parameters, written
            with operators only: `lambda icl, ciwl, cost, *, alpha=0.1: icl * ciwl + alpha * cost`. Exponents are
            numbers. `toymodel.expression` lists how large it may be.
        dims: letter -> number of entries of that vector, at most 1e9. Their order is that in which starts are drawn.
        parameters: name -> value, each >= 0; what is not given here is the default in the signature of the loss. A name
            that is an argument of a simulation, such as lr or steps, cannot be that of a parameter (`toymodel.names`).
        weights: term -> w, > 0; by default 1 / (number of entries of the term's tensor).
        target_norms: letter -> |x*|, > 0, for starts that draw no target; by default sqrt(dims), the root mean square
            of a standard normal target.

    Two models are equal when they have the same vectors, numbers and symbolic loss; only the order of `dims` counts. A
    model is pickled by the expression of its loss, so that a lambda can be sent elsewhere.

    Raises:
        ValueError that names the argument, for whatever is not as above.

    Source: Singh et al. 2025 (arXiv 2503.05631), section 6, for any loss of any vectors.

    >>> model = Model({"icl": "ab", "ciwl": "cb"}, lambda icl, ciwl: icl * ciwl, {"a": 4, "b": 4, "c": 8})
    >>> print(model.expression, dict(model.weights))
    ciwl*icl {'icl': 0.0625, 'ciwl': 0.03125}
    """

    mechanisms: Mapping[str, str]
    loss: Loss
    dims: Mapping[str, Any]  # of whole numbers; numpy's and without dimensions too, as the values of the others
    costs: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[str, Any] = field(default_factory=dict)
    target_norms: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        terms = _checked_terms(self.mechanisms, self.costs)
        dims = _checked_dims(self.dims, terms)
        defaults = _parameters_of(self.loss, terms)
        values = defaults | mapping("parameters", self.parameters, defaults)
        if missing := [p for p, value in values.items() if value is None]:
            raise ValueError(f"parameters must have a value for {missing[0]!r}, which has no default in the loss")
        weights = _weights_of_a_mean(terms, dims) | mapping("weights", self.weights, terms)
        norms = _norms_of_a_draw(dims) | mapping("target_norms", self.target_norms, dims)
        frozen = dict(
            mechanisms=self.mechanisms,
            costs=self.costs,
            dims=dims,
            parameters={p: number(p, value) for p, value in values.items()},
            weights={t: number(f"weights[{t!r}]", weight, POSITIVE) for t, weight in weights.items()},
            target_norms={x: number(f"target_norms[{x!r}]", norm, POSITIVE) for x, norm in norms.items()},
        )
        for name, value in frozen.items():
            object.__setattr__(self, name, FrozenDict(value))
        _ = self.expression  # a loss that is not made of operators fails here, not in the middle of a run

    @property
    def terms(self) -> FrozenDict[str]:
        """Mechanisms and costs together: name -> letters of the vectors."""
        return FrozenDict({**self.mechanisms, **self.costs})

    @property
    def vectors(self) -> tuple[str, ...]:
        """The letters of all vectors, in the order of `dims` (the order in which random starts are drawn)."""
        return tuple(self.dims)

    @cached_property
    def written(self) -> Operand:
        """The loss as it was written, operator by operator."""
        return record(self.loss, (*self.terms, *self.parameters))

    @cached_property
    def expression(self) -> sp.Expr:
        """The loss as a sympy expression of one symbol for each term and parameter."""
        loss = self.written.of(self._symbols)
        if loss.has(sp.zoo, sp.nan, sp.oo, -sp.oo):
            raise ValueError(f"loss must be finite, got {shown(str(loss))}: it divides by zero")
        for found in loss.atoms(sp.Number):
            if found and not _LEAST <= abs(found) <= _MOST:
                raise ValueError(f"loss must have numbers within the range of float64, got {sp.Float(found, 6)}")
        if not {str(s) for s in loss.free_symbols} & set(self.terms):
            raise ValueError(f"loss must depend on a mechanism or a cost, got {shown(str(loss))}")
        return loss

    @property
    def _symbols(self) -> dict[str, sp.Symbol]:
        return {name: sp.Symbol(name, nonnegative=True) for name in (*self.terms, *self.parameters)}

    @cached_property
    def _declared(self) -> sp.Expr:
        """The loss as it was written, in that order: to be shown, not to be computed with."""
        with sp.evaluate(False):
            loss = self.written.of(self._symbols)
        return _flat(loss)

    @cached_property
    def form(self) -> Form:
        """What is left when every number but those in the loss itself is taken away."""
        return Form(FrozenDict(self.mechanisms), FrozenDict(self.costs), self.expression, self.loss, self.vectors)

    @property
    def _key(self) -> tuple:
        terms = (FrozenDict(self.mechanisms), FrozenDict(self.costs), self.expression, self.vectors)
        return (*terms, self.dims, self.parameters, self.weights, self.target_norms)

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Model) and self._key == other._key

    def __reduce__(self) -> tuple[Any, ...]:
        """By the loss as it was written, so that the copy computes with the same operations in the same order."""
        return _unpickled, (str(self.written), {name: dict(getattr(self, name)) for name in _PARTS})

    def with_parameters(self, **parameters: float) -> Model:
        """The same model with other values of the named parameters."""
        return replace(self, parameters={**self.parameters, **parameters})

    def conserved(self) -> list[Balance]:
        """Conserved and balanced combinations of squared norms under gradient flow, found from the terms alone.

        A term t that holds x n_tx times contributes -2 dL/dt n_tx g_t to d|x|^2/dt with the same g_t for all of its
        vectors (`derivations/reduction.py`), and g_t = 2 t for a cost. So k is conserved when it is orthogonal to the
        rows n_t of all terms that the loss depends on, and balanced, with a rate that only the costs make, when it is
        orthogonal to those of the mechanisms. Conserved combinations come first.
        """
        slopes = {t: sp.diff(self.expression, sp.Symbol(t, nonnegative=True)) for t in self.terms}
        counts = {t: [Counter(xs)[x] for x in self.vectors] for t, xs in self.terms.items() if slopes[t] != 0}
        of_mechanisms = [counts[t] for t in self.mechanisms if t in counts]
        found: list[sp.Matrix] = []
        for rows in (list(counts.values()), of_mechanisms):
            for k in _nullspace(rows, len(self.vectors)):
                if sp.Matrix.hstack(*found, k).rank() > len(found):
                    found.append(k)
        balances = []
        for k in found:
            rates = [
                -4 * slopes[c] * sp.Symbol(c, nonnegative=True) * sp.Matrix([counts[c]]).dot(k)
                for c in self.costs
                if c in counts
            ]
            nonzero = {x: int(k_x[0]) for x, k_x in zip(self.vectors, k.tolist(), strict=True) if k_x != [0]}
            balances.append(Balance(FrozenDict(nonzero), sp.Add(*rates)))
        return balances

    def latex(self) -> str:
        """The loss as it was declared and its terms as LaTeX, one line each, as the paper writes them."""
        names = {sp.Symbol(t, nonnegative=True): rf"L_{{\mathrm{{{t}}}}}" for t in self.mechanisms}
        names |= {sp.Symbol(c, nonnegative=True): rf"C_{{\mathrm{{{c}}}}}" for c in self.costs}
        lines = [f"L &= {sp.latex(self._declared, symbol_names=names, order='none')}"]
        for t, xs in self.terms.items():
            product = r" \otimes ".join(xs)
            target = r" \otimes ".join(f"{x}^*" for x in xs)
            symbol = names[sp.Symbol(t, nonnegative=True)]
            inside = f"({target} - {product})^2" if t in self.mechanisms else f"({product})^2"
            if self._is_mean(t):
                lines.append(rf"{symbol} &= \tfrac12\,\mathrm{{mean}}\,[{inside}]")
            else:
                weight = sp.latex(sp.Float(self.weights[t], 6))
                lines.append(rf"{symbol} &= \tfrac{{w}}{{2}}\,\mathrm{{sum}}\,[{inside}],\quad w = {weight}")
        return r"\begin{aligned}" + " \\\\\n".join(lines) + r"\end{aligned}"

    def _repr_latex_(self) -> str:
        return f"${self.latex()}$"

    def __repr__(self) -> str:
        loss = sp.sstr(self._declared, order="none").replace("- 1*", "- ")  # sympy's way to write a difference
        lines = [f"L = {loss}"]
        for t, xs in self.terms.items():
            product = " x ".join(xs)
            inside = f"({' x '.join(f'{x}*' for x in xs)} - {product})^2" if t in self.mechanisms else f"({product})^2"
            mean = f"1/2 mean[{inside}]"
            lines.append(f"{t} = " + (mean if self._is_mean(t) else f"w/2 sum[{inside}], w = {self.weights[t]:g}"))
        norms = {x: norm for x, norm in self.target_norms.items() if norm != _norms_of_a_draw(self.dims)[x]}
        if self.parameters:
            lines.append(", ".join(f"{name} = {value:g}" for name, value in self.parameters.items()))
        lines.append("dimensions " + ", ".join(f"{x}: {n}" for x, n in self.dims.items()))
        if norms:
            lines.append("target norms " + ", ".join(f"{x}: {norm:g}" for x, norm in norms.items()))
        return "Model(" + "\n      ".join(lines) + ")"

    def _is_mean(self, term: str) -> bool:
        return self.weights[term] == _weights_of_a_mean(self.terms, self.dims)[term]

    def to_json(self) -> str:
        """Everything that defines the model; `Model.from_json` reads it back."""
        parts = {name: dict(getattr(self, name)) for name in _PARTS}
        parts["parameters"] = {p: self.parameters[p] for p in self.form.parameters}
        return json.dumps({"loss": _Exact().doprint(self.expression), **parts})

    @classmethod
    def from_json(cls, text: str) -> Model:
        """The model that `to_json` wrote (equal to it); raises ValueError for any other text."""
        try:
            parts = json.loads(text)
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"a model must be text in JSON, as Model.to_json writes it: {shown(str(error))}") from None
        return cls.from_table(parts)

    @classmethod
    def from_table(cls, parts: Any) -> Model:
        """The model of a table, such as TOML and JSON hold: `loss`, `mechanisms`, `dims`, and the other arguments."""
        parts = mapping("model", parts, ("loss", *_PARTS))
        if missing := [name for name in ("loss", "mechanisms", "dims") if name not in parts]:
            raise ValueError(f"model has no {missing[0]!r}; it needs loss, mechanisms and dims")
        return cls.from_expression(**parts)

    @classmethod
    def from_expression(cls, loss: str, mechanisms: Mapping[str, str], dims: Mapping[str, int], **others: Any) -> Model:
        """A model whose loss is text, such as "(icl + mu) * ciwl + alpha * cost".

        Every name in it that is no mechanism or cost is a parameter and needs a value in `parameters`.
        """
        terms = _checked_terms(mechanisms, others.get("costs", {}))
        return cls(mechanisms, loss_of_text(loss, terms), dims, **others)


class _Exact(StrPrinter):
    """Prints an expression with all digits of its numbers."""

    def _print_Float(self, expr: sp.Float) -> str:
        return repr(float(expr))

    def _print_Pow(self, expr: sp.Pow, rational: bool = True) -> str:
        return super()._print_Pow(expr, rational=True)  # x**(1/2), not sqrt(x)


def _unpickled(loss: str, parts: dict[str, Any]) -> Model:
    return Model.from_expression(loss, **parts)


_MOST, _LEAST = sp.Rational(float_info.max), sp.Rational(float_info.min)  # numbers of a loss, apart from 0
_PARTS = ("mechanisms", "costs", "dims", "parameters", "weights", "target_norms")


@dataclass(frozen=True)
class Form:
    """The terms and the loss of a model without its numbers: what a compiled simulation depends on.

    The order of terms counts here, though not for the model: compiled functions take their arguments in it.
    """

    mechanisms: FrozenDict[str]
    costs: FrozenDict[str]
    expression: sp.Expr
    loss: Callable[..., Any] = field(compare=False)
    vectors: tuple[str, ...]
    order: tuple[str, ...] = field(init=False, repr=False)

    def __post_init__(self):
        object.__setattr__(self, "order", (*self.mechanisms, *self.costs))

    @property
    def terms(self) -> dict[str, str]:
        return {**self.mechanisms, **self.costs}

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """The names of the parameters that the loss depends on, sorted."""
        return tuple(sorted({str(symbol) for symbol in self.expression.free_symbols} - set(self.terms)))


def _weights_of_a_mean(terms: Mapping[str, str], dims: Mapping[str, int]) -> dict[str, float]:
    return {t: 1 / math.prod(dims[x] for x in xs) for t, xs in terms.items()}


def _norms_of_a_draw(dims: Mapping[str, int]) -> dict[str, float]:
    return {x: math.sqrt(n) for x, n in dims.items()}


def _flat(loss: Any) -> sp.Expr:
    """Sums of sums and products of products as one sum or product, in the order in which they stand."""
    parts: list[Any] = []
    for part in map(_flat, loss.args):
        parts += part.args if part.func is loss.func and isinstance(part, (sp.Add, sp.Mul)) else [part]
    return loss.func(*parts, evaluate=False) if parts else loss


def _nullspace(rows: list[list[int]], columns: int) -> list[sp.Matrix]:
    """Integer basis of the vectors orthogonal to all rows, each with a positive first entry."""
    basis = []
    for k in sp.Matrix(len(rows), columns, lambda i, j: rows[i][j]).nullspace():
        k = k * sp.ilcm(*(entry.q for entry in k))
        basis.append(k if next(entry for entry in k if entry) > 0 else -k)
    return basis


def _checked_terms(mechanisms: Any, costs: Any) -> dict[str, str]:
    """Mechanisms and costs together; raises ValueError where one of them is not a name and letters."""
    if not mapping("mechanisms", mechanisms):
        raise ValueError("mechanisms must name at least one mechanism, such as {'icl': 'abc'}")
    terms = {**mechanisms, **mapping("costs", costs)}
    if len(terms) < len(mechanisms) + len(costs or {}):
        raise ValueError(f"{sorted(set(mechanisms) & set(costs))[0]!r} is both a mechanism and a cost")
    for what, part in (("mechanisms", mechanisms), ("costs", costs or {})):
        for name, letters in part.items():
            check_name(what, name, (), (), parameter=False)
            if not (isinstance(letters, str) and letters.isascii() and letters.isalpha()):
                raise ValueError(
                    f"{what}[{name!r}] must be letters, one for each vector, such as 'abc', got {shown(letters)}"
                )
            if len(letters) > MOST_LETTERS:
                raise ValueError(f"{what}[{name!r}] must be at most {MOST_LETTERS} letters, got {len(letters):,}")
    for name in terms:
        check_name("mechanisms and costs", name, set("".join(terms.values())), terms, parameter=False)
    return terms


def _checked_dims(dims: Any, terms: Mapping[str, str]) -> dict[str, int]:
    used = set("".join(terms.values()))
    if set(mapping("dims", dims)) != used:
        raise ValueError(f"dims must have one entry for each vector, {sorted(used)}, got {shown(list(dims))}")
    found = {x: whole(f"dims[{x!r}]", whole(f"dims[{x!r}]", n), 1, MOST_ENTRIES) for x, n in dims.items()}
    for t, letters in terms.items():
        if math.prod(found[x] for x in letters) > 1e300:
            raise ValueError(f"dims are too large: the tensor of {t!r} has more than 1e300 entries")
    return found


def _parameters_of(loss: Callable[..., Any], terms: Mapping[str, str]) -> dict[str, float | None]:
    """The keyword-only arguments of the loss and their defaults, once its other arguments are seen to be the terms."""
    try:
        arguments = inspect.signature(loss).parameters.values()
    except (TypeError, ValueError):
        raise ValueError(
            f"loss must be a function of the terms {sorted(terms)}, got {shown(loss)}, whose arguments have no names"
        ) from None
    keywords = [p for p in arguments if p.kind is p.KEYWORD_ONLY]
    named = {p.name for p in arguments} - {p.name for p in keywords}
    if named != set(terms) or any(p.kind in (p.POSITIONAL_ONLY, p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in arguments):
        raise ValueError(
            f"loss must take one argument for each mechanism and cost, {sorted(terms)}, got {sorted(named)}"
        )
    for p in keywords:
        check_name("parameters of the loss", p.name, set("".join(terms.values())), terms, parameter=True)
    return {p.name: None if p.default is p.empty else p.default for p in keywords}


def loss_of_text(text: str, terms: Iterable[str]) -> Callable[..., Any]:
    """The function that a text stands for: its arguments are the terms, every other name in it is a parameter."""
    tree = read(text)

    def loss(**values):
        return tree.of(values)

    kinds = inspect.Parameter
    loss.written = tree  # type: ignore[attr-defined]
    loss.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [kinds(t, kinds.POSITIONAL_OR_KEYWORD) for t in sorted(set(terms))]
        + [kinds(p, kinds.KEYWORD_ONLY) for p in sorted(tree.names - set(terms))]
    )
    return loss
