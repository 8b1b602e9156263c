"""A sweep as a declaration: the model, what is varied, and how each run is made. It computes nothing.

A sweep is the same whether it was written in Python, in a TOML file or on a command line; its `identity` is what a
store remembers, and what a later call is compared with. What can be varied in `over`, or set for all runs in `fixed`,
for a vector x and a term t (`scale` and `target_scale` also without a letter, for all vectors):

    any parameter of the loss, alpha, mu_icl, ...       lr                  the step size
    dim_x                 the number of entries         weight_t            the weight w_t
    scale_x, norm_x       start: times a factor, |x|    target_scale_x, target_norm_x    the same of the target
    overlap_x, residual_x start: coordinates            integrator          "descent" or "flow"
    intervention          cases, label -> text          any other name that the text of an intervention uses

The weights and target norms of a model keep their ratio to the default ones when a dimension changes.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import tomllib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import xarray as xr

from toymodel import presets
from toymodel.batch import as_text
from toymodel.checks import (
    MOST_ENTRIES,
    MOST_RATE,
    MOST_RUNS,
    POSITIVE,
    LearningRate,
    PathLike,
    Positive,
    Steps,
    Tolerance,
    check_values,
    checked,
    number,
    shown,
)
from toymodel.model import Model
from toymodel.names import LABELLED, OF_VECTORS, check_name
from toymodel.simulation.interventions import digest, interventions_of, names_in
from toymodel.start import check_start
from toymodel.sweeps.axes import Axis, Samples, axis_of, design_of, seeds_of

STARTS = ("paper", "random", "aligned")
Integrator = Literal["descent", "flow"]
INTEGRATORS = get_args(Integrator)
MOST_CHUNK = 16_384
WORK = MOST_CHUNK * 16_000  # run-steps in a chunk, about half a second of descent
FLOW_STEPS = 250_000  # what a run of flow costs, about, in steps of descent


@checked
@dataclass(frozen=True, eq=False)
class Sweep:
    """A sweep as a declaration, before it is run; `Sweep.from_toml` reads one from a file.

    Arguments:
        model, over, seeds, ...: those of `toymodel.sweep`. All are checked here.

    Raises:
        ValueError that names the field.

    >>> import toymodel as tm
    >>> one, other = (Sweep(tm.induction(), {"lr": text}) for text in ([0.5, 1.0], "[0.5, 1.0]"))
    >>> one == other
    True
    """

    model: Model
    over: Mapping[str, Any]
    seeds: Any = 0
    steps: Steps = 16_000
    start: Any = "paper"
    lr: LearningRate = 1.0
    integrator: Integrator = "descent"
    interventions: Sequence[Any] | str = ()
    fixed: Mapping[str, Any] = field(default_factory=dict)
    design: Samples | str | None = None
    stop_below: Positive | None = None
    every: Steps | None = None
    rtol: Tolerance = 1e-6
    chunk: Steps | None = None

    def __post_init__(self):
        put = object.__setattr__
        put(self, "over", {name: axis_of(name, given) for name, given in dict(self.over).items()})
        put(self, "seeds", seeds_of(self.seeds))
        put(self, "design", design_of(self.design))
        put(self, "interventions", interventions_of(self.interventions))
        put(self, "fixed", {name: number(f"fixed: {name}", value, -np.inf) for name, value in self.fixed.items()})
        for kind, names in ((int, ("steps", "chunk", "every")), (float, ("lr", "rtol", "stop_below"))):
            for name in names:
                given = getattr(self, name)
                put(self, name, None if given is None else kind(given))  # numpy's numbers cannot be written to JSON
        put(self, "chunk", self.chunk or self._usual_chunk())
        self._check()
        put(self, "lr", self.fixed.get("lr", self.lr))

    def _usual_chunk(self) -> int:
        """As many runs as take about half a second, a power of two: then progress moves, Ctrl-C is heard soon, and
        several workers have something to do. It depends on the sweep alone, so that a store may be continued anywhere.
        """
        flows = self.integrator == "flow" or "integrator" in self.over
        cost = max(self.steps, FLOW_STEPS) if flows else self.steps
        fits: int = 2 ** int(math.log2(max(WORK / cost, 1)))
        return min(max(fits, 256), MOST_CHUNK if self.every is None else 512)

    def _check(self) -> None:
        self._check_start()
        if both := set(self.over) & set(self.fixed):
            raise ValueError(f"{sorted(both)[0]} is both varied and fixed")
        if not self.over and self.design is not None:
            raise ValueError("a design needs at least one range in over")
        for name in (*self.over, *self.fixed):
            if name in self.free_names and name not in self.allowed:
                check_name("over", name, self.model.vectors, self.model.terms, parameter=True)
            elif name not in self.allowed:
                raise ValueError(f"cannot vary or fix {name!r}; allowed are {', '.join(self.allowed)}")
        self._check_size()
        if missing := self.free_names - {*self.over, *self.fixed}:
            name = sorted(missing)[0]
            hint = f"; in quotes if it is text: {name!r}" if set(name) <= set(self.model.vectors) else ""
            raise ValueError(f"an intervention uses {name!r}, which is neither varied nor fixed{hint}")
        for act in self.interventions:
            if not isinstance(act, str):
                act.check(self.model)
        for name, axis in self.over.items():
            self._check_values(name, axis)
        for name, value in self.fixed.items():
            self._check_numbers(name, np.array([value]))
        if (self.integrator == "flow" or "integrator" in self.over) and "lr" in self.over:
            raise ValueError("a varied lr is for integrator='descent'")
        if self.every is not None and "lr" in self.over:
            raise ValueError("every needs one lr, so that all runs are recorded at the same times")

    def _check_start(self) -> None:
        """Raises ValueError for what is no name of a start, no start of this model, and no function that makes one."""
        if isinstance(self.start, str):
            if self.start not in STARTS:
                raise ValueError(f"start must be one of {STARTS}, a Dataset or a function, got {self.start!r}")
            return
        made = self.made_start(self.model)
        check_start(self.model, made)
        if "seed" in made.dims and (missing := {*np.ravel(self.seeds).tolist()} - {*made["seed"].values.tolist()}):
            raise ValueError(f"start has no seed {min(missing)}; it has {made['seed'].values.tolist()}")
        if foreign := set(map(str, made.dims)) - {*self.over, "vector", "seed"}:
            raise ValueError(f"start has the dimension {min(foreign)!r}, which this sweep does not have (seeds, over)")

    def made_start(self, model: Model) -> xr.Dataset:
        """The start that was given as data, for a model that may have other dimensions."""
        given: Any = self.start
        made: Any = given(model) if callable(given) else given
        return made

    @cached_property
    def cases(self) -> dict[str, tuple[Any, ...]]:
        """The interventions of each case: label -> interventions."""
        axis = self.over.get("intervention", Axis("cases"))
        return {label: interventions_of(text) for label, text in zip(axis.values, axis.texts, strict=False)}

    @cached_property
    def free_names(self) -> set[str]:
        """Names in the texts of interventions that stand for values of this sweep."""
        return names_in([*self.interventions, *itertools.chain(*self.cases.values())])

    def _check_size(self) -> None:
        """Raises ValueError where there are more runs than can be computed, before anything is allocated for them."""
        points = [axis.size for axis in self.over.values()]
        if isinstance(self.design, Samples):
            points = [self.design.count]
        sizes = [n for n in (*points, np.size(self.seeds)) if n != 1]
        if math.prod(sizes) > MOST_RUNS:
            raise ValueError(
                f"over and seeds make {' x '.join(f'{n:,}' for n in sizes)} runs, at most {MOST_RUNS:,} can be swept"
            )

    @cached_property
    def allowed(self) -> tuple[str, ...]:
        """The names that can be varied or fixed."""
        of_vectors = [f"{prefix}_{x}" for prefix in OF_VECTORS for x in self.model.vectors]
        of_terms = [f"weight_{t}" for t in self.model.terms]
        return (*self.model.parameters, "lr", *LABELLED, "scale", "target_scale", *of_vectors, *of_terms)

    def _check_values(self, name: str, axis: Axis) -> None:
        if (axis.kind == "cases") != (name == "intervention"):
            raise ValueError(f"over: cases (label -> text) are for intervention, got {axis} for {name}")
        values = axis.points(name) if self.design is None or axis.size else np.array([axis.low, axis.high])
        if name.startswith("dim_") and self.design is None and len(values) < axis.size:
            warnings.warn(f"{name}: {axis} has {len(values)} different whole numbers", stacklevel=2)
        if name == "integrator" and not set(values.tolist()) <= set(INTEGRATORS):
            raise ValueError(f"integrator must be one of {INTEGRATORS}, got {values.tolist()}")
        if name not in LABELLED:
            self._check_numbers(name, values)

    def _check_numbers(self, name: str, values: np.ndarray) -> None:
        whole, signed = name.startswith("dim_"), name in self.free_names or name.startswith("overlap_")
        positive = name == "lr" or name.startswith(("weight_", "target_"))
        check_values(name, values.tolist(), 1.0 if whole else POSITIVE if positive else -np.inf if signed else 0.0)
        if whole and (wrong := values[np.round(values) != values]).size:
            raise ValueError(f"{name} must be a whole number >= 1, got {wrong[0]:g}")
        most = MOST_ENTRIES if whole else MOST_RATE if name == "lr" else np.inf
        if (values > most).any():
            raise ValueError(f"{name} must be at most {most:,}, got {values.max():g}")

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Everything that a result depends on, as it can be written to JSON."""
        return {
            "model": json.loads(self.model.to_json()),
            "over": {name: str(axis) for name, axis in self.over.items()},
            "seeds": self.seeds if isinstance(self.seeds, int) else list(self.seeds),
            "interventions": list(map(digest, self.interventions)),
            "fixed": dict(sorted(self.fixed.items())),
            "design": None if self.design is None else str(self.design),
            "start": self.start if isinstance(self.start, str) else as_text(self.made_start(self.model)),
            **{
                name: getattr(self, name)
                for name in ("steps", "lr", "integrator", "stop_below", "every", "rtol", "chunk")
            },
        }

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sweep) and json.dumps(self.identity) == json.dumps(other.identity)

    def __hash__(self) -> int:
        return hash(json.dumps(self.identity))

    @classmethod
    @checked
    def from_toml(cls, path: PathLike) -> tuple[Sweep, str | None]:
        """The sweep that a TOML file declares, and its `store`, if it names one.

        Raises OSError where the file cannot be read, ValueError for what is wrong in it.
        """
        given, store = read_toml(path)
        return cls(**given), store


