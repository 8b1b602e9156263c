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
    difference = sp.sympify(left) - sp.sympify(right)
    symbols = sorted(difference.free_symbols, key=str)
    numbers = random.Random(str(difference))
    for _ in range(points):
        point = {s: sp.Rational(numbers.randint(1, 10**6), 10**5) for s in symbols}
        value, size = (
            sp.N(e.subs(point), DIGITS + 20, maxn=400) for e in (difference, sp.Abs(left) + sp.Abs(right) + 1)
        )
        if not abs(value) <= sp.Float(10) ** -DIGITS * size:
            raise AssertionError(f"{what or 'the two sides'} differ by {sp.N(value, 5)} at {point}")


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
    """The project's modules that a derivation script imports when it runs (its own file first)."""
    files = {Path(m.__file__).resolve() for m in list(sys.modules.values()) if getattr(m, "__file__", None)}
    used = {
        path for path in files if path.is_relative_to(ROOT / "toymodel") and path.stem not in ("plotting", "__init__")
    }
    return [f"derivations/{script.name}", *sorted(str(path.relative_to(ROOT)) for path in used)]


def fingerprint(used: list[str]) -> str:
    """A hash of the contents of the sources."""
    digest = hashlib.sha256()
    for name in used:
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()[:16]
