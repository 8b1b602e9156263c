"""The loop of gradient descent as generated code: the slope that sympy derives, on lanes of runs, compiled by numba.

A block is LANES runs side by side. All that a block carries stands in one small array A of rows of LANES numbers, at
offsets that the compiler knows, so that it sees that rows do not overlap and steps eight runs at once; what depends on
constants alone is computed once a block. STRIDE steps write the terms of the loss to a buffer B; one pass then takes
the measures (`toymodel.measures.follow`) through it, with what is known of a run in registers.

    y <- y - lr dl/dy                                      "plain"
    p <- momentum p - lr dl/dy,  y <- keep y + p           "inertia", keep = 1 - lr weight_decay
    u <- keep u - lr dl/du - e_u,
    v <- sqrt((keep v - lr dl/dv - e_v)^2 + e_r)           "noise": errors of each step as they are given

Operations are strict IEEE in float64, in the order of the expressions, whatever the width of the machine's vectors.
A residual that has decayed below SMALL becomes zero, at every step number that STRIDE divides: its square adds nothing
to a loss, and processors take several times longer over numbers below 2e-308, as which it would end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import sympy as sp
from sympy.printing.pycode import PythonCodePrinter

from toymodel import measures
from toymodel.compiled import FAST, HEAD, module
from toymodel.symbolic import System

LANES = 32  # runs in a block: what they carry stays in the first-level cache
STRIDE = 8  # steps between two passes of the measures
SMALL = 1e-140  # of a residual: its square times weights is still a normal number
LR = sp.Symbol("lr", positive=True)
Kernel = Callable[..., None]


@dataclass(frozen=True)
class Loop:
    """One kind of loop. followed: whether it takes measures; recorded: whether it records; limit: "first" notes the
    first step at which the loss is below a threshold, "stop" also ends the run there; rule: how a step is made."""

    system: System
    followed: bool
    recorded: bool
    limit: str = ""
    rule: str = "plain"

    @cached_property
    def rows(self) -> dict[str, int]:
        """What a block carries between two calls: name of a row -> its number."""
        names = [*map(str, self.system.coordinates), *map(str, self.system.constants), "lr", "still"]
        if self.followed:
            for m in self.system.form.mechanisms:
                names += [f"inside_{m}", *(f"{quantity}_{m}" for quantity in measures.BEGIN)]
        if self.limit:
            names += ["threshold", "stopped"]
        if self.rule != "plain":
            names += ["keep"]
        if self.rule == "inertia":
            names += ["momentum", *(f"p_{y}" for y in self.system.coordinates)]
        return {name: i for i, name in enumerate(names)}

    @property
    def errors(self) -> int:
        """How many numbers a step of noise takes for each run: e_u, e_v, e_r of each vector."""
        return 3 * len(self.system.form.vectors)

    def kernel(self) -> Kernel:
        """The compiled loop, a function of (G, E, out, base, at, until, every, final):

        G (block, row, LANES), what the runs carry, changed in place; E (step, error, block, LANES), the errors of
        noise, of one step more than are made; out (quantity, time, run), the record of loss, terms and coordinates, in
        which the first run of G is `base`. Makes the steps `at` to `until`; records each `every` steps (0: not at
        all); with `final`, looks at the state after the last step, too. The row `still` says whether the last step
        changed no bit.
        """
        return module(_text(self)).kernel


@cache
def _text(loop: Loop) -> str:
    """The module of a loop."""
    return "\n".join([HEAD, f"SMALL = {SMALL!r}", measures.running(), "", *_Writer(loop).lines()])


class _Writer:
    """Writes the text of one loop, line by line."""

    def __init__(self, loop: Loop):
        self.loop, self.system = loop, loop.system
        mechanisms = self.system.form.mechanisms
        terms = [t for t in self.system.terms if loop.recorded or str(t) in mechanisms]
        self.kept = ["loss"] * self.looks + list(map(str, terms))  # what the buffer has of each step
        wanted = [*terms, self.system.loss, *self.system.slope] if self.looks else [*terms, *self.system.slope]
        before, after = self.system.staged(wanted, LR)
        known = {*self.system.constants, LR}
        self.held, self.inner = [], []
        for symbol, value in before:
            constant = value.free_symbols <= known
            (self.held if constant else self.inner).append((symbol, value))
            if constant:
                known.add(symbol)
        self.terms, after = after[: len(terms)], after[len(terms) :]
        self.loss, self.slope = (after[0], after[1:]) if self.looks else (None, after)
        used = set().union(*(e.free_symbols for e in [*(v for _, v in self.inner), *self.terms, *after]))
        self.loaded = sorted((s for s in known if s in used), key=str)
        self.rows = dict(loop.rows)
        for symbol, _ in self.held:
            self.rows[str(symbol)] = len(self.rows)
        self.buffered = len(self.kept)
        symbols = [*self.system.coordinates, *self.system.constants, LR, *(s for s, _ in before)]
        self.names = {s: sp.Symbol(f"s_{j}") for j, s in enumerate(symbols)}  # no name of a user gets into the text
        self.print = PythonCodePrinter({"fully_qualified_modules": True}).doprint

    def printed(self, value: Any) -> str:
        return str(self.print(sp.sympify(value).xreplace(self.names)))

    @property
    def looks(self) -> bool:
        """Whether the loss itself is looked at."""
        return self.loop.recorded or bool(self.loop.limit)

    def at(self, row: str) -> str:
        return f"A[{self.rows[row] * LANES} + i]"

    def lines(self) -> list[str]:
        inputs, size, buffer = len(self.loop.rows), len(self.rows) * LANES, STRIDE * self.buffered * LANES
        count = len(self.system.coordinates)
        return [
            FAST,
            "def kernel(G, E, out, base, at, until, every, final):",
            f"    raw = np.empty({size + buffer + count * LANES + 24})",
            "    begin = (-(raw.ctypes.data >> 3)) & 7  # a row of LANES numbers begins on a line of the cache",
            f"    A = raw[begin : begin + {size}]",
            f"    B = raw[begin + {size} : begin + {size + buffer}]",
            f"    K = raw[begin + {size + buffer} : begin + {size + buffer + count * LANES}]",
            "    for b in range(G.shape[0]):",
            f"        for j in range({inputs}):",
            f"            for i in range({LANES}):",
            f"                A[j * {LANES} + i] = G[b, j, i]",
            *self.constants("        "),
            "        now = at",
            "        while now < until or final:",
            "            last = now >= until",
            f"            m = 1 if last else max(1, min({STRIDE}, until - 1 - now))",
            "            if every > 0:",
            "                m = min(m, every - now % every)",
            "            closing = last or now + 1 == until",
            "            if closing:",
            f"                for j in range({count * LANES}):",
            "                    K[j] = A[j]",
            *(self.record("            ") if self.loop.recorded else []),
            "            for k in range(m):",
            f"                kb = k * {self.buffered * LANES}",
            "                fn = float(now + k)",
            f"                if (now + k) % {STRIDE} == 0:",
            *self.without_small("                    "),
            *self.step("                "),
            *(self.record_terms("            ") if self.loop.recorded else []),
            *(self.follow("            ") if self.loop.followed else []),
            "            if last:",
            f"                for j in range({count * LANES}):",
            "                    A[j] = K[j]",
            "                break",
            "            if closing:",
            *self.compare("                "),
            "            now += m",
            f"        for j in range({inputs}):",
            f"            for i in range({LANES}):",
            f"                G[b, j, i] = A[j * {LANES} + i]",
            "",
        ]

    def constants(self, indent: str) -> list[str]:
        """What depends on constants alone."""
        body = [f"{self.printed(s)} = {self.at(str(s))}" for s in [*self.system.constants, LR]]
        for symbol, value in self.held:
            body += [
                f"{self.printed(symbol)} = {self.printed(value)}",
                f"{self.at(str(symbol))} = {self.printed(symbol)}",
            ]
        return self.over_lanes(body, indent)

    def without_small(self, indent: str) -> list[str]:
        """Residuals that count as zero."""
        residuals = self.system.coordinates[len(self.system.form.vectors) :]
        rows = [self.at(str(v)) for v in residuals]
        return self.over_lanes([f"{row} = {row} if abs({row}) > SMALL else 0.0" for row in rows], indent)

    def step(self, indent: str) -> list[str]:
        """Terms into the buffer, and one step."""
        loop, coordinates = self.loop, self.system.coordinates
        body = [f"{self.printed(s)} = {self.at(str(s))}" for s in [*coordinates, *self.loaded]]
        body += [f"{self.printed(symbol)} = {self.printed(value)}" for symbol, value in self.inner]
        names = [f"t{j}" for j in range(len(self.terms))]
        body += [f"{name} = {self.printed(value)}" for name, value in zip(names, self.terms, strict=True)]
        if self.looks:
            body += [f"total = {self.printed(self.loss)}"]
            names = ["total", *names]
        if loop.limit:
            body += [f"stopped = {self.at('stopped')}", "on = stopped >= NEVER"]
            body += [f"stopped = fn if on & (total < {self.at('threshold')}) else stopped"]
            body += [f"{self.at('stopped')} = stopped", "moves = stopped >= NEVER"]
        ended = loop.limit == "stop"
        for j, name in enumerate(names):
            body += [f"B[kb + {j * LANES} + i] = {f'{name} if on else np.nan' if ended else name}"]
        if loop.rule != "plain":
            body += [f"keep = {self.at('keep')}"]
        if loop.rule == "inertia":
            body += [f"momentum = {self.at('momentum')}"]
        for j, (y, slope) in enumerate(zip(coordinates, self.slope, strict=True)):
            if slope == 0:
                continue
            new = f"{self.printed(y)} - ({self.printed(slope)})"
            if loop.rule == "inertia":
                body += [f"p = momentum * {self.at(f'p_{y}')} - ({self.printed(slope)})"]
                body += [f"{self.at(f'p_{y}')} = p"]
                new = f"keep * {self.printed(y)} + p"
            if loop.rule == "noise":
                vectors = len(self.system.form.vectors)
                x, of_v = j % vectors, j >= vectors
                new = f"keep * {self.printed(y)} - ({self.printed(slope)}) - E[now - at + k, {3 * x + of_v}, b, i]"
                if of_v:
                    new = f"math.sqrt(({new}) ** 2 + E[now - at + k, {3 * x + 2}, b, i])"
            body += [f"{self.at(str(y))} = {f'{new} if moves else {self.printed(y)}' if ended else new}"]
        return self.over_lanes(body, indent)

    def record(self, indent: str) -> list[str]:
        """The coordinates at a time that is recorded."""
        return [
            f"{indent}marked = last or now % every == 0",
            f"{indent}where = out.shape[1] - 1 if last else now // every",
            f"{indent}size = min({LANES}, out.shape[2] - base - b * {LANES})",
            f"{indent}if marked:",
            f"{indent}    for j in range({len(self.system.coordinates)}):",
            f"{indent}        for i in range(size):",
            f"{indent}            out[{self.buffered} + j, where, base + b * {LANES} + i] = A[j * {LANES} + i]",
        ]

    def record_terms(self, indent: str) -> list[str]:
        return [
            f"{indent}if marked:",
            f"{indent}    for j in range({self.buffered}):",
            f"{indent}        for i in range(size):",
            f"{indent}            out[j, where, base + b * {LANES} + i] = B[j * {LANES} + i]",
        ]

    def follow(self, indent: str) -> list[str]:
        """The measures of each mechanism through the buffer, of which the steps that were not made say nothing."""
        lines = [
            f"{indent}if m < {STRIDE}:",
            f"{indent}    for j in range(m * {self.buffered * LANES}, {STRIDE * self.buffered * LANES}):",
            f"{indent}        B[j] = np.nan",
            f"{indent}begins = float(now)",
        ]
        known = ", ".join(f"m_{name}" for name in measures.BEGIN)
        for mechanism in self.system.form.mechanisms:
            body = [f"m_{name} = {self.at(f'{name}_{mechanism}')}" for name in ("inside", *measures.BEGIN)]
            for k in range(STRIDE):
                at = (k * self.buffered + self.kept.index(mechanism)) * LANES
                body += [f"{known} = follow(begins + {float(k)}, B[{at} + i], m_inside, {known})"]
            body += [f"{self.at(f'{name}_{mechanism}')} = m_{name}" for name in measures.BEGIN]
            lines += self.over_lanes(body, indent)
        return lines

    def compare(self, indent: str) -> list[str]:
        """Which runs the last step left as they were."""
        same = " & ".join(f"(A[{j * LANES} + i] == K[{j * LANES} + i])" for j in range(len(self.system.coordinates)))
        return self.over_lanes([f"{self.at('still')} = 1.0 if {same} else 0.0"], indent)

    def over_lanes(self, body: list[str], indent: str) -> list[str]:
        return [f"{indent}for i in range({LANES}):", *(f"{indent}    {line}" for line in body)]
