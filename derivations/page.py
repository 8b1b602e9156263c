"""A derivation as a page: statements, equations and the checks that they passed, written as Markdown with LaTeX.

A derivation script builds a `Page`, and each `check` compares two sympy expressions: it raises where they differ, so
a page exists only for algebra that holds. Equality and limits are tested at random points to 30 digits
(Schwartz-Zippel), which does not depend on what `simplify` happens to know. The last line of a page names what it was
made from (the scripts here, the modules of the package that were imported, the data that were read), with a fingerprint
of them: a page whose algebra may have changed is stale.
"""

from __future__ import annotations

import random
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import sympy as sp

from toymodel import files, provenance

ROOT = Path(__file__).resolve().parent.parent
DIGITS = 30
PRECISION = 300  # digits with which limits are evaluated
NEAR = sp.Rational(1, 10**80)  # what stands for zero in a limit


def assert_equal(left: sp.Expr, right: sp.Expr, what: str = "", points: int = 5) -> None:
    """Raises AssertionError unless the expressions agree at random points to 30 digits."""
    sides = sp.sympify(left), sp.sympify(right)
    symbols = sides[0].free_symbols | sides[1].free_symbols
    for point in random_points(symbols, points):
        one, other = (side.xreplace(point) for side in sides)
        if not (one.is_Rational and other.is_Rational):
            one, other = (sp.N(side, DIGITS + 20, maxn=400) for side in (one, other))
        if not abs(one - other) <= sp.Float(10) ** -DIGITS * (abs(one) + abs(other)):
            raise AssertionError(f"{what or 'the two sides'} differ: {sp.N(one, 8)} and {sp.N(other, 8)} at {point}")


def assert_limit(expression: sp.Expr, symbol: sp.Symbol, right: sp.Expr, what: str = "", points: int = 3) -> None:
    """Raises AssertionError unless expression / right tends to 1 as the symbol does to zero.

    At random points of the other symbols, at 10^-80 for this one, to 30 digits: for errors of at least order 1/2.
    """
    for point in random_points((expression.free_symbols | right.free_symbols) - {symbol}, points):
        ratio = sp.N((expression / right).subs({**point, symbol: NEAR}), PRECISION, maxn=2_000)
        if not abs(ratio - 1) <= sp.Float(10) ** -DIGITS:
            raise AssertionError(f"{what or 'limit and expression'} differ by a factor {sp.N(ratio, 15)} at {point}")


def random_points(symbols: Collection[sp.Symbol], points: int) -> Iterator[dict[sp.Symbol, sp.Rational]]:
    """Rational values of both signs, positive ones where a symbol cannot be negative."""
    ordered = sorted(symbols, key=str)
    draw = random.Random(str(ordered))
    for _ in range(points):
        signs = [1 if s.is_nonnegative else draw.choice((-1, 1)) for s in ordered]
        yield {s: sp.Rational(sign * draw.randint(1, 10**4), 10**3 + 7) for s, sign in zip(ordered, signs, strict=True)}


class Page:
    """The page of the derivation script `script`; `title` is its heading."""

    def __init__(self, script: str, title: str, assumptions: list[str]):
        self.script = Path(script).resolve()
        self.parts = [f"# {title}"]
        numbered = [f"{i}. {text}" for i, text in enumerate(assumptions, 1)]
        self.parts.append("## Assumptions\n\n" + "\n".join(numbered))
        self.checks = 0
        self.figures: dict[str, Any] = {}  # name of the file -> matplotlib figure

    def uses(self, path: Path) -> Path:
        """The path of a data file that the page is made from."""
        return provenance.uses(path)

    def section(self, title: str) -> None:
        self.parts.append(f"## {title}")

    def text(self, text: str) -> None:
        """A paragraph; its line breaks do not matter."""
        self.parts.append(" ".join(text.split()))

    def lines(self, text: str) -> None:
        """Markdown as it stands (a table, a list)."""
        self.parts.append(text.strip("\n"))

    def equation(self, left: str, right: sp.Expr | str) -> None:
        """A displayed equation; an expression is typeset by sympy."""
        self.parts.append(f"$$ {left} = {right if isinstance(right, str) else sp.latex(right)} $$")

    def check(self, what: str, left: sp.Expr, right: sp.Expr) -> None:
        """States an equality that was tested."""
        assert_equal(left, right, what)
        self.claim(what, True)

    def limit(self, what: str, expression: sp.Expr, symbol: sp.Symbol, right: sp.Expr) -> None:
        """States that expression / right tends to 1 as the symbol does to zero, which was tested."""
        assert_limit(expression, symbol, right, what)
        self.claim(what, True)

    def claim(self, what: str, holds: bool) -> None:
        """States something that was tested in another way; raises AssertionError where it does not hold."""
        if not holds:
            raise AssertionError(what)
        self.checks += 1
        self.parts.append(f"*Checked ({self.checks}):* {' '.join(what.split())}")

    def figure(self, figure, caption: str) -> None:
        """Shows a matplotlib figure, which is saved beside the page (NAME.svg, NAME-2.svg, ...) with it."""
        number = 1 + len(self.figures)
        name = self.script.stem + (f"-{number}" if number > 1 else "") + ".svg"
        self.figures[name] = figure
        self.parts.append(f"![{name}]({name})\n\n{' '.join(caption.split())}")

    def write(self) -> Path:
        """Writes NAME.md and its figures beside the script."""
        for name, figure in self.figures.items():
            with files.written(self.script.with_name(name)) as whole:
                figure.savefig(whole, metadata={"Date": None})
        path = self.script.with_suffix(".md")
        mark = provenance.stamp(path, ROOT, provenance.made_from(self.script), self.figures)
        with files.written(path) as whole:
            whole.write_text("\n\n".join([*self.parts, mark]) + "\n")
        seconds = time.process_time()  # wanted: less than 60 on one core
        print(f"{path.relative_to(ROOT)}: {self.checks} checks, {seconds:.0f} s of processor time")
        return path
