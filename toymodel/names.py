"""Names that are taken: what a parameter of a loss, a term or a varied value must not be called.

They stand in three places, and are read there: the schema of records and sweeps (here), the measures
(`toymodel.measures.VARIABLES`), and the arguments of every public function that takes a model or parameters of the loss
by keyword (from the source, so that a model needs no simulation to be imported).
"""

from __future__ import annotations

import ast
import keyword
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from toymodel.measures import VARIABLES

# variables and coordinates of records (`simulation.observe`), starts and sweeps, without those named after a term
RECORD = frozenset(
    {
        *("loss", "overlap", "residual", "target_norm", "stopped", "time", "step", "vector"),
        *("entries", "head_ee", "head_ew", "head_ww", "head_entries", "seed", "taken"),
        *("final", "sample", "run", "mechanism"),
    }
)
DIMENSIONS = frozenset({"seed", "taken", "sample", "run"})  # of these, what runs may lie along
OF_TERMS = ("loss_", "unlearned_", "event_", "weight_")  # what stands before the name of a term, or of an event
OF_VECTORS = ("scale", "target_scale", "dim", "norm", "target_norm", "overlap", "residual")  # before the letter
LABELLED = ("integrator", "intervention")  # axes of a sweep whose values are text
_SYMBOLS = ("u", "v", "T", "c", "s")  # of the reduced loss, before the letter, and w before the term (`reduction`)
_PACKAGE = Path(__file__).parent


def check_name(what: str, name: object, vectors: Iterable[str], terms: Iterable[str], parameter: bool) -> None:
    """Raises ValueError where something of a model, or of a sweep of it, cannot be called this."""
    if not (isinstance(name, str) and name.isidentifier() and not keyword.iskeyword(name)):
        raise ValueError(f"{what}: {name!r} cannot be a name; use an identifier, such as 'mu_icl'")
    kind = "a variable of records" if name in RECORD else "a measure" if name in VARIABLES else ""
    if parameter and not kind:
        kind = "an argument of a simulation or a sweep" if name in arguments() or name in LABELLED else ""
    if not kind and name in of_model(vectors, terms):
        kind = "a name made from a vector or a term of this model"
    if not kind and name.startswith(OF_TERMS[:3]):
        kind = "the beginning of a name in records"
    if kind:
        raise ValueError(f"{what}: {name!r} cannot be a name, since it is {kind}; use another one")


def check_dimension(what: str, name: object, terms: Iterable[str] = ()) -> None:
    """Raises ValueError where runs cannot lie along a dimension of this name, since a record has something else there.

    Runs may lie along `seed`, `alpha` or `t_switch`, and not along `time`, `loss` or the name of a cost.
    """
    taken = (RECORD - DIMENSIONS) | {*VARIABLES, *terms}
    if not isinstance(name, str) or not name or name in taken or name.startswith(OF_TERMS[:3]):
        raise ValueError(f"{what} {name!r} belongs to the record; use another name")


def of_model(vectors: Iterable[str], terms: Iterable[str]) -> set[str]:
    """Names that are made of the letters of vectors and of the names of terms."""
    terms = list(terms)
    of_vectors = {f"{kind}_{x}" for kind in (*OF_VECTORS, *_SYMBOLS) for x in vectors}
    return of_vectors | {f"{kind}{t}" for kind in (*OF_TERMS, "w_") for t in terms} | {*OF_VECTORS}


@cache
def arguments() -> frozenset[str]:
    """The arguments of the public functions that take a model, or parameters of the loss by keyword."""
    return frozenset(name for module, public in _public() for name in _arguments_in(module, public))


def _public() -> Iterator[tuple[Path, set[str]]]:
    """The modules of starts, simulations and sweeps, with what the package takes from them as public names.

    Not those of `theory`: what it calls the rate of a weight decay is a parameter of the loss.
    """
    found: dict[str, set[str]] = {}
    for node in ast.parse((_PACKAGE / "__init__.pyi").read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            found.setdefault(node.module, set()).update(alias.name for alias in node.names)
    for module, public in found.items():
        path = _PACKAGE.joinpath(*module.split(".")).with_suffix(".py")
        if module.split(".")[0] in ("start", "simulation", "sweeps") and path.exists():
            yield path, public


def _arguments_in(module: Path, public: set[str]) -> Iterator[str]:
    for node in ast.parse(module.read_text()).body:
        if getattr(node, "name", None) not in public:
            continue
        functions = [node, *getattr(node, "body", [])] if isinstance(node, ast.ClassDef) else [node]
        fields = [part.target.id for part in functions if isinstance(part, ast.AnnAssign)]  # type: ignore[union-attr]
        signatures = [part.args for part in functions if _is_call(part)]  # type: ignore[union-attr]
        named = [a.arg for s in signatures for a in (*s.posonlyargs, *s.args, *s.kwonlyargs)] + fields
        if "model" in named or any(s.kwarg for s in signatures):
            yield from (name for name in named if name not in ("self", "cls") and not name.startswith("_"))


def _is_call(node: ast.AST) -> bool:
    """A function, or what makes an object of a class."""
    return isinstance(node, ast.FunctionDef) and (node.col_offset == 0 or node.name == "__init__")
