"""Puts the page together: one file of HTML with its style, its mathematics and its data."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

import sympy as sp

from toymodel.explore import printer
from toymodel.explore.content import PRESETS, data, losses
from toymodel.model import Model
from toymodel.presets import coopetition
from toymodel.simulation import rosenbrock
from toymodel.symbolic import System
from toymodel.theory import slow_manifold, transience

ENGINE = ("engine.js", "flow.js", "acts.js", "problem.js", "worker.js")
INTERFACE = ("state.js", "draw.js", "views.js", "controls.js", "timeline.js", "diagram.js", "save.js", "main.js")


def part(name: str) -> str:
    """A file of the page as it stands in the package."""
    return (files("toymodel.explore") / "web" / name).read_text("utf-8")


@cache
def engine() -> str:
    """The JavaScript that computes: printed mathematics, then what is written by hand around it."""
    kernels = [
        f"KERNELS[{json.dumps(f'{name}: {text}')}] = {kernel(model)};"
        for name in PRESETS
        for text, model in losses(PRESETS[name]()).items()
    ]
    table = {name: getattr(rosenbrock, name).tolist() for name in "ACD"}
    rodas = f"const RODAS = {json.dumps({'gamma': rosenbrock.GAMMA, **table})};"
    return "\n".join(
        ["const KERNELS = {};", *kernels, printer.follow(), rodas, f"const THEORY = {theory()};", *map(part, ENGINE)]
    )


def kernel(model: Model) -> str:
    """The JavaScript object of a model's loss (`toymodel.explore.printer`)."""
    return printer.kernel(model.form)


def theory() -> str:
    """What is printed of `toymodel.theory`, for the loss of the paper: the slow manifold and its fold."""
    system = System(coopetition().form)
    p, d = transience.MISSING[2], system.planes["d"].u
    printed = {
        "velocity": printer.function({"p": [p, d], "c": system.constants}, slow_manifold.velocity()),
        "fold": printer.function({"c": system.constants}, [transience.fold()]),
        "crowding": printer.function(
            {"p": [p], "c": system.constants}, [*transience.forces(), sp.sympify(transience.crowding())]
        ),
    }
    return "{" + ",\n".join(f"{name}: {text}" for name, text in printed.items()) + "}"


def html(served: bool = False) -> str:
    """The whole page. served: whether `toymodel explore` is there to answer it."""
    values = {**data(), "SERVED": served}
    parts = {
        "STYLE": part("style.css"),
        "ENGINE": engine(),
        "DATA": "\n".join(f"const {name} = {_safe(json.dumps(value))};" for name, value in values.items()),
        "INTERFACE": "\n".join(map(part, INTERFACE)),
    }
    text = part("index.html")
    for name, content in parts.items():
        text = text.replace(f"/*{name}*/", content, 1)
    return text


def _safe(text: str) -> str:
    """JSON that cannot end the script that it stands in."""
    return text.replace("</", "<\\/")


def answer_of_loss(model: Model, text: str) -> dict[str, Any]:
    """What the page needs of a loss that was typed: its kernel, its text and its parameters."""
    return {"loss": text, "kernel": kernel(model), "parameters": dict(model.parameters)}
