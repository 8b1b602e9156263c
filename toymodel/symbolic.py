"""The reduced loss in symbols: its terms, slope and Jacobian, and functions of them for any kind of number.

The loss is a function l(t_1, t_2, ...) of its terms, and a term t is a function of the overlap m_x and the squared
norm q_x = |x|^2 of each of its vectors. So the slope in the coordinates u and v of a vector (`toymodel.reduction`) is

    dl/du = P u - R,    dl/dv = P v,    P = 2 sum_t l_t dt/dq_x,    R = -sum_t l_t dt/dm_x,    l_t = dl/dt,

which is short, since t is linear in every m and q of a vector that it holds once. Everything that needs a derivative
of the loss takes it from here: the kernel of descent, gradient flow, fixed points, curvature.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import sympy as sp

from toymodel.model import Form
from toymodel.reduction import Plane, cost_loss, mechanism_loss, symbols, unlearned_loss

Compiled = Callable[..., Any]
Assignment = tuple[sp.Symbol, sp.Expr]
SCALE = sp.Symbol("scale", positive=True)


@dataclass(frozen=True)
class System:
    """A form of loss with what interventions change in its slope.

    gates: pairs (term, vector) of which a factor of the gradient passes. pushed: vectors to whose gradient something is
    added. heads: vectors whose first entries are clamped to the target. fixed: vectors that do not move.
    """

    form: Form
    gates: frozenset[tuple[str, str]] = frozenset()
    pushed: frozenset[str] = frozenset()
    heads: frozenset[str] = frozenset()
    fixed: frozenset[str] = frozenset()

    @cached_property
    def _symbols(self) -> tuple[dict[str, Plane], dict[str, sp.Symbol], dict[str, sp.Symbol]]:
        return symbols(self.form, self.heads)

    @cached_property
    def _of_gates(self) -> dict[tuple[str, str], sp.Symbol]:
        return {(t, x): sp.Symbol(f"gate_{t}_{x}", real=True) for t, x in sorted(self.gates)}

    @cached_property
    def _of_pushes(self) -> dict[str, tuple[sp.Symbol, sp.Symbol]]:
        return {x: sp.symbols(f"push_u_{x} push_v_{x}", real=True) for x in sorted(self.pushed)}

    @property
    def planes(self) -> dict[str, Plane]:
        """The symbols of each vector."""
        return self._symbols[0]

    @property
    def parameters(self) -> dict[str, sp.Symbol]:
        """The symbol of each parameter that the loss depends on."""
        return self._symbols[2]

    @property
    def coordinates(self) -> list[sp.Symbol]:
        """u of all vectors, then v of all vectors, in the order of `form.vectors`."""
        return [self.planes[x].u for x in self.form.vectors] + [self.planes[x].v for x in self.form.vectors]

    @property
    def constants(self) -> list[sp.Symbol]:
        """Target norm of each vector (after it, for a clamped head, its shares c and s), weights, parameters, gates,
        and pushes (u, then v, of one vector after the other)."""
        of_vectors = [c for x in self.form.vectors for c in self.planes[x][2:] if isinstance(c, sp.Symbol)]
        of_slope = [*self._of_gates.values(), *(p for both in self._of_pushes.values() for p in both)]
        return [*of_vectors, *self._symbols[1].values(), *self.parameters.values(), *of_slope]

    @cached_property
    def terms(self) -> dict[sp.Symbol, sp.Expr]:
        """Every mechanism and cost: its symbol in the loss, and what it is in the coordinates."""
        return {_term(t): sp.sympify(self._value(t, self.planes, w)) for t, w in self._symbols[1].items()}

    def _value(self, term: str, planes: Any, weight: Any) -> Any:
        of = mechanism_loss if term in self.form.mechanisms else cost_loss
        return of([planes[x] for x in self.form.terms[term]], weight)

    @property
    def loss(self) -> sp.Expr:
        """The loss in the symbols of its terms."""
        return self.form.expression

    @cached_property
    def reduced_loss(self) -> sp.Expr:
        """The loss in the coordinates."""
        return self.loss.subs(self.terms)  # type: ignore[return-value]

    @cached_property
    def margins(self) -> dict[str, sp.Expr]:
        """For each mechanism its loss in units of the unlearned one, minus one half: negative once it is learned."""
        return {
            m: self.terms[_term(m)] / unlearned_loss([self.planes[x] for x in letters], self._symbols[1][m])
            - sp.Rational(1, 2)
            for m, letters in self.form.mechanisms.items()
        }

    @cached_property
    def observed(self) -> dict[str, sp.Expr]:
        """What a record holds: loss, losses of mechanisms, costs, overlaps, residuals, in coordinates and terms."""
        names = {(f"loss_{t}" if str(t) in self.form.mechanisms else str(t)): t for t in self.terms}
        overlaps = {f"overlap_{x}": sp.sympify(self.planes[x].overlap) for x in self.form.vectors}
        residuals = {f"residual_{x}": sp.sqrt(self.planes[x].residual_square) for x in self.form.vectors}
        return {"loss": self.loss, **names, **overlaps, **residuals}

    @cached_property
    def _definitions(self) -> dict[sp.Symbol, sp.Expr]:
        """What `staged` knows beside coordinates and constants, each in those before it:

        S_t = prod |x*| and h_t = w_t / 2 of each term, the terms, k_t = w_t l_t, s_t = k_t S_t, and P_x and R_x of each
        vector that moves, times the `scale` of the slope.
        """
        found: dict[sp.Symbol, sp.Expr] = {}
        late: dict[sp.Symbol, sp.Expr] = {}
        square, overlap = ({x: sp.Symbol(f"{name}_{x}", positive=True) for x in self.form.vectors} for name in "qm")
        places: dict[Any, Any] = {square[x]: _square(plane) for x, plane in self.planes.items()}
        places |= {overlap[x]: plane.overlap for x, plane in self.planes.items()}
        parts: dict[str, tuple[sp.Symbol, sp.Expr]] = {}
        for t, weight in self._symbols[1].items():
            letters = self.form.terms[t]
            half, whole, pull = (sp.Symbol(f"{name}_{t}", positive=True) for name in "hSk")
            found |= {half: weight / 2, whole: sp.Mul(*(self.planes[x].target for x in letters))}
            one = {x: plane._replace(target=whole if x == letters[0] else 1) for x, plane in self.planes.items()}
            at = one if not self.heads & set(letters) else self.planes  # the target of a clamped head is in its overlap
            found[_term(t)] = sp.sympify(self._value(t, at, 2 * half))
            rate = sp.Symbol(f"w{SCALE}_{t}", positive=True)
            found[rate] = SCALE * weight
            late[pull] = sp.diff(self.loss, _term(t)) * rate
            late[sp.Symbol(f"s_{t}", positive=True)] = pull * whole
            seen = {x: _seen(whole if x == letters[0] else 1, overlap[x], square[x]) for x in letters}
            parts[t] = pull, sp.expand(self._value(t, seen, sp.Integer(1)))
        found |= late
        for x in self.form.vectors:
            if x in self.fixed:
                continue
            gated = [(self._of_gates.get((t, x), 1), *parts[t]) for t in self.form.terms]
            stiff = sp.Add(*(2 * gate * pull * sp.diff(value, square[x]) for gate, pull, value in gated))
            drive = sp.Add(*(-gate * pull * sp.diff(value, overlap[x]) for gate, pull, value in gated))
            driven = {sp.Symbol(f"k_{t}", positive=True) * sp.Symbol(f"S_{t}", positive=True): f"s_{t}" for t in parts}
            drive = drive.subs({product: sp.Symbol(name, positive=True) for product, name in driven.items()})
            for name, value in (("P", stiff), ("R", drive)):
                found[sp.Symbol(f"{name}_{x}", real=True)] = sp.factor_terms(value).subs(places)
        return found

    @cached_property
    def slope(self) -> list[sp.Expr]:
        """dl/dy for every coordinate, 0 for what is fixed, in the definitions that `staged` knows."""
        rows = []
        for of_v in (False, True):
            for x, plane in self.planes.items():
                stiff, drive = sp.Symbol(f"P_{x}", real=True), sp.Symbol(f"R_{x}", real=True)
                along = sp.diff(plane.overlap, plane.u)  # 1, or the share s of the target where a head is clamped
                row = stiff * plane.v if of_v else stiff * plane.u - drive * along
                push = SCALE * self._of_pushes[x][of_v] if x in self.pushed else 0
                rows.append(sp.Integer(0) if x in self.fixed else row + push)
        return rows

    @cached_property
    def jacobian(self) -> list[list[sp.Expr]]:
        """d(slope)/dy, rows first: the Hessian of the reduced loss where nothing is gated or fixed."""
        full = {t: [sp.diff(value, y) for y in self.coordinates] for t, value in self.terms.items()}
        vectors, rows = [*self.form.vectors, *self.form.vectors], []
        for i, x in enumerate(vectors):
            row = []
            for j, y in enumerate(self.coordinates):
                parts = []
                for t in self.terms if x not in self.fixed else ():
                    bent = sp.diff(self.loss, t) * sp.diff(full[t][i], y)
                    mixed = [sp.diff(self.loss, t, s) * full[t][i] * full[s][j] for s in self.terms]
                    parts.append(self._of_gates.get((str(t), x), 1) * sp.Add(bent, *mixed))
                row.append(sp.Add(*parts))
            rows.append(row)
        return rows

    def staged(self, wanted: Sequence[sp.Expr], scale: Any = 1) -> tuple[list[Assignment], list[sp.Expr]]:
        """Expressions of coordinates, constants, terms and parts of the slope, as assignments, each of what stands
        before it, and what is left of the expressions: what is common is computed once. The slope is multiplied by
        `scale`, such as a symbol for the step size."""
        known: dict[Any, Any] = {symbol: value.subs(SCALE, scale) for symbol, value in self._definitions.items()}
        rest: list[Any] = [value.subs(SCALE, scale) for value in wanted]
        used: dict[Any, Any] = {}
        ahead = list(rest)
        while ahead:
            for symbol in sorted(ahead.pop().free_symbols & set(known) - set(used), key=str):
                used[symbol] = known[symbol]
                ahead.append(known[symbol])
        found: Any = sp.cse([*used.values(), *rest], symbols=sp.numbered_symbols("x_", real=True))
        shared, reduced = found
        left = [*shared, *zip(used, reduced, strict=False)]
        order: list[Assignment] = []
        waiting = {symbol for symbol, _ in left}
        while left:
            ready = [part for part in left if not part[1].free_symbols & waiting]
            order += ready
            waiting -= {symbol for symbol, _ in ready}
            left = [part for part in left if part[0] in waiting]
        return order, reduced[len(used) :]

    def function(self, wanted: Any, kind: str = "math") -> Compiled:
        """A function of coordinates and constants, one after the other, that computes the expressions.

        wanted: an expression, a list of them or a list of lists. kind: "math" for numbers, "numpy" or "jax" for arrays.
        """
        return _function(self, _frozen(wanted), kind)


@cache
def _function(system: System, wanted: Any, kind: str) -> Compiled:
    def stages(expressions: Any, **_: Any) -> tuple[list[Assignment], Any]:
        before, after = system.staged(list(_flat(expressions)))
        return before, _shaped(expressions, iter(after))

    staged: Any = stages  # sympy takes a function here, though its annotation says bool
    return sp.lambdify([*system.coordinates, *system.constants], _thawed(wanted), kind, cse=staged)


def _term(name: str) -> sp.Symbol:
    return sp.Symbol(name, nonnegative=True)


def _seen(target: Any, overlap: Any, square: Any) -> Plane:
    """A vector by its overlap m and squared norm q in place of coordinates."""
    return Plane(overlap, sp.sqrt(square - overlap**2), target)


def _square(plane: Plane) -> Any:
    """q in the coordinates; with c^2 + s^2 = 1 for a clamped head, q = c^2 |x*|^2 + u^2 + v^2."""
    held = plane.head**2 * plane.target**2 if isinstance(plane.head, sp.Symbol) else 0
    return held + plane.u**2 + plane.v**2


def _frozen(wanted: Any) -> Any:
    return tuple(map(_frozen, wanted)) if isinstance(wanted, (list, tuple)) else sp.sympify(wanted)


def _thawed(wanted: Any) -> Any:
    return list(map(_thawed, wanted)) if isinstance(wanted, tuple) else wanted


def _flat(wanted: Any) -> Iterable[sp.Expr]:
    if isinstance(wanted, (list, tuple)):
        for part in wanted:
            yield from _flat(part)
    else:
        yield wanted


def _shaped(like: Any, values: Iterator[Any]) -> Any:
    """The values, one after the other, in the nesting of `like`."""
    return [_shaped(part, values) for part in like] if isinstance(like, (list, tuple)) else next(values)
