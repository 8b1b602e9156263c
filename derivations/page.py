"""A derivation as a page: statements, equations and the checks that they passed, written as Markdown with LaTeX.

A derivation script builds a `Page`, and each `check` compares two sympy expressions: it raises where they differ, so
a page exists only for algebra that holds. Equality is tested at random points to 30 digits (Schwartz-Zippel), which
does not depend on what `simplify` happens to know. The page ends with a fingerprint of the sources it was made from.
"""

from __future__ import annotations

import hashlib
import os
import random
import sys
from pathlib import Path

import sympy as sp

ROOT = Path(__file__).resolve().parent.parent
DIGITS = 30


def assert_equal(left: sp.Expr, right: sp.Expr, what: str = "", points: int = 5) -> None:
    """Raises AssertionError unless the expressions agree at random points to 30 digits."""
    sides = sp.sympify(left), sp.sympify(right)
    symbols = sorted(sides[0].free_symbols | sides[1].free_symbols, key=str)
    numbers = random.Random(str(symbols))
    for _ in range(points):
        point = {s: sp.Rational(numbers.randint(1, 10**4), 10**3 + 7) for s in symbols}
        one, other = (side.xreplace(point) for side in sides)
        if not (one.is_Rational and other.is_Rational):
            one, other = (sp.N(side, DIGITS + 20, maxn=400) for side in (one, other))
        if not abs(one - other) <= sp.Float(10) ** -DIGITS * (abs(one) + abs(other)):
            raise AssertionError(f"{what or 'the two sides'} differ: {sp.N(one, 8)} and {sp.N(other, 8)} at {point}")


class Page:
    """The page of the derivation script `script`; `title` is its heading."""

    def __init__(self, script: str, title: str, assumptions: list[str]):
        self.script = Path(script).resolve()
        self.parts = [f"# {title}"]
        numbered = [f"{i}. {text}" for i, text in enumerate(assumptions, 1)]
        self.parts.append("## Assumptions\n\n" + "\n".join(numbered))
        self.checks = 0

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

    def claim(self, what: str, holds: bool) -> None:
        """States something that was tested in another way; raises AssertionError where it does not hold."""
        if not holds:
            raise AssertionError(what)
        self.checks += 1
        self.parts.append(f"*Checked ({self.checks}):* {' '.join(what.split())}")

    def figure(self, figure, caption: str) -> None:
        """Saves a matplotlib figure beside the page (NAME.svg, NAME-2.svg, ...) and shows it."""
        number = 1 + sum(part.startswith("![") for part in self.parts)
        name = self.script.stem + (f"-{number}" if number > 1 else "") + ".svg"
        figure.savefig(self.script.with_name(name), metadata={"Date": None})
        self.parts.append(f"![{name}]({name})\n\n{' '.join(caption.split())}")

    def write(self) -> Path:
        """Writes NAME.md beside the script."""
        path = self.script.with_suffix(".md")
        used = sources(self.script)
        mark = f"<!-- made from {', '.join(used)}; fingerprint {fingerprint(used)} -->"
        whole = path.with_suffix(".partial")
        whole.write_text("\n\n".join([*self.parts, mark]) + "\n")
        os.replace(whole, path)
        print(f"{path.relative_to(ROOT)}: {self.checks} checks")
        return path


def sources(script: Path) -> list[str]:
    """The script, and those modules of the model and of its theory that it imported when it ran."""
    imported = [Path(name).resolve() for m in list(sys.modules.values()) if (name := getattr(m, "__file__", None))]
    package = ROOT / "toymodel"
    theory = [path for path in imported if path.is_relative_to(package / "theory") and path.name != "__init__.py"]
    model = [path for path in imported if path in (package / "model.py", package / "reduction.py")]
    return [str(path.relative_to(ROOT)) for path in (script, *sorted({*model, *theory}))]


def fingerprint(used: list[str]) -> str:
    """A hash of the contents of the sources."""
    digest = hashlib.sha256()
    for name in used:
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()[:16]
