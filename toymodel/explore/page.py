"""Puts the page together: one file of HTML with its style, its mathematics and its data."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

from toymodel.explore import predictions, printer
from toymodel.explore.content import PRESETS, data, losses
from toymodel.model import Model
from toymodel.simulation import rosenbrock

ENGINE = ("engine.js", "flow.js", "emergence.js", "acts.js", "problem.js", "worker.js")
INTERFACE = ("state.js", "draw.js", "views.js", "controls.js", "timeline.js", "diagram.js", "save.js", "main.js")


def part(name: str) -> str:
    """A file of the page as it stands in the package."""
    return (files("toymodel.explore") / "web" / name).read_text("utf-8")


@cache
def engine() -> str:
    """The JavaScript that computes: printed mathematics, then what is written by hand around it."""
    kernels = [
        f"KERNELS[{json.dumps(f'{name}: {text}')}] = {kernel(model, predicted=i == 0)};"
        for name in PRESETS
        for i, (text, model) in enumerate(losses(PRESETS[name]()).items())  # its own loss comes first
    ]
    table = {name: getattr(rosenbrock, name).tolist() for name in "ACD"}
    rodas = f"const RODAS = {json.dumps({'gamma': rosenbrock.GAMMA, **table})};"
    told = f"const THEORY = {predictions.slow_plane()}, WEIGHTED = {predictions.ranges()};"
    return "\n".join(["const KERNELS = {};", *kernels, printer.follow(), rodas, told, *map(part, ENGINE)])


def kernel(model: Model, predicted: bool = True) -> str:
    """The JavaScript object of a model's loss (`toymodel.explore.printer`); predicted: with that of emergence."""
    return printer.kernel(model.form, predictions.emergence(model.form) if predicted else {})


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