def read_toml(path: str | os.PathLike[str]) -> tuple[dict[str, Any], str | None]:
    """The arguments of `Sweep` that a TOML file gives, and its `store`."""
    try:
        given = tomllib.loads(Path(path).read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not TOML: {error}") from None
    store = given.pop("store", None)
    if not isinstance(store, str | None):
        raise ValueError(f"{path}: store must be text, the name of a folder, got {shown(store)}")
    allowed = {part.name for part in fields(Sweep)}
    if unknown := set(given) - allowed:
        raise ValueError(f"{path}: unknown entry {sorted(unknown)[0]!r}; allowed are {sorted(allowed | {'store'})}")
    return {"over": {}, **given, "model": model_of_table(given.get("model", "coopetition"))}, store


def model_of_table(table: Mapping[str, Any] | str) -> Model:
    """A model from a table: a preset with its arguments, or what `Model.from_table` takes."""
    if not isinstance(table, (str, Mapping)):
        raise ValueError(f"model must be a table or the name of a preset, got {shown(table)}")
    table = {"preset": table} if isinstance(table, str) else dict(table)
    if "preset" not in table:
        return Model.from_table(table)
    name = table.pop("preset")
    preset = getattr(presets, name, None) if isinstance(name, str) and not name.startswith("_") else None
    if getattr(preset, "__annotations__", {}).get("return") not in ("Model", Model):
        raise ValueError(f"model: unknown preset {shown(name)}; one is 'coopetition'")
    try:
        return preset(**table)  # type: ignore[misc]
    except TypeError as error:
        raise ValueError(f"model: {error}") from None
