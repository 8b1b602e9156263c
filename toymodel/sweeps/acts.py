"""Interventions in a sweep: as objects, or as text in which the names of swept values may stand.

Clamp("d", overlap=0, residual=0); Change(until=t_switch, alpha=0)      with over=dict(t_switch=[0, 500, 1000])
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from toymodel.model import Model
from toymodel.simulation.interventions import Block, Change, Clamp, Freeze, Intervention

KINDS: dict[str, Any] = {"Clamp": Clamp, "Freeze": Freeze, "Block": Block, "Change": Change}


def interventions_of(given: Sequence[Any] | str) -> tuple[Intervention | str, ...]:
    """Interventions as objects, and those that use swept values as text in a standard spelling."""
    parts = [part for part in given.split(";") if part.strip()] if isinstance(given, str) else list(given)
    found: list[Intervention | str] = []
    for part in parts:
        if isinstance(part, Intervention):
            found.append(part)
            continue
        if not isinstance(part, str):
            raise ValueError(f"interventions must be Clamp, Freeze, Block, Change or text, got {part!r}")
        call = _call(part)
        late = _names(call) or any(keyword.arg == "loss" for keyword in call.keywords)
        found.append(ast.unparse(call) if late else _built(call, {}, None))
    return tuple(found)


def names_in(acts: Sequence[Intervention | str]) -> set[str]:
    """The swept names that the texts among the interventions use."""
    return {name for act in acts if isinstance(act, str) for name in _names(_call(act))}


def built(act: Intervention | str, values: Mapping[str, float], model: Model) -> Intervention:
    """The intervention with these values in place of names."""
    return _built(_call(act), values, model) if isinstance(act, str) else act


def at_runs(act: Intervention, coordinates: Mapping[str, np.ndarray]) -> Intervention:
    """The intervention with every labelled value looked up at the coordinates of each run."""

    def looked_up(value: Any) -> Any:
        if not isinstance(value, (xr.DataArray, xr.Dataset)):
            return value
        if unknown := {str(d) for d in value.dims} - set(coordinates) - {"vector"}:
            raise ValueError(
                f"{type(act).__name__}: a value has the dimension {sorted(unknown)[0]!r}, not of this sweep"
            )
        where = {str(d): xr.DataArray(coordinates[str(d)], dims="run") for d in value.dims if d != "vector"}
        return value.sel(where).drop_vars([str(name) for name in where])

    if isinstance(act, Change):
        values = {p: looked_up(value) for p, value in act.parameters().items()}
        return Change(at=act.at, until=act.until, loss=act.loss, **values)  # type: ignore[attr-defined]
    return replace(act, **{part.name: looked_up(getattr(act, part.name)) for part in fields(act)})


def described(act: Intervention | str, model: Model) -> str:
    """One line that is the same for the same intervention; labelled values enter with a digest."""
    if isinstance(act, str):
        return act
    parts = []
    for name, value in sorted(vars(act).items()):
        if callable(value):
            value = act.changed(model).expression
        elif isinstance(value, (xr.DataArray, xr.Dataset)):
            value = hashlib.sha256(json.dumps(value.to_dict(), default=str).encode()).hexdigest()[:16]
        elif isinstance(value, dict):
            value = {k: float(v) if np.ndim(v) == 0 else v.to_dict() for k, v in sorted(value.items())}
        elif isinstance(value, (int, float)) and name != "entries":
            value = float(value)
        if value is not None and value != float("inf"):
            parts.append(f"{name}={value}")
    return f"{type(act).__name__}({', '.join(parts)})"


def _call(text: str) -> ast.Call:
    try:
        call = ast.parse(text.strip(), mode="eval").body
    except SyntaxError:
        call = None
    if not isinstance(call, ast.Call) or getattr(call.func, "id", None) not in KINDS:
        raise ValueError(f"an intervention must be like 'Clamp(\"d\", overlap=0)', one of {list(KINDS)}, got {text!r}")
    return call


def _names(call: ast.Call) -> set[str]:
    arguments = [*call.args, *(keyword.value for keyword in call.keywords)]
    return {node.id for argument in arguments for node in ast.walk(argument) if isinstance(node, ast.Name)}


def _built(call: ast.Call, values: Mapping[str, float], model: Model | None) -> Intervention:
    def value(node: ast.expr) -> Any:
        if isinstance(node, ast.Name):
            if node.id not in values:
                raise ValueError(f"{ast.unparse(call)}: {node.id!r} is not varied in this sweep")
            return float(values[node.id])
        try:
            return ast.literal_eval(node)
        except ValueError:
            raise ValueError(f"{ast.unparse(call)}: {ast.unparse(node)!r} is no number, text or name") from None

    kind = call.func.id  # type: ignore[attr-defined]
    keywords = {str(keyword.arg): value(keyword.value) for keyword in call.keywords}
    if kind == "Change" and model is not None and isinstance(keywords.get("loss"), str):
        keywords["loss"] = _loss(model, keywords["loss"], keywords)
    if isinstance(keywords.get("entries"), float):
        keywords["entries"] = int(keywords["entries"])
    try:
        return KINDS[kind](*[value(argument) for argument in call.args], **keywords)
    except TypeError as error:
        raise ValueError(f"{ast.unparse(call)}: {error}") from None


def _loss(model: Model, text: str, values: Mapping[str, Any]) -> Any:
    """The loss that a text stands for, with the values of its parameters as defaults."""
    try:
        names = {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)} - set(model.terms)
    except SyntaxError as error:
        raise ValueError(f"Change: loss is not an expression: {text!r} ({error})") from None
    have = {**model.parameters, **values}
    if missing := names - set(have):
        raise ValueError(f"Change: loss={text!r} has the unknown name {sorted(missing)[0]!r}; give it a value")
    own = {p: float(have[p]) for p in names}
    other = Model.from_expression(text, model.mechanisms, model.dims, costs=model.costs, parameters=own)
    return partial(other.loss, **own)
