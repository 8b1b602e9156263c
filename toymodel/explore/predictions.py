"""JavaScript of what theory predicts: the emergence of a mechanism, and the slow manifold.

Emergence follows `toymodel.theory.weighted_sum`: the field of the zeroth order and of the first, written out by sympy,
with its coefficients, tolerances and ranges. `web/emergence.js` integrates it as that module does.
"""

from __future__ import annotations

import json
from typing import Any

import sympy as sp

from toymodel.explore.printer import function
from toymodel.model import Form
from toymodel.presets import coopetition
from toymodel.reduction import cost_loss, unlearned_loss
from toymodel.symbolic import System
from toymodel.theory import slow_manifold, transience, weighted_sum

RANGES = ("STAGES", "MISSED", "LARGEST_SHIFT", "LEAST_DRIVE", "PACE", "TOO_FAR", "MOST_STEPS", "RTOL", "ATOL")


def emergence(form: Form) -> dict[str, str]:
    """Functions of a kernel that predict when its mechanisms emerge, by name.

    change(z, c, out): the velocity of the coordinates z = (y, d) and of their first order. margins(y, c, out): the loss
    of each mechanism in units of the unlearned one, minus one half. ending(m)(z, v, c, out) of the mechanism m, with v
    the velocity of z: dg/dy v_y, dg/dy d, the derivative of the latter along v, and the drive.
    """
    system = System(form)
    y = system.coordinates
    d, v = ([sp.Symbol(f"{name}_{i}", real=True) for i in range(2 * len(y))] for name in "dv")
    d = d[: len(y)]
    reference = {t: _reference(system, t) for t in system.terms}
    at_zero = {t: value.subs(dict.fromkeys(y, 0)) for t, value in reference.items()}
    slopes = {t: sp.diff(system.loss, t) for t in system.terms}
    pulls = {t: slope.xreplace(reference) for t, slope in slopes.items()}
    zeroth = [-sp.Add(*(pulls[t] * sp.diff(value, x) for t, value in system.terms.items())) for x in y]
    progress = {t: value - reference[t] for t, value in system.terms.items()}
    bent = {t: sp.Add(*(sp.diff(s, q).xreplace(reference) * progress[q] for q in progress)) for t, s in slopes.items()}
    added = [-sp.Add(*(bent[t] * sp.diff(value, x) for t, value in system.terms.items())) for x in y]
    first = [along(part, y, d) + more for part, more in zip(zeroth, added, strict=True)]
    shared = {"z": [*y, *d], "c": system.constants}
    endings = []
    for m, margin in system.margins.items():
        change = along(margin, y, d)
        there = {t: value + along(value, y, d) for t, value in system.terms.items()}
        slope: Any = slopes[sp.Symbol(m, nonnegative=True)]
        drive = slope.xreplace(there) / slope.xreplace(at_zero)
        wanted = [along(margin, y, v[: len(y)]), change, along(change, [*y, *d], v), drive]
        endings.append(function({"z": [*y, *d], "v": v, "c": system.constants}, wanted))
    return {
        "change": function(shared, [*zeroth, *first]),
        "margins": function({"y": y, "c": system.constants}, list(system.margins.values())),
        "endings": f"[{', '.join(endings)}]",
    }


def along(value: Any, places: list[Any], direction: list[Any]) -> sp.Expr:
    """The derivative of a value in a direction."""
    return sp.Add(*(sp.diff(value, x) * step for x, step in zip(places, direction, strict=True)))


def _reference(system: System, term: sp.Symbol) -> sp.Expr:
    """The term if the product of overlaps were zero: l + w Q / 2 of a mechanism, a cost as it is."""
    name = str(term)
    planes, weight = [system.planes[x] for x in system.form.terms[name]], sp.Symbol(f"w_{name}", positive=True)
    rest = unlearned_loss(planes, weight) if name in system.form.mechanisms else 0
    return sp.sympify(rest + cost_loss(planes, weight))


def ranges() -> str:
    """The coefficients, tolerances and ranges of the prediction, as a JavaScript object."""
    return json.dumps({name: getattr(weighted_sum, name) for name in RANGES})


def slow_plane() -> str:
    """The slow manifold of the paper's loss and its fold, as a JavaScript object of functions."""
    system = System(coopetition().form)
    p, d = transience.MISSING[2], system.planes["d"].u
    printed = {
        "velocity": function({"p": [p, d], "c": system.constants}, slow_manifold.where_held()),
        "fold": function({"c": system.constants}, [slow_manifold.where_learned()[1]]),
        "crowding": function({"p": [p], "c": system.constants}, [*transience.forces(), transience.crowding()]),
    }
    return "{" + ",\n".join(f"{name}: {text}" for name, text in printed.items()) + "}"
