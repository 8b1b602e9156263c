"""What the page knows beside its mathematics: presets, their losses, and starts as data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import xarray as xr
from matplotlib.colors import to_hex

from toymodel import plotting, presets
from toymodel.expression import read
from toymodel.model import Model
from toymodel.provenance import version
from toymodel.start import paper_start, random_start
from toymodel.sweeps.plots import PHASE_COLOURS

PRESETS: dict[str, Callable[..., Model]] = {
    "coopetition": presets.coopetition,
    "long_pathway": presets.long_pathway,
    "shared_encoder": presets.shared_encoder,
    "induction": presets.induction,
}
SEEDS = range(12)  # of the starts that are in the page
INK = {"icl": plotting.COLOURS["icl"], "ciwl": "#B94F00", "cost": "#565C66", "shared": "#00785A"}  # for small text
KIND = {"Clamp": "#F3D9C6", "Freeze": "#CFE4F2", "Block": "#E3D5EA", "Change": "#CDE9DF"}  # of interventions
AXES = {"alpha": "alpha (competition)", "lr": "step size", "scale": "scale of the start"}


def losses(model: Model) -> dict[str, Model]:
    """The losses of a model that a page on disk can switch between: its own, each mechanism alone, and their sum."""
    names = list(model.mechanisms)
    texts = [*names, *([" + ".join(names)] if len(names) > 1 else [])]
    return {loss_text(model): model, **{text: with_loss(model, text) for text in texts}}


def loss_text(model: Model) -> str:
    """The loss as text that `Model.from_expression` reads."""
    return str(model.expression)


def with_loss(model: Model, text: str, parameters: Mapping[str, float] | None = None) -> Model:
    """The model with another loss of the same terms, and the parameters that are in it.

    A parameter that is in neither the model nor `parameters` is 0.1. Raises ValueError for what `Model` refuses.
    """
    known = {**model.parameters, **(parameters or {})}
    used = {name: known.get(name, 0.1) for name in sorted(read(text).names - set(model.terms))}
    return Model.from_expression(text, model.mechanisms, model.dims, costs=model.costs, parameters=used)


def starts(model: Model) -> dict[str, list[list[list[float]]]]:
    """For each kind of start and seed: target norms, overlaps and residuals, in the order of the vectors."""
    return {"paper": rows(paper_start(model, SEEDS)), "random": rows(random_start(model, SEEDS))}


def rows(start: xr.Dataset) -> list[list[list[float]]]:
    """A start along `seed` as nested lists (seed, quantity, vector)."""
    names = ("target_norm", "overlap", "residual")
    return [[start[name].sel(seed=seed).values.tolist() for name in names] for seed in start["seed"].values]


def usual(name: str) -> dict[str, Any]:
    """The start with which the page shows a preset; its values have the names of `toymodel.Sweep`."""
    if name == "long_pathway":
        values = {f"{part}_{x}": value for part, of in presets.LONG_PATHWAY_START.items() for x, value in of.items()}
        return {"start": "random", "seed": 0, "values": {key: value for key, value in values.items() if value != 1}}
    if name == "shared_encoder":
        return {"start": "random", "seed": 0, "values": {"scale": 0.3}}
    return {"start": "paper", "seed": 7, "values": {}}


def described(name: str, model: Model) -> dict[str, Any]:
    """What the page shows of a preset."""
    return {
        "name": name,
        "terms": dict(model.terms),
        "mechanisms": list(model.mechanisms),
        "vectors": list(model.vectors),
        "dims": list(model.dims.values()),
        "parameters": dict(model.parameters),
        "loss": loss_text(model),
        "losses": list(losses(model)),
        "typed": {},
        "starts": starts(model),
        "usual": usual(name),
    }


def data() -> dict[str, Any]:
    """The constants of the page, by name."""
    return {
        "PRESETS": {name: described(name, make()) for name, make in PRESETS.items()},
        "COLOURS": plotting.COLOURS,
        "NAMES": plotting.NAMES,
        "VECTORS": plotting.VECTORS,
        "PHASES": {**PHASE_COLOURS, "ciwl": plotting.COLOURS["ciwl"], "icl": plotting.COLOURS["icl"]},
        "INK": INK,
        "KIND": KIND,
        "AXES": AXES,
        "SHADES": [to_hex(colour) for colour in plotting.shades(64)],
        "RELAXED": plotting.RELAXED,
        "VERSION": version("toymodel"),
    }
